//! Healing: what is wrong with a machine, and what is done about it, one step after the other, gentle ones first.
//!
//! | step | what happens | for |
//! |---|---|---|
//! | restart | one process is started again | a process that its agent could not bring back, a NotReady node |
//! | reboot | the machine stops and starts, its disk stays | a silent machine, an agent that stays old, what a restart did not mend |
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

use control_records::{EventKind, Repair, Role, Rung};
use jiff::Timestamp;

pub(crate) mod ailment;
pub(crate) mod health;
mod repair;

use crate::{
    Ailment, Draft, Effect, Machine, Presence, Reach, Subject, Symptom, Write, after, members, restore,
    upgrade,
};
use ailment::{KUBELET, is_full};
pub(crate) use ailment::{data_on_its_way, stands_by};

/// Nodes that a pool must have for its breaker.
const SMALLEST_POOL: usize = 3;
/// Percent of a pool, or of a stamp's machines, that may ail before it is taken for something else than bad machines.
const MASS: usize = 30;

/// How patient healing is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealPolicy {
    /// A machine that runs has so long to be heard of for the first time: since it runs, or since this process looks.
    pub boot: Duration,
    /// Silent for so long beyond [`SILENT_AFTER`].
    pub silent: Duration,
    /// An agent that does not give way to a newer one for so long.
    pub outdated: Duration,
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
    /// While a mass ails, one of the cluster's machines is tried after so long, and another so long after it.
    pub probe: Duration,
    /// Well for so long, everything is forgiven.
    pub quiet: Duration,
}

