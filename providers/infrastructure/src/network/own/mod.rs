//! Networks that tenants make: how a resource with parts (a VNET with subnets, a security group with rules) is read, decided about and
//! written. A part is a resource of its own and is kept in the record of what it is a part of.
//!
//! Always true: a resource that a cluster has made is shown and never written; what is in use is neither deleted nor moved, also where the
//! use begins in the same moment: whoever begins it writes the record anew.

mod properties;
mod rows;
mod rules;
#[cfg(test)]
mod tests;
pub(crate) mod vnets;

use std::{collections::BTreeSet, marker::PhantomData, net::Ipv4Addr};

use arm_access::Scope as AccessScope;
use arm_ids::{ResourcePath, resource_id, same_location};
use arm_kernel::{
    Context, Decision, Host, Mutation, Presence, Purpose, RequestInfo, Resource, Tagged, Tags, delete_each,
    etag, quote,
    schema::{Node, Problems, Schema, clean},
    store_error,
};
use arm_wire::{ArmError, ErrorCode, Principal, PrincipalKind};
use async_trait::async_trait;
use base_env::Env;
use control_records::{ClusterRecord, GroupRecord, access, key, network, network::NetworkRecord};
use control_store::{Op, Revision, Store, Stored, Txn, get_record, list_records, put_record};
use serde_json::{Map, Value, json};

use super::{NAMESPACE, Network, Of};
use crate::{Stamp, compute, missing, place::places, usages};

pub(super) use rows::{GROUPS, RULES, SUBNETS, VNETS};

/// Assignments and locks that may go with a resource.
const MOST_RIGHTS: usize = 80;

impl Host for Network {
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

    /// Nothing here is long-running.
    fn location(&self) -> &str {
        &self.stamp.location
    }
}

/// A type of resources with parts.
#[async_trait]
pub(crate) trait Kind: Send + Sync + 'static {
    /// Its name.
    const TYPE: &'static str;
    /// Its name in keys.
    const KEY: &'static str;
    /// The name of its parts.
    const PARTS: &'static str;
    /// What of it clusters make.
    const OF_CLUSTERS: Of;
    const SCHEMA: Schema;
    const PART_SCHEMA: Schema;
    /// The most of a subscription.
    const MOST: usize;

    fn tree() -> &'static Node;
    fn part_tree() -> &'static Node;
    /// Canonical properties from clean ones. Parts are left as they are.
    fn properties(stamp: &Stamp, asked: Map<String, Value>, problems: &mut Problems) -> Map<String, Value>;
    /// A canonical part. `path`: where it stands in the body.
    fn part(name: &str, asked: Map<String, Value>, path: &str, problems: &mut Problems) -> Value;
    /// Checks all of it together.
    fn check(decided: &Decided<'_>, problems: &mut Problems);
    /// Why it, or a part of it, cannot go.
    fn in_use(users: &[User], name: &str, part: Option<&str>) -> Option<(ErrorCode, String)>;
    /// Security groups that properties name.
    fn references(_: &Value) -> Vec<ResourcePath> {
        Vec::new()
    }
    /// Its properties in answers, without parts.
    fn shown(record: &NetworkRecord, users: &[User]) -> Value;
    /// A part's properties in answers.
    fn shown_part(part: &Value) -> Value;
    /// Who uses it.
    async fn users(store: &dyn Store, record: &NetworkRecord) -> Result<Users, ArmError>;
}

/// A use of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    /// Of which part; empty: of all.
    pub(crate) part: String,
    /// By whom, for people.
    pub(crate) who: String,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Users {
    pub(crate) found: Vec<User>,
    /// Uids of the clusters that are in it.
    pub(crate) clusters: BTreeSet<String>,
}

/// What is checked as a whole.
pub(crate) struct Decided<'a> {
    pub(crate) name: &'a str,
    pub(crate) before: Option<&'a Value>,
    pub(crate) after: &'a Value,
    pub(crate) users: &'a [User],
    parts: &'static str,
    /// The only part that is asked about.
    part: Option<&'a str>,
}

