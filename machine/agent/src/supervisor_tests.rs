use super::*;
use agent_protocol::{Process, Task};

use crate::unit::STABLE;

fn process(name: &str, order: u8) -> Process {
    Process {
        name: name.into(),
        argv: vec![name.into()],
        env: BTreeMap::new(),
        probe: None,
        restart_on: vec![format!("/etc/{name}")],
        stop_order: order,
        grace_seconds: 5,
        ..Process::default()
    }
}

fn config(generation: u64, processes: &[Process]) -> MachineConfig {
    MachineConfig {
        generation,
        processes: processes.to_vec(),
        ..MachineConfig::default()
    }
}

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A supervisor and a simulated process table.
struct World {
    supervisor: Supervisor,
    now: Duration,
    next_pid: u32,
    running: BTreeMap<u32, Job>,
    signals: Vec<(u32, Signal)>,
    ended: bool,
}

impl World {
    fn new() -> Self {
        let supervisor = Supervisor::default();
        Self {
            supervisor,
            now: at(0),
            next_pid: 1,
            running: BTreeMap::new(),
            signals: Vec::new(),
            ended: false,
        }
    }

    fn feed(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for action in self.supervisor.handle(self.now, event) {
                match action {
                    Action::Start(job) => {
                        self.next_pid += 1;
                        self.running.insert(self.next_pid, job.clone());
                        events.push(Event::Started {
                            job,
                            pid: self.next_pid,
                        });
                    }
                    Action::Signal(pid, signal) => self.signals.push((pid, signal)),
                    Action::Report => {}
                    Action::End => self.ended = true,
                }
            }
        }
    }

    fn configure(&mut self, config: MachineConfig, changed: &[&str]) {
        assert!(self.supervisor.accepts(config.generation));
        let changed = changed.iter().map(|path| (*path).to_owned()).collect();
        self.feed(Event::Configured { config, changed });
    }

    fn pid(&self, name: &str) -> Option<u32> {
        self.running
            .iter()
            .find(|(_, job)| **job == Job::Process(name.into()))
            .map(|(pid, _)| *pid)
    }

    fn exit(&mut self, pid: u32, success: bool) {
        self.running.remove(&pid).expect("it runs");
        self.feed(Event::Exited {
            pid,
            how: "exit status 1".into(),
            success,
        });
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.feed(Event::Tick);
    }
}

#[test]
fn everything_starts_at_once_after_setup() {
    let mut world = World::new();
    let mut first = config(1, &[process("a", 1), process("b", 2)]);
    first.setup = vec![
        Command {
            argv: vec!["one".into()],
        },
        Command {
            argv: vec!["two".into()],
        },
    ];
    world.configure(first, &[]);
    assert_eq!(world.running.values().collect::<Vec<_>>(), [&Job::Setup(0)]);
    world.exit(2, false);
    assert!(world.running.is_empty() && world.supervisor.setup_error().is_some());
    world.pass(at(1000));
    world.exit(3, true);
    world.exit(4, true);
    assert!(world.pid("a").is_some() && world.pid("b").is_some());
    assert!(world.supervisor.setup_error().is_none());
}

#[test]
fn what_ends_is_started_again_and_less_and_less_often() {
    let mut world = World::new();
    world.configure(config(1, &[process("a", 1)]), &[]);
    let mut waits = Vec::new();
    for _ in 0..9 {
        world.exit(world.pid("a").unwrap(), false);
        let wait = world.supervisor.next_deadline().unwrap() - world.now;
        waits.push(wait.as_millis());
        world.pass(wait);
    }
    assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
    world.pass(STABLE);
    world.exit(world.pid("a").unwrap(), false);
    assert_eq!(
        world.supervisor.next_deadline().unwrap() - world.now,
        FIRST_BACK_OFF
    );
    assert_eq!(world.supervisor.processes()["a"].restarts, 10);
}

#[test]
fn an_older_or_equal_generation_is_refused() {
    let mut world = World::new();
    world.configure(config(5, &[]), &[]);
    assert!(!world.supervisor.accepts(4) && !world.supervisor.accepts(5) && world.supervisor.accepts(6));
}

