//! Running the programs that build, and asking programs for their version.
//!
//! Always true: no program outlives the thread that started it and waits for it, however that ends; each is the head of a process group of
//! its own, so that what it starts is stopped with it, and what it sends to its group reaches nobody else. Of one that builds, the group is
//! told to end as well: a compiler's parts, and what has mounted something and has to take it away.

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

/// A program that does not tell its version in this time never will.
const PATIENCE: Duration = Duration::from_secs(60);
/// What is kept of an answer.
const ANSWER: u64 = 1 << 16;
/// Is told of a step's process group, then waits until it is told that the step has ended. Who should tell it is gone when there is nothing
/// more to be read.
const KEEP: &str = "read -r group && { read -r ended || kill -s TERM -- \"-$group\"; }";

/// Runs commands one after the other per lane, and can stop those of all lanes.
#[derive(Debug, Default)]
pub(crate) struct Runner {
    stopped: AtomicBool,
    next: AtomicU64,
    /// Process groups, by number of the run. Their heads are not collected yet, so each number is surely theirs.
    running: Mutex<BTreeMap<u64, Pid>>,
}

impl Runner {
    /// Ends what runs and refuses what comes.
    pub(crate) fn stop(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        self.stopped.store(true, Ordering::SeqCst);
        for group in running.values() {
            // Not SIGINT: whatever a shell starts in the background inherits to ignore that. It may have just ended, which
            // is what is wanted.
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
        // It is there before the step is: there is no moment in which the step is nobody's.
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

/// The process group that a child is the head of.
fn group(child: &Child) -> Option<Pid> {
    Pid::from_raw(i32::try_from(child.id()).ok()?)
}

/// Waits until a child has ended, and leaves it to be collected: until then its number is nobody else's.
fn ended(child: &Child) -> io::Result<()> {
    let pid = group(child).ok_or_else(|| io::Error::other("it has no number"))?;
    retry_on_intr(|| waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT))?;
    Ok(())
}

/// A process that outlives this one, by so much that it can tell a step's process group to end.
struct Keeper {
    child: Child,
    /// Whether it has a step to keep.
    keeps: bool,
}

impl Keeper {
    /// One that has nothing to keep yet.
    fn start() -> Option<Self> {
        let started = Command::new("/bin/sh")
            .args(["-c", KEEP])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // What a terminal sends to this process is not for it.
            .process_group(0)
            .spawn();
        started
            .inspect_err(|error| {
                tracing::warn!(%error, "should this process be killed, parts of a build may go on for a while");
            })
            .ok()
            .map(|child| Self { child, keeps: false })
    }

    /// Gives it a step that has not been collected.
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
        // One that does not hear it has been killed, and has nothing to do any more.
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

/// Has a program be the head of a group of its own, and end with the thread that starts it.
fn tie(command: &mut Command) {
    let parent = getpid();
    command.process_group(0);
    #[expect(unsafe_code, reason = "nothing else reaches between fork and exec")]
    // SAFETY: between fork and exec; both are plain system calls that allocate nothing and take no lock.
    unsafe {
        command.pre_exec(move || {
            // Not a signal that it may ignore: a compiler that nobody waits for works on for many minutes.
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // Who has died before that was asked for is not heard of again.
            if getppid() != Some(parent) {
                return Err(Errno::SRCH.into());
            }
            Ok(())
        });
    }
}

/// Starts a program that ends with this thread.
///
/// A program that was just written can be busy for a moment: a child of another thread, between fork and exec, still
/// holds the writer's descriptor.
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

    /// The numbers that a program writes on a line.
    fn numbers_in<const N: usize>(file: &Path) -> [i32; N] {
        wait_for("numbers", || {
            let text = std::fs::read_to_string(file).ok()?;
            let line = text.strip_suffix('\n')?;
            let all: Vec<i32> = line.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?;
            all.try_into().ok()
        })
    }

    /// Whether a process runs; one that has ended and is not collected does not.
    fn is_there(pid: i32) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
    }

    /// Where [`as_a_builder`] writes. Its test is started again by the one below it, in a process that can be killed.
    const BUILDER: &str = "LANDFALL_TEST_BUILDER";

    #[test]
    fn as_a_builder() {
        if let Some(log) = std::env::var_os(BUILDER) {
            // It does not listen, what it has started does.
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
        // As 'kill -9' does.
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
        // Nor does one that never had anything to keep.
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
