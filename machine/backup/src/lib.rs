//! The continuous backup of etcd, from inside its machine, and the way back.
//!
//! ```text
//! etcd ──watch──► writer ──≤ 100 ms──► spool (own disk): base + log ──≤ 1 s──► service (sealed)
//!                                        │                                        │
//! empty data directory ◄── etcdutl ◄── etcd beside ◄── fold(base, log, moment) ◄──┴── restore
//! ```
//!
//! Two programs use it: `landfall-agent etcd-backup` ([`program`]) writes and ships, on the machine of etcd's leader only;
//! `landfall-agent etcd` restores ([`restore`]) where a cluster's data is lost or another moment's is wanted.
//!
//! Shipping is never stuck: what the service will never take is passed over, told, and made unnecessary by a new base at once.
//!
//! Always true: what the service acknowledged is kept there; a base or a log on the disk is never changed, only appended to
//! and removed as a whole once a newer base holds it; a restored data directory appears under its name complete or not
//! at all, and its revision is above every revision that was ever seen.

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

/// A line for the log of this process.
#[expect(
    clippy::print_stderr,
    reason = "the log of a process in a machine is what it prints"
)]
fn say(line: &str) {
    eprintln!("{line}");
}
