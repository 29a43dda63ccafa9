//! Administrators of the stamp: at least one usable principal must always be able to assign roles at the
//! whole stamp.

use std::collections::{BTreeSet, VecDeque};

use arm_access::Scope;
use control_records::{
    PrincipalRecord,
    access::{ASSIGNMENTS, assigned, permissions_of},
    key,
};
use control_store::{Store, StoreError, Txn};

use crate::find::{group, principal};

/// A principal with permission for this action at the whole stamp can assign roles there.
pub const GIVES_RIGHTS: &str = "Microsoft.Authorization/roleAssignments/write";

/// The removal that is being checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Without<'a> {
    /// An assignment, by its key.
    Assignment(&'a str),
    /// A principal, or the use of it.
    Principal(&'a str),
    /// A group.
    Group(&'a str),
    /// A membership.
    Member {
        /// In which group.
        group: &'a str,
        /// Object id of the member.
        member: &'a str,
    },
}

/// Whether the principal can log in: it is enabled and has a credential.
pub(crate) fn is_usable(record: &PrincipalRecord) -> bool {
    !record.disabled && (!record.secret_hash.is_empty() || !record.credentials.is_empty())
}

/// An object reached from an assignment, and the records that have to stay for that.
struct Reached {
    id: String,
    rests_on: Txn,
}

/// Checks that a principal is left that can assign roles at the whole stamp. Gives a transaction to be
/// continued, which fails once that is no longer true; `None` where no such principal is left. Where there
/// was none before, the removal is allowed.
///
/// # Errors
/// When the store fails.
pub async fn admin_left(store: &dyn Store, without: Without<'_>) -> Result<Option<Txn>, StoreError> {
    let left = find(store, Some(without)).await?;
    if left.is_some() {
        return Ok(left);
    }
    Ok(find(store, None).await?.is_none().then(Txn::default))
}

async fn find(store: &dyn Store, without: Option<Without<'_>>) -> Result<Option<Txn>, StoreError> {
    let root = Scope::root();
    let (all, _) = store.list(ASSIGNMENTS).await?;
    let mut seen = BTreeSet::new();
    for (key, found) in &all {
        let Some(one) = assigned(key).filter(|one| one.scope == root) else {
            continue;
        };
        if without == Some(Without::Assignment(key)) {
            continue;
        }
        let permissions = permissions_of(store, one.role).await?;
        if !permissions
            .iter()
            .any(|permission| permission.permits(GIVES_RIGHTS))
        {
            continue;
        }
        let reached = Reached {
            id: one.principal.to_owned(),
            rests_on: Txn::default().at(key, found.revision),
        };
        if let Some(left) = usable_in(store, reached, without, &mut seen).await? {
            return Ok(Some(left));
        }
    }
    Ok(None)
}

/// A usable principal: the one that was reached, or a member of the group that was.
async fn usable_in(
    store: &dyn Store,
    from: Reached,
    without: Option<Without<'_>>,
    seen: &mut BTreeSet<String>,
) -> Result<Option<Txn>, StoreError> {
    // Breadth first, so that the transaction has few conditions.
    let mut open = VecDeque::from([from]);
    while let Some(Reached { id, rests_on }) = open.pop_front() {
        if !seen.insert(id.clone()) {
            continue;
        }
        let is = |gone: &str| gone.eq_ignore_ascii_case(&id);
        if let Some(found) = principal(store, &id).await? {
            let goes = matches!(without, Some(Without::Principal(gone)) if is(gone));
            if !goes && is_usable(&found.value) {
                return Ok(Some(rests_on.at(key::principal(&id), found.revision)));
            }
            continue;
        }
        if matches!(without, Some(Without::Group(gone)) if is(gone)) {
            continue;
        }
        let Some(found) = group(store, &id).await? else {
            continue;
        };
        let rests_on = rests_on.at(key::principal_group(&id), found.revision);
        let prefix = key::member(&id, "");
        let (members, _) = store.list(&prefix).await?;
        for (key, member) in members {
            let name = key.strip_prefix(&prefix).unwrap_or_default().to_owned();
            let goes = matches!(without, Some(Without::Member { group, member })
                if is(group) && member.eq_ignore_ascii_case(&name));
            if !goes {
                open.push_back(Reached {
                    id: name,
                    rests_on: rests_on.clone().at(key, member.revision),
                });
            }
        }
    }
    Ok(None)
}
