//! Refresh tokens: they continue a sign-in without the password, each use giving the next token.
//!
//! A sign-in is a *family* of tokens, of which one is valid at a time. A token consists of a part that its
//! whole family has (so that a used token can be told from an invented one) and a part of its own.
//!
//! Always true: a token is valid once; a second use ends its family, because one of the two uses is by a
//! thief; a family ends fourteen days after its last use, ninety after the sign-in, with the password, with
//! [`PrincipalRecord::valid_from`], and with its person.

use std::time::Duration;

use aws_lc_rs::{constant_time, digest};
use base_env::Env;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use control_records::{PrincipalRecord, RefreshRecord, key};
use control_store::{Store, StoreError, Stored, Txn, get_record, list_records, put_record};
use jiff::Timestamp;

use crate::{secret::random, tokens::fingerprint};

/// A family ends after this time without use.
const IDLE: Duration = Duration::from_secs(14 * 86_400);
/// And in any case this long after the sign-in.
const LONGEST: Duration = Duration::from_secs(90 * 86_400);
/// Sign-ins of a person at a time; the least recently used one is ended. All of them fit into a transaction.
pub(crate) const MOST_FAMILIES: usize = 100;
/// Bytes common to a family's tokens, and bytes of each token alone.
const COMMON: usize = 16;
const OWN: usize = 32;
/// Longer texts are refused.
const MAX_TOKEN_BYTES: usize = 512;

/// The reason why a refresh token is not valid.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RefreshError {
    /// It is not ours, belongs to another client, or its family has ended.
    #[error("the refresh token does not hold (any more)")]
    Stale,
    /// It was used before; its family is ended.
    #[error("the refresh token was used before")]
    Spent,
    #[error("sign-ins cannot be read or written")]
    Store(#[from] StoreError),
}

/// A token, read.
struct Token {
    object_id: String,
    family: String,
    common: [u8; COMMON],
    own: [u8; OWN],
}

impl Token {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let (object_id, family, secret) = (parts.next()?, parts.next()?, parts.next()?);
        let is_name = |name: &str| {
            !name.is_empty()
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        if text.len() > MAX_TOKEN_BYTES || parts.next().is_some() || !is_name(object_id) || !is_name(family) {
            return None;
        }
        let secret: [u8; COMMON + OWN] = URL_SAFE_NO_PAD.decode(secret).ok()?.try_into().ok()?;
        let (common, own) = secret.split_at(COMMON);
        Some(Self {
            object_id: object_id.to_owned(),
            family: family.to_owned(),
            common: common.try_into().ok()?,
            own: own.try_into().ok()?,
        })
    }

    fn text(&self) -> String {
        let secret = [self.common.as_slice(), self.own.as_slice()].concat();
        format!(
            "{}.{}.{}",
            self.object_id,
            self.family,
            URL_SAFE_NO_PAD.encode(secret)
        )
    }
}

fn hash(bytes: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, bytes))
}

fn same(a: &str, b: &str) -> bool {
    constant_time::verify_slices_are_equal(a.as_bytes(), b.as_bytes()).is_ok()
}

/// When a family ends.
fn ends(record: &RefreshRecord) -> Timestamp {
    let after = |from: Timestamp, lifetime: Duration| {
        from.checked_add(lifetime)
            .expect("sign-ins are of this millennium")
    };
    after(record.renewed_at, IDLE).min(after(record.created_at, LONGEST))
}

/// Whether a family is still valid for its person.
fn holds(record: &RefreshRecord, principal: &PrincipalRecord, now: Timestamp) -> bool {
    now < ends(record)
        && !principal.disabled
        && principal.valid_from.is_none_or(|from| record.created_at >= from)
        && record.fingerprint == fingerprint(principal)
}

/// Begins a family: gives its id, and its first token.
pub(crate) async fn begin(
    store: &dyn Store,
    env: &Env,
    to: &PrincipalRecord,
    client: &str,
) -> Result<(String, String), StoreError> {
    let now = env.clock.now();
    let (present, _) = list_records::<RefreshRecord>(store, &key::refresh_of(&to.object_id)).await?;
    let (mut live, mut gone): (Vec<_>, Vec<_>) = present
        .into_iter()
        .partition(|(_, found)| holds(&found.value, to, now));
    live.sort_by_key(|(_, found)| found.value.renewed_at);
    let over = (live.len() + 1).saturating_sub(MOST_FAMILIES);
    gone.extend(live.drain(..over));
    let token = Token {
        object_id: to.object_id.clone(),
        family: env.ids.uuid().to_string(),
        common: random(),
        own: random(),
    };
    let record = RefreshRecord {
        v: 1,
        principal: to.object_id.clone(),
        client: client.to_owned(),
        family_hash: hash(&token.common),
        token_hash: hash(&token.own),
        fingerprint: fingerprint(to),
        created_at: now,
        renewed_at: now,
    };
    let own = key::refresh(&token.object_id, &token.family);
    let mut txn = Txn::default().absent(&own).with(put_record(&own, &record));
    // A person can only have more after simultaneous sign-ins.
    for (key, _) in gone.into_iter().take(MOST_FAMILIES) {
        txn = txn.delete(key);
    }
    store.txn(txn).await?;
    Ok((token.family.clone(), token.text()))
}

