//! The driver on this host, if the host has free loop devices.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use prost::Message;

use super::{
    fake::Fake,
    stand::{GIB, HANDLE, ID, Stand, quiet},
};
use crate::{
    driver::Driver,
    grpc::{Code, Service, Status},
    host::{Host, Machine},
    mount, node,
    wire::{CapacityRange, ExpandRequest, Expanded, PublishRequest, Stats, StatsRequest},
};

/// A file with a loop device of this host.
struct Loop {
    file: PathBuf,
    device: String,
}

impl Loop {
    /// `None`: this host has no free loop device.
    fn new(directory: &Path) -> Option<Self> {
        let file = directory.join(format!("volumes/{ID}/volume.img"));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::File::create(&file).unwrap().set_len(GIB / 4).unwrap();
        let output = Command::new("losetup")
            .args(["-f", "--show"])
            .arg(&file)
            .output()
            .unwrap();
        let device = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        (output.status.success() && Path::new(&device).exists()).then_some(Self { file, device })
    }

    fn grow(&self) {
        let file = fs::OpenOptions::new().write(true).open(&self.file).unwrap();
        file.set_len(GIB / 2).unwrap();
        let grown = Command::new("losetup")
            .args(["-c", &self.device])
            .status()
            .unwrap();
        assert!(grown.success());
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _gone = Command::new("losetup").args(["-d", &self.device]).status();
    }
}

/// The mounts below a directory, removed on drop.
struct Mounts(PathBuf);

impl Drop for Mounts {
    fn drop(&mut self) {
        for mount in mount::read(Path::new(mount::MOUNTS))
            .unwrap_or_default()
            .iter()
            .rev()
        {
            if mount.at.starts_with(&self.0) {
                let _gone = mount::remove(&mount.at);
            }
        }
    }
}

#[test]
fn a_real_device_is_formatted_once_and_keeps_what_is_on_it() {
    let programs = ["e2fsck", "losetup", "mkfs.ext4", "mount", "resize2fs"];
    if !base_testkit::needs::root_and(&programs) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let Some(volume) = Loop::new(directory.path()) else {
        base_testkit::needs::skipped("this host has no loop devices to give");
        return;
    };
    let stand = Stand {
        directory,
        ..Stand::new(Fake::default())
    };
    let _mounts = Mounts(stand.directory.path().to_owned());
    let nodes = stand.directory.path().join("dev");
    let node = nodes.join(node::node_name(HANDLE));
    let driver = Driver::new(&stand.config, "n".to_owned(), Machine::default(), &nodes, quiet);
    let ask = |method: &str, request: &dyn Fn() -> Vec<u8>| {
        let method = format!("/csi.v1.Node/{method}");
        driver.call(&method, &request())
    };
    let stage = || stand.stage().encode_to_vec();
    if let Err(status) = ask("NodeStageVolume", &stage) {
        let refused = ["not permitted", "denied"];
        if refused.iter().any(|word| status.message.contains(word)) {
            base_testkit::needs::skipped("this process may not make device nodes or mounts");
            return;
        }
        panic!("{status}");
    }
    ask("NodeStageVolume", &stage).unwrap();
    let publish = || stand.publish("target").encode_to_vec();
    ask("NodePublishVolume", &publish).unwrap();
    ask("NodePublishVolume", &publish).unwrap();
    let data = stand.directory.path().join("target/data");
    fs::write(&data, "kept").unwrap();
    let looks = || PublishRequest {
        readonly: true,
        ..stand.publish("looks")
    };
    ask("NodePublishVolume", &|| looks().encode_to_vec()).unwrap();
    let refused = fs::write(stand.directory.path().join("looks/data"), "lost");
    assert_eq!(
        refused.unwrap_err().kind(),
        std::io::ErrorKind::ReadOnlyFilesystem
    );
    fs::write(&data, "kept").unwrap();

    let size_at = |name: &str| {
        let asked = StatsRequest {
            volume_id: HANDLE.to_owned(),
            volume_path: stand.place(name),
        };
        let answer = ask("NodeGetVolumeStats", &|| asked.encode_to_vec()).unwrap();
        Stats::decode(&answer[..]).unwrap().usage[0].total
    };
    let small = size_at("target");
    let large = small + small / 2;
    volume.grow();
    let expand = || ExpandRequest {
        volume_id: HANDLE.to_owned(),
        volume_path: stand.place("staging"),
        capacity_range: Some(CapacityRange {
            required_bytes: 1 << 29,
            limit_bytes: 0,
        }),
    };
    let expanded = || {
        let answer = ask("NodeExpandVolume", &|| expand().encode_to_vec())?;
        Ok::<i64, Status>(Expanded::decode(&answer[..]).unwrap().capacity_bytes)
    };
    if Machine::default().grows_mounted().unwrap() {
        assert_eq!(expanded().unwrap(), 1 << 29);
        assert!(size_at("target") > large, "{small} bytes before");
    } else {
        assert_eq!(expanded().unwrap_err().code, Code::FailedPrecondition);
    }

    for target in ["target", "looks"] {
        let request = stand.unpublish(target);
        ask("NodeUnpublishVolume", &|| request.encode_to_vec()).unwrap();
        assert!(!Path::new(&stand.place(target)).exists());
    }
    let unstage = || stand.unstage().encode_to_vec();
    ask("NodeUnstageVolume", &unstage).unwrap();
    ask("NodeUnstageVolume", &unstage).unwrap();
    assert!(!node.exists());

    ask("NodeStageVolume", &stage).unwrap();
    let kept = fs::read(stand.directory.path().join("staging/data")).unwrap();
    assert_eq!(kept, b"kept");
    assert!(size_at("staging") > large, "{small} bytes before");
    assert_eq!(expanded().unwrap(), 1 << 29, "nothing is left to do");
    ask("NodeUnstageVolume", &unstage).unwrap();

    // Foreign data in the place of the filesystem.
    fs::write(&volume.file, vec![7; 1 << 21]).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&volume.file).unwrap();
    file.set_len(GIB / 2).unwrap();
    let refused = ask("NodeStageVolume", &stage).unwrap_err();
    assert_eq!(refused.code, Code::FailedPrecondition, "{refused}");
}
