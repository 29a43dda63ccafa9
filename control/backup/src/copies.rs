//! The storage of copies: a folder of the archive for each store.

use std::{
    io::{self, Read},
    sync::Arc,
};

use cluster_archive::{Archive, ArchiveError, STORES};
use control_records::Epoch;

use crate::{
    format::{self, Decoded, Header, Snapshot},
    name::{self, CopyName},
};

/// Why a copy could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The archive failed.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A copy cannot be read, or is damaged.
    #[error("the copy {name} of the store cannot be used: {source}")]
    Damaged {
        /// Which.
        name: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// An existing copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The store's identity.
    pub store: String,
    /// Its name.
    pub name: CopyName,
    /// Its size, sealed.
    pub bytes: u64,
}

/// The copies in an archive.
#[derive(Clone)]
pub struct Copies {
    archive: Arc<Archive>,
}

fn folder(store: &str) -> String {
    format!("{STORES}{store}")
}

impl Copies {
    /// Those in this archive.
    pub fn new(archive: Arc<Archive>) -> Self {
        Self { archive }
    }

    /// Makes a copy and reads it back; then removes the copies of this store that need not be kept.
    ///
    /// # Errors
    /// When it cannot be stored, or not read back unchanged; then the copy does not exist.
    pub fn take(&self, snapshot: &Snapshot) -> Result<Kept, CopyError> {
        let store = snapshot.header.id.clone();
        let name = CopyName {
            at: snapshot.header.at.as_millisecond(),
            epoch: snapshot.header.epoch,
            revision: snapshot.header.revision,
        };
        let file = name.to_string();
        let bytes = self
            .archive
            .keep(&folder(&store), &file, &mut |out| format::encode(snapshot, out))?;
        if let Err(error) = self.compare(&store, &name, snapshot) {
            self.archive.drop_file(&folder(&store), &file)?;
            return Err(error);
        }
        let kept = Kept { store, name, bytes };
        self.thin(&kept.store)?;
        Ok(kept)
    }

    fn compare(&self, store: &str, name: &CopyName, snapshot: &Snapshot) -> Result<(), CopyError> {
        let failed = |source| damaged(name, source);
        let (header, records) = self.open(store, name)?;
        let mut wanted = snapshot.records.iter();
        let mut same = header == snapshot.header;
        for found in records {
            same &= wanted.next() == Some(&found.map_err(failed)?);
        }
        if same && wanted.next().is_none() {
            return Ok(());
        }
        Err(failed(io::Error::other(
            "it was read back and differs from the written one",
        )))
    }

    fn thin(&self, store: &str) -> Result<(), CopyError> {
        let copies: Vec<_> = self
            .of(store)?
            .into_iter()
            .map(|kept| (kept.name, kept.bytes))
            .collect();
        for name in name::expired(&copies) {
            self.archive.drop_file(&folder(store), &name.to_string())?;
        }
        Ok(())
    }

    /// Identities of all stores with copies: of this stamp, and of earlier ones.
    ///
    /// # Errors
    /// When the archive fails.
    pub fn stores(&self) -> Result<Vec<String>, CopyError> {
        let folders = self.archive.folders()?;
        let stores = folders.iter().filter_map(|folder| folder.strip_prefix(STORES));
        Ok(stores.map(str::to_owned).collect())
    }

    /// A store's copies, oldest first.
    ///
    /// # Errors
    /// When the archive fails.
    pub fn of(&self, store: &str) -> Result<Vec<Kept>, CopyError> {
        let files = self.archive.files(&folder(store))?;
        let mut copies: Vec<Kept> = files
            .into_iter()
            .filter_map(|(name, bytes)| {
                Some(Kept {
                    store: store.to_owned(),
                    name: name.parse().ok()?,
                    bytes,
                })
            })
            .collect();
        copies.sort_unstable_by_key(|kept| kept.name);
        Ok(copies)
    }

    /// The largest known epoch of a store.
    ///
    /// # Errors
    /// When the archive fails.
    pub fn epoch(&self, store: &str) -> Result<Option<Epoch>, CopyError> {
        Ok(self.of(store)?.iter().map(|kept| kept.name.epoch).max())
    }

