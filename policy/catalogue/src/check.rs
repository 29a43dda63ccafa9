//! What has to be true of a catalogue beyond its form.

use std::collections::BTreeSet;

use cluster_versions::{Version, Wanted};

use crate::{Catalogue, CatalogueError, Component, Issue, Minor, Predicate, Range};

/// The most entries of a kind.
const ENTRIES: usize = 5_000;
/// The most characters of a text.
const TEXT: usize = 1_000;
/// The most parts within each other of a condition.
const DEEP: usize = 4;
/// The most parts beside each other of a condition.
const WIDE: usize = 16;

pub(crate) fn all(catalogue: &Catalogue) -> Result<(), CatalogueError> {
    let counts = [
        ("minor", catalogue.minors.len()),
        ("component", catalogue.components.len()),
        ("cve", catalogue.cves.len()),
        ("issue", catalogue.issues.len()),
    ];
    for (kind, count) in counts {
        if count > ENTRIES {
            return Err(invalid(
                kind,
                format!("there are {count} of them; {ENTRIES} are read"),
            ));
        }
    }
    if catalogue.serial == 0 {
        return Err(invalid("serial", "it begins at 1"));
    }
    let mut last = None;
    for minor in &catalogue.minors {
        let place = format!("minor {}", cut(&minor.name));
        last = Some(minor_is_good(minor, last).map_err(|why| invalid(&place, why))?);
    }
    let mut names = BTreeSet::new();
    let mut packages = BTreeSet::new();
    for component in &catalogue.components {
        let place = format!("component {}", cut(&component.name));
        name(&component.name).map_err(|why| invalid(&place, why))?;
        if !names.insert(component.name.as_str()) || !packages.insert(component.package.as_str()) {
            return Err(invalid(&place, "there are two with this name or package"));
        }
        if !component.package.starts_with("pkg:") || component.package.contains('@') {
            return Err(invalid(
                &place,
                "package has to be a package URL without a version",
            ));
        }
        if component.on.is_empty() {
            return Err(invalid(&place, "on has to name a kind of machine"));
        }
    }
    let mut ids = BTreeSet::new();
    for cve in &catalogue.cves {
        let place = format!("cve {}", cut(&cve.id));
        let why = |why: String| invalid(&place, why);
        name(&cve.id).map_err(why)?;
        if !ids.insert((cve.id.as_str(), cve.component.as_str())) {
            return Err(why("there are two with this id for one component".to_owned()));
        }
        text("summary", &cve.summary).map_err(why)?;
        sources(&cve.sources).map_err(why)?;
        let component = known(catalogue, &cve.component).map_err(why)?;
        ranges(component, &cve.ranges).map_err(why)?;
    }
    let mut ids = BTreeSet::new();
    for issue in &catalogue.issues {
        let place = format!("issue {}", cut(&issue.id));
        if !ids.insert(issue.id.as_str()) {
            return Err(invalid(&place, "there are two with this id"));
        }
        issue_is_good(catalogue, issue).map_err(|why| invalid(&place, why))?;
    }
    Ok(())
}

fn invalid(place: &str, why: impl Into<String>) -> CatalogueError {
    CatalogueError::Invalid {
        place: place.to_owned(),
        why: why.into(),
    }
}

/// For messages.
fn cut(text: &str) -> String {
    text.chars().take(64).collect()
}

fn text(member: &str, text: &str) -> Result<(), String> {
    let plain = !text.trim().is_empty() && !text.chars().any(char::is_control);
    if plain && text.chars().count() <= TEXT {
        return Ok(());
    }
    Err(format!(
        "{member} has to be a text of at most {TEXT} characters in one line"
    ))
}

fn name(text: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if (1..=64).contains(&text.len()) && text.chars().all(plain) {
        return Ok(());
    }
    Err("a name has at most 64 letters, digits, dashes, dots and underscores".to_owned())
}

fn sources(urls: &[String]) -> Result<(), String> {
    let good = |url: &String| {
        url.starts_with("https://") && url.len() <= 500 && url.bytes().all(|byte| byte.is_ascii_graphic())
    };
    if !urls.is_empty() && urls.len() <= WIDE && urls.iter().all(good) {
        return Ok(());
    }
    Err(format!("it needs 1 to {WIDE} sources that begin with https://"))
}

