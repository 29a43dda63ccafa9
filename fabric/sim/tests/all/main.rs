//! All tests of the simulated world as one program.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod balancers;
mod disks;
mod members;
mod stand;
mod world;
