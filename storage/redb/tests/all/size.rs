//! The size of a store's file.

use std::path::Path;

use base_env::Env;
use control_store::{LARGEST_TXN, Op, Store, Txn};
use storage_redb::RedbStore;

/// A number of records, their size, and the number written at a time.
struct Load {
    records: usize,
    bytes: usize,
    together: usize,
}

impl Load {
    fn key(&self, number: usize) -> String {
        // Records written together are not adjacent in the file.
        format!("/records/{:06}", number * 7_919 % self.records)
    }

    fn value(&self, round: u8) -> Vec<u8> {
        vec![round; self.bytes]
    }

    async fn write(&self, store: &RedbStore, numbers: std::ops::Range<usize>, round: u8) {
        for start in numbers.clone().step_by(self.together) {
            let some = start..numbers.end.min(start + self.together);
            let puts = some.map(|number| Op::Put(self.key(number), self.value(round)));
            commit(store, puts.collect()).await;
        }
    }

    async fn delete(&self, store: &RedbStore, numbers: impl Iterator<Item = usize>) {
        let deletions = numbers.map(|number| Op::Delete(self.key(number)));
        commit(store, deletions.collect()).await;
    }
}

/// As many transactions as needed, all at once: the store commits them together.
async fn commit(store: &RedbStore, ops: Vec<Op>) {
    let commits = ops.chunks(LARGEST_TXN).map(|ops| {
        store.txn(Txn {
            compare: Vec::new(),
            ops: ops.to_vec(),
        })
    });
    for done in futures::future::join_all(commits).await {
        done.unwrap();
    }
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().len()
}

#[tokio::test]
async fn a_file_grows_with_what_it_holds_and_not_with_what_happens() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = RedbStore::open(&path, &Env::system()).unwrap();
    let load = Load {
        records: 100_000,
        bytes: 600,
        together: 10_000,
    };
    load.write(&store, 0..load.records, 0).await;
    let first = size(&path);
    assert!(first > (load.records * load.bytes) as u64, "{first}");
    load.write(&store, 0..load.records, 1).await;
    // A tenth of the records is deleted and written again.
    let tenth = 0..load.records / 10;
    for round in 2..6 {
        load.delete(&store, tenth.clone()).await;
        load.write(&store, tenth.clone(), round).await;
    }
    let last = size(&path);
    assert!(
        last < 2 * first,
        "it grew from {first} to {last} and holds the same"
    );
}

#[tokio::test]
async fn what_was_deleted_is_given_back_when_the_file_is_opened() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let env = Env::system();
    // As large as a machine's configuration: records that stay are never moved to make room.
    let load = Load {
        records: 4_000,
        bytes: 20_000,
        together: 1_000,
    };
    let store = RedbStore::open(&path, &env).unwrap();
    load.write(&store, 0..load.records, 7).await;
    let full = size(&path);
    load.delete(&store, (0..load.records).filter(|number| number % 100 != 99))
        .await;
    let before = store.list("/").await.unwrap();
    assert_eq!(before.0.len(), load.records / 100);
    drop(store);
    let closed = size(&path);
    assert!(
        closed > full / 2,
        "the file shrinks by itself by now, from {full} to {closed}: nothing is to be done when it is opened"
    );

    let store = RedbStore::open(&path, &env).unwrap();
    assert_eq!(store.list("/").await.unwrap(), before);
    let after = size(&path);
    assert!(after < full / 8, "{after} of {full} are left");
    load.write(&store, 0..1, 99).await;
    drop(store);
    let store = RedbStore::open(&path, &env).unwrap();
    assert_eq!(
        *store.get(&load.key(0)).await.unwrap().unwrap().value,
        *load.value(99)
    );
    assert!(size(&path) < full / 8);
}
