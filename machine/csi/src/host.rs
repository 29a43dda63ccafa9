//! Access to the machine's devices and mounts.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::{
    fs::{Mode, OFlags, open},
    io::Errno,
};

use crate::{
    content::{self, Content},
    device::{self, Device, Number},
    mount::{self, Mount},
    node::Step,
};

/// The file with the capabilities of this process.
const STATUS: &str = "/proc/self/status";
/// The capability that the kernel requires to grow a mounted filesystem. Not every host grants it.
const SYS_RESOURCE: u32 = 24;
/// The largest exit code of `e2fsck` that means no errors are left.
const MENDED: i32 = 1;
/// The length of a failed program's output that is kept, from its end.
const SAID: usize = 500;

/// The usage of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Usage {
    /// A device of this number of bytes.
    Device(u64),
    /// A filesystem: bytes, and inodes.
    Filesystem { bytes: Room, files: Room },
}

/// Total, used and free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) total: u64,
    pub(crate) used: u64,
    pub(crate) available: u64,
}

/// A machine, real or simulated.
pub(crate) trait Host: Send + Sync + 'static {
    /// The devices that hold a volume.
    fn devices(&self, id: &str) -> Result<Vec<Device>, String>;
    /// The size of a device.
    fn bytes(&self, number: Number) -> Result<u64, String>;
    /// The block device that a path is a node of.
    fn device_at(&self, path: &Path) -> Result<Option<Number>, String>;
    /// Creates the device node, if needed.
    fn make_node(&self, node: &Path, number: Number) -> Result<(), String>;
    /// Creates nodes of loop devices, which a kubelet needs for block volumes.
    fn make_loop_nodes(&self) -> Result<(), String>;
    /// Whether this process may grow a mounted filesystem.
    fn grows_mounted(&self) -> Result<bool, String>;
    /// The content of the device with this node.
    fn content(&self, node: &Path, bytes: u64) -> Result<Content, String>;
    /// All mounts.
    fn mounts(&self) -> Result<Vec<Mount>, String>;
    /// The usage of the volume at this path; `None`: no volume is there.
    fn usage(&self, path: &Path) -> Result<Option<Usage>, String>;
    /// Performs a step.
    fn perform(&self, step: &Step) -> Result<(), String>;
}

/// The machine that this program runs in.
pub(crate) struct Machine {
    sys: PathBuf,
    dev: PathBuf,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            sys: "/sys".into(),
            dev: "/dev".into(),
        }
    }
}

/// For `map_err`: names the action and the path.
fn failed(act: &str, path: &Path) -> impl FnOnce(io::Error) -> String {
    let what = format!("cannot {act} {}", path.display());
    move |error| format!("{what}: {error}")
}

impl Host for Machine {
    fn devices(&self, id: &str) -> Result<Vec<Device>, String> {
        device::of_volume(&self.sys, id).map_err(failed("look for devices in", &self.sys))
    }

    fn bytes(&self, number: Number) -> Result<u64, String> {
        let what = format!("cannot read the size of device {number}");
        device::bytes(&self.sys, number).map_err(|error| format!("{what}: {error}"))
    }

    fn device_at(&self, path: &Path) -> Result<Option<Number>, String> {
        device::at(path).map_err(failed("look at", path))
    }

    fn make_node(&self, node: &Path, number: Number) -> Result<(), String> {
        device::make_node(node, number).map_err(failed("make the device node", node))
    }

    fn make_loop_nodes(&self) -> Result<(), String> {
        device::make_loop_nodes(&self.sys, &self.dev)
            .map_err(failed("make nodes of loop devices in", &self.dev))
    }

