//! Disks that tenants made: taken by a cluster whose PersistentVolume names them, and given back.

use cluster_api::{ClaimRef, VolumeWish};
use cluster_volumes::{Claim, Stage, Volume};

use super::{
    volumes::{GIB, attach, change_disks, effects, id, node, storage, wishes, with_attached},
    *,
};

const DISK: &str = "/subscriptions/s/resourceGroups/mine/providers/Microsoft.Compute/disks/data";
const KEY: &str = "/disks/disks/s/mine/data";

fn seen() -> DiskSeen {
    DiskSeen {
        key: KEY.to_owned(),
        volume: "d0".to_owned(),
        bytes: 4 * GIB,
        sku: "Premium_LRS".to_owned(),
    }
}

/// A PersistentVolume that a tenant made for the claim with this uid.
fn by_hand(uid: &str, disk: &str) -> Volume {
    Volume {
        name: format!("pvc-{uid}"),
        uid: format!("uid of {uid}"),
        id: None,
        disk: Some(disk.to_owned()),
        bytes: 4 * GIB,
        shared: false,
        claim: Some(uid.to_owned()),
        released: false,
        deletes: false,
        deleting: false,
    }
}

/// A cluster with a PersistentVolume, `h1`, for a disk of a tenant.
fn with_disk() -> Ideal {
    let mut ideal = with_attached(2);
    change_disks(&mut ideal, |disks| {
        disks.insert(
            "d0".to_owned(),
            VolumeThere {
                bytes: 4 * GIB,
                attached: None,
                open: false,
            },
        );
    });
    ideal.seen.disks.insert(DISK.to_owned(), Ok(seen()));
    storage(&mut ideal).volumes.push(by_hand("h1", DISK));
    ideal.run();
    assert!(ideal.seen.volumes.len() == 1, "nobody needs it");
    ideal
}

fn of_disk(ideal: &Ideal) -> Option<&str> {
    ideal.disks["d0"].attached.as_deref()
}

#[test]
fn a_disk_is_taken_given_to_the_node_and_given_back() {
    let mut ideal = with_disk();
    attach(&mut ideal, "h1", 0);
    let plan = ideal.plan();
    assert!(
        matches!(
            &plan.writes[..],
            [Write::RecordVolume(new)]
                if new.id == "d0" && new.name == "pvc-h1" && new.disk.as_deref() == Some(KEY) && new.object.is_empty()
        ),
        "{plan:?}"
    );
    assert!(effects(&ideal).is_empty(), "nothing before it is written down");
    ideal.run();
    let (machine, _) = node(&ideal, 0);
    assert_eq!(of_disk(&ideal), Some(machine.as_str()));
    let attached = |ideal: &mut Ideal| {
        let mut attachments = storage(ideal).attachments.iter();
        attachments.any(|attachment| attachment.volume == "pvc-h1" && attachment.attached)
    };
    assert!(attached(&mut ideal));
    assert!(ideal.plan().settled());
    // Another node: the first one lets go.
    attach(&mut ideal, "h1", 1);
    for attachment in &mut storage(&mut ideal).attachments {
        attachment.deleting |= attachment.volume == "pvc-h1" && attachment.attached;
    }
    ideal.run();
    let (machine, _) = node(&ideal, 1);
    assert_eq!(of_disk(&ideal), Some(machine.as_str()));
    for attachment in &mut storage(&mut ideal).attachments {
        attachment.deleting |= attachment.volume == "pvc-h1";
    }
    ideal.run();
    assert_eq!(of_disk(&ideal), None);
    assert!(ideal.seen.volumes.iter().all(|record| record.disk.is_none()));
    assert!(ideal.disks.contains_key("d0"), "it is its owner's");
}

#[test]
fn a_disk_that_nobody_asks_for_any_more_is_given_back() {
    let mut ideal = with_disk();
    attach(&mut ideal, "h1", 0);
    ideal.run();
    // Somebody has removed the objects by force.
    let storage = storage(&mut ideal);
    storage
        .attachments
        .retain(|attachment| attachment.volume != "pvc-h1");
    storage.volumes.retain(|volume| volume.name != "pvc-h1");
    assert_eq!(effects(&ideal), [FabricEffect::DetachVolume("d0".to_owned())]);
    assert!(ideal.plan().writes.is_empty(), "not before it is free");
    ideal.run();
    assert!(of_disk(&ideal).is_none() && ideal.seen.volumes.len() == 1);
}

