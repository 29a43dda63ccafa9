//! What a feature is to the planner: up to four functions, called in the order of the list; and, where it has one, the way for a cluster
//! to be that it plans alone.
//!
//! Always true: features do not know each other. What one needs to know of another's field is a question in `view`; what may
//! disturb a machine is asked at `disturb`; that something is there is said by `checks`, and by nothing else.

use control_records::ClusterRecord;

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
    /// A way for a cluster to be in which nobody else has anything to do.
    pub(crate) instead: Option<Instead>,
}

/// A way for a cluster to be other than there and serving. Its feature plans it alone, and says when the generation is reached.
pub(crate) struct Instead {
    /// Whether a cluster is to be so.
    pub(crate) applies: fn(&ClusterRecord) -> bool,
    /// Everything that is written, done and concluded.
    pub(crate) plan: fn(&mut Draft<'_>),
    /// What is to be so, and whether it is.
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
            instead: None,
        }
    }
}
