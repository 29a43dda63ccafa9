//! `registries`.

use arm_access::Scope as AccessScope;
use arm_ids::{ResourcePath, resource_id, same_location};
use arm_kernel::{
    Call, Context, Decision, FIELDS, Gate, Members, Mode, Mutation, Operation, Presence, Purpose,
    RequestInfo, Resource, ResourceType, Scope, Tagged, Tags, Verb, delete_each, etag, quote, store_error,
    system_data, tags_at, write,
};
use arm_wire::{ArmError, ErrorCode, Principal, Response};
use async_trait::async_trait;
use control_records::{
    GroupRecord, RegistryNameRecord, RegistryRecord, RemovedRegistryRecord, access, is_registry_name, key,
};
use control_store::{Revision, Stored, Txn, get_record, list_records, put_record};
use serde_json::{Value, json};

use crate::{API_VERSIONS, ContainerRegistry, ContainerRegistryConfig, NAMESPACE, body, names};

/// Registries of a subscription.
const MOST_REGISTRIES: usize = 100;
/// Role assignments and locks that may go with a registry.
const MOST_RIGHTS: usize = 80;

type Row = Operation<ContainerRegistry>;

pub(crate) const TYPE: ResourceType<ContainerRegistry> = ResourceType {
    path: "registries",
    versions: API_VERSIONS,
    schema: None,
    members: Some(Members {
        list: |provider, subscription, group| Box::pin(listed(provider, subscription, group)),
        delete: |provider, subscription, group| Box::pin(delete_all(provider, subscription, group)),
    }),
    operations: &[
        Row::get::<Registries>("Registries_Get"),
        Row::put::<Registries>("Registries_Create"),
        Row {
            tags: Some(|provider, call, wish, mode| {
                Box::pin(tags_at::<Registries>(provider, call, wish, mode))
            }),
            ..Row::write(
                Verb::Patch,
                "Registries_Update",
                |provider, call| Box::pin(update(provider, call, Mode::Commit)),
                |provider, call| Box::pin(update(provider, call, Mode::Preview)),
            )
        },
        Row::delete::<Registries>("Registries_Delete"),
        Row::list::<Registries>("Registries_ListByResourceGroup")
            .filter(FIELDS)
            .gate(Gate::Items),
        Row::list::<Registries>("Registries_List")
            .filter(FIELDS)
            .gate(Gate::Items)
            .at(Scope::Subscription),
        Row::not_yet(Verb::Action("listCredentials"), "Registries_ListCredentials"),
        Row::not_yet(
            Verb::Action("regenerateCredential"),
            "Registries_RegenerateCredential",
        ),
        Row::not_yet(Verb::Action("importImage"), "Registries_ImportImage"),
    ],
};

/// GET `…/registries/{name}/listUsages`.
pub(crate) const USAGES: ResourceType<ContainerRegistry> = ResourceType {
    path: "registries/listUsages",
    versions: API_VERSIONS,
    schema: None,
    members: None,
    operations: &[Row::read(
        Verb::List,
        "Registries_ListUsages",
        |provider, call| Box::pin(usages(provider, call)),
    )],
};

/// Registries as the kernel sees them.
pub(crate) enum Registries {}

/// A registry and the records that decisions about it depend on.
pub(crate) struct State {
    found: Option<Stored<RegistryRecord>>,
    /// The group, read where the registry is to be made.
    group: Option<Revision>,
    /// Whether the name is another registry's.
    taken: bool,
    /// For the login server.
    config: ContainerRegistryConfig,
}

impl State {
    fn record(&self) -> Option<&RegistryRecord> {
        self.found.as_ref().map(|found| &found.value)
    }
}

/// The change to be written.
pub(crate) enum Change {
    Put(Box<RegistryRecord>),
    Delete(Box<RemovedRegistryRecord>),
}

/// A change of some members of the body.
pub(crate) enum Action {
    Update(Value),
}

/// The parts of a registry's path.
struct Place<'a> {
    subscription: &'a str,
    group: &'a str,
    name: &'a str,
}

impl<'a> Place<'a> {
    fn of(path: &'a ResourcePath) -> Result<Self, ArmError> {
        let place = path.subscription.as_deref().zip(path.resource_group.as_deref());
        let (subscription, group) =
            place.ok_or_else(|| ArmError::new(ErrorCode::NOT_FOUND, "The path has no resource group."))?;
        Ok(Self {
            subscription,
            group,
            name: path.name(0).unwrap_or_default(),
        })
    }

    fn key(&self) -> String {
        key::registry(self.subscription, self.group, self.name)
    }

