use super::*;
use crate::wire::{AccessMode, CapacityRange, Empty, MountVolume};

const NODE: &str = "/dev/landfall/volumes/n";
const STAGING: &str = "/var/lib/kubelet/staging";
const TARGET: &str = "/var/lib/kubelet/target";
const GIB: u64 = 1 << 30;
const DEVICE: Device = Device {
    number: Number { major: 7, minor: 3 },
    bytes: GIB,
};
const OTHER: Number = Number { major: 7, minor: 9 };

fn mount_of(device: Number, at: &str, options: &str) -> Mount {
    Mount {
        device,
        at: at.into(),
        options: options.split(',').map(str::to_owned).collect(),
    }
}

fn by_mount(mode: i32, flags: &[&str]) -> VolumeCapability {
    VolumeCapability {
        block: None,
        mount: Some(MountVolume {
            fs_type: EXT4.to_owned(),
            mount_flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
        }),
        access_mode: Some(AccessMode { mode }),
    }
}

fn by_block() -> VolumeCapability {
    VolumeCapability {
        block: Some(Empty {}),
        mount: None,
        ..by_mount(access::SINGLE_NODE_WRITER, &[])
    }
}

fn stage_request() -> StageRequest {
    StageRequest {
        volume_id: "/disks/pvc-1".to_owned(),
        publish_context: BTreeMap::new(),
        staging_target_path: format!("{STAGING}/"),
        volume_capability: Some(by_mount(access::SINGLE_NODE_MULTI_WRITER, &["noatime"])),
        volume_context: [(VOLUME_ATTRIBUTE.to_owned(), "abc".to_owned())].into(),
    }
}

fn publish_request() -> PublishRequest {
    PublishRequest {
        volume_id: "/disks/pvc-1".to_owned(),
        publish_context: BTreeMap::new(),
        staging_target_path: STAGING.to_owned(),
        target_path: TARGET.to_owned(),
        volume_capability: Some(by_mount(access::SINGLE_NODE_MULTI_WRITER, &[])),
        readonly: false,
        volume_context: stage_request().volume_context,
    }
}

fn mounted() -> Step {
    Step::Mount {
        node: NODE.into(),
        to: STAGING.into(),
        options: ["discard", "noinit_itable", "noatime"].map(str::to_owned).into(),
    }
}

#[test]
fn the_attribute_is_the_one_that_volumes_have() {
    assert_eq!(VOLUME_ATTRIBUTE, cluster_volumes::VOLUME_ATTRIBUTE);
}

#[test]
fn staging_does_what_is_missing() {
    let wanted = Stage::read(&stage_request(), false).unwrap();
    assert_eq!(wanted.staging, Path::new(STAGING));
    let there = mount_of(DEVICE.number, STAGING, "rw");
    let (format, check) = (Step::Format(NODE.into()), Step::Check(NODE.into()));
    let grow = Step::Grow(NODE.into());
    let filesystem = |bytes: u64| Content::Filesystem { bytes };
    let both = |steps: Vec<Step>| (steps.clone(), steps);
    for (content, there, (online, offline)) in [
        (Content::Empty, None, both(vec![format.clone(), mounted()])),
        (Content::Unfinished, None, both(vec![format, mounted()])),
        (filesystem(GIB), None, both(vec![mounted()])),
        (filesystem(GIB - 4096), None, both(vec![mounted()])),
        (
            filesystem(GIB / 2),
            None,
            (
                vec![mounted(), grow.clone()],
                vec![check, grow.clone(), mounted()],
            ),
        ),
        // The kernel reports a filesystem that is larger than its device.
        (filesystem(2 * GIB), None, both(vec![mounted()])),
        (filesystem(GIB), Some(&there), both(vec![])),
        (filesystem(GIB / 2), Some(&there), (vec![grow], vec![])),
    ] {
        wanted.fits(&DEVICE, there).unwrap();
        for (can, steps) in [(true, online), (false, offline)] {
            let found = wanted.steps(Path::new(NODE), &DEVICE, content, there, can);
            assert_eq!(found.unwrap(), steps, "{content:?} {there:?} {can}");
        }
    }
}

