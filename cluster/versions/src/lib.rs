//! Kubernetes versions: the offered ones, the meaning of a request, upgrade paths, and permitted skew.
//!
//! Pure. Always true of an [`Offered`]: it is not empty, sorted, without duplicates, and its default is in it.
//!
//! Called by: `providers/containerservice` (validation, `kubernetesVersions`, `upgradeProfiles`), `image` and
//! the binary (the node images to build).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The patch releases whose components are pinned, oldest first.
pub const PINNED: &[&str] = &["1.36.3", "1.37.1"];

/// The number of minors a node may be behind its control plane (Kubernetes 1.28 and later).
pub const NODE_SKEW: u32 = 3;

/// A full version, ordered as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version {
    /// 1 so far.
    pub major: u32,
    /// The minor release.
    pub minor: u32,
    /// The patch release.
    pub patch: u32,
}

/// A version in a request: a full version, or a minor, which means its newest patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// `1.36.3`
    Exact(Version),
    /// `1.36`
    Newest {
        /// 1 so far.
        major: u32,
        /// The minor release.
        minor: u32,
    },
}

/// The reason why a version cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// Not of the form.
    #[error("{text:?} is not a version: write it as major.minor or major.minor.patch, e.g. 1.36.3")]
    Malformed {
        /// The given text, cut to 64 characters.
        text: String,
    },
    /// Well formed, but not offered.
    #[error("Kubernetes {wanted} is not offered here; choose one of {}", join(offered))]
    NotOffered {
        /// The requested version.
        wanted: String,
        /// The offered versions.
        offered: Vec<Version>,
    },
    /// A list without versions.
    #[error("no Kubernetes version is offered; name at least one")]
    Empty,
    /// The node is newer than its control plane, or more than [`NODE_SKEW`] minors older.
    #[error(
        "nodes of {node} cannot join a control plane of {control_plane}: they may be at most {NODE_SKEW} minor versions older, and never newer"
    )]
    Skew {
        /// The nodes' version.
        node: Version,
        /// The control plane's.
        control_plane: Version,
    },
}

fn join(versions: &[Version]) -> String {
    let texts: Vec<String> = versions.iter().map(Version::to_string).collect();
    texts.join(", ")
}

fn malformed(text: &str) -> VersionError {
    VersionError::Malformed {
        text: text.chars().take(64).collect(),
    }
}

/// One number of a version: digits only, no leading zero, at most four digits.
fn number(text: &str) -> Option<u32> {
    let plain = !text.is_empty()
        && text.len() <= 4
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten()
}

impl FromStr for Wanted {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let mut parts = text.split('.').map(number);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Some(major)), Some(Some(minor)), None, None) => Ok(Self::Newest { major, minor }),
            (Some(Some(major)), Some(Some(minor)), Some(Some(patch)), None) => {
                Ok(Self::Exact(Version { major, minor, patch }))
            }
            _ => Err(malformed(text)),
        }
    }
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        match text.parse()? {
            Wanted::Exact(version) => Ok(version),
            Wanted::Newest { .. } => Err(malformed(text)),
        }
    }
}

impl TryFrom<String> for Version {
    type Error = VersionError;

    fn try_from(text: String) -> Result<Self, VersionError> {
        text.parse()
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.to_string()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl Version {
    /// `major.minor`.
    pub fn minor_name(self) -> String {
        format!("{}.{}", self.major, self.minor)
    }

    /// Whether `wanted` means this version, exactly or by its minor.
    pub fn is_meant_by(self, wanted: Wanted) -> bool {
        match wanted {
            Wanted::Exact(version) => version == self,
            Wanted::Newest { major, minor } => (major, minor) == (self.major, self.minor),
        }
    }
}

/// The versions offered for new clusters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offered {
    versions: Vec<Version>,
    default: Version,
}

impl Offered {
    /// The [`PINNED`] versions, with the usual default.
    pub fn pinned() -> Self {
        Self::new(PINNED.iter().copied(), None).expect("the pinned versions are well formed and not empty")
    }

    /// A list of full versions; without `default`, the newest patch of the second newest minor (of the only one, if
    /// there is but one), as AKS does.
    ///
    /// # Errors
    /// [`VersionError::Malformed`], [`VersionError::Empty`], or [`VersionError::NotOffered`] for a default that is not in
    /// the list.
    pub fn new<'a>(
        versions: impl IntoIterator<Item = &'a str>,
        default: Option<&str>,
    ) -> Result<Self, VersionError> {
        let mut versions = versions
            .into_iter()
            .map(str::parse)
            .collect::<Result<Vec<Version>, _>>()?;
        versions.sort_unstable();
        versions.dedup();
        let newest = *versions.last().ok_or(VersionError::Empty)?;
        let usual = versions
            .iter()
            .rev()
            .find(|version| (version.major, version.minor) < (newest.major, newest.minor))
            .copied()
            .unwrap_or(newest);
        let mut offered = Self {
            versions,
            default: usual,
        };
        if let Some(default) = default.filter(|text| !text.is_empty()) {
            offered.default = offered.resolve(default)?;
        }
        Ok(offered)
    }

    /// All of them, oldest first.
    pub fn versions(&self) -> &[Version] {
        &self.versions
    }

    /// The default version.
    pub fn default_version(&self) -> Version {
        self.default
    }

    /// The minors, oldest first, as (major, minor).
    pub fn minors(&self) -> Vec<(u32, u32)> {
        let mut minors: Vec<_> = self
            .versions
            .iter()
            .map(|version| (version.major, version.minor))
            .collect();
        minors.dedup();
        minors
    }