    fn missing(&self) -> ArmError {
        let message = format!(
            "The Resource '{NAMESPACE}/registries/{}' under resource group {} was not found.",
            self.name.chars().take(120).collect::<String>(),
            quote(self.group)
        );
        ArmError::new(ErrorCode::RESOURCE_NOT_FOUND, message)
    }
}

/// A registry's ARM id: the scope of roles for its images.
pub fn registry_id(record: &RegistryRecord) -> String {
    resource_id(
        &record.subscription,
        &record.resource_group,
        NAMESPACE,
        &[("registries", &record.name)],
    )
}

fn answer(record: &RegistryRecord, config: &ContainerRegistryConfig) -> Value {
    let sku = record.sku.as_str();
    let mut properties = body::fixed();
    if let Some(properties) = properties.as_object_mut() {
        let own = [
            ("loginServer", json!(config.login_server(&record.name))),
            ("creationDate", json!(record.system_data.created_at.to_string())),
            ("provisioningState", json!("Succeeded")),
            ("dataEndpointHostNames", json!([])),
            ("privateEndpointConnections", json!([])),
        ];
        properties.extend(own.map(|(name, value)| (name.to_owned(), value)));
    }
    json!({
        "id": registry_id(record),
        "name": record.name,
        "type": format!("{NAMESPACE}/registries"),
        "location": record.location,
        "tags": record.tags,
        "sku": { "name": sku, "tier": sku },
        "systemData": system_data::document(&record.system_data),
        "properties": properties,
    })
}

#[async_trait]
impl Resource for Registries {
    type Provider = ContainerRegistry;
    type State = State;
    type Change = Change;
    type Action = Action;

    async fn read(
        provider: &ContainerRegistry,
        path: &ResourcePath,
        purpose: Purpose,
    ) -> Result<State, ArmError> {
        let place = Place::of(path)?;
        let store = &*provider.store;
        let found = get_record::<RegistryRecord>(store, &place.key())
            .await
            .map_err(store_error)?;
        let mut state = State {
            found,
            group: None,
            taken: false,
            config: provider.config.clone(),
        };
        if state.found.is_none() && purpose == Purpose::Decision {
            let group = key::group(place.subscription, place.group);
            let group = get_record::<GroupRecord>(store, &group)
                .await
                .map_err(store_error)?;
            // None is made in a group that is being deleted; the edge refuses requests that come after that
            // began.
            state.group = group
                .filter(|group| !group.value.deleting)
                .map(|group| group.revision);
            state.taken = names::holder(provider, place.name).await?.is_some();
        }
        Ok(state)
    }

    fn presence(state: &State, _: &ResourcePath) -> Presence {
        match &state.found {
            Some(found) => {
                let record = &found.value;
                let at = record.system_data.modified_at;
                Presence::Present(etag(&record.uid, "", found.revision.0, at))
            }
            None => Presence::Absent,
        }
    }

    fn missing(_: &State, path: &ResourcePath) -> ArmError {
        Place::of(path).map_or_else(|error| error, |place| place.missing())
    }

    async fn list(
        provider: &ContainerRegistry,
        path: &ResourcePath,
        _: &str,
    ) -> Result<Vec<Value>, ArmError> {
        let subscription = path.subscription.as_deref().unwrap_or_default();
        listed(provider, subscription, path.resource_group.as_deref()).await
    }

    fn decide(
        context: &Context<'_, ContainerRegistryConfig>,
        state: &State,
        mutation: Mutation<'_, Action>,
    ) -> Result<Decision<Change>, ArmError> {
        match (mutation, state.record()) {
            (Mutation::Put(asked), Some(present)) => changed(context, present, asked, true),
            (Mutation::Put(asked), None) => made(context, state, asked),
            (Mutation::Act(Action::Update(asked)), Some(present)) => changed(context, present, asked, false),
            (Mutation::Act(Action::Update(_)), None) => Err(Self::missing(state, context.info.path)),
            (Mutation::Delete, None) => Ok(Decision::Unchanged),
            (Mutation::Delete, Some(present)) => {
                Ok(Decision::Write(Change::Delete(Box::new(RemovedRegistryRecord {
                    v: 1,
                    name: present.name.clone(),
                    removed_at: context.now,
                }))))
            }
        }
    }

