//! Control planes of several members: how they grow, shrink, lose one and get another.

use cluster_spec::Tier;

use super::{healing::standing, *};

impl Ideal {
    fn members(&self) -> Vec<(u32, String)> {
        let mut found: Vec<_> = self
            .seen
            .machines
            .iter()
            .filter(|(_, machine)| !machine.record.deleting)
            .filter_map(|(id, machine)| match machine.role()? {
                Role::ControlPlane { index, .. } => Some((*index, id.clone())),
                Role::Node { .. } => None,
            })
            .collect();
        found.sort();
        found
    }

    /// What a machine's configuration is to be computed from.
    fn inputs(&self, id: &str) -> String {
        let (spec, observed) = (self.desired.spec(), &self.seen.observed);
        let records = self.seen.machines.values().map(|machine| &machine.record);
        let control_plane = ControlPlane::of(spec, observed, records);
        let addresses = Addresses::of(observed).unwrap();
        Frame::new(
            spec,
            &self.seen.renderers,
            self.seen.pki.unwrap(),
            &addresses,
            control_plane,
        )
        .config_inputs(&self.seen.machines[id].record)
    }

    /// One of a member's programs is not well, which is no matter of the machine yet.
    fn worsen(&mut self, id: &str) {
        self.says(id, |report| {
            let name = "kube-controller-manager".to_owned();
            report.processes.insert(name, process(ProcessState::BackOff));
        });
    }

    fn says(&mut self, id: &str, change: impl FnOnce(&mut Report)) {
        let machine = self.seen.machines.get_mut(id).unwrap();
        let mut report = (**machine.report.as_ref().unwrap()).clone();
        change(&mut report);
        machine.report = Some(Arc::new(report));
    }

    fn run_while_healing(&mut self, minutes: u64) {
        let end = after(self.now, Duration::from_secs(60 * minutes));
        while self.now < end {
            if !self.pass() {
                self.now = after(self.now, Duration::from_secs(5));
            }
        }
    }
}

#[test]
fn three_members_start_together_and_know_each_other() {
    let ideal = standing(Tier::Standard, vec![pool("a", 1)]);
    let members = ideal.members();
    assert_eq!(
        members.iter().map(|(index, _)| *index).collect::<Vec<_>>(),
        [0, 1, 2]
    );
    let addresses: BTreeSet<_> = ideal
        .seen
        .machines
        .values()
        .filter_map(|machine| match machine.role()? {
            Role::ControlPlane { address, .. } => Some(*address),
            Role::Node { .. } => None,
        })
        .collect();
    assert_eq!(addresses.len(), 3);
    assert!(ideal.seen.observed.roaming);
    assert_eq!(ideal.seen.observed.limits, Some(Tier::Standard));
    assert_eq!(ideal.seen.observed.generation, 1);
}

/// The first member may have formed etcd alone although its answer was lost: others that form it with it would be another etcd.
#[test]
fn a_tier_that_is_raised_before_anybody_has_heard_of_etcd_waits_for_the_first_member() {
    let mut ideal = Ideal::new(cluster(PodNetworking::Kubenet, vec![pool("a", 1)]), nothing_yet());
    while ideal.members().is_empty() {
        ideal.pass();
    }
    assert!(!ideal.seen.observed.formed);
    ideal.desired.change_spec(|spec| spec.tier = Tier::Standard);
    ideal.desired.generation = 2;
    let adds = ideal.plan().writes.iter().any(|write| {
        matches!(
            write,
            Write::RecordMachine {
                role: Role::ControlPlane { .. },
                ..
            }
        )
    });
    assert!(!adds);
    ideal.run();
    assert_eq!(ideal.members().len(), 3);
    assert_eq!(ideal.seen.observed.generation, 2);
}

