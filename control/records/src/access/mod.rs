//! Who may do what: custom roles, assignments, and locks.
//!
//! | key | record |
//! |---|---|
//! | `/access/assignment/{principal}/{role}{scope}` | [`AssignmentRecord`]; all that a check needs is in the key |
//! | `/access/assignment-name/{name}` | [`AssignmentNameRecord`]: which assignment has this name |
//! | `/access/first/{principal}` | [`FirstGrantRecord`]: that a principal of the stamp's own was made an owner once |
//! | `/access/role/{id}` | [`RoleRecord`]: a custom role |
//! | `/access/role-name/{name}` | [`RoleNameRecord`]: which custom role has this name |
//! | `/access/lock{scope}//{name}` | [`LockRecord`] |
//!
//! Always true: a principal has a role at a scope once; an assignment and its name are written and removed together; what a principal may
//! is a short list by prefix.
//!
//! What holds at a scope goes before the scope does ([`remove_below`]): while a group or a cluster is being deleted nothing new is made at
//! it or below, so whatever is made later under the same name begins with nothing. A deletion that is cut short in between is repeated.

mod locks;
mod roles;

use arm_access::{OWNER, Scope};
use control_store::{Op, Store, StoreError, Txn, put_record};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use locks::{LOCKS, LockLevel, LockRecord, lock_key, lock_scope};
pub use roles::{ROLES, RoleNameRecord, RoleRecord, permissions_of, role_key, role_name_key};

/// The prefix of all assignments.
pub const ASSIGNMENTS: &str = "/access/assignment/";
/// Removals of one transaction.
const BATCH: usize = 48;

/// When something was made and last changed, and by whom (object ids).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stamped {
    /// When it was made.
    pub created_on: Timestamp,
    /// By whom; empty for the stamp itself.
    pub created_by: String,
    /// When it was last changed.
    pub updated_on: Timestamp,
    /// By whom; empty for the stamp itself.
    pub updated_by: String,
}

impl Stamped {
    /// Of what is made or changed now.
    #[must_use]
    pub fn now(before: Option<&Self>, by: &str, now: Timestamp) -> Self {
        Self {
            created_on: before.map_or(now, |before| before.created_on),
            created_by: before.map_or(by, |before| &before.created_by).to_owned(),
            updated_on: now,
            updated_by: by.to_owned(),
        }
    }
}

/// That a principal has a role at a scope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AssignmentRecord {
    /// Format.
    pub v: u32,
    /// GUID, in lower case: what clients call it.
    pub name: String,
    /// Object id of the principal, in lower case.
    pub principal: String,
    /// `User`, `Group` or `ServicePrincipal`.
    pub principal_type: String,
    /// Id of the role, in lower case.
    pub role: String,
    /// Where, in the casing that it was given in.
    pub scope: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// When and by whom.
    #[serde(flatten)]
    pub stamped: Stamped,
}

/// Which assignment has a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AssignmentNameRecord {
    /// Format.
    pub v: u32,
    /// Its key.
    pub assignment: String,
}

/// That a principal of the stamp's own was made an owner: that is done once, so that it can be taken away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FirstGrantRecord {
    /// Format.
    pub v: u32,
    /// When.
    pub at: Timestamp,
}

/// What a key of an assignment says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assigned<'a> {
    /// Object id of the principal.
    pub principal: &'a str,
    /// Id of the role.
    pub role: &'a str,
    /// Where.
    pub scope: Scope,
}

impl AssignmentRecord {
    /// The scope that it holds at.
    pub fn at(&self) -> Scope {
        // What is in the store was a path when it was written.
        Scope::parse(&self.scope).unwrap_or_else(|_| Scope::of_key(&self.scope.to_ascii_lowercase()))
    }

    /// Its key.
    pub fn key(&self) -> String {
        assignment_key(&self.principal, &self.role, &self.at())
    }

    /// Adds what makes it, where neither it nor its name is there.
    #[must_use]
    pub fn make(&self, txn: Txn) -> Txn {
        let (key, name) = (self.key(), assignment_name_key(&self.name));
        let index = AssignmentNameRecord {
            v: 1,
            assignment: key.clone(),
        };
        txn.absent(&key)
            .absent(&name)
            .with(put_record(key, self))
            .with(put_record(name, &index))
    }

    /// The effects that remove it.
    pub fn removal(&self) -> [Op; 2] {
        [
            Op::Delete(self.key()),
            Op::Delete(assignment_name_key(&self.name)),
        ]
    }
}

/// The key of an assignment; none of the parts but the scope holds a slash.
pub fn assignment_key(principal: &str, role: &str, scope: &Scope) -> String {
    format!(
        "{}{}{}",
        assignments_of(principal),
        role.to_ascii_lowercase(),
        scope.key()
    )
}

/// The prefix of a principal's assignments.
pub fn assignments_of(principal: &str) -> String {
    format!("{ASSIGNMENTS}{}/", principal.to_ascii_lowercase())
}

/// The key that says which assignment has a name.
pub fn assignment_name_key(name: &str) -> String {
    format!("/access/assignment-name/{}", name.to_ascii_lowercase())
}

/// The key that says that a principal of the stamp's own was made an owner.
pub fn first_grant_key(principal: &str) -> String {
    format!("/access/first/{}", principal.to_ascii_lowercase())
}

/// Reads the key of an assignment.
pub fn assigned(key: &str) -> Option<Assigned<'_>> {
    let (principal, rest) = key.strip_prefix(ASSIGNMENTS)?.split_once('/')?;
    let (role, scope) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    Some(Assigned {
        principal,
        role,
        scope: Scope::of_key(scope),
    })
}

