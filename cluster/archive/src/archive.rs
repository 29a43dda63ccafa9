//! The archive: clusters' backups by uid.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    sync::{Arc, Mutex, PoisonError},
};

use aws_lc_rs::rand;
use base_sealer::{SealError, Sealer};
use cluster_backup::{
    BackupError, Entry, ObjectName, base,
    chain::{self, Chain, NotCovered, Span},
    diff::{self, Index, Preview},
    fold::{Fold, Folded},
    log, retention,
};
use zeroize::Zeroizing;

use crate::{
    ObjectStore, folder_key,
    sealed::{SealedReader, SealedWriter},
};

/// How the folders of stores begin; uids of clusters have no dash.
pub const STORES: &str = "store-";
/// A part of a log is read whole before it is kept.
const LARGEST_PART: u64 = 128 * 1024 * 1024;
/// Twice etcd's largest size (8 GiB): no valid base is larger.
const LARGEST_BASE: u64 = 16 * 1024 * 1024 * 1024;
/// The size limit of a cluster's sealed backups, in bytes.
const BUDGET: u64 = 64 * 1024 * 1024 * 1024;

/// The reason of a failure.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The object store failed.
    #[error("the backup {name} cannot be {act}: {source}")]
    Storage {
        /// `kept`, `read`, `listed`, `removed`.
        act: &'static str,
        /// The file or cluster.
        name: String,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// A file does not match its name.
    #[error("the backup {name} cannot be used: {source}")]
    Damaged {
        /// The file.
        name: String,
        /// The reason.
        #[source]
        source: BackupError,
    },
    /// The cluster's key cannot be used.
    #[error("the key of the backups of cluster {cluster} cannot be used: {why}")]
    Key {
        /// The cluster's uid.
        cluster: String,
        /// The reason.
        why: String,
    },
    /// There is no backup for that moment.
    #[error(transparent)]
    NotCovered(#[from] NotCovered),
}

impl From<(&str, SealError)> for ArchiveError {
    fn from((cluster, error): (&str, SealError)) -> Self {
        Self::Key {
            cluster: cluster.to_owned(),
            why: error.to_string(),
        }
    }
}

/// The archive's content for a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// Files with their sizes, sealed.
    pub objects: Vec<(ObjectName, u64)>,
}

impl Holding {
    /// The names alone.
    pub fn names(&self) -> Vec<ObjectName> {
        self.objects.iter().map(|(name, _)| *name).collect()
    }

    /// Restorable moments.
    pub fn spans(&self) -> Vec<Span> {
        chain::spans(&self.names())
    }
}

/// Size limits.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of a base, as received.
    pub base: u64,
    /// Sealed bytes of a cluster. Above that, old files are removed, except the newest base and its logs.
    pub cluster: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            base: LARGEST_BASE,
            cluster: BUDGET,
        }
    }
}

/// A cluster's key, once it was read or created. Locked meanwhile, so that it happens once.
type KeySlot = Arc<Mutex<Option<Arc<Sealer>>>>;

/// Backups of clusters.
pub struct Archive {
    objects: Arc<dyn ObjectStore>,
    stamp: Arc<Sealer>,
    /// Never locked during calls to the object store: a cluster waits for its own key only.
    keys: Mutex<BTreeMap<String, KeySlot>>,
    limits: Limits,
    /// Bytes received for a cluster since its last budget check.
    since_thinned: Mutex<BTreeMap<String, u64>>,
}

fn storage<'a>(act: &'static str, name: &'a str) -> impl FnOnce(io::Error) -> ArchiveError + 'a {
    move |source| ArchiveError::Storage {
        act,
        name: name.to_owned(),
        source,
    }
}

impl Archive {
    /// An archive in this object store, sealed with the stamp's key.
    pub fn new(objects: Arc<dyn ObjectStore>, stamp: Arc<Sealer>) -> Self {
        Self::with_limits(objects, stamp, Limits::default())
    }

    /// An archive with other limits.
    pub fn with_limits(objects: Arc<dyn ObjectStore>, stamp: Arc<Sealer>, limits: Limits) -> Self {
        Self {
            objects,
            stamp,
            keys: Mutex::new(BTreeMap::new()),
            limits,
            since_thinned: Mutex::new(BTreeMap::new()),
        }
    }

