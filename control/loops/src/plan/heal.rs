//! Healing: what is wrong with a machine, and what is done about it, one step after the other, gentle ones first.
//!
//! | step | what happens | for |
//! |---|---|---|
//! | restart | one process is started again | a process that its agent could not bring back, a NotReady node |
//! | reboot | the machine stops and starts, its disk stays | a silent machine, what a restart did not mend |
//! | reimage | drained, deleted, made anew under its own name, with a new token | nodes; a machine that has vanished |
//! | replace | marked to go, another one takes its place | nodes; one member of several |
//!
//! The agent comes first: it restarts what ends or hangs within seconds. A machine is an ailing one after a patience that
//! leaves room for that. Each step is written down before it happens and told with its reason; after each there is a
//! pause, which doubles where the same step is taken again or machines were replaced before. A machine that was well for a
//! while starts over with the gentle steps.
//!
//! Always true: what is held back does nothing by itself later than its reason; a preserved machine is not touched; of
//! several control plane members at most one is being repaired; the only one is never deleted while it is there.

use std::time::Duration;

use agent_api::SILENT_AFTER;
use agent_protocol::{
    DiskSeen, ProcessState, Report,
    beside::{EtcdPhase, EtcdStatus},
};
use cluster_spec::PodNetworking;
use control_records::{EventKind, Repair, Role, Rung};
use jiff::Timestamp;

use super::{ApiSeen, Draft, Effect, Machine, Presence, Reach, Write, after, members};

/// A file system with less than one in so many parts free is full.
const FULL: u64 = 20;
/// Nodes that a pool must have for its breaker.
const SMALLEST_POOL: usize = 3;
/// Percent of a pool, or of a stamp's machines, that may ail before it is taken for something else than bad machines.
const MASS: usize = 30;
/// The component behind a node object.
const KUBELET: &str = "kubelet";
/// The component that has a control plane's data.
pub(super) const ETCD: &str = "etcd";

/// How patient healing is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealPolicy {
    /// A machine that runs has so long to be heard of for the first time: since it runs, or since this process looks.
    pub boot: Duration,
    /// Silent for so long beyond [`SILENT_AFTER`].
    pub silent: Duration,
    /// A process not ready for so long, in spite of its agent.
    pub stuck: Duration,
    /// A node not ready for so long.
    pub not_ready: Duration,
    /// A kubelet ready and its node not there for so long.
    pub unregistered: Duration,
    /// A disk full for so long.
    pub disk_full: Duration,
    /// After a restart of a process…
    pub after_restart: Duration,
    /// …of a machine…
    pub after_reboot: Duration,
    /// …and after a new disk.
    pub after_reimage: Duration,
    /// No pause is longer.
    pub longest: Duration,
    /// Well for so long, everything is forgiven.
    pub quiet: Duration,
}

impl Default for HealPolicy {
    fn default() -> Self {
        Self {
            boot: Duration::from_secs(120),
            silent: Duration::from_secs(15),
            stuck: Duration::from_secs(120),
            not_ready: Duration::from_secs(90),
            unregistered: Duration::from_secs(60),
            disk_full: Duration::from_secs(10 * 60),
            after_restart: Duration::from_secs(60),
            after_reboot: Duration::from_secs(2 * 60),
            after_reimage: Duration::from_secs(5 * 60),
            longest: Duration::from_secs(60 * 60),
            quiet: Duration::from_secs(10 * 60),
        }
    }
}

/// What can be wrong with a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ailment {
    /// It was there, and the fabric has it no more.
    Vanished,
    /// It runs, and its agent says nothing.
    Silent,
    /// A process is not ready.
    Stuck(String),
    /// Kubernetes does not hold its node for ready.
    NotReady,
    /// Its kubelet is ready and there is no node object.
    Unregistered,
    /// A disk is full.
    DiskFull,
}

/// What is wrong with a machine, since when, and in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Symptom {
    /// What.
    pub ailment: Ailment,
    /// Since when this process has seen it.
    pub since: Timestamp,
    /// For people; says the same as long as it is the same.
    pub why: String,
}

