//! What a cluster consists of, as a list of things that are there or not: which of its parts are what they are to be, how
//! far an operation is, and what it waits for, all follow from the same list.
//!
//! A part is a pool, or everything else ([`BASE`]), or a deleted pool on its way out ([`Leaving::part`]).
//! An operation about one part ends when that part is there, whatever goes on in the others.
//!
//! [`Leaving::part`]: control_records::Leaving::part

use cluster_spec::PoolSpec;
use control_records::{BASE, OperationRecord, Role};

use crate::{
    ConfigSeen, Draft, Machine, NetworkSeen, Presence, Reach, Subject, Write, addons_inputs, members,
    nodes::counts,
    reach::{in_force, joined},
    upgrade, wish_inputs,
};

/// Something that is to be there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Check {
    /// Of which part.
    pub(crate) part: String,
    /// Of which machine, if it is one's.
    pub(crate) machine: Option<String>,
    /// What is going on as long as it is not.
    pub(crate) what: String,
    /// Whether it is.
    pub(crate) done: bool,
}

/// Everything that is to be there, in the order in which it comes about.
pub(crate) fn checks(draft: &Draft<'_>) -> Vec<Check> {
    let mut list = List {
        draft,
        checks: Vec::new(),
    };
    if draft.desired.deleting || draft.desired.course.halted {
        list.removal();
    } else {
        list.base();
        for pool in &draft.desired.spec.pools {
            list.pool(pool);
        }
        for leaving in &draft.desired.course.leaving {
            list.leaving(&leaving.part(), &leaving.spec.incarnation, leaving.spec.count);
        }
    }
    list.checks
}

/// Notes which parts have got there before all of the cluster has.
pub(crate) fn reached(draft: &mut Draft<'_>) {
    if draft.observed.generation >= draft.desired.generation {
        draft.observed.reached.clear();
        return;
    }
    if draft.desired.deleting || draft.desired.course.halted {
        return;
    }
    let checks = checks(draft);
    let leaving = &draft.desired.course.leaving;
    let parts = std::iter::once((BASE.to_owned(), draft.desired.course.generation))
        .chain(draft.desired.pool_generations.clone())
        .chain(leaving.iter().map(|pool| (pool.part(), pool.generation)));
    let parts: Vec<_> = parts.collect();
    let pools_done = checks.iter().all(|check| check.done || check.part == BASE);
    for (part, own) in &parts {
        let there = checks.iter().all(|check| check.done || check.part != *part);
        // What nobody else can be waiting for is the base's.
        let there = there && (part != BASE || !pools_done || !draft.unfinished);
        let before = draft.observed.reached.get(part).copied();
        if there && *own > 0 && before.is_none_or(|before| before < *own) && draft.observed.generation < *own
        {
            draft
                .observed
                .reached
                .insert(part.clone(), draft.desired.generation);
        }
    }
    let known = |part: &String| parts.iter().any(|(other, _)| other == part);
    draft.observed.reached.retain(|part, _| known(part));
}

/// Which parts an operation is about.
pub(crate) fn scope(draft: &Draft<'_>, operation: &OperationRecord) -> Vec<String> {
    let desired = draft.desired;
    let pools = |most: u64| {
        let changed = desired
            .pool_generations
            .iter()
            .filter(move |(_, own)| **own <= most);
        changed.map(|(pool, _)| pool.clone())
    };
    let deletion = desired
        .course
        .leaving
        .iter()
        .find(|leaving| leaving.operation == operation.id);
    match (&operation.pool, deletion) {
        _ if operation.deletes => std::iter::once(BASE.to_owned()).chain(pools(u64::MAX)).collect(),
        (_, Some(leaving)) => vec![leaving.part()],
        (Some(pool), None) => vec![pool.clone()],
        (None, None) => std::iter::once(BASE.to_owned())
            .chain(pools(operation.generation))
            .collect(),
    }
}

/// Whether what an operation asked for is there.
pub(crate) fn is_reached(draft: &Draft<'_>, operation: &OperationRecord) -> bool {
    let observed = &draft.observed;
    observed.generation >= operation.generation
        || scope(draft, operation).iter().all(|part| {
            // A pool that has vanished from the records is no operation's to wait for alone.
            let own = if part == BASE || operation.pool.is_some() {
                Some(operation.generation)
            } else {
                draft.desired.part_generation(part)
            };
            own.is_some_and(|own| observed.has_reached(part, own))
        })
}

