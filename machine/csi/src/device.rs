//! Block devices: the one that holds a volume, sizes, and device nodes.

use std::{
    fmt, fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::Path,
    str::FromStr,
};

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

/// The unit of sizes in `/sys`, whatever a device's own sector size is.
const SECTOR: u64 = 512;
/// The device that creates loop devices.
const LOOP_CONTROL: Number = Number {
    major: 10,
    minor: 237,
};
/// The number of extra nodes for loop devices that may be created later.
const SPARE: u32 = 16;

/// A device's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Number {
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

impl Number {
    /// From a `dev_t`.
    fn of(raw: u64) -> Self {
        Self {
            major: rustix::fs::major(raw),
            minor: rustix::fs::minor(raw),
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

impl FromStr for Number {
    type Err = io::Error;

    fn from_str(text: &str) -> io::Result<Self> {
        let parts = text.trim().split_once(':');
        let number = parts.and_then(|(major, minor)| {
            Some(Self {
                major: major.parse().ok()?,
                minor: minor.parse().ok()?,
            })
        });
        number.ok_or_else(|| io::Error::other(format!("'{}' is no number of a device", text.trim())))
    }
}

/// A block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) number: Number,
    /// Its size.
    pub(crate) bytes: u64,
}

/// The devices backed by the file of a volume. `sys` is the path of `/sys`.
pub(crate) fn of_volume(sys: &Path, id: &str) -> io::Result<Vec<Device>> {
    // The rest of the path belongs to the host and does not matter here.
    let end = format!("/volumes/{id}/volume.img");
    let mut found = Vec::new();
    for entry in fs::read_dir(sys.join("block"))? {
        let place = entry?.path();
        // Only a loop device with a backing file has this attribute.
        let Ok(file) = fs::read_to_string(place.join("loop/backing_file")) else {
            continue;
        };
        if file.trim_end_matches('\n').ends_with(&end) {
            found.push(Device {
                number: fs::read_to_string(place.join("dev"))?.parse()?,
                bytes: size(&place)?,
            });
        }
    }
    Ok(found)
}

/// The size of a device.
pub(crate) fn bytes(sys: &Path, number: Number) -> io::Result<u64> {
    size(&sys.join("dev/block").join(number.to_string()))
}

fn size(place: &Path) -> io::Result<u64> {
    let text = fs::read_to_string(place.join("size"))?;
    let sectors: Option<u64> = text.trim().parse().ok();
    let bytes = sectors.and_then(|sectors| sectors.checked_mul(SECTOR));
    bytes.ok_or_else(|| io::Error::other(format!("'{}' is no size of a device", text.trim())))
}

/// The block device that a path is a node of; `None`: no node, or something else.
pub(crate) fn at(path: &Path) -> io::Result<Option<Number>> {
    match fs::metadata(path) {
        Ok(seen) if seen.file_type().is_block_device() => Ok(Some(Number::of(seen.rdev()))),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Creates the node of a block device, and replaces any other node under its name.
pub(crate) fn make_node(path: &Path, number: Number) -> io::Result<()> {
    make(path, FileType::BlockDevice, number)
}

/// A kubelet holds each block volume open with a loop device (`losetup -f`). A machine has no nodes for loop
/// devices: they are created here for all existing ones and for some that may follow. `sys` and `dev` are the
/// paths of `/sys` and `/dev`.
pub(crate) fn make_loop_nodes(sys: &Path, dev: &Path) -> io::Result<()> {
    make(&dev.join("loop-control"), FileType::CharacterDevice, LOOP_CONTROL)?;
    for (index, number) in loops(sys)? {
        make_node(&dev.join(format!("loop{index}")), number)?;
    }
    Ok(())
}

/// Loop devices by their index, including those that would come next.
fn loops(sys: &Path) -> io::Result<Vec<(u32, Number)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(sys.join("block"))? {
        let entry = entry?;
        let name = entry.file_name();
        let index = name.to_str().and_then(|name| name.strip_prefix("loop"));
        let Some(index) = index.and_then(|index| index.parse::<u32>().ok()) else {
            continue;
        };
        // Removed since it was listed.
        let Ok(text) = fs::read_to_string(entry.path().join("dev")) else {
            continue;
        };
        all.push((index, text.parse::<Number>()?));
    }
    all.sort_unstable();
    // If loop devices may have partitions, each uses more than one minor number.
    let stride = all.iter().find(|(index, _)| *index > 0);
    let stride = stride.map_or(1, |(index, number)| (number.minor / index).max(1));
    if let Some((last, number)) = all.last().copied() {
        all.extend((1..=SPARE).map(|further| {
            (
                last + further,
                Number {
                    major: number.major,
                    minor: number.minor + further * stride,
                },
            )
        }));
    }
    Ok(all)
}

fn make(path: &Path, kind: FileType, number: Number) -> io::Result<()> {
    let raw = makedev(number.major, number.minor);
    match fs::symlink_metadata(path) {
        Ok(seen) if FileType::from_raw_mode(seen.mode()) == kind && seen.rdev() == raw => return Ok(()),
        Ok(_) => fs::remove_file(path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(directory) = path.parent() {
                fs::create_dir_all(directory)?;
            }
        }
        Err(error) => return Err(error),
    }
    mknodat(CWD, path, kind, Mode::RUSR | Mode::WUSR, raw)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// A `/sys` with these loop devices: index, backing file, MiB.
    fn sys(devices: &[(u32, Option<&str>, u64)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (index, file, mib) in devices {
            let place: PathBuf = directory.path().join(format!("block/loop{index}"));
            fs::create_dir_all(&place).unwrap();
            fs::write(place.join("dev"), format!("7:{index}\n")).unwrap();
            fs::write(place.join("size"), format!("{}\n", mib * 2048)).unwrap();
            if let Some(file) = file {
                fs::create_dir(place.join("loop")).unwrap();
                fs::write(place.join("loop/backing_file"), format!("{file}\n")).unwrap();
            }
        }
        fs::create_dir_all(directory.path().join("block/sda")).unwrap();
        directory
    }

    #[test]
    fn a_volume_is_found_by_its_file_alone() {
        let sys = sys(&[
            (0, None, 0),
            (3, Some("/state/volumes/abc/volume.img"), 1024),
            (4, Some("/state/volumes/xabc/volume.img"), 1),
            (5, Some("/state/volumes/abc/volume.img.old"), 1),
            (6, Some("/state/volumes/gone/volume.img (deleted)"), 1),
            (7, Some("/a/volumes/two/volume.img"), 1),
            (8, Some("/b/volumes/two/volume.img"), 1),
        ]);
        let found = |id: &str| of_volume(sys.path(), id).unwrap();
        let device = Device {
            number: Number { major: 7, minor: 3 },
            bytes: 1 << 30,
        };
        assert_eq!(found("abc"), [device]);
        assert_eq!(found("gone"), []);
        assert_eq!(found("none"), []);
        assert_eq!(found("two").len(), 2);
    }

    #[test]
    fn there_are_nodes_for_loop_devices_that_may_come() {
        let one = sys(&[(0, None, 0), (2, None, 0)]);
        let all = loops(one.path()).unwrap();
        assert_eq!(all.len(), 2 + usize::try_from(SPARE).unwrap());
        assert_eq!(all[0], (0, Number { major: 7, minor: 0 }));
        assert_eq!(all[1], (2, Number { major: 7, minor: 2 }));
        assert_eq!(all[2], (3, Number { major: 7, minor: 3 }));

        // With minor numbers for partitions.
        let place = one.path().join("block/loop2/dev");
        fs::write(place, "7:32\n").unwrap();
        let all = loops(one.path()).unwrap();
        assert_eq!(all[2], (3, Number { major: 7, minor: 48 }));
        assert_eq!(loops(sys(&[]).path()).unwrap(), []);
    }

    #[test]
    fn numbers_are_read_as_the_kernel_writes_them() {
        assert_eq!(
            "259:12\n".parse::<Number>().unwrap(),
            Number {
                major: 259,
                minor: 12
            }
        );
        for wrong in ["", "7", "7:", "a:b"] {
            assert!(wrong.parse::<Number>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_no_block_device_has_no_number() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(at(directory.path()).unwrap(), None);
        assert_eq!(at(&directory.path().join("none")).unwrap(), None);
    }
}
