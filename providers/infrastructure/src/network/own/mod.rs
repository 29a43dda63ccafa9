//! Networks that tenants make: how a resource with parts (a VNET with subnets, a security group with rules) is read, decided about and
//! written. A part is a resource of its own and is kept in the record of what it is a part of.
//!
//! Always true: a resource that a cluster has made is shown and never written; what is in use is neither deleted nor moved, also where the
//! use begins in the same moment: whoever begins it writes the record anew.

mod part;
mod properties;
mod rows;
mod rules;
#[cfg(test)]
mod tests;
mod top;
pub(crate) mod vnets;

use std::{collections::BTreeSet, net::Ipv4Addr};

use arm_access::Scope as AccessScope;
use arm_ids::{ResourcePath, resource_id};
use arm_kernel::{
    Context, Host, Purpose, RequestInfo, delete_each, etag, quote,
    schema::{Node, Problems, Schema},
    store_error,
};
use arm_wire::{ArmError, ErrorCode, Principal};
use async_trait::async_trait;
use base_env::Env;
use control_records::{ClusterRecord, key, network, network::NetworkRecord};
use control_store::{Revision, Store, Stored, Txn, get_record, put_record};
use serde_json::{Map, Value, json};

use super::{NAMESPACE, Network, Of, records, tag_of};
use crate::{
    Stamp, compute,
    place::places,
    tenants::{At, group_is_going, open_group, rights},
    usages,
};

use part::Part;
pub(super) use rows::{GROUPS, RULES, SUBNETS, VNETS};
use top::Top;

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
        let (store, place) = (&*provider.stamp.store, At::of(path));
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
                    state.group = open_group(store, place.subscription, place.group).await?;
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

/// The record after a change.
fn changed(context: &Context<'_, Stamp>, state: &State, present: &NetworkRecord) -> NetworkRecord {
    NetworkRecord {
        generation: present.generation + 1,
        clusters: state.users.clusters.clone(),
        modified_at: context.now,
        ..present.clone()
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

/// The transaction of a change of a resource, or of a part of it.
async fn transaction<K: Kind>(
    provider: &Network,
    info: &RequestInfo<'_>,
    state: &State,
    change: &Change,
) -> Result<Txn, ArmError> {
    let (store, place) = (&*provider.stamp.store, At::of(info.path));
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
        let at = At::of(&group);
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
            return Err(group_is_going(place.group));
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

/// All of a subscription, or of one group of it: tenants', then clusters'.
async fn listed<K: Kind>(
    provider: &Network,
    subscription: &str,
    group: Option<&str>,
) -> Result<Vec<Value>, ArmError> {
    let mut all = Vec::new();
    for record in records(&*provider.stamp.store, K::KEY, subscription, group).await? {
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
    for record in records(&*provider.stamp.store, K::KEY, subscription, Some(group)).await? {
        let users = K::users(&*provider.stamp.store, &record).await?;
        if K::in_use(&users.found, &record.name, None).is_none() {
            let path = ResourcePath::parse(&id_of::<K>(&record)).map_err(ArmError::internal)?;
            let nobody = Principal::named("", "");
            each.push((path, nobody));
        }
    }
    delete_each::<Top<K>>(provider, &each, super::VERSIONS[0]).await?;
    Ok(records(&*provider.stamp.store, K::KEY, subscription, Some(group))
        .await?
        .len())
}
