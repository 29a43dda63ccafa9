//! A stamp in memory behind the real edge, for tests of providers: a store, one subscription or more, the
//! token service, `Microsoft.Resources`, and the providers and permissions of a test.
//!
//! Only ever a dev-dependency. Always true: only time is simulated; an unsupported call fails its test.

use std::sync::{Arc, LazyLock};

use arm_edge::{Budgets, Edge, EdgeConfig};
use arm_kernel::{AccessControl, GroupReaper, Provider};
use arm_wire::PrincipalKind;
use axum::body::{Body, to_bytes};
use base_env::Env;
use control_records::{SubscriptionRecord, SubscriptionState, access, key};
use control_store::{Store, Txn, put_record};
use identity::{IdentityConfig, NewPrincipal, Secret, Shape, SigningKey, TokenService, create_principal};
use providers_resources::{ResourcesConfig, ResourcesProvider};
use serde_json::{Value, json};
use storage_redb::MemoryStore;
use tower::ServiceExt as _;

/// Its tenant.
pub const TENANT: &str = "7b9c1c7e-0f5a-4f7a-9c39-6a1f0c5d2e01";
/// Its first subscription.
pub const SUBSCRIPTION: &str = "5a0e2b6c-93d1-4b6f-8d0a-1c2d3e4f5a6b";
/// The audience of ARM's tokens.
pub const ARM: &str = "https://management.example.test/x";
/// The audience of Graph's tokens.
pub const GRAPH: &str = "https://arm.example.test/graph";
/// The secret of applications.
pub const SECRET: &str = "an application's secret";
/// The password of people.
pub const PASSWORD: &str = "Correct horse 1";
/// The api-version of `Microsoft.Resources`.
pub const GROUPS: &str = "api-version=2024-11-01";

const BASE: &str = "https://arm.example.test";
const HOST: &str = "arm.example.test";

/// The parts that a test provides.
pub struct Parts {
    /// Providers beside `Microsoft.Resources`.
    pub providers: Vec<Arc<dyn Provider>>,
    /// Permissions, locks and the activity log.
    pub access: AccessControl,
}

/// A parsed response.
#[derive(Debug)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Its JSON; null where it has none.
    pub body: Value,
}

impl Answer {
    /// The code of an error; empty for success.
    pub fn code(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or_default()
    }

    /// The message of an error; empty for success.
    pub fn message(&self) -> &str {
        self.body["error"]["message"].as_str().unwrap_or_default()
    }

    /// A member that is a text.
    ///
    /// # Panics
    /// When it is not.
    pub fn text(&self, member: &str) -> String {
        let text = self.body[member].as_str();
        text.unwrap_or_else(|| panic!("{member}: {self:?}")).to_owned()
    }

    /// A member of each item of a list, as they come.
    ///
    /// # Panics
    /// When it is no list.
    pub fn each(&self, member: &str) -> Vec<&str> {
        let items = self.body["value"].as_array();
        let items = items.unwrap_or_else(|| panic!("{self:?}"));
        items
            .iter()
            .map(|item| item[member].as_str().unwrap_or_default())
            .collect()
    }

    /// The same in order.
    pub fn all(&self, member: &str) -> Vec<&str> {
        let mut all = self.each(member);
        all.sort_unstable();
        all
    }

    /// The names of a list's items.
    pub fn names(&self) -> Vec<&str> {
        self.each("name")
    }
}

/// The stamp.
pub struct Stamp {
    /// Its clock is the test's, which may be paused.
    pub env: Env,
    /// Its records.
    pub store: Arc<dyn Store>,
    /// All its providers.
    pub providers: Vec<Arc<dyn Provider>>,
    edge: Edge,
}