    fn grows_mounted(&self) -> Result<bool, String> {
        let status = Path::new(STATUS);
        let text = fs::read_to_string(status).map_err(failed("read", status))?;
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("CapEff:"));
        let held = lines.next().map(|held| u64::from_str_radix(held.trim(), 16));
        let held = held.and_then(Result::ok);
        let held = held.ok_or_else(|| format!("{STATUS} has no capabilities"))?;
        Ok(held & (1 << SYS_RESOURCE) != 0)
    }

    fn content(&self, node: &Path, bytes: u64) -> Result<Content, String> {
        let device = File::open(node).map_err(failed("open", node))?;
        content::read(&device, bytes, &name(node)).map_err(failed("read", node))
    }

    fn mounts(&self) -> Result<Vec<Mount>, String> {
        mount::read(Path::new(mount::MOUNTS))
    }

    fn usage(&self, path: &Path) -> Result<Option<Usage>, String> {
        if let Some(number) = self.device_at(path)? {
            return self.bytes(number).map(|bytes| Some(Usage::Device(bytes)));
        }
        // Otherwise the usage of the machine's own disk would be reported.
        if mount::top(&self.mounts()?, path).is_none() {
            return Ok(None);
        }
        let seen = rustix::fs::statvfs(path)
            .map_err(io::Error::from)
            .map_err(failed("look at", path))?;
        let bytes = |blocks: u64| blocks.saturating_mul(seen.f_frsize);
        Ok(Some(Usage::Filesystem {
            bytes: Room {
                total: bytes(seen.f_blocks),
                used: bytes(seen.f_blocks.saturating_sub(seen.f_bfree)),
                available: bytes(seen.f_bavail),
            },
            files: Room {
                total: seen.f_files,
                used: seen.f_files.saturating_sub(seen.f_ffree),
                available: seen.f_ffree,
            },
        }))
    }

    fn perform(&self, step: &Step) -> Result<(), String> {
        match step {
            Step::Format(node) => format(node),
            Step::Mount { node, to, options } => mount_filesystem(node, to, options),
            Step::Check(node) => check(node),
            Step::Grow(node) => grow(node),
            // If another machine mounts it meanwhile, either that mount or the programs here fail: the kubelet
            // retries.
            Step::GrowAlone(node) if is_free(node)? => check(node).and_then(|()| grow(node)),
            Step::GrowAlone(_) => Ok(()),
            Step::Directory(path) => fs::create_dir_all(path).map_err(failed("make the directory", path)),
            Step::File(path) => make_file(path),
            Step::Bind { from, to } => mount::bind(from, to),
            Step::ReadOnly(path) => match mount::top(&self.mounts()?, path) {
                Some(mount) => mount::make_read_only(mount),
                None => Err(format!("nothing is mounted at {}", path.display())),
            },
            Step::Unmount(path) => mount::remove(path),
            Step::Remove(path) => remove(path),
        }
    }
}

fn check(node: &Path) -> Result<(), String> {
    let arguments = [OsStr::new("-f"), OsStr::new("-p"), node.as_os_str()];
    run_to("e2fsck", &arguments, MENDED)
}

fn grow(node: &Path) -> Result<(), String> {
    run("resize2fs", &[node.as_os_str()])
}

/// Whether a device is not mounted in any mount namespace: the kernel then permits an exclusive open.
fn is_free(node: &Path) -> Result<bool, String> {
    match open(
        node,
        OFlags::RDONLY | OFlags::EXCL | OFlags::CLOEXEC,
        Mode::empty(),
    ) {
        Ok(_closed) => Ok(true),
        Err(Errno::BUSY) => Ok(false),
        Err(error) => Err(failed("open", node)(error.into())),
    }
}

/// The name of a volume in its mark: the name of its node.
fn name(node: &Path) -> String {
    node.file_name()
        .unwrap_or(node.as_os_str())
        .to_string_lossy()
        .into_owned()
}

/// An interrupted format starts again, see [`content`].
fn format(node: &Path) -> Result<(), String> {
    let name = name(node);
    let opened = || {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        options.open(node).map_err(failed("open", node))
    };
    let device = opened()?;
    let bytes = io::Seek::seek(&mut &device, io::SeekFrom::End(0)).map_err(failed("read", node))?;
    content::mark(&device, bytes, &name).map_err(failed("write to", node))?;
    drop(device);
    let options = ["-q", "-F", "-m", "0"].map(OsStr::new);
    // Tables and journal are not initialised before use, and old blocks are not read: the host's file stays
    // sparse.
    let extended = ["-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"].map(OsStr::new);
    let arguments = [&options[..], &extended[..], &[node.as_os_str()]].concat();
    run("mkfs.ext4", &arguments)?;
    content::unmark(&opened()?, bytes, &name).map_err(failed("write to", node))
}

