//! A call, and who may make it.

use std::sync::Arc;

use arm_ids::ResourcePath;
use arm_wire::{ArmError, ErrorCode, Principal, Request};
use async_trait::async_trait;

use crate::activity::{ActivityLog, ServiceLog};

/// Says who may do what. Asked once for each request, before its provider sees it, and by providers for what a body names beside
/// the path.
#[async_trait]
pub trait Authorizer: Send + Sync + 'static {
    /// Whether `principal` may do `action` (e.g. `Microsoft.ContainerService/managedClusters/write`) at `scope`.
    async fn may(&self, principal: &Principal, action: &str, scope: &ResourcePath) -> Result<bool, ArmError>;
}

/// Everybody who has a token may do everything: until there are roles.
#[derive(Debug, Clone, Copy)]
pub struct AllowAll;

#[async_trait]
impl Authorizer for AllowAll {
    async fn may(&self, _: &Principal, _: &str, _: &ResourcePath) -> Result<bool, ArmError> {
        Ok(true)
    }
}

/// Who may, and what was done.
#[derive(Clone)]
pub struct AccessControl {
    /// Asked before.
    pub authorizer: Arc<dyn Authorizer>,
    /// Told afterwards.
    pub activity: Arc<dyn ActivityLog>,
}

impl AccessControl {
    /// Everybody may everything, and the service's log has what was done.
    pub fn allow_all() -> Self {
        Self {
            authorizer: Arc::new(AllowAll),
            activity: Arc::new(ServiceLog),
        }
    }

    /// Lets the principal through, or `AuthorizationFailed`, which tells nothing about what there is.
    ///
    /// # Errors
    /// When the principal may not, or that cannot be found out.
    pub async fn check(
        &self,
        principal: &Principal,
        action: &str,
        scope: &ResourcePath,
    ) -> Result<(), ArmError> {
        if self.authorizer.may(principal, action, scope).await? {
            return Ok(());
        }
        let message = format!(
            "The client '{}' with object id '{}' does not have authorization to perform action '{action}' over scope '{scope}' or the \
             scope is invalid. If access was recently granted, please refresh your credentials.",
            principal.name, principal.object_id
        );
        Err(ArmError::new(ErrorCode::AUTHORIZATION_FAILED, message))
    }
}

impl std::fmt::Debug for AccessControl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AccessControl")
    }
}

/// A request on its way to a handler.
#[derive(Debug, Clone)]
pub struct Call {
    /// What was asked.
    pub request: Request,
    access: AccessControl,
}

impl Call {
    /// A request that was let through `access`.
    pub fn new(request: Request, access: AccessControl) -> Self {
        Self { request, access }
    }

    /// Lets the caller through for something that the path does not name, e.g. a target in the body.
    ///
    /// # Errors
    /// `AuthorizationFailed` when the caller may not.
    pub async fn check(&self, action: &str, scope: &ResourcePath) -> Result<(), ArmError> {
        self.access.check(&self.request.principal, action, scope).await
    }

    /// The same caller's call of something else, e.g. the resource that an operation gives.
    #[must_use]
    pub fn with(&self, request: Request) -> Self {
        Self::new(request, self.access.clone())
    }
}
