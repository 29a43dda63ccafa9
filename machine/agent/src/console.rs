//! What the agent says of itself, and the threads it consists of.

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

use crate::process;

/// Small stacks: a machine has better uses for its memory.
const STACK: usize = 256 * 1024;

/// The agent's own log, known once it runs.
static LOG: OnceLock<PathBuf> = OnceLock::new();

/// What is said goes to this file as well, from now on.
pub(crate) fn log_to(file: &Path) {
    // Called once, as the agent starts.
    let _first = LOG.set(file.to_owned());
}

/// Says something on the console and in the agent's own log.
#[expect(clippy::print_stderr, reason = "standard error is the machine's console")]
pub(crate) fn say(line: &str) {
    eprintln!("landfall-agent: {line}");
    if let Some(log) = LOG.get() {
        // The console has it; a log that cannot be written stops nobody.
        let _full = process::append(log, line);
    }
}

/// A thread with a small stack. One that cannot be had is fatal: PID 1 that does half its work helps nobody.
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
