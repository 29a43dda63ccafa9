//! Volumes in a world: attached to one machine at a time, and no data is lost without a record.

use std::{collections::BTreeMap, time::Duration};

use base_env::Env;
use fabric_api::{Fabric, FabricError, MachineId, MachineSpec, VolumeId, VolumeSeen, VolumeSpec};
use fabric_sim::{Call, SimOptions, SimWorld};

const MIB: u64 = 1 << 20;

fn volume(id: &str, mib: u64) -> VolumeSpec {
    VolumeSpec {
        id: VolumeId::from(id),
        bytes: mib * MIB,
        source: None,
        shared: false,
        labels: BTreeMap::from([("cluster".to_owned(), "c1".to_owned())]),
    }
}

/// A world with two machines, `a1` and `a2`.
async fn world() -> SimWorld {
    let world = SimWorld::new(Env::simulated(1), SimOptions::default());
    for id in ["a1", "a2"] {
        start(&world, id).await;
    }
    world
}

async fn start(world: &SimWorld, id: &str) {
    let spec = MachineSpec {
        id: MachineId::from(id),
        hostname: format!("host-{id}"),
        image: "1.36.3".into(),
        cpu_millis: 1000,
        memory_mib: 512,
        disk_gib: None,
        nics: Vec::new(),
        seed_files: BTreeMap::new(),
        labels: BTreeMap::new(),
    };
    world.ensure_machine(&spec).await.unwrap();
}

fn holder(world: &SimWorld, id: &VolumeId) -> Option<MachineId> {
    let mut volumes = world.volumes().into_iter();
    volumes.find(|volume| volume.id == *id).unwrap().attached
}

fn failure(result: Result<(), FabricError>) -> String {
    let error = result.unwrap_err();
    assert!(matches!(error, FabricError::Failed { .. }), "{error}");
    error.to_string()
}

#[tokio::test(start_paused = true)]
async fn one_machine_at_a_time_has_a_volume() {
    let world = world().await;
    let (one, two) = (MachineId::from("a1"), MachineId::from("a2"));
    let mut spec = volume("v1", 64);
    let id = spec.id.clone();
    for _ in 0..2 {
        world.ensure_volume(&spec).await.unwrap();
    }
    assert!(matches!(
        world.attach_volume(&VolumeId::from("none"), &one).await,
        Err(FabricError::NotFound(what)) if what == "volume none"
    ));
    for _ in 0..2 {
        world.attach_volume(&id, &one).await.unwrap();
    }
    spec.bytes = 96 * MIB;
    world.ensure_volume(&spec).await.unwrap();
    spec.bytes = 32 * MIB;
    world.ensure_volume(&spec).await.unwrap();
    let expected = VolumeSeen {
        id: id.clone(),
        bytes: 96 * MIB,
        labels: spec.labels,
        attached: Some(one.clone()),
        open: false,
    };
    assert_eq!(world.list().await.unwrap().volumes, [expected]);
    assert!(
        world
            .dump()
            .contains(&format!("volume v1 bytes={} machine=a1\n", 96 * MIB)),
        "{}",
        world.dump()
    );

    assert!(failure(world.attach_volume(&id, &two).await).ends_with("machine a1 has it"));
    // A volume stays attached when its machine stops or is deleted.
    world.stop_machine(&one).await.unwrap();
    assert!(matches!(
        world.attach_volume(&id, &one).await,
        Err(FabricError::NotFound(_))
    ));
    failure(world.attach_volume(&id, &two).await);
    world.delete_machine(&one).await.unwrap();
    failure(world.attach_volume(&id, &two).await);
    assert_eq!(holder(&world, &id), Some(one));
    for _ in 0..2 {
        world.detach_volume(&id).await.unwrap();
    }
    world.attach_volume(&id, &two).await.unwrap();

    // A volume in use stays attached as long as its machine runs.
    assert!(world.use_volume(&id, true));
    let refused = failure(world.detach_volume(&id).await);
    assert!(
        refused.contains("something in machine a2 still uses it"),
        "{refused}"
    );
    assert!(world.crash(&two));
    world.detach_volume(&id).await.unwrap();
    assert!(!world.use_volume(&id, true), "nobody has it");
    start(&world, "a2").await;
    world.attach_volume(&id, &two).await.unwrap();
    world.detach_volume(&id).await.unwrap();

    // Like a reboot of the host.
    world.attach_volume(&id, &two).await.unwrap();
    world.stop_stamp().await.unwrap();
    assert_eq!(holder(&world, &id), None);
    assert_eq!(world.violations(), [""; 0]);
    world.delete_stamp().await.unwrap();
    assert_eq!(world.volumes(), []);
}

