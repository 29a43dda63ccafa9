//! A tree of seeds: one more draw in one place does not disturb any other place.
//!
//! Always true: pure, and stable across releases: the same seed, names and indexes give the same numbers. Not for secrets.
//!
//! Called by: everything with jitter or simulated chance, through `base/env` or, where decisions are pure, directly.

use std::hash::{BuildHasher, Hasher};

/// A node of the seed tree. Copy it, name children, draw numbers. Not for secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed(u64);

impl Seed {
    /// The root of a reproducible tree.
    pub const fn new(root: u64) -> Self {
        Self(root)
    }

    /// A root from the process's own entropy.
    pub fn from_entropy() -> Self {
        // RandomState is seeded by the operating system; good enough for jitter, and no dependency.
        Self(
            std::collections::hash_map::RandomState::new()
                .build_hasher()
                .finish(),
        )
    }

    /// The number to print so that a run can be repeated.
    pub const fn value(self) -> u64 {
        self.0
    }

    /// The child with this name. The same name always gives the same child.
    pub fn child(self, name: &str) -> Self {
        // FNV-1a over the name, then mixed with the parent: stable across releases, unlike std's hasher.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Self(mix(self.0 ^ hash))
    }

    /// The `index`-th number of this node, evenly distributed.
    pub fn draw(self, index: u64) -> u64 {
        mix(self.0.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// The `index`-th fraction of this node, in `0.0..1.0`.
    pub fn fraction(self, index: u64) -> f64 {
        // 53 bits: all that a double can tell apart.
        (self.draw(index) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014).
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_are_stable_and_independent() {
        let root = Seed::new(1);
        assert_eq!(root.child("a"), root.child("a"));
        assert_ne!(root.child("a"), root.child("b"));
        assert_ne!(root.child("a").draw(0), root.child("a").draw(1));
        assert!((0..100).all(|i| (0.0..1.0).contains(&root.fraction(i))));
    }
}
