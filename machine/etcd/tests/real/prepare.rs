//! Members prepared by the program itself, each started as the machine's agent would start it.
#![expect(clippy::print_stderr, reason = "a test that fails shows what was said")]

use std::{fs, path::Path, process::Command};

use agent_protocol::programs::{
    EtcdConfig, EtcdPhase, EtcdRestore, EtcdStatus, MembershipConfig, MembershipStatus, Standing,
};
use base_testkit::needs;
use machine_etcd::{
    client::{Member, Status},
    membership::Controller,
    prepare::{Prepare, Restorer},
};

use crate::world::{Running, World, program, wait_for};

/// A restorer without a backup.
struct Nothing;

impl Restorer for Nothing {
    fn restore(&self, _: &EtcdConfig, _: Option<&EtcdRestore>, _: &Path) -> Result<(), String> {
        Err("there is no backup".to_owned())
    }
}

impl World {
    fn config(&self, index: u8, members: &[u8], formed: bool) -> EtcdConfig {
        EtcdConfig {
            member: self.member(index).name,
            members: members.iter().map(|index| self.member(*index)).collect(),
            formed,
            data: self.path(&format!("data-{index}")).display().to_string(),
            spool: self.path("spool").display().to_string(),
            flags: self.flags(index),
            identity: self.identity(),
            restore: None,
        }
    }

    fn status_of(&self, config: &EtcdConfig) -> Option<EtcdStatus> {
        serde_json::from_slice(&fs::read(config.status()).ok()?).ok()
    }

    /// The command that becomes etcd, once it can.
    fn prepared(&self, config: &EtcdConfig) -> Command {
        let file = self.path(&format!("{}.json", config.member));
        fs::write(&file, serde_json::to_vec(config).unwrap()).unwrap();
        Prepare::new(&file, &program(), &Nothing, &|line| {
            eprintln!("{}: {line}", config.member)
        })
        .unwrap()
        .run()
        .unwrap()
    }

    fn start(&self, config: &EtcdConfig) -> Running {
        let command = self.prepared(config);
        Running::spawn(command, &self.path(&format!("{}.log", config.member)))
    }

    /// All members, once there is a leader: while members change, elections happen.
    fn members(&self, index: u8) -> Vec<Member> {
        wait_for("the members to be listed", || self.client(index).members().ok())
    }

    fn well(&self, index: u8) -> Option<Status> {
        self.client(index)
            .status()
            .ok()
            .filter(|status| status.leader != 0)
    }
}

#[test]
fn three_found_lose_one_and_take_it_back_as_a_learner() {
    if needs::file(needs::ETCD).is_none() {
        return;
    }
    let world = World::new();
    let all = [0, 1, 2];
    let fresh = |index| world.config(index, &all, false);
    let mut etcds: Vec<Running> = all.iter().map(|index| world.start(&fresh(*index))).collect();
    for index in all {
        wait_for("every founder to know a leader", || world.well(index));
    }
    let revision = wait_for("a write", || world.client(0).put(b"/a", b"1", 0).ok());

    // Its machine's disk is empty: even with `formed` false in its configuration, it must not found another
    // cluster.
    etcds[2].kill();
    fs::remove_dir_all(world.path("data-2")).unwrap();
    fs::remove_file(world.path("data-2.marker.json")).unwrap();
    let before = world.members(0);
    etcds[2] = world.start(&fresh(2));
    wait_for("the learner to have everything", || {
        world
            .well(2)
            .filter(|status| status.is_learner && status.header.revision >= revision)
    });
    let members = world.members(0);
    let id = |list: &[Member]| list.iter().find(|m| m.name == "m-2").map(|m| m.id);
    assert_eq!(members.len(), 3);
    assert_ne!(id(&members), id(&before));
    wait_for("the promotion", || {
        world.client(0).promote(id(&members).unwrap()).ok()
    });

    // With data it starts at once, without the others.
    etcds[2].kill();
    etcds[2] = world.start(&world.config(2, &all, true));
    wait_for("it to be back", || {
        world.well(2).filter(|status| !status.is_learner)
    });
    assert_eq!(id(&world.members(0)), id(&members));

    // A machine that replaces a lost one.
    etcds[1].kill();
    let joins = world.config(3, &[0, 2, 3], true);
    let third = std::thread::scope(|scope| {
        let third = scope.spawn(|| world.start(&joins));
        // etcd refuses additions while a voter is away: the membership controller must remove that one first.
        wait_for("the refusal to be told", || {
            let status = world.status_of(&joins)?;
            (status.phase == EtcdPhase::Joining && status.why?.contains("unhealthy")).then_some(())
        });
        let lost = world.members(0).iter().find(|m| m.name == "m-1").map(|m| m.id);
        wait_for("the removal", || world.client(0).remove(lost.unwrap()).ok());
        third.join().unwrap()
    });
    let _third = third;
    wait_for("the new learner", || {
        world.well(3).filter(|status| status.is_learner)
    });
    assert_eq!(world.client(0).local_value(b"/a").unwrap().unwrap(), b"1");
}

