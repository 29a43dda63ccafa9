//! Kubeconfigs: who makes them, and when they are refused.

use arm_wire::{ArmError, ErrorCode, Request};
use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use control_records::{ClusterRecord, ObservedRecord};
use serde_json::{Value, json};

use crate::problems::quote;

/// What a kubeconfig is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialKind {
    /// The local administrator.
    Admin,
    /// A user.
    User,
    /// Reads what monitoring needs.
    Monitoring,
}

impl CredentialKind {
    /// Its name in answers, e.g. `clusterAdmin`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "clusterAdmin",
            Self::User => "clusterUser",
            Self::Monitoring => "clusterMonitoringUser",
        }
    }
}

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
pub(crate) async fn kubeconfig(
    source: &dyn Credentials,
    request: &Request,
    record: &ClusterRecord,
    observed: Option<&ObservedRecord>,
    kind: CredentialKind,
) -> Result<String, ArmError> {
    check_query(request)?;
    if kind == CredentialKind::Admin && record.spec.disable_local_accounts {
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
pub(crate) fn results(kind: CredentialKind, encoded: &str) -> Value {
    json!({ "kubeconfigs": [{ "name": kind.name(), "value": encoded }] })
}