    /// Begins to read a copy.
    ///
    /// # Errors
    /// When there is none, its key cannot be used, or it is damaged.
    pub fn open(
        &self,
        store: &str,
        name: &CopyName,
    ) -> Result<(Header, Decoded<Box<dyn Read + Send>>), CopyError> {
        let file = self.archive.open(&folder(store), &name.to_string())?;
        format::decode(file).map_err(|source| damaged(name, source))
    }
}

fn damaged(name: &CopyName, source: io::Error) -> CopyError {
    CopyError::Damaged {
        name: name.to_string(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use base_env::Env;
    use base_sealer::Sealer;
    use cluster_archive::DirectoryStore;
    use control_records::epoch::identify;
    use control_store::{Op, Store as _, Txn};
    use storage_redb::MemoryStore;

    use super::*;

    fn copies(root: &std::path::Path, key: u8) -> (Copies, Arc<Archive>) {
        let objects = Arc::new(DirectoryStore::open(root).unwrap());
        let archive = Arc::new(Archive::new(objects, Arc::new(Sealer::from_key(&[key; 32]))));
        (Copies::new(Arc::clone(&archive)), archive)
    }

    #[tokio::test]
    async fn copies_are_kept_sealed_and_are_no_clusters_backups() {
        let directory = tempfile::tempdir().unwrap();
        let (env, store) = (Env::system(), MemoryStore::new());
        let own = identify(&store, || env.ids.short()).await.unwrap();
        let put = Op::Put("/c/u1/desired".to_owned(), b"plain text".to_vec());
        store.txn(Txn::default().with(put)).await.unwrap();
        let (copies, archive) = copies(directory.path(), 7);
        let snapshot = Snapshot::of(&store, &env).await.unwrap();
        let kept = copies.take(&snapshot).unwrap();
        assert_eq!(copies.stores().unwrap(), std::slice::from_ref(&own.id));
        assert_eq!(copies.of(&own.id).unwrap(), std::slice::from_ref(&kept));
        assert!(archive.clusters().unwrap().is_empty());
        let (header, records) = copies.open(&own.id, &kept.name).unwrap();
        assert_eq!(header, snapshot.header);
        let records: Vec<_> = records.map(Result::unwrap).collect();
        assert_eq!(records, snapshot.records);
        let path = directory.path().join(format!("{STORES}{}/{}", own.id, kept.name));
        let text = std::fs::read(&path).unwrap();
        assert!(!text.windows(5).any(|window| window == b"plain"));
        // Another stamp's key decrypts none of them.
        let (others, _) = super::tests::copies(directory.path(), 8);
        assert!(others.open(&own.id, &kept.name).is_err());
        // Damage is detected on reading.
        let mut damaged = text;
        let middle = damaged.len() / 2;
        damaged[middle] ^= 1;
        std::fs::write(&path, damaged).unwrap();
        let read = copies
            .open(&own.id, &kept.name)
            .map_err(|error| error.to_string())
            .and_then(|(_, records)| {
                records
                    .collect::<io::Result<Vec<_>>>()
                    .map_err(|error| error.to_string())
            });
        assert!(read.is_err());
    }

    #[tokio::test]
    async fn copies_of_another_store_stay() {
        let directory = tempfile::tempdir().unwrap();
        let env = Env::system();
        let (copies, _) = copies(directory.path(), 7);
        let mut stores = Vec::new();
        for _ in 0..2 {
            let store = MemoryStore::new();
            stores.push(identify(&store, || env.ids.short()).await.unwrap().id);
            let mut snapshot = Snapshot::of(&store, &env).await.unwrap();
            for minute in 0..30 {
                snapshot.header.at = jiff::Timestamp::from_second(minute * 60).unwrap();
                copies.take(&snapshot).unwrap();
            }
        }
        for store in &stores {
            assert_eq!(
                copies.of(store).unwrap().len(),
                10,
                "thinned out alike, each by its own"
            );
        }
    }
}
