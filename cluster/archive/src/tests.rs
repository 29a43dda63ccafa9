//! The archive over a directory.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use base_sealer::Sealer;
use cluster_backup::{
    Change, Entry, ObjectName, base::BaseWriter, chain, log::LogWriter, retention::Retention,
};
use jiff::Timestamp;

use crate::{Archive, ArchiveError, DirectoryStore, Limits, ObjectStore};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn archive(directory: &std::path::Path) -> Archive {
    let objects = DirectoryStore::open(directory).unwrap();
    Archive::new(Arc::new(objects), Arc::new(Sealer::from_key(&[7; 32])))
}

fn entry(number: i64, revision: i64) -> Entry {
    Entry {
        key: format!("/registry/configmaps/default/{number:04}").into_bytes(),
        value: b"a secret value".to_vec(),
        revision,
        lease: 0,
    }
}

/// A base with one key for each revision.
fn base(revision: i64, at: i64) -> (ObjectName, Vec<u8>) {
    let mut writer = BaseWriter::new(revision, at);
    for number in 1..=revision {
        assert_eq!(writer.add(&entry(number, number)).unwrap(), None);
    }
    (ObjectName::Base { revision, at }, writer.finish(&[]).unwrap().0)
}

/// The change of one revision.
fn part(revision: i64) -> (ObjectName, Vec<u8>) {
    let mut writer = LogWriter::after(revision - 1, 0);
    let entry = entry(revision, revision);
    writer
        .add(&Change {
            revision,
            seen: revision * 10,
            key: entry.key,
            now: Some((entry.value, 0)),
        })
        .unwrap();
    let (head, bytes) = writer.flush().unwrap();
    let name = ObjectName::Log {
        previous: head.previous,
        last: head.last,
        first_seen: head.first_seen,
        last_seen: head.last_seen,
    };
    (name, bytes)
}

fn filled(archive: &Archive, parts: i64) {
    for (name, bytes) in [base(3, 30)].into_iter().chain((4..=parts).map(part)) {
        archive.put("u1", name, bytes.as_slice()).unwrap();
    }
}

#[test]
fn what_is_kept_comes_back_and_is_sealed_in_the_object_store() {
    let directory = tempfile::tempdir().unwrap();
    filled(&archive(directory.path()), 9);
    // A new process: the key is read from its file.
    let again = archive(directory.path());
    let (index, folded) = again.index("u1", Some(79)).unwrap();
    assert_eq!((index.len(), folded.revision), (7, 7));
    assert_eq!(again.index("u1", None).unwrap().0.len(), 9);
    for file in std::fs::read_dir(directory.path().join("u1")).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(6).any(|window| window == b"secret"));
    }
    let other = Archive::new(
        Arc::new(DirectoryStore::open(directory.path()).unwrap()),
        Arc::new(Sealer::from_key(&[8; 32])),
    );
    assert!(matches!(other.index("u1", None), Err(ArchiveError::Key { .. })));
}

#[test]
fn folders_keys_are_sealed_anew_and_open_what_they_sealed_before() {
    let directory = tempfile::tempdir().unwrap();
    let stamp = Arc::new(Sealer::from_key(&[7; 32]));
    let of = |stamp: &Arc<Sealer>| {
        let objects = DirectoryStore::open(directory.path()).unwrap();
        Archive::new(Arc::new(objects), Arc::clone(stamp))
    };
    let before = of(&stamp);
    for folder in ["u1", "u2"] {
        let (name, bytes) = base(3, 30);
        before.put(folder, name, bytes.as_slice()).unwrap();
    }
    // Of another stamp that keeps its backups in the same place.
    let (name, bytes) = base(3, 30);
    let others = Arc::new(Sealer::from_key(&[8; 32]));
    of(&others).put("other", name, bytes.as_slice()).unwrap();
    let first = stamp.current();
    let second = stamp.rotate(NOW).unwrap();
    let both = |id: &String| BTreeMap::from(["u1", "u2"].map(|folder| (folder.to_owned(), id.clone())));
    assert_eq!(before.folder_keys(false).unwrap(), both(&first));
    for _ in 0..2 {
        assert_eq!(before.folder_keys(true).unwrap(), both(&second));
    }
    stamp.drop_key(&first).unwrap();
    let after = of(&stamp);
    assert_eq!(after.index("u1", None).unwrap().0.len(), 3);
    assert_eq!(of(&others).index("other", None).unwrap().0.len(), 3);
    let (name, bytes) = part(4);
    after.put("u1", name, bytes.as_slice()).unwrap();
    assert_eq!(before.index("u1", None).unwrap().0.len(), 4);
}

