//! A cluster's next generation: what all decisions about clusters and pools have in common. Pure.

use std::collections::BTreeMap;

use arm_kernel::{etag, system_data};
use arm_wire::{ArmError, ErrorCode, Principal};
use base_env::Ids;
use cluster_versions::Version;
use control_records::{
    ClusterRecord, Decided, DesiredState, Event, OperationRecord, Owner, Part, SystemData,
};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::named::Named;
use super::subnets::Vnet;
use crate::{NAMESPACE, ProviderConfig, images::Images, rehearsal::seen::Use, snapshots::named as snapshots};

/// Where the service principal's secret is kept in [`ClusterRecord::sealed`].
pub const SERVICE_PRINCIPAL_SECRET: &str = "properties.servicePrincipalProfile.secret";

/// Everything a decision depends on beside the records.
pub(crate) struct Context<'a> {
    pub(crate) config: &'a ProviderConfig,
    pub(crate) ids: &'a dyn Ids,
    pub(crate) now: Timestamp,
    pub(crate) principal: &'a Principal,
    pub(crate) api_version: &'a str,
    /// Identities that the body names, those that there are.
    pub(crate) named: &'a Named,
    /// Snapshots that the body names, those that there are.
    pub(crate) snapshots: &'a snapshots::Named,
    /// Deprecated APIs in use in the cluster; empty if they were not read.
    pub(crate) uses: &'a [Use],
    /// The node images that there are.
    pub(crate) images: &'a Images,
    /// Tenants' VNETs of the subscription.
    pub(crate) vnets: &'a [Vnet],
    /// The oldest version that the control plane runs, once it has run.
    pub(crate) running: Option<Version>,
    /// Whether the control plane is what it was last asked to be, as far as seen.
    pub(crate) base_reached: bool,
    /// Whether answers tell of the cluster, and so of each of its pools, as stopped.
    pub(crate) shown_stopped: bool,
}

/// Which cluster, in the casing of the request.
pub(crate) struct Name<'a> {
    pub(crate) subscription: &'a str,
    pub(crate) group: &'a str,
    pub(crate) cluster: &'a str,
}

impl Name<'_> {
    /// The cluster's ARM id.
    pub(crate) fn id(&self) -> String {
        cluster_id(self.subscription, self.group, self.cluster)
    }
}

/// A cluster's ARM id.
pub(crate) fn cluster_id(subscription: &str, group: &str, cluster: &str) -> String {
    arm_ids::resource_id(subscription, group, NAMESPACE, &[("managedClusters", cluster)])
}

/// A cluster's next generation, before what it means for the requests that came before it ([`Draft::follow`]).
pub(crate) struct Draft {
    pub(crate) record: ClusterRecord,
    pub(crate) operation: OperationRecord,
    /// Secrets of the body by property path, to be sealed into the record.
    pub(crate) secrets: Vec<(String, String)>,
    /// Whether the group of its nodes is made with it where it is not there.
    pub(crate) makes_groups: bool,
}

/// What is to be written.
pub(crate) struct ClusterChange {
    pub(crate) record: ClusterRecord,
    pub(crate) operation: OperationRecord,
    /// See [`Draft::secrets`].
    pub(crate) secrets: Vec<(String, String)>,
    /// See [`Draft::makes_groups`].
    pub(crate) makes_groups: bool,
    /// Operations that it ends.
    pub(crate) ended: Vec<OperationRecord>,
    /// What is told of it.
    pub(crate) events: Vec<Event>,
}

/// Whether a request asks for the resource to be made, so that nothing it replaces can be meant.
fn creates(present: Option<&ClusterRecord>, pool: Option<&str>) -> bool {
    let Some(present) = present else { return true };
    pool.is_some_and(|pool| !present.spec().pools.iter().any(|spec| spec.name == pool))
}

/// A cluster's `systemData`.
pub(crate) fn system_data_of(record: &ClusterRecord) -> SystemData {
    SystemData {
        created_at: record.created_at,
        created_by: record.created_by.clone(),
        created_by_type: record.created_by_type.clone(),
        modified_at: record.modified_at,
        modified_by: record.modified_by.clone(),
        modified_by_type: record.modified_by_type.clone(),
    }
}

