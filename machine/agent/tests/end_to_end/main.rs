//! The agent as a program, against a real hub. `LANDFALL_AGENT_PROGRAM` names another build of it, e.g. the
//! static one.
#![expect(clippy::unwrap_used, reason = "all of this is test code, helpers included")]

mod faults;
mod upgrade;
mod world;

use std::fs;
use std::sync::atomic::Ordering;

use agent_api::Agents as _;
use agent_protocol::{Command, MachineConfig, Probe, ProcessState, Report, Task};

use world::{BOUND, MACHINE, TOKEN, World, file, shell};

const STAYS: &str = "exec sleep 100000";
/// The limit of the agent's own memory, KiB: anonymous pages. Those of its program depend on how it was compiled; the program that is
/// shipped is measured by `bench idle`.
const OWN_KIB: u64 = 3 * 1024;

fn ready(report: &Report, name: &str) -> bool {
    report
        .processes
        .get(name)
        .is_some_and(|seen| seen.state == ProcessState::Ready)
}

fn runs(report: &Report, name: &str) -> bool {
    report.processes.get(name).is_some_and(|seen| seen.pid.is_some())
}

fn argv(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_nothing_to_running() {
    let mut world = World::new(TOKEN).await;
    let root = world.path("/").display().to_string();
    let mut missing = shell(&world, "missing", "");
    missing.argv = argv(&["/no/such/program"]);
    // Without a shell: a shell may clear the mask itself.
    let mut masked = shell(&world, "masked", "");
    masked.argv = argv(&["/bin/grep", "SigBlk", "/proc/self/status"]);
    world.publish(MachineConfig {
        generation: 1,
        level: 1,
        role: "node".to_owned(),
        files: vec![file("/etc/x.conf", "x = 1\n")],
        setup: vec![Command {
            argv: argv(&["/bin/sh", "-c", &format!("cp {root}/etc/x.conf {root}/set-up")]),
        }],
        processes: vec![
            shell(&world, "stays", STAYS),
            masked,
            shell(&world, "fails", "echo it is broken; exit 3"),
            missing,
        ],
        tasks: vec![Task {
            name: "second-time".to_owned(),
            argv: argv(&[
                "/bin/sh",
                "-c",
                &format!("test -e {root}/tried || {{ touch {root}/tried; exit 1; }}"),
            ]),
        }],
    });
    let start = world.env.clock.monotonic();
    world.start_machine();
    let report = world
        .report("stays to run", |report| ready(report, "stays"))
        .await;
    println!(
        "switched on to running: {:?}",
        world.env.clock.monotonic() - start
    );
    assert_eq!((report.generation, report.config_error.as_deref()), (1, None));
    assert_eq!(fs::read_to_string(world.path("/set-up")).unwrap(), "x = 1\n");
    assert_eq!(report.processes["stays"].restarts, 0);

    let report = world
        .report("the troubles to be told", |report| {
            report.tasks_done == ["second-time"]
                && report.processes["fails"]
                    .last_lines
                    .ends_with(&["it is broken".to_owned()])
                && report.processes["missing"].state == ProcessState::BackOff
        })
        .await;
    assert_eq!(
        report.processes["fails"].last_exit.as_deref(),
        Some("exit status 3")
    );
    let why = report.processes["missing"].last_exit.clone().unwrap();
    assert!(
        why.contains("/no/such/program") && why.contains("No such file"),
        "{why}"
    );
    let blocked = world
        .file("/var/log/landfall/masked.log", |text| text.ends_with('\n'))
        .await;
    assert_eq!(blocked.lines().next(), Some("SigBlk:\t0000000000000000"));

    let memory = fs::read_to_string(format!("/proc/{}/status", world.agent_pid())).unwrap();
    let kib = |field: &str| -> u64 {
        let line = memory.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    let (own, resident) = (kib("RssAnon:"), kib("VmRSS:"));
    println!("memory of the agent: {own} of {resident} KiB are its own");
    assert!((1..=OWN_KIB).contains(&own));
    // It was measured a moment before.
    assert!((resident / 2..=resident * 2).contains(&report.agent_rss_kib));
    let mut logs = world.sessions().logs(MACHINE, "fails", 1).await.unwrap();
    logs.truncate(12);
    assert_eq!(logs, "it is broken");
    let agent = world.sessions().logs(MACHINE, "agent", 100).await.unwrap();
    assert!(!agent.contains("there is no log"), "{agent}");
    let outside = world
        .sessions()
        .logs(MACHINE, "../../etc/landfall/seed", 10)
        .await
        .unwrap();
    assert!(!outside.contains(TOKEN), "{outside}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_restarts_only_what_it_concerns() {
    let mut world = World::new(TOKEN).await;
    let config = |world: &World, generation, content: &str| {
        let mut concerned = shell(world, "concerned", STAYS);
        concerned.restart_on = vec!["/etc/concerned".to_owned()];
        MachineConfig {
            generation,
            files: vec![file("/etc/concerned", content), file("/etc/nobody", content)],
            processes: vec![shell(world, "other", STAYS), concerned],
            ..MachineConfig::default()
        }
    };
    world.publish(config(&world, 1, "1"));
    world.start_machine();
    let both = |report: &Report| ready(report, "other") && ready(report, "concerned");
    let before = world.report("both to run", both).await;
    world.publish(config(&world, 2, "2"));
    let after = world
        .report("concerned to run anew", |report| {
            report.generation == 2
                && both(report)
                && report.processes["concerned"].pid != before.processes["concerned"].pid
        })
        .await;
    assert_eq!(after.processes["other"], before.processes["other"]);

    let mut gone = config(&world, 3, "2");
    gone.processes.pop();
    world.publish(gone);
    let last = world
        .report("concerned to be gone", |report| report.processes.len() == 1)
        .await;
    assert_eq!(last.processes["other"], before.processes["other"]);
    let fallen = world.sessions().report(MACHINE).unwrap();
    assert_eq!(fallen.generation, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_starts_without_its_service_and_is_heard_when_it_is_back() {
    let mut world = World::new(TOKEN).await;
    let counts = shell(&world, "counts", "echo run >> $R/runs; exec sleep 100000");
    world.publish(MachineConfig {
        generation: 7,
        processes: vec![counts],
        ..MachineConfig::default()
    });
    world.start_machine();
    let first = world.report("it to run", |report| ready(report, "counts")).await;
    world.stop_service().await;
    world.cut_power();
    world.start_machine();
    world.file("/runs", |runs| runs == "run\nrun\n").await;

    world.start_service().await;
    let again = world
        .report("it to be heard", |report| ready(report, "counts"))
        .await;
    assert_eq!(again.generation, 7);
    assert_ne!(again.boot, first.boot);

    // Only the service restarts: the machine reports again without a change, long before its next heartbeat.
    world.stop_service().await;
    world.start_service().await;
    let heard = world
        .report("it to be heard again", |report| ready(report, "counts"))
        .await;
    assert_eq!(heard.processes, again.processes);
    assert_eq!(heard.boot, again.boot);
    assert_eq!(fs::read_to_string(world.path("/runs")).unwrap(), "run\nrun\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_token_stays_outside() {
    let mut world = World::new("another").await;
    world.start_machine();
    base_testkit::wait_for(&world.env.clock, "the second try", BOUND, || async {
        match world.book.asked.load(Ordering::Relaxed) {
            0 | 1 => Err("not yet".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
    assert!(!world.book.enrolled());
    assert!(world.sessions().report(MACHINE).is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_put_into_force_is_told_and_tried_again() {
    let mut world = World::new(TOKEN).await;
    world.publish(MachineConfig {
        generation: 1,
        processes: vec![shell(&world, "stays", STAYS)],
        ..MachineConfig::default()
    });
    world.start_machine();
    let before = world.report("it to run", |report| ready(report, "stays")).await;
    // A file in the place of a directory of the configuration.
    fs::write(world.path("/etc/taken"), "").unwrap();
    world.publish(MachineConfig {
        generation: 2,
        files: vec![file("/etc/taken/file", "x")],
        processes: vec![shell(&world, "stays", STAYS)],
        ..MachineConfig::default()
    });
    let stuck = world
        .report("the error", |report| report.config_error.is_some())
        .await;
    assert_eq!((stuck.generation, &stuck.processes), (1, &before.processes));
    assert!(stuck.config_error.as_deref().unwrap().contains("/etc/taken"));
    fs::remove_file(world.path("/etc/taken")).unwrap();
    let after = world
        .report("generation 2", |report| report.generation == 2)
        .await;
    assert_eq!(
        (after.config_error.as_deref(), &after.processes),
        (None, &before.processes)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_stood_by_is_set_up_when_it_gets_its_role() {
    let mut world = World::new(TOKEN).await;
    world.publish(MachineConfig {
        generation: 1,
        ..MachineConfig::default()
    });
    world.start_machine();
    world
        .report("it to stand by", |report| report.generation == 1)
        .await;
    let marker = format!("echo once >> {}", world.path("/set-up").display());
    let with_role = |generation| MachineConfig {
        generation,
        setup: vec![Command {
            argv: argv(&["/bin/sh", "-c", &marker]),
        }],
        processes: vec![shell(&world, "stays", "test -e $R/set-up && exec sleep 100000")],
        ..MachineConfig::default()
    };
    world.publish(with_role(2));
    let report = world.report("it to run", |report| ready(report, "stays")).await;
    assert_eq!(report.processes["stays"].restarts, 0);
    world.publish(with_role(3));
    world
        .report("generation 3", |report| report.generation == 3)
        .await;
    assert_eq!(fs::read_to_string(world.path("/set-up")).unwrap(), "once\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_shuts_down_in_order() {
    for signal in ["-TERM", "-INT", "-PWR", "-RTMIN+3"] {
        let mut world = World::new(TOKEN).await;
        let says = |name: &str, order| {
            let line = format!(
                "trap 'echo {name} >> $R/order; exit 0' TERM; touch $R/{name}; while :; do sleep 0.05; done"
            );
            let mut process = shell(&world, name, &line);
            process.stop_order = order;
            process.probe = Some(Probe::Unix {
                path: "/never".to_owned(),
            });
            process
        };
        // It traps no signal, and its grace is longer than the wait: only the signal itself can end it in
        // time.
        let mut plain = shell(&world, "plain", "");
        plain.argv = argv(&["/bin/sleep", "100000"]);
        (plain.stop_order, plain.grace_seconds) = (10, 120);
        let processes = vec![says("etcd", 1), says("kubelet", 9), says("api", 5), plain];
        world.publish(MachineConfig {
            generation: 1,
            processes,
            ..MachineConfig::default()
        });
        world.start_machine();
        for name in ["etcd", "kubelet", "api"] {
            world.file(name, |_| true).await;
        }
        world.report("plain to run", |report| runs(report, "plain")).await;
        world.shut_down(signal).await;
        let order = fs::read_to_string(world.path("/order")).unwrap();
        assert_eq!(order, "kubelet\napi\netcd\n", "{signal}");
    }
}
