//! Volumes: attachment and content; no data is lost and nothing is left behind.

use std::{collections::BTreeMap, os::unix::fs::MetadataExt as _, path::PathBuf};

use fabric_api::{Fabric as _, FabricError, MachineId, VolumeId, VolumeSeen, VolumeSpec};
use fabric_container::ContainerFabric;

use crate::{
    run,
    stand::{Stand, machine, on_stamp, wait},
};

const MIB: u64 = 1 << 20;

/// Runs a test with two machines, `a1` and `a2`, on hosts that support volumes.
fn run_with_machines(name: &str, test: impl AsyncFnOnce(&Stand)) {
    run(name, async |stand| {
        if let Err(why) = fabric_container::disk_limits_possible() {
            base_testkit::needs::skipped(why);
            return;
        }
        for (id, number) in [("a1", 20), ("a2", 21)] {
            start(stand, id, number).await;
        }
        test(stand).await;
    });
}

async fn start(stand: &Stand, id: &str, number: u32) {
    let spec = machine(id, vec![on_stamp(stand, number, None)]);
    stand.fabric.ensure_machine(&spec).await.unwrap();
}

fn volume(id: &str, mib: u64) -> VolumeSpec {
    VolumeSpec {
        id: VolumeId::from(id),
        bytes: mib * MIB,
        source: None,
        shared: false,
        labels: BTreeMap::from([("cluster".to_owned(), "c1".to_owned())]),
    }
}

async fn seen(stand: &Stand, id: &str) -> Option<VolumeSeen> {
    let volumes = stand.fabric.list().await.unwrap().volumes;
    volumes.into_iter().find(|volume| volume.id.as_str() == id)
}

async fn holder(stand: &Stand, id: &str) -> Option<MachineId> {
    seen(stand, id).await.unwrap().attached
}

fn image(stand: &Stand, id: &str) -> PathBuf {
    stand.state_dir().join("volumes").join(id).join("volume.img")
}

/// A volume as a machine finds it in `/sys/block`: device number and MiB.
async fn found(stand: &Stand, machine: &str, id: &str) -> Option<(String, u64)> {
    // Volumes of other tests are on this host as well.
    let volumes = stand.state_dir().canonicalize().unwrap().join("volumes");
    let look = format!(
        "for d in /sys/block/loop*; do case \"$(cat $d/loop/backing_file 2>/dev/null)\" in \
         {}/{id}/volume.img*) echo $(cat $d/dev) $(cat $d/size);; esac; done",
        volumes.display()
    );
    let text = stand.output(machine, &look).await;
    let (number, sectors) = text.trim().split_once(' ')?;
    Some((number.to_owned(), sectors.parse::<u64>().unwrap() * 512 / MIB))
}

/// Makes a device node for a volume in a machine: `/dev/ID`.
async fn node(stand: &Stand, machine: &str, id: &str) {
    let (number, _) = found(stand, machine, id).await.unwrap();
    let (major, minor) = number.split_once(':').unwrap();
    let make = format!("rm -f /dev/{id}; /bin/busybox mknod /dev/{id} b {major} {minor}");
    stand.output(machine, &make).await;
}

/// Writes a line. It is on the volume when the device is closed.
async fn write(stand: &Stand, machine: &str, id: &str, text: &str) {
    node(stand, machine, id).await;
    let write = format!("echo {text} > /dev/{id} && echo done");
    assert_eq!(stand.output(machine, &write).await, "done\n");
}

/// The first line of a volume's content.
async fn read(stand: &Stand, machine: &str, id: &str) -> String {
    node(stand, machine, id).await;
    let read = format!("dd if=/dev/{id} bs=512 count=1 2>/dev/null");
    let text = stand.output(machine, &read).await;
    text.lines().next().unwrap_or_default().to_owned()
}

fn failure(result: Result<(), FabricError>) -> String {
    let error = result.unwrap_err();
    assert!(matches!(error, FabricError::Failed { .. }), "{error}");
    error.to_string()
}

