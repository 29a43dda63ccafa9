//! Rotations over a store in memory and a file of keys: each life of the service opens the file anew.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use base_env::Env;
use base_sealer::Sealer;
use cluster_archive::{Archive, DirectoryStore};
use control_backup::{Copies, Snapshot};
use control_records::{PkiRecord, Rotation, SealedRecord, epoch::identify, key};
use control_store::{
    Changes, Op, Revision, Store, StoreError, Txn, Value, Versioned, get_record, put_record,
};
use jiff::{SignedDuration, Timestamp};
use storage_redb::MemoryStore;

use crate::{FolderKeys, Found, PlaceError, SealedPlace, Sealing, SealingError};

/// So many configurations of machines, more than fit into two transactions.
const MACHINES: usize = 40;

/// A store whose transactions end after so many, as if the service were killed; before the first, somebody else may write.
struct Mortal {
    store: Arc<MemoryStore>,
    left: AtomicUsize,
    before: Mutex<Option<Txn>>,
}

#[async_trait]
impl Store for Mortal {
    async fn get(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        self.store.get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<(Vec<(String, Versioned)>, Revision), StoreError> {
        self.store.list(prefix).await
    }

    async fn txn(&self, txn: Txn) -> Result<Revision, StoreError> {
        let killed = self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if killed.is_err() {
            return Err(StoreError::Io {
                act: "write".to_owned(),
                why: "killed".to_owned(),
            });
        }
        let other = self.before.lock().unwrap().take();
        if let Some(other) = other {
            self.store.txn(other).await?;
        }
        self.store.txn(txn).await
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Changes, StoreError> {
        self.store.watch(prefix, from).await
    }
}

/// A value in a file of the service.
#[derive(Default)]
struct File {
    sealed: Mutex<Vec<u8>>,
    fails: AtomicUsize,
}

/// The file, in a life of the service.
struct OpenFile(Arc<File>, Arc<Sealer>);

impl SealedPlace for OpenFile {
    fn name(&self) -> &'static str {
        "file"
    }

    fn seal_anew(&self) -> Result<Found, PlaceError> {
        let fails = self
            .0
            .fails
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if fails.is_ok() {
            return Err("it cannot be written".into());
        }
        let mut sealed = self.0.sealed.lock().unwrap();
        if !self.1.is_current(&sealed) {
            let secret = self.1.unseal("file", &sealed)?;
            *sealed = self.1.seal("file", &secret)?;
        }
        Ok(Found {
            sealed: [(self.1.key_of(&sealed).unwrap(), 1)].into(),
            oldest_copy: None,
        })
    }
}

/// What outlives the service.
struct Stand {
    directory: tempfile::TempDir,
    env: Env,
    store: Arc<MemoryStore>,
    file: Arc<File>,
}

/// A life of the service.
struct Life {
    sealer: Arc<Sealer>,
    store: Arc<Mortal>,
    sealing: Sealing,
}

impl Stand {
    /// A stamp with one key and secrets of it.
    async fn new() -> Self {
        let stand = Self {
            directory: tempfile::tempdir().unwrap(),
            env: Env::system(),
            store: Arc::new(MemoryStore::new()),
            file: Arc::default(),
        };
        let sealer = Sealer::open(&stand.keys()).unwrap();
        *stand.file.sealed.lock().unwrap() = sealer.seal("file", b"in a file").unwrap();
        for number in 0..MACHINES {
            let op = config(&sealer, number);
            stand.store.txn(Txn::default().with(op)).await.unwrap();
        }
        let op = pki(&sealer);
        stand.store.txn(Txn::default().with(op)).await.unwrap();
        stand
    }

    fn keys(&self) -> PathBuf {
        self.directory.path().join("sealing.key")
    }

    /// The service starts, and will be killed after so many transactions.
    fn start(&self, transactions: usize) -> Life {
        let sealer = Arc::new(Sealer::open(&self.keys()).unwrap());
        let store = Arc::new(Mortal {
            store: Arc::clone(&self.store),
            left: AtomicUsize::new(transactions),
            before: Mutex::default(),
        });
        let as_store: Arc<dyn Store> = Arc::<Mortal>::clone(&store);
        let file = OpenFile(Arc::clone(&self.file), Arc::clone(&sealer));
        Life {
            sealing: Sealing::new(&self.env, as_store, Arc::clone(&sealer), vec![Arc::new(file)]),
            sealer,
            store,
        }
    }

