//! The keys that sign tokens, and their rotation.
//!
//! ```text
//!  made, published ──(a day at least)──► signs ──(90 days, or a command)──► checks only ──(an hour)──► forgotten
//! ```
//!
//! Always true: one key signs; it was published for a day before, so that clients that cache our keys have it
//! by then; a previous key stays published until its last token has ended; so no client is refused because of
//! a rotation. Only [`Wish::Revoke`], for a stolen key, ends tokens before their time. Private keys are
//! sealed in the store.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use base_blocking::{HASHING, Pool, PoolError};
use base_env::Env;
use base_sealer::{SealError, Sealer};
use control_records::{SigningKeyRecord, SigningKeysRecord, key};
use control_store::{Store, StoreError, Txn, get_record, put_record};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{KeyError, SigningKey};

/// Lifetime of access tokens and id tokens. No token that we sign is valid for longer.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);
/// Time that a key signs.
const PERIOD: Duration = Duration::from_secs(90 * 86_400);
/// Time that a key is published before it signs.
const LEAD: Duration = Duration::from_secs(86_400);
/// The largest error of other hosts' clocks.
const SKEW: Duration = Duration::from_secs(300);
/// How often a change is decided again because the record changed meanwhile.
const MAX_ATTEMPTS: usize = 8;

/// A requested change of the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// The scheduled rotation.
    Time,
    /// The next key signs as early as possible.
    Rotate,
    /// A key was stolen: all of them end now, and with them every token.
    Revoke,
}

/// The reason why keys are not available or cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The store failed.
    #[error("the keys that sign tokens cannot be read or written")]
    Store(#[from] StoreError),
    /// A key cannot be made or used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A key cannot be sealed or unsealed.
    #[error("a key that signs tokens cannot be kept")]
    Seal(#[from] SealError),
    /// No thread was available for making a key.
    #[error("a key that signs tokens cannot be made now")]
    Busy(#[from] PoolError),
}

/// The result of a rotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotated {
    /// The `kid` of the key that signs now.
    pub signs: String,
    /// The key that signs next, and from when on if that is decided.
    pub next: Option<(String, Option<Timestamp>)>,
}

/// A key, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its `kid`.
    pub id: String,
    /// `signs`, `next`, or `ending`: only its earlier signatures are still valid.
    pub state: &'static str,
    /// Since when clients can fetch it; `None`: always.
    pub published_at: Option<Timestamp>,
    /// The time from which it signs; `None`: not decided yet.
    pub signs_from: Option<Timestamp>,
    /// When it is removed.
    pub ends_at: Option<Timestamp>,
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(by).expect("keys are of this millennium")
}

/// The key that signs.
fn signer(keys: &[SigningKeyRecord], now: Timestamp) -> Option<usize> {
    keys.iter()
        .enumerate()
        .filter(|(_, key)| key.signs_from.is_some_and(|from| from <= now))
        .max_by_key(|(at, key)| (key.signs_from, *at))
        .map(|(at, _)| at)
}

/// The keys after a change, without those that are [`missing`], and whether a new key is to sign as soon as
/// possible. Pure.
fn advance(mut keys: Vec<SigningKeyRecord>, wish: Wish, now: Timestamp) -> (Vec<SigningKeyRecord>, bool) {
    if wish == Wish::Revoke {
        keys.clear();
    }
    let is_due = wish == Wish::Rotate
        || signer(&keys, now)
            .is_some_and(|at| keys[at].signs_from.is_some_and(|from| later(from, PERIOD) <= now));
    let is_decided = keys
        .iter()
        .any(|key| key.signs_from.is_some_and(|from| from > now));
    let mut is_owed = false;
    if is_due && !is_decided {
        match keys.iter_mut().find(|key| key.signs_from.is_none()) {
            Some(next) => next.signs_from = Some(later(next.published_at, LEAD).max(now)),
            None => is_owed = true,
        }
    }
    if let Some(at) = signer(&keys, now) {
        let since = keys[at].signs_from.unwrap_or(now);
        for (other, key) in keys.iter_mut().enumerate() {
            let signed = key.signs_from.is_some_and(|from| from <= now);
            if other != at && signed && key.ends_at.is_none() {
                key.ends_at = Some(later(since, TOKEN_LIFETIME + SKEW));
            }
        }
    }
    keys.retain(|key| key.ends_at.is_none_or(|end| end > now));
    (keys, is_owed)
}

