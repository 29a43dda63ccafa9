//! The initial records of a stamp: its own record, its first subscription and its first principals, who own
//! it.
//!
//! Always true: all of them follow from the arguments, so making them again changes nothing.

use arm_wire::PrincipalKind;
use base_env::Env;
use control_records::{
    FirstPrincipalRecord, PrincipalRecord, StampRecord, SubscriptionRecord, SubscriptionState, access, key,
};
use control_store::{Store, StoreError, Txn, get_record, put_record};
use identity::{IdentityError, NewPrincipal, Secret, create_principal, find_principal, is_outdated};
use jiff::Timestamp;
use serde::Serialize;

use crate::Config;

/// The first records could not be made.
#[derive(Debug, thiserror::Error)]
pub enum FirstError {
    /// A record cannot be read or written.
    #[error("cannot write the stamp's first records")]
    Store(#[from] StoreError),
    /// A principal cannot be made.
    #[error("cannot make the principal {login}")]
    Principal {
        /// Its name.
        login: String,
        /// Why not.
        #[source]
        source: IdentityError,
    },
}

/// An initial principal.
pub struct FirstPrincipal<'a> {
    /// Its kind.
    pub kind: PrincipalKind,
    /// Its login: a GUID or a name.
    pub login: &'a str,
    /// Its display name.
    pub display_name: &'a str,
    /// Its secret.
    pub secret: Secret<'a>,
}

