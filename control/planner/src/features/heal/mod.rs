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

use control_records::{EventKind, Healing, RepairStep, Work};
use jiff::Timestamp;

pub(crate) mod ailment;
pub(crate) mod health;
mod repair;
pub(crate) mod symptom;

use ailment::KUBELET;

use crate::{
    Ailment, ApiEffect, Draft, Machine, Presence, Reach, Subject, Symptom, Write,
    checks::Checks,
    disturb::{Disturb, Kind, preserved},
    feature::Feature,
    view::{
        etcd,
        machines::{is_due, is_etcd_sidecar},
    },
};

pub(crate) const FEATURE: Feature = Feature {
    act,
    checks,
    ..Feature::named("heal")
};

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

    fn pause(&self, healing: &Healing) -> Duration {
        let pause = match healing.step {
            RepairStep::None => Duration::ZERO,
            RepairStep::Restart => self.after_restart,
            RepairStep::Reboot => self.after_reboot,
            RepairStep::Reimage | RepairStep::Replace => self.after_reimage,
        };
        let doublings = (healing.attempts.saturating_sub(1) + healing.replaced).min(10);
        pause.saturating_mul(1 << doublings).min(self.longest)
    }
}

impl Kind {
    /// What is done first about an ailment. `None`: nothing that healing may do.
    fn first(self, ailment: &Ailment) -> Option<RepairStep> {
        Some(match (ailment, self) {
            (Ailment::Vanished, Self::Member) => RepairStep::Replace,
            // What may be lost is lost already; its etcd comes back from its backup or not at all.
            (Ailment::Vanished, Self::Node | Self::Only) => RepairStep::Reimage,
            (Ailment::Silent | Ailment::Outdated, _) => RepairStep::Reboot,
            (Ailment::Stuck(_) | Ailment::NotReady | Ailment::Unregistered, _) => RepairStep::Restart,
            (Ailment::DiskFull, Self::Node) => RepairStep::Reimage,
            (Ailment::DiskFull, Self::Member) => RepairStep::Replace,
            (Ailment::DiskFull, Self::Only) => return None,
        })
    }

    /// What follows a step that did not help.
    fn next(self, step: RepairStep) -> RepairStep {
        match (step, self) {
            (RepairStep::None, _) => RepairStep::Restart,
            (RepairStep::Restart, _) | (_, Self::Only) => RepairStep::Reboot,
            (RepairStep::Reboot, Self::Node) => RepairStep::Reimage,
            (RepairStep::Reboot, Self::Member) | (RepairStep::Reimage | RepairStep::Replace, _) => {
                RepairStep::Replace
            }
        }
    }
}

/// Takes the next step for every machine that needs one.
fn act(draft: &mut Draft<'_>) {
    let seen = draft.seen;
    for (id, machine) in &seen.machines {
        if machine.record.deleting {
            continue;
        }
        if preserve(draft, id, machine) {
            continue;
        }
        if let Some(step) = machine.record.repairing() {
            repair::carry_out(draft, id, machine, step);
            continue;
        }
        if is_due(machine) {
            continue;
        }
        // What is being done to it may be just what it lacks.
        if seen.busy.contains(&Subject::Machine(id.clone())) {
            continue;
        }
        if let Some(step) = machine.record.healing.pending() {
            obey(draft, id, machine, step);
            continue;
        }
        if machine.record.healing.off {
            continue;
        }
        match &machine.symptom {
            Some(symptom) => ail(draft, id, machine, symptom),
            None => well(draft, id, machine),
        }
        if machine.presence == Presence::Running && !machine.heard() {
            let since = machine.running_since.unwrap_or(draft.now);
            let due = draft.after(since, draft.policy.heal.boot);
            if due > draft.now {
                draft.look_again_at(due);
            }
        }
    }
}

