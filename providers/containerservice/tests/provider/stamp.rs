//! A stamp for tests: one subscription, one group, a provider, and an edge that only looks up routes.

use std::{sync::Arc, time::Duration};

use arm_ids::ResourcePath;
use arm_kernel::{AccessControl, Call, Provider, Registry};
use arm_wire::{ArmError, Principal, PrincipalKind, Request, Response, Trace};
use async_trait::async_trait;
use base_env::Env;
use base_sealer::Sealer;
use cluster_spec::{DirectoryAccess, TokenFormat};
use cluster_versions::Offered;
use control_records::{
    Assignment, ClusterRecord, GroupRecord, MachineRecord, ManagedIdentityRecord, ObservedRecord,
    OperationRecord, OwnerRecord, PrincipalRecord, Role, SystemData, credential::CredentialRecord, directory,
    key, usage::Limits,
};
use control_store::{Store, Txn, get_record, list_records, put_record};
use http::Method;
use policy_support::Profile;
pub(crate) use providers_containerservice::NAMESPACE;
use providers_containerservice::{ContainerService, Credentials, ProviderConfig};
use serde_json::{Value, json};
use storage_redb::MemoryStore;

pub(crate) const SUBSCRIPTION: &str = "00000000-1111-2222-3333-444444444444";

/// The identity of [`Stamp::add_identity`] with the name `own`.
pub(crate) const IDENTITY: &str = "/subscriptions/00000000-1111-2222-3333-444444444444/resourceGroups/rg1/providers/\
                                   Microsoft.ManagedIdentity/userAssignedIdentities/own";

pub(crate) struct Kubeconfigs;

#[async_trait]
impl Credentials for Kubeconfigs {
    async fn certificate(
        &self,
        _: &ClusterRecord,
        credential: &CredentialRecord,
    ) -> Result<Option<Vec<u8>>, ArmError> {
        Ok(Some(credential.id.clone().into_bytes()))
    }

    async fn kubeconfig(
        &self,
        cluster: &ClusterRecord,
        _: &ObservedRecord,
        credential: &CredentialRecord,
        certificate: &[u8],
    ) -> Result<Option<String>, ArmError> {
        assert_eq!(certificate, credential.id.as_bytes());
        let place = credential.namespace.as_ref();
        let place = place.map_or_else(String::new, |namespace| format!(" in {namespace}"));
        Ok(Some(format!(
            "{} of {}{place}",
            credential.kind.name(),
            cluster.name
        )))
    }

    async fn directory_kubeconfig(
        &self,
        cluster: &ClusterRecord,
        _: &ObservedRecord,
        directory: &DirectoryAccess,
        format: TokenFormat,
        namespace: Option<&str>,
    ) -> Result<Option<String>, ArmError> {
        let place = namespace.map_or_else(String::new, |namespace| format!(" in {namespace}"));
        Ok(Some(format!(
            "{format:?} of {} for {}{place}",
            cluster.name, directory.tenant
        )))
    }
}

pub(crate) struct Stamp {
    pub(crate) env: Env,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) sealer: Arc<Sealer>,
    pub(crate) provider: Arc<ContainerService>,
    pub(crate) registry: Registry,
    pub(crate) api_version: &'static str,
}

/// A response, error or not.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(own, _)| *own == name)
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn code(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or_default()
    }

    pub(crate) fn message(&self) -> &str {
        self.body["error"]["message"].as_str().unwrap_or_default()
    }
}

impl Stamp {
    pub(crate) async fn new() -> Self {
        Self::offering(Offered::pinned()).await
    }

    pub(crate) async fn offering(offered: Offered) -> Self {
        Self::made(offered, Limits::default(), Profile::default()).await
    }

    /// With limits.
    pub(crate) async fn limited(limits: Limits) -> Self {
        Self::made(Offered::pinned(), limits, Profile::default()).await
    }

    /// By other support policies.
    pub(crate) async fn supporting(profile: Profile) -> Self {
        Self::made(Offered::pinned(), Limits::default(), profile).await
    }

    async fn made(offered: Offered, limits: Limits, support: Profile) -> Self {
        let env = Env::simulated(7);
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let sealer = Arc::new(Sealer::from_key(&[7; 32]));
        let config = ProviderConfig {
            location: "local".to_owned(),
            url: "https://stamp.test:8443".to_owned(),
            tenant: "00000000-0000-0000-0000-00000000000f".to_owned(),
            domain: "landfall.test".to_owned(),
            offered,
            reserved_ranges: vec![("100.64.0.0/16".parse().unwrap(), "the machine network".to_owned())],
            limits,
            credential_lifetime: Duration::from_secs(8 * 60 * 60),
            support,
        };
        let provider = Arc::new(ContainerService::new(
            env.clone(),
            store.clone(),
            sealer.clone(),
            config,
            Arc::new(Kubeconfigs),
        ));
        let stamp = Self {
            env,
            store,
            sealer,
            registry: Registry::new(vec![Arc::clone(&provider) as Arc<dyn Provider>]),
            provider,
            api_version: "2026-06-01",
        };
        stamp.add_group("rg1", false).await;
        stamp
    }

