//! A decision about a cluster as one transaction: desired, operation, events, the operations that it ends,
//! and the resource groups that it depends on. Reads; writes nothing.

use std::collections::BTreeMap;

use arm_ids::ResourcePath;
use arm_kernel::{quote, store_error};
use arm_wire::{ArmError, ErrorCode};
use control_records::{
    ClusterRecord, GroupRecord, PrincipalRecord, directory, events, key, principal::of_cluster,
    usage::Amounts,
};
use control_store::{Compare, Txn, put_record};
use serde_json::Value;

use super::{State, draft::ClusterChange, named::resting_on, subnets};
use crate::{ContainerService, NAMESPACE, records::ClusterPath};

/// The most effects for removing a former principal of the cluster, with its memberships.
const MOST_REMOVALS: usize = 24;

/// The name under which a secret of a cluster's body is sealed; `path` is its key in [`ClusterRecord::sealed`].
pub fn secret_name(uid: &str, path: &str) -> String {
    key::sealed::body_secret(uid, path)
}

fn cluster_id(record: &ClusterRecord) -> String {
    arm_ids::resource_id(
        &record.subscription,
        &record.resource_group,
        crate::NAMESPACE,
        &[("managedClusters", &record.name)],
    )
}

impl ContainerService {
    pub(super) async fn transaction(
        &self,
        at: ClusterPath<'_>,
        state: &State,
        change: &ClusterChange,
    ) -> Result<Txn, ArmError> {
        let mut txn = Txn::default();
        if change.makes_groups {
            self.groups(at, &change.record, &mut txn).await?;
        }
        for ended in &change.ended {
            let key = ended.key();
            if let Some(stored) = state.running.iter().find(|stored| stored.value.id == ended.id) {
                txn.compare.push(Compare::At(key.clone(), stored.revision));
            }
            txn.ops.push(put_record(key, ended));
        }
        let record = self.sealed(change)?;
        match &state.found {
            None => txn = directory::new_cluster(txn, &record),
            Some(found) => {
                let key = key::desired(&record.uid);
                txn = txn.at(&key, found.record.revision).with(put_record(key, &record));
                // The last reached state must not change between this read and the write: an abort returns to
                // it.
                let observed = key::observed(&found.record.value.uid);
                txn.compare.push(match found.observed_at {
                    Some(revision) => Compare::At(observed, revision),
                    None => Compare::Absent(observed),
                });
            }
        }
        txn = resting_on(txn, &state.named_at);
        if !record.deleting {
            txn = self.principals(&record, txn).await?;
            if let Some(before) = state.record() {
                txn = self.former_principals(before, &record, txn).await?;
            }
            txn = subnets::joined(txn, &state.vnets, &record);
        }
        let was = state.record().map(|record| Amounts::of(record.spec()));
        let (was, asked) = (was.unwrap_or_default(), Amounts::of(record.spec()));
        txn = state.usage.change(txn, at.subscription, &was, &asked);
        let txn = directory::new_operation(txn, &change.operation);
        let now = self.env.clock.now();
        events::append(&*self.store, txn, &change.record.uid, &change.events, now)
            .await
            .map_err(store_error)
    }

    /// Makes the cluster's principals, together with it or, for a cluster of an earlier release, with its
    /// next change: clients assign roles to them right after the response.
    async fn principals(&self, record: &ClusterRecord, mut txn: Txn) -> Result<Txn, ArmError> {
        for identity in of_cluster(record.body()) {
            let found = identity_directory::principal(&*self.store, &identity.object_id)
                .await
                .map_err(store_error)?;
            if found.is_some() {
                continue;
            }
            let suffix = if identity.of_kubelets { "-agentpool" } else { "" };
            let principal = PrincipalRecord {
                kind: "ManagedIdentity".to_owned(),
                login: identity.client_id,
                display_name: format!("{}{suffix}", record.name),
                resource: Some(cluster_id(record)),
                ..PrincipalRecord::new(&identity.object_id, self.env.clock.now())
            };
            txn = identity_directory::made(txn, &principal);
        }
        Ok(txn)
    }

