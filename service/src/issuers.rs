//! The published data of clusters as token issuers: the discovery document and the keys that verify their
//! service accounts' tokens, without authentication; and the same keys for the stamp's own token service,
//! which reads them here without the network.
//!
//! Always true: only a cluster with an enabled issuer has one, under a fixed name; of its keys, only the
//! public one of its service accounts is published; it makes no difference whether the cluster is stopped or
//! unreachable.

use std::sync::Arc;

use arm_edge::{Published, PublishedError};
use async_trait::async_trait;
use base_sealer::Sealer;
use cluster_bootstrap::ISSUER_KEYS;
use cluster_pki::{ClusterPki, SERVICE_ACCOUNT_ALGORITHM};
use control_records::{ChildRecord, PkiRecord, child, directory, key};
use control_store::{Store, get_record, list_records};
use identity::{IssuerError, Issuers};
use providers_containerservice::ISSUERS;
use serde_json::{Value, json};

const DISCOVERY: &str = ".well-known/openid-configuration";
/// Uids are shorter.
const MAX_UID: usize = 64;

/// See the module.
pub(crate) struct ClusterIssuers {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) sealer: Arc<Sealer>,
}

type Fault = Box<dyn std::error::Error + Send + Sync>;

impl ClusterIssuers {
    /// The issuer of a cluster, if it has one.
    async fn issuer(&self, uid: &str) -> Result<Option<String>, Fault> {
        let plain =
            !uid.is_empty() && uid.len() <= MAX_UID && uid.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !plain {
            return Ok(None);
        }
        let found = directory::cluster(&*self.store, uid).await?;
        let cluster = found.map(|found| found.value).filter(|cluster| !cluster.deleting);
        Ok(cluster.and_then(|cluster| cluster.spec().issuer.clone()))
    }

    /// Its keys; none while it has none yet.
    async fn key_set(&self, uid: &str) -> Result<Option<Value>, Fault> {
        let Some(sealed) = get_record::<PkiRecord>(&*self.store, &key::pki(uid)).await? else {
            return Ok(None);
        };
        let bytes = self.sealer.unseal(&key::sealed::pki(uid), &sealed.value.sealed)?;
        let pki: ClusterPki = serde_json::from_slice(&bytes)?;
        Ok(Some(pki.service_account_jwks()?))
    }
}

/// The uid in the URL of an issuer that has the form of a stamp's.
fn uid_of(issuer: &str) -> Option<&str> {
    let (before, uid) = issuer.strip_suffix('/')?.rsplit_once('/')?;
    before.ends_with(&format!("/{ISSUERS}")).then_some(uid)
}

#[async_trait]
impl Published for ClusterIssuers {
    fn serves(&self, path: &str) -> bool {
        let first = path.split('/').find(|segment| !segment.is_empty());
        first == Some(ISSUERS)
    }

    async fn read(&self, path: &str) -> Result<Option<Value>, PublishedError> {
        let mut segments = path.split('/').filter(|segment| !segment.is_empty());
        let (Some(_), Some(uid)) = (segments.next(), segments.next()) else {
            return Ok(None);
        };
        let what = segments.collect::<Vec<_>>().join("/");
        let Some(issuer) = self.issuer(uid).await.map_err(PublishedError)? else {
            return Ok(None);
        };
        match what.as_str() {
            DISCOVERY => Ok(Some(json!({
                "issuer": issuer,
                "jwks_uri": format!("{issuer}{ISSUER_KEYS}"),
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": [SERVICE_ACCOUNT_ALGORITHM],
            }))),
            ISSUER_KEYS => self.key_set(uid).await.map_err(PublishedError),
            _ => Ok(None),
        }
    }
}

#[async_trait]
impl Issuers for ClusterIssuers {
    async fn keys(
        &self,
        issuer: &str,
        _is_enough: &(dyn for<'a> Fn(&'a Value) -> bool + Sync),
    ) -> Result<Option<Value>, IssuerError> {
        let Some(uid) = uid_of(issuer) else {
            return Ok(None);
        };
        let failed = |error: Fault| {
            tracing::error!(issuer, error = %base_errors::chain(&*error), "the keys of a cluster's issuer cannot be read");
            IssuerError::Unreachable("the records of the cluster cannot be read".to_owned())
        };
        // Another stamp's clusters have such names as well: their keys are fetched over the network.
        if self.issuer(uid).await.map_err(failed)?.as_deref() != Some(issuer) {
            return Ok(None);
        }
        self.key_set(uid).await.map_err(failed)
    }

    async fn binds(&self, issuer: &str, principal: &str) -> Result<bool, IssuerError> {
        let Some(uid) = uid_of(issuer) else {
            return Ok(false);
        };
        let failed = |error: Fault| {
            tracing::error!(issuer, error = %base_errors::chain(&*error), "the identity bindings of a cluster cannot be read");
            IssuerError::Unreachable("the records of the cluster cannot be read".to_owned())
        };
        if self.issuer(uid).await.map_err(failed)?.as_deref() != Some(issuer) {
            return Ok(false);
        }
        let prefix = child::key(uid, child::IDENTITY_BINDINGS, "");
        let (bindings, _) = list_records::<ChildRecord>(&*self.store, &prefix)
            .await
            .map_err(|error| failed(error.into()))?;
        let mut bound = bindings
            .iter()
            .filter_map(|(_, binding)| binding.value.principal.as_deref());
        Ok(bound.any(|bound| bound == principal))
    }
}