struct List<'d, 'a> {
    draft: &'d Draft<'a>,
    checks: Vec<Check>,
}

impl List<'_, '_> {
    fn check(&mut self, part: &str, machine: Option<&str>, what: impl Into<String>, done: bool) {
        self.checks.push(Check {
            part: part.to_owned(),
            machine: machine.map(str::to_owned),
            what: what.into(),
            done,
        });
    }

    /// Whether nothing is to be done, being done or held back about a subject.
    fn quiet(&self, subject: &Subject) -> bool {
        let seen = self.draft.seen;
        !seen.busy.contains(subject)
            && !seen.held.contains_key(subject)
            && !self
                .draft
                .effects
                .iter()
                .any(|effect| effect.subject() == *subject)
    }

    fn base(&mut self) {
        let draft = self.draft;
        let seen = draft.seen;
        let written = |write: &Write| match write {
            Write::Lease(_) | Write::CreatePki => true,
            Write::RecordMachine { role, .. } => matches!(role, Role::ControlPlane { .. }),
            _ => false,
        };
        let leased = crate::Addresses::of(&seen.observed).is_some() && !draft.writes.iter().any(written);
        self.check(BASE, None, "leasing addresses", leased);
        self.check(BASE, None, "making certificates", seen.pki);
        let network = match &seen.network {
            NetworkSeen::Made(_) => self.quiet(&Subject::Network),
            NetworkSeen::Unknown => draft.reached_before(),
            NetworkSeen::Gone => false,
        };
        self.check(BASE, None, "making the network", network);
        let staying = members::staying(draft);
        let wanted = usize::try_from(draft.desired.spec.tier.members()).unwrap_or(usize::MAX);
        let frame = draft.frame();
        for (id, machine) in &staying {
            self.machine(BASE, id, machine);
            let what = format!("upgrading {}", machine.label());
            self.check(BASE, Some(id), what, upgrade::is_done(draft, machine));
            // Members are configured one after the other: that nothing is planned for one does not say that it is done.
            if let (ConfigSeen::Published { inputs, .. }, Some(frame)) = (&machine.config, &frame) {
                let wanted = frame.config_inputs(&machine.record);
                let what = format!("configuring {}", machine.label());
                self.check(BASE, Some(id), what, *inputs == wanted);
            }
            let serves = machine.api_server_ready().unwrap_or(draft.reached_before());
            let what = format!("waiting for the API server of {}", machine.label());
            self.check(BASE, Some(id), what, serves);
        }
        for _ in staying.len()..wanted {
            self.missing(BASE);
        }
        let tier = draft.desired.spec.tier;
        let limits = draft.observed.limits.is_none_or(|limits| limits == tier);
        self.check(
            BASE,
            None,
            "bringing the API servers to the tier's limits",
            limits,
        );
        let there = staying.len().saturating_sub(wanted);
        for _ in 0..there {
            self.check(BASE, None, "taking control plane members away", false);
        }
        for (id, machine) in &seen.machines {
            if machine.record.deleting && machine.node_name().is_none() {
                self.check(BASE, Some(id), format!("removing {}", machine.label()), false);
            }
        }
        self.check(
            BASE,
            None,
            "waiting for the API server",
            seen.api.reach == Reach::Ready,
        );
        let addons = match &seen.api.addons {
            Some(applied) => applied.inputs == addons_inputs(&draft.desired.spec),
            None => draft.reached_before(),
        };
        self.check(BASE, None, "installing add-ons", addons);
    }

    /// What every machine has to come through; as many checks as for one that is still to be written down.
    fn machine(&mut self, part: &str, id: &str, machine: &Machine) {
        let draft = self.draft;
        let label = machine.label();
        let unknown = machine.presence == Presence::Unknown && draft.reached_before();
        let runs = (machine.presence == Presence::Running || unknown)
            && self.quiet(&Subject::Machine(id.to_owned()))
            && !machine.record.repair.pending;
        self.check(part, Some(id), format!("starting {label}"), runs);
        let configured = in_force(draft, machine) && self.quiet(&Subject::Config(id.to_owned()));
        self.check(part, Some(id), format!("configuring {label}"), configured);
    }

