//! One operation at a time for each named thing.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::OwnedMutexGuard;

/// Locks by name. An unused name is removed before long.
#[derive(Default)]
pub(crate) struct Locks {
    by_name: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Locks {
    /// Waits for the name and holds it until the guard is dropped.
    pub(crate) async fn hold(&self, name: &str) -> OwnedMutexGuard<()> {
        let lock = {
            // A panic while the map was locked cannot have left it half-changed: each step is one call.
            let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
            by_name.retain(|_, lock| Arc::strong_count(lock) > 1);
            Arc::clone(by_name.entry(name.to_owned()).or_default())
        };
        lock.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_is_held_by_one_and_forgotten_after() {
        let locks = Locks::default();
        let held = locks.hold("a").await;
        let lock = Arc::clone(locks.by_name.lock().unwrap().get("a").unwrap());
        assert!(lock.try_lock().is_err());
        drop((held, lock));
        drop(locks.hold("b").await);
        assert!(!locks.by_name.lock().unwrap().contains_key("a"));
    }
}
