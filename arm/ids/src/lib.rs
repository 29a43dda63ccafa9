//! ARM paths and identifiers: parse, compare, print. No I/O.
//!
//! Always true: comparison ignores the case of ASCII letters ([`same_name`]), printing keeps the caller's
//! casing of names; empty segments (`//`) are collapsed (the Azure CLI sends them); parsing gives a
//! [`ResourcePath`] or a [`PathError`] for any bytes.
//!
//! Called by: the edge (every request), providers (ids in bodies and in answers).

mod encoding;
mod parse;
mod print;

pub use encoding::{decode, encode, parse_query};
pub use parse::{MAX_PATH_BYTES, MAX_SEGMENT_CHARS, MAX_SEGMENTS, PathError};
pub use print::{group_id, resource_id, subscription_id};

/// A parsed request path or resource id.
///
/// `==` is exact; [`ResourcePath::same`] compares as ARM does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResourcePath {
    /// `{s}` of `/subscriptions/{s}`.
    pub subscription: Option<String>,
    /// `{g}` of `/resourceGroups/{g}`.
    pub resource_group: Option<String>,
    /// `{ns}` of the (last) `/providers/{ns}`.
    pub namespace: Option<String>,
    /// Type segments below the namespace (or of the generic scope), e.g. `["managedClusters", "agentPools"]`.
    pub types: Vec<String>,
    /// Names belonging to `types`, in order; one shorter than `types` for a collection or an action.
    pub names: Vec<String>,
    /// The resource that an extension resource is attached to: the path before the last `/providers`, where
    /// that is more than a subscription or resource group.
    pub parent: Option<Box<ResourcePath>>,
}

impl ResourcePath {
    /// The name at a level, e.g. `name(0)` is the cluster, `name(1)` the pool.
    pub fn name(&self, level: usize) -> Option<&str> {
        self.names.get(level).map(String::as_str)
    }

    /// The type segments joined, e.g. `managedClusters/agentPools`.
    pub fn type_path(&self) -> String {
        self.types.join("/")
    }

    /// Namespace and type segments, e.g. `Microsoft.ContainerService/managedClusters`; without a namespace only types.
    pub fn full_type(&self) -> String {
        match &self.namespace {
            Some(namespace) if self.types.is_empty() => namespace.clone(),
            Some(namespace) => format!("{namespace}/{}", self.type_path()),
            None => self.type_path(),
        }
    }

    /// Whether the path names one resource below its scope: as many names as types, and at least one.
    pub fn is_item(&self) -> bool {
        !self.types.is_empty() && self.types.len() == self.names.len()
    }

    /// Whether the path ends in a type without a name: a collection or an action.
    pub fn is_collection(&self) -> bool {
        self.types.len() > self.names.len()
    }

    /// Whether the type path is this one, e.g. `managedClusters/agentPools`, ignoring case.
    pub fn type_is(&self, path: &str) -> bool {
        let mut wanted = path.split('/').filter(|segment| !segment.is_empty());
        let same = self.types.iter().all(|have| {
            wanted
                .next()
                .is_some_and(|want| have.eq_ignore_ascii_case(want.trim_start_matches(':')))
        });
        same && wanted.next().is_none()
    }

    /// Whether the namespace is this one, ignoring case.
    pub fn namespace_is(&self, namespace: &str) -> bool {
        self.namespace
            .as_ref()
            .is_some_and(|own| own.eq_ignore_ascii_case(namespace))
    }

    /// Whether both are the same resource, ignoring case as ARM does.
    pub fn same(&self, other: &Self) -> bool {
        let option = |a: &Option<String>, b: &Option<String>| match (a, b) {
            (Some(a), Some(b)) => same_name(a, b),
            (None, None) => true,
            _ => false,
        };
        let list =
            |a: &[String], b: &[String]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_name(a, b));
        option(&self.subscription, &other.subscription)
            && option(&self.resource_group, &other.resource_group)
            && option(&self.namespace, &other.namespace)
            && list(&self.types, &other.types)
            && list(&self.names, &other.names)
            && match (&self.parent, &other.parent) {
                (Some(a), Some(b)) => a.same(b),
                (None, None) => true,
                _ => false,
            }
    }
}

/// Whether two location names are the same: ARM ignores case and blanks.
pub fn same_location(a: &str, b: &str) -> bool {
    let plain = |text: &str| {
        let mut text = folded(text);
        text.retain(|char| !char.is_whitespace());
        text
    };
    plain(a) == plain(b)
}

/// Whether two names are the same: as in ARM, up to the case of ASCII letters only. `Ä` and `ä` are two
/// names, in ids, in the keys of records and in the scopes of assignments.
pub fn same_name(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b)
}

/// The canonical form of a name: equal for all names that are the same.
pub fn folded(name: &str) -> String {
    name.to_ascii_lowercase()
}

#[cfg(test)]
mod tests;
