//! Locks: what holds for everybody at a scope, whatever their roles.

use arm_access::Scope;
use serde::{Deserialize, Serialize};

/// The prefix of all locks; the scope follows at once.
pub const LOCKS: &str = "/access/lock";

/// What a lock forbids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LockLevel {
    /// Deletion.
    CanNotDelete,
    /// Deletion and change.
    ReadOnly,
}

impl LockLevel {
    /// As in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CanNotDelete => "CanNotDelete",
            Self::ReadOnly => "ReadOnly",
        }
    }
}

/// A lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LockRecord {
    /// Format.
    pub v: u32,
    /// In the casing last given.
    pub name: String,
    /// What it holds for, with all that is below; in the casing last given.
    pub scope: String,
    /// What it forbids.
    pub level: LockLevel,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
    /// Applications that own it; kept and given back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owners: Vec<String>,
}

impl LockRecord {
    /// Its key.
    pub fn key(&self) -> String {
        let scope =
            Scope::parse(&self.scope).unwrap_or_else(|_| Scope::of_key(&self.scope.to_ascii_lowercase()));
        lock_key(&scope, &self.name)
    }
}

/// The key of a lock. No scope has an empty segment, so the two slashes tell where it ends. With an empty name, the prefix of the scope's.
pub fn lock_key(scope: &Scope, name: &str) -> String {
    format!(
        "{LOCKS}{}//{}",
        scope.key(),
        arm_ids::encode(&name.to_lowercase())
    )
}

/// The scope in the key of a lock.
pub fn lock_scope(key: &str) -> Option<Scope> {
    let (scope, _) = key.strip_prefix(LOCKS)?.split_once("//")?;
    Some(Scope::of_key(scope))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_where_a_lock_holds() {
        for scope in ["/", "/subscriptions/s", "/subscriptions/s/resourceGroups/g"] {
            let at = Scope::parse(scope).unwrap();
            let key = lock_key(&at, "My/Lock");
            assert_eq!(lock_scope(&key), Some(at.clone()), "{key}");
            assert_eq!(key, lock_key(&at, "my/lock"));
            assert!(key.starts_with(&lock_key(&at, "")));
        }
    }
}