#[test]
fn a_volume_outlives_the_machines_that_have_it() {
    run_with_machines("volume", async |stand| {
        let fabric = &stand.fabric;
        let (one, two) = (MachineId::from("a1"), MachineId::from("a2"));
        let mut spec = volume("v1", 64);
        let id = spec.id.clone();
        for _ in 0..2 {
            fabric.ensure_volume(&spec).await.unwrap();
        }
        let expected = VolumeSeen {
            id: id.clone(),
            bytes: 64 * MIB,
            labels: spec.labels.clone(),
            attached: None,
            open: false,
        };
        assert_eq!(seen(stand, "v1").await, Some(expected.clone()));
        let file = std::fs::metadata(image(stand, "v1")).unwrap();
        assert!(file.blocks() < 1024, "room is taken as it is written to");
        assert_eq!(file.mode() & 0o777, 0o600);
        assert_eq!(found(stand, "a1", "v1").await, None);

        for _ in 0..2 {
            fabric.attach_volume(&id, &one).await.unwrap();
        }
        let attached = VolumeSeen {
            attached: Some(one.clone()),
            ..expected
        };
        assert_eq!(seen(stand, "v1").await, Some(attached));
        assert_eq!(found(stand, "a1", "v1").await.unwrap().1, 64);
        write(stand, "a1", "v1", "kept").await;

        // Grows under the machine; never shrinks.
        spec.bytes = 96 * MIB;
        fabric.ensure_volume(&spec).await.unwrap();
        assert_eq!(found(stand, "a1", "v1").await.unwrap().1, 96);
        spec.bytes = 32 * MIB;
        fabric.ensure_volume(&spec).await.unwrap();
        assert_eq!(found(stand, "a1", "v1").await.unwrap().1, 96);
        assert_eq!(read(stand, "a1", "v1").await, "kept");

        // A file that grew while its device did not: the volume's size is that of the device, and the next
        // call completes it.
        let longer = std::fs::OpenOptions::new()
            .write(true)
            .open(image(stand, "v1"))
            .unwrap();
        longer.set_len(128 * MIB).unwrap();
        assert_eq!(seen(stand, "v1").await.unwrap().bytes, 96 * MIB);
        fabric.ensure_volume(&spec).await.unwrap();
        assert_eq!(seen(stand, "v1").await.unwrap().bytes, 128 * MIB);
        assert_eq!(found(stand, "a1", "v1").await.unwrap().1, 128);

        // One machine at a time, and no deletion meanwhile.
        let refused = failure(fabric.attach_volume(&id, &two).await);
        assert!(refused.ends_with("machine a1 has it"), "{refused}");
        let refused = failure(fabric.delete_volume(&id).await);
        assert!(refused.ends_with("machine a1 has it"), "{refused}");

        // Another driver, as after a crash, finds the attachment from the host's state.
        let another = ContainerFabric::new(stand.env.clone(), stand.config()).unwrap();
        let volumes = another.list().await.unwrap().volumes;
        assert_eq!(volumes.len(), 1);
        assert_eq!(volumes[0].attached, Some(one.clone()));

        // It stays attached when the machine stops and starts.
        fabric.stop_machine(&one).await.unwrap();
        assert_eq!(holder(stand, "v1").await, Some(one.clone()));
        assert!(matches!(
            fabric.attach_volume(&id, &one).await,
            Err(FabricError::NotFound(_))
        ));
        start(stand, "a1", 20).await;
        assert_eq!(read(stand, "a1", "v1").await, "kept");
        // And after the machine is deleted.
        fabric.delete_machine(&one).await.unwrap();
        assert_eq!(holder(stand, "v1").await, Some(one));
        failure(fabric.attach_volume(&id, &two).await);

        for _ in 0..2 {
            fabric.detach_volume(&id).await.unwrap();
        }
        assert_eq!(holder(stand, "v1").await, None);
        assert_eq!(found(stand, "a2", "v1").await, None);
        fabric.attach_volume(&id, &two).await.unwrap();
        assert_eq!(read(stand, "a2", "v1").await, "kept");
        fabric.detach_volume(&id).await.unwrap();
        for _ in 0..2 {
            fabric.delete_volume(&id).await.unwrap();
        }
        assert_eq!(seen(stand, "v1").await, None);
        assert!(!stand.state_dir().join("volumes/v1").exists());
    });
}