#[test]
fn why_the_cluster_does_not_get_it_is_told_once() {
    let mut ideal = with_disk();
    let why = "there is no such disk".to_owned();
    ideal.seen.disks.insert(DISK.to_owned(), Err(why.clone()));
    attach(&mut ideal, "h1", 0);
    assert!(
        matches!(&wishes(&ideal)[..], [VolumeWish::AttachFailed { why: told, .. }] if *told == why),
        "{:?}",
        ideal.plan()
    );
    ideal.pass();
    assert!(wishes(&ideal).is_empty() && ideal.plan().look_again.is_some());
    ideal.seen.disks.insert(DISK.to_owned(), Ok(seen()));
    ideal.run();
    assert!(of_disk(&ideal).is_some());
}

#[test]
fn a_cluster_that_goes_gives_it_back() {
    let mut ideal = with_disk();
    attach(&mut ideal, "h1", 0);
    ideal.run();
    ideal.desired.deleting = true;
    ideal.run();
    assert!(ideal.forgotten && of_disk(&ideal).is_none());
    assert_eq!(ideal.disks.keys().collect::<Vec<_>>(), ["d0"]);
}

#[test]
fn a_service_that_was_started_again_goes_on_with_disks() {
    for passes in 0..10 {
        let mut ideal = with_disk();
        attach(&mut ideal, "h1", 0);
        for _ in 0..passes {
            ideal.pass();
        }
        ideal.seen.volumes_there = None;
        ideal.run();
        assert!(of_disk(&ideal).is_some(), "after {passes}");
    }
}

#[test]
fn the_disk_of_a_claim_that_is_gone_is_had_again_by_its_id() {
    let mut ideal = with_attached(1);
    let cluster = ideal.desired.clone();
    // Its policy was Retain: claim and PersistentVolume are gone, the disk is there.
    let storage_of = storage(&mut ideal);
    storage_of.claims.clear();
    storage_of.volumes.clear();
    storage_of.attachments[0].deleting = true;
    ideal.run();
    assert!(ideal.disks.contains_key(&id("u1")));
    let group = &cluster.spec().node_resource_group;
    let disk = cluster_volumes::handle(&cluster.subscription, group, "pvc-u1");
    storage(&mut ideal).volumes.push(by_hand("again", &disk));
    attach(&mut ideal, "again", 0);
    ideal.run();
    let (machine, _) = node(&ideal, 0);
    assert_eq!(ideal.disks[&id("u1")].attached.as_deref(), Some(machine.as_str()));
    // What a tenant made by hand takes nothing with it.
    storage(&mut ideal).volumes[0].released = true;
    for attachment in &mut storage(&mut ideal).attachments {
        attachment.deleting = true;
    }
    ideal.run();
    assert!(ideal.disks.contains_key(&id("u1")));
}

#[test]
fn a_claim_grows_as_far_as_its_disk_was_made_larger() {
    let mut ideal = with_disk();
    attach(&mut ideal, "h1", 0);
    storage(&mut ideal).claims.push(Claim {
        claim: ClaimRef {
            namespace: "shop".to_owned(),
            name: "data".to_owned(),
            uid: "h1".to_owned(),
        },
        volume: "pvc-h1".to_owned(),
        bytes: 6 * GIB,
        shared: false,
        deleting: false,
        stage: Stage::Bound,
    });
    ideal.run();
    let told = &ideal.seen.api.told["h1"];
    assert!(told.contains("--size-gb 6"), "{told}");
    assert!(ideal.seen.volumes.iter().all(|record| record.bytes != 6 * GIB));
    change_disks(&mut ideal, |disks| {
        disks
            .entry("d0".to_owned())
            .and_modify(|disk| disk.bytes = 8 * GIB);
    });
    ideal.run();
    let volumes = &storage(&mut ideal).volumes;
    let volume = volumes.iter().find(|volume| volume.name == "pvc-h1").unwrap();
    assert_eq!(volume.bytes, 6 * GIB);
}
