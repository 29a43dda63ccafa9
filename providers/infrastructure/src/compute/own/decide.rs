//! Decisions about tenants' disks and snapshots. Pure.

use arm_kernel::{
    Context, Decision, quote,
    schema::{Problems, clean},
};
use arm_wire::{ArmError, ErrorCode};
use control_records::disk::{DiskId, DiskRecord};
use serde_json::{Map, Value, json};

use super::{Change, Kind, State};
use crate::{
    Stamp,
    tenants::{At, check_location, check_name, check_object},
};

/// Where a body says what it is to be a copy of.
pub(super) const SOURCE: &str = "/properties/creationData/sourceResourceId";
const SOURCE_TARGET: &str = "properties.creationData.sourceResourceId";
const SIZE: &str = "properties.diskSizeGB";
const GIB: u64 = 1 << 30;
/// The SKU of a body that names none, as in Azure.
const USUAL_SKU: &str = "Standard_LRS";

/// PUT.
pub(super) fn put<K: Kind>(
    context: &Context<'_, Stamp>,
    state: &State,
    body: &Value,
) -> Result<Decision<Change>, ArmError> {
    let (at, present) = (At::of(context.info.path), state.record());
    check_object(body)?;
    let mut problems = Problems::default();
    check_name(at.name, 80, "name", &mut problems);
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
    let sku = asked.get("sku").and_then(|sku| sku["name"].as_str());
    let sku = sku
        .or(present.map(|present| present.sku.as_str()))
        .unwrap_or(USUAL_SKU)
        .to_owned();
    let mut properties = match asked.remove("properties") {
        Some(Value::Object(properties)) => properties,
        _ => Map::new(),
    };
    let gib = properties.remove("diskSizeGB").and_then(|size| size.as_u64());
    let properties = creation(present, properties, &mut problems);
    let bytes = size(state, at.subscription, (&properties, gib), &mut problems);
    problems.into_result()?;
    let properties = Value::Object(properties);
    let record = match present {
        Some(present)
            if present.properties == properties
                && present.tags == tags
                && present.sku == sku
                && present.bytes == bytes =>
        {
            return Ok(Decision::Unchanged);
        }
        Some(present) => DiskRecord {
            tags,
            sku,
            bytes,
            properties,
            generation: present.generation + 1,
            modified_at: context.now,
            ..present.clone()
        },
        None => DiskRecord {
            v: 1,
            uid: context.ids.short(),
            subscription: at.subscription.to_owned(),
            resource_group: at.group.to_owned(),
            name: at.name.to_owned(),
            location: context.config.location.clone(),
            tags,
            generation: 1,
            snapshot: K::SNAPSHOT,
            sku,
            bytes,
            properties,
            source: state.source.as_ref().map(|source| source.volume.clone()),
            there: 0,
            failure: None,
            holder: None,
            created_at: context.now,
            modified_at: context.now,
        },
    };
    Ok(Decision::Write(Change::Put(Box::new(record))))
}

/// The canonical properties, with what a disk began as: that cannot change.
fn creation(
    present: Option<&DiskRecord>,
    mut asked: Map<String, Value>,
    problems: &mut Problems,
) -> Map<String, Value> {
    // What has no effect is kept only where it says something.
    asked.retain(|_, value| value.as_object().is_none_or(|members| !members.is_empty()));
    let Some(present) = present else {
        if !asked.contains_key("creationData") && !problems.has_within("properties.creationData") {
            let target = "properties.creationData";
            let message = format!("The required property '{target}' is missing.");
            problems.add(ErrorCode::MISSING_PARAMETER, target, message);
        }
        return asked;
    };
    let before = &present.properties["creationData"];
    let same = |name: &str, data: &Value| match (data[name].as_str(), before[name].as_str()) {
        (Some(one), Some(other)) => one.eq_ignore_ascii_case(other),
        (None, _) => true,
        (Some(_), None) => false,
    };
    if let Some(data) = asked.get("creationData") {
        for name in ["createOption", "sourceResourceId"] {
            if !same(name, data) {
                let target = format!("properties.creationData.{name}");
                let message = format!("Changing property '{target}' is not allowed.");
                problems.add(ErrorCode::PROPERTY_CHANGE_NOT_ALLOWED, target, message);
            }
        }
    }
    asked.insert("creationData".to_owned(), before.clone());
    asked
}

