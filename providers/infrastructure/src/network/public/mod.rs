//! Public IP addresses that tenants make. The loops give each an address of the stamp; until then it is `Updating`, and clients that wait for
//! it ask for it again.
//!
//! Always true: what a cluster has made is shown and never written; the address is the resource's until that is deleted, and it is not deleted
//! while a Service has it, also where the use begins in the same moment: whoever begins it writes the record anew.

#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, sync::LazyLock};

use arm_access::Scope as AccessScope;
use arm_ids::{ResourcePath, resource_id};
use arm_kernel::{
    Context, Decision, FIELDS, Gate, Members, Mutation, Operation, Presence, Purpose, RequestInfo, Resource,
    ResourceType, Scope, TAGS, Tagged, Tags, delete_each, etag, quote,
    schema::{Node, Problems, Schema, Table, clean},
    store_error,
};
use arm_wire::{ArmError, ErrorCode, Principal};
use async_trait::async_trait;
use control_records::{
    ClusterRecord,
    balancer::BalancerRecord,
    key,
    network::{self, NetworkRecord},
};
use control_store::{Revision, Store, Stored, Txn, get_record, list_records, put_record};
use serde_json::{Map, Value, json};

use super::{EXPANDED, NAMESPACE, Network, VERSIONS, is_called, records, services, tag_of, view};
use crate::{
    Stamp, compute, missing,
    place::places,
    tenants::{At, check_location, check_name, check_object, group_is_going, open_group, rights},
    usages,
};

/// The type.
const TYPE: &str = "publicIPAddresses";
/// The most of a subscription.
pub(crate) const MOST: usize = 100;

static TABLE: LazyLock<Table> = LazyLock::new(|| Table::parse(include_str!("properties.tsv"), &[TAGS]));
static TREE: LazyLock<Node> = LazyLock::new(|| TABLE.tree("public"));
const SCHEMA: Schema = Schema {
    title: "PublicIPAddress",
    table: || &TABLE,
    resource: "public",
};

type Row = Operation<Network>;

pub(super) const ADDRESSES: ResourceType<Network> = ResourceType {
    path: TYPE,
    versions: VERSIONS,
    schema: Some(SCHEMA),
    members: Some(Members {
        list: |provider, subscription, group| Box::pin(summaries(provider, subscription, group)),
        delete: |provider, subscription, group| Box::pin(delete_all(provider, subscription, group)),
    }),
    operations: &[
        Row::get::<Public>("PublicIPAddresses_Get").expand(EXPANDED),
        Row::put::<Public>("PublicIPAddresses_CreateOrUpdate"),
        Row::patch_tags::<Public>("PublicIPAddresses_UpdateTags"),
        Row::delete::<Public>("PublicIPAddresses_Delete"),
        Row::list::<Public>("PublicIPAddresses_List")
            .filter(FIELDS)
            .gate(Gate::Items),
        Row::list::<Public>("PublicIPAddresses_ListAll")
            .filter(FIELDS)
            .gate(Gate::Items)
            .at(Scope::Subscription),
    ],
};

/// The resources, as the kernel sees them.
pub(super) enum Public {}

/// A use of an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    /// Uid of the cluster.
    cluster: String,
    /// By whom, for people.
    who: String,
    /// The id of the frontend that stands for it.
    frontend: String,
}

/// A resource and what decisions about it rest on.
pub(super) struct State {
    found: Option<Stored<NetworkRecord>>,
    users: Vec<User>,
    /// Where a cluster has made it.
    view: Option<Value>,
    /// Its group, read where it is to be made.
    group: Option<Revision>,
}

/// What is written.
pub(super) enum Change {
    Put(Box<NetworkRecord>),
    Delete,
}

/// There are no other actions.
pub(super) enum Action {}

impl State {
    fn record(&self) -> Option<&NetworkRecord> {
        self.found.as_ref().map(|found| &found.value)
    }

    /// What a cluster has made is changed through it.
    fn refuse_view(&self) -> Result<(), ArmError> {
        let Some(view) = &self.view else { return Ok(()) };
        let message = format!(
            "{} was made by the cluster {} and goes with it, or with its Service; it cannot be changed. Make a public IP address of your own.",
            quote(view["name"].as_str().unwrap_or_default()),
            quote(
                view["tags"]["aks-managed-cluster-name"]
                    .as_str()
                    .unwrap_or_default()
            )
        );
        Err(ArmError::new(ErrorCode::OPERATION_NOT_ALLOWED, message))
    }
}

fn id_of(record: &NetworkRecord) -> String {
    resource_id(
        &record.subscription,
        &record.resource_group,
        NAMESPACE,
        &[(TYPE, &record.name)],
    )
}

