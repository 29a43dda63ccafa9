//! A cache of parsed principals: every request reads its caller's record, which hardly ever changes.
//!
//! Always true: a result is the present record of the store. Only parsing an unchanged revision again is
//! saved.

use std::sync::Arc;

use control_records::PrincipalRecord;
use control_store::{Store, StoreError, Stored, parse_record};
use identity_directory::principal_key;
use quick_cache::sync::Cache;

/// The most principals in the cache.
const MOST_KNOWN: usize = 1024;

/// Principals by their keys.
pub(crate) struct Known(Cache<String, Arc<Stored<PrincipalRecord>>>);

impl Default for Known {
    fn default() -> Self {
        Self(Cache::new(MOST_KNOWN))
    }
}

impl Known {
    /// The principal with this object id, disabled or not.
    pub(crate) async fn principal(
        &self,
        store: &dyn Store,
        object_id: &str,
    ) -> Result<Option<Arc<Stored<PrincipalRecord>>>, StoreError> {
        let Some(key) = principal_key(object_id) else {
            return Ok(None);
        };
        let Some(found) = store.get(&key).await? else {
            self.0.remove(&key);
            return Ok(None);
        };
        if let Some(known) = self.0.get(&key)
            && known.revision == found.revision
        {
            return Ok(Some(known));
        }
        let read = Arc::new(parse_record::<PrincipalRecord>(&key, &found)?);
        self.0.insert(key, Arc::clone(&read));
        Ok(Some(read))
    }
}

#[cfg(test)]
mod tests {
    use base_env::Env;
    use control_store::{Txn, put_record};
    use storage_redb::MemoryStore;

    use super::*;

    #[tokio::test]
    async fn what_changes_is_seen_at_once_and_what_does_not_is_read_once() {
        let (store, known, env) = (MemoryStore::new(), Known::default(), Env::system());
        let key = principal_key("O").expect("a name without a slash");
        assert!(known.principal(&store, "O").await.unwrap().is_none());
        let mut record = PrincipalRecord::new("o", env.clock.now());
        for disabled in [false, true, false] {
            record.disabled = disabled;
            let txn = Txn::default().with(put_record(&key, &record));
            store.txn(txn).await.unwrap();
            let first = known.principal(&store, "o").await.unwrap().unwrap();
            assert_eq!(first.value, record);
            let second = known.principal(&store, "O").await.unwrap().unwrap();
            assert!(Arc::ptr_eq(&first, &second));
        }
        store.txn(Txn::default().delete(&key)).await.unwrap();
        assert!(known.principal(&store, "o").await.unwrap().is_none());
        assert!(known.principal(&store, "../stamp").await.unwrap().is_none());
    }
}
