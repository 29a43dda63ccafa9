//! Long-running operations, of any namespace: `…/locations/{l}/operations/{id}` and `…/operationresults/{id}`. Pure.

use arm_ids::ResourcePath;
use arm_wire::{ArmError, ERROR_CODES, ErrorCode, Request, Response};
use control_records::{OperationRecord, OperationStatus};
use http::StatusCode;
use serde_json::json;

use crate::{registry::Registry, types::OperationResult};

/// The two ways to poll an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Poll {
    /// `operations`: always 200 with the status.
    Status,
    /// `operationresults`: 202 while running, then the response of the request itself.
    Result,
}

/// The kind of poll of a path; `None` for other paths.
pub fn poll_of(path: &ResourcePath) -> Option<Poll> {
    let here = path.subscription.is_some()
        && path.resource_group.is_none()
        && path.parent.is_none()
        && path.is_item();
    if !here || path.namespace.is_none() {
        None
    } else if path.type_is("locations/operations") {
        Some(Poll::Status)
    } else if path.type_is("locations/operationresults") {
        Some(Poll::Result)
    } else {
        None
    }
}

/// `{id, name, status, startTime, endTime, percentComplete, properties, error}`, always with 200: another
/// status would mean that reading it failed. `properties` shows the request and the current step, for people.
pub fn status(operation: &OperationRecord, request: &Request) -> Response {
    let mut body = json!({
        "id": request.path.to_string(),
        "name": operation.id,
        "status": match operation.status {
            OperationStatus::InProgress => "InProgress",
            OperationStatus::Succeeded => "Succeeded",
            OperationStatus::Failed => "Failed",
            OperationStatus::Canceled => "Canceled",
        },
        "startTime": operation.started_at.to_string(),
        "percentComplete": match operation.status {
            OperationStatus::Succeeded => 100,
            _ => operation.progress.percent,
        },
        "properties": { "operation": operation.name },
    });
    if !operation.progress.step.is_empty() {
        body["properties"]["step"] = json!(operation.progress.step);
    }
    if let Some(ended) = operation.ended_at {
        body["endTime"] = json!(ended.to_string());
    }
    match operation.status {
        OperationStatus::InProgress => Response::ok(body).header("retry-after", "1"),
        OperationStatus::Succeeded => Response::ok(body),
        OperationStatus::Failed | OperationStatus::Canceled => {
            // Without an error object, az can only say that an invalid status was returned.
            let (code, message) = problem(operation);
            body["error"] = json!({ "code": code, "message": message });
            Response::ok(body)
        }
    }
}

/// The result of an `operationresults` request.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    /// This response.
    Answer(Response),
    /// The resource, as it is read now.
    Resource,
}

/// The response that the request of an operation would have had without polling: its own output, or as the
/// row of its name says. An operation whose row no longer exists in this release has no result.
///
/// # Errors
/// The operation's own, where it has failed or was cancelled.
pub fn result(
    operation: &OperationRecord,
    registry: &Registry,
    request: &Request,
) -> Result<Outcome, ArmError> {
    match operation.status {
        OperationStatus::InProgress => {
            let again = format!(
                "{}{}?api-version={}",
                request.base_url, request.path, request.api_version
            );
            let response = Response::empty(StatusCode::ACCEPTED);
            Ok(Outcome::Answer(
                response.header("location", again).header("retry-after", "1"),
            ))
        }
        OperationStatus::Succeeded => {
            if let Some(output) = &operation.result {
                return Ok(Outcome::Answer(Response::ok(output.value().clone())));
            }
            let row = registry.operation(&operation.name);
            Ok(match row.map_or(OperationResult::Nothing, |row| row.result) {
                OperationResult::Resource if !operation.deletes => Outcome::Resource,
                OperationResult::Resource | OperationResult::Nothing => {
                    Outcome::Answer(Response::empty(StatusCode::NO_CONTENT))
                }
                OperationResult::Empty => Outcome::Answer(Response::empty(StatusCode::OK)),
            })
        }
        OperationStatus::Failed | OperationStatus::Canceled => {
            let (code, message) = problem(operation);
            let code = ERROR_CODES
                .iter()
                .find(|known| known.code == code)
                .unwrap_or(&ErrorCode::CONFLICT);
            Err(ArmError::new(*code, message))
        }
    }
}

fn problem(operation: &OperationRecord) -> (String, String) {
    match &operation.error {
        Some(error) => (error.code.clone(), error.message.clone()),
        None if operation.status == OperationStatus::Canceled => (
            "OperationCanceled".to_owned(),
            "The operation was superseded or aborted.".to_owned(),
        ),
        None => (
            "InternalServerError".to_owned(),
            "The operation did not succeed.".to_owned(),
        ),
    }
}
