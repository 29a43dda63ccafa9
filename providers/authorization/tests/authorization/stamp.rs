//! A stamp in memory with the real edge, `Microsoft.Resources` and `Microsoft.Authorization`, and the routes
//! of the other namespaces with handlers that do nothing.

use std::{ops::Deref, sync::Arc};

use arm_kernel::{AccessControl, Call, Mode, Namespace as _, Provider, Route, ServiceLog, TagsWish, routes};
use arm_testkit::{ARM, Parts, SECRET};
pub(crate) use arm_testkit::{Answer, GROUPS, SUBSCRIPTION, TENANT};
use arm_wire::{ArmError, PrincipalKind, Response};
use async_trait::async_trait;
use control_records::{PrincipalRecord, key};
use control_store::Txn;
use http::StatusCode;
use identity::{IDENTITY_NAMESPACE, IdentityApi};
use identity_directory as directory;
use providers_authorization::{Authorization, RoleAuthorizer};
use providers_containerregistry::ContainerRegistry;
use providers_containerservice::{BackupApi, ContainerService, HistoryApi};
use providers_infrastructure::{Compute, Network};
use providers_insights::Insights;
use providers_managedidentity::ManagedIdentity;
use providers_resources::{Features, Subscriptions};
use serde_json::{Value, json};

pub(crate) const OTHER: &str = "0b0e2b6c-93d1-4b6f-8d0a-1c2d3e4f5a6b";
/// Of `Microsoft.Authorization` and locks.
pub(crate) const ROLES: &str = "api-version=2022-04-01";
pub(crate) const LOCKS: &str = "api-version=2016-09-01";

/// A principal with a token.
#[derive(Debug, Clone)]
pub(crate) struct Who {
    pub(crate) id: String,
    token: String,
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

/// The routes of a namespace, with empty responses.
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
        let shell = |namespace, routes| -> Arc<dyn Provider> { Arc::new(Shell { namespace, routes }) };
        let inner = arm_testkit::Stamp::new(&[OTHER], |env, store| {
            let roles = Arc::new(RoleAuthorizer::new(Arc::clone(store)));
            Parts {
                providers: vec![
                    shell(
                        providers_containerservice::NAMESPACE,
                        routes::<ContainerService>(),
                    ),
                    shell("Landfall.Backup", routes::<BackupApi>()),
                    shell("Landfall.ContainerService", routes::<HistoryApi>()),
                    shell(providers_managedidentity::NAMESPACE, routes::<ManagedIdentity>()),
                    shell(
                        providers_containerregistry::NAMESPACE,
                        routes::<ContainerRegistry>(),
                    ),
                    shell(IDENTITY_NAMESPACE, routes::<IdentityApi>()),
                    shell(Compute::NAME, routes::<Compute>()),
                    shell(Network::NAME, routes::<Network>()),
                    shell(Insights::NAME, routes::<Insights>()),
                    shell(Features::NAME, routes::<Features>()),
                    shell(Subscriptions::NAME, routes::<Subscriptions>()),
                    Arc::new(Authorization::new(env.clone(), Arc::clone(store), TENANT)),
                ],
                access: AccessControl {
                    authorizer: Arc::clone(&roles) as Arc<dyn arm_kernel::Authorizer>,
                    locks: roles,
                    activity: Arc::new(ServiceLog),
                },
            }
        })
        .await;
        let owner = somebody(&inner, "owner").await;
        inner.make_owner(&owner.id).await;
        for group in ["g", "h"] {
            inner.group(&owner.token, group).await;
        }
        Self { inner, owner }
    }

    /// A new principal, without roles, with a token.
    pub(crate) async fn principal(&self, login: &str) -> Who {
        somebody(&self.inner, login).await
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

    /// The record of a principal.
    pub(crate) async fn record(&self, who: &Who) -> PrincipalRecord {
        let found = control_store::get_record(&*self.store, &key::principal(&who.id)).await;
        found.unwrap().unwrap().value
    }

    /// Sends an ARM request.
    pub(crate) async fn arm(&self, who: &Who, method: &str, path: &str, body: Option<Value>) -> Answer {
        self.inner.ask(&who.token, method, path, body).await
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
        self.inner.reaper(Vec::new())
    }
}

async fn somebody(stamp: &arm_testkit::Stamp, login: &str) -> Who {
    let id = stamp.principal(PrincipalKind::Application, login).await;
    let token = stamp.client_token(login, SECRET, ARM).await.unwrap();
    Who { id, token }
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
