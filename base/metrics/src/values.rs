//! Values in memory.

use std::{
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
    time::Duration,
};

/// A number that only grows while the process lives.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// At zero.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// One more.
    pub fn count(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, more: u64) {
        // Counters are independent of other memory, so relaxed ordering is enough; here and below.
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// How many so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that grows and falls.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// At zero.
    pub const fn new() -> Self {
        Self(AtomicI64::new(0))
    }

    /// One more for as long as the guard lives, whatever ends it.
    pub fn enter(&self) -> InFlight<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        InFlight(self)
    }

    /// How many now; never below zero.
    pub fn get(&self) -> u64 {
        u64::try_from(self.0.load(Ordering::Relaxed)).unwrap_or(0)
    }
}

/// One of what a [`Gauge`] counts.
#[derive(Debug)]
pub struct InFlight<'a>(&'a Gauge);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many durations were up to each of some bounds, and their sum.
#[derive(Debug)]
pub struct Histogram {
    /// Microseconds, growing.
    bounds: &'static [u64],
    /// For each bound those above the one before, and at last those above all.
    counts: Box<[AtomicU64]>,
    /// Microseconds.
    sum: AtomicU64,
}

impl Histogram {
    /// With these upper bounds, microseconds, growing. Few are enough: each is a series.
    pub fn new(bounds: &'static [u64]) -> Self {
        Self {
            bounds,
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
        }
    }

    /// Counts a duration.
    pub fn observe(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let place = self.bounds.partition_point(|bound| *bound < micros);
        if let Some(count) = self.counts.get(place) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(micros, Ordering::Relaxed);
    }

    /// How many so far.
    pub fn count(&self) -> u64 {
        self.counts
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .sum()
    }

    /// The sum of all so far.
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum.load(Ordering::Relaxed))
    }

    /// For each bound, in microseconds: how many were up to it.
    pub(crate) fn cumulative(&self) -> impl Iterator<Item = (u64, u64)> {
        let mut up_to = 0;
        self.bounds.iter().zip(&self.counts).map(move |(bound, count)| {
            up_to += count.load(Ordering::Relaxed);
            (*bound, up_to)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_under_way_is_counted_until_it_ends_however_it_ends() {
        let gauge = Gauge::new();
        let first = gauge.enter();
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _second = gauge.enter();
            assert_eq!(gauge.get(), 2);
            panic!("as a test");
        }));
        assert!(ended.is_err());
        assert_eq!(gauge.get(), 1);
        drop(first);
        assert_eq!(gauge.get(), 0);
    }

    #[test]
    fn a_duration_is_in_the_first_bucket_that_holds_it() {
        let histogram = Histogram::new(&[1_000, 10_000]);
        for micros in [0, 1_000, 1_001, 10_000, 10_001, 5_000_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let buckets: Vec<(u64, u64)> = histogram.cumulative().collect();
        assert_eq!(buckets, [(1_000, 2), (10_000, 4)]);
        assert_eq!(histogram.count(), 6);
        assert_eq!(histogram.sum(), Duration::from_micros(5_022_002));
    }
}
