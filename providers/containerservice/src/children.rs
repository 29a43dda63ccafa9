//! Child resources of clusters that are documents: validated, kept, listed, and deleted with their cluster. No machine is made for them. A
//! document may name an identity, whose record is read with it.

use std::marker::PhantomData;

use arm_ids::ResourcePath;
use arm_kernel::{
    Context, Decision, Mutation, Presence, Purpose, RequestInfo, Resource, etag, quote,
    schema::{Node, Problems, clean},
    store_error, system_data,
};
use arm_wire::{ArmError, ErrorCode};
use async_trait::async_trait;
use control_records::{ChildRecord, ClusterRecord, ManagedIdentityRecord, child, key};
use control_store::{Stored, Txn, list_records, put_record};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::{
    ContainerService, NAMESPACE, ProviderConfig, ProvisioningState,
    clusters::{body::not_an_object, draft::refuse_deleting, named::key_of},
    records::{ClusterPath, StoredCluster},
};

/// What a type of documents is.
pub(crate) trait Document: Send + Sync + 'static {
    /// The last segment of its type, e.g. `maintenanceConfigurations`.
    const KIND: &'static str;

    /// What a body may hold.
    fn tree() -> &'static Node;

    /// How many a cluster has at most.
    const MOST: usize;

    /// Puts right what a client is known to send in another form than the API has.
    fn adapt(_: &mut Value) {}

    /// The identity that a body names.
    fn identity(_: &Value) -> Option<ResourcePath> {
        None
    }

    /// Checks what the tree cannot say, and fills defaults in.
    fn complete(asked: &Asked<'_>, properties: &mut Map<String, Value>, problems: &mut Problems);

    /// What it tells of its progress, beside what is kept.
    fn state(_: &StoredCluster, _: &ChildRecord) -> Option<ProvisioningState> {
        None
    }
}

/// What a document is decided by, beside its body.
pub(crate) struct Asked<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// Its cluster.
    pub(crate) cluster: &'a ClusterRecord,
    /// The document that is there.
    pub(crate) present: Option<&'a ChildRecord>,
    /// The identity that the body names, if there is one.
    pub(crate) identity: Option<&'a ManagedIdentityRecord>,
}

/// A type of documents as the kernel sees it.
pub(crate) struct Child<D>(PhantomData<D>);

/// A child and its cluster.
pub(crate) struct State {
    cluster: Option<StoredCluster>,
    child: Option<Stored<ChildRecord>>,
    /// The identity that a body names, with its key.
    identity: Option<(String, Stored<ManagedIdentityRecord>)>,
}

impl State {
    /// When the document that is there was last changed.
    pub(crate) fn changed_at(&self) -> Option<Timestamp> {
        self.child
            .as_ref()
            .map(|child| child.value.system_data.modified_at)
    }

    /// Its cluster.
    pub(crate) fn cluster(&self) -> Option<&StoredCluster> {
        self.cluster.as_ref()
    }
}

/// What is written.
pub(crate) enum ChildChange {
    Put(Box<ChildRecord>),
    Delete,
}

/// Documents have no other actions.
pub(crate) enum Action {}

fn child_id<D: Document>(cluster: &StoredCluster, name: &str) -> String {
    let record = &cluster.record.value;
    arm_ids::resource_id(
        &record.subscription,
        &record.resource_group,
        NAMESPACE,
        &[("managedClusters", &record.name), (D::KIND, name)],
    )
}

fn document<D: Document>(cluster: &StoredCluster, record: &ChildRecord) -> Value {
    let mut properties = record.properties.clone();
    if let Some(state) = D::state(cluster, record) {
        properties["provisioningState"] = json!(state.as_str());
    }
    json!({
        "id": child_id::<D>(cluster, &record.name),
        "name": record.name,
        "type": format!("{NAMESPACE}/managedClusters/{}", D::KIND),
        "systemData": system_data::document(&record.system_data),
        "properties": properties,
    })
}

#[async_trait]
impl<D: Document> Resource for Child<D> {
    type Provider = ContainerService;
    type State = State;
    type Change = ChildChange;
    type Action = Action;

    async fn read(provider: &ContainerService, path: &ResourcePath, _: Purpose) -> Result<State, ArmError> {
        let at = ClusterPath::of(path)?;
        let Some(cluster) = provider.find(at).await? else {
            // ARM's order: first the group is missing, then what is in it.
            provider.group(at).await?;
            return Ok(State {
                cluster: None,
                child: None,
                identity: None,
            });
        };
        let key = child::key(&cluster.record.value.uid, D::KIND, at.child);
        let child = provider.read(&key).await?;
        Ok(State {
            cluster: Some(cluster),
            child,
            identity: None,
        })
    }

