//! `userAssignedIdentities`.

use arm_access::Scope as AccessScope;
use arm_ids::{ResourcePath, resource_id, same_location};
use arm_kernel::{
    Context, Decision, FIELDS, Gate, Members, Mutation, Operation, Presence, Purpose, RequestInfo, Resource,
    ResourceType, Scope, Tagged, Tags, delete_each, etag, quote, schema::Problems, store_error, system_data,
};
use arm_wire::{ArmError, ErrorCode, Principal};
use async_trait::async_trait;
use control_records::{GroupRecord, ManagedIdentityRecord, PrincipalRecord, access, key};
use control_store::{Revision, Store, Stored, Txn, get_record, list_records, put_record};
use identity_directory as directory;
use serde_json::{Value, json};

use crate::{API_VERSIONS, ManagedIdentity, ManagedIdentityConfig, NAMESPACE, body};

/// Identities of a subscription.
const MOST_IDENTITIES: usize = 1000;
/// The most further effects of deleting an identity: memberships, role assignments at it.
const MOST_REMOVALS: usize = 80;
/// The shortest name.
const SHORTEST_NAME: usize = 3;
/// The kind of its principal.
pub(crate) const KIND: &str = "ManagedIdentity";

type Row = Operation<ManagedIdentity>;

pub(crate) const TYPE: ResourceType<ManagedIdentity> = ResourceType {
    path: "userAssignedIdentities",
    versions: API_VERSIONS,
    schema: None,
    members: Some(Members {
        list: |provider, subscription, group| Box::pin(listed(provider, subscription, group)),
        delete: |provider, subscription, group| Box::pin(delete_all(provider, subscription, group)),
    }),
    operations: &[
        Row::get::<Identities>("UserAssignedIdentities_Get"),
        Row::put::<Identities>("UserAssignedIdentities_CreateOrUpdate"),
        Row::patch_tags::<Identities>("UserAssignedIdentities_Update"),
        Row::delete::<Identities>("UserAssignedIdentities_Delete"),
        Row::list::<Identities>("UserAssignedIdentities_ListByResourceGroup")
            .filter(FIELDS)
            .gate(Gate::Items),
        Row::list::<Identities>("UserAssignedIdentities_ListBySubscription")
            .filter(FIELDS)
            .gate(Gate::Items)
            .at(Scope::Subscription),
        Row::not_yet(
            arm_kernel::Verb::Action("listAssociatedResources"),
            "UserAssignedIdentities_ListAssociatedResources",
        ),
    ],
};

/// Identities as the kernel sees them.
pub(crate) enum Identities {}

/// An identity and the records that decisions about it depend on.
pub(crate) struct State {
    pub(crate) found: Option<Stored<ManagedIdentityRecord>>,
    /// The group, read where the identity is to be made.
    group: Option<Revision>,
}

/// The change to be written.
pub(crate) enum Change {
    Make(ManagedIdentityRecord, Box<PrincipalRecord>),
    Put(ManagedIdentityRecord),
    Delete(ManagedIdentityRecord),
}

impl Change {
    fn record(&self) -> &ManagedIdentityRecord {
        match self {
            Self::Make(record, _) | Self::Put(record) | Self::Delete(record) => record,
        }
    }
}

/// There are no other actions.
pub(crate) enum Action {}

/// The parts of an identity's path.
pub(crate) struct Place<'a> {
    pub(crate) subscription: &'a str,
    pub(crate) group: &'a str,
    pub(crate) name: &'a str,
}

impl<'a> Place<'a> {
    pub(crate) fn of(path: &'a ResourcePath) -> Result<Self, ArmError> {
        let place = path.subscription.as_deref().zip(path.resource_group.as_deref());
        let (subscription, group) =
            place.ok_or_else(|| ArmError::new(ErrorCode::NOT_FOUND, "The path has no resource group."))?;
        Ok(Self {
            subscription,
            group,
            name: path.name(0).unwrap_or_default(),
        })
    }

