//! `managedClusters/trustedAccessRoleBindings`: identities that may do something in a cluster, without a kubeconfig and without anybody's
//! help in the cluster; and the roles that there are for them.
//!
//! The API server knows such an identity by its tokens, as it knows everybody of the stamp's directory (`aadProfile`). What it may is a binding in
//! the cluster, which the cluster's loop keeps by the record. An answer waits for the loop, as that of a kubeconfig does.

use std::sync::LazyLock;

use arm_ids::ResourcePath;
use arm_kernel::{
    Call, Items, Mode, Operation, Purpose, Resource as _, ResourceType, Scope, Verb, get, quote,
    schema::{Node, Problems, Schema},
};
use arm_wire::{ArmError, ErrorCode, Response};
use cluster_spec::{TRUSTED_ROLES, TRUSTED_SOURCE, TrustedRole, TrustedRule};
use control_records::{ChildRecord, ObservedRecord, child::TRUSTED_BINDINGS};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{MOST, TABLE, check_name, delete_bound, found, named, put_bound};
use crate::{
    ContainerService, ProvisioningState,
    api_versions::API_VERSIONS,
    children::{Asked, Child, Document, State},
    clusters::credentials::until,
    records::{ClusterPath, StoredCluster},
};

type Row = Operation<ContainerService>;
type Bindings = Child<Trusted>;

/// When trusted access came.
const SINCE: &str = "2023-09-01";
/// The longest name of a binding.
const LONGEST_NAME: usize = 24;

pub(crate) const TYPE: ResourceType<ContainerService> = ResourceType {
    path: "managedClusters/trustedAccessRoleBindings",
    versions: API_VERSIONS,
    schema: Some(Schema {
        title: "TrustedAccessRoleBinding",
        table: || &TABLE,
        resource: "trusted",
    }),
    members: None,
    operations: &[
        Row::get::<Bindings>("TrustedAccessRoleBindings_Get").since(SINCE),
        Row::write(
            Verb::Put,
            "TrustedAccessRoleBindings_CreateOrUpdate",
            |provider, call| Box::pin(put_trusted(provider, call, Mode::Commit)),
            |provider, call| Box::pin(put_trusted(provider, call, Mode::Preview)),
        )
        .since(SINCE),
        Row::write(
            Verb::Delete,
            "TrustedAccessRoleBindings_Delete",
            |provider, call| Box::pin(delete_trusted(provider, call)),
            |provider, call| Box::pin(delete_bound::<Trusted>(provider, call, Mode::Preview)),
        )
        .since(SINCE),
        Row::list::<Bindings>("TrustedAccessRoleBindings_List").since(SINCE),
    ],
};

/// The roles that there are.
pub(crate) const ROLES: ResourceType<ContainerService> = ResourceType {
    path: "locations/trustedAccessRoles",
    versions: API_VERSIONS,
    schema: None,
    members: None,
    operations: &[Row::items("TrustedAccessRoles_List", |provider, call| {
        Box::pin(async {
            provider.check_location(&call.request.path)?;
            let roles = TRUSTED_ROLES.iter();
            Ok(Items::Keyed(
                roles.map(|role| (role.full_name(), document(role))).collect(),
            ))
        })
    })
    .at(Scope::Subscription)
    .since(SINCE)],
};

static TREE: LazyLock<Node> = LazyLock::new(|| TABLE.tree("trusted"));

const SOURCE: &str = "properties.sourceResourceId";

/// See the module.
pub(crate) enum Trusted {}

impl Document for Trusted {
    const KIND: &'static str = TRUSTED_BINDINGS;
    const MOST: usize = MOST;

    fn tree() -> &'static Node {
        &TREE
    }

    fn identity(body: &Value) -> Option<ResourcePath> {
        named(body, "/properties/sourceResourceId")
    }

    fn complete(asked: &Asked<'_>, properties: &mut Map<String, Value>, problems: &mut Problems) {
        check_name(asked.name, LONGEST_NAME, problems);
        let cluster = quote(&asked.cluster.name);
        let spec = asked.cluster.spec();
        if spec.directory.is_none() {
            let message = format!(
                "The cluster {cluster} does not know the identities of the stamp; set properties.aadProfile of the cluster first (az aks \
                 update --enable-aad)."
            );
            problems.add(ErrorCode::OPERATION_NOT_ALLOWED, "properties", message);
        } else if spec.stopped {
            let message = format!("The cluster {cluster} is stopped; start it first (az aks start).");
            problems.add(ErrorCode::OPERATION_NOT_ALLOWED, "properties", message);
        }
        let source = properties.get("sourceResourceId").and_then(Value::as_str);
        if !problems.has(SOURCE) {
            found(asked, source, SOURCE, problems);
        }
        check_roles(properties, problems);
    }

    fn state(cluster: &StoredCluster, record: &ChildRecord) -> Option<ProvisioningState> {
        Some(
            if is_granted(
                cluster.observed.as_ref(),
                &record.name,
                record.system_data.modified_at,
            ) {
                ProvisioningState::Succeeded
            } else if record.generation == 1 {
                ProvisioningState::Creating
            } else {
                ProvisioningState::Updating
            },
        )
    }
}

