//! A resource with parts as the kernel sees it: read, decided about, written.

use std::{collections::BTreeSet, marker::PhantomData};

use arm_ids::ResourcePath;
use arm_kernel::{
    Context, Decision, Mutation, Presence, Purpose, RequestInfo, Resource, Tagged, Tags, quote,
    schema::{Problems, clean},
};
use arm_wire::{ArmError, ErrorCode};
use async_trait::async_trait;
use control_records::network::NetworkRecord;
use control_store::Txn;
use serde_json::{Map, Value, json};

use super::{Action, Change, Decided, Kind, State, answer, changed, listed, transaction};
use crate::{
    Stamp, missing,
    network::{NAMESPACE, Network, is_called, tag_of},
    tenants::{At, check_location, check_name, check_object},
};

/// The resources of a kind, as the kernel sees them.
pub(crate) struct Top<K>(PhantomData<fn() -> K>);

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
        let place = At::of(path);
        missing(&format!("{NAMESPACE}/{}", K::TYPE), place.name, place.group)
    }

    async fn list(provider: &Network, path: &ResourcePath, _: &str) -> Result<Vec<Value>, ArmError> {
        let place = At::of(path);
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

fn put<K: Kind>(
    context: &Context<'_, Stamp>,
    state: &State,
    body: &Value,
) -> Result<Decision<Change>, ArmError> {
    let (place, present) = (At::of(context.info.path), state.record());
    check_object(body)?;
    let mut problems = Problems::default();
    check_name(place.name, 80, "name", &mut problems);
    let mut asked = clean(K::tree(), body, context.info.api_version, &mut problems).body;
    check_location(
        context.config,
        present.map(|present| present.location.as_str()),
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
        if parts.iter().any(|other| is_called(other, name)) {
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