#[test]
fn a_cluster_grows_to_three_and_shrinks_to_one_again() {
    let mut ideal = standing(Tier::Free, vec![pool("a", 1)]);
    let first = ideal.members();
    ideal.desired.change_spec(|spec| spec.tier = Tier::Standard);
    ideal.desired.generation = 2;
    // The member there is learns of the others before they start.
    let mut order = Vec::new();
    for _ in 0..100 {
        ideal.examine();
        for effect in ideal.plan().effects {
            if let Effect::Config(ConfigEffect::Render { machine, .. }) = effect {
                order.push(machine.machine().to_owned());
            }
        }
        if !ideal.pass() {
            break;
        }
    }
    assert_eq!(order[0], first[0].1);
    assert_eq!(ideal.members().len(), 3);
    assert_eq!(ideal.seen.observed.generation, 2);
    assert_eq!(
        ideal.seen.observed.limits,
        Some(Tier::Standard),
        "and the limits follow"
    );
    assert!(ideal.seen.observed.roaming);

    ideal.desired.change_spec(|spec| spec.tier = Tier::Free);
    ideal.desired.generation = 3;
    ideal.run();
    assert_eq!(ideal.members(), first, "the first stays");
    assert_eq!(ideal.seen.machines.len(), 2);
    assert!(
        ideal.seen.observed.roaming,
        "the VIP is held by the members for ever"
    );
    assert_eq!(ideal.seen.observed.generation, 3);
}

#[test]
fn the_only_member_is_configured_anew_while_others_are_still_to_come() {
    let mut ideal = standing(Tier::Free, vec![pool("a", 1)]);
    // What restarts it has changed as well, so that nobody is well beside it whom one could wait for.
    ideal.desired.change_spec(|spec| spec.tier = Tier::Standard);
    ideal
        .desired
        .change_spec(|spec| spec.fqdn = "other.local".to_owned());
    ideal.desired.generation = 2;
    ideal.run();
    assert_eq!(ideal.members().len(), 3);
    assert_eq!(ideal.seen.observed.generation, 2);
}

#[test]
fn nobody_new_is_configured_before_it_is_seen_what_the_others_know() {
    let mut ideal = standing(Tier::Free, vec![pool("a", 1)]);
    let old = ideal.members()[0].1.clone();
    ideal.desired.change_spec(|spec| spec.tier = Tier::Standard);
    ideal.desired.generation = 2;
    ideal.pass();
    assert_eq!(ideal.members().len(), 3);
    // The service has just started: nothing was read yet.
    ideal.seen.machines.get_mut(&old).unwrap().config = ConfigSeen::Unknown;
    let configured = |plan: &Plan| {
        let new = |effect: &Effect| matches!(effect, Effect::Config(ConfigEffect::Render { machine, .. }) if machine.machine() != old);
        plan.effects.iter().any(new)
    };
    assert!(!configured(&ideal.plan()), "{:?}", ideal.plan().effects);
    ideal.run();
    assert_eq!(ideal.seen.observed.generation, 2);
}

#[test]
fn etcd_may_have_been_formed_before_the_api_server_was_seen() {
    let mut ideal = standing(Tier::Standard, vec![pool("a", 1)]);
    ideal.desired.change_spec(|spec| spec.tier = Tier::Free);
    ideal.desired.generation = 2;
    for _ in 0..10 {
        ideal.seen.observed.formed = false;
        ideal.seen.api = nothing_yet().api;
        ideal.pass();
    }
    ideal.run();
    assert_eq!(ideal.members().len(), 1);
    assert_eq!(ideal.seen.observed.generation, 2);
}