impl Decided<'_> {
    /// Where a part stands in the body.
    pub(crate) fn target(&self, index: usize, name: &str) -> String {
        match self.part {
            Some(part) if part.eq_ignore_ascii_case(name) => "properties".to_owned(),
            Some(_) => "name".to_owned(),
            None => format!("properties.{}[{index}]", self.parts),
        }
    }
}

/// The resources of a kind, as the kernel sees them.
pub(crate) struct Top<K>(PhantomData<fn() -> K>);
/// The parts of a kind, as the kernel sees them.
pub(crate) struct Part<K>(PhantomData<fn() -> K>);

/// A resource and what decisions about it rest on.
pub(crate) struct State {
    found: Option<Stored<NetworkRecord>>,
    users: Users,
    /// Where a cluster has made it.
    view: Option<Value>,
    /// Its group, read where it is to be made.
    group: Option<Revision>,
}

/// What is written.
pub(crate) enum Change {
    Put(Box<NetworkRecord>),
    Delete,
}

impl Change {
    fn put(record: NetworkRecord) -> Self {
        Self::Put(Box::new(record))
    }
}

/// There are no other actions.
pub(crate) enum Action {}

/// Where a path's resource is.
struct Place<'a> {
    subscription: &'a str,
    group: &'a str,
    name: &'a str,
    part: &'a str,
}

impl<'a> Place<'a> {
    fn of(path: &'a ResourcePath) -> Self {
        Self {
            subscription: path.subscription.as_deref().unwrap_or_default(),
            group: path.resource_group.as_deref().unwrap_or_default(),
            name: path.name(0).unwrap_or_default(),
            part: path.name(1).unwrap_or_default(),
        }
    }
}

/// Its id.
pub(crate) fn id_of<K: Kind>(record: &NetworkRecord) -> String {
    resource_id(
        &record.subscription,
        &record.resource_group,
        NAMESPACE,
        &[(K::TYPE, &record.name)],
    )
}

impl State {
    async fn read<K: Kind>(
        provider: &Network,
        path: &ResourcePath,
        purpose: Purpose,
    ) -> Result<Self, ArmError> {
        let (store, place) = (&*provider.stamp.store, Place::of(path));
        let key = network::key(K::KEY, place.subscription, place.group, place.name);
        let found = get_record::<NetworkRecord>(store, &key)
            .await
            .map_err(store_error)?;
        let mut state = Self {
            found,
            users: Users::default(),
            view: None,
            group: None,
        };
        match &state.found {
            Some(found) => state.users = K::users(store, &found.value).await?,
            None => {
                let all = places(store, place.subscription, Some(place.group)).await?;
                let mut views = all.iter().flat_map(|one| (K::OF_CLUSTERS)(one, &provider.stamp));
                state.view = views.find(|view| super::is_called(view, place.name));
                if purpose == Purpose::Decision {
                    let key = key::group(place.subscription, place.group);
                    let group = get_record::<GroupRecord>(store, &key)
                        .await
                        .map_err(store_error)?;
                    // Of one that is going nothing is made; the edge has said so to whoever came before it went.
                    let group = group.filter(|record| !record.value.deleting);
                    state.group = group.map(|record| record.revision);
                }
            }
        }
        Ok(state)
    }

    fn record(&self) -> Option<&NetworkRecord> {
        self.found.as_ref().map(|found| &found.value)
    }

