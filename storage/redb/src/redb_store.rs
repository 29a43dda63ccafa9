//! The embedded store: one redb file, one writer thread, group commit.
//!
//! All current values are also in memory, so reads never touch the disk. Writes do: the thread takes all pending
//! transactions, checks them in order, writes the valid ones as one redb transaction, and answers all of them
//! when it is durable. Ten clusters that change at once cost one `fsync`, not ten.
//!
//! A store in a [`MemoryFile`] has no thread: the caller of a commit writes at once. So the simulator runs this code in virtual time, which
//! does not wait for threads.
//!
//! Free space in the file is used again, so the file grows with its content, not with the number of changes. It does not shrink by
//! itself: space of deleted records returns to the disk when the file is opened and most of it is empty.

use std::{
    io::ErrorKind,
    os::unix::fs::OpenOptionsExt as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use async_trait::async_trait;
use base_env::{Clock, Env};
use control_store::{Changes, Revision, Store, StoreError, Txn, Versioned};
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use tokio::sync::{mpsc, oneshot};

use crate::{
    MemoryFile,
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
/// The values are in memory already: redb needs space only for the pages that it writes. Its default is 1 GiB.
const PAGE_CACHE_BYTES: usize = 4 << 20;
/// A file up to this size is not compacted when it is opened, however small its content…
const SMALL_BYTES: u64 = 16 << 20;
/// …and a larger one is compacted only if it is this many times as large as its content. With full pages and values in powers of two, twice
/// as large is the minimum, and three times is common.
const SPARSE: u64 = 4;
/// Bytes of records in one commit of a file that is made in one go.
const BULK_BYTES: usize = 8 << 20;
/// A commit that takes longer is logged.
const SLOW: Duration = Duration::from_secs(1);

struct Request {
    txn: Txn,
    answer: oneshot::Sender<Result<Revision, StoreError>>,
}

/// A store in a file. Dropping it waits for pending transactions, and releases the file.
pub struct RedbStore {
    history: History,
    writing: Writing,
}

/// The writer.
enum Writing {
    /// A thread.
    Thread {
        /// `None` only while dropping.
        requests: Option<mpsc::Sender<Request>>,
        /// Ends with the requests.
        thread: Option<JoinHandle<()>>,
    },
    /// The caller of the commit. Held for one transaction.
    Caller(Box<Mutex<Writer>>),
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

/// A file that is being opened or made, for error messages.
struct Medium<'a>(&'a Path);

impl Medium<'_> {
    fn failed(&self, why: &dyn std::fmt::Display) -> StoreError {
        failed(&format!("open {}", self.0.display()))(why)
    }

    fn damaged(&self, why: impl Into<String>) -> StoreError {
        StoreError::Damaged {
            path: self.0.display().to_string(),
            why: why.into(),
        }
    }

    /// An error of redb: a file with other content than was written is distinguished from all other errors, which may be transient.
    fn told(&self, error: impl Into<redb::Error>) -> StoreError {
        match error.into() {
            redb::Error::DatabaseAlreadyOpen => {
                self.failed(&"another process has it open; stop that one first")
            }
            redb::Error::Corrupted(why) => self.damaged(why),
            redb::Error::Io(error)
                if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::InvalidData) =>
            {
                self.damaged(error.to_string())
            }
            // A table of ours is missing or has another type.
            error @ (redb::Error::TableDoesNotExist(_)
            | redb::Error::TableTypeMismatch { .. }
            | redb::Error::TypeDefinitionChanged { .. }) => self.damaged(error.to_string()),
            error => self.failed(&error),
        }
    }
}

fn open_file(path: &Path) -> Result<Database, redb::DatabaseError> {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path)?;
    Database::builder()
        .set_cache_size(PAGE_CACHE_BYTES)
        .create_file(file)
}

