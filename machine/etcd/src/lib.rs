//! etcd, for the programs that run beside it in a control plane machine: a client, and what makes a member be there.
//!
//! ```text
//! client     small and synchronous, etcd's v3 JSON gateway over mTLS: keys, leases, watches, members, maintenance
//! decide     pure: what is on disk and what the others say ──► the next step to a data directory
//! prepare    `landfall-agent etcd`: takes those steps, then becomes etcd
//! membership `landfall-agent etcd-keeper`, the membership controller: on the leader's machine, keeps the membership as it is to be
//! ```
//!
//! The gateway and not gRPC: the programs are threads without a runtime, one static binary, a few MiB each.
//!
//! Always true: the client never repeats a request by itself; a member that had data never starts with none; data is
//! only thrown away for a restore that was asked for, or when etcd cannot start with it, and then one is kept. Called by `machine/agent` (subcommands), `machine/backup`.

pub mod client;
pub mod decide;
mod error;
pub mod membership;
pub mod prepare;
mod wire;