    fn part<'a>(&'a self, parts: &str, name: &str) -> Option<&'a Value> {
        let properties = match (&self.found, &self.view) {
            (Some(found), _) => &found.value.properties,
            (None, Some(view)) => &view["properties"],
            (None, None) => return None,
        };
        find(properties, parts, name)
    }

    /// What a cluster has made is changed through it.
    fn refuse_view(&self) -> Result<(), ArmError> {
        let Some(view) = &self.view else { return Ok(()) };
        let owner = view["tags"]["aks-managed-cluster-name"]
            .as_str()
            .unwrap_or_default();
        let message = format!(
            "{} was made by the cluster {} and goes with it; it cannot be changed. Make a virtual network or security group of your own in \
             another group.",
            quote(view["name"].as_str().unwrap_or_default()),
            quote(owner)
        );
        Err(ArmError::new(ErrorCode::OPERATION_NOT_ALLOWED, message))
    }
}

fn find<'a>(properties: &'a Value, parts: &str, name: &str) -> Option<&'a Value> {
    let mut all = properties[parts].as_array().into_iter().flatten();
    all.find(|part| super::is_called(part, name))
}

fn tag_of(record: &NetworkRecord) -> String {
    let tag = etag(&record.uid, "", record.generation, record.modified_at);
    format!("W/\"{tag}\"")
}

fn answer_part<K: Kind>(record: &NetworkRecord, part: &Value) -> Value {
    let name = part["name"].as_str().unwrap_or_default();
    json!({
        "id": format!("{}/{}/{name}", id_of::<K>(record), K::PARTS),
        "name": name,
        "type": format!("{NAMESPACE}/{}/{}", K::TYPE, K::PARTS),
        "etag": tag_of(record),
        "properties": K::shown_part(part),
    })
}

fn answer<K: Kind>(record: &NetworkRecord, users: &[User]) -> Value {
    let mut properties = K::shown(record, users);
    let parts = record.properties[K::PARTS].as_array().into_iter().flatten();
    properties[K::PARTS] = parts.map(|part| answer_part::<K>(record, part)).collect();
    // Of the form of a GUID.
    properties["resourceGuid"] = json!(etag(&record.uid, "guid", 0, record.created_at));
    json!({
        "id": id_of::<K>(record),
        "name": record.name,
        "type": format!("{NAMESPACE}/{}", K::TYPE),
        "etag": tag_of(record),
        "location": record.location,
        "tags": record.tags,
        "properties": properties,
    })
}

/// A name that ARM allows.
fn check_name(name: &str, most: usize, target: &str, problems: &mut Problems) {
    let plain = name
        .chars()
        .all(|char| char.is_ascii_alphanumeric() || "-_.".contains(char));
    let begins = name.starts_with(|char: char| char.is_ascii_alphanumeric());
    let ends = name.ends_with(|char: char| char.is_ascii_alphanumeric() || char == '_');
    if !(plain && begins && ends && name.len() <= most) {
        let message = format!(
            "The name {} must have 1 to {most} letters, digits, '-', '_' and '.', begin with a letter or a digit and end with one or '_'.",
            quote(name)
        );
        problems.add(ErrorCode::INVALID_RESOURCE_NAME, target, message);
    }
}

