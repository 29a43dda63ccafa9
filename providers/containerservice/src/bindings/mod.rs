//! Bindings of a cluster to managed identities of the stamp: identities that may do something in it ([`trusted`]), and identities that its
//! workloads may be ([`identities`]).
//!
//! Always true: who binds an identity is permitted something at that identity, too; a binding holds for the principal that the identity was when
//! it was written, and as long as its record is there.

pub(crate) mod identities;
pub(crate) mod trusted;

use std::sync::LazyLock;

use arm_ids::ResourcePath;
use arm_kernel::{
    Call, Mode, delete, put, quote,
    schema::{Problems, Table},
};
use arm_wire::{ArmError, ErrorCode, Response};
use control_records::ManagedIdentityRecord;
use http::StatusCode;
use serde_json::Value;

use crate::{
    ContainerService,
    children::{Asked, Child, Document},
    clusters::named::path_of,
};

static TABLE: LazyLock<Table> = LazyLock::new(|| Table::parse(include_str!("properties.tsv"), &[]));

/// Bindings of a kind in a cluster.
const MOST: usize = 100;

/// The identity that a body names at a place.
fn named(body: &Value, pointer: &str) -> Option<ResourcePath> {
    path_of(body.pointer(pointer)?.as_str()?)
}

/// What is said where a property is not the id of an identity that is there; else its record.
fn found<'a>(
    asked: &Asked<'a>,
    id: Option<&str>,
    target: &str,
    problems: &mut Problems,
) -> Option<&'a ManagedIdentityRecord> {
    let Some(id) = id else {
        let message = format!("The required property '{target}' is missing.");
        problems.add(ErrorCode::MISSING_PARAMETER, target, message);
        return None;
    };
    if path_of(id).is_none() {
        let message = format!(
            "{} is not the id of a user-assigned identity: /subscriptions/…/resourceGroups/…/providers/Microsoft.ManagedIdentity/\
             userAssignedIdentities/….",
            quote(id)
        );
        problems.add(ErrorCode::INVALID_PARAMETER, target, message);
        return None;
    }
    if asked.identity.is_none() {
        let message = format!(
            "The user-assigned identity {} was not found; make it first (az identity create).",
            quote(id)
        );
        problems.add(ErrorCode::INVALID_RESOURCE_REFERENCE, target, message);
    }
    asked.identity
}

/// Checks the name of a binding.
fn check_name(name: &str, longest: usize, problems: &mut Problems) {
    let plain = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if plain && (1..=longest).contains(&name.len()) {
        return;
    }
    let message = format!(
        "The name of a binding has 1 to {longest} letters, digits and '-'; {} does not.",
        quote(name)
    );
    problems.add(ErrorCode::INVALID_RESOURCE_NAME, "name", message);
}

/// PUT of a binding, by who may do `action` at the identity that it names. `own` is the action of the request itself.
async fn put_bound<D: Document>(
    provider: &ContainerService,
    call: &Call,
    mode: Mode,
    own: &str,
    action: &str,
) -> Result<Response, ArmError> {
    if let Some(identity) = D::identity(&call.request.body) {
        call.check_linked(own, action, &[identity]).await?;
    }
    put::<Child<D>>(provider, call, mode).await
}

/// DELETE of a binding: 204, whether it was there or not. Clients of the API take nothing else for an answer that has no operation.
async fn delete_bound<D: Document>(
    provider: &ContainerService,
    call: &Call,
    mode: Mode,
) -> Result<Response, ArmError> {
    let answer = delete::<Child<D>>(provider, call, mode).await?;
    Ok(Response {
        status: StatusCode::NO_CONTENT,
        ..answer
    })
}
