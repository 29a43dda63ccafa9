//! The `$` parameters of a query.

/// The `$` parameters that an operation's query may have. Others are refused by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query {
    /// The fields that `$filter` may compare, of [`crate::FIELDS`]; if empty, `$filter` is refused.
    pub filter: &'static [&'static str],
    /// Whether there is a `$filter` that the handler reads itself.
    pub own_filter: bool,
    /// Whether there is a `$select`, which the handler reads.
    pub select: bool,
    /// The values that `$expand` may have, separated by commas; if empty, `$expand` is refused.
    pub expand: &'static [&'static str],
}

impl Query {
    /// No `$` parameters.
    pub const NONE: Self = Self {
        filter: &[],
        own_filter: false,
        select: false,
        expand: &[],
    };
}