#[test]
fn only_what_changed_is_restarted() {
    let mut world = World::new();
    world.configure(
        config(1, &[process("a", 1), process("b", 1), process("c", 1)]),
        &[],
    );
    let (a, b, c) = (
        world.pid("a").unwrap(),
        world.pid("b").unwrap(),
        world.pid("c").unwrap(),
    );
    let mut changed = process("b", 1);
    changed.argv.push("--flag".into());
    world.configure(config(2, &[process("a", 1), changed]), &["/etc/a"]);
    let mut told: Vec<u32> = world.signals.iter().map(|(pid, _)| *pid).collect();
    told.sort_unstable();
    assert_eq!(told, [a, b, c]);
    for pid in [a, b, c] {
        world.exit(pid, true);
    }
    world.pass(at(0));
    assert!(world.pid("a").is_some_and(|pid| pid != a) && world.pid("b").is_some());
    assert_eq!(world.pid("c"), None);
    assert_eq!(
        world.supervisor.processes()["a"].restarts,
        0,
        "a wanted restart is not a failure"
    );

    world.signals.clear();
    let mut same = process("b", 1);
    same.argv.push("--flag".into());
    world.configure(config(3, &[process("a", 1), same]), &[]);
    assert!(world.signals.is_empty(), "{:?}", world.signals);
}

#[test]
fn who_does_not_listen_is_killed_after_its_grace() {
    let mut world = World::new();
    world.configure(config(1, &[process("a", 1)]), &[]);
    let pid = world.pid("a").unwrap();
    world.configure(config(2, &[]), &[]);
    assert_eq!(world.signals, [(pid, Signal::SIGTERM)]);
    world.pass(at(4999));
    assert_eq!(world.signals.len(), 1);
    world.pass(at(1));
    assert_eq!(world.signals[1], (pid, Signal::SIGKILL));
}

#[test]
fn shut_down_goes_in_order() {
    let mut world = World::new();
    world.configure(
        config(1, &[process("etcd", 1), process("api", 2), process("kcm", 3)]),
        &[],
    );
    let (etcd, api, kcm) = (
        world.pid("etcd").unwrap(),
        world.pid("api").unwrap(),
        world.pid("kcm").unwrap(),
    );
    world.feed(Event::Stop);
    assert_eq!(world.signals, [(kcm, Signal::SIGTERM)]);
    world.exit(kcm, true);
    assert_eq!(world.signals.last(), Some(&(api, Signal::SIGTERM)));
    world.exit(api, true);
    assert_eq!(world.signals.last(), Some(&(etcd, Signal::SIGTERM)));
    assert!(!world.ended);
    world.exit(etcd, true);
    assert!(world.ended);
    assert!(
        !world.supervisor.accepts(9),
        "nothing comes into force during shut-down"
    );
}

#[test]
fn a_task_is_repeated_until_it_succeeds_once() {
    let mut world = World::new();
    let mut with_task = config(1, &[]);
    with_task.tasks = vec![Task {
        name: "import".into(),
        argv: vec!["ctr".into()],
    }];
    world.configure(with_task, &[]);
    world.exit(2, false);
    world.pass(at(100));
    world.exit(3, true);
    assert_eq!(world.supervisor.tasks_done(), ["import"]);
    world.pass(at(60_000));
    assert!(world.running.is_empty());
}

#[test]
fn not_ready_yet_differs_from_not_ready_any_more() {
    let mut world = World::new();
    world.configure(config(1, &[process("a", 1)]), &[]);
    let pid = world.pid("a").unwrap();
    let state = |world: &World| world.supervisor.processes()["a"].state;
    let probe = |world: &mut World, pid, ready| {
        world.feed(Event::Probed {
            name: "a".into(),
            pid,
            ready,
            answered: Duration::ZERO,
        })
    };
    probe(&mut world, pid, false);
    assert_eq!(state(&world), ProcessState::Starting);
    probe(&mut world, pid, true);
    assert_eq!(state(&world), ProcessState::Ready);
    probe(&mut world, pid + 1, false);
    assert_eq!(
        state(&world),
        ProcessState::Ready,
        "an answer about another process counts for nothing"
    );
    probe(&mut world, pid, false);
    assert_eq!(state(&world), ProcessState::Unready);
}

