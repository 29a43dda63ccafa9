//! Time, as it really passes.
#![expect(
    clippy::disallowed_methods,
    reason = "programs of a machine are processes of their own without a simulator around them"
)]

use std::{
    sync::OnceLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// How far the clock was when this program took it over from another, and when that was.
static START: OnceLock<(Duration, Instant)> = OnceLock::new();

/// Time since the program first asked, or since the one did whose place it took.
pub fn monotonic() -> Duration {
    let (before, start) = START.get_or_init(|| (Duration::ZERO, Instant::now()));
    *before + start.elapsed()
}

/// The clock goes on from there. Before anybody has asked; after that, it says nothing new.
pub fn goes_on_from(before: Duration) {
    let _first = START.set((before, Instant::now()));
}

/// Time since 1970, by the machine's clock. It may jump.
pub fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Lets time pass.
pub fn sleep(duration: Duration) {
    std::thread::sleep(duration);
}
