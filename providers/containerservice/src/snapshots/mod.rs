//! `snapshots`: what an agent pool is made of (Kubernetes version, node image, VM size), kept under a name of its own. Pools and clusters are
//! made from it, and pools upgraded to it ([`named`]).
//!
//! Always true: a snapshot is taken once, and afterwards only its tags change; it hangs on nothing: the pool may go, and a pool that was made
//! from it stays as it is when the snapshot goes.

pub(crate) mod named;

use std::sync::LazyLock;

use arm_access::Scope as AccessScope;
use arm_ids::{ResourcePath, resource_id, same_location};
use arm_kernel::{
    Call, Context, Decision, FIELDS, Gate, Members, Mode, Mutation, Operation, Presence, Purpose,
    RequestInfo, Resource, ResourceType, Scope, TAGS, Tagged, Tags, Verb, delete_each, etag,
    put as put_resource, quote,
    schema::{Node, Problems, Schema, Table, clean},
    store_error, system_data,
};
use arm_wire::{ArmError, ErrorCode, Principal, Response};
use async_trait::async_trait;
use cluster_spec::node_image_version;
use control_records::{GroupRecord, SnapshotRecord, access, key};
use control_store::{Stored, Txn, list_records, put_record};
use serde_json::{Value, json};

use crate::{
    ContainerService, NAMESPACE, ProviderConfig,
    api_versions::API_VERSIONS,
    clusters::{
        body::{not_an_object, pool_body},
        draft::cluster_id,
        subnets::quote_id,
    },
    formats::is_cluster_name,
    records::ClusterPath,
};

const PATH: &str = "snapshots";
/// When they came.
const SINCE: &str = "2021-08-01";
/// Snapshots of a subscription.
const MOST_SNAPSHOTS: usize = 1000;
/// Role assignments and locks that may go with a snapshot.
const MOST_RIGHTS: usize = 80;
/// Where a body says of which pool.
const SOURCE: &str = "properties.creationData.sourceResourceId";
const WRITE: &str = "Microsoft.ContainerService/snapshots/write";
/// What the caller has to be allowed at the pool.
const READ_POOL: &str = "Microsoft.ContainerService/managedClusters/agentPools/read";

type Row = Operation<ContainerService>;

pub(crate) const TYPE: ResourceType<ContainerService> = ResourceType {
    path: PATH,
    versions: API_VERSIONS,
    schema: Some(Schema {
        title: "Snapshot",
        table: || &TABLE,
        resource: "snapshot",
    }),
    members: Some(Members {
        list: |provider, subscription, group| Box::pin(listed(provider, subscription, group)),
        delete: |provider, subscription, group| Box::pin(delete_all(provider, subscription, group)),
    }),
    operations: &[
        Row::get::<Snapshots>("Snapshots_Get").since(SINCE),
        Row::write(
            Verb::Put,
            "Snapshots_CreateOrUpdate",
            |provider, call| Box::pin(put_checked(provider, call, Mode::Commit)),
            |provider, call| Box::pin(put_checked(provider, call, Mode::Preview)),
        )
        .since(SINCE),
        Row::patch_tags::<Snapshots>("Snapshots_UpdateTags").since(SINCE),
        Row::delete::<Snapshots>("Snapshots_Delete").since(SINCE),
        Row::list::<Snapshots>("Snapshots_ListByResourceGroup")
            .filter(FIELDS)
            .gate(Gate::Items)
            .since(SINCE),
        Row::list::<Snapshots>("Snapshots_List")
            .filter(FIELDS)
            .gate(Gate::Items)
            .at(Scope::Subscription)
            .since(SINCE),
    ],
};

static TABLE: LazyLock<Table> = LazyLock::new(|| Table::parse(include_str!("properties.tsv"), &[TAGS]));
static TREE: LazyLock<Node> = LazyLock::new(|| TABLE.tree("snapshot"));