/// How many of the stamp's machines are silent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Silence {
    /// Those that are not heard of, or not yet.
    pub silent: usize,
    /// All that there are to be.
    pub all: usize,
}

impl Silence {
    fn is_mass(self) -> bool {
        self.silent > most(self.all)
    }
}

/// So many of `all` may ail before it is a mass.
fn most(all: usize) -> usize {
    (all * MASS / 100).max(1)
}

/// What is wrong with a machine, if anything: the worst first.
pub(crate) fn diagnose(
    machine: &Machine,
    api: &ApiSeen,
    plugin: PodNetworking,
    policy: &HealPolicy,
    now: Timestamp,
) -> Option<(Ailment, String)> {
    if machine.presence == Presence::Absent && machine.record.enrolled_key.is_some() {
        return Some((Ailment::Vanished, "it is not there any more".to_owned()));
    }
    if machine.presence != Presence::Running || machine.record.deleting {
        return None;
    }
    if silent(machine, policy, now) {
        return Some((Ailment::Silent, "its agent says nothing".to_owned()));
    }
    if !machine.heard() {
        return None;
    }
    let report = machine.report.as_ref();
    if report.is_some_and(|report| data_on_its_way(report).is_some()) {
        return None;
    }
    // Without an API server a node's programs have nothing to be ready for.
    let idle = machine.node_name().is_some() && api.reach != Reach::Ready;
    let mut processes: Vec<_> = report.iter().flat_map(|report| &report.processes).collect();
    // What serves comes before what stands by.
    processes.sort_by_key(|(name, _)| stands_by(name));
    for (name, process) in processes {
        let how = match process.state {
            ProcessState::Ready | ProcessState::Stopped => continue,
            _ if idle => continue,
            ProcessState::Starting => "does not become ready",
            ProcessState::Unready => "is not ready",
            ProcessState::BackOff => "keeps ending",
        };
        // One that ends again and again is starting in between: the same ailment.
        let how = if process.restarts > 1 { "keeps ending" } else { how };
        return Some((Ailment::Stuck(name.clone()), format!("{name} {how}")));
    }
    if let Some(name) = machine.node_name().filter(|_| api.reach == Reach::Ready) {
        match api.node(name) {
            Some(node) if !node.ready && plugin != PodNetworking::None => {
                let why = match &node.problem {
                    Some(problem) => format!("its node is not ready: {problem}"),
                    None => "its node is not ready".to_owned(),
                };
                return Some((Ailment::NotReady, why));
            }
            None if report.is_some_and(|report| report.processes.contains_key(KUBELET)) => {
                return Some((
                    Ailment::Unregistered,
                    "its kubelet has not registered its node".to_owned(),
                ));
            }
            _ => {}
        }
    }
    let full = report?.disks.iter().find(|disk| is_full(disk))?;
    let why = format!(
        "its disk is full: {} MiB of {} MiB are left in {}",
        full.free_mib, full.total_mib, full.path
    );
    Some((Ailment::DiskFull, why))
}

/// Whether a process stands by etcd: its failing is told and it is started again, and no machine is taken away for it.
pub(super) fn stands_by(process: &str) -> bool {
    process.starts_with("etcd-")
}

/// What a member's etcd waits for or does before it can start, in words: a matter of its data, which no restart mends.
pub(super) fn data_on_its_way(report: &Report) -> Option<String> {
    let status = report.processes.get(ETCD)?.status.clone()?;
    let status: EtcdStatus = serde_json::from_value(status).ok()?;
    let what = match status.phase {
        EtcdPhase::Started => return None,
        EtcdPhase::Waiting => "etcd has no data and waits",
        EtcdPhase::Joining => "etcd joins the other members",
        EtcdPhase::Restoring => "etcd is restored from its backup",
    };
    Some(match status.why {
        Some(why) => format!("{what}: {why}"),
        None => what.to_owned(),
    })
}

fn is_full(disk: &DiskSeen) -> bool {
    disk.free_mib * FULL < disk.total_mib
}