impl RedbStore {
    /// Opens the file; creates it with mode 0600 if there is none; its directory must exist. Blocks until the file
    /// is read. A damaged file is left as it is.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when its content was not written by the store; [`StoreError::Io`] when it
    /// cannot be opened (for example, another process has it open) or a newer release wrote it.
    pub fn open(path: &Path, env: &Env) -> Result<Self, StoreError> {
        let medium = Medium(path);
        let length = match path.metadata() {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // It is never created half-made: an empty file is not one of ours.
                let mut beside = path.as_os_str().to_owned();
                beside.push(".new");
                let beside = PathBuf::from(beside);
                Self::write_new::<StoreError>(&beside, Revision(0), std::iter::empty())?;
                std::fs::rename(&beside, path)
                    .and_then(|()| base_files::sync(path.parent().unwrap_or(Path::new("."))))
                    .map_err(|error| medium.failed(&error))?;
                path.metadata().map_err(|error| medium.failed(&error))?.len()
            }
            Err(error) => return Err(medium.failed(&error)),
        };
        if length == 0 {
            return Err(medium.damaged("it is empty"));
        }
        let opened = path.to_owned();
        // A damaged file may violate assumptions of redb.
        let read = AssertUnwindSafe(|| Self::with(move || open_file(&opened), env, &medium, length));
        catch_unwind(read).unwrap_or_else(|_panic| Err(medium.damaged("its content is inconsistent")))
    }

    /// Opens a store in memory; it is empty if nothing was written to the file yet. The task that requests a commit does it, and it
    /// takes no time. Handles of the file in other stores are cut off first, as by the death of their process.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when the file does not hold a store.
    pub fn in_memory(file: &MemoryFile, env: &Env) -> Result<Self, StoreError> {
        let (medium, handle) = (Medium(Path::new("in memory")), file.take_over());
        let length = handle.length();
        let open = move || {
            Database::builder()
                .set_cache_size(PAGE_CACHE_BYTES)
                .create_with_backend(handle.clone())
        };
        let writer = Writer::open(open, env, &medium, length)?;
        Ok(Self {
            history: writer.history.clone(),
            writing: Writing::Caller(Box::new(Mutex::new(writer))),
        })
    }

    /// Makes the file of a store with these records at this revision, durably; a file with this name is replaced.
    ///
    /// # Errors
    /// The first error among the records, or [`StoreError::Io`]; the remaining file is then of no use.
    pub fn write_new<E: From<StoreError>>(
        path: &Path,
        revision: Revision,
        records: impl Iterator<Item = Result<(String, Versioned), E>>,
    ) -> Result<(), E> {
        let medium = Medium(path);
        let made = || {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(medium.failed(&error)),
                _ => {}
            }
            let file = std::fs::OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path);
            file.map_err(|error| medium.failed(&error))?;
            let database = open_file(path).map_err(|error| medium.told(error))?;
            prepare(&database, &medium)?;
            Ok(database)
        };
        let database = made()?;
        let mut records = records.peekable();
        while records.peek().is_some() {
            let mut some = Vec::new();
            let mut bytes = 0;
            while let Some(found) = records.next_if(|_| bytes < BULK_BYTES) {
                let (key, found) = found?;
                bytes += key.len() + found.value.len();
                some.push((key, found));
            }
            let write = || -> Result<(), redb::Error> {
                let txn = database.begin_write()?;
                {
                    let mut current = txn.open_table(CURRENT)?;
                    for (key, found) in &some {
                        current.insert(key.as_str(), (found.revision.0, found.value.as_ref()))?;
                    }
                    txn.open_table(META)?.insert("revision", revision.0)?;
                }
                txn.commit()?;
                Ok(())
            };
            write().map_err(|error| medium.told(error))?;
        }
        Ok(())
    }

    /// A store with a writer thread. Opened as [`Writer::open`] describes.
    fn with(
        open: impl Fn() -> Result<Database, redb::DatabaseError> + Send + 'static,
        env: &Env,
        medium: &Medium<'_>,
        length: u64,
    ) -> Result<Self, StoreError> {
        let writer = Writer::open(open, env, medium, length)?;
        let history = writer.history.clone();
        let (requests, waiting) = mpsc::channel(BATCH);
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run(waiting))
            .map_err(|error| medium.failed(&error))?;
        Ok(Self {
            history,
            writing: Writing::Thread {
                requests: Some(requests),
                thread: Some(thread),
            },
        })
    }
}

/// Initialises a new file, and refuses one of a newer release.
fn prepare(database: &Database, medium: &Medium<'_>) -> Result<(), StoreError> {
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
        Ok(newer) => Err(medium.failed(&format!(
            "its format is {newer} and this release knows {FORMAT}; use the release that wrote it"
        ))),
        Err(error) => Err(medium.told(error)),
    }
}

/// The content of the file, and the number of bytes of keys and values.
fn load(database: &Database) -> Result<(History, u64), redb::Error> {
    let txn = database.begin_read()?;
    let revision = txn
        .open_table(META)?
        .get("revision")?
        .map_or(0, |revision| revision.value());
    let mut values = Vec::new();
    let mut held = 0;
    for entry in txn.open_table(CURRENT)?.iter()? {
        let (key, value) = entry?;
        let (changed, bytes) = value.value();
        held += (key.value().len() + bytes.len()) as u64;
        values.push((
            key.value().to_owned(),
            Versioned {
                revision: Revision(changed),
                value: bytes.into(),
            },
        ));
    }
    Ok((History::new(Revision(revision), values), held))
}

