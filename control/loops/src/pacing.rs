//! The pause after a failure: twice as long each time, with a jitter from the seed, up to a bound.

use std::time::Duration;

use base_env::Seed;

/// After the first failure.
const FIRST: Duration = Duration::from_millis(250);
/// At most.
const LONGEST: Duration = Duration::from_secs(30);

/// The pause after the `attempts`-th failure in a row (from 1). The same seed gives the same pauses.
pub(crate) fn pause(seed: Seed, attempts: u32) -> Duration {
    let doubled = FIRST.saturating_mul(1 << attempts.saturating_sub(1).min(16));
    // Between three and five quarters, so that subjects that failed together are not retried together.
    doubled
        .min(LONGEST)
        .mul_f64(0.75 + 0.5 * seed.fraction(u64::from(attempts)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_differ_between_seeds() {
        let seed = Seed::new(1);
        let pauses: Vec<_> = (1..12).map(|attempts| pause(seed, attempts)).collect();
        assert!(pauses[0] >= Duration::from_millis(187) && pauses[0] <= Duration::from_millis(313));
        assert!(pauses[4] > pauses[0] * 8);
        assert!(pauses.iter().all(|pause| *pause <= LONGEST.mul_f64(1.25)));
        assert!(pause(seed, u32::MAX) >= LONGEST.mul_f64(0.75));
        assert_eq!(pauses[3], pause(seed, 4));
        assert_ne!(pauses[3], pause(Seed::new(2), 4));
    }
}
