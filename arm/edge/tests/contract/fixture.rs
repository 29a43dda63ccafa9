//! A stamp in memory: the edge, `Microsoft.Resources`, and a provider of our own that can misbehave.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use arm_edge::{Budgets, Edge, EdgeConfig};
use arm_ids::{ResourcePath, resource_id};
use arm_kernel::{
    AccessControl, Activity, ActivityLog, Authorizer, Call, GroupReaper, Members, Namespace, NoLocks,
    Operation, Provider, ResourceType, Scope, StoreLog, Verb,
};
use arm_wire::{ArmError, Principal, PrincipalKind, Response};
use async_trait::async_trait;
use axum::body::{Body, to_bytes};
use base_env::Env;
use base_sealer::Sealer;
use control_records::{GroupRecord, SubscriptionRecord, SubscriptionState, key};
use control_sealing::Sealing;
use control_store::{Store, Txn, get_record, put_record};
use http::{HeaderMap, StatusCode};
use identity::{
    IdentityApi, IdentityConfig, NewPrincipal, Secret, Shape, SigningKey, SigningKeys, TokenService,
    create_principal,
};
use providers_resources::{ResourcesConfig, ResourcesProvider, Subscriptions};
use serde_json::{Value, json};
use storage_redb::MemoryStore;
use tower::ServiceExt as _;

pub(crate) const TENANT: &str = "7b9c1c7e-0f5a-4f7a-9c39-6a1f0c5d2e01";
pub(crate) const SUBSCRIPTION: &str = "5a0e2b6c-93d1-4b6f-8d0a-1c2d3e4f5a6b";
/// A subscription that is disabled, see [`Stamp::disabled`].
pub(crate) const DISABLED: &str = "d15ab1ed-93d1-4b6f-8d0a-1c2d3e4f5a6b";
pub(crate) const APPLICATION: &str = "c0ffee00-1111-4222-8333-444455556666";
pub(crate) const SECRET: &str = "an application's secret";
pub(crate) const USER: &str = "ada@example.test";
pub(crate) const PASSWORD: &str = "a person's password";
pub(crate) const BASE: &str = "https://arm.example.test";
pub(crate) const AUDIENCE: &str = "https://management.example.test/x";
pub(crate) const VERSION: &str = "api-version=2024-11-01";
pub(crate) const THINGS: &str = "api-version=2026-01-01";

/// A parsed response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn code(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or_default()
    }
}

pub(crate) struct Stamp {
    pub(crate) env: Env,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) edge: Edge,
    pub(crate) things: Arc<Things>,
    pub(crate) guard: Arc<Guard>,
    pub(crate) token: String,
}

impl Stamp {
    /// A stamp with a subscription, principals and a token of the application, in virtual time.
    pub(crate) async fn new() -> Self {
        Self::with_shape(Shape::Aad).await
    }

    /// The same, with this shape of login endpoints.
    pub(crate) async fn with_shape(shape: Shape) -> Self {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        Self::of(shape, signing_key(), Env::simulated(1), store, Budgets::OFF).await
    }

    /// The same, with budgets of requests; the login of [`Self::new`] is not counted.
    pub(crate) async fn with_budgets(budgets: Budgets) -> Self {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        Self::of(Shape::Aad, signing_key(), Env::simulated(1), store, budgets).await
    }

    /// The same, with signing keys that are stored and rotated.
    pub(crate) async fn with_kept_keys() -> Self {
        let (env, store): (_, Arc<dyn Store>) = (Env::simulated(1), Arc::new(MemoryStore::new()));
        let sealer = Arc::new(Sealer::from_key(&[7; 32]));
        let keys = SigningKeys::open(&env, Arc::clone(&store), sealer, None)
            .await
            .unwrap();
        Self::of(Shape::Aad, keys, env, store, Budgets::OFF).await
    }

