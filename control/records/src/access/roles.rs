//! Custom roles.

use arm_access::Permission;
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