/// How many keys have to be made, so that there is one that signs, and a next one.
fn missing(keys: &[SigningKeyRecord], now: Timestamp) -> usize {
    let waits = keys
        .iter()
        .any(|key| key.signs_from.is_none_or(|from| from > now));
    usize::from(signer(keys, now).is_none()) + usize::from(!waits)
}

/// Adds a key: it signs if none does; otherwise it waits for the rotation, or until it may sign.
fn add(keys: &mut Vec<SigningKeyRecord>, id: &str, sealed: String, is_owed: bool, now: Timestamp) {
    let signs_from = match signer(keys, now) {
        None => Some(now),
        Some(_) => is_owed.then(|| later(now, LEAD)),
    };
    keys.push(SigningKeyRecord {
        id: id.to_owned(),
        sealed,
        published_at: now,
        signs_from,
        ends_at: None,
    });
}

/// Where the keys are kept.
struct Kept {
    env: Env,
    store: Arc<dyn Store>,
    sealer: Arc<Sealer>,
    making: Pool,
}

type Ring = Vec<(SigningKeyRecord, Arc<SigningKey>)>;

/// The keys that sign tokens, in use.
pub struct SigningKeys {
    ring: RwLock<Arc<Ring>>,
    kept: Option<Kept>,
    /// Held while keys are changed: one at a time.
    one: tokio::sync::Mutex<()>,
}

impl From<SigningKey> for SigningKeys {
    /// A single permanent key, without a store.
    fn from(key: SigningKey) -> Self {
        let record = SigningKeyRecord {
            id: key.id.clone(),
            sealed: String::new(),
            published_at: Timestamp::MIN,
            signs_from: Some(Timestamp::MIN),
            ends_at: None,
        };
        Self {
            ring: RwLock::new(Arc::new(vec![(record, Arc::new(key))])),
            kept: None,
            one: tokio::sync::Mutex::default(),
        }
    }
}

impl SigningKeys {
    /// The keys of a store. If it has none, `earlier` is its first one; an earlier release stored it
    /// elsewhere.
    ///
    /// # Errors
    /// When the store fails, or a key in it cannot be used.
    pub async fn open(
        env: &Env,
        store: Arc<dyn Store>,
        sealer: Arc<Sealer>,
        earlier: Option<SigningKey>,
    ) -> Result<Self, RingError> {
        let keys = Self {
            ring: RwLock::default(),
            kept: Some(Kept {
                env: env.clone(),
                store,
                sealer,
                making: Pool::new(HASHING),
            }),
            one: tokio::sync::Mutex::default(),
        };
        keys.change(Wish::Time, earlier, true).await?;
        Ok(keys)
    }

    /// Whether they are stored and rotated.
    pub fn is_kept(&self) -> bool {
        self.kept.is_some()
    }

