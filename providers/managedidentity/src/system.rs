//! `identities/default`, at any resource: its system-assigned identity. Of the resources here, clusters have
//! one.

use arm_ids::ResourcePath;
use arm_kernel::{Operation, ResourceType, Scope, Verb, quote, store_error};
use arm_wire::{ArmError, ErrorCode, Request, Response};
use control_records::{directory, principal};
use serde_json::{Value, json};

use crate::{API_VERSIONS, ManagedIdentity, NAMESPACE};

/// The only name of such an identity.
const NAME: &str = "default";

pub(crate) const TYPE: ResourceType<ManagedIdentity> = ResourceType {
    path: "identities",
    versions: API_VERSIONS,
    schema: None,
    members: None,
    operations: &[Operation::read(
        Verb::Get,
        "SystemAssignedIdentities_GetByScope",
        |provider, call| Box::pin(get(provider, &call.request)),
    )
    .at(Scope::Resource)],
};

async fn get(provider: &ManagedIdentity, request: &Request) -> Result<Response, ArmError> {
    let asked = request.path.name(0).unwrap_or_default();
    let parent = request.path.parent.as_deref();
    let is_cluster = |path: &&ResourcePath| {
        path.is_item() && path.namespace_is("Microsoft.ContainerService") && path.type_is("managedClusters")
    };
    if let Some(path) = parent
        .filter(is_cluster)
        .filter(|_| asked.eq_ignore_ascii_case(NAME))
    {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let (subscription, group) = (text(&path.subscription), text(&path.resource_group));
        let name = path.name(0).unwrap_or_default();
        let found = directory::cluster_named(&*provider.store, &subscription, &group, name).await;
        let shown = found.map_err(store_error)?.and_then(|found| {
            let cluster = found.value;
            shown(path, cluster.body(), &cluster.spec().location)
        });
        if let Some(shown) = shown {
            return Ok(Response::ok(shown));
        }
    }
    // The same error for a missing resource and for one without a system-assigned identity: a user-assigned
    // one is read at its own path.
    let message = format!(
        "The resource {} has no system-assigned identity {}.",
        parent.map(|path| quote(&path.to_string())).unwrap_or_default(),
        quote(asked)
    );
    Err(ArmError::new(ErrorCode::RESOURCE_NOT_FOUND, message))
}

/// The identity of a cluster with this body. There is no `clientSecretUrl`: it has no secret.
fn shown(cluster: &ResourcePath, body: &Value, location: &str) -> Option<Value> {
    let own = principal::of_cluster(body)
        .into_iter()
        .find(|identity| !identity.of_kubelets)?;
    Some(json!({
        "id": format!("{cluster}/providers/{NAMESPACE}/identities/{NAME}"),
        "name": NAME,
        "type": format!("{NAMESPACE}/identities"),
        "location": location,
        "tags": body.get("tags").cloned().unwrap_or_else(|| json!({})),
        "properties": {
            "tenantId": body.pointer("/identity/tenantId"),
            "principalId": own.object_id,
            "clientId": own.client_id,
        },
    }))
}
