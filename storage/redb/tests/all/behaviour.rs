//! Behaviour that both drivers must have, tested on both.

use std::{collections::BTreeMap, sync::Arc};

use base_env::Env;
use control_store::{
    Change, LARGEST_TXN, Op, Revision, Store, StoreError, Txn, get_record, list_records, put_record,
};
use futures::StreamExt as _;
use proptest::prelude::*;
use storage_redb::{MemoryStore, RedbStore};

/// A driver under test, with its file.
struct Subject {
    store: Arc<dyn Store>,
    directory: Option<tempfile::TempDir>,
}

impl Subject {
    fn both() -> [Self; 2] {
        let directory = tempfile::tempdir().unwrap();
        [
            Self {
                store: Arc::new(MemoryStore::new()),
                directory: None,
            },
            Self {
                store: Arc::new(RedbStore::open(&directory.path().join("store"), &Env::system()).unwrap()),
                directory: Some(directory),
            },
        ]
    }

    /// Closes and reopens the store, if the driver has a file.
    fn reopen(&mut self) {
        if let Some(directory) = &self.directory {
            self.store = Arc::new(MemoryStore::new());
            self.store = Arc::new(RedbStore::open(&directory.path().join("store"), &Env::system()).unwrap());
        }
    }
}

fn put(key: &str, value: &str) -> Txn {
    Txn::default().with(Op::Put(key.to_owned(), value.as_bytes().to_vec()))
}

