//! Which machines and operations belong to which cluster.
//!
//! A hint, never the truth: whoever uses it reads the records themselves, and an id without a record is skipped. It is
//! fed by the controller's watch, and by each loop right after its own writes, so that a loop always sees what it wrote.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::{Mutex, MutexGuard, PoisonError},
};

#[derive(Debug, Default)]
struct Inner {
    clusters: BTreeMap<String, String>,
    machines: BTreeMap<String, BTreeSet<String>>,
    operations: BTreeMap<String, BTreeSet<String>>,
    owner: BTreeMap<String, String>,
    /// The other way round of `clusters`.
    uids: BTreeMap<String, String>,
    /// Keys of leases by the cluster they are for.
    leases: BTreeMap<String, BTreeSet<String>>,
    /// Who has which lease, by its key.
    lessees: BTreeMap<String, String>,
    /// Machines that are to go.
    leaving: BTreeSet<String>,
    /// Leased addresses.
    taken: BTreeSet<Ipv4Addr>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Index(Mutex<Inner>);

impl Index {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Every change below is a single insertion or removal: whole even after a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add_cluster(&self, uid: &str, key: &str) {
        let mut inner = self.inner();
        inner.clusters.insert(uid.to_owned(), key.to_owned());
        let before = inner.uids.insert(key.to_owned(), uid.to_owned());
        // Another cluster under the same name.
        if let Some(before) = before.filter(|before| before != uid) {
            inner.clusters.remove(&before);
        }
    }

    pub(crate) fn remove_cluster(&self, key: &str) {
        let mut inner = self.inner();
        if let Some(uid) = inner.uids.remove(key) {
            inner.clusters.remove(&uid);
        }
    }

    pub(crate) fn cluster_key(&self, uid: &str) -> Option<String> {
        self.inner().clusters.get(uid).cloned()
    }

    pub(crate) fn add_machine(&self, uid: &str, id: &str) {
        let mut inner = self.inner();
        inner.owner.insert(id.to_owned(), uid.to_owned());
        inner
            .machines
            .entry(uid.to_owned())
            .or_default()
            .insert(id.to_owned());
    }

    pub(crate) fn remove_machine(&self, id: &str) {
        let mut inner = self.inner();
        inner.leaving.remove(id);
        if let Some(uid) = inner.owner.remove(id) {
            forget(&mut inner.machines, &uid, id);
        }
    }

    pub(crate) fn machines(&self, uid: &str) -> Vec<String> {
        listed(&self.inner().machines, uid)
    }

    /// Whether a machine is to go.
    pub(crate) fn set_leaving(&self, id: &str, leaving: bool) {
        let mut inner = self.inner();
        if leaving {
            inner.leaving.insert(id.to_owned());
        } else {
            inner.leaving.remove(id);
        }
    }

    /// All machines of all clusters that are to stay, and those of them that are not heard of. One that is to go may be off while
    /// its record lives: that says nothing about the host.
    pub(crate) fn count_machines(&self, heard: impl Fn(&str) -> bool) -> (usize, usize) {
        let inner = self.inner();
        let (mut all, mut silent) = (0, 0);
        for machine in inner.owner.keys().filter(|id| !inner.leaving.contains(*id)) {
            all += 1;
            silent += usize::from(!heard(machine));
        }
        (all, silent)
    }

    /// The key of the cluster that a machine belongs to.
    pub(crate) fn cluster_of(&self, machine: &str) -> Option<String> {
        let inner = self.inner();
        inner.clusters.get(inner.owner.get(machine)?).cloned()
    }

    /// A lease, by its key, and who it is for: `cluster/{uid}/…`.
    pub(crate) fn add_lease(&self, key: &str, owner: &str) {
        let mut inner = self.inner();
        inner.taken.extend(address_of(key));
        let cluster = owner
            .strip_prefix("cluster/")
            .and_then(|rest| rest.split('/').next());
        let Some(uid) = cluster else {
            return;
        };
        inner.lessees.insert(key.to_owned(), uid.to_owned());
        inner
            .leases
            .entry(uid.to_owned())
            .or_default()
            .insert(key.to_owned());
    }

    /// There are these leases and no others.
    pub(crate) fn set_leases<'a>(&self, leases: impl IntoIterator<Item = (&'a str, &'a str)>) {
        {
            let mut inner = self.inner();
            inner.taken.clear();
            inner.leases.clear();
            inner.lessees.clear();
        }
        for (key, owner) in leases {
            self.add_lease(key, owner);
        }
    }

    pub(crate) fn remove_lease(&self, key: &str) {
        let mut inner = self.inner();
        if let Some(address) = address_of(key) {
            inner.taken.remove(&address);
        }
        if let Some(uid) = inner.lessees.remove(key) {
            forget(&mut inner.leases, &uid, key);
        }
    }

    /// Keys of a cluster's leases.
    pub(crate) fn leases(&self, uid: &str) -> Vec<String> {
        listed(&self.inner().leases, uid)
    }

    /// All leased addresses.
    pub(crate) fn taken(&self) -> BTreeSet<Ipv4Addr> {
        self.inner().taken.clone()
    }

    pub(crate) fn add_operation(&self, uid: &str, id: &str) {
        let mut inner = self.inner();
        inner
            .operations
            .entry(uid.to_owned())
            .or_default()
            .insert(id.to_owned());
    }

    pub(crate) fn remove_operation(&self, uid: &str, id: &str) {
        forget(&mut self.inner().operations, uid, id);
    }

    pub(crate) fn operations(&self, uid: &str) -> Vec<String> {
        listed(&self.inner().operations, uid)
    }
}

/// A lease's key says which address it is of.
fn address_of(key: &str) -> Option<Ipv4Addr> {
    key.rsplit('/').next()?.parse().ok()
}

fn listed(map: &BTreeMap<String, BTreeSet<String>>, uid: &str) -> Vec<String> {
    map.get(uid)
        .map(|ids| ids.iter().cloned().collect())
        .unwrap_or_default()
}

fn forget(map: &mut BTreeMap<String, BTreeSet<String>>, uid: &str, id: &str) {
    if let Some(ids) = map.get_mut(uid) {
        ids.remove(id);
        if ids.is_empty() {
            map.remove(uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_that_are_to_go_are_not_counted_as_silent() {
        let index = Index::default();
        for machine in ["a", "b", "c", "d"] {
            index.add_machine("u", machine);
        }
        // A third of a stamp is scaled down and stands still: nothing is wrong with the others.
        index.set_leaving("c", true);
        index.set_leaving("d", true);
        assert_eq!(index.count_machines(|machine| machine == "a"), (2, 1));
        index.set_leaving("d", false);
        assert_eq!(index.count_machines(|machine| machine == "a"), (3, 2));
        index.remove_machine("c");
        index.add_machine("u", "c");
        assert_eq!(
            index.count_machines(|_| false),
            (4, 4),
            "another machine of the same id"
        );
    }
}
