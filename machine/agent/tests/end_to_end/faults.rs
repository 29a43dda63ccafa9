//! Failures in a running machine: programs that hang, data that vanishes, files that are no longer wanted.

use std::{fs, process::Command};

use agent_protocol::{MachineConfig, Process, ProcessState};

use crate::{
    STAYS, ready,
    world::{TOKEN, World, file, shell},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_process_is_killed_and_started_again() {
    let mut world = World::new(TOKEN).await;
    let line = "while ! test -e $R/go; do sleep 0.05; done; rm $R/go; kill -STOP $$; exec sleep 100000";
    let hangs = Process {
        hang_seconds: Some(1),
        ..shell(&world, "hangs", line)
    };
    world.publish(MachineConfig {
        generation: 1,
        processes: vec![hangs, shell(&world, "other", STAYS)],
        ..MachineConfig::default()
    });
    world.start_machine();
    let both = |report: &agent_protocol::Report| ready(report, "hangs") && ready(report, "other");
    let before = world.report("both to be ready", both).await;
    fs::write(world.path("/go"), "").unwrap();
    let after = world
        .report("it to be back", |report| {
            both(report) && report.processes["hangs"].hangs == 1
        })
        .await;
    assert_ne!(after.processes["hangs"].pid, before.processes["hangs"].pid);
    assert!(
        after.processes["hangs"]
            .last_exit
            .as_deref()
            .unwrap()
            .contains("did not answer")
    );
    assert_eq!(after.processes["other"], before.processes["other"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_it_needs_vanishes_and_what_it_says_is_told() {
    let mut world = World::new(TOKEN).await;
    let line = "mkdir -p $R/data; echo \"{\\\"runs\\\": $$}\" > $R/s.new; mv $R/s.new $R/status.json; \
                echo \"q=$LANDFALL_QUICK_EXITS\" >> $R/quick; exec sleep 100000";
    let needs = Process {
        needs: vec!["/data".to_owned()],
        status: Some("/status.json".to_owned()),
        ..shell(&world, "needs", line)
    };
    world.publish(MachineConfig {
        generation: 1,
        processes: vec![needs],
        ..MachineConfig::default()
    });
    world.start_machine();
    let says = |report: &agent_protocol::Report| {
        report.processes.get("needs").is_some_and(|seen| {
            let status = seen.status.as_ref();
            seen.state == ProcessState::Ready
                && status.is_some_and(|status| status["runs"].as_u64() == seen.pid.map(u64::from))
        })
    };
    let before = world.report("its own word", says).await;
    assert!(
        before
            .disks
            .iter()
            .any(|disk| disk.path == "/" && disk.total_mib > 0)
    );
    fs::remove_dir_all(world.path("/data")).unwrap();
    let after = world
        .report("it to be back", |report| {
            says(report) && report.processes["needs"].hangs == 1
        })
        .await;
    assert!(
        after.processes["needs"]
            .last_exit
            .as_deref()
            .unwrap()
            .contains("/data")
    );
    assert!(world.path("/data").exists());
    // It was ready after each start.
    assert_eq!(fs::read_to_string(world.path("/quick")).unwrap(), "q=\nq=\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_go_with_their_configuration_and_signals_stay_with_the_agent() {
    let mut world = World::new(TOKEN).await;
    let config = |world: &World, generation, files: &[&str]| MachineConfig {
        generation,
        files: files.iter().map(|path| file(path, "x")).collect(),
        processes: vec![shell(world, "stays", STAYS)],
        ..MachineConfig::default()
    };
    world.publish(config(&world, 1, &["/etc/goes", "/etc/stays"]));
    world.start_machine();
    let before = world.report("it to run", |report| ready(report, "stays")).await;
    for signal in ["-HUP", "-USR1", "-USR2"] {
        let pid = world.agent_pid().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &pid])
                .status()
                .unwrap()
                .success()
        );
    }
    world.publish(config(&world, 2, &["/etc/stays"]));
    let after = world
        .report("generation 2", |report| report.generation == 2)
        .await;
    assert!(!world.path("/etc/goes").exists() && world.path("/etc/stays").exists());
    assert_eq!(after.processes, before.processes);
    assert_eq!(after.processes["stays"].state, ProcessState::Ready);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_without_its_seed_goes_on_as_it_was() {
    let mut world = World::new(TOKEN).await;
    world.publish(MachineConfig {
        generation: 1,
        processes: vec![shell(&world, "counts", "echo run >> $R/runs; exec sleep 100000")],
        ..MachineConfig::default()
    });
    world.start_machine();
    world.report("it to run", |report| ready(report, "counts")).await;
    world.cut_power();
    fs::remove_file(world.path("/etc/landfall/seed.json")).unwrap();
    world.start_machine();
    world.file("/runs", |runs| runs == "run\nrun\n").await;
}
