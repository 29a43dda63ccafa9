//! Against real etcd, on loopback addresses:
//!
//! ```sh
//! LANDFALL_TEST_ETCD=…/bin/etcd cargo test -p machine-etcd -- --ignored
//! ```
#![expect(clippy::unwrap_used, reason = "all of this is test code, helpers included")]

mod prepare;
mod world;

use base_testkit::needs;
use machine_etcd::client::{Compare, EtcdError, Kind, Write};

use world::{BOUND, World};

#[test]
fn keys_leases_and_watches() {
    if needs::file(needs::ETCD).is_none() {
        return;
    }
    let world = World::new();
    let _etcd = world.alone();
    let client = world.client(0);

    // All bytes are stored, and pages follow each other without a gap, at one revision.
    let mut last = 0;
    for index in 0..25_u8 {
        last = client
            .put(&[b'/', b'k', index, 0xff], &[index, 0, 0xfe], 0)
            .unwrap();
    }
    client.put(b"/k\x05\xff", b"later", 0).unwrap();
    let (mut seen, mut pages) = (Vec::new(), 0);
    let revision = client
        .pages::<EtcdError>(b"/k", b"/l", last, 10, |page| {
            pages += 1;
            seen.extend(page.kvs);
            Ok(())
        })
        .unwrap();
    assert_eq!((revision, pages, seen.len()), (last, 3, 25));
    assert!(
        seen.iter()
            .enumerate()
            .all(|(at, kv)| usize::from(kv.value[0]) == at && kv.value[2] == 0xfe)
    );
    assert_eq!(client.local_value(b"/k\x05\xff").unwrap().unwrap(), b"later");
    assert_eq!(client.local_value(b"/none").unwrap(), None);

    // A watch from the past returns all changes since, and continues; without changes it reports progress.
    let mut watch = client.watch(&[0], &[0], last, BOUND).unwrap();
    let batch = watch.next().unwrap();
    let revisions: Vec<i64> = batch.events.iter().map(|event| event.kv.mod_revision).collect();
    assert_eq!(revisions, [last, last + 1]);
    let lease = client.grant(0, 600).unwrap();
    assert_eq!(client.lease(lease).unwrap(), Some(600));
    assert_eq!(client.lease(lease + 1).unwrap(), None);
    let both = client
        .txn(
            &[Compare::Revision {
                key: b"/a".into(),
                revision: 0,
            }],
            &[
                Write::Put {
                    key: b"/a".into(),
                    value: b"1".into(),
                    lease,
                },
                Write::Delete {
                    key: b"/k\x00\xff".into(),
                },
            ],
        )
        .unwrap();
    let batch = watch.next().unwrap();
    assert_eq!(both, Some(batch.events[0].kv.mod_revision));
    let kinds: Vec<_> = batch
        .events
        .iter()
        .map(|event| (event.kind, event.kv.lease))
        .collect();
    assert_eq!(kinds, [(Kind::Put, lease), (Kind::Delete, 0)]);
    let none = client
        .txn(
            &[Compare::Revision {
                key: b"/a".into(),
                revision: 0,
            }],
            &[Write::Put {
                key: b"/a".into(),
                value: b"2".into(),
                lease: 0,
            }],
        )
        .unwrap();
    assert_eq!(none, None);
    let progress = watch.next().unwrap();
    assert_eq!((progress.events.len(), progress.revision), (0, both.unwrap()));

    // A compacted revision has an error of its own, for a range and for a watch.
    let now = client.delete(b"/k", b"/l").unwrap();
    client.compact(now).unwrap();
    let page = client.range(b"/k", b"/l", last, 10);
    assert!(matches!(page, Err(EtcdError::Compacted { .. })), "{page:?}");
    let gone = client.watch(&[0], &[0], last, BOUND).unwrap().next();
    assert!(
        matches!(gone, Err(EtcdError::Compacted { oldest }) if oldest == now),
        "{gone:?}"
    );

    let status = client.status().unwrap();
    assert!(status.leads() && !status.is_learner && status.db_size > 0 && status.errors.is_empty());
    assert_eq!(status.header.revision, now);
}

#[test]
fn members_and_who_is_away() {
    if needs::file(needs::ETCD).is_none() {
        return;
    }
    let world = World::new();
    let mut etcd = world.alone();
    let client = world.client(0);
    let peer = format!("https://{}:2380", world.address(1));
    let (learner, members) = client.add_learner(&peer).unwrap();
    assert!(learner.is_learner && learner.name.is_empty() && learner.client_urls.is_empty());
    assert_eq!(members.len(), 2);
    let early = client.promote(learner.id).unwrap_err();
    assert!(matches!(early, EtcdError::Refused { .. }), "{early}");
    client.remove(learner.id).unwrap();
    assert!(client.remove(learner.id).unwrap_err().is_not_found());
    let alone = client.members().unwrap();
    assert_eq!((alone.len(), alone[0].name.as_str()), (1, "m-0"));

    let mut watch = client.watch(&[0], &[0], 0, BOUND).unwrap();
    etcd.kill();
    let ended = loop {
        match watch.next() {
            Ok(progress) => assert!(progress.events.is_empty()),
            Err(error) => break error,
        }
    };
    assert!(matches!(ended, EtcdError::Away { .. }), "{ended}");
    assert!(matches!(client.status(), Err(EtcdError::Away { .. })));
}
