//! A stamp in memory with the real edge, `Microsoft.Resources` and `Microsoft.Authorization`, and the routes of the other namespaces with
//! nothing behind them.

use std::sync::{Arc, LazyLock};

use arm_edge::{Edge, EdgeConfig};
use arm_kernel::{AccessControl, Call, GroupReaper, Mode, Provider, Route, ServiceLog, TagsWish, routes};
use arm_wire::{ArmError, PrincipalKind, Response};
use async_trait::async_trait;
use axum::body::{Body, to_bytes};
use base_env::Env;
use control_records::{PrincipalRecord, SubscriptionRecord, access, key};
use control_store::{Store, Txn, put_record};
use http::StatusCode;
use identity::{
    IDENTITY_NAMESPACE, IdentityApi, IdentityConfig, NewPrincipal, Secret, Shape, SigningKey, TokenService,
    create_principal,
};
use identity_directory as directory;
use providers_authorization::{Authorization, RoleAuthorizer};
use providers_containerservice::{BackupApi, ContainerService, HistoryApi};
use providers_managedidentity::ManagedIdentity;
use providers_resources::{ResourcesConfig, ResourcesProvider};
use serde_json::{Value, json};
use storage_redb::MemoryStore;
use tower::ServiceExt as _;

pub(crate) const TENANT: &str = "7b9c1c7e-0f5a-4f7a-9c39-6a1f0c5d2e01";
pub(crate) const SUBSCRIPTION: &str = "5a0e2b6c-93d1-4b6f-8d0a-1c2d3e4f5a6b";
pub(crate) const OTHER: &str = "0b0e2b6c-93d1-4b6f-8d0a-1c2d3e4f5a6b";
const BASE: &str = "https://arm.example.test";
const AUDIENCE: &str = "https://management.example.test/x";
const SECRET: &str = "an application's secret";
/// Of `Microsoft.Resources`, `Microsoft.Authorization` and locks.
pub(crate) const GROUPS: &str = "api-version=2024-11-01";
pub(crate) const ROLES: &str = "api-version=2022-04-01";
pub(crate) const LOCKS: &str = "api-version=2016-09-01";

/// An answer, read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn code(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or_default()
    }

    pub(crate) fn message(&self) -> &str {
        self.body["error"]["message"].as_str().unwrap_or_default()
    }

    /// The names of a list's items.
    pub(crate) fn names(&self) -> Vec<&str> {
        let items = self.body["value"]
            .as_array()
            .unwrap_or_else(|| panic!("{self:?}"));
        items
            .iter()
            .map(|item| item["name"].as_str().unwrap_or_default())
            .collect()
    }
}

/// Somebody with a token.
#[derive(Debug, Clone)]
pub(crate) struct Who {
    pub(crate) id: String,
    token: String,
}

pub(crate) struct Stamp {
    pub(crate) env: Env,
    pub(crate) store: Arc<dyn Store>,
    edge: Edge,
    /// Owner of everything.
    pub(crate) owner: Who,
    pub(crate) providers: Vec<Arc<dyn Provider>>,
}

/// The routes of a namespace, which answer with nothing.
struct Shell {
    namespace: &'static str,
    routes: Vec<Route>,
}

#[async_trait]
impl Provider for Shell {
    fn namespace(&self) -> &'static str {
        self.namespace
    }

    fn routes(&self) -> Vec<Route> {
        self.routes.clone()
    }

    async fn handle(&self, _: &Route, _: &Call) -> Result<Response, ArmError> {
        Ok(Response::ok(json!({ "value": [] })))
    }

    async fn preview(&self, _: &Route, _: &Call) -> Result<Response, ArmError> {
        Ok(Response::ok(json!({})))
    }

    async fn tags(&self, _: &Route, _: &Call, _: &TagsWish, _: Mode) -> Result<Response, ArmError> {
        Ok(Response::ok(json!({})))
    }

    /// A cluster in each of two groups.
    async fn resources(&self, subscription: &str, group: Option<&str>) -> Result<Vec<Value>, ArmError> {
        if self.namespace != providers_containerservice::NAMESPACE {
            return Ok(Vec::new());
        }
        let groups = ["g", "h"].into_iter();
        let groups = groups.filter(|own| group.is_none_or(|asked| asked.eq_ignore_ascii_case(own)));
        Ok(groups
            .map(|group| {
                json!({
                    "id": arm_ids::resource_id(subscription, group, self.namespace, &[("managedClusters", "c")]),
                    "name": format!("c-{group}"), "type": "Microsoft.ContainerService/managedClusters",
                })
            })
            .collect())
    }

    async fn delete_resource_group(&self, _: &str, _: &str) -> Result<usize, ArmError> {
        Ok(0)
    }
}

