//! Resource groups, and the lists of their resources.

use arm_ids::{ResourcePath, group_id, same_location};
use arm_kernel::{
    Context, Decision, FIELDS, Filter, GROUP_DELETION, Host, Items, Mutation, Presence, Purpose, RequestInfo,
    Resource, Tagged, Tags, etag, expands, schema::Problems,
};
use arm_wire::{ArmError, ErrorCode, Request};
use async_trait::async_trait;
use base_env::Env;
use control_records::{
    GroupRecord, OperationRecord, OperationStatus, Owner, SubscriptionRecord, directory, key,
};
use control_store::{Store, Stored, Txn, get_record, list_records, put_record};
use serde_json::{Value, json};

use crate::{
    ResourcesConfig, ResourcesProvider, store_error, subscription,
    validation::{GroupBody, READ_ONLY, group_body, group_name, unknown},
};

/// The type whose nodes have a resource group.
const CLUSTERS: (&str, &str) = ("Microsoft.ContainerService", "managedClusters");

/// Properties that lists of resources show only with `$expand`.
pub(crate) const EXPANDED: &[&str] = &["createdTime", "changedTime", "provisioningState"];

impl Host for ResourcesProvider {
    type Config = ResourcesConfig;

    fn config(&self) -> &ResourcesConfig {
        &self.config
    }

    fn env(&self) -> &Env {
        &self.env
    }

    fn store(&self) -> &dyn Store {
        &*self.store
    }

    fn location(&self) -> &str {
        &self.config.location
    }
}

/// Resource groups as the kernel sees them.
pub(crate) enum Groups {}

/// A group and the records that decisions about it depend on.
pub(crate) struct State {
    /// Read if the group does not exist, for the spelling of its id.
    subscription: Option<SubscriptionRecord>,
    group: Option<Stored<GroupRecord>>,
    /// The operation that deletes it, if there is one.
    deletion: Option<String>,
    /// The cluster that it was made for, while that exists: both are deleted together.
    owner: Option<String>,
}

/// The change to be written.
pub(crate) struct Change {
    group: GroupRecord,
    /// The operation that deletes it.
    deletion: Option<OperationRecord>,
}

/// Groups have no actions.
pub(crate) enum Action {}

#[async_trait]
impl Resource for Groups {
    type Provider = ResourcesProvider;
    type State = State;
    type Change = Change;
    type Action = Action;

    async fn read(
        provider: &ResourcesProvider,
        path: &ResourcePath,
        purpose: Purpose,
    ) -> Result<State, ArmError> {
        let (subscription, name) = place(path)?;
        let store = &*provider.store;
        let group: Option<Stored<GroupRecord>> = get_record(store, &key::group(subscription, name))
            .await
            .map_err(store_error)?;
        let mut state = State {
            subscription: None,
            group,
            deletion: None,
            owner: None,
        };
        if let (Some(group), Purpose::Decision) = (&state.group, purpose) {
            state.owner = owner(store, &group.value).await?;
        }
        match (&state.group, purpose) {
            (_, Purpose::Answer) => {}
            (None, Purpose::Decision) => {
                state.subscription = Some(provider.subscription(subscription).await?.value);
            }
            (Some(group), Purpose::Decision) if group.value.deleting => {
                let operations = directory::operations(store, &Owner::group(subscription, name)).await;
                let running = operations.map_err(store_error)?.into_iter().find(|operation| {
                    operation.status == OperationStatus::InProgress && operation.name == GROUP_DELETION
                });
                state.deletion = running.map(|operation| operation.id);
            }
            (Some(_), Purpose::Decision) => {}
        }
        Ok(state)
    }

    fn presence(state: &State, path: &ResourcePath) -> Presence {
        // A group has no eTag in ARM. This one is never shown; it makes `If-Match` with anything but `*` fail.
        match (&state.group, place(path)) {
            (Some(group), Ok((subscription, name))) => {
                let (key, revision) = (key::group(subscription, name), group.revision.0);
                Presence::Present(etag(&key, "", revision, group.value.created_at))
            }
            _ => Presence::Absent,
        }
    }

    fn missing(_: &State, path: &ResourcePath) -> ArmError {
        let name = path.resource_group.as_deref().unwrap_or_default();
        ArmError::new(
            ErrorCode::RESOURCE_GROUP_NOT_FOUND,
            format!("Resource group '{name}' could not be found."),
        )
    }

    async fn list(
        provider: &ResourcesProvider,
        path: &ResourcePath,
        _: &str,
    ) -> Result<Vec<Value>, ArmError> {
        let subscription = path.subscription.as_deref().unwrap_or_default();
        let (all, _) = list_records::<GroupRecord>(&*provider.store, &key::group(subscription, ""))
            .await
            .map_err(store_error)?;
        let all = all.into_iter();
        Ok(all.map(|(_, stored)| group_as_json(&stored.value)).collect())
    }

