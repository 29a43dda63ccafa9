//! Builds: which image of a Kubernetes version is which, and what differs between two of them.
//!
//! Always true: of two images of a version in a store, no two have the same build. It is the day of the image's making,
//! e.g. `2026.11.28`; a second one of a day has a number after it. It stands in the manifest, and goes with an exported image to
//! other hosts, where it gets a number if there is another one of that day.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::manifest::Manifest;

/// The day of a moment, UTC.
pub(crate) fn day(at: Timestamp) -> String {
    at.strftime("%Y.%m.%d").to_string()
}

/// The build of an image: images of before have none in their manifest.
pub(crate) fn of(manifest: &Manifest) -> String {
    match &manifest.build {
        Some(build) => build.clone(),
        None => day(manifest.created),
    }
}

/// By what builds are compared: newer ones are larger.
pub(crate) fn order(build: &str) -> Vec<u32> {
    let numbers = build.split('.');
    numbers.map(|number| number.parse().unwrap_or_default()).collect()
}

/// `wanted`, or, where another image has it, the first one of that day that is free.
pub(crate) fn free(wanted: String, taken: &[String]) -> String {
    if !taken.contains(&wanted) {
        return wanted;
    }
    let day: Vec<&str> = wanted.split('.').take(3).collect();
    let day = day.join(".");
    (1..)
        .map(|number| format!("{day}.{number}"))
        .find(|build| !taken.contains(build))
        .unwrap_or(wanted)
}

/// A package of the base system, or a component, that differs between two images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// `package` or `component`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// Its version in the older image; `None`: it was not there.
    pub from: Option<String>,
    /// In the newer one; `None`: it is there no more.
    pub to: Option<String>,
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, from, to, .. } = self;
        match (from, to) {
            (Some(from), Some(to)) => write!(f, "{name} {from} → {to}"),
            (None, Some(to)) => write!(f, "{name} {to} is new"),
            (Some(from), None) => write!(f, "{name} {from} is gone"),
            (None, None) => write!(f, "{name}"),
        }
    }
}

/// What differs between two images, by their bills of materials: packages of the base system first. Within a Debian release, another version of
/// a package is one that its security team or a point release has put right, so these are the packages that vulnerabilities are looked up by.
pub(crate) fn changes(before: &Manifest, after: &Manifest) -> Vec<Change> {
    let packages = |manifest: &Manifest| -> BTreeMap<String, String> {
        let all = manifest.packages.iter();
        all.map(|package| (package.name.clone(), package.version.clone()))
            .collect()
    };
    let components = |manifest: &Manifest| -> BTreeMap<String, String> {
        let all = manifest.programs.iter();
        all.map(|program| (program.component.clone(), program.version.clone()))
            .collect()
    };
    let mut found = differing("package", &packages(before), &packages(after));
    found.extend(differing("component", &components(before), &components(after)));
    found
}

fn differing(
    kind: &'static str,
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
) -> Vec<Change> {
    let names: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let changes = names.into_iter().map(|name| Change {
        kind,
        name: name.clone(),
        from: before.get(name).cloned(),
        to: after.get(name).cloned(),
    });
    changes.filter(|change| change.from != change.to).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DebianPackage, fixture::manifest};

    #[test]
    fn a_second_image_of_a_day_has_a_number() {
        let at = "2026-11-28T23:59:59Z".parse().unwrap();
        assert_eq!(day(at), "2026.11.28");
        let taken = |builds: &[&str]| builds.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(free(day(at), &[]), "2026.11.28");
        assert_eq!(free(day(at), &taken(&["2026.11.27"])), "2026.11.28");
        let two = taken(&["2026.11.28", "2026.11.28.1"]);
        assert_eq!(free(day(at), &two), "2026.11.28.2");
        assert_eq!(free("2026.11.28.1".to_owned(), &two), "2026.11.28.2");
    }

    #[test]
    fn packages_and_components_that_differ_are_named_with_both_versions() {
        let package = |name: &str, version: &str| DebianPackage {
            name: name.to_owned(),
            version: version.to_owned(),
            architecture: "amd64".to_owned(),
        };
        let mut before = manifest();
        before.packages = vec![
            package("libssl3", "3.0.15-1~deb12u1"),
            package("old", "1"),
            package("runc", "1"),
        ];
        let mut after = before.clone();
        after.packages = vec![
            package("libssl3", "3.0.17-1~deb12u2"),
            package("new", "2"),
            package("runc", "1"),
        ];
        let component = after.programs[0].component.clone();
        after.programs[0].version = "v9".to_owned();
        let told: Vec<String> = changes(&before, &after).iter().map(ToString::to_string).collect();
        assert_eq!(
            told[..3],
            [
                "libssl3 3.0.15-1~deb12u1 → 3.0.17-1~deb12u2",
                "new 2 is new",
                "old 1 is gone"
            ]
        );
        assert!(
            told[3].starts_with(&component) && told[3].ends_with("→ v9"),
            "{told:?}"
        );
        assert_eq!(changes(&after, &after), []);
    }
}
