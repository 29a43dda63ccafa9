//! etcd, for the programs that run beside it in a control plane machine: a client, and the steps that make a
//! member exist.
//!
//! ```text
//! client     small and synchronous, etcd's v3 JSON gateway over mTLS: keys, leases, watches, members, maintenance
//! decide     pure: state of the disk and answers of the others ──► the next step to a data directory
//! prepare    `landfall-agent etcd`: takes those steps, then becomes etcd
//! membership `landfall-agent etcd-keeper`, the membership controller: makes the membership match its file
//! ```
//!
//! The gateway and not gRPC: the programs are threads without a runtime, one static binary, a few MiB each.
//!
//! Always true: the client never repeats a request by itself; a member that had data never starts with none;
//! data is only deleted for a requested restore, or when etcd cannot start with it, and then one copy is
//! kept. Called by `machine/agent` (subcommands), `machine/backup`.

pub mod client;
pub mod decide;
mod error;
pub mod membership;
pub mod prepare;
mod wire;
