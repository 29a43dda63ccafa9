//! Decisions that change a cluster record: what they have in common, and the small ones (tags, pools, deletion). Pure.

use std::collections::BTreeMap;

use arm_wire::{ArmError, ErrorCode, Principal};
use base_env::Ids;
use cluster_spec::{ClusterSpec, PoolMode};
use cluster_versions::Version;
use control_records::{ClusterRecord, OperationRecord, OperationStatus};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    NAMESPACE, ProviderConfig,
    cluster::{POOLS, bodies_and_specs, check_count, not_an_object},
    formats::is_pool_name,
    identity::SERVICE_PRINCIPAL_SECRET,
    network,
    pool::{self, Present, Surroundings},
    preconditions::etag,
    problems::{Problems, quote},
    properties::{POOL, TAGS},
    validation,
};

/// Everything a decision depends on beside the records.
pub(crate) struct Context<'a> {
    pub(crate) config: &'a ProviderConfig,
    pub(crate) ids: &'a dyn Ids,
    pub(crate) now: Timestamp,
    pub(crate) principal: &'a Principal,
    pub(crate) api_version: &'a str,
    /// The oldest version that the control plane runs, once it has run.
    pub(crate) running: Option<Version>,
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

/// What is to be written.
pub(crate) struct Change {
    pub(crate) record: ClusterRecord,
    pub(crate) operation: OperationRecord,
    /// Secrets of the body by property path, to be sealed into the record.
    pub(crate) secrets: Vec<(String, String)>,
}

