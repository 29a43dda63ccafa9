//! Replacement of the running agent by another release, while all other processes of the machine keep
//! running.
//!
//! After an upgrade of the service, the file at [`agent_protocol::AGENT_PATH`] is another agent, and the
//! service announces its SHA-256. The file is opened once and its sum checked. If it matches, the candidate
//! runs as a child process to check whether it can read the state to be handed over
//! (`landfall-agent --can-adopt FILE`). Then this agent writes its state and replaces itself (`exec`): the
//! process id stays, so all children remain children, and blocked signals stay pending. A candidate that fails
//! the check is not tried again; this agent stays.
//!
//! Always true: the started file is the very file that was summed; a candidate that does not start is never
//! used; the handed-over state can be read by the next release and, for the way back, by the previous one.

use std::{
    convert::Infallible,
    ffi::CString,
    fs::{self, File},
    io::Read as _,
    os::{
        fd::AsRawFd as _,
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::Path,
    time::Duration,
};

use aws_lc_rs::digest::{Context, SHA256};
use machine_program::disk;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::{Paths, process, supervisor::Kept};

/// Longer than any agent needs to read a file.
const BOUND: Duration = Duration::from_secs(10);
/// The version of the format.
const VERSION: u32 = 1;

/// The state handed over from one agent to the next.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Handover {
    v: u32,
    /// The reading of the monotonic clock at the handover; the successor continues the clock from it.
    pub(crate) now: Duration,
    /// The boot id of the machine, which stays.
    pub(crate) boot: String,
    /// The sequence number of the last report.
    pub(crate) sequence: u64,
    /// The generation of the configuration in force, 0 if none: the stored configuration must have the same.
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

    /// Reads a handover file.
    ///
    /// # Errors
    /// The reason, when the file is missing or of another kind.
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

/// Whether this program can continue from this handover file.
///
/// # Errors
/// The reason why not.
pub fn can_adopt(file: &Path) -> Result<(), String> {
    Handover::read(file).map(drop)
}

/// Device and inode of a program file.
type Identity = (u64, u64);

/// A candidate: the open file that was checked, whatever later replaces it at its path.
pub(crate) struct Candidate {
    who: Identity,
    file: File,
}

/// The result of the candidate's check.
pub(crate) enum Answer {
    /// The candidate can continue.
    Can(Candidate),
    /// The candidate failed the check, did not start, or did not end in time.
    Cannot,
}

/// The search for a successor.
#[derive(Default)]
pub(crate) struct Successors {
    /// The SHA-256 announced by the service; no candidate is started before that.
    expected: Option<String>,
    /// The SHA-256 of this program, computed when first needed.
    own: Option<String>,
    /// The file that was already checked for the announced sum.
    settled: Option<(Identity, String)>,
    asked: Option<Asked>,
}

struct Asked {
    candidate: Candidate,
    pid: u32,
    at: Duration,
}

impl Successors {
    /// The service has announced the agent program.
    pub(crate) fn expect(&mut self, sha256: String) {
        self.expected = Some(sha256);
    }

    /// The program at the agent path, if it matches the announced sum, differs from this one, and was not
    /// checked yet.
    ///
    /// # Errors
    /// The reason, once for each file: when it cannot be read or does not match the announced sum.
    pub(crate) fn waiting(&mut self, paths: &Paths) -> Result<Option<Candidate>, String> {
        let Some(expected) = self.expected.clone().filter(|_| self.asked.is_none()) else {
            return Ok(None);
        };
        // Machines of an earlier release have none, and it is missing for a moment while it is replaced.
        let Ok(file) = open(&paths.agent()) else {
            return Ok(None);
        };
        let found = file.metadata().map_err(|error| error.to_string())?;
        let who = (found.dev(), found.ino());
        let settled = Some((who, expected.clone()));
        if self.settled == settled || !found.is_file() {
            return Ok(None);
        }
        // Reported once. Later failures settle the file as well, until another file is there.
        self.settled = settled;
        let sum = sha256(&file)?;
        if sum != expected {
            return Err(format!(
                "it is not the one that the service has (SHA-256 {sum}, expected {expected})"
            ));
        }
        if self.own.is_none() {
            let own = File::open("/proc/self/exe").map_err(|error| error.to_string())?;
            self.own = Some(sha256(&own)?);
        }
        if self.own.as_ref() == Some(&sum) {
            return Ok(None);
        }
        self.settled = None;
        Ok(Some(Candidate { who, file }))
    }

    /// Starts the candidate's check; the exit status of the process is the result ([`Self::answered`]).
    pub(crate) fn ask(
        &mut self,
        paths: &Paths,
        candidate: Candidate,
        handover: &Handover,
        now: Duration,
    ) -> Result<(), String> {
        let asked = handover.write(&paths.handover()).and_then(|()| {
            let argv = [
                // The child finds the checked file under the same descriptor number.
                &format!("/proc/self/fd/{}", candidate.file.as_raw_fd()),
                "--can-adopt",
                &paths.handover().display().to_string(),
            ]
            .map(str::to_owned);
            process::start(paths, "agent", &argv, &Default::default())
        });
        match asked {
            Ok(pid) => {
                self.asked = Some(Asked {
                    candidate,
                    pid,
                    at: now,
                });
                Ok(())
            }
            Err(why) => {
                self.settle(candidate.who);
                Err(why)
            }
        }
    }

    /// The check process, if it exceeds its time.
    pub(crate) fn hangs(&self, now: Duration) -> Option<u32> {
        let asked = self.asked.as_ref()?;
        (now.saturating_sub(asked.at) > BOUND).then_some(asked.pid)
    }

    /// A child ended. Returns the result if it was the check process.
    pub(crate) fn answered(&mut self, pid: u32, success: bool) -> Option<Answer> {
        let asked = self.asked.take_if(|asked| asked.pid == pid)?;
        if success {
            return Some(Answer::Can(asked.candidate));
        }
        self.settle(asked.candidate.who);
        Some(Answer::Cannot)
    }

    /// Replaces this process with the candidate. Returns only on failure.
    pub(crate) fn become_it(
        &mut self,
        paths: &Paths,
        candidate: &Candidate,
        root: &Path,
        handover: &Handover,
    ) -> Result<Infallible, String> {
        self.settle(candidate.who);
        handover.write(&paths.handover())?;
        let text = |path: &Path| {
            CString::new(path.as_os_str().as_encoded_bytes()).map_err(|error| error.to_string())
        };
        let (program, root, file) = (text(&paths.agent())?, text(root)?, text(&paths.handover())?);
        let arguments = [&*program, c"--root", &*root, c"--adopt", &*file];
        let environment: Vec<CString> = std::env::vars_os()
            .filter_map(|(name, value)| {
                CString::new([name.as_encoded_bytes(), b"=", value.as_encoded_bytes()].concat()).ok()
            })
            .collect();
        // The standard library would unblock signals first, and lose those that arrive before `exec`.
        nix::unistd::fexecve(&candidate.file, &arguments, &environment).map_err(|error| error.to_string())
    }

    fn settle(&mut self, who: Identity) {
        self.settled = self.expected.clone().map(|expected| (who, expected));
    }
}

/// Opens a file that may be anything: root of the machine may write there.
fn open(path: &Path) -> std::io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    fs::OpenOptions::new()
        .read(true)
        .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
        .open(path)
}