/// Uses a token: gives its person, and the next token.
pub(crate) async fn renew(
    store: &dyn Store,
    env: &Env,
    text: &str,
    client: &str,
) -> Result<(PrincipalRecord, String), RefreshError> {
    let mut token = Token::parse(text).ok_or(RefreshError::Stale)?;
    let own = key::refresh(&token.object_id, &token.family);
    loop {
        let now = env.clock.now();
        let found: Stored<RefreshRecord> = get_record(store, &own).await?.ok_or(RefreshError::Stale)?;
        let mut record = found.value;
        // An invented token ends no family, nor does a token of another client.
        if !same(&record.family_hash, &hash(&token.common)) || record.client != client {
            return Err(RefreshError::Stale);
        }
        if !same(&record.token_hash, &hash(&token.own)) {
            tracing::warn!(
                principal = record.principal,
                client,
                "a refresh token was used twice: it may be stolen; its sign-in is ended"
            );
            end(store, &token.object_id, &token.family).await?;
            return Err(RefreshError::Spent);
        }
        let principal: Option<Stored<PrincipalRecord>> =
            get_record(store, &key::principal(&record.principal)).await?;
        let Some(principal) = principal
            .map(|found| found.value)
            .filter(|principal| holds(&record, principal, now))
        else {
            end(store, &token.object_id, &token.family).await?;
            return Err(RefreshError::Stale);
        };
        let next = random();
        record.token_hash = hash(&next);
        record.renewed_at = now;
        let txn = Txn::default()
            .at(&own, found.revision)
            .with(put_record(&own, &record));
        match store.txn(txn).await {
            Ok(_) => {
                token.own = next;
                return Ok((principal, token.text()));
            }
            // The token was used meanwhile, or the password was hashed anew: read again.
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Ends a family. May be repeated.
pub(crate) async fn end(store: &dyn Store, object_id: &str, family: &str) -> Result<(), StoreError> {
    store
        .txn(Txn::default().delete(key::refresh(object_id, family)))
        .await
        .map(drop)
}

/// Adds the family's new password hash to a transaction: the password is the same, so the person stays signed
/// in.
pub(crate) async fn rehashed(
    store: &dyn Store,
    before: &PrincipalRecord,
    after: &PrincipalRecord,
    mut txn: Txn,
) -> Result<Txn, StoreError> {
    let (old, new) = (fingerprint(before), fingerprint(after));
    let (present, _) = list_records::<RefreshRecord>(store, &key::refresh_of(&before.object_id)).await?;
    for (key, found) in present.into_iter().take(MOST_FAMILIES) {
        let mut record = found.value;
        if record.fingerprint == old {
            record.fingerprint.clone_from(&new);
            txn = txn.at(&key, found.revision).with(put_record(&key, &record));
        }
    }
    Ok(txn)
}

/// Removes families that have ended, and those of principals that no longer exist. Returns their number.
pub(crate) async fn sweep(store: &dyn Store, now: Timestamp) -> Result<usize, StoreError> {
    let (present, _) = list_records::<RefreshRecord>(store, key::REFRESH).await?;
    let mut forgotten = 0;
    let mut owner: Option<(String, Option<PrincipalRecord>)> = None;
    for (key, found) in present {
        let id = &found.value.principal;
        if owner.as_ref().is_none_or(|(of, _)| of != id) {
            let read: Option<Stored<PrincipalRecord>> = get_record(store, &key::principal(id)).await?;
            owner = Some((id.clone(), read.map(|read| read.value)));
        }
        let holds = owner
            .as_ref()
            .and_then(|(_, principal)| principal.as_ref())
            .is_some_and(|principal| holds(&found.value, principal, now));
        if holds {
            continue;
        }
        match store
            .txn(Txn::default().at(&key, found.revision).delete(&key))
            .await
        {
            Ok(_) => forgotten += 1,
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(forgotten)
}

#[cfg(test)]
mod tests {
    use storage_redb::MemoryStore;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    struct Stand {
        store: MemoryStore,
        env: Env,
        ada: PrincipalRecord,
    }

    impl Stand {
        async fn new() -> Self {
            let (store, env) = (MemoryStore::new(), Env::simulated(1));
            let ada = PrincipalRecord {
                secret_hash: "h".to_owned(),
                ..PrincipalRecord::new("ada-1", env.clock.now())
            };
            let stand = Self { store, env, ada };
            stand.write(&stand.ada).await;
            stand
        }

        async fn write(&self, record: &PrincipalRecord) {
            let txn = Txn::default().with(put_record(key::principal(&record.object_id), record));
            self.store.txn(txn).await.unwrap();
        }

        async fn begin(&self) -> String {
            begin(&self.store, &self.env, &self.ada, "cli").await.unwrap().1
        }

        async fn renew(&self, token: &str) -> Result<String, RefreshError> {
            let renewed = renew(&self.store, &self.env, token, "cli").await?;
            assert_eq!(renewed.0.object_id, "ada-1");
            Ok(renewed.1)
        }

        async fn families(&self) -> usize {
            self.store.list(key::REFRESH).await.unwrap().0.len()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_good_once_and_using_it_twice_ends_the_sign_in() {
        let stand = Stand::new().await;
        let (first, other) = (stand.begin().await, stand.begin().await);
        let second = stand.renew(&first).await.unwrap();
        let third = stand.renew(&second).await.unwrap();
        assert!(matches!(stand.renew(&first).await, Err(RefreshError::Spent)));
        // The newest token is invalid as well: the thief may have either.
        assert!(matches!(stand.renew(&third).await, Err(RefreshError::Stale)));
        assert!(stand.renew(&other).await.is_ok(), "another sign-in goes on");
        assert_eq!(stand.families().await, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_and_other_clients_neither_use_nor_end_a_sign_in() {
        let stand = Stand::new().await;
        let token = stand.begin().await;
        let mut made_up = Token::parse(&token).unwrap();
        made_up.common = [0; COMMON];
        for bad in [
            "",
            "x",
            "a.b.c",
            "../stamp.x.y",
            &made_up.text(),
            &format!("{token}.x"),
        ] {
            assert!(
                matches!(stand.renew(bad).await, Err(RefreshError::Stale)),
                "{bad}"
            );
        }
        let other = renew(&stand.store, &stand.env, &token, "other").await;
        assert!(matches!(other, Err(RefreshError::Stale)));
        assert!(stand.renew(&token).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_sign_in_ends_unused_and_in_any_case() {
        let stand = Stand::new().await;
        let idle = stand.begin().await;
        let mut used = stand.begin().await;
        stand.env.clock.sleep(13 * DAY).await;
        used = stand.renew(&used).await.unwrap();
        stand.env.clock.sleep(DAY).await;
        assert!(matches!(stand.renew(&idle).await, Err(RefreshError::Stale)));
        for _ in 0..7 {
            stand.env.clock.sleep(10 * DAY).await;
            used = stand.renew(&used).await.unwrap();
        }
        stand.env.clock.sleep(6 * DAY).await;
        assert!(matches!(stand.renew(&used).await, Err(RefreshError::Stale)));
        assert_eq!(stand.families().await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sign_in_ends_with_the_password_by_revocation_and_with_its_person() {
        let now = Stand::new().await.env.clock.now();
        let changes: [fn(&mut PrincipalRecord, Timestamp); 3] = [
            |ada, _| ada.secret_hash = "another".to_owned(),
            |ada, now| ada.valid_from = Some(now),
            |ada, _| ada.disabled = true,
        ];
        for change in changes {
            let stand = Stand::new().await;
            let token = stand.begin().await;
            let mut ada = stand.ada.clone();
            change(&mut ada, now + jiff::SignedDuration::from_secs(1));
            stand.write(&ada).await;
            assert!(matches!(stand.renew(&token).await, Err(RefreshError::Stale)));
            assert_eq!(stand.families().await, 0);
        }
        let stand = Stand::new().await;
        let token = stand.begin().await;
        let gone = Txn::default().delete(key::principal("ada-1"));
        stand.store.txn(gone).await.unwrap();
        assert_eq!(sweep(&stand.store, stand.env.clock.now()).await.unwrap(), 1);
        assert!(matches!(stand.renew(&token).await, Err(RefreshError::Stale)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_password_that_is_hashed_anew_ends_nothing() {
        let stand = Stand::new().await;
        let token = stand.begin().await;
        let after = PrincipalRecord {
            secret_hash: "the same, better kept".to_owned(),
            ..stand.ada.clone()
        };
        let txn = Txn::default().with(put_record(key::principal("ada-1"), &after));
        let txn = rehashed(&stand.store, &stand.ada, &after, txn).await.unwrap();
        stand.store.txn(txn).await.unwrap();
        assert!(stand.renew(&token).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn somebodys_sign_ins_are_bounded_and_the_least_used_gives_way() {
        let stand = Stand::new().await;
        let oldest = stand.begin().await;
        stand.env.clock.sleep(DAY).await;
        let mut kept = stand.begin().await;
        for _ in 0..MOST_FAMILIES {
            stand.env.clock.sleep(Duration::from_secs(60)).await;
            stand.begin().await;
            kept = stand.renew(&kept).await.unwrap();
        }
        assert_eq!(stand.families().await, MOST_FAMILIES);
        assert!(matches!(stand.renew(&oldest).await, Err(RefreshError::Stale)));
        assert_eq!(sweep(&stand.store, stand.env.clock.now()).await.unwrap(), 0);
    }
}
