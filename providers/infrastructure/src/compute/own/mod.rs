//! Disks that tenants make, and snapshots of disks: how they are read, decided about and written. Their volumes are made by the loops, which
//! write down that they were; until then a resource is `Creating`, and clients that wait for it ask for it again.
//!
//! Always true: a disk of a cluster is shown and never written; what a cluster has, or what is still copied, is not deleted; what began as a
//! copy of a disk of a tenant is written down in a transaction that the deletion of that disk does not pass.

mod decide;
mod properties;
mod rows;
#[cfg(test)]
mod tests;

use std::marker::PhantomData;

use arm_access::Scope as AccessScope;
use arm_ids::{ResourcePath, resource_id};
use arm_kernel::{
    Context, Decision, Host, Mutation, Presence, Purpose, RequestInfo, Resource, Tagged, Tags, delete_each,
    etag, quote,
    schema::{Node, Schema},
    store_error,
};
use arm_wire::{ArmError, ErrorCode, Principal};
use async_trait::async_trait;
use base_env::Env;
use control_records::{
    ClusterRecord,
    disk::{self, DiskId, DiskRecord},
    key,
    unknown::{self, Kind as UnknownKind},
    volume::VolumeRecord,
};
use control_store::{Revision, Store, Stored, Txn, get_record, list_records, put_record};
use serde_json::{Value, json};

use super::{Compute, DISKS, NAMESPACE, SNAPSHOTS, view};
use crate::{
    Stamp, missing,
    place::{Place, places},
    tenants::{At, group_is_going, open_group, rights},
    usages,
};

pub(super) use rows::{OF_DISKS, OF_SNAPSHOTS};

/// The most disks, and the most snapshots, of a subscription.
pub(crate) const MOST: usize = 500;

impl Host for Compute {
    type Config = Stamp;

    fn config(&self) -> &Stamp {
        &self.stamp
    }

    fn env(&self) -> &Env {
        &self.env
    }

    fn store(&self) -> &dyn Store {
        &*self.stamp.store
    }

    fn location(&self) -> &str {
        &self.stamp.location
    }
}

/// Disks or snapshots of them.
pub(super) trait Kind: Send + Sync + 'static {
    /// Whether these are snapshots.
    const SNAPSHOT: bool;
    /// Their name.
    const TYPE: &'static str;
    const SCHEMA: Schema;

    fn tree() -> &'static Node;
    /// Those of a cluster.
    fn of_cluster(place: &Place) -> Vec<Value>;
}

pub(super) enum Disks {}
pub(super) enum Snapshots {}

impl Kind for Disks {
    const SNAPSHOT: bool = false;
    const TYPE: &'static str = DISKS;
    const SCHEMA: Schema = properties::DISK_SCHEMA;

    fn tree() -> &'static Node {
        &properties::DISK
    }

    fn of_cluster(place: &Place) -> Vec<Value> {
        super::disks(place)
    }
}

impl Kind for Snapshots {
    const SNAPSHOT: bool = true;
    const TYPE: &'static str = SNAPSHOTS;
    const SCHEMA: Schema = properties::SNAPSHOT_SCHEMA;

    fn tree() -> &'static Node {
        &properties::SNAPSHOT
    }

    fn of_cluster(place: &Place) -> Vec<Value> {
        super::snapshots(place)
    }
}

/// The resources of a kind, as the kernel sees them.
pub(super) struct Own<K>(PhantomData<fn() -> K>);

/// A resource and what decisions about it rest on.
pub(super) struct State {
    found: Option<Stored<DiskRecord>>,
    /// Where a cluster has made it.
    view: Option<Value>,
    /// Its group, read where it is to be made.
    group: Option<Revision>,
    /// The id of the cluster that has it.
    holder: Option<String>,
    /// The id of a disk or snapshot that is still to become a copy of it.
    copied: Option<String>,
    /// What it is to begin as a copy of, where the body says so.
    source: Option<Source>,
}

/// What something begins as a copy of.
pub(super) struct Source {
    /// The id of its volume.
    volume: String,
    bytes: u64,
    /// The record, of one that a tenant made.
    own: Option<Box<Stored<DiskRecord>>>,
}

/// What is written.
pub(super) enum Change {
    Put(Box<DiskRecord>),
    Delete,
}

/// There are no other actions.
pub(super) enum Action {}

impl State {
    fn record(&self) -> Option<&DiskRecord> {
        self.found.as_ref().map(|found| &found.value)
    }