    /// Everything can be unsealed with the keys as they are on disk, and with this one alone.
    async fn all_is_sealed_with(&self, id: &str) {
        let sealer = Sealer::open(&self.keys()).unwrap();
        for number in 0..MACHINES {
            let id_of = number.to_string();
            let found = get_record::<SealedRecord>(&*self.store, &key::machine_config("u", &id_of)).await;
            let sealed = found.unwrap().unwrap().value.sealed;
            let secret = sealer
                .unseal(&key::sealed::machine_config(&id_of), &sealed)
                .unwrap();
            assert_eq!(secret.as_slice(), id_of.as_bytes());
            assert_eq!(sealer.key_of(&sealed).as_deref(), Some(id), "{number}");
        }
        let found = get_record::<PkiRecord>(&*self.store, &key::pki("u")).await;
        let sealed = found.unwrap().unwrap().value.sealed;
        assert_eq!(
            sealer.unseal(&key::sealed::pki("u"), &sealed).unwrap().as_slice(),
            b"keys"
        );
        let sealed = self.file.sealed.lock().unwrap().clone();
        assert_eq!(sealer.unseal("file", &sealed).unwrap().as_slice(), b"in a file");
        assert_eq!(sealer.key_of(&sealed).as_deref(), Some(id));
    }
}

fn config(sealer: &Sealer, number: usize) -> Op {
    let id = number.to_string();
    let record = SealedRecord {
        v: 1,
        sealed: sealer
            .seal(&key::sealed::machine_config(&id), id.as_bytes())
            .unwrap(),
    };
    put_record(key::machine_config("u", &id), &record)
}

fn pki(sealer: &Sealer) -> Op {
    let record = PkiRecord {
        v: 1,
        generation: 1,
        rotation: Rotation::default(),
        sealed: sealer.seal(&key::sealed::pki("u"), b"keys").unwrap(),
    };
    put_record(key::pki("u"), &record)
}

/// The states of all keys, oldest first: whether each is known to be unused.
fn unused(sealer: &Sealer) -> Vec<bool> {
    let keys = sealer.keys().into_iter();
    keys.map(|key| key.unused_since.is_some()).collect()
}

#[tokio::test]
async fn killed_between_any_two_steps_a_rotation_is_brought_to_its_end() {
    // All in one go: so many transactions.
    let stand = Stand::new().await;
    let life = stand.start(usize::MAX);
    life.sealing.rotate().await.unwrap();
    life.sealing.round().await.unwrap();
    let all = usize::MAX - life.store.left.load(Ordering::SeqCst);
    assert!(all >= 3, "{all}");
    for killed_after in 0..=all {
        let stand = Stand::new().await;
        let life = stand.start(killed_after);
        life.sealing.rotate().await.unwrap();
        let new = life.sealer.current();
        let ended = life.sealing.round().await;
        assert_eq!(ended.is_ok(), killed_after == all, "{ended:?}");
        drop(life);
        // What nobody has brought to its end is not a rotation of its own when it is asked for again.
        let life = stand.start(usize::MAX);
        if killed_after < all {
            assert_eq!(unused(&life.sealer), [false, false]);
            life.sealing.rotate().await.unwrap();
        }
        let look = life.sealing.round().await.unwrap();
        assert_eq!(life.sealer.current(), new);
        assert_eq!(look.of(&new), MACHINES as u64 + 2);
        assert_eq!(unused(&life.sealer), [true, false]);
        stand.all_is_sealed_with(&new).await;
    }
}

#[tokio::test]
async fn what_somebody_else_writes_meanwhile_stays() {
    let stand = Stand::new().await;
    let life = stand.start(usize::MAX);
    let before = Sealer::open(&stand.keys()).unwrap();
    life.sealing.rotate().await.unwrap();
    // One that goes, and one that began to be sealed before the key changed.
    let other = Txn::default()
        .delete(key::machine_config("u", "1"))
        .with(config(&before, 39));
    *life.store.before.lock().unwrap() = Some(other);
    let look = life.sealing.round().await.unwrap();
    assert_eq!(
        look.sealed.keys().collect::<Vec<_>>(),
        [&life.sealer.current()],
        "{look:?}"
    );
    assert_eq!(look.of(&life.sealer.current()), MACHINES as u64 + 1);
    let gone = stand.store.get(&key::machine_config("u", "1")).await.unwrap();
    assert_eq!(gone, None);
}

#[tokio::test]
async fn a_place_that_fails_keeps_the_key_and_the_next_round_goes_on() {
    let stand = Stand::new().await;
    stand.file.fails.store(1, Ordering::SeqCst);
    let life = stand.start(usize::MAX);
    life.sealing.rotate().await.unwrap();
    let look = life.sealing.round().await.unwrap();
    assert!(look.problem.unwrap().contains("file: it cannot be written"));
    assert_eq!(unused(&life.sealer), [false, false]);
    life.sealing.round().await.unwrap();
    assert_eq!(unused(&life.sealer), [true, false]);
    stand.all_is_sealed_with(&life.sealer.current()).await;
}

#[tokio::test]
async fn a_value_that_is_damaged_keeps_its_key_and_nothing_else() {
    let stand = Stand::new().await;
    let broken = key::machine_config("u", "3");
    let mut record: SealedRecord = get_record(&*stand.store, &broken).await.unwrap().unwrap().value;
    *record.sealed.last_mut().unwrap() ^= 1;
    let txn = Txn::default().with(put_record(broken.as_str(), &record));
    stand.store.txn(txn).await.unwrap();
    let life = stand.start(usize::MAX);
    let old = life.sealer.current();
    life.sealing.rotate().await.unwrap();
    let look = life.sealing.round().await.unwrap();
    assert_eq!(
        (look.of(&old), look.of(&life.sealer.current())),
        (1, MACHINES as u64 + 1)
    );
    assert!(look.problem.unwrap().contains(&broken));
    assert_eq!(unused(&life.sealer), [false, false]);
    let kept: SealedRecord = get_record(&*stand.store, &broken).await.unwrap().unwrap().value;
    assert_eq!(kept, record);
}

/// All records of a store, as a copy of it has them.
async fn records(store: &MemoryStore) -> Vec<(String, Value)> {
    let (found, _) = store.list("/").await.unwrap();
    found.into_iter().map(|(key, found)| (key, found.value)).collect()
}

#[tokio::test]
async fn a_store_that_is_put_back_is_sealed_anew_and_its_key_is_kept_again() {
    let stand = Stand::new().await;
    let copy = records(&stand.store).await;
    let life = stand.start(usize::MAX);
    life.sealing.rotate().await.unwrap();
    life.sealing.round().await.unwrap();
    assert_eq!(unused(&life.sealer), [true, false]);
    for (key, value) in copy {
        let put = Op::Put(key, value.to_vec());
        stand.store.txn(Txn::default().with(put)).await.unwrap();
    }
    let before = life.sealer.keys()[0].unused_since;
    let life = stand.start(0);
    life.sealing.round().await.unwrap_err();
    assert_eq!(unused(&life.sealer), [false, false], "before anything is changed");
    let life = stand.start(usize::MAX);
    life.sealing.round().await.unwrap();
    assert_eq!(unused(&life.sealer), [true, false]);
    // Copies that were made meanwhile need it.
    assert!(life.sealer.keys()[0].unused_since > before);
    stand.all_is_sealed_with(&life.sealer.current()).await;
}

#[tokio::test]
async fn keys_follow_each_other_and_the_first_is_no_longer_needed() {
    let stand = Stand::new().await;
    let life = stand.start(usize::MAX);
    for rotations in 1..=3 {
        life.sealing.rotate().await.unwrap();
        life.sealing.round().await.unwrap();
        let keys = life.sealing.list();
        assert_eq!(keys.len(), rotations + 1);
        let sealed: Vec<u64> = keys
            .iter()
            .map(|key| key.sealed.as_ref().unwrap().values().sum())
            .collect();
        let (last, others) = sealed.split_last().unwrap();
        assert_eq!(*last, MACHINES as u64 + 2);
        assert!(others.iter().all(|number| *number == 0), "{sealed:?}");
    }
    stand.all_is_sealed_with(&life.sealer.current()).await;
    let keys = life.sealer.keys();
    let refused = async |id: &str| life.sealing.drop_key(id).await.unwrap_err().to_string();
    assert!(refused(&keys[3].id).await.contains("seals"));
    assert!(refused("another").await.contains("no sealing key 'another'"));
    assert!(refused(&keys[2].id).await.contains("a moment ago"));
}

#[tokio::test]
async fn a_key_is_dropped_on_command_when_it_has_not_sealed_for_a_while() {
    let stand = Stand::new().await;
    let sealer = Sealer::open(&stand.keys()).unwrap();
    let old = sealer.current();
    let hour = SignedDuration::from_hours(1);
    sealer.rotate(stand.env.clock.now() - hour).unwrap();
    let life = stand.start(usize::MAX);
    // Something is sealed with it, and refusing changes nothing.
    let refused = life.sealing.drop_key(&old).await.unwrap_err();
    assert!(refused.to_string().contains("41 values"), "{refused}");
    assert_eq!(life.store.left.load(Ordering::SeqCst), usize::MAX);
    life.sealing.round().await.unwrap();
    life.sealing.drop_key(&old).await.unwrap();
    assert_eq!(life.sealer.keys().len(), 1);
    stand.all_is_sealed_with(&life.sealer.current()).await;
    let again = life.sealing.drop_key(&old).await;
    assert!(matches!(again, Err(SealingError::NoSuchKey(_))), "{again:?}");
}

#[tokio::test]
async fn copies_of_the_store_keep_the_key_that_they_need() {
    let stand = Stand::new().await;
    identify(&*stand.store, || stand.env.ids.short()).await.unwrap();
    let now = stand.env.clock.now();
    let days = |days: i64| now - SignedDuration::from_hours(24 * days);
    // The file of the keys: the first has not been used for twenty days.
    let sealer = Arc::new(Sealer::open(&stand.keys()).unwrap());
    let old = sealer.current();
    sealer.rotate(days(21)).unwrap();
    let objects = Arc::new(DirectoryStore::open(&stand.directory.path().join("backups")).unwrap());
    let archive = Arc::new(Archive::new(objects, Arc::clone(&sealer)));
    let store: Arc<dyn Store> = Arc::<MemoryStore>::clone(&stand.store);
    let place: Arc<dyn SealedPlace> = Arc::new(FolderKeys::of_backups(Arc::clone(&archive)));
    let file: Arc<dyn SealedPlace> = Arc::new(OpenFile(Arc::clone(&stand.file), Arc::clone(&sealer)));
    let sealing = Sealing::new(&stand.env, store, Arc::clone(&sealer), vec![place, file]);
    sealing.round().await.unwrap();
    sealer.note_unused(&old, Some(days(20))).unwrap();
    let copies = Copies::new(archive);
    let copy = async |at: Timestamp| {
        let mut snapshot = Snapshot::of(&*stand.store, &stand.env).await.unwrap();
        snapshot.header.at = at;
        copies.take(&snapshot).unwrap()
    };
    let first = copy(days(21)).await;
    copy(days(1)).await;
    let look = sealing.round().await.unwrap();
    assert_eq!(look.oldest_copy, Some(first.name.time()));
    assert_eq!(sealer.keys().len(), 2, "it is needed for the older copy");
    let folder = stand
        .directory
        .path()
        .join(format!("backups/store-{}", first.store));
    std::fs::remove_file(folder.join(first.name.to_string())).unwrap();
    sealing.round().await.unwrap();
    assert_eq!(sealer.keys().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn it_looks_after_itself_and_asks_for_nothing_while_there_is_one_key() {
    let mut stand = Stand::new().await;
    stand.env = Env::simulated(1);
    let Life { sealer, sealing, .. } = stand.start(usize::MAX);
    let (clock, sealing) = (Arc::clone(&stand.env.clock), Arc::new(sealing));
    let running = tokio::spawn({
        let sealing = Arc::clone(&sealing);
        async move { sealing.run().await }
    });
    clock.sleep(Duration::from_secs(86_400)).await;
    assert_eq!(sealing.last(), None);
    sealing.rotate().await.unwrap();
    while unused(&sealer) != [true, false] {
        clock.sleep(Duration::from_secs(1)).await;
    }
    stand.all_is_sealed_with(&sealer.current()).await;
    running.abort();
}
