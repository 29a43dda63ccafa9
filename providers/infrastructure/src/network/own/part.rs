//! A part of a resource (a subnet, a rule) as the kernel sees it. It is kept in the record of what it is a part of.

use std::marker::PhantomData;

use arm_ids::ResourcePath;
use arm_kernel::{
    Context, Decision, Mutation, Presence, Purpose, RequestInfo, Resource, quote,
    schema::{Problems, clean},
};
use arm_wire::{ArmError, ErrorCode};
use async_trait::async_trait;
use control_records::network::NetworkRecord;
use control_store::Txn;
use serde_json::{Map, Value};

use super::{Action, Change, Decided, Kind, State, Top, answer_part, changed, find, transaction};
use crate::{
    Stamp, missing,
    network::{NAMESPACE, Network, is_called, tag_of},
    tenants::{At, check_object},
};

/// The most parts of a resource, as the tables say it of whole lists.
const MOST_PARTS: usize = 200;

/// The parts of a kind, as the kernel sees them.
pub(crate) struct Part<K>(PhantomData<fn() -> K>);

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
        match (state.part(K::PARTS, At::of(path).part), state.record()) {
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
            quote(At::of(path).name)
        );
        Err(ArmError::new(ErrorCode::PARENT_RESOURCE_NOT_FOUND, message))
    }

    fn missing(_: &State, path: &ResourcePath) -> ArmError {
        let place = At::of(path);
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
        let (Some(present), place) = (state.record(), At::of(context.info.path)) else {
            return Ok(Decision::Unchanged);
        };
        let before = present.properties[K::PARTS]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let at = before.iter().position(|part| is_called(part, place.part));
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
        let name = At::of(path).part;
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
