//! A new cluster from another one's backup: what the other was to be, its state of a second, and everything else its own.

use arm_kernel::{quote, schema::prune, store_error};
use arm_wire::{ArmError, ErrorCode};
use base_sealer::Sealer;
use cluster_spec::RestoreSpec;
use control_records::{ClusterRecord, DeletedRecord, key, principal::has_made_kubelet_identity};
use control_store::list_records;
use serde_json::{Value, json};

use super::{
    change::{RESTORE, restored},
    draft::{Context, Draft, Name},
    named::ASSIGNED,
    put,
    transaction::secret_name,
};
use crate::{ContainerService, api_versions::API_VERSIONS, properties::CLUSTER, records::ClusterPath};

/// A cluster that there is a backup of.
pub(crate) struct Source {
    /// What it is, or was, to be.
    pub(crate) record: ClusterRecord,
    /// When it was deleted; `None`: it is there.
    pub(crate) deleted: Option<jiff::Timestamp>,
}

impl ContainerService {
    /// Clusters that were deleted and whose backups may still be there, the newest first.
    pub(crate) async fn deleted(&self, subscription: &str) -> Result<Vec<Source>, ArmError> {
        let (found, _) = list_records::<DeletedRecord>(&*self.store, key::DELETED)
            .await
            .map_err(store_error)?;
        let mut sources: Vec<Source> = found
            .into_iter()
            .map(|(_, stored)| stored.value)
            .filter(|deleted| deleted.subscription.eq_ignore_ascii_case(subscription))
            .filter_map(|deleted| {
                Some(Source {
                    record: *deleted.last?,
                    deleted: Some(deleted.deleted_at),
                })
            })
            .collect();
        sources.sort_by_key(|source| std::cmp::Reverse(source.deleted));
        Ok(sources)
    }

    /// The cluster of that name; the one deleted last, where there is none; the one with that uid, where one is given.
    pub(crate) async fn source(&self, at: ClusterPath<'_>, uid: Option<&str>) -> Result<Source, ArmError> {
        let meant = |record: &ClusterRecord| uid.is_none_or(|uid| record.uid == uid);
        if let Some(found) = self.find(at).await?
            && meant(&found.record.value)
        {
            return Ok(Source {
                record: found.record.value,
                deleted: None,
            });
        }
        let named = |record: &ClusterRecord| {
            record.resource_group.eq_ignore_ascii_case(at.group)
                && record.name.eq_ignore_ascii_case(at.cluster)
        };
        let mut deleted = self.deleted(at.subscription).await?;
        deleted.retain(|source| named(&source.record) && meant(&source.record));
        deleted.into_iter().next().ok_or_else(|| {
            let which = uid.map_or_else(String::new, |uid| format!(" with the uid {}", quote(uid)));
            let message = format!(
                "There is no cluster {}{which} in the resource group {}, and none was deleted within the last seven days.",
                quote(at.cluster),
                quote(at.group)
            );
            ArmError::new(ErrorCode::RESOURCE_NOT_FOUND, message)
        })
    }
}

/// What would have to be sent to have a cluster made like this one: nothing that is its own.
pub(crate) fn desired_body(source: &ClusterRecord, sealer: &Sealer) -> Result<Value, ArmError> {
    let mut body = source.body().clone();
    if let Some(members) = body.as_object_mut() {
        members.remove("eTag");
        // Of identities that are resources of their own, the same; of those that are the cluster's, one of its own.
        if let Some(Value::Object(mut identity)) = members.remove("identity") {
            identity.retain(|name, _| ["type", ASSIGNED].contains(&name.as_str()));
            members.insert("identity".to_owned(), Value::Object(identity));
        }
    }
    let made = has_made_kubelet_identity(&body);
    if let Some(properties) = body.get_mut("properties").and_then(Value::as_object_mut) {
        for own in ["nodeResourceGroup", "dnsPrefix", "fqdn"] {
            properties.remove(own);
        }
        if made {
            properties.remove("identityProfile");
        }
        if properties
            .get("servicePrincipalProfile")
            .is_some_and(|profile| profile["clientId"] == json!("msi"))
        {
            properties.remove("servicePrincipalProfile");
        }
        let pools = properties
            .get_mut("agentPoolProfiles")
            .and_then(Value::as_array_mut);
        for pool in pools.into_iter().flatten().filter_map(Value::as_object_mut) {
            pool.remove("eTag");
            // What it was made from may be gone; what it took of that is in its own properties.
            pool.remove("creationData");
        }
    }
    for (path, sealed) in &source.sealed {
        let secret = sealer
            .unseal(&secret_name(&source.uid, path), sealed)
            .map_err(ArmError::internal)?;
        let secret = String::from_utf8_lossy(&secret).into_owned();
        let mut place = &mut body;
        for part in path.split('.') {
            place = &mut place[part];
        }
        *place = json!(secret);
    }
    Ok(body)
}

/// Decides the making of a cluster from another's backup: `body` is what [`desired_body`] gives of it. Where it is to be there must be none.
pub(crate) fn decide(
    context: &Context<'_>,
    name: &Name<'_>,
    present: Option<&ClusterRecord>,
    body: &Value,
    restore: &RestoreSpec,
) -> Result<Draft, ArmError> {
    if let Some(present) = present {
        let message = format!(
            "There is a cluster {} in the resource group {} already; give another name with 'as'.",
            quote(&present.name),
            quote(&present.resource_group)
        );
        return Err(ArmError::new(ErrorCode::CONFLICT, message).target("as"));
    }
    // A canonical body, whatever the caller's api-version, without what only older versions had.
    let newest = Context {
        api_version: API_VERSIONS[0],
        ..*context
    };
    let mut body = body.clone();
    prune(&CLUSTER, &mut body, newest.api_version);
    let mut draft = put::put(&newest, name, None, &body)?;
    draft.record.state = restored(&draft.record.state, restore)?;
    RESTORE.clone_into(&mut draft.operation.name);
    Ok(draft)
}
