//! A stamp in memory: the real edge, token service and roles.

use std::sync::{Arc, LazyLock};

use arm_edge::{Edge, EdgeConfig};
use arm_kernel::{AccessControl, Authorizer, Provider, StoreLog};
use arm_wire::PrincipalKind;
use axum::body::{Body, to_bytes};
use base_env::Env;
use control_records::{SubscriptionRecord, access, activity::ActivityRecord, key};
use control_store::{Store, Txn, list_records, put_record};
use identity::{IdentityConfig, NewPrincipal, Secret, Shape, SigningKey, TokenService, create_principal};
use providers_authorization::{Authorization, RoleAuthorizer};
use providers_resources::{ResourcesConfig, ResourcesProvider};
use serde_json::Value;
use storage_redb::MemoryStore;
use tower::ServiceExt as _;

pub(crate) const TENANT: &str = "7b9c1c7e-0f5a-4f7a-9c39-6a1f0c5d2e01";
const SUBSCRIPTION: &str = "5a0e2b6c-93d1-4b6f-8d0a-1c2d3e4f5a6b";
const BASE: &str = "https://arm.example.test";
pub(crate) const GRAPH: &str = "https://arm.example.test/graph";
pub(crate) const ARM: &str = "https://management.example.test/x";
const SECRET: &str = "an application's secret";
pub(crate) const PASSWORD: &str = "Correct horse 1";

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

    pub(crate) fn text(&self, member: &str) -> String {
        let text = self.body[member].as_str();
        text.unwrap_or_else(|| panic!("{member}: {self:?}")).to_owned()
    }

    /// A member of each item of a list.
    pub(crate) fn all(&self, member: &str) -> Vec<&str> {
        let items = self.body["value"]
            .as_array()
            .unwrap_or_else(|| panic!("{self:?}"));
        let mut all: Vec<&str> = items.iter().map(|item| item[member].as_str().unwrap()).collect();
        all.sort_unstable();
        all
    }
}

/// Somebody with tokens of both APIs.
#[derive(Debug, Clone)]
pub(crate) struct Who {
    pub(crate) id: String,
    pub(crate) login: String,
    graph: String,
    pub(crate) arm: String,
}

pub(crate) struct Stamp {
    pub(crate) env: Env,
    pub(crate) store: Arc<dyn Store>,
    edge: Edge,
    /// Owner of everything.
    pub(crate) owner: Who,
}

impl Stamp {
    pub(crate) async fn new() -> Self {
        let env = Env::simulated(1);
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let subscription = SubscriptionRecord {
            v: 1,
            id: SUBSCRIPTION.to_owned(),
            display_name: "Example".to_owned(),
            tenant_id: TENANT.to_owned(),
            registered: Vec::new(),
            created_at: env.clock.now(),
        };
        let txn = Txn::default().with(put_record(key::subscription(SUBSCRIPTION), &subscription));
        store.txn(txn).await.unwrap();
        let authorization: Arc<dyn Provider> =
            Arc::new(Authorization::new(env.clone(), Arc::clone(&store), TENANT));
        let resources: Arc<dyn Provider> = Arc::new(ResourcesProvider::new(
            ResourcesConfig {
                location: "local".to_owned(),
                location_display: "Local".to_owned(),
                tenant_id: TENANT.to_owned(),
                tenant_name: "Example".to_owned(),
            },
            env.clone(),
            Arc::clone(&store),
            vec![Arc::clone(&authorization)],
        ));
        let identity = IdentityConfig {
            base_url: BASE.to_owned(),
            shape: Shape::Aad,
            tenant_id: TENANT.to_owned(),
            audiences: vec![ARM.to_owned()],
            resources: vec![GRAPH.to_owned()],
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
            vec![authorization, resources],
            AccessControl {
                authorizer: Arc::clone(&roles) as Arc<dyn Authorizer>,
                locks: roles,
                activity: Arc::new(StoreLog::new(env.clone(), Arc::clone(&store))),
            },
        );
        let nobody = Who {
            id: String::new(),
            login: String::new(),
            graph: String::new(),
            arm: String::new(),
        };
        let mut stamp = Self {
            env,
            store,
            edge,
            owner: nobody,
        };
        stamp.owner = stamp.somebody(PrincipalKind::Application, "owner").await;
        let owner = access::owner_of_all(&stamp.owner.id, "Application", stamp.env.clock.now()).unwrap();
        stamp.store.txn(owner.make(Txn::default())).await.unwrap();
        stamp
    }

