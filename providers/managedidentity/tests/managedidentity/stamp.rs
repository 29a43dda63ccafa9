//! A stamp in memory where everybody may everything.

use std::sync::{Arc, LazyLock};

use arm_edge::{Edge, EdgeConfig};
use arm_kernel::{AccessControl, GroupReaper, Provider};
use arm_wire::PrincipalKind;
use axum::body::{Body, to_bytes};
use base_env::Env;
use control_records::{SubscriptionRecord, key};
use control_store::{Store, Txn, put_record};
use identity::{IdentityConfig, NewPrincipal, Secret, Shape, SigningKey, TokenService, create_principal};
use providers_managedidentity::{ManagedIdentity, ManagedIdentityConfig};
use providers_resources::{ResourcesConfig, ResourcesProvider};
use serde_json::{Value, json};
use storage_redb::MemoryStore;
use tower::ServiceExt as _;

pub(crate) const TENANT: &str = "7b9c1c7e-0f5a-4f7a-9c39-6a1f0c5d2e01";
pub(crate) const SUBSCRIPTION: &str = "5a0e2b6c-93d1-4b6f-8d0a-1c2d3e4f5a6b";
const BASE: &str = "https://arm.example.test";
const AUDIENCE: &str = "https://management.example.test/x";
const SECRET: &str = "an application's secret";

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
}

pub(crate) struct Stamp {
    pub(crate) env: Env,
    pub(crate) store: Arc<dyn Store>,
    edge: Edge,
    provider: Arc<dyn Provider>,
    token: String,
}

impl Stamp {
    /// A stamp with the group `g`.
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
        let new = NewPrincipal {
            kind: PrincipalKind::Application,
            login: "owner",
            display_name: "owner",
            secret: Secret::Generated(SECRET),
        };
        create_principal(&*store, &env, new).await.unwrap();
        let provider: Arc<dyn Provider> = Arc::new(ManagedIdentity::new(
            ManagedIdentityConfig {
                location: "local".to_owned(),
                location_display: "Local Region".to_owned(),
                tenant_id: TENANT.to_owned(),
            },
            env.clone(),
            Arc::clone(&store),
        ));
        let resources: Arc<dyn Provider> = Arc::new(ResourcesProvider::new(
            ResourcesConfig {
                location: "local".to_owned(),
                location_display: "Local Region".to_owned(),
                tenant_id: TENANT.to_owned(),
                tenant_name: "Example".to_owned(),
            },
            env.clone(),
            Arc::clone(&store),
            vec![Arc::clone(&provider)],
        ));
        let identity = IdentityConfig {
            base_url: BASE.to_owned(),
            shape: Shape::Aad,
            tenant_id: TENANT.to_owned(),
            audiences: vec![AUDIENCE.to_owned()],
            resources: Vec::new(),
        };
        let tokens = TokenService::new(identity, signing_key(), env.clone(), Arc::clone(&store));
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
            vec![Arc::clone(&provider), resources],
            AccessControl::allow_all(),
        );
        let mut stamp = Self {
            env,
            store,
            edge,
            provider,
            token: String::new(),
        };
        let form = format!(
            "grant_type=client_credentials&client_id=owner&client_secret={}&scope={AUDIENCE}/.default",
            SECRET.replace(' ', "+")
        );
        let request = http::Request::post("/adfs/oauth2/token")
            .header("host", "arm.example.test")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Body::from(form))
            .unwrap();
        let answer = stamp.send(request).await;
        stamp.token = answer.body["access_token"].as_str().unwrap().to_owned();
        let group = format!("{}?api-version=2024-11-01", arm_ids::group_id(SUBSCRIPTION, "g"));
        let made = stamp
            .ask("PUT", &group, Some(json!({ "location": "local" })))
            .await;
        assert_eq!(made.status, 201, "{made:?}");
        stamp
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

    pub(crate) async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        let mut request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("host", "arm.example.test")
            .header("authorization", format!("Bearer {}", self.token));
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        self.send(request.body(body).unwrap()).await
    }

    /// Runs a reaper until the returned handle is aborted.
    pub(crate) fn reaper(&self) -> tokio::task::JoinHandle<()> {
        let providers = vec![Arc::clone(&self.provider)];
        let reaper = GroupReaper::new(self.env.clone(), Arc::clone(&self.store), providers);
        tokio::spawn(async move { reaper.run(std::future::pending()).await })
    }
}

/// Making an RSA key takes a while; one is enough for all tests.
fn signing_key() -> SigningKey {
    static PEM: LazyLock<String> = LazyLock::new(|| SigningKey::generate().unwrap().to_pem().to_owned());
    SigningKey::from_pem(&PEM).unwrap()
}
