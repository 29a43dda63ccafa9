//! Calls of `runc`.

use std::{fs, path::Path, time::Duration};

use fabric_api::{FabricError, MachineId};
use serde::Deserialize;

use crate::{Inner, disk, disk_image, exec, files};

/// The time that a machine may take to shut down before it is killed.
const STOP_GRACE: Duration = Duration::from_secs(30);

/// Number of attempts to list containers while some are deleted.
const LISTS: usize = 16;

/// Interval of checks for the end of a shut-down.
const STOP_LOOK: Duration = Duration::from_millis(20);

/// A container as listed by `runc`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Container {
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) pid: i32,
    pub(crate) status: String,
}

impl Container {
    /// Whether its first process runs. A frozen machine counts: it continues when it is thawed.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.status.as_str(), "running" | "paused")
    }
}

impl Inner {
    /// All containers of this stamp.
    pub(crate) async fn containers(&self) -> Result<Vec<Container>, FabricError> {
        let act = "list the machines";
        if !self.runc_dir().exists() {
            return Ok(Vec::new());
        }
        let root = self.runc_dir();
        let text = listed(&root, || self.runc(act, &["list", "--format", "json"])).await?;
        // `null` when there are none.
        let all: Option<Vec<Container>> =
            serde_json::from_str(&text).map_err(|error| FabricError::failed(act, error))?;
        Ok(all.unwrap_or_default())
    }

    /// The machine's container, if there is one.
    pub(crate) async fn container(&self, id: &MachineId) -> Result<Option<Container>, FabricError> {
        let name = self.names.container(id);
        // Saves a process in the usual case.
        if !self.runc_dir().join(&name).exists() {
            return Ok(None);
        }
        match self
            .runc(&format!("look at machine {id}"), &["state", &name])
            .await
        {
            Ok(text) => serde_json::from_str(&text)
                .map(Some)
                .map_err(|error| FabricError::failed(format!("look at machine {id}"), error)),
            // State that runc cannot read was interrupted while it was written: no container runs from it.
            Err(error) => {
                tracing::debug!(machine = %id, %error, "a container's state cannot be read");
                Ok(None)
            }
        }
    }

    /// Starts the machine from its bundle. Afterwards it is not a child process of the service.
    pub(crate) async fn start_container(
        &self,
        id: &MachineId,
        layers: &[std::path::PathBuf],
    ) -> Result<(), FabricError> {
        let act = format!("start machine {id}");
        let dir = self.machine_dir(id);
        let name = self.names.container(id);
        let log = dir.join("runc.log");
        files::remove(&log)?;
        files::make_dir(&self.runc_dir())?;
        disk::rotate_console(&dir)?;
        let disk::Mounts { image, overlay } = disk::mounts(&dir, layers);
        // Disk and overlay are mounted in a private mount namespace that ends with the machine. Standard
        // output and error stay connected until runc takes over, so that earlier errors are reported.
        let mut script = String::from("set -e\n");
        let (file, place) = match &image {
            Some((file, place)) => {
                disk_image::released(&self.env, &dir).await?;
                script += &disk_image::script(&disk::directories());
                (file.display().to_string(), place.display().to_string())
            }
            None => Default::default(),
        };
        script += "mount -t overlay -o \"$3\" overlay \"$4\"; console=$5; shift 5\nexec \"$@\" </dev/null >>\"$console\" 2>&1";
        let argv = [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "--",
            "sh",
            "-c",
            &script,
            "sh",
            &file,
            &place,
            &overlay,
            &dir.join(disk::ROOT).display().to_string(),
            &dir.join(disk::CONSOLE).display().to_string(),
            "runc",
            "--root",
            &self.runc_dir().display().to_string(),
            "--log",
            &log.display().to_string(),
            "--log-format",
            "json",
            "run",
            "--detach",
            "--no-new-keyring",
            "--bundle",
            &dir.join("bundle").display().to_string(),
            &name,
        ];
        exec::run(&self.env, &act, &argv, None)
            .await
            .map(drop)
            .map_err(|error| match complaints(&log) {
                Some(why) => FabricError::failed(act, format!("runc: {why}")),
                None => error,
            })
    }

    /// Requests the machine's shut-down and waits for it, for a bounded time.
    pub(crate) async fn shut_down(&self, id: &MachineId, container: &Container) -> Result<(), FabricError> {
        let name = self.names.container(id);
        let Some(started) = started_at(container.pid) else {
            return Ok(());
        };
        if let Err(error) = self
            .runc(&format!("stop machine {id}"), &["kill", &name, "TERM"])
            .await
        {
            // It may have ended by itself just now.
            return if started_at(container.pid) == Some(started) {
                Err(error)
            } else {
                Ok(())
            };
        }
        let deadline = self.env.clock.monotonic() + STOP_GRACE;
        while started_at(container.pid) == Some(started) {
            if self.env.clock.monotonic() >= deadline {
                tracing::warn!(machine = %id, grace = ?STOP_GRACE, "a machine did not shut down in time and is killed");
                break;
            }
            self.env.clock.sleep(STOP_LOOK).await;
        }
        Ok(())
    }