    /// What a cluster has made is changed through it.
    fn refuse_view(&self) -> Result<(), ArmError> {
        let Some(view) = &self.view else { return Ok(()) };
        let owner = view["tags"]["aks-managed-cluster-name"].as_str();
        let message = format!(
            "{} was made by the cluster {} and goes with what it was made for: a node, a PersistentVolumeClaim or a VolumeSnapshot; it cannot be \
             changed here.",
            quote(view["name"].as_str().unwrap_or_default()),
            quote(owner.unwrap_or_default())
        );
        Err(ArmError::new(ErrorCode::OPERATION_NOT_ALLOWED, message))
    }
}

/// Its id.
fn id_of(record: &DiskRecord) -> String {
    let kind = if record.snapshot { SNAPSHOTS } else { DISKS };
    resource_id(
        &record.subscription,
        &record.resource_group,
        NAMESPACE,
        &[(kind, &record.name)],
    )
}

fn tag_of(record: &DiskRecord) -> String {
    etag(&record.uid, "", record.generation, record.modified_at)
}

/// A disk or snapshot as ARM shows it; `holder`: the id of the cluster that has it. Which of its machines does is known to the fabric only.
fn answer(record: &DiskRecord, holder: Option<&str>) -> Value {
    let mut properties = record.properties.clone();
    let state = match holder {
        Some(_) => "Attached",
        None => "Unattached",
    };
    for (name, value) in [
        ("diskSizeGB", json!(record.bytes >> 30)),
        ("diskSizeBytes", json!(record.bytes)),
        ("diskState", json!(state)),
        ("provisioningState", json!(record.state())),
        ("timeCreated", json!(record.created_at.to_string())),
        // Of the form of a GUID.
        (
            "uniqueId",
            json!(etag(&record.uid, "unique", 0, record.created_at)),
        ),
    ] {
        properties[name] = value;
    }
    if let Some(why) = &record.failure {
        properties["copyCompletionError"] = json!({ "errorCode": "DiskNotMade", "errorMessage": why });
    }
    let kind = if record.snapshot { SNAPSHOTS } else { DISKS };
    let mut shown = json!({
        "id": id_of(record),
        "name": record.name,
        "type": format!("{NAMESPACE}/{kind}"),
        "location": record.location,
        "tags": record.tags,
        "sku": { "name": record.sku, "tier": view::tier(&record.sku) },
        "properties": properties,
    });
    if let Some(holder) = holder {
        shown["managedBy"] = json!(holder);
    }
    shown
}

/// The id of the cluster that has a disk. One that has no record of it has it no more.
async fn holder_of(store: &dyn Store, record: &DiskRecord) -> Result<Option<String>, ArmError> {
    let Some(uid) = &record.holder else {
        return Ok(None);
    };
    let held = store.get(&VolumeRecord::key(uid, &record.volume())).await;
    if held.map_err(store_error)?.is_none() {
        return Ok(None);
    }
    let cluster = get_record::<ClusterRecord>(store, &key::desired(uid)).await;
    let cluster = cluster.map_err(store_error)?.map(|found| found.value);
    Ok(cluster.map(|cluster| {
        let kinds = [("managedClusters", cluster.name.as_str())];
        resource_id(
            &cluster.subscription,
            &cluster.resource_group,
            "Microsoft.ContainerService",
            &kinds,
        )
    }))
}

/// All records of a subscription, or of one group of it.
async fn records<K: Kind>(
    store: &dyn Store,
    subscription: &str,
    group: Option<&str>,
) -> Result<Vec<DiskRecord>, ArmError> {
    let prefix = disk::key(K::SNAPSHOT, subscription, group.unwrap_or_default(), "");
    let (found, _) = list_records::<DiskRecord>(store, &prefix)
        .await
        .map_err(store_error)?;
    Ok(found.into_iter().map(|(_, found)| found.value).collect())
}

/// The number of them in a subscription.
pub(crate) async fn count(store: &dyn Store, snapshot: bool, subscription: &str) -> Result<usize, ArmError> {
    let prefix = disk::key(snapshot, subscription, "", "");
    let (found, _) = store.list(&prefix).await.map_err(store_error)?;
    Ok(found.len())
}

