//! A store without a file: for tests.

use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use control_store::{Changes, Revision, Store, StoreError, Txn, Versioned};

use crate::history::History;

/// Keeps everything in memory. Must be used inside a tokio runtime (watches are tasks).
#[derive(Debug)]
pub struct MemoryStore {
    history: History,
    /// Held while a transaction is checked and published: one writer at a time.
    writer: Mutex<()>,
}

impl MemoryStore {
    /// An empty store at revision 0.
    pub fn new() -> Self {
        Self {
            history: History::new(Revision::default(), []),
            writer: Mutex::new(()),
        }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        Ok(self.history.get(key))
    }

    async fn list(&self, prefix: &str) -> Result<(Vec<(String, Versioned)>, Revision), StoreError> {
        Ok(self.history.list(prefix))
    }

    async fn txn(&self, txn: Txn) -> Result<Revision, StoreError> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let commit = self.history.batch().judge(txn)?;
        let revision = commit.revision;
        self.history.publish(vec![commit]);
        Ok(revision)
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Changes, StoreError> {
        Ok(self.history.watch(prefix, from))
    }
}