/// Snapshots as the kernel sees them.
pub(crate) enum Snapshots {}

/// A snapshot and what decisions about it go by.
pub(crate) struct State {
    found: Option<Stored<SnapshotRecord>>,
    /// Its group, where the snapshot is not there.
    group: Option<Stored<GroupRecord>>,
    /// The agent pool that a body names, where it is there.
    source: Option<Source>,
}

impl State {
    fn record(&self) -> Option<&SnapshotRecord> {
        self.found.as_ref().map(|found| &found.value)
    }
}

/// What is taken of an agent pool.
struct Source {
    id: String,
    kubernetes_version: String,
    image: Option<String>,
    os_sku: String,
    vm_size: String,
}

/// What is written.
pub(crate) enum Change {
    Put(Box<SnapshotRecord>),
    Delete,
}

/// There are no other actions.
pub(crate) enum Action {}

/// A snapshot's ARM id.
fn id(record: &SnapshotRecord) -> String {
    resource_id(
        &record.subscription,
        &record.resource_group,
        NAMESPACE,
        &[(PATH, &record.name)],
    )
}

fn answer(record: &SnapshotRecord) -> Value {
    json!({
        "id": id(record),
        "name": record.name,
        "type": format!("{NAMESPACE}/{PATH}"),
        "location": record.location,
        "tags": record.tags,
        "systemData": system_data::document(&record.system_data),
        "properties": {
            "creationData": { "sourceResourceId": record.source },
            "snapshotType": "NodePool",
            "kubernetesVersion": record.kubernetes_version,
            "nodeImageVersion": record.node_image_version,
            "osType": "Linux",
            "osSku": record.os_sku,
            "vmSize": record.vm_size,
            "enableFIPS": false,
        },
    })
}

/// The path of an agent pool, if it is the id of one.
fn pool_path(id: &str) -> Option<ResourcePath> {
    let path = ResourcePath::parse(id).ok()?;
    let is_one = path.resource_group.is_some()
        && path.parent.is_none()
        && path.is_item()
        && path.namespace_is(NAMESPACE)
        && path.type_is("managedClusters/agentPools");
    is_one.then_some(path)
}

/// The agent pool that a body names.
fn source_of(body: &Value) -> Option<ResourcePath> {
    pool_path(named::id_of(body.get("properties")?)?)
}

/// PUT of a snapshot, for callers who may read the pool that it is taken of. That of a snapshot that is there may be gone since.
async fn put_checked(provider: &ContainerService, call: &Call, mode: Mode) -> Result<Response, ArmError> {
    if let Some(source) = source_of(&call.request.body) {
        let at = ClusterPath::of(&call.request.path)?;
        let own = key::snapshot(at.subscription, at.group, at.cluster);
        if provider.read::<SnapshotRecord>(&own).await?.is_none() {
            call.check_linked(WRITE, READ_POOL, &[source]).await?;
        }
    }
    put_resource::<Snapshots>(provider, call, mode).await
}

#[async_trait]
impl Resource for Snapshots {
    type Provider = ContainerService;
    type State = State;
    type Change = Change;
    type Action = Action;

    async fn read(provider: &ContainerService, path: &ResourcePath, _: Purpose) -> Result<State, ArmError> {
        let at = ClusterPath::of(path)?;
        let own = key::snapshot(at.subscription, at.group, at.cluster);
        let found = provider.read(&own).await?;
        // ARM's order: first the group is missing, then what is in it.
        let group = match &found {
            Some(_) => None,
            None => Some(provider.group(at).await?),
        };
        Ok(State {
            found,
            group,
            source: None,
        })
    }

    fn presence(state: &State, _: &ResourcePath) -> Presence {
        state.record().map_or(Presence::Absent, |record| {
            let changed = record.system_data.modified_at;
            Presence::Present(etag(&record.uid, "", record.generation, changed))
        })
    }