/// Tenants', then clusters'.
async fn listed<K: Kind>(
    provider: &Compute,
    subscription: &str,
    group: Option<&str>,
) -> Result<Vec<Value>, ArmError> {
    let store = &*provider.stamp.store;
    let mut all = Vec::new();
    for record in records::<K>(store, subscription, group).await? {
        let holder = holder_of(store, &record).await?;
        all.push(answer(&record, holder.as_deref()));
    }
    let places = places(store, subscription, group).await?;
    all.extend(places.iter().flat_map(K::of_cluster));
    Ok(all)
}

/// Deletes all of a group; what is still in use is waited for.
async fn delete_all<K: Kind>(provider: &Compute, subscription: &str, group: &str) -> Result<usize, ArmError> {
    let store = &*provider.stamp.store;
    let mut each = Vec::new();
    for record in records::<K>(store, subscription, Some(group)).await? {
        let copied = copied_by(store, &record).await?;
        if holder_of(store, &record).await?.is_none() && copied.is_none() {
            let path = ResourcePath::parse(&id_of(&record)).map_err(ArmError::internal)?;
            let nobody = Principal::named("", "");
            each.push((path, nobody));
        }
    }
    delete_each::<Own<K>>(provider, &each, super::VERSIONS[0]).await?;
    Ok(records::<K>(store, subscription, Some(group)).await?.len())
}

/// The id of a disk or snapshot that is still to become a copy of this one.
async fn copied_by(store: &dyn Store, record: &DiskRecord) -> Result<Option<String>, ArmError> {
    let volume = record.volume();
    let mut all = records::<Disks>(store, &record.subscription, None).await?;
    all.extend(records::<Snapshots>(store, &record.subscription, None).await?);
    let mut waiting = all
        .iter()
        .filter(|other| !other.is_made() && other.source.as_ref() == Some(&volume));
    Ok(waiting.next().map(id_of))
}

/// The disk or snapshot of this id, as a source: one that is there as a whole.
async fn source_of(store: &dyn Store, id: &str) -> Result<Option<Source>, ArmError> {
    let Some(asked) = DiskId::parse(id) else {
        return Ok(None);
    };
    let found = get_record::<DiskRecord>(store, &asked.key())
        .await
        .map_err(store_error)?;
    if let Some(found) = found {
        return Ok(found.value.is_made().then(|| Source {
            volume: found.value.volume(),
            bytes: found.value.bytes,
            own: Some(Box::new(found)),
        }));
    }
    let places = places(store, &asked.subscription, Some(&asked.resource_group)).await?;
    let mut volumes = places.iter().flat_map(|place| &place.volumes);
    let found = volumes.find(|volume| {
        let name = if volume.snapshot {
            view::snapshot_name(volume)
        } else {
            volume.name.clone()
        };
        let whole = volume.published && !volume.deleting && !volume.shared && volume.disk.is_none();
        whole && volume.snapshot == asked.snapshot && name.eq_ignore_ascii_case(&asked.name)
    });
    Ok(found.map(|found| Source {
        volume: found.id.clone(),
        bytes: found.bytes,
        own: None,
    }))
}

#[async_trait]
impl<K: Kind> Resource for Own<K> {
    type Provider = Compute;
    type State = State;
    type Change = Change;
    type Action = Action;

    async fn read(provider: &Compute, path: &ResourcePath, purpose: Purpose) -> Result<State, ArmError> {
        let (store, at) = (&*provider.stamp.store, At::of(path));
        let key = disk::key(K::SNAPSHOT, at.subscription, at.group, at.name);
        let found = get_record::<DiskRecord>(store, &key).await.map_err(store_error)?;
        let mut state = State {
            found,
            view: None,
            group: None,
            holder: None,
            copied: None,
            source: None,
        };
        match &state.found {
            Some(found) => {
                state.holder = holder_of(store, &found.value).await?;
                if purpose == Purpose::Decision {
                    state.copied = copied_by(store, &found.value).await?;
                }
            }
            None => {
                let all = places(store, at.subscription, Some(at.group)).await?;
                let mut views = all.iter().flat_map(K::of_cluster);
                state.view = views.find(|view| {
                    let name = view["name"].as_str();
                    name.is_some_and(|name| name.eq_ignore_ascii_case(at.name))
                });
                if purpose == Purpose::Decision {
                    state.group = open_group(store, at.subscription, at.group).await?;
                }
            }
        }
        Ok(state)
    }