/// Who has it.
async fn users_of(store: &dyn Store, record: &NetworkRecord) -> Result<Vec<User>, ArmError> {
    let own = record.key(network::PUBLIC_ADDRESSES);
    let mut users = Vec::new();
    for uid in &record.clusters {
        let (all, _) = list_records::<BalancerRecord>(store, &BalancerRecord::all(uid))
            .await
            .map_err(store_error)?;
        let mut services = all
            .into_iter()
            .map(|(_, found)| found.value)
            .filter(|service| {
                let public = service.public.as_deref().and_then(network::public_key);
                public.as_ref() == Some(&own)
            })
            .peekable();
        if services.peek().is_none() {
            continue;
        }
        let cluster = get_record::<ClusterRecord>(store, &key::desired(uid)).await;
        let Some(cluster) = cluster.map_err(store_error)?.map(|found| found.value) else {
            continue;
        };
        for service in services {
            let name = services::frontend_name(&service);
            let kinds = [
                ("loadBalancers", services::OUTSIDE),
                ("frontendIPConfigurations", name.as_str()),
            ];
            let group = &cluster.spec().node_resource_group;
            users.push(User {
                cluster: uid.clone(),
                who: format!(
                    "the Service {}/{} of the cluster {} in {}",
                    service.namespace,
                    service.name,
                    quote(&cluster.name),
                    quote(&cluster.resource_group)
                ),
                frontend: resource_id(&cluster.subscription, group, NAMESPACE, &kinds),
            });
        }
    }
    Ok(users)
}

/// As ARM shows it.
fn answer(record: &NetworkRecord, users: &[User]) -> Value {
    let mut properties = record.properties.clone();
    let state = match record.public_address() {
        Some(_) => "Succeeded",
        None => "Updating",
    };
    properties["provisioningState"] = json!(state);
    // Of the form of a GUID.
    properties["resourceGuid"] = json!(etag(&record.uid, "guid", 0, record.created_at));
    if let Some(user) = users.first() {
        properties["ipConfiguration"] = json!({ "id": user.frontend });
    }
    json!({
        "id": id_of(record),
        "name": record.name,
        "type": format!("{NAMESPACE}/{TYPE}"),
        "etag": tag_of(record),
        "location": record.location,
        "tags": record.tags,
        "sku": { "name": "Standard", "tier": "Regional" },
        "properties": properties,
    })
}

/// The number of them in a subscription.
pub(crate) async fn count(store: &dyn Store, subscription: &str) -> Result<usize, ArmError> {
    let prefix = network::key(network::PUBLIC_ADDRESSES, subscription, "", "");
    let (found, _) = store.list(&prefix).await.map_err(store_error)?;
    Ok(found.len())
}

/// Tenants', then clusters'.
async fn listed(provider: &Network, subscription: &str, group: Option<&str>) -> Result<Vec<Value>, ArmError> {
    let store = &*provider.stamp.store;
    let mut all = Vec::new();
    for record in records(store, network::PUBLIC_ADDRESSES, subscription, group).await? {
        let users = users_of(store, &record).await?;
        all.push(answer(&record, &users));
    }
    all.extend(provider.found(subscription, group, view::addresses).await?);
    Ok(all)
}

/// Their lines in lists of resources.
async fn summaries(
    provider: &Network,
    subscription: &str,
    group: Option<&str>,
) -> Result<Vec<Value>, ArmError> {
    let all = listed(provider, subscription, group).await?;
    Ok(all.into_iter().map(compute::summary).collect())
}

/// Deletes all of a group; what is still in use is waited for.
async fn delete_all(provider: &Network, subscription: &str, group: &str) -> Result<usize, ArmError> {
    let store = &*provider.stamp.store;
    let mut each = Vec::new();
    for record in records(store, network::PUBLIC_ADDRESSES, subscription, Some(group)).await? {
        if users_of(store, &record).await?.is_empty() {
            let path = ResourcePath::parse(&id_of(&record)).map_err(ArmError::internal)?;
            let nobody = Principal::named("", "");
            each.push((path, nobody));
        }
    }
    delete_each::<Public>(provider, &each, VERSIONS[0]).await?;
    Ok(
        records(store, network::PUBLIC_ADDRESSES, subscription, Some(group))
            .await?
            .len(),
    )
}

#[async_trait]
impl Resource for Public {
    type Provider = Network;
    type State = State;
    type Change = Change;
    type Action = Action;

