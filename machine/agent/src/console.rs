//! The agent's messages and threads.

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

use crate::process;

/// Small stacks, to save memory.
const STACK: usize = 256 * 1024;

/// The path of the agent's own log, set at its start.
static LOG: OnceLock<PathBuf> = OnceLock::new();

/// Writes further messages to this file as well.
pub(crate) fn log_to(file: &Path) {
    // Called once, at the start of the agent.
    let _first = LOG.set(file.to_owned());
}

/// Writes a line to the console and to the agent's own log.
#[expect(clippy::print_stderr, reason = "standard error is the machine's console")]
pub(crate) fn say(line: &str) {
    eprintln!("landfall-agent: {line}");
    if let Some(log) = LOG.get() {
        // The console has the line; an unwritable log must not stop the agent.
        let _full = process::append(log, line);
    }
}

/// Starts a thread with a small stack. Failure is fatal: an agent without one of its threads is useless.
pub(crate) fn thread(name: &str, work: impl FnOnce() + Send + 'static) {
    let spawned = std::thread::Builder::new()
        .name(name.to_owned())
        .stack_size(STACK)
        .spawn(work);
    if let Err(error) = spawned {
        say(&format!("cannot start the {name} thread: {error}"));
        std::process::exit(1);
    }
}