    /// The size limits.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    fn path(cluster: &str, name: &ObjectName) -> String {
        format!("{cluster}/{name}")
    }

    /// The key of a cluster, created when it is first needed.
    fn key(&self, cluster: &str, make: bool) -> Result<Arc<Sealer>, ArchiveError> {
        let slot = {
            let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(keys.entry(cluster.to_owned()).or_default())
        };
        let mut known = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = &*known {
            return Ok(Arc::clone(key));
        }
        let name = folder_key::path(cluster);
        let found = folder_key::read(&*self.objects, cluster).map_err(storage("read", &name))?;
        let bytes = match found {
            Some(sealed) => self
                .stamp
                .unseal(&name, &sealed)
                .map_err(|error| ArchiveError::from((cluster, error)))?,
            None if make => {
                let mut bytes = Zeroizing::new(vec![0; 32]);
                rand::fill(&mut bytes).map_err(|_unspecified| ArchiveError::Key {
                    cluster: cluster.to_owned(),
                    why: "no randomness".to_owned(),
                })?;
                let sealed = self
                    .stamp
                    .seal(&name, &bytes)
                    .map_err(|error| ArchiveError::from((cluster, error)))?;
                self.objects
                    .put(&name, &mut |out| out.write_all(&sealed))
                    .map_err(storage("kept", &name))?;
                bytes
            }
            None => return Err(storage("read", &name)(io::ErrorKind::NotFound.into())),
        };
        let bytes: &[u8; 32] = bytes.as_slice().try_into().map_err(|_| ArchiveError::Key {
            cluster: cluster.to_owned(),
            why: "it has not 32 bytes".to_owned(),
        })?;
        let key = Arc::new(Sealer::from_key(bytes));
        *known = Some(Arc::clone(&key));
        Ok(key)
    }

    /// Which of the stamp's keys each folder's key is sealed with, by its id; folders of other stamps are left out. With `anew`, each is sealed
    /// with the one that seals. It may be cut short anywhere, and be repeated.
    ///
    /// # Errors
    /// When the object store fails.
    pub fn folder_keys(&self, anew: bool) -> Result<BTreeMap<String, String>, ArchiveError> {
        let act = if anew { "kept" } else { "read" };
        let mut keys = BTreeMap::new();
        for folder in self.folders()? {
            let found = folder_key::sealed_with(&*self.objects, &self.stamp, &folder, anew);
            if let Some(id) = found.map_err(storage(act, &folder_key::path(&folder)))? {
                keys.insert(folder, id);
            }
        }
        Ok(keys)
    }

    /// Keeps a file of a cluster, if it is whole and what its name says.
    ///
    /// # Errors
    /// [`ArchiveError::Damaged`] when it is not.
    pub fn put(&self, cluster: &str, name: ObjectName, mut source: impl Read) -> Result<(), ArchiveError> {
        let path = Self::path(cluster, &name);
        let key = self.key(cluster, true)?;
        let (mut refused, mut sealed_bytes) = (None, 0);
        let limit = self.limits.base;
        let put = self.objects.put(&path, &mut |out| {
            let mut sealed = SealedWriter::new(&key, &path, out);
            let checked = match name {
                ObjectName::Base { .. } => check_base(&name, &mut source, limit, &mut sealed),
                ObjectName::Log { .. } => check_log(&name, &mut source, &mut sealed),
            };
            if let Err(error) = checked {
                let why = error.to_string();
                refused = Some(error);
                return Err(io::Error::other(why));
            }
            sealed_bytes = sealed.finish()?;
            Ok(())
        });
        match (put, refused) {
            (Ok(()), _) => {
                self.thin_when_due(cluster, sealed_bytes);
                Ok(())
            }
            // The file may be valid: it was not received completely, or could not be written.
            (Err(_), Some(BackupError::Medium(why))) => Err(storage("kept", &path)(io::Error::other(why))),
            (Err(_), Some(source)) => Err(ArchiveError::Damaged { name: path, source }),
            (Err(source), None) => Err(storage("kept", &path)(source)),
        }
    }

    /// Checks the budget after each eighth of it: between two rounds of maintenance a machine could fill the
    /// disk.
    fn thin_when_due(&self, cluster: &str, came: u64) {
        {
            let mut since = self.since_thinned.lock().unwrap_or_else(PoisonError::into_inner);
            let since = since.entry(cluster.to_owned()).or_default();
            *since = since.saturating_add(came);
            if *since < self.limits.cluster / 8 {
                return;
            }
            *since = 0;
        }
        match self.thin(cluster) {
            Ok(0) => {}
            Ok(removed) => tracing::warn!(
                cluster,
                removed,
                "the backups of a cluster are thinned out to its budget"
            ),
            // The received file is stored; the next round of maintenance tries again.
            Err(error) => tracing::warn!(cluster, %error, "the backups of a cluster cannot be thinned out"),
        }
    }

    /// Removes files above the cluster's budget. Returns their number.
    ///
    /// # Errors
    /// When the object store fails; files removed until then stay removed.
    pub fn thin(&self, cluster: &str) -> Result<usize, ArchiveError> {
        let above = retention::above_budget(&self.holding(cluster)?.objects, self.limits.cluster);
        for name in &above {
            self.remove(cluster, name)?;
        }
        Ok(above.len())
    }

    /// The content of a cluster's folder.
    ///
    /// # Errors
    /// When the object store fails.
    pub fn holding(&self, cluster: &str) -> Result<Holding, ArchiveError> {
        let files = self
            .objects
            .list(Some(cluster))
            .map_err(storage("listed", cluster))?;
        Ok(Holding {
            objects: files
                .into_iter()
                .filter_map(|(name, size)| Some((ObjectName::parse(&name)?, size)))
                .collect(),
        })
    }

    /// Uids of clusters with any content.
    ///
    /// # Errors
    /// When the object store fails.
    pub fn clusters(&self) -> Result<Vec<String>, ArchiveError> {
        let mut folders = self.folders()?;
        folders.retain(|folder| !folder.starts_with(STORES));
        Ok(folders)
    }

    /// All folders: of clusters, and of stores.
    ///
    /// # Errors
    /// When the object store fails.
    pub fn folders(&self) -> Result<Vec<String>, ArchiveError> {
        let folders = self.objects.list(None).map_err(storage("listed", "folder"))?;
        Ok(folders.into_iter().map(|(name, _)| name).collect())
    }

    /// Stores another file: the output of `fill`, sealed with the key of its folder. Returns its size.
    ///
    /// # Errors
    /// Those of `fill`, and of the object store; then nothing is stored.
    pub fn keep(
        &self,
        folder: &str,
        name: &str,
        fill: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
    ) -> Result<u64, ArchiveError> {
        let key = self.key(folder, true)?;
        let path = format!("{folder}/{name}");
        let mut bytes = 0;
        self.objects
            .put(&path, &mut |out| {
                let mut sealed = SealedWriter::new(&key, &path, out);
                fill(&mut sealed)?;
                bytes = sealed.finish()?;
                Ok(())
            })
            .map_err(storage("kept", &path))?;
        Ok(bytes)
    }

    /// Opens a file stored by [`Self::keep`], unsealed.
    ///
    /// # Errors
    /// When the file is missing, or its folder's key cannot be used.
    pub fn open(&self, folder: &str, name: &str) -> Result<Box<dyn Read + Send>, ArchiveError> {
        let path = format!("{folder}/{name}");
        let key = self.key(folder, false)?;
        let file = self.objects.get(&path).map_err(storage("read", &path))?;
        Ok(Box::new(SealedReader::new(key, path, file)))
    }

    /// Names of the files in a folder with their sizes, including its key.
    ///
    /// # Errors
    /// When the object store fails.
    pub fn files(&self, folder: &str) -> Result<Vec<(String, u64)>, ArchiveError> {
        self.objects.list(Some(folder)).map_err(storage("listed", folder))
    }

    /// Removes a file stored by [`Self::keep`].
    ///
    /// # Errors
    /// When the object store fails.
    pub fn drop_file(&self, folder: &str, name: &str) -> Result<(), ArchiveError> {
        let path = format!("{folder}/{name}");
        self.objects.delete(&path).map_err(storage("removed", &path))
    }

    /// A file of a cluster, unsealed.
    ///
    /// # Errors
    /// When the file is missing, or its key cannot be used.
    pub fn get(&self, cluster: &str, name: &ObjectName) -> Result<Box<dyn Read + Send>, ArchiveError> {
        self.open(cluster, &name.to_string())
    }

    /// Removes a file of a cluster.
    ///
    /// # Errors
    /// When the object store fails.
    pub fn remove(&self, cluster: &str, name: &ObjectName) -> Result<(), ArchiveError> {
        self.drop_file(cluster, &name.to_string())
    }

    /// Removes everything of a cluster, its key included.
    ///
    /// # Errors
    /// When the object store fails.
    pub fn forget(&self, cluster: &str) -> Result<(), ArchiveError> {
        self.keys
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(cluster);
        self.since_thinned
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(cluster);
        self.objects
            .delete_folder(cluster)
            .map_err(storage("removed", cluster))
    }

    /// The state at the end of a chain, or at its `cut`, or at a revision; every key in order.
    ///
    /// # Errors
    /// When a file is missing or damaged.
    pub fn fold(
        &self,
        cluster: &str,
        chain: &Chain,
        cut: Option<i64>,
        until: Option<i64>,
        each: impl FnMut(&Entry) -> Result<(), BackupError>,
    ) -> Result<Folded, ArchiveError> {
        let damaged = |name: &ObjectName| {
            let name = Self::path(cluster, name);
            move |source| ArchiveError::Damaged { name, source }
        };
        let revision = match chain.base {
            ObjectName::Base { revision, .. } => revision,
            ObjectName::Log { previous, .. } => previous,
        };
        let mut fold = Fold::onto(revision, cut);
        if let Some(until) = until {
            fold = fold.until_revision(until);
        }
        for name in &chain.logs {
            fold.log(self.get(cluster, name)?).map_err(damaged(name))?;
            if fold.is_beyond() {
                break;
            }
        }
        fold.finish(self.get(cluster, &chain.base)?, each)
            .map_err(damaged(&chain.base))
    }

    /// The state after all changes seen until `cut` (milliseconds since 1970), or the newest, for comparison.
    ///
    /// # Errors
    /// [`ArchiveError::NotCovered`] when there is no backup for that moment.
    pub fn index(&self, cluster: &str, cut: Option<i64>) -> Result<(Index, Folded), ArchiveError> {
        let chain = chain::select(&self.holding(cluster)?.names(), cut)?;
        let mut index = Index::default();
        let folded = self.fold(cluster, &chain, cut, None, |entry| {
            index.add(entry);
            Ok(())
        })?;
        Ok((index, folded))
    }

    /// The changes that a restore of a moment (milliseconds since 1970) would make.
    ///
    /// # Errors
    /// As [`Archive::index`].
    pub fn preview(&self, cluster: &str, cut: Option<i64>) -> Result<Preview, ArchiveError> {
        let (then, _) = self.index(cluster, cut)?;
        let (now, _) = self.index(cluster, None)?;
        Ok(diff::preview(&now, &then))
    }
}