impl Stamp {
    /// A stamp with two subscriptions, the groups `g` and `h` in the first, and an owner.
    pub(crate) async fn new() -> Self {
        let env = Env::simulated(1);
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        for id in [SUBSCRIPTION, OTHER] {
            let subscription = SubscriptionRecord {
                v: 1,
                id: id.to_owned(),
                display_name: "Example".to_owned(),
                tenant_id: TENANT.to_owned(),
                registered: Vec::new(),
                created_at: env.clock.now(),
            };
            let txn = Txn::default().with(put_record(key::subscription(id), &subscription));
            store.txn(txn).await.unwrap();
        }
        let shell = |namespace, routes| -> Arc<dyn Provider> { Arc::new(Shell { namespace, routes }) };
        let mut providers: Vec<Arc<dyn Provider>> = vec![
            shell(
                providers_containerservice::NAMESPACE,
                routes::<ContainerService>(),
            ),
            shell("Landfall.Backup", routes::<BackupApi>()),
            shell("Landfall.ContainerService", routes::<HistoryApi>()),
            shell(providers_managedidentity::NAMESPACE, routes::<ManagedIdentity>()),
            shell(IDENTITY_NAMESPACE, routes::<IdentityApi>()),
            Arc::new(Authorization::new(env.clone(), Arc::clone(&store), TENANT)),
        ];
        providers.push(Arc::new(ResourcesProvider::new(
            ResourcesConfig {
                location: "local".to_owned(),
                location_display: "Local".to_owned(),
                tenant_id: TENANT.to_owned(),
                tenant_name: "Example".to_owned(),
            },
            env.clone(),
            Arc::clone(&store),
            providers.clone(),
        )));
        let identity = IdentityConfig {
            base_url: BASE.to_owned(),
            shape: Shape::Aad,
            tenant_id: TENANT.to_owned(),
            audiences: vec![AUDIENCE.to_owned()],
            resources: Vec::new(),
        };
        let tokens = TokenService::new(identity, signing_key(), env.clone(), Arc::clone(&store));
        let roles = Arc::new(RoleAuthorizer::new(Arc::clone(&store)));
        let edge = Edge::new(
            EdgeConfig {
                stamp: "example".to_owned(),
                base_url: BASE.to_owned(),
                domain: "example.test".to_owned(),
                location: "local".to_owned(),
            },
            env.clone(),
            Arc::clone(&store),
            Arc::new(tokens),
            providers.clone(),
            AccessControl {
                authorizer: Arc::clone(&roles) as Arc<dyn arm_kernel::Authorizer>,
                locks: roles,
                activity: Arc::new(ServiceLog),
            },
        );
        let nobody = Who {
            id: String::new(),
            token: String::new(),
        };
        let mut stamp = Self {
            env,
            store,
            edge,
            owner: nobody,
            providers,
        };
        stamp.owner = stamp.principal("owner").await;
        let owner = access::owner_of_all(&stamp.owner.id, "Application", stamp.env.clock.now()).unwrap();
        stamp.store.txn(owner.make(Txn::default())).await.unwrap();
        for group in ["g", "h"] {
            let body = json!({ "location": "local" });
            let made = stamp
                .arm(
                    &stamp.owner,
                    "PUT",
                    &format!("{}?{GROUPS}", group_id(group)),
                    Some(body),
                )
                .await;
            assert_eq!(made.status, 201, "{made:?}");
        }
        stamp
    }

