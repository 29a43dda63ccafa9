//! Time, chance and identity, passed in.
//!
//! No code in Landfall reads the operating system's clock, draws random numbers or invents identifiers
//! directly; it uses the [`Env`] that was passed in. A service runs on [`Env::system`], a simulation on
//! [`Env::simulated`], where the same seed gives the same times, the same jitter and the same identifiers.
//! `clippy.toml` bans the direct calls everywhere outside this crate.
//!
//! Always true here: no product term, no I/O, no global. Called by: everything that needs a clock.

mod clock;
mod ids;

pub use base_seed::Seed;
pub use clock::{Clock, Elapsed, SimClock, SystemClock};
pub use ids::{Ids, SeededIds, SystemIds};

use std::sync::Arc;

/// A component's source of time, chance and identity. Cheap to clone.
#[derive(Clone)]
pub struct Env {
    /// The only source of time.
    pub clock: Arc<dyn Clock>,
    /// The root of all jitter and simulated chance. Never used for secrets: those come from the operating system.
    pub seed: Seed,
    /// The only source of new identifiers.
    pub ids: Arc<dyn Ids>,
}

impl Env {
    /// Wall clock, process entropy, random identifiers.
    pub fn system() -> Self {
        let seed = Seed::from_entropy();
        Self {
            clock: Arc::new(SystemClock::new()),
            seed,
            ids: Arc::new(SystemIds),
        }
    }

    /// Virtual time and everything else computed from `seed`. Run it under `tokio::time::pause()`.
    pub fn simulated(seed: u64) -> Self {
        let seed = Seed::new(seed);
        Self {
            clock: Arc::new(SimClock::new()),
            ids: Arc::new(SeededIds::new(seed.child("ids"))),
            seed,
        }
    }
}

impl std::fmt::Debug for Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Env")
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}
