//! The agent binary in machines.
//!
//! Always true: each machine has its own copy, which no other machine can write to (its root can, by changing
//! the mount); no machine gets a file that another one could have written. The host never follows links that
//! a machine put into its directory.

use std::path::Path;

use fabric_api::{FabricError, MachineId};
use sha2::{Digest as _, Sha256};

use crate::{Inner, disk_pool::blocking, files};

/// Directory in a machine's directory, bind-mounted into the machine.
pub(crate) const DIRECTORY: &str = "agent";
/// File name of the binary in it.
pub(crate) const PROGRAM: &str = "landfall-agent";
/// File in a machine's directory: SHA-256 of the last written binary.
const PUT: &str = "agent.sha256";

/// SHA-256 in hexadecimal digits.
pub(crate) fn sha256(program: &[u8]) -> String {
    Sha256::digest(program)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Writes the binary into a machine's directory. Atomically: a running machine sees the old or the new one.
pub(crate) fn put(dir: &Path, program: &[u8], sum: &str) -> Result<(), FabricError> {
    let place = dir.join(DIRECTORY);
    files::make_dir(&place)?;
    // Written outside the mount, where the machine cannot see it. Not durable: each start writes it again.
    let outside = dir.join(PROGRAM);
    let failed = |error| FabricError::failed(format!("write {}", outside.display()), error);
    base_files::replace(&outside, program, 0o755).map_err(failed)?;
    let inside = place.join(PROGRAM);
    if std::fs::rename(&outside, &inside).is_err() {
        // The machine has put a directory in its place.
        files::remove_tree(&inside)?;
        std::fs::rename(&outside, &inside).map_err(failed)?;
    }
    let put = dir.join(PUT);
    base_files::replace(&put, sum.as_bytes(), 0o600)
        .map_err(|error| FabricError::failed(format!("write {}", put.display()), error))
}

impl Inner {
    /// Offers this release's agent to running machines.
    pub(crate) async fn offer_agent(&self) -> Result<(), FabricError> {
        let act = "put the agent into machines";
        let names = files::names_in(&self.machines_dir()).map_err(|error| FabricError::failed(act, error))?;
        let mut sharing = false;
        for name in names {
            let id = MachineId(name);
            let _lock = self.locks.hold(&format!("machine {id}")).await;
            let dir = self.machine_dir(&id);
            if !dir.join(DIRECTORY).exists() {
                sharing |= dir.exists();
                continue;
            }
            if files::read(&dir.join(PUT))?.as_ref() == Some(&self.agent_sha256) {
                continue;
            }
            let (program, sum) = (self.config.agent.clone(), self.agent_sha256.clone());
            blocking(act, move || put(&dir, &program, &sum)).await?;
        }
        let Some(shared) = self.config.shared_agent.clone() else {
            return Ok(());
        };
        let program = self.config.agent.clone();
        blocking(act, move || share(&shared, &program, sharing)).await
    }
}

/// Maintains the directory that machines of earlier releases share.
fn share(shared: &Path, program: &[u8], sharing: bool) -> Result<(), FabricError> {
    let Some(directory) = shared.parent().filter(|directory| directory.exists()) else {
        return Ok(());
    };
    if !sharing {
        return files::remove_tree(directory);
    }
    if std::fs::read(shared).is_ok_and(|present| present == program) {
        return Ok(());
    }
    base_files::write(shared, program, 0o755)
        .map_err(|error| FabricError::failed(format!("write {}", shared.display()), error))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_a_machine_has_put_there_is_replaced_and_never_followed() {
        let place = tempfile::tempdir().unwrap();
        let (dir, victim) = (place.path().join("m1"), place.path().join("victim"));
        fs::create_dir(&dir).unwrap();
        fs::write(&victim, "precious").unwrap();
        let program = dir.join("agent/landfall-agent");
        put(&dir, b"one", "1").unwrap();
        assert_eq!(fs::read(&program).unwrap(), b"one");
        fs::remove_file(&program).unwrap();
        std::os::unix::fs::symlink(&victim, &program).unwrap();
        std::os::unix::fs::symlink(&victim, dir.join("agent/.landfall-agent.new")).unwrap();
        put(&dir, b"two", "2").unwrap();
        assert_eq!(fs::read(&program).unwrap(), b"two");
        fs::remove_file(&program).unwrap();
        fs::create_dir_all(program.join("deep")).unwrap();
        put(&dir, b"three", "3").unwrap();
        assert_eq!(fs::read(&program).unwrap(), b"three");
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert_eq!(fs::read_to_string(dir.join(PUT)).unwrap(), "3");
    }

    #[test]
    fn a_shared_directory_goes_with_the_last_machine_that_sees_it() {
        let place = tempfile::tempdir().unwrap();
        let shared = place.path().join("agent/landfall-agent");
        share(&shared, b"new", true).unwrap();
        assert!(!shared.exists(), "there never was one");
        fs::create_dir(place.path().join("agent")).unwrap();
        fs::write(&shared, "old").unwrap();
        share(&shared, b"new", true).unwrap();
        assert_eq!(fs::read(&shared).unwrap(), b"new");
        share(&shared, b"new", false).unwrap();
        assert!(!place.path().join("agent").exists());
    }
}
