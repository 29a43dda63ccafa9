//! Principals in the store.

use arm_wire::PrincipalKind;
use base_env::Env;
use control_records::{PrincipalRecord, key};
use control_store::{Store, StoreError, Txn, put_record};
use identity_directory as directory;
pub(crate) use identity_directory::MAX_LOGIN_CHARS;

use crate::secret::{MAX_SECRET_BYTES, Secret, hash_secret};

/// Why a principal cannot be made or found.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The store failed.
    #[error("principals cannot be read or written")]
    Store(#[from] StoreError),
    /// The login is empty, too long or has control characters.
    #[error("a login needs 1 to {MAX_LOGIN_CHARS} printable characters; choose another")]
    Login,
    /// The secret is empty or too long.
    #[error("a secret needs 1 to {MAX_SECRET_BYTES} bytes; choose another")]
    Secret,
}

/// A principal to be made.
pub struct NewPrincipal<'a> {
    /// Its kind.
    pub kind: PrincipalKind,
    /// Application (client) id of a service principal, user principal name of a person.
    pub login: &'a str,
    /// For people.
    pub display_name: &'a str,
    /// The secret or password; only its hash is stored.
    pub secret: Secret<'a>,
}

/// The principal with this login, ignoring case, disabled or not.
///
/// # Errors
/// When the store fails.
pub async fn find_principal(store: &dyn Store, login: &str) -> Result<Option<PrincipalRecord>, StoreError> {
    Ok(directory::find_login(store, login)
        .await?
        .map(|found| found.value))
}

/// The principal with this object id, disabled or not.
pub(crate) async fn principal_by_id(
    store: &dyn Store,
    object_id: &str,
) -> Result<Option<PrincipalRecord>, StoreError> {
    Ok(directory::principal(store, object_id)
        .await?
        .map(|found| found.value))
}

/// Makes a principal. May be repeated: the same login keeps its object id and takes the new secret and name.
///
/// # Errors
/// When the store fails, or the login or secret is empty or too long.
pub async fn create_principal(
    store: &dyn Store,
    env: &Env,
    new: NewPrincipal<'_>,
) -> Result<PrincipalRecord, IdentityError> {
    let login = new.login.trim();
    if directory::check_login(login).is_err() {
        return Err(IdentityError::Login);
    }
    if !(1..=MAX_SECRET_BYTES).contains(&new.secret.text().len()) {
        return Err(IdentityError::Secret);
    }
    let secret_hash = hash_secret(new.secret);
    let of = |before: PrincipalRecord| PrincipalRecord {
        login: login.to_owned(),
        kind: new.kind.as_str().to_owned(),
        display_name: new.display_name.to_owned(),
        secret_hash: secret_hash.clone(),
        ..before
    };
    loop {
        let txn = match directory::find_login(store, login).await? {
            Some(present) => {
                let record = of(present.value);
                let key = key::principal(&record.object_id);
                let txn = Txn::default()
                    .at(&key, present.revision)
                    .with(put_record(key, &record));
                (txn, record)
            }
            None => {
                let record = of(PrincipalRecord::new(&env.ids.uuid().to_string(), env.clock.now()));
                (directory::made(Txn::default(), &record), record)
            }
        };
        match store.txn(txn.0).await {
            Ok(_) => return Ok(txn.1),
            // A conflict with another writer: read again.
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::verify_secret;
    use storage_redb::MemoryStore;

    #[tokio::test]
    async fn a_login_keeps_its_object_id_when_made_again() {
        let (store, env) = (MemoryStore::new(), Env::system());
        let person = |secret| NewPrincipal {
            kind: PrincipalKind::User,
            login: "Ada@Local",
            display_name: "Ada",
            secret: Secret::Chosen(secret),
        };
        let first = create_principal(&store, &env, person("one")).await.unwrap();
        let second = create_principal(
            &store,
            &env,
            NewPrincipal {
                login: "ada@local",
                ..person("two")
            },
        )
        .await
        .unwrap();
        assert_eq!(first.object_id, second.object_id);
        let found = find_principal(&store, "ADA@local").await.unwrap().unwrap();
        assert!(verify_secret(&found.secret_hash, "two") && !verify_secret(&found.secret_hash, "one"));
        assert!(find_principal(&store, "bob").await.unwrap().is_none());
        assert!(principal_by_id(&store, "../stamp").await.unwrap().is_none());
        assert!(principal_by_id(&store, &first.object_id).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn empty_and_endless_input_is_refused() {
        let (store, env) = (MemoryStore::new(), Env::system());
        let long = "x".repeat(MAX_SECRET_BYTES + 1);
        for (login, secret) in [
            ("", "s"),
            (" ", "s"),
            ("a\nb", "s"),
            (long.as_str(), "s"),
            ("a", ""),
            ("a", long.as_str()),
        ] {
            let new = NewPrincipal {
                kind: PrincipalKind::Application,
                login,
                display_name: "",
                secret: Secret::Chosen(secret),
            };
            assert!(create_principal(&store, &env, new).await.is_err());
        }
    }
}
