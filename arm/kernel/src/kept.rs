//! Answers that are kept as text, for as long as nothing has changed that they were made from.
//!
//! Reading, deciding how it looks, converting to an api-version and writing JSON costs more than all else that a GET costs. Its text is kept
//! with what it rests on: every key that was read for it, with the revision that it had ([`Reads`]). It is given again only if each of these
//! keys still has that revision. Which key is read next follows from what was read before, so a rendering that began now would read the same
//! keys, find the same, and write the same text. Nothing has to be thrown away when something is written, so nothing can be forgotten.
//!
//! Always true: a text is one that [`Resource::render`] would make now; those that are kept have no more than [`LARGEST`] bytes in all;
//! whoever asks has been let through before.

use std::sync::{
    Arc, Mutex, OnceLock, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use arm_access::Scope;
use arm_ids::ResourcePath;
use arm_wire::ArmError;
use async_trait::async_trait;
use bytes::Bytes;
use control_store::{Changes, Revision, Store, StoreError, Txn, Versioned};
use http::StatusCode;
use quick_cache::{Weighter, sync::Cache};
use serde_json::{Value, json};

use crate::{
    list::Listed,
    resource::{Host, Presence, Purpose, Resource, store_error},
};

/// Bytes of all texts that a provider keeps, with what is kept beside them.
const LARGEST: u64 = 64 << 20;
/// About so many of them: room in the table, no bound.
const ABOUT: usize = 512;
/// What an entry takes beside its texts, about.
const BESIDE: usize = 512;
/// What lists compare of an item.
const FACTS: [&str; 5] = ["id", "name", "type", "location", "tags"];

/// A provider that keeps answers.
pub trait Keeper: Host {
    /// Where it keeps them.
    fn kept(&self) -> &Kept;
    /// Its store, to be shared.
    fn shared(&self) -> &Arc<dyn Store>;
    /// The same provider, reading from this store.
    #[must_use]
    fn reading(&self, store: Arc<dyn Store>) -> Self;
}

/// A resource whose answers are kept. All that [`Resource::read`] reads for an answer is in its provider's store, and what
/// [`Resource::render`] makes of it depends on nothing else; of the path it shows nothing in the casing of the request.
#[async_trait]
pub trait Shown: Resource<Provider: Keeper> {
    /// The paths of all items below a collection's, in the order of the list. An error says that what they hang on is missing.
    async fn paths(provider: &Self::Provider, path: &ResourcePath) -> Result<Vec<ResourcePath>, ArmError>;
}

/// What an answer is kept under: where, and in which api-version.
type Key = (Scope, &'static str);

/// The answers of a provider.
#[derive(Debug)]
pub struct Kept(Cache<Key, Arc<Text>, Bytewise>);

#[derive(Debug, Clone)]
struct Bytewise;

impl Weighter<Key, Arc<Text>> for Bytewise {
    fn weight(&self, (scope, _): &Key, text: &Arc<Text>) -> u64 {
        (scope.key().len() + text.weight) as u64
    }
}

impl Default for Kept {
    fn default() -> Self {
        Self::new(LARGEST)
    }
}

impl Kept {
    /// None yet, and never more than so many bytes.
    fn new(largest: u64) -> Self {
        Self(Cache::with_weighter(ABOUT, largest, Bytewise))
    }
}

/// The text of an answer, JSON.
#[derive(Debug)]
pub struct Text {
    plain: Bytes,
    /// The same, packed, once that was asked for.
    packed: OnceLock<Option<Bytes>>,
    /// What lists compare: [`FACTS`].
    facts: Value,
    /// What was read for it: keys with their revisions, or that there was none.
    rests_on: Vec<(String, Option<Revision>)>,
    /// Its bytes and those that are kept beside them; never changes.
    weight: usize,
}

impl Text {
    fn new(body: &Value, rests_on: Vec<(String, Option<Revision>)>) -> Self {
        let plain = Bytes::from(body.to_string());
        let mut facts = json!({});
        for name in FACTS {
            if let Some(value) = body.get(name) {
                facts[name] = value.clone();
            }
        }
        let keys: usize = rests_on.iter().map(|(key, _)| key.len() + 40).sum();
        // Packed it is smaller than plain, or not kept.
        let weight = 2 * plain.len() + keys + BESIDE;
        Self {
            plain,
            packed: OnceLock::new(),
            facts,
            rests_on,
            weight,
        }
    }

    /// A text that is made for one answer.
    pub(crate) fn once(plain: Vec<u8>) -> Self {
        Self {
            plain: Bytes::from(plain),
            packed: OnceLock::new(),
            facts: Value::Null,
            rests_on: Vec::new(),
            weight: 0,
        }
    }

    /// As it is.
    pub fn plain(&self) -> &Bytes {
        &self.plain
    }

    /// Packed by `pack`, the first time that this is asked for; `None` where that makes it no smaller.
    pub fn packed(&self, pack: impl FnOnce(&[u8]) -> Option<Vec<u8>>) -> Option<&Bytes> {
        let packed = self.packed.get_or_init(|| {
            let packed = pack(&self.plain)?;
            (packed.len() < self.plain.len()).then(|| Bytes::from(packed))
        });
        packed.as_ref()
    }

    /// Whether all that it was made from is as it was.
    async fn holds(&self, store: &dyn Store) -> Result<bool, StoreError> {
        for (key, revision) in &self.rests_on {
            let now = store.get(key).await?.map(|found| found.revision);
            if now != *revision {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Listed for Arc<Text> {
    fn facts(&self) -> &Value {
        &self.facts
    }
}

/// A store that notes what is read from it.
struct Reads {
    store: Arc<dyn Store>,
    noted: Mutex<Vec<(String, Option<Revision>)>>,
    /// Whether something was asked that no list of keys stands for.
    beyond: AtomicBool,
}

impl Reads {
    /// All that was read, if that is all that was asked.
    fn taken(&self) -> Option<Vec<(String, Option<Revision>)>> {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        (!self.beyond.load(Ordering::Acquire)).then(|| std::mem::take(&mut *noted))
    }
}

#[async_trait]
impl Store for Reads {
    async fn get(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        let found = self.store.get(key).await?;
        let revision = found.as_ref().map(|found| found.revision);
        self.noted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((key.to_owned(), revision));
        Ok(found)
    }

    // What comes to be below a prefix is told by no key that was there.
    async fn list(&self, prefix: &str) -> Result<(Vec<(String, Versioned)>, Revision), StoreError> {
        self.beyond.store(true, Ordering::Release);
        self.store.list(prefix).await
    }

    async fn txn(&self, txn: Txn) -> Result<Revision, StoreError> {
        self.beyond.store(true, Ordering::Release);
        self.store.txn(txn).await
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Changes, StoreError> {
        self.beyond.store(true, Ordering::Release);
        self.store.watch(prefix, from).await
    }
}

/// The text of a resource; `None` where it is not there.
///
/// # Errors
/// When what it hangs on is not there, or the store fails.
async fn find<R: Shown>(
    provider: &R::Provider,
    path: &ResourcePath,
    api_version: &'static str,
) -> Result<Option<Arc<Text>>, ArmError> {
    let key: Key = (Scope::of(path), api_version);
    let (kept, store) = (&provider.kept().0, provider.shared());
    if let Some(text) = kept.get(&key)
        && text.holds(&**store).await.map_err(store_error)?
    {
        return Ok(Some(text));
    }
    let reads = Arc::new(Reads {
        store: Arc::clone(store),
        noted: Mutex::default(),
        beyond: AtomicBool::new(false),
    });
    let reading = provider.reading(Arc::clone(&reads) as Arc<dyn Store>);
    let state = R::read(&reading, path, Purpose::Answer).await?;
    if R::presence(&state, path) == Presence::Absent {
        return Ok(None);
    }
    let body = R::render(&state, None, path, api_version);
    let Some(rests_on) = reads.taken() else {
        return Ok(Some(Arc::new(Text::new(&body, Vec::new()))));
    };
    let text = Arc::new(Text::new(&body, rests_on));
    kept.insert(key, Arc::clone(&text));
    Ok(Some(text))
}

/// GET of one, as text.
///
/// # Errors
/// When it is not there.
pub(crate) async fn one<R: Shown>(
    provider: &R::Provider,
    path: &ResourcePath,
    api_version: &'static str,
) -> Result<Arc<Text>, ArmError> {
    if let Some(text) = find::<R>(provider, path, api_version).await? {
        return Ok(text);
    }
    let state = R::read(provider, path, Purpose::Answer).await?;
    Err(R::missing(&state, path))
}

/// All items below a collection's path, as texts.
///
/// # Errors
/// When what they hang on is not there.
pub(crate) async fn all<R: Shown>(
    provider: &R::Provider,
    path: &ResourcePath,
    api_version: &'static str,
) -> Result<Vec<Arc<Text>>, ArmError> {
    let paths = R::paths(provider, path).await?;
    let mut texts = Vec::with_capacity(paths.len());
    for path in &paths {
        match find::<R>(provider, path, api_version).await {
            Ok(found) => texts.extend(found),
            // It has gone meanwhile, with what it hung on.
            Err(gone) if gone.status() == StatusCode::NOT_FOUND => {}
            Err(error) => return Err(error),
        }
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(id: &str, length: usize) -> Arc<Text> {
        let body = json!({ "id": id, "name": "n", "filling": "x".repeat(length), "tags": { "a": "b" } });
        Arc::new(Text::new(&body, vec![("/k".to_owned(), None)]))
    }

    #[test]
    fn what_is_kept_is_bounded_in_bytes() {
        let kept = Kept::new(100_000);
        for number in 0..1000_usize {
            let id = format!("/subscriptions/s{number}");
            let key = (Scope::parse(&id).unwrap(), "2026-01-01");
            kept.0.insert(key, text(&id, number % 300 * 10));
            assert!(kept.0.weight() <= 100_000, "{number}");
        }
        assert!(!kept.0.is_empty());
        let huge = (Scope::parse("/subscriptions/huge").unwrap(), "2026-01-01");
        kept.0.insert(huge, text("/subscriptions/huge", 200_000));
        assert!(kept.0.weight() <= 100_000);
    }

    #[test]
    fn a_text_has_the_facts_that_lists_compare_and_is_packed_once() {
        let text = text("/subscriptions/s", 2000);
        assert_eq!(
            *text.facts(),
            json!({ "id": "/subscriptions/s", "name": "n", "tags": { "a": "b" } })
        );
        let mut asked = 0;
        for _ in 0..2 {
            let packed = text.packed(|plain| {
                asked += 1;
                Some(plain[..10].to_vec())
            });
            assert_eq!(packed.map(Bytes::len), Some(10));
        }
        assert_eq!(asked, 1);
        let same = Text::once(b"{}".to_vec());
        assert!(same.packed(|plain| Some(plain.to_vec())).is_none());
    }
}