#[test]
fn what_may_be_data_is_not_formatted_and_what_is_mounted_is_not_covered() {
    let wanted = Stage::read(&stage_request(), false).unwrap();
    let refused = wanted
        .steps(Path::new(NODE), &DEVICE, Content::Other, None, true)
        .unwrap_err();
    assert_eq!(refused.code, Code::FailedPrecondition);
    assert!(refused.message.contains("abc"), "{refused}");
    let other = mount_of(OTHER, STAGING, "rw");
    let refused = wanted.fits(&DEVICE, Some(&other)).unwrap_err();
    assert_eq!(refused.code, Code::Internal);
    assert!(
        refused.message.contains("7:9") && refused.message.contains(STAGING),
        "{refused}"
    );
}

#[test]
fn a_filesystem_is_published_once_and_as_it_was_asked_for() {
    let staged = mount_of(DEVICE.number, STAGING, "rw,noatime");
    let (rw, ro) = (
        mount_of(DEVICE.number, TARGET, "rw"),
        mount_of(DEVICE.number, TARGET, "ro"),
    );
    let other = mount_of(OTHER, TARGET, "rw");
    let bind = || {
        vec![
            Step::Directory(TARGET.into()),
            Step::Bind {
                from: STAGING.into(),
                to: TARGET.into(),
            },
        ]
    };
    let read_only = Step::ReadOnly(TARGET.into());
    let both = [bind(), vec![read_only.clone()]].concat();
    let steps = |readonly: bool, mode: i32, target: Option<&Mount>| {
        let request = PublishRequest {
            readonly,
            volume_capability: Some(by_mount(mode, &[])),
            ..publish_request()
        };
        let seen = Seen {
            staged: Some(&staged),
            target,
            ..Seen::default()
        };
        let wanted = Publish::read(&request, false).unwrap();
        wanted
            .steps(Path::new(NODE), &DEVICE, seen)
            .map_err(|status| status.code)
    };
    let writes = access::SINGLE_NODE_SINGLE_WRITER;
    assert_eq!(steps(false, writes, None), Ok(bind()));
    assert_eq!(steps(true, writes, None), Ok(both.clone()));
    assert_eq!(steps(false, access::MULTI_NODE_READER_ONLY, None), Ok(both));
    assert_eq!(steps(false, writes, Some(&rw)), Ok(vec![]));
    assert_eq!(steps(true, writes, Some(&rw)), Ok(vec![read_only]));
    assert_eq!(steps(true, writes, Some(&ro)), Ok(vec![]));
    assert_eq!(steps(false, writes, Some(&ro)), Err(Code::AlreadyExists));
    assert_eq!(steps(false, writes, Some(&other)), Err(Code::AlreadyExists));
}

#[test]
fn what_is_not_staged_is_not_published() {
    let wanted = Publish::read(&publish_request(), false).unwrap();
    let other = mount_of(OTHER, STAGING, "rw");
    for staged in [None, Some(&other)] {
        let seen = Seen {
            staged,
            ..Seen::default()
        };
        let refused = wanted.steps(Path::new(NODE), &DEVICE, seen).unwrap_err();
        assert_eq!(refused.code, Code::FailedPrecondition);
        assert!(refused.message.contains(STAGING), "{refused}");
    }
}

#[test]
fn a_device_is_published_as_a_file() {
    let request = PublishRequest {
        volume_capability: Some(by_block()),
        readonly: true,
        ..publish_request()
    };
    let wanted = Publish::read(&request, false).unwrap();
    let node = Some(DEVICE.number);
    let steps = |seen: Seen<'_>| {
        wanted
            .steps(Path::new(NODE), &DEVICE, seen)
            .map_err(|status| status.code)
    };
    let staged = Seen {
        node,
        ..Seen::default()
    };
    let made = vec![
        Step::File(TARGET.into()),
        Step::Bind {
            from: NODE.into(),
            to: TARGET.into(),
        },
    ];
    assert_eq!(steps(staged), Ok(made));
    // The mount's device is that of the filesystem with the node, not the volume's.
    let there = mount_of(Number { major: 0, minor: 5 }, TARGET, "rw");
    let target = Some(&there);
    let published = Seen {
        target,
        device: node,
        ..staged
    };
    assert_eq!(steps(published), Ok(vec![]));
    let device = Some(OTHER);
    assert_eq!(steps(Seen { device, ..published }), Err(Code::AlreadyExists));
    for node in [None, Some(OTHER)] {
        let unstaged = Seen { node, ..staged };
        assert_eq!(steps(unstaged), Err(Code::FailedPrecondition));
    }
}