    fn presence(state: &State, _: &ResourcePath) -> Presence {
        match (state.record(), &state.view) {
            (Some(record), _) => Presence::Present(tag_of(record)),
            (None, Some(_)) => Presence::Present(String::new()),
            (None, None) => Presence::Absent,
        }
    }

    fn missing(_: &State, path: &ResourcePath) -> ArmError {
        let at = At::of(path);
        missing(&format!("{NAMESPACE}/{}", K::TYPE), at.name, at.group)
    }

    async fn list(provider: &Compute, path: &ResourcePath, _: &str) -> Result<Vec<Value>, ArmError> {
        let at = At::of(path);
        listed::<K>(provider, at.subscription, path.resource_group.as_deref()).await
    }

    async fn read_named(
        provider: &Compute,
        state: &mut State,
        mutation: Mutation<'_, Action>,
    ) -> Result<(), ArmError> {
        let (Mutation::Put(body), None) = (mutation, &state.found) else {
            return Ok(());
        };
        if let Some(id) = body.pointer(decide::SOURCE).and_then(Value::as_str) {
            state.source = source_of(&*provider.stamp.store, id).await?;
        }
        Ok(())
    }

    fn decide(
        context: &Context<'_, Stamp>,
        state: &State,
        mutation: Mutation<'_, Action>,
    ) -> Result<Decision<Change>, ArmError> {
        state.refuse_view()?;
        match mutation {
            Mutation::Put(body) => decide::put::<K>(context, state, body),
            Mutation::Delete => decide::delete(state),
            Mutation::Act(action) => match *action {},
        }
    }

    async fn transaction(
        provider: &Compute,
        info: &RequestInfo<'_>,
        state: &State,
        change: &Change,
    ) -> Result<Txn, ArmError> {
        let (store, at) = (&*provider.stamp.store, At::of(info.path));
        let own = disk::key(K::SNAPSHOT, at.subscription, at.group, at.name);
        let mut txn = match &state.found {
            None => Txn::default().absent(&own),
            Some(found) => Txn::default().at(&own, found.revision),
        };
        let record = match (change, state.record()) {
            (Change::Put(record), _) => record,
            (Change::Delete, None) => return Ok(txn),
            (Change::Delete, Some(record)) => {
                let scope = AccessScope::parse(&info.path.to_string()).map_err(ArmError::internal)?;
                let now = provider.env.clock.now();
                txn = txn
                    .delete(own)
                    .with(unknown::removed(UnknownKind::Volume, &record.volume(), now));
                txn.ops.extend(rights(store, &scope).await?);
                return Ok(txn);
            }
        };
        if state.found.is_none() {
            let Some(group) = state.group else {
                return Err(group_is_going(at.group));
            };
            let there = count(store, K::SNAPSHOT, at.subscription).await?;
            if there >= MOST {
                let location = &provider.stamp.location;
                return Err(usages::exceeded(K::TYPE, MOST, there, location, at.subscription));
            }
            txn = txn.at(key::group(at.subscription, at.group), group);
            if let Some(source) = state.source.as_ref().and_then(|source| source.own.as_ref()) {
                // Written anew, so that a deletion that has not seen this use fails.
                let key = source.value.key();
                txn = txn
                    .at(&key, source.revision)
                    .with(put_record(&key, &source.value));
            }
        }
        Ok(txn.with(put_record(own, &**record)))
    }

    fn render(state: &State, change: Option<&Change>, _: &ResourcePath, _: &str) -> Value {
        let holder = state.holder.as_deref();
        match (change, state.record(), &state.view) {
            (Some(Change::Put(record)), _, _) => answer(record, holder),
            (_, Some(record), _) => answer(record, holder),
            (_, None, Some(view)) => view.clone(),
            (_, None, None) => Value::Null,
        }
    }

    fn operation(_: &Change) -> Option<&str> {
        None
    }
}

impl<K: Kind> Tagged for Own<K> {
    fn tags(state: &State) -> Option<Tags> {
        state.record().map(|record| record.tags.clone())
    }

    fn decide_tags(
        context: &Context<'_, Stamp>,
        state: &State,
        tags: Tags,
    ) -> Result<Decision<Change>, ArmError> {
        state.refuse_view()?;
        let Some(present) = state.record() else {
            return Err(Self::missing(state, context.info.path));
        };
        Ok(Decision::Write(Change::Put(Box::new(DiskRecord {
            tags,
            generation: present.generation + 1,
            modified_at: context.now,
            ..present.clone()
        }))))
    }
}
