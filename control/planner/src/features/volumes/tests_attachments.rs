//! Volumes: which node has them, and what the cluster is told of it.

use cluster_api::VolumeWish;

use super::{
    volumes::{
        GIB, attach, attach_to, change_disks, effects, has, id, node, storage, wishes, with_attached,
        with_volume,
    },
    *,
};

fn detach() -> Vec<FabricEffect> {
    vec![FabricEffect::DetachVolume(id("u1"))]
}

fn attach_it(machine: &str) -> Vec<FabricEffect> {
    vec![FabricEffect::AttachVolume {
        volume: id("u1"),
        machine: machine.to_owned(),
    }]
}

fn of_attachment(node: &str) -> (String, String) {
    let name = format!("csi-u1-{node}");
    (name.clone(), name)
}

fn detached(node: &str) -> Vec<VolumeWish> {
    let (name, uid) = of_attachment(node);
    vec![VolumeWish::Detached { name, uid }]
}

#[test]
fn a_node_gets_a_volume_a_step_at_a_time_and_loses_it_so() {
    let mut ideal = with_volume(1);
    let (machine, name) = node(&ideal, 0);
    attach(&mut ideal, "u1", 0);
    assert!(effects(&ideal).is_empty(), "nothing keeps the object yet");
    let (object, uid) = of_attachment(&name);
    assert_eq!(wishes(&ideal), [VolumeWish::Hold { name: object, uid }]);
    ideal.pass();
    assert_eq!(effects(&ideal), attach_it(&machine));
    assert!(wishes(&ideal).is_empty(), "not before it has it");
    ideal.pass();
    let (object, uid) = of_attachment(&name);
    assert_eq!(
        wishes(&ideal),
        [VolumeWish::Attached {
            name: object,
            uid,
            volume: id("u1"),
        }]
    );
    ideal.run();
    assert!(effects(&ideal).is_empty() && wishes(&ideal).is_empty());
    storage(&mut ideal).attachments[0].deleting = true;
    assert_eq!(effects(&ideal), detach());
    assert!(wishes(&ideal).is_empty(), "not before it has lost it");
    ideal.seen.busy.insert(Subject::Volume(id("u1")));
    assert!(effects(&ideal).is_empty());
    ideal.seen.busy.clear();
    ideal.pass();
    assert_eq!(wishes(&ideal), detached(&name));
    ideal.run();
    assert!(storage(&mut ideal).attachments.is_empty());
}

#[test]
fn who_is_about_to_get_a_volume_is_not_said_to_have_lost_it() {
    let mut ideal = with_volume(1);
    attach(&mut ideal, "u1", 0);
    ideal.pass();
    storage(&mut ideal).attachments[0].deleting = true;
    ideal.seen.busy.insert(Subject::Volume(id("u1")));
    assert!(wishes(&ideal).is_empty(), "it is under way");
    ideal.seen.busy.clear();
    let name = node(&ideal, 0).1;
    assert_eq!(wishes(&ideal), detached(&name));
}

#[test]
fn a_volume_goes_from_node_to_node_and_waits_for_the_one_that_has_it() {
    let mut ideal = with_attached(2);
    let (first, second) = (node(&ideal, 0), node(&ideal, 1));
    attach(&mut ideal, "u1", 1);
    ideal.run();
    assert_eq!(has(&ideal, "u1"), Some(first.0.as_str()), "it is in use");
    assert!(effects(&ideal).is_empty() && ideal.plan().settled());
    storage(&mut ideal).attachments[0].deleting = true;
    assert_eq!(effects(&ideal), detach());
    ideal.run();
    assert_eq!(has(&ideal, "u1"), Some(second.0.as_str()));
    let attachments = &storage(&mut ideal).attachments;
    assert_eq!(attachments.len(), 1);
    assert!(attachments[0].attached && attachments[0].node == second.1);
}

#[test]
fn what_nobody_says_to_have_any_more_is_taken_for_somebody_else() {
    let mut ideal = with_attached(2);
    let second = node(&ideal, 1).0;
    // Somebody has removed the object by force.
    storage(&mut ideal).attachments.clear();
    assert!(effects(&ideal).is_empty(), "nobody asks for it");
    attach(&mut ideal, "u1", 1);
    assert_eq!(effects(&ideal), detach());
    ideal.run();
    assert_eq!(has(&ideal, "u1"), Some(second.as_str()));
}

#[test]
fn a_machine_that_is_no_more_loses_what_it_had() {
    let mut ideal = with_attached(1);
    let machine = node(&ideal, 0).0;
    change_disks(&mut ideal, |disks| {
        disks.get_mut(&id("u1")).unwrap().attached = Some("gone".to_owned());
    });
    assert_eq!(effects(&ideal), detach());
    ideal.run();
    assert_eq!(has(&ideal, "u1"), Some(machine.as_str()));
}

