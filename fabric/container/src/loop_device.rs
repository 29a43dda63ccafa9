//! Loop devices of the host: block devices backed by a file each.
//!
//! Always true: the device of a file is read from the kernel each time and never recorded. The number of a
//! released device is reused for another file.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use base_env::Env;
use fabric_api::FabricError;
use rustix::ioctl::{Getter, ioctl};

use crate::files;

/// Where the kernel lists block devices.
pub(crate) const DEVICES: &str = "/sys/block";

/// The unit of sizes in `/sys`, whatever the sector size of the device.
const SECTOR: u64 = 512;

/// The kernel's suffix for the name of a deleted file.
const DELETED: &str = " (deleted)";

/// Interval of checks for the kernel's release.
const LOOK: Duration = Duration::from_millis(20);

/// A loop device with a backing file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LoopDevice {
    /// Its name, e.g. `loop7`.
    name: String,
    /// The file's path as in the kernel: without symbolic links.
    pub(crate) file: PathBuf,
    /// Whether the file is deleted.
    pub(crate) deleted: bool,
    /// The size it shows.
    pub(crate) bytes: u64,
    /// Whether the kernel releases it at its last close.
    pub(crate) leaving: bool,
}

impl LoopDevice {
    /// The path of the device.
    pub(crate) fn path(&self) -> String {
        format!("/dev/{}", self.name)
    }
}

/// The directory in which the kernel has an entry for each device with a mounted ext4 filesystem, of all mount
/// namespaces.
const EXT4: &str = "/proc/fs/ext4";

impl LoopDevice {
    /// Whether an ext4 filesystem on it is mounted, in any mount namespace.
    pub(crate) fn is_mounted(&self) -> bool {
        Path::new(EXT4).join(&self.name).exists()
    }
}

/// All loop devices with a backing file, from the directory [`DEVICES`].
pub(crate) fn all(devices: &Path) -> io::Result<Vec<LoopDevice>> {
    let names = files::names_in(devices)?;
    let loops = names.into_iter().filter(|name| name.starts_with("loop"));
    Ok(loops.filter_map(|name| look(devices, name)).collect())
}

fn look(devices: &Path, name: String) -> Option<LoopDevice> {
    let place = devices.join(&name);
    // An unused device has no such file, or an empty one during its release.
    let text = fs::read_to_string(place.join("loop/backing_file")).ok()?;
    let text = text.trim_end_matches('\n');
    let (file, deleted) = match text.strip_suffix(DELETED) {
        Some(file) => (file, true),
        None => (text, false),
    };
    if file.is_empty() {
        return None;
    }
    let number = |path: &str| {
        let text = fs::read_to_string(place.join(path)).ok()?;
        text.trim().parse::<u64>().ok()
    };
    Some(LoopDevice {
        file: PathBuf::from(file),
        deleted,
        bytes: number("size").unwrap_or(0) * SECTOR,
        leaving: number("loop/autoclear") == Some(1),
        name,
    })
}

/// A file's path as in the kernel: the file itself is not a link, parents may be.
pub(crate) fn real(file: &Path) -> PathBuf {
    let directory = file
        .parent()
        .and_then(|directory| fs::canonicalize(directory).ok());
    match (directory, file.file_name()) {
        (Some(directory), Some(name)) => directory.join(name),
        _ => file.to_owned(),
    }
}

/// The loop devices of this host that are backed by this file, which may be deleted.
pub(crate) fn holding(file: &Path) -> Result<Vec<LoopDevice>, FabricError> {
    let file = real(file);
    let mut found =
        all(Path::new(DEVICES)).map_err(|error| FabricError::failed("list loop devices", error))?;
    found.retain(|device| device.file == file);
    Ok(found)
}

/// The loop devices that are backed by another loop device, given as a file with its number.
pub(crate) fn over(below: &LoopDevice) -> Result<Vec<LoopDevice>, FabricError> {
    let failed = |error: io::Error| FabricError::failed(format!("look at {}", below.path()), error);
    let number = fs::metadata(below.path()).map_err(failed)?.rdev();
    let mut found = all(Path::new(DEVICES)).map_err(failed)?;
    found.retain(|device| device.name != below.name && held_device(device) == Some(number));
    Ok(found)
}

