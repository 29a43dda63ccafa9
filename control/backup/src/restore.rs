//! Restores a store's file from a copy.
//!
//! In this order, so that it may be killed anywhere and be repeated: the new file is written beside the
//! present one, opened, and copied into the archive with its epoch; the present file gets a second name; the
//! new one takes its place.

use std::{
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use base_env::Env;
use control_records::{Epoch, StoreRecord, key};
use control_store::{Revision, StoreError, Versioned, put_record};
use storage_redb::RedbStore;

use crate::{Copies, CopyError, Header, Kept, Snapshot};

/// Why a store could not be restored. The previous one is still in place.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The copy cannot be read.
    #[error("the copy cannot be read")]
    Copy(#[from] io::Error),
    /// The new file cannot be written or read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The archive cannot store the new epoch.
    #[error("the new epoch of the store cannot be written down beside its copies")]
    Epoch(#[source] CopyError),
    /// A file cannot be put in its place.
    #[error("{path} cannot be put in its place: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// The result of a restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The header of the copy.
    pub header: Header,
    /// The new epoch.
    pub epoch: Epoch,
    /// Its first copy.
    pub copy: Kept,
    /// The new place of the previous file.
    pub kept_file: Option<PathBuf>,
}

/// Restores the store's file at `path` from a copy. The caller ensures that no process has the store open.
///
/// # Errors
/// [`RestoreError`]; then the file is unchanged, or already the new one.
pub async fn restore(
    path: &Path,
    copies: &Copies,
    header: Header,
    records: impl Iterator<Item = io::Result<(String, Versioned)>>,
    env: &Env,
) -> Result<Restored, RestoreError> {
    let known = copies.epoch(&header.id).map_err(RestoreError::Epoch)?;
    let present = present_epoch(path, &header.id, env).await;
    let before = known.max(present).unwrap_or_default().max(header.epoch);
    let epoch = Epoch(before.0 + 1);
    let own = StoreRecord {
        v: 1,
        id: header.id.clone(),
        epoch,
    };
    // Revisions continue after those of the copy.
    let revision = Revision(header.revision.0 + 1);
    let control_store::Op::Put(_, own) = put_record(key::STORE, &own) else {
        unreachable!("a record is put")
    };
    let own = Versioned {
        revision,
        value: own.into(),
    };
    let records = records.map(|found| {
        let (name, found) = found?;
        let found = if name == key::STORE { own.clone() } else { found };
        Ok((name, found))
    });
    let beside = with_ending(path, "restored");
    RedbStore::write_new::<RestoreError>(
        &beside,
        revision,
        records.map(|found| found.map_err(RestoreError::Copy)),
    )?;
    let new = RedbStore::open(&beside, env)?;
    let snapshot = Snapshot::of(&new, env).await?;
    drop(new);
    let copy = copies.take(&snapshot).map_err(RestoreError::Epoch)?;
    let kept_file = exchange(path, &beside, env)?;
    Ok(Restored {
        header,
        epoch,
        copy,
        kept_file,
    })
}

/// The epoch of the present store, if it can be read and has the same identity.
async fn present_epoch(path: &Path, id: &str, env: &Env) -> Option<Epoch> {
    if !path.exists() {
        return None;
    }
    let store = RedbStore::open(path, env).ok()?;
    let found = control_store::get_record::<StoreRecord>(&store, key::STORE).await;
    let own = found.ok().flatten()?.value;
    (own.id == id).then_some(own.epoch)
}

/// `store.redb` → `store.redb.{ending}`.
fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    PathBuf::from(name)
}

/// Gives the present file a second name, durably; then the new one takes its place.
fn exchange(path: &Path, new: &Path, env: &Env) -> Result<Option<PathBuf>, RestoreError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| RestoreError::File { path, source }
    };
    let folder = path.parent().unwrap_or(Path::new("."));
    let kept = match path.metadata() {
        Ok(present) => Some(match second_name(path, present.ino()).map_err(failed(path))? {
            // A restore that was killed at this point made it.
            Some(kept) => kept,
            None => {
                let kept = with_ending(path, &format!("kept-{}", env.clock.now().as_millisecond()));
                std::fs::hard_link(path, &kept).map_err(failed(&kept))?;
                base_files::sync(folder).map_err(failed(folder))?;
                kept
            }
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed(path)(error)),
    };
    std::fs::rename(new, path).map_err(failed(path))?;
    base_files::sync(folder).map_err(failed(folder))?;
    Ok(kept)
}