#[test]
fn a_volume_in_use_stays_where_it_is() {
    run_with_machines("used", async |stand| {
        let fabric = &stand.fabric;
        let (one, two) = (MachineId::from("a1"), MachineId::from("a2"));
        let id = VolumeId::from("v1");
        fabric.ensure_volume(&volume("v1", 64)).await.unwrap();
        fabric.attach_volume(&id, &one).await.unwrap();
        node(stand, "a1", "v1").await;
        let hold = "/bin/busybox sleep 1000 3</dev/v1 >/dev/null 2>&1 & echo $!";
        let user = stand.output("a1", hold).await;

        let refused = failure(fabric.detach_volume(&id).await);
        assert!(
            refused.contains("something in machine a1 still uses it"),
            "{refused}"
        );
        assert_eq!(holder(stand, "v1").await, Some(one.clone()));
        failure(fabric.attach_volume(&id, &two).await);
        failure(fabric.delete_volume(&id).await);
        fabric.attach_volume(&id, &one).await.unwrap();

        // It is released when its use ends.
        stand
            .output("a1", &format!("/bin/busybox kill -9 {}", user.trim()))
            .await;
        wait(stand, "nobody to have it", async || {
            match holder(stand, "v1").await {
                None => Ok(()),
                Some(machine) => Err(machine.to_string()),
            }
        })
        .await;
        fabric.detach_volume(&id).await.unwrap();
        fabric.attach_volume(&id, &two).await.unwrap();

        // The record of its machine was lost: it can be attached elsewhere, but not while it is in use.
        node(stand, "a2", "v1").await;
        let user = stand.output("a2", hold).await;
        let attached = stand.state_dir().join("volumes/v1/attached");
        std::fs::write(&attached, "").unwrap();
        let refused = failure(fabric.attach_volume(&id, &one).await);
        assert!(refused.contains("something still uses it"), "{refused}");
        stand
            .output("a2", &format!("/bin/busybox kill -9 {}", user.trim()))
            .await;
        wait(stand, "the device to be gone", async || {
            match found(stand, "a1", "v1").await {
                None => Ok(()),
                Some((number, _)) => Err(number),
            }
        })
        .await;
        fabric.attach_volume(&id, &one).await.unwrap();
        std::fs::write(&attached, "").unwrap();
        fabric.attach_volume(&id, &two).await.unwrap();
        assert_eq!(holder(stand, "v1").await, Some(two));
    });
}

