//! Real time.
#![expect(
    clippy::disallowed_methods,
    reason = "programs of a machine are processes of their own without a simulator around them"
)]

use std::{
    sync::OnceLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// The reading of the clock when this program took over from another, and the moment of that.
static START: OnceLock<(Duration, Instant)> = OnceLock::new();

/// Time since the first call in this program, or in the program that it replaced.
pub fn monotonic() -> Duration {
    let (before, start) = START.get_or_init(|| (Duration::ZERO, Instant::now()));
    *before + start.elapsed()
}

/// Continues the clock from an earlier reading. Only before the first call of [`monotonic`]; later it has no
/// effect.
pub fn goes_on_from(before: Duration) {
    let _first = START.set((before, Instant::now()));
}

/// Time since 1970, by the machine's clock. It may jump.
pub fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Blocks for this time.
pub fn sleep(duration: Duration) {
    std::thread::sleep(duration);
}