/// Whether a machine that runs says nothing. One that was not heard of since it runs has longer.
fn silent(machine: &Machine, policy: &HealPolicy, now: Timestamp) -> bool {
    let running = machine
        .running_since
        .map_or(Duration::ZERO, |since| now.duration_since(since).unsigned_abs());
    match machine.contact {
        Some(contact) if contact < running => contact >= SILENT_AFTER,
        _ => running >= policy.boot,
    }
}

impl HealPolicy {
    fn patience(&self, ailment: &Ailment) -> Duration {
        match ailment {
            Ailment::Vanished => Duration::ZERO,
            Ailment::Silent => self.silent,
            Ailment::Stuck(_) => self.stuck,
            Ailment::NotReady => self.not_ready,
            Ailment::Unregistered => self.unregistered,
            Ailment::DiskFull => self.disk_full,
        }
    }

    fn pause(&self, repair: &Repair) -> Duration {
        let pause = match repair.rung {
            Rung::None => Duration::ZERO,
            Rung::Restart => self.after_restart,
            Rung::Reboot => self.after_reboot,
            Rung::Reimage | Rung::Replace => self.after_reimage,
        };
        let doublings = (repair.attempts.saturating_sub(1) + repair.replaced).min(10);
        pause.saturating_mul(1 << doublings).min(self.longest)
    }
}

/// How healing may treat a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Node,
    /// One member of several.
    Member,
    /// The whole control plane.
    Only,
}

impl Kind {
    fn of(draft: &Draft<'_>, machine: &Machine) -> Self {
        match machine.role() {
            Some(Role::ControlPlane { .. }) if members::staying(draft).len() > 1 => Self::Member,
            Some(Role::ControlPlane { .. }) => Self::Only,
            _ => Self::Node,
        }
    }

    /// What is done first about an ailment. `None`: nothing that healing may do.
    fn first(self, ailment: &Ailment) -> Option<Rung> {
        Some(match (ailment, self) {
            (Ailment::Vanished, Self::Member) => Rung::Replace,
            // What may be lost is lost already; its etcd comes back from its backup or not at all.
            (Ailment::Vanished, Self::Node | Self::Only) => Rung::Reimage,
            (Ailment::Silent, _) => Rung::Reboot,
            (Ailment::Stuck(_) | Ailment::NotReady | Ailment::Unregistered, _) => Rung::Restart,
            (Ailment::DiskFull, Self::Node) => Rung::Reimage,
            (Ailment::DiskFull, Self::Member) => Rung::Replace,
            (Ailment::DiskFull, Self::Only) => return None,
        })
    }

    /// What follows a step that did not help.
    fn next(self, rung: Rung) -> Rung {
        match (rung, self) {
            (Rung::None, _) => Rung::Restart,
            (Rung::Restart, _) | (_, Self::Only) => Rung::Reboot,
            (Rung::Reboot, Self::Node) => Rung::Reimage,
            (Rung::Reboot, Self::Member) | (Rung::Reimage | Rung::Replace, _) => Rung::Replace,
        }
    }
}

/// Takes the next step for every machine that needs one.
pub(super) fn plan(draft: &mut Draft<'_>) {
    let seen = draft.seen;
    for (id, machine) in &seen.machines {
        if machine.record.deleting {
            continue;
        }
        if preserve(draft, id, machine) {
            continue;
        }
        let repair = &machine.record.repair;
        if repair.pending {
            carry_out(draft, id, machine);
            continue;
        }
        match &machine.symptom {
            Some(symptom) => ail(draft, id, machine, symptom),
            None => well(draft, id, machine),
        }
        if machine.presence == Presence::Running && !machine.heard() {
            let since = machine.running_since.unwrap_or(draft.now);
            let due = after(since, draft.policy.heal.boot);
            if due > draft.now {
                draft.look_again_at(due);
            }
        }
    }
}

