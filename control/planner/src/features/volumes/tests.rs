//! Volumes: from a claim to a disk that a node has, and back.

use cluster_api::{ClaimRef, VolumeWish};
use cluster_spec::Tier;
use cluster_volumes::{Attachment, Claim, Recipe, Stage, Storage, Volume};
use control_records::volume::VolumeRecord;

use super::{healing::standing, *};

pub(super) const GIB: u64 = 1 << 30;

fn recipe() -> Recipe {
    Recipe {
        class: "default".to_owned(),
        sku: "StandardSSD_LRS".to_owned(),
        deletes: true,
        access_modes: vec!["ReadWriteOnce".to_owned()],
        block: false,
        fs_type: "ext4".to_owned(),
        mount_options: Vec::new(),
        source: None,
    }
}

/// A claim as a tenant makes it, with a pod that uses it.
pub(super) fn claim(uid: &str, change: impl FnOnce(&mut Recipe)) -> Claim {
    let mut recipe = recipe();
    change(&mut recipe);
    Claim {
        claim: ClaimRef {
            namespace: "shop".to_owned(),
            name: format!("data-{uid}"),
            uid: uid.to_owned(),
        },
        volume: format!("pvc-{uid}"),
        bytes: GIB,
        shared: false,
        deleting: false,
        stage: Stage::Wanted(Box::new(recipe)),
    }
}

pub(super) fn id(uid: &str) -> String {
    cluster_volumes::id("0123456789", &format!("pvc-{uid}"))
}

fn cluster_of(nodes: u32) -> Ideal {
    let mut ideal = standing(Tier::Free, vec![pool("a", nodes)]);
    ideal.seen.api.storage = Some(Storage::default());
    ideal.run();
    ideal
}

/// A cluster with a claim, `u1`, that has its volume.
pub(super) fn with_volume(nodes: u32) -> Ideal {
    let mut ideal = cluster_of(nodes);
    storage(&mut ideal).claims.push(claim("u1", |_| {}));
    ideal.run();
    ideal
}

/// The same, and node `0` of the cluster has it.
pub(super) fn with_attached(nodes: u32) -> Ideal {
    let mut ideal = with_volume(nodes);
    attach(&mut ideal, "u1", 0);
    ideal.run();
    let machine = node(&ideal, 0).0;
    assert_eq!(has(&ideal, "u1"), Some(machine.as_str()));
    ideal
}

pub(super) fn storage(ideal: &mut Ideal) -> &mut Storage {
    ideal.seen.api.storage.as_mut().unwrap()
}

pub(super) fn persistent(ideal: &mut Ideal) -> &mut Volume {
    &mut storage(ideal).volumes[0]
}

/// A node's machine and its name, by its number.
pub(super) fn node(ideal: &Ideal, number: usize) -> (String, String) {
    let nodes = ideal.seen.machines.iter();
    let named = nodes.filter_map(|(id, machine)| Some((machine.node_name()?.to_owned(), id.clone())));
    let named: BTreeMap<String, String> = named.collect();
    let (name, id) = named.into_iter().nth(number).unwrap();
    (id, name)
}

/// A pod that uses the volume was given this node.
pub(super) fn attach(ideal: &mut Ideal, uid: &str, number: usize) {
    let node = node(ideal, number).1;
    attach_to(ideal, uid, &node);
}

pub(super) fn attach_to(ideal: &mut Ideal, uid: &str, node: &str) {
    let name = format!("csi-{uid}-{node}");
    storage(ideal).attachments.push(Attachment {
        uid: name.clone(),
        name,
        volume: format!("pvc-{uid}"),
        node: node.to_owned(),
        attached: false,
        failure: None,
        held: false,
        deleting: false,
    });
}

/// The machine that has a volume.
pub(super) fn has<'i>(ideal: &'i Ideal, uid: &str) -> Option<&'i str> {
    ideal.disks[&id(uid)].attached.as_deref()
}

/// The fabric is not as it was, and was looked at.
pub(super) fn change_disks(ideal: &mut Ideal, change: impl FnOnce(&mut BTreeMap<String, VolumeThere>)) {
    change(&mut ideal.disks);
    ideal.seen.volumes_there = Some(ideal.disks.clone());
}