/// Clusters that are in a VNET, with the subnets that their pools are in.
pub(crate) async fn clusters_in(store: &dyn Store, record: &NetworkRecord) -> Result<Users, ArmError> {
    let mut users = Users::default();
    for uid in &record.clusters {
        let cluster = get_record::<ClusterRecord>(store, &key::desired(uid)).await;
        let Some(cluster) = cluster.map_err(store_error)? else {
            continue;
        };
        let cluster = cluster.value;
        users.clusters.insert(uid.clone());
        let who = format!(
            "the cluster {} in {}",
            quote(&cluster.name),
            quote(&cluster.resource_group)
        );
        let pools = cluster
            .body()
            .pointer("/properties/agentPoolProfiles")
            .and_then(Value::as_array);
        let ids = pools
            .into_iter()
            .flatten()
            .filter_map(|pool| pool["vnetSubnetID"].as_str());
        for path in ids.filter_map(|id| ResourcePath::parse(id).ok()) {
            let part = path.name(1).unwrap_or_default().to_owned();
            let user = User {
                part,
                who: who.clone(),
            };
            if !users.found.contains(&user) {
                users.found.push(user);
            }
        }
    }
    // Nodes that are on their way out are there until they are gone.
    let leases = format!("{}{}/", key::LEASES, record.uid);
    let (leases, _) = store.list(&leases).await.map_err(store_error)?;
    let address = |key: &str| key.rsplit('/').next()?.parse::<Ipv4Addr>().ok();
    for address in leases.iter().filter_map(|(key, _)| address(key)) {
        let mut subnets = vnets::subnets(&record.properties);
        let subnet =
            subnets.find(|subnet| vnets::range(subnet).is_some_and(|range| range.contains(&address)));
        let name = subnet.and_then(|subnet| subnet["name"].as_str());
        if let Some(name) = name.filter(|name| {
            !users
                .found
                .iter()
                .any(|user| user.part.eq_ignore_ascii_case(name))
        }) {
            users.found.push(User {
                part: name.to_owned(),
                who: "nodes that are being removed".to_owned(),
            });
        }
    }
    Ok(users)
}

/// Assignments and locks go with what they are at.
async fn rights(store: &dyn Store, scope: &AccessScope) -> Result<Vec<Op>, ArmError> {
    let (rights, all) = access::removals_below(store, scope, MOST_RIGHTS)
        .await
        .map_err(store_error)?;
    if all {
        return Ok(rights);
    }
    let message =
        "Too many roles or locks are assigned at the resource for it to go in one step; remove some of them.";
    Err(ArmError::new(ErrorCode::CONFLICT, message))
}

/// The transaction of a change of a resource, or of a part of it.
async fn transaction<K: Kind>(
    provider: &Network,
    info: &RequestInfo<'_>,
    state: &State,
    change: &Change,
) -> Result<Txn, ArmError> {
    let (store, place) = (&*provider.stamp.store, Place::of(info.path));
    let own = network::key(K::KEY, place.subscription, place.group, place.name);
    let mut txn = match &state.found {
        None => Txn::default().absent(&own),
        Some(found) => Txn::default().at(&own, found.revision),
    };
    let scope = AccessScope::parse(&info.path.to_string()).map_err(ArmError::internal)?;
    let record = match change {
        Change::Delete => {
            txn = txn.delete(own);
            txn.ops.extend(rights(store, &scope).await?);
            return Ok(txn);
        }
        Change::Put(record) => record,
    };
    let before = state
        .record()
        .map(|record| K::references(&record.properties))
        .unwrap_or_default();
    let mut joined: Vec<ResourcePath> = Vec::new();
    for group in K::references(&record.properties) {
        if before.iter().chain(&joined).any(|known| known.same(&group)) {
            continue;
        }
        let at = Place::of(&group);
        let key = network::key(network::SECURITY_GROUPS, at.subscription, at.group, at.name);
        let found = get_record::<NetworkRecord>(store, &key)
            .await
            .map_err(store_error)?;
        let Some(found) = found.filter(|_| at.subscription.eq_ignore_ascii_case(place.subscription)) else {
            let message = format!(
                "Resource {group} referenced by resource {} was not found. The security group has to be one of your own in the same \
                 subscription.",
                info.path
            );
            return Err(ArmError::new(ErrorCode::INVALID_RESOURCE_REFERENCE, message));
        };
        // Written anew, so that a deletion that has not seen this use fails.
        txn = txn.at(&key, found.revision).with(put_record(&key, &found.value));
        joined.push(group);
    }
    if state.found.is_none() {
        let Some(group) = state.group else {
            let message = format!(
                "The resource group {} is being deleted; nothing can be created in it.",
                quote(place.group)
            );
            return Err(ArmError::new(ErrorCode::RESOURCE_GROUP_BEING_DELETED, message));
        };
        let prefix = network::key(K::KEY, place.subscription, "", "");
        let (others, _) = store.list(&prefix).await.map_err(store_error)?;
        if others.len() >= K::MOST {
            let (location, subscription) = (&provider.stamp.location, place.subscription);
            return Err(usages::exceeded(
                K::TYPE,
                K::MOST,
                others.len(),
                location,
                subscription,
            ));
        }
        txn = txn.at(key::group(place.subscription, place.group), group);
    } else if !place.part.is_empty() && find(&record.properties, K::PARTS, place.part).is_none() {
        txn.ops.extend(rights(store, &scope).await?);
    }
    Ok(txn.with(put_record(own, record)))
}

