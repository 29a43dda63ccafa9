//! What the loops count of their work, for the stamp's metrics.
//!
//! Always true: the effects are those of the planner's list, so the table never grows; no cluster, machine or tenant becomes a label. A pass and an
//! effect cost an atomic addition each; how many wait, and how long, is looked up when somebody asks.

use std::{collections::BTreeMap, sync::Arc};

use base_metrics::{Counter, Family, Page};
use control_planner::Effect;
use tokio::sync::watch;

use crate::{cluster_loop::Shared, fair_queue::LANES};

/// Passes of all clusters' loops.
pub static PASSES: Family = Family::counter(
    "landfall_loop_passes_total",
    "Passes of the loops of clusters: look, plan, start effects, commit.",
    &[],
    1,
);
/// Effects that ended, by name and result.
pub static EFFECTS: Family = Family::counter(
    "landfall_loop_effects_total",
    "Effects of the loops that ended, by what they did and whether they were ok, failed, or took too long (timeout).",
    &["effect", "result"],
    120,
);
/// Waiting passes and effects, by lane.
pub static WAITING: Family = Family::gauge(
    "landfall_loop_waiting",
    "Passes and effects that wait for a place, by lane: pass, host (machines and networks), call (everything else).",
    &["lane"],
    3,
);
/// How long the one has waited that has waited longest, by lane.
pub static OLDEST: Family = Family::gauge(
    "landfall_loop_oldest_waiting_seconds",
    "How long the pass or effect waits that has waited longest, by lane.",
    &["lane"],
    3,
);
/// Loops that run.
pub static RUNNING: Family = Family::gauge(
    "landfall_loops_running",
    "Clusters whose loop runs: it acts, waits for something or looks. One that has reached what it is to be has none.",
    &[],
    1,
);
/// Loops that ended by a panic.
pub static PANICS: Family = Family::counter(
    "landfall_loop_panics_total",
    "Loops that ended by a panic, and were started again.",
    &[],
    1,
);

/// All of them.
pub static FAMILIES: [&Family; 6] = [&PASSES, &EFFECTS, &WAITING, &OLDEST, &RUNNING, &PANICS];

/// How an effect ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Ok,
    Failed,
    Timeout,
}

/// In the order of [`Ended`].
const RESULTS: [&str; 3] = ["ok", "failed", "timeout"];

/// The counters.
#[derive(Debug)]
pub(crate) struct Measures {
    passes: Counter,
    effects: BTreeMap<&'static str, [Counter; RESULTS.len()]>,
}

impl Default for Measures {
    fn default() -> Self {
        let effects = Effect::names().map(|name| (name, Default::default()));
        Self {
            passes: Counter::new(),
            effects: effects.collect(),
        }
    }
}

impl Measures {
    /// A pass begins.
    pub(crate) fn pass(&self) {
        self.passes.count();
    }

    /// An effect has ended.
    pub(crate) fn effect(&self, effect: &Effect, ended: Ended) {
        let row = self.effects.get(effect.name());
        if let Some(count) = row.and_then(|row| row.get(ended as usize)) {
            count.count();
        }
    }
}

/// The activity of a controller.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Activity {
    /// Known clusters.
    pub clusters: usize,
    /// Clusters with a running loop, which acts, waits or observes.
    pub busy: usize,
    /// Loops that ended by a panic since the process began. Each was restarted.
    pub panics: u64,
}

/// Reads what the loops have counted. Cheap to clone.
#[derive(Clone)]
pub struct LoopMeter {
    pub(crate) shared: Arc<Shared>,
    pub(crate) activity: watch::Receiver<Activity>,
}

impl LoopMeter {
    /// Writes it to a page. Effects that there were none of have no series.
    pub fn write(&self, page: &mut Page) {
        let measures = &self.shared.measures;
        page.one(&PASSES, measures.passes.get());
        let mut effects = page.family(&EFFECTS);
        for (name, row) in &measures.effects {
            for (result, count) in RESULTS.iter().zip(row) {
                if count.get() > 0 {
                    effects.put(&[name, result], count.get());
                }
            }
        }
        let backlog = LANES.map(|lane| (lane, self.shared.semaphore.backlog(lane)));
        let mut waiting = page.family(&WAITING);
        for (lane, (number, _)) in &backlog {
            waiting.put(&[lane.as_str()], *number);
        }
        let mut oldest = page.family(&OLDEST);
        for (lane, (_, waited)) in &backlog {
            oldest.put(&[lane.as_str()], *waited);
        }
        let activity = *self.activity.borrow();
        page.one(&RUNNING, activity.busy);
        page.one(&PANICS, activity.panics);
    }
}

impl std::fmt::Debug for LoopMeter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoopMeter").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use control_planner::{ApiEffect, ConfigEffect, FabricEffect};

    use super::*;

    #[test]
    fn effects_are_counted_by_name_and_result() {
        let measures = Measures::default();
        let effects = [
            Effect::from(FabricEffect::Look),
            FabricEffect::DeleteVolume("v".to_owned()).into(),
            ConfigEffect::Load("m".to_owned()).into(),
            ApiEffect::LookAtWork.into(),
        ];
        for effect in &effects {
            measures.effect(effect, Ended::Ok);
            measures.effect(effect, Ended::Timeout);
        }
        for name in [
            "fabric_look",
            "fabric_delete_volume",
            "config_load",
            "api_look_at_work",
        ] {
            let counts: Vec<u64> = measures.effects[name].iter().map(Counter::get).collect();
            assert_eq!(counts, [1, 0, 1], "{name}");
        }
        let names: std::collections::BTreeSet<_> = Effect::names().collect();
        assert_eq!(names.len(), Effect::names().count(), "each has a name of its own");
        assert!(names.len() * RESULTS.len() <= EFFECTS.most);
        assert_eq!(names.len(), measures.effects.len());
    }

    #[test]
    fn the_families_follow_the_conventions() {
        for family in FAMILIES {
            assert_eq!(family.fault(), None);
        }
    }
}
