//! The store of the simulated stamp: the real one in a file in memory, behind faults, with watches that
//! report some changes a moment later, in the same order each time.
//!
//! The file outlives the service, as a disk does; with each end of the service, the store in it is opened
//! again, after a death as it was left. It also checks all writes: generations only grow, and an operation
//! that has ended is never changed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use async_trait::async_trait;
use base_env::Env;
use control_backup::Snapshot;
use control_records::{
    ClusterRecord, Epoch, MachineRecord, ObservedRecord, OperationRecord, OperationStatus, Role, StoreRecord,
    key, volume::VolumeRecord,
};
use control_store::{Changes, Op, Revision, Store, StoreError, Txn, Versioned};
use fabric_sim::Verdict;
use futures::{FutureExt as _, StreamExt as _, stream};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use storage_redb::{MemoryFile, RedbStore};
use tokio::sync::mpsc;

use crate::{steps::Steps, trace::Trace};

/// How many changes a watch may be behind.
const BEHIND: usize = 4096;
/// Members with random values.
const RANDOM: [&str; 5] = ["sealed", "tokenHash", "tokenSealed", "secretHash", "pki"];

/// Records by key.
pub(crate) type Records = std::collections::BTreeMap<String, control_store::Value>;

#[derive(Default)]
struct Inner {
    violations: Vec<String>,
    latency: u64,
}

/// The persistent state.
pub struct Disk {
    env: Env,
    file: MemoryFile,
    /// The store in the file, as the last end of the service left it.
    store: Mutex<Arc<RedbStore>>,
    trace: Arc<Trace>,
    inner: Mutex<Inner>,
}

impl Disk {
    /// Empty.
    ///
    /// # Errors
    /// When the store refuses a new file.
    pub fn new(env: Env, trace: Arc<Trace>) -> Result<Self, StoreError> {
        let file = MemoryFile::default();
        Ok(Self {
            store: Mutex::new(Arc::new(RedbStore::in_memory(&file, &env)?)),
            file,
            env,
            trace,
            inner: Mutex::default(),
        })
    }

