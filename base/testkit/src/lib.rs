//! Test helpers: bounded waits for a condition, without blind sleeps; free ports; skipping of tests that
//! cannot run here.
//!
//! Only ever a dev-dependency (or a dependency of the acceptance suite and xtask).

pub mod needs;
mod ports;

use std::{sync::Arc, time::Duration};

use base_env::Clock;

pub use ports::port;

/// Polls `condition` until it yields a value, for at most `bound`; panics with the last status otherwise.
///
/// # Panics
/// When the bound passes. The message holds `what` and the last `Err` the condition gave.
pub async fn wait_for<T, F, Fut>(clock: &Arc<dyn Clock>, what: &str, bound: Duration, mut condition: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    let deadline = clock.monotonic() + bound;
    loop {
        match condition().await {
            Ok(value) => return value,
            Err(status) if clock.monotonic() >= deadline => {
                panic!("waited {bound:?} for {what}; last seen: {status}")
            }
            Err(_) => clock.sleep(Duration::from_millis(50)).await,
        }
    }
}
