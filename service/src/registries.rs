//! Registries of images: who may do what with them, from the records, and their upkeep.
//!
//! Always true: a right is one of a role assignment at the registry or above it; a node has the rights of its
//! cluster's kubelet identity, whatever it sends; images are removed only of registries whose deletion is
//! recorded.

use std::{net::IpAddr, sync::Arc, time::Duration};

use arm_ids::ResourcePath;
use arm_kernel::{Authorizer as _, Provider};
use arm_wire::{Principal, PrincipalKind};
use async_trait::async_trait;
use base_env::Env;
use bytes::Bytes;
use control_records::{RegistryNameRecord, RegistryRecord, RemovedRegistryRecord, Role, directory, key};
use control_store::{Store, Txn, get_record, list_records};
use identity::{Caller, TokenError, TokenService, find_principal};
use jiff::SignedDuration;
use providers_authorization::RoleAuthorizer;
use providers_containerregistry::{
    ContainerRegistry, ContainerRegistryConfig, Occupancy, OccupancyError, registry_id,
};
use registry::{Claims, Gate, GateError, KnownRegistry, Registries, Right};
use serde_json::Value;
use storage_images::Images;

use crate::Config;

/// The audience of tokens of the directory for registries, as clients ask for it.
pub(crate) const AUDIENCE: &str = "https://containerregistry.azure.net";
/// Time between two looks for registries that were deleted.
const LOOK: Duration = Duration::from_secs(60);
/// So many of these looks are one for what nothing refers to any more, which reads all manifests.
const LOOKS_PER_SWEEP: u32 = 10;
/// How long a deletion is remembered after the images are gone: a request that was under way may have left some.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(1);
/// The largest error of clocks of other processes of ours.
const SKEW: i64 = 60;

/// See the module.
struct RegistryGate {
    env: Env,
    store: Arc<dyn Store>,
    roles: Arc<RoleAuthorizer>,
    tokens: Arc<TokenService>,
    config: ContainerRegistryConfig,
}

/// What serves these images, and the registries as resources, which are there without images too.
pub(crate) fn assemble(
    env: &Env,
    config: &Config,
    store: &Arc<dyn Store>,
    roles: &Arc<RoleAuthorizer>,
    tokens: &Arc<TokenService>,
    images: Option<Arc<Images>>,
) -> (Option<Registries>, Arc<dyn Provider>) {
    let of_registries = ContainerRegistryConfig {
        location: config.location.clone(),
        location_display: "Local".to_owned(),
        host: config.registry_host().to_owned(),
    };
    let served = images.map(|images| {
        let gate = RegistryGate {
            env: env.clone(),
            store: Arc::clone(store),
            roles: Arc::clone(roles),
            tokens: Arc::clone(tokens),
            config: of_registries.clone(),
        };
        Registries::new(env.clone(), images, Arc::new(gate))
    });
    let counted = served
        .clone()
        .map(|served| Arc::new(Counted(served)) as Arc<dyn Occupancy>);
    let resources = ContainerRegistry::new(of_registries, env.clone(), Arc::clone(store), counted);
    (served, Arc::new(resources))
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
struct Counted(Registries);

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
    let mut looks = 0_u32;
    loop {
        let mut done = removals(&env, &*store, &registries).await;
        if done.is_ok() && looks.is_multiple_of(LOOKS_PER_SWEEP) {
            done = sweeps(&*store, &registries).await;
        }
        if let Err(error) = done {
            tracing::warn!(
                error = %base_errors::chain(&*error),
                "images of registries cannot be looked after now"
            );
        }
        looks = looks.wrapping_add(1);
        env.clock.sleep(LOOK).await;
    }
}

type Done = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Removes the images of registries that were deleted.
async fn removals(env: &Env, store: &dyn Store, registries: &Registries) -> Done {
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
    Ok(())
}

