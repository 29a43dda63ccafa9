//! Registries of images: who may do what with them, from the records, and their upkeep.
//!
//! Always true: a right is one of a role assignment at the registry or above it; a node has the rights of its
//! cluster's kubelet identity, whatever it sends; images are removed only of registries whose deletion is
//! recorded.

use std::{net::IpAddr, sync::Arc, time::Duration};

use arm_ids::ResourcePath;
use arm_kernel::Authorizer as _;
use arm_wire::{Principal, PrincipalKind};
use async_trait::async_trait;
use base_env::Env;
use bytes::Bytes;
use control_records::{RegistryNameRecord, RegistryRecord, RemovedRegistryRecord, Role, directory, key};
use control_store::{Store, Txn, get_record, list_records};
use identity::{Caller, TokenError, TokenService, find_principal};
use jiff::SignedDuration;
use providers_authorization::RoleAuthorizer;
use providers_containerregistry::{ContainerRegistryConfig, Occupancy, OccupancyError, registry_id};
use registry::{Claims, Gate, GateError, KnownRegistry, Registries, Right};
use serde_json::Value;

/// The audience of tokens of the directory for registries, as clients ask for it.
pub(crate) const AUDIENCE: &str = "https://containerregistry.azure.net";
/// Time between two looks for what nothing refers to any more.
const LOOK: Duration = Duration::from_secs(10 * 60);
/// How long a deletion is remembered after the images are gone: a request that was under way may have left some.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(1);
/// The largest error of clocks of other processes of ours.
const SKEW: i64 = 60;

/// See the module.
pub(crate) struct RegistryGate {
    pub(crate) env: Env,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) roles: Arc<RoleAuthorizer>,
    pub(crate) tokens: Arc<TokenService>,
    pub(crate) config: ContainerRegistryConfig,
}

fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> GateError {
    GateError(Box::new(error))
}

/// The principal, unless the reason is that it cannot be read.
fn known(found: Result<Principal, TokenError>) -> Result<Option<String>, GateError> {
    match found {
        Ok(principal) => Ok(Some(principal.object_id)),
        Err(error @ TokenError::Store(_)) => Err(unreadable(error)),
        Err(_) => Ok(None),
    }
}

impl RegistryGate {
    /// The object id of the identity of a cluster's kubelets, or of its service principal.
    async fn kubelet_of(&self, body: &Value) -> Result<Option<String>, GateError> {
        let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str);
        let client = text("/properties/servicePrincipalProfile/clientId");
        match client.filter(|client| !client.eq_ignore_ascii_case("msi")) {
            Some(client) => {
                let found = find_principal(&*self.store, client).await.map_err(unreadable)?;
                Ok(found.map(|principal| principal.object_id))
            }
            None => Ok(text("/properties/identityProfile/kubeletidentity/objectId").map(str::to_owned)),
        }
    }
}

#[async_trait]
impl Gate for RegistryGate {
    async fn registry(&self, name: &str) -> Result<Option<KnownRegistry>, GateError> {
        let store = &*self.store;
        let holder = get_record::<RegistryNameRecord>(store, &key::registry_name(name)).await;
        let Some(holder) = holder.map_err(unreadable)? else {
            return Ok(None);
        };
        let found = get_record::<RegistryRecord>(store, &holder.value.registry).await;
        let Some(found) = found.map_err(unreadable)? else {
            return Ok(None);
        };
        let record = found.value;
        Ok(Some(KnownRegistry {
            id: registry_id(&record),
            login_server: self.config.login_server(&record.name),
            limit: record.sku.bytes(),
            uid: record.uid,
            name: record.name,
        }))
    }

    async fn may(&self, object_id: &str, right: Right, registry: &KnownRegistry) -> Result<bool, GateError> {
        let scope = ResourcePath::parse(&registry.id).map_err(unreadable)?;
        // Only the object id counts for roles.
        let principal = Principal {
            object_id: object_id.to_owned(),
            name: String::new(),
            tenant_id: String::new(),
            kind: PrincipalKind::Application,
        };
        let may = self.roles.may(&principal, right.action(), &scope).await;
        may.map_err(|error| {
            let why = error.internal.unwrap_or(error.message);
            GateError(why.into())
        })
    }