/// What is planned to be done to volumes.
pub(super) fn effects(ideal: &Ideal) -> Vec<FabricEffect> {
    let effects = ideal.plan().effects.into_iter();
    let of_volumes = |effect: &FabricEffect| matches!(effect.subject(), Subject::Volume(_));
    effects
        .filter_map(|effect| match effect {
            Effect::Fabric(effect) if of_volumes(&effect) => Some(effect),
            _ => None,
        })
        .collect()
}

/// What is planned to be written to objects.
pub(super) fn wishes(ideal: &Ideal) -> Vec<VolumeWish> {
    let effects = ideal.plan().effects.into_iter();
    effects
        .filter_map(|effect| match effect {
            Effect::Api(ApiEffect::SetVolume(wish)) => Some(wish),
            _ => None,
        })
        .collect()
}

fn looks(ideal: &Ideal) -> bool {
    ideal.plan().effects.contains(&Effect::Fabric(FabricEffect::Look))
}

#[test]
fn a_claim_gets_a_volume_a_step_at_a_time() {
    let mut ideal = cluster_of(1);
    storage(&mut ideal).claims.push(claim("u1", |_| {}));
    let plan = ideal.plan();
    assert!(
        matches!(&plan.writes[..], [Write::RecordVolume(new)] if new.id == id("u1") && new.bytes == GIB),
        "{plan:?}"
    );
    assert!(plan.observed.volumes && effects(&ideal).is_empty());
    ideal.pass();
    assert!(
        looks(&ideal) && effects(&ideal).is_empty(),
        "it may be there already"
    );
    ideal.pass();
    assert_eq!(
        effects(&ideal),
        [FabricEffect::EnsureVolume {
            volume: id("u1"),
            bytes: GIB,
            source: None,
            shared: false,
        }]
    );
    assert!(wishes(&ideal).is_empty(), "not before it is there");
    ideal.pass();
    assert!(
        matches!(&wishes(&ideal)[..], [VolumeWish::Publish { name, .. }] if name == "pvc-u1"),
        "{:?}",
        ideal.plan()
    );
    ideal.pass();
    assert_eq!(ideal.plan().writes, [Write::VolumePublished(id("u1"))]);
    ideal.run();
    let record = &ideal.seen.volumes[0];
    assert!(record.published && record.object.is_empty() && ideal.seen.observed.volumes);
    assert_eq!(
        (record.claim_namespace.as_str(), record.claim_name.as_str()),
        ("shop", "data-u1")
    );
    let volume = persistent(&mut ideal).clone();
    assert_eq!((volume.id, volume.bytes), (Some(id("u1")), GIB));
    assert_eq!(volume.claim.as_deref(), Some("u1"));
    assert!(volume.deletes && !volume.released);
    assert!(ideal.plan().settled() && ideal.plan().effects.is_empty());
}

#[test]
fn what_was_published_is_not_published_again_before_the_next_look() {
    let mut ideal = cluster_of(1);
    storage(&mut ideal).claims.push(claim("u1", |_| {}));
    for _ in 0..3 {
        ideal.pass();
    }
    assert_eq!(wishes(&ideal).len(), 1);
    ideal.seen.api.published.insert("pvc-u1".to_owned());
    assert!(wishes(&ideal).is_empty() && ideal.plan().settled());
}

#[test]
fn a_service_that_was_started_again_goes_on_where_it_was() {
    for passes in 0..12 {
        let mut ideal = cluster_of(1);
        storage(&mut ideal).claims.push(claim("u1", |_| {}));
        attach(&mut ideal, "u1", 0);
        for _ in 0..passes {
            ideal.pass();
        }
        ideal.seen.volumes_there = None;
        ideal.run();
        let machine = node(&ideal, 0).0;
        assert_eq!(has(&ideal, "u1"), Some(machine.as_str()), "after {passes}");
        assert!(storage(&mut ideal).attachments[0].attached, "after {passes}");
        // And back.
        storage(&mut ideal).attachments[0].deleting = true;
        storage(&mut ideal).claims.clear();
        persistent(&mut ideal).released = true;
        for _ in 0..passes {
            ideal.pass();
        }
        ideal.seen.volumes_there = None;
        ideal.run();
        assert!(
            ideal.disks.is_empty() && ideal.seen.volumes.is_empty(),
            "after {passes}"
        );
    }
}

