//! ARM paths and identifiers: parse, compare, print. No I/O.
//!
//! Always true: comparison ignores case, printing keeps the caller's casing; empty segments (`//`) are collapsed.
// The parser's owner fills this in; the shape is what providers rely on.

/// A parsed request path.
#[derive(Debug, Clone, PartialEq, Eq)]
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
}

impl ResourcePath {
    /// The name at a level, e.g. `name(0)` is the cluster, `name(1)` the pool.
    pub fn name(&self, level: usize) -> Option<&str> {
        self.names.get(level).map(String::as_str)
    }
}
