//! Times in which the service did not run though the clock went on: the host was suspended, or its clock was set forward.
//!
//! Always true: a bound that was under way when a gap began ends later by the length of the gap, for nothing could be done, and
//! nothing could get worse, meanwhile. The age of certificates is none of these bounds: they grow old all the same.

use std::time::Duration;

use jiff::Timestamp;

use crate::after;

/// A time in which the service did not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// When the service was known to run last, before it.
    pub at: Timestamp,
    /// How long it was.
    pub length: Duration,
}

/// `from` and `pause` of the service's running time later. `gaps` are in order.
pub(crate) fn later(from: Timestamp, pause: Duration, gaps: &[Gap]) -> Timestamp {
    let due = after(from, pause);
    gaps.iter().filter(|gap| gap.at >= from).fold(due, |due, gap| {
        if gap.at < due { after(due, gap.length) } else { due }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_ends_later_by_the_gaps_that_begin_within_it() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let seconds = Duration::from_secs;
        let gap = |second, length| Gap {
            at: at(second),
            length: seconds(length),
        };
        let later = |gaps: &[Gap]| later(at(100), seconds(10), gaps);
        assert_eq!(later(&[]), at(110));
        assert_eq!(later(&[gap(105, 1000)]), at(1110));
        // Before it began, and after it ended.
        assert_eq!(later(&[gap(99, 1000)]), at(110));
        assert_eq!(later(&[gap(110, 1000)]), at(110));
        // The second begins within what is left after the first.
        assert_eq!(later(&[gap(105, 1000), gap(1109, 7)]), at(1117));
        assert_eq!(later(&[gap(105, 1000), gap(1110, 7)]), at(1110));
    }
}
