//! Another agent takes this one's place, while everything else in the machine goes on.
//!
//! Where the fabric keeps the agent ([`agent_protocol::AGENT_PATH`]) there lies another one after an upgrade of the service.
//! It is asked whether it can go on from what this one would hand over (`landfall-agent --can-adopt FILE`, as a process of its
//! own); then this one writes that down and becomes it (`exec`): the same process id, so all children stay children, and
//! blocked signals stay pending. One that cannot is not asked again; this one stays.
//!
//! Always true: an agent that does not even start is never become; what is handed over is read by the release after and,
//! for the way back, checked by the release before.

use std::{
    convert::Infallible, ffi::CString, fs, os::unix::fs::MetadataExt as _, path::Path, time::Duration,
};

use machine_program::disk;
use serde::{Deserialize, Serialize};

use crate::{Paths, process, supervisor::Kept};

/// Longer than any agent needs to read a file.
const BOUND: Duration = Duration::from_secs(10);
/// Of the format.
const VERSION: u32 = 1;

/// What an agent tells the one that takes its place.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Handover {
    v: u32,
    /// The time of everything in it, by the clock that goes on.
    pub(crate) now: Duration,
    /// The machine's boot: it is the same.
    pub(crate) boot: String,
    /// The last report's.
    pub(crate) sequence: u64,
    /// The configuration in force, 0 if there is none: the file that holds it has to be of the same.
    pub(crate) generation: u64,
    pub(crate) kept: Kept,
}

impl Handover {
    pub(crate) fn new(now: Duration, boot: &str, sequence: u64, generation: u64, kept: Kept) -> Self {
        Self {
            v: VERSION,
            now,
            boot: boot.to_owned(),
            sequence,
            generation,
            kept,
        }
    }

    /// Reads one.
    ///
    /// # Errors
    /// In words, when there is none or it is of another kind.
    pub(crate) fn read(file: &Path) -> Result<Self, String> {
        let bytes = fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        let read: Self = serde_json::from_slice(&bytes)
            .map_err(|error| format!("cannot use {}: {error}", file.display()))?;
        if read.v == VERSION {
            Ok(read)
        } else {
            Err(format!("{} is of version {}", file.display(), read.v))
        }
    }

    pub(crate) fn write(&self, file: &Path) -> Result<(), String> {
        let bytes = serde_json::to_vec(self).map_err(|error| error.to_string())?;
        disk::write(file, &bytes, 0o600).map_err(|error| error.to_string())
    }
}

/// Whether this program could go on from what lies there.
///
/// # Errors
/// In words, why not.
pub fn can_adopt(file: &Path) -> Result<(), String> {
    Handover::read(file).map(drop)
}

/// Which file a program is.
type Identity = (u64, u64);

