//! Scopes of assignments and locks.

use std::fmt::{self, Write as _};

use arm_ids::{PathError, ResourcePath};

/// Bytes that suffice for the path of most resources.
const ROOM: usize = 192;

/// A scope: the stamp (`/`), a subscription, a resource group, a resource or an extension of one, with all
/// scopes below.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope(
    /// The canonical path in lower case, empty for `/`.
    String,
);

impl Scope {
    /// The stamp.
    pub fn root() -> Self {
        Self(String::new())
    }

    /// The scope of a path.
    pub fn of(path: &ResourcePath) -> Self {
        let mut text = String::with_capacity(ROOM);
        // Writing to a String does not fail.
        let _ = write!(text, "{path}");
        text.make_ascii_lowercase();
        if text == "/" {
            text.clear();
        }
        Self(text)
    }

    /// The scope that a text names.
    ///
    /// # Errors
    /// When it is no path.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        ResourcePath::parse(text).map(|path| Self::of(&path))
    }

    /// The scope that was stored as the end of a record's key.
    pub fn of_key(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// As the end of a record's key: empty, or begins with a slash.
    pub fn key(&self) -> &str {
        &self.0
    }

    /// Whether this is the other scope or above it.
    pub fn contains(&self, other: &Self) -> bool {
        other
            .0
            .strip_prefix(&self.0)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Whether one of the two is the other or above it.
    pub fn is_related(&self, other: &Self) -> bool {
        self.contains(other) || other.contains(self)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "/" } else { &self.0 })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scope(text: &str) -> Scope {
        Scope::parse(text).unwrap()
    }

    #[test]
    fn a_scope_is_above_what_begins_with_its_segments() {
        let cluster =
            "/subscriptions/S/resourceGroups/G/providers/Microsoft.ContainerService/managedClusters/c";
        let pool = format!("{cluster}/agentPools/p");
        let lock = format!("{cluster}/providers/Microsoft.Authorization/locks/l");
        for (above, below, expected) in [
            ("/", "/", true),
            ("/", "/subscriptions/s", true),
            ("/subscriptions/s", "/", false),
            ("/subscriptions/S", "/SUBSCRIPTIONS/s", true),
            ("/subscriptions/s", "/subscriptions/st", false),
            ("/subscriptions/s", "/subscriptions/s/resourcegroups/g", true),
            ("/subscriptions/s/resourceGroups/g", cluster, true),
            (
                "/subscriptions/s/resourceGroups/g",
                "/subscriptions/s/resourceGroups/gg",
                false,
            ),
            // A name with a slash in it is one segment.
            (
                "/subscriptions/s/resourceGroups/g",
                "/subscriptions/s/resourceGroups/g%2Fx",
                false,
            ),
            (cluster, &pool, true),
            (cluster, &lock, true),
            (&pool, cluster, false),
            ("/subscriptions/s/resourceGroups/other", cluster, false),
        ] {
            assert_eq!(scope(above).contains(&scope(below)), expected, "{above} {below}");
        }
    }

    proptest! {
        #[test]
        fn above_is_an_order(a in path(), b in path(), c in path()) {
            let (a, b, c) = (scope(&a), scope(&b), scope(&c));
            prop_assert!(a.contains(&a) && Scope::root().contains(&a));
            if a.contains(&b) && b.contains(&c) {
                prop_assert!(a.contains(&c));
            }
            if a.contains(&b) && b.contains(&a) {
                prop_assert_eq!(a, b);
            }
        }

        #[test]
        fn it_is_by_segments(a in path(), b in path()) {
            let segments = |text: &str| -> Vec<String> {
                text.split('/').filter(|one| !one.is_empty()).map(str::to_lowercase).collect()
            };
            let expected = segments(&b).starts_with(&segments(&a));
            prop_assert_eq!(scope(&a).contains(&scope(&b)), expected, "{} {}", a, b);
        }

        #[test]
        fn a_key_is_read_back(a in path()) {
            let a = scope(&a);
            prop_assert_eq!(Scope::of_key(a.key()), a);
        }
    }

    /// Few names, so that many paths are related.
    fn path() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("/".to_owned()),
            "/subscriptions/[aAb]",
            "/subscriptions/[ab]/resourceGroups/[abB]{1,2}",
            "/subscriptions/[ab]/resourceGroups/[ab]/providers/N/t/[ab](/u/[ab])?(/providers/M/l/[ab])?",
        ]
    }
}