fn command(word: &str) -> Command {
    Command {
        argv: vec![word.into()],
    }
}

#[test]
fn each_setup_command_succeeds_once_a_boot_whichever_configuration_brings_it() {
    let mut world = World::new();
    world.configure(config(1, &[]), &[]);
    let mut with_role = config(2, &[process("a", 1)]);
    with_role.setup = vec![command("one"), command("two")];
    world.configure(with_role.clone(), &[]);
    assert_eq!(world.running, BTreeMap::from([(2, Job::Setup(0))]));
    // Another configuration arrives while the first command runs: completed commands are not repeated, new
    // ones run.
    with_role.generation = 3;
    with_role.setup = vec![command("zero"), command("one")];
    world.configure(with_role.clone(), &[]);
    world.exit(2, true);
    assert_eq!(world.running, BTreeMap::from([(3, Job::Setup(0))]), "zero");
    assert_eq!(world.pid("a"), None);
    world.exit(3, true);
    let a = world.pid("a").expect("all setup is done");
    with_role.generation = 4;
    world.configure(with_role, &[]);
    assert_eq!(world.running.len(), 1);
    assert_eq!(world.pid("a"), Some(a));
}

#[test]
fn nothing_is_due_while_setup_runs_or_waits() {
    let mut world = World::new();
    let mut first = config(1, &[process("a", 1)]);
    first.setup = vec![command("one")];
    world.configure(first, &[]);
    assert_eq!(world.supervisor.next_deadline(), Some(SETUP_BOUND));
    world.exit(2, false);
    assert_eq!(world.supervisor.next_deadline(), Some(SETUP_RETRY));
}

#[test]
fn setup_that_hangs_is_killed_told_and_tried_again() {
    let mut world = World::new();
    let mut first = config(1, &[]);
    first.setup = vec![command("one")];
    world.configure(first, &[]);
    world.pass(SETUP_BOUND);
    assert_eq!(world.signals, [(2, Signal::SIGKILL)]);
    world.pass(SETUP_BOUND);
    assert_eq!(world.signals.len(), 1, "once is enough");
    world.exit(2, false);
    let error = world.supervisor.setup_error().unwrap();
    assert!(error.contains("one") && error.contains("by itself"), "{error}");
    world.pass(SETUP_RETRY);
    assert_eq!(world.running.len(), 1);
}

#[test]
fn who_becomes_ready_wakes_those_who_waited_for_it_but_only_once() {
    let mut world = World::new();
    world.configure(config(1, &[process("containerd", 1), process("kubelet", 2)]), &[]);
    let ready = |world: &mut World| {
        let pid = world.pid("containerd").unwrap();
        world.feed(Event::Probed {
            name: "containerd".into(),
            pid,
            ready: true,
            answered: at(0),
        });
    };
    world.exit(world.pid("kubelet").unwrap(), false);
    assert_eq!(world.pid("kubelet"), None);
    ready(&mut world);
    assert!(world.pid("kubelet").is_some(), "at once");

    world.exit(world.pid("containerd").unwrap(), false);
    world.pass(FIRST_BACK_OFF);
    world.exit(world.pid("kubelet").unwrap(), false);
    ready(&mut world);
    assert_eq!(world.pid("kubelet"), None, "the back-off holds");
}

#[test]
fn a_task_that_changed_is_run_again() {
    let mut world = World::new();
    let with_task = |generation, word: &str| {
        let mut with_task = config(generation, &[]);
        with_task.tasks = vec![Task {
            name: "import".into(),
            argv: vec![word.into()],
        }];
        with_task
    };
    world.configure(with_task(1, "old"), &[]);
    world.exit(2, true);
    world.configure(with_task(2, "old"), &[]);
    assert!(world.running.is_empty());
    world.configure(with_task(3, "new"), &[]);
    assert_eq!(world.running, BTreeMap::from([(3, Job::Task("import".into()))]));
    assert!(world.supervisor.tasks_done().is_empty());
}

