//! Snapshots: from a VolumeSnapshot to a copy of its claim's disk, and back.

use cluster_api::{ClaimRef, VolumeWish};
use cluster_volumes::{Snapshot, SnapshotRecipe, SnapshotStage};

use super::{
    volumes::{GIB, effects, id, storage, wishes, with_attached},
    *,
};

fn snapshot(uid: &str, deletes: bool) -> Snapshot {
    Snapshot {
        snapshot: ClaimRef {
            namespace: "shop".to_owned(),
            name: "before".to_owned(),
            uid: uid.to_owned(),
        },
        content: format!("snapcontent-{uid}"),
        ready: false,
        deleting: false,
        stage: SnapshotStage::Wanted(Box::new(SnapshotRecipe {
            class: "csi-azuredisk-vsc".to_owned(),
            deletes,
            volume: "pvc-u1".to_owned(),
            handle: "h".to_owned(),
            block: false,
            shared: false,
        })),
    }
}

fn id_of(uid: &str) -> String {
    cluster_volumes::id("0123456789", &format!("snapcontent-{uid}"))
}

/// A cluster with an attached disk, and a snapshot of it, `s1`.
fn with_snapshot(deletes: bool) -> Ideal {
    let mut ideal = with_attached(1);
    storage(&mut ideal).snapshots.push(snapshot("s1", deletes));
    ideal.run();
    assert!(storage(&mut ideal).snapshots[0].ready);
    assert!(ideal.disks.contains_key(&id_of("s1")));
    ideal
}

/// Removes the VolumeSnapshot: its content is orphaned.
fn drop_snapshot(ideal: &mut Ideal) {
    let storage = storage(ideal);
    storage.snapshots.clear();
    storage.contents[0].orphaned = true;
}

#[test]
fn a_snapshot_is_taken_a_step_at_a_time() {
    let mut ideal = with_attached(1);
    storage(&mut ideal).snapshots.push(snapshot("s1", true));
    let plan = ideal.plan();
    assert!(
        matches!(
            &plan.writes[..],
            [Write::RecordVolume(new)] if new.id == id_of("s1") && new.snapshot && new.source == Some(id("u1")) && new.bytes == GIB
        ),
        "{plan:?}"
    );
    ideal.pass();
    assert_eq!(
        effects(&ideal),
        [FabricEffect::EnsureVolume {
            volume: id_of("s1"),
            bytes: GIB,
            source: Some(id("u1")),
            shared: false,
        }]
    );
    assert!(wishes(&ideal).is_empty());
    ideal.pass();
    assert!(
        matches!(&wishes(&ideal)[..], [VolumeWish::PublishContent { name, .. }] if name == "snapcontent-s1"),
        "{:?}",
        ideal.plan()
    );
    ideal.run();
    let record = ideal.seen.volumes.iter().find(|record| record.snapshot).unwrap();
    assert!(record.published && record.claim_name == "before");
    assert!(storage(&mut ideal).snapshots[0].ready);
    assert!(ideal.plan().settled() && ideal.plan().effects.is_empty());
}

#[test]
fn a_service_that_was_started_again_goes_on_with_snapshots() {
    for passes in 0..10 {
        let mut ideal = with_attached(1);
        storage(&mut ideal).snapshots.push(snapshot("s1", true));
        for _ in 0..passes {
            ideal.pass();
        }
        ideal.seen.volumes_there = None;
        ideal.run();
        assert!(storage(&mut ideal).snapshots[0].ready, "after {passes}");
        drop_snapshot(&mut ideal);
        for _ in 0..passes {
            ideal.pass();
        }
        ideal.seen.volumes_there = None;
        ideal.run();
        assert_eq!(
            ideal.disks.keys().collect::<Vec<_>>(),
            [&id("u1")],
            "after {passes}"
        );
        assert!(storage(&mut ideal).contents.is_empty(), "after {passes}");
    }
}

#[test]
fn what_was_taken_goes_with_its_snapshot_or_is_retained() {
    let mut ideal = with_snapshot(true);
    drop_snapshot(&mut ideal);
    assert_eq!(ideal.plan().writes, [Write::MarkVolume(id_of("s1"))]);
    ideal.run();
    assert!(!ideal.disks.contains_key(&id_of("s1")) && ideal.seen.volumes.len() == 1);

    let mut ideal = with_snapshot(false);
    drop_snapshot(&mut ideal);
    assert!(ideal.plan().settled() && ideal.plan().writes.is_empty());
    storage(&mut ideal).contents[0].deleting = true;
    ideal.run();
    assert!(storage(&mut ideal).contents.is_empty());
    assert!(ideal.disks.contains_key(&id_of("s1")), "it goes with the cluster");
}

#[test]
fn the_disk_of_a_snapshot_may_go_before_it() {
    let mut ideal = with_snapshot(true);
    let storage = storage(&mut ideal);
    storage.claims.clear();
    storage.volumes[0].released = true;
    storage.attachments[0].deleting = true;
    ideal.run();
    assert_eq!(ideal.disks.keys().collect::<Vec<_>>(), [&id_of("s1")]);
}

#[test]
fn nothing_is_taken_while_the_controller_is_off() {
    let mut ideal = with_attached(1);
    storage(&mut ideal).snapshots.push(snapshot("s1", true));
    ideal.desired.change_spec(|spec| spec.snapshots_off = true);
    assert!(ideal.plan().writes.is_empty() && effects(&ideal).is_empty() && wishes(&ideal).is_empty());
    ideal.desired.change_spec(|spec| spec.snapshots_off = false);
    storage(&mut ideal).snapshots[0].stage = SnapshotStage::Refused("no".to_owned());
    assert!(matches!(
        &wishes(&ideal)[..],
        [VolumeWish::TellSnapshot { note, .. }] if note.message == "no"
    ));
    ideal.run();
    assert!(wishes(&ideal).is_empty(), "once");
}

#[test]
fn what_cannot_be_taken_is_told_and_given_up_with_its_snapshot() {
    let mut ideal = with_attached(1);
    storage(&mut ideal).snapshots.push(snapshot("s1", true));
    ideal.pass();
    let held = Held {
        attempts: 2,
        until: ideal.now,
        why: "a machine has it".to_owned(),
    };
    ideal.seen.held.insert(Subject::Volume(id_of("s1")), held);
    assert!(matches!(
        &wishes(&ideal)[..],
        [VolumeWish::TellSnapshot { note, .. }] if note.message == "a machine has it"
    ));
    storage(&mut ideal).snapshots.clear();
    assert!(ideal.plan().writes.is_empty(), "VolumeSnapshots were not listed");
    storage(&mut ideal).knows_snapshots = true;
    assert_eq!(ideal.plan().writes, [Write::MarkVolume(id_of("s1"))]);
    ideal.seen.held.clear();
    ideal.run();
    assert_eq!(ideal.disks.keys().collect::<Vec<_>>(), [&id("u1")]);
    assert_eq!(ideal.seen.volumes.len(), 1);
}