#[test]
fn a_lost_member_is_replaced_and_a_second_one_never_taken_away_meanwhile() {
    let mut ideal = standing(Tier::Standard, vec![pool("a", 1)]);
    let before = ideal.members();
    let lost = before[1].1.clone();
    let machine = ideal.seen.machines.get_mut(&lost).unwrap();
    machine.record.enrolled_key = Some("key".to_owned());
    machine.presence = Presence::Absent;
    ideal.run_while_healing(5);
    assert_eq!(
        ideal.repairs()[0],
        "replacing the machine: it is not there any more"
    );
    let members = ideal.members();
    assert_eq!(members.len(), 3);
    assert!(!members.iter().any(|(_, id)| *id == lost));
    assert_eq!(ideal.voters, members.iter().map(|(_, id)| id.clone()).collect());
    assert_eq!(members[1].0, 2, "not the number of one that may still be known");

    // A second one falls silent while the third has not joined: it is rebooted, and kept.
    let mut ideal = standing(Tier::Standard, vec![pool("a", 9)]);
    let (one, two) = (ideal.members()[0].1.clone(), ideal.members()[1].1.clone());
    ideal.ill.insert(one.clone(), (ideal.now, RepairStep::Replace));
    ideal.ill.insert(two.clone(), (ideal.now, RepairStep::Replace));
    ideal.run_while_healing(60);
    let ids: Vec<_> = ideal.members().into_iter().map(|(_, id)| id).collect();
    assert!(ids.contains(&one) && ids.contains(&two));
    assert!(
        ideal
            .repairs()
            .iter()
            .any(|told| told.starts_with("restarting the machine"))
    );
    assert!(!ideal.repairs().iter().any(|told| told.starts_with("replacing")));
    // One of them comes back: the other is replaced.
    ideal.ill.remove(&one);
    ideal.run_while_healing(120);
    let ids: Vec<_> = ideal.members().into_iter().map(|(_, id)| id).collect();
    assert!(ids.contains(&one) && !ids.contains(&two) && ids.len() == 3);
}

#[test]
fn what_a_lost_leader_said_last_counts_for_nothing() {
    let mut ideal = standing(Tier::Standard, vec![pool("a", 1)]);
    let ids: Vec<_> = ideal.members().into_iter().map(|(_, id)| id).collect();
    let keeps = |leader: &String, voters: &[String]| {
        let status = MembershipStatus {
            voters: voters.to_vec(),
            leader: Some(leader.clone()),
            ..MembershipStatus::default()
        };
        ProcessSeen {
            status: serde_json::to_value(&status).ok(),
            ..process(ProcessState::Ready)
        }
    };
    // It led when the second had no vote yet, and did not come to tell of it.
    for (id, controller) in [
        (&ids[0], keeps(&ids[0], &[ids[0].clone(), ids[2].clone()])),
        (&ids[1], process(ProcessState::Ready)),
        (&ids[2], keeps(&ids[2], &ids)),
    ] {
        ideal.says(id, |report| {
            drop(report.processes.insert("etcd-keeper".to_owned(), controller))
        });
    }
    let lost = ideal.seen.machines.get_mut(&ids[0]).unwrap();
    lost.record.enrolled_key = Some("key".to_owned());
    lost.presence = Presence::Absent;
    ideal.examine();
    let replaced =
        |write: &Write| matches!(write, Write::Repair { machine, remove: true, .. } if *machine == ids[0]);
    let plan = ideal.plan();
    assert!(plan.writes.iter().any(replaced), "{:?}", plan.writes);
}

#[test]
fn an_only_member_starts_when_the_one_before_has_left_the_vip() {
    let mut ideal = standing(Tier::Free, vec![pool("a", 1)]);
    let old = ideal.members()[0].1.clone();
    ideal.seen.machines.get_mut(&old).unwrap().record.deleting = true;
    // A creation that was aborted: etcd holds nothing yet.
    ideal.seen.observed.formed = false;
    ideal.voters.clear();
    let mut started = Vec::new();
    for _ in 0..100 {
        ideal.examine();
        for effect in ideal.plan().effects {
            if let Effect::Fabric(FabricEffect::EnsureMachine(id)) = effect {
                assert!(!ideal.seen.machines.contains_key(&old), "{id} has the VIP too");
                started.push(id);
            }
        }
        if !ideal.pass() {
            break;
        }
    }
    assert_eq!(ideal.members().len(), 1);
    assert_ne!(ideal.members()[0].1, old);
    assert!(started.contains(&ideal.members()[0].1));
}

