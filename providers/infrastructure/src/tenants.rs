//! What goes for all resources that tenants make: names, locations, bodies, the group that they are made in, and the rights that go with them.

use arm_access::Scope;
use arm_ids::{ResourcePath, same_location};
use arm_kernel::{quote, schema::Problems, store_error};
use arm_wire::{ArmError, ErrorCode};
use control_records::{GroupRecord, access, key};
use control_store::{Op, Revision, Store, get_record};
use serde_json::Value;

use crate::Stamp;

/// Assignments and locks that may go with a resource.
const MOST_RIGHTS: usize = 80;

/// Where a path's resource, or a part of it, is.
pub(crate) struct At<'a> {
    pub(crate) subscription: &'a str,
    pub(crate) group: &'a str,
    pub(crate) name: &'a str,
    /// Empty: the resource itself.
    pub(crate) part: &'a str,
}

impl<'a> At<'a> {
    pub(crate) fn of(path: &'a ResourcePath) -> Self {
        Self {
            subscription: path.subscription.as_deref().unwrap_or_default(),
            group: path.resource_group.as_deref().unwrap_or_default(),
            name: path.name(0).unwrap_or_default(),
            part: path.name(1).unwrap_or_default(),
        }
    }
}

pub(crate) fn check_object(body: &Value) -> Result<(), ArmError> {
    if body.is_object() {
        return Ok(());
    }
    let message = "The request needs a body that is a JSON object.";
    Err(ArmError::new(ErrorCode::INVALID_REQUEST_CONTENT, message))
}

/// A name that ARM allows.
pub(crate) fn check_name(name: &str, most: usize, target: &str, problems: &mut Problems) {
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

/// Checks the location of a body; `present`: that of the resource that is there.
pub(crate) fn check_location(
    stamp: &Stamp,
    present: Option<&str>,
    asked: Option<&str>,
    problems: &mut Problems,
) {
    match (asked, present) {
        (Some(asked), Some(present)) if !same_location(asked, present) => problems.add(
            ErrorCode::INVALID_RESOURCE_LOCATION,
            "location",
            format!(
                "The resource is in location '{present}' and cannot move to {}.",
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

/// The group that something is to be made in, as it was last written; `None` of one that is gone or going: nothing is made in it.
pub(crate) async fn open_group(
    store: &dyn Store,
    subscription: &str,
    group: &str,
) -> Result<Option<Revision>, ArmError> {
    let key = key::group(subscription, group);
    let group = get_record::<GroupRecord>(store, &key)
        .await
        .map_err(store_error)?;
    // Of one that is going nothing is made; the edge has said so to whoever came before it went.
    let group = group.filter(|record| !record.value.deleting);
    Ok(group.map(|record| record.revision))
}

/// The error of something that is to be made in a group that is going.
pub(crate) fn group_is_going(group: &str) -> ArmError {
    let message = format!(
        "The resource group {} is being deleted; nothing can be created in it.",
        quote(group)
    );
    ArmError::new(ErrorCode::RESOURCE_GROUP_BEING_DELETED, message)
}

/// Assignments and locks go with what they are at.
pub(crate) async fn rights(store: &dyn Store, scope: &Scope) -> Result<Vec<Op>, ArmError> {
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