    async fn kubelet(&self, machine: &str) -> Result<Option<String>, GateError> {
        let store = &*self.store;
        let found = directory::machine(store, machine).await.map_err(unreadable)?;
        let assignment = found.and_then(|(_, found)| found.value.assignment);
        let node = assignment.filter(|assignment| matches!(assignment.role, Role::Node { .. }));
        let Some(node) = node else {
            return Ok(None);
        };
        let cluster = directory::cluster(store, &node.cluster)
            .await
            .map_err(unreadable)?;
        let Some(cluster) = cluster else {
            return Ok(None);
        };
        let Some(object_id) = self.kubelet_of(cluster.value.body()).await? else {
            return Ok(None);
        };
        // One that is disabled or gone pulls nothing.
        let now = self.env.clock.now().as_second();
        known(
            self.tokens
                .principal_since(&object_id, now.saturating_add(SKEW))
                .await,
        )
    }

    async fn bearer(&self, token: &str) -> Result<Option<String>, GateError> {
        let mut audiences = vec![AUDIENCE.to_owned()];
        audiences.extend(self.tokens.config().audiences.iter().cloned());
        known(self.tokens.bearer(token, &audiences).await)
    }

    async fn password(
        &self,
        client: &str,
        secret: &str,
        address: Option<IpAddr>,
    ) -> Result<Option<String>, GateError> {
        let config = self.tokens.config();
        let form: Vec<String> = [
            ("grant_type", "client_credentials"),
            ("client_id", client),
            ("client_secret", secret),
            ("scope", &format!("{AUDIENCE}/.default")),
        ]
        .iter()
        .map(|(name, value)| format!("{name}={}", arm_ids::encode(value)))
        .collect();
        // Through the token service's own door: its limits of guesses hold here as well.
        let request = http::Request::post(format!("/{}/oauth2/v2.0/token", config.tenant_id))
            .header(http::header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Bytes::from(form.join("&")))
            .map_err(unreadable)?;
        let caller = Caller {
            base_url: config.base_url.clone(),
            address,
        };
        let answer = Box::pin(self.tokens.answer(request, &caller)).await;
        if answer.status().is_server_error() {
            return Err(GateError("the token service cannot answer".into()));
        }
        let body: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
        match body["access_token"].as_str() {
            Some(token) => self.bearer(token).await,
            None => Ok(None),
        }
    }

    fn sign(&self, claims: &Claims) -> String {
        self.tokens.sign_claims(claims)
    }

    async fn read(&self, token: &str) -> Result<Option<Claims>, GateError> {
        let Some(claims) = self.tokens.signed_claims::<Claims>(token) else {
            return Ok(None);
        };
        let now = self.env.clock.now().as_second();
        let in_time = claims.nbf.saturating_sub(SKEW) <= now && now < claims.exp;
        if claims.aud != Claims::AUDIENCE || !in_time {
            return Ok(None);
        }
        let principal = known(self.tokens.principal_since(&claims.sub, claims.iat).await)?;
        Ok(principal.map(|_| claims))
    }
}

/// How much registries hold, for ARM.
pub(crate) struct Counted(pub(crate) Registries);

#[async_trait]
impl Occupancy for Counted {
    async fn bytes(&self, uid: &str) -> Result<u64, OccupancyError> {
        self.0
            .used(uid)
            .await
            .map_err(|error| OccupancyError(Box::new(error)))
    }
}

/// Removes images of registries that were deleted, and what nothing refers to in the others; for ever.
pub(crate) async fn tend(env: Env, store: Arc<dyn Store>, registries: Registries) {
    loop {
        if let Err(error) = look(&env, &*store, &registries).await {
            tracing::warn!(
                error = %base_errors::chain(&*error),
                "images of registries cannot be looked after now"
            );
        }
        env.clock.sleep(LOOK).await;
    }
}

async fn look(
    env: &Env,
    store: &dyn Store,
    registries: &Registries,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let (removed, _) = list_records::<RemovedRegistryRecord>(store, key::REMOVED_REGISTRIES).await?;
    for (key, record) in removed {
        let uid = key.trim_start_matches(key::REMOVED_REGISTRIES);
        registries.remove(uid).await?;
        let since = env.clock.now().duration_since(record.value.removed_at);
        if since > REMEMBERED {
            tracing::info!(
                registry = record.value.name,
                uid,
                "the images of a deleted registry are gone"
            );
            let txn = Txn::default().at(&key, record.revision).delete(&key);
            store.txn(txn).await?;
        }
    }
    let (present, _) = list_records::<RegistryRecord>(store, key::REGISTRIES).await?;
    for (_, record) in present {
        let record = record.value;
        let swept = registries.sweep(&record.uid).await?;
        if swept.bytes > 0 {
            tracing::info!(
                registry = record.name,
                blobs = swept.blobs,
                uploads = swept.uploads,
                bytes = swept.bytes,
                "what no image needs was removed"
            );
        }
    }
    Ok(())
}