/// The only writer.
struct Writer {
    open: Box<dyn Fn() -> Result<Database, redb::DatabaseError> + Send>,
    /// `None` after the disk failed: redb does not write to a file after a failure until it is opened again.
    database: Option<Database>,
    /// The transactions in the commit during which the disk failed; the file shows whether they are in it.
    in_doubt: Vec<Commit>,
    history: History,
    clock: Arc<dyn Clock>,
}

impl Writer {
    /// Opens with `open`, which is called again after the disk has failed. The file has `length` bytes.
    fn open(
        open: impl Fn() -> Result<Database, redb::DatabaseError> + Send + 'static,
        env: &Env,
        medium: &Medium<'_>,
        length: u64,
    ) -> Result<Self, StoreError> {
        let mut database = open().map_err(|error| medium.told(error))?;
        // Some damage is not detected by redb: a record could be read with other content.
        if !database.check_integrity().map_err(|error| medium.told(error))? {
            tracing::warn!("the store's file was repaired: the last unfinished write is not in it");
        }
        prepare(&database, medium)?;
        let (history, held) = load(&database).map_err(|error| medium.told(error))?;
        if length > SMALL_BYTES && length / SPARSE > held {
            tracing::info!(
                length,
                held,
                "most of the store's file is empty: making it smaller"
            );
            if let Err(error) = database.compact() {
                // The content is unchanged. After a failure of the disk, redb requires the file to be opened again.
                tracing::warn!(%error, "the store's file was not compacted");
                drop(database);
                database = open().map_err(|error| medium.told(error))?;
            }
        }
        Ok(Self {
            open: Box::new(open),
            database: Some(database),
            in_doubt: Vec::new(),
            history,
            clock: Arc::clone(&env.clock),
        })
    }

    fn run(mut self, mut waiting: mpsc::Receiver<Request>) {
        let mut requests = Vec::with_capacity(BATCH);
        while waiting.blocking_recv_many(&mut requests, BATCH) > 0 {
            self.commit(requests.drain(..));
        }
    }

    /// Opens the file again if the disk failed before.
    fn ready(&mut self) -> Result<(), redb::Error> {
        if self.database.is_some() {
            return Ok(());
        }
        let database = (self.open)()?;
        let revision = database
            .begin_read()?
            .open_table(META)?
            .get("revision")?
            .map_or(0, |revision| revision.value());
        let in_doubt = std::mem::take(&mut self.in_doubt);
        if in_doubt.last().is_some_and(|last| last.revision.0 == revision) {
            self.history.publish(in_doubt);
        }
        self.database = Some(database);
        tracing::info!("the store is open again");
        Ok(())
    }

    fn commit(&mut self, requests: impl Iterator<Item = Request>) {
        if let Err(error) = self.ready() {
            let why = error.to_string();
            tracing::error!(%why, "the store cannot be opened again");
            for Request { answer, .. } in requests {
                let _ = answer.send(Err(failed("commit")(&why)));
            }
            return;
        }
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
                    // The caller may have been dropped; the transaction is done all the same.
                    let _ = answer.send(result);
                }
            }
            Err(error) => {
                let why = error.to_string();
                tracing::error!(%why, "the store cannot commit");
                self.database = None;
                self.in_doubt = commits;
                for (answer, _) in answers {
                    let _ = answer.send(Err(failed("commit")(&why)));
                }
            }
        }
    }

    fn write(&self, commits: &[Commit]) -> Result<(), redb::Error> {
        let database = self.database.as_ref().ok_or(redb::Error::PreviousIo)?;
        let txn = database.begin_write()?;
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
        let Writing::Thread { requests, thread } = &mut self.writing else {
            return;
        };
        *requests = None;
        if let Some(thread) = thread.take()
            && thread.join().is_err()
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
        let request = Request { txn, answer };
        match &self.writing {
            Writing::Thread { requests, .. } => {
                let requests = requests.as_ref().ok_or_else(gone)?;
                requests.send(request).await.map_err(|_closed| gone())?;
            }
            Writing::Caller(writer) => {
                // A panic has the effect of a crash: the file shows which transactions are in it.
                let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
                writer.commit(std::iter::once(request));
            }
        }
        result.await.map_err(|_closed| gone())?
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Changes, StoreError> {
        Ok(self.history.watch(prefix, from))
    }
}

#[cfg(test)]
#[path = "redb_store_tests.rs"]
mod tests;
