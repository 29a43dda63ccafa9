//! How long steps of upgrades took on this stamp, and how long an upgrade takes by that. Pure.
//!
//! Always true: of each step there are at most [`MOST`] times, the newest last; without any, a step takes its default, which was chosen for a
//! small stamp on a busy host and is no promise.

use cluster_spec::{ClusterSpec, PoolSpec};
use serde::{Deserialize, Serialize};

/// Times that are kept of a step.
pub const MOST: usize = 16;
/// From the record of a node's machine to a ready node, seconds, where nothing was measured.
pub const START: u32 = 60;
/// From the first eviction of a node's pods until its machine is gone, without the time that it is kept afterwards on purpose, seconds.
pub const LEAVE: u32 = 45;
/// From the stop of a control plane member until it serves with the other version, seconds.
pub const MEMBER: u32 = 30;
/// What takes longer is no measure of a step: something was in its way.
const LONGEST: u32 = 60 * 60;

/// Times of a cluster's steps, seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StepTimes {
    /// Of nodes that started, see [`START`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub start: Vec<u32>,
    /// Of nodes that were replaced, see [`LEAVE`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub leave: Vec<u32>,
    /// Of members that were upgraded, see [`MEMBER`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub member: Vec<u32>,
}

/// A step of an upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A node starts.
    Start,
    /// A node is drained and goes.
    Leave,
    /// A control plane member is upgraded.
    Member,
}

impl StepTimes {
    /// Whether nothing was measured.
    pub fn is_empty(&self) -> bool {
        self.start.is_empty() && self.leave.is_empty() && self.member.is_empty()
    }

    fn of(&self, step: Step) -> &Vec<u32> {
        match step {
            Step::Start => &self.start,
            Step::Leave => &self.leave,
            Step::Member => &self.member,
        }
    }

    /// Keeps the time of a step, in seconds; one of no use as a measure is left out.
    pub fn took(&mut self, step: Step, seconds: u64) {
        let Some(seconds) = u32::try_from(seconds).ok().filter(|seconds| *seconds <= LONGEST) else {
            return;
        };
        let times = match step {
            Step::Start => &mut self.start,
            Step::Leave => &mut self.leave,
            Step::Member => &mut self.member,
        };
        times.push(seconds);
        let more = times.len().saturating_sub(MOST);
        times.drain(..more);
    }

    /// Times of several clusters together: of each step the newest.
    #[must_use]
    pub fn with(mut self, other: &Self) -> Self {
        for step in [Step::Start, Step::Leave, Step::Member] {
            for seconds in other.of(step) {
                self.took(step, u64::from(*seconds));
            }
        }
        self
    }

    /// The usual time of a step, seconds: the middle one of those that were measured, the larger of two.
    pub fn usual(&self, step: Step) -> u64 {
        let mut times = self.of(step).clone();
        times.sort_unstable();
        let default = match step {
            Step::Start => START,
            Step::Leave => LEAVE,
            Step::Member => MEMBER,
        };
        u64::from(times.get(times.len() / 2).copied().unwrap_or(default))
    }

    /// The time to replace one node of a pool, seconds: another one starts, this one is drained, kept for the soak time, and goes.
    pub fn node(&self, pool: &PoolSpec) -> u64 {
        self.usual(Step::Start) + self.usual(Step::Leave) + 60 * u64::from(pool.soak_minutes)
    }

    /// The time to replace all nodes of a pool, seconds: as many at a time as it allows.
    pub fn pool(&self, pool: &PoolSpec) -> u64 {
        let at_a_time = (pool.surge + pool.unavailable).max(1);
        u64::from(pool.wanted().div_ceil(at_a_time)) * self.node(pool)
    }

    /// The time to bring a control plane to another version, seconds: one member at a time.
    pub fn control_plane(&self, spec: &ClusterSpec) -> u64 {
        u64::from(spec.tier.members()) * self.usual(Step::Member)
    }