impl Stamp {
    /// A stamp with [`SUBSCRIPTION`] and these others, without principals.
    pub async fn new(others: &[&str], parts: impl FnOnce(&Env, &Arc<dyn Store>) -> Parts) -> Self {
        let env = Env::simulated(1);
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        for id in [SUBSCRIPTION].iter().chain(others) {
            let subscription = SubscriptionRecord {
                v: 1,
                id: (*id).to_owned(),
                display_name: "Example".to_owned(),
                tenant_id: TENANT.to_owned(),
                registered: Vec::new(),
                unregistered: Vec::new(),
                state: SubscriptionState::Enabled,
                state_since: None,
                created_at: env.clock.now(),
            };
            write(
                &store,
                Txn::default().with(put_record(key::subscription(id), &subscription)),
            )
            .await;
        }
        let Parts {
            mut providers,
            access,
        } = parts(&env, &store);
        providers.push(Arc::new(ResourcesProvider::new(
            ResourcesConfig {
                location: "local".to_owned(),
                location_display: "Local Region".to_owned(),
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
            audiences: vec![ARM.to_owned()],
            resources: vec![GRAPH.to_owned()],
        };
        let tokens = TokenService::new(identity, signing_key(), env.clone(), Arc::clone(&store));
        let edge = Edge::new(
            EdgeConfig {
                stamp: "example".to_owned(),
                base_url: BASE.to_owned(),
                domain: "example.test".to_owned(),
                location: "local".to_owned(),
                // Tests send thousands of requests at one moment of their clock.
                budgets: Budgets::OFF,
            },
            env.clone(),
            Arc::clone(&store),
            Arc::new(tokens),
            providers.clone(),
            access,
        );
        Self {
            env,
            store,
            providers,
            edge,
        }
    }

    /// A new principal, without roles; its object id. An application has [`SECRET`], a person [`PASSWORD`].
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn principal(&self, kind: PrincipalKind, login: &str) -> String {
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
        let made = create_principal(&*self.store, &self.env, new).await;
        made.unwrap_or_else(|error| panic!("{login}: {error:?}"))
            .object_id
    }

    /// Makes a principal an owner of the whole stamp.
    ///
    /// # Panics
    /// When that fails.
    pub async fn make_owner(&self, object_id: &str) {
        let owner = access::owner_of_all(object_id, "Application", self.env.clock.now());
        let owner = owner.unwrap_or_else(|| panic!("{object_id} is no GUID"));
        write(&self.store, owner.make(Txn::default())).await;
    }

    /// A token of an application; `None` where it gets none.
    pub async fn client_token(&self, client: &str, secret: &str, audience: &str) -> Option<String> {
        self.token(&[
            ("grant_type", "client_credentials"),
            ("client_id", client),
            ("client_secret", secret),
            ("scope", &format!("{audience}/.default")),
        ])
        .await
    }

    /// A token of a person; `None` where it gets none.
    pub async fn password_token(&self, login: &str, password: &str, audience: &str) -> Option<String> {
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
            .header("host", HOST)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Body::from(form.join("&")));
        let answer = self.send(request.expect("a form is a request")).await;
        answer.body["access_token"].as_str().map(str::to_owned)
    }

    /// Sends a request with a token. Blanks and quotes of its path are encoded.
    ///
    /// # Panics
    /// When it is no request.
    pub async fn ask(&self, token: &str, method: &str, path: &str, body: Option<Value>) -> Answer {
        let mut request = http::Request::builder()
            .method(method)
            .uri(path.replace(' ', "%20").replace('"', "%22"))
            .header("host", HOST)
            .header("authorization", format!("Bearer {token}"));
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let request = request.body(body);
        self.send(request.unwrap_or_else(|error| panic!("{method} {path}: {error}")))
            .await
    }

    async fn send(&self, request: http::Request<Body>) -> Answer {
        let Ok(answer) = self.edge.router().oneshot(request).await;
        let status = answer.status().as_u16();
        assert!(answer.headers().contains_key("x-ms-request-id"));
        let bytes = to_bytes(answer.into_body(), usize::MAX).await;
        let bytes = bytes.expect("an answer in memory is whole");
        Answer {
            status,
            body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        }
    }

    /// Makes a group of [`SUBSCRIPTION`].
    ///
    /// # Panics
    /// When it is not made.
    pub async fn group(&self, token: &str, name: &str) {
        let path = format!("{}?{GROUPS}", arm_ids::group_id(SUBSCRIPTION, name));
        let body = json!({ "location": "local" });
        let made = self.ask(token, "PUT", &path, Some(body)).await;
        assert_eq!(made.status, 201, "{made:?}");
    }

    /// Runs a reaper of groups until the returned handle is aborted.
    pub fn reaper(&self, providers: Vec<Arc<dyn Provider>>) -> tokio::task::JoinHandle<()> {
        let reaper = GroupReaper::new(self.env.clone(), Arc::clone(&self.store), providers);
        tokio::spawn(async move { reaper.run(std::future::pending()).await })
    }
}

impl std::fmt::Debug for Stamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stamp")
    }
}

async fn write(store: &Arc<dyn Store>, txn: Txn) {
    store.txn(txn).await.expect("a store in memory takes it");
}

/// Making an RSA key takes a while; one is enough for all tests.
fn signing_key() -> SigningKey {
    static PEM: LazyLock<String> = LazyLock::new(|| {
        let key = SigningKey::generate().expect("the library makes keys");
        key.to_pem().to_owned()
    });
    SigningKey::from_pem(&PEM).expect("it is what was written")
}
