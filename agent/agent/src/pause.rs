//! Waiting: the agent lives below every clock of the product, and is where time really passes.
#![expect(
    clippy::disallowed_methods,
    reason = "the agent is a process of its own without a simulator around it"
)]

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

/// Time since the agent started.
pub(crate) fn monotonic() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// Lets time pass.
pub(crate) fn sleep(duration: Duration) {
    std::thread::sleep(duration);
}
