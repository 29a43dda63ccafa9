//! An entry for the activity log.

/// A request that changes something or hands out credentials, for the activity log.
pub(crate) struct Written {
    pub(crate) action: String,
    pub(crate) scope: String,
    pub(crate) subscription: Option<String>,
}