#[test]
fn what_is_released_goes_with_everything_on_it() {
    let mut ideal = with_attached(1);
    storage(&mut ideal).claims.clear();
    persistent(&mut ideal).released = true;
    assert!(
        ideal.plan().writes.is_empty() && effects(&ideal).is_empty(),
        "a node has it"
    );
    storage(&mut ideal).attachments[0].deleting = true;
    ideal.pass();
    ideal.pass();
    assert_eq!(ideal.plan().writes, [Write::MarkVolume(id("u1"))]);
    assert!(effects(&ideal).is_empty(), "written down first");
    ideal.pass();
    assert_eq!(effects(&ideal), [FabricEffect::DeleteVolume(id("u1"))]);
    assert!(wishes(&ideal).is_empty());
    ideal.pass();
    assert!(matches!(&wishes(&ideal)[..], [VolumeWish::Remove { .. }]));
    ideal.pass();
    assert_eq!(ideal.plan().writes, [Write::ForgetVolume(id("u1"))]);
    ideal.run();
    assert!(!ideal.seen.observed.volumes && ideal.plan().settled());
}

#[test]
fn a_persistent_volume_that_is_deleted_waits_for_its_claim() {
    let mut ideal = with_volume(1);
    persistent(&mut ideal).deleting = true;
    assert!(ideal.plan().settled(), "it is in use");
    storage(&mut ideal).claims.clear();
    ideal.run();
    assert!(ideal.disks.is_empty() && ideal.seen.volumes.is_empty());
}

#[test]
fn a_claim_that_goes_before_its_volume_is_published_leaves_nothing() {
    let mut ideal = cluster_of(1);
    storage(&mut ideal).claims.push(claim("u1", |_| {}));
    ideal.pass();
    storage(&mut ideal).claims.clear();
    ideal.run();
    assert!(ideal.disks.is_empty() && ideal.seen.volumes.is_empty());
    assert!(storage(&mut ideal).volumes.is_empty() && !ideal.seen.observed.volumes);
}

#[test]
fn what_is_to_be_retained_stays_without_its_persistent_volume() {
    let mut ideal = cluster_of(1);
    let retained = claim("u1", |recipe| recipe.deletes = false);
    storage(&mut ideal).claims.push(retained);
    ideal.run();
    storage(&mut ideal).claims.clear();
    persistent(&mut ideal).released = true;
    assert!(ideal.plan().settled());
    persistent(&mut ideal).deleting = true;
    assert!(matches!(&wishes(&ideal)[..], [VolumeWish::Remove { .. }]));
    ideal.run();
    assert!(storage(&mut ideal).volumes.is_empty());
    assert!(ideal.disks.contains_key(&id("u1")) && ideal.seen.volumes.len() == 1);
    assert!(ideal.plan().settled() && ideal.seen.observed.problem.is_none());
    // A person may name it again, as they like.
    storage(&mut ideal).volumes.push(Volume {
        name: "mine".to_owned(),
        uid: "mine".to_owned(),
        id: Some(id("u1")),
        disk: None,
        bytes: GIB,
        shared: false,
        claim: Some("u2".to_owned()),
        released: false,
        deletes: false,
        deleting: false,
    });
    attach(&mut ideal, "u1", 0);
    storage(&mut ideal).attachments[0].volume = "mine".to_owned();
    ideal.run();
    let machine = node(&ideal, 0).0;
    assert_eq!(has(&ideal, "u1"), Some(machine.as_str()));
}

