//! A cache of parsed records: a pass parses only records that changed since the pass before.
//!
//! Always true: a returned record is the present one in the store, because its revision is compared each
//! time.

use std::{collections::BTreeMap, sync::Arc};

use control_store::{Store, StoreError, Stored, parse_record};
use serde::de::DeserializeOwned;

/// See the module.
pub(crate) struct RecordCache<T>(BTreeMap<String, Stored<Arc<T>>>);

impl<T> Default for RecordCache<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: DeserializeOwned> RecordCache<T> {
    /// The record as it is in the store now.
    pub(crate) async fn read(
        &mut self,
        store: &dyn Store,
        key: &str,
    ) -> Result<Option<Stored<Arc<T>>>, StoreError> {
        let Some(found) = store.get(key).await? else {
            self.0.remove(key);
            return Ok(None);
        };
        if let Some(known) = self.0.get(key).filter(|known| known.revision == found.revision) {
            return Ok(Some(known.clone()));
        }
        let Stored { revision, value } = parse_record(key, &found)?;
        let read = Stored {
            revision,
            value: Arc::new(value),
        };
        self.0.insert(key.to_owned(), read.clone());
        Ok(Some(read))
    }

    /// As [`Self::list`], if `some` is set; otherwise without reading the store.
    pub(crate) async fn list_if(
        &mut self,
        some: bool,
        store: &dyn Store,
        prefix: &str,
    ) -> Result<Vec<Stored<Arc<T>>>, StoreError> {
        if some {
            self.list(store, prefix).await
        } else {
            Ok(Vec::new())
        }
    }

    /// All records with a prefix, in the order of their keys, as they are in the store now.
    pub(crate) async fn list(
        &mut self,
        store: &dyn Store,
        prefix: &str,
    ) -> Result<Vec<Stored<Arc<T>>>, StoreError> {
        let (found, _) = store.list(prefix).await?;
        let mut before = std::mem::take(&mut self.0);
        let mut all = Vec::with_capacity(found.len());
        for (key, found) in found {
            let known = before
                .remove(&key)
                .filter(|known| known.revision == found.revision);
            let record = match known {
                Some(known) => known,
                None => {
                    let Stored { revision, value } = parse_record(&key, &found)?;
                    Stored {
                        revision,
                        value: Arc::new(value),
                    }
                }
            };
            all.push(record.clone());
            self.0.insert(key, record);
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use control_store::{Txn, put_record};
    use storage_redb::MemoryStore;

    use super::*;

    #[tokio::test]
    async fn what_is_read_is_what_is_there_and_parsed_once() {
        let store = MemoryStore::new();
        let mut cache = RecordCache::<String>::default();
        assert_eq!(cache.read(&store, "/a").await.unwrap(), None);
        let put = |value: &str| Txn::default().with(put_record("/a", &value));
        store.txn(put("one")).await.unwrap();
        let first = cache.read(&store, "/a").await.unwrap().unwrap();
        let again = cache.read(&store, "/a").await.unwrap().unwrap();
        assert!(Arc::ptr_eq(&first.value, &again.value));
        store.txn(put("two")).await.unwrap();
        assert_eq!(*cache.read(&store, "/a").await.unwrap().unwrap().value, "two");
        store.txn(Txn::default().delete("/a")).await.unwrap();
        assert_eq!(cache.read(&store, "/a").await.unwrap(), None);
        store.txn(put("three")).await.unwrap();
        assert_eq!(*cache.read(&store, "/a").await.unwrap().unwrap().value, "three");
    }

    #[tokio::test]
    async fn a_list_is_what_is_there_and_parsed_once() {
        let store = MemoryStore::new();
        let mut cache = RecordCache::<String>::default();
        let put = |key: &str, value: &str| Txn::default().with(put_record(key, &value));
        store.txn(put("/m/1", "one")).await.unwrap();
        store.txn(put("/m/2", "two")).await.unwrap();
        let first = cache.list(&store, "/m/").await.unwrap();
        store.txn(put("/m/2", "new")).await.unwrap();
        let second = cache.list(&store, "/m/").await.unwrap();
        assert!(Arc::ptr_eq(&first[0].value, &second[0].value));
        assert_eq!(*second[1].value, "new");
        store.txn(Txn::default().delete("/m/1")).await.unwrap();
        assert_eq!(cache.list(&store, "/m/").await.unwrap().len(), 1);
    }
}