#[async_trait]
impl<K: Kind> Resource for Top<K> {
    type Provider = Network;
    type State = State;
    type Change = Change;
    type Action = Action;

    async fn read(provider: &Network, path: &ResourcePath, purpose: Purpose) -> Result<State, ArmError> {
        State::read::<K>(provider, path, purpose).await
    }

    fn presence(state: &State, _: &ResourcePath) -> Presence {
        match (state.record(), &state.view) {
            (Some(record), _) => Presence::Present(tag_of(record)),
            (None, Some(_)) => Presence::Present(String::new()),
            (None, None) => Presence::Absent,
        }
    }

    fn missing(_: &State, path: &ResourcePath) -> ArmError {
        let place = Place::of(path);
        missing(&format!("{NAMESPACE}/{}", K::TYPE), place.name, place.group)
    }

    async fn list(provider: &Network, path: &ResourcePath, _: &str) -> Result<Vec<Value>, ArmError> {
        let place = Place::of(path);
        listed::<K>(provider, place.subscription, path.resource_group.as_deref()).await
    }

    fn decide(
        context: &Context<'_, Stamp>,
        state: &State,
        mutation: Mutation<'_, Action>,
    ) -> Result<Decision<Change>, ArmError> {
        state.refuse_view()?;
        match mutation {
            Mutation::Put(body) => put::<K>(context, state, body),
            Mutation::Delete => {
                let Some(record) = state.record() else {
                    return Ok(Decision::Unchanged);
                };
                match K::in_use(&state.users.found, &record.name, None) {
                    Some((code, message)) => Err(ArmError::new(code, message)),
                    None => Ok(Decision::Write(Change::Delete)),
                }
            }
            Mutation::Act(action) => match *action {},
        }
    }

    async fn transaction(
        provider: &Network,
        info: &RequestInfo<'_>,
        state: &State,
        change: &Change,
    ) -> Result<Txn, ArmError> {
        transaction::<K>(provider, info, state, change).await
    }

    fn render(state: &State, change: Option<&Change>, _: &ResourcePath, _: &str) -> Value {
        match (change, state.record(), &state.view) {
            (Some(Change::Put(record)), _, _) => answer::<K>(record, &state.users.found),
            (_, Some(record), _) => answer::<K>(record, &state.users.found),
            (_, None, Some(view)) => view.clone(),
            (_, None, None) => Value::Null,
        }
    }

    fn operation(_: &Change) -> Option<&str> {
        None
    }
}

/// The record after a change.
fn changed(context: &Context<'_, Stamp>, state: &State, present: &NetworkRecord) -> NetworkRecord {
    NetworkRecord {
        generation: present.generation + 1,
        clusters: state.users.clusters.clone(),
        modified_at: context.now,
        ..present.clone()
    }
}

