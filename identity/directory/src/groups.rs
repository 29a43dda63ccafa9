//! Groups: made, changed, removed.

use control_records::{GroupNameRecord, PrincipalGroupRecord, key};
use control_store::{Txn, get_record, put_record};

use crate::{
    MOST_GROUPS, Without, admin_left,
    find::group,
    members::members,
    principals::{BATCH, forget_memberships},
    writer::{Decided, DirectoryError, Writer, changed, check_name, needed},
};

const MAX_DESCRIPTION_CHARS: usize = 1024;

/// A group to be made.
pub struct NewGroup {
    /// For people; no other group has it.
    pub display_name: String,
    /// For people.
    pub description: String,
    /// Its alias.
    pub nickname: String,
}

fn check(record: &PrincipalGroupRecord) -> Result<(), DirectoryError> {
    check_name("displayName", &record.display_name)?;
    check_name("mailNickname", &record.nickname)?;
    if record.description.chars().count() > MAX_DESCRIPTION_CHARS {
        let must = format!("has to have at most {MAX_DESCRIPTION_CHARS} characters");
        return Err(DirectoryError::invalid("description", must));
    }
    Ok(())
}

/// Takes a name for a group; fails if another group has it.
async fn take_name(
    writer: &Writer<'_>,
    record: &PrincipalGroupRecord,
    txn: Txn,
) -> Result<Txn, DirectoryError> {
    let name = key::principal_group_name(&record.display_name);
    let present = get_record::<GroupNameRecord>(writer.store, &name).await?;
    if present.is_some_and(|present| present.value.group != record.object_id) {
        return Err(DirectoryError::Taken {
            what: "group",
            field: "displayName",
            value: record.display_name.clone(),
        });
    }
    let index = GroupNameRecord {
        v: 1,
        group: record.object_id.clone(),
    };
    Ok(txn.absent(&name).with(put_record(name, &index)))
}

/// Makes a group without members.
///
/// # Errors
/// When its name is taken, a field is invalid, or there are too many groups.
pub async fn create_group(
    writer: &Writer<'_>,
    new: NewGroup,
) -> Result<PrincipalGroupRecord, DirectoryError> {
    let record = PrincipalGroupRecord {
        v: 1,
        object_id: writer.id(),
        display_name: new.display_name,
        description: new.description,
        nickname: new.nickname,
        created_at: writer.env.clock.now(),
    };
    check(&record)?;
    let made = writer.decide(record, |writer, record| {
        Box::pin(async move {
            if writer.store.list(key::PRINCIPAL_GROUPS).await?.0.len() >= MOST_GROUPS {
                return Err(DirectoryError::Full {
                    what: "groups",
                    most: MOST_GROUPS,
                });
            }
            let own = key::principal_group(&record.object_id);
            let txn = Txn::default().absent(&own).with(put_record(own, record));
            let txn = take_name(writer, record, txn).await?;
            Ok(Decided::Write(txn, record.clone()))
        })
    });
    made.await
}

/// Changes a group. `change` may be called again where the record changed meanwhile; the id stays.
///
/// # Errors
/// When it does not exist, a field is invalid, or its name is taken.
pub async fn update_group(
    writer: &Writer<'_>,
    id: &str,
    change: impl FnMut(&mut PrincipalGroupRecord) -> Result<(), DirectoryError> + Send,
) -> Result<PrincipalGroupRecord, DirectoryError> {
    let changed = writer.decide((id, change), |writer, (id, change)| {
        Box::pin(async move {
            let found = needed(group(writer.store, id).await?, "group", id)?;
            let before = found.value;
            let Some(record) = changed(&before, change)? else {
                return Ok(Decided::Unchanged(before));
            };
            check(&record)?;
            let own = key::principal_group(&before.object_id);
            let mut txn = Txn::default().at(&own, found.revision);
            if !record.display_name.eq_ignore_ascii_case(&before.display_name) {
                txn = txn.delete(key::principal_group_name(&before.display_name));
                txn = take_name(writer, &record, txn).await?;
            }
            Ok(Decided::Write(txn.with(put_record(own, &record)), record))
        })
    });
    changed.await
}

/// Removes a group, after its members were removed from it and it from other groups. Role assignments stay,
/// without effect.
///
/// # Errors
/// When it does not exist, or no administrator would be left.
pub async fn delete_group(writer: &Writer<'_>, id: &str) -> Result<(), DirectoryError> {
    let removed = writer.decide(id, |writer, id| {
        Box::pin(async move {
            let found = needed(group(writer.store, id).await?, "group", id)?;
            let record = found.value;
            let id = &record.object_id;
            let left = admin_left(writer.store, Without::Group(id)).await?;
            let txn = left.ok_or(DirectoryError::LastAdmin)?;
            for batch in members(writer.store, id).await?.chunks(BATCH) {
                let mut txn = batch.iter().fold(Txn::default(), |txn, member| {
                    txn.delete(key::member(id, member))
                        .delete(key::member_of(member, id))
                });
                txn.ops.extend(writer.note.iter().cloned());
                writer.store.txn(txn).await?;
            }
            forget_memberships(writer.store, id).await?;
            // A membership that is made meanwhile changes the record, and this starts again.
            let own = key::principal_group(id);
            let txn = txn
                .at(&own, found.revision)
                .delete(own)
                .delete(key::principal_group_name(&record.display_name));
            Ok(Decided::Write(txn, ()))
        })
    });
    removed.await
}
