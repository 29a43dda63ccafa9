//! The service in the background: who runs it, starting it, stopping it.
//!
//! Always true: a stamp's service holds an exclusive lock on `serve.lock` as long as it lives, with its pid in the file.
//! So a stale file means nothing, a pid that was used again is never signalled, and there is one service a stamp.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read as _, Seek as _, Write as _},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use base_env::Env;
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    admin::{AdminClient, StampStatus},
    log_file,
    problem::Problem,
    stamp::Places,
    systemd::Unit,
};

/// How long a service may take to open its store and listen.
const START_BOUND: Duration = Duration::from_secs(60);
/// How long it may take to end in order; it never waits for machines.
const STOP_BOUND: Duration = Duration::from_secs(20);
/// How often conditions of another process are looked at; there is nothing to be woken by.
const LOOK: Duration = Duration::from_millis(50);

/// Holds the stamp's lock. Kept by the service as long as it lives.
pub(crate) struct Held {
    _lock: Flock<File>,
}

/// Takes the stamp's lock for this process, or says that a service has it.
pub(crate) fn hold(places: &Places) -> Result<Held> {
    let path = places.lock();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            let act = || format!("cannot write {}", path.display());
            lock.set_len(0).with_context(act)?;
            lock.rewind().with_context(act)?;
            writeln!(&mut *lock, "{}", std::process::id()).with_context(act)?;
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

/// The process id of the stamp's service, if it runs.
pub(crate) fn pid(places: &Places) -> Result<Option<i32>> {
    let path = places.lock();
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot open {}", path.display())),
    };
    let mut text = String::new();
    file.read_to_string(&mut text)
        .with_context(|| format!("cannot read {}", path.display()))?;
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Ok(_) => Ok(None),
        // Locked, and perhaps its pid is not written yet: then it has just started. 0 is no process.
        Err((_, Errno::EWOULDBLOCK)) => Ok(Some(text.trim().parse().unwrap_or(0))),
        Err((_, error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

/// Starts the service unless it runs, and waits until it answers. Returns its state and whether it was started now.
pub(crate) async fn ensure_running(places: &Places, env: &Env) -> Result<(StampStatus, bool)> {
    let admin = AdminClient::new(places)?;
    let mut child = None;
    if let Some(pid) = pid(places)? {
        match admin.status().await {
            Ok(status) if status.service.version == env!("CARGO_PKG_VERSION") => return Ok((status, false)),
            // Clusters do not notice a restart of the service, so an old one is simply replaced.
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

/// Starts the service; the child, unless systemd is the one to run it.
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
    // What a service says before it has a log (a taken port, a damaged store) is in its output, as a person reads it.
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

/// Stops the service, if it runs, and waits for its end. Clusters go on. Returns whether it ran.
pub(crate) async fn stop(places: &Places, env: &Env) -> Result<bool> {
    let Some(first) = pid(places)? else {
        return Ok(false);
    };
    // A service that systemd runs is ended by it, or it would be started again.
    Unit::of(places)?.stop();
    let mut signal = Signal::SIGTERM;
    let mut deadline = env.clock.monotonic() + STOP_BOUND;
    let mut told = 0;
    while let Some(pid) = pid(places)? {
        if pid > 0 && told != pid {
            match kill(Pid::from_raw(pid), signal) {
                Ok(()) => told = pid,
                Err(Errno::ESRCH) => {}
                Err(Errno::EPERM) => return Err(crate::stamp::not_root("stop the service")),
                Err(error) => return Err(error).with_context(|| format!("cannot signal process {pid}")),
            }
        }
        if env.clock.monotonic() > deadline {
            if signal == Signal::SIGKILL {
                anyhow::bail!("process {first} does not end, even when killed");
            }
            // Everything it does can be repeated, so killing it is safe.
            signal = Signal::SIGKILL;
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

    #[test]
    fn one_service_a_stamp() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places {
            name: "one".into(),
            state: dir.path().join("s"),
            run: dir.path().join("r"),
        };
        places.make().unwrap();
        assert_eq!(pid(&places).unwrap(), None);
        let held = hold(&places).unwrap();
        assert_eq!(
            pid(&places).unwrap(),
            Some(i32::try_from(std::process::id()).unwrap())
        );
        assert!(hold(&places).err().unwrap().to_string().contains("runs already"));
        drop(held);
        // The file is still there, and means nothing.
        assert_eq!(pid(&places).unwrap(), None);
    }
}
