//! Attributes of a request beside its body.

use arm_ids::ResourcePath;
use arm_wire::{Principal, Request, Trace};

/// The caller and the preconditions.
#[derive(Debug, Clone, Copy)]
pub struct RequestInfo<'a> {
    /// Of which resource, in the casing of the request.
    pub path: &'a ResourcePath,
    /// The caller.
    pub principal: &'a Principal,
    /// In which api-version.
    pub api_version: &'a str,
    /// `If-Match`, unquoted.
    pub if_match: Option<&'a str>,
    /// `If-None-Match`, unquoted.
    pub if_none_match: Option<&'a str>,
    /// For the activity log; `None` for calls by the service itself.
    pub trace: Option<&'a Trace>,
}

impl<'a> RequestInfo<'a> {
    /// The attributes of a request.
    pub fn of(request: &'a Request) -> Self {
        Self {
            path: &request.path,
            principal: &request.principal,
            api_version: &request.api_version,
            if_match: request.if_match.as_deref(),
            if_none_match: request.if_none_match.as_deref(),
            trace: Some(&request.trace),
        }
    }
}

/// The scope of a path, for permissions: without the collection or action that it ends in.
pub fn scope_of(path: &ResourcePath) -> ResourcePath {
    let mut scope = path.clone();
    scope.types.truncate(scope.names.len());
    if scope.types.is_empty() {
        // The resource that an extension is attached to.
        if let Some(parent) = scope.parent {
            return *parent;
        }
        scope.namespace = None;
    }
    scope
}