    /// The time from one cluster to another one, as far as that replaces nodes or upgrades members, seconds; 0 where it does neither. The control
    /// plane comes first, then the pools at the same time.
    pub fn upgrade(&self, before: &ClusterSpec, after: &ClusterSpec) -> u64 {
        if after.stopped {
            return 0;
        }
        let control_plane = if before.kubernetes_version == after.kubernetes_version {
            0
        } else {
            self.control_plane(after)
        };
        let pools = after.pools.iter().filter(|pool| {
            let old = before.pools.iter().find(|old| old.name == pool.name);
            old.is_some_and(|old| replaces(old, pool))
        });
        control_plane + pools.map(|pool| self.pool(pool)).max().unwrap_or_default()
    }
}

/// Whether a change of a pool replaces its nodes.
fn replaces(old: &PoolSpec, new: &PoolSpec) -> bool {
    let other = old.image.is_some() && new.image.is_some() && old.image != new.image;
    old.kubernetes_version != new.kubernetes_version || old.renewed != new.renewed || other
}

/// A time for people: `45 s`, `6 min`, `1 h 20 min`.
pub fn words(seconds: u64) -> String {
    match (seconds / 3600, seconds.div_ceil(60)) {
        (0, _) if seconds < 120 => format!("{seconds} s"),
        (0, minutes) => format!("{minutes} min"),
        (_, minutes) => format!("{} h {} min", minutes / 60, minutes % 60),
    }
}

#[cfg(test)]
mod tests {
    use cluster_spec::{Tier, testkit};

    use super::*;

    #[test]
    fn the_newest_times_are_kept_and_the_middle_one_is_the_usual() {
        let mut times = StepTimes::default();
        assert_eq!(times.usual(Step::Start), 60, "the default");
        times.took(Step::Start, 7);
        times.took(Step::Start, 9);
        assert_eq!(times.usual(Step::Start), 9, "the larger of two");
        times.took(Step::Start, 100_000);
        assert_eq!(times.start, [7, 9], "something was in its way");
        for seconds in 0..40 {
            times.took(Step::Leave, seconds);
        }
        assert_eq!(times.leave.len(), MOST);
        assert_eq!(times.usual(Step::Leave), 32);
        let text = serde_json::to_string(&StepTimes::default()).unwrap();
        assert_eq!(text, "{}");
        let both = StepTimes::default().with(&times).with(&times);
        assert_eq!(both.start, [7, 9, 7, 9]);
    }

    #[test]
    fn an_upgrade_takes_its_control_plane_and_its_slowest_pool() {
        let times = StepTimes {
            start: vec![10],
            leave: vec![20],
            member: vec![5],
        };
        let mut before = testkit::cluster();
        before.tier = Tier::Standard;
        before.pools = vec![
            testkit::pool("a", 3),
            testkit::pool("b", 5),
            testkit::pool("c", 50),
        ];
        assert_eq!(times.upgrade(&before, &before), 0);
        let mut after = before.clone();
        after.kubernetes_version = "1.37.1".to_owned();
        assert_eq!(times.upgrade(&before, &after), 15);
        after.pools[0].kubernetes_version = "1.37.1".to_owned();
        assert_eq!(times.upgrade(&before, &after), 15 + 3 * 30);
        after.pools[1].kubernetes_version = "1.37.1".to_owned();
        after.pools[1].surge = 2;
        after.pools[1].soak_minutes = 1;
        assert_eq!(times.upgrade(&before, &after), 15 + 3 * 90, "two at a time");
        let mut renewed = before.clone();
        renewed.pools[0].renewed = Some(1);
        assert_eq!(times.upgrade(&before, &renewed), 90);
        after.stopped = true;
        assert_eq!(times.upgrade(&before, &after), 0, "what is stopped waits");
    }

    #[test]
    fn times_are_told_in_words() {
        for (seconds, told) in [
            (45, "45 s"),
            (119, "119 s"),
            (120, "2 min"),
            (350, "6 min"),
            (3600, "1 h 0 min"),
            (4700, "1 h 19 min"),
        ] {
            assert_eq!(words(seconds), told);
        }
    }
}