/// Takes the step that somebody has asked for: at once, for who asks knows why.
fn obey(draft: &mut Draft<'_>, id: &str, machine: &Machine, step: RepairStep) {
    let before = &machine.record.healing;
    if let Err(why) = draft.may(Disturb::Order { id, machine }) {
        return hold(draft, id, machine, &format!("somebody has asked for it; {why}"));
    }
    let what = match step {
        RepairStep::None | RepairStep::Restart => return,
        RepairStep::Reboot => "restarting the machine",
        RepairStep::Reimage => "making the machine anew",
        RepairStep::Replace => "replacing the machine",
    };
    let healing = Healing {
        step,
        at: Some(draft.now),
        attempts: 1,
        reason: "somebody has asked for it".to_owned(),
        held: None,
        ..before.clone()
    };
    let repair = matches!(step, RepairStep::Reboot | RepairStep::Reimage).then_some((step, draft.now));
    let work = Work::of(repair, machine.record.upgrading());
    write(
        draft,
        id,
        machine,
        work,
        healing,
        format!("{what}: somebody has asked for it"),
    );
}

/// What somebody has asked for is done, once it was begun and nothing of it is left.
fn checks(draft: &Draft<'_>, checks: &mut Checks) {
    for (id, machine) in &draft.seen.machines {
        let record = &machine.record;
        if record.deleting || record.healing.asked.is_none() {
            continue;
        }
        let done = record.healing.pending().is_none() && record.repairing().is_none();
        checks.machine(draft, id, machine, format!("repairing {}", machine.label()), done);
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
    let healing = &machine.record.healing;
    if node.preserve == healing.preserve {
        return false;
    }
    let told = match &node.preserve {
        Some(reason) => format!("healing leaves it alone from now on: {reason}"),
        None => "healing may touch it again".to_owned(),
    };
    let changed = Healing {
        preserve: node.preserve.clone(),
        held: None,
        ..healing.clone()
    };
    write(draft, id, machine, machine.record.work.clone(), changed, told);
    true
}

/// A machine without a symptom: after a quiet time everything is forgiven.
fn well(draft: &mut Draft<'_>, id: &str, machine: &Machine) {
    let healing = &machine.record.healing;
    if healing.step == RepairStep::None && healing.held.is_none() {
        return;
    }
    if machine.presence != Presence::Running || !machine.heard() {
        return;
    }
    let since = machine.well_since.unwrap_or(draft.now);
    let since = healing.at.map_or(since, |at| since.max(at));
    let due = draft.after(since, draft.policy.heal.quiet);
    if due > draft.now {
        draft.look_again_at(due);
        return;
    }
    let told = format!("well again: {}", healing.reason);
    let forgiven = Healing {
        restarts: healing.restarts.clone(),
        preserve: healing.preserve.clone(),
        ..Healing::default()
    };
    write(draft, id, machine, machine.record.work.clone(), forgiven, told);
}

fn ail(draft: &mut Draft<'_>, id: &str, machine: &Machine, symptom: &Symptom) {
    let policy = &draft.policy.heal;
    let due = draft.after(symptom.since, policy.patience(&symptom.ailment));
    if due > draft.now {
        draft.look_again_at(due);
        return;
    }
    if !told_since(draft, symptom, due) {
        return;
    }
    let healing = &machine.record.healing;
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
    let mut step = first;
    if let (Some(_), Kind::Node) = (&healing.preserve, kind) {
        // It stays as it is; after a while another node does its work beside it.
        let due = draft.after(due, policy.after_reimage);
        if healing.given_up() || due > draft.now {
            let why = preserved(healing);
            if due > draft.now {
                draft.look_again_at(due);
            }
            return hold(draft, id, machine, &format!("{}; {why}", symptom.why));
        }
        step = RepairStep::Replace;
    } else if healing.step >= first {
        let due = healing
            .at
            .map_or(draft.now, |at| draft.after(at, policy.pause(healing)));
        if due > draft.now {
            draft.look_again_at(due);
            return;
        }
        if !told_since(draft, symptom, due) {
            return;
        }
        step = kind.next(healing.step);
    }
    if matches!(&symptom.ailment, Ailment::Stuck(process) if is_etcd_sidecar(process)) {
        step = RepairStep::Restart;
    }
    let may = |draft: &Draft<'_>, step| {
        draft.may(Disturb::Repair {
            id,
            machine,
            symptom,
            kind,
            step,
        })
    };
    if let Err(why) = may(draft, step) {
        // A member that must not be replaced is started again, ever more rarely: that keeps its data, and the last time it may just not
        // have come up. Where the majority is lost, its data is about to be set aside.
        let started = kind == Kind::Member && step > RepairStep::Reboot && healing.step == RepairStep::Reboot;
        let again =
            started && !etcd::majority_without_data(draft, |member| etcd::without_data(draft, member));
        if !again || may(draft, RepairStep::Reboot).is_err() {
            return hold(draft, id, machine, &format!("{}; {why}", symptom.why));
        }
        step = RepairStep::Reboot;
    }
    take_step(draft, id, machine, symptom, step);
}