fn known<'a>(catalogue: &'a Catalogue, component: &str) -> Result<&'a Component, String> {
    let found = catalogue.component(component);
    found.ok_or_else(|| format!("there is no component {}", cut(component)))
}

fn ranges(component: &Component, ranges: &[Range]) -> Result<(), String> {
    if ranges.is_empty() || ranges.len() > 100 {
        return Err("it needs 1 to 100 ranges".to_owned());
    }
    for range in ranges {
        let scheme = component.versions;
        let read = |version: &str| {
            if version.len() <= 64 && scheme.reads(version) {
                return Ok(());
            }
            Err(format!("{:?} is no version of {}", cut(version), component.name))
        };
        read(&range.from)?;
        match (&range.fixed, range.fixed_on, &range.upstream) {
            (Some(fixed), Some(_), None) => {
                read(fixed)?;
                if !scheme
                    .compare(&range.from, fixed)
                    .is_some_and(std::cmp::Ordering::is_lt)
                {
                    return Err(format!("a range ends at {fixed} before it begins"));
                }
            }
            (None, None, Some(upstream)) => text("upstream.fixed", &upstream.fixed)?,
            (None, None, None) => {}
            _ => return Err("a range has fixed with fixed-on, or upstream, or neither".to_owned()),
        }
    }
    Ok(())
}

/// The minor's numbers, where it is after the one before.
fn minor_is_good(minor: &Minor, before: Option<(u32, u32)>) -> Result<(u32, u32), String> {
    let Ok(Wanted::Newest { major, minor: number }) = minor.name.parse::<Wanted>() else {
        return Err("its name has to be like 1.36".to_owned());
    };
    if before.is_some_and(|before| before >= (major, number)) {
        return Err("minors have to be in their order, each once".to_owned());
    }
    if !(minor.released <= minor.maintenance && minor.maintenance <= minor.end_of_support) {
        return Err("released, maintenance and end-of-support have to be in this order".to_owned());
    }
    if minor.lts_end.is_some_and(|end| end < minor.end_of_support) {
        return Err("lts-end is before end-of-support".to_owned());
    }
    for month in minor.azure_preview.iter().chain(&minor.azure_general) {
        // The first day of it is a day.
        if month.len() != 7 || format!("{month}-01").parse::<jiff::civil::Date>().is_err() {
            return Err(format!("{:?} has to be a month like 2026-05", cut(month)));
        }
    }
    if minor.patches.len() > 200 {
        return Err("it has more than 200 patches".to_owned());
    }
    let mut last: Option<Version> = None;
    for patch in &minor.patches {
        let version = patch
            .version
            .parse::<Version>()
            .map_err(|error| error.to_string())?;
        if (version.major, version.minor) != (major, number) || last.is_some_and(|last| last >= version) {
            return Err(format!("{version} is none of its patches, or not in their order"));
        }
        last = Some(version);
    }
    sources(&minor.sources)?;
    Ok((major, number))
}

fn issue_is_good(catalogue: &Catalogue, issue: &Issue) -> Result<(), String> {
    name(&issue.id)?;
    for (member, value) in [
        ("title", &issue.title),
        ("impact", &issue.impact),
        ("workaround", &issue.workaround),
        ("timeline", &issue.timeline),
    ] {
        text(member, value)?;
    }
    sources(&issue.upstream)?;
    let component = known(catalogue, &issue.component)?;
    if !component.on.contains(&issue.on) {
        return Err(format!(
            "{} does not run on a {}",
            component.name,
            issue.on.name()
        ));
    }
    ranges(component, &issue.ranges)?;
    issue.when.as_ref().map_or(Ok(()), |when| predicate(when, DEEP))
}

