//! From a draft to a plan: what people are told of it, and whether what is observed has changed.

use crate::{Draft, Plan, Write, messages};

impl Draft<'_> {
    /// The plan that was made.
    pub(crate) fn finish(mut self) -> Plan {
        self.observed.v = 2;
        self.observed.step = messages::step(&self);
        self.observed.problem = messages::problem(&self)
            .or_else(|| messages::addons(&self))
            .or_else(|| messages::volumes(&self));
        let observed_changed = self.observed != self.seen.observed && !self.writes.contains(&Write::Forget);
        debug_assert!(
            self.events.is_empty() || observed_changed || !self.writes.is_empty(),
            "told of nothing that changes: {:?}",
            self.events
        );
        Plan {
            observed_changed,
            events: self.events,
            writes: self.writes,
            observed: self.observed,
            effects: self.effects,
            waits: self.waits,
            unfinished: self.unfinished,
            look_again: self.look_again,
        }
    }
}