impl Default for HealPolicy {
    fn default() -> Self {
        Self {
            boot: Duration::from_secs(120),
            silent: Duration::from_secs(15),
            outdated: Duration::from_secs(60),
            stuck: Duration::from_secs(120),
            not_ready: Duration::from_secs(90),
            unregistered: Duration::from_secs(60),
            disk_full: Duration::from_secs(10 * 60),
            after_restart: Duration::from_secs(60),
            after_reboot: Duration::from_secs(2 * 60),
            after_reimage: Duration::from_secs(5 * 60),
            longest: Duration::from_secs(60 * 60),
            probe: Duration::from_secs(10 * 60),
            quiet: Duration::from_secs(10 * 60),
        }
    }
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

impl HealPolicy {
    /// How long an ailment lasts before anything is done about it.
    pub fn patience(&self, ailment: &Ailment) -> Duration {
        match ailment {
            Ailment::Vanished => Duration::ZERO,
            Ailment::Silent => self.silent,
            Ailment::Outdated => self.outdated,
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
            (Ailment::Silent | Ailment::Outdated, _) => Rung::Reboot,
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
pub(crate) fn plan(draft: &mut Draft<'_>) {
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
            repair::carry_out(draft, id, machine);
            continue;
        }
        if upgrade::is_due(machine) {
            continue;
        }
        // What is being done to it may be just what it lacks.
        if seen.busy.contains(&Subject::Machine(id.clone())) {
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
    if !told_since(draft, symptom, due) {
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
        if !told_since(draft, symptom, due) {
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
    if let Some(why) = mass(draft, machine, symptom, kind, rung)
        && !may_probe(draft, symptom)
    {
        return hold(draft, id, machine, &format!("{}; {why}", symptom.why));
    }
    step(draft, id, machine, symptom, rung);
}

/// What only a look at the API tells counts when a look that began since then tells it still. Looks wait their turn: on a
/// host with more to do than it can, nodes have long joined that the last look did not find, and restarting them would
/// only be more to do.
fn told_since(draft: &mut Draft<'_>, symptom: &Symptom, due: Timestamp) -> bool {
    let by_look = matches!(symptom.ailment, Ailment::NotReady | Ailment::Unregistered);
    let old = draft.seen.api.looked_at.is_some_and(|at| at < due);
    if by_look && old {
        draft.act_quietly(Effect::LookAtApi);
    }
    !(by_look && old)
}

/// Why so many ailing at once are taken for something else than bad machines, if so.
fn mass(draft: &Draft<'_>, machine: &Machine, symptom: &Symptom, kind: Kind, rung: Rung) -> Option<String> {
    if symptom.ailment == Ailment::Vanished {
        return None;
    }
    if draft.seen.silence.is_mass() {
        return Some(format!(
            "more than {MASS} % of the stamp's machines are silent: the host or the service is more likely the cause, so \
             only one machine of a cluster is tried now and then; look at the host's load and at 'landfall logs'"
        ));
    }
    if kind != Kind::Node || rung == Rung::Restart || symptom.ailment == Ailment::Outdated {
        return None;
    }
    let (ailing, all) = pool(draft, machine);
    (all >= SMALLEST_POOL && ailing > most(all)).then(|| {
        format!(
            "{ailing} of {all} nodes of the pool ail at once: more likely a common cause than bad machines, so only one is \
             tried now and then"
        )
    })
}

/// Whether a machine may be tried though a mass ails. Bad machines of a small stamp look like a mass too, and must not wait
/// for ever; and where something else is the cause, one machine every now and then does no harm.
fn may_probe(draft: &Draft<'_>, symptom: &Symptom) -> bool {
    let long_ago = |at| after(at, draft.policy.heal.probe) <= draft.now;
    let begun = |write: &Write| matches!(write, Write::Repair { repair, .. } if repair.at == Some(draft.now));
    let tried = draft
        .seen
        .machines
        .values()
        .filter_map(|machine| machine.record.repair.at);
    long_ago(symptom.since) && tried.into_iter().all(long_ago) && !draft.writes.iter().any(begun)
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
            // When nothing is left of any of them, there is nobody to be waited for, and nothing to be lost.
            let nothing_left = |machine: &Machine| {
                let symptom = machine.symptom.as_ref();
                symptom.is_some_and(|symptom| symptom.ailment == Ailment::Vanished) || restore::empty(machine)
            };
            let repaired = |(other, machine): &(&String, &Machine)| under_repair(draft, other, machine);
            if others
                .iter()
                .all(|other| nothing_left(other.1) || repaired(other))
                && nothing_left(machine)
            {
                return None;
            }
            if others
                .iter()
                .any(|(other, machine)| *other != id && under_repair(draft, other, machine))
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
        Kind::Node if symptom.ailment == Ailment::Outdated => {
            // Nothing is wrong with it but its age: that many are that old is what an upgrade brings.
            let away = |(other, machine): (&String, &Machine)| {
                let ails = machine.symptom.as_ref();
                let ails = ails.is_some_and(|symptom| symptom.ailment != Ailment::Outdated);
                // One that was started a moment ago is not back yet, though nothing tells.
                let begun = machine.record.repair.at;
                let just_now = begun.is_some_and(|at| after(at, draft.policy.heal.after_restart) > draft.now);
                other != id && (ails || just_now || under_repair(draft, other, machine))
            };
            nodes_beside(draft, machine)
                .any(away)
                .then(|| "another node of its pool is away".to_owned())
        }
        Kind::Node => None,
    }
}

fn preserved(repair: &Repair) -> String {
    let reason = repair.preserve.as_deref().unwrap_or_default();
    format!("it is preserved ({reason})")
}

/// Whether a machine is taken away for a while, or is from this plan on.
pub(crate) fn under_repair(draft: &Draft<'_>, id: &str, machine: &Machine) -> bool {
    let begins = |write: &Write| match write {
        Write::Repair {
            machine,
            repair,
            remove,
            ..
        } => machine == id && (repair.pending || *remove),
        _ => false,
    };
    machine.record.repair.pending || upgrade::is_due(machine) || draft.writes.iter().any(begins)
}

/// The nodes of a machine's pool that are to stay, itself among them.
fn nodes_beside<'a>(
    draft: &Draft<'a>,
    machine: &Machine,
) -> impl Iterator<Item = (&'a String, &'a Machine)> + use<'a> {
    let name = |machine: &Machine| match machine.role() {
        Some(Role::Node { pool, .. }) => Some(pool.clone()),
        _ => None,
    };
    let own = name(machine);
    let all = draft.seen.machines.iter();
    all.filter(move |(_, other)| !other.record.deleting && name(other) == own)
}

/// How many nodes of a machine's pool ail, and how many it has.
fn pool(draft: &Draft<'_>, machine: &Machine) -> (usize, usize) {
    let (mut ailing, mut all) = (0, 0);
    for (_, other) in nodes_beside(draft, machine) {
        all += 1;
        let ripe = other.symptom.as_ref().is_some_and(|symptom| {
            symptom.ailment != Ailment::Outdated
                && after(symptom.since, draft.policy.heal.patience(&symptom.ailment)) <= draft.now
        });
        // One that was just rebooted has not shown yet that this helped.
        let repair = &other.record.repair;
        let unproven = repair.pending || repair.rung >= Rung::Reboot && !other.heard();
        ailing += usize::from(ripe || unproven);
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