/// Each role is one that there is, and is named once. They are kept in the spelling of the list.
fn check_roles(properties: &mut Map<String, Value>, problems: &mut Problems) {
    let target = "properties.roles";
    let Some(Value::Array(roles)) = properties.get_mut("roles") else {
        if !problems.has(target) {
            let message = format!("The required property '{target}' is missing.");
            problems.add(ErrorCode::MISSING_PARAMETER, target, message);
        }
        return;
    };
    let mut known: Vec<&TrustedRole> = Vec::new();
    for (index, asked) in roles.iter_mut().enumerate() {
        let text = asked.as_str().unwrap_or_default();
        let problem = match TrustedRole::named(text) {
            None => {
                let all: Vec<String> = TRUSTED_ROLES.iter().map(TrustedRole::full_name).collect();
                format!("The role {} is not one of {}.", quote(text), all.join(", "))
            }
            Some(role) if known.contains(&role) => format!("The role {} is named twice.", quote(text)),
            Some(role) => {
                known.push(role);
                *asked = json!(role.full_name());
                continue;
            }
        };
        problems.add(
            ErrorCode::INVALID_PARAMETER,
            format!("{target}[{index}]"),
            problem,
        );
    }
}

/// Whether a binding, or a later state of it, works in the cluster.
fn is_granted(observed: Option<&ObservedRecord>, name: &str, changed_at: Timestamp) -> bool {
    let granted = observed.and_then(|observed| observed.trusted.get(&name.to_ascii_lowercase()));
    granted.is_some_and(|granted| *granted >= changed_at)
}

/// A role as the API shows it.
fn document(role: &TrustedRole) -> Value {
    let rule = |rule: &TrustedRule| {
        json!({
            "verbs": rule.verbs,
            "apiGroups": rule.groups,
            "resources": rule.resources,
            "resourceNames": [],
            "nonResourceURLs": rule.paths,
        })
    };
    json!({
        "sourceResourceType": TRUSTED_SOURCE,
        "name": role.name,
        "rules": role.rules.iter().map(rule).collect::<Vec<_>>(),
    })
}

async fn put_trusted(provider: &ContainerService, call: &Call, mode: Mode) -> Result<Response, ArmError> {
    let answer = put_bound::<Trusted>(
        provider,
        call,
        mode,
        "Microsoft.ContainerService/managedClusters/trustedAccessRoleBindings/write",
        "Microsoft.ManagedIdentity/userAssignedIdentities/read",
    )
    .await?;
    if mode == Mode::Preview {
        return Ok(answer);
    }
    let path = &call.request.path;
    let state = Bindings::read(provider, path, Purpose::Answer).await?;
    let Some(changed_at) = state.changed_at() else {
        // It was deleted meanwhile.
        return Ok(answer);
    };
    let name = ClusterPath::of(path)?.child;
    wait(provider, &state, |observed| {
        is_granted(observed, name, changed_at)
    })
    .await?;
    match get::<Bindings>(provider, call).await {
        Ok(now) => Ok(Response {
            body: now.body,
            ..answer
        }),
        Err(_gone) => Ok(answer),
    }
}

async fn delete_trusted(provider: &ContainerService, call: &Call) -> Result<Response, ArmError> {
    let answer = delete_bound::<Trusted>(provider, call, Mode::Commit).await?;
    let path = &call.request.path;
    let name = ClusterPath::of(path)?.child.to_ascii_lowercase();
    let state = Bindings::read(provider, path, Purpose::Answer).await?;
    if state.changed_at().is_none() {
        wait(provider, &state, |observed| {
            !observed.is_some_and(|observed| observed.trusted.contains_key(&name))
        })
        .await?;
    }
    Ok(answer)
}

/// Waits for the cluster's loop, where something can be granted at all: its API server has answered once, and it does not stand still.
async fn wait(
    provider: &ContainerService,
    state: &State,
    is_so: impl Fn(Option<&ObservedRecord>) -> bool + Send + Sync,
) -> Result<(), ArmError> {
    let Some(cluster) = state.cluster() else {
        return Ok(());
    };
    let record = &cluster.record.value;
    let formed = cluster.observed.as_ref().is_some_and(|observed| observed.formed);
    if formed && !record.spec().stopped {
        // Where the API server does not answer now, provisioningState says that it is not done.
        until(&provider.env, &*provider.store, &record.uid, is_so).await?;
    }
    Ok(())
}