impl World {
    fn probed(&mut self, name: &str, ready: bool, answered: Duration) {
        let pid = self.pid(name).expect("it runs");
        self.feed(Event::Probed {
            name: name.into(),
            pid,
            ready,
            answered,
        });
    }

    /// Lets this number of seconds pass; killed processes end.
    fn seconds(&mut self, seconds: u64) {
        for _ in 0..seconds * 10 {
            self.pass(at(100));
            for (pid, signal) in std::mem::take(&mut self.signals) {
                if signal == Signal::SIGKILL {
                    self.exit(pid, false);
                }
            }
        }
    }

    fn seen(&self, name: &str) -> ProcessSeen {
        self.supervisor.processes()[name].clone()
    }
}

fn hanging(name: &str, seconds: u32) -> Process {
    Process {
        hang_seconds: Some(seconds),
        ..process(name, 1)
    }
}

#[test]
fn who_does_not_answer_any_more_is_killed_and_started_again() {
    let mut world = World::new();
    world.configure(config(1, &[hanging("a", 10), process("b", 1)]), &[]);
    let (first, other) = (world.pid("a").unwrap(), world.pid("b"));
    world.probed("a", true, world.now);
    world.probed("b", true, world.now);
    // As long as it answers, it is not killed.
    world.seconds(100);
    assert_eq!(world.pid("a"), Some(first));
    // The limit counts from the last answer, not from when the failure was noticed.
    world.probed("a", false, world.now - at(9_000));
    world.probed("b", false, world.now - at(9_000));
    assert_eq!(world.supervisor.next_deadline(), Some(world.now + at(1000)));
    world.pass(at(1000));
    assert_eq!(world.signals, [(first, Signal::SIGKILL)]);
    world.seconds(1);
    let again = world.pid("a").unwrap();
    assert_ne!(again, first);
    let seen = world.seen("a");
    assert_eq!((seen.hangs, seen.restarts), (1, 1));
    assert!(seen.last_exit.unwrap().contains("did not answer for 10 s"));
    // A process that never answered has three times the limit, each time, and does not count as a quick exit.
    world.seconds(28);
    assert_eq!(world.pid("a"), Some(again));
    world.seconds(20);
    assert_eq!((world.seen("a").hangs, world.supervisor.quick_exits("a")), (2, 0));
    // A process without a limit may be silent for ever.
    world.seconds(1000);
    assert_eq!((world.pid("b"), world.seen("b").hangs), (other, 0));
}

#[test]
fn who_lost_what_it_needs_is_killed_once() {
    let mut world = World::new();
    world.configure(config(1, &[process("a", 1)]), &[]);
    let first = world.pid("a").unwrap();
    let gone = |pid| Event::Vanished {
        name: "a".into(),
        pid,
        path: "/data".into(),
    };
    world.probed("a", true, world.now);
    world.feed(gone(first));
    world.feed(gone(first));
    assert_eq!(world.signals, [(first, Signal::SIGKILL)]);
    world.seconds(1);
    // The history of the earlier process does not count against its successor.
    world.feed(gone(first));
    assert!(world.pid("a").is_some() && world.signals.is_empty());
    assert_eq!(world.seen("a").hangs, 1);
    assert!(world.seen("a").last_exit.unwrap().contains("/data"));
}

#[test]
fn quick_ends_are_counted_until_it_was_ready() {
    let mut world = World::new();
    world.configure(config(1, &[process("a", 1)]), &[]);
    for count in 1..=4 {
        world.exit(world.pid("a").unwrap(), false);
        assert_eq!(world.supervisor.quick_exits("a"), count);
        world.seconds(11);
    }
    world.probed("a", true, world.now);
    world.exit(world.pid("a").unwrap(), false);
    assert_eq!(world.supervisor.quick_exits("a"), 0);
    // A process that ran for long is no quick exit.
    world.seconds(11);
    world.pass(STABLE);
    world.exit(world.pid("a").unwrap(), false);
    assert_eq!(world.supervisor.quick_exits("a"), 0);
}

