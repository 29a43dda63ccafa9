//! The keys of issuers whose tokens applications may present: those of this stamp, and those of others, by
//! OIDC discovery.
//!
//! Always true: a document of another issuer is fetched only for a credential that names the issuer; it is
//! bounded in size, cached for a while, and fetched again at most once a minute; a document that names
//! another issuer is refused.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use base_env::Env;
use identity_directory::{ISSUER_IS, is_issuer};
use serde_json::Value;

use crate::shape::host;

/// Time that documents are cached.
const FRESH: Duration = Duration::from_secs(3600);
/// Time after which keys are fetched again, for a token with an unknown key, or after any failure.
const AGAIN: Duration = Duration::from_secs(60);
/// The most issuers in the cache.
const ISSUERS: usize = 256;

/// The reason why an issuer's keys are not available.
#[derive(Debug, Clone, thiserror::Error)]
pub enum IssuerError {
    /// The issuer is not allowed.
    #[error("{0}")]
    Refused(String),
    /// The issuer cannot be reached.
    #[error("{0}")]
    Unreachable(String),
}

/// A source of issuers' keys.
#[async_trait]
pub trait Issuers: Send + Sync {
    /// The issuer's JSON Web Key Set; `None` for issuers of other sources. `is_enough` says whether the
    /// cached keys suffice.
    async fn keys(
        &self,
        issuer: &str,
        is_enough: &(dyn for<'a> Fn(&'a Value) -> bool + Sync),
    ) -> Result<Option<Value>, IssuerError>;

    /// Whether the issuer is a cluster that is bound to a principal, by its object id: the cluster then
    /// decides which of its service accounts may use it.
    async fn binds(&self, _issuer: &str, _principal: &str) -> Result<bool, IssuerError> {
        Ok(false)
    }
}

/// Reads documents of others.
#[async_trait]
pub trait Fetch: Send + Sync {
    /// The JSON at this address, which is `https`: bounded in time and size, without redirects.
    async fn json(&self, url: &str) -> Result<Value, IssuerError>;
}

struct Kept {
    at: Duration,
    keys: Result<Value, IssuerError>,
}

type Slot = Arc<tokio::sync::Mutex<Option<Kept>>>;

/// Issuers outside the stamp, found by OIDC discovery.
pub struct Elsewhere {
    env: Env,
    fetch: Arc<dyn Fetch>,
    slots: Mutex<HashMap<String, Slot>>,
}

impl Elsewhere {
    /// With an empty cache.
    pub fn new(env: &Env, fetch: Arc<dyn Fetch>) -> Self {
        Self {
            env: env.clone(),
            fetch,
            slots: Mutex::default(),
        }
    }

    fn slot(&self, issuer: &str) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= ISSUERS && !slots.contains_key(issuer) {
            // Slots in use have waiting requests; the others can be fetched again.
            slots.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        Arc::clone(slots.entry(issuer.to_owned()).or_default())
    }

    async fn fetch(&self, issuer: &str) -> Result<Value, IssuerError> {
        let at = format!(
            "{}/.well-known/openid-configuration",
            issuer.trim_end_matches('/')
        );
        let document = self.fetch.json(&at).await?;
        if document["issuer"] != *issuer {
            return Err(IssuerError::Refused(format!(
                "the document at {} is not of the issuer that it was asked for",
                host(issuer)
            )));
        }
        let keys = document["jwks_uri"].as_str().unwrap_or_default();
        if !keys.starts_with("https://") {
            return Err(IssuerError::Refused(format!(
                "the document at {} names no keys at an https address",
                host(issuer)
            )));
        }
        self.fetch.json(keys).await
    }
}