impl Change {
    /// Whether it asks for the resource to be made, so that nothing it replaces can be meant.
    fn creates(present: Option<&ClusterRecord>, pool: Option<&str>) -> bool {
        let Some(present) = present else { return true };
        pool.is_some_and(|pool| !present.spec.pools.iter().any(|spec| spec.name == pool))
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
    body: Value,
    spec: ClusterSpec,
    operation: &str,
    pool: Option<&str>,
) -> Change {
    let generation = present.map_or(0, |present| present.generation) + 1;
    let uid = present.map_or_else(|| context.ids.short(), |present| present.uid.clone());
    let before = |name: &str| {
        let present = present?;
        let spec = present.spec.pools.iter().find(|pool| pool.name == name)?;
        Some((spec, present.pool_generations.get(name).copied().unwrap_or(0)))
    };
    let pool_generations: BTreeMap<String, u64> = spec
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
    let who = &context.principal.name;
    let kind = context.principal.kind.as_str();
    let id = context.ids.uuid().to_string();
    let mut record = ClusterRecord {
        v: 1,
        uid: uid.clone(),
        subscription: name.subscription.to_owned(),
        resource_group: name.group.to_owned(),
        name: name.cluster.to_owned(),
        generation,
        pool_generations,
        body,
        spec,
        sealed: present.map(|present| present.sealed.clone()).unwrap_or_default(),
        deleting: false,
        operation: id.clone(),
        // `course::follow` says what follows from the requests before, once all else is decided.
        course: present.map(|present| present.course.clone()).unwrap_or_default(),
        created_at: present.map_or(context.now, |present| present.created_at),
        created_by: present.map_or(who, |present| &present.created_by).clone(),
        created_by_type: present
            .map_or(kind, |present| &present.created_by_type)
            .to_owned(),
        modified_at: context.now,
        modified_by: who.clone(),
        modified_by_type: kind.to_owned(),
    };
    if record
        .body
        .pointer("/properties/servicePrincipalProfile/clientId")
        == Some(&json!("msi"))
    {
        record.sealed.remove(SERVICE_PRINCIPAL_SECRET);
    }
    set_etags(&mut record, pool);
    let resource_id = match pool {
        Some(pool) => format!("{}/agentPools/{pool}", name.id()),
        None => name.id(),
    };
    Change {
        operation: OperationRecord {
            v: 1,
            id,
            name: operation.to_owned(),
            resource_id,
            cluster: uid,
            generation,
            pool: pool.map(str::to_owned),
            creates: Change::creates(present, pool),
            deletes: false,
            progress: control_records::Progress::default(),
            status: OperationStatus::InProgress,
            started_at: context.now,
            ended_at: None,
            error: None,
        },
        record,
        secrets: Vec::new(),
    }
}

/// A cluster operation changes the eTags of the cluster and all pools, a pool operation only the pool's.
fn set_etags(record: &mut ClusterRecord, pool: Option<&str>) {
    if pool.is_none() {
        record.body["eTag"] = json!(etag(&record.uid, "", record.generation));
    }
    let bodies = record
        .body
        .pointer_mut("/properties/agentPoolProfiles")
        .and_then(Value::as_array_mut);
    for body in bodies.into_iter().flatten() {
        let spec = record
            .spec
            .pools
            .iter()
            .find(|spec| body["name"] == json!(spec.name));
        if let Some(spec) = spec.filter(|spec| pool.is_none_or(|pool| pool == spec.name)) {
            body["eTag"] = json!(etag(&record.uid, &spec.incarnation, record.generation));
        }
    }
}

/// Decides a PATCH: tags are replaced as a whole, nothing else can be changed with it.
pub(crate) fn patch_tags(
    context: &Context<'_>,
    name: &Name<'_>,
    present: &ClusterRecord,
    body: &Value,
) -> Result<Change, ArmError> {
    refuse_deleting(present)?;
    if !body.is_object() {
        return Err(not_an_object());
    }
    let mut problems = Problems::default();
    let mut clean = validation::clean(&TAGS, body, context.api_version, &mut problems);
    problems.into_result()?;
    let mut next = present.body.clone();
    next["tags"] = clean.body.remove("tags").unwrap_or_else(|| json!({}));
    Ok(advance(
        context,
        name,
        Some(present),
        next,
        present.spec.clone(),
        "ManagedClusters_UpdateTags",
        None,
    ))
}

/// Decides a PUT of a pool.
pub(crate) fn put_pool(
    context: &Context<'_>,
    name: &Name<'_>,
    pool: &str,
    present: &ClusterRecord,
    body: &Value,
) -> Result<Change, ArmError> {
    if !is_pool_name(pool) {
        let message = format!(
            "The pool name {} must have 1 to 12 lower-case letters and digits, beginning with a letter.",
            quote(pool)
        );
        return Err(ArmError::new(ErrorCode::INVALID_RESOURCE_NAME, message).target("name"));
    }
    refuse_deleting(present)?;
    if !body.is_object() {
        return Err(not_an_object());
    }
    let mut problems = Problems::default();
    let mut clean = validation::clean(&POOL, body, context.api_version, &mut problems);
    let draft = match clean.body.remove("properties") {
        Some(Value::Object(properties)) => properties,
        _ => serde_json::Map::new(),
    };
    let mut pools = bodies_and_specs(present);
    let place = pools.iter().position(|(_, spec)| spec.name == pool);
    let control_plane = present
        .spec
        .kubernetes_version
        .parse()
        .map_err(ArmError::internal)?;
    let around = Surroundings {
        offered: &context.config.offered,
        control_plane,
        plugin: present.spec.network.plugin,
        ids: context.ids,
        mode: PoolMode::User,
    };
    let before = place.map(|place| Present {
        body: &pools[place].0,
        spec: &pools[place].1,
    });
    let decided = pool::decide(pool, draft, before, &around, "properties", &mut problems);
    match place {
        Some(place) => pools[place] = decided,
        None => pools.push(decided),
    }
    if !pools.iter().any(|(_, spec)| spec.mode == PoolMode::System) {
        problems.add(
            ErrorCode::OPERATION_NOT_ALLOWED,
            "properties.mode",
            format!(
                "{} is the cluster's last system pool; it must stay one.",
                quote(pool)
            ),
        );
    }
    check_count(pools.len(), &mut problems);
    let (bodies, specs): (Vec<_>, Vec<_>) = pools.into_iter().unzip();
    network::check_room(&present.spec.network, &specs, "properties.count", &mut problems);
    problems.into_result()?;
    let mut spec = present.spec.clone();
    spec.pools = specs;
    Ok(with_pools(
        context,
        name,
        present,
        bodies,
        spec,
        "AgentPools_CreateOrUpdate",
        pool,
    ))
}

/// Decides a DELETE of a pool that is there.
pub(crate) fn delete_pool(
    context: &Context<'_>,
    name: &Name<'_>,
    pool: &str,
    present: &ClusterRecord,
) -> Result<Change, ArmError> {
    refuse_deleting(present)?;
    let mut pools = bodies_and_specs(present);
    pools.retain(|(_, spec)| spec.name != pool);
    if !pools.iter().any(|(_, spec)| spec.mode == PoolMode::System) {
        let message = format!(
            "{} is the cluster's last system pool and cannot be deleted; add another system pool first, or delete the cluster.",
            quote(pool)
        );
        return Err(ArmError::new(ErrorCode::OPERATION_NOT_ALLOWED, message).target(POOLS));
    }
    let (bodies, specs): (Vec<_>, Vec<_>) = pools.into_iter().unzip();
    let mut spec = present.spec.clone();
    spec.pools = specs;
    Ok(with_pools(
        context,
        name,
        present,
        bodies,
        spec,
        "AgentPools_Delete",
        pool,
    ))
}

fn with_pools(
    context: &Context<'_>,
    name: &Name<'_>,
    present: &ClusterRecord,
    bodies: Vec<Value>,
    spec: ClusterSpec,
    operation: &str,
    pool: &str,
) -> Change {
    let mut body = present.body.clone();
    body["properties"]["agentPoolProfiles"] = Value::Array(bodies);
    advance(context, name, Some(present), body, spec, operation, Some(pool))
}

/// Decides the deletion of a cluster that is there and not being deleted yet.
pub(crate) fn delete(context: &Context<'_>, name: &Name<'_>, present: &ClusterRecord) -> Change {
    let mut change = advance(
        context,
        name,
        Some(present),
        present.body.clone(),
        present.spec.clone(),
        "ManagedClusters_Delete",
        None,
    );
    change
        .record
        .pool_generations
        .clone_from(&present.pool_generations);
    change.record.deleting = true;
    change.operation.deletes = true;
    change
}
