//! A cache of rendered responses, each valid as long as the records that it was made from are unchanged.
//!
//! Reading, rendering, conversion to an api-version and writing JSON make up most of the cost of a GET. The
//! text is cached with its dependencies: every key that was read for it, with its revision at that time
//! ([`Reads`]). It is used only if each of these keys still has that revision. Which key is read next follows
//! from the values read before, so rendering again would read the same keys, find the same values, and write
//! the same text. There is no invalidation on writes, so none can be missed.
//!
//! Always true: a cached text equals the one that [`Resource::render`] would make now; all cached texts
//! together have at most [`LARGEST`] bytes; the caller's permission was checked before.

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

/// Bytes of all texts that a provider caches, with their keys and dependencies.
const LARGEST: u64 = 64 << 20;
/// The initial capacity of the table, not a limit.
const ABOUT: usize = 512;
/// The approximate overhead of an entry beside its texts.
const BESIDE: usize = 512;
/// The members of an item that lists compare.
const FACTS: [&str; 5] = ["id", "name", "type", "location", "tags"];

/// A provider with a cache of responses.
pub trait Keeper: Host {
    /// The cache.
    fn kept(&self) -> &Kept;
    /// Its store, to be shared.
    fn shared(&self) -> &Arc<dyn Store>;
    /// The same provider, with this store for reading.
    #[must_use]
    fn reading(&self, store: Arc<dyn Store>) -> Self;
}

/// A resource whose responses are cached. All records that [`Resource::read`] reads for a response are in its
/// provider's store, and [`Resource::render`] depends on nothing else; in particular it does not show the
/// path in the casing of the request.
#[async_trait]
pub trait Shown: Resource<Provider: Keeper> {
    /// The paths of all items of a collection, in the order of the list. Fails where their parent does not
    /// exist.
    async fn paths(provider: &Self::Provider, path: &ResourcePath) -> Result<Vec<ResourcePath>, ArmError>;
}

/// The key of a response: its scope and api-version.
type Key = (Scope, &'static str);

/// The cached responses of a provider.
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
    /// An empty cache, limited to this many bytes.
    fn new(largest: u64) -> Self {
        Self(Cache::with_weighter(ABOUT, largest, Bytewise))
    }
}

/// The text of a response, JSON.
#[derive(Debug)]
pub struct Text {
    plain: Bytes,
    /// The same, compressed, after the first request for that.
    packed: OnceLock<Option<Bytes>>,
    /// The members that lists compare: [`FACTS`].
    facts: Value,
    /// Its dependencies: keys with their revisions, `None` for a key without a record.
    rests_on: Vec<(String, Option<Revision>)>,
    /// Its bytes and its overhead; never changes.
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
        // The compressed text is smaller than the plain one, or not kept.
        let weight = 2 * plain.len() + keys + BESIDE;
        Self {
            plain,
            packed: OnceLock::new(),
            facts,
            rests_on,
            weight,
        }
    }

    /// A text that is used for one response only.
    pub(crate) fn once(plain: Vec<u8>) -> Self {
        Self {
            plain: Bytes::from(plain),
            packed: OnceLock::new(),
            facts: Value::Null,
            rests_on: Vec::new(),
            weight: 0,
        }
    }

    /// The uncompressed text.
    pub fn plain(&self) -> &Bytes {
        &self.plain
    }

    /// Compressed by `pack`, on first use; `None` where that makes it no smaller.
    pub fn packed(&self, pack: impl FnOnce(&[u8]) -> Option<Vec<u8>>) -> Option<&Bytes> {
        let packed = self.packed.get_or_init(|| {
            let packed = pack(&self.plain)?;
            (packed.len() < self.plain.len()).then(|| Bytes::from(packed))
        });
        packed.as_ref()
    }

    /// Whether all its dependencies are unchanged.
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

/// A store that records the keys read from it.
struct Reads {
    store: Arc<dyn Store>,
    noted: Mutex<Vec<(String, Option<Revision>)>>,
    /// Whether a call was made whose result a list of keys cannot represent.
    beyond: AtomicBool,
}

impl Reads {
    /// The keys and revisions that were read; `None` where other calls were made.
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

    // New keys below a prefix change no key that was read, so the result cannot be cached.
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

/// The text of a resource; `None` where it does not exist.
///
/// # Errors
/// When its parent does not exist, or the store fails.
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
/// When it does not exist.
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

/// All items of a collection, as texts.
///
/// # Errors
/// When their parent does not exist.
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
            // It was deleted meanwhile, together with its parent.
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