fn put<K: Kind>(
    context: &Context<'_, Stamp>,
    state: &State,
    body: &Value,
) -> Result<Decision<Change>, ArmError> {
    let (place, present) = (Place::of(context.info.path), state.record());
    check_object(body)?;
    let mut problems = Problems::default();
    check_name(place.name, 80, "name", &mut problems);
    let mut asked = clean(K::tree(), body, context.info.api_version, &mut problems).body;
    location(
        context.config,
        present,
        asked.get("location").and_then(Value::as_str),
        &mut problems,
    );
    let tags = asked
        .remove("tags")
        .and_then(|tags| serde_json::from_value(tags).ok())
        .unwrap_or_default();
    let asked = match asked.remove("properties") {
        Some(Value::Object(properties)) => properties,
        _ => Map::new(),
    };
    let mut properties = K::properties(context.config, asked, &mut problems);
    let parts = match properties.remove(K::PARTS) {
        Some(Value::Array(parts)) => parts_of::<K>(parts, &mut problems),
        _ => present
            .map(|present| present.properties[K::PARTS].clone())
            .unwrap_or_else(|| json!([])),
    };
    properties.insert(K::PARTS.to_owned(), parts);
    let properties = Value::Object(properties);
    let decided = Decided {
        name: place.name,
        before: present.map(|present| &present.properties),
        after: &properties,
        users: &state.users.found,
        parts: K::PARTS,
        part: None,
    };
    K::check(&decided, &mut problems);
    problems.into_result()?;
    let record = match present {
        Some(present) if present.properties == properties && present.tags == tags => {
            return Ok(Decision::Unchanged);
        }
        Some(present) => NetworkRecord {
            tags,
            properties,
            ..changed(context, state, present)
        },
        None => NetworkRecord {
            v: 1,
            uid: context.ids.short(),
            subscription: place.subscription.to_owned(),
            resource_group: place.group.to_owned(),
            name: place.name.to_owned(),
            location: context.config.location.clone(),
            tags,
            generation: 1,
            properties,
            clusters: BTreeSet::new(),
            created_at: context.now,
            modified_at: context.now,
        },
    };
    Ok(Decision::Write(Change::put(record)))
}

fn check_object(body: &Value) -> Result<(), ArmError> {
    if body.is_object() {
        return Ok(());
    }
    let message = "The request needs a body that is a JSON object.";
    Err(ArmError::new(ErrorCode::INVALID_REQUEST_CONTENT, message))
}

fn location(stamp: &Stamp, present: Option<&NetworkRecord>, asked: Option<&str>, problems: &mut Problems) {
    match (asked, present) {
        (Some(asked), Some(present)) if !same_location(asked, &present.location) => problems.add(
            ErrorCode::INVALID_RESOURCE_LOCATION,
            "location",
            format!(
                "The resource is in location '{}' and cannot move to {}.",
                present.location,
                quote(asked)
            ),
        ),
        (Some(asked), None) if !same_location(asked, &stamp.location) => problems.add(
            ErrorCode::LOCATION_NOT_AVAILABLE,
            "location",
            format!(
                "The location {} is not available here; use '{}'.",
                quote(asked),
                stamp.location
            ),
        ),
        (None, None) => problems.add(
            ErrorCode::MISSING_PARAMETER,
            "location",
            format!(
                "The required property 'location' is missing; use '{}'.",
                stamp.location
            ),
        ),
        _ => {}
    }
}

fn parts_of<K: Kind>(asked: Vec<Value>, problems: &mut Problems) -> Value {
    let mut parts: Vec<Value> = Vec::new();
    for (index, part) in asked.into_iter().enumerate() {
        let path = format!("properties.{}[{index}].", K::PARTS);
        let Value::Object(mut part) = part else { continue };
        let properties = match part.remove("properties") {
            Some(Value::Object(properties)) => properties,
            _ => Map::new(),
        };
        let name = part.get("name").and_then(Value::as_str).unwrap_or_default();
        if parts.iter().any(|other| super::is_called(other, name)) {
            let message = format!("There are two of the name {}.", quote(name));
            problems.add(ErrorCode::INVALID_PARAMETER, format!("{path}name"), message);
        }
        parts.push(K::part(name, properties, &path, problems));
    }
    Value::Array(parts)
}

impl<K: Kind> Tagged for Top<K> {
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
        let record = NetworkRecord {
            tags,
            ..changed(context, state, present)
        };
        Ok(Decision::Write(Change::put(record)))
    }
}