    fn decide(
        context: &Context<'_, ResourcesConfig>,
        state: &State,
        mutation: Mutation<'_, Action>,
    ) -> Result<Decision<Change>, ArmError> {
        match mutation {
            Mutation::Put(body) => put(context, state, body),
            Mutation::Delete => delete(context, state),
            Mutation::Act(action) => match *action {},
        }
    }

    async fn transaction(
        _: &ResourcesProvider,
        _: &RequestInfo<'_>,
        state: &State,
        change: &Change,
    ) -> Result<Txn, ArmError> {
        let key = key::group(&change.group.subscription, &change.group.name);
        let txn = match &state.group {
            None => Txn::default().absent(&key),
            Some(group) => Txn::default().at(&key, group.revision),
        };
        let txn = txn.with(put_record(key, &change.group));
        Ok(match &change.deletion {
            Some(deletion) => directory::new_operation(txn, deletion),
            None => txn,
        })
    }

    fn render(state: &State, change: Option<&Change>, _: &ResourcePath, _: &str) -> Value {
        let present = state.group.as_ref().map(|group| &group.value);
        let group = change.map(|change| &change.group).or(present);
        group.map_or(Value::Null, group_as_json)
    }

    fn operation(change: &Change) -> Option<&str> {
        change.deletion.as_ref().map(|operation| operation.id.as_str())
    }
}

impl Tagged for Groups {
    fn tags(state: &State) -> Option<Tags> {
        state.group.as_ref().map(|group| group.value.tags.clone())
    }

    fn decide_tags(
        context: &Context<'_, ResourcesConfig>,
        state: &State,
        tags: Tags,
    ) -> Result<Decision<Change>, ArmError> {
        let mut group = present(context, state)?.clone();
        stays(&group)?;
        group.tags = tags;
        Ok(Decision::Write(Change {
            group,
            deletion: None,
        }))
    }

    fn check_other(state: &State, name: &str, value: &Value, problems: &mut Problems) {
        let present = state.group.as_ref().map(|group| &group.value);
        let text = value.as_str();
        match (name, present) {
            ("location", Some(present))
                if text.is_some_and(|text| same_location(text, &present.location)) => {}
            ("location", Some(present)) => {
                let error = moved(present);
                problems.add(error.code, name, error.message);
            }
            ("managedBy", Some(present)) if text == Some("") || text == present.managed_by.as_deref() => {}
            ("managedBy", _) => {
                let error = managed_by_stays();
                problems.add(error.code, name, error.message);
            }
            (name, _) if READ_ONLY.contains(&name) => {}
            (name, _) => unknown(name, problems),
        }
    }
}

/// Subscription and name of a path that the edge has checked.
fn place(path: &ResourcePath) -> Result<(&str, &str), ArmError> {
    let place = path.subscription.as_deref().zip(path.resource_group.as_deref());
    place.ok_or_else(|| ArmError::new(ErrorCode::NOT_FOUND, "The path has no resource group."))
}

/// The cluster that a group was made for, if there is one.
async fn owner(store: &dyn Store, group: &GroupRecord) -> Result<Option<String>, ArmError> {
    let Some(id) = &group.managed_by else {
        return Ok(None);
    };
    let Ok(path) = ResourcePath::parse(id) else {
        return Ok(None);
    };
    let (Some(subscription), Some(own), Some(name)) =
        (&path.subscription, &path.resource_group, path.name(0))
    else {
        return Ok(None);
    };
    if !path.namespace_is(CLUSTERS.0) || !path.type_is(CLUSTERS.1) {
        return Ok(None);
    }
    let found = directory::cluster_named(store, subscription, own, name).await;
    let found = found.map_err(store_error)?;
    let owns = found.is_some_and(|cluster| {
        let nodes = &cluster.value.spec().node_resource_group;
        nodes.eq_ignore_ascii_case(&group.name)
    });
    Ok(owns.then(|| id.clone()))
}

fn present<'a>(
    context: &Context<'_, ResourcesConfig>,
    state: &'a State,
) -> Result<&'a GroupRecord, ArmError> {
    let group = state.group.as_ref().map(|group| &group.value);
    group.ok_or_else(|| Groups::missing(state, context.info.path))
}