/// Follows the node's annotation, in both directions, as long as it can be seen.
fn preserve(draft: &mut Draft<'_>, id: &str, machine: &Machine) -> bool {
    let api = &draft.seen.api;
    let Some(node) = machine
        .node_name()
        .filter(|_| api.reach == Reach::Ready)
        .and_then(|name| api.node(name))
    else {
        return false;
    };
    let repair = &machine.record.repair;
    if node.preserve == repair.preserve {
        return false;
    }
    let told = match &node.preserve {
        Some(reason) => format!("healing leaves it alone from now on: {reason}"),
        None => "healing may touch it again".to_owned(),
    };
    let changed = Repair {
        preserve: node.preserve.clone(),
        held: None,
        ..repair.clone()
    };
    write(draft, id, machine, changed, told);
    true
}

/// A machine without a symptom: after a quiet time everything is forgiven.
fn well(draft: &mut Draft<'_>, id: &str, machine: &Machine) {
    let repair = &machine.record.repair;
    if repair.rung == Rung::None && repair.held.is_none() {
        return;
    }
    if machine.presence != Presence::Running || !machine.heard() {
        return;
    }
    let since = machine.well_since.unwrap_or(draft.now);
    let since = repair.at.map_or(since, |at| since.max(at));
    let due = after(since, draft.policy.heal.quiet);
    if due > draft.now {
        draft.look_again_at(due);
        return;
    }
    let told = format!("well again: {}", repair.reason);
    let forgiven = Repair {
        restarts: repair.restarts.clone(),
        preserve: repair.preserve.clone(),
        ..Repair::default()
    };
    write(draft, id, machine, forgiven, told);
}

fn ail(draft: &mut Draft<'_>, id: &str, machine: &Machine, symptom: &Symptom) {
    let policy = &draft.policy.heal;
    let due = after(symptom.since, policy.patience(&symptom.ailment));
    if due > draft.now {
        draft.look_again_at(due);
        return;
    }
    let repair = &machine.record.repair;
    let kind = Kind::of(draft, machine);
    let Some(first) = kind.first(&symptom.ailment) else {
        return hold(
            draft,
            id,
            machine,
            &format!(
                "{}; it is the only control plane member, which healing never removes: make room on the host, or change the \
                 cluster's tier to Standard",
                symptom.why
            ),
        );
    };
    let mut rung = first;
    if let (Some(_), Kind::Node) = (&repair.preserve, kind) {
        // It stays as it is; after a while another node does its work beside it.
        let due = after(due, policy.after_reimage);
        if repair.given_up() || due > draft.now {
            let why = preserved(repair);
            if due > draft.now {
                draft.look_again_at(due);
            }
            return hold(draft, id, machine, &format!("{}; {why}", symptom.why));
        }
        rung = Rung::Replace;
    } else if repair.rung >= first {
        let due = repair.at.map_or(draft.now, |at| after(at, policy.pause(repair)));
        if due > draft.now {
            draft.look_again_at(due);
            return;
        }
        rung = kind.next(repair.rung);
    }
    if matches!(&symptom.ailment, Ailment::Stuck(process) if stands_by(process)) {
        rung = Rung::Restart;
    }
    if let Some(why) = forbidden(draft, id, machine, symptom, kind, rung) {
        return hold(draft, id, machine, &format!("{}; {why}", symptom.why));
    }
    step(draft, id, machine, symptom, rung);
}