    pub(crate) async fn add_group(&self, name: &str, deleting: bool) {
        let group = GroupRecord {
            v: 1,
            subscription: SUBSCRIPTION.to_owned(),
            name: name.to_owned(),
            location: "local".to_owned(),
            tags: Default::default(),
            managed_by: None,
            deleting,
            created_at: self.env.clock.now(),
        };
        self.write(put_record(key::group(SUBSCRIPTION, name), &group))
            .await;
    }

    /// Records a user-assigned identity, as its provider does; gives the object id of its principal.
    pub(crate) async fn add_identity(&self, name: &str) -> String {
        let (principal_id, client_id) = (self.env.ids.uuid().to_string(), self.env.ids.uuid().to_string());
        let now = self.env.clock.now();
        let record = ManagedIdentityRecord {
            v: 1,
            subscription: SUBSCRIPTION.to_owned(),
            resource_group: "rg1".to_owned(),
            name: name.to_owned(),
            location: "local".to_owned(),
            tags: Default::default(),
            tenant_id: "99999999-0000-0000-0000-000000000000".to_owned(),
            principal_id: principal_id.clone(),
            client_id: client_id.clone(),
            system_data: SystemData {
                created_at: now,
                created_by: "tester".to_owned(),
                created_by_type: "Application".to_owned(),
                modified_at: now,
                modified_by: "tester".to_owned(),
                modified_by_type: "Application".to_owned(),
            },
        };
        let principal = PrincipalRecord {
            kind: "ManagedIdentity".to_owned(),
            login: client_id,
            display_name: name.to_owned(),
            resource: Some(IDENTITY.replace("/own", &format!("/{name}"))),
            ..PrincipalRecord::new(&principal_id, now)
        };
        let key = key::managed_identity(SUBSCRIPTION, "rg1", name);
        let txn = Txn::default().with(put_record(key, &record));
        self.store
            .txn(identity_directory::made(txn, &principal))
            .await
            .unwrap();
        principal_id
    }

    /// Whether a principal with this object id exists.
    pub(crate) async fn knows(&self, object_id: &str) -> bool {
        let found = identity_directory::principal(&*self.store, object_id).await;
        found.unwrap().is_some()
    }

    /// Records a node's machine, as the loop does.
    pub(crate) async fn add_node(&self, cluster: &str, id: &str, pool: &str, index: u32) {
        let machine = MachineRecord {
            v: 2,
            id: id.to_owned(),
            image: "1.36.3".to_owned(),
            token_hash: String::new(),
            token_sealed: Vec::new(),
            enrolled_key: None,
            token_used: false,
            host: control_records::HostId::first(),
            assignment: Some(Assignment {
                cluster: cluster.to_owned(),
                role: Role::Node {
                    pool: pool.to_owned(),
                    incarnation: "12345678".to_owned(),
                    index,
                    node_name: format!("aks-{pool}-12345678-vmss00000{index}"),
                    address: "10.224.0.4".parse().unwrap(),
                    pod_range: None,
                },
            }),
            deleting: false,
            work: None,
            emptying: None,
            inherited: None,
            healing: control_records::Healing::default(),
            created_at: self.env.clock.now(),
        };
        self.write(put_record(key::machine(cluster, id), &machine)).await;
    }

    pub(crate) async fn write(&self, op: control_store::Op) {
        let txn = Txn {
            compare: Vec::new(),
            ops: vec![op],
        };
        self.store.txn(txn).await.unwrap();
    }