#[test]
fn a_share_is_used_by_several_machines_at_once() {
    run_with_machines("share", async |stand| {
        let fabric = &stand.fabric;
        let mut spec = VolumeSpec {
            shared: true,
            ..volume("s1", 64)
        };
        for _ in 0..2 {
            fabric.ensure_volume(&spec).await.unwrap();
        }
        let there = seen(stand, "s1").await.unwrap();
        assert!(there.open && there.attached.is_none(), "{there:?}");
        let told = failure(fabric.attach_volume(&spec.id, &MachineId::from("a1")).await);
        assert!(told.contains("all machines have it"), "{told}");
        for machine in ["a1", "a2"] {
            node(stand, machine, "s1").await;
            let mount = "/bin/busybox mkdir -p /share; /bin/busybox mount -t ext4 /dev/s1 /share && \
                         /bin/busybox stat -c %a /share";
            assert_eq!(stand.output(machine, mount).await, "777\n");
        }
        stand.output("a1", "echo one > /share/one").await;
        assert_eq!(stand.output("a2", "/bin/busybox cat /share/one").await, "one\n");
        stand.output("a2", "echo two >> /share/one").await;
        assert_eq!(
            stand.output("a1", "/bin/busybox cat /share/one").await,
            "one\ntwo\n"
        );

        // A copy has all written data, also without sync, and writes continue afterwards.
        let copy = VolumeSpec {
            source: Some(spec.id.clone()),
            shared: true,
            ..volume("s2", 64)
        };
        fabric.ensure_volume(&copy).await.unwrap();
        node(stand, "a2", "s2").await;
        let look = "/bin/busybox mkdir -p /copy; /bin/busybox mount -t ext4 /dev/s2 /copy && \
                    /bin/busybox cat /copy/one; /bin/busybox umount /copy";
        assert_eq!(stand.output("a2", look).await, "one\ntwo\n");
        stand.output("a1", "echo three > /share/three").await;
        assert_eq!(
            stand.output("a2", "/bin/busybox cat /share/three").await,
            "three\n"
        );
        fabric.delete_volume(&copy.id).await.unwrap();
        // An attached disk that is not mounted cannot be frozen.
        let disk = volume("d1", 64);
        fabric.ensure_volume(&disk).await.unwrap();
        fabric
            .attach_volume(&disk.id, &MachineId::from("a1"))
            .await
            .unwrap();
        let of_disk = VolumeSpec {
            source: Some(disk.id.clone()),
            ..volume("d2", 64)
        };
        let told = failure(fabric.ensure_volume(&of_disk).await);
        assert!(told.contains("a machine has it"), "{told}");
        fabric.delete_volume(&of_disk.id).await.unwrap();
        fabric.detach_volume(&disk.id).await.unwrap();
        fabric.delete_volume(&disk.id).await.unwrap();

        // It grows while both have it mounted.
        spec.bytes = 96 * MIB;
        fabric.ensure_volume(&spec).await.unwrap();
        assert_eq!(found(stand, "a2", "s1").await.unwrap().1, 96);
        for machine in ["a1", "a2"] {
            stand.output(machine, "/bin/busybox umount /share").await;
        }
        // A share that no machine has mounted is copied as well.
        fabric.ensure_volume(&copy).await.unwrap();
        node(stand, "a2", "s2").await;
        assert_eq!(stand.output("a2", look).await, "one\ntwo\n");
        fabric.delete_volume(&copy.id).await.unwrap();
        // As after a reboot of the host: it is available once it is ensured.
        let (number, _) = found(stand, "a1", "s1").await.unwrap();
        let device = format!("/dev/loop{}", number.rsplit_once(':').unwrap().1);
        stand.host(&["losetup", "--detach", &device]).await;
        assert!(!seen(stand, "s1").await.unwrap().open);
        fabric.ensure_volume(&spec).await.unwrap();
        assert!(seen(stand, "s1").await.unwrap().open);
        fabric.delete_volume(&spec.id).await.unwrap();
        assert_eq!(seen(stand, "s1").await, None);
        assert_eq!(found(stand, "a1", "s1").await, None);
    });
}