fn sha256(mut file: &File) -> Result<String, String> {
    let mut sum = Context::new(&SHA256);
    let mut piece = vec![0; 64 * 1024];
    loop {
        match file.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => sum.update(&piece[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(format!("it cannot be read: {error}")),
        }
    }
    let sum = sum.finish();
    Ok(sum.as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use std::io::Seek as _;

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
    fn only_what_the_service_has_is_asked_and_once() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        let mut successors = Successors::default();
        let put = |content: &str| {
            fs::create_dir_all(paths.agent().parent().unwrap()).unwrap();
            let new = root.path().join("new");
            fs::write(&new, content).unwrap();
            let sum = sha256(&File::open(&new).unwrap()).unwrap();
            fs::rename(&new, paths.agent()).unwrap();
            sum
        };
        let handover = || {
            let kept = Supervisor::default().kept().unwrap();
            Handover::new(Duration::ZERO, "boot", 1, 0, kept)
        };
        successors.expect("0".repeat(64));
        assert!(successors.waiting(&paths).unwrap().is_none(), "there is none");
        let sum = put("no program");
        let why = successors.waiting(&paths).err().unwrap();
        assert!(why.contains(&sum), "{why}");
        assert!(successors.waiting(&paths).unwrap().is_none(), "told once");
        successors.expected = None;
        assert!(
            successors.waiting(&paths).unwrap().is_none(),
            "the service has said nothing"
        );
        successors.expect(sum);
        let candidate = successors.waiting(&paths).unwrap().unwrap();
        successors
            .ask(&paths, candidate, &handover(), Duration::ZERO)
            .unwrap_err();
        assert!(
            successors.waiting(&paths).unwrap().is_none(),
            "it cannot even be started"
        );

        // Another agent file, as after an upgrade. A later replacement at the path is not the file that was
        // summed.
        successors.expect(put("another"));
        let candidate = successors.waiting(&paths).unwrap().unwrap();
        put("a third");
        let mut text = String::new();
        (&candidate.file).seek(std::io::SeekFrom::Start(0)).unwrap();
        (&candidate.file).read_to_string(&mut text).unwrap();
        assert_eq!(text, "another");
        successors.asked = Some(Asked {
            candidate,
            pid: 9,
            at: Duration::ZERO,
        });
        assert!(
            successors.waiting(&paths).unwrap().is_none(),
            "it was not answered yet"
        );
        assert_eq!(successors.hangs(BOUND), None);
        assert_eq!(successors.hangs(BOUND + Duration::from_millis(1)), Some(9));
        assert!(successors.answered(8, true).is_none());
        assert!(matches!(successors.answered(9, false), Some(Answer::Cannot)));

        // This program itself is no candidate, wherever its file is; neither is anything but a regular file.
        let own = fs::read("/proc/self/exe").unwrap();
        fs::write(paths.agent(), &own).unwrap();
        successors.expect(sha256(&File::open(paths.agent()).unwrap()).unwrap());
        assert!(successors.waiting(&paths).unwrap().is_none());
        fs::remove_file(paths.agent()).unwrap();
        std::os::unix::fs::symlink("/proc/self/exe", paths.agent()).unwrap();
        assert!(successors.waiting(&paths).unwrap().is_none());
    }
}