#[test]
fn a_volume_grows_while_a_node_has_it() {
    let mut ideal = with_attached(1);
    storage(&mut ideal).claims[0].bytes = 3 * GIB;
    let grow = Write::GrowVolume {
        volume: id("u1"),
        bytes: 3 * GIB,
    };
    assert_eq!(ideal.plan().writes, [grow]);
    ideal.pass();
    assert!(
        matches!(&effects(&ideal)[..], [FabricEffect::EnsureVolume { bytes, .. }] if *bytes == 3 * GIB),
        "{:?}",
        ideal.plan()
    );
    assert!(wishes(&ideal).is_empty());
    ideal.pass();
    assert!(
        matches!(&wishes(&ideal)[..], [VolumeWish::Grown { bytes, claim: Some(claim), .. }]
            if *bytes == 3 * GIB && claim.uid == "u1"),
        "{:?}",
        ideal.plan()
    );
    ideal.run();
    assert_eq!(persistent(&mut ideal).bytes, 3 * GIB);
    // None ever shrinks.
    storage(&mut ideal).claims[0].bytes = GIB;
    assert!(ideal.plan().settled());
    storage(&mut ideal).claims[0].stage = Stage::Refused("it is too much".to_owned());
    assert!(
        matches!(&wishes(&ideal)[..], [VolumeWish::Tell { note, .. }] if note.reason == "VolumeResizeFailed"),
        "{:?}",
        ideal.plan()
    );
}

#[test]
fn what_is_refused_is_told_once() {
    let mut ideal = cluster_of(1);
    let mut refused = claim("u1", |_| {});
    refused.stage = Stage::Refused("spec.accessModes: no".to_owned());
    storage(&mut ideal).claims.push(refused);
    let told = wishes(&ideal);
    assert!(
        matches!(&told[..], [VolumeWish::Tell { claim, note }]
            if claim.uid == "u1" && note.warning && note.reason == "ProvisioningFailed"
                && note.message == "spec.accessModes: no"),
        "{told:?}"
    );
    ideal.run();
    assert!(wishes(&ideal).is_empty() && ideal.plan().settled());
    storage(&mut ideal).claims[0].stage = Stage::Refused("spec.volumeMode: no".to_owned());
    assert_eq!(wishes(&ideal).len(), 1, "it is another one");
    storage(&mut ideal).claims[0].stage = Stage::Waiting;
    assert!(ideal.plan().settled());
}

#[test]
fn there_are_not_more_volumes_than_a_cluster_may_have() {
    let mut ideal = with_volume(1);
    let own = ideal.seen.volumes[0].clone();
    for number in 1..500 {
        let id = format!("x{number:04}");
        let other = VolumeRecord {
            name: format!("pvc-{id}"),
            id: id.clone(),
            ..VolumeRecord::clone(&own)
        };
        ideal.seen.volumes.push(Arc::new(other));
        change_disks(&mut ideal, |disks| {
            disks.insert(
                id,
                VolumeThere {
                    bytes: GIB,
                    attached: None,
                    open: false,
                },
            );
        });
    }
    storage(&mut ideal).claims.push(claim("u2", |_| {}));
    assert!(ideal.plan().writes.is_empty());
    ideal.run();
    let told = &ideal.seen.api.told["u2"];
    assert!(told.contains("500 volumes"), "{told}");
}

#[test]
fn a_volume_begins_as_a_copy_of_one_that_stays_until_it_is_copied() {
    let mut ideal = with_volume(1);
    let copy = claim("u2", |recipe| recipe.source = Some("pvc-u1".to_owned()));
    storage(&mut ideal).claims.push(copy);
    ideal.pass();
    // What it is a copy of is given up at the same time.
    storage(&mut ideal).claims.retain(|claim| claim.claim.uid == "u2");
    persistent(&mut ideal).released = true;
    assert_eq!(
        effects(&ideal),
        [FabricEffect::EnsureVolume {
            volume: id("u2"),
            bytes: GIB,
            source: Some(id("u1")),
            shared: false,
        }]
    );
    assert!(ideal.plan().writes.is_empty(), "it is still to be read");
    ideal.run();
    assert_eq!(ideal.disks.keys().collect::<Vec<_>>(), [&id("u2")]);
}

