//! Long-running operations: read from the store, answered as the kernel says.

use arm_ids::{ResourcePath, same_location};
use arm_kernel::{
    Call, GENERIC,
    operations::{Outcome as Given, Poll, result, status},
    scope_of,
};
use arm_wire::{ArmError, ErrorCode, Request};
use control_records::directory;
use http::Method;

use crate::{
    Inner,
    answer::{Failure, Outcome},
    query::plain_id,
};

impl Inner {
    /// Answers for an operation; `call` has passed all general checks.
    pub(crate) async fn operation(&self, poll: Poll, call: Call) -> Outcome {
        let request = &call.request;
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
        let found = directory::operation(&*self.store, id)
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
        match poll {
            Poll::Status => Ok(status(&operation, request)),
            Poll::Result => match result(&operation, &self.registry, request)? {
                Given::Answer(response) => Ok(response),
                Given::Resource => {
                    let target = self.registry.target(&resource)?;
                    let route = target.route(&Method::GET).map_err(|(error, _)| error)?;
                    // What an operation gives is the resource: whoever asks has to be allowed to read that.
                    call.check(&route.permission(&resource), &scope_of(&resource))
                        .await?;
                    let read = call.with(Request {
                        method: Method::GET,
                        path: resource,
                        query: Vec::new(),
                        ..request.clone()
                    });
                    Ok(target.provider.handle(route, &read).await?)
                }
            },
        }
    }
}
