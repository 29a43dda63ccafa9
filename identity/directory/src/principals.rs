//! Principals: made, changed, removed.

use control_records::{LoginRecord, PrincipalRecord, key};
use control_store::{Store, StoreError, Txn, get_record, put_record};

use crate::{
    MOST_PRINCIPALS, Without, admin_left,
    admins::is_usable,
    credentials::check_credentials,
    find::{application_of, find_login, principal},
    members::memberships,
    writer::{Decided, DirectoryError, Writer, changed, check_login, check_name, needed},
};

/// Memberships that are removed in one transaction.
pub(crate) const BATCH: usize = 40;

/// Adds a new principal and its login's index entry, which must not exist.
#[must_use]
pub fn made(txn: Txn, record: &PrincipalRecord) -> Txn {
    let (own, login) = (key::principal(&record.object_id), key::login(&record.login));
    txn.absent(&own)
        .absent(&login)
        .with(put_record(own, record))
        .with(put_record(login, &index(record)))
}

/// Removes a principal and its login's index entry. Its memberships are removed before:
/// [`forget_memberships`].
#[must_use]
pub fn unmade(txn: Txn, record: &PrincipalRecord) -> Txn {
    txn.delete(key::principal(&record.object_id))
        .delete(key::login(&record.login))
}

fn index(record: &PrincipalRecord) -> LoginRecord {
    LoginRecord {
        v: 1,
        principal: record.object_id.clone(),
    }
}

/// Takes a login for a principal; fails where another principal has it.
async fn take_login(store: &dyn Store, record: &PrincipalRecord, txn: Txn) -> Result<Txn, DirectoryError> {
    let login = key::login(&record.login);
    let txn = match get_record::<LoginRecord>(store, &login).await? {
        None => txn.absent(&login),
        Some(present) => {
            if find_login(store, &record.login).await?.is_some() {
                return Err(DirectoryError::Taken {
                    what: "principal",
                    field: "login",
                    value: record.login.clone(),
                });
            }
            // The principal of this index entry does not exist.
            txn.at(&login, present.revision)
        }
    };
    Ok(txn.with(put_record(login, &index(record))))
}

fn check(record: &PrincipalRecord) -> Result<(), DirectoryError> {
    check_login(&record.login)?;
    check_name("displayName", &record.display_name)?;
    if let Some(nickname) = &record.nickname {
        check_name("mailNickname", nickname)?;
    }
    check_credentials(&record.credentials)
}

/// Makes a principal; its object id is generated here.
///
/// # Errors
/// When the login is taken, a field is invalid, or there are too many principals.
pub async fn create(
    writer: &Writer<'_>,
    mut record: PrincipalRecord,
) -> Result<PrincipalRecord, DirectoryError> {
    check(&record)?;
    record.object_id = writer.id();
    record.created_at = writer.env.clock.now();
    let made = writer.decide(record, |writer, record| {
        Box::pin(async move {
            has_room(writer.store).await?;
            let own = key::principal(&record.object_id);
            let txn = Txn::default().absent(&own).with(put_record(own, record));
            let txn = take_login(writer.store, record, txn).await?;
            Ok(Decided::Write(txn, record.clone()))
        })
    });
    made.await
}

async fn has_room(store: &dyn Store) -> Result<(), DirectoryError> {
    if store.list(key::PRINCIPALS).await?.0.len() < MOST_PRINCIPALS {
        return Ok(());
    }
    Err(DirectoryError::Full {
        what: "principals",
        most: MOST_PRINCIPALS,
    })
}

/// Makes the service principal of an application, with the application's name and credentials.
///
/// # Errors
/// When there is no such application, or it has one.
pub async fn create_service_principal(
    writer: &Writer<'_>,
    app_id: &str,
    enabled: bool,
) -> Result<PrincipalRecord, DirectoryError> {
    let asked = (app_id, enabled, writer.id());
    let made = writer.decide(asked, |writer, (app_id, enabled, object_id)| {
        Box::pin(async move {
            has_room(writer.store).await?;
            let found = needed(application_of(writer.store, app_id).await?, "application", app_id)?;
            let application = found.value;
            let record = PrincipalRecord {
                login: application.app_id.clone(),
                kind: "Application".to_owned(),
                display_name: application.display_name.clone(),
                credentials: application.credentials.clone(),
                application: Some(application.object_id.clone()),
                redirect_uris: application.redirect_uris(),
                disabled: !*enabled,
                ..PrincipalRecord::new(object_id, writer.env.clock.now())
            };
            let (own, above) = (
                key::principal(object_id),
                key::application(&application.object_id),
            );
            // The application is written unchanged, so that a concurrent change of it conflicts and looks for
            // a service principal again.
            let txn = Txn::default()
                .absent(&own)
                .at(&above, found.revision)
                .with(put_record(own, &record))
                .with(put_record(above, &application));
            let txn = take_login(writer.store, &record, txn).await?;
            Ok(Decided::Write(txn, record))
        })
    });
    made.await
}