#[test]
fn a_tier_is_reached_when_all_members_go_by_its_limits() {
    let mut ideal = standing(Tier::Standard, vec![pool("a", 1)]);
    // Three members are there, and still go by the limits of the free tier.
    ideal.desired.generation = 2;
    ideal.seen.observed.limits = Some(Tier::Free);
    let members: Vec<_> = ideal.members().into_iter().map(|(_, id)| id).collect();
    for id in &members {
        let wanted = ideal.inputs(id);
        if let ConfigSeen::Published { inputs, .. } = &mut ideal.seen.machines.get_mut(id).unwrap().config {
            *inputs = wanted;
        }
    }
    // While one of them is not well they are not restarted, and nobody calls that reached.
    let well = ideal.seen.machines[&members[1]].report.clone();
    ideal.worsen(&members[1]);
    ideal.examine();
    assert!(ideal.plan().unfinished && ideal.plan().observed.generation == 1);
    ideal.seen.machines.get_mut(&members[1]).unwrap().report = well;
    let in_force = |ideal: &Ideal| {
        let of = |id: &String| match &ideal.seen.machines[id].config {
            ConfigSeen::Published { inputs, .. } => *inputs == ideal.inputs(id),
            _ => false,
        };
        ideal.seen.observed.limits == Some(Tier::Standard) && members.iter().all(of)
    };
    for _ in 0..100 {
        ideal.examine();
        let reached = ideal.plan().observed.generation == 2;
        assert!(!reached || in_force(&ideal));
        if reached {
            return;
        }
        ideal.pass();
    }
    panic!("never reached");
}

#[test]
fn a_member_whose_disk_is_full_serves_all_the_same() {
    let mut ideal = standing(Tier::Standard, vec![pool("a", 1)]);
    ideal.desired.generation = 2;
    ideal.seen.observed.limits = Some(Tier::Free);
    for (_, id) in ideal.members() {
        ideal.says(&id, |report| {
            report.disks = vec![agent_protocol::DiskSeen {
                path: "/".to_owned(),
                total_mib: 1000,
                free_mib: 1,
            }];
        });
    }
    ideal.examine();
    assert_eq!(ideal.plan().observed.limits, Some(Tier::Standard));
    // Who does not serve is named.
    let second = ideal.members()[1].1.clone();
    ideal.worsen(&second);
    ideal.examine();
    assert_eq!(ideal.plan().observed.limits, Some(Tier::Free));
    let wait = "waiting for the second control plane member, to bring the API servers to the tier's limits";
    assert!(
        ideal.plan().waits.iter().any(|why| why == wait),
        "{:?}",
        ideal.plan().waits
    );
}

#[test]
fn members_go_when_those_who_stay_go_by_the_limits_already() {
    let mut ideal = standing(Tier::Standard, vec![pool("a", 1)]);
    ideal.desired.change_spec(|spec| spec.tier = Tier::Free);
    ideal.desired.generation = 2;
    for _ in 0..100 {
        ideal.examine();
        if ideal
            .plan()
            .writes
            .iter()
            .any(|write| matches!(write, Write::MarkMachine(_)))
        {
            assert_eq!(ideal.seen.observed.limits, Some(Tier::Free));
            for (_, id) in ideal.members() {
                let wanted = ideal.inputs(&id);
                let ConfigSeen::Published { inputs, .. } = &ideal.seen.machines[&id].config else {
                    panic!()
                };
                assert_eq!(*inputs, wanted, "{id} would be restarted when nobody stands in");
            }
            return;
        }
        ideal.pass();
    }
    panic!("nobody goes");
}