    async fn transaction(
        provider: &ContainerRegistry,
        info: &RequestInfo<'_>,
        state: &State,
        change: &Change,
    ) -> Result<Txn, ArmError> {
        let store = &*provider.store;
        let own = Place::of(info.path)?.key();
        match (change, &state.found) {
            (Change::Put(record), Some(found)) => Ok(Txn::default()
                .at(&own, found.revision)
                .with(put_record(own, &**record))),
            (Change::Put(record), None) => {
                let Some(group) = state.group else {
                    let message = format!(
                        "The resource group {} is being deleted; nothing can be created in it.",
                        quote(&record.resource_group)
                    );
                    return Err(ArmError::new(ErrorCode::RESOURCE_GROUP_BEING_DELETED, message));
                };
                let prefix = key::registry(&record.subscription, "", "");
                let (others, _) = store.list(&prefix).await.map_err(store_error)?;
                if others.len() >= MOST_REGISTRIES {
                    let message = format!(
                        "No more registries can be created in the subscription: at most {MOST_REGISTRIES} are kept."
                    );
                    return Err(ArmError::new(ErrorCode::QUOTA_EXCEEDED, message));
                }
                let name = key::registry_name(&record.name);
                let holder = RegistryNameRecord {
                    v: 1,
                    registry: own.clone(),
                };
                Ok(Txn::default()
                    .absent(&own)
                    .absent(&name)
                    .at(key::group(&record.subscription, &record.resource_group), group)
                    .with(put_record(name, &holder))
                    .with(put_record(own, &**record)))
            }
            (Change::Delete(removed), Some(found)) => {
                let record = &found.value;
                let scope = AccessScope::parse(&registry_id(record)).map_err(ArmError::internal)?;
                let (rights, all) = access::removals_below(store, &scope, MOST_RIGHTS)
                    .await
                    .map_err(store_error)?;
                if !all {
                    let message = format!(
                        "At the registry {} too many roles are assigned to go in one step; remove some of these assignments.",
                        quote(&record.name)
                    );
                    return Err(ArmError::new(ErrorCode::CONFLICT, message));
                }
                let mut txn = Txn::default()
                    .at(&own, found.revision)
                    .delete(&own)
                    .delete(key::registry_name(&record.name))
                    .with(put_record(key::removed_registry(&record.uid), &**removed));
                txn.ops.extend(rights);
                Ok(txn)
            }
            (Change::Delete(_), None) => Err(ArmError::internal("a registry that is not there is deleted")),
        }
    }

    fn render(state: &State, change: Option<&Change>, _: &ResourcePath, _: &str) -> Value {
        let record = match change {
            Some(Change::Put(record)) => Some(&**record),
            Some(Change::Delete(_)) | None => state.record(),
        };
        record.map_or(Value::Null, |record| answer(record, &state.config))
    }

    fn operation(_: &Change) -> Option<&str> {
        None
    }
}

/// A new registry.
fn made(
    context: &Context<'_, ContainerRegistryConfig>,
    state: &State,
    asked: &Value,
) -> Result<Decision<Change>, ArmError> {
    let place = Place::of(context.info.path)?;
    if !is_registry_name(place.name) {
        return Err(ArmError::new(
            ErrorCode::INVALID_RESOURCE_NAME,
            names::invalid(place.name),
        ));
    }
    let wish = body::registry(asked)?;
    let missing = |field: &str| {
        ArmError::new(ErrorCode::MISSING_PARAMETER, format!("'{field}' is required.")).target(field)
    };
    let location = wish.location.ok_or_else(|| missing("location"))?;
    let sku = wish.sku.ok_or_else(|| missing("sku.name"))?;
    let config = context.config;
    if !same_location(&location, &config.location) && !same_location(&location, &config.location_display) {
        let message = format!(
            "The provided location {} is not available for the resource type '{NAMESPACE}/registries'; the location here is '{}'.",
            quote(&location),
            config.location
        );
        return Err(ArmError::new(ErrorCode::LOCATION_NOT_AVAILABLE, message).target("location"));
    }
    if state.taken {
        return Err(ArmError::new(ErrorCode::CONFLICT, names::taken(place.name)));
    }
    Ok(Decision::Write(Change::Put(Box::new(RegistryRecord {
        v: 1,
        uid: context.ids.short(),
        subscription: place.subscription.to_owned(),
        resource_group: place.group.to_owned(),
        name: place.name.to_ascii_lowercase(),
        location: config.location.clone(),
        tags: wish.tags.unwrap_or_default(),
        sku,
        system_data: system_data::touched(None, context.info.principal, context.now),
    }))))
}