    fn missing(_: &State, path: &ResourcePath) -> ArmError {
        let at = match ClusterPath::of(path) {
            Ok(at) => at,
            Err(error) => return error,
        };
        let message = format!(
            "The Resource '{NAMESPACE}/{PATH}/{}' under resource group {} was not found.",
            at.cluster.chars().take(120).collect::<String>(),
            quote(at.group)
        );
        ArmError::new(ErrorCode::RESOURCE_NOT_FOUND, message)
    }

    async fn list(provider: &ContainerService, path: &ResourcePath, _: &str) -> Result<Vec<Value>, ArmError> {
        if path.resource_group.is_some() {
            provider.group(ClusterPath::of(path)?).await?;
        }
        let subscription = path.subscription.as_deref().unwrap_or_default();
        listed(provider, subscription, path.resource_group.as_deref()).await
    }

    async fn read_named(
        provider: &ContainerService,
        state: &mut State,
        mutation: Mutation<'_, Action>,
    ) -> Result<(), ArmError> {
        if let Mutation::Put(body) = mutation
            && state.found.is_none()
            && let Some(path) = source_of(body)
        {
            state.source = provider.pool_to_take(&path).await?;
        }
        Ok(())
    }

    fn decide(
        context: &Context<'_, ProviderConfig>,
        state: &State,
        mutation: Mutation<'_, Action>,
    ) -> Result<Decision<Change>, ArmError> {
        match mutation {
            Mutation::Put(body) => put(context, state, body),
            Mutation::Delete => Ok(match state.record() {
                Some(_) => Decision::Write(Change::Delete),
                None => Decision::Unchanged,
            }),
            Mutation::Act(action) => match *action {},
        }
    }

    async fn transaction(
        provider: &ContainerService,
        info: &RequestInfo<'_>,
        state: &State,
        change: &Change,
    ) -> Result<Txn, ArmError> {
        let at = ClusterPath::of(info.path)?;
        let own = key::snapshot(at.subscription, at.group, at.cluster);
        let txn = match &state.found {
            None => Txn::default().absent(&own),
            Some(found) => Txn::default().at(&own, found.revision),
        };
        match change {
            Change::Delete => {
                let scope = AccessScope::parse(&info.path.to_string()).map_err(ArmError::internal)?;
                let (rights, all) = access::removals_below(&*provider.store, &scope, MOST_RIGHTS)
                    .await
                    .map_err(store_error)?;
                if !all {
                    let message = "Too many roles or locks are assigned at the snapshot for it to go in one step; remove some of them.";
                    return Err(ArmError::new(ErrorCode::CONFLICT, message));
                }
                let mut txn = txn.delete(own);
                txn.ops.extend(rights);
                Ok(txn)
            }
            Change::Put(record) if state.found.is_some() => Ok(txn.with(put_record(own, &**record))),
            Change::Put(record) => {
                let group = state.group.as_ref().filter(|group| !group.value.deleting);
                let Some(group) = group else {
                    let message = format!(
                        "The resource group {} is being deleted; nothing can be created in it.",
                        quote(at.group)
                    );
                    return Err(ArmError::new(ErrorCode::RESOURCE_GROUP_BEING_DELETED, message));
                };
                let others = key::snapshot(at.subscription, "", "");
                let (others, _) = provider.store.list(&others).await.map_err(store_error)?;
                if others.len() >= MOST_SNAPSHOTS {
                    let message = format!(
                        "No more snapshots can be created in the subscription: at most {MOST_SNAPSHOTS} are kept. Delete some that are not \
                         needed."
                    );
                    return Err(ArmError::new(ErrorCode::QUOTA_EXCEEDED, message));
                }
                let key = key::group(at.subscription, at.group);
                Ok(txn.at(key, group.revision).with(put_record(own, &**record)))
            }
        }
    }

    fn render(state: &State, change: Option<&Change>, _: &ResourcePath, _: &str) -> Value {
        let record = match change {
            Some(Change::Put(record)) => Some(&**record),
            Some(Change::Delete) | None => state.record(),
        };
        record.map_or(Value::Null, answer)
    }

