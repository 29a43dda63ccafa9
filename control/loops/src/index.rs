//! What a loop needs to know of the whole stamp: whose a machine is that reports, how many machines there are, and which
//! addresses are leased.
//!
//! A copy of what the store says, fed by the controller's watch, and by each loop right after its own leases. Being behind
//! does no harm: a lease is written only where its key is absent, and a loop lists its own machines in the store.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use control_planner::UnknownMachines;

#[derive(Debug, Default)]
struct Inner {
    /// By machine: the uid of its cluster.
    owners: BTreeMap<String, String>,
    /// Machines that are to go.
    leaving: BTreeSet<String>,
    /// Uids of clusters that nobody is to serve.
    off: BTreeSet<String>,
    /// Leased addresses.
    taken: BTreeSet<Ipv4Addr>,
    /// By machine that is in no record: the uid of the cluster that it says it is of. `None` before the first look.
    unknown: Option<BTreeMap<String, String>>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Index(Mutex<Inner>);

impl Index {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Every change below is a single insertion or removal: whole even after a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There are these machines, with their owners and whether they are to go, and these keys of leases, and no others.
    pub(crate) fn set(
        &self,
        machines: impl IntoIterator<Item = (String, String, bool)>,
        leases: impl IntoIterator<Item = String>,
    ) {
        let (mut owners, mut going) = (BTreeMap::new(), BTreeSet::new());
        for (id, uid, leaving) in machines {
            if leaving {
                going.insert(id.clone());
            }
            owners.insert(id, uid);
        }
        let taken = leases.into_iter().filter_map(|key| address_of(&key)).collect();
        let mut inner = self.inner();
        inner.owners = owners;
        inner.leaving = going;
        inner.taken = taken;
    }

    /// A machine of a cluster, and whether it is to go.
    pub(crate) fn add_machine(&self, id: &str, uid: &str, leaving: bool) {
        let mut inner = self.inner();
        inner.owners.insert(id.to_owned(), uid.to_owned());
        if leaving {
            inner.leaving.insert(id.to_owned());
        } else {
            inner.leaving.remove(id);
        }
    }

    /// Whether the machines of a cluster are off on purpose, or on their way out.
    pub(crate) fn set_off(&self, uid: &str, off: bool) {
        let mut inner = self.inner();
        if !off {
            inner.off.remove(uid);
        } else if !inner.off.contains(uid) {
            inner.off.insert(uid.to_owned());
        }
    }

    pub(crate) fn remove_machine(&self, id: &str) {
        let mut inner = self.inner();
        inner.owners.remove(id);
        inner.leaving.remove(id);
    }

    /// The uid of the cluster that a machine belongs to.
    pub(crate) fn owner(&self, machine: &str) -> Option<String> {
        self.inner().owners.get(machine).cloned()
    }

    /// The fabric was looked through: these machines are in no record, by id, with their clusters' uids.
    pub(crate) fn set_unknown(&self, unknown: BTreeMap<String, String>) {
        self.inner().unknown = Some(unknown);
    }

    /// Whether there are machines of a cluster that are in no record.
    pub(crate) fn unknown_machines(&self, uid: &str) -> UnknownMachines {
        match &self.inner().unknown {
            None => UnknownMachines::NotLooked,
            Some(unknown) if unknown.values().any(|own| own == uid) => UnknownMachines::Some,
            Some(_) => UnknownMachines::None,
        }
    }

    /// All machines of all clusters that are to stay and to run, and those of them that are not heard of. One that is to go, or that was
    /// stopped, may be off while its record lives: that says nothing about the host.
    pub(crate) fn count_machines(&self, heard: impl Fn(&str) -> bool) -> (usize, usize) {
        let inner = self.inner();
        let (mut all, mut silent) = (0, 0);
        let runs = |(id, uid): &(&String, &String)| !inner.leaving.contains(*id) && !inner.off.contains(*uid);
        for (machine, _) in inner.owners.iter().filter(runs) {
            all += 1;
            silent += usize::from(!heard(machine));
        }
        (all, silent)
    }

    /// A lease, by its key.
    pub(crate) fn add_lease(&self, key: &str) {
        if let Some(address) = address_of(key) {
            self.inner().taken.insert(address);
        }
    }

    pub(crate) fn remove_lease(&self, key: &str) {
        if let Some(address) = address_of(key) {
            self.inner().taken.remove(&address);
        }
    }

    /// All leased addresses.
    pub(crate) fn taken(&self) -> BTreeSet<Ipv4Addr> {
        self.inner().taken.clone()
    }
}

/// A lease's key says which address it is of.
fn address_of(key: &str) -> Option<Ipv4Addr> {
    key.rsplit('/').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_that_are_to_go_are_not_counted_as_silent() {
        let index = Index::default();
        for machine in ["a", "b", "c", "d"] {
            index.add_machine(machine, "u", false);
        }
        // A third of a stamp is scaled down and stands still: nothing is wrong with the others.
        index.add_machine("c", "u", true);
        index.add_machine("d", "u", true);
        assert_eq!(index.count_machines(|machine| machine == "a"), (2, 1));
        index.add_machine("d", "u", false);
        assert_eq!(index.count_machines(|machine| machine == "a"), (3, 2));
        index.remove_machine("c");
        index.add_machine("c", "u", false);
        assert_eq!(
            index.count_machines(|_| false),
            (4, 4),
            "another machine of the same id"
        );
    }

    #[test]
    fn machines_of_clusters_that_are_off_are_not_counted_as_silent() {
        let index = Index::default();
        for (machine, uid) in [("a", "u"), ("b", "v"), ("c", "v")] {
            index.add_machine(machine, uid, false);
        }
        index.set_off("v", true);
        assert_eq!(index.count_machines(|machine| machine == "a"), (1, 0));
        index.set_off("v", false);
        assert_eq!(index.count_machines(|machine| machine == "a"), (3, 2));
    }

    #[test]
    fn whether_machines_are_unknown_is_not_known_before_they_were_looked_for() {
        let index = Index::default();
        assert_eq!(index.unknown_machines("u"), UnknownMachines::NotLooked);
        index.set_unknown([("m".to_owned(), "u".to_owned())].into());
        assert_eq!(index.unknown_machines("u"), UnknownMachines::Some);
        assert_eq!(index.unknown_machines("v"), UnknownMachines::None);
    }
}
