//! Planned work: what nobody has asked for waits for its window, and for an operator who holds it up.
//!
//! Upgrades that a cluster's channels ask for are requests by the time that the planner sees them: who writes them waits for their window, and
//! what is begun goes on to its end. What the planner itself begins is a newer release of the service, machine by machine: each waits.

use std::time::Duration;

use cluster_maintenance::{DEFAULT, Start};
use control_records::planned::Waiting;

use crate::Draft;

/// What it is called that machines are given the configurations of a newer release.
const RELEASE: &str = "bringing machines to this release of Landfall";

/// What a newer release of the service waits for; `None`: machines may take its configurations now.
pub(super) fn release(draft: &Draft<'_>) -> Option<Waiting> {
    let maintenance = &draft.seen.maintenance;
    let waiting = |until, obstacle| {
        Some(Waiting {
            what: RELEASE.to_owned(),
            until,
            obstacle,
        })
    };
    if let Some(paused) = &maintenance.paused {
        return waiting(None, paused.obstacle());
    }
    let calendar = maintenance.releases.as_ref()?;
    match Start::of(calendar, &draft.desired.uid, Duration::ZERO, draft.now) {
        Start::Now => None,
        Start::At(at) => waiting(
            Some(at),
            format!("the maintenance configuration '{DEFAULT}' has no window before"),
        ),
        Start::Never => waiting(
            None,
            format!("the maintenance configuration '{DEFAULT}' has no window within five years"),
        ),
    }
}
