//! Volumes of clusters that were put back, stopped or deleted.

use cluster_api::VolumeWish;
use cluster_volumes::Storage;

use super::{
    volumes::{change_disks, claim, effects, id, persistent, storage, wishes, with_attached},
    *,
};

#[test]
fn a_cluster_of_an_earlier_time_keeps_its_volumes() {
    let mut ideal = with_attached(1);
    // Its etcd was put back to before the claim.
    *storage(&mut ideal) = Storage::default();
    change_disks(&mut ideal, |disks| {
        disks.get_mut(&id("u1")).unwrap().attached = None;
    });
    assert!(ideal.plan().settled() && ideal.plan().effects.is_empty());
    // Or to before the claim had its volume: it gets that one.
    storage(&mut ideal).claims.push(claim("u1", |_| {}));
    assert!(effects(&ideal).is_empty());
    assert!(matches!(&wishes(&ideal)[..], [VolumeWish::Publish { .. }]));
    ideal.run();
    assert_eq!(persistent(&mut ideal).id, Some(id("u1")));
    assert_eq!((ideal.disks.len(), ideal.seen.volumes.len()), (1, 1));
}

#[test]
fn volumes_that_an_older_store_does_not_know_are_written_down_again() {
    let mut ideal = with_attached(1);
    ideal.seen.volumes.clear();
    ideal.seen.observed.volumes = false;
    let plan = ideal.plan();
    assert!(
        matches!(&plan.writes[..], [Write::RecordVolume(new)] if new.id == id("u1") && new.claim.uid == "u1"),
        "{plan:?}"
    );
    ideal.run();
    assert!(ideal.seen.volumes[0].published && ideal.seen.observed.volumes);
    // Where nothing of it is in the fabric, there is nothing to be written down.
    ideal.seen.volumes.clear();
    ideal.seen.observed.volumes = false;
    change_disks(&mut ideal, BTreeMap::clear);
    assert!(ideal.plan().writes.is_empty());
}

#[test]
fn a_stopped_cluster_keeps_its_volumes() {
    let mut ideal = with_attached(1);
    let (records, disks) = (ideal.seen.volumes.clone(), ideal.disks.clone());
    ideal.desired.change_spec(|spec| spec.stopped = true);
    ideal.desired.generation += 1;
    ideal.desired.requests.generation = ideal.desired.generation;
    ideal.desired.modified_at = ideal.now;
    ideal.run();
    assert_eq!((&ideal.seen.volumes, &ideal.disks), (&records, &disks));
    assert!(ideal.seen.observed.volumes);
}

#[test]
fn a_deleted_cluster_leaves_no_volume() {
    for looked in [true, false] {
        let mut ideal = with_attached(1);
        if !looked {
            ideal.seen.volumes_there = None;
        }
        ideal.desired.deleting = true;
        ideal.desired.generation += 1;
        ideal.run();
        assert!(ideal.forgotten && ideal.seen.volumes.is_empty() && ideal.disks.is_empty());
    }
}

#[test]
fn a_creation_that_is_aborted_leaves_no_volume_and_marks_them_first() {
    let mut ideal = with_attached(1);
    ideal.desired.requests.halted = true;
    ideal.desired.generation += 1;
    for _ in 0..100 {
        let planned = effects(&ideal);
        assert!(
            planned.is_empty() || ideal.seen.volumes[0].deleting,
            "{planned:?}"
        );
        if !ideal.pass() {
            break;
        }
    }
    assert!(ideal.seen.volumes.is_empty() && ideal.disks.is_empty());
    assert!(!ideal.seen.observed.volumes && ideal.plan().settled());
}
