//! Runs build programs, and asks programs for their version.
//!
//! Always true: no program outlives the thread that started it, however that ends; each is the leader of a
//! process group, so that its children are stopped with it, and signals that it sends to its group reach no
//! other process. The whole group of a build step is signalled as well: compiler processes, and programs that
//! must unmount something.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _, Write as _},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use rustix::{
    io::{Errno, retry_on_intr},
    process::{
        Pid, Signal, WaitId, WaitIdOptions, getpid, getppid, kill_process_group,
        set_parent_process_death_signal, waitid,
    },
};

use crate::error::{ImageError, IoContext as _};

/// A program that does not print its version within this time never will.
const PATIENCE: Duration = Duration::from_secs(60);
/// The size limit of an answer.
const ANSWER: u64 = 1 << 16;
/// Reads a step's process group, then waits for a line that the step has ended. End of input means that the
/// sender died: then the group is terminated.
const KEEP: &str = "read -r group && { read -r ended || kill -s TERM -- \"-$group\"; }";

/// Runs commands one after the other per lane, and can stop those of all lanes.
#[derive(Debug, Default)]
pub(crate) struct Runner {
    stopped: AtomicBool,
    next: AtomicU64,
    /// Process groups, by number of the run. Their leaders are not reaped yet, so no id can have been reused.
    running: Mutex<BTreeMap<u64, Pid>>,
}

impl Runner {
    /// Stops running commands and refuses further ones.
    pub(crate) fn stop(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        self.stopped.store(true, Ordering::SeqCst);
        for group in running.values() {
            // Not SIGINT: background processes of a shell ignore it. A process that has just ended is fine.
            if let Err(error) = kill_process_group(*group, Signal::TERM) {
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
        // Started before the step, so that the step is never without it.
        let mut keeper = Keeper::start();
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
            if let Some(keeper) = &mut keeper {
                keeper.keep(&child);
            }
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if let Some(group) = group(&child) {
                running.insert(number, group);
            }
            (child, number)
        };
        let ended = ended(&child);
        self.running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&number);
        drop(keeper);
        ended.at("wait for", log)?;
        let status = child.wait().at("wait for", log)?;
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

/// The process group that a child leads.
fn group(child: &Child) -> Option<Pid> {
    Pid::from_raw(i32::try_from(child.id()).ok()?)
}

/// Waits until a child has ended, without reaping it: until then its id is not reused.
fn ended(child: &Child) -> io::Result<()> {
    let pid = group(child).ok_or_else(|| io::Error::other("it has no number"))?;
    retry_on_intr(|| waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT))?;
    Ok(())
}

/// A process that outlives this one long enough to terminate a step's process group.
struct Keeper {
    child: Child,
    /// Whether it has a step.
    keeps: bool,
}

impl Keeper {
    /// Starts one without a step.
    fn start() -> Option<Self> {
        let started = Command::new("/bin/sh")
            .args(["-c", KEEP])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Signals of a terminal to this process must not reach it.
            .process_group(0)
            .spawn();
        started
            .inspect_err(|error| {
                tracing::warn!(%error, "should this process be killed, parts of a build may go on for a while");
            })
            .ok()
            .map(|child| Self { child, keeps: false })
    }

    /// Gives it a step that has not been reaped.
    fn keep(&mut self, step: &Child) {
        self.tell(&format!("{}\n", step.id()));
        self.keeps = true;
    }

