//! Another agent takes this one's place, while everything else in the machine goes on.
//!
//! Where the fabric keeps the agent ([`agent_protocol::AGENT_PATH`]) there lies another one after an upgrade of the service, and the
//! service says what its SHA-256 is. The file is opened once, summed, and if it is the one, asked whether it can go on from what this one would hand over (`landfall-agent --can-adopt FILE`, as a process of its
//! own); then this one writes that down and becomes it (`exec`): the same process id, so all children stay children, and
//! blocked signals stay pending. One that cannot is not asked again; this one stays.
//!
//! Always true: what is started is the very file that was summed; an agent that does not even start is never become; what is handed over is read by the release after and,
//! for the way back, checked by the release before.

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

/// A program that lies ready: the file that was opened and looked at, whatever is put in its place afterwards.
pub(crate) struct Candidate {
    who: Identity,
    file: File,
}

/// What another agent said.
pub(crate) enum Answer {
    /// It can go on from here.
    Can(Candidate),
    /// It cannot, did not start, or did not answer in time.
    Cannot,
}

/// Whether there is another agent, and what is known of it.
#[derive(Default)]
pub(crate) struct Successors {
    /// SHA-256 of the program that the service has; nothing is started before the service has said so.
    expected: Option<String>,
    /// SHA-256 of this program, once it was needed.
    own: Option<String>,
    /// The file that there is nothing more to ask about, as long as this one is expected.
    settled: Option<(Identity, String)>,
    asked: Option<Asked>,
}

struct Asked {
    candidate: Candidate,
    pid: u32,
    at: Duration,
}

impl Successors {
    /// The service has said which program agents are to be.
    pub(crate) fn expect(&mut self, sha256: String) {
        self.expected = Some(sha256);
    }

    /// The program that lies ready, if it is the one that the service has, is not this one, and was not asked yet.
    ///
    /// # Errors
    /// In words, once for each file: when it cannot be read or is not the one that the service has.
    pub(crate) fn waiting(&mut self, paths: &Paths) -> Result<Option<Candidate>, String> {
        let Some(expected) = self.expected.clone().filter(|_| self.asked.is_none()) else {
            return Ok(None);
        };
        // There is none in a machine of an earlier release, and none for a moment while it is replaced.
        let Ok(file) = open(&paths.agent()) else {
            return Ok(None);
        };
        let found = file.metadata().map_err(|error| error.to_string())?;
        let who = (found.dev(), found.ino());
        let settled = Some((who, expected.clone()));
        if self.settled == settled || !found.is_file() {
            return Ok(None);
        }
        // Told once. What goes wrong after this is settled as well, until another file lies there.
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

    /// Asks it; the answer is how the process ends ([`Self::answered`]).
    pub(crate) fn ask(
        &mut self,
        paths: &Paths,
        candidate: Candidate,
        handover: &Handover,
        now: Duration,
    ) -> Result<(), String> {
        let asked = handover.write(&paths.handover()).and_then(|()| {
            let argv = [
                // The child finds the file that was looked at under the same number.
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

    /// The process to be killed, if it does not answer.
    pub(crate) fn hangs(&self, now: Duration) -> Option<u32> {
        let asked = self.asked.as_ref()?;
        (now.saturating_sub(asked.at) > BOUND).then_some(asked.pid)
    }

    /// A child ended. Gives an answer if it was the one that was asked.
    pub(crate) fn answered(&mut self, pid: u32, success: bool) -> Option<Answer> {
        let asked = self.asked.take_if(|asked| asked.pid == pid)?;
        if success {
            return Some(Answer::Can(asked.candidate));
        }
        self.settle(asked.candidate.who);
        Some(Answer::Cannot)
    }

    /// Becomes it. Comes back only if that does not work.
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
        // The standard library would unblock our signals first, and lose those that come in between.
        nix::unistd::fexecve(&candidate.file, &arguments, &environment).map_err(|error| error.to_string())
    }

    fn settle(&mut self, who: Identity) {
        self.settled = self.expected.clone().map(|expected| (who, expected));
    }
}

/// Opens what may be anything: the machine's root may write there.
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

        // Another one lies there: another file, as an upgrade leaves it. What is put in its place later is not what was summed.
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

        // This program itself is nothing new, wherever it lies; neither is what is no file.
        let own = fs::read("/proc/self/exe").unwrap();
        fs::write(paths.agent(), &own).unwrap();
        successors.expect(sha256(&File::open(paths.agent()).unwrap()).unwrap());
        assert!(successors.waiting(&paths).unwrap().is_none());
        fs::remove_file(paths.agent()).unwrap();
        std::os::unix::fs::symlink("/proc/self/exe", paths.agent()).unwrap();
        assert!(successors.waiting(&paths).unwrap().is_none());
    }
}