    pub(crate) async fn read(
        &self,
        store: &dyn Store,
    ) -> Result<Option<Stored<ManagedIdentityRecord>>, ArmError> {
        let key = key::managed_identity(self.subscription, self.group, self.name);
        get_record(store, &key).await.map_err(store_error)
    }

    pub(crate) fn missing(&self) -> ArmError {
        let message = format!(
            "The Resource '{NAMESPACE}/userAssignedIdentities/{}' under resource group {} was not found.",
            self.name.chars().take(120).collect::<String>(),
            quote(self.group)
        );
        ArmError::new(ErrorCode::RESOURCE_NOT_FOUND, message)
    }
}

/// Its id.
pub(crate) fn id(record: &ManagedIdentityRecord) -> String {
    resource_id(
        &record.subscription,
        &record.resource_group,
        NAMESPACE,
        &[("userAssignedIdentities", &record.name)],
    )
}

fn answer(record: &ManagedIdentityRecord) -> Value {
    json!({
        "id": id(record),
        "name": record.name,
        "type": format!("{NAMESPACE}/userAssignedIdentities"),
        "location": record.location,
        "tags": record.tags,
        "systemData": system_data::document(&record.system_data),
        "properties": {
            "tenantId": record.tenant_id,
            "principalId": record.principal_id,
            "clientId": record.client_id,
        },
    })
}

#[async_trait]
impl Resource for Identities {
    type Provider = ManagedIdentity;
    type State = State;
    type Change = Change;
    type Action = Action;

    async fn read(
        provider: &ManagedIdentity,
        path: &ResourcePath,
        purpose: Purpose,
    ) -> Result<State, ArmError> {
        let place = Place::of(path)?;
        let store = &*provider.store;
        let found = place.read(store).await?;
        let mut group = None;
        if found.is_none() && purpose == Purpose::Decision {
            let key = key::group(place.subscription, place.group);
            let record = get_record::<GroupRecord>(store, &key)
                .await
                .map_err(store_error)?;
            // None is made in a group that is being deleted; the edge refuses requests that come after that
            // began.
            group = record
                .filter(|record| !record.value.deleting)
                .map(|record| record.revision);
        }
        Ok(State { found, group })
    }

    fn presence(state: &State, _: &ResourcePath) -> Presence {
        match &state.found {
            Some(found) => {
                let record = &found.value;
                let at = record.system_data.modified_at;
                Presence::Present(etag(&record.principal_id, "", found.revision.0, at))
            }
            None => Presence::Absent,
        }
    }

    fn missing(_: &State, path: &ResourcePath) -> ArmError {
        Place::of(path).map_or_else(|error| error, |place| place.missing())
    }

    async fn list(provider: &ManagedIdentity, path: &ResourcePath, _: &str) -> Result<Vec<Value>, ArmError> {
        let subscription = path.subscription.as_deref().unwrap_or_default();
        listed(provider, subscription, path.resource_group.as_deref()).await
    }

    fn decide(
        context: &Context<'_, ManagedIdentityConfig>,
        state: &State,
        mutation: Mutation<'_, Action>,
    ) -> Result<Decision<Change>, ArmError> {
        let present = state.found.as_ref().map(|found| &found.value);
        match mutation {
            Mutation::Put(body) => put(context, present, body),
            Mutation::Delete => Ok(match present {
                Some(present) => Decision::Write(Change::Delete(present.clone())),
                None => Decision::Unchanged,
            }),
            Mutation::Act(action) => match *action {},
        }
    }

