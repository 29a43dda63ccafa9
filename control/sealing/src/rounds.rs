//! Rounds through everything that is sealed, and what is asked of the keys.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base_blocking::{Pool, PoolError, SEALING};
use base_env::Env;
use base_sealer::{SealError, Sealer, SealingKey};
use control_records::sealed;
use control_store::{Store, StoreError, Txn};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;

use crate::{
    SealedPlace,
    fate::{Fate, fate},
};

/// What the store is called among the places.
const STORE: &str = "store";
/// How many records are written in one transaction, at most: configurations of machines have a hundred kilobytes.
const BATCH: usize = 16;
/// How many records are looked at before others have a turn.
const CHUNK: usize = 64;
/// How often the store is gone through in a round, at most. What is left then is left to the next round.
const PASSES: usize = 8;
/// Whatever was being sealed when a key stopped sealing is written after this long.
const SETTLED: SignedDuration = SignedDuration::from_secs(60);
/// From one round to the next while something is to be done, and when nothing is.
const SOON: Duration = Duration::from_secs(60);
const LATER: Duration = Duration::from_secs(60 * 60);
/// There are no more keys than this.
const MOST_KEYS: usize = 32;

/// Why the keys cannot be looked after or changed.
#[derive(Debug, thiserror::Error)]
pub enum SealingError {
    /// The store failed.
    #[error("the records cannot be sealed anew")]
    Store(#[from] StoreError),
    /// A value cannot be sealed or unsealed, or the keys cannot be kept.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// No thread could be had.
    #[error(transparent)]
    Busy(#[from] PoolError),
    /// There is no such key.
    #[error("There is no sealing key '{0}'.")]
    NoSuchKey(String),
    /// What is asked for cannot be done now. For people.
    #[error("{0}")]
    Refused(String),
}

/// What a round has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// When it ended.
    pub at: Timestamp,
    /// How many values are sealed with which key, by its id and by place.
    pub sealed: BTreeMap<String, BTreeMap<&'static str, u64>>,
    /// The oldest copy of the store.
    pub oldest_copy: Option<Timestamp>,
    /// Why it does not tell everything, for people.
    pub problem: Option<String>,
}

impl Look {
    fn count(&mut self, key: String, place: &'static str, number: u64) {
        *self.sealed.entry(key).or_default().entry(place).or_default() += number;
    }

    /// How many values are sealed with a key.
    pub fn of(&self, key: &str) -> u64 {
        self.sealed.get(key).map_or(0, |places| places.values().sum())
    }

    /// A first problem counts: those that follow often follow from it.
    fn problem(&mut self, why: impl FnOnce() -> String) {
        self.problem.get_or_insert_with(why);
    }
}

/// What the store is gone through for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aim {
    /// To seal anew what is due.
    Seal,
    /// To count.
    Count,
}

/// A key and what was last seen of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyStatus {
    /// The key.
    pub key: SealingKey,
    /// How many values are sealed with it, by place; `None`: nobody has looked since the service started, as long as there is one key only.
    pub sealed: Option<BTreeMap<&'static str, u64>>,
}

/// The sealing keys of a stamp.
pub struct Sealing {
    env: Env,
    store: Arc<dyn Store>,
    sealer: Arc<Sealer>,
    places: Vec<Arc<dyn SealedPlace>>,
    work: Pool,
    wake: Notify,
    /// Held during a round: one at a time.
    round: tokio::sync::Mutex<()>,
    /// Held while a key is made: one at a time.
    making: tokio::sync::Mutex<()>,
    last: Mutex<Option<Look>>,
}

impl Sealing {
    /// Nothing is done yet. `places` have what is sealed outside the store.
    pub fn new(
        env: &Env,
        store: Arc<dyn Store>,
        sealer: Arc<Sealer>,
        places: Vec<Arc<dyn SealedPlace>>,
    ) -> Self {
        Self {
            env: env.clone(),
            store,
            sealer,
            places,
            work: Pool::new(SEALING),
            wake: Notify::new(),
            round: tokio::sync::Mutex::default(),
            making: tokio::sync::Mutex::default(),
            last: Mutex::default(),
        }
    }

    /// The keys, oldest first; the last one seals.
    pub fn list(&self) -> Vec<KeyStatus> {
        let last = self.last();
        let keys = self.sealer.keys().into_iter();
        keys.map(|key| KeyStatus {
            sealed: last
                .as_ref()
                .map(|look| look.sealed.get(&key.id).cloned().unwrap_or_default()),
            key,
        })
        .collect()
    }

