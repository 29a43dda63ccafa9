//! Repairs: nothing is taken away from a machine that is preserved, nor from many machines that ail at once.

use control_records::{Healing, RepairStep, Role};

use crate::{
    Ailment, Draft, Machine, SilentMachines, Symptom, Write,
    view::{
        control_plane::{all_healthy, staying},
        etcd,
        machines::{is_full, under_repair},
    },
};

/// Nodes that a pool must have for its breaker.
const SMALLEST_POOL: usize = 3;
/// Percent of a pool, or of a stamp's machines, that may ail before it is taken for something else than bad machines.
const MASS: usize = 30;

impl SilentMachines {
    fn is_mass(self) -> bool {
        self.silent > most(self.all)
    }
}

/// How healing may treat a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Node,
    /// One member of several.
    Member,
    /// The whole control plane.
    Only,
}

impl Kind {
    /// Of a machine of this cluster.
    pub(crate) fn of(draft: &Draft<'_>, machine: &Machine) -> Self {
        match machine.role() {
            Some(Role::ControlPlane { .. }) if staying(draft).len() > 1 => Self::Member,
            Some(Role::ControlPlane { .. }) => Self::Only,
            _ => Self::Node,
        }
    }
}

/// A step of a repair.
pub(super) fn repair(
    draft: &Draft<'_>,
    id: &str,
    machine: &Machine,
    symptom: &Symptom,
    kind: Kind,
    step: RepairStep,
) -> Result<(), String> {
    if let Some(why) = forbidden(draft, id, machine, symptom, kind, step) {
        return Err(why);
    }
    match mass(draft, machine, symptom, kind, step) {
        Some(why) if !may_probe(draft, symptom) => Err(why),
        _ => Ok(()),
    }
}

/// Why a step must not be taken on this machine now, if so.
fn forbidden(
    draft: &Draft<'_>,
    id: &str,
    machine: &Machine,
    symptom: &Symptom,
    kind: Kind,
    step: RepairStep,
) -> Option<String> {
    let healing = &machine.record.healing;
    if healing.preserve.is_some() && kind != Kind::Node {
        return Some(preserved(healing));
    }
    if step == RepairStep::Restart {
        return None;
    }
    if symptom.ailment == Ailment::DiskFull && shared_disk(draft) {
        return Some("the disks of most machines are full: it is the host's; make room there".to_owned());
    }
    match kind {
        Kind::Only => None,
        Kind::Member => {
            let others = staying(draft);
            // Where nothing is left of so many that etcd has no majority again, nobody is to be waited for, and of whom nothing is
            // left there is nothing to be lost. Nor of anybody, once the backup is to take its place; but whoever has data sets it aside by
            // itself, and has the time to do so.
            let lost = etcd::majority_without_data(draft, |member| etcd::without_data(draft, member));
            let repaired = |(other, machine): &(&String, &Machine)| under_repair(draft, other, machine);
            let all_gone = others.iter().all(|other| {
                etcd::without_data(draft, other.1) || etcd::is_untold(other.1) || repaired(other)
            });
            let long_ago = |at| draft.after(at, draft.policy.heal.after_reboot) <= draft.now;
            let superseded = etcd::superseded(draft).is_some_and(long_ago);
            if etcd::without_data(draft, machine) && (all_gone || lost) || lost && superseded {
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
            // Where the majority is lost it is one of data, and all that have some must be started again before the backup takes its place.
            if !lost && stuck(machine) && others.iter().filter(|(_, machine)| stuck(machine)).count() > 1 {
                return Some(
                    "more than one control plane member is stuck, which is no matter of machines".to_owned(),
                );
            }
            // A reboot keeps the data and can only help; whoever is replaced is gone for good.
            (step > RepairStep::Reboot && !all_healthy(draft, Some(id)))
                .then(|| "not all other control plane members are well".to_owned())
        }
        Kind::Node if symptom.ailment == Ailment::Outdated => {
            // Nothing is wrong with it but its age: that many are that old is what an upgrade brings.
            let away = |(other, machine): (&String, &Machine)| {
                let ails = machine.symptom.as_ref();
                let ails = ails.is_some_and(|symptom| symptom.ailment != Ailment::Outdated);
                // One that was started a moment ago is not back yet, though nothing tells.
                let begun = machine.record.healing.at;
                let just_now =
                    begun.is_some_and(|at| draft.after(at, draft.policy.heal.after_restart) > draft.now);
                other != id && (ails || just_now || under_repair(draft, other, machine))
            };
            nodes_beside(draft, machine)
                .any(away)
                .then(|| "another node of its pool is away".to_owned())
        }
        Kind::Node => None,
    }
}

/// Why so many ailing at once are taken for something else than bad machines, if so.
fn mass(
    draft: &Draft<'_>,
    machine: &Machine,
    symptom: &Symptom,
    kind: Kind,
    step: RepairStep,
) -> Option<String> {
    if symptom.ailment == Ailment::Vanished {
        return None;
    }
    if draft.seen.silent_machines.is_mass() {
        return Some(format!(
            "more than {MASS} % of the stamp's machines are silent: the host or the service is more likely the cause, so \
             only one machine of a cluster is tried now and then; look at the host's load and at 'landfall logs'"
        ));
    }
    if kind != Kind::Node || step == RepairStep::Restart || symptom.ailment == Ailment::Outdated {
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
    let long_ago = |at| draft.after(at, draft.policy.heal.probe) <= draft.now;
    let begun =
        |write: &Write| matches!(write, Write::Repair { healing, .. } if healing.at == Some(draft.now));
    let tried = draft
        .seen
        .machines
        .values()
        .filter_map(|machine| machine.record.healing.at);
    long_ago(symptom.since) && tried.into_iter().all(long_ago) && !draft.writes.iter().any(begun)
}

pub(crate) fn preserved(healing: &Healing) -> String {
    let reason = healing.preserve.as_deref().unwrap_or_default();
    format!("it is preserved ({reason})")
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
                && draft.after(symptom.since, draft.policy.heal.patience(&symptom.ailment)) <= draft.now
        });
        // One that was just rebooted has not shown yet that this helped.
        let record = &other.record;
        let unproven =
            record.repairing().is_some() || record.healing.step >= RepairStep::Reboot && !other.heard();
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

/// So many of `all` may ail before it is a mass.
fn most(all: usize) -> usize {
    (all * MASS / 100).max(1)
}
