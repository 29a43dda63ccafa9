//! The clock: wall time for records, monotonic time for durations, and the only way to wait.
#![expect(
    clippy::disallowed_methods,
    reason = "this module is where the banned calls are wrapped"
)]

use std::time::{Duration, SystemTime};

use futures::future::BoxFuture;
use jiff::Timestamp;

/// A time-out passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("timed out after {0:?}")]
pub struct Elapsed(pub Duration);

/// The source of time.
pub trait Clock: Send + Sync + 'static {
    /// Wall time, UTC. For records and answers; may jump.
    fn now(&self) -> Timestamp;
    /// Time since an arbitrary start. Never goes back; for measuring and deadlines.
    fn monotonic(&self) -> Duration;
    /// Waits.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}

impl dyn Clock {
    /// Waits for `future` at most `bound`.
    ///
    /// # Errors
    /// [`Elapsed`] when the bound passed first; the future is dropped.
    pub async fn timeout<F: Future>(&self, bound: Duration, future: F) -> Result<F::Output, Elapsed> {
        let sleep = self.sleep(bound);
        futures::pin_mut!(future);
        match futures::future::select(future, sleep).await {
            futures::future::Either::Left((output, _)) => Ok(output),
            futures::future::Either::Right(((), _)) => Err(Elapsed(bound)),
        }
    }
}

/// The operating system's clocks and tokio's timer.
#[derive(Debug)]
pub struct SystemClock {
    start: std::time::Instant,
}

impl SystemClock {
    /// Starts the monotonic count at zero.
    pub fn new() -> Self {
        Self {
            start: std::time::Instant::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::try_from(SystemTime::now())
            .expect("the system clock is within the years that jiff can hold")
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// Virtual time: tokio's (paused) clock, counted from 2026-01-01T00:00:00Z.
#[derive(Debug)]
pub struct SimClock {
    start: tokio::time::Instant,
    epoch: Timestamp,
}

impl SimClock {
    /// Starts at the simulation epoch. Call inside a runtime whose time is paused.
    pub fn new() -> Self {
        Self {
            start: tokio::time::Instant::now(),
            epoch: Timestamp::from_second(1_767_225_600).expect("a constant within range"),
        }
    }
}

impl Default for SimClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        self.epoch
            + jiff::SignedDuration::try_from(self.start.elapsed())
                .expect("simulations last less than 292 years")
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test(start_paused = true)]
    async fn virtual_time_moves_wall_and_monotonic_together() {
        let clock: Arc<dyn Clock> = Arc::new(SimClock::new());
        let before = clock.now();
        clock.sleep(Duration::from_secs(86_400)).await;
        assert_eq!(clock.now().duration_since(before).as_secs(), 86_400);
        assert!(clock.monotonic() >= Duration::from_secs(86_400));
    }

    #[tokio::test(start_paused = true)]
    async fn a_timeout_is_an_error_that_names_its_bound() {
        let clock: Arc<dyn Clock> = Arc::new(SimClock::new());
        let bound = Duration::from_secs(3);
        assert_eq!(
            clock.timeout(bound, std::future::pending::<()>()).await,
            Err(Elapsed(bound))
        );
        assert_eq!(clock.timeout(bound, async { 7 }).await, Ok(7));
    }
}