/// The number of the block device that backs a loop device; 0 if the backing is a file.
fn held_device(device: &LoopDevice) -> Option<u64> {
    /// `LOOP_GET_STATUS64` of linux/loop.h.
    const GET_STATUS: u32 = 0x4C05;
    /// `struct loop_info64`: the number is its third field, `lo_rdevice`.
    #[repr(C)]
    struct Status {
        before: [u64; 2],
        held_device: u64,
        after: [u8; 208],
    }
    let file = fs::File::open(device.path()).ok()?;
    #[expect(unsafe_code, reason = "no library has this call")]
    // SAFETY: the kernel fills the 232 bytes of the structure; all values are valid.
    let status = unsafe { ioctl(&file, Getter::<GET_STATUS, Status>::new()) };
    status.ok().map(|status| status.held_device)
}

/// Waits until no device is backed by the file any more. Returns one that still is after that time.
pub(crate) async fn released(
    env: &Env,
    within: Duration,
    holding: impl Fn() -> Result<Vec<LoopDevice>, FabricError>,
) -> Result<Option<LoopDevice>, FabricError> {
    let deadline = env.clock.monotonic() + within;
    while let Some(device) = holding()?.into_iter().next() {
        if env.clock.monotonic() >= deadline {
            return Ok(Some(device));
        }
        env.clock.sleep(LOOK).await;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_in_use_is_found_by_its_loop_device() {
        let devices = tempfile::tempdir().unwrap();
        let put = |name: &str, files: &[(&str, &str)]| {
            let place = devices.path().join(name);
            fs::create_dir_all(place.join("loop")).unwrap();
            for (file, text) in files {
                fs::write(place.join(file), text).unwrap();
            }
        };
        put("loop0", &[("loop/backing_file", "/a/other.img\n")]);
        put(
            "loop1",
            &[
                ("loop/backing_file", "/a/disk.img\n"),
                ("loop/autoclear", "0\n"),
                ("size", "131072\n"),
            ],
        );
        put(
            "loop2",
            &[
                ("loop/backing_file", "/a/gone.img (deleted)\n"),
                ("loop/autoclear", "1\n"),
            ],
        );
        put("loop3", &[("size", "0\n")]);
        put("loop4", &[("loop/backing_file", "")]);
        put("vda", &[("size", "131072\n")]);
        let device = |name: &str, file: &str| LoopDevice {
            name: name.into(),
            file: file.into(),
            deleted: false,
            bytes: 0,
            leaving: false,
        };
        let expected = [
            device("loop0", "/a/other.img"),
            LoopDevice {
                bytes: 64 << 20,
                ..device("loop1", "/a/disk.img")
            },
            LoopDevice {
                deleted: true,
                leaving: true,
                ..device("loop2", "/a/gone.img")
            },
        ];
        assert_eq!(all(devices.path()).unwrap(), expected);
        assert_eq!(expected[1].path(), "/dev/loop1");
        assert_eq!(all(&devices.path().join("none")).unwrap(), []);
    }

    #[test]
    fn a_file_is_named_as_the_kernel_names_it() {
        let place = tempfile::tempdir().unwrap();
        let real_place = fs::canonicalize(place.path()).unwrap();
        let (there, link) = (real_place.join("there"), real_place.join("link"));
        fs::create_dir(&there).unwrap();
        std::os::unix::fs::symlink(&there, &link).unwrap();
        // Also for a missing file.
        assert_eq!(real(&link.join("disk.img")), there.join("disk.img"));
        let nowhere = Path::new("/nowhere/at/all/disk.img");
        assert_eq!(real(nowhere), nowhere);
    }

    #[tokio::test]
    async fn a_device_that_does_not_let_go_is_named() {
        let env = Env::system();
        let device = LoopDevice {
            name: "loop7".into(),
            file: "/a/disk.img".into(),
            deleted: false,
            bytes: 0,
            leaving: true,
        };
        let held = || Ok(vec![device.clone()]);
        assert_eq!(released(&env, LOOK, held).await.unwrap(), Some(device.clone()));
        let asked = std::cell::Cell::new(0);
        let soon = || {
            asked.set(asked.get() + 1);
            Ok(if asked.get() < 3 {
                vec![device.clone()]
            } else {
                Vec::new()
            })
        };
        assert_eq!(released(&env, Duration::from_secs(60), soon).await.unwrap(), None);
        assert_eq!(asked.get(), 3);
    }
}