/// Why a step must not be taken now, if so.
fn forbidden(
    draft: &Draft<'_>,
    id: &str,
    machine: &Machine,
    symptom: &Symptom,
    kind: Kind,
    rung: Rung,
) -> Option<String> {
    let repair = &machine.record.repair;
    if repair.preserve.is_some() && kind != Kind::Node {
        return Some(preserved(repair));
    }
    let seen = draft.seen;
    if seen.silence.is_mass() && symptom.ailment != Ailment::Vanished {
        return Some(format!(
            "more than {MASS} % of the stamp's machines are silent: the host or the service is more likely the cause, so \
             nothing is repaired one by one; look at the host's load and at 'landfall logs'"
        ));
    }
    if rung == Rung::Restart {
        return None;
    }
    if symptom.ailment == Ailment::DiskFull && shared_disk(draft) {
        return Some("the disks of most machines are full: it is the host's; make room there".to_owned());
    }
    match kind {
        Kind::Only => None,
        Kind::Member => {
            let others = members::staying(draft);
            if others
                .iter()
                .any(|(other, machine)| *other != id && machine.record.repair.pending)
            {
                return Some("another control plane member is being repaired".to_owned());
            }
            let stuck = |machine: &Machine| {
                let symptom = machine.symptom.as_ref();
                symptom.is_some_and(|symptom| matches!(symptom.ailment, Ailment::Stuck(_)))
            };
            if stuck(machine) && others.iter().filter(|(_, machine)| stuck(machine)).count() > 1 {
                return Some(
                    "more than one control plane member is stuck, which is no matter of machines".to_owned(),
                );
            }
            // A reboot keeps the data and can only help; whoever is replaced is gone for good.
            (rung > Rung::Reboot && !members::all_healthy(draft, Some(id)))
                .then(|| "not all other control plane members are well".to_owned())
        }
        Kind::Node => {
            let (ailing, all) = pool(draft, machine);
            (all >= SMALLEST_POOL && ailing > most(all) && symptom.ailment != Ailment::Vanished).then(|| {
                format!(
                    "{ailing} of {all} nodes of the pool ail at once: more likely a common cause than bad machines, so none is \
                     rebooted or removed"
                )
            })
        }
    }
}

fn preserved(repair: &Repair) -> String {
    let reason = repair.preserve.as_deref().unwrap_or_default();
    format!("it is preserved ({reason})")
}

/// How many nodes of a machine's pool ail, and how many it has.
fn pool(draft: &Draft<'_>, machine: &Machine) -> (usize, usize) {
    let name = |machine: &Machine| match machine.role() {
        Some(Role::Node { pool, .. }) => Some(pool.clone()),
        _ => None,
    };
    let own = name(machine);
    let (mut ailing, mut all) = (0, 0);
    for other in draft.seen.machines.values() {
        if other.record.deleting || name(other) != own {
            continue;
        }
        all += 1;
        let ripe = other.symptom.as_ref().is_some_and(|symptom| {
            after(symptom.since, draft.policy.heal.patience(&symptom.ailment)) <= draft.now
        });
        ailing += usize::from(ripe || other.record.repair.pending);
    }
    (ailing, all)
}

fn shared_disk(draft: &Draft<'_>) -> bool {
    let disks: Vec<bool> = draft
        .seen
        .machines
        .values()
        .filter_map(|machine| machine.report.as_ref())
        .filter(|report| !report.disks.is_empty())
        .map(|report| report.disks.iter().any(is_full))
        .collect();
    let full = disks.iter().filter(|full| **full).count();
    full > 1 && full * 2 > disks.len()
}

fn step(draft: &mut Draft<'_>, id: &str, machine: &Machine, symptom: &Symptom, rung: Rung) {
    let before = &machine.record.repair;
    let mut repair = Repair {
        rung,
        at: Some(draft.now),
        attempts: if before.rung == rung {
            before.attempts + 1
        } else {
            1
        },
        pending: matches!(rung, Rung::Reboot | Rung::Reimage),
        reason: symptom.why.clone(),
        held: None,
        ..before.clone()
    };
    let what = match rung {
        Rung::None => return,
        Rung::Restart => {
            let process = match &symptom.ailment {
                Ailment::Stuck(process) => process.as_str(),
                _ => KUBELET,
            };
            *repair.restarts.entry(process.to_owned()).or_default() += 1;
            format!("restarting {process}")
        }
        Rung::Reboot => "restarting the machine".to_owned(),
        Rung::Reimage => "making the machine anew".to_owned(),
        Rung::Replace if before.preserve.is_some() => {
            "adding another node beside it, which is preserved".to_owned()
        }
        Rung::Replace => "replacing the machine".to_owned(),
    };
    write(draft, id, machine, repair, format!("{what}: {}", symptom.why));
}

