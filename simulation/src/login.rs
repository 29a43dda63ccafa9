//! A token of the stamp's application, from the real token service.
//!
//! Hashing a secret and signing cost real time, so a process does each once: tokens are cached by the half
//! hour of virtual time that they were made in. They are made in a separate runtime, so that no run depends
//! on which of them was cached already.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use arm_wire::PrincipalKind;
use base_env::{Clock, Env, Seed, SeededIds};
use control_records::{PrincipalRecord, access, key};
use control_store::{Op, Store, Txn};
use futures::future::BoxFuture;
use identity::{Caller, NewPrincipal, Secret, SigningKey, TokenService, create_principal};
use jiff::Timestamp;
use storage_redb::MemoryStore;

use crate::config::{AUDIENCE, BASE, config};

const APPLICATION: &str = "c0ffee00-1111-4222-8333-444455556666";
const SECRET: &str = "simulated";
/// How long a token is used before another is made, seconds.
const USED_S: i64 = 1800;

/// The key that signs tokens, one a process: no run depends on it.
pub(crate) fn signing_key() -> Result<SigningKey> {
    static PEM: LazyLock<Option<String>> =
        LazyLock::new(|| SigningKey::generate().ok().map(|key| key.to_pem().to_owned()));
    let pem = PEM.as_ref().context("cannot make a key that signs tokens")?;
    Ok(SigningKey::from_pem(pem)?)
}

/// A constant clock.
struct Still(Timestamp);

impl Clock for Still {
    fn now(&self) -> Timestamp {
        self.0
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }

    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}

fn still(now: Timestamp) -> Env {
    let seed = Seed::new(0);
    Env {
        clock: Arc::new(Still(now)),
        seed,
        ids: Arc::new(SeededIds::new(seed)),
    }
}

/// Runs aside.
fn aside<T: Send>(work: impl Future<Output = Result<T>> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()?
                .block_on(work)
        });
        thread
            .join()
            .map_err(|_panic| anyhow::anyhow!("the login failed"))?
    })
}

/// A key and its value.
type Record = (String, Vec<u8>);

/// The records of the application, made once.
pub(crate) fn principal() -> Result<Txn> {
    let mut txn = Txn::default();
    for (key, value) in records()? {
        txn.ops.push(Op::Put(key.clone(), value.clone()));
    }
    Ok(txn)
}

/// The records of the application: itself, and its login's index entry.
fn records() -> Result<&'static [Record]> {
    static RECORDS: LazyLock<Option<Vec<Record>>> = LazyLock::new(|| {
        let made = aside(async {
            let store = MemoryStore::new();
            let new = NewPrincipal {
                kind: PrincipalKind::Application,
                login: APPLICATION,
                display_name: "simulated",
                secret: Secret::Generated(SECRET),
            };
            create_principal(&store, &still(Timestamp::UNIX_EPOCH), new).await?;
            let (all, _) = store.list("/").await?;
            Ok(all
                .into_iter()
                .map(|(key, found)| (key, found.value.to_vec()))
                .collect())
        });
        made.ok()
    });
    RECORDS.as_deref().context("cannot make the principal")
}

/// The records that make the application an owner of the stamp.
pub(crate) fn owner() -> Result<Txn> {
    let own = records()?
        .iter()
        .find(|(key, _)| key.starts_with(key::PRINCIPALS));
    let (_, record) = own.context("no principal was written")?;
    let record: PrincipalRecord = serde_json::from_slice(record)?;
    let owner = access::owner_of_all(&record.object_id, &record.kind, record.created_at);
    let owner = owner.context("the principal has no GUID")?;
    Ok(owner.make(Txn::default()))
}

/// The form of a token request of the application for a resource.
pub(crate) fn form(resource: &str) -> String {
    format!(
        "grant_type=client_credentials&client_id={APPLICATION}&client_secret={SECRET}&scope={resource}/.default"
    )
}

/// A value of the header `Authorization` that is valid now, for ARM.
pub(crate) fn bearer(now: Timestamp) -> Result<String> {
    bearer_for(now, AUDIENCE)
}

/// The same for a resource.
pub(crate) fn bearer_for(now: Timestamp, resource: &'static str) -> Result<String> {
    static KEPT: Mutex<BTreeMap<(i64, &str), String>> = Mutex::new(BTreeMap::new());
    let slot = now.as_second() / USED_S;
    let kept = (slot, resource);
    if let Some(token) = KEPT.lock().unwrap_or_else(PoisonError::into_inner).get(&kept) {
        return Ok(token.clone());
    }
    let principal = principal()?;
    let token = aside(async move {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        store.txn(principal).await?;
        let made_at = Timestamp::from_second(slot * USED_S)?;
        let service = TokenService::new(config().identity(), signing_key()?, still(made_at), store);
        let request = http::Request::post("/adfs/oauth2/token")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form(resource).into_bytes().into())?;
        let caller = Caller {
            base_url: BASE.to_owned(),
            address: None,
        };
        let answer = service.answer(request, &caller).await;
        let body: serde_json::Value = serde_json::from_slice(answer.body())?;
        let token = body["access_token"]
            .as_str()
            .with_context(|| format!("no token was given: {body}"))?;
        Ok(format!("Bearer {token}"))
    })?;
    KEPT.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(kept, token.clone());
    Ok(token)
}