#[tokio::test(start_paused = true)]
async fn what_would_lose_data_is_noted() {
    let world = world().await;
    let one = MachineId::from("a1");
    let (spec, empty) = (volume("v1", 64), volume("v2", 64));
    let copy = VolumeSpec {
        source: Some(spec.id.clone()),
        ..volume("v3", 32)
    };
    assert!(matches!(
        world.ensure_volume(&copy).await,
        Err(FabricError::NotFound(what)) if what == "volume v1"
    ));
    assert!(matches!(
        world.ensure_volume(&volume("v4", 0)).await,
        Err(FabricError::Invalid { .. })
    ));
    for spec in [&spec, &empty] {
        world.ensure_volume(spec).await.unwrap();
    }
    world.attach_volume(&spec.id, &one).await.unwrap();
    world.ensure_volume(&copy).await.unwrap();
    let sizes: Vec<u64> = world.volumes().iter().map(|volume| volume.bytes / MIB).collect();
    assert_eq!(sizes, [64, 64, 64], "a copy is as large as its source");

    // A volume without data may be created again.
    for _ in 0..2 {
        world.delete_volume(&empty.id).await.unwrap();
    }
    world.ensure_volume(&empty).await.unwrap();
    assert_eq!(world.violations(), [""; 0]);

    let refused = failure(world.delete_volume(&spec.id).await);
    assert!(refused.ends_with("machine a1 has it"), "{refused}");
    assert_eq!(
        world.violations(),
        ["volume v1 is to be deleted, and machine a1 has it"]
    );
    world.detach_volume(&spec.id).await.unwrap();
    for id in [&spec.id, &copy.id] {
        world.delete_volume(id).await.unwrap();
    }
    for spec in [&spec, &VolumeSpec { source: None, ..copy }] {
        world.ensure_volume(spec).await.unwrap();
    }
    assert_eq!(
        world.violations()[1..],
        [
            "volume v1 is to be made again, and what was on it is deleted",
            "volume v3 is to be made again, and what was on it is deleted"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn calls_fail_and_are_cut_short_as_others_are() {
    let env = Env::simulated(1);
    let world = SimWorld::new(env.clone(), SimOptions::default());
    start(&world, "a1").await;
    let (spec, one) = (volume("v1", 64), MachineId::from("a1"));
    // After an interruption it exists partially, and cannot be attached.
    let cut = env
        .clock
        .timeout(Duration::from_millis(10), world.ensure_volume(&spec))
        .await;
    assert!(cut.is_err());
    assert_eq!(world.volumes()[0].bytes, 0);
    assert!(matches!(
        world.attach_volume(&spec.id, &one).await,
        Err(FabricError::NotFound(_))
    ));
    world.fail_next(Call::EnsureVolume, 1);
    failure(world.ensure_volume(&spec).await);
    assert_eq!(world.volumes()[0].bytes, 0);
    world.ensure_volume(&spec).await.unwrap();

    world.fail_next(Call::AttachVolume, 1);
    failure(world.attach_volume(&spec.id, &one).await);
    assert_eq!(holder(&world, &spec.id), None);
    world.lose_answer(Call::AttachVolume, 1);
    failure(world.attach_volume(&spec.id, &one).await);
    assert_eq!(holder(&world, &spec.id), Some(one));
    world.lose_answer(Call::DetachVolume, 1);
    failure(world.detach_volume(&spec.id).await);
    assert_eq!(holder(&world, &spec.id), None);
    world.lose_answer(Call::DeleteVolume, 1);
    failure(world.delete_volume(&spec.id).await);
    assert_eq!(world.volumes(), []);
    world.delete_volume(&spec.id).await.unwrap();
    assert_eq!(world.tally(Call::DeleteVolume).calls, 2);
    assert_eq!(world.tally(Call::AttachVolume).failed, 2);
}

#[tokio::test(start_paused = true)]
async fn a_share_is_everybodys_until_the_host_stops() {
    let world = world().await;
    let share = VolumeSpec {
        shared: true,
        ..volume("s1", 64)
    };
    for _ in 0..2 {
        world.ensure_volume(&share).await.unwrap();
        let seen = &world.list().await.unwrap().volumes[0];
        assert!(seen.open && seen.attached.is_none());
        world.stop_stamp().await.unwrap();
        assert!(!world.list().await.unwrap().volumes[0].open);
    }
    world.delete_volume(&share.id).await.unwrap();
    assert!(world.list().await.unwrap().volumes.is_empty());
}
