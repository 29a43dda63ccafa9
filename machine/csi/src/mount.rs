//! Mounts: listing, making and removing them.

use std::{
    fs,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
};

use rustix::mount::{MountFlags, UnmountFlags, mount_bind, mount_remount, unmount};

use crate::device::Number;

/// The kernel's list of mounts.
pub(crate) const MOUNTS: &str = "/proc/self/mountinfo";

/// A mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    /// The device of its filesystem.
    pub(crate) device: Number,
    /// The mount point.
    pub(crate) at: PathBuf,
    /// The options of the mount itself, without those of its filesystem.
    pub(crate) options: Vec<String>,
}

impl Mount {
    /// Whether the mount is read-only.
    pub(crate) fn is_read_only(&self) -> bool {
        self.options.iter().any(|option| option == "ro")
    }

    /// Its options as mount flags.
    fn flags(&self) -> MountFlags {
        let flags = self.options.iter().map(|option| match option.as_str() {
            "ro" => MountFlags::RDONLY,
            "nosuid" => MountFlags::NOSUID,
            "nodev" => MountFlags::NODEV,
            "noexec" => MountFlags::NOEXEC,
            "noatime" => MountFlags::NOATIME,
            "nodiratime" => MountFlags::NODIRATIME,
            "relatime" => MountFlags::RELATIME,
            "nosymfollow" => MountFlags::NOSYMFOLLOW,
            _ => MountFlags::empty(),
        });
        flags.fold(MountFlags::empty(), |all, flag| all | flag)
    }
}

/// Reads `/proc/self/mountinfo`: mounts in the order of their creation.
pub(crate) fn read(path: &Path) -> Result<Vec<Mount>, String> {
    let text = fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(parsed).collect()
}

/// `36 35 98:0 /root /mount/point rw,noatime master:1 - ext4 /dev/device rw`.
fn parsed(line: &[u8]) -> Result<Mount, String> {
    let broken = || format!("'{}' is not a mount", String::from_utf8_lossy(line));
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let [_, _, device, _, at, options, ..] = fields[..] else {
        return Err(broken());
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Mount {
        device: text(device).parse().map_err(|_error| broken())?,
        at: unescaped(at),
        options: text(options).split(',').map(str::to_owned).collect(),
    })
}

/// Decodes blanks and similar characters, written as a backslash and three octal digits.
fn unescaped(text: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        let code = match after {
            [high @ b'0'..=b'3', middle @ b'0'..=b'7', low @ b'0'..=b'7', ..] if *first == b'\\' => {
                Some(((high - b'0') << 6) | ((middle - b'0') << 3) | (low - b'0'))
            }
            _ => None,
        };
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

/// The visible mount at a path: the last of several.
pub(crate) fn top<'m>(mounts: &'m [Mount], path: &Path) -> Option<&'m Mount> {
    mounts.iter().rev().find(|mount| mount.at == path)
}

/// Bind-mounts a path at another path.
pub(crate) fn bind(from: &Path, to: &Path) -> Result<(), String> {
    mount_bind(from, to).map_err(|error| {
        format!(
            "cannot bind {} to {}: {}",
            from.display(),
            to.display(),
            std::io::Error::from(error)
        )
    })
}

/// Makes this mount read-only and keeps its other options.
pub(crate) fn make_read_only(mount: &Mount) -> Result<(), String> {
    let flags = mount.flags() | MountFlags::BIND | MountFlags::RDONLY;
    mount_remount(&mount.at, flags, "").map_err(|error| {
        format!(
            "cannot make {} read-only: {}",
            mount.at.display(),
            std::io::Error::from(error)
        )
    })
}

/// Removes the last mount at a path. None is success.
pub(crate) fn remove(path: &Path) -> Result<(), String> {
    match unmount(path, UnmountFlags::NOFOLLOW) {
        // The path does not exist, or nothing is mounted there.
        Ok(()) | Err(rustix::io::Errno::NOENT | rustix::io::Errno::INVAL) => Ok(()),
        Err(error) => Err(format!(
            "cannot unmount {}: {}",
            path.display(),
            std::io::Error::from(error)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = "\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro
40 22 7:3 / /var/lib/kubelet/a\\040b\\134 rw,nosuid,noatime shared:7 master:2 - ext4 /dev/landfall/volumes/x rw
41 22 0:5 /landfall/volumes/x /var/lib/kubelet/device rw - tmpfs tmpfs rw,size=65536k
42 22 7:4 / /var/lib/kubelet/a\\040b\\134 ro,relatime - ext4 /dev/landfall/volumes/y rw
";

    #[test]
    fn mounts_are_read_as_the_kernel_writes_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mountinfo");
        fs::write(&path, INFO).unwrap();
        let mounts = read(&path).unwrap();
        assert_eq!(mounts.len(), 4);
        let strange = Path::new("/var/lib/kubelet/a b\\");
        let last = top(&mounts, strange).unwrap();
        assert_eq!(last.device, Number { major: 7, minor: 4 });
        assert!(last.is_read_only());
        let first = mounts.iter().find(|mount| mount.at == strange).unwrap();
        assert!(!first.is_read_only());
        assert_eq!(first.flags(), MountFlags::NOSUID | MountFlags::NOATIME);
        assert!(top(&mounts, Path::new("/var/lib/kubelet")).is_none());
        fs::write(&path, "22 1 8:1\n").unwrap();
        assert!(read(&path).unwrap_err().contains("22 1 8:1"));
    }

    #[test]
    fn this_process_has_mounts() {
        let mounts = read(Path::new(MOUNTS)).unwrap();
        assert!(top(&mounts, Path::new("/")).is_some());
    }

    #[test]
    fn where_nothing_is_mounted_nothing_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let outcome = remove(&directory.path().join("none"));
        // Without root the kernel refuses before any check.
        assert!(
            outcome.is_ok() || outcome.unwrap_err().contains("not permitted"),
            "nothing was there"
        );
    }
}