async fn value(store: &dyn Store, key: &str) -> Option<String> {
    let found = store.get(key).await.unwrap()?;
    Some(String::from_utf8(found.value.to_vec()).unwrap())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

#[tokio::test]
async fn conditions_hold_or_nothing_happens() {
    for Subject { store, .. } in Subject::both() {
        let first = store.txn(put("/a", "1").absent("/a")).await.unwrap();
        assert_eq!(first, Revision(1));
        for refused in [
            put("/a", "2").absent("/a"),
            put("/a", "2").at("/a", Revision(7)),
            put("/a", "2").at("/missing", Revision(1)),
            put("/a", "2").at("/a", first).absent("/a"),
        ] {
            assert!(matches!(
                store.txn(refused).await,
                Err(StoreError::Conflict { .. })
            ));
        }
        assert_eq!(value(&*store, "/a").await.as_deref(), Some("1"));
        let second = store.txn(put("/a", "2").at("/a", first)).await.unwrap();
        assert_eq!(second, Revision(2), "a refused transaction takes no revision");
        assert_eq!(store.get("/a").await.unwrap().unwrap().revision, second);
    }
}

#[tokio::test]
async fn a_prefix_is_listed_in_order_and_nothing_beside_it() {
    for Subject { store, .. } in Subject::both() {
        for key in ["/b/2", "/a/1", "/b/1", "/b", "/b0", "/c"] {
            store.txn(put(key, key)).await.unwrap();
        }
        let (found, revision) = store.list("/b/").await.unwrap();
        assert_eq!(
            found.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(),
            ["/b/1", "/b/2"]
        );
        assert_eq!(revision, Revision(6));
    }
}

#[tokio::test]
async fn a_watch_sees_what_came_after_and_then_what_comes() {
    for Subject { store, .. } in Subject::both() {
        let from = store.txn(put("/w/a", "1")).await.unwrap();
        store.txn(put("/w/b", "2")).await.unwrap();
        store.txn(put("/x", "not mine")).await.unwrap();
        let mut watch = store.watch("/w/", from).await.unwrap();
        store
            .txn(Txn::default().delete("/w/a").delete("/w/never"))
            .await
            .unwrap();
        let mut seen = Vec::new();
        for _ in 0..2 {
            let Change { revision, key, value } = watch.next().await.unwrap().unwrap();
            seen.push((
                revision.0,
                key,
                value.map(|value| String::from_utf8(value.to_vec()).unwrap()),
            ));
        }
        assert_eq!(
            seen,
            [
                (2, "/w/b".to_owned(), Some("2".to_owned())),
                (4, "/w/a".to_owned(), None)
            ]
        );
        drop(store);
        assert!(watch.next().await.is_none(), "a watch ends with its store");
    }
}

/// Writes these keys in as many transactions as needed, all concurrently.
async fn put_many(store: &Arc<dyn Store>, keys: impl Iterator<Item = String>) {
    let keys: Vec<String> = keys.collect();
    let mut commits = tokio::task::JoinSet::new();
    for some in keys.chunks(LARGEST_TXN) {
        let puts = some.iter().map(|key| Op::Put(key.clone(), vec![1]));
        let txn = puts.fold(Txn::default(), Txn::with);
        let store = Arc::clone(store);
        commits.spawn(async move { store.txn(txn).await });
    }
    for done in commits.join_all().await {
        done.unwrap();
    }
}

#[tokio::test]
async fn a_transaction_that_etcd_would_refuse_is_refused() {
    for Subject { store, .. } in Subject::both() {
        let puts = |many: usize| (0..many).map(|index| Op::Put(format!("/{index}"), Vec::new()));
        let error = store
            .txn(puts(LARGEST_TXN + 1).fold(Txn::default(), Txn::with))
            .await;
        assert!(matches!(
            error,
            Err(StoreError::TooLarge {
                effects: 129,
                conditions: 0
            })
        ));
        assert!(store.list("/").await.unwrap().0.is_empty());
        store
            .txn(puts(LARGEST_TXN).fold(Txn::default(), Txn::with))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_watch_that_fell_behind_says_so_once_and_ends() {
    for Subject { store, .. } in Subject::both() {
        let mut slow = store.watch("/", Revision(0)).await.unwrap();
        for round in 0..200_u8 {
            let mut txn = Txn::default();
            for index in 0..100 {
                txn = txn.with(Op::Put(format!("/{index}"), vec![round]));
            }
            store.txn(txn).await.unwrap();
        }
        put_many(&store, (0..70_000).map(|index| format!("/many/{index}"))).await;
        let mut last = Revision(0);
        loop {
            match slow.next().await {
                Some(Ok(change)) => {
                    assert!(change.revision >= last, "in order until the end");
                    last = change.revision;
                }
                Some(Err(StoreError::Lagged)) => break,
                other => panic!("expected a change or Lagged, got {other:?}"),
            }
        }
        assert!(slow.next().await.is_none());
        let (_, revision) = store.list("/").await.unwrap();
        let mut fresh = store.watch("/", revision).await.unwrap();
        store.txn(put("/new", "1")).await.unwrap();
        assert_eq!(fresh.next().await.unwrap().unwrap().key, "/new");
    }
}

#[tokio::test]
async fn a_watch_that_reads_is_not_lost_to_commits_larger_than_what_is_kept() {
    for Subject { store, .. } in Subject::both() {
        let mut watch = store.watch("/", Revision(0)).await.unwrap();
        put_many(&store, (0..10_000).map(|index| format!("/{index:05}"))).await;
        store.txn(put("/last", "1")).await.unwrap();
        for index in 0..10_000 {
            assert_eq!(watch.next().await.unwrap().unwrap().key, format!("/{index:05}"));
        }
        assert_eq!(watch.next().await.unwrap().unwrap().key, "/last");
        // Changes that all watches have read are kept no longer than usual.
        store.txn(put("/more", "1")).await.unwrap();
        let mut late = store.watch("/", Revision(0)).await.unwrap();
        assert!(matches!(late.next().await, Some(Err(StoreError::Lagged))));
    }
}

#[tokio::test]
async fn of_many_who_want_the_same_key_one_gets_it() {
    for Subject { store, .. } in Subject::both() {
        let mut tasks = tokio::task::JoinSet::new();
        for index in 0..64 {
            let store = Arc::clone(&store);
            tasks.spawn(async move {
                store
                    .txn(put("/lease", &index.to_string()).absent("/lease"))
                    .await
            });
        }
        let results = tasks.join_all().await;
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
        assert_eq!(store.list("/").await.unwrap().1, Revision(1));
    }
}

#[tokio::test]
async fn a_closed_file_comes_back_as_it_was_and_forgets_its_history() {
    let [_, mut subject] = Subject::both();
    subject.store.txn(put("/a", "1")).await.unwrap();
    subject.store.txn(put("/b", "2")).await.unwrap();
    subject.store.txn(Txn::default().delete("/a")).await.unwrap();
    subject.reopen();
    let (found, revision) = subject.store.list("/").await.unwrap();
    assert_eq!(revision, Revision(3));
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].0.as_str(), found[0].1.revision), ("/b", Revision(2)));
    let mut watch = subject.store.watch("/", Revision(1)).await.unwrap();
    assert!(matches!(watch.next().await, Some(Err(StoreError::Lagged))));
    assert_eq!(subject.store.txn(put("/c", "3")).await.unwrap(), Revision(4));
}