    async fn read(provider: &Network, path: &ResourcePath, purpose: Purpose) -> Result<State, ArmError> {
        let (store, at) = (&*provider.stamp.store, At::of(path));
        let key = network::key(network::PUBLIC_ADDRESSES, at.subscription, at.group, at.name);
        let found = get_record::<NetworkRecord>(store, &key)
            .await
            .map_err(store_error)?;
        let mut state = State {
            found,
            users: Vec::new(),
            view: None,
            group: None,
        };
        match &state.found {
            Some(found) => state.users = users_of(store, &found.value).await?,
            None => {
                let all = places(store, at.subscription, Some(at.group)).await?;
                let mut views = all.iter().flat_map(|one| view::addresses(one, &provider.stamp));
                state.view = views.find(|view| is_called(view, at.name));
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
        missing(&format!("{NAMESPACE}/{TYPE}"), at.name, at.group)
    }

    async fn list(provider: &Network, path: &ResourcePath, _: &str) -> Result<Vec<Value>, ArmError> {
        let at = At::of(path);
        listed(provider, at.subscription, path.resource_group.as_deref()).await
    }

    fn decide(
        context: &Context<'_, Stamp>,
        state: &State,
        mutation: Mutation<'_, Action>,
    ) -> Result<Decision<Change>, ArmError> {
        state.refuse_view()?;
        match mutation {
            Mutation::Put(body) => put(context, state, body),
            Mutation::Delete => {
                let Some(record) = state.record() else {
                    return Ok(Decision::Unchanged);
                };
                let Some(user) = state.users.first() else {
                    return Ok(Decision::Write(Change::Delete));
                };
                let message = format!(
                    "Public IP address {} can not be deleted since it is still allocated to resource {}: {} has it.",
                    id_of(record),
                    user.frontend,
                    user.who
                );
                Err(ArmError::new(ErrorCode::IN_USE_PUBLIC_ADDRESS, message))
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
        let (store, at) = (&*provider.stamp.store, At::of(info.path));
        let own = network::key(network::PUBLIC_ADDRESSES, at.subscription, at.group, at.name);
        let mut txn = match &state.found {
            None => Txn::default().absent(&own),
            Some(found) => Txn::default().at(&own, found.revision),
        };
        let record = match (change, state.record()) {
            (Change::Put(record), _) => record,
            (Change::Delete, None) => return Ok(txn),
            (Change::Delete, Some(record)) => {
                let scope = AccessScope::parse(&info.path.to_string()).map_err(ArmError::internal)?;
                txn = txn.delete(own);
                if let Some(address) = record.public_address() {
                    txn = txn.delete(key::lease("vips", address));
                }
                txn.ops.extend(rights(store, &scope).await?);
                return Ok(txn);
            }
        };
        if state.found.is_none() {
            let Some(group) = state.group else {
                return Err(group_is_going(at.group));
            };
            let (leased, _) = store
                .list(&format!("{}vips/", key::LEASES))
                .await
                .map_err(store_error)?;
            let room = provider.stamp.limits.room.vips;
            let room = room.and_then(|room| usize::try_from(room).ok());
            let location = &provider.stamp.location;
            let there = count(store, at.subscription).await?;
            let exceeded = |most, there| usages::exceeded(TYPE, most, there, location, at.subscription);
            if there >= MOST {
                return Err(exceeded(MOST, there));
            }
            if let Some(room) = room.filter(|room| leased.len() >= *room) {
                return Err(exceeded(room, leased.len()));
            }
            txn = txn.at(key::group(at.subscription, at.group), group);
        }
        Ok(txn.with(put_record(own, &**record)))
    }

    fn render(state: &State, change: Option<&Change>, _: &ResourcePath, _: &str) -> Value {
        match (change, state.record(), &state.view) {
            (Some(Change::Put(record)), _, _) => answer(record, &state.users),
            (_, Some(record), _) => answer(record, &state.users),
            (_, None, Some(view)) => view.clone(),
            (_, None, None) => Value::Null,
        }
    }

    fn operation(_: &Change) -> Option<&str> {
        None
    }
}

fn put(context: &Context<'_, Stamp>, state: &State, body: &Value) -> Result<Decision<Change>, ArmError> {
    let (at, present) = (At::of(context.info.path), state.record());
    check_object(body)?;
    let mut problems = Problems::default();
    check_name(at.name, 80, "name", &mut problems);
    let mut asked = clean(&TREE, body, context.info.api_version, &mut problems).body;
    check_location(
        context.config,
        present.map(|present| present.location.as_str()),
        asked.get("location").and_then(Value::as_str),
        &mut problems,
    );
    problems.into_result()?;
    let tags: Tags = asked
        .remove("tags")
        .and_then(|tags| serde_json::from_value(tags).ok())
        .unwrap_or_default();
    let asked = match asked.remove("properties") {
        Some(Value::Object(properties)) => properties,
        _ => Map::new(),
    };
    let idle = asked.get("idleTimeoutInMinutes").cloned().unwrap_or(json!(4));
    let mut properties = json!({
        "publicIPAllocationMethod": "Static",
        "publicIPAddressVersion": "IPv4",
        "idleTimeoutInMinutes": idle,
        "ddosSettings": { "protectionMode": "VirtualNetworkInherited" },
    });
    if let Some(address) = present.and_then(NetworkRecord::public_address) {
        properties["ipAddress"] = json!(address);
    }
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
            subscription: at.subscription.to_owned(),
            resource_group: at.group.to_owned(),
            name: at.name.to_owned(),
            location: context.config.location.clone(),
            tags,
            generation: 1,
            properties,
            clusters: BTreeSet::new(),
            created_at: context.now,
            modified_at: context.now,
        },
    };
    Ok(Decision::Write(Change::Put(Box::new(record))))
}

/// The record after a change.
fn changed(context: &Context<'_, Stamp>, state: &State, present: &NetworkRecord) -> NetworkRecord {
    NetworkRecord {
        generation: present.generation + 1,
        clusters: state.users.iter().map(|user| user.cluster.clone()).collect(),
        modified_at: context.now,
        ..present.clone()
    }
}

impl Tagged for Public {
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
        Ok(Decision::Write(Change::Put(Box::new(record))))
    }
}
