//! Kubeconfigs: who makes them, and when they are refused.

use arm_kernel::quote;
use arm_wire::{ArmError, ErrorCode, Request, Response};
use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use cluster_spec::CredentialKind;
use control_records::{ClusterRecord, ObservedRecord};
use serde_json::{Value, json};

use super::draft::cluster_id;
use crate::{
    ContainerService,
    records::{ClusterPath, StoredCluster},
};

/// Makes kubeconfigs. Implemented by the binary over the cluster's keys.
#[async_trait]
pub trait Credentials: Send + Sync + 'static {
    /// A kubeconfig (YAML) for a cluster; `None` while the cluster has no keys or endpoint yet.
    async fn kubeconfig(
        &self,
        cluster: &ClusterRecord,
        observed: &ObservedRecord,
        kind: CredentialKind,
    ) -> Result<Option<String>, ArmError>;
}

fn check_query(request: &Request) -> Result<(), ArmError> {
    for (name, values) in [
        ("format", ["azure", "exec"].as_slice()),
        ("server-fqdn", ["public"].as_slice()),
    ] {
        let Some(asked) = request.query(name).filter(|asked| !asked.is_empty()) else {
            continue;
        };
        if !values.iter().any(|value| value.eq_ignore_ascii_case(asked)) {
            let message = format!(
                "The value {} of the query parameter '{name}' is not one of {}.",
                quote(asked),
                values.join(", ")
            );
            return Err(ArmError::new(ErrorCode::INVALID_PARAMETER, message).target(name));
        }
    }
    Ok(())
}

/// The kubeconfig, base64 encoded as in answers.
async fn kubeconfig(
    source: &dyn Credentials,
    request: &Request,
    record: &ClusterRecord,
    observed: Option<&ObservedRecord>,
    kind: CredentialKind,
) -> Result<String, ArmError> {
    check_query(request)?;
    if kind == CredentialKind::Admin && record.spec().disable_local_accounts {
        return Err(ArmError::new(
            ErrorCode::BAD_REQUEST,
            format!(
                "Getting the static credential is not allowed: the cluster '{}' has disableLocalAccounts set.",
                record.name
            ),
        ));
    }
    let ready = observed.filter(|observed| observed.vip.is_some());
    let made = match ready {
        Some(observed) => source.kubeconfig(record, observed, kind).await?,
        None => None,
    };
    made.map(|text| STANDARD.encode(text)).ok_or_else(|| {
        ArmError::new(
            ErrorCode::CONFLICT,
            format!(
                "The cluster '{}' is still being created and has no endpoint yet; ask again when its provisioningState is Succeeded.",
                record.name
            ),
        )
    })
}

/// `CredentialResults`.
fn results(kind: CredentialKind, encoded: &str) -> Value {
    json!({ "kubeconfigs": [{ "name": kind.name(), "value": encoded }] })
}

impl ContainerService {
    pub(super) async fn credential(
        &self,
        request: &Request,
        kind: CredentialKind,
    ) -> Result<Response, ArmError> {
        let found = self.need(ClusterPath::of(&request.path)?).await?;
        let encoded = self.kubeconfig(request, &found, kind).await?;
        Ok(Response::ok(results(kind, &encoded)))
    }

    async fn kubeconfig(
        &self,
        request: &Request,
        found: &StoredCluster,
        kind: CredentialKind,
    ) -> Result<String, ArmError> {
        let record = &found.record.value;
        kubeconfig(&*self.credentials, request, record, found.observed.as_ref(), kind).await
    }

    pub(super) async fn access_profile(&self, request: &Request) -> Result<Response, ArmError> {
        let at = ClusterPath::of(&request.path)?;
        let found = self.need(at).await?;
        let kinds = [CredentialKind::Admin, CredentialKind::User];
        let Some(kind) = kinds
            .into_iter()
            .find(|kind| kind.name().eq_ignore_ascii_case(at.child))
        else {
            let message = format!(
                "There is no access profile {}; use clusterAdmin or clusterUser.",
                quote(at.child)
            );
            return Err(ArmError::new(ErrorCode::RESOURCE_NOT_FOUND, message));
        };
        let encoded = self.kubeconfig(request, &found, kind).await?;
        let record = &found.record.value;
        let id = cluster_id(&record.subscription, &record.resource_group, &record.name);
        Ok(Response::ok(json!({
            "id": format!("{id}/accessProfiles/{}", kind.name()),
            "name": kind.name(),
            "type": "Microsoft.ContainerService/managedClusters/accessProfiles",
            "location": record.spec().location,
            "properties": { "kubeConfig": encoded },
        })))
    }
}
