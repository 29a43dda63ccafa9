//! The agents of the world's machines: they apply configurations and send reports.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use agent_protocol::{
    DiskSeen, LEVEL, MachineConfig, Process, ProcessSeen, ProcessState, Report, Task,
    programs::{ETCD, MEMBERSHIP},
};
use fabric_api::Power;

use crate::{
    Inner,
    ailments::{Ailment, Cure},
    enrolment::Identity,
    fabric::is_image,
    options::{Span, draw},
    state::{Machine, State},
};

type Ailments = BTreeMap<Ailment, Cure>;

/// The resident memory in reports of simulated agents, KiB.
const RSS_KIB: u64 = 6144;

/// The pause before a member of etcd that the others cannot add tries again.
const JOIN_PAUSE: Duration = Duration::from_secs(1);

/// Size of a simulated disk, MiB.
const DISK_MIB: u64 = 128 * 1024;

impl Inner {
    /// Runs a function after a while.
    pub(crate) fn later(self: &Arc<Self>, wait: Duration, act: impl FnOnce(&Arc<Self>) + Send + 'static) {
        let inner = Arc::clone(self);
        tokio::spawn(async move {
            inner.env.clock.sleep(wait).await;
            act(&inner);
        });
    }

    /// A delay of a machine, drawn by its name, the purpose, and a counter.
    pub(crate) fn delay(&self, span: &Span, machine: &str, what: &str, index: u64) -> Duration {
        draw(span, self.env.seed.child(machine).child(what), index)
    }

    /// A machine was started: its agent starts after a while.
    pub(crate) fn boot(self: &Arc<Self>, id: &str, boot: u64) {
        let wait = self.delay(&self.options.boot, id, "boot", boot);
        let id = id.to_owned();
        self.later(wait, move |inner| {
            let mut state = inner.state();
            let Some(machine) = current(&mut state, &id, boot) else {
                return;
            };
            machine.up = true;
            machine.hold_vip(inner.env.clock.monotonic());
            // The key is created once, and kept as long as the disk.
            machine.identity.get_or_insert_with(|| Identity::new(&id, boot));
            let generation = machine.in_force.as_ref().map(|config| config.generation);
            // Its configuration is on disk, so it can run without the service.
            if let Some(generation) = generation {
                inner.start_processes(&mut state, &id, generation);
            }
            inner.dial(&mut state, &id, Duration::ZERO);
        });
    }

    /// The agent accepts a configuration.
    pub(crate) fn take(self: &Arc<Self>, id: &str, boot: u64, config: &Arc<MachineConfig>) {
        let mut state = self.state();
        let Some(machine) = current(&mut state, id, boot) else {
            return;
        };
        let before = machine.in_force.replace(Arc::clone(config));
        machine.hold_vip(self.env.clock.monotonic());
        let restarts = before
            .as_ref()
            .is_some_and(|before| restarts_of(before) != restarts_of(config));
        machine.etcd_runs &= before
            .as_ref()
            .is_some_and(|before| process_of(before, ETCD) == process_of(config, ETCD));
        let goes_on = machine.ready && before.is_some_and(|before| !starts_again(&before, config));
        if restarts {
            self.cure(&mut state, id, Cure::Process);
        }
        if goes_on {
            let cluster = state
                .machines
                .get(id)
                .and_then(Machine::cluster)
                .map(str::to_owned);
            self.report(&state, id);
            if let Some(cluster) = cluster {
                self.etcd_changed(&mut state, &cluster);
            }
            return;
        }
        self.start_processes(&mut state, id, config.generation);
    }