    async fn of(
        shape: Shape,
        keys: impl Into<SigningKeys>,
        env: Env,
        store: Arc<dyn Store>,
        budgets: Budgets,
    ) -> Self {
        let subscription = SubscriptionRecord {
            v: 1,
            id: SUBSCRIPTION.to_owned(),
            display_name: "Example".to_owned(),
            tenant_id: TENANT.to_owned(),
            registered: Vec::new(),
            unregistered: Vec::new(),
            state: SubscriptionState::Enabled,
            state_since: None,
            created_at: env.clock.now(),
        };
        let key = key::subscription(SUBSCRIPTION);
        store
            .txn(Txn::default().absent(&key).with(put_record(&key, &subscription)))
            .await
            .unwrap();
        for (kind, login, secret) in [
            (PrincipalKind::Application, APPLICATION, SECRET),
            (PrincipalKind::User, USER, PASSWORD),
        ] {
            let new = NewPrincipal {
                kind,
                login,
                display_name: "Ada",
                secret: Secret::Chosen(secret),
            };
            create_principal(&*store, &env, new).await.unwrap();
        }
        let identity = IdentityConfig {
            base_url: BASE.to_owned(),
            shape,
            tenant_id: TENANT.to_owned(),
            audiences: vec![AUDIENCE.to_owned(), BASE.to_owned()],
            resources: vec!["https://graph.example.test".to_owned()],
        };
        let identity = TokenService::new(identity, keys, env.clone(), Arc::clone(&store));
        let identity = Arc::new(identity);
        let sealing = Arc::new(Sealing::new(
            &env,
            Arc::clone(&store),
            Arc::new(Sealer::from_key(&[7; 32])),
            Vec::new(),
        ));
        let resources = ResourcesConfig {
            location: "local".to_owned(),
            location_display: "Local Region".to_owned(),
            tenant_id: TENANT.to_owned(),
            tenant_name: "Example".to_owned(),
        };
        let things = Arc::new(Things::default());
        let others: Vec<Arc<dyn Provider>> = vec![Arc::clone(&things) as Arc<dyn Provider>];
        let own = ResourcesProvider::new(resources, env.clone(), Arc::clone(&store), others.clone());
        let config = EdgeConfig {
            stamp: "example".to_owned(),
            base_url: BASE.to_owned(),
            domain: "example.test".to_owned(),
            location: "local".to_owned(),
            budgets,
        };
        let providers = others
            .into_iter()
            .chain([
                Arc::new(own) as Arc<dyn Provider>,
                Arc::new(IdentityApi::new(Arc::clone(&identity), sealing)),
                Arc::new(Subscriptions::new(env.clone(), Arc::clone(&store))),
            ])
            .collect();
        let guard = Arc::new(Guard {
            log: StoreLog::new(env.clone(), Arc::clone(&store)),
            forbidden: Mutex::default(),
            activities: Mutex::default(),
        });
        let edge = Edge::new(
            config,
            env.clone(),
            Arc::clone(&store),
            identity,
            providers,
            AccessControl {
                authorizer: Arc::clone(&guard) as Arc<dyn Authorizer>,
                locks: Arc::new(NoLocks),
                activity: Arc::clone(&guard) as Arc<dyn ActivityLog>,
            },
        );
        let mut stamp = Self {
            env,
            store,
            edge,
            things,
            guard,
            token: String::new(),
        };
        stamp.token = stamp.login().await;
        stamp
    }

    /// A token of the application.
    pub(crate) async fn login(&self) -> String {
        let form = format!(
            "grant_type=client_credentials&client_id={APPLICATION}&client_secret={}&scope={AUDIENCE}/.default",
            SECRET.replace(' ', "+")
        );
        let answer = self.form("/adfs/oauth2/token", &form).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        answer.body["access_token"].as_str().unwrap().to_owned()
    }

