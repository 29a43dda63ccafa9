//! What a cluster consists of, as a list of things that are there or not. The one definition of *done*: that the generation is
//! reached, that a part of it is, how far an operation is and what it waits for all follow from this list.
//!
//! Each is of one [`Part`] of the cluster.

use control_records::Part;

use crate::{
    Draft, Machine, NetworkSeen,
    view::machines::{member_index, part_of},
};

/// Something that is to be there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Check {
    /// Of which part.
    pub(crate) part: Part,
    /// Of which machine, if it is one's.
    pub(crate) machine: Option<String>,
    /// What is going on as long as it is not.
    pub(crate) what: String,
    /// Whether it is.
    pub(crate) done: bool,
    /// Whether it is routine: part of what is to be done, but neither told nor counted.
    routine: bool,
    stage: Stage,
}

/// When something comes about, within its part. Machines are told apart by their numbers and ids.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Before there are machines.
    Foundation,
    /// With a machine.
    Machine(u32, String),
    /// When there are machines: whether they are enough, or too many.
    Membership,
    /// What machines serve together.
    Service,
}

impl Stage {
    /// With this machine.
    pub(crate) fn of(machine: &Machine) -> Self {
        Self::Machine(
            member_index(machine).unwrap_or_default(),
            machine.record.id.clone(),
        )
    }
}

/// The list, as features add to it.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    list: Vec<Check>,
}

impl Checks {
    /// Puts them in the order in which they come about.
    pub(crate) fn sort(&mut self, draft: &Draft<'_>) {
        let pools = &draft.desired.spec().pools;
        let leaving = &draft.desired.requests.leaving;
        let order = |part: &Part| match part {
            Part::Base => 0,
            Part::Pool(name) => {
                let pool = pools.iter().position(|pool| pool.name == *name);
                1 + pool.unwrap_or(pools.len() + leaving.len())
            }
            Part::Leaving { .. } => {
                let left = leaving.iter().position(|pool| pool.part() == *part);
                1 + pools.len() + left.unwrap_or(leaving.len())
            }
        };
        self.list
            .sort_by_cached_key(|check| (order(&check.part), check.stage.clone()));
    }

    /// Those of some parts that are not done and can be told, in order.
    pub(crate) fn open<'c>(&'c self, parts: &'c [Part]) -> impl Iterator<Item = &'c Check> {
        let own = self.list.iter().filter(|check| parts.contains(&check.part));
        own.filter(|check| !check.done && !check.routine)
    }

    /// Whether everything is there.
    pub(crate) fn all_done(&self) -> bool {
        self.list.iter().all(|check| check.done)
    }

    /// Whether everything of a part is there. Routine is no part's own; it is the cluster's once nothing else is left.
    pub(crate) fn part_done(&self, part: &Part) -> bool {
        let done = |own: &dyn Fn(&Check) -> bool| self.list.iter().all(|check| check.done || !own(check));
        done(&|check| !check.routine && check.part == *part)
            && (*part != Part::Base
                || !done(&|check| !check.routine && check.part != Part::Base)
                || done(&|check| check.routine))
    }

    /// Thousandths of what these parts are to be that are there.
    pub(crate) fn share(&self, parts: &[Part]) -> u32 {
        let own = self.list.iter().filter(|check| parts.contains(&check.part));
        let (mut all, mut done) = (0_u32, 0_u32);
        for check in own.filter(|check| !check.routine) {
            all += 1;
            done += u32::from(check.done);
        }
        (done * 1000).checked_div(all).unwrap_or(1000)
    }

    fn add(
        &mut self,
        part: &Part,
        stage: Stage,
        machine: Option<&str>,
        what: impl Into<String>,
        done: bool,
        routine: bool,
    ) {
        self.list.push(Check {
            part: part.clone(),
            machine: machine.map(str::to_owned),
            what: what.into(),
            done,
            routine,
            stage,
        });
    }

    /// Of the cluster as a whole.
    pub(crate) fn cluster(&mut self, stage: Stage, what: impl Into<String>, done: bool) {
        self.add(&Part::Base, stage, None, what, done, false);
    }

    /// Of a part.
    pub(crate) fn part(&mut self, part: &Part, stage: Stage, what: impl Into<String>, done: bool) {
        self.add(part, stage, None, what, done, false);
    }

    /// Of a machine that is to stay; nothing for one that is of no part.
    pub(crate) fn machine(
        &mut self,
        draft: &Draft<'_>,
        id: &str,
        machine: &Machine,
        what: impl Into<String>,
        done: bool,
    ) {
        if let Some(part) = part_of(draft, id, machine) {
            self.add(&part, Stage::of(machine), Some(id), what, done, false);
        }
    }

    /// Of a machine that is to go.
    pub(crate) fn leaving_machine(&mut self, part: &Part, stage: Stage, id: &str, what: impl Into<String>) {
        self.add(part, stage, Some(id), what, false, false);
    }

    /// A machine that is not written down yet: as many checks as for one that is.
    pub(crate) fn missing_machine(&mut self, part: &Part) {
        for _ in 0..3 {
            self.add(part, Stage::Membership, None, "preparing machines", false, false);
        }
    }

    /// Machines that are to be gone, of as many as there were.
    pub(crate) fn removed<'m>(
        &mut self,
        part: &Part,
        left: impl Iterator<Item = (&'m String, &'m Machine)>,
        of: usize,
    ) {
        let left: Vec<_> = left.collect();
        for _ in left.len()..of {
            self.add(part, Stage::Foundation, None, "removing machines", true, false);
        }
        for (id, machine) in left {
            let what = format!("removing {}", machine.label());
            self.add(part, Stage::Foundation, Some(id), what, false, false);
        }
    }

    /// What is to be done and is neither told nor counted.
    pub(crate) fn routine(&mut self, what: impl Into<String>, done: bool) {
        self.add(&Part::Base, Stage::Service, None, what, done, true);
    }
}

/// What is left of a cluster of which nothing is to be there.
pub(crate) fn removal(draft: &Draft<'_>, checks: &mut Checks) {
    let seen = draft.seen;
    let spec = draft.desired.spec();
    let wanted = spec.pools.iter().map(|pool| pool.wanted()).sum::<u32>() + spec.tier.members();
    let of = usize::try_from(wanted).unwrap_or_default();
    checks.removed(&Part::Base, seen.machines.iter(), of);
    let gone = seen.network == NetworkSeen::Gone;
    checks.cluster(Stage::Service, "removing the network", gone);
}
