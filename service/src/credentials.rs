//! Kubeconfigs from the clusters' sealed keys.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use arm_wire::ArmError;
use async_trait::async_trait;
use base_env::Env;
use base_sealer::{SealError, Sealer};
use cluster_bootstrap::{
    API_PORT, Bearer, BootstrapError, client_certificate, directory_kubeconfig, kubeconfig,
};
use cluster_pki::{Certificate, ClusterPki};
use cluster_spec::{DirectoryAccess, TokenFormat};
use control_records::{ClusterRecord, ObservedRecord, PkiRecord, credential::CredentialRecord, key};
use control_store::{Store, StoreError, get_record};
use providers_containerservice::Credentials;

/// Validity of the operator's kubeconfig. A new one is made for each request.
const OPERATOR: Duration = Duration::from_secs(60 * 60);

/// Makes certificates of credentials, and kubeconfigs.
pub(crate) struct SealedCredentials {
    pub(crate) env: Env,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) sealer: Arc<Sealer>,
    /// Whether clients resolve the clusters' names; else the kubeconfig has the address.
    pub(crate) names: bool,
    /// The address where people sign in, with a trailing slash.
    pub(crate) authority: String,
}

impl SealedCredentials {
    /// A cluster's keys, once it has some.
    async fn pki(&self, cluster: &ClusterRecord) -> Result<Option<ClusterPki>, ArmError> {
        keys(&*self.store, &self.sealer, &cluster.uid)
            .await
            .map_err(ArmError::internal)
    }

    /// The URL of a cluster's API server, for users.
    fn server(&self, cluster: &ClusterRecord, vip: Ipv4Addr) -> String {
        let host = if self.names {
            cluster.spec().fqdn.clone()
        } else {
            vip.to_string()
        };
        format!("https://{host}:{API_PORT}")
    }
}

#[async_trait]
impl Credentials for SealedCredentials {
    async fn certificate(
        &self,
        cluster: &ClusterRecord,
        credential: &CredentialRecord,
    ) -> Result<Option<Vec<u8>>, ArmError> {
        let Some(pki) = self.pki(cluster).await? else {
            return Ok(None);
        };
        let bearer = Bearer::Credential(credential.kind, &credential.id);
        let (now, until) = (self.env.clock.now(), credential.expires_at);
        let made = client_certificate(&pki, bearer, now, until).map_err(ArmError::internal)?;
        let text = serde_json::to_vec(&made).map_err(ArmError::internal)?;
        let name = key::sealed::credential(&cluster.uid, &credential.id);
        let sealed = self.sealer.seal(&name, &text);
        sealed.map(Some).map_err(ArmError::internal)
    }

    async fn kubeconfig(
        &self,
        cluster: &ClusterRecord,
        observed: &ObservedRecord,
        credential: &CredentialRecord,
        certificate: &[u8],
    ) -> Result<Option<String>, ArmError> {
        let Some(vip) = observed.vip else { return Ok(None) };
        let Some(pki) = self.pki(cluster).await? else {
            return Ok(None);
        };
        let name = key::sealed::credential(&cluster.uid, &credential.id);
        let text = self
            .sealer
            .unseal(&name, certificate)
            .map_err(ArmError::internal)?;
        let certificate: Certificate = serde_json::from_slice(&text).map_err(ArmError::internal)?;
        Ok(Some(kubeconfig(
            cluster.spec(),
            &pki,
            &self.server(cluster, vip),
            Bearer::Credential(credential.kind, &credential.id),
            &certificate,
            credential.namespace.as_deref(),
        )))
    }

    async fn directory_kubeconfig(
        &self,
        cluster: &ClusterRecord,
        observed: &ObservedRecord,
        directory: &DirectoryAccess,
        format: TokenFormat,
        namespace: Option<&str>,
    ) -> Result<Option<String>, ArmError> {
        let Some(vip) = observed.vip else { return Ok(None) };
        let Some(pki) = self.pki(cluster).await? else {
            return Ok(None);
        };
        Ok(Some(directory_kubeconfig(
            cluster.spec(),
            &directory.tenant,
            &pki,
            &self.server(cluster, vip),
            &self.authority,
            format,
            namespace,
        )))
    }
}

/// Why the operator's kubeconfig could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its keys cannot be unsealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// They cannot be unsealed or parsed.
    #[error(transparent)]
    Keys(#[from] serde_json::Error),
    /// The certificate cannot be made.
    #[error(transparent)]
    Certificate(#[from] BootstrapError),
}

/// A cluster's CAs and keys; `None` before there are any.
pub(crate) async fn keys(
    store: &dyn Store,
    sealer: &Sealer,
    uid: &str,
) -> Result<Option<ClusterPki>, CredentialError> {
    let Some(sealed) = get_record::<PkiRecord>(store, &key::pki(uid)).await? else {
        return Ok(None);
    };
    let bytes = sealer.unseal(&key::sealed::pki(uid), &sealed.value.sealed)?;
    Ok(Some(serde_json::from_slice(&bytes)?))
}

/// The kubeconfig of the stamp's operator, root on its host: for an hour, at the cluster's address,
/// independent of the cluster's local accounts and roles. No client of the ARM API can get it. `None`: the
/// cluster does not exist, or has no endpoint yet.
///
/// # Errors
/// When the cluster's keys cannot be read.
pub async fn operator_kubeconfig(
    env: &Env,
    store: &dyn Store,
    sealer: &Sealer,
    uid: &str,
) -> Result<Option<String>, CredentialError> {
    let cluster = get_record::<ClusterRecord>(store, &key::desired(uid)).await?;
    let observed = get_record::<ObservedRecord>(store, &key::observed(uid)).await?;
    let vip = observed.and_then(|observed| observed.value.vip);
    let (Some(cluster), Some(vip), Some(pki)) = (cluster, vip, keys(store, sealer, uid).await?) else {
        return Ok(None);
    };
    let now = env.clock.now();
    let server = format!("https://{vip}:{API_PORT}");
    let until = now.checked_add(OPERATOR).unwrap_or(now);
    let certificate = client_certificate(&pki, Bearer::Operator, now, until)?;
    let spec = cluster.value.spec();
    Ok(Some(kubeconfig(
        spec,
        &pki,
        &server,
        Bearer::Operator,
        &certificate,
        None,
    )))
}