#[tokio::test]
async fn a_file_is_private_and_belongs_to_one_process() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let _store = RedbStore::open(&path, &Env::system()).unwrap();
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let refused = RedbStore::open(&path, &Env::system()).unwrap_err().to_string();
    assert!(refused.contains("another process"), "{refused}");
}

#[tokio::test]
async fn a_file_that_is_damaged_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let env = Env::system();
    let store = RedbStore::open(&path, &env).unwrap();
    for number in 0..200 {
        let value = format!("{number}").repeat(100);
        store.txn(put(&format!("/k/{number}"), &value)).await.unwrap();
    }
    let (before, _) = store.list("/").await.unwrap();
    drop(store);
    let whole = std::fs::read(&path).unwrap();
    let refused = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        match RedbStore::open(&path, &env) {
            Err(StoreError::Damaged { path: named, .. }) => {
                assert_eq!(named, path.to_str().unwrap());
                assert!(std::fs::read(&path).unwrap() == bytes, "it is left as it is");
                None
            }
            Err(error) => panic!("{error}"),
            Ok(store) => Some(store),
        }
    };
    assert!(refused(&[]).is_none(), "nothing at all");
    assert!(refused(&vec![b'x'; 10_000]).is_none(), "something else");
    assert!(refused(&whole[..whole.len() / 2]).is_none(), "half of it");
    // A page with other content: the store refuses it, or the page is not in use.
    let mut noticed = 0;
    for at in (4096..whole.len()).step_by(4096) {
        let mut bytes = whole.clone();
        bytes[at..at + 64].fill(0x5a);
        std::fs::write(&path, &bytes).unwrap();
        match RedbStore::open(&path, &env) {
            Err(StoreError::Damaged { .. }) => noticed += 1,
            Err(error) => panic!("{error}"),
            Ok(store) => assert_eq!(store.list("/").await.unwrap().0, before, "at {at}"),
        }
    }
    assert!(noticed > 0);
}

#[tokio::test]
async fn a_file_is_made_from_records_as_a_whole() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    std::fs::write(&path, "left over").unwrap();
    let found = |value: &str, revision| control_store::Versioned {
        revision: Revision(revision),
        value: value.as_bytes().into(),
    };
    let records = [("/a".to_owned(), found("1", 3)), ("/b".to_owned(), found("2", 7))];
    let all = records.clone().into_iter().map(Ok::<_, StoreError>);
    RedbStore::write_new(&path, Revision(9), all).unwrap();
    let store = RedbStore::open(&path, &Env::system()).unwrap();
    assert_eq!(store.list("/").await.unwrap(), (records.to_vec(), Revision(9)));
    assert_eq!(store.txn(put("/c", "3")).await.unwrap(), Revision(10));
}

#[tokio::test]
async fn records_are_json_and_a_bad_one_is_named() {
    for Subject { store, .. } in Subject::both() {
        store
            .txn(Txn::default().with(put_record("/r/a", &vec![1, 2])))
            .await
            .unwrap();
        let found = get_record::<Vec<u8>>(&*store, "/r/a").await.unwrap().unwrap();
        assert_eq!((found.value, found.revision), (vec![1, 2], Revision(1)));
        assert_eq!(get_record::<Vec<u8>>(&*store, "/r/none").await.unwrap(), None);
        assert_eq!(list_records::<Vec<u8>>(&*store, "/r/").await.unwrap().0.len(), 1);
        store.txn(put("/r/bad", "{")).await.unwrap();
        let error = list_records::<Vec<u8>>(&*store, "/r/").await.unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { key, .. } if key == "/r/bad"));
    }
}

/// A step of a random history over a handful of keys.
#[derive(Debug, Clone)]
enum Step {
    Commit(Vec<Condition>, Vec<Effect>),
    Reopen,
}

