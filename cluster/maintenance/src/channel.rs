//! Which versions a channel asks for.

use cluster_versions::{Offered, Version};

/// `autoUpgradeProfile.upgradeChannel`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UpgradeChannel {
    /// No version is asked for.
    #[default]
    None,
    /// The newest patch of the present minor.
    Patch,
    /// The newest patch of the second newest minor.
    Stable,
    /// The newest patch of the newest minor.
    Rapid,
}

/// The versions of a cluster: of its control plane and of each pool, in the pools' order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versions {
    /// The control plane's.
    pub control_plane: Version,
    /// The pools'.
    pub pools: Vec<Version>,
}

impl UpgradeChannel {
    /// As bodies have it: `patch`, `stable`, `rapid`; anything else asks for nothing.
    pub fn of(text: &str) -> Self {
        match text {
            "patch" => Self::Patch,
            "stable" => Self::Stable,
            "rapid" => Self::Rapid,
            _ => Self::None,
        }
    }

    /// As in bodies.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Patch => "patch",
            Self::Stable => "stable",
            Self::Rapid => "rapid",
        }
    }

    /// The next versions that a cluster is to have; `None` where it has what the channel asks for. Minors are gone through one by one, so
    /// that what is asked for next may not be the last of it. Nothing goes back, and no pool before its control plane.
    pub fn next(self, now: &Versions, offered: &Offered) -> Option<Versions> {
        let control_plane = self.control_plane(now.control_plane, offered)?;
        let pools = now.pools.iter().map(|pool| match self {
            // Who keeps a pool at an older minor keeps it there.
            Self::Patch => newest_patch(*pool, offered).min(control_plane).max(*pool),
            _ => control_plane.max(*pool),
        });
        let next = Versions {
            control_plane,
            pools: pools.collect(),
        };
        (next != *now).then_some(next)
    }

    fn control_plane(self, now: Version, offered: &Offered) -> Option<Version> {
        let minors = offered.minors();
        let newest = *minors.last()?;
        let goal = match self {
            Self::None => return None,
            Self::Patch => (now.major, now.minor),
            // Where one minor is offered, it is both.
            Self::Stable => minors.iter().rev().nth(1).copied().unwrap_or(newest),
            Self::Rapid => newest,
        };
        // A control plane that is further gets what is newest where it is.
        let goal = goal.max((now.major, now.minor));
        let mut steps = offered.upgrades(now).into_iter();
        let next = steps.rfind(|to| (to.major, to.minor) <= goal);
        Some(next.unwrap_or(now))
    }
}

/// The newest patch that is offered of a version's minor; itself where none is.
fn newest_patch(version: Version, offered: &Offered) -> Version {
    let same = |other: &&Version| (other.major, other.minor) == (version.major, version.minor);
    let newest = offered.versions().iter().filter(same).max();
    newest.copied().unwrap_or(version).max(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v(text: &str) -> Version {
        text.parse().unwrap()
    }

    fn offered() -> Offered {
        Offered::new(["1.34.2", "1.35.1", "1.35.4", "1.36.3", "1.36.5", "1.37.1"], None).unwrap()
    }

    fn next(channel: &str, control_plane: &str, pools: &[&str]) -> Option<(String, Vec<String>)> {
        let now = Versions {
            control_plane: v(control_plane),
            pools: pools.iter().map(|pool| v(pool)).collect(),
        };
        let next = UpgradeChannel::of(channel).next(&now, &offered())?;
        let pools = next.pools.iter().map(Version::to_string).collect();
        Some((next.control_plane.to_string(), pools))
    }

    #[test]
    fn a_channel_asks_for_the_next_step_on_its_way() {
        for (channel, from, to) in [
            ("none", "1.34.2", None),
            ("node-image", "1.34.2", None),
            ("patch", "1.34.2", None),
            ("patch", "1.35.1", Some("1.35.4")),
            ("patch", "1.36.3", Some("1.36.5")),
            ("patch", "1.37.1", None),
            // The newest minor is 1.37, so 1.36 is stable; minors are not skipped.
            ("stable", "1.34.2", Some("1.35.4")),
            ("stable", "1.35.1", Some("1.36.5")),
            ("stable", "1.36.3", Some("1.36.5")),
            ("stable", "1.36.5", None),
            ("stable", "1.37.0", Some("1.37.1")),
            ("rapid", "1.34.2", Some("1.35.4")),
            ("rapid", "1.35.4", Some("1.36.5")),
            ("rapid", "1.36.3", Some("1.37.1")),
            ("rapid", "1.37.1", None),
        ] {
            let pools = to.map(|to| vec![to.to_owned()]);
            assert_eq!(
                next(channel, from, &[from]),
                to.map(str::to_owned).zip(pools),
                "{channel} from {from}"
            );
        }
    }

    #[test]
    fn pools_follow_and_never_go_before_or_back() {
        let some = |control_plane: &str, pools: &[&str]| {
            let pools = pools.iter().map(|pool| (*pool).to_owned()).collect();
            Some((control_plane.to_owned(), pools))
        };
        // An upgrade of the control plane alone is followed up.
        assert_eq!(next("rapid", "1.37.1", &["1.36.3"]), some("1.37.1", &["1.37.1"]));
        assert_eq!(
            next("stable", "1.36.5", &["1.36.5", "1.35.1"]),
            some("1.36.5", &["1.36.5", "1.36.5"])
        );
        // The patch channel changes no minor of a pool.
        assert_eq!(
            next("patch", "1.36.3", &["1.35.1", "1.36.3"]),
            some("1.36.5", &["1.35.4", "1.36.5"])
        );
        assert_eq!(next("patch", "1.36.5", &["1.35.4"]), None);
        assert_eq!(next("rapid", "1.37.1", &[]), None);
    }

    #[test]
    fn of_one_minor_stable_is_the_newest_patch() {
        let offered = Offered::new(["1.36.3", "1.36.5"], None).unwrap();
        let now = Versions {
            control_plane: v("1.36.3"),
            pools: Vec::new(),
        };
        let next = UpgradeChannel::Stable.next(&now, &offered).unwrap();
        assert_eq!(next.control_plane, v("1.36.5"));
    }

    #[test]
    fn channels_are_called_as_in_bodies() {
        for channel in ["none", "patch", "stable", "rapid"] {
            assert_eq!(UpgradeChannel::of(channel).as_str(), channel);
        }
    }
}
