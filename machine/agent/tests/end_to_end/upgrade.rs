//! Agents of different releases: replacement and handover.

use std::fs;

use agent_api::Agents as _;
use agent_protocol::{Command, MachineConfig, Task};

use super::{
    STAYS, argv, ready,
    world::{self, MACHINE, TOKEN, World, shell},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_agent_takes_over_and_nothing_else_notices() {
    let mut world = World::new(TOKEN).await;
    let ends = shell(&world, "ends", "sleep 1; exit 3");
    world.publish(MachineConfig {
        generation: 1,
        setup: vec![Command {
            argv: argv(&[
                "/bin/sh",
                "-c",
                &format!("echo once >> {}", world.path("/set-up").display()),
            ]),
        }],
        processes: vec![shell(&world, "stays", STAYS), ends.clone()],
        tasks: vec![Task {
            name: "task".to_owned(),
            argv: argv(&["/bin/true"]),
        }],
        ..MachineConfig::default()
    });
    world.start_machine();
    let before = world
        .report("all of it to run", |report| {
            ready(report, "stays") && report.tasks_done == ["task"] && report.processes["ends"].restarts > 0
        })
        .await;
    let (pid, at_first) = (world.agent_pid(), world.agent_program());

    // A program that the service has not announced is not started.
    world.sessions().offer_agent(&"0".repeat(64));
    let trace = world.path("/slipped");
    world.slip_agent(format!("#!/bin/sh\ntouch {}\n", trace.display()).as_bytes());
    world
        .file("/var/log/landfall/agent.log", |log| {
            log.contains("it is not the one that the service has")
        })
        .await;
    assert!(!trace.exists());
    assert_eq!(world.agent_program(), at_first);

    // A program that does not start is not used.
    world.put_agent(b"#!/bin/sh\nexit 2\n");
    world
        .file("/var/log/landfall/agent.log", |log| {
            log.contains("this one stays")
        })
        .await;
    assert_eq!(world.agent_program(), at_first);

    // Another program with the same behaviour: bytes after the end of an executable are ignored.
    let mut another = fs::read(world::program()).unwrap();
    another.push(b'\n');
    world.put_agent(&another);
    world
        .file("/var/log/landfall/agent.log", |log| {
            log.contains("goes on as process 1")
        })
        .await;
    assert_eq!(world.agent_pid(), pid);
    assert_eq!(world.agent_program(), world.path(agent_protocol::AGENT_PATH));
    // It contacts the service, watches its children, and accepts new configurations.
    let restarts = before.processes["ends"].restarts;
    let after = world
        .report("it to restart what ends", |report| {
            report.sequence > before.sequence && report.processes["ends"].restarts > restarts + 1
        })
        .await;
    assert_eq!(after.boot, before.boot);
    assert_eq!(after.processes["stays"], before.processes["stays"]);
    assert_eq!(after.tasks_done, ["task"]);
    assert_eq!(fs::read_to_string(world.path("/set-up")).unwrap(), "once\n");
    world.publish(MachineConfig {
        generation: 2,
        level: agent_protocol::LEVEL,
        processes: vec![shell(&world, "stays", STAYS), shell(&world, "new", STAYS)],
        ..MachineConfig::default()
    });
    let last = world
        .report("the next configuration", |report| ready(report, "new"))
        .await;
    assert_eq!(last.processes["stays"].pid, before.processes["stays"].pid);
    // The handover file is not needed any more.
    assert!(!world.path("/run/landfall-agent.json").exists());
    world.shut_down("-TERM").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_is_not_given_what_it_is_too_old_for() {
    let mut world = World::new(TOKEN).await;
    let config = |generation, level, world: &World| MachineConfig {
        generation,
        level,
        processes: vec![shell(world, "stays", STAYS)],
        ..MachineConfig::default()
    };
    world.publish(config(1, agent_protocol::LEVEL, &world));
    world.start_machine();
    let report = world.report("the first", |report| report.generation == 1).await;
    assert_eq!(report.agent_level, agent_protocol::LEVEL);
    world.publish(config(2, agent_protocol::LEVEL + 1, &world));
    // The agent receives the log request after a poll that did not return the configuration.
    world.sessions().logs(MACHINE, "agent", 1).await.unwrap();
    assert_eq!(world.sessions().report(MACHINE).unwrap().generation, 1);
    world.publish(config(3, agent_protocol::LEVEL, &world));
    world.report("the third", |report| report.generation == 3).await;
}
