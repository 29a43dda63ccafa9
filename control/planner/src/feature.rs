//! What a feature is to the planner: up to four functions, called in the order of the list.
//!
//! Always true: features do not know each other. What one needs to know of another's field is a question in `view`; what may
//! disturb a machine is asked at `disturb`; that something is there is said by `checks`, and by nothing else.

use crate::{Draft, checks::Checks};

/// A thing that a cluster can do.
pub(crate) struct Feature {
    /// For the log and for tests.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests tell features apart by it"))]
    pub(crate) name: &'static str,
    /// What is only written down: all of it at once, in the first transaction.
    pub(crate) record: fn(&mut Draft<'_>),
    /// What is done. Each looks for itself whether it can be.
    pub(crate) act: fn(&mut Draft<'_>),
    /// What is concluded, once everything is planned.
    pub(crate) observe: fn(&mut Draft<'_>),
    /// What is to be there, and whether it is.
    pub(crate) checks: fn(&Draft<'_>, &mut Checks),
}

impl Feature {
    /// One that does nothing yet.
    pub(crate) const fn named(name: &'static str) -> Self {
        Self {
            name,
            record: |_| {},
            act: |_| {},
            observe: |_| {},
            checks: |_, _| {},
        }
    }
}
