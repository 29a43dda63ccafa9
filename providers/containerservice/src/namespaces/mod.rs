//! `managedClusters/managedNamespaces`: namespaces of a cluster that ARM manages. A request writes down what is to be; the cluster's loop brings it
//! about, and says what became of it (`control/planner/src/features/namespaces`).
//!
//! Always true: `provisioningState` is never stored; a later request about a namespace is accepted while one is under way, and an operation ends
//! with what its generation, or a later one, came to; only a deletion cannot be taken back.

mod decide;

use std::{collections::BTreeMap, sync::LazyLock};

use arm_ids::ResourcePath;
use arm_kernel::{
    Call, Context, Decision, Members, Mode, Mutation, Operation, Presence, Purpose, RequestInfo, Resource,
    ResourceType, TAGS, Tagged, Tags, Verb, etag, quote,
    schema::{Node, Pattern, Schema, Table},
    store_error, system_data,
};
use arm_wire::{ArmError, ErrorCode, Response};
use async_trait::async_trait;
use cluster_namespaces::quantity;
use cluster_spec::CredentialKind;
use control_records::{
    OperationRecord, OperationStatus, Owner, directory, key,
    namespace::{NamespaceRecord, NamespaceState},
};
use control_store::{Stored, Txn, list_records, put_record};
use serde_json::{Value, json};

use crate::{
    ContainerService, NAMESPACE, ProviderConfig,
    api_versions::API_VERSIONS,
    formats,
    records::{ClusterPath, StoredCluster},
};
use decide::Change;

type Row = Operation<ContainerService>;

/// When they came.
const SINCE: &str = "2025-09-01";
/// The last segment of the type.
const KIND: &str = "managedNamespaces";

pub(crate) const TYPE: ResourceType<ContainerService> = ResourceType {
    path: "managedClusters/managedNamespaces",
    versions: API_VERSIONS,
    schema: Some(Schema {
        title: "ManagedNamespace",
        table: || &TABLE,
        resource: "namespace",
    }),
    // Tracked resources: `az aks namespace list` without a cluster looks for them there. They go with their cluster.
    members: Some(Members {
        list: |provider, subscription, group| Box::pin(provider.namespace_summaries(subscription, group)),
        delete: |_, _, _| Box::pin(async { Ok(0) }),
    }),
    operations: &[
        Row::get::<Namespaces>("ManagedNamespaces_Get").since(SINCE),
        Row::put::<Namespaces>(PUT).since(SINCE),
        Row::patch_tags::<Namespaces>("ManagedNamespaces_Update").since(SINCE),
        Row::delete::<Namespaces>(DELETE).since(SINCE),
        Row::list::<Namespaces>("ManagedNamespaces_ListByManagedCluster").since(SINCE),
        Row::write(
            Verb::Action("listCredential"),
            "ManagedNamespaces_ListCredential",
            |provider, call| Box::pin(provider.list_credential(call, Mode::Commit)),
            |provider, call| Box::pin(provider.list_credential(call, Mode::Preview)),
        )
        .since(SINCE),
    ],
};

const PUT: &str = "ManagedNamespaces_CreateOrUpdate";
const DELETE: &str = "ManagedNamespaces_Delete";

static TABLE: LazyLock<Table> = LazyLock::new(|| Table::parse(include_str!("properties.tsv"), PATTERNS));
static TREE: LazyLock<Node> = LazyLock::new(|| TABLE.tree("namespace"));

/// Labels or annotations of a namespace.
const MOST_ENTRIES: usize = 100;

const PATTERNS: &[Pattern] = &[
    TAGS,
    Pattern::of_entries("namespace-labels", formats::check_namespace_label, MOST_ENTRIES),
    Pattern::of_entries("annotations", formats::check_annotation, MOST_ENTRIES),
    Pattern::of("quantity", |text| {
        let form = "a quantity such as 500m, 2 or 1.5Gi";
        quantity(text).map(drop).ok_or(form)
    }),
];

/// Managed namespaces as the kernel sees them.
pub(crate) enum Namespaces {}

/// There are no other actions.
pub(crate) enum Action {}

/// A namespace and its cluster.
pub(crate) struct State {
    cluster: Option<StoredCluster>,
    found: Option<Stored<NamespaceRecord>>,
    /// Its operations that have not ended, oldest first. Only read for decisions.
    running: Vec<Stored<OperationRecord>>,
    /// How many the cluster has. Only read for decisions.
    count: usize,
}

impl State {
    fn record(&self) -> Option<&NamespaceRecord> {
        self.found.as_ref().map(|found| &found.value)
    }
}

fn id_of(cluster: &StoredCluster, name: &str) -> String {
    let record = &cluster.record.value;
    arm_ids::resource_id(
        &record.subscription,
        &record.resource_group,
        NAMESPACE,
        &[("managedClusters", &record.name), (KIND, name)],
    )
}

