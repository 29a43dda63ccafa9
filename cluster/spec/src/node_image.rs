//! What node images are called. There may be several of a Kubernetes version, with other packages and components: each
//! has a *build*, the day on which it was made, e.g. `2026.11.28`; a second one of a day has a number after it
//! (`2026.11.28.1`).
//!
//! Always true: one spelling everywhere. `nodeImageVersion` in answers, the label
//! `kubernetes.azure.com/node-image-version` of nodes, and what `landfall image list` shows come from
//! [`node_image_version`].

/// What every name begins with.
const PREFIX: &str = "AKSDebian-";
/// Between version and build in what a machine boots.
const AT: char = '@';
/// The longest build: a day and a number.
const LONGEST: usize = 16;

/// The name of a node image, as AKS names its own: by its build. Of machines that were made before images had builds, the
/// Kubernetes version takes its place.
pub fn node_image_version(kubernetes: &str, build: Option<&str>) -> String {
    format!("{PREFIX}{}", build.unwrap_or(kubernetes))
}

/// The build of a name that [`node_image_version`] made; `None` for another text, and for a name without a build.
pub fn build_of(name: &str) -> Option<&str> {
    name.strip_prefix(PREFIX).filter(|build| is_build(build))
}

/// What a machine boots: this build of a version's node image, e.g. `1.36.3@2026.11.28`, or whichever there is of the
/// version: `1.36.3`.
pub fn image_reference(kubernetes: &str, build: Option<&str>) -> String {
    match build {
        Some(build) => format!("{kubernetes}{AT}{build}"),
        None => kubernetes.to_owned(),
    }
}

/// The version and the build of an [`image_reference`].
pub fn split_reference(reference: &str) -> (&str, Option<&str>) {
    match reference.split_once(AT) {
        Some((kubernetes, build)) => (kubernetes, Some(build)),
        None => (reference, None),
    }
}

/// Whether a text is a build: year, month and day, and a number for a second one of the day.
pub fn is_build(text: &str) -> bool {
    let mut parts = text.split('.');
    let mut number = |digits: std::ops::RangeInclusive<usize>| {
        parts.next().is_some_and(|part| {
            digits.contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
        })
    };
    let day = number(4..=4) && number(2..=2) && number(2..=2);
    let more = text.split('.').count();
    day && text.len() <= LONGEST && (more == 3 || more == 4 && number(1..=4))
}

/// Whether a build is newer than another one.
pub fn is_newer(build: &str, than: &str) -> bool {
    let numbers = |text: &str| -> Vec<u32> {
        let parts = text.split('.');
        parts.map(|part| part.parse().unwrap_or_default()).collect()
    };
    numbers(build) > numbers(than)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_of_its_build() {
        assert_eq!(
            node_image_version("1.36.3", Some("2026.11.28")),
            "AKSDebian-2026.11.28"
        );
        assert_eq!(node_image_version("1.36.3", None), "AKSDebian-1.36.3");
        assert_eq!(build_of("AKSDebian-2026.11.28.1"), Some("2026.11.28.1"));
        for other in [
            "AKSDebian-1.36.3",
            "2026.11.28",
            "AKSDebian-",
            "AKSDebian-2026.11",
            "AKSDebian-2026.1.28",
            "AKSDebian-2026.11.28.",
            "AKSDebian-2026.11.28.x",
            "AKSDebian-2026.11.28.1.2",
        ] {
            assert_eq!(build_of(other), None, "{other}");
        }
    }

    #[test]
    fn what_a_machine_boots_is_read_again() {
        for (kubernetes, build) in [("1.36.3", None), ("1.36.3", Some("2026.11.28"))] {
            let reference = image_reference(kubernetes, build);
            assert_eq!(split_reference(&reference), (kubernetes, build));
        }
    }

    #[test]
    fn builds_are_in_order() {
        let order = [
            "2026.09.30",
            "2026.11.28",
            "2026.11.28.2",
            "2026.11.28.10",
            "2027.01.01",
        ];
        for (older, newer) in order.iter().zip(&order[1..]) {
            assert!(is_newer(newer, older), "{newer} {older}");
            assert!(!is_newer(older, newer));
        }
        assert!(!is_newer("2026.11.28", "2026.11.28"));
    }
}