    /// POSTs a form without a token.
    pub(crate) async fn form(&self, path: &str, form: &str) -> Answer {
        let request = http::Request::post(path)
            .header("host", "arm.example.test")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Body::from(form.to_owned()))
            .unwrap();
        self.send(request).await
    }

    /// Sends any request.
    pub(crate) async fn send(&self, request: http::Request<Body>) -> Answer {
        let answer = self.edge.router().oneshot(request).await.unwrap();
        let (status, headers) = (answer.status(), answer.headers().clone());
        let bytes = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Answer {
            status,
            headers,
            body,
            text,
        }
    }

    /// Sends an ARM request with the token.
    pub(crate) async fn arm(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
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

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.arm("GET", path, None).await
    }

    /// Makes a group.
    pub(crate) async fn group(&self, name: &str) {
        let answer = self
            .arm("PUT", &group(name), Some(json!({ "location": "local" })))
            .await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    }

    /// Makes another subscription, with the group `g`, which is disabled.
    pub(crate) async fn disabled(&self) {
        let now = self.env.clock.now();
        let subscription = SubscriptionRecord {
            v: 1,
            id: DISABLED.to_owned(),
            display_name: "Example that is disabled".to_owned(),
            tenant_id: TENANT.to_owned(),
            registered: Vec::new(),
            unregistered: Vec::new(),
            state: SubscriptionState::Disabled,
            state_since: None,
            created_at: now,
        };
        let group = GroupRecord {
            v: 1,
            subscription: DISABLED.to_owned(),
            name: "g".to_owned(),
            location: "local".to_owned(),
            tags: std::collections::BTreeMap::new(),
            managed_by: None,
            deleting: false,
            created_at: now,
        };
        let txn = Txn::default()
            .with(put_record(key::subscription(DISABLED), &subscription))
            .with(put_record(key::group(DISABLED, "g"), &group));
        self.store.txn(txn).await.unwrap();
    }

    /// Whether a group's record exists.
    pub(crate) async fn has_group(&self, name: &str) -> bool {
        get_record::<GroupRecord>(&*self.store, &key::group(SUBSCRIPTION, name))
            .await
            .unwrap()
            .is_some()
    }

    /// Runs a reaper until the returned handle is aborted.
    pub(crate) fn reaper(&self) -> tokio::task::JoinHandle<()> {
        let providers: Vec<Arc<dyn Provider>> = vec![Arc::clone(&self.things) as Arc<dyn Provider>];
        let reaper = GroupReaper::new(self.env.clone(), Arc::clone(&self.store), providers);
        tokio::spawn(async move { reaper.run(std::future::pending()).await })
    }
}

/// Making an RSA key takes a while; one is enough for all tests.
fn signing_key() -> SigningKey {
    static PEM: std::sync::LazyLock<String> =
        std::sync::LazyLock::new(|| SigningKey::generate().unwrap().to_pem().to_owned());
    SigningKey::from_pem(&PEM).unwrap()
}

/// Path and query of a group.
pub(crate) fn group(name: &str) -> String {
    format!("/subscriptions/{SUBSCRIPTION}/resourcegroups/{name}?{VERSION}")
}

/// Path of a resource in the group `g`, of the test provider.
pub(crate) fn thing(rest: &str) -> String {
    let query = if rest.contains('?') { "" } else { "?" };
    let and = if rest.contains('?') { "&" } else { "" };
    format!(
        "/subscriptions/{SUBSCRIPTION}/resourceGroups/g/providers/Microsoft.Test/{rest}{query}{and}{THINGS}"
    )
}

/// A provider that does what tests need, including errors that a provider should never make.
#[derive(Default)]
pub(crate) struct Things {
    /// How many resources are left in groups that are emptied; each call removes one.
    pub(crate) left: AtomicUsize,
    /// How often it was called to empty a group.
    pub(crate) asked: AtomicUsize,
    /// Whether it has no resources.
    pub(crate) none: AtomicBool,
}

const VERSIONS: &[&str] = &["2026-01-01", "2025-01-01"];

type Kind = ResourceType<Things>;
type Row = Operation<Things>;

const fn kind(path: &'static str, operations: &'static [Row]) -> Kind {
    ResourceType {
        path,
        versions: VERSIONS,
        schema: None,
        members: None,
        operations,
    }
}

/// A response that shows the call.
fn tell(name: &'static str, call: &Call) -> Result<Response, ArmError> {
    let request = &call.request;
    Ok(Response::ok(json!({
        "operation": name,
        "names": request.path.names,
        "version": request.api_version,
        "query": request.query,
        "body": request.body,
        "ifMatch": request.if_match,
        "ifNoneMatch": request.if_none_match,
        "principal": request.principal.name,
        "base": request.base_url,
    })))
}

