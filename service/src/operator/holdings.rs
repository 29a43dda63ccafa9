//! What clusters hold, followed from the records' changes.

use std::collections::{BTreeMap, BTreeSet};

use control_records::{ClusterRecord, LeaseRecord, key, volume::VolumeRecord};
use control_store::{Change, StoreError};
use policy_metering::{Holding, nodes};
use serde::de::DeserializeOwned;

/// What is known of a cluster.
#[derive(Debug, Default)]
struct Own {
    /// `None` before its record is seen, and after it is gone.
    subscription: Option<String>,
    nodes: Holding,
    /// By id: size, GiB.
    volumes: BTreeMap<String, u64>,
    leases: u64,
}

/// What all clusters hold.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    clusters: BTreeMap<String, Own>,
    /// By key: whose the lease is.
    leases: BTreeMap<String, String>,
}

fn parsed<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(value).map_err(|error| StoreError::Corrupt {
        key: key.to_owned(),
        why: error.to_string(),
    })
}

/// The volume of a key below a cluster.
fn volume_of(rest: &str) -> Option<&str> {
    rest.strip_prefix("child/volumes/")
}

impl Holdings {
    /// Follows a change. Gives the cluster that may hold something else now.
    pub(super) fn follow(&mut self, change: &Change) -> Result<Option<String>, StoreError> {
        let (key, value) = (change.key.as_str(), change.value.as_deref());
        if key.starts_with(key::LEASES) {
            return self.lease(key, value);
        }
        let Some((uid, rest)) = key::of_cluster(key) else {
            return Ok(None);
        };
        if rest == "desired" {
            let own = self.clusters.entry(uid.to_owned()).or_default();
            match value {
                Some(value) => {
                    let record: ClusterRecord = parsed(key, value)?;
                    own.nodes = nodes(record.spec());
                    own.subscription = Some(record.subscription);
                }
                None => own.subscription = None,
            }
        } else if let Some(id) = volume_of(rest) {
            let own = self.clusters.entry(uid.to_owned()).or_default();
            match value {
                Some(value) => {
                    let record: VolumeRecord = parsed(key, value)?;
                    own.volumes.insert(id.to_owned(), record.bytes.div_ceil(1 << 30));
                }
                None => {
                    own.volumes.remove(id);
                }
            }
        } else {
            return Ok(None);
        }
        Ok(Some(self.changed(uid)))
    }

    fn lease(&mut self, key: &str, value: Option<&[u8]>) -> Result<Option<String>, StoreError> {
        let owner = match value {
            Some(value) => {
                let record: LeaseRecord = parsed(key, value)?;
                let mut parts = record.owner.split('/');
                match (parts.next(), parts.next()) {
                    (Some("cluster"), Some(uid)) => Some(uid.to_owned()),
                    _ => None,
                }
            }
            None => None,
        };
        let before = match &owner {
            Some(uid) => self.leases.insert(key.to_owned(), uid.clone()),
            None => self.leases.remove(key),
        };
        if before == owner {
            return Ok(None);
        }
        // A lease that goes from one cluster straight to another is one of both; only the second is told.
        if let Some(own) = before.as_ref().and_then(|uid| self.clusters.get_mut(uid)) {
            own.leases = own.leases.saturating_sub(1);
        }
        if let Some(uid) = &owner {
            self.clusters.entry(uid.clone()).or_default().leases += 1;
        }
        Ok(owner.or(before).map(|uid| self.changed(&uid)))
    }

    /// Forgets a cluster that nothing is known of any more.
    fn changed(&mut self, uid: &str) -> String {
        let gone = |own: &Own| own.subscription.is_none() && own.volumes.is_empty() && own.leases == 0;
        if self.clusters.get(uid).is_some_and(gone) {
            self.clusters.remove(uid);
        }
        uid.to_owned()
    }

    /// Subscription and holding of a cluster; `None`: it is not there.
    pub(super) fn of(&self, uid: &str) -> Option<(&str, Holding)> {
        let own = self.clusters.get(uid)?;
        let disks = own
            .volumes
            .values()
            .fold(0_u64, |sum, one| sum.saturating_add(*one));
        let beside = Holding {
            disk_gib: disks,
            addresses: own.leases,
            ..Holding::default()
        };
        Some((own.subscription.as_deref()?, own.nodes.plus(beside)))
    }

    /// All clusters.
    pub(super) fn uids(&self) -> BTreeSet<String> {
        self.clusters.keys().cloned().collect()
    }
}
