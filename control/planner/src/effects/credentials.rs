//! What is to be done about credentials.

use std::collections::{BTreeMap, BTreeSet};

use cluster_spec::CredentialKind;
use jiff::Timestamp;

/// What credentials may, by their ids.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct CredentialsWish {
    /// Those that are to work.
    pub granted: BTreeMap<String, CredentialKind>,
    /// Those that would still work by themselves and are not to.
    pub withdrawn: BTreeMap<String, CredentialKind>,
    /// What trusted access role bindings give, by their names in lower case.
    pub trusted: BTreeMap<String, TrustedGrant>,
}

/// What a trusted access role binding gives.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TrustedGrant {
    /// Object id of the principal that gets it.
    pub principal: String,
    /// Its roles, as requests name them.
    pub roles: BTreeSet<String>,
    /// When the binding was last changed.
    pub changed_at: Timestamp,
}
