//! The effect of a new configuration: the units to run, and the running ones that must be restarted.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use agent_protocol::{MachineConfig, Process};

use crate::event::Job;

/// The grace of a task that is removed.
const TASK_GRACE: Duration = Duration::from_secs(5);

/// The limits of a unit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) order: u8,
    pub(crate) grace: Duration,
    pub(crate) hang: Option<Duration>,
}

impl Limits {
    fn of(process: &Process) -> Self {
        Self {
            order: process.stop_order,
            grace: Duration::from_secs(process.grace_seconds.clamp(1, 120).into()),
            hang: process
                .hang_seconds
                .map(|seconds| Duration::from_secs(seconds.max(1).into())),
        }
    }

    const TASK: Self = Self {
        order: u8::MAX,
        grace: TASK_GRACE,
        hang: None,
    };
}

/// All units of a configuration.
pub(crate) fn wanted(config: &MachineConfig) -> BTreeMap<Job, Limits> {
    let processes = config.processes.iter();
    let processes = processes.map(|process| (Job::Process(process.name.clone()), Limits::of(process)));
    let tasks = config.tasks.iter();
    let tasks = tasks.map(|task| (Job::Task(task.name.clone()), Limits::TASK));
    processes.chain(tasks).collect()
}

/// Units in both configurations that differ; `changed` are the paths of files that differ.
pub(crate) fn others(
    before: Option<&MachineConfig>,
    now: &MachineConfig,
    changed: &BTreeSet<String>,
) -> BTreeSet<Job> {
    let process_before = |name: &str| before?.processes.iter().find(|process| process.name == name);
    let processes = now.processes.iter().filter(|process| {
        process_before(&process.name).is_some_and(|before| is_another(before, process))
            || process.restart_on.iter().any(|path| changed.contains(path))
    });
    let task_before = |name: &str| before?.tasks.iter().find(|task| task.name == name);
    let tasks = now
        .tasks
        .iter()
        .filter(|task| task_before(&task.name).is_some_and(|before| before != *task));
    let processes = processes.map(|process| Job::Process(process.name.clone()));
    processes
        .chain(tasks.map(|task| Job::Task(task.name.clone())))
        .collect()
}

/// Whether a process must be restarted to match its configuration. Changes of its probe and of how it is
/// stopped apply while it runs.
fn is_another(before: &Process, now: &Process) -> bool {
    let restarted = before.restart != now.restart && !now.goes_on_with.contains(&before.restart);
    restarted || (&before.argv, &before.env) != (&now.argv, &now.env)
}
