//! etcd, for the programs that run beside it in a control plane machine: a client, and what makes a member be there.
//!
//! ```text
//! client     small and synchronous, etcd's v3 JSON gateway over mTLS: keys, leases, watches, members, maintenance
//! ```
//!
//! The gateway and not gRPC: the programs are threads without a runtime, one static binary, a few MiB each.
//!
//! Always true: the client never repeats a request by itself. Called by `agent/agent` (subcommands), `agent/backup`.

pub mod client;
mod wire;