    /// A new principal, who may nothing, with a token.
    pub(crate) async fn principal(&self, login: &str) -> Who {
        let new = NewPrincipal {
            kind: PrincipalKind::Application,
            login,
            display_name: login,
            secret: Secret::Generated(SECRET),
        };
        let made = create_principal(&*self.store, &self.env, new).await.unwrap();
        let form = format!(
            "grant_type=client_credentials&client_id={login}&client_secret={}&scope={AUDIENCE}/.default",
            SECRET.replace(' ', "+")
        );
        let request = http::Request::post("/adfs/oauth2/token")
            .header("host", "arm.example.test")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Body::from(form))
            .unwrap();
        let answer = self.send(request).await;
        Who {
            id: made.object_id,
            token: answer.body["access_token"].as_str().unwrap().to_owned(),
        }
    }

    /// Removes the record of a principal.
    pub(crate) async fn forget(&self, who: &Who) {
        let txn = Txn::default().delete(key::principal(&who.id));
        self.store.txn(txn).await.unwrap();
    }

    /// Disables a principal.
    pub(crate) async fn disable(&self, who: &Who) {
        let writer = self.writer();
        let off = directory::update_principal(&writer, &who.id, |record| {
            record.disabled = true;
            Ok(())
        });
        off.await.unwrap();
    }

    /// A new group with one member; its id.
    pub(crate) async fn group_around(&self, member: &str) -> String {
        let new = directory::NewGroup {
            display_name: format!("around {member}"),
            description: String::new(),
            nickname: "around".to_owned(),
        };
        let group = directory::create_group(&self.writer(), new).await.unwrap();
        directory::add_member(&self.writer(), &group.object_id, member)
            .await
            .unwrap();
        group.object_id
    }

    pub(crate) fn writer(&self) -> directory::Writer<'_> {
        directory::Writer::unnoted(&*self.store, &self.env)
    }

    /// What is there of a principal.
    pub(crate) async fn record(&self, who: &Who) -> PrincipalRecord {
        let found = control_store::get_record(&*self.store, &key::principal(&who.id)).await;
        found.unwrap().unwrap().value
    }

    async fn send(&self, request: http::Request<Body>) -> Answer {
        let answer = self.edge.router().oneshot(request).await.unwrap();
        let status = answer.status().as_u16();
        let bytes = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        Answer {
            status,
            body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        }
    }

    /// Sends an ARM request.
    pub(crate) async fn arm(&self, who: &Who, method: &str, path: &str, body: Option<Value>) -> Answer {
        let mut request = http::Request::builder()
            .method(method)
            .uri(path.replace(' ', "%20"))
            .header("host", "arm.example.test")
            .header("authorization", format!("Bearer {}", who.token));
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        self.send(request.body(body).unwrap()).await
    }

    pub(crate) async fn get(&self, who: &Who, path: &str) -> Answer {
        self.arm(who, "GET", path, None).await
    }

    /// Gives a built-in role, as the owner; the path of the assignment.
    pub(crate) async fn grant(&self, who: &Who, role: &str, scope: &str) -> String {
        let path = assignment_path(scope, &self.env.ids.uuid().to_string());
        let body = assignment(&role_id(role), &who.id);
        let made = self.arm(&self.owner, "PUT", &path, Some(body)).await;
        assert_eq!(made.status, StatusCode::CREATED.as_u16(), "{made:?}");
        path
    }

    /// Runs a reaper until the returned handle is aborted.
    pub(crate) fn reaper(&self) -> tokio::task::JoinHandle<()> {
        let reaper = GroupReaper::new(self.env.clone(), Arc::clone(&self.store), Vec::new());
        tokio::spawn(async move { reaper.run(std::future::pending()).await })
    }
}

/// Making an RSA key takes a while; one is enough for all tests.
fn signing_key() -> SigningKey {
    static PEM: LazyLock<String> = LazyLock::new(|| SigningKey::generate().unwrap().to_pem().to_owned());
    SigningKey::from_pem(&PEM).unwrap()
}

pub(crate) fn subscription_id() -> String {
    arm_ids::subscription_id(SUBSCRIPTION)
}

pub(crate) fn group_id(group: &str) -> String {
    arm_ids::group_id(SUBSCRIPTION, group)
}

/// The id of the cluster `c` of a group.
pub(crate) fn cluster_id(group: &str) -> String {
    format!(
        "{}/providers/Microsoft.ContainerService/managedClusters/c",
        group_id(group)
    )
}

/// The id of a built-in role.
pub(crate) fn role_id(name: &str) -> String {
    let role = arm_access::built_in_roles().iter().find(|role| role.name == name);
    format!(
        "/providers/Microsoft.Authorization/roleDefinitions/{}",
        role.unwrap_or_else(|| panic!("{name}")).id
    )
}

pub(crate) fn assignment_path(scope: &str, name: &str) -> String {
    format!(
        "{}/providers/Microsoft.Authorization/roleAssignments/{name}?{ROLES}",
        scope.trim_end_matches('/')
    )
}

pub(crate) fn assignment(role: &str, principal: &str) -> Value {
    json!({ "properties": { "roleDefinitionId": role, "principalId": principal } })
}