#[test]
fn one_that_is_not_quite_well_is_not_restarted_beside_one_that_is_being_restarted() {
    let mut ideal = standing(Tier::Standard, vec![pool("a", 1)]);
    ideal
        .desired
        .change_spec(|spec| spec.fqdn = "other.local".to_owned());
    ideal.desired.generation = 2;
    let members: Vec<_> = ideal.members().into_iter().map(|(_, id)| id).collect();
    let configured = |ideal: &Ideal| -> Vec<String> {
        let effects = ideal.plan().effects.into_iter();
        let of = |effect| match effect {
            Effect::Config(ConfigEffect::Render { machine, .. }) => Some(machine.machine().to_owned()),
            _ => None,
        };
        effects.filter_map(of).filter(|id| members.contains(id)).collect()
    };
    ideal.examine();
    assert_eq!(configured(&ideal), members[..1]);
    // It is being made, and nothing is known of it yet.
    let first = Subject::Config(members[0].clone());
    ideal.seen.busy.insert(first.clone());
    assert_eq!(configured(&ideal), Vec::<String>::new());
    ideal.seen.busy.remove(&first);
    // The first has its configuration, and its agent has not said yet that it is in force.
    let wanted = ideal.inputs(&members[0]);
    let first = ideal.seen.machines.get_mut(&members[0]).unwrap();
    let ConfigSeen::Published {
        inputs,
        generation,
        made_at,
        ..
    } = &mut first.config
    else {
        panic!()
    };
    (*inputs, *generation, *made_at) = (wanted, *generation + 1, ideal.now);
    ideal.worsen(&members[1]);
    ideal.examine();
    assert_eq!(configured(&ideal), Vec::<String>::new());
    // What does not get on by then does not hold the others up for ever.
    ideal.now = after(ideal.now, Duration::from_secs(61));
    assert_eq!(configured(&ideal), members[1..2]);
}

#[test]
fn members_take_what_restarts_them_one_after_the_other() {
    let mut ideal = standing(Tier::Standard, vec![pool("a", 1)]);
    ideal.desired.change_spec(|spec| spec.tier = Tier::Premium);
    ideal
        .desired
        .change_spec(|spec| spec.fqdn = "other.local".to_owned());
    ideal.desired.generation = 2;
    let mut most = 0;
    for _ in 0..100 {
        ideal.examine();
        let members: BTreeSet<_> = ideal.members().into_iter().map(|(_, id)| id).collect();
        let configured = ideal
            .plan()
            .effects
            .iter()
            .filter(|effect| matches!(effect, Effect::Config(ConfigEffect::Render { machine, .. }) if members.contains(machine.machine())))
            .count();
        most = most.max(configured);
        if !ideal.pass() {
            break;
        }
    }
    assert_eq!(most, 1);
    assert_eq!(ideal.seen.observed.generation, 2);
}

#[test]
fn members_that_are_to_go_are_needed_until_etcd_has_let_them_go() {
    // The host lost its power between the mark and the vote: one of three has no majority.
    let mut ideal = standing(Tier::Standard, vec![pool("a", 1)]);
    ideal.desired.change_spec(|spec| spec.tier = Tier::Free);
    ideal.desired.generation += 1;
    while !ideal
        .seen
        .machines
        .values()
        .any(|machine| machine.record.deleting)
    {
        ideal.pass();
    }
    for machine in ideal.seen.machines.values_mut() {
        machine.presence = Presence::Stopped;
        machine.report = None;
    }
    ideal.seen.api.reach = Reach::Away;
    ideal.voters = ideal.control_plane_ids().into_iter().collect();
    let plan = ideal.plan();
    for (_, member) in ideal
        .seen
        .machines
        .iter()
        .filter(|(_, machine)| machine.node_name().is_none())
    {
        let start = Effect::from(FabricEffect::EnsureMachine(member.record.id.clone()));
        assert!(
            plan.effects.contains(&start),
            "{}: {:?}",
            member.label(),
            plan.effects
        );
    }
}
