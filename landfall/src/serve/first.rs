//! The initial records of a stamp: its first principals, whose secrets are in its files, and the keys that
//! sign tokens.
//!
//! Always true: all of them follow from the settings and from files that are made once, so making them again
//! changes nothing.

use std::{fs, io::ErrorKind, path::Path, sync::Arc};

use anyhow::{Context as _, Result};
use arm_wire::PrincipalKind;
use base_env::Env;
use base_sealer::Sealer;
use control_store::Store;
use identity::{Secret, SigningKey, SigningKeys};
use service::{Config, first::FirstPrincipal};

use crate::{
    arm::{ADMINISTRATOR, SECRET},
    stamp::{self, Places, Settings},
};

/// The keys that sign tokens. An earlier release kept one in a file; it is used further, with the others in
/// the store.
pub(super) async fn signing_keys(
    places: &Places,
    env: &Env,
    store: &Arc<dyn Store>,
    sealer: &Arc<Sealer>,
) -> Result<SigningKeys> {
    let path = places.secrets().join("signing.pem");
    let earlier = match read(&path)? {
        Some(pem) => {
            Some(SigningKey::from_pem(&pem).with_context(|| format!("{} is damaged", path.display()))?)
        }
        None => None,
    };
    let is_in_a_file = earlier.is_some();
    let keys = SigningKeys::open(env, Arc::clone(store), Arc::clone(sealer), earlier)
        .await
        .context("cannot open the keys that sign tokens")?;
    // Only now: a crash before this leaves it in its old place.
    if is_in_a_file {
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(keys)
}

/// The first records, with the principals whose secrets are in the stamp's files.
pub(super) async fn records(
    store: &dyn Store,
    places: &Places,
    settings: &Settings,
    config: &Config,
    env: &Env,
) -> Result<()> {
    let application = stamp::secret(places, SECRET)?;
    let password = stamp::secret(places, ADMINISTRATOR)?;
    let principals = [
        FirstPrincipal {
            kind: PrincipalKind::Application,
            login: &settings.client,
            display_name: "landfall",
            secret: random_or_chosen(&application),
        },
        FirstPrincipal {
            kind: PrincipalKind::User,
            login: &settings.administrator(),
            display_name: "Administrator",
            secret: random_or_chosen(&password),
        },
    ];
    service::first::records(
        env,
        store,
        config,
        &settings.subscription,
        settings.created_at,
        &principals,
    )
    .await?;
    Ok(())
}

/// [`stamp::secret`] makes 32 random bytes in hexadecimal. An operator may have put another text into the
/// file.
fn random_or_chosen(secret: &str) -> Secret<'_> {
    let made = secret.len() == 64
        && secret
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if made {
        Secret::Generated(secret)
    } else {
        Secret::Chosen(secret)
    }
}

/// A file's text; `None` if there is no file.
pub(super) fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use fabric_api::Uplink;
    use identity::{find_principal, verify_secret};
    use storage_redb::MemoryStore;

    use super::*;

    pub(crate) fn settings(env: &Env) -> Settings {
        Settings {
            v: 1,
            tenant: env.ids.uuid().to_string(),
            subscription: env.ids.uuid().to_string(),
            client: env.ids.uuid().to_string(),
            listen: stamp::DEFAULT_LISTEN,
            identity: identity::Shape::Aad,
            domain: None,
            range: "100.64.0.0/20".parse().unwrap(),
            uplink: Uplink::None,
            uplink_allow: Vec::new(),
            backups: None,
            backups_copy: None,
            cache: None,
            kubeconfig_hours: 8,
            support: Default::default(),
            limits: crate::quotas::Quotas::default(),
            catalogue_keys: Vec::new(),
            created_at: env.clock.now(),
        }
    }

    #[tokio::test]
    async fn a_key_of_before_goes_on_from_the_store() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places {
            name: "t".into(),
            state: dir.path().join("s"),
            run: dir.path().join("r"),
        };
        places.make().unwrap();
        let (env, sealer) = (Env::system(), Arc::new(Sealer::from_key(&[7; 32])));
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let file = places.secrets().join("signing.pem");
        let key = SigningKey::generate().unwrap();
        fs::write(&file, key.to_pem()).unwrap();
        let alone = SigningKeys::from(key).jwks(env.clock.now());
        for _ in 0..2 {
            let keys = signing_keys(&places, &env, &store, &sealer).await.unwrap();
            assert_eq!(keys.jwks(env.clock.now()), alone);
            assert!(!file.exists());
        }
    }

    #[tokio::test]
    async fn the_first_records_and_keys_are_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places {
            name: "t".into(),
            state: dir.path().join("s"),
            run: dir.path().join("r"),
        };
        places.make().unwrap();
        let (env, store) = (Env::system(), MemoryStore::new());
        let settings = settings(&env);
        for _ in 0..2 {
            records(
                &store,
                &places,
                &settings,
                &super::super::config(&places, &settings),
                &env,
            )
            .await
            .unwrap();
        }
        let (all, _) = store.list("/").await.unwrap();
        assert_eq!(all.len(), 14, "{all:?}");
        let principal = find_principal(&store, &settings.client).await.unwrap().unwrap();
        assert!(verify_secret(
            &principal.secret_hash,
            &stamp::secret(&places, SECRET).unwrap()
        ));
        assert!(
            principal.secret_hash.starts_with("sha256$"),
            "comparing it costs nothing"
        );
        assert!(matches!(random_or_chosen("a password"), Secret::Chosen(_)));
    }
}
