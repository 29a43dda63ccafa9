//! Copies of volumes: each as its source is at one moment.
//!
//! A volume that nobody has is copied as it is. One whose filesystem is mounted is frozen meanwhile: what programs have written is on it then, its
//! journal is closed, and whoever writes waits. All machines are of one kernel, which has one filesystem for one device: it is mounted here as
//! well, in a namespace of its own, and is the one that is frozen.
//!
//! Always true: a shell freezes, copies and lets go again, and goes on when the service is killed; one that is killed itself leaves the
//! filesystem frozen, which the next try, or the deletion of the copy, undoes.

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

/// In the directory of a copy that is being made: where its source's filesystem is mounted to be frozen, in a namespace of its own.
pub(crate) const FROZEN: &str = "frozen";

/// For so long nothing can be written to a volume that is copied while it is used, in seconds. Whoever writes waits, and gives up after a while.
const FREEZE: u32 = 30;

/// Copies a volume's file as it is at one moment. Nobody gets or loses the volume meanwhile. It takes no time where the host's filesystem lets both
/// share what is in them.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<(), FabricError> {
    let act = format!("copy {}", from.display());
    let options = ["--reflink=auto", "--sparse=always", "--"];
    match loop_device::holding(from)?.first() {
        None => {
            let mut command = Command::new("cp");
            run(&act, command.args(options).args([from, to]))
        }
        Some(device) if device.is_mounted() => {
            let place = to.with_file_name(FROZEN);
            files::make_dir(&place)?;
            let script = format!(
                "{MOUNT}\
                 trap 'fsfreeze --unfreeze \"$2\" || true' EXIT\n\
                 trap 'exit 1' HUP INT TERM\n\
                 fsfreeze --freeze \"$2\"\n\
                 timeout --signal=KILL {FREEZE} cp {} \"$3\" \"$4\" && exit 0\n\
                 code=$?\n\
                 [ $code = 137 ] && echo \"while it is used, it has to be copied within {FREEZE} s: end the pods that use it\" >&2\n\
                 exit $code\n",
                options.join(" ")
            );
            let copied = run(&act, alone(&script, device, &place).args([from, to]));
            // Nothing is mounted there on the host.
            let _removed = fs::remove_dir(&place);
            copied
        }
        Some(_) => Err(FabricError::failed(
            act,
            "a machine has it, and uses it as a device or not yet: when what is on it is of one moment cannot be told. It is copied once no \
             machine has it: end the pods that use it",
        )),
    }
}

/// The shell commands that mount the filesystem of the device `$1` at `$2`. It is mounted elsewhere as well, and is the same one.
const MOUNT: &str = "set -e\nmount -t ext4 -o noatime \"$1\" \"$2\"\n";

/// A shell in a mount namespace of its own, which nobody sees into.
fn alone(script: &str, device: &LoopDevice, place: &Path) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"])
        .arg(device.path())
        .arg(place);
    command
}

/// Lets a filesystem be written to that a copy has left frozen which was cut short. One that is not frozen is left as it is.
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
