//! A clock with adjustable speed: an idle stamp is observed for a quarter of an hour in some minutes.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base_env::{Clock, Env};
use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};

/// See the module. Between two changes of the pace, time passes evenly; it never jumps.
pub(crate) struct Haste {
    base: Arc<dyn Clock>,
    epoch: Timestamp,
    pace: Mutex<Pace>,
}

struct Pace {
    /// When the present pace began, by the clock beneath and by this one.
    base: Duration,
    ours: Duration,
    factor: u32,
}

impl Haste {
    /// The system's environment with such a clock, at the pace of real time.
    pub(crate) fn env() -> (Env, Arc<Self>) {
        let system = Env::system();
        let haste = Arc::new(Self {
            epoch: system.clock.now(),
            pace: Mutex::new(Pace {
                base: system.clock.monotonic(),
                ours: Duration::ZERO,
                factor: 1,
            }),
            base: Arc::clone(&system.clock),
        });
        let env = Env {
            clock: Arc::clone(&haste) as Arc<dyn Clock>,
            ..system
        };
        (env, haste)
    }

    /// Sets the speed from now on. Tasks that sleep already are woken at the time planned before.
    pub(crate) fn set(&self, factor: u32) {
        let now = self.base.monotonic();
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        *pace = Pace {
            ours: pace.at(now),
            base: now,
            factor,
        };
    }
}

impl Pace {
    fn at(&self, base: Duration) -> Duration {
        self.ours + base.saturating_sub(self.base) * self.factor
    }
}

impl Clock for Haste {
    fn now(&self) -> Timestamp {
        self.epoch + SignedDuration::try_from(self.monotonic()).expect("a bench lasts less than 292 years")
    }

    fn monotonic(&self) -> Duration {
        let now = self.base.monotonic();
        self.pace.lock().unwrap_or_else(PoisonError::into_inner).at(now)
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let factor = self.pace.lock().unwrap_or_else(PoisonError::into_inner).factor;
        self.base.sleep(duration / factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_from_where_it_was_when_the_pace_changes() {
        let pace = Pace {
            base: Duration::from_secs(100),
            ours: Duration::from_secs(7),
            factor: 5,
        };
        assert_eq!(pace.at(Duration::from_secs(100)), Duration::from_secs(7));
        assert_eq!(pace.at(Duration::from_secs(102)), Duration::from_secs(17));
    }
}