/// `provisioningState`: follows from what the loop has seen of it.
fn state(cluster: &StoredCluster, record: &NamespaceRecord) -> &'static str {
    let seen = cluster.observed.as_ref();
    let seen = seen.and_then(|seen| record.state(&seen.namespaces));
    let now = seen.filter(|seen| seen.wished >= record.wished);
    match (now, record.deleting) {
        (Some(NamespaceState { problem: Some(_), .. }), _) => "Failed",
        (_, true) => "Deleting",
        (Some(_), false) => "Succeeded",
        // It counts from the start on, and nothing is left to do until then.
        (None, false) if cluster.record.value.spec().stopped => "Succeeded",
        (None, false) if seen.is_some_and(|seen| seen.held) => "Updating",
        (None, false) => "Creating",
    }
}

fn etag_of(cluster: &StoredCluster, record: &NamespaceRecord) -> String {
    let part = format!("{KIND}/{}", record.id);
    etag(
        &cluster.record.value.uid,
        &part,
        record.generation,
        record.system_data.modified_at,
    )
}

fn document(cluster: &StoredCluster, record: &NamespaceRecord) -> Value {
    let mut properties = serde_json::to_value(&record.spec).unwrap_or_default();
    properties["provisioningState"] = json!(state(cluster, record));
    json!({
        "id": id_of(cluster, &record.name),
        "name": record.name,
        "type": format!("{NAMESPACE}/managedClusters/{KIND}"),
        "location": cluster.record.value.spec().location,
        "tags": record.tags,
        "eTag": etag_of(cluster, record),
        "systemData": system_data::document(&record.system_data),
        "properties": properties,
    })
}

#[async_trait]
impl Resource for Namespaces {
    type Provider = ContainerService;
    type State = State;
    type Change = Change;
    type Action = Action;

    async fn read(
        provider: &ContainerService,
        path: &ResourcePath,
        purpose: Purpose,
    ) -> Result<State, ArmError> {
        let at = ClusterPath::of(path)?;
        let Some(cluster) = provider.find(at).await? else {
            // ARM's order: first the group is missing, then what is in it.
            provider.group(at).await?;
            return Ok(State {
                cluster: None,
                found: None,
                running: Vec::new(),
                count: 0,
            });
        };
        let uid = &cluster.record.value.uid;
        let found = provider
            .read::<NamespaceRecord>(&NamespaceRecord::key(uid, at.child))
            .await?;
        let (mut running, mut count) = (Vec::new(), 0);
        if purpose == Purpose::Decision {
            let owner = Owner::cluster(uid.as_str());
            for id in found.iter().flat_map(|found| &found.value.operations) {
                let operation = provider.read::<OperationRecord>(&owner.operation(id)).await?;
                running.extend(operation.filter(|one| one.value.status == OperationStatus::InProgress));
            }
            let all = provider.store.list(&NamespaceRecord::all(uid)).await;
            count = all.map_err(store_error)?.0.len();
        }
        Ok(State {
            cluster: Some(cluster),
            found,
            running,
            count,
        })
    }

    fn presence(state: &State, _: &ResourcePath) -> Presence {
        match (&state.cluster, state.record()) {
            (Some(_), Some(record)) if record.deleting => Presence::Deleting,
            (Some(cluster), Some(record)) => Presence::Present(etag_of(cluster, record)),
            _ => Presence::Absent,
        }
    }

    fn creatable(state: &State, path: &ResourcePath) -> Result<(), ArmError> {
        match &state.cluster {
            Some(_) => Ok(()),
            None => Err(ClusterPath::of(path)?.parent_not_found()),
        }
    }

    fn missing(state: &State, path: &ResourcePath) -> ArmError {
        match ClusterPath::of(path) {
            Ok(at) if state.cluster.is_some() => not_found(at),
            Ok(at) => at.not_found(),
            Err(error) => error,
        }
    }

    async fn list(provider: &ContainerService, path: &ResourcePath, _: &str) -> Result<Vec<Value>, ArmError> {
        let cluster = provider.need(ClusterPath::of(path)?).await?;
        let all = provider.namespaces(&cluster.record.value.uid).await?;
        Ok(all.iter().map(|record| document(&cluster, record)).collect())
    }

    fn decide(
        context: &Context<'_, ProviderConfig>,
        state: &State,
        mutation: Mutation<'_, Action>,
    ) -> Result<Decision<Change>, ArmError> {
        match mutation {
            Mutation::Put(body) => decide::put(context, state, body).map(Decision::Write),
            Mutation::Delete => decide::delete(context, state),
            Mutation::Act(action) => match *action {},
        }
    }

