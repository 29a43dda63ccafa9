//! Detects times in which the process did not run: while a host is suspended its wall clock goes on and its
//! monotonic clock does not.
//!
//! Always true: checked by each pass and each tick of the resync, so that a gap is known before a pass
//! decides by the clock.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base_env::Clock;
use control_planner::Gap;
use jiff::Timestamp;

/// Shorter differences are not gaps: clocks are corrected all the time.
const SHORTEST: Duration = Duration::from_secs(5);
/// The number of gaps that are remembered. Any work that began before all of them has ended.
const REMEMBERED: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct GapDetector(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    last: Option<(Timestamp, Duration)>,
    gaps: Arc<[Gap]>,
}

impl GapDetector {
    /// The gaps until now, in order.
    pub(crate) fn gaps(&self, clock: &dyn Clock) -> Arc<[Gap]> {
        // No code below panics halfway through a change, so a poisoned lock still guards consistent data.
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (wall, monotonic) = (clock.now(), clock.monotonic());
        if let Some((last_wall, last_monotonic)) = inner.last.replace((wall, monotonic)) {
            // A clock that was set back gives no gap: timers end later, which is harmless.
            let passed = Duration::try_from(wall.duration_since(last_wall)).unwrap_or_default();
            let length = passed.saturating_sub(monotonic.saturating_sub(last_monotonic));
            if length >= SHORTEST {
                tracing::warn!(
                    ?length,
                    "the service did not run for a while: bounds are extended by it"
                );
                let gap = Gap {
                    at: last_wall,
                    length,
                };
                let skip = (inner.gaps.len() + 1).saturating_sub(REMEMBERED);
                inner.gaps = inner.gaps.iter().skip(skip).copied().chain([gap]).collect();
            }
        }
        Arc::clone(&inner.gaps)
    }
}
