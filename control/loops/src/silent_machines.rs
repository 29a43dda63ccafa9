//! The number of the stamp's silent machines, counted once for all loops that need it at about the same time.
//!
//! Counting walks over all machines, so it is only done when a repair is due and depends on it; and when a
//! host is out of contact, so that repairs are due everywhere, thousands of loops need it at once.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use agent_api::Agents;
use control_planner::{Ailment, HealPolicy, SilentMachines, Symptom};
use jiff::Timestamp;

use crate::index::Index;

/// Validity of a count. Much shorter than any patience: a machine that is silent when a repair is due has
/// been silent for longer.
const GOOD_FOR: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct SilentMachinesCache(Mutex<Option<(Duration, SilentMachines)>>);

impl SilentMachinesCache {
    /// The count as of `now` (monotonic) or a moment ago.
    pub(crate) fn count(&self, index: &Index, agents: &dyn Agents, now: Duration) -> SilentMachines {
        // Replaced in one go, so a poisoned lock still guards whole data.
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, counted)) = &*last
            && now.saturating_sub(*at) < GOOD_FOR
        {
            return *counted;
        }
        let (all, silent) = index.count_machines(|machine| agents.heard(machine));
        let counted = SilentMachines { silent, all };
        *last = Some((now, counted));
        counted
    }
}

/// Whether a repair may be due that depends on the number. Machines that have vanished are made anew
/// regardless of it.
pub(crate) fn matters<'a>(
    symptoms: impl IntoIterator<Item = &'a Symptom>,
    policy: &HealPolicy,
    now: Timestamp,
) -> bool {
    symptoms.into_iter().any(|symptom| {
        symptom.ailment != Ailment::Vanished
            && now.duration_since(symptom.since).unsigned_abs() >= policy.patience(&symptom.ailment)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_matters_when_a_repair_is_due() {
        let policy = HealPolicy::default();
        let at = |second: u64| Timestamp::UNIX_EPOCH + Duration::from_secs(second);
        let symptom = |ailment| Symptom {
            ailment,
            since: at(100),
            why: String::new(),
        };
        let silent = [symptom(Ailment::Silent)];
        let due = 100 + policy.silent.as_secs();
        assert!(!matters(&silent, &policy, at(due - 1)));
        assert!(matters(&silent, &policy, at(due)));
        assert!(!matters(&[symptom(Ailment::Vanished)], &policy, at(due)));
        assert!(!matters(&[], &policy, at(due)));
    }
}