    fn ring(&self) -> Arc<Ring> {
        Arc::clone(&self.ring.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The key that signs.
    pub(crate) fn signer(&self, now: Timestamp) -> Arc<SigningKey> {
        let ring = self.ring();
        let signs = ring
            .iter()
            .filter(|(record, _)| record.signs_from.is_some_and(|from| from <= now))
            .max_by_key(|(record, _)| record.signs_from)
            .or(ring.first());
        let (_, key) = signs.expect("a ring is not used before it has a key, and never loses its last");
        Arc::clone(key)
    }

    /// A key with which valid tokens may be signed.
    pub(crate) fn find(&self, id: &str, now: Timestamp) -> Option<Arc<SigningKey>> {
        let ring = self.ring();
        let found = ring
            .iter()
            .find(|(record, _)| record.id == id && record.ends_at.is_none_or(|end| end > now))?;
        Some(Arc::clone(&found.1))
    }

    /// The public keys as a JSON Web Key Set: previous, current and next ones.
    pub fn jwks(&self, now: Timestamp) -> Value {
        let ring = self.ring();
        let live = ring
            .iter()
            .filter(|(record, _)| record.ends_at.is_none_or(|end| end > now));
        let keys: Vec<&Value> = live.map(|(_, key)| key.jwk()).collect();
        json!({ "keys": keys })
    }

    /// The present keys, oldest first.
    pub fn list(&self, now: Timestamp) -> Vec<Listed> {
        let signs = self.signer(now);
        let given = |at: Timestamp| (at > Timestamp::MIN).then_some(at);
        self.ring()
            .iter()
            .map(|(record, _)| Listed {
                id: record.id.clone(),
                state: if record.id == signs.id {
                    "signs"
                } else if record.signs_from.is_none_or(|from| from > now) {
                    "next"
                } else {
                    "ending"
                },
                published_at: given(record.published_at),
                signs_from: record.signs_from.and_then(given),
                ends_at: record.ends_at,
            })
            .collect()
    }

    /// Changes the keys, and gives the state after that.
    ///
    /// # Errors
    /// When the store fails, or no key can be made; also for keys without a store, which cannot be changed.
    pub async fn rotate(&self, wish: Wish) -> Result<Rotated, RingError> {
        self.change(wish, None, false).await?;
        let now = self
            .kept
            .as_ref()
            .map_or(Timestamp::MAX, |kept| kept.env.clock.now());
        let next = self.ring().iter().rev().find_map(|(record, _)| {
            let waits = record.signs_from.is_none_or(|from| from > now);
            waits.then(|| (record.id.clone(), record.signs_from))
        });
        Ok(Rotated {
            signs: self.signer(now).id.clone(),
            next,
        })
    }

    /// Decides, makes the missing keys, writes, and uses them. At the start only a signing key is made, if
    /// there is none: making one takes a while, and the next one is not urgent.
    async fn change(
        &self,
        wish: Wish,
        mut earlier: Option<SigningKey>,
        is_start: bool,
    ) -> Result<(), RingError> {
        let Some(kept) = &self.kept else {
            return Ok(());
        };
        let _one = self.one.lock().await;
        for attempt in 1.. {
            let now = kept.env.clock.now();
            let found = get_record::<SigningKeysRecord>(&*kept.store, key::SIGNING_KEYS).await?;
            let before = found
                .as_ref()
                .map(|found| found.value.keys.clone())
                .unwrap_or_default();
            let (mut keys, is_owed) = advance(before.clone(), wish, now);
            let mut made = Vec::new();
            let wanted = if is_start {
                usize::from(signer(&keys, now).is_none())
            } else {
                missing(&keys, now)
            };
            for _ in 0..wanted {
                let key = match earlier.take().filter(|_| keys.is_empty() && wish != Wish::Revoke) {
                    Some(earlier) => earlier,
                    None => kept.making.run(SigningKey::generate).await??,
                };
                let sealed = kept
                    .sealer
                    .seal(&key::sealed::signing_key(&key.id), key.to_pem().as_bytes())?;
                add(&mut keys, &key.id, hex::encode(sealed), is_owed, now);
                made.push(Arc::new(key));
            }
            if keys == before {
                return self.adopt(kept, keys, made);
            }
            let record = SigningKeysRecord {
                v: 1,
                keys: keys.clone(),
            };
            let condition = match &found {
                Some(found) => Txn::default().at(key::SIGNING_KEYS, found.revision),
                None => Txn::default().absent(key::SIGNING_KEYS),
            };
            match kept
                .store
                .txn(condition.with(put_record(key::SIGNING_KEYS, &record)))
                .await
            {
                Ok(_) => {
                    tracing::info!(
                        ?wish,
                        keys = keys.len(),
                        signs = signer(&keys, now).map(|at| keys[at].id.as_str()),
                        "changed the keys that sign tokens"
                    );
                    return self.adopt(kept, keys, made);
                }
                Err(StoreError::Conflict { .. }) if attempt < MAX_ATTEMPTS => {}
                Err(error) => return Err(error.into()),
            }
        }
        unreachable!("the loop ends with an answer")
    }

    /// Uses these keys from now on.
    fn adopt(
        &self,
        kept: &Kept,
        records: Vec<SigningKeyRecord>,
        made: Vec<Arc<SigningKey>>,
    ) -> Result<(), RingError> {
        let present = self.ring();
        let mut ring = Ring::with_capacity(records.len());
        for record in records {
            let at_hand = present
                .iter()
                .map(|(_, key)| key)
                .chain(&made)
                .find(|key| key.id == record.id);
            let key = match at_hand {
                Some(key) => Arc::clone(key),
                None => Arc::new(open(kept, &record)?),
            };
            ring.push((record, key));
        }
        *self.ring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ring);
        Ok(())
    }
}

fn open(kept: &Kept, record: &SigningKeyRecord) -> Result<SigningKey, RingError> {
    let name = key::sealed::signing_key(&record.id);
    let damaged = || SealError::Unseal { name: name.clone() };
    let sealed = hex::decode(&record.sealed).map_err(|_| damaged())?;
    let pem = kept.sealer.unseal(&name, &sealed)?;
    let pem = std::str::from_utf8(&pem).map_err(|_| damaged())?;
    Ok(SigningKey::from_pem(pem)?)
}

#[cfg(test)]
mod tests {
    use storage_redb::MemoryStore;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(hours * 3600).unwrap()
    }