    fn operation(_: &Change) -> Option<&str> {
        None
    }
}

fn put(
    context: &Context<'_, ProviderConfig>,
    state: &State,
    body: &Value,
) -> Result<Decision<Change>, ArmError> {
    let at = ClusterPath::of(context.info.path)?;
    if !body.is_object() {
        return Err(not_an_object());
    }
    let mut problems = Problems::default();
    if !is_cluster_name(at.cluster) {
        let message = format!(
            "The snapshot name {} must have 1 to 63 letters, digits, hyphens and underscores, beginning and ending with a letter or digit.",
            quote(at.cluster)
        );
        problems.add(ErrorCode::INVALID_RESOURCE_NAME, "name", message);
    }
    let mut asked = clean(&TREE, body, context.info.api_version, &mut problems).body;
    let present = state.record();
    let place = asked.get("location").and_then(Value::as_str);
    location(context.config, present, place, &mut problems);
    let tags: Tags = asked
        .remove("tags")
        .and_then(|tags| serde_json::from_value(tags).ok())
        .unwrap_or_default();
    let id = asked.get("properties").and_then(named::id_of);
    if let Some(present) = present {
        if id.is_some_and(|id| !id.eq_ignore_ascii_case(&present.source)) {
            let message = format!(
                "'sourceResourceId' can only be set at creation; it is {}. Take another snapshot under another name.",
                quote_id(&present.source)
            );
            problems.add(ErrorCode::PROPERTY_CHANGE_NOT_ALLOWED, SOURCE, message);
        }
        problems.into_result()?;
        return Ok(if tags == present.tags {
            Decision::Unchanged
        } else {
            tagged(context, present, tags)
        });
    }
    match (id, &state.source) {
        (_, Some(_)) => {}
        (None, None) => problems.add(
            ErrorCode::MISSING_PARAMETER,
            SOURCE,
            format!(
                "The required property '{SOURCE}' is missing: the id of the agent pool to take a snapshot of."
            ),
        ),
        (Some(id), None) if pool_path(id).is_none() => problems.add(
            ErrorCode::INVALID_PARAMETER,
            SOURCE,
            format!(
                "{} is not the id of an agent pool; 'az aks nodepool show --query id' prints it.",
                quote_id(id)
            ),
        ),
        (Some(id), None) => problems.add(
            ErrorCode::INVALID_RESOURCE_REFERENCE,
            SOURCE,
            format!(
                "The agent pool {} was not found; 'az aks nodepool list' shows what there is.",
                quote_id(id)
            ),
        ),
    }
    problems.into_result()?;
    let Some(source) = &state.source else {
        return Err(ArmError::internal("a snapshot of no agent pool was let through"));
    };
    Ok(Decision::Write(Change::Put(Box::new(SnapshotRecord {
        v: 1,
        uid: context.ids.short(),
        subscription: at.subscription.to_owned(),
        resource_group: at.group.to_owned(),
        name: at.cluster.to_owned(),
        location: context.config.location.clone(),
        tags,
        generation: 1,
        source: source.id.clone(),
        kubernetes_version: source.kubernetes_version.clone(),
        node_image_version: node_image_version(&source.kubernetes_version, source.image.as_deref()),
        os_sku: source.os_sku.clone(),
        vm_size: source.vm_size.clone(),
        system_data: system_data::touched(None, context.info.principal, context.now),
    }))))
}

/// The snapshot with other tags.
fn tagged(context: &Context<'_, ProviderConfig>, present: &SnapshotRecord, tags: Tags) -> Decision<Change> {
    let before = Some(&present.system_data);
    Decision::Write(Change::Put(Box::new(SnapshotRecord {
        tags,
        generation: present.generation + 1,
        system_data: system_data::touched(before, context.info.principal, context.now),
        ..present.clone()
    })))
}