#[test]
fn each_mount_is_removed_and_then_what_it_was_on() {
    let mounts = [
        mount_of(DEVICE.number, STAGING, "rw"),
        mount_of(DEVICE.number, TARGET, "rw"),
        mount_of(DEVICE.number, TARGET, "ro"),
    ];
    let unpublish = Unpublish::read(&UnpublishRequest {
        volume_id: "v".to_owned(),
        target_path: TARGET.to_owned(),
    })
    .unwrap();
    let (unmount, remove) = (Step::Unmount(TARGET.into()), Step::Remove(TARGET.into()));
    assert_eq!(
        unpublish.steps(&mounts),
        [unmount.clone(), unmount, remove.clone()]
    );
    assert_eq!(unpublish.steps(&[]), [remove]);
    let unstage = Unstage::read(&UnstageRequest {
        volume_id: "v".to_owned(),
        staging_target_path: STAGING.to_owned(),
    })
    .unwrap();
    let remove = Step::Remove(NODE.into());
    assert_eq!(
        unstage.steps(Path::new(NODE), &mounts),
        [Step::Unmount(STAGING.into()), remove.clone()]
    );
    assert_eq!(unstage.steps(Path::new(NODE), &[]), [remove]);
}

#[test]
fn a_filesystem_grows_after_its_device() {
    let steps = |required: u64, limit: u64, mounted: Option<Content>, online: bool| {
        let range = CapacityRange {
            required_bytes: required.try_into().unwrap(),
            limit_bytes: limit.try_into().unwrap(),
        };
        let wanted = Expand::read(&ExpandRequest {
            volume_id: "v".to_owned(),
            volume_path: STAGING.to_owned(),
            capacity_range: Some(range),
        });
        let steps = wanted.unwrap().steps(Path::new(NODE), GIB, mounted, online);
        steps.map_err(|status| status.code)
    };
    let small = Some(Content::Filesystem { bytes: GIB / 2 });
    let large = Some(Content::Filesystem { bytes: GIB });
    let grow = vec![Step::Grow(NODE.into())];
    assert_eq!(steps(GIB, 0, small, true), Ok(grow.clone()));
    assert_eq!(steps(0, GIB, small, true), Ok(grow));
    assert_eq!(steps(GIB, 0, small, false), Err(Code::FailedPrecondition));
    for online in [true, false] {
        assert_eq!(steps(GIB, 0, large, online), Ok(vec![]));
        assert_eq!(
            steps(GIB, 0, None, online),
            Ok(vec![]),
            "a device has grown by itself"
        );
        assert_eq!(steps(GIB + 1, 0, small, online), Err(Code::Unavailable));
        assert_eq!(steps(0, GIB - 1, small, online), Err(Code::OutOfRange));
    }
}

#[test]
fn one_device_holds_a_volume() {
    assert_eq!(only("abc", &[DEVICE]).unwrap(), DEVICE);
    assert_eq!(only("abc", &[]).unwrap_err().code, Code::NotFound);
    let two = only("abc", &[DEVICE, DEVICE]).unwrap_err();
    assert_eq!(two.code, Code::FailedPrecondition);
    assert_ne!(node_name("a"), node_name("b"));
    assert_eq!(node_name("a").len(), 16);
}