fn identity(path: &Path) -> Option<Identity> {
    fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// Whether there is another one, and what is known of it.
pub(crate) struct Successors {
    own: Option<Identity>,
    refused: Option<Identity>,
    asked: Option<Asked>,
}

struct Asked {
    who: Identity,
    pid: u32,
    at: Duration,
}

impl Default for Successors {
    fn default() -> Self {
        Self {
            own: identity(Path::new("/proc/self/exe")),
            refused: None,
            asked: None,
        }
    }
}

impl Successors {
    /// Whether one lies ready that was not asked yet.
    pub(crate) fn waiting(&self, paths: &Paths) -> bool {
        let there = identity(&paths.agent());
        self.asked.is_none() && there.is_some() && there != self.own && there != self.refused
    }

    /// Asks it; the answer is how the process ends ([`Self::answered`]).
    pub(crate) fn ask(&mut self, paths: &Paths, handover: &Handover, now: Duration) -> Result<(), String> {
        let Some(who) = identity(&paths.agent()) else {
            return Ok(());
        };
        let asked = handover.write(&paths.handover()).and_then(|()| {
            let argv = [
                &paths.agent().display().to_string(),
                "--can-adopt",
                &paths.handover().display().to_string(),
            ]
            .map(str::to_owned);
            process::start(paths, "agent", &argv, &Default::default())
        });
        match asked {
            Ok(pid) => {
                self.asked = Some(Asked { who, pid, at: now });
                Ok(())
            }
            Err(why) => {
                self.refused = Some(who);
                Err(why)
            }
        }
    }

    /// The process to be killed, if it does not answer.
    pub(crate) fn hangs(&self, now: Duration) -> Option<u32> {
        let asked = self.asked.as_ref()?;
        (now.saturating_sub(asked.at) > BOUND).then_some(asked.pid)
    }

    /// A child ended. Gives whether it was the one that was asked, and can take over.
    pub(crate) fn answered(&mut self, pid: u32, success: bool) -> Option<bool> {
        let asked = self.asked.take_if(|asked| asked.pid == pid)?;
        if !success {
            self.refused = Some(asked.who);
        }
        Some(success)
    }

    /// Becomes it. Comes back only if that does not work.
    pub(crate) fn become_it(
        &mut self,
        paths: &Paths,
        root: &Path,
        handover: &Handover,
    ) -> Result<Infallible, String> {
        self.refused = identity(&paths.agent());
        handover.write(&paths.handover())?;
        let text = |path: &Path| {
            CString::new(path.as_os_str().as_encoded_bytes()).map_err(|error| error.to_string())
        };
        let (program, root, file) = (text(&paths.agent())?, text(root)?, text(&paths.handover())?);
        let arguments = [&*program, c"--root", &*root, c"--adopt", &*file];
        // The standard library would unblock our signals first, and lose those that come in between.
        nix::unistd::execv(&program, &arguments).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::Supervisor;

    #[test]
    fn what_is_of_another_kind_is_not_adopted() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("handover.json");
        assert!(can_adopt(&file).unwrap_err().contains("cannot read"));
        let kept = Supervisor::default().kept().unwrap();
        let handover = Handover::new(Duration::from_millis(1500), "boot", 7, 3, kept);
        handover.write(&file).unwrap();
        can_adopt(&file).unwrap();
        assert_eq!(Handover::read(&file).unwrap(), handover);
        let another = Handover { v: 2, ..handover };
        another.write(&file).unwrap();
        assert!(can_adopt(&file).unwrap_err().ends_with("is of version 2"));
        fs::write(&file, "{}").unwrap();
        assert!(can_adopt(&file).unwrap_err().contains("cannot use"));
    }

    #[test]
    fn a_successor_is_asked_once() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        let mut successors = Successors::default();
        assert!(!successors.waiting(&paths), "there is none");
        fs::create_dir_all(paths.agent().parent().unwrap()).unwrap();
        fs::write(paths.agent(), "no program").unwrap();
        assert!(successors.waiting(&paths));
        let handover = || {
            Handover::new(
                Duration::ZERO,
                "boot",
                1,
                0,
                Supervisor::default().kept().unwrap(),
            )
        };
        successors.ask(&paths, &handover(), Duration::ZERO).unwrap_err();
        assert!(!successors.waiting(&paths), "it cannot even be started");
        // Another one lies there: another file, as an upgrade leaves it.
        fs::write(root.path().join("new"), "").unwrap();
        fs::rename(root.path().join("new"), paths.agent()).unwrap();
        assert!(successors.waiting(&paths));
        successors.asked = Some(Asked {
            who: identity(&paths.agent()).unwrap(),
            pid: 9,
            at: Duration::ZERO,
        });
        assert!(!successors.waiting(&paths), "it was not answered yet");
        assert_eq!(successors.hangs(BOUND), None);
        assert_eq!(successors.hangs(BOUND + Duration::from_millis(1)), Some(9));
        assert_eq!(successors.answered(8, true), None);
        assert_eq!(successors.answered(9, false), Some(false));
        assert!(!successors.waiting(&paths), "it said no");
    }
}
