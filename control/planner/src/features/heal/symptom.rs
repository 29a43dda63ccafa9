//! What can be wrong with a machine.

use jiff::Timestamp;

/// What can be wrong with a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ailment {
    /// It was there, and the fabric has it no more.
    Vanished,
    /// It runs, and its agent says nothing.
    Silent,
    /// Its agent is too old for what it is to be, and does not give way to the one that lies ready.
    Outdated,
    /// A process is not ready.
    Stuck(String),
    /// Kubernetes does not hold its node for ready.
    NotReady,
    /// Its kubelet is ready and there is no node object.
    Unregistered,
    /// A disk is full.
    DiskFull,
}

/// What is wrong with a machine, since when, and in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Symptom {
    /// What.
    pub ailment: Ailment,
    /// Since when this process has seen it.
    pub since: Timestamp,
    /// For people; says the same as long as it is the same.
    pub why: String,
}