    /// A new principal, who may nothing, with tokens.
    pub(crate) async fn somebody(&self, kind: PrincipalKind, login: &str) -> Who {
        let secret = match kind {
            PrincipalKind::Application => Secret::Generated(SECRET),
            PrincipalKind::User => Secret::Chosen(PASSWORD),
        };
        let new = NewPrincipal {
            kind,
            login,
            display_name: login,
            secret,
        };
        let made = create_principal(&*self.store, &self.env, new).await.unwrap();
        let of = async |audience: &str| match kind {
            PrincipalKind::Application => self.client_token(login, SECRET, audience).await,
            PrincipalKind::User => self.password_token(login, PASSWORD, audience).await,
        };
        Who {
            id: made.object_id,
            login: login.to_owned(),
            graph: of(GRAPH).await.unwrap(),
            arm: of(ARM).await.unwrap(),
        }
    }

    /// Somebody with the rights of a role at the whole stamp.
    pub(crate) async fn with_role(&self, who: &Who, role: &str) {
        let role = arm_access_role(role);
        let record = access::AssignmentRecord {
            v: 1,
            name: self.env.ids.uuid().to_string(),
            principal: who.id.clone(),
            principal_type: "User".to_owned(),
            role,
            scope: "/".to_owned(),
            description: None,
            stamped: access::Stamped::now(None, "", self.env.clock.now()),
        };
        self.store.txn(record.make(Txn::default())).await.unwrap();
    }

    /// A token of an application; nothing where it gets none.
    pub(crate) async fn client_token(&self, client: &str, secret: &str, audience: &str) -> Option<String> {
        self.token(&[
            ("grant_type", "client_credentials"),
            ("client_id", client),
            ("client_secret", secret),
            ("scope", &format!("{audience}/.default")),
        ])
        .await
    }

    /// A token of a person; nothing where it gets none.
    pub(crate) async fn password_token(&self, login: &str, password: &str, audience: &str) -> Option<String> {
        self.token(&[
            ("grant_type", "password"),
            ("client_id", "04b07795-8ddb-461a-bbee-02f9e1bf7b46"),
            ("username", login),
            ("password", password),
            ("scope", &format!("{audience}/.default")),
        ])
        .await
    }

    async fn token(&self, form: &[(&str, &str)]) -> Option<String> {
        let form: Vec<String> = form
            .iter()
            .map(|(name, value)| format!("{name}={}", arm_ids::encode(value)))
            .collect();
        let request = http::Request::post("/adfs/oauth2/token")
            .header("host", "arm.example.test")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Body::from(form.join("&")))
            .unwrap();
        let answer = self.send(request).await;
        answer.body["access_token"].as_str().map(str::to_owned)
    }

    async fn send(&self, request: http::Request<Body>) -> Answer {
        let answer = self.edge.router().oneshot(request).await.unwrap();
        let status = answer.status().as_u16();
        assert!(answer.headers().contains_key("x-ms-request-id"));
        let bytes = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        Answer {
            status,
            body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        }
    }

    /// Sends a request with a token.
    pub(crate) async fn with_token(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> Answer {
        let path = path.replace(' ', "%20").replace('"', "%22");
        let mut request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("host", "arm.example.test")
            .header("authorization", format!("Bearer {token}"));
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        self.send(request.body(body).unwrap()).await
    }

    /// Asks Graph.
    pub(crate) async fn ask(&self, who: &Who, method: &str, path: &str, body: Option<Value>) -> Answer {
        let path = format!("/graph/v1.0{path}");
        self.with_token(&who.graph, method, &path, body).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(&self.owner, "GET", path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.ask(&self.owner, "POST", path, Some(body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Answer {
        self.ask(&self.owner, "PATCH", path, Some(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.ask(&self.owner, "DELETE", path, None).await
    }

    /// The activity log of what is in no subscription: actions and what became of them.
    pub(crate) async fn log(&self) -> Vec<(String, &'static str)> {
        let (found, _) = list_records::<ActivityRecord>(&*self.store, "/activity/")
            .await
            .unwrap();
        found
            .into_iter()
            .map(|(_, found)| (found.value.action, found.value.status.as_str()))
            .collect()
    }
}

fn arm_access_role(name: &str) -> String {
    // Owner, Contributor and Reader, by their ids.
    match name {
        "Contributor" => "b24988ac-6180-42a0-ab88-20f7382dd24c",
        "Reader" => "acdd72a7-3385-48ef-bd42-f606fba81ae7",
        other => panic!("{other}"),
    }
    .to_owned()
}

/// Making an RSA key takes a while; one is enough for all tests.
fn signing_key() -> SigningKey {
    static PEM: LazyLock<String> = LazyLock::new(|| SigningKey::generate().unwrap().to_pem().to_owned());
    SigningKey::from_pem(&PEM).unwrap()
}
