//! When a cluster may be worked on that nobody has asked to be changed, and which upgrades its channels ask for.
//!
//! Pure. A [`Calendar`] is one of AKS' maintenance configurations: its windows, to the minute. A [`Start`] says whether planned work may begin
//! at an instant, and if not, when: at the cluster's own minute of a window, so that clusters with the same window do not begin together. An
//! [`UpgradeChannel`] says which versions a cluster is to have, of those that are offered.
//!
//! Always true: windows are in the order of time, do not touch each other and are not empty; what is said of one instant does not depend on
//! what was asked before. Rules are AKS' ("Use planned maintenance", "Automatically upgrade a cluster"); where they are silent,
//! `docs/decisions/0042` says what holds.
//!
//! Called by: `control/planner`, `control/loops` and `providers/containerservice`.

mod calendar;
mod channel;
mod parse;
mod start;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_years;

pub use calendar::{Calendar, Window};
pub use channel::{UpgradeChannel, Versions};
pub use parse::Malformed;
pub use start::{LEAST_FOR_UPGRADE, Start};

/// The configuration for whatever is not an upgrade of Kubernetes or of node images: releases of the service.
pub const DEFAULT: &str = "default";
/// The configuration for upgrades that [`UpgradeChannel`] asks for.
pub const AUTO_UPGRADE: &str = "aksManagedAutoUpgradeSchedule";
/// The configuration for node images that `nodeOSUpgradeChannel` asks for.
pub const NODE_OS: &str = "aksManagedNodeOSUpgradeSchedule";
