//! Long-running operations, of any namespace: `…/locations/{l}/operations/{id}` and `…/operationresults/{id}`.

use arm_ids::ResourcePath;
use arm_wire::{ArmError, ERROR_CODES, ErrorCode, Request, Response};
use control_records::{OperationRecord, OperationStatus, key};
use control_store::get_record;
use http::{Method, StatusCode};
use serde_json::json;

use crate::{
    Inner,
    answer::{Failure, Outcome},
    dispatch::GENERIC,
    query::{plain_id, same_location},
};

/// Which of the two is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// `operations`: always 200 with the status.
    Status,
    /// `operationresults`: 202 while running, then what the request itself would have answered.
    Result,
}

/// Whether a path asks for an operation.
pub(crate) fn ask(path: &ResourcePath) -> Option<Ask> {
    let here = path.subscription.is_some()
        && path.resource_group.is_none()
        && path.parent.is_none()
        && path.is_item();
    if !here || path.namespace.is_none() {
        None
    } else if path.type_is("locations/operations") {
        Some(Ask::Status)
    } else if path.type_is("locations/operationresults") {
        Some(Ask::Result)
    } else {
        None
    }
}

impl Inner {
    /// Answers for an operation; `request` has passed all general checks.
    pub(crate) async fn operation(&self, ask: Ask, request: Request) -> Outcome {
        let path = &request.path;
        let (location, id) = (path.name(0).unwrap_or_default(), path.name(1).unwrap_or_default());
        let unknown = || {
            ArmError::new(
                ErrorCode::OPERATION_NOT_FOUND,
                "There is no such operation, or it ended more than seven days ago.",
            )
        };
        if !plain_id(id) || !same_location(location, &self.config.location) {
            return Err(unknown().into());
        }
        let found = get_record::<OperationRecord>(&*self.store, &key::operation(id))
            .await
            .map_err(|error| Failure::from(ArmError::internal(error)))?;
        let operation = found.ok_or_else(unknown)?.value;
        let resource = ResourcePath::parse(&operation.resource_id).map_err(ArmError::internal)?;
        let same_subscription = match (&resource.subscription, &path.subscription) {
            (Some(own), Some(asked)) => own.eq_ignore_ascii_case(asked),
            _ => false,
        };
        let namespace = resource.namespace.as_deref().unwrap_or(GENERIC);
        if !same_subscription || !path.namespace_is(namespace) {
            return Err(unknown().into());
        }
        match ask {
            Ask::Status => Ok(status(&operation, &request)),
            Ask::Result => self.result(&operation, resource, request).await,
        }
    }

    async fn result(&self, operation: &OperationRecord, resource: ResourcePath, request: Request) -> Outcome {
        match operation.status {
            OperationStatus::InProgress => {
                let again = format!(
                    "{}{}?api-version={}",
                    request.base_url, request.path, request.api_version
                );
                Ok(Response::empty(StatusCode::ACCEPTED)
                    .header("location", again)
                    .header("retry-after", "1"))
            }
            OperationStatus::Succeeded if operation.deletes || !gives_resource(&operation.name) => {
                Ok(Response::empty(StatusCode::NO_CONTENT))
            }
            OperationStatus::Succeeded => {
                let target = self.table.target(&resource)?;
                let route = target.route(&Method::GET).map_err(|(error, _)| error)?;
                let read = Request {
                    method: Method::GET,
                    path: resource,
                    query: Vec::new(),
                    ..request
                };
                Ok(target.provider.handle(route, read).await?)
            }
            OperationStatus::Failed | OperationStatus::Canceled => {
                let (code, message) = problem(operation);
                let code = ERROR_CODES
                    .iter()
                    .find(|known| known.code == code)
                    .unwrap_or(&ErrorCode::CONFLICT);
                Err(ArmError::new(*code, message).into())
            }
        }
    }
}

/// `{id, name, status, startTime, endTime, percentComplete, properties, error}`, always with 200: another status would mean
/// that reading it failed. `properties` tells what was asked and what is going on, for people.
fn status(operation: &OperationRecord, request: &Request) -> Response {
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

/// Whether the request would have answered with its resource: creations and updates do, other actions do not.
fn gives_resource(name: &str) -> bool {
    let verb = name.split_once('_').map_or(name, |(_, verb)| verb);
    verb.starts_with("Create") || verb.starts_with("Update")
}
