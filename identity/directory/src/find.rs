//! Lookup of principals, applications and groups.

use control_records::{ApplicationRecord, LoginRecord, PrincipalGroupRecord, PrincipalRecord, key};
use control_store::{Store, StoreError, Stored, get_record, list_records};

/// Ids come from tokens and paths; one with a slash would reach into another record.
pub(crate) fn is_id(id: &str) -> bool {
    !id.is_empty() && id.len() <= 64 && !id.contains('/')
}

/// The key of the principal with this object id; `None` where the id is invalid.
pub fn principal_key(id: &str) -> Option<String> {
    is_id(id).then(|| key::principal(&id.to_ascii_lowercase()))
}

async fn by_id<T: serde::de::DeserializeOwned>(
    store: &dyn Store,
    id: &str,
    key: impl Fn(&str) -> String,
) -> Result<Option<Stored<T>>, StoreError> {
    if is_id(id) {
        get_record(store, &key(&id.to_ascii_lowercase())).await
    } else {
        Ok(None)
    }
}

/// The principal with this object id, disabled or not.
///
/// # Errors
/// When the store fails.
pub async fn principal(store: &dyn Store, id: &str) -> Result<Option<Stored<PrincipalRecord>>, StoreError> {
    by_id(store, id, key::principal).await
}

/// The principal with this login, ignoring ASCII case, disabled or not.
///
/// # Errors
/// When the store fails.
pub async fn find_login(
    store: &dyn Store,
    login: &str,
) -> Result<Option<Stored<PrincipalRecord>>, StoreError> {
    let Some(index) = get_record::<LoginRecord>(store, &key::login(login)).await? else {
        return Ok(None);
    };
    let found: Option<Stored<PrincipalRecord>> = principal(store, &index.value.principal).await?;
    // The principal may have got another login between the two reads.
    Ok(found.filter(|found| found.value.login.eq_ignore_ascii_case(login)))
}

/// The application with this object id.
///
/// # Errors
/// When the store fails.
pub async fn application(
    store: &dyn Store,
    id: &str,
) -> Result<Option<Stored<ApplicationRecord>>, StoreError> {
    by_id(store, id, key::application).await
}

/// The application with this client id. Not indexed: only changes of the directory need it.
///
/// # Errors
/// When the store fails.
pub async fn application_of(
    store: &dyn Store,
    app_id: &str,
) -> Result<Option<Stored<ApplicationRecord>>, StoreError> {
    let (all, _) = list_records::<ApplicationRecord>(store, key::APPLICATIONS).await?;
    Ok(all
        .into_iter()
        .map(|(_, found)| found)
        .find(|found| found.value.app_id.eq_ignore_ascii_case(app_id)))
}

/// The group with this object id.
///
/// # Errors
/// When the store fails.
pub async fn group(store: &dyn Store, id: &str) -> Result<Option<Stored<PrincipalGroupRecord>>, StoreError> {
    by_id(store, id, key::principal_group).await
}

async fn all<T: serde::de::DeserializeOwned>(store: &dyn Store, prefix: &str) -> Result<Vec<T>, StoreError> {
    let (found, _) = list_records::<T>(store, prefix).await?;
    Ok(found.into_iter().map(|(_, found)| found.value).collect())
}

/// All principals, in the order of their ids.
///
/// # Errors
/// When the store fails.
pub async fn principals(store: &dyn Store) -> Result<Vec<PrincipalRecord>, StoreError> {
    all(store, key::PRINCIPALS).await
}

/// All applications, in the order of their ids.
///
/// # Errors
/// When the store fails.
pub async fn applications(store: &dyn Store) -> Result<Vec<ApplicationRecord>, StoreError> {
    all(store, key::APPLICATIONS).await
}

/// All groups, in the order of their ids.
///
/// # Errors
/// When the store fails.
pub async fn groups(store: &dyn Store) -> Result<Vec<PrincipalGroupRecord>, StoreError> {
    all(store, key::PRINCIPAL_GROUPS).await
}