    async fn transaction(
        _: &ContainerService,
        info: &RequestInfo<'_>,
        state: &State,
        change: &Change,
    ) -> Result<Txn, ArmError> {
        let at = ClusterPath::of(info.path)?;
        let cluster = state.cluster.as_ref().ok_or_else(|| at.parent_not_found())?;
        let uid = &cluster.record.value.uid;
        let own = NamespaceRecord::key(uid, &change.record.name);
        // A cluster that begins to go meanwhile takes no more namespaces.
        let mut txn = Txn::default().at(key::desired(uid), cluster.record.revision);
        txn = match &state.found {
            Some(found) => txn.at(&own, found.revision),
            None => txn.absent(&own),
        };
        for ended in &change.ended {
            let key = ended.key();
            let stored = state.running.iter().find(|stored| stored.value.id == ended.id);
            if let Some(stored) = stored {
                txn = txn.at(&key, stored.revision);
            }
            txn = txn.with(put_record(key, ended));
        }
        if let Some(operation) = &change.operation {
            txn = directory::new_operation(txn, operation);
        }
        Ok(txn.with(put_record(own, &change.record)))
    }

    fn render(state: &State, change: Option<&Change>, _: &ResourcePath, _: &str) -> Value {
        let record = change.map(|change| &change.record).or(state.record());
        match (&state.cluster, record) {
            (Some(cluster), Some(record)) => document(cluster, record),
            _ => Value::Null,
        }
    }

    fn operation(change: &Change) -> Option<&str> {
        change.operation.as_ref().map(|operation| operation.id.as_str())
    }
}

impl Tagged for Namespaces {
    fn tags(state: &State) -> Option<Tags> {
        state.record().map(|record| record.tags.clone())
    }

    fn decide_tags(
        context: &Context<'_, ProviderConfig>,
        state: &State,
        tags: Tags,
    ) -> Result<Decision<Change>, ArmError> {
        decide::tags(context, state, tags).map(Decision::Write)
    }
}

fn not_found(at: ClusterPath<'_>) -> ArmError {
    let message = format!(
        "The resource '{NAMESPACE}/managedClusters/{}/{KIND}/{}' under resource group {} was not found.",
        at.cluster,
        at.child,
        quote(at.group)
    );
    ArmError::new(ErrorCode::RESOURCE_NOT_FOUND, message)
}

impl ContainerService {
    async fn namespaces(&self, uid: &str) -> Result<Vec<NamespaceRecord>, ArmError> {
        let prefix = NamespaceRecord::all(uid);
        let (found, _) = list_records::<NamespaceRecord>(&*self.store, &prefix)
            .await
            .map_err(store_error)?;
        Ok(found.into_iter().map(|(_, found)| found.value).collect())
    }

    /// The lines of namespaces in lists of resources.
    async fn namespace_summaries(
        &self,
        subscription: &str,
        group: Option<&str>,
    ) -> Result<Vec<Value>, ArmError> {
        let mut all = Vec::new();
        for cluster in self.all(subscription, group).await? {
            for record in self.namespaces(&cluster.record.value.uid).await? {
                let data = &record.system_data;
                all.push(json!({
                    "id": id_of(&cluster, &record.name),
                    "name": format!("{}/{}", cluster.record.value.name, record.name),
                    "type": format!("{NAMESPACE}/managedClusters/{KIND}"),
                    "location": cluster.record.value.spec().location,
                    "tags": record.tags,
                    "createdTime": data.created_at.to_string(),
                    "changedTime": data.modified_at.to_string(),
                    "provisioningState": state(&cluster, &record),
                }));
            }
        }
        Ok(all)
    }

    /// `listCredential`: a kubeconfig whose context is the namespace. Where users come from the directory it holds no credential, and role
    /// assignments say what they may; else it is a credential that is good in the namespace, and nowhere else.
    async fn list_credential(&self, call: &Call, mode: Mode) -> Result<Response, ArmError> {
        let at = ClusterPath::of(&call.request.path)?;
        let cluster = self.need(at).await?;
        let key = NamespaceRecord::key(&cluster.record.value.uid, at.child);
        let record = self.read::<NamespaceRecord>(&key).await?;
        let record = record.ok_or_else(|| not_found(at))?.value;
        let seen = cluster.observed.as_ref();
        let seen = seen.and_then(|seen| record.state(&seen.namespaces));
        if record.deleting || !seen.is_some_and(|seen| seen.held) {
            let message = format!(
                "The namespace '{}' is not in the cluster '{}' (provisioningState {}); ask again when it is Succeeded.",
                record.name,
                cluster.record.value.name,
                state(&cluster, &record)
            );
            return Err(ArmError::new(ErrorCode::CONFLICT, message));
        }
        self.credential_in(call, CredentialKind::User, Some(&record.name), mode)
            .await
    }
}

/// Tags by name, of a cleaned body.
fn tags_of(body: &mut serde_json::Map<String, Value>) -> BTreeMap<String, String> {
    let tags = body
        .remove("tags")
        .and_then(|tags| serde_json::from_value(tags).ok());
    tags.unwrap_or_default()
}