#[async_trait]
impl<K: Kind> Resource for Part<K> {
    type Provider = Network;
    type State = State;
    type Change = Change;
    type Action = Action;

    async fn read(provider: &Network, path: &ResourcePath, purpose: Purpose) -> Result<State, ArmError> {
        State::read::<K>(provider, path, purpose).await
    }

    fn presence(state: &State, path: &ResourcePath) -> Presence {
        match (state.part(K::PARTS, Place::of(path).part), state.record()) {
            (Some(_), Some(record)) => Presence::Present(tag_of(record)),
            (Some(_), None) => Presence::Present(String::new()),
            (None, _) => Presence::Absent,
        }
    }

    fn creatable(state: &State, path: &ResourcePath) -> Result<(), ArmError> {
        state.refuse_view()?;
        if state.found.is_some() {
            return Ok(());
        }
        let message = format!(
            "Can not perform requested operation on nested resource. Parent resource {} not found.",
            quote(Place::of(path).name)
        );
        Err(ArmError::new(ErrorCode::PARENT_RESOURCE_NOT_FOUND, message))
    }

    fn missing(_: &State, path: &ResourcePath) -> ArmError {
        let place = Place::of(path);
        let name = format!("{}/{}/{}", place.name, K::PARTS, place.part);
        missing(&format!("{NAMESPACE}/{}", K::TYPE), &name, place.group)
    }

    async fn list(provider: &Network, path: &ResourcePath, _: &str) -> Result<Vec<Value>, ArmError> {
        let state = State::read::<K>(provider, path, Purpose::Answer).await?;
        match (state.record(), &state.view) {
            (Some(record), _) => {
                let parts = record.properties[K::PARTS].as_array().into_iter().flatten();
                Ok(parts.map(|part| answer_part::<K>(record, part)).collect())
            }
            (None, Some(view)) => Ok(view["properties"][K::PARTS]
                .as_array()
                .cloned()
                .unwrap_or_default()),
            (None, None) => Err(<Top<K> as Resource>::missing(&state, path)),
        }
    }

    fn decide(
        context: &Context<'_, Stamp>,
        state: &State,
        mutation: Mutation<'_, Action>,
    ) -> Result<Decision<Change>, ArmError> {
        state.refuse_view()?;
        let (Some(present), place) = (state.record(), Place::of(context.info.path)) else {
            return Ok(Decision::Unchanged);
        };
        let before = present.properties[K::PARTS]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let at = before.iter().position(|part| super::is_called(part, place.part));
        let mut parts = before;
        match (mutation, at) {
            (Mutation::Put(body), at) => {
                check_object(body)?;
                let mut problems = Problems::default();
                let mut asked = clean(K::part_tree(), body, context.info.api_version, &mut problems).body;
                let asked = match asked.remove("properties") {
                    Some(Value::Object(properties)) => properties,
                    _ => Map::new(),
                };
                let name = at
                    .and_then(|at| parts[at]["name"].as_str())
                    .unwrap_or(place.part)
                    .to_owned();
                let part = K::part(&name, asked, "", &mut problems);
                match at {
                    Some(at) => parts[at] = part,
                    None => parts.push(part),
                }
                if parts.len() > MOST_PARTS {
                    let message = format!(
                        "It would have {} {}; at most {MOST_PARTS} are allowed.",
                        parts.len(),
                        K::PARTS
                    );
                    problems.add(ErrorCode::INVALID_PARAMETER, "name", message);
                }
                let mut properties = present.properties.clone();
                properties[K::PARTS] = Value::Array(parts);
                let decided = Decided {
                    name: place.name,
                    before: Some(&present.properties),
                    after: &properties,
                    users: &state.users.found,
                    parts: K::PARTS,
                    part: Some(place.part),
                };
                K::check(&decided, &mut problems);
                problems.into_result()?;
                if properties == present.properties {
                    return Ok(Decision::Unchanged);
                }
                let record = NetworkRecord {
                    properties,
                    ..changed(context, state, present)
                };
                Ok(Decision::Write(Change::put(record)))
            }
            (Mutation::Delete, Some(at)) => {
                if let Some((code, message)) = K::in_use(&state.users.found, &present.name, Some(place.part))
                {
                    return Err(ArmError::new(code, message));
                }
                parts.remove(at);
                let mut record = changed(context, state, present);
                record.properties[K::PARTS] = Value::Array(parts);
                Ok(Decision::Write(Change::put(record)))
            }
            (Mutation::Delete, None) => Ok(Decision::Unchanged),
            (Mutation::Act(action), _) => match *action {},
        }
    }