    /// The version of a request: the default for an empty text, the newest patch for a minor.
    ///
    /// # Errors
    /// [`VersionError::Malformed`] or [`VersionError::NotOffered`].
    pub fn resolve(&self, text: &str) -> Result<Version, VersionError> {
        if text.is_empty() {
            return Ok(self.default);
        }
        let wanted = text.parse()?;
        self.versions
            .iter()
            .rev()
            .find(|version| version.is_meant_by(wanted))
            .copied()
            .ok_or_else(|| VersionError::NotOffered {
                wanted: text.to_owned(),
                offered: self.versions.clone(),
            })
    }

    /// Permitted upgrades of a control plane from `from`: newer patches of its minor and all patches of the
    /// next minor, oldest first. Minors are not skipped.
    pub fn upgrades(&self, from: Version) -> Vec<Version> {
        self.versions
            .iter()
            .copied()
            .filter(|to| *to > from && to.major == from.major && to.minor <= from.minor + 1)
            .collect()
    }

    /// Permitted upgrades of nodes from `from` below a control plane of `control_plane`: all newer versions
    /// up to the control plane's own.
    pub fn node_upgrades(&self, from: Version, control_plane: Version) -> Vec<Version> {
        self.versions
            .iter()
            .copied()
            .filter(|to| *to > from && *to <= control_plane)
            .collect()
    }

    /// Permitted versions of new nodes below a control plane of `control_plane`, oldest first.
    pub fn node_versions(&self, control_plane: Version) -> Vec<Version> {
        self.versions
            .iter()
            .copied()
            .filter(|version| check_skew(*version, control_plane).is_ok())
            .collect()
    }
}

/// Nodes are never newer than their control plane and at most [`NODE_SKEW`] minors older.
///
/// # Errors
/// [`VersionError::Skew`].
pub fn check_skew(node: Version, control_plane: Version) -> Result<(), VersionError> {
    let within = node <= control_plane
        && node.major == control_plane.major
        && control_plane.minor - node.minor <= NODE_SKEW;
    within
        .then_some(())
        .ok_or(VersionError::Skew { node, control_plane })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn the_default_is_the_newest_patch_of_the_second_newest_minor() {
        assert_eq!(Offered::pinned().default_version(), v("1.36.3"));
        let four = Offered::new(["1.37.0", "1.36.1", "1.36.10", "1.35.9"], None).unwrap();
        assert_eq!(four.default_version(), v("1.36.10"), "10 is more than 9");
        assert_eq!(
            Offered::new(["1.36.3"], None).unwrap().default_version(),
            v("1.36.3")
        );
        let named = Offered::new(["1.36.3", "1.37.1"], Some("1.37")).unwrap();
        assert_eq!(named.default_version(), v("1.37.1"));
        assert_eq!(Offered::new([], None), Err(VersionError::Empty));
    }

    #[test]
    fn a_minor_means_its_newest_patch_and_nothing_means_the_default() {
        let offered = Offered::new(["1.36.1", "1.36.3", "1.37.1"], None).unwrap();
        assert_eq!(offered.resolve("1.36"), Ok(v("1.36.3")));
        assert_eq!(offered.resolve("1.36.1"), Ok(v("1.36.1")));
        assert_eq!(offered.resolve(""), Ok(v("1.36.3")));
        let error = offered.resolve("1.36.2").unwrap_err();
        assert_eq!(
            error.to_string(),
            "Kubernetes 1.36.2 is not offered here; choose one of 1.36.1, 1.36.3, 1.37.1"
        );
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for text in [
            "1", "1.", ".1", "v1.36.3", "1.36.3.1", "1.036", "1.36.x", "１.36", "1.99999", "-1.2", " 1.36",
        ] {
            assert!(
                matches!(
                    Offered::pinned().resolve(text),
                    Err(VersionError::Malformed { .. })
                ),
                "{text}"
            );
        }
    }

    #[test]
    fn upgrades_do_not_skip_a_minor() {
        let offered = Offered::new(["1.35.1", "1.35.4", "1.36.3", "1.37.1"], None).unwrap();
        assert_eq!(offered.upgrades(v("1.35.1")), [v("1.35.4"), v("1.36.3")]);
        assert_eq!(offered.upgrades(v("1.37.1")), []);
        assert_eq!(
            offered.node_upgrades(v("1.35.1"), v("1.36.3")),
            [v("1.35.4"), v("1.36.3")]
        );
        assert_eq!(
            offered.node_versions(v("1.36.3")),
            [v("1.35.1"), v("1.35.4"), v("1.36.3")]
        );
    }

    #[test]
    fn nodes_are_at_most_three_minors_older_and_never_newer() {
        for (node, control_plane, ok) in [
            ("1.36.3", "1.36.3", true),
            ("1.34.0", "1.37.1", true),
            ("1.33.9", "1.37.1", false),
            ("1.37.1", "1.36.3", false),
            ("1.36.4", "1.36.3", false),
            ("0.36.3", "1.36.3", false),
        ] {
            assert_eq!(
                check_skew(v(node), v(control_plane)).is_ok(),
                ok,
                "{node} {control_plane}"
            );
        }
    }

    #[test]
    fn versions_are_texts_in_records() {
        let text = serde_json::to_string(&v("1.36.3")).unwrap();
        assert_eq!(text, "\"1.36.3\"");
        assert_eq!(serde_json::from_str::<Version>(&text).unwrap(), v("1.36.3"));
        assert!(serde_json::from_str::<Version>("\"1.36\"").is_err());
    }
}
