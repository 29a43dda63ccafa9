//! That a machine may be disturbed.

/// The answer yes to the question whether a machine may be disturbed. Effects that disturb a machine, and the mark that it is to go, name it
/// by its permit: one for which nobody has asked does not compile.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Permit {
    machine: String,
}

impl Permit {
    /// Only the question gives one.
    pub(super) fn granted(machine: &str) -> Self {
        Self {
            machine: machine.to_owned(),
        }
    }

    /// Which machine may be disturbed.
    pub fn machine(&self) -> &str {
        &self.machine
    }

    /// One that nobody was asked for, to compare with in tests.
    #[cfg(any(test, feature = "testkit"))]
    pub fn assumed(machine: &str) -> Self {
        Self::granted(machine)
    }
}