/// Makes the initial records that do not exist.
///
/// # Errors
/// When the store fails.
pub async fn records(
    env: &Env,
    store: &dyn Store,
    config: &Config,
    subscription: &str,
    created_at: Timestamp,
    principals: &[FirstPrincipal<'_>],
) -> Result<(), FirstError> {
    if get_record::<StampRecord>(store, key::STAMP).await?.is_none() {
        let record = StampRecord {
            v: 1,
            name: config.name.clone(),
            location: config.location.clone(),
            tenant_id: config.tenant.clone(),
            created_at,
        };
        write_new(store, key::STAMP, &record).await?;
    }
    let name = key::subscription(subscription);
    if get_record::<SubscriptionRecord>(store, &name).await?.is_none() {
        let record = SubscriptionRecord {
            v: 1,
            id: subscription.to_owned(),
            display_name: config.tenant_name.clone(),
            tenant_id: config.tenant.clone(),
            registered: Vec::new(),
            unregistered: Vec::new(),
            state: SubscriptionState::Enabled,
            state_since: None,
            created_at,
        };
        write_new(store, &name, &record).await?;
    }
    for first in principals {
        let failed = |source| FirstError::Principal {
            login: first.login.to_owned(),
            source,
        };
        let present = find_principal(store, first.login).await?;
        let once = key::first_principal(first.login);
        if present.is_none() && store.get(&once).await?.is_some() {
            // It was removed, or given another login.
            continue;
        }
        if let Some(present) = &present {
            // Comparing a generated secret with a hash of an earlier release costs much processor time at
            // each login. Refresh tokens depend on the hash, so it is renewed only for principals without
            // them: applications.
            let renew =
                first.kind == PrincipalKind::Application && is_outdated(&present.secret_hash, first.secret);
            if !renew {
                own(store, env, present).await?;
                write_new(store, &once, &made_now(env)).await?;
                continue;
            }
        }
        let new = NewPrincipal {
            kind: first.kind,
            login: first.login,
            display_name: first.display_name,
            secret: first.secret,
        };
        let made = create_principal(store, env, new).await.map_err(failed)?;
        own(store, env, &made).await?;
        write_new(store, &once, &made_now(env)).await?;
    }
    Ok(())
}

fn made_now(env: &Env) -> FirstPrincipalRecord {
    FirstPrincipalRecord {
        v: 1,
        at: env.clock.now(),
    }
}

/// Makes a principal an owner of the stamp, once: a later removal of the assignment is permanent. May be
/// interrupted anywhere and repeated.
async fn own(store: &dyn Store, env: &Env, principal: &PrincipalRecord) -> Result<(), StoreError> {
    let once = access::first_grant_key(&principal.object_id);
    if store.get(&once).await?.is_some() {
        return Ok(());
    }
    let now = env.clock.now();
    let record = access::FirstGrantRecord { v: 1, at: now };
    let mut txn = Txn::default().absent(&once).with(put_record(once, &record));
    if let Some(owner) = access::owner_of_all(&principal.object_id, &principal.kind, now)
        && store.get(&owner.key()).await?.is_none()
    {
        txn = owner.make(txn);
    }
    match store.txn(txn).await {
        Ok(_) | Err(StoreError::Conflict { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

async fn write_new<T: Serialize>(store: &dyn Store, key: &str, record: &T) -> Result<(), StoreError> {
    match store
        .txn(Txn::default().absent(key).with(put_record(key, record)))
        .await
    {
        Ok(_) | Err(StoreError::Conflict { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use identity::verify_secret;
    use storage_redb::MemoryStore;

    use super::*;

    fn config() -> Config {
        Config {
            name: "t".to_owned(),
            location: "local".to_owned(),
            tenant: "tenant".to_owned(),
            tenant_name: "Landfall t".to_owned(),
            domain: "landfall.internal".to_owned(),
            names: false,
            base_url: "https://127.0.0.1:8443".to_owned(),
            shape: identity::Shape::Aad,
            audience: "https://management.landfall.internal/tenant".to_owned(),
            limits: control_records::usage::Limits::default(),
            budgets: arm_edge::Budgets::default(),
            credential_lifetime: std::time::Duration::from_secs(8 * 60 * 60),
            support: Default::default(),
        }
    }

    #[tokio::test]
    async fn the_first_records_are_made_once() {
        let (env, store) = (Env::system(), MemoryStore::new());
        let config = config();
        let application = FirstPrincipal {
            kind: PrincipalKind::Application,
            login: "client",
            display_name: "landfall",
            secret: Secret::Chosen("first"),
        };
        records(&env, &store, &config, "sub", env.clock.now(), &[application])
            .await
            .unwrap();
        let (before, _) = store.list("/").await.unwrap();
        let another = FirstPrincipal {
            kind: PrincipalKind::Application,
            login: "client",
            display_name: "landfall",
            secret: Secret::Chosen("second"),
        };
        records(&env, &store, &config, "sub", env.clock.now(), &[another])
            .await
            .unwrap();
        let (after, _) = store.list("/").await.unwrap();
        assert_eq!(before.len(), 8, "{before:?}");
        assert_eq!(before, after);
        let principal = find_principal(&store, "client").await.unwrap().unwrap();
        assert!(verify_secret(&principal.secret_hash, "first"));
        // It owns the stamp, until the assignment is removed: that is not made again.
        let owner = access::owner_of_all(&principal.object_id, &principal.kind, env.clock.now()).unwrap();
        assert!(store.get(&owner.key()).await.unwrap().is_some());
        let txn = owner.removal().into_iter().fold(Txn::default(), Txn::with);
        store.txn(txn).await.unwrap();
        let again = FirstPrincipal {
            kind: PrincipalKind::Application,
            login: "client",
            display_name: "landfall",
            secret: Secret::Chosen("first"),
        };
        records(&env, &store, &config, "sub", env.clock.now(), &[again])
            .await
            .unwrap();
        assert!(store.get(&owner.key()).await.unwrap().is_none());
        // Nor is a removed principal made again.
        let gone = identity_directory::unmade(Txn::default(), &principal);
        store.txn(gone).await.unwrap();
        records(
            &env,
            &store,
            &config,
            "sub",
            env.clock.now(),
            &[again_of("client")],
        )
        .await
        .unwrap();
        assert!(find_principal(&store, "client").await.unwrap().is_none());
    }

    fn again_of(login: &str) -> FirstPrincipal<'_> {
        FirstPrincipal {
            kind: PrincipalKind::Application,
            login,
            display_name: "landfall",
            secret: Secret::Chosen("first"),
        }
    }

    #[tokio::test]
    async fn an_applications_hash_of_before_is_made_anew() {
        let (env, store) = (Env::system(), MemoryStore::new());
        let first = |secret| FirstPrincipal {
            kind: PrincipalKind::Application,
            login: "client",
            display_name: "landfall",
            secret,
        };
        let make = |secret| {
            let (env, store) = (&env, &store);
            async move {
                records(env, store, &config(), "sub", env.clock.now(), &[first(secret)])
                    .await
                    .unwrap();
                find_principal(store, "client").await.unwrap().unwrap()
            }
        };
        // With a slow hash for every secret, as earlier.
        let before = make(Secret::Chosen("of before")).await;
        let other = make(Secret::Generated("another")).await;
        assert_eq!(other.secret_hash, before.secret_hash, "it is not that secret");
        let after = make(Secret::Generated("of before")).await;
        assert_eq!(after.object_id, before.object_id);
        assert!(after.secret_hash.starts_with("sha256$"), "{}", after.secret_hash);
        assert!(verify_secret(&after.secret_hash, "of before"));
    }
}
