//! The bound on the work in one instant of virtual time.
//!
//! Virtual time passes only while every task waits. A loop that never waits would stop it for ever, and with
//! it the run. So each access to the clock, the store and the world is counted, anew in each instant, and a
//! run with too many in one of them fails with the last action. A task that does not even yield to others is
//! ended by a panic.
//!
//! Always true: a run is one thread's, and so is its count.

use std::{
    cell::RefCell,
    collections::VecDeque,
    future::poll_fn,
    sync::Arc,
    task::{Poll, Waker},
    time::Duration,
};

use base_env::Clock;
use futures::future::BoxFuture;
use jiff::Timestamp;

/// Accesses in one instant, at most. The busiest instants of generated runs have a few thousand.
const BOUND: u64 = 250_000;
/// Of those, so many are named when it was too many.
const NAMED: u64 = 12;

#[derive(Default)]
struct Count {
    at: Duration,
    accesses: u64,
    most: u64,
    last: VecDeque<String>,
    verdict: Option<String>,
    waker: Option<Waker>,
}

thread_local! {
    static COUNT: RefCell<Count> = RefCell::default();
}

/// A run begins in this thread.
pub(crate) fn begin() {
    COUNT.with_borrow_mut(|count| *count = Count::default());
}

/// The most that was done in one instant since the run began.
#[cfg(test)]
pub(crate) fn most() -> u64 {
    COUNT.with_borrow(|count| count.most)
}

/// Counts an action at this instant. `true` when there are too many: a task that can wait then waits for
/// ever.
///
/// # Panics
/// When the task never yields.
pub(crate) fn count(at: Duration, what: impl FnOnce() -> String) -> bool {
    let (exceeded, panics) = COUNT.with_borrow_mut(|count| {
        if count.at != at {
            count.at = at;
            count.accesses = 0;
            count.last.clear();
        }
        count.accesses += 1;
        count.most = count.most.max(count.accesses);
        if count.verdict.is_none() && count.accesses + NAMED >= BOUND {
            count.last.push_back(what());
        }
        if count.verdict.is_none() && count.accesses >= BOUND {
            let last: Vec<String> = count.last.drain(..).collect();
            count.verdict = Some(format!(
                "something loops without waiting: virtual time has stood at {:.3} s for {BOUND} accesses; the last of them: {}",
                at.as_secs_f64(),
                last.join(", ")
            ));
            if let Some(waker) = count.waker.take() {
                waker.wake();
            }
        }
        let panics = (count.accesses >= 2 * BOUND).then(|| count.verdict.clone()).flatten();
        (count.verdict.is_some(), panics)
    });
    if let Some(verdict) = panics {
        panic!("{verdict}");
    }
    exceeded
}

/// Completes when there were too many actions in one instant, with the last one.
pub(crate) async fn exceeded() -> String {
    poll_fn(|context| {
        COUNT.with_borrow_mut(|count| match &count.verdict {
            Some(verdict) => Poll::Ready(verdict.clone()),
            None => {
                count.waker = Some(context.waker().clone());
                Poll::Pending
            }
        })
    })
    .await
}

/// A clock whose readings are counted.
pub(crate) struct Counted(pub(crate) Arc<dyn Clock>);

impl Counted {
    fn count(&self, what: &str) -> Duration {
        let at = self.0.monotonic();
        count(at, || what.to_owned());
        at
    }
}

impl Clock for Counted {
    fn now(&self) -> Timestamp {
        self.count("a look at the time");
        self.0.now()
    }

    fn monotonic(&self) -> Duration {
        self.count("a look at the clock")
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.count("a wait");
        self.0.sleep(duration)
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Result, ensure};
    use base_env::Env;

    use super::*;
    use crate::{run, script::Player};

    fn complaint<T>(ended: Result<T>) -> String {
        match ended {
            Ok(_) => panic!("it did not fail"),
            Err(error) => format!("{error:#}"),
        }
    }

    fn env() -> Env {
        let env = Env::simulated(1);
        Env {
            clock: Arc::new(Counted(env.clock)),
            ..env
        }
    }

    #[test]
    fn a_service_whose_loop_never_waits_fails_its_run() {
        let ended = run(async || {
            let mut player = Player::new(1).await?;
            // A resync without a pause.
            player.stamp.settings.resync = Duration::ZERO;
            player.command("start").await?;
            player.command("create c1 np1=1").await?;
            player.command("settle").await
        });
        let complaint = complaint(ended);
        assert!(complaint.contains("loops without waiting"), "{complaint}");
    }

    #[test]
    fn a_task_that_gives_way_and_never_waits_fails_its_run_and_names_what_it_does() {
        let ended = run(async || {
            let clock = env().clock;
            let waiting = Arc::clone(&clock);
            tokio::spawn(async move {
                clock.sleep(Duration::from_secs(5)).await;
                loop {
                    clock.sleep(Duration::ZERO).await;
                    tokio::task::yield_now().await;
                }
            });
            waiting.sleep(Duration::from_secs(10)).await;
            Ok(())
        });
        let complaint = complaint(ended);
        assert!(complaint.contains("stood at 5.0"), "{complaint}");
        assert!(complaint.contains("a wait, a wait"), "{complaint}");
    }

    #[test]
    fn a_task_that_does_not_even_give_way_is_ended_and_fails_its_run() {
        let ended = run(async || {
            let clock = env().clock;
            let waiting = Arc::clone(&clock);
            tokio::spawn(async move { while clock.monotonic() < Duration::from_secs(1) {} });
            waiting.sleep(Duration::from_secs(10)).await;
            Ok(())
        });
        let complaint = complaint(ended);
        assert!(complaint.contains("loops without waiting"), "{complaint}");
    }

    #[test]
    fn an_ordinary_run_is_far_from_the_bound() {
        run(async || {
            let mut player = Player::new(1).await?;
            for line in ["start", "create c1 np1=10 np2=10 tier=Standard", "settle"] {
                player.command(line).await?;
            }
            let most = most();
            ensure!(most > 10 && most * 20 < BOUND, "{most} at once");
            Ok(())
        })
        .unwrap();
    }
}
