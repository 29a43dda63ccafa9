//! Long-running operations: read from the store, rendered by the kernel.

use arm_ids::{ResourcePath, same_location};
use arm_kernel::{
    Call, GENERIC,
    operations::{Outcome as Given, Poll, result, status},
    scope_of,
};
use arm_wire::{ArmError, ErrorCode, Request};
use control_records::{OperationRecord, directory};
use http::Method;

use crate::{Inner, answer::Outcome, query::plain_id};

impl Inner {
    /// Serves a poll of an operation; `call` has passed all general checks.
    pub(crate) async fn operation(&self, poll: Poll, call: Call) -> Outcome {
        let request = &call.request;
        let path = &request.path;
        let found = self.find(path).await?;
        // Permitted: callers that may read all operations of the subscription, the caller that started this
        // one, and callers that may read its resource. All others get the same response as for an operation
        // that does not exist.
        let own = path.namespace.as_deref().unwrap_or_default();
        let (action, scope) = (format!("{own}/{}/read", path.type_path()), scope_of(path));
        let subscription = ResourcePath {
            subscription: path.subscription.clone(),
            ..ResourcePath::default()
        };
        let mut may = call.may(&action, &subscription).await?;
        if let Some((operation, resource)) = found.as_ref().filter(|_| !may) {
            may = operation.asked_by.as_ref() == Some(&request.principal.object_id)
                || self.may_read(resource, &call).await?;
        }
        if !may {
            return Err(call.refusal(&action, &scope).into());
        }
        self.check_scope(path, &request.method, false).await?;
        let (operation, resource) = found.ok_or_else(|| {
            ArmError::new(
                ErrorCode::OPERATION_NOT_FOUND,
                "There is no such operation, or it ended more than seven days ago.",
            )
        })?;
        match poll {
            Poll::Status => Ok(status(&operation, request)),
            Poll::Result => match result(&operation, &self.registry, request)? {
                Given::Answer(response) => {
                    if operation.result.is_some() {
                        self.may_have_output(&operation, &resource, &call).await?;
                    }
                    Ok(response)
                }
                Given::Resource => {
                    let target = self.registry.target(&resource)?;
                    let route = target.route(&Method::GET).map_err(|(error, _)| error)?;
                    // The result of the operation is the resource, so the caller needs permission to read it.
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

    /// The output of an operation is for the caller that started it and for callers that may start it: it may
    /// hold more than a reader of the resource may see.
    async fn may_have_output(
        &self,
        operation: &OperationRecord,
        resource: &ResourcePath,
        call: &Call,
    ) -> Result<(), ArmError> {
        if operation.asked_by.as_ref() == Some(&call.request.principal.object_id) {
            return Ok(());
        }
        // An operation of an older release whose row no longer exists: only the caller that started it may
        // read it.
        let row = self.registry.operation(&operation.name);
        let action = row.map(|row| row.permission(resource)).unwrap_or_default();
        let scope = scope_of(resource);
        if !action.is_empty() && call.may(&action, &scope).await? {
            return Ok(());
        }
        Err(call.refusal(&action, &scope))
    }

    /// The operation of a path, and the resource that it is about.
    async fn find(&self, path: &ResourcePath) -> Result<Option<(OperationRecord, ResourcePath)>, ArmError> {
        let (location, id) = (path.name(0).unwrap_or_default(), path.name(1).unwrap_or_default());
        if !plain_id(id) || !same_location(location, &self.config.location) {
            return Ok(None);
        }
        let found = directory::operation(&*self.store, id)
            .await
            .map_err(ArmError::internal)?;
        let Some(operation) = found.map(|found| found.value) else {
            return Ok(None);
        };
        let resource = ResourcePath::parse(&operation.resource_id).map_err(ArmError::internal)?;
        let same_subscription = match (&resource.subscription, &path.subscription) {
            (Some(own), Some(asked)) => own.eq_ignore_ascii_case(asked),
            _ => false,
        };
        let namespace = resource.namespace.as_deref().unwrap_or(GENERIC);
        let here = same_subscription && path.namespace_is(namespace);
        Ok(here.then_some((operation, resource)))
    }

    /// Whether the caller may read a resource.
    async fn may_read(&self, resource: &ResourcePath, call: &Call) -> Result<bool, ArmError> {
        let target = self.registry.target(resource)?;
        let route = target.route(&Method::GET).map_err(|(error, _)| error)?;
        call.may(&route.permission(resource), &scope_of(resource)).await
    }
}
