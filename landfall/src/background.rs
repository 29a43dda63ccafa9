//! The service as a background process: finding, starting and stopping it.
//!
//! A stamp's service holds `serve.lock` in the run directory, which only root may enter, as long as it lives,
//! with its pid and its start time in the file. It holds two locks: a `flock`, so that there is one service
//! per stamp, also beside an earlier release; and an open-file-description lock, which can be queried without
//! taking it.
//!
//! Always true: a stale file has no meaning; querying whether the service runs never keeps one from starting;
//! a process is only signalled while the service holds the lock and that process is the one that wrote the
//! file, never another process that now has its pid; the name of a stamp belongs to one state directory of
//! this host.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{Read as _, Seek as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use base_env::Env;
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, Flock, FlockArg, fcntl},
    libc,
};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::{
    admin::{AdminClient, StampStatus},
    log_file,
    problem::Problem,
    stamp::{Places, Settings},
    systemd::Unit,
};

/// Time limit of a service to open its store and listen.
const START_BOUND: Duration = Duration::from_secs(60);
/// Time limit of a service to end; it never waits for machines.
const STOP_BOUND: Duration = Duration::from_secs(20);
/// Interval at which conditions of another process are polled; there is no event to wait for.
const LOOK: Duration = Duration::from_millis(50);

/// Holds the stamp's lock. Kept by the service as long as it lives.
pub(crate) struct Held {
    _lock: Flock<File>,
}