/// Removes what nothing refers to, in each registry.
async fn sweeps(store: &dyn Store, registries: &Registries) -> Done {
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

#[cfg(test)]
mod tests {
    use cluster_spec::testkit;
    use control_records::{
        Assignment, ClusterRecord, Healing, HostId, MachineRecord, PrincipalRecord, RegistrySku, SystemData,
        access::{AssignmentRecord, Stamped},
    };
    use control_store::put_record;
    use identity::{IdentityConfig, Shape, SigningKey};
    use jiff::Timestamp;
    use storage_redb::MemoryStore;

    use super::*;

    const ADA: &str = "11111111-0000-4000-8000-000000000001";
    const PULL: &str = "7f951dda-4ed3-4680-a7ca-43fe172d538d";

    fn record(now: Timestamp) -> RegistryRecord {
        RegistryRecord {
            v: 1,
            uid: "u1".to_owned(),
            subscription: "s".to_owned(),
            resource_group: "g".to_owned(),
            name: "acme1".to_owned(),
            location: "local".to_owned(),
            tags: Default::default(),
            sku: RegistrySku::Basic,
            system_data: SystemData {
                created_at: now,
                created_by: "ada".to_owned(),
                created_by_type: "User".to_owned(),
                modified_at: now,
                modified_by: "ada".to_owned(),
                modified_by_type: "User".to_owned(),
            },
        }
    }

    /// A stamp with the registry `acme1`, where `ADA` has the role AcrPull.
    async fn stand() -> RegistryGate {
        let env = Env::simulated(1);
        let now = env.clock.now();
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let record = record(now);
        let own = key::registry("s", "g", "acme1");
        let name = RegistryNameRecord {
            v: 1,
            registry: own.clone(),
        };
        let ada = PrincipalRecord {
            kind: "ManagedIdentity".to_owned(),
            login: "ada".to_owned(),
            ..PrincipalRecord::new(ADA, now)
        };
        let assignment = AssignmentRecord {
            v: 1,
            name: "22222222-0000-4000-8000-000000000002".to_owned(),
            principal: ADA.to_owned(),
            principal_type: "ServicePrincipal".to_owned(),
            role: PULL.to_owned(),
            scope: registry_id(&record),
            description: None,
            stamped: Stamped::now(None, "", now),
        };
        let txn = Txn::default()
            .with(put_record(key::registry_name("acme1"), &name))
            .with(put_record(own, &record));
        let txn = identity_directory::made(txn, &ada);
        store.txn(assignment.make(txn)).await.unwrap();
        let config = IdentityConfig {
            base_url: "https://h:1".to_owned(),
            shape: Shape::Aad,
            tenant_id: "7b9c1c7e-0f5a-4f7a-9c39-6a1f0c5d2e01".to_owned(),
            audiences: vec!["https://arm".to_owned()],
            resources: vec![AUDIENCE.to_owned()],
        };
        let key = SigningKey::generate().unwrap();
        RegistryGate {
            roles: Arc::new(RoleAuthorizer::new(Arc::clone(&store))),
            tokens: Arc::new(TokenService::new(config, key, env.clone(), Arc::clone(&store))),
            config: ContainerRegistryConfig {
                location: "local".to_owned(),
                location_display: "Local".to_owned(),
                host: "h:1".to_owned(),
            },
            env,
            store,
        }
    }

    fn claims(now: i64, aud: &str) -> Claims {
        Claims {
            aud: aud.to_owned(),
            nbf: now,
            iat: now,
            exp: now + 60,
            sub: ADA.to_owned(),
            grant_type: Claims::REFRESH.to_owned(),
            access: Vec::new(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_role_at_a_registry_is_the_right_that_it_is_known_for() {
        let gate = stand().await;
        let registry = gate.registry("ACME1").await.unwrap().unwrap();
        assert_eq!(registry.login_server, "h:1/acme1");
        assert_eq!(registry.limit, RegistrySku::Basic.bytes());
        assert!(gate.registry("other1").await.unwrap().is_none());
        for (right, may) in [(Right::Pull, true), (Right::Push, false), (Right::Delete, false)] {
            assert_eq!(gate.may(ADA, right, &registry).await.unwrap(), may, "{right:?}");
        }
        assert!(!gate.may("somebody", Right::Pull, &registry).await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_good_in_its_time_for_registries_and_as_long_as_its_principal() {
        let gate = stand().await;
        let now = gate.env.clock.now().as_second();
        let good = gate.sign(&claims(now, Claims::AUDIENCE));
        assert_eq!(gate.read(&good).await.unwrap().unwrap().sub, ADA);
        for wrong in [
            claims(now - 120, Claims::AUDIENCE),
            claims(now + 300, Claims::AUDIENCE),
            claims(now, "https://arm"),
        ] {
            let token = gate.sign(&wrong);
            assert!(gate.read(&token).await.unwrap().is_none(), "{wrong:?}");
        }
        // It is none of the directory's, for ARM or for registries.
        assert!(gate.bearer(&good).await.unwrap().is_none());
        assert!(gate.read("x.y.z").await.unwrap().is_none());
        let ada = PrincipalRecord {
            disabled: true,
            ..PrincipalRecord::new(ADA, gate.env.clock.now())
        };
        let txn = Txn::default().with(put_record(key::principal(ADA), &ada));
        gate.store.txn(txn).await.unwrap();
        assert!(gate.read(&good).await.unwrap().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_is_its_clusters_kubelet_identity_and_a_control_plane_is_nobody() {
        let gate = stand().await;
        let now = gate.env.clock.now();
        let cluster = ClusterRecord::of_spec("uid", &testkit::cluster(), now);
        let machine = |id: &str, role: Role| MachineRecord {
            v: 2,
            id: id.to_owned(),
            image: "1.36.3".to_owned(),
            build: None,
            token_hash: String::new(),
            token_sealed: Vec::new(),
            enrolled_key: None,
            token_used: false,
            host: HostId::first(),
            assignment: Some(Assignment {
                cluster: "uid".to_owned(),
                role,
            }),
            deleting: false,
            work: None,
            emptying: None,
            inherited: None,
            healing: Healing::default(),
            created_at: now,
        };
        let node = Role::Node {
            pool: "np1".to_owned(),
            incarnation: "1".to_owned(),
            index: 0,
            node_name: "n".to_owned(),
            address: "10.224.0.4".parse().unwrap(),
            pod_range: None,
        };
        let member = Role::ControlPlane {
            index: 0,
            address: "100.64.16.9".parse().unwrap(),
        };
        let mut txn = directory::new_cluster(Txn::default(), &cluster);
        txn = directory::new_machine(txn, "uid", &machine("n1", node));
        txn = directory::new_machine(txn, "uid", &machine("m1", member));
        gate.store.txn(txn).await.unwrap();
        for machine in ["m1", "gone"] {
            assert_eq!(gate.kubelet(machine).await.unwrap(), None, "{machine}");
        }
        let of = |body: Value| {
            let gate = &gate;
            async move { gate.kubelet_of(&body).await.unwrap() }
        };
        let managed = serde_json::json!({ "properties": {
            "servicePrincipalProfile": { "clientId": "msi" },
            "identityProfile": { "kubeletidentity": { "objectId": ADA } },
        }});
        assert_eq!(of(managed).await.as_deref(), Some(ADA));
        let by_secret =
            serde_json::json!({ "properties": { "servicePrincipalProfile": { "clientId": "ada" } } });
        let nobody =
            serde_json::json!({ "properties": { "servicePrincipalProfile": { "clientId": "none" } } });
        assert_eq!(of(nobody).await, None);
        assert_eq!(of(by_secret).await.as_deref(), Some(ADA));
    }

    #[tokio::test(start_paused = true)]
    async fn images_go_after_their_registry_and_no_others_do() {
        let gate = stand().await;
        let directory = tempfile::tempdir().unwrap();
        for uid in ["u1", "u2", "unknown"] {
            std::fs::create_dir(directory.path().join(uid)).unwrap();
        }
        let (env, store) = (gate.env.clone(), Arc::clone(&gate.store));
        let images = Arc::new(Images::new(directory.path().to_owned()));
        let registries = Registries::new(env.clone(), images, Arc::new(gate));
        let removed = RemovedRegistryRecord {
            v: 1,
            name: "acme2".to_owned(),
            removed_at: env.clock.now(),
        };
        let key = key::removed_registry("u2");
        store
            .txn(Txn::default().with(put_record(&key, &removed)))
            .await
            .unwrap();
        removals(&env, &*store, &registries).await.unwrap();
        let left = |uid: &str| directory.path().join(uid).is_dir();
        assert!(left("u1") && !left("u2") && left("unknown"));
        assert!(store.get(&key).await.unwrap().is_some(), "it is remembered");
        env.clock.sleep(Duration::from_secs(2 * 60 * 60)).await;
        removals(&env, &*store, &registries).await.unwrap();
        assert!(store.get(&key).await.unwrap().is_none());
        sweeps(&*store, &registries).await.unwrap();
        assert!(left("u1"));
    }
}