#[test]
fn what_is_not_whole_or_not_what_its_name_says_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let archive = archive(directory.path());
    let ((base_name, base_bytes), (part_name, part_bytes)) = (base(3, 30), part(4));
    for (name, bytes) in [
        (base_name, &base_bytes[..base_bytes.len() - 1]),
        (ObjectName::Base { revision: 4, at: 30 }, &base_bytes[..]),
        (part_name, &part_bytes[..part_bytes.len() - 1]),
        (part(5).0, &part_bytes[..]),
        (part_name, &base_bytes[..]),
        (part_name, &[]),
    ] {
        let refused = archive.put("u1", name, bytes);
        assert!(matches!(refused, Err(ArchiveError::Damaged { .. })), "{name}");
    }
    assert!(archive.holding("u1").unwrap().objects.is_empty());
}

#[test]
fn many_small_parts_become_one_and_tell_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let archive = archive(directory.path());
    filled(&archive, 140);
    let before = archive.index("u1", Some(999)).unwrap();
    let tended = archive.tend("u1", &Retention::default(), NOW).unwrap();
    assert_eq!(tended.merged, 128);
    assert_eq!(archive.holding("u1").unwrap().objects.len(), 1 + 2 + 9);
    assert_eq!(archive.index("u1", Some(999)).unwrap(), before);
}

#[test]
fn verifying_compares_base_and_log_with_what_the_machine_read() {
    let directory = tempfile::tempdir().unwrap();
    let archive = archive(directory.path());
    assert!(archive.verify("u1", NOW).unwrap().problem.is_some());
    filled(&archive, 9);
    let (name, bytes) = base(8, 85);
    archive.put("u1", name, bytes.as_slice()).unwrap();
    let verdict = archive.verify("u1", NOW).unwrap();
    assert_eq!((verdict.problem, verdict.keys), (None, 9));
    assert!(verdict.checked.contains("8 keys"), "{}", verdict.checked);

    // A base that contradicts the previous base and the log: here, with another value.
    archive.remove("u1", &name).unwrap();
    let mut writer = BaseWriter::new(8, 85);
    for number in 1..=8 {
        let mut entry = entry(number, number);
        if number == 5 {
            entry.value = b"different".to_vec();
        }
        writer.add(&entry).unwrap();
    }
    let bytes = writer.finish(&[]).unwrap().0;
    archive.put("u1", name, bytes.as_slice()).unwrap();
    let verdict = archive.verify("u1", NOW).unwrap();
    assert!(verdict.problem.unwrap().contains("revision 8"));
}

#[test]
fn damage_in_the_object_store_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let archive = archive(directory.path());
    filled(&archive, 6);
    let path = directory.path().join("u1").join(part(5).0.to_string());
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert!(archive.verify("u1", NOW).unwrap().problem.is_some());
    archive.remove("u1", &part(5).0).unwrap();
    // A gap: the newest state ends before it, and later moments are not offered.
    assert_eq!(archive.holding("u1").unwrap().spans()[0].until, 40);
    let moment = chain::end_of_second(1000);
    assert!(matches!(
        archive.index("u1", Some(moment)),
        Err(ArchiveError::NotCovered(_))
    ));
}

#[test]
fn a_forgotten_cluster_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let archive = archive(directory.path());
    filled(&archive, 5);
    assert_eq!(archive.clusters().unwrap(), ["u1"]);
    archive.forget("u1").unwrap();
    assert!(archive.clusters().unwrap().is_empty());
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

