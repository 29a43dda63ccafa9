//! The directory of machines and the state of their enrolment.

use std::sync::Arc;

use async_trait::async_trait;
use control_records::{MachineRecord, directory};
use control_store::{Revision, Store, StoreError, Txn, put_record};

/// The enrolment of a machine: the state of its one-time token.
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
    /// The machine's id.
    pub machine: String,
    /// The reason.
    #[source]
    pub source: StoreError,
}

/// The directory of machines.
#[async_trait]
pub trait MachineDirectory: Send + Sync + 'static {
    /// The enrolment of a machine; `None` if the machine does not exist. A machine that is being removed
    /// exists until its record is deleted.
    async fn token(&self, machine: &str) -> Result<Option<Enrolment>, DirectoryError>;
    /// Binds the token to a key. `false` if it is bound to another, was used, or the machine is gone or being
    /// removed.
    async fn bind_key(&self, machine: &str, key_hash: &str) -> Result<bool, DirectoryError>;
    /// Notes that the certificate was used: the token is no longer valid.
    async fn token_used(&self, machine: &str) -> Result<(), DirectoryError>;
}

/// The directory over the store's machine records.
pub struct StoreDirectory(Arc<dyn Store>);

impl StoreDirectory {
    /// Reads and writes machine records.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self(store)
    }

    async fn read(&self, machine: &str) -> Result<Option<(String, Revision, MachineRecord)>, StoreError> {
        let Some((key, found)) = directory::machine(&*self.0, machine).await? else {
            return Ok(None);
        };
        Ok(Some((key, found.revision, found.value)))
    }

    /// Reads, changes and writes a record, again after a conflict. `None` from `change` leaves the record
    /// alone.
    async fn change(
        &self,
        machine: &str,
        change: impl Fn(&mut MachineRecord) -> Option<bool> + Send + Sync,
    ) -> Result<bool, StoreError> {
        loop {
            let Some((key, revision, mut record)) = self.read(machine).await? else {
                return Ok(false);
            };
            match change(&mut record) {
                None => return Ok(false),
                Some(false) => return Ok(true),
                Some(true) => {}
            }
            let txn = Txn::default().at(&key, revision).with(put_record(key, &record));
            match self.0.txn(txn).await {
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
        Ok(found.map(|(_, _, record)| Enrolment {
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
