//! What every program of a machine stands on, the agent itself and those that run beside etcd: time that really passes,
//! HTTPS that trusts one CA, files that are written whole, and asking a process whether it is ready.
//!
//! These programs are processes of their own, below every clock of the product and without a runtime around them:
//! threads with small stacks, and system calls.
//!
//! Always true: a client trusts only the CA that it was given, and no proxy is between; a file has its old content or its
//! new one, never a part of it. Called by `machine/agent`, `machine/etcd`, `machine/vip`, `machine/backup`.

pub mod disk;
pub mod https;
pub mod pause;
pub mod probe;