/// A directory in which reading one cluster's key blocks until released.
struct Stuck {
    directory: DirectoryStore,
    reached: mpsc::Sender<()>,
    let_go: Mutex<mpsc::Receiver<()>>,
}

impl ObjectStore for Stuck {
    fn put(&self, name: &str, fill: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        self.directory.put(name, fill)
    }

    fn get(&self, name: &str) -> io::Result<Box<dyn Read + Send>> {
        if name == "stuck/key" {
            self.reached.send(()).unwrap();
            self.let_go.lock().unwrap().recv().unwrap();
        }
        self.directory.get(name)
    }

    fn list(&self, folder: Option<&str>) -> io::Result<Vec<(String, u64)>> {
        self.directory.list(folder)
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        self.directory.delete(name)
    }

    fn delete_folder(&self, folder: &str) -> io::Result<()> {
        self.directory.delete_folder(folder)
    }
}

#[test]
fn a_cluster_waits_for_its_own_key_only() {
    let directory = tempfile::tempdir().unwrap();
    let (reached, is_reached) = mpsc::channel();
    let (let_go, released) = mpsc::channel();
    let objects = Stuck {
        directory: DirectoryStore::open(directory.path()).unwrap(),
        reached,
        let_go: Mutex::new(released),
    };
    let archive = Arc::new(Archive::new(
        Arc::new(objects),
        Arc::new(Sealer::from_key(&[7; 32])),
    ));
    let put = |cluster: &'static str, archive: Arc<Archive>| {
        let (done, is_done) = mpsc::channel();
        std::thread::spawn(move || {
            let (name, bytes) = base(3, 30);
            archive.put(cluster, name, bytes.as_slice()).unwrap();
            // After a failed test no receiver is left.
            let _over = done.send(());
        });
        is_done
    };
    let stuck = put("stuck", Arc::clone(&archive));
    is_reached.recv().unwrap();
    let other = put("u1", Arc::clone(&archive));
    let passed = other.recv_timeout(Duration::from_secs(30)).is_ok();
    let_go.send(()).unwrap();
    assert!(passed, "another cluster waited for the key");
    stuck.recv().unwrap();
    // Created once, and cached from then on.
    archive.get("stuck", &base(3, 30).0).unwrap();
}

fn limited(directory: &std::path::Path, base: u64, cluster: u64) -> Archive {
    let objects = DirectoryStore::open(directory).unwrap();
    let sealer = Arc::new(Sealer::from_key(&[7; 32]));
    Archive::with_limits(Arc::new(objects), sealer, Limits { base, cluster })
}

#[test]
fn a_base_that_is_too_large_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (name, bytes) = base(50, 30);
    let length = u64::try_from(bytes.len()).unwrap();
    let refused = limited(directory.path(), length - 1, u64::MAX).put("u1", name, bytes.as_slice());
    assert!(matches!(&refused, Err(ArchiveError::Damaged { .. })));
    let why = std::error::Error::source(&refused.unwrap_err())
        .unwrap()
        .to_string();
    assert!(why.contains("too large"), "{why}");
    let archive = limited(directory.path(), length, u64::MAX);
    assert!(archive.holding("u1").unwrap().objects.is_empty());
    archive.put("u1", name, bytes.as_slice()).unwrap();
}

#[test]
fn a_cluster_that_writes_much_stays_within_its_budget() {
    let directory = tempfile::tempdir().unwrap();
    let archive = limited(directory.path(), u64::MAX, 20_000);
    for revision in 1..300 {
        let (name, bytes) = base(revision, revision * 1000);
        archive.put("u1", name, bytes.as_slice()).unwrap();
        let kept: u64 = archive
            .holding("u1")
            .unwrap()
            .objects
            .iter()
            .map(|(_, size)| size)
            .sum();
        // An eighth of the budget may come between checks, and the newest base always stays.
        assert!(kept <= 20_000 + 20_000 / 8 + 10_000, "{kept} at {revision}");
    }
    let (index, folded) = archive.index("u1", None).unwrap();
    assert_eq!((index.len(), folded.revision), (299, 299));
}
