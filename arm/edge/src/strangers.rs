//! Requests in the service's log that anybody can send without end: unauthenticated ones, and those beyond
//! their principal's budget. Of each kind at most one line a second.
//!
//! The log is bounded in size, and otherwise such a client could push all other lines out of it.

use std::{sync::Mutex, time::Duration};

/// The least time between two lines.
const INTERVAL: Duration = Duration::from_secs(1);

/// The time of the last line, and the number of requests left out since.
#[derive(Default)]
pub(crate) struct Strangers(Mutex<(Option<Duration>, u64)>);

impl Strangers {
    /// Counts a request. If a line is due, gives the number of requests left out before it.
    pub(crate) fn note(&self, now: Duration) -> Option<u64> {
        let mut strangers = self.0.lock().expect("nothing panics while it holds this lock");
        let (told, left_out) = &mut *strangers;
        if told.is_some_and(|told| now.saturating_sub(told) < INTERVAL) {
            *left_out += 1;
            return None;
        }
        *told = Some(now);
        Some(std::mem::take(left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_line_a_second_that_tells_its_size() {
        let strangers = Strangers::default();
        let at = |millis| strangers.note(Duration::from_millis(millis));
        assert_eq!(at(0), Some(0));
        for millis in 1..1000 {
            assert_eq!(at(millis), None, "{millis}");
        }
        assert_eq!(at(1000), Some(999));
        assert_eq!(at(1999), None);
        // However late: none is forgotten.
        assert_eq!(at(60_000), Some(1));
        assert_eq!(at(61_000), Some(0));
    }
}
