//! Which host of the stamp runs a cluster's loop.
//!
//! A stamp has one host today; several may work on one store later. Then two of them may believe that a cluster is theirs: one that was
//! cut off, say, and the one that took over. So each transaction of a cluster's loop rests on the cluster's fence as the loop read it,
//! when it named the loop's own host ([`Fence::guard`]). Whoever takes a cluster over writes the fence, and from then on no transaction
//! of the earlier owner is accepted.
//!
//! Always true: the fence is there from the loop's first transaction on and goes with the cluster; its epoch grows with each other owner.

use control_store::{Revision, Store, StoreError, Txn, get_record, put_record};
use serde::{Deserialize, Serialize};

use crate::key;

/// A host of the stamp: its place in it, not the hardware, so it stays when the stamp moves to another machine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HostId(pub String);

impl HostId {
    /// The host that a stamp begins on.
    pub fn first() -> Self {
        Self("host-1".to_owned())
    }
}

/// Who runs a cluster's loop, `/c/{uid}/fence`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FenceRecord {
    /// Format.
    pub v: u32,
    /// The host.
    pub host: HostId,
    /// The how manieth owner it is, from 1. For what is fenced outside of the store.
    pub epoch: u64,
}

/// A host's right to write for a cluster, as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fence {
    /// Nobody has run the loop yet: its first transaction makes the cluster this host's.
    Unclaimed,
    /// The cluster is this host's since this revision.
    Held(Revision),
}

impl Fence {
    /// Reads whether a cluster is this host's. `None`: it is another one's.
    ///
    /// # Errors
    /// What the store says.
    pub async fn read(store: &dyn Store, uid: &str, host: &HostId) -> Result<Option<Self>, StoreError> {
        Ok(match get_record::<FenceRecord>(store, &key::fence(uid)).await? {
            None => Some(Self::Unclaimed),
            Some(found) if found.value.host == *host => Some(Self::Held(found.revision)),
            Some(_) => None,
        })
    }

    /// Has a transaction be refused, as a conflict, once the cluster is another host's.
    #[must_use]
    pub fn guard(self, txn: Txn, uid: &str) -> Txn {
        let key = key::fence(uid);
        match self {
            Self::Unclaimed => txn.absent(key),
            Self::Held(revision) => txn.at(key, revision),
        }
    }

    /// As [`Self::guard`]; a cluster that is nobody's yet becomes this host's with it.
    #[must_use]
    pub fn claim(self, txn: Txn, uid: &str, host: &HostId) -> Txn {
        let txn = self.guard(txn, uid);
        match self {
            Self::Held(_) => txn,
            Self::Unclaimed => {
                let record = FenceRecord {
                    v: 1,
                    host: host.clone(),
                    epoch: 1,
                };
                txn.with(put_record(key::fence(uid), &record))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use storage_redb::MemoryStore;

    use super::*;

    fn write(value: &str) -> Txn {
        Txn::default().with(put_record("/c/u/x", &value))
    }

    #[tokio::test]
    async fn a_host_that_is_not_the_owner_any_more_writes_nothing() {
        let store = MemoryStore::new();
        let (first, second) = (HostId::first(), HostId("host-2".to_owned()));
        let unclaimed = Fence::read(&store, "u", &first).await.unwrap().unwrap();
        assert_eq!(unclaimed, Fence::Unclaimed);
        store.txn(unclaimed.claim(write("1"), "u", &first)).await.unwrap();
        // The second had read it before that.
        let late = store.txn(unclaimed.claim(write("2"), "u", &second)).await;
        assert!(matches!(late, Err(StoreError::Conflict { key }) if key == key::fence("u")));
        assert_eq!(Fence::read(&store, "u", &second).await.unwrap(), None);
        let held = Fence::read(&store, "u", &first).await.unwrap().unwrap();
        store.txn(held.guard(write("3"), "u")).await.unwrap();

        let taken = FenceRecord {
            v: 1,
            host: second.clone(),
            epoch: 2,
        };
        store
            .txn(Txn::default().with(put_record(key::fence("u"), &taken)))
            .await
            .unwrap();
        for txn in [held.guard(write("4"), "u"), held.claim(write("4"), "u", &first)] {
            let late = store.txn(txn).await;
            assert!(matches!(late, Err(StoreError::Conflict { key }) if key == key::fence("u")));
        }
        assert_eq!(Fence::read(&store, "u", &first).await.unwrap(), None);
        let value = get_record::<String>(&store, "/c/u/x").await.unwrap().unwrap();
        assert_eq!(value.value, "3");
        let held = Fence::read(&store, "u", &second).await.unwrap().unwrap();
        store.txn(held.guard(write("5"), "u")).await.unwrap();
    }
}
