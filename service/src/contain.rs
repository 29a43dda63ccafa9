//! Restarts a part of the service after a panic, without effect on other parts.
//!
//! A panic is a bug all the same: the program counts and shows it (`landfall status`), and the log names the
//! part. Restarts of a part that keeps panicking are further and further apart, but never cease: all its work
//! is done again from the store.

use std::{panic::AssertUnwindSafe, time::Duration};

use base_env::Env;
use futures::FutureExt as _;
use tokio::sync::watch;

use crate::until;

/// The pause before the first restart of a part; twice as long each further time.
const FIRST: Duration = Duration::from_secs(1);
/// At most.
const LONGEST: Duration = Duration::from_secs(60);
/// A part that ran this long without a panic starts with the first pause again.
const FORGIVEN: Duration = Duration::from_secs(10 * 60);

/// Runs a part until it ends; `begin` starts it, and restarts it after a panic. When the service is stopped
/// it is restarted without a pause, so that it may end as usual.
pub async fn contain<W: Future>(
    env: &Env,
    part: &str,
    stopped: &watch::Receiver<bool>,
    mut begin: impl FnMut() -> W,
) -> W::Output {
    let mut panics: u32 = 0;
    loop {
        let begun = env.clock.monotonic();
        // The part's own state is lost. Shared state is behind locks under which no code panics halfway
        // through a change.
        let attempt = AssertUnwindSafe(async { begin().await });
        if let Ok(ended) = attempt.catch_unwind().await {
            return ended;
        }
        if env.clock.monotonic().saturating_sub(begun) >= FORGIVEN {
            panics = 0;
        }
        let pause = FIRST.saturating_mul(1 << panics.min(16)).min(LONGEST);
        panics += 1;
        tracing::error!(
            part,
            panics,
            ?pause,
            "a part of the service ended by a fault of ours and begins again"
        );
        tokio::select! {
            biased;
            () = until(stopped.clone()) => {}
            () = env.clock.sleep(pause) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_part_that_panics_begins_again_and_ends_as_always() {
        let env = Env::simulated(1);
        let (stop, stopped) = watch::channel(false);
        let begun = AtomicU32::new(0);
        let part = contain(&env, "a test's", &stopped, || {
            let times = begun.fetch_add(1, Ordering::SeqCst);
            let stopped = stopped.clone();
            async move {
                assert!(times >= 3, "as a test");
                until(stopped).await;
                times
            }
        });
        let clock = std::sync::Arc::clone(&env.clock);
        let stopping = async {
            clock.sleep(Duration::from_secs(6)).await;
            assert_eq!(
                begun.load(Ordering::SeqCst),
                3,
                "after 1 and 2 seconds, not yet after 4"
            );
            clock.sleep(Duration::from_secs(2)).await;
            stop.send_replace(true);
        };
        assert_eq!(tokio::join!(part, stopping).0, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_always_panics_is_tried_ever_more_seldom_and_does_not_hold_up_the_end() {
        let env = Env::simulated(1);
        let (stop, stopped) = watch::channel(false);
        let begun = AtomicU32::new(0);
        let part = contain(&env, "a test's", &stopped, || {
            begun.fetch_add(1, Ordering::SeqCst);
            let stopped = stopped.clone();
            async move { assert!(*stopped.borrow(), "as a test") }
        });
        let clock = std::sync::Arc::clone(&env.clock);
        let stopping = async {
            clock.sleep(Duration::from_secs(60 * 60)).await;
            let times = begun.load(Ordering::SeqCst);
            assert!((55..=70).contains(&times), "{times}");
            stop.send_replace(true);
            clock.monotonic()
        };
        let (_ended, at) = tokio::join!(part, stopping);
        assert_eq!(clock.monotonic(), at);
    }
}
