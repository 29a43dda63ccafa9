//! Slows down guessing: after five failures in a row a login waits, longer each time, up to a minute.

use std::{collections::HashMap, sync::Mutex, time::Duration};

/// Failures that cost nothing.
const FREE: u32 = 5;
/// The longest wait.
const MOST: Duration = Duration::from_secs(60);
/// After this without a failure all is forgotten.
const FORGET: Duration = Duration::from_secs(900);
/// How many logins are remembered.
const ENTRIES: usize = 10_000;

#[derive(Debug, Clone, Copy)]
struct Entry {
    failures: u32,
    last: Duration,
}

/// Failures by key. Times are of a monotonic clock.
#[derive(Debug, Default)]
pub(crate) struct Throttle(Mutex<HashMap<String, Entry>>);

impl Throttle {
    /// How long this key still has to wait, if it has to.
    pub(crate) fn wait(&self, key: &str, now: Duration) -> Option<Duration> {
        let entries = self.0.lock().expect("nothing panics while it holds this lock");
        let entry = entries.get(key)?;
        let over = entry.failures.checked_sub(FREE)?;
        let until = entry.last + Duration::from_secs(1_u64 << over.min(6)).min(MOST);
        until.checked_sub(now).filter(|left| !left.is_zero())
    }

    /// Counts a failure.
    pub(crate) fn failed(&self, key: &str, now: Duration) {
        let mut entries = self.0.lock().expect("nothing panics while it holds this lock");
        if entries.len() >= ENTRIES && !entries.contains_key(key) {
            entries.retain(|_, entry| now.saturating_sub(entry.last) < FORGET);
            if entries.len() >= ENTRIES {
                // Full of fresh failures: somebody tries many names. The oldest goes, so that memory stays bounded.
                if let Some(oldest) = entries
                    .iter()
                    .min_by_key(|(_, entry)| entry.last)
                    .map(|(key, _)| key.clone())
                {
                    entries.remove(&oldest);
                }
            }
        }
        let entry = entries.entry(key.to_owned()).or_insert(Entry {
            failures: 0,
            last: now,
        });
        if now.saturating_sub(entry.last) >= FORGET {
            entry.failures = 0;
        }
        entry.failures = entry.failures.saturating_add(1);
        entry.last = now;
    }

    /// Forgets a key.
    pub(crate) fn succeeded(&self, key: &str) {
        self.0
            .lock()
            .expect("nothing panics while it holds this lock")
            .remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_end_and_are_forgotten() {
        let (throttle, second) = (Throttle::default(), Duration::from_secs);
        for _ in 0..FREE - 1 {
            throttle.failed("a", second(0));
        }
        assert_eq!(throttle.wait("a", second(0)), None);
        throttle.failed("a", second(0));
        assert_eq!(throttle.wait("a", second(0)), Some(second(1)));
        assert_eq!(throttle.wait("a", second(1)), None);
        for _ in 0..20 {
            throttle.failed("a", second(10));
        }
        assert_eq!(throttle.wait("a", second(10)), Some(MOST));
        assert_eq!(throttle.wait("b", second(10)), None, "others do not wait");
        throttle.failed("a", second(10) + FORGET);
        assert_eq!(throttle.wait("a", second(10) + FORGET), None);
        throttle.succeeded("a");
        assert_eq!(throttle.wait("a", second(0)), None);
    }

    #[test]
    fn memory_is_bounded() {
        let throttle = Throttle::default();
        for i in 0..ENTRIES + 5 {
            throttle.failed(&i.to_string(), Duration::from_millis(i as u64));
        }
        assert_eq!(throttle.0.lock().unwrap().len(), ENTRIES);
    }
}