    async fn transaction(
        provider: &Network,
        info: &RequestInfo<'_>,
        state: &State,
        change: &Change,
    ) -> Result<Txn, ArmError> {
        transaction::<K>(provider, info, state, change).await
    }

    fn render(state: &State, change: Option<&Change>, path: &ResourcePath, _: &str) -> Value {
        let name = Place::of(path).part;
        let record = match change {
            Some(Change::Put(record)) => Some(&**record),
            _ => state.record(),
        };
        match record {
            Some(record) => {
                let part = find(&record.properties, K::PARTS, name);
                part.map_or(Value::Null, |part| answer_part::<K>(record, part))
            }
            None => state.part(K::PARTS, name).cloned().unwrap_or(Value::Null),
        }
    }

    fn operation(_: &Change) -> Option<&str> {
        None
    }
}

/// The most parts of a resource, as the tables say it of whole lists.
const MOST_PARTS: usize = 200;

async fn records<K: Kind>(
    provider: &Network,
    subscription: &str,
    group: Option<&str>,
) -> Result<Vec<NetworkRecord>, ArmError> {
    let prefix = network::key(K::KEY, subscription, group.unwrap_or_default(), "");
    let (found, _) = list_records::<NetworkRecord>(&*provider.stamp.store, &prefix)
        .await
        .map_err(store_error)?;
    Ok(found.into_iter().map(|(_, found)| found.value).collect())
}

/// All of a subscription, or of one group of it: tenants', then clusters'.
async fn listed<K: Kind>(
    provider: &Network,
    subscription: &str,
    group: Option<&str>,
) -> Result<Vec<Value>, ArmError> {
    let mut all = Vec::new();
    for record in records::<K>(provider, subscription, group).await? {
        let users = K::users(&*provider.stamp.store, &record).await?;
        all.push(answer::<K>(&record, &users.found));
    }
    all.extend(provider.found(subscription, group, K::OF_CLUSTERS).await?);
    Ok(all)
}

/// Their lines in lists of resources.
async fn summaries<K: Kind>(
    provider: &Network,
    subscription: &str,
    group: Option<&str>,
) -> Result<Vec<Value>, ArmError> {
    let all = listed::<K>(provider, subscription, group).await?;
    Ok(all.into_iter().map(compute::summary).collect())
}

/// Deletes all of a group; what is still in use is waited for.
async fn delete_all<K: Kind>(provider: &Network, subscription: &str, group: &str) -> Result<usize, ArmError> {
    let mut each = Vec::new();
    for record in records::<K>(provider, subscription, Some(group)).await? {
        let users = K::users(&*provider.stamp.store, &record).await?;
        if K::in_use(&users.found, &record.name, None).is_none() {
            let path = ResourcePath::parse(&id_of::<K>(&record)).map_err(ArmError::internal)?;
            let nobody = Principal {
                object_id: String::new(),
                name: String::new(),
                tenant_id: String::new(),
                kind: PrincipalKind::Application,
            };
            each.push((path, nobody));
        }
    }
    delete_each::<Top<K>>(provider, &each, super::VERSIONS[0]).await?;
    Ok(records::<K>(provider, subscription, Some(group)).await?.len())
}