/// Does nothing, and says why, once.
fn hold(draft: &mut Draft<'_>, id: &str, machine: &Machine, why: &str) {
    draft.look_again_at(after(draft.now, draft.policy.heal.after_restart));
    let repair = &machine.record.repair;
    if repair.held.as_deref() == Some(why) {
        return;
    }
    let held = Repair {
        held: Some(why.to_owned()),
        ..repair.clone()
    };
    write(draft, id, machine, held, format!("not repaired: {why}"));
}

fn write(draft: &mut Draft<'_>, id: &str, machine: &Machine, repair: Repair, told: String) {
    let before = &machine.record.repair;
    let begins = repair.at != before.at;
    draft.tell(EventKind::Repair, machine.label(), told);
    draft.writes.push(Write::Repair {
        machine: id.to_owned(),
        new_token: begins && repair.rung == Rung::Reimage,
        remove: begins && repair.rung == Rung::Replace && repair.preserve.is_none(),
        repair,
    });
}

/// Does what was written down, and writes down that it is done.
fn carry_out(draft: &mut Draft<'_>, id: &str, machine: &Machine) {
    let repair = &machine.record.repair;
    let label = machine.label();
    let done = machine.repaired.is_some() && machine.repaired == repair.at;
    match (repair.rung, done) {
        (Rung::Reboot, false) => draft.act(
            Effect::RestartMachine {
                machine: id.to_owned(),
                at: repair.at.unwrap_or(draft.now),
            },
            format!("restarting {label}: {}", repair.reason),
        ),
        (Rung::Reimage, false) => {
            let why = format!("making {label} anew: {}", repair.reason);
            let (machine, at) = (id.to_owned(), repair.at.unwrap_or(draft.now));
            match drained(draft, &draft.seen.machines[id]) {
                Drained::Ask(node) => {
                    draft.act(Effect::Drain { machine, node }, format!("draining node {label}"));
                }
                Drained::Wait => draft.wait(format!("draining node {label}")),
                Drained::Enough => draft.act(Effect::WipeMachine { machine, at }, why),
            }
        }
        // The kubelet registers anew, and not as a node that was drained.
        (Rung::Reimage, true) if registered(draft, machine) => {
            let node = label.to_owned();
            draft.act(Effect::DeleteNode(node), format!("making {label} anew"));
        }
        _ => {
            let finished = Repair {
                pending: false,
                at: Some(draft.now),
                ..repair.clone()
            };
            draft.wait(format!("repairing {label}"));
            draft.writes.push(Write::Repair {
                machine: id.to_owned(),
                repair: finished,
                new_token: false,
                remove: false,
            });
        }
    }
}

fn registered(draft: &Draft<'_>, machine: &Machine) -> bool {
    let api = &draft.seen.api;
    api.reach == Reach::Ready && machine.node_name().is_some_and(|name| api.node(name).is_some())
}

/// How far the pods of a node that is made anew are gone.
enum Drained {
    Ask(String),
    Wait,
    Enough,
}

/// Pods are asked to go first, while they may. From a machine that cannot answer, they are asked once: what follows does
/// not wait for somebody who does not hear.
fn drained(draft: &mut Draft<'_>, machine: &Machine) -> Drained {
    let (Some(drain), true) = (machine.drain, registered(draft, machine)) else {
        return Drained::Enough;
    };
    let deadline = after(drain.since, draft.policy.drain_bound);
    if draft.now >= deadline {
        return Drained::Enough;
    }
    draft.look_again_at(deadline);
    let hears = !matches!(
        machine.symptom.as_ref().map(|symptom| &symptom.ailment),
        Some(Ailment::Vanished | Ailment::Silent | Ailment::NotReady | Ailment::Stuck(_))
    );
    match drain.left {
        None => Drained::Ask(machine.label().to_owned()),
        Some((left, _)) if left == 0 || !hears => Drained::Enough,
        Some((_, at)) => {
            let next = after(at, draft.policy.drain_pause);
            if next > draft.now {
                draft.look_again_at(next);
                Drained::Wait
            } else {
                Drained::Ask(machine.label().to_owned())
            }
        }
    }
}