/// How large it is to be, in bytes; `gib`: what is asked for.
fn size(
    state: &State,
    subscription: &str,
    (properties, gib): (&Map<String, Value>, Option<u64>),
    problems: &mut Problems,
) -> u64 {
    let asked = gib.map(|gib| gib.saturating_mul(GIB));
    if let Some(present) = state.record() {
        let bytes = asked.unwrap_or(present.bytes);
        if bytes < present.bytes {
            let message = format!(
                "Disk size reduction is not supported. Current size is {} bytes, requested size is {bytes} bytes.",
                present.bytes
            );
            problems.add(ErrorCode::INVALID_PARAMETER, SIZE, message);
        } else if bytes > present.bytes && present.snapshot {
            let message =
                "A snapshot keeps the size of what it was taken of; make a disk from it, and that larger.";
            problems.add(ErrorCode::PROPERTY_CHANGE_NOT_ALLOWED, SIZE, message);
        }
        return bytes;
    }
    let data = properties.get("creationData").cloned().unwrap_or_default();
    let named = data["sourceResourceId"].as_str();
    let here = named.and_then(DiskId::parse);
    let here = here.is_some_and(|id| id.subscription.eq_ignore_ascii_case(subscription));
    let source = state.source.as_ref().filter(|_| here);
    match (data["createOption"].as_str(), named, source) {
        (Some("Copy"), None, _) => {
            let message = format!(
                "The required property '{SOURCE_TARGET}' is missing: 'Copy' is of a disk or of a snapshot."
            );
            problems.add(ErrorCode::MISSING_PARAMETER, SOURCE_TARGET, message);
            0
        }
        (Some("Copy"), Some(id), None) => {
            let message = format!(
                "The disk or snapshot {} was not found, or is not made yet. It has to be one of the same subscription that is there as a whole.",
                quote(id)
            );
            problems.add(ErrorCode::INVALID_RESOURCE_REFERENCE, SOURCE_TARGET, message);
            0
        }
        (Some("Copy"), Some(_), Some(source)) => {
            let least = source.bytes.div_ceil(GIB) * GIB;
            let bytes = asked.unwrap_or(least);
            if bytes < least {
                let message = format!("The source has {} GiB; ask for as much at least.", least / GIB);
                problems.add(ErrorCode::INVALID_PARAMETER, SIZE, message);
            }
            bytes
        }
        (Some(_), Some(_), _) => {
            let message =
                "An empty disk is a copy of nothing: set 'createOption' to Copy, or leave the source out.";
            problems.add(ErrorCode::INVALID_PARAMETER, SOURCE_TARGET, message);
            0
        }
        (Some(_), None, _) => asked.unwrap_or_else(|| {
            // One that is wrong has its problem already.
            let message = format!("The required property '{SIZE}' is missing: an empty disk has a size.");
            problems.add(ErrorCode::MISSING_PARAMETER, SIZE, message);
            0
        }),
        (None, _, _) => 0,
    }
}

/// DELETE.
pub(super) fn delete(state: &State) -> Result<Decision<Change>, ArmError> {
    let Some(record) = state.record() else {
        return Ok(Decision::Unchanged);
    };
    let what = if record.snapshot { "Snapshot" } else { "Disk" };
    if let Some(holder) = &state.holder {
        let message = format!(
            "{what} {} is attached to {holder}. Delete the pods that use it there, or their PersistentVolumeClaim.",
            record.name
        );
        return Err(ArmError::new(ErrorCode::OPERATION_NOT_ALLOWED, message));
    }
    if let Some(copy) = &state.copied {
        let message = format!(
            "{what} {} is being copied to {copy}; wait until that is made, or delete it.",
            record.name
        );
        return Err(ArmError::new(ErrorCode::OPERATION_NOT_ALLOWED, message));
    }
    Ok(Decision::Write(Change::Delete))
}

/// What is there, as the body of a PUT.
pub(super) fn as_body(record: &DiskRecord) -> Value {
    let mut properties = record.properties.clone();
    properties["diskSizeGB"] = json!(record.bytes / GIB);
    json!({
        "location": record.location, "tags": record.tags, "sku": { "name": record.sku }, "properties": properties,
    })
}

/// Puts the members of a PATCH into a body: objects are merged, all else is replaced. A member that is null changes nothing.
pub(super) fn merge(body: &mut Value, patch: &Value) {
    let members = patch.as_object().into_iter().flatten();
    for (name, value) in members.filter(|(_, value)| !value.is_null()) {
        let there = &mut body[name.as_str()];
        if name != "tags" && there.is_object() && value.is_object() {
            merge(there, value);
        } else {
            *there = value.clone();
        }
    }
}
