//! Copies of volumes, each with the state of its source at one moment.
//!
//! A volume without a loop device is copied as it is. A mounted filesystem is frozen meanwhile: the freeze writes
//! cached data to the file and completes the journal, and later writes wait. All machines share the host's kernel,
//! which has one filesystem for a device: it is mounted here as well, in a separate mount namespace, and frozen
//! there. A share is always frozen, because machines may mount it at any time.
//!
//! Always true: a shell freezes, copies and unfreezes; it continues when the service is killed. A killed shell leaves
//! the filesystem frozen, until the next attempt or the deletion of the copy.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use fabric_api::FabricError;

use crate::{
    exec, files,
    loop_device::{self, LoopDevice},
};

/// The mount point of the source's filesystem, in the directory of the copy; mounted in a separate mount namespace
/// only.
pub(crate) const FROZEN: &str = "frozen";

/// Time limit for the copy of a frozen volume, in seconds: all writes to it wait meanwhile.
const FREEZE: u32 = 30;

/// Copies a volume's file in its state at one moment. The caller holds the source's lock. `shared`: the source is a
/// share. Fast on filesystems with shared extents.
pub(crate) fn copy(from: &Path, to: &Path, shared: bool) -> Result<(), FabricError> {
    let act = format!("copy {}", from.display());
    let options = ["--reflink=auto", "--sparse=always", "--"];
    match loop_device::holding(from)?.first() {
        None => {
            let mut command = Command::new("cp");
            run(&act, command.args(options).args([from, to]))
        }
        Some(device) if shared || device.is_mounted() => {
            let place = to.with_file_name(FROZEN);
            files::make_dir(&place)?;
            let script = format!(
                "{MOUNT}\
                 trap 'fsfreeze --unfreeze \"$2\" || true' EXIT\n\
                 trap 'exit 1' HUP INT TERM\n\
                 fsfreeze --freeze \"$2\"\n\
                 timeout --signal=KILL {FREEZE} cp {} \"$3\" \"$4\" && exit 0\n\
                 code=$?\n\
                 [ $code = 137 ] && echo \"the copy of a volume in use takes more than {FREEZE} s: end the pods that use it\" >&2\n\
                 exit $code\n",
                options.join(" ")
            );
            let copied = run(&act, alone(&script, device, &place).args([from, to]));
            // In the host's mount namespace, nothing is mounted there.
            let _removed = fs::remove_dir(&place);
            copied
        }
        Some(_) => Err(FabricError::failed(
            act,
            "a machine has it without a mounted filesystem, so that it cannot be frozen. It is copied once no machine has it: end the pods \
             that use it",
        )),
    }
}

/// The shell commands that mount the filesystem of the device `$1` at `$2`. If it is mounted elsewhere, this is the same
/// filesystem.
const MOUNT: &str = "set -e\nmount -t ext4 -o noatime \"$1\" \"$2\"\n";

/// A shell in a separate mount namespace.
fn alone(script: &str, device: &LoopDevice, place: &Path) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"])
        .arg(device.path())
        .arg(place);
    command
}

/// Unfreezes the filesystem that an interrupted copy left frozen; another one is left as it is.
pub(crate) fn thaw(image: &Path, place: &Path) -> Result<(), FabricError> {
    for device in loop_device::holding(image)? {
        if device.is_mounted() {
            files::make_dir(place)?;
            let script = format!("{MOUNT}fsfreeze --unfreeze \"$2\"\n");
            if let Err(error) = run("let a volume be written to", &mut alone(&script, &device, place)) {
                tracing::debug!(%error, "a volume was not frozen");
            }
        }
    }
    Ok(())
}

/// Runs a program to its end.
fn run(act: &str, command: &mut Command) -> Result<(), FabricError> {
    let failed = |why: String| FabricError::failed(act, why);
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .env("PATH", exec::PATH)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(format!("{program} cannot be started: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = exec::complaint(&String::from_utf8_lossy(&output.stderr));
    Err(failed(format!("{program} ended with {}: {said}", output.status)))
}