    fn presence(state: &State, _: &ResourcePath) -> Presence {
        match (&state.cluster, &state.child) {
            (Some(cluster), Some(child)) => {
                let part = format!("{}/{}", D::KIND, arm_ids::folded(&child.value.name));
                let changed = child.value.system_data.modified_at;
                Presence::Present(etag(
                    &cluster.record.value.uid,
                    &part,
                    child.value.generation,
                    changed,
                ))
            }
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
        let at = match ClusterPath::of(path) {
            Ok(at) => at,
            Err(error) => return error,
        };
        if state.cluster.is_none() {
            return at.not_found();
        }
        let message = format!(
            "The resource '{NAMESPACE}/managedClusters/{}/{}/{}' under resource group {} was not found.",
            at.cluster,
            D::KIND,
            at.child,
            quote(at.group)
        );
        ArmError::new(ErrorCode::RESOURCE_NOT_FOUND, message)
    }

    async fn list(provider: &ContainerService, path: &ResourcePath, _: &str) -> Result<Vec<Value>, ArmError> {
        let cluster = provider.need(ClusterPath::of(path)?).await?;
        let prefix = child::key(&cluster.record.value.uid, D::KIND, "");
        let (children, _) = list_records::<ChildRecord>(&*provider.store, &prefix)
            .await
            .map_err(store_error)?;
        let children = children.into_iter().map(|(_, child)| child.value);
        Ok(children.map(|child| document::<D>(&cluster, &child)).collect())
    }

    async fn read_named(
        provider: &ContainerService,
        state: &mut State,
        mutation: Mutation<'_, Action>,
    ) -> Result<(), ArmError> {
        let Mutation::Put(body) = mutation else {
            return Ok(());
        };
        if let Some(path) = D::identity(body) {
            let found = provider.identity_at(&path).await?;
            state.identity = found.map(|found| (key_of(&path), found));
        }
        Ok(())
    }

    fn decide(
        context: &Context<'_, ProviderConfig>,
        state: &State,
        mutation: Mutation<'_, Action>,
    ) -> Result<Decision<ChildChange>, ArmError> {
        let at = ClusterPath::of(context.info.path)?;
        let present = state.child.as_ref().map(|child| &child.value);
        let body = match mutation {
            Mutation::Delete => {
                return Ok(present.map_or(Decision::Unchanged, |_| Decision::Write(ChildChange::Delete)));
            }
            Mutation::Put(body) => body,
            Mutation::Act(action) => match *action {},
        };
        let cluster = state.cluster.as_ref().ok_or_else(|| at.parent_not_found())?;
        refuse_deleting(&cluster.record.value)?;
        if !body.is_object() {
            return Err(not_an_object());
        }
        let mut body = body.clone();
        D::adapt(&mut body);
        let mut problems = Problems::default();
        let mut cleaned = clean(D::tree(), &body, context.info.api_version, &mut problems);
        let mut properties = match cleaned.body.remove("properties") {
            Some(Value::Object(properties)) => properties,
            _ => Map::new(),
        };
        let identity = state.identity.as_ref().map(|(_, identity)| &identity.value);
        let asked = Asked {
            name: at.child,
            cluster: &cluster.record.value,
            present,
            identity,
        };
        D::complete(&asked, &mut properties, &mut problems);
        problems.into_result()?;
        let before = present.map(|present| &present.system_data);
        let record = ChildRecord {
            v: 1,
            name: at.child.to_owned(),
            generation: present.map_or(1, |present| present.generation + 1),
            properties: Value::Object(properties),
            principal: identity.map(|identity| identity.principal_id.clone()),
            system_data: system_data::touched(before, context.info.principal, context.now),
        };
        Ok(Decision::Write(ChildChange::Put(Box::new(record))))
    }

    async fn transaction(
        provider: &ContainerService,
        info: &RequestInfo<'_>,
        state: &State,
        change: &ChildChange,
    ) -> Result<Txn, ArmError> {
        let at = ClusterPath::of(info.path)?;
        let cluster = state.cluster.as_ref().ok_or_else(|| at.parent_not_found())?;
        let uid = &cluster.record.value.uid;
        let key = child::key(uid, D::KIND, at.child);
        // A cluster that begins to go meanwhile takes no more children.
        let txn = Txn::default().at(key::desired(uid), cluster.record.revision);
        let txn = match &state.child {
            Some(child) => txn.at(&key, child.revision),
            None => txn.absent(&key),
        };
        Ok(match change {
            ChildChange::Put(record) => {
                if state.child.is_none() {
                    provider.check_room::<D>(uid).await?;
                }
                // The identity that it was decided by is still the same.
                let named = state.identity.iter();
                named
                    .fold(txn, |txn, (key, identity)| txn.at(key, identity.revision))
                    .with(put_record(key, &**record))
            }
            ChildChange::Delete => txn.delete(key),
        })
    }

    fn render(state: &State, change: Option<&ChildChange>, _: &ResourcePath, _: &str) -> Value {
        let record = match change {
            Some(ChildChange::Put(record)) => Some(&**record),
            Some(ChildChange::Delete) => None,
            None => state.child.as_ref().map(|child| &child.value),
        };
        match (&state.cluster, record) {
            (Some(cluster), Some(record)) => document::<D>(cluster, record),
            _ => Value::Null,
        }
    }

    fn operation(_: &ChildChange) -> Option<&str> {
        None
    }
}

impl ContainerService {
    /// Whether a cluster may have one more.
    async fn check_room<D: Document>(&self, uid: &str) -> Result<(), ArmError> {
        let prefix = child::key(uid, D::KIND, "");
        let (others, _) = self.store.list(&prefix).await.map_err(store_error)?;
        if others.len() < D::MOST {
            return Ok(());
        }
        let message = format!(
            "The cluster has {} {}, and can have no more; delete one that is not needed.",
            others.len(),
            D::KIND
        );
        Err(ArmError::new(ErrorCode::QUOTA_EXCEEDED, message))
    }
}
