//! `managedClusters/identityBindings`: identities that workloads of a cluster may be, by tokens of their service accounts, without a federated
//! credential for each of them. Which service accounts may, the cluster's own roles say.
//!
//! The token service goes by the records: a binding holds from its first answer on, and not any more once it is deleted.

use std::sync::LazyLock;

use arm_ids::ResourcePath;
use arm_kernel::{
    Call, Mode, Operation, ResourceType, Verb, quote,
    schema::{Node, Problems, Schema},
};
use arm_wire::{ArmError, ErrorCode, Response};
use control_records::{ChildRecord, child::IDENTITY_BINDINGS};
use serde_json::{Map, Value, json};

use super::{MOST, TABLE, check_name, delete_bound, found, named, put_bound};
use crate::{
    ContainerService, ProvisioningState,
    api_versions::API_VERSIONS,
    children::{Asked, Child, Document},
    records::StoredCluster,
};

type Row = Operation<ContainerService>;
type Bindings = Child<Identity>;

/// When identity bindings came.
const SINCE: &str = "2026-04-01";
/// The longest name of a binding.
const LONGEST_NAME: usize = 63;

pub(crate) const TYPE: ResourceType<ContainerService> = ResourceType {
    path: "managedClusters/identityBindings",
    versions: API_VERSIONS,
    schema: Some(Schema {
        title: "IdentityBinding",
        table: || &TABLE,
        resource: "binding",
    }),
    members: None,
    operations: &[
        Row::get::<Bindings>("IdentityBindings_Get").since(SINCE),
        Row::write(
            Verb::Put,
            "IdentityBindings_CreateOrUpdate",
            |provider, call| Box::pin(put_identity(provider, call, Mode::Commit)),
            |provider, call| Box::pin(put_identity(provider, call, Mode::Preview)),
        )
        .since(SINCE),
        Row::write(
            Verb::Delete,
            "IdentityBindings_Delete",
            |provider, call| Box::pin(delete_bound::<Identity>(provider, call, Mode::Commit)),
            |provider, call| Box::pin(delete_bound::<Identity>(provider, call, Mode::Preview)),
        )
        .since(SINCE),
        Row::list::<Bindings>("IdentityBindings_ListByManagedCluster").since(SINCE),
    ],
};

static TREE: LazyLock<Node> = LazyLock::new(|| TABLE.tree("binding"));

const RESOURCE: &str = "properties.managedIdentity.resourceId";

/// See the module.
pub(crate) enum Identity {}

impl Document for Identity {
    const KIND: &'static str = IDENTITY_BINDINGS;
    const MOST: usize = MOST;

    fn tree() -> &'static Node {
        &TREE
    }

    fn identity(body: &Value) -> Option<ResourcePath> {
        named(body, "/properties/managedIdentity/resourceId")
    }

    fn complete(asked: &Asked<'_>, properties: &mut Map<String, Value>, problems: &mut Problems) {
        check_name(asked.name, LONGEST_NAME, problems);
        let issuer = asked.cluster.spec().issuer.as_deref();
        if issuer.is_none() {
            let message = format!(
                "The cluster {} issues no tokens that others know; set properties.oidcIssuerProfile.enabled of the cluster first (az aks \
                 update --enable-oidc-issuer).",
                quote(&asked.cluster.name)
            );
            problems.add(ErrorCode::OPERATION_NOT_ALLOWED, "properties", message);
        }
        if problems.has(RESOURCE) || problems.has("properties.managedIdentity") {
            return;
        }
        let resource = |properties: &Value| {
            let id = properties.pointer("/managedIdentity/resourceId");
            id.and_then(Value::as_str).map(str::to_owned)
        };
        let id = properties
            .get("managedIdentity")
            .and_then(|identity| identity["resourceId"].as_str())
            .map(str::to_owned);
        let before = asked.present.and_then(|present| resource(&present.properties));
        if let (Some(before), Some(id)) = (&before, &id)
            && !before.eq_ignore_ascii_case(id)
        {
            let message = format!(
                "'{RESOURCE}' can only be set at creation; it is {}. Make another binding.",
                quote(before)
            );
            problems.add(ErrorCode::PROPERTY_CHANGE_NOT_ALLOWED, RESOURCE, message);
            return;
        }
        if let Some(identity) = found(asked, id.as_deref(), RESOURCE, problems) {
            properties.insert(
                "managedIdentity".to_owned(),
                json!({
                    "resourceId": id,
                    "objectId": identity.principal_id,
                    "clientId": identity.client_id,
                    "tenantId": identity.tenant_id,
                }),
            );
            properties.insert("oidcIssuer".to_owned(), json!({ "oidcIssuerUrl": issuer }));
        }
    }

    fn state(_: &StoredCluster, _: &ChildRecord) -> Option<ProvisioningState> {
        Some(ProvisioningState::Succeeded)
    }
}

/// Whoever binds an identity lets others log in as it: that takes the permission that a federated credential takes, as in AKS.
async fn put_identity(provider: &ContainerService, call: &Call, mode: Mode) -> Result<Response, ArmError> {
    put_bound::<Identity>(
        provider,
        call,
        mode,
        "Microsoft.ContainerService/managedClusters/identityBindings/write",
        "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials/write",
    )
    .await
}