    /// Applies a configuration: its processes start, and become ready later.
    fn start_processes(self: &Arc<Self>, state: &mut State, id: &str, generation: u64) {
        let Some(machine) = state.machines.get_mut(id) else {
            return;
        };
        let (boot, role) = (
            machine.boot,
            machine
                .in_force
                .as_ref()
                .map(|config| config.role.clone())
                .unwrap_or_default(),
        );
        machine.ready = false;
        // A kubelet that starts checks its node object.
        machine.registered = false;
        let cluster = machine.cluster().map(str::to_owned);
        self.report(state, id);
        if let Some(cluster) = &cluster {
            self.etcd_changed(state, cluster);
            state.cluster(cluster).changed();
            self.join_nodes(state, cluster);
        }
        let span = match role.as_str() {
            "control-plane" => &self.options.api_ready,
            "node" => &self.options.node_ready,
            _ => &self.options.config,
        };
        let wait = self.delay(span, id, "processes", generation ^ boot << 32);
        let id = id.to_owned();
        self.later(wait, move |inner| {
            let mut state = inner.state();
            let Some(machine) = current(&mut state, &id, boot) else {
                return;
            };
            let still = machine
                .in_force
                .as_ref()
                .is_some_and(|config| config.generation == generation);
            if still && !machine.ready {
                inner.processes_started(&mut state, &id, cluster.as_deref());
            }
        });
    }

    /// The start time of a machine's processes has passed.
    fn processes_started(self: &Arc<Self>, state: &mut State, id: &str, cluster: Option<&str>) {
        let of_etcd = cluster.filter(|uid| {
            state
                .machines
                .get(id)
                .is_some_and(|machine| machine.is_control_plane_of(uid) && machine.serves_as("control-plane"))
        });
        let said = state.machines.get(id).and_then(|machine| machine.etcd.clone());
        if let Some(uid) = of_etcd
            && !state.join_etcd(uid, id, self.options.backup)
        {
            if state.machines.get(id).is_some_and(|machine| machine.etcd != said) {
                self.report(state, id);
            }
            // The other members cannot add it yet.
            let (boot, again) = (
                state.machines.get(id).map_or(0, |machine| machine.boot),
                id.to_owned(),
            );
            let cluster = uid.to_owned();
            self.later(JOIN_PAUSE, move |inner| {
                let mut state = inner.state();
                if current(&mut state, &again, boot).is_some_and(|machine| !machine.ready) {
                    inner.processes_started(&mut state, &again, Some(&cluster));
                }
            });
            return;
        }
        if let Some(machine) = state.machines.get_mut(id) {
            machine.ready = true;
            machine.etcd_runs = of_etcd.is_some();
        }
        self.report(state, id);
        if let Some(cluster) = cluster {
            self.etcd_changed(state, cluster);
            if of_etcd.is_some() {
                // All members see the new one.
                self.members_report(state, cluster);
            }
            state.cluster(cluster).changed();
            self.join_nodes(state, cluster);
        }
    }

    /// Sends a report on the machine's state.
    pub(crate) fn report(&self, state: &State, id: &str) {
        if let Some(machine) = state.machines.get(id) {
            machine.wake.notify_one();
        }
    }

    /// The content of the agent's report.
    pub(crate) fn content(&self, state: &State, id: &str) -> Option<Report> {
        let machine = state.machines.get(id)?;
        let now = self.env.clock.monotonic();
        let built: Vec<&str> = state
            .addon_images
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(name, _)| name.as_str())
            .collect();
        let mut report = content(machine, state.ailments.get(id), &built);
        let uid = machine.cluster().filter(|uid| machine.is_control_plane_of(uid));
        if uid.is_some()
            && let Some(etcd) = report.processes.get_mut(ETCD)
        {
            etcd.status = machine
                .etcd
                .as_ref()
                .and_then(|said| serde_json::to_value(said).ok());
        }
        if let Some(uid) = uid.filter(|_| machine.ready) {
            if let Some(controller) = report.processes.get_mut(MEMBERSHIP) {
                controller.status = state.membership_status(uid, id);
            }
            if !state.quorum(uid) {
                for name in ["etcd", "kube-apiserver"] {
                    if let Some(process) = report.processes.get_mut(name) {
                        process.state = ProcessState::Unready;
                    }
                }
            }
        }
        Some(report)
    }
}