    fn tell(&mut self, line: &str) {
        let told = self
            .child
            .stdin
            .as_mut()
            .map(|input| input.write_all(line.as_bytes()));
        // A keeper that does not react was killed, and is not needed any more.
        if let Some(Err(error)) = told {
            tracing::debug!(%error, "a build step's keeper is gone");
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if self.keeps {
            self.tell("ended\n");
        }
        drop(self.child.stdin.take());
        if let Err(error) = self.child.wait() {
            tracing::debug!(%error, "a build step's keeper cannot be waited for");
        }
    }
}

/// Makes a program the leader of a process group, and kills it when the thread that starts it ends.
fn tie(command: &mut Command) {
    let parent = getpid();
    command.process_group(0);
    #[expect(unsafe_code, reason = "nothing else reaches between fork and exec")]
    // SAFETY: between fork and exec; both are plain system calls that allocate nothing and take no lock.
    unsafe {
        command.pre_exec(move || {
            // A signal that cannot be ignored: an orphaned compiler would run on for many minutes.
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // A parent that died before the call above sends no signal.
            if getppid() != Some(parent) {
                return Err(Errno::SRCH.into());
            }
            Ok(())
        });
    }
}

/// Starts a program that ends with this thread.
///
/// A program that was just written can be busy for a moment: a child of another thread, between fork and
/// exec, still holds the writer's descriptor.
fn spawn(command: &mut Command) -> io::Result<Child> {
    tie(command);
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

/// The output of `program` on either stream, whatever its exit status.
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
        // Dropping the command closes this side's writers, otherwise the reader would never see the end.
    };
    let (tell, told) = mpsc::channel();
    // Left behind when the program never ends: it is killed below, which ends the read too.
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let result = (&mut reader).take(ANSWER).read_to_end(&mut text);
        // Keep reading, so that a program with much output does not die of a closed pipe.
        let result = result.and_then(|_| io::copy(&mut reader, &mut io::sink()));
        // After the time-out no receiver is left.
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

/// The error in a failed step's log.
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
    fn stopping_ends_what_a_program_has_started() {
        let dir = tempfile::tempdir().unwrap();
        let (runner, told) = (Runner::default(), dir.path().join("a"));
        std::thread::scope(|scope| {
            let run = scope.spawn(|| runner.run("long", &mut shell("sleep 600 & echo $!; wait"), &told));
            let [child] = numbers_in(&told);
            runner.stop();
            assert!(run.join().unwrap().is_err());
            wait_for("its child to end", || (!is_there(child)).then_some(()));
        });
    }

    fn wait_for<T>(what: &str, mut seen: impl FnMut() -> Option<T>) -> T {
        let clock = base_env::Env::system().clock;
        let begun = clock.monotonic();
        loop {
            if let Some(seen) = seen() {
                return seen;
            }
            assert!(
                clock.monotonic() - begun < Duration::from_secs(60),
                "waited for {what}"
            );
            std::thread::yield_now();
        }
    }

    /// The numbers that a program prints on a line.
    fn numbers_in<const N: usize>(file: &Path) -> [i32; N] {
        wait_for("numbers", || {
            let text = std::fs::read_to_string(file).ok()?;
            let line = text.strip_suffix('\n')?;
            let all: Vec<i32> = line.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?;
            all.try_into().ok()
        })
    }

    /// Whether a process runs; a zombie does not count.
    fn is_there(pid: i32) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
    }

    /// The file that [`as_a_builder`] writes to. The test below it runs this test again, in a process that
    /// can be killed.
    const BUILDER: &str = "LANDFALL_TEST_BUILDER";

    #[test]
    fn as_a_builder() {
        if let Some(log) = std::env::var_os(BUILDER) {
            // It ignores SIGTERM, its child does not.
            let build = "sleep 600 & echo $$ $!; trap '' TERM; while :; do sleep 1; done";
            let end = Runner::default().run("build", &mut shell(build), Path::new(&log));
            panic!("the build has ended: {end:?}");
        }
    }

    #[test]
    fn what_builds_ends_with_who_builds_also_when_that_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut builder = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "process::tests::as_a_builder"])
            .env(BUILDER, &log)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let both = numbers_in::<2>(&log);
        assert!(both.into_iter().all(is_there));
        // Like `kill -9`.
        builder.kill().unwrap();
        builder.wait().unwrap();
        wait_for("both to end", || (!both.into_iter().any(is_there)).then_some(()));
    }

    #[test]
    fn a_keeper_that_is_told_of_the_end_ends_nothing() {
        let mut other = shell("read -r line")
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let mut keeper = Keeper::start().unwrap();
        keeper.keep(&other);
        drop(keeper);
        // A keeper without a step does nothing either.
        drop(Keeper::start().unwrap());
        assert!(other.try_wait().unwrap().is_none());
        drop(other.stdin.take());
        other.wait().unwrap();
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