    /// The same as [`SigningKeys::change`], without real keys.
    fn step(keys: Vec<SigningKeyRecord>, wish: Wish, now: Timestamp) -> Vec<SigningKeyRecord> {
        let (mut keys, is_owed) = advance(keys, wish, now);
        for _ in 0..missing(&keys, now) {
            let id = format!("k{}-{}", now.as_second() / 3600, keys.len());
            add(&mut keys, &id, String::new(), is_owed, now);
        }
        keys
    }

    fn signs(keys: &[SigningKeyRecord], now: Timestamp) -> &str {
        &keys[signer(keys, now).unwrap()].id
    }

    #[test]
    fn a_year_of_hours_with_and_without_commands_refuses_no_token() {
        assert_eq!(year(None), 5, "one each ninety days");
        // A rotation by command restarts the ninety days.
        assert_eq!(year(Some(1000)), 9);
        // More commands than clients can follow.
        assert!(year(Some(5)) > 250);
    }

    /// Simulates a year with an hourly check, and a command after each so many. Gives the number of keys that
    /// signed.
    fn year(commands: Option<i64>) -> usize {
        let mut keys = Vec::new();
        let (mut given, mut signers) = (Vec::new(), std::collections::BTreeSet::new());
        for hour in 0..(365 * 24) {
            let now = at(hour);
            let wish = match commands {
                Some(every) if hour % every == every - 1 => Wish::Rotate,
                _ => Wish::Time,
            };
            keys = step(keys, wish, now);
            let signs = signs(&keys, now).to_owned();
            // A token is valid for an hour, so a key is published for an hour after its last signature.
            given.push((now, signs.clone()));
            given.retain(|(from, _)| later(*from, TOKEN_LIFETIME) >= now);
            for (_, id) in &given {
                assert!(keys.iter().any(|key| key.id == *id), "hour {hour}");
            }
            let record = keys.iter().find(|key| key.id == signs).unwrap();
            if !signers.contains(&signs) && !signers.is_empty() {
                let known = now.duration_since(record.published_at);
                assert!(known.unsigned_abs() >= LEAD, "hour {hour}: nobody could know it");
            }
            signers.insert(signs);
            assert!(keys.len() <= 4, "hour {hour}: {}", keys.len());
        }
        signers.len()
    }