fn location(
    config: &ProviderConfig,
    present: Option<&SnapshotRecord>,
    asked: Option<&str>,
    problems: &mut Problems,
) {
    let here = &config.location;
    match (asked, present) {
        (Some(asked), Some(present)) if !same_location(asked, &present.location) => problems.add(
            ErrorCode::INVALID_RESOURCE_LOCATION,
            "location",
            format!(
                "The snapshot is in location '{}' and cannot move to {}.",
                present.location,
                quote(asked)
            ),
        ),
        (Some(asked), None) if !same_location(asked, here) => problems.add(
            ErrorCode::LOCATION_NOT_AVAILABLE,
            "location",
            format!(
                "The location {} is not available here; use '{here}'.",
                quote(asked)
            ),
        ),
        (None, None) => problems.add(
            ErrorCode::MISSING_PARAMETER,
            "location",
            format!("The required property 'location' is missing; use '{here}'."),
        ),
        _ => {}
    }
}

impl Tagged for Snapshots {
    fn tags(state: &State) -> Option<Tags> {
        state.record().map(|record| record.tags.clone())
    }

    fn decide_tags(
        context: &Context<'_, ProviderConfig>,
        state: &State,
        tags: Tags,
    ) -> Result<Decision<Change>, ArmError> {
        let present = state.record();
        let present = present.ok_or_else(|| Self::missing(state, context.info.path))?;
        Ok(tagged(context, present, tags))
    }
}

impl ContainerService {
    /// What a snapshot takes of an agent pool; nothing where it is not there, or on its way out.
    async fn pool_to_take(&self, path: &ResourcePath) -> Result<Option<Source>, ArmError> {
        let at = ClusterPath::of(path)?;
        let Some(found) = self.find(at).await? else {
            return Ok(None);
        };
        let record = &found.record.value;
        let mut pools = record.spec().pools.iter();
        let pool = pools.find(|pool| pool.name.eq_ignore_ascii_case(at.child));
        Ok(pool.map(|pool| {
            let cluster = cluster_id(&record.subscription, &record.resource_group, &record.name);
            let sku = pool_body(record, &pool.name)["osSKU"].as_str();
            Source {
                id: format!("{cluster}/agentPools/{}", pool.name),
                kubernetes_version: pool.kubernetes_version.clone(),
                image: pool.image.clone(),
                os_sku: sku.unwrap_or("Ubuntu").to_owned(),
                vm_size: pool.vm_size.clone(),
            }
        }))
    }
}

/// All of a subscription, or of one group of it.
async fn records(
    provider: &ContainerService,
    subscription: &str,
    group: Option<&str>,
) -> Result<Vec<SnapshotRecord>, ArmError> {
    let prefix = key::snapshot(subscription, group.unwrap_or_default(), "");
    let (found, _) = list_records::<SnapshotRecord>(&*provider.store, &prefix)
        .await
        .map_err(store_error)?;
    Ok(found.into_iter().map(|(_, found)| found.value).collect())
}

async fn listed(
    provider: &ContainerService,
    subscription: &str,
    group: Option<&str>,
) -> Result<Vec<Value>, ArmError> {
    let all = records(provider, subscription, group).await?;
    Ok(all.iter().map(answer).collect())
}

/// Deletes all of a group, each for its last editor. Nothing of them is left to wait for.
async fn delete_all(provider: &ContainerService, subscription: &str, group: &str) -> Result<usize, ArmError> {
    let mut each = Vec::new();
    for record in records(provider, subscription, Some(group)).await? {
        let path = ResourcePath::parse(&id(&record)).map_err(ArmError::internal)?;
        let by = Principal::named(&record.system_data.modified_by, &provider.config.tenant);
        each.push((path, by));
    }
    delete_each::<Snapshots>(provider, &each, API_VERSIONS[0]).await?;
    // They are gone at once.
    Ok(records(provider, subscription, Some(group)).await?.len())
}