    /// `path` below `/resourceGroups/rg1/providers/{ns}/`, or from the root where it begins with a slash.
    pub(crate) fn request(&self, method: &str, path: &str, body: Value) -> Request {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let full = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/rg1/providers/{NAMESPACE}/{path}")
        };
        Request {
            method: Method::from_bytes(method.as_bytes()).unwrap(),
            path: ResourcePath::parse(&full).unwrap(),
            api_version: self.api_version.to_owned(),
            query: query
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            body,
            if_match: None,
            if_none_match: None,
            principal: Principal {
                object_id: "o".to_owned(),
                name: "tester".to_owned(),
                tenant_id: "99999999-0000-0000-0000-000000000000".to_owned(),
                kind: PrincipalKind::Application,
            },
            base_url: "https://127.0.0.1:8443".to_owned(),
            trace: Trace::default(),
        }
    }

    /// Finds the route as the edge does, and calls the provider.
    pub(crate) async fn send(&self, request: Request) -> Answer {
        self.send_as(request, AccessControl::allow_all()).await
    }

    /// The same for a caller with limited permissions.
    pub(crate) async fn send_as(&self, request: Request, access: AccessControl) -> Answer {
        let target = self.registry.target(&request.path).unwrap();
        let route = target.route(&request.method).unwrap();
        assert!(route.works, "{}", route.name);
        answer(target.provider.handle(route, &Call::new(request, access)).await)
    }

    /// The response that the request would get, without its effect.
    pub(crate) async fn preview(&self, method: &str, path: &str, body: Value) -> Answer {
        let request = self.request(method, path, body);
        let target = self.registry.target(&request.path).unwrap();
        let route = target.route(&request.method).unwrap();
        answer(
            target
                .provider
                .preview(route, &Call::new(request, AccessControl::allow_all()))
                .await,
        )
    }

    pub(crate) async fn ask(&self, method: &str, path: &str, body: Value) -> Answer {
        self.send(self.request(method, path, body)).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, Value::Null).await
    }

    /// Makes a cluster; the request must be accepted.
    pub(crate) async fn create(&self, name: &str, body: Value) -> Value {
        let answer = self.ask("PUT", &format!("managedClusters/{name}"), body).await;
        assert_eq!(answer.status, 201, "{:#}", answer.body);
        answer.body
    }

    pub(crate) async fn record(&self, name: &str) -> Option<ClusterRecord> {
        let found = directory::cluster_named(&*self.store, SUBSCRIPTION, "rg1", name)
            .await
            .unwrap();
        found.map(|found| found.value)
    }

    pub(crate) async fn operations(&self) -> Vec<OperationRecord> {
        let (owners, _) = list_records::<OwnerRecord>(&*self.store, key::OPERATION_OWNERS)
            .await
            .unwrap();
        let mut all = Vec::new();
        for (key, _) in owners {
            let id = key.trim_start_matches(key::OPERATION_OWNERS);
            all.extend(directory::operation(&*self.store, id).await.unwrap());
        }
        all.into_iter().map(|stored| stored.value).collect()
    }

    /// Writes the observed state, as the loop would.
    pub(crate) async fn observe(&self, name: &str, change: impl FnOnce(&mut ObservedRecord)) {
        let uid = self.record(name).await.unwrap().uid;
        let found = get_record::<ObservedRecord>(&*self.store, &key::observed(&uid))
            .await
            .unwrap();
        let mut observed = found.map(|found| found.value).unwrap_or_default();
        change(&mut observed);
        self.write(put_record(key::observed(&uid), &observed)).await;
    }

    /// Writes the observed state of a cluster that is complete, as the loop would.
    pub(crate) async fn reach(&self, name: &str) {
        let record = self.record(name).await.unwrap();
        let observed = ObservedRecord {
            v: 2,
            generation: record.generation,
            stopped: record.spec().stopped,
            vip: Some("100.64.0.9".parse().unwrap()),
            kubernetes_version: Some(record.spec().kubernetes_version.clone()),
            ready_nodes: record
                .spec()
                .pools
                .iter()
                .map(|pool| (pool.name.clone(), pool.count))
                .collect(),
            ..ObservedRecord::default()
        };
        self.write(put_record(key::observed(&record.uid), &observed))
            .await;
    }
}

pub(crate) fn answer(outcome: Result<Response, ArmError>) -> Answer {
    match outcome {
        Ok(Response {
            status,
            headers,
            body,
        }) => Answer {
            status: status.as_u16(),
            headers,
            body: body.unwrap_or_default(),
        },
        Err(error) => Answer {
            status: error.status().as_u16(),
            headers: Vec::new(),
            body: error.body(),
        },
    }
}

/// The smallest body of a cluster.
pub(crate) fn least() -> Value {
    json!({ "location": "local" })
}

/// Removes the properties that the SDK's models mark read-only, as the Azure CLI does before it sends back a
/// body that it read.
pub(crate) fn sent_back(answer: &Value) -> Value {
    let mut body = answer.clone();
    let drop = |value: &mut Value, names: &[&str]| {
        let members = value.as_object_mut().unwrap();
        names.iter().for_each(|name| drop_one(members, name));
    };
    drop(&mut body, &["id", "name", "type", "systemData", "eTag"]);
    drop(
        &mut body["properties"],
        &[
            "provisioningState",
            "powerState",
            "fqdn",
            "currentKubernetesVersion",
            "maxAgentPools",
            "resourceUID",
        ],
    );
    if body.get("identity").is_some() {
        drop(&mut body["identity"], &["principalId", "tenantId"]);
    }
    if let Some(pools) = body["properties"]["agentPoolProfiles"].as_array_mut() {
        for pool in pools {
            drop(pool, &["eTag", "provisioningState", "currentOrchestratorVersion"]);
        }
    }
    body
}

fn drop_one(members: &mut serde_json::Map<String, Value>, name: &str) {
    members.remove(name);
}

/// The names in a list, in its order.
pub(crate) fn names(list: &Value) -> Vec<&str> {
    list["value"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["name"].as_str().unwrap())
        .collect()
}