/// Another name of the present file in the same directory.
fn second_name(path: &Path, inode: u64) -> io::Result<Option<PathBuf>> {
    let folder = path.parent().unwrap_or(Path::new("."));
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.path() != path && entry.metadata()?.ino() == inode {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use base_sealer::Sealer;
    use cluster_archive::{Archive, DirectoryStore};
    use control_records::epoch::identify;
    use control_store::{Op, Store as _, Txn};

    use super::*;

    struct Stand {
        directory: tempfile::TempDir,
        env: Env,
        copies: Copies,
        id: String,
    }

    impl Stand {
        /// A store with `/a` = `then`, a copy of it, and `/a` = `now` after it.
        async fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let env = Env::system();
            let objects = Arc::new(DirectoryStore::open(&directory.path().join("backups")).unwrap());
            let archive = Archive::new(objects, Arc::new(Sealer::from_key(&[7; 32])));
            let copies = Copies::new(Arc::new(archive));
            let store = RedbStore::open(&directory.path().join("store.redb"), &env).unwrap();
            let id = identify(&store, || env.ids.short()).await.unwrap().id;
            put(&store, "then").await;
            copies.take(&Snapshot::of(&store, &env).await.unwrap()).unwrap();
            put(&store, "now").await;
            Self {
                directory,
                env,
                copies,
                id,
            }
        }

        fn path(&self) -> PathBuf {
            self.directory.path().join("store.redb")
        }

        async fn restore(&self) -> Result<Restored, RestoreError> {
            let oldest = self.copies.of(&self.id).unwrap().remove(0);
            let (header, records) = self.copies.open(&self.id, &oldest.name).unwrap();
            restore(&self.path(), &self.copies, header, records, &self.env).await
        }

        async fn says(&self, path: &Path) -> (String, Epoch) {
            let store = RedbStore::open(path, &self.env).unwrap();
            let value = store.get("/a").await.unwrap().unwrap().value;
            let own = identify(&store, || self.env.ids.short()).await.unwrap();
            assert_eq!(own.id, self.id);
            (String::from_utf8(value.to_vec()).unwrap(), own.epoch)
        }
    }

    async fn put(store: &RedbStore, value: &str) {
        let put = Op::Put("/a".to_owned(), value.as_bytes().to_vec());
        store.txn(Txn::default().with(put)).await.unwrap();
    }

    #[tokio::test]
    async fn a_store_is_put_back_in_a_new_epoch_each_time_and_the_one_before_is_kept() {
        let stand = Stand::new().await;
        let first = stand.restore().await.unwrap();
        assert_eq!(stand.says(&stand.path()).await, ("then".to_owned(), Epoch(1)));
        assert_eq!(
            stand.says(&first.kept_file.unwrap()).await,
            ("now".to_owned(), Epoch(0))
        );
        // From the same copy again, and without a file: never the same epoch.
        stand.restore().await.unwrap();
        assert_eq!(stand.says(&stand.path()).await.1, Epoch(2));
        std::fs::remove_file(stand.path()).unwrap();
        let third = stand.restore().await.unwrap();
        assert_eq!((third.epoch, third.kept_file), (Epoch(3), None));
        assert_eq!(stand.says(&stand.path()).await, ("then".to_owned(), Epoch(3)));
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_is_kept_as_well() {
        let stand = Stand::new().await;
        std::fs::write(stand.path(), b"no store at all").unwrap();
        let restored = stand.restore().await.unwrap();
        assert_eq!(
            std::fs::read(restored.kept_file.unwrap()).unwrap(),
            b"no store at all"
        );
        assert_eq!(stand.says(&stand.path()).await.0, "then");
    }

    #[tokio::test]
    async fn killed_anywhere_it_can_be_repeated() {
        let stand = Stand::new().await;
        // While the new file was written.
        std::fs::write(with_ending(&stand.path(), "restored"), b"half").unwrap();
        // After the second name was given.
        std::fs::hard_link(stand.path(), with_ending(&stand.path(), "kept-1")).unwrap();
        let restored = stand.restore().await.unwrap();
        assert_eq!(restored.kept_file.unwrap(), with_ending(&stand.path(), "kept-1"));
        assert_eq!(stand.says(&stand.path()).await.0, "then");
        let files = std::fs::read_dir(stand.directory.path()).unwrap().count();
        assert_eq!(files, 3, "the store, what was kept of it, the copies");
    }

    #[tokio::test]
    async fn a_copy_that_is_damaged_changes_nothing() {
        let stand = Stand::new().await;
        let oldest = stand.copies.of(&stand.id).unwrap().remove(0);
        let (header, records) = stand.copies.open(&stand.id, &oldest.name).unwrap();
        let broken = records.chain([Err(io::Error::other("it broke off"))]);
        let error = restore(&stand.path(), &stand.copies, header, broken, &stand.env).await;
        assert!(matches!(error, Err(RestoreError::Copy(_))), "{error:?}");
        assert_eq!(stand.says(&stand.path()).await, ("now".to_owned(), Epoch(0)));
    }
}
