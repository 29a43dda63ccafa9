//! The embedded store: one redb file, one writer thread, group commit.
//!
//! All current values are also in memory, so reading never touches the disk. Writing does: the thread takes every
//! transaction that waits, judges them in order, writes those that hold as one redb transaction, and answers all of them
//! when it is durable. Ten clusters that change at once cost one `fsync`, not ten.

use std::{os::unix::fs::OpenOptionsExt as _, path::Path, sync::Arc, thread::JoinHandle, time::Duration};

use async_trait::async_trait;
use base_env::{Clock, Env};
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use tokio::sync::{mpsc, oneshot};

use crate::{
    Change, Revision, Store, StoreError, Txn, Versioned,
    history::{Commit, History},
};

/// Key → revision of the last change and value.
const CURRENT: TableDefinition<'_, &str, (u64, &[u8])> = TableDefinition::new("current");
/// `format` and `revision`.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// The layout of the two tables above.
const FORMAT: u64 = 1;
/// Transactions in one durable commit, at most: bounds the memory and the time of one commit.
const BATCH: usize = 512;
/// The values are in memory already: redb needs room for the pages it writes only. Its default is 1 GiB.
const PAGE_CACHE_BYTES: usize = 4 << 20;
/// A commit that takes longer is worth a line in the log.
const SLOW: Duration = Duration::from_secs(1);

struct Request {
    txn: Txn,
    answer: oneshot::Sender<Result<Revision, StoreError>>,
}

/// A store in a file. Dropping it waits for the transactions on their way, and releases the file.
pub struct RedbStore {
    history: History,
    /// `None` only while dropping.
    requests: Option<mpsc::Sender<Request>>,
    writer: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedbStore").finish_non_exhaustive()
    }
}

fn failed(act: &str) -> impl Fn(&dyn std::fmt::Display) -> StoreError + '_ {
    move |why| StoreError::Io {
        act: act.to_owned(),
        why: why.to_string(),
    }
}

impl RedbStore {
    /// Opens the file, creating it with mode 0600 if there is none; its directory must exist. Blocks for as long as
    /// reading the file takes.
    ///
    /// # Errors
    /// [`StoreError::Io`] when it cannot be opened (in use by another process, say) or was written by a newer release.
    pub fn open(path: &Path, env: &Env) -> Result<Self, StoreError> {
        let act = format!("open {}", path.display());
        let failed = failed(&act);
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(|error| failed(&error))?;
        let database = Database::builder()
            .set_cache_size(PAGE_CACHE_BYTES)
            .create_file(file)
            .map_err(|error| match error {
                redb::DatabaseError::DatabaseAlreadyOpen => {
                    failed(&"another process has it open; stop that one first")
                }
                error => failed(&error),
            })?;
        prepare(&database, &failed)?;
        let history = load(&database).map_err(|error| failed(&error))?;

        let (requests, waiting) = mpsc::channel(BATCH);
        let writer = Writer {
            database,
            history: history.clone(),
            clock: Arc::clone(&env.clock),
        };
        let writer = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run(waiting))
            .map_err(|error| failed(&error))?;
        Ok(Self {
            history,
            requests: Some(requests),
            writer: Some(writer),
        })
    }
}

/// Makes a new file ours, and refuses one from the future.
fn prepare(
    database: &Database,
    failed: &dyn Fn(&dyn std::fmt::Display) -> StoreError,
) -> Result<(), StoreError> {
    let write = || -> Result<u64, redb::Error> {
        let txn = database.begin_write()?;
        let format = {
            let mut meta = txn.open_table(META)?;
            txn.open_table(CURRENT)?;
            let found = meta.get("format")?.map(|format| format.value());
            if found.is_none() {
                meta.insert("format", FORMAT)?;
                meta.insert("revision", 0)?;
            }
            found.unwrap_or(FORMAT)
        };
        txn.commit()?;
        Ok(format)
    };
    match write() {
        Ok(FORMAT) => Ok(()),
        Ok(newer) => Err(failed(&format!(
            "its format is {newer} and this release knows {FORMAT}; use the release that wrote it"
        ))),
        Err(error) => Err(failed(&error)),
    }
}

