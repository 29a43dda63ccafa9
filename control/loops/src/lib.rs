//! The control loops: from desired to observed.
//!
//! ```text
//!  store ──watch──► Controller ──wakes──► loop of a cluster ─┐   one task a cluster, only while it is unfinished
//!  agents ─reports──►    │                                   │
//!  cluster API ──────────┘        look ► plan ► act ► commit ┘   plan: pure; act: side by side; commit: one transaction
//! ```
//!
//! Owns: the observed records, machine records, configurations, leases, and the ends of operations. Calls:
//! the store, the fabric, the agents, the clusters' APIs, all behind traits. Called by: the binary, which
//! builds a [`Controller`] and runs it.
//!
//! Always true:
//! * each object is recorded before it is made; every effect may be repeated and may be interrupted;
//! * a wake-up carries no data: work follows from records and observations, so a lost wake-up loses none;
//! * a cluster that has reached its desired state costs no task, no timer and no thread;
//! * operations follow the cluster: losing all of them has no other effect.

mod basis;
mod cluster_loop;
mod commit;
mod controller;
mod deps;
mod disks;
mod dispatcher;
mod effects;
mod fair_queue;
mod fair_semaphore;
mod gap_detector;
mod index;
mod inventory;
mod keeper;
pub mod measures;
mod pacing;
mod publics;
mod recipes;
mod record_cache;
mod rights;
mod security_groups;
mod silent_machines;
mod state;
mod sweep;
mod wakeup;

pub use controller::Controller;
pub use deps::{ControllerDeps, Settings};
pub use fair_semaphore::Limits;
pub use measures::{Activity, LoopMeter};
pub use recipes::{Configured, CredentialObjects, Former, RecipeError, Recipes, Secret, Site, network_id};
