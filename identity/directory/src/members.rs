//! Members of groups.

use std::collections::BTreeSet;

use control_records::{MemberRecord, key};
use control_store::{Store, StoreError, Txn, put_record};

use crate::{
    MOST_GROUPS, MOST_MEMBERS, MOST_MEMBERSHIPS, Without, admin_left,
    find::{group, is_id, principal},
    writer::{Decided, DirectoryError, Writer, needed},
};

/// The last segments of the keys with a prefix.
async fn below(store: &dyn Store, prefix: &str) -> Result<Vec<String>, StoreError> {
    let (found, _) = store.list(prefix).await?;
    let names = found.iter().filter_map(|(key, _)| key.strip_prefix(prefix));
    Ok(names.map(str::to_owned).collect())
}

/// The groups that an object is in, directly and through other groups: object ids, each once, in no
/// particular order. Circles are harmless; there are never more than [`MOST_GROUPS`].
///
/// # Errors
/// When the store fails.
pub async fn groups_of(store: &dyn Store, object_id: &str) -> Result<Vec<String>, StoreError> {
    let mut seen = BTreeSet::new();
    let mut found = memberships(store, object_id).await?;
    let mut next = 0;
    seen.extend(found.iter().cloned());
    while let Some(one) = found.get(next) {
        next += 1;
        for above in memberships(store, one).await? {
            if found.len() < MOST_GROUPS && seen.insert(above.clone()) {
                found.push(above);
            }
        }
    }
    // A group in a circle does not count as its own member.
    found.retain(|one| !one.eq_ignore_ascii_case(object_id));
    Ok(found)
}

/// The groups that an object is a direct member of: object ids.
///
/// # Errors
/// When the store fails.
pub async fn memberships(store: &dyn Store, object_id: &str) -> Result<Vec<String>, StoreError> {
    if !is_id(object_id) {
        return Ok(Vec::new());
    }
    below(store, &key::member_of(object_id, "")).await
}

/// The members of a group: object ids of principals and groups.
///
/// # Errors
/// When the store fails.
pub async fn members(store: &dyn Store, group: &str) -> Result<Vec<String>, StoreError> {
    if !is_id(group) {
        return Ok(Vec::new());
    }
    below(store, &key::member(group, "")).await
}

/// The members of a group and of all groups in it: object ids of principals and groups, each once.
///
/// # Errors
/// When the store fails.
pub async fn all_members(store: &dyn Store, group: &str) -> Result<Vec<String>, StoreError> {
    let mut found = members(store, group).await?;
    let mut seen: BTreeSet<String> = found.iter().cloned().collect();
    let mut next = 0;
    while let Some(one) = found.get(next) {
        next += 1;
        for below in members(store, one).await? {
            if seen.insert(below.clone()) {
                found.push(below);
            }
        }
    }
    found.retain(|one| !one.eq_ignore_ascii_case(group));
    Ok(found)
}

/// Whether an object is a direct member of a group.
///
/// # Errors
/// When the store fails.
pub async fn is_member(store: &dyn Store, group: &str, member: &str) -> Result<bool, StoreError> {
    Ok(store.get(&key::member(group, member)).await?.is_some())
}

/// Puts a principal or a group into a group.
///
/// # Errors
/// When either does not exist, it is a member already, or there are too many.
pub async fn add_member(writer: &Writer<'_>, into: &str, member: &str) -> Result<(), DirectoryError> {
    let added = writer.decide((into, member), |writer, (into, member)| {
        Box::pin(async move {
            let store = writer.store;
            let found = needed(group(store, into).await?, "group", into)?;
            // Both are written unchanged, so that a concurrent removal of either conflicts and looks at the
            // members again.
            let group_key = key::principal_group(&found.value.object_id);
            let txn = Txn::default()
                .at(&group_key, found.revision)
                .with(put_record(group_key, &found.value));
            let (id, txn) = if let Some(found) = principal(store, member).await? {
                let key = key::principal(&found.value.object_id);
                let txn = txn.at(&key, found.revision).with(put_record(key, &found.value));
                (found.value.object_id, txn)
            } else if let Some(other) = group(store, member).await? {
                if other.value.object_id == found.value.object_id {
                    let must = "cannot be the group itself";
                    return Err(DirectoryError::invalid("member", must));
                }
                let key = key::principal_group(&other.value.object_id);
                let txn = txn.at(&key, other.revision).with(put_record(key, &other.value));
                (other.value.object_id, txn)
            } else {
                return Err(DirectoryError::missing("member", member));
            };
            let into = &found.value.object_id;
            let (down, up) = (key::member(into, &id), key::member_of(&id, into));
            if store.get(&down).await?.is_some() {
                return Err(DirectoryError::MemberAlready { member: id });
            }
            if members(store, into).await?.len() >= MOST_MEMBERS {
                return Err(DirectoryError::Full {
                    what: "members",
                    most: MOST_MEMBERS,
                });
            }
            if memberships(store, &id).await?.len() >= MOST_MEMBERSHIPS {
                return Err(DirectoryError::Full {
                    what: "groups that it is in",
                    most: MOST_MEMBERSHIPS,
                });
            }
            let record = MemberRecord {
                v: 1,
                since: writer.env.clock.now(),
            };
            let txn = txn.with(put_record(down, &record)).with(put_record(up, &record));
            Ok(Decided::Write(txn, ()))
        })
    });
    added.await
}

/// Takes a member out of a group.
///
/// # Errors
/// When it is no member, or no administrator would be left.
pub async fn remove_member(writer: &Writer<'_>, from: &str, member: &str) -> Result<(), DirectoryError> {
    let removed = writer.decide((from, member), |writer, (from, member)| {
        Box::pin(async move {
            let store = writer.store;
            if !is_id(from) || !is_id(member) || !is_member(store, from, member).await? {
                return Err(DirectoryError::missing("member", member));
            }
            let without = Without::Member { group: from, member };
            let txn = admin_left(store, without)
                .await?
                .ok_or(DirectoryError::LastAdmin)?
                .delete(key::member(from, member))
                .delete(key::member_of(member, from));
            Ok(Decided::Write(txn, ()))
        })
    });
    removed.await
}