fn load(database: &Database) -> Result<History, redb::Error> {
    let txn = database.begin_read()?;
    let revision = txn
        .open_table(META)?
        .get("revision")?
        .map_or(0, |revision| revision.value());
    let mut values = Vec::new();
    for entry in txn.open_table(CURRENT)?.iter()? {
        let (key, value) = entry?;
        let (changed, bytes) = value.value();
        values.push((
            key.value().to_owned(),
            Versioned {
                revision: Revision(changed),
                value: bytes.to_vec(),
            },
        ));
    }
    Ok(History::new(Revision(revision), values))
}

/// The only one who writes.
struct Writer {
    database: Database,
    history: History,
    clock: Arc<dyn Clock>,
}

impl Writer {
    fn run(self, mut waiting: mpsc::Receiver<Request>) {
        let mut requests = Vec::with_capacity(BATCH);
        while waiting.blocking_recv_many(&mut requests, BATCH) > 0 {
            self.commit(requests.drain(..));
        }
    }

    fn commit(&self, requests: impl Iterator<Item = Request>) {
        let mut commits = Vec::new();
        let mut answers = Vec::new();
        {
            let mut batch = self.history.batch();
            for Request { txn, answer } in requests {
                match batch.judge(txn) {
                    Ok(commit) => {
                        answers.push((answer, Ok(commit.revision)));
                        commits.push(commit);
                    }
                    Err(conflict) => answers.push((answer, Err(conflict))),
                }
            }
        }
        let start = self.clock.monotonic();
        let written = if commits.is_empty() {
            Ok(())
        } else {
            self.write(&commits)
        };
        let took = self.clock.monotonic().saturating_sub(start);
        if took > SLOW {
            tracing::warn!(?took, transactions = commits.len(), "the store's disk is slow");
        }
        match written {
            Ok(()) => {
                if !commits.is_empty() {
                    self.history.publish(commits);
                }
                for (answer, result) in answers {
                    // Whoever asked may have been dropped; the transaction happened all the same.
                    let _ = answer.send(result);
                }
            }
            Err(error) => {
                let why = error.to_string();
                tracing::error!(%why, "the store cannot commit");
                for (answer, _) in answers {
                    let _ = answer.send(Err(failed("commit")(&why)));
                }
            }
        }
    }

    fn write(&self, commits: &[Commit]) -> Result<(), redb::Error> {
        let txn = self.database.begin_write()?;
        {
            let mut current = txn.open_table(CURRENT)?;
            for commit in commits {
                for (key, value) in &commit.effects {
                    match value {
                        Some(value) => {
                            current.insert(key.as_str(), (commit.revision.0, value.as_ref()))?;
                        }
                        None => {
                            current.remove(key.as_str())?;
                        }
                    }
                }
            }
            let mut meta = txn.open_table(META)?;
            if let Some(last) = commits.last() {
                meta.insert("revision", last.revision.0)?;
            }
        }
        txn.commit()?;
        Ok(())
    }
}

impl Drop for RedbStore {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the store's writer panicked");
        }
    }
}

#[async_trait]
impl Store for RedbStore {
    async fn get(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        Ok(self.history.get(key))
    }

    async fn list(&self, prefix: &str) -> Result<(Vec<(String, Versioned)>, Revision), StoreError> {
        Ok(self.history.list(prefix))
    }

    async fn txn(&self, txn: Txn) -> Result<Revision, StoreError> {
        let gone = || failed("commit")(&"its writer has stopped; see the log and start the service again");
        let (answer, result) = oneshot::channel();
        let requests = self.requests.as_ref().ok_or_else(gone)?;
        requests
            .send(Request { txn, answer })
            .await
            .map_err(|_closed| gone())?;
        result.await.map_err(|_closed| gone())?
    }

    async fn watch(
        &self,
        prefix: &str,
        from: Revision,
    ) -> Result<mpsc::Receiver<Result<Change, StoreError>>, StoreError> {
        Ok(self.history.watch(prefix, from))
    }
}
