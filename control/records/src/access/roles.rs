//! Custom roles, and what any role permits.

use std::borrow::Cow;

use arm_access::{Permission, built_in};
use control_store::{Store, StoreError, get_record};
use serde::{Deserialize, Serialize};

use super::Stamped;

/// The prefix of all custom roles.
pub const ROLES: &str = "/access/role/";

/// A custom role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RoleRecord {
    /// Format.
    pub v: u32,
    /// GUID, in lower case.
    pub id: String,
    /// For people; no two roles have the same.
    pub name: String,
    /// For people.
    pub description: String,
    /// What it permits.
    pub permissions: Vec<Permission>,
    /// Where it can be assigned: there and below.
    pub assignable_scopes: Vec<String>,
    /// When and by whom.
    #[serde(flatten)]
    pub stamped: Stamped,
}

/// Which custom role has a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RoleNameRecord {
    /// Format.
    pub v: u32,
    /// Its id.
    pub id: String,
}

/// A custom role's key.
pub fn role_key(id: &str) -> String {
    format!("{ROLES}{}", id.to_ascii_lowercase())
}

/// The key that says which custom role has a name; names ignore case.
pub fn role_name_key(name: &str) -> String {
    format!("/access/role-name/{}", arm_ids::encode(&name.to_lowercase()))
}

/// What a role permits; nothing where there is no such role any more.
///
/// # Errors
/// What the store says.
pub async fn permissions_of(store: &dyn Store, role: &str) -> Result<Cow<'static, [Permission]>, StoreError> {
    if let Some(built_in) = built_in(role) {
        return Ok(Cow::Borrowed(&built_in.permissions));
    }
    let found = get_record::<RoleRecord>(store, &role_key(role)).await?;
    Ok(Cow::Owned(
        found.map(|role| role.value.permissions).unwrap_or_default(),
    ))
}