#[derive(Debug, Clone)]
enum Condition {
    Absent(u8),
    /// The current revision of the key, or another one.
    Present(u8, bool),
}

#[derive(Debug, Clone)]
enum Effect {
    Put(u8, u8),
    Delete(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..4_u8;
    let condition = prop_oneof![
        key.clone().prop_map(Condition::Absent),
        (key.clone(), prop::bool::weighted(0.8)).prop_map(|(key, right)| Condition::Present(key, right)),
    ];
    let effect = prop_oneof![
        (key.clone(), any::<u8>()).prop_map(|(key, value)| Effect::Put(key, value)),
        key.prop_map(Effect::Delete),
    ];
    prop_oneof![
        12 => (prop::collection::vec(condition, 0..2), prop::collection::vec(effect, 0..4))
            .prop_map(|(conditions, effects)| Step::Commit(conditions, effects)),
        1 => Just(Step::Reopen),
    ]
}

/// A model of the store.
#[derive(Default)]
struct Model {
    revision: u64,
    current: BTreeMap<String, (u64, Vec<u8>)>,
    changes: Vec<(u64, String, Option<Vec<u8>>)>,
}

impl Model {
    fn commit(&mut self, conditions: &[Condition], effects: &[Effect]) -> (Txn, bool) {
        let mut txn = Txn::default();
        let mut holds = true;
        for condition in conditions {
            txn = match condition {
                Condition::Absent(key) => {
                    holds &= !self.current.contains_key(&format!("/{key}"));
                    txn.absent(format!("/{key}"))
                }
                Condition::Present(key, right) => {
                    let key = format!("/{key}");
                    let revision = self.current.get(&key).map(|(revision, _)| *revision);
                    holds &= revision.is_some() && *right;
                    txn.at(key, Revision(revision.unwrap_or(0) + u64::from(!right)))
                }
            };
        }
        let mut after = BTreeMap::new();
        for effect in effects {
            txn = match effect {
                Effect::Put(key, value) => {
                    after.insert(format!("/{key}"), Some(vec![*value]));
                    txn.with(Op::Put(format!("/{key}"), vec![*value]))
                }
                Effect::Delete(key) => {
                    after.insert(format!("/{key}"), None);
                    txn.delete(format!("/{key}"))
                }
            };
        }
        if holds {
            self.revision += 1;
            for (key, value) in after {
                let changed = match &value {
                    Some(value) => {
                        self.current.insert(key.clone(), (self.revision, value.clone()));
                        true
                    }
                    None => self.current.remove(&key).is_some(),
                };
                if changed {
                    self.changes.push((self.revision, key, value));
                }
            }
        }
        (txn, holds)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_is_as_the_model_says(steps in prop::collection::vec(step(), 1..40)) {
        runtime().block_on(async {
            for mut subject in Subject::both() {
                let mut model = Model::default();
                let mut watch = subject.store.watch("/", Revision(0)).await.unwrap();
                let mut told = 0;
                for step in &steps {
                    match step {
                        Step::Commit(conditions, effects) => {
                            let (txn, holds) = model.commit(conditions, effects);
                            let result = subject.store.txn(txn).await;
                            assert_eq!(result.is_ok(), holds);
                            if let Ok(revision) = result {
                                assert_eq!(revision.0, model.revision);
                            }
                        }
                        Step::Reopen => {
                            subject.reopen();
                            // History does not survive a restart.
                            told = model.changes.len();
                            watch = subject.store.watch("/", Revision(model.revision)).await.unwrap();
                        }
                    }
                    let (found, revision) = subject.store.list("/").await.unwrap();
                    assert_eq!(revision.0, model.revision);
                    let found: BTreeMap<_, _> = found
                        .into_iter()
                        .map(|(key, found)| (key, (found.revision.0, found.value.to_vec())))
                        .collect();
                    assert_eq!(&found, &model.current);
                }
                for expected in &model.changes[told..] {
                    let change = watch.next().await.unwrap().unwrap();
                    let value = change.value.map(|value| value.to_vec());
                    assert_eq!(&(change.revision.0, change.key, value), expected);
                }
            }
        });
    }
}
