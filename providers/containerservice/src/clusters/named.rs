//! Identities that a cluster's body names: which, whether the caller may assign them, and their records. They belong to another provider,
//! so their records are read where they are kept.

use std::collections::BTreeMap;

use arm_access::Scope;
use arm_ids::ResourcePath;
use arm_kernel::{Call, Mode, Mutation, store_error};
use arm_wire::{ArmError, ErrorCode, Principal, PrincipalKind, Response};
use control_records::{ManagedIdentityRecord, key};
use control_store::{Revision, Stored, Txn, get_record};
use serde_json::Value;

use super::{Action, Clusters, State, subnets};
use crate::{ContainerService, records::ClusterPath};

pub(crate) const KUBELET: &str = "kubeletidentity";
pub(crate) const ASSIGNED: &str = "userAssignedIdentities";
const ASSIGN: &str = "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action";
const WRITE: &str = "Microsoft.ContainerService/managedClusters/write";
/// More than are named by anybody who means it; what is wrong with more is said all the same.
const MOST_NAMED: usize = 8;

/// The records of identities by their place.
pub(crate) type Named = BTreeMap<Scope, ManagedIdentityRecord>;

/// The place of an identity, if it is the id of one.
pub(crate) fn identity_path(id: &str) -> Option<Scope> {
    path_of(id).map(|path| Scope::of(&path))
}

/// The id of an identity as a path; `None` for anything else.
pub(crate) fn path_of(id: &str) -> Option<ResourcePath> {
    let path = ResourcePath::parse(id).ok()?;
    let is_one = path.resource_group.is_some()
        && path.parent.is_none()
        && path.is_item()
        && path.namespace_is("Microsoft.ManagedIdentity")
        && path.type_is("userAssignedIdentities");
    is_one.then_some(path)
}

/// The identities that a body names for the cluster.
fn of_cluster(body: &Value) -> Vec<ResourcePath> {
    let assigned = body
        .pointer("/identity")
        .and_then(|identity| identity[ASSIGNED].as_object());
    let named = assigned
        .into_iter()
        .flatten()
        .filter(|(_, value)| !value.is_null());
    named.take(MOST_NAMED).filter_map(|(id, _)| path_of(id)).collect()
}

/// The identity that a body names for the kubelets.
fn of_kubelets(body: &Value) -> Option<ResourcePath> {
    let id = body
        .pointer("/properties/identityProfile")?
        .get(KUBELET)?
        .get("resourceId")?;
    path_of(id.as_str()?)
}

/// PUT of a cluster, whose body may name identities and subnets.
pub(super) async fn put_cluster(
    provider: &ContainerService,
    call: &Call,
    mode: Mode,
) -> Result<Response, ArmError> {
    provider
        .may_assign(call, ClusterPath::of(&call.request.path)?, &call.request.body)
        .await?;
    subnets::put_joined::<Clusters>(provider, call, mode).await
}

impl ContainerService {
    /// Whether the caller may assign what a body names to the cluster at a place; and the cluster's identity, what the kubelets are to have.
    pub(crate) async fn may_assign(
        &self,
        call: &Call,
        at: ClusterPath<'_>,
        body: &Value,
    ) -> Result<(), ArmError> {
        let (mut linked, kubelets) = (of_cluster(body), of_kubelets(body));
        if linked.is_empty() && kubelets.is_none() {
            return Ok(());
        }
        let found = self.find(at).await?;
        let present = found.as_ref().map(|found| found.record.value.body());
        // What is sent back as it was read is no change, and may be an identity that was made for the cluster.
        let had = present.and_then(of_kubelets);
        let kubelets = kubelets.filter(|id| !had.as_ref().is_some_and(|had| had.same(id)));
        linked.extend(kubelets.clone());
        call.check_linked(WRITE, ASSIGN, &linked).await?;
        let Some(kubelets) = kubelets else { return Ok(()) };
        let own = of_cluster(body)
            .into_iter()
            .next()
            .or_else(|| present.and_then(|present| of_cluster(present).into_iter().next()));
        let Some(own) = own else { return Ok(()) };
        let Some(own) = self.identity_at(&own).await? else {
            return Ok(());
        };
        let own = own.value;
        let who = Principal {
            object_id: own.principal_id,
            name: own.client_id,
            tenant_id: own.tenant_id,
            kind: PrincipalKind::Application,
        };
        if call.may_other(&who, ASSIGN, &kubelets).await? {
            return Ok(());
        }
        let message = format!(
            "The cluster using user-assigned managed identity must be granted 'Managed Identity Operator' role to assign kubelet \
             identity: give that role to '{}' at '{kubelets}'.",
            who.object_id
        );
        let error = ArmError::new(ErrorCode::CUSTOM_KUBELET_IDENTITY_MISSING_PERMISSION, message);
        Err(error.target(format!("properties.identityProfile.{KUBELET}.resourceId")))
    }

    pub(crate) async fn identity_at(
        &self,
        path: &ResourcePath,
    ) -> Result<Option<Stored<ManagedIdentityRecord>>, ArmError> {
        get_record(&*self.store, &key_of(path)).await.map_err(store_error)
    }

    /// Reads what a mutation names.
    pub(super) async fn read_identities(
        &self,
        state: &mut State,
        mutation: Mutation<'_, Action>,
    ) -> Result<(), ArmError> {
        let body = match mutation {
            Mutation::Put(body) | Mutation::Act(Action::Recreate { body, .. }) => body,
            Mutation::Act(_) | Mutation::Delete => return Ok(()),
        };
        for path in of_cluster(body).into_iter().chain(of_kubelets(body)) {
            if let Some(found) = self.identity_at(&path).await? {
                state.named.insert(Scope::of(&path), found.value);
                state.named_at.insert(key_of(&path), found.revision);
            }
        }
        Ok(())
    }
}

/// The key of an identity's record.
pub(crate) fn key_of(path: &ResourcePath) -> String {
    key::managed_identity(
        path.subscription.as_deref().unwrap_or_default(),
        path.resource_group.as_deref().unwrap_or_default(),
        path.name(0).unwrap_or_default(),
    )
}

/// The transaction, if the identities and snapshots that it was decided by are as they were.
pub(super) fn resting_on(txn: Txn, named_at: &BTreeMap<String, Revision>) -> Txn {
    named_at
        .iter()
        .fold(txn, |txn, (key, revision)| txn.at(key, *revision))
}
