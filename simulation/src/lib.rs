//! The whole control plane in one process: edge, providers, store, loops, over simulated machines, agents and clusters, in
//! virtual time and from a seed.
//!
//! ```text
//!  wishes ─► Stamp ─► edge ─► providers ─► store ◄─ loops ─► SimWorld        play      scripts of `scenarios/`
//!              │                             │         │                     cases     every operation × step × fault
//!              └── start, kill, stop      faults    faults, deaths           chaos     random requests and faults
//!                                                                            fuzz      requests that nobody should send
//! ```
//!
//! Owns: the stamp in one process, the faults of its store and calls, the checks at every end
//! ([`Stamp::check`]), and four ways to run it. Always true: the same seed gives the same [`Trace`], to the
//! last commit; a killed service has no further effect; no task sleeps in real time; a loop that never waits
//! fails its run ([`run`]). Called by: its tests, `cargo xtask chaos` and `cargo xtask fuzz`.

mod autoscale;
mod backups;
mod balancers;
mod budgets;
pub mod cases;
pub mod chaos;
mod check;
mod config;
mod credentials;
pub mod fuzz;
mod images;
mod ingress;
mod instant;
mod login;
mod namespaces;
mod operations;
mod panics;
mod policies;
mod requests;
pub mod script;
mod security;
mod stamp;
mod steps;
mod store;
mod support;
mod trace;
mod volumes;
mod windows;
mod wishes;
pub mod years;

pub use config::TENANT;
pub use operations::{OPERATIONS, Operation};
pub use stamp::{Answer, SUBSCRIPTION, Stamp, run};
pub use steps::{Fault, Steps, Weather};
pub use store::Disk;
pub use trace::Trace;
pub use wishes::{Asked, CONTROL_PLANE, Desired, GROUP, Pool, Wish};