    /// Kills the container if it runs, and removes its state.
    pub(crate) async fn remove_container(&self, id: &MachineId) -> Result<(), FabricError> {
        let name = self.names.container(id);
        let state = self.runc_dir().join(&name);
        if !state.exists() {
            return Ok(());
        }
        if let Err(error) = self
            .runc(&format!("remove machine {id}"), &["delete", "--force", &name])
            .await
        {
            // Remaining processes are killed by control group; the state alone is useless.
            tracing::debug!(machine = %id, %error, "runc cannot remove a container");
        }
        Ok(())
    }

    /// Removes the state of a container whose processes are gone.
    pub(crate) fn forget_container(&self, id: &MachineId) -> Result<(), FabricError> {
        files::remove_tree(&self.runc_dir().join(self.names.container(id)))
    }

    async fn runc(&self, act: &str, arguments: &[&str]) -> Result<String, FabricError> {
        let root = self.runc_dir().display().to_string();
        let mut argv = vec!["runc", "--root", &root];
        argv.extend(arguments);
        exec::run(&self.env, act, &argv, None).await
    }
}

/// Repeats the list while containers are deleted: `runc list` fails when a container that it found in its
/// directory is deleted before it is read. Each further failure needs another deletion at that moment.
async fn listed<F: Future<Output = Result<String, FabricError>>>(
    root: &Path,
    mut list: impl FnMut() -> F,
) -> Result<String, FabricError> {
    for _ in 1..LISTS {
        match list().await {
            Err(error) if went_meanwhile(root, &error.to_string()) => {
                tracing::debug!(%error, "a container went while all were listed");
            }
            other => return other,
        }
    }
    list().await
}

/// Whether `runc` reports a missing file in the directory of its containers.
fn went_meanwhile(root: &Path, said: &str) -> bool {
    said.contains(&format!("stat {}/", root.display())) && said.contains("no such file or directory")
}

/// The start time of the process, in clock ticks since boot; `None` when it has ended. Distinguishes a
/// process from a later one with the same id.
fn started_at(pid: i32) -> Option<u64> {
    if pid <= 0 {
        return None;
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may contain any character.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// The errors in runc's log.
fn complaints(log: &Path) -> Option<String> {
    #[derive(Deserialize)]
    struct Line {
        level: String,
        msg: String,
    }
    let text = fs::read_to_string(log).ok()?;
    let lines: Vec<String> = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Line>(line).ok())
        .filter(|line| matches!(line.level.as_str(), "error" | "fatal"))
        .map(|line| line.msg)
        .collect();
    (!lines.is_empty()).then(|| exec::complaint(&lines.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_its_ghost() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(started_at(own).is_some_and(|ticks| ticks > 0));
        assert_eq!(started_at(0), None);
        assert_eq!(started_at(i32::MAX), None);
    }

    #[tokio::test]
    async fn all_are_listed_again_when_one_went_meanwhile_and_no_other_error_is_hidden() {
        let root = Path::new("/run/landfall/a/runc");
        let gone = "runc ended with exit status: 1: time=\"2026-11-29T04:16:19Z\" level=error \
                    msg=\"stat /run/landfall/a/runc/lf-a-n32a32tob3: no such file or directory\"";
        let cases = [
            (gone, 2, Some("[]"), 3),
            (gone, usize::MAX, None, LISTS),
            ("stat /usr/sbin/runc: no such file or directory", 1, None, 1),
            ("stat /run/landfall/a/runc/lf-a-x: permission denied", 1, None, 1),
        ];
        for (said, failures, wanted, tries) in cases {
            let mut tried = 0;
            let answer = listed(root, || {
                tried += 1;
                std::future::ready(if tried <= failures {
                    Err(FabricError::failed("list the machines", said))
                } else {
                    Ok("[]".to_owned())
                })
            })
            .await;
            assert_eq!((answer.ok().as_deref(), tried), (wanted, tries), "{said}");
        }
    }

    #[test]
    fn errors_of_runc_are_read_from_its_log() {
        let place = tempfile::tempdir().unwrap();
        let log = place.path().join("runc.log");
        assert_eq!(complaints(&log), None);
        fs::write(
            &log,
            "{\"level\":\"warning\",\"msg\":\"w\"}\n{\"level\":\"error\",\"msg\":\"no such file\"}\nrubbish\n",
        )
        .unwrap();
        assert_eq!(complaints(&log).as_deref(), Some("no such file"));
    }
}
