//! A copy of a whole store in a bucket, and its restore.

use base_env::Env;
use control_backup::{Copies, Snapshot, restore};
use control_records::epoch::identify;
use control_store::{Op, Store as _, Txn};
use storage_redb::RedbStore;

use super::*;

/// The number of records of a large store, and their size.
const RECORDS: usize = 4_000;
const BYTES: usize = 4 << 10;
const PART: usize = 1 << 20;

/// Incompressible bytes, different for each record.
fn noise(record: usize) -> Vec<u8> {
    let blocks = (0..BYTES / 32).flat_map(|block| Sha256::digest(format!("{record}/{block}")));
    blocks.collect()
}

fn name(record: usize) -> String {
    format!("/c/{record:06}/desired")
}

#[tokio::test]
async fn a_large_store_comes_back_from_a_bucket_whole() {
    let stand = Stand::new();
    let timing = Timing {
        now: Box::new(|| "2026-11-21T12:00:00Z".parse().unwrap()),
        pause: Box::new(|_| {}),
    };
    let bucket = S3Store::with_parts(stand.config(), stand.journal.path(), timing, PART).unwrap();
    let sealer = Arc::new(Sealer::from_key(&[7; 32]));
    let copies = Copies::new(Arc::new(Archive::new(Arc::new(bucket), sealer)));
    let (directory, env) = (tempfile::tempdir().unwrap(), Env::system());
    let path = directory.path().join("store.redb");

    let store = RedbStore::open(&path, &env).unwrap();
    let id = identify(&store, || env.ids.short()).await.unwrap().id;
    for chunk in (0..RECORDS).collect::<Vec<_>>().chunks(100) {
        let puts = chunk.iter().map(|record| Op::Put(name(*record), noise(*record)));
        let txn = puts.fold(Txn::default(), Txn::with);
        store.txn(txn).await.unwrap();
    }
    let kept = copies.take(&Snapshot::of(&store, &env).await.unwrap()).unwrap();
    assert!(kept.bytes > (RECORDS * BYTES) as u64, "{}", kept.bytes);
    assert!(stand.bucket().begun > 0, "it went in parts");
    drop(store);
    std::fs::remove_file(&path).unwrap();

    // On another host: it has only the bucket and the sealing key. The connection breaks during the download.
    let newest = copies.of(&id).unwrap().pop().unwrap();
    stand.fault(Fault::CutAfter(3 * PART + 17));
    let (header, records) = copies.open(&id, &newest.name).unwrap();
    let restored = restore(&path, &copies, header, records, &env).await.unwrap();
    assert_eq!(restored.header.revision, kept.name.revision);
    let store = RedbStore::open(&path, &env).unwrap();
    for record in 0..RECORDS {
        let found = store.get(&name(record)).await.unwrap().unwrap();
        assert!(found.value[..] == noise(record)[..], "record {record}");
    }
    assert_eq!(
        copies.of(&id).unwrap().len(),
        2,
        "the new epoch's first copy is there, too"
    );
}
