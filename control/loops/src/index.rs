//! Which machines and operations belong to which cluster.
//!
//! A hint, never the truth: whoever uses it reads the records themselves, and an id without a record is skipped. It is
//! fed by the controller's watch, and by each loop right after its own writes, so that a loop always sees what it wrote.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

#[derive(Debug, Default)]
struct Inner {
    clusters: BTreeMap<String, String>,
    machines: BTreeMap<String, BTreeSet<String>>,
    operations: BTreeMap<String, BTreeSet<String>>,
    owner: BTreeMap<String, String>,
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
        self.inner().clusters.insert(uid.to_owned(), key.to_owned());
    }

    pub(crate) fn remove_cluster(&self, key: &str) {
        self.inner().clusters.retain(|_, other| other != key);
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
        if let Some(uid) = inner.owner.remove(id) {
            forget(&mut inner.machines, &uid, id);
        }
    }

    pub(crate) fn machines(&self, uid: &str) -> Vec<String> {
        listed(&self.inner().machines, uid)
    }

    /// All machines of all clusters.
    pub(crate) fn all_machines(&self) -> Vec<String> {
        self.inner().owner.keys().cloned().collect()
    }

    /// The key of the cluster that a machine belongs to.
    pub(crate) fn cluster_of(&self, machine: &str) -> Option<String> {
        let inner = self.inner();
        inner.clusters.get(inner.owner.get(machine)?).cloned()
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
