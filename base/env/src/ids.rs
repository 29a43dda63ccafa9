//! New identifiers.

use std::sync::atomic::{AtomicU64, Ordering};

use uuid::Uuid;

use crate::Seed;

/// The source of identifiers.
pub trait Ids: Send + Sync + 'static {
    /// A new version 4 UUID.
    fn uuid(&self) -> Uuid;

    /// A short lower-case identifier of ten characters from `0-9a-v` (50 bits), for names that people see.
    fn short(&self) -> String {
        const ALPHABET: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
        let bits = self.uuid().as_u128();
        (0..10)
            .map(|i| char::from(ALPHABET[(bits >> (i * 5)) as usize & 31]))
            .collect()
    }
}

/// Random identifiers from the operating system.
#[derive(Debug)]
pub struct SystemIds;

impl Ids for SystemIds {
    #[expect(
        clippy::disallowed_methods,
        reason = "this module is where the banned call is wrapped"
    )]
    fn uuid(&self) -> Uuid {
        Uuid::new_v4()
    }
}

/// Identifiers computed from a seed, in the order of the calls.
#[derive(Debug)]
pub struct SeededIds {
    seed: Seed,
    next: AtomicU64,
}

impl SeededIds {
    /// The same seed gives the same sequence.
    pub fn new(seed: Seed) -> Self {
        Self {
            seed,
            next: AtomicU64::new(0),
        }
    }
}

impl Ids for SeededIds {
    fn uuid(&self) -> Uuid {
        let index = self.next.fetch_add(2, Ordering::Relaxed);
        let bits = (u128::from(self.seed.draw(index)) << 64) | u128::from(self.seed.draw(index + 1));
        uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_names() {
        let (a, b) = (SeededIds::new(Seed::new(7)), SeededIds::new(Seed::new(7)));
        let first = a.uuid();
        assert_eq!(first, b.uuid());
        assert_ne!(first, a.uuid());
        assert_eq!(a.short().len(), 10);
    }
}
