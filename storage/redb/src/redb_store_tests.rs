use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
};

use redb::{StorageBackend, backends::FileBackend};

use super::*;

/// A disk that is full while the flag says so.
#[derive(Debug)]
struct Disk(FileBackend, Arc<AtomicBool>);

impl Disk {
    fn room(&self) -> io::Result<()> {
        if self.1.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.room().and_then(|()| self.0.set_len(len))
    }
    fn sync_data(&self) -> io::Result<()> {
        self.room().and_then(|()| self.0.sync_data())
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.room().and_then(|()| self.0.write(offset, data))
    }
    fn close(&self) -> io::Result<()> {
        self.0.close()
    }
}

#[tokio::test]
async fn a_disk_that_was_full_is_written_to_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let full = Arc::new(AtomicBool::new(false));
    let disk = Arc::clone(&full);
    let medium = path.clone();
    let open = move || {
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)?;
        Database::builder().create_with_backend(Disk(FileBackend::new(file)?, Arc::clone(&disk)))
    };
    let env = Env::system();
    let store = RedbStore::with(open.clone(), &env, &Medium(&medium), 0).unwrap();
    store.txn(put("/a")).await.unwrap();
    full.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        assert!(store.txn(put("/b")).await.is_err());
    }
    assert!(store.get("/a").await.unwrap().is_some(), "reading goes on");
    full.store(false, Ordering::SeqCst);
    store.txn(put("/c")).await.unwrap();
    let keys = |list: Vec<(String, Versioned)>| list.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    let before = keys(store.list("/").await.unwrap().0);
    assert!(
        before.contains(&"/a".to_owned()) && before.contains(&"/c".to_owned()),
        "{before:?}"
    );
    drop(store);
    // The values in memory are those in the file, whatever the result of the failed write.
    let store = RedbStore::with(open, &env, &Medium(&medium), 0).unwrap();
    assert_eq!(keys(store.list("/").await.unwrap().0), before);
}

fn put(key: &str) -> Txn {
    Txn::default().with(control_store::Op::Put(key.to_owned(), b"x".to_vec()))
}

#[tokio::test]
async fn a_file_in_memory_outlives_the_stores_on_it_however_they_end() {
    let (file, env) = (MemoryFile::default(), Env::simulated(1));
    let store = RedbStore::in_memory(&file, &env).unwrap();
    store.txn(put("/a")).await.unwrap();
    // It ends like a killed process: without closing its file.
    file.cut_off();
    assert!(store.txn(put("/lost")).await.is_err());
    drop(store);
    let store = RedbStore::in_memory(&file, &env).unwrap();
    assert_eq!(store.get("/lost").await.unwrap(), None);
    let revision = store.txn(put("/b")).await.unwrap();
    assert_eq!(revision, Revision(2));
    // Another store takes the file while it is still open.
    let next = RedbStore::in_memory(&file, &env).unwrap();
    assert!(store.txn(put("/lost")).await.is_err());
    drop(store);
    let (found, revision) = next.list("/").await.unwrap();
    let keys: Vec<_> = found.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!((keys, revision), (vec!["/a", "/b"], Revision(2)));
}