/// Whether a new configuration restarts any process of a machine.
fn starts_again(before: &MachineConfig, config: &MachineConfig) -> bool {
    fn read<'a>(config: &'a MachineConfig, path: &str) -> Option<&'a str> {
        let file = config.files.iter().find(|file| file.path == path)?;
        Some(file.content.as_str())
    }
    let same_files = |paths: &[String]| paths.iter().all(|path| read(before, path) == read(config, path));
    before.processes.len() != config.processes.len()
        || before
            .processes
            .iter()
            .zip(&config.processes)
            .any(|(old, new)| old != new || !same_files(&new.restart_on))
}

fn process_of<'a>(config: &'a MachineConfig, name: &str) -> Option<&'a Process> {
    config.processes.iter().find(|process| process.name == name)
}

/// The values whose change restarts processes.
fn restarts_of(config: &MachineConfig) -> Vec<(&str, u64)> {
    config
        .processes
        .iter()
        .map(|process| (process.name.as_str(), process.restart))
        .collect()
}

/// The machine, if it still runs since that start.
fn current<'a>(state: &'a mut State, id: &str, boot: u64) -> Option<&'a mut Machine> {
    state
        .machines
        .get_mut(id)
        .filter(|machine| machine.boot == boot && machine.power == Power::Running)
}

/// The state of a process in reports while its machine has ailments.
fn process(machine: &Machine, number: usize, name: &str, ailments: Option<&Ailments>) -> ProcessSeen {
    let suffers = |ailment: Ailment| ailments.is_some_and(|ailments| ailments.contains_key(&ailment));
    let mut seen = ProcessSeen {
        state: if machine.ready {
            ProcessState::Ready
        } else {
            ProcessState::Starting
        },
        pid: u32::try_from(number).ok().map(|number| number + 100),
        restarts: 0,
        last_exit: None,
        last_lines: Vec::new(),
        hangs: 0,
        status: None,
    };
    if suffers(Ailment::Ends(name.to_owned())) {
        seen.state = ProcessState::BackOff;
        seen.pid = None;
        seen.restarts = 5;
        seen.last_exit = Some("exit status 1".to_owned());
        seen.last_lines = vec!["simulated: cannot go on".to_owned()];
    } else if suffers(Ailment::Deaf(name.to_owned())) {
        seen.state = ProcessState::Unready;
        seen.hangs = 3;
    }
    seen
}

/// `built`: the images of add-ons that the fabric has.
fn content(machine: &Machine, ailments: Option<&Ailments>, built: &[&str]) -> Report {
    let config = machine.in_force.as_deref();
    let processes: BTreeMap<String, ProcessSeen> = config
        .map_or(&[][..], |config| &config.processes)
        .iter()
        .enumerate()
        .map(|(number, own)| (own.name.clone(), process(machine, number, &own.name, ailments)))
        .collect();
    let tasks = config.map_or(&[][..], |config| &config.tasks);
    let full = ailments.is_some_and(|ailments| ailments.contains_key(&Ailment::DiskFull));
    Report {
        sequence: machine.sequence,
        boot: format!("{}-{}", machine.spec.id, machine.boot),
        agent_version: "simulated".into(),
        agent_level: LEVEL,
        generation: config.map_or(0, |config| config.generation),
        config_error: None,
        processes,
        tasks_done: if machine.ready {
            // The image of an add-on has to be built before it can be brought.
            let is_done = |task: &&Task| {
                !task.name.starts_with("image-") || built.iter().any(|name| is_image(&task.name, name))
            };
            tasks
                .iter()
                .filter(is_done)
                .map(|task| task.name.clone())
                .collect()
        } else {
            Vec::new()
        },
        agent_rss_kib: RSS_KIB,
        disks: vec![DiskSeen {
            path: "/var".to_owned(),
            total_mib: DISK_MIB,
            free_mib: if full { 0 } else { DISK_MIB / 2 },
        }],
    }
}
