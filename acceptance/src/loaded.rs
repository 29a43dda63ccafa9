//! The Azure CLI with its modules loaded. Loading them takes seconds of processor time at each start; here,
//! one process loads them, and each command is run by a child of it.
//!
//! Always true: a command has a separate process, with the configuration of the [`Az`] that this was started
//! for; several may run at once. It is the same program, unmodified; guides and logins all the same use the
//! command itself.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Sender, channel},
    },
};

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::json;

use crate::clients::Az;

const PROGRAM: &str = include_str!("../az_loaded.py");

/// The result of a command.
#[derive(Deserialize)]
pub(crate) struct Answer {
    id: u64,
    /// Its exit code.
    #[serde(default)]
    pub(crate) code: i64,
    /// Its output.
    #[serde(default)]
    pub(crate) out: String,
    /// Its standard error.
    #[serde(default)]
    pub(crate) err: String,
    /// The names of all commands below `az aks`, if they were requested.
    #[serde(default)]
    pub(crate) names: Vec<String>,
}

/// The receivers of pending results, by id; `None`: there will be no more results.
type Waiting = Arc<Mutex<Option<HashMap<u64, Sender<Answer>>>>>;

/// A process that has the modules loaded.
pub(crate) struct Loaded {
    child: Child,
    input: Mutex<ChildStdin>,
    waiting: Waiting,
    next: AtomicU64,
}

impl Loaded {
    /// Starts it; commands wait until it is ready.
    pub(crate) fn start(az: &Az) -> Result<Self> {
        let mut command = az.interpreter();
        let mut child = command
            .args(["-c", PROGRAM])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start the Azure CLI's interpreter")?;
        let input = child.stdin.take().context("no standard input")?;
        let output = child.stdout.take().context("no standard output")?;
        let waiting: Waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        let told = Arc::clone(&waiting);
        std::thread::spawn(move || hand_out(output, &told));
        Ok(Self {
            child,
            input: Mutex::new(input),
            waiting,
            next: AtomicU64::new(0),
        })
    }

    /// Runs `az` to its end, whether it fails or not.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<Answer> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = channel();
        locked(&self.waiting)
            .as_mut()
            .context("the Azure CLI's process has ended")?
            .insert(id, sender);
        writeln!(
            locked(&self.input),
            "{}",
            json!({ "id": id, "arguments": arguments })
        )
        .context("the Azure CLI's process takes nothing")?;
        receiver
            .recv()
            .with_context(|| format!("the Azure CLI's process ended with {arguments:?} under way"))
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        // It ends with its input; the kill makes sure.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn hand_out(output: ChildStdout, waiting: &Waiting) {
    for line in BufReader::new(output).lines() {
        let Ok(line) = line else { break };
        // An invalid line ends the reader, and so all pending commands.
        let Ok(answer) = serde_json::from_str::<Answer>(&line) else {
            break;
        };
        let who = locked(waiting).as_mut().and_then(|all| all.remove(&answer.id));
        if let Some(who) = who {
            // A receiver that is gone has failed already.
            drop(who.send(answer));
        }
    }
    *locked(waiting) = None;
}

/// No code panics while it holds these locks.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
