//! Running the programs that build, and asking programs for their version.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _},
    os::fd::OwnedFd,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::error::{ImageError, IoContext as _};

/// A program that does not tell its version in this time never will.
const PATIENCE: Duration = Duration::from_secs(60);
/// What is kept of an answer.
const ANSWER: u64 = 1 << 16;

/// Runs commands one after the other per lane, and can stop those of all lanes.
#[derive(Debug, Default)]
pub(crate) struct Runner {
    stopped: AtomicBool,
    next: AtomicU64,
    running: Mutex<BTreeMap<u64, OwnedFd>>,
}

impl Runner {
    /// Ends what runs and refuses what comes.
    pub(crate) fn stop(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        self.stopped.store(true, Ordering::SeqCst);
        for handle in running.values() {
            // Not SIGINT: whatever a shell starts in the background inherits to ignore that. It may have just ended, which
            // is what is wanted.
            if let Err(error) = pidfd_send_signal(handle, Signal::TERM) {
                tracing::debug!(%error, "a build step could not be interrupted");
            }
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// Runs `command` to its end with all output in `log`.
    pub(crate) fn run(&self, what: &str, command: &mut Command, log: &Path) -> Result<(), ImageError> {
        let output = File::create(log).at("write", log)?;
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone().at("write", log)?)
            .stderr(output);
        let (mut child, number) = {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            if self.is_stopped() {
                return Err(ImageError::Stopped {
                    what: what.to_owned(),
                });
            }
            let child = spawn(command).map_err(|source| ImageError::Io {
                what: format!("start {:?}", command.get_program()),
                source,
            })?;
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if let Some(handle) = handle(&child) {
                running.insert(number, handle);
            }
            (child, number)
        };
        let status = child.wait();
        self.running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&number);
        let status = status.at("wait for", log)?;
        if status.success() {
            return Ok(());
        }
        if self.is_stopped() {
            return Err(ImageError::Stopped {
                what: what.to_owned(),
            });
        }
        Err(explain(what, log, &format!("it ended with {status}")))
    }
}

fn handle(child: &Child) -> Option<OwnedFd> {
    // Of a child that was not waited for, so the number is surely its own. Kernels before 5.3 have no handles; there a
    // failing build waits for the other lane's current step.
    let pid = Pid::from_raw(i32::try_from(child.id()).ok()?)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

/// A program that was just written can be busy for a moment: a child of another thread, between fork and exec, still
/// holds the writer's descriptor.
fn spawn(command: &mut Command) -> io::Result<Child> {
    let mut tries = 0;
    loop {
        match command.spawn() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && tries < 10_000 => {
                tries += 1;
                std::thread::yield_now();
            }
            other => return other,
        }
    }
}

/// What `program` prints, on either stream, whatever status it ends with.
pub(crate) fn ask(program: &Path, arguments: &[&str]) -> Result<String, ImageError> {
    let name = || {
        program
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    };
    answer(program, arguments).map_err(|source| ImageError::Unaskable {
        program: name(),
        source,
    })
}

fn answer(program: &Path, arguments: &[&str]) -> io::Result<String> {
    let (mut reader, writer) = io::pipe()?;
    let mut child = {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer);
        spawn(&mut command)?
        // Dropping the command closes this side's writers, else the reader would never see the end.
    };
    let (tell, told) = mpsc::channel();
    // Left behind when the program never ends: it is killed below, which ends the reading too.
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let result = (&mut reader).take(ANSWER).read_to_end(&mut text);
        // Keep reading, so that a talkative program does not die of a closed pipe.
        let result = result.and_then(|_| io::copy(&mut reader, &mut io::sink()));
        // Nobody listens any more when the time is over.
        drop(tell.send(result.map(|_| text)));
    });
    let result = match told.recv_timeout(PATIENCE) {
        Ok(result) => result,
        Err(_) => {
            child.kill()?;
            Err(io::Error::new(io::ErrorKind::TimedOut, "it did not answer"))
        }
    };
    child.wait()?;
    Ok(String::from_utf8_lossy(&result?).into_owned())
}

/// The error that a failed step's log speaks of.
fn explain(what: &str, log: &Path, otherwise: &str) -> ImageError {
    let text = match std::fs::read(log) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => format!("its log cannot be read: {error}"),
    };
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    let find = |signs: &[&str]| {
        lines()
            .find(|line| signs.iter().any(|sign| line.contains(sign)))
            .map(shorten)
    };
    const OFFLINE: &[&str] = &[
        "dial tcp",
        "no such host",
        "connection refused",
        "i/o timeout",
        "TLS handshake timeout",
        "network is unreachable",
        "Could not resolve",
        "Temporary failure resolving",
        "Unable to connect",
        "Could not connect",
        "Failed to fetch",
        "module lookup disabled by GOPROXY=off",
    ];
    if let Some(detail) = find(&["no space left on device", "No space left on device"]) {
        return ImageError::Failed {
            what: what.to_owned(),
            detail: format!("the disk is full ({detail}), free some space and repeat"),
            log: log.display().to_string(),
        };
    }
    if let Some(detail) = find(OFFLINE) {
        return ImageError::Network {
            what: what.to_owned(),
            detail,
        };
    }
    let detail = find(&["error:", "dpkg: error", "E: "]).or_else(|| lines().next_back().map(shorten));
    ImageError::Failed {
        what: what.to_owned(),
        detail: detail.unwrap_or_else(|| otherwise.to_owned()),
        log: log.display().to_string(),
    }
}

fn shorten(line: &str) -> String {
    const MOST: usize = 240;
    match line.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_failure_is_explained_from_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let runner = Runner::default();
        runner.run("x", &mut shell("exit 0"), &log).unwrap();
        let error = runner
            .run(
                "etcd",
                &mut shell("echo 'a'; echo 'undefined: b' >&2; exit 1"),
                &log,
            )
            .unwrap_err();
        assert!(
            matches!(&error, ImageError::Failed { detail, .. } if detail == "undefined: b"),
            "{error}"
        );
        let script =
            "echo 'Get \"https://proxy/x\": dial tcp: lookup proxy: no such host' >&2; echo end; exit 1";
        let error = runner.run("etcd", &mut shell(script), &log).unwrap_err();
        assert!(matches!(error, ImageError::Network { .. }), "{error}");
        let error = runner.run("etcd", &mut shell("exit 3"), &log).unwrap_err();
        assert!(error.to_string().contains("exit status: 3"), "{error}");
    }

    #[test]
    fn stopping_ends_what_runs_and_refuses_what_comes() {
        let dir = tempfile::tempdir().unwrap();
        let runner = Runner::default();
        std::thread::scope(|scope| {
            let long = scope.spawn(|| {
                runner.run(
                    "long",
                    &mut shell("trap '' INT; exec sleep 600"),
                    &dir.path().join("a"),
                )
            });
            while runner.running.lock().unwrap().is_empty() {
                std::thread::yield_now();
            }
            runner.stop();
            assert!(matches!(long.join().unwrap(), Err(ImageError::Stopped { .. })));
        });
        let refused = runner.run("next", &mut shell("exit 0"), &dir.path().join("b"));
        assert!(matches!(refused, Err(ImageError::Stopped { .. })));
    }

    #[test]
    fn an_answer_has_both_streams() {
        let answer = ask(Path::new("/bin/sh"), &["-c", "echo a; echo b >&2; exit 2"]).unwrap();
        assert_eq!(answer, "a\nb\n");
        assert!(matches!(
            ask(Path::new("/nonexistent"), &[]),
            Err(ImageError::Unaskable { .. })
        ));
    }
}
