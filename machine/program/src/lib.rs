//! Common parts of a machine's programs, the agent and those that run beside etcd: real time, HTTPS that
//! trusts one CA, files that are written atomically, and readiness probes.
//!
//! These programs are separate processes, outside the product's clock abstraction and without an async
//! runtime: threads with small stacks, and system calls.
//!
//! Always true: a client trusts only the given CA and uses no proxy; a file has its old content or its new
//! one, never a part of it. Called by `machine/agent`, `machine/etcd`, `machine/vip`, `machine/backup`,
//! `machine/image`.

pub mod disk;
pub mod https;
pub mod pause;
pub mod probe;