    async fn transaction(
        provider: &ManagedIdentity,
        _: &RequestInfo<'_>,
        state: &State,
        change: &Change,
    ) -> Result<Txn, ArmError> {
        let store = &*provider.store;
        let record = change.record();
        let own = key::managed_identity(&record.subscription, &record.resource_group, &record.name);
        let txn = match &state.found {
            None => Txn::default().absent(&own),
            Some(found) => Txn::default().at(&own, found.revision),
        };
        match change {
            Change::Put(record) => Ok(txn.with(put_record(own, record))),
            Change::Make(record, principal) => {
                let Some(group) = state.group else {
                    let message = format!(
                        "The resource group {} is being deleted; nothing can be created in it.",
                        quote(&record.resource_group)
                    );
                    return Err(ArmError::new(ErrorCode::RESOURCE_GROUP_BEING_DELETED, message));
                };
                let prefix = key::managed_identity(&record.subscription, "", "");
                let (others, _) = store.list(&prefix).await.map_err(store_error)?;
                if others.len() >= MOST_IDENTITIES {
                    let message = format!(
                        "No more identities can be created in the subscription: at most {MOST_IDENTITIES} are kept."
                    );
                    return Err(ArmError::new(ErrorCode::QUOTA_EXCEEDED, message));
                }
                let txn = txn
                    .at(key::group(&record.subscription, &record.resource_group), group)
                    .with(put_record(own, record));
                Ok(directory::made(txn, principal))
            }
            Change::Delete(record) => {
                let id = id(record);
                let (more, whole) = directory::removals(store, &record.principal_id, &id, MOST_REMOVALS / 2)
                    .await
                    .map_err(store_error)?;
                let scope = AccessScope::parse(&id).map_err(ArmError::internal)?;
                let (rights, all) = access::removals_below(store, &scope, MOST_REMOVALS / 2)
                    .await
                    .map_err(store_error)?;
                if !whole || !all {
                    let message = format!(
                        "The identity {} is in too many groups, or too many roles are assigned at it, to go in one step; take it out of \
                         some, or remove some of these assignments.",
                        quote(&record.name)
                    );
                    return Err(ArmError::new(ErrorCode::CONFLICT, message));
                }
                let mut txn = txn.delete(own);
                txn.compare.extend(more.compare);
                txn.ops.extend(more.ops);
                txn.ops.extend(rights);
                Ok(txn)
            }
        }
    }

    fn render(state: &State, change: Option<&Change>, _: &ResourcePath, _: &str) -> Value {
        let present = state.found.as_ref().map(|found| &found.value);
        change.map(Change::record).or(present).map_or(Value::Null, answer)
    }

    fn operation(_: &Change) -> Option<&str> {
        None
    }
}

fn put(
    context: &Context<'_, ManagedIdentityConfig>,
    present: Option<&ManagedIdentityRecord>,
    asked: &Value,
) -> Result<Decision<Change>, ArmError> {
    let place = Place::of(context.info.path)?;
    body::name(place.name, SHORTEST_NAME)?;
    let wish = body::identity(asked)?;
    let Some(location) = wish.location else {
        return Err(
            ArmError::new(ErrorCode::MISSING_PARAMETER, "'location' is required.").target("location"),
        );
    };
    let (config, by) = (context.config, context.info.principal);
    let before = present.map(|present| &present.system_data);
    let system_data = system_data::touched(before, by, context.now);
    if let Some(present) = present {
        if !same_location(&location, &present.location) && !same_location(&location, &config.location_display)
        {
            let message = format!(
                "The identity {} exists in the location '{}'; it cannot be moved.",
                quote(&present.name),
                present.location
            );
            return Err(ArmError::new(ErrorCode::PROPERTY_CHANGE_NOT_ALLOWED, message).target("location"));
        }
        let tags = wish.tags.unwrap_or_default();
        if tags == present.tags {
            return Ok(Decision::Unchanged);
        }
        return Ok(Decision::Write(Change::Put(ManagedIdentityRecord {
            tags,
            system_data,
            ..present.clone()
        })));
    }
    if !same_location(&location, &config.location) && !same_location(&location, &config.location_display) {
        let message = format!(
            "The provided location {} is not available for the resource type '{NAMESPACE}/userAssignedIdentities'; the location here is \
             '{}'.",
            quote(&location),
            config.location
        );
        return Err(ArmError::new(ErrorCode::LOCATION_NOT_AVAILABLE, message).target("location"));
    }
    let record = ManagedIdentityRecord {
        v: 1,
        subscription: place.subscription.to_owned(),
        resource_group: place.group.to_owned(),
        name: place.name.to_owned(),
        location: config.location.clone(),
        tags: wish.tags.unwrap_or_default(),
        tenant_id: config.tenant_id.clone(),
        principal_id: context.ids.uuid().to_string(),
        client_id: context.ids.uuid().to_string(),
        system_data,
    };
    let principal = PrincipalRecord {
        kind: KIND.to_owned(),
        login: record.client_id.clone(),
        display_name: record.name.clone(),
        resource: Some(id(&record)),
        ..PrincipalRecord::new(&record.principal_id, context.now)
    };
    Ok(Decision::Write(Change::Make(record, Box::new(principal))))
}

