//! A machine's disk as a separate filesystem in a sparse file: a machine that fills it harms no other.
//!
//! Always true:
//! * the file is mounted only in the mount namespace that its machine starts in: mount and loop device end
//!   with the machine;
//! * it is mounted once at a time. Two mounts of one file would destroy it, so a machine waits until the
//!   kernel has released the previous one.
//!
//! Not project quotas of XFS or ext4: the owner of a file may assign it to another project, from every
//! container without a user namespace.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use base_env::Env;
use fabric_api::FabricError;

use crate::{exec, files, loop_device};

/// Mount point in a machine's directory.
pub(crate) const MOUNTED: &str = "disk";

/// Time limit for the kernel's release of the file.
const RELEASE: Duration = Duration::from_secs(20);

/// The file of a machine's disk; missing if the disk has no limit.
pub(crate) fn of(dir: &Path) -> PathBuf {
    dir.join("disk.img")
}

/// Whether this host supports disk limits and volumes; otherwise the missing requirement.
pub fn possible() -> Result<(), &'static str> {
    let programs = ["mkfs.ext4", "losetup", "findmnt"];
    let there = |program: &&str| {
        exec::PATH
            .split(':')
            .any(|place| Path::new(place).join(program).exists())
    };
    if !Path::new("/dev/loop-control").exists() {
        return Err("there is no /dev/loop-control: load the kernel module 'loop'");
    }
    if !programs.iter().all(there) {
        return Err("mkfs.ext4, losetup or findmnt is missing: install e2fsprogs, mount and util-linux");
    }
    Ok(())
}

/// Creates an empty filesystem of this number of GiB.
pub(crate) fn make(dir: &Path, gib: u32) -> Result<(), FabricError> {
    let act = "make a disk";
    let failed = |why: String| FabricError::failed(act, why);
    files::make_dir(&dir.join(MOUNTED))?;
    let (file, new) = (of(dir), dir.join("disk.new"));
    fs::File::create(&new)
        .and_then(|file| file.set_len(u64::from(gib) << 30))
        .map_err(|error| failed(error.to_string()))?;
    // Inodes for small files as in container images.
    format(act, &["-i", "32768", "-J", "size=64"], &new)?;
    files::rename(&new, &file)
}

/// Creates an empty filesystem in a file, with additional options.
fn format(act: &str, options: &[&str], file: &Path) -> Result<(), FabricError> {
    let failed = |why: String| FabricError::failed(act, why);
    let output = Command::new("mkfs.ext4")
        .env("PATH", exec::PATH)
        .args(["-q", "-F", "-m", "0"])
        // Tables and journal are initialised when first used.
        .args(["-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"])
        .args(options)
        .arg(file)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(format!("mkfs.ext4 cannot be started: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = exec::complaint(&String::from_utf8_lossy(&output.stderr));
    Err(failed(format!("mkfs.ext4 ended with {}: {said}", output.status)))
}

/// Creates the empty filesystem of a share in a file. Every user may write to its root, as on Azure's shares, whose
/// files have no owners.
pub(crate) fn format_share(file: &Path) -> Result<(), FabricError> {
    let act = "make the filesystem of a share";
    format(act, &[], file)?;
    // Without a mount: its loop device would be released only some time later.
    debugfs(act, &["-w", "-R", "set_inode_field <2> mode 040777"], file)?;
    // debugfs exits with 0 also when a command fails.
    let told = debugfs(act, &["-R", "stat <2>"], file)?;
    if told.split_whitespace().any(|word| word == "0777") {
        Ok(())
    } else {
        Err(FabricError::failed(
            act,
            "debugfs did not change the mode of its root",
        ))
    }
}

/// Runs debugfs on the filesystem in a file, and returns its output.
fn debugfs(act: &str, arguments: &[&str], file: &Path) -> Result<String, FabricError> {
    let failed = |why: String| FabricError::failed(act, why);
    let output = Command::new("debugfs")
        .env("PATH", exec::PATH)
        .args(arguments)
        .arg(file)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(format!("debugfs cannot be started, install e2fsprogs: {error}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = exec::complaint(&String::from_utf8_lossy(&output.stderr));
    Err(failed(format!("debugfs ended with {}: {said}", output.status)))
}

/// Shell commands that mount it and create directories (name and mode) in it: `$1` is the file, `$2` the
/// mount point.
pub(crate) fn script(directories: &[(&str, u32)]) -> String {
    // `discard`: deleted blocks are returned to the host. `noinit_itable`: tables stay sparse until they are
    // used.
    let mut script = String::from(
        "mount -t ext4 -o loop,noatime,discard,noinit_itable \"$1\" \"$2\"\n\
         # Without this each page is cached twice. Not every filesystem can.\n\
         losetup --direct-io=on \"$(findmnt -n -o SOURCE \"$2\")\" 2>/dev/null || true\n",
    );
    for (name, mode) in directories {
        script += &format!("mkdir -p -m {mode:o} \"$2/{name}\"\n");
    }
    script
}

/// Waits until no loop device holds the file: the one of the machine's last start ends with its last process.
pub(crate) async fn released(env: &Env, dir: &Path) -> Result<(), FabricError> {
    let file = of(dir);
    // A deleted file belongs to an earlier disk.
    let holding = || {
        loop_device::holding(&file).map(|mut devices| {
            devices.retain(|device| !device.deleted);
            devices
        })
    };
    match loop_device::released(env, RELEASE, holding).await? {
        None => Ok(()),
        Some(device) => Err(FabricError::failed(
            "mount a machine's disk",
            format!("{} still holds {}", device.path(), file.display()),
        )),
    }
}