#[test]
fn what_cannot_be_copied_is_refused() {
    let mut ideal = with_volume(1);
    let copy = |uid: &str, of: &str| claim(uid, |recipe| recipe.source = Some(of.to_owned()));
    storage(&mut ideal).claims.push(copy("u2", "pvc-other"));
    let mut small = copy("u3", "pvc-u1");
    small.bytes = GIB / 2;
    storage(&mut ideal).claims.push(small);
    ideal.run();
    assert_eq!(ideal.seen.volumes.len(), 1);
    let told = |uid: &str| ideal.seen.api.told[uid].as_str();
    assert!(told("u2").contains("not there any more"), "{}", told("u2"));
    assert!(told("u3").contains("1 GiB"), "{}", told("u3"));
}

#[test]
fn one_that_is_lost_is_told_of_and_not_made_anew() {
    let mut ideal = with_attached(1);
    change_disks(&mut ideal, BTreeMap::clear);
    assert!(effects(&ideal).is_empty());
    ideal.told.clear();
    ideal.run();
    assert!(ideal.disks.is_empty());
    let told = |ideal: &Ideal, kind: EventKind| {
        let told = ideal.told.iter().filter(|(_, event)| event.kind == kind);
        told.count()
    };
    assert_eq!(told(&ideal, EventKind::ProblemBegan), 1);
    let problem = ideal.seen.observed.problem.clone().unwrap();
    assert!(
        problem.contains("pvc-u1") && problem.contains("shop/data-u1"),
        "{problem}"
    );
    // After a restart of the service it is known all the same, and not told again.
    ideal.seen.volumes_there = None;
    ideal.run();
    assert_eq!(told(&ideal, EventKind::ProblemBegan), 1);
    assert_eq!(ideal.seen.observed.problem, Some(problem));
    // It goes as any other.
    storage(&mut ideal).claims.clear();
    storage(&mut ideal).attachments[0].deleting = true;
    persistent(&mut ideal).released = true;
    ideal.run();
    assert!(ideal.seen.volumes.is_empty() && storage(&mut ideal).volumes.is_empty());
    assert_eq!(told(&ideal, EventKind::ProblemEnded), 1);
    assert_eq!(ideal.seen.observed.problem, None);
}

#[test]
fn objects_of_volumes_that_are_not_the_clusters_are_let_go() {
    let mut ideal = cluster_of(1);
    change_disks(&mut ideal, |_| {});
    storage(&mut ideal).volumes.push(Volume {
        name: "pvc-other".to_owned(),
        uid: "v".to_owned(),
        id: Some("other".to_owned()),
        disk: None,
        bytes: GIB,
        shared: false,
        claim: Some("u9".to_owned()),
        released: false,
        deletes: true,
        deleting: false,
    });
    attach_to(&mut ideal, "other", "aks-of-before");
    let attachment = &mut storage(&mut ideal).attachments[0];
    (attachment.held, attachment.attached) = (true, true);
    assert!(ideal.plan().settled(), "nobody gives them up");
    persistent(&mut ideal).released = true;
    assert!(ideal.plan().settled(), "it is attached");
    storage(&mut ideal).attachments[0].deleting = true;
    assert!(matches!(&wishes(&ideal)[..], [VolumeWish::Detached { .. }]));
    ideal.run();
    assert_eq!(*storage(&mut ideal), Storage::default());
}

#[test]
fn nothing_is_done_while_nobody_answers_or_the_driver_is_off() {
    let mut ideal = with_volume(1);
    storage(&mut ideal).claims.push(claim("u2", |_| {}));
    attach(&mut ideal, "u1", 0);
    let idle = |ideal: &Ideal| {
        let plan = ideal.plan();
        plan.writes.is_empty() && effects(ideal).is_empty() && wishes(ideal).is_empty()
    };
    assert!(!idle(&ideal));
    let mut away = ideal.seen.clone();
    away.api.reach = Reach::Away;
    std::mem::swap(&mut away, &mut ideal.seen);
    assert!(idle(&ideal) && ideal.plan().observed.volumes);
    std::mem::swap(&mut away, &mut ideal.seen);
    ideal.desired.change_spec(|spec| spec.disks_off = true);
    assert!(idle(&ideal) && ideal.plan().observed.volumes);
    ideal.desired.change_spec(|spec| spec.disks_off = false);
    ideal.seen.volumes_there = None;
    assert!(
        looks(&ideal) && effects(&ideal).is_empty() && wishes(&ideal).is_empty(),
        "who has what is not known"
    );
}