/// The assignment that makes a principal an owner of the whole stamp. Its name follows from the principal, so making it again changes
/// nothing. `None` where the principal's id is no GUID: no release has made such.
pub fn owner_of_all(principal: &str, kind: &str, now: Timestamp) -> Option<AssignmentRecord> {
    let (id, role): (uuid::Uuid, uuid::Uuid) = (principal.parse().ok()?, OWNER.parse().ok()?);
    Some(AssignmentRecord {
        v: 1,
        name: uuid::Uuid::from_u128(id.as_u128() ^ role.as_u128()).to_string(),
        principal: principal.to_ascii_lowercase(),
        principal_type: match kind {
            "User" => "User".to_owned(),
            _ => "ServicePrincipal".to_owned(),
        },
        role: OWNER.to_owned(),
        scope: Scope::root().to_string(),
        description: None,
        stamped: Stamped::now(None, "", now),
    })
}

/// What is to go with a scope: the assignments and locks at it and below, at most so many; and whether that is all.
///
/// # Errors
/// What the store says.
pub async fn removals_below(
    store: &dyn Store,
    scope: &Scope,
    most: usize,
) -> Result<(Vec<Op>, bool), StoreError> {
    let mut ops = Vec::new();
    let (assignments, _) = store.list(ASSIGNMENTS).await?;
    for (key, found) in assignments {
        if assigned(&key).is_some_and(|assigned| scope.contains(&assigned.scope)) {
            let record: AssignmentRecord = control_store::parse_record(&key, &found)?.value;
            ops.extend(record.removal());
        }
    }
    // Not only the scope's own prefix: that is one of `/…/ab`, too, for a scope `/…/a`.
    let (locks, _) = store.list(&format!("{LOCKS}{}", scope.key())).await?;
    for (key, _) in locks {
        if lock_scope(&key).is_some_and(|at| scope.contains(&at)) {
            ops.push(Op::Delete(key));
        }
    }
    let whole = ops.len() <= most;
    ops.truncate(most);
    Ok((ops, whole))
}

/// Removes the assignments and locks at a scope and below. For a scope that is being deleted, before it is gone: see the module.
///
/// # Errors
/// What the store says.
pub async fn remove_below(store: &dyn Store, scope: &Scope) -> Result<(), StoreError> {
    loop {
        let (ops, whole) = removals_below(store, scope, BATCH).await?;
        if !ops.is_empty() {
            let txn = Txn {
                ops,
                ..Txn::default()
            };
            store.txn(txn).await?;
        }
        if whole {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use storage_redb::MemoryStore;

    use super::*;

    fn record(name: &str, principal: &str, scope: &str) -> AssignmentRecord {
        AssignmentRecord {
            v: 1,
            name: name.to_owned(),
            principal: principal.to_owned(),
            principal_type: "User".to_owned(),
            role: OWNER.to_owned(),
            scope: scope.to_owned(),
            description: None,
            stamped: Stamped::now(None, "", Timestamp::UNIX_EPOCH),
        }
    }

    #[test]
    fn a_key_says_all_that_a_check_needs() {
        for scope in ["/", "/subscriptions/S", "/subscriptions/S/resourceGroups/G"] {
            let record = record("n", "p1", scope);
            let key = record.key();
            assert!(key.starts_with(&assignments_of("P1")));
            let read = assigned(&key).unwrap();
            assert_eq!((read.principal, read.role), ("p1", OWNER));
            assert_eq!(read.scope, Scope::parse(scope).unwrap());
        }
        assert!(!record("n", "p10", "/").key().starts_with(&assignments_of("p1")));
        assert_eq!(assigned("/access/assignment/p"), None);
        let principal = "0a0a0a0a-0000-4000-8000-00000000000a";
        let first = owner_of_all(principal, "User", Timestamp::UNIX_EPOCH).unwrap();
        let other = owner_of_all(
            "0a0a0a0a-0000-4000-8000-00000000000b",
            "Application",
            Timestamp::UNIX_EPOCH,
        )
        .unwrap();
        assert!(first.name != other.name && other.principal_type == "ServicePrincipal");
        assert!(owner_of_all("no id", "User", Timestamp::UNIX_EPOCH).is_none());
    }

    #[tokio::test]
    async fn what_holds_at_a_scope_and_below_goes_with_it_and_nothing_else() {
        let store = MemoryStore::new();
        let group = "/subscriptions/s/resourceGroups/g";
        let cluster = format!("{group}/providers/Microsoft.ContainerService/managedClusters/c");
        let mut kept = 0;
        for number in 0..100 {
            for (scope, stays) in [
                ("/subscriptions/s", true),
                (group, false),
                (cluster.as_str(), false),
                ("/subscriptions/s/resourceGroups/gg", true),
            ] {
                let record = record(&format!("{scope} {number}"), &format!("p{number}"), scope);
                let lock = LockRecord {
                    v: 1,
                    name: format!("L/{number}"),
                    scope: scope.to_owned(),
                    level: LockLevel::ReadOnly,
                    notes: None,
                    owners: Vec::new(),
                };
                let txn = record.make(Txn::default()).with(put_record(lock.key(), &lock));
                store.txn(txn).await.unwrap();
                kept += if stays { 3 } else { 0 };
            }
        }
        remove_below(&store, &Scope::parse(group).unwrap()).await.unwrap();
        let (left, _) = store.list("/").await.unwrap();
        assert_eq!(left.len(), kept);
        // A name and a role at a scope are each had once.
        let again = record("n", "p1", "/subscriptions/S");
        assert!(store.txn(again.make(Txn::default())).await.is_err());
        let again = record("/subscriptions/s 1", "p1", group);
        assert!(store.txn(again.make(Txn::default())).await.is_err());
    }
}
