//! Shares: volumes that all nodes find, and that are never attached.

use cluster_api::{ClaimRef, VolumeWish};
use cluster_volumes::{Claim, Recipe, Snapshot, SnapshotRecipe, SnapshotStage, Stage, id};

use super::{
    volumes::{GIB, change_disks, effects, storage, wishes, with_attached},
    *,
};

fn claim(uid: &str) -> Claim {
    Claim {
        claim: ClaimRef {
            namespace: "shop".to_owned(),
            name: format!("files-{uid}"),
            uid: uid.to_owned(),
        },
        volume: format!("pvc-{uid}"),
        bytes: GIB,
        shared: true,
        deleting: false,
        stage: Stage::Wanted(Box::new(Recipe {
            class: "azurefile-csi".to_owned(),
            sku: "Standard_LRS".to_owned(),
            deletes: true,
            access_modes: vec!["ReadWriteMany".to_owned()],
            block: false,
            fs_type: "ext4".to_owned(),
            mount_options: Vec::new(),
            source: None,
        })),
    }
}

fn id_of(uid: &str) -> String {
    id("0123456789", &format!("pvc-{uid}"))
}

/// A cluster with an attached disk, and a share, `f1`.
fn with_share() -> Ideal {
    let mut ideal = with_attached(2);
    storage(&mut ideal).claims.push(claim("f1"));
    ideal.run();
    assert!(ideal.disks[&id_of("f1")].open);
    ideal
}

#[test]
fn a_share_is_made_and_published_and_given_to_nobody() {
    let mut ideal = with_attached(2);
    storage(&mut ideal).claims.push(claim("f1"));
    ideal.pass();
    let ensure = |bytes: u64| FabricEffect::EnsureVolume {
        volume: id_of("f1"),
        bytes,
        source: None,
        shared: true,
    };
    assert_eq!(effects(&ideal), [ensure(GIB)]);
    ideal.run();
    let volumes = &storage(&mut ideal).volumes;
    let share = volumes.iter().find(|volume| volume.shared).unwrap();
    assert_eq!(share.id, Some(id_of("f1")));
    assert!(ideal.plan().settled() && effects(&ideal).is_empty());

    let claims = &mut storage(&mut ideal).claims;
    claims.iter_mut().find(|claim| claim.shared).unwrap().bytes = 2 * GIB;
    ideal.pass();
    assert_eq!(effects(&ideal), [ensure(2 * GIB)]);
    ideal.run();
    assert_eq!(ideal.disks[&id_of("f1")].bytes, 2 * GIB);
}

#[test]
fn a_share_that_no_machine_finds_any_more_is_opened_again() {
    let mut ideal = with_share();
    change_disks(&mut ideal, |disks| {
        disks.values_mut().for_each(|disk| disk.open = false)
    });
    assert!(
        matches!(&effects(&ideal)[..], [FabricEffect::EnsureVolume { volume, .. }] if *volume == id_of("f1")),
        "{:?}",
        effects(&ideal)
    );
    ideal.run();
    assert!(ideal.disks[&id_of("f1")].open);
}

#[test]
fn a_share_goes_with_its_claim() {
    let mut ideal = with_share();
    storage(&mut ideal).claims.retain(|claim| !claim.shared);
    let volumes = &mut storage(&mut ideal).volumes;
    volumes.iter_mut().find(|volume| volume.shared).unwrap().released = true;
    ideal.run();
    assert!(!ideal.disks.contains_key(&id_of("f1")) && ideal.disks.len() == 1);
    assert!(storage(&mut ideal).volumes.iter().all(|volume| !volume.shared));
}

#[test]
fn a_snapshot_of_a_share_is_no_share_and_begins_one() {
    let mut ideal = with_share();
    storage(&mut ideal).snapshots.push(Snapshot {
        snapshot: ClaimRef {
            namespace: "shop".to_owned(),
            name: "before".to_owned(),
            uid: "s1".to_owned(),
        },
        content: "snapcontent-s1".to_owned(),
        ready: false,
        deleting: false,
        stage: SnapshotStage::Wanted(Box::new(SnapshotRecipe {
            class: "csi-azurefile-vsc".to_owned(),
            deletes: true,
            volume: "pvc-f1".to_owned(),
            handle: "h".to_owned(),
            block: false,
            shared: true,
        })),
    });
    ideal.pass();
    let copy = id("0123456789", "snapcontent-s1");
    // No node finds it: nobody may write to it.
    assert_eq!(
        effects(&ideal),
        [FabricEffect::EnsureVolume {
            volume: copy.clone(),
            bytes: GIB,
            source: Some(id_of("f1")),
            shared: false,
        }]
    );
    ideal.pass();
    let published = wishes(&ideal);
    let [VolumeWish::PublishContent { object, .. }] = &published[..] else {
        panic!("{published:?}")
    };
    assert!(
        object.contains("#landfall#snapshot-s1") && object.contains("file.csi.azure.com"),
        "{object}"
    );
    ideal.run();
    assert!(storage(&mut ideal).snapshots[0].ready && !ideal.disks[&copy].open);

    let mut again = claim("f2");
    if let Stage::Wanted(recipe) = &mut again.stage {
        recipe.source = Some("snapcontent-s1".to_owned());
    }
    storage(&mut ideal).claims.push(again);
    ideal.pass();
    assert_eq!(
        effects(&ideal),
        [FabricEffect::EnsureVolume {
            volume: id_of("f2"),
            bytes: GIB,
            source: Some(copy),
            shared: true,
        }]
    );
    ideal.run();
    assert!(ideal.disks[&id_of("f2")].open);
}

#[test]
fn each_driver_is_switched_off_alone() {
    let mut ideal = with_attached(2);
    storage(&mut ideal).claims.push(claim("f1"));
    ideal.desired.change_spec(|spec| spec.files_off = true);
    assert!(ideal.plan().writes.is_empty() && effects(&ideal).is_empty());
    ideal.desired.change_spec(|spec| {
        spec.files_off = false;
        spec.disks_off = true;
    });
    storage(&mut ideal).attachments[0].deleting = true;
    assert!(matches!(&ideal.plan().writes[..], [Write::RecordVolume(new)] if new.shared));
    assert!(effects(&ideal).is_empty(), "the disk stays where it is");
    assert!(
        !wishes(&ideal)
            .iter()
            .any(|wish| matches!(wish, VolumeWish::Detached { .. }))
    );
}