    #[test]
    fn a_second_command_waits_for_the_key_to_be_known_and_changes_nothing_more() {
        let keys = step(Vec::new(), Wish::Time, at(0));
        let first = signs(&keys, at(0)).to_owned();
        let keys = step(keys, Wish::Rotate, at(1));
        assert_eq!(
            signs(&keys, at(1)),
            first,
            "the next is not known for long enough"
        );
        let again = step(keys.clone(), Wish::Rotate, at(2));
        assert_eq!(again, keys);
        let keys = step(again, Wish::Time, at(24));
        assert_ne!(signs(&keys, at(24)), first);
        assert!(
            keys.iter().any(|key| key.id == first),
            "its last token is an hour old at most"
        );
        let keys = step(keys, Wish::Time, at(26));
        assert!(!keys.iter().any(|key| key.id == first));
    }

    #[test]
    fn what_is_revoked_is_gone_at_once() {
        let keys = step(Vec::new(), Wish::Time, at(0));
        let after = step(keys.clone(), Wish::Revoke, at(5));
        assert_eq!(after.len(), 2);
        assert!(keys.iter().all(|old| after.iter().all(|new| new.id != old.id)));
        assert_eq!(signer(&after, at(5)), Some(0));
    }

    #[tokio::test(start_paused = true)]
    async fn keys_are_kept_sealed_and_come_back() {
        let env = Env::simulated(1);
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let sealer = Arc::new(Sealer::from_key(&[7; 32]));
        let earlier = SigningKey::generate().unwrap();
        let (id, pem) = (earlier.id.clone(), earlier.to_pem().to_owned());
        let open = |earlier| SigningKeys::open(&env, Arc::clone(&store), Arc::clone(&sealer), earlier);
        let keys = open(Some(earlier)).await.unwrap();
        assert_eq!(keys.signer(env.clock.now()).id, id, "the one of before signs on");
        let kept = store.get(key::SIGNING_KEYS).await.unwrap().unwrap().value;
        let text = String::from_utf8(kept.to_vec()).unwrap();
        assert!(!text.contains("PRIVATE") && !text.contains(&hex::encode(pem.as_bytes())));

        let rotated = keys.rotate(Wish::Rotate).await.unwrap();
        assert_eq!(rotated.signs, id);
        let (next, from) = rotated.next.unwrap();
        assert_eq!(keys.jwks(env.clock.now())["keys"].as_array().unwrap().len(), 2);
        assert_eq!(
            from,
            Some(later(env.clock.now(), LEAD)),
            "it was made with this command"
        );
        env.clock.sleep(LEAD).await;
        assert_eq!(keys.rotate(Wish::Time).await.unwrap().signs, next);
        assert!(keys.find(&id, env.clock.now()).is_some());
        env.clock.sleep(TOKEN_LIFETIME + SKEW).await;
        assert!(keys.find(&id, env.clock.now()).is_none());

        let again = open(Some(SigningKey::from_pem(&pem).unwrap())).await.unwrap();
        assert_eq!(again.signer(env.clock.now()).id, next);
        again.rotate(Wish::Revoke).await.unwrap();
        assert!(again.find(&next, env.clock.now()).is_none());
        let stranger = SigningKeys::open(
            &env,
            Arc::clone(&store),
            Arc::new(Sealer::from_key(&[8; 32])),
            None,
        );
        assert!(stranger.await.is_err());
        env.clock.sleep(HOUR).await;
    }
}