/// Takes the stamp's lock for this process, or fails because a service has it.
pub(crate) fn hold(places: &Places) -> Result<Held> {
    let path = places.lock();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    file.set_permissions(Permissions::from_mode(0o600))
        .with_context(|| format!("cannot protect {}", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            let act = || format!("cannot write {}", path.display());
            fcntl(&*lock, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_WRLCK)))
                .with_context(|| format!("cannot lock {}", path.display()))?;
            let pid = std::process::id();
            let started = started(pid).context("cannot find this process's own start")?;
            lock.set_len(0).with_context(act)?;
            lock.rewind().with_context(act)?;
            writeln!(&mut *lock, "{pid} {started}").with_context(act)?;
            Ok(Held { _lock: lock })
        }
        Err((_, Errno::EWOULDBLOCK)) => Err(Problem::new(
            format!(
                "the service of stamp {} runs already{}",
                places.name,
                pid(places)?
                    .map(|pid| format!(" (process {pid})"))
                    .unwrap_or_default()
            ),
            format!("look at it: landfall status --name {}", places.name),
        )
        .into()),
        Err((_, error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

fn whole_file(kind: libc::c_int) -> libc::flock {
    let short = |number: libc::c_int| libc::c_short::try_from(number).unwrap_or_default();
    libc::flock {
        l_type: short(kind),
        l_whence: short(libc::SEEK_SET),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// When a process started, in ticks since the host did; `None` when there is no such process.
fn started(pid: u32) -> Option<u64> {
    stat(pid, 22)
}

/// A field of a process' `/proc/PID/stat`, numbered as in `proc(5)`, from the third on; `None` when there is no such process.
fn stat(pid: u32, field: usize) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The process name in parentheses before it may contain any characters.
    let after_name = stat.rsplit_once(')')?.1;
    after_name.split_whitespace().nth(field - 3)?.parse().ok()
}

/// The process id of the stamp's service, if it runs; 0 while it is not yet written.
pub(crate) fn pid(places: &Places) -> Result<Option<i32>> {
    let path = places.lock();
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return Err(crate::stamp::not_root("ask for the service"));
        }
        Err(error) => return Err(error).with_context(|| format!("cannot open {}", path.display())),
    };
    let mut asked = whole_file(libc::F_WRLCK);
    fcntl(&file, FcntlArg::F_OFD_GETLK(&mut asked))
        .with_context(|| format!("cannot ask for the lock {}", path.display()))?;
    let held = libc::c_int::from(asked.l_type) != libc::F_UNLCK;
    // Read after the lock was queried: its holder has written the file by then, or has just started.
    let mut text = String::new();
    file.read_to_string(&mut text)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let words: Vec<&str> = text.split_whitespace().collect();
    match (held, words.as_slice()) {
        (true, [pid, start]) => {
            let same = pid.parse().ok().and_then(started) == start.parse().ok();
            Ok(Some(pid.parse().ok().filter(|_| same).unwrap_or(0)))
        }
        (true, _) => Ok(Some(0)),
        // An earlier release wrote the pid alone, and holds only the other lock.
        (false, [pid]) => match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Ok(_) => Ok(None),
            Err((_, Errno::EWOULDBLOCK)) => Ok(Some(pid.parse().unwrap_or(0))),
            Err((_, error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
        },
        (false, _) => Ok(None),
    }
}

/// Like [`pid`], once a service that was killed is gone: it holds its lock until the last of its threads has ended, which takes
/// a while on a busy host.
pub(crate) async fn living(places: &Places, env: &Env) -> Result<Option<i32>> {
    let deadline = env.clock.monotonic() + STOP_BOUND;
    loop {
        let found = pid(places)?;
        if !found.is_some_and(ends) || env.clock.monotonic() > deadline {
            return Ok(found);
        }
        env.clock.sleep(LOOK).await;
    }
}

/// Whether the process that holds the lock is about to release it: it was killed, is ending, or no longer
/// exists.
fn ends(process: i32) -> bool {
    /// Of a process' flags in `/proc/PID/stat`: it ends (`PF_EXITING` in `include/linux/sched.h`).
    const EXITING: u64 = 0x4;
    /// Of the bits of pending signals: `SIGKILL`, the ninth.
    const KILL: u64 = 1 << 8;
    let Some(flags) = u32::try_from(process).ok().and_then(|pid| stat(pid, 9)) else {
        return true;
    };
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let killed = status.lines().any(|line| {
        let pending = line
            .strip_prefix("SigPnd:")
            .or_else(|| line.strip_prefix("ShdPnd:"));
        pending.is_some_and(|bits| u64::from_str_radix(bits.trim(), 16).is_ok_and(|bits| bits & KILL != 0))
    });
    killed || flags & EXITING != 0
}

/// Refuses to work on a stamp whose name another state directory uses on this host: machines and networks are
/// found by name, so those would be taken for this stamp's. `down` may remove a stamp whose files were
/// deleted.
pub(crate) fn check_home(places: &Places, down: bool) -> Result<()> {
    let Some((state, _)) = Settings::load_running(places) else {
        return Ok(());
    };
    let name = &places.name;
    let orphan = !state.join("stamp.toml").exists();
    let serving = pid(places)?.is_some();
    if state != places.state && (!orphan || serving) {
        let base = state.parent().unwrap_or(&state).display();
        return Err(Problem::new(
            format!("stamp {name} on this host has its files in {}", state.display()),
            format!("set LANDFALL_STATE_DIR={base}, or take another --name"),
        )
        .into());
    }
    if state == places.state && orphan && serving && !down {
        return Err(Problem::new(
            format!("the files of stamp {name} were deleted while it runs"),
            format!("remove the remains: landfall down --purge --name {name}"),
        )
        .into());
    }
    Ok(())
}

/// Signals the service's process, if it still has this pid. Returns whether it did.
fn tell(places: &Places, process: i32, signal: Signal) -> Result<bool> {
    let Some(raw) = rustix::process::Pid::from_raw(process) else {
        return Ok(false);
    };
    let handle = match pidfd_open(raw, PidfdFlags::empty()) {
        Ok(handle) => handle,
        Err(rustix::io::Errno::SRCH) => return Ok(false),
        Err(error) => return Err(error).with_context(|| format!("cannot find process {process}")),
    };
    // The pidfd refers to this process even if its pid is reused; so check again, now that there is one.
    if pid(places)? != Some(process) {
        return Ok(false);
    }
    match pidfd_send_signal(handle, signal) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::SRCH) => Ok(false),
        Err(rustix::io::Errno::PERM) => Err(crate::stamp::not_root("stop the service")),
        Err(error) => Err(error).with_context(|| format!("cannot signal process {process}")),
    }
}