#[cfg(test)]
mod tests {
    use cluster_spec::{ClusterSpec, testkit};
    use control_records::{ClusterRecord, SystemData};
    use control_store::{Txn, put_record};
    use jiff::Timestamp;
    use storage_redb::MemoryStore;

    use super::*;

    const URL: &str = "https://stamp.test:8443/oidc/abc123/";

    async fn stand(issuer: Option<&str>) -> ClusterIssuers {
        let store = Arc::new(MemoryStore::new());
        let sealer = Arc::new(Sealer::from_key(&[7; 32]));
        let spec = ClusterSpec {
            issuer: issuer.map(str::to_owned),
            ..testkit::cluster()
        };
        let now = Timestamp::from_second(1_790_000_000).unwrap();
        let pki = serde_json::to_vec(&ClusterPki::generate(now).unwrap()).unwrap();
        let sealed = PkiRecord {
            v: 1,
            generation: 1,
            rotation: Default::default(),
            sealed: sealer.seal(&key::sealed::pki("abc123"), &pki).unwrap(),
        };
        let txn = Txn::default()
            .with(put_record(
                key::desired("abc123"),
                &ClusterRecord::of_spec("abc123", &spec, now),
            ))
            .with(put_record(key::pki("abc123"), &sealed));
        store.txn(txn).await.unwrap();
        ClusterIssuers { store, sealer }
    }

    #[tokio::test]
    async fn anybody_reads_what_the_documents_name_and_nothing_else() {
        let clusters = stand(Some(URL)).await;
        let document = clusters
            .read("/oidc/abc123/.well-known/openid-configuration")
            .await
            .unwrap()
            .unwrap();
        assert_eq!(document["issuer"], URL);
        let keys_at = document["jwks_uri"].as_str().unwrap();
        let path = keys_at.strip_prefix("https://stamp.test:8443").unwrap();
        assert!(clusters.serves(path));
        let keys = clusters.read(path).await.unwrap().unwrap();
        assert_eq!(keys["keys"][0]["alg"], "ES256");
        assert!(keys["keys"][0].get("d").is_none());
        for nothing in [
            "/oidc",
            "/oidc/abc123",
            "/oidc/abc123/openid/v1",
            "/oidc/other/openid/v1/jwks",
            "/oidc/../openid/v1/jwks",
        ] {
            assert!(clusters.read(nothing).await.unwrap().is_none(), "{nothing}");
        }
        assert!(!clusters.serves("/subscriptions/oidc"));
    }

    #[tokio::test]
    async fn the_token_service_has_the_same_keys_for_exactly_that_issuer() {
        let clusters = stand(Some(URL)).await;
        let keys = clusters.keys(URL, &|_| true).await.unwrap().unwrap();
        let shown = clusters
            .read("/oidc/abc123/openid/v1/jwks")
            .await
            .unwrap()
            .unwrap();
        assert_eq!(keys, shown);
        for other in [
            "https://stamp.test:8443/oidc/abc123",
            "https://elsewhere.test/oidc/abc123/",
            "https://stamp.test:8443/oidc/other/",
            "https://ci.example.com/",
        ] {
            assert!(
                clusters.keys(other, &|_| true).await.unwrap().is_none(),
                "{other}"
            );
        }
    }

    #[tokio::test]
    async fn a_cluster_is_bound_to_whom_its_bindings_name_as_long_as_they_are_there() {
        let clusters = stand(Some(URL)).await;
        let at = Timestamp::from_second(1_790_000_000).unwrap();
        let binding = ChildRecord {
            v: 1,
            name: "Shop".to_owned(),
            generation: 1,
            properties: json!({}),
            principal: Some("p1".to_owned()),
            system_data: SystemData {
                created_at: at,
                created_by: "ada".to_owned(),
                created_by_type: "User".to_owned(),
                modified_at: at,
                modified_by: "ada".to_owned(),
                modified_by_type: "User".to_owned(),
            },
        };
        let own = child::key("abc123", child::IDENTITY_BINDINGS, "Shop");
        assert!(!clusters.binds(URL, "p1").await.unwrap());
        let txn = Txn::default().with(put_record(own.as_str(), &binding));
        clusters.store.txn(txn).await.unwrap();
        assert!(clusters.binds(URL, "p1").await.unwrap());
        assert!(!clusters.binds(URL, "p2").await.unwrap());
        let elsewhere = "https://elsewhere.test/oidc/abc123/";
        assert!(!clusters.binds(elsewhere, "p1").await.unwrap());
        clusters.store.txn(Txn::default().delete(own)).await.unwrap();
        assert!(!clusters.binds(URL, "p1").await.unwrap());
    }

    #[tokio::test]
    async fn a_cluster_that_was_not_asked_for_an_issuer_has_none() {
        let clusters = stand(None).await;
        assert!(
            clusters
                .read("/oidc/abc123/openid/v1/jwks")
                .await
                .unwrap()
                .is_none()
        );
        assert!(clusters.keys(URL, &|_| true).await.unwrap().is_none());
    }
}