/// What is being deleted can only be waited for.
pub(crate) fn refuse_deleting(record: &ClusterRecord) -> Result<(), ArmError> {
    if record.deleting {
        let message = format!(
            "The cluster '{}' is being deleted (operation {}), which cannot be taken back. Wait until it is gone, for example \
             with 'az aks wait --deleted', then make it anew.",
            record.name, record.operation
        );
        return Err(ArmError::new(ErrorCode::CONFLICT, message));
    }
    Ok(())
}

/// The next generation of a record: systemData, eTags, generations of changed pools, and the operation for it.
///
/// `pool`: the only pool that the request is about; `None` for the whole cluster.
pub(crate) fn advance(
    context: &Context<'_>,
    name: &Name<'_>,
    present: Option<&ClusterRecord>,
    state: DesiredState,
    operation: &str,
    pool: Option<&str>,
) -> Result<Draft, ArmError> {
    let generation = present.map_or(0, |present| present.generation) + 1;
    let uid = present.map_or_else(|| context.ids.short(), |present| present.uid.clone());
    let before = |name: &str| {
        let present = present?;
        let spec = present.spec().pools.iter().find(|pool| pool.name == name)?;
        Some((spec, present.pool_generations.get(name).copied().unwrap_or(0)))
    };
    let state = state.with(|body, decided| {
        set_etags(body, decided, pool, |part| {
            etag(&uid, part, generation, context.now)
        })
    });
    let state = state.map_err(ArmError::internal)?;
    let pool_generations: BTreeMap<String, u64> = state
        .spec()
        .pools
        .iter()
        .map(|spec| {
            let own = match before(&spec.name) {
                Some((old, own)) if old == spec && pool != Some(spec.name.as_str()) => own,
                _ => generation,
            };
            (spec.name.clone(), own)
        })
        .collect();
    let system = system_data::touched(
        present.map(system_data_of).as_ref(),
        context.principal,
        context.now,
    );
    let id = context.ids.uuid().to_string();
    let mut record = ClusterRecord {
        v: 3,
        uid: uid.clone(),
        subscription: name.subscription.to_owned(),
        resource_group: name.group.to_owned(),
        name: name.cluster.to_owned(),
        generation,
        pool_generations,
        state,
        sealed: present.map(|present| present.sealed.clone()).unwrap_or_default(),
        deleting: false,
        operation: id.clone(),
        // `Draft::follow` says what follows from the requests before, once all else is decided.
        requests: present
            .map(|present| present.requests.clone())
            .unwrap_or_default(),
        created_at: system.created_at,
        created_by: system.created_by,
        created_by_type: system.created_by_type,
        modified_at: system.modified_at,
        modified_by: system.modified_by,
        modified_by_type: system.modified_by_type,
    };
    if record
        .body()
        .pointer("/properties/servicePrincipalProfile/clientId")
        == Some(&json!("msi"))
    {
        record.sealed.remove(SERVICE_PRINCIPAL_SECRET);
    }
    let resource_id = match pool {
        Some(pool) => format!("{}/agentPools/{pool}", name.id()),
        None => name.id(),
    };
    Ok(Draft {
        operation: OperationRecord {
            part: pool.map(Part::pool),
            creates: creates(present, pool),
            asked_by: Some(context.principal.object_id.clone()),
            ..OperationRecord::accepted(
                id,
                operation,
                resource_id,
                Owner::Cluster(uid),
                generation,
                context.now,
            )
        },
        record,
        secrets: Vec::new(),
        makes_groups: false,
    })
}

/// A cluster operation changes the eTags of the cluster and all pools, a pool operation only the pool's.
fn set_etags(body: &mut Value, decided: &Decided, pool: Option<&str>, etag: impl Fn(&str) -> String) {
    if pool.is_none() {
        body["eTag"] = json!(etag(""));
    }
    let bodies = body
        .pointer_mut("/properties/agentPoolProfiles")
        .and_then(Value::as_array_mut);
    for body in bodies.into_iter().flatten() {
        let name = body["name"].as_str().unwrap_or_default();
        if pool.is_none_or(|pool| pool == name)
            && let Some(own) = decided.pools.get(name)
        {
            body["eTag"] = json!(etag(&own.incarnation));
        }
    }
}