/// Starts the service unless it runs, and waits until it answers. Returns its state and whether it was started now.
pub(crate) async fn ensure_running(places: &Places, env: &Env) -> Result<(StampStatus, bool)> {
    let admin = AdminClient::new(places)?;
    let mut child = None;
    if let Some(pid) = living(places, env).await? {
        match admin.status().await {
            Ok(status)
                if status.service.version == env!("CARGO_PKG_VERSION")
                    && (Unit::of(places)?.starts_us() || is_this_program(pid)) =>
            {
                return Ok((status, false));
            }
            // A restart of the service does not affect clusters, so an old one is simply replaced.
            Ok(_) => stop(places, env).await.map(drop)?,
            Err(_) => tracing::debug!(pid, "the service runs and does not answer yet"),
        }
    }
    if pid(places)?.is_none() {
        child = start(places)?;
    }
    let deadline = env.clock.monotonic() + START_BOUND;
    loop {
        let last = match admin.status().await {
            Ok(status) => return Ok((status, true)),
            Err(error) => error,
        };
        if let Some(child) = &mut child
            && let Some(status) = child.try_wait().context("cannot ask for the service's state")?
        {
            return Err(not_started(places, &format!("it ended with {status}")));
        }
        if env.clock.monotonic() > deadline {
            return Err(not_started(places, &format!("no answer after {START_BOUND:?}")).context(last));
        }
        env.clock.sleep(LOOK).await;
    }
}

/// Whether a process runs the same program file as this one: another build of the same version is another
/// program. If it cannot be read, it counts as the same.
fn is_this_program(process: i32) -> bool {
    let other = format!("/proc/{process}/exe");
    has_same_bytes("/proc/self/exe".as_ref(), other.as_ref()).unwrap_or_else(|error| {
        tracing::warn!(process, %error, "cannot look at the program of the service");
        true
    })
}

fn has_same_bytes(one: &Path, other: &Path) -> std::io::Result<bool> {
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    let (here, there) = (one.metadata()?, other.metadata()?);
    if (here.dev(), here.ino()) == (there.dev(), there.ino()) {
        return Ok(true);
    }
    if here.len() != there.len() {
        return Ok(false);
    }
    let (mut left, mut right) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        let count = one.read(&mut left)?;
        if count == 0 {
            return Ok(true);
        }
        other.read_exact(&mut right[..count])?;
        if left[..count] != right[..count] {
            return Ok(false);
        }
    }
}

/// Starts the service; gives the child, unless systemd runs it.
fn start(places: &Places) -> Result<Option<Child>> {
    let unit = Unit::of(places)?;
    if unit.starts_us() {
        unit.start()?;
        return Ok(None);
    }
    let output_path = places.state.join("log/serve.out");
    let output =
        File::create(&output_path).with_context(|| format!("cannot write {}", output_path.display()))?;
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    Command::new(program)
        .args(["serve", "--background", "--name", &places.name])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(output.try_clone().context("cannot share the output file")?)
        .stderr(output)
        .env_remove("RUST_LOG")
        .spawn()
        .map(Some)
        .context("cannot start the service")
}

fn not_started(places: &Places, why: &str) -> anyhow::Error {
    // Errors of a service before it opens its log (a taken port, a damaged store) are in its output, in
    // readable form.
    let said = fs::read_to_string(places.state.join("log/serve.out")).unwrap_or_default();
    let field = |name: &str| {
        said.lines()
            .rev()
            .find_map(|line| line.strip_prefix(name))
            .map(|text| text.trim().to_owned())
    };
    if let Some(sentence) = field("error:") {
        let next = field("next:").unwrap_or_else(|| "landfall logs".to_owned());
        return match field("cause:") {
            Some(cause) => Problem::new(sentence, next)
                .because(anyhow::anyhow!(cause))
                .into(),
            None => Problem::new(sentence, next).into(),
        };
    }
    let last = said
        .lines()
        .rfind(|line| !line.trim().is_empty())
        .map(str::to_owned)
        .or_else(|| log_file::tail(&places.log(), 1).ok())
        .unwrap_or_default();
    Problem::new(
        format!("the service of stamp {} does not start: {why}", places.name),
        format!("read its log: {}", places.log().display()),
    )
    .because(anyhow::anyhow!("its last words: {last}"))
    .into()
}