    /// The store as it is open now.
    fn store(&self) -> Arc<RedbStore> {
        Arc::clone(&self.store.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The process that has the store open dies, and the file is opened as it was left.
    pub(crate) fn crash(&self) -> Result<(), StoreError> {
        self.file.cut_off();
        self.open()
    }

    /// The process that has the store open closes it, and the file is opened again.
    pub(crate) fn reopen(&self) -> Result<(), StoreError> {
        // An empty store meanwhile: the earlier one is closed when its last reference is dropped.
        let nothing = Arc::new(RedbStore::in_memory(&MemoryFile::default(), &self.env)?);
        drop(std::mem::replace(
            &mut *self.store.lock().unwrap_or_else(PoisonError::into_inner),
            nothing,
        ));
        self.open()
    }

    fn open(&self) -> Result<(), StoreError> {
        let opened = Arc::new(RedbStore::in_memory(&self.file, &self.env)?);
        *self.store.lock().unwrap_or_else(PoisonError::into_inner) = opened;
        Ok(())
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forbidden writes that happened.
    pub fn violations(&self) -> Vec<String> {
        self.inner().violations.clone()
    }

    /// The writes from now on, as they happen.
    pub(crate) async fn news(&self) -> Result<Changes, StoreError> {
        let (_, now) = self.store().list(key::STORE).await?;
        self.store().watch("/", now).await
    }

    /// All records.
    pub(crate) async fn all(&self) -> Result<Records, StoreError> {
        let (found, _) = self.store().list("/").await?;
        Ok(found.into_iter().map(|(key, found)| (key, found.value)).collect())
    }

    /// Replaces the store by another one while no service runs, with exactly these records. Without any, it
    /// is a new one: the first start makes its initial records.
    pub(crate) async fn become_as(&self, records: &Records) -> Result<(), StoreError> {
        const FIRST: [&str; 5] = [
            key::FORMAT,
            key::SUBSCRIPTIONS,
            key::PRINCIPALS,
            "/directory/",
            "/access/",
        ];
        let present = self.all().await?;
        let kept = |key: &str| records.is_empty() && FIRST.iter().any(|first| key.starts_with(first));
        let gone = present
            .keys()
            .filter(|key| !records.contains_key(*key) && !kept(key))
            .map(|key| Op::Delete(key.clone()));
        let put = records
            .iter()
            .map(|(key, value)| Op::Put(key.clone(), value.to_vec()));
        let store = self.store();
        for op in gone.chain(put) {
            store.txn(Txn::default().with(op)).await?;
        }
        Ok(())
    }

    /// How often it was put back from a copy.
    pub(crate) fn epoch(&self) -> Epoch {
        // A store in memory responds at once. A new store has no previous epoch.
        let found = self.store().get(key::STORE).now_or_never();
        let found = found.and_then(Result::ok).flatten();
        let own = found.and_then(|found| read::<StoreRecord>(Some(&found.value)));
        own.map(|own| own.epoch).unwrap_or_default()
    }

    /// A copy of all of it, as the service makes them.
    pub(crate) async fn copy(&self) -> Result<Vec<u8>> {
        let mut copy = Vec::new();
        control_backup::encode(&Snapshot::of(self, &self.env).await?, &mut copy)?;
        Ok(copy)
    }

    /// It is put back from a copy while no service runs.
    pub(crate) async fn put_back(&self, copy: &[u8]) -> Result<()> {
        let (header, records) = control_backup::decode(copy)?;
        let epoch = Epoch(self.epoch().max(header.epoch).0 + 1);
        let mut put = Records::new();
        for found in records {
            let (name, found) = found?;
            put.insert(name, found.value);
        }
        let own = StoreRecord {
            v: 1,
            id: header.id,
            epoch,
        };
        put.insert(key::STORE.to_owned(), serde_json::to_vec(&own)?.into());
        self.become_as(&put).await?;
        Ok(())
    }

    /// Commits, and checks the change.
    pub async fn write(&self, txn: Txn) -> Result<Revision, StoreError> {
        let store = self.store();
        let mut before = Vec::new();
        for op in &txn.ops {
            let key = match op {
                Op::Put(key, _) | Op::Delete(key) => key,
            };
            before.push((key.clone(), store.get(key).await?.map(|old| old.value)));
        }
        let ops = txn.ops.clone();
        let revision = store.txn(txn).await?;
        let mut line = format!("commit r{}", revision.0);
        let mut changes = std::collections::BTreeMap::new();
        for (op, (key, old)) in ops.into_iter().zip(before) {
            let value = match op {
                Op::Put(_, value) => Some(Arc::<[u8]>::from(value)),
                Op::Delete(_) => None,
            };
            if value.is_none() && old.is_none() {
                continue;
            }
            changes.insert(key, (old, value));
        }
        let mut inner = self.inner();
        for (key, (old, value)) in changes {
            self.judge(&mut inner, &key, old.as_deref(), value.as_deref());
            match &value {
                Some(value) => line.push_str(&format!(" {key}={}", fingerprint(value))),
                None => line.push_str(&format!(" -{key}")),
            }
        }
        drop(inner);
        self.trace.note(&line);
        Ok(revision)
    }

    fn judge(&self, inner: &mut Inner, key: &str, old: Option<&[u8]>, new: Option<&[u8]>) {
        let kind = key::of_cluster(key).map_or("", |(_, rest)| rest);
        if let Some(id) = kind.strip_prefix("machine/") {
            if let Some(machine) = read::<MachineRecord>(new) {
                let name = match machine.assignment.map(|given| given.role) {
                    Some(Role::Node { node_name, .. }) => node_name,
                    Some(Role::ControlPlane { index, .. }) => format!("control-plane-{index}"),
                    None => "standby".to_owned(),
                };
                self.trace.name(id, &name);
            }
        } else if let Some(id) = kind.strip_prefix("child/volumes/") {
            let (old, new) = (read::<VolumeRecord>(old), read::<VolumeRecord>(new));
            if let Some(new) = &new {
                self.trace.name(id, &new.name);
            }
            if let (Some(old), Some(new)) = (old, new)
                && (old.deleting && !new.deleting || new.bytes < old.bytes || new.name != old.name)
            {
                inner
                    .violations
                    .push(format!("{key}: a volume shrank, or its deletion was taken back"));
            }
        } else if kind == "desired" {
            let (old, new) = (read::<ClusterRecord>(old), read::<ClusterRecord>(new));
            if let Some(new) = &new {
                self.trace.name(&new.uid, &new.name);
            }
            if let (Some(old), Some(new)) = (old, new) {
                let same = old.uid == new.uid;
                let pools = old
                    .pool_generations
                    .iter()
                    .any(|(pool, before)| new.pool_generations.get(pool).is_some_and(|after| after < before));
                if same && (new.generation < old.generation || pools) {
                    inner.violations.push(format!("{key}: a generation went back"));
                }
                if same && old.deleting && !new.deleting {
                    inner.violations.push(format!("{key}: a deletion was taken back"));
                }
                if !same {
                    inner.violations.push(format!(
                        "{key}: another cluster was written over one that is there"
                    ));
                }
            }
        } else if kind == "observed" {
            if let (Some(old), Some(new)) = (read::<ObservedRecord>(old), read::<ObservedRecord>(new))
                && new.generation < old.generation
            {
                inner.violations.push(format!("{key}: the generation went back"));
            }
        } else if key.contains("/op/")
            && let (Some(old), Some(new)) = (read::<OperationRecord>(old), read::<OperationRecord>(new))
            && old.status != OperationStatus::InProgress
            && old != new
        {
            inner.violations.push(format!(
                "{key}: {} had ended as {:?} and was changed to {:?}",
                old.name, old.status, new.status
            ));
        }
    }

    /// The changes of a watch, some of them delayed.
    fn follow(&self, prefix: &str, mut news: Changes) -> Changes {
        let (told, mut receiver) = mpsc::channel(BEHIND);
        let env = self.env.clone();
        let seed = env.seed.child("watch").child(prefix);
        tokio::spawn(async move {
            while let Some(change) = news.next().await {
                // Some changes are delayed.
                let chance = change
                    .as_ref()
                    .map_or(1.0, |change| seed.fraction(change.revision.0));
                if chance < 0.05 {
                    env.clock
                        .sleep(std::time::Duration::from_millis((chance * 1000.0) as u64))
                        .await;
                }
                if told.send(change).await.is_err() {
                    return;
                }
            }
        });
        stream::poll_fn(move |context| receiver.poll_recv(context)).boxed()
    }

    fn latency(&self) -> std::time::Duration {
        let mut inner = self.inner();
        inner.latency += 1;
        std::time::Duration::from_micros(500 + self.env.seed.child("commit").draw(inner.latency) % 2500)
    }
}

#[async_trait]
impl Store for Disk {
    async fn get(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        self.store().get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<(Vec<(String, Versioned)>, Revision), StoreError> {
        self.store().list(prefix).await
    }

    async fn txn(&self, txn: Txn) -> Result<Revision, StoreError> {
        self.write(txn).await
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Changes, StoreError> {
        let news = self.store().watch(prefix, from).await?;
        Ok(self.follow(prefix, news))
    }
}

/// The store as one life of the service has it.
pub(crate) struct LifeStore {
    pub(crate) disk: Arc<Disk>,
    pub(crate) steps: Arc<Steps>,
    pub(crate) life: u64,
}

fn failed() -> StoreError {
    StoreError::Io {
        act: "commit".to_owned(),
        why: "injected fault".to_owned(),
    }
}

#[async_trait]
impl Store for LifeStore {
    async fn get(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        self.steps.point(self.life, key).await;
        self.disk.get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<(Vec<(String, Versioned)>, Revision), StoreError> {
        self.steps.point(self.life, prefix).await;
        self.disk.list(prefix).await
    }

    async fn txn(&self, txn: Txn) -> Result<Revision, StoreError> {
        let step = step(&txn);
        let verdict = self.steps.before(self.life, &step, true).await;
        if verdict == Verdict::Fails {
            return Err(failed());
        }
        self.disk.env.clock.sleep(self.disk.latency()).await;
        // A process that dies while it commits has committed or not.
        self.steps.point(self.life, &step).await;
        let result = self.disk.write(txn).await;
        self.steps.after(self.life, &step).await;
        match verdict {
            Verdict::LosesAnswer if result.is_ok() => Err(failed()),
            _ => result,
        }
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Changes, StoreError> {
        self.steps.point(self.life, prefix).await;
        self.disk.watch(prefix, from).await
    }
}

/// A transaction as a step: the kinds of keys that it writes.
fn step(txn: &Txn) -> String {
    let mut kinds: Vec<String> = txn
        .ops
        .iter()
        .map(|op| match op {
            Op::Put(key, _) => kind(key).to_owned(),
            Op::Delete(key) => format!("-{}", kind(key)),
        })
        .collect();
    kinds.dedup();
    format!("commit {}", kinds.join(","))
}

/// The owner or kind in a key: `machine`, `op`, `groups`.
fn kind(key: &str) -> &str {
    let parts: Vec<&str> = key.split('/').collect();
    match parts.as_slice() {
        ["", "c", _, kind, ..] | ["", "g", _, _, kind, ..] => kind,
        ["", kind, ..] => kind,
        _ => key,
    }
}

fn read<T: serde::de::DeserializeOwned>(value: Option<&[u8]>) -> Option<T> {
    serde_json::from_slice(value?).ok()
}

/// A short hash of a record without its random members.
fn fingerprint(value: &[u8]) -> String {
    let Ok(mut value) = serde_json::from_slice::<Value>(value) else {
        return "?".to_owned();
    };
    if let Some(members) = value.as_object_mut() {
        for name in RANDOM {
            members.remove(name);
        }
    }
    let mut hash = hex::encode(Sha256::digest(value.to_string().as_bytes()));
    hash.truncate(8);
    hash
}
