//! Which machines there are and how far each is enrolled.

use std::sync::Arc;

use async_trait::async_trait;
use control_records::{MachineRecord, key};
use control_store::{Compare, Op, Store, StoreError, Txn};

/// How far a machine is enrolled: the state of its one-time token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolment {
    /// SHA-256 of the token, hex.
    pub token_hash: String,
    /// SHA-256 of the key that enrolled with it, hex.
    pub enrolled_key: Option<String>,
    /// Whether that key's certificate was used.
    pub token_used: bool,
}

/// The directory could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("the records of machine {machine} cannot be used")]
pub struct DirectoryError {
    /// Which machine.
    pub machine: String,
    /// Why not.
    #[source]
    pub source: StoreError,
}

/// Which machines there are.
#[async_trait]
pub trait MachineDirectory: Send + Sync + 'static {
    /// How far a machine is enrolled; `None` if there is no such machine. One that is to be removed is there until its record
    /// is gone.
    async fn token(&self, machine: &str) -> Result<Option<Enrolment>, DirectoryError>;
    /// Binds the token to a key. `false` if it is bound to another, was used, or the machine is gone or to be removed.
    async fn bind_key(&self, machine: &str, key_hash: &str) -> Result<bool, DirectoryError>;
    /// The certificate was used: the token is worth nothing any more.
    async fn token_used(&self, machine: &str) -> Result<(), DirectoryError>;
}

/// The directory over the store's machine records.
pub struct StoreDirectory(Arc<dyn Store>);

impl StoreDirectory {
    /// Reads and writes `/machines/`.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self(store)
    }

    async fn read(&self, machine: &str) -> Result<Option<(MachineRecord, Compare)>, StoreError> {
        let key = key::machine(machine);
        let Some(found) = self.0.get(&key).await? else {
            return Ok(None);
        };
        let record: MachineRecord =
            serde_json::from_slice(&found.value).map_err(|error| StoreError::Corrupt {
                key: key.clone(),
                why: error.to_string(),
            })?;
        Ok(Some((record, Compare::At(key, found.revision))))
    }

    /// Reads, changes and writes until nobody was faster. `None` from `change` leaves the record alone.
    async fn change(
        &self,
        machine: &str,
        change: impl Fn(&mut MachineRecord) -> Option<bool> + Send + Sync,
    ) -> Result<bool, StoreError> {
        loop {
            let Some((mut record, compare)) = self.read(machine).await? else {
                return Ok(false);
            };
            match change(&mut record) {
                None => return Ok(false),
                Some(false) => return Ok(true),
                Some(true) => {}
            }
            let key = key::machine(machine);
            let value = serde_json::to_vec(&record).map_err(|error| StoreError::Corrupt {
                key: key.clone(),
                why: error.to_string(),
            })?;
            match self
                .0
                .txn(Txn {
                    compare: vec![compare],
                    ops: vec![Op::Put(key, value)],
                })
                .await
            {
                Ok(_) => return Ok(true),
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn named(machine: &str) -> impl Fn(StoreError) -> DirectoryError + '_ {
    |source| DirectoryError {
        machine: machine.to_owned(),
        source,
    }
}

#[async_trait]
impl MachineDirectory for StoreDirectory {
    async fn token(&self, machine: &str) -> Result<Option<Enrolment>, DirectoryError> {
        let found = self.read(machine).await.map_err(named(machine))?;
        Ok(found.map(|(record, _)| Enrolment {
            token_hash: record.token_hash,
            enrolled_key: record.enrolled_key,
            token_used: record.token_used,
        }))
    }

    async fn bind_key(&self, machine: &str, key_hash: &str) -> Result<bool, DirectoryError> {
        let bind = |record: &mut MachineRecord| {
            if record.token_used || record.deleting {
                return None;
            }
            match &record.enrolled_key {
                Some(bound) if bound == key_hash => Some(false),
                Some(_) => None,
                None => {
                    record.enrolled_key = Some(key_hash.to_owned());
                    Some(true)
                }
            }
        };
        self.change(machine, bind).await.map_err(named(machine))
    }

    async fn token_used(&self, machine: &str) -> Result<(), DirectoryError> {
        let spend = |record: &mut MachineRecord| {
            let first = !record.token_used;
            record.token_used = true;
            Some(first)
        };
        self.change(machine, spend)
            .await
            .map(drop)
            .map_err(named(machine))
    }
}
