//! A stamp in memory: the real edge, token service and roles.

use std::{ops::Deref, sync::Arc};

use arm_kernel::{AccessControl, Authorizer, Provider, StoreLog};
pub(crate) use arm_testkit::{ARM, Answer, GRAPH, PASSWORD, TENANT};
use arm_testkit::{Parts, SECRET};
use arm_wire::PrincipalKind;
use control_records::{access, activity::ActivityRecord};
use control_store::{Txn, list_records};
use providers_authorization::{Authorization, RoleAuthorizer};
use serde_json::Value;

/// A principal with tokens for both APIs.
#[derive(Debug, Clone)]
pub(crate) struct Who {
    pub(crate) id: String,
    pub(crate) login: String,
    graph: String,
    pub(crate) arm: String,
}

pub(crate) struct Stamp {
    inner: arm_testkit::Stamp,
    /// Owner of the stamp.
    pub(crate) owner: Who,
}

impl Deref for Stamp {
    type Target = arm_testkit::Stamp;

    fn deref(&self) -> &arm_testkit::Stamp {
        &self.inner
    }
}

impl Stamp {
    pub(crate) async fn new() -> Self {
        let inner = arm_testkit::Stamp::new(&[], |env, store| {
            let roles = Arc::new(RoleAuthorizer::new(Arc::clone(store)));
            let own = Authorization::new(env.clone(), Arc::clone(store), TENANT);
            Parts {
                providers: vec![Arc::new(own) as Arc<dyn Provider>],
                access: AccessControl {
                    authorizer: Arc::clone(&roles) as Arc<dyn Authorizer>,
                    locks: roles,
                    activity: Arc::new(StoreLog::new(env.clone(), Arc::clone(store))),
                },
            }
        })
        .await;
        let owner = somebody(&inner, PrincipalKind::Application, "owner").await;
        inner.make_owner(&owner.id).await;
        Self { inner, owner }
    }

    /// A new principal, without roles, with tokens.
    pub(crate) async fn somebody(&self, kind: PrincipalKind, login: &str) -> Who {
        somebody(&self.inner, kind, login).await
    }

    /// Gives a principal a role at the whole stamp.
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

    /// Sends a request with a token.
    pub(crate) async fn with_token(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> Answer {
        self.inner.ask(token, method, path, body).await
    }

    /// Sends a request to Graph.
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

    /// The activity log outside subscriptions: actions and their outcomes.
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

async fn somebody(stamp: &arm_testkit::Stamp, kind: PrincipalKind, login: &str) -> Who {
    let id = stamp.principal(kind, login).await;
    let of = async |audience: &str| match kind {
        PrincipalKind::Application => stamp.client_token(login, SECRET, audience).await,
        PrincipalKind::User => stamp.password_token(login, PASSWORD, audience).await,
    };
    Who {
        id,
        login: login.to_owned(),
        graph: of(GRAPH).await.unwrap(),
        arm: of(ARM).await.unwrap(),
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
