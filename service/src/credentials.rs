//! Kubeconfigs from the clusters' sealed keys.

use std::sync::Arc;

use arm_wire::ArmError;
use async_trait::async_trait;
use base_env::Env;
use base_sealer::Sealer;
use cluster_bootstrap::{API_PORT, kubeconfig};
use cluster_pki::ClusterPki;
use cluster_spec::CredentialKind;
use control_records::{ClusterRecord, ObservedRecord, PkiRecord, key};
use control_store::{Store, get_record};
use providers_containerservice::Credentials;

/// Makes kubeconfigs; each holds a certificate made for that call.
pub(crate) struct SealedCredentials {
    pub(crate) env: Env,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) sealer: Arc<Sealer>,
    /// Whether clients resolve the clusters' names; else the kubeconfig says the address.
    pub(crate) names: bool,
}

#[async_trait]
impl Credentials for SealedCredentials {
    async fn kubeconfig(
        &self,
        cluster: &ClusterRecord,
        observed: &ObservedRecord,
        kind: CredentialKind,
    ) -> Result<Option<String>, ArmError> {
        let Some(vip) = observed.vip else { return Ok(None) };
        let Some(sealed) = get_record::<PkiRecord>(&*self.store, &key::pki(&cluster.uid))
            .await
            .map_err(ArmError::internal)?
        else {
            return Ok(None);
        };
        let bytes = self
            .sealer
            .unseal(&key::sealed::pki(&cluster.uid), &sealed.value.sealed)
            .map_err(ArmError::internal)?;
        let pki: ClusterPki = serde_json::from_slice(&bytes).map_err(ArmError::internal)?;
        let host = if self.names {
            cluster.spec().fqdn.clone()
        } else {
            vip.to_string()
        };
        kubeconfig(
            cluster.spec(),
            &pki,
            &format!("https://{host}:{API_PORT}"),
            kind,
            self.env.clock.now(),
        )
        .map(Some)
        .map_err(ArmError::internal)
    }
}
