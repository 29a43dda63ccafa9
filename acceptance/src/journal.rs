//! Results of the steps: a line for each, and the totals.
#![expect(
    clippy::disallowed_methods,
    reason = "a test run is told with the host's own stopwatch"
)]
#![expect(clippy::print_stdout, reason = "the lines are what this program is for")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::calls::Ledger;

/// Time limit of all waiting: the host may be busy with other clusters, and no step asserts a time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// Counts and prints. Shared between scenarios that run beside each other.
#[derive(Default)]
pub(crate) struct Journal {
    passed: AtomicU32,
    failed: AtomicU32,
    calls: Arc<Ledger>,
}

impl Journal {
    /// Runs one step of a scenario and prints its result.
    pub(crate) fn step<T>(&self, scenario: &str, what: &str, act: impl FnOnce() -> Result<T>) -> Result<T> {
        let start = Instant::now();
        let outcome = act();
        let seconds = start.elapsed().as_secs_f64();
        match &outcome {
            Ok(_) => {
                self.passed.fetch_add(1, Ordering::Relaxed);
                println!("ok      {seconds:6.1} s  {scenario}: {what}");
            }
            Err(error) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                println!("FAILED  {seconds:6.1} s  {scenario}: {what}\n        {error:#}");
            }
        }
        outcome
    }

    /// Runs a closure and prints how long it took: `{who}: {what} {seconds} s`.
    pub(crate) fn timed<T>(&self, who: &str, what: &str, act: impl FnOnce() -> Result<T>) -> Result<T> {
        let (outcome, seconds) = stopwatch(act);
        let outcome = outcome?;
        self.note(&format!("{who}: {what} {seconds:.1} s"));
        Ok(outcome)
    }

    /// The calls in all stamps.
    pub(crate) fn calls(&self) -> &Arc<Ledger> {
        &self.calls
    }

    /// A line that is not a step.
    pub(crate) fn note(&self, line: &str) {
        println!("{line}");
    }

    /// Passed and failed so far.
    pub(crate) fn totals(&self) -> (u32, u32) {
        (
            self.passed.load(Ordering::Relaxed),
            self.failed.load(Ordering::Relaxed),
        )
    }
}

/// Runs a closure, and gives its duration in seconds.
pub(crate) fn stopwatch<T>(act: impl FnOnce() -> T) -> (T, f64) {
    let start = Instant::now();
    let outcome = act();
    (outcome, start.elapsed().as_secs_f64())
}

/// Tries until it works, for at most `bound`; the last error otherwise.
pub(crate) fn wait_for<T>(what: &str, bound: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if start.elapsed() > bound => {
                return Err(error.context(format!("waited {} s for {what}", bound.as_secs())));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(250)),
        }
    }
}
