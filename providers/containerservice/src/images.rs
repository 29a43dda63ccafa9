//! Node images, as decisions know them: which builds there are of each Kubernetes version.
//!
//! What nothing is known of has no builds: then a pool's nodes boot whichever image there is of their version, as they did before images had
//! builds. Called by: decisions about clusters and pools, channels, upgrade profiles, the state of support, alerts.

use std::collections::{BTreeMap, BTreeSet};

use cluster_spec::is_build;
use cluster_versions::Version;
use control_records::ClusterRecord;
use jiff::Timestamp;

use crate::ContainerService;

/// What is known of node images.
pub trait NodeImages: Send + Sync + 'static {
    /// The builds that there are of a Kubernetes version, the newest first; none where nothing is known of one.
    fn builds(&self, version: &str) -> Vec<String>;

    /// What differs between two builds of a version, for people.
    fn changes(&self, version: &str, from: &str, to: &str) -> Vec<String> {
        let _ = (version, from, to);
        Vec::new()
    }

    /// Whether packages of the base system differ between two builds of a version; where that is not known, they do.
    fn is_patched(&self, version: &str, from: &str, to: &str) -> bool {
        let _ = (version, from, to);
        true
    }

    /// When a build of a version was made. What keeps no more of it than its name tells its day, from midnight UTC on; `None` for a name that
    /// tells none.
    fn built_at(&self, version: &str, build: &str) -> Option<Timestamp> {
        let _ = version;
        built_on(build)
    }

    /// As of when the newest build of a version has all that there was: when it was made, or when it was last seen that nothing newer is to be had;
    /// `None` where there is none.
    fn fresh_at(&self, version: &str) -> Option<Timestamp> {
        let builds = self.builds(version);
        self.built_at(version, builds.first()?)
    }
}

/// The day of a build, from midnight UTC on; `None` for another text.
pub fn built_on(build: &str) -> Option<Timestamp> {
    if !is_build(build) {
        return None;
    }
    let day: Vec<&str> = build.split('.').take(3).collect();
    format!("{}T00:00:00Z", day.join("-")).parse().ok()
}

/// Node images of which nothing is known: they never change.
#[derive(Debug, Clone, Copy)]
pub struct SameImages;

impl NodeImages for SameImages {
    fn builds(&self, _: &str) -> Vec<String> {
        Vec::new()
    }
}

/// The builds at the moment of a decision, by version, the newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Images(BTreeMap<String, Vec<String>>);

impl Images {
    fn of(known: &dyn NodeImages, versions: BTreeSet<String>) -> Self {
        let each = versions.into_iter().map(|version| {
            let builds = known.builds(&version);
            (version, builds)
        });
        Self(each.filter(|(_, builds)| !builds.is_empty()).collect())
    }

    /// The newest build of a version.
    pub(crate) fn newest(&self, version: &str) -> Option<&str> {
        self.0.get(version)?.first().map(String::as_str)
    }

    /// Whether this build of a version is there. Where nothing is known of a version, no build is missing.
    pub(crate) fn has(&self, version: &str, build: &str) -> bool {
        self.0
            .get(version)
            .is_none_or(|builds| builds.iter().any(|known| known == build))
    }

    /// Whether anything is known of a version.
    pub(crate) fn knows(&self, version: &str) -> bool {
        self.0.contains_key(version)
    }
}

impl ContainerService {
    /// The builds of the offered versions, and of those that a cluster has and had.
    pub(crate) fn images_for(&self, record: Option<&ClusterRecord>) -> Images {
        let offered = self.config.offered.versions().iter();
        let mut versions: BTreeSet<String> = offered.map(Version::to_string).collect();
        for pool in record.iter().flat_map(|record| record.state.pools()) {
            versions.insert(pool.spec().kubernetes_version.clone());
            versions.extend(pool.decided().last.clone().map(|last| last.kubernetes_version));
        }
        Images::of(&*self.images, versions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_tells_its_day() {
        let day = "2026-11-28T00:00:00Z".parse().ok();
        assert_eq!(built_on("2026.11.28"), day);
        assert_eq!(built_on("2026.11.28.2"), day);
        assert_eq!(built_on("2026.13.28"), None, "there is no such month");
        assert_eq!(built_on("1.36.3"), None);
        assert_eq!(SameImages.fresh_at("1.36.3"), None);
    }
}