#[test]
fn machines_get_their_volumes_again_after_the_host_was_started_again() {
    let mut ideal = with_attached(1);
    let machine = node(&ideal, 0).0;
    change_disks(&mut ideal, |disks| {
        disks.get_mut(&id("u1")).unwrap().attached = None;
    });
    assert_eq!(effects(&ideal), attach_it(&machine));
    assert!(wishes(&ideal).is_empty());
    ideal.seen.machines.get_mut(&machine).unwrap().presence = Presence::Stopped;
    assert!(effects(&ideal).is_empty(), "it has to run");
}

#[test]
fn the_cluster_is_told_of_nodes_that_are_gone() {
    let mut ideal = with_volume(1);
    attach_to(&mut ideal, "u1", "aks-gone-1");
    let attachment = &mut storage(&mut ideal).attachments[0];
    (attachment.held, attachment.attached) = (true, true);
    change_disks(&mut ideal, |disks| {
        disks.get_mut(&id("u1")).unwrap().attached = Some("gone".to_owned());
    });
    let (name, uid) = of_attachment("aks-gone-1");
    assert_eq!(wishes(&ideal), [VolumeWish::Withdraw { name, uid }]);
    ideal.run();
    assert_eq!(has(&ideal, "u1"), None);
    assert!(storage(&mut ideal).attachments.is_empty());
    // One whose object is still there may come back.
    attach_to(&mut ideal, "u1", "other-1");
    ideal.seen.api.nodes.push(NodeSeen {
        name: "other-1".to_owned(),
        ..NodeSeen::default()
    });
    assert!(wishes(&ideal).is_empty());
}

#[test]
fn a_node_that_leaves_has_lost_its_volumes_before() {
    // Whether the pods' volumes are unmounted in time, or never.
    for unmounted in [true, false] {
        let mut ideal = with_volume(2);
        let (machine, name) = node(&ideal, 1);
        attach(&mut ideal, "u1", 1);
        ideal.run();
        ideal.desired.change_spec(|spec| spec.pools[0].count = 1);
        ideal.desired.generation += 1;
        let waits = |ideal: &Ideal| {
            let plan = ideal.plan();
            plan.waits.iter().any(|wait| wait.contains("to be detached"))
        };
        let deletes = |ideal: &Ideal| {
            let node = Effect::Api(ApiEffect::DeleteNode(name.clone()));
            ideal.plan().effects.contains(&node)
        };
        for _ in 0..20 {
            if waits(&ideal) {
                break;
            }
            assert!(!deletes(&ideal), "{:?}", ideal.plan());
            ideal.pass();
        }
        assert!(waits(&ideal), "{:?}", ideal.plan());
        assert!(!deletes(&ideal));
        if unmounted {
            let attachments = &mut storage(&mut ideal).attachments;
            attachments[0].deleting = true;
            let before = ideal.now;
            while !deletes(&ideal) {
                assert!(ideal.pass());
            }
            assert!(after(before, ideal.policy.drain_bound) > ideal.now, "at once");
            assert_eq!(has(&ideal, "u1"), None);
        }
        ideal.run();
        assert!(!ideal.seen.machines.contains_key(&machine));
        assert!(storage(&mut ideal).attachments.is_empty(), "it is withdrawn");
        assert_eq!(has(&ideal, "u1"), None);
    }
}

#[test]
fn a_volume_that_cannot_grow_is_given_to_nodes_all_the_same() {
    let mut ideal = with_volume(1);
    storage(&mut ideal).claims[0].bytes = 3 * GIB;
    attach(&mut ideal, "u1", 0);
    ideal.pass();
    let machine = node(&ideal, 0).0;
    assert_eq!(effects(&ideal), attach_it(&machine));
}

#[test]
fn a_volume_that_is_there_in_part_is_made_whole_first() {
    let mut ideal = with_volume(1);
    change_disks(&mut ideal, |disks| disks.get_mut(&id("u1")).unwrap().bytes = 0);
    attach(&mut ideal, "u1", 0);
    storage(&mut ideal).attachments[0].held = true;
    assert!(
        matches!(&effects(&ideal)[..], [FabricEffect::EnsureVolume { .. }]),
        "{:?}",
        ideal.plan()
    );
    storage(&mut ideal).volumes.clear();
    ideal.seen.volumes.iter_mut().for_each(|record| {
        let record = Arc::make_mut(record);
        (record.published, record.object) = (false, "{}".to_owned());
    });
    assert!(wishes(&ideal).is_empty(), "nobody is told of it before");
}