fn predicate(when: &Predicate, deep: usize) -> Result<(), String> {
    if deep == 0 {
        return Err(format!("when has more than {DEEP} conditions within each other"));
    }
    match when {
        Predicate::Is(_) | Predicate::AtLeast(_) => Ok(()),
        Predicate::Not(part) => predicate(part, deep - 1),
        Predicate::All(parts) | Predicate::Any(parts) => {
            if parts.is_empty() || parts.len() > WIDE {
                return Err(format!(
                    "when has to have 1 to {WIDE} conditions beside each other"
                ));
            }
            parts.iter().try_for_each(|part| predicate(part, deep - 1))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(from: &str, to: &str) -> String {
        let text = Catalogue::BUILT_IN.replacen(from, to, 1);
        assert_ne!(text, Catalogue::BUILT_IN, "the catalogue has no {from}");
        Catalogue::parse(&text).unwrap_err().to_string()
    }

    #[test]
    fn the_catalogue_of_the_program_is_good() {
        let catalogue = Catalogue::parse(Catalogue::BUILT_IN).unwrap();
        for minor in cluster_versions::Offered::pinned().minors() {
            assert!(catalogue.minor(minor.0, minor.1).is_some(), "{minor:?} is pinned");
        }
        for version in cluster_versions::PINNED {
            let known = catalogue.minors.iter().flat_map(|minor| &minor.patches);
            let known = known.filter(|patch| patch.version == *version).count();
            assert_eq!(known, 1, "{version} is pinned");
        }
        // As answers and programs have it.
        let value = serde_json::to_value(&catalogue).unwrap();
        assert_eq!(serde_json::from_value::<Catalogue>(value).unwrap(), catalogue);
    }

    #[test]
    fn what_cannot_be_right_is_refused_by_its_name() {
        for (from, to, said) in [
            ("format = 1", "format = 2", "a newer release of Landfall reads it"),
            (
                "serial = ",
                "serial = 0 # ",
                "serial of the catalogue: it begins at 1",
            ),
            ("serial = ", "serial = 1 # ", ""),
            ("released = \"2025-08-27\"", "released = \"2025-08-32\"", "line "),
            (
                "released = \"2025-08-27\"",
                "released = \"2027-08-27\"",
                "minor 1.34 of the catalogue: released",
            ),
            (
                "name = \"1.35\"",
                "name = \"1.33\"",
                "minor 1.33 of the catalogue: minors have to be in their order",
            ),
            (
                "azure-preview = \"2025-10\"",
                "azure-preview = \"2025-13\"",
                "has to be a month",
            ),
            ("\"1.34.2\"", "\"1.35.2\"", "1.35.2 is none of its patches"),
            ("versions = \"semantic\"", "versions = \"random\"", "line "),
            (
                "pkg:golang/k8s.io/kubernetes",
                "k8s.io/kubernetes",
                "component kubernetes",
            ),
            (
                "component = \"kubernetes\"\nranges",
                "component = \"k\"\nranges",
                "there is no component k",
            ),
            (
                "fixed = \"1.34.2\"",
                "fixed = \"1.33.2\"",
                "ends at 1.33.2 before it begins",
            ),
            (
                "fixed = \"1.34.2\", fixed-on = \"2025-11-11\"",
                "fixed = \"1.34.2\"",
                "fixed with fixed-on",
            ),
            (
                "https://github.com/kubernetes/kubernetes/issues/135525",
                "http://x",
                "https://",
            ),
            (
                "id = \"CVE-2026-33343\"",
                "id = \"CVE-2026-33413\"",
                "two with this id",
            ),
            ("on = \"control-plane\"\nranges", "on = \"host\"\nranges", "line "),
            (
                "component = \"etcd\"\non = \"control-plane\"",
                "component = \"etcd\"\non = \"node\"",
                "etcd does not run on a node",
            ),
            (
                "when = { is = \"dynamic-resource-allocation\" }",
                "when = { all = [] }",
                "conditions beside each other",
            ),
            (
                "when = { is = \"dynamic-resource-allocation\" }",
                "when = { not = { not = { not = { not = { is = \"member-away\" } } } } }",
                "within each other",
            ),
            ("impact = ", "imapct = ", "line "),
        ] {
            if said.is_empty() {
                // A smaller serial is another catalogue, and no fault of its own.
                assert!(Catalogue::parse(&Catalogue::BUILT_IN.replacen(from, to, 1)).is_ok());
                continue;
            }
            let error = refused(from, to);
            assert!(error.contains(said), "{to}: {error}");
        }
    }

    #[test]
    fn what_is_too_long_is_not_read() {
        let text = format!("{}\n# {}", Catalogue::BUILT_IN, "x".repeat(crate::MOST));
        let error = Catalogue::parse(&text).unwrap_err();
        assert!(matches!(error, CatalogueError::TooLarge { .. }), "{error}");
    }
}