/// Reads from a source and passes the bytes on.
struct Tee<'a> {
    source: &'a mut dyn Read,
    out: &'a mut dyn Write,
}

impl Read for Tee<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        self.out.write_all(&buffer[..read])?;
        Ok(read)
    }
}

fn check_base(
    name: &ObjectName,
    source: &mut dyn Read,
    limit: u64,
    out: &mut dyn Write,
) -> Result<(), BackupError> {
    let mut bounded = source.take(limit);
    let read = base::read(
        Tee {
            source: &mut bounded,
            out,
        },
        |_| Ok(()),
    );
    // The size limit cut it off: that error comes first.
    if bounded.limit() == 0 && read.is_err() {
        return Err(BackupError::Damaged {
            whole: 0,
            why: "a base that is too large",
        });
    }
    let end = read?;
    let found = ObjectName::Base {
        revision: end.revision,
        at: end.at,
    };
    if found == *name {
        Ok(())
    } else {
        Err(BackupError::Order(end.revision))
    }
}

fn check_log(name: &ObjectName, source: &mut dyn Read, out: &mut dyn Write) -> Result<(), BackupError> {
    let mut bytes = Vec::new();
    source.take(LARGEST_PART + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST_PART {
        return Err(BackupError::Damaged {
            whole: 0,
            why: "a part of a log that is too large",
        });
    }
    let found = log::check(bytes.as_slice())?
        .covers
        .map(|(previous, last, first_seen, last_seen)| ObjectName::Log {
            previous,
            last,
            first_seen,
            last_seen,
        });
    match found {
        Some(found) if found == *name => {}
        Some(ObjectName::Log { last, .. }) => return Err(BackupError::Order(last)),
        _ => {
            return Err(BackupError::Damaged {
                whole: 0,
                why: "there is no block",
            });
        }
    }
    out.write_all(&bytes)?;
    Ok(())
}