#[test]
fn only_what_makes_it_another_process_restarts_it() {
    let before = process("a", 1);
    let watched = Process {
        hang_seconds: Some(5),
        needs: vec!["/x".into()],
        status: Some("/s".into()),
        probe: Some(agent_protocol::Probe::Unix { path: "/u".into() }),
        stop_order: 7,
        grace_seconds: 9,
        ..before.clone()
    };
    let nonce = Process {
        restart: 1,
        ..watched.clone()
    };
    let mut world = World::new();
    world.configure(config(1, &[before]), &[]);
    let first = world.pid("a").unwrap();
    world.configure(config(2, &[watched]), &[]);
    assert!(world.signals.is_empty());
    // The new limits apply to the running process.
    world.probed("a", true, world.now);
    world.probed("a", false, world.now);
    assert_eq!(world.supervisor.next_deadline(), Some(world.now + at(5000)));
    world.configure(config(3, &[nonce]), &[]);
    assert_eq!(world.signals, [(first, Signal::SIGTERM)]);
    world.exit(first, true);
    assert!(world.pid("a").is_some());
    assert_eq!(world.seen("a").hangs, 0);
}

#[test]
fn who_comes_after_another_is_started_once_that_is_ready() {
    let mut world = World::new();
    let second = Process {
        after: vec!["first".into(), "nobody".into()],
        ..process("second", 2)
    };
    world.configure(config(1, &[process("first", 1), second]), &[]);
    let first = world.pid("first").unwrap();
    assert_eq!(world.pid("second"), None);
    // It does not wait for time.
    assert_eq!(world.supervisor.next_deadline(), None);
    world.pass(STABLE);
    assert_eq!(world.pid("second"), None);
    assert_eq!(
        world.supervisor.processes()["second"].state,
        ProcessState::Starting
    );
    world.probed("first", true, world.now);
    let second = world.pid("second").unwrap();

    // Once started, it runs on without the other; at a restart it waits again.
    world.exit(first, false);
    assert_eq!(world.pid("second"), Some(second));
    world.exit(second, false);
    world.pass(FIRST_BACK_OFF);
    assert!(world.pid("first").is_some());
    assert_eq!(world.pid("second"), None);
    world.probed("first", true, world.now);
    assert!(world.pid("second").is_some());

    // A process that is being stopped for a restart was ready; that does not count.
    let (first, second) = (world.pid("first").unwrap(), world.pid("second").unwrap());
    let mut next = config(2, &[process("first", 1), process("second", 2)]);
    next.processes[1].after = vec!["first".into()];
    world.configure(next, &["/etc/first", "/etc/second"]);
    world.exit(second, true);
    assert_eq!(world.pid("second"), None);
    world.exit(first, true);
    assert_eq!(world.pid("second"), None);
    world.probed("first", true, world.now);
    assert!(world.pid("second").is_some());
}

#[test]
fn a_new_value_restarts_a_process_unless_it_goes_on_with_the_one_before() {
    let wanted = |restart: u64, goes_on_with: &[u64]| Process {
        restart,
        goes_on_with: goes_on_with.to_vec(),
        ..process("a", 1)
    };
    let mut world = World::new();
    world.configure(config(1, &[wanted(8, &[])]), &[]);
    let first = world.pid("a").unwrap();
    world.configure(config(2, &[wanted(2, &[8])]), &[]);
    assert!(world.signals.is_empty());
    assert_eq!(world.pid("a"), Some(first));
    // The change back is not in `goes_on_with`: the process restarts.
    world.configure(config(3, &[wanted(8, &[])]), &[]);
    assert_eq!(world.signals, [(first, Signal::SIGTERM)]);
}