    /// What the last round has found; `None`: there was none since the service started.
    pub fn last(&self) -> Option<Look> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes a key, which seals from now on; what others have sealed is sealed anew by the rounds that follow. Where that is under way, it goes on
    /// and no key is made.
    ///
    /// # Errors
    /// [`SealingError::Refused`] when there are too many keys; else when the key cannot be kept. Then everything is as before.
    pub async fn rotate(&self) -> Result<(), SealingError> {
        let _one = self.making.lock().await;
        let keys = self.sealer.keys();
        if keys.iter().all(|key| key.seals || key.unused_since.is_some()) {
            if keys.len() >= MOST_KEYS {
                return Err(SealingError::Refused(format!(
                    "There are {} sealing keys, and no more are kept. Drop one that is not needed any more.",
                    keys.len()
                )));
            }
            let now = self.env.clock.now();
            let id = self.change(move |sealer| sealer.rotate(now)).await?;
            tracing::info!(key = id, "another key seals from now on");
        }
        self.wake.notify_one();
        Ok(())
    }

    /// Forgets a key that copies of the store may still need: none of before can be put back then.
    ///
    /// # Errors
    /// [`SealingError::Refused`] where the key seals, has only just stopped, or something is sealed with it, or where that cannot be found out.
    pub async fn drop_key(&self, id: &str) -> Result<(), SealingError> {
        let refused = |why: String| Err(SealingError::Refused(why));
        let _one = self.round.lock().await;
        let keys = self.sealer.keys();
        let at = keys.iter().position(|key| key.id == id);
        let at = at.ok_or_else(|| SealingError::NoSuchKey(id.to_owned()))?;
        let Some(next) = keys.get(at + 1) else {
            return refused(format!(
                "The key {id} seals; make another one first, which takes its place."
            ));
        };
        if !self.has_settled(next) {
            return refused(format!(
                "The key {id} has sealed until a moment ago; ask again in two minutes."
            ));
        }
        // What is refused writes nothing.
        let look = self.look(Aim::Count).await?;
        if let Some(problem) = &look.problem {
            return refused(format!(
                "Whether something is sealed with the key {id} cannot be found out: {problem}."
            ));
        }
        match look.of(id) {
            0 => {}
            left => {
                return refused(format!(
                    "{left} values are sealed with the key {id}; they are sealed anew in the background, ask again later."
                ));
            }
        }
        let dropped = id.to_owned();
        self.change(move |sealer| sealer.drop_key(&dropped)).await?;
        tracing::warn!(
            key = id,
            "a sealing key was dropped because somebody has asked for it"
        );
        Ok(())
    }

