//! What is to be done about credentials.

use std::collections::BTreeMap;

use cluster_spec::CredentialKind;

/// What credentials may, by their ids.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct CredentialsWish {
    /// Those that are to work.
    pub granted: BTreeMap<String, CredentialKind>,
    /// Those that would still work by themselves and are not to.
    pub withdrawn: BTreeMap<String, CredentialKind>,
}