/// What only a look at the API tells counts when a look that began since then tells it still. Looks wait their turn: on a
/// host with more to do than it can, nodes have long joined that the last look did not find, and restarting them would
/// only be more to do.
fn told_since(draft: &mut Draft<'_>, symptom: &Symptom, due: Timestamp) -> bool {
    let by_look = matches!(symptom.ailment, Ailment::NotReady | Ailment::Unregistered);
    let old = draft.seen.api.looked_at.is_some_and(|at| at < due);
    if by_look && old {
        draft.act_quietly(ApiEffect::Look);
    }
    !(by_look && old)
}

fn take_step(draft: &mut Draft<'_>, id: &str, machine: &Machine, symptom: &Symptom, step: RepairStep) {
    let before = &machine.record.healing;
    let mut healing = Healing {
        step,
        at: Some(draft.now),
        attempts: if before.step == step {
            before.attempts + 1
        } else {
            1
        },
        reason: symptom.why.clone(),
        held: None,
        ..before.clone()
    };
    let what = match step {
        RepairStep::None => return,
        RepairStep::Restart => {
            let process = match &symptom.ailment {
                Ailment::Stuck(process) => process.as_str(),
                _ => KUBELET,
            };
            *healing.restarts.entry(process.to_owned()).or_default() += 1;
            format!("restarting {process}")
        }
        RepairStep::Reboot => "restarting the machine".to_owned(),
        RepairStep::Reimage => "making the machine anew".to_owned(),
        RepairStep::Replace if before.preserve.is_some() => {
            "adding another node beside it, which is preserved".to_owned()
        }
        RepairStep::Replace => "replacing the machine".to_owned(),
    };
    let repair = matches!(step, RepairStep::Reboot | RepairStep::Reimage).then_some((step, draft.now));
    let work = Work::of(repair, machine.record.upgrading());
    write(
        draft,
        id,
        machine,
        work,
        healing,
        format!("{what}: {}", symptom.why),
    );
}

/// Does nothing, and says why, once.
fn hold(draft: &mut Draft<'_>, id: &str, machine: &Machine, why: &str) {
    draft.look_again_at(draft.after(draft.now, draft.policy.heal.after_restart));
    let healing = &machine.record.healing;
    if healing.held.as_deref() == Some(why) {
        return;
    }
    let held = Healing {
        held: Some(why.to_owned()),
        ..healing.clone()
    };
    let work = machine.record.work.clone();
    write(draft, id, machine, work, held, format!("not repaired: {why}"));
}

fn write(
    draft: &mut Draft<'_>,
    id: &str,
    machine: &Machine,
    work: Option<Work>,
    healing: Healing,
    told: String,
) {
    let before = &machine.record.healing;
    let begins = healing.at != before.at;
    draft.tell(EventKind::Repair, machine.label(), told);
    draft.write(Write::Repair {
        machine: id.to_owned(),
        new_token: begins && healing.step == RepairStep::Reimage,
        remove: begins && healing.step == RepairStep::Replace && healing.preserve.is_none(),
        work,
        healing,
    });
}