    fn missing(&mut self, part: &str) {
        for _ in 0..3 {
            self.check(part, None, "preparing machines", false);
        }
    }

    fn pool(&mut self, spec: &PoolSpec) {
        let draft = self.draft;
        let seen = draft.seen;
        let PoolSpec {
            name: pool,
            incarnation,
            count,
            kubernetes_version,
            ..
        } = spec;
        let count = *count;
        let of_pool = |machine: &&Machine| matches!(machine.role(), Some(Role::Node { incarnation: own, pool: name, .. }) if own == incarnation && name == pool);
        let (mut there, mut leaving) = (0, 0);
        for (id, machine) in &seen.machines {
            if !of_pool(&machine) {
                continue;
            }
            let marked = draft
                .writes
                .iter()
                .any(|write| matches!(write, Write::MarkMachine(other) if other == id));
            if machine.record.deleting || marked {
                leaving += 1;
                let what = format!("removing {}", machine.label());
                self.check(pool, Some(id), what, false);
                continue;
            }
            if !counts(machine, spec) {
                continue;
            }
            there += 1;
            if machine.record.image != *kubernetes_version {
                let what = format!("upgrading {} to Kubernetes {kubernetes_version}", machine.label());
                self.check(pool, Some(id), what, false);
            }
            self.machine(pool, id, machine);
            let Some(name) = machine.node_name() else { continue };
            let wished = match seen.api.set.get(id) {
                Some(inputs) => *inputs == wish_inputs(&draft.desired.spec, &machine.record),
                None => draft.reached_before(),
            };
            let done = joined(draft, name) && wished && self.quiet(&Subject::Node(name.to_owned()));
            self.check(pool, Some(id), format!("waiting for node {name}"), done);
        }
        for _ in there..count {
            self.missing(pool);
        }
        if there > count {
            self.check(pool, None, format!("scaling pool {pool} down"), false);
        }
        // So that going down shows as well as going up.
        if leaving == 0 && there == 0 && count == 0 {
            self.check(pool, None, format!("removing the nodes of pool {pool}"), true);
        }
    }

    /// What is left of a deleted pool; its machines that are gone count as well.
    fn leaving(&mut self, part: &str, incarnation: &str, count: u32) {
        let left = self.draft.seen.machines.iter().filter(|(_, machine)| {
            matches!(machine.role(), Some(Role::Node { incarnation: own, .. }) if own == incarnation)
        });
        let left: Vec<_> = left
            .map(|(id, machine)| (id.clone(), machine.label().to_owned()))
            .collect();
        self.gone(part, left, usize::try_from(count).unwrap_or_default());
    }

    /// What is left of a cluster that is to go.
    fn removal(&mut self) {
        let seen = self.draft.seen;
        let spec = &self.draft.desired.spec;
        let wanted = spec.pools.iter().map(|pool| pool.count).sum::<u32>() + spec.tier.members();
        let left = seen.machines.iter();
        let left: Vec<_> = left
            .map(|(id, machine)| (id.clone(), machine.label().to_owned()))
            .collect();
        self.gone(BASE, left, usize::try_from(wanted).unwrap_or_default());
        self.check(
            BASE,
            None,
            "removing the network",
            seen.network == NetworkSeen::Gone,
        );
    }

    fn gone(&mut self, part: &str, left: Vec<(String, String)>, of: usize) {
        for _ in left.len()..of {
            self.check(part, None, "removing machines", true);
        }
        for (id, label) in left {
            self.check(part, Some(&id), format!("removing {label}"), false);
        }
    }
}

/// Thousandths of what these parts are to be that are there.
pub(crate) fn share(checks: &[Check], parts: &[String]) -> u32 {
    let own = checks.iter().filter(|check| parts.contains(&check.part));
    let (mut all, mut done) = (0_u32, 0_u32);
    for check in own {
        all += 1;
        done += u32::from(check.done);
    }
    (done * 1000).checked_div(all).unwrap_or(1000)
}