/// A registry that is there; `whole`: what the body does not say is taken away, as far as it can be.
fn changed(
    context: &Context<'_, ContainerRegistryConfig>,
    present: &RegistryRecord,
    asked: &Value,
    whole: bool,
) -> Result<Decision<Change>, ArmError> {
    let wish = body::registry(asked)?;
    let config = context.config;
    if let Some(location) = &wish.location
        && !same_location(location, &present.location)
        && !same_location(location, &config.location_display)
    {
        let message = format!(
            "The registry {} exists in the location '{}'; it cannot be moved.",
            quote(&present.name),
            present.location
        );
        return Err(ArmError::new(ErrorCode::PROPERTY_CHANGE_NOT_ALLOWED, message).target("location"));
    }
    let tags = match wish.tags {
        Some(tags) => tags,
        None if whole => Tags::new(),
        None => present.tags.clone(),
    };
    let sku = wish.sku.unwrap_or(present.sku);
    if tags == present.tags && sku == present.sku {
        return Ok(Decision::Unchanged);
    }
    Ok(Decision::Write(Change::Put(Box::new(RegistryRecord {
        tags,
        sku,
        system_data: touched(context, present),
        ..present.clone()
    }))))
}

fn touched(
    context: &Context<'_, ContainerRegistryConfig>,
    present: &RegistryRecord,
) -> control_records::SystemData {
    system_data::touched(Some(&present.system_data), context.info.principal, context.now)
}

impl Tagged for Registries {
    fn tags(state: &State) -> Option<Tags> {
        state.record().map(|record| record.tags.clone())
    }

    fn decide_tags(
        context: &Context<'_, ContainerRegistryConfig>,
        state: &State,
        tags: Tags,
    ) -> Result<Decision<Change>, ArmError> {
        let present = state
            .record()
            .ok_or_else(|| Self::missing(state, context.info.path))?;
        Ok(Decision::Write(Change::Put(Box::new(RegistryRecord {
            tags,
            system_data: touched(context, present),
            ..present.clone()
        }))))
    }
}

/// PATCH.
async fn update(provider: &ContainerRegistry, call: &Call, mode: Mode) -> Result<Response, ArmError> {
    let request = &call.request;
    let action = Action::Update(request.body.clone());
    let written =
        write::<Registries>(provider, &RequestInfo::of(request), Mutation::Act(&action), mode).await?;
    let change = match &written.decision {
        Decision::Write(change) => Some(change),
        Decision::InProgress(_) | Decision::Unchanged => None,
    };
    let body = Registries::render(&written.state, change, &request.path, &request.api_version);
    Ok(Response::ok(body))
}

/// How much a registry holds, and may hold.
async fn usages(provider: &ContainerRegistry, call: &Call) -> Result<Response, ArmError> {
    let place = Place::of(&call.request.path)?;
    let found = get_record::<RegistryRecord>(&*provider.store, &place.key())
        .await
        .map_err(store_error)?;
    let record = found.ok_or_else(|| place.missing())?.value;
    let Some(occupancy) = &provider.occupancy else {
        let message = "This stamp is simulated and keeps no images, so there is no usage of a registry.";
        return Err(ArmError::new(ErrorCode::NOT_IMPLEMENTED, message));
    };
    let bytes = occupancy.bytes(&record.uid).await.map_err(ArmError::internal)?;
    Ok(Response::ok(json!({ "value": [
        { "name": "Size", "limit": record.sku.bytes(), "currentValue": bytes, "unit": "Bytes" },
    ]})))
}

/// All registries of a subscription, or of one group of it.
async fn records(
    provider: &ContainerRegistry,
    subscription: &str,
    group: Option<&str>,
) -> Result<Vec<RegistryRecord>, ArmError> {
    let prefix = key::registry(subscription, group.unwrap_or_default(), "");
    let (found, _) = list_records::<RegistryRecord>(&*provider.store, &prefix)
        .await
        .map_err(store_error)?;
    Ok(found.into_iter().map(|(_, found)| found.value).collect())
}

async fn listed(
    provider: &ContainerRegistry,
    subscription: &str,
    group: Option<&str>,
) -> Result<Vec<Value>, ArmError> {
    let all = records(provider, subscription, group).await?;
    let config = &provider.config;
    Ok(all.iter().map(|record| answer(record, config)).collect())
}

/// Deletes all registries of a group, each in the name of its last editor, at once.
async fn delete_all(
    provider: &ContainerRegistry,
    subscription: &str,
    group: &str,
) -> Result<usize, ArmError> {
    let mut each = Vec::new();
    for record in records(provider, subscription, Some(group)).await? {
        let path = ResourcePath::parse(&registry_id(&record)).map_err(ArmError::internal)?;
        let by = Principal::named(&record.system_data.modified_by, "");
        each.push((path, by));
    }
    delete_each::<Registries>(provider, &each, API_VERSIONS[0]).await?;
    // They are deleted at once; their images later.
    Ok(records(provider, subscription, Some(group)).await?.len())
}
