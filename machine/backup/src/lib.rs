//! The continuous backup of etcd, from inside its machine, and its restore.
//!
//! ```text
//! etcd ──watch──► writer ──≤ 100 ms──► spool (own disk): base + log ──≤ 1 s──► service (sealed)
//!                                        │                                        │
//! empty data directory ◄── etcdutl ◄── etcd beside ◄── fold(base, log, moment) ◄──┴── restore
//! ```
//!
//! Two programs use it: `landfall-agent etcd-backup` ([`program`]) writes and ships, only beside etcd's leader;
//! `landfall-agent etcd` restores ([`restore`]) lost data, or another moment on request.
//!
//! Shipping never blocks: an object that the service will never accept is skipped, reported, and made
//! unnecessary by a new base at once.
//!
//! Always true: the service keeps everything it acknowledged; a base or a log on the disk is never changed,
//! only appended to and removed as a whole once a newer base covers it; a restored data directory appears
//! under its name complete or not at all, and its revision is above every revision that clients may have
//! seen.

pub mod program;
mod record;
pub mod restore;
mod service;
mod shared;
mod ship;
mod spool;

pub use service::OWN;

#[cfg(test)]
mod real_tests;

/// Milliseconds since 1970.
fn now() -> i64 {
    i64::try_from(machine_program::pause::wall().as_millis()).unwrap_or(i64::MAX)
}

/// Writes a line to the log of this process.
#[expect(
    clippy::print_stderr,
    reason = "the log of a process in a machine is what it prints"
)]
fn say(line: &str) {
    eprintln!("{line}");
}