#[test]
fn bad_input_is_told_by_its_field() {
    let good = stage_request;
    let with = |capability: VolumeCapability| StageRequest {
        volume_capability: Some(capability),
        ..good()
    };
    let writes = access::SINGLE_NODE_WRITER;
    let context = |id: &str| StageRequest {
        volume_context: [(VOLUME_ATTRIBUTE.to_owned(), id.to_owned())].into(),
        ..good()
    };
    let staging = |path: &str| StageRequest {
        staging_target_path: path.to_owned(),
        ..good()
    };
    let mut neither = by_mount(writes, &[]);
    neither.mount = None;
    let mut both = by_mount(writes, &[]);
    both.block = Some(Empty {});
    let mut xfs = by_mount(writes, &[]);
    xfs.mount.as_mut().unwrap().fs_type = "xfs".to_owned();
    let mut without_mode = by_mount(writes, &[]);
    without_mode.access_mode = None;
    for (request, field) in [
        (
            StageRequest {
                volume_id: String::new(),
                ..good()
            },
            "volume_id",
        ),
        (staging(""), "staging_target_path"),
        (staging("relative"), "staging_target_path"),
        (staging("/a/../b"), "staging_target_path"),
        (staging("/a\0b"), "staging_target_path"),
        (
            StageRequest {
                volume_capability: None,
                ..good()
            },
            "volume_capability",
        ),
        (with(neither), "block and mount"),
        (with(both), "block and mount"),
        (with(xfs), "fs_type"),
        (with(without_mode), "access_mode"),
        (with(by_mount(0, &[])), "access_mode"),
        (with(by_mount(4, &[])), "access_mode"),
        (with(by_mount(5, &[])), "access_mode"),
        (with(by_mount(writes, &["ro,suid"])), "mount_flags"),
        (with(by_mount(writes, &[""])), "mount_flags"),
        (with(by_mount(writes, &["a\0"])), "mount_flags"),
        (
            StageRequest {
                volume_context: BTreeMap::new(),
                ..good()
            },
            VOLUME_ATTRIBUTE,
        ),
        (context(""), VOLUME_ATTRIBUTE),
        (context("../../etc"), VOLUME_ATTRIBUTE),
        (context(&"a".repeat(64)), VOLUME_ATTRIBUTE),
    ] {
        let refused = Stage::read(&request, false).unwrap_err();
        assert_eq!(refused.code, Code::InvalidArgument, "{field}");
        assert!(refused.message.contains(field), "{field}: {refused}");
    }
    let negative = Expand::read(&ExpandRequest {
        volume_id: "v".to_owned(),
        volume_path: STAGING.to_owned(),
        capacity_range: Some(CapacityRange {
            required_bytes: -1,
            limit_bytes: 0,
        }),
    });
    assert!(negative.unwrap_err().message.contains("required_bytes"));
}

#[test]
fn what_the_attachment_says_goes_before_what_the_volume_says() {
    let mut request = stage_request();
    request.publish_context = [(VOLUME_ATTRIBUTE.to_owned(), "d0".to_owned())].into();
    assert_eq!(Stage::read(&request, false).unwrap().id, "d0");
    // As with the PersistentVolume of a disk that a tenant made.
    request.volume_context.clear();
    assert_eq!(Stage::read(&request, false).unwrap().id, "d0");
    let mut request = publish_request();
    request.publish_context = [(VOLUME_ATTRIBUTE.to_owned(), "d0".to_owned())].into();
    assert_eq!(Publish::read(&request, false).unwrap().id, "d0");
}

#[test]
fn a_share_is_never_formatted_and_is_for_several_nodes() {
    let mut request = stage_request();
    let flags = ["mfsymlinks", "dir_mode=0777", "noatime"];
    request.volume_capability = Some(by_mount(access::MULTI_NODE_MULTI_WRITER, &flags));
    assert!(Stage::read(&request, false).is_err(), "one node has a disk");
    let wanted = Stage::read(&request, true).unwrap();
    let steps =
        |content: Content, online: bool| wanted.steps(Path::new(NODE), &DEVICE, content, None, online);
    for content in [Content::Empty, Content::Unfinished, Content::Other] {
        let refused = steps(content, true).unwrap_err();
        assert!(refused.to_string().contains("not formatted"), "{refused}");
    }
    let half = Content::Filesystem { bytes: GIB / 2 };
    assert_eq!(steps(half, true).unwrap(), [mounted(), Step::Grow(NODE.into())]);
    assert_eq!(
        steps(half, false).unwrap(),
        [Step::GrowAlone(NODE.into()), mounted()]
    );

    let read_only = |mode: i32| {
        let mut request = publish_request();
        request.volume_capability = Some(by_mount(mode, &[]));
        Publish::read(&request, true).map(|wanted| wanted.read_only)
    };
    assert_eq!(read_only(access::MULTI_NODE_MULTI_WRITER), Ok(false));
    assert_eq!(read_only(access::MULTI_NODE_READER_ONLY), Ok(true));
    request.volume_capability = Some(by_block());
    assert!(Stage::read(&request, true).is_err());
}