#[test]
fn a_host_that_starts_anew_has_the_files_and_nobody_has_the_volumes() {
    run_with_machines("reboot", async |stand| {
        let fabric = &stand.fabric;
        let (one, two) = (MachineId::from("a1"), MachineId::from("a2"));
        let (id, copy) = (VolumeId::from("v1"), VolumeId::from("v2"));
        fabric.ensure_volume(&volume("v1", 64)).await.unwrap();
        fabric.attach_volume(&id, &one).await.unwrap();
        write(stand, "a1", "v1", "kept").await;

        // The host lost the device, and `attached` still names the machine: the volume is not attached, and
        // can be attached to any machine.
        let (number, _) = found(stand, "a1", "v1").await.unwrap();
        let device = format!("/dev/loop{}", number.rsplit_once(':').unwrap().1);
        stand.host(&["losetup", "--detach", &device]).await;
        assert_eq!(holder(stand, "v1").await, None);
        for machine in [&one, &two] {
            fabric.attach_volume(&id, machine).await.unwrap();
            assert_eq!(holder(stand, "v1").await.as_ref(), Some(machine));
            fabric.detach_volume(&id).await.unwrap();
        }

        // A larger copy of it, while the source stays attached.
        let of = |source: &VolumeId| VolumeSpec {
            source: Some(source.clone()),
            ..volume("v2", 128)
        };
        let missing = fabric.ensure_volume(&of(&VolumeId::from("none"))).await;
        assert!(
            matches!(&missing, Err(FabricError::NotFound(what)) if what == "volume none"),
            "{missing:?}"
        );
        assert_eq!(seen(stand, "v2").await, None);
        fabric.ensure_volume(&of(&id)).await.unwrap();
        fabric.attach_volume(&id, &one).await.unwrap();
        fabric.attach_volume(&copy, &one).await.unwrap();
        write(stand, "a1", "v1", "changed").await;
        assert_eq!(read(stand, "a1", "v2").await, "kept");
        assert_eq!(seen(stand, "v2").await.unwrap().bytes, 128 * MIB);

        fabric.stop_stamp().await.unwrap();
        stand.nothing_but_disks().await;
        for id in ["v1", "v2"] {
            assert!(image(stand, id).exists());
            assert_eq!(holder(stand, id).await, None);
        }
        fabric.ensure_stamp().await.unwrap();
        start(stand, "a2", 21).await;
        for id in [&id, &copy] {
            fabric.attach_volume(id, &two).await.unwrap();
        }
        assert_eq!(read(stand, "a2", "v1").await, "changed");
        assert_eq!(read(stand, "a2", "v2").await, "kept");
        // Attached volumes are removed with the stamp when it is closed.
    });
}

#[test]
fn what_is_lost_or_cut_short_is_told_and_finished() {
    run_with_machines("lost", async |stand| {
        let fabric = &stand.fabric;
        let one = MachineId::from("a1");
        let spec = volume("v1", 64);
        let dir = stand.state_dir().join("volumes/v1");

        // A creation that was interrupted after the first files.
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("volume.new"), "half").unwrap();
        let half = seen(stand, "v1").await.unwrap();
        assert_eq!(
            (half.bytes, half.labels, half.attached),
            (0, BTreeMap::new(), None)
        );
        assert!(matches!(
            fabric.attach_volume(&spec.id, &one).await,
            Err(FabricError::NotFound(what)) if what == "volume v1"
        ));
        fabric.ensure_volume(&spec).await.unwrap();
        assert!(!dir.join("volume.new").exists());
        fabric.attach_volume(&spec.id, &one).await.unwrap();
        write(stand, "a1", "v1", "kept").await;

        // Its metadata is lost: the volume is unchanged.
        for damage in ["", "{\"v\":1,\"ma"] {
            std::fs::write(dir.join("spec.json"), damage).unwrap();
            let found = seen(stand, "v1").await.unwrap();
            assert_eq!((found.bytes, found.labels), (64 * MIB, BTreeMap::new()));
            assert_eq!(found.attached, Some(one.clone()));
            fabric.ensure_volume(&spec).await.unwrap();
            assert_eq!(seen(stand, "v1").await.unwrap().labels, spec.labels);
            assert_eq!(read(stand, "a1", "v1").await, "kept");
        }
        assert!(matches!(
            fabric.attach_volume(&spec.id, &MachineId::from("none")).await,
            Err(FabricError::NotFound(_))
        ));
        assert!(matches!(
            fabric.ensure_volume(&volume("v2", 0)).await,
            Err(FabricError::Invalid { .. })
        ));

        // Its file is lost while attached: the device is released all the same, and no empty volume takes its
        // place.
        std::fs::remove_file(dir.join("volume.img")).unwrap();
        fabric.detach_volume(&spec.id).await.unwrap();
        let told = failure(fabric.ensure_volume(&spec).await);
        assert!(told.contains("what was on it is lost"), "{told}");
        assert!(matches!(
            fabric.attach_volume(&spec.id, &one).await,
            Err(FabricError::NotFound(_))
        ));
        fabric.delete_volume(&spec.id).await.unwrap();
        assert!(!dir.exists());
    });
}