macro_rules! told {
    ($verb:expr, $name:literal) => {
        Row::read($verb, $name, |_, call| Box::pin(async { tell($name, call) }))
    };
}

macro_rules! told_write {
    ($verb:expr, $name:literal) => {
        Row::write(
            $verb,
            $name,
            |_, call| Box::pin(async { tell($name, call) }),
            |_, call| Box::pin(async { tell($name, call) }),
        )
    };
}

const THING: Kind = ResourceType {
    path: "things",
    versions: VERSIONS,
    schema: None,
    members: Some(Members {
        list: |things, subscription, group| {
            Box::pin(async move {
                let none = things.none.load(Ordering::Relaxed);
                Ok(if none {
                    Vec::new()
                } else {
                    listed(subscription, group)
                })
            })
        },
        delete: |things, _, _| Box::pin(async { Ok(things.emptied()) }),
    }),
    operations: &[
        told!(Verb::Get, "Things_Get"),
        told!(Verb::List, "Things_ListByResourceGroup"),
        told_write!(Verb::Put, "Things_CreateOrUpdate"),
        told_write!(Verb::Delete, "Things_Delete"),
        told_write!(Verb::Action("poke"), "Things_Poke"),
        told_write!(Verb::Action("link"), "Things_CreateLink"),
        Row::not_yet(Verb::Action("stop"), "Things_Stop"),
        told!(Verb::List, "Things_List").at(Scope::Subscription),
    ],
};

impl Namespace for Things {
    const NAME: &'static str = "Microsoft.Test";
    const TYPES: &'static [&'static ResourceType<Self>] = &[
        &THING,
        &kind("things/parts", &[told!(Verb::Get, "Parts_Get")]),
        &kind(
            "broken",
            &[Row::read(Verb::Get, "Broken_Get", |_, _| {
                Box::pin(async { Err(ArmError::internal("the cause with a secret in it")) })
            })],
        ),
        &kind(
            "panics",
            &[Row::read(Verb::Get, "Panics_Get", |_, _| {
                Box::pin(async { panic!("on purpose") })
            })],
        ),
        &kind(
            "slow",
            &[Row::read(Verb::Get, "Slow_Get", |_, _| {
                Box::pin(std::future::pending())
            })],
        ),
        &kind(
            "operations",
            &[told!(Verb::List, "Operations_List").at(Scope::Tenant)],
        ),
    ];
}

fn listed(subscription: &str, resource_group: Option<&str>) -> Vec<Value> {
    ["g", "other"]
        .into_iter()
        .filter(|group| resource_group.is_none_or(|wanted| wanted.eq_ignore_ascii_case(group)))
        .map(|group| {
            json!({
                "id": resource_id(subscription, group, "Microsoft.Test", &[("things", "t")]),
                "name": "t", "type": "Microsoft.Test/things", "location": "local", "tags": {},
                "createdTime": "2026-01-01T00:00:00Z", "changedTime": "2026-01-01T00:00:00Z", "provisioningState": "Succeeded",
            })
        })
        .collect()
}

impl Things {
    fn emptied(&self) -> usize {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let left = self.left.load(Ordering::Relaxed);
        if left > 0 {
            self.left.store(left - 1, Ordering::Relaxed);
        }
        left
    }
}

/// Permits all actions but those with these prefixes, and keeps the activity log.
pub(crate) struct Guard {
    /// Actions that are refused.
    pub(crate) forbidden: Mutex<Vec<&'static str>>,
    /// The entries of the activity log.
    pub(crate) activities: Mutex<Vec<Activity>>,
    log: StoreLog,
}

#[async_trait]
impl Authorizer for Guard {
    async fn may(&self, _: &Principal, action: &str, _: &ResourcePath) -> Result<bool, ArmError> {
        Ok(!self.forbidden.lock().unwrap().contains(&action))
    }

    async fn reaches(&self, _: &Principal, _: &ResourcePath) -> Result<bool, ArmError> {
        Ok(true)
    }
}

#[async_trait]
impl ActivityLog for Guard {
    async fn record(&self, activity: Activity) {
        self.activities.lock().unwrap().push(activity.clone());
        self.log.record(activity).await;
    }
}