#[test]
fn one_of_three_stays_though_another_leads() {
    if needs::file(needs::ETCD).is_none() {
        return;
    }
    let world = World::new();
    let all = [0, 1, 2];
    let _etcds: Vec<Running> = all
        .iter()
        .map(|index| world.start(&world.config(*index, &all, false)))
        .collect();
    for index in all {
        wait_for("every founder to know a leader", || world.well(index));
    }
    let follows = all
        .into_iter()
        .find(|index| world.well(*index).is_some_and(|status| !status.leads()));
    let stays = follows.expect("two of three follow");
    // The leader's machine gets no further configuration.
    let mut controller = Controller::of(
        &format!("https://{}:2379", world.address(stays)),
        MembershipConfig {
            member: world.member(stays).name,
            members: vec![world.member(stays)],
            identity: world.identity(),
            status: world.path("membership.json").display().to_string(),
        },
    );
    wait_for("the others to be let go", || {
        // A refusal is retried at the next check.
        let _pause = controller.look(&|line| eprintln!("membership: {line}"));
        let members = world.client(stays).members().ok()?;
        (members.len() == 1 && members[0].name == world.member(stays).name).then_some(())
    });
}

#[test]
fn who_votes_is_told_without_a_leader_and_not_by_a_learner() {
    if needs::file(needs::ETCD).is_none() {
        return;
    }
    let world = World::new();
    let mut etcds = vec![world.start(&world.config(0, &[0, 1], false))];
    etcds.push(world.start(&world.config(1, &[0, 1], false)));
    wait_for("the founders to know a leader", || {
        world.well(0).and_then(|_| world.well(1))
    });
    etcds.push(world.start(&world.config(2, &[0, 1, 2], true)));
    wait_for("the learner", || world.well(2).filter(|status| status.is_learner));
    let mut controllers: Vec<(Controller, String)> = [1, 2]
        .into_iter()
        .map(|index| {
            let status = world
                .path(&format!("membership-{index}.json"))
                .display()
                .to_string();
            let config = MembershipConfig {
                member: world.member(index).name,
                // The learner is not wanted, so it is not promoted.
                members: vec![world.member(0), world.member(1)],
                identity: world.identity(),
                status: status.clone(),
            };
            let endpoint = format!("https://{}:2379", world.address(index));
            (Controller::of(&endpoint, config), status)
        })
        .collect();
    let mut standings = |what: &str, wanted: [Option<Standing>; 2]| {
        for ((controller, status), wanted) in controllers.iter_mut().zip(wanted) {
            wait_for(what, || {
                let _pause = controller.look(&|line| eprintln!("membership: {line}"));
                let said: MembershipStatus = serde_json::from_slice(&fs::read(&*status).ok()?).ok()?;
                (said.standing == wanted).then_some(())
            });
        }
    };
    // A membership controller of the leader itself would remove the learner.
    let leads = wait_for("a leader", || world.well(0)).leads();
    if leads {
        standings("all to be led", [Some(Standing::Led), Some(Standing::Learner)]);
    }
    etcds[0].kill();
    fs::remove_dir_all(world.path("data-0")).unwrap();
    let voters = vec!["m-0".to_owned(), "m-1".to_owned()];
    standings(
        "the voters to be told",
        [Some(Standing::Leaderless { voters }), Some(Standing::Learner)],
    );
    etcds[1].kill();
    etcds[2].kill();
    standings("nothing to be known any more", [None, None]);
}

#[test]
fn a_lone_member_that_lost_everything_waits_for_its_backup_and_says_so() {
    if needs::file(needs::ETCD).is_none() {
        return;
    }
    let world = World::new();
    let mut etcd = world.start(&world.config(0, &[0], false));
    wait_for("a leader", || world.well(0));
    etcd.kill();
    fs::remove_dir_all(world.path("data-0")).unwrap();
    let config = world.config(0, &[0], true);
    std::thread::scope(|scope| {
        let prepared = scope.spawn(|| world.prepared(&config));
        let status = wait_for("the reason", || {
            world.status_of(&config).filter(|status| status.why.is_some())
        });
        assert_eq!(status.phase, EtcdPhase::Restoring);
        assert_eq!(status.why.as_deref(), Some("there is no backup"));
        // An operator restores data by hand.
        fs::create_dir_all(world.path("data-0/member/wal")).unwrap();
        fs::create_dir_all(world.path("data-0/member/snap")).unwrap();
        fs::write(world.path("data-0/member/snap/db"), "").unwrap();
        fs::write(world.path("data-0/member/wal/0.wal"), "").unwrap();
        prepared.join().unwrap();
    });
    assert_eq!(world.status_of(&config).unwrap().phase, EtcdPhase::Started);
}