impl Tagged for Identities {
    fn tags(state: &State) -> Option<Tags> {
        state.found.as_ref().map(|found| found.value.tags.clone())
    }

    fn decide_tags(
        context: &Context<'_, ManagedIdentityConfig>,
        state: &State,
        tags: Tags,
    ) -> Result<Decision<Change>, ArmError> {
        let Some(found) = &state.found else {
            return Err(Self::missing(state, context.info.path));
        };
        let before = &found.value;
        Ok(Decision::Write(Change::Put(ManagedIdentityRecord {
            tags,
            system_data: system_data::touched(Some(&before.system_data), context.info.principal, context.now),
            ..before.clone()
        })))
    }

    fn check_other(state: &State, name: &str, value: &Value, problems: &mut Problems) {
        // `az identity update` sends the body that it read.
        let own = state.found.as_ref().map(|found| found.value.location.as_str());
        let same = match name {
            "location" => value
                .as_str()
                .zip(own)
                .is_some_and(|(asked, own)| same_location(asked, own)),
            "id" | "name" | "type" | "systemData" => true,
            "properties" => value.as_object().is_some_and(|members| {
                let known = ["tenantId", "principalId", "clientId"];
                members
                    .iter()
                    .all(|(name, value)| value.is_null() || known.contains(&name.as_str()))
            }),
            _ => false,
        };
        if !same {
            let short: String = name.chars().take(64).collect();
            let message = format!("{} cannot be changed with PATCH, only 'tags'.", quote(&short));
            problems.add(ErrorCode::PROPERTY_CHANGE_NOT_ALLOWED, short, message);
        }
    }
}

/// All identities of a subscription, or of one group of it.
async fn records(
    provider: &ManagedIdentity,
    subscription: &str,
    group: Option<&str>,
) -> Result<Vec<ManagedIdentityRecord>, ArmError> {
    let prefix = match group {
        Some(group) => key::managed_identity(subscription, group, ""),
        None => key::managed_identity(subscription, "", ""),
    };
    let (found, _) = list_records::<ManagedIdentityRecord>(&*provider.store, &prefix)
        .await
        .map_err(store_error)?;
    Ok(found.into_iter().map(|(_, found)| found.value).collect())
}

async fn listed(
    provider: &ManagedIdentity,
    subscription: &str,
    group: Option<&str>,
) -> Result<Vec<Value>, ArmError> {
    let all = records(provider, subscription, group).await?;
    Ok(all.iter().map(answer).collect())
}

/// Deletes all identities of a group, each in the name of its last editor, at once.
async fn delete_all(provider: &ManagedIdentity, subscription: &str, group: &str) -> Result<usize, ArmError> {
    let mut each = Vec::new();
    for record in records(provider, subscription, Some(group)).await? {
        let path = ResourcePath::parse(&id(&record)).map_err(ArmError::internal)?;
        let by = Principal::named(&record.system_data.modified_by, &record.tenant_id);
        each.push((path, by));
    }
    delete_each::<Identities>(provider, &each, API_VERSIONS[0]).await?;
    // They are deleted at once.
    Ok(records(provider, subscription, Some(group)).await?.len())
}