    /// Removes principals that the cluster no longer uses, after it was given a user-assigned identity.
    async fn former_principals(
        &self,
        before: &ClusterRecord,
        record: &ClusterRecord,
        mut txn: Txn,
    ) -> Result<Txn, ArmError> {
        let now = of_cluster(record.body());
        for former in of_cluster(before.body()) {
            if now.iter().any(|own| own.object_id == former.object_id) {
                continue;
            }
            let id = cluster_id(before);
            let (removals, whole) =
                identity_directory::removals(&*self.store, &former.object_id, &id, MOST_REMOVALS)
                    .await
                    .map_err(store_error)?;
            if !whole {
                let message = format!(
                    "The cluster's identity '{}' is in too many groups to be given up in one step; take it out of some.",
                    former.object_id
                );
                return Err(ArmError::new(ErrorCode::CONFLICT, message));
            }
            txn.compare.extend(removals.compare);
            txn.ops.extend(removals.ops);
        }
        Ok(txn)
    }

    /// The record with the body's secrets sealed into it.
    fn sealed(&self, change: &ClusterChange) -> Result<ClusterRecord, ArmError> {
        let mut record = change.record.clone();
        let client = record
            .body()
            .pointer("/properties/servicePrincipalProfile/clientId");
        if client.and_then(Value::as_str) == Some("msi") {
            return Ok(record);
        }
        for (path, secret) in &change.secrets {
            let sealed = self
                .sealer
                .seal(&secret_name(&record.uid, path), secret.as_bytes())
                .map_err(ArmError::internal)?;
            record.sealed.insert(path.clone(), sealed);
        }
        Ok(record)
    }

    /// The cluster's group, whose deletion must not begin between this read and the write, and its node
    /// resource group: made, or refused where it has another owner.
    async fn groups(
        &self,
        at: ClusterPath<'_>,
        record: &ClusterRecord,
        txn: &mut Txn,
    ) -> Result<(), ArmError> {
        let own = self.group(at).await?;
        if own.value.deleting {
            let message = format!("The resource group {} is being deleted.", quote(at.group));
            return Err(ArmError::new(ErrorCode::RESOURCE_GROUP_BEING_DELETED, message));
        }
        let of_nodes = own
            .value
            .managed_by
            .as_deref()
            .and_then(|id| ResourcePath::parse(id).ok());
        if of_nodes.is_some_and(|id| id.namespace_is(NAMESPACE)) {
            let message = format!(
                "The resource group {} holds the nodes of another cluster and goes with it; choose another group.",
                quote(at.group)
            );
            return Err(ArmError::new(ErrorCode::OPERATION_NOT_ALLOWED, message));
        }
        txn.compare
            .push(Compare::At(key::group(at.subscription, at.group), own.revision));
        let name = &record.spec().node_resource_group;
        let group_key = key::group(at.subscription, name);
        let owner = at.name().id();
        let found = self.read::<GroupRecord>(&group_key).await?;
        let compare = match &found {
            None => Compare::Absent(group_key.clone()),
            Some(found) => {
                let ours = found
                    .value
                    .managed_by
                    .as_ref()
                    .is_some_and(|id| id.eq_ignore_ascii_case(&owner));
                if !ours {
                    let message = format!(
                        "The node resource group {} exists already and does not belong to this cluster; choose another name.",
                        quote(name)
                    );
                    return Err(
                        ArmError::new(ErrorCode::CONFLICT, message).target("properties.nodeResourceGroup")
                    );
                }
                if !found.value.deleting {
                    return Ok(());
                }
                Compare::At(group_key.clone(), found.revision)
            }
        };
        let group = GroupRecord {
            v: 1,
            subscription: at.subscription.to_owned(),
            name: name.clone(),
            location: self.config.location.clone(),
            tags: BTreeMap::new(),
            managed_by: Some(owner),
            deleting: false,
            created_at: self.env.clock.now(),
        };
        txn.compare.push(compare);
        txn.ops.push(put_record(group_key, &group));
        Ok(())
    }
}