fn mount_filesystem(node: &Path, to: &Path, options: &[String]) -> Result<(), String> {
    fs::create_dir_all(to).map_err(failed("make the directory", to))?;
    let options = options.join(",");
    let kind = ["-t", "ext4", "-o"].map(OsStr::new);
    let places = [OsStr::new(&options), node.as_os_str(), to.as_os_str()];
    run("mount", &[kind, places].concat())
}

fn make_file(path: &Path) -> Result<(), String> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(failed("make the directory", directory))?;
    }
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o600);
    options.open(path).map(drop).map_err(failed("make", path))
}

/// A directory only when it is empty, so that no data is deleted.
fn remove(path: &Path) -> Result<(), String> {
    let removed = match fs::symlink_metadata(path) {
        Ok(seen) if seen.is_dir() => fs::remove_dir(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Removes a socket left by an earlier run; anything else under its name stays and is an error.
pub(crate) fn remove_socket(path: &Path) -> Result<(), String> {
    match fs::symlink_metadata(path) {
        Ok(seen) if seen.file_type().is_socket() => remove(path),
        Ok(_) => Err(format!("{} exists and is not a socket", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("look at", path)(error)),
    }
}

fn run(program: &str, arguments: &[&OsStr]) -> Result<(), String> {
    run_to(program, arguments, 0)
}

/// Runs a program; an exit code up to `most` is success.
fn run_to(program: &str, arguments: &[&OsStr], most: i32) -> Result<(), String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{program} cannot be started: {error}"))?;
    if output.status.code().is_some_and(|code| code <= most) {
        return Ok(());
    }
    // Some programs report errors on stdout.
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let said: Vec<char> = said.trim().chars().collect();
    let said: String = said[said.len().saturating_sub(SAID)..].iter().collect();
    Err(format!("{program} ended with {}: {said}", output.status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_fails_is_quoted() {
        run("true", &[]).unwrap();
        let arguments = ["-c", "echo what is wrong >&2; exit 3"].map(OsStr::new);
        let said = run("sh", &arguments).unwrap_err();
        assert!(said.contains('3') && said.contains("what is wrong"), "{said}");
        assert!(
            run("no-such-program", &[])
                .unwrap_err()
                .contains("cannot be started")
        );
    }

    #[test]
    fn what_is_made_is_made_once_and_only_what_is_empty_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let machine = Machine::default();
        let path = |name: &str| directory.path().join(name);
        for step in [Step::Directory(path("a/b")), Step::File(path("c/d"))] {
            machine.perform(&step).unwrap();
            machine.perform(&step).unwrap();
        }
        assert!(path("a/b").is_dir() && path("c/d").is_file());
        let full = machine.perform(&Step::Remove(path("a"))).unwrap_err();
        assert!(full.contains("remove"), "{full}");
        for step in [Step::Remove(path("a/b")), Step::Remove(path("c/d"))] {
            machine.perform(&step).unwrap();
            machine.perform(&step).unwrap();
        }
        assert!(!path("a/b").exists() && !path("c/d").exists());
        let none = machine.perform(&Step::ReadOnly(path("a"))).unwrap_err();
        assert!(none.contains("nothing is mounted"), "{none}");
    }

    #[test]
    fn a_directory_that_is_no_mount_has_no_usage() {
        let directory = tempfile::tempdir().unwrap();
        let machine = Machine::default();
        assert_eq!(machine.usage(directory.path()).unwrap(), None);
        assert_eq!(machine.usage(&directory.path().join("none")).unwrap(), None);
        let Some(Usage::Filesystem { bytes, files }) = machine.usage(Path::new("/")).unwrap() else {
            panic!("the root is mounted")
        };
        assert!(bytes.total > 0 && bytes.used <= bytes.total && bytes.available <= bytes.total);
        assert!(files.used <= files.total);
    }
}