/// Stops the service, if it runs, and waits for its end. Clusters keep running. Returns whether it ran.
pub(crate) async fn stop(places: &Places, env: &Env) -> Result<bool> {
    let Some(first) = pid(places)? else {
        return Ok(false);
    };
    // A service that systemd runs must be stopped by systemd, or it would be started again.
    Unit::of(places)?.stop();
    let mut signal = Signal::TERM;
    let mut deadline = env.clock.monotonic() + STOP_BOUND;
    let mut told = 0;
    while let Some(pid) = pid(places)? {
        if pid > 0 && told != pid {
            told = if tell(places, pid, signal)? { pid } else { told };
        }
        if env.clock.monotonic() > deadline {
            if signal == Signal::KILL {
                anyhow::bail!("process {first} does not end, even when killed");
            }
            // All its work can be repeated, so killing it is safe.
            signal = Signal::KILL;
            told = 0;
            deadline += STOP_BOUND;
        }
        env.clock.sleep(LOOK).await;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Layout;

    fn places(dir: &std::path::Path) -> Places {
        let places = Places {
            name: "one".into(),
            state: dir.join("s"),
            run: dir.join("r"),
        };
        places.make().unwrap();
        places
    }

    #[test]
    fn one_service_a_stamp() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path());
        assert_eq!(pid(&places).unwrap(), None);
        let held = hold(&places).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(pid(&places).unwrap(), Some(own));
        assert!(hold(&places).err().unwrap().to_string().contains("runs already"));
        drop(held);
        // The file is still there, but has no meaning without the lock.
        assert_eq!(pid(&places).unwrap(), None);
    }

    #[test]
    fn a_name_that_runs_belongs_to_one_state_directory() {
        let dir = tempfile::tempdir().unwrap();
        let one = Places {
            name: "one".into(),
            state: dir.path().join("state/one"),
            run: dir.path().join("run/one"),
        };
        let settings = Settings::load_or_make(&one, &Layout::default(), &[], &Env::system()).unwrap();
        check_home(&one, false).unwrap();
        settings.note_running(&one).unwrap();
        check_home(&one, false).unwrap();
        let other = Places {
            state: dir.path().join("elsewhere/one"),
            ..one.clone()
        };
        let told = crate::problem::told(&check_home(&other, true).unwrap_err());
        assert!(
            told.sentence.contains(&one.state.display().to_string()),
            "{}",
            told.sentence
        );
        assert!(told.next.unwrap().contains("LANDFALL_STATE_DIR="));
        // After its files were deleted by hand, `down` still works, and no other command.
        fs::remove_file(one.settings()).unwrap();
        assert_eq!(Settings::load_running(&one).unwrap().1, settings);
        check_home(&other, false).unwrap();
        let _held = hold(&one).unwrap();
        check_home(&one, true).unwrap();
        let error = check_home(&one, false).unwrap_err();
        assert!(error.to_string().contains("deleted"), "{error}");
        assert!(check_home(&other, true).is_err());
    }

    #[test]
    fn only_root_gets_at_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        // As an earlier release left it.
        fs::create_dir_all(dir.path().join("r")).unwrap();
        fs::set_permissions(dir.path().join("r"), Permissions::from_mode(0o755)).unwrap();
        fs::write(dir.path().join("r/serve.lock"), "7\n").unwrap();
        let places = places(dir.path());
        let _held = hold(&places).unwrap();
        assert_eq!((mode(&places.run), mode(&places.lock())), (0o700, 0o600));
    }

    #[test]
    fn looking_keeps_nobody_from_starting() {
        // In a separate process: between fork and exec, a child of another test would hold this one's lock as
        // well.
        const ALONE: &str = "LANDFALL_TEST_ALONE";
        if std::env::var_os(ALONE).is_none() {
            let alone = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "background::tests::looking_keeps_nobody_from_starting"])
                .env(ALONE, "1")
                .status();
            assert!(alone.unwrap().success());
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path());
        drop(hold(&places).unwrap());
        let over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !over.load(std::sync::atomic::Ordering::Relaxed) {
                        pid(&places).unwrap();
                    }
                });
            }
            let failed = (0..2000).filter(|_| hold(&places).is_err()).count();
            over.store(true, std::sync::atomic::Ordering::Relaxed);
            assert_eq!(failed, 0);
        });
    }

    /// A process with the pid of an earlier service.
    struct Stranger(Child);

    impl Stranger {
        fn new() -> Self {
            let child = Command::new("cat")
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn();
            Self(child.unwrap())
        }
    }

    impl Drop for Stranger {
        fn drop(&mut self) {
            let _ended = self.0.kill();
            let _reaped = self.0.wait();
        }
    }

    #[tokio::test]
    async fn a_process_that_has_the_pid_now_is_not_signalled() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path());
        let mut stranger = Stranger::new();
        // The service is dead; another process holds the old lock on its file.
        fs::write(places.lock(), format!("{} 1\n", stranger.0.id())).unwrap();
        let shared = Flock::lock(File::open(places.lock()).unwrap(), FlockArg::LockSharedNonblock);
        assert!(!stop(&places, &Env::system()).await.unwrap());
        drop(shared);
        // The service lives and has not yet written its pid.
        let _held = hold(&places).unwrap();
        fs::write(places.lock(), format!("{} 1\n", stranger.0.id())).unwrap();
        assert_eq!(pid(&places).unwrap(), Some(0));
        let other = i32::try_from(stranger.0.id()).unwrap();
        assert!(!tell(&places, other, Signal::TERM).unwrap());
        assert!(stranger.0.try_wait().unwrap().is_none());
    }

    #[tokio::test]
    async fn a_service_that_was_killed_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path());
        let mut killed = Stranger::new();
        let process = i32::try_from(killed.0.id()).unwrap();
        assert!(!ends(process));
        killed.0.kill().unwrap();
        // Until its parent has waited for it, it is a process without threads.
        assert!(ends(process));
        killed.0.wait().unwrap();
        assert!(ends(process));
        // Its lock is released a little later.
        let held = hold(&places).unwrap();
        fs::write(places.lock(), format!("{process} 1\n")).unwrap();
        let letting_go = async {
            Env::system().clock.sleep(LOOK * 3).await;
            drop(held);
        };
        let env = Env::system();
        let (found, ()) = tokio::join!(living(&places, &env), letting_go);
        assert_eq!(found.unwrap(), None);
        let _held = hold(&places).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(living(&places, &env).await.unwrap(), Some(own));
    }

    #[test]
    fn another_build_is_another_program() {
        assert!(is_this_program(i32::try_from(std::process::id()).unwrap()));
        let stranger = Stranger::new();
        assert!(!is_this_program(i32::try_from(stranger.0.id()).unwrap()));
        assert!(is_this_program(i32::MAX), "there is nobody to look at");
        let dir = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| dir.path().join(name));
        fs::write(&one, vec![7; 100_000]).unwrap();
        fs::write(&other, vec![7; 100_000]).unwrap();
        assert!(has_same_bytes(&one, &other).unwrap());
        let mut changed = vec![7; 100_000];
        changed[99_999] = 8;
        fs::write(&other, changed).unwrap();
        assert!(!has_same_bytes(&one, &other).unwrap());
    }

    #[test]
    fn a_service_of_a_release_from_before_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path());
        fs::write(places.lock(), "4711\n").unwrap();
        assert_eq!(pid(&places).unwrap(), None);
        let held = Flock::lock(
            File::open(places.lock()).unwrap(),
            FlockArg::LockExclusiveNonblock,
        )
        .unwrap();
        assert_eq!(pid(&places).unwrap(), Some(4711));
        assert!(hold(&places).is_err());
        drop(held);
    }
}