#[async_trait]
impl Issuers for Elsewhere {
    async fn keys(
        &self,
        issuer: &str,
        is_enough: &(dyn for<'a> Fn(&'a Value) -> bool + Sync),
    ) -> Result<Option<Value>, IssuerError> {
        // Older credentials may name issuers that are no longer allowed.
        if !is_issuer(issuer) {
            return Err(IssuerError::Refused(format!("an issuer has to be {ISSUER_IS}")));
        }
        let slot = self.slot(issuer);
        // Concurrent requests wait for one fetch.
        let mut kept = slot.lock().await;
        let now = self.env.clock.monotonic();
        let is_good = kept.as_ref().is_some_and(|kept| {
            let age = now.saturating_sub(kept.at);
            match &kept.keys {
                Ok(keys) => age < if is_enough(keys) { FRESH } else { AGAIN },
                Err(_) => age < AGAIN,
            }
        });
        if !is_good {
            let fetched = self.fetch(issuer).await;
            let before = kept.take();
            let keys = match (fetched, before) {
                // The issuer is temporarily unreachable; its cached keys are still valid.
                (Err(IssuerError::Unreachable(why)), Some(Kept { keys: Ok(keys), at }))
                    if is_enough(&keys) && now.saturating_sub(at) < 24 * FRESH =>
                {
                    tracing::warn!(
                        issuer,
                        why,
                        "the keys of an issuer are used on, they cannot be read anew"
                    );
                    *kept = Some(Kept {
                        at,
                        keys: Ok(keys.clone()),
                    });
                    return Ok(Some(keys));
                }
                (fetched, _) => fetched,
            };
            *kept = Some(Kept { at: now, keys });
        }
        match kept.as_ref().map(|kept| kept.keys.clone()) {
            Some(keys) => keys.map(Some),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::json;

    use super::*;

    const ISSUER: &str = "https://ci.example.com/a";

    #[derive(Default)]
    struct Web {
        pages: Mutex<HashMap<String, Value>>,
        asked: AtomicUsize,
    }

    impl Web {
        fn show(&self, issuer: &str, keys_at: &str, kid: &str) {
            let mut pages = self.pages.lock().unwrap();
            pages.insert(
                format!("{ISSUER}/.well-known/openid-configuration"),
                json!({ "issuer": issuer, "jwks_uri": keys_at }),
            );
            pages.insert(keys_at.to_owned(), json!({ "keys": [{ "kid": kid }] }));
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::Relaxed)
        }
    }

    #[async_trait]
    impl Fetch for Web {
        async fn json(&self, url: &str) -> Result<Value, IssuerError> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let pages = self.pages.lock().unwrap();
            pages
                .get(url)
                .cloned()
                .ok_or_else(|| IssuerError::Unreachable(url.to_owned()))
        }
    }

    fn stand() -> (Env, Arc<Web>, Elsewhere) {
        let (env, web) = (Env::simulated(1), Arc::new(Web::default()));
        let elsewhere = Elsewhere::new(&env, Arc::clone(&web) as Arc<dyn Fetch>);
        (env, web, elsewhere)
    }

    async fn has(elsewhere: &Elsewhere, kid: &str) -> bool {
        let kid = kid.to_owned();
        let is_enough = move |keys: &Value| keys["keys"][0]["kid"] == *kid.as_str();
        match elsewhere.keys(ISSUER, &is_enough).await {
            Ok(Some(keys)) => is_enough(&keys),
            _ => false,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn keys_are_kept_and_read_anew_for_a_key_that_is_not_among_them() {
        let (env, web, elsewhere) = stand();
        web.show(ISSUER, "https://keys.example.com", "one");
        for _ in 0..10 {
            assert!(has(&elsewhere, "one").await);
        }
        assert_eq!(web.asked(), 2);
        web.show(ISSUER, "https://keys.example.com", "two");
        for _ in 0..10 {
            assert!(!has(&elsewhere, "two").await, "not within the minute");
        }
        assert_eq!(web.asked(), 2, "strangers with made-up keys cost nothing");
        env.clock.sleep(AGAIN).await;
        assert!(has(&elsewhere, "two").await);
    }

    #[tokio::test(start_paused = true)]
    async fn an_issuer_that_is_away_is_asked_once_a_minute_and_its_keys_are_used_for_a_day() {
        let (env, web, elsewhere) = stand();
        for _ in 0..10 {
            assert!(!has(&elsewhere, "one").await);
        }
        assert_eq!(web.asked(), 1);
        env.clock.sleep(AGAIN).await;
        web.show(ISSUER, "https://keys.example.com", "one");
        assert!(has(&elsewhere, "one").await);
        web.pages.lock().unwrap().clear();
        env.clock.sleep(2 * FRESH).await;
        assert!(has(&elsewhere, "one").await);
        env.clock.sleep(24 * FRESH).await;
        assert!(!has(&elsewhere, "one").await);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_the_issuers_is_not_believed() {
        let (env, web, elsewhere) = stand();
        web.show("https://another.example.com", "https://keys.example.com", "one");
        assert!(!has(&elsewhere, "one").await);
        env.clock.sleep(AGAIN).await;
        web.show(ISSUER, "http://keys.example.com", "one");
        assert!(!has(&elsewhere, "one").await);
        for bad in [
            "http://ci.example.com",
            "https://a@b",
            "https://a?b",
            "ftp://x",
            "",
            "https://a#b",
        ] {
            let refused = elsewhere.keys(bad, &|_| true).await;
            assert!(matches!(refused, Err(IssuerError::Refused(_))), "{bad}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn issuers_are_bounded() {
        let (_, _, elsewhere) = stand();
        for issuer in 0..2 * ISSUERS {
            let issuer = format!("https://{issuer}.example.com");
            assert!(elsewhere.keys(&issuer, &|_| true).await.is_err());
        }
        assert!(elsewhere.slots.lock().unwrap().len() <= ISSUERS);
    }
}