    /// Whether all that was sealed before this key was made has been written since.
    fn has_settled(&self, key: &SealingKey) -> bool {
        let now = self.env.clock.now();
        key.made_at
            .is_none_or(|made_at| now.duration_since(made_at) >= SETTLED)
    }

    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Sealer) -> Result<T, SealError> + Send + 'static,
    ) -> Result<T, SealingError> {
        let sealer = Arc::clone(&self.sealer);
        Ok(self.work.run(move || change(&sealer)).await??)
    }

    /// Looks after the keys for ever. A stamp with one key costs nothing.
    pub async fn run(&self) {
        loop {
            let mut pause = LATER;
            if self.sealer.keys().len() > 1 {
                if let Err(error) = self.round().await {
                    let why = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!(%error, why, "what older keys have sealed cannot be sealed anew; it is tried again");
                }
                let keys = self.sealer.keys();
                let is_done = |key: &SealingKey| {
                    if key.seals {
                        self.has_settled(key)
                    } else {
                        key.unused_since.is_some()
                    }
                };
                if !keys.iter().all(is_done) {
                    pause = SOON;
                }
            }
            // Biased: chance has no part in it.
            tokio::select! {
                biased;
                () = self.wake.notified() => {}
                () = self.env.clock.sleep(pause) => {}
            }
        }
    }

    /// Seals anew what other keys than the one that seals have sealed, and decides what becomes of these.
    ///
    /// # Errors
    /// When the store fails, or the keys cannot be kept. What was sealed anew until then is.
    pub async fn round(&self) -> Result<Look, SealingError> {
        let _one = self.round.lock().await;
        self.look(Aim::Seal).await
    }

    async fn look(&self, aim: Aim) -> Result<Look, SealingError> {
        // What was found of a key that sealed meanwhile says nothing about it.
        let begun_with = self.sealer.current();
        let mut look = Look {
            at: self.env.clock.now(),
            sealed: BTreeMap::new(),
            oldest_copy: None,
            problem: None,
        };
        self.seal_store(aim, &mut look).await?;
        for place in &self.places {
            let name = place.name();
            let place = Arc::clone(place);
            match self.work.run(move || place.seal_anew()).await? {
                Ok(found) => {
                    for (key, number) in found.sealed {
                        look.count(key, name, number);
                    }
                    look.oldest_copy = look.oldest_copy.into_iter().chain(found.oldest_copy).min();
                }
                Err(error) => look.problem(|| format!("{name}: {error}")),
            }
        }
        look.at = self.env.clock.now();
        if look.problem.is_none() {
            for key in self.sealer.keys().into_iter().filter(|key| key.id != begun_with) {
                self.decide(&key, &look).await?;
            }
        }
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(look.clone());
        Ok(look)
    }

    async fn decide(&self, key: &SealingKey, look: &Look) -> Result<(), SealingError> {
        let id = key.id.clone();
        match fate(key, look.of(&id), look.oldest_copy, look.at) {
            Fate::Stays => {}
            Fate::Note(since) => {
                tracing::info!(
                    key = id,
                    unused = since.is_some(),
                    "looked for what a key has sealed"
                );
                self.change(move |sealer| sealer.note_unused(&id, since)).await?;
            }
            Fate::Goes => {
                tracing::info!(key = id, "nothing needs a sealing key any more; it goes");
                self.change(move |sealer| sealer.drop_key(&id)).await?;
            }
        }
        Ok(())
    }

    /// Seals anew in the store until nothing is due, if that is the aim, and counts what is there then.
    async fn seal_store(&self, aim: Aim, look: &mut Look) -> Result<(), SealingError> {
        for pass in 1.. {
            let (counted, due) = self.find(look).await?;
            if due.is_empty() || pass == PASSES || aim == Aim::Count {
                for (key, number) in counted {
                    look.count(key, STORE, number);
                }
                break;
            }
            self.note_used(&counted).await?;
            tracing::debug!(records = due.len(), pass, "records are sealed anew");
            for batch in due.chunks(BATCH) {
                self.seal_batch(batch, look).await?;
            }
        }
        Ok(())
    }

    /// Notes of keys that were unused that they are not: a store was put back that is older, and copies of it are from now on. Before anything is
    /// sealed anew: after that, nothing tells of it.
    async fn note_used(&self, counted: &BTreeMap<String, u64>) -> Result<(), SealingError> {
        let keys = self.sealer.keys().into_iter();
        for key in keys.filter(|key| key.unused_since.is_some() && counted.contains_key(&key.id)) {
            tracing::info!(
                key = key.id,
                "a key that was not used any more has sealed what is in the store"
            );
            self.change(move |sealer| sealer.note_unused(&key.id, None))
                .await?;
        }
        Ok(())
    }

    /// How many values in the store are sealed with which key, and the records with those that are due.
    async fn find(&self, look: &mut Look) -> Result<(BTreeMap<String, u64>, Vec<String>), SealingError> {
        let (records, _) = self.store.list("/").await?;
        let (mut counted, mut due) = (BTreeMap::<String, u64>::new(), Vec::new());
        for chunk in records.chunks(CHUNK) {
            for (name, found) in chunk {
                let mut is_due = false;
                let looked = sealed::rewrite::<StoreError>(name, found, &mut |_, sealed| {
                    // What no key opens stays as it is.
                    if let Some(key) = self.sealer.key_of(sealed) {
                        *counted.entry(key).or_default() += 1;
                        is_due |= !self.sealer.is_current(sealed);
                    }
                    Ok(None)
                });
                if let Err(error) = looked {
                    look.problem(|| error.to_string());
                }
                if is_due {
                    due.push(name.clone());
                }
            }
            tokio::task::yield_now().await;
        }
        Ok((counted, due))
    }

    /// Seals some records anew in one transaction; where one of them is in the way of the others, each in its own.
    async fn seal_batch(&self, names: &[String], look: &mut Look) -> Result<(), SealingError> {
        let is_of_one = |error: &SealingError| {
            matches!(
                error,
                SealingError::Seal(_)
                    | SealingError::Store(StoreError::Conflict { .. } | StoreError::Corrupt { .. })
            )
        };
        match self.seal_records(names).await {
            Err(error) if is_of_one(&error) => {}
            other => return other,
        }
        for name in names {
            match self.seal_records(std::slice::from_ref(name)).await {
                // Somebody was faster; the next pass looks what it is now.
                Err(SealingError::Store(StoreError::Conflict { .. })) => {}
                Err(error) if is_of_one(&error) => look.problem(|| format!("{name}: {error}")),
                other => other?,
            }
        }
        Ok(())
    }

    /// Seals records anew, all or none, as they are read now.
    async fn seal_records(&self, names: &[String]) -> Result<(), SealingError> {
        let mut txn = Txn::default();
        for name in names {
            let Some(found) = self.store.get(name).await? else {
                continue;
            };
            let op = sealed::rewrite::<SealingError>(name, &found, &mut |sealed_as, sealed| {
                if self.sealer.is_current(sealed) || self.sealer.key_of(sealed).is_none() {
                    return Ok(None);
                }
                let secret = self.sealer.unseal(sealed_as, sealed)?;
                Ok(Some(self.sealer.seal(sealed_as, &secret)?))
            })?;
            if let Some(op) = op {
                txn = txn.at(name.as_str(), found.revision).with(op);
            }
        }
        if !txn.ops.is_empty() {
            self.store.txn(txn).await?;
        }
        Ok(())
    }
}