/// Changes a principal. `change` may be called again where the record changed meanwhile; object id, kind and
/// application or resource stay.
///
/// # Errors
/// When it does not exist, a field is invalid, or no administrator would be left.
pub async fn update_principal(
    writer: &Writer<'_>,
    id: &str,
    change: impl FnMut(&mut PrincipalRecord) -> Result<(), DirectoryError> + Send,
) -> Result<PrincipalRecord, DirectoryError> {
    let changed = writer.decide((id, change), |writer, (id, change)| {
        Box::pin(async move {
            let found = needed(principal(writer.store, id).await?, "principal", id)?;
            let before = found.value;
            let Some(record) = changed(&before, change)? else {
                return Ok(Decided::Unchanged(before));
            };
            check(&record)?;
            let own = key::principal(&before.object_id);
            let mut txn = if is_usable(&before) && !is_usable(&record) {
                let left = admin_left(writer.store, Without::Principal(&before.object_id)).await?;
                left.ok_or(DirectoryError::LastAdmin)?
            } else {
                Txn::default()
            };
            txn = txn.at(&own, found.revision);
            if !record.login.eq_ignore_ascii_case(&before.login) {
                txn = take_login(writer.store, &record, txn.delete(key::login(&before.login))).await?;
            }
            Ok(Decided::Write(txn.with(put_record(own, &record)), record))
        })
    });
    changed.await
}

/// Removes an object from all its groups, before it is removed itself.
///
/// # Errors
/// When the store fails.
pub async fn forget_memberships(store: &dyn Store, id: &str) -> Result<(), StoreError> {
    let groups = memberships(store, id).await?;
    for batch in groups.chunks(BATCH) {
        let txn = batch.iter().fold(Txn::default(), |txn, group| {
            txn.delete(key::member(group, id))
                .delete(key::member_of(id, group))
        });
        store.txn(txn).await?;
    }
    Ok(())
}

/// The removal of a resource's principal, as a part of a transaction with at most this many effects, and
/// whether that part completes it. Empty where the principal does not exist, or belongs to another resource.
///
/// # Errors
/// When the store fails.
pub async fn removals(
    store: &dyn Store,
    id: &str,
    resource: &str,
    most: usize,
) -> Result<(Txn, bool), StoreError> {
    let Some(found) = principal(store, id).await? else {
        return Ok((Txn::default(), true));
    };
    let own = found.value.resource.as_deref();
    if !own.is_some_and(|own| own.eq_ignore_ascii_case(resource)) {
        return Ok((Txn::default(), true));
    }
    let groups = memberships(store, id).await?;
    let fits = most.saturating_sub(2) / 2;
    let whole = groups.len() <= fits;
    // A membership that is made meanwhile changes the record.
    let txn = Txn::default().at(key::principal(&found.value.object_id), found.revision);
    let txn = groups.iter().take(fits).fold(txn, |txn, group| {
        txn.delete(key::member(group, id))
            .delete(key::member_of(id, group))
    });
    Ok((if whole { unmade(txn, &found.value) } else { txn }, whole))
}

/// Removes a principal with its memberships. Its application stays; so do role assignments, without effect.
///
/// # Errors
/// When it does not exist, or no administrator would be left.
pub async fn delete_principal(writer: &Writer<'_>, id: &str) -> Result<PrincipalRecord, DirectoryError> {
    let removed = writer.decide(id, |writer, id| {
        Box::pin(async move {
            let found = needed(principal(writer.store, id).await?, "principal", id)?;
            let record = found.value;
            let left = admin_left(writer.store, Without::Principal(&record.object_id)).await?;
            let txn = left.ok_or(DirectoryError::LastAdmin)?;
            forget_memberships(writer.store, &record.object_id).await?;
            // A membership that is made meanwhile changes the record, and this starts again.
            let txn = unmade(txn.at(key::principal(&record.object_id), found.revision), &record);
            Ok(Decided::Write(txn, record))
        })
    });
    removed.await
}
