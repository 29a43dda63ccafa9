//! Time, as it really passes.
#![expect(
    clippy::disallowed_methods,
    reason = "programs of a machine are processes of their own without a simulator around them"
)]

use std::{
    sync::OnceLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Time since the program first asked.
pub fn monotonic() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// Time since 1970, by the machine's clock. It may jump.
pub fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Lets time pass.
pub fn sleep(duration: Duration) {
    std::thread::sleep(duration);
}