fn put(
    context: &Context<'_, ResourcesConfig>,
    state: &State,
    body: &Value,
) -> Result<Decision<Change>, ArmError> {
    let (subscription, name) = place(context.info.path)?;
    group_name(name)?;
    let GroupBody {
        location,
        tags,
        managed_by,
    } = group_body(body)?;
    let Some(asked) = location else {
        return Err(
            ArmError::new(ErrorCode::MISSING_PARAMETER, "'location' is required.").target("location"),
        );
    };
    let group = match &state.group {
        None => GroupRecord {
            v: 1,
            subscription: state
                .subscription
                .as_ref()
                .map_or_else(|| subscription.to_owned(), |subscription| subscription.id.clone()),
            name: name.to_owned(),
            location: new_location(context.config, &asked)?,
            tags: tags.unwrap_or_default(),
            managed_by,
            deleting: false,
            created_at: context.now,
        },
        Some(present) => {
            let present = &present.value;
            if !same_location(&asked, &present.location) {
                return Err(moved(present));
            }
            stays(present)?;
            if managed_by.is_some() && managed_by != present.managed_by {
                return Err(managed_by_stays().target("managedBy"));
            }
            GroupRecord {
                // A PUT replaces: no tags means none. Responses use the casing of the last request.
                tags: tags.unwrap_or_default(),
                name: name.to_owned(),
                ..present.clone()
            }
        }
    };
    Ok(Decision::Write(Change {
        group,
        deletion: None,
    }))
}

fn delete(context: &Context<'_, ResourcesConfig>, state: &State) -> Result<Decision<Change>, ArmError> {
    let mut group = present(context, state)?.clone();
    if let Some(owner) = &state.owner {
        let message = format!(
            "The resource group '{}' belongs to the cluster '{owner}' and goes with it; delete the cluster.",
            group.name
        );
        return Err(ArmError::new(ErrorCode::OPERATION_NOT_ALLOWED, message));
    }
    // Repeated requests share one deletion; a failed one can be repeated.
    if let Some(deletion) = &state.deletion {
        return Ok(Decision::InProgress(deletion.clone()));
    }
    group.deleting = true;
    let deletion = OperationRecord {
        deletes: true,
        asked_by: Some(context.info.principal.object_id.clone()),
        ..OperationRecord::accepted(
            context.ids.uuid(),
            GROUP_DELETION,
            group_id(&group.subscription, &group.name),
            Owner::group(&group.subscription, &group.name),
            0,
            context.now,
        )
    };
    Ok(Decision::Write(Change {
        group,
        deletion: Some(deletion),
    }))
}

impl ResourcesProvider {
    /// The resources of a subscription, or of a group of it.
    pub(crate) async fn list_resources(&self, request: &Request) -> Result<Items, ArmError> {
        let filter = Filter::of(request, FIELDS)?;
        let subscription = subscription(request)?;
        let group = request
            .path
            .resource_group
            .as_deref()
            .or(filter.value("resourceGroup"));
        let mut found = Vec::new();
        for provider in &self.others {
            found.extend(provider.resources(subscription, group).await?);
        }
        let hidden: Vec<&&str> = EXPANDED.iter().filter(|name| !expands(request, name)).collect();
        for members in found.iter_mut().filter_map(Value::as_object_mut) {
            members.retain(|name, _| !hidden.iter().any(|hidden| **hidden == name));
        }
        Ok(found.into())
    }
}

/// A new group's location in the stamp's own spelling.
fn new_location(config: &ResourcesConfig, asked: &str) -> Result<String, ArmError> {
    let own = &config.location;
    if same_location(asked, own) || same_location(asked, &config.location_display) {
        return Ok(own.clone());
    }
    Err(ArmError::new(
        ErrorCode::GROUP_LOCATION_NOT_AVAILABLE,
        format!(
            "The provided location '{}' is not available for resource groups; the location here is '{own}'.",
            asked.chars().take(90).collect::<String>()
        ),
    )
    .target("location"))
}

fn moved(record: &GroupRecord) -> ArmError {
    ArmError::new(
        ErrorCode::INVALID_GROUP_LOCATION,
        format!(
            "The resource group '{}' exists in the location '{}'; it cannot be moved.",
            record.name, record.location
        ),
    )
    .target("location")
}

fn managed_by_stays() -> ArmError {
    ArmError::new(
        ErrorCode::PROPERTY_CHANGE_NOT_ALLOWED,
        "'managedBy' cannot be changed.",
    )
}

fn stays(record: &GroupRecord) -> Result<(), ArmError> {
    if !record.deleting {
        return Ok(());
    }
    Err(ArmError::new(
        ErrorCode::RESOURCE_GROUP_BEING_DELETED,
        format!(
            "The resource group '{}' is being deleted; wait until it is gone.",
            record.name
        ),
    ))
}

fn group_as_json(record: &GroupRecord) -> Value {
    let mut body = json!({
        "id": group_id(&record.subscription, &record.name),
        "name": record.name,
        "type": "Microsoft.Resources/resourceGroups",
        "location": record.location,
        "tags": record.tags,
        "properties": { "provisioningState": if record.deleting { "Deleting" } else { "Succeeded" } },
    });
    if let Some(owner) = &record.managed_by {
        body["managedBy"] = json!(owner);
    }
    body
}
