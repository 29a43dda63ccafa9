//! A call, and the permission for it.

use std::sync::Arc;

use arm_ids::ResourcePath;
use arm_wire::{ArmError, ErrorCode, Principal, Request};
use async_trait::async_trait;

use crate::{
    Gate,
    activity::{ActivityLog, ServiceLog},
};

/// Permissions. Checked once for each request, before its provider sees it, and by providers for resources that a body names beside
/// the path.
#[async_trait]
pub trait Authorizer: Send + Sync + 'static {
    /// Whether `principal` may do `action` (e.g. `Microsoft.ContainerService/managedClusters/write`) at `scope`.
    async fn may(&self, principal: &Principal, action: &str, scope: &ResourcePath) -> Result<bool, ArmError>;

    /// Whether `principal` may do any action at `scope`, above or below.
    async fn reaches(&self, principal: &Principal, scope: &ResourcePath) -> Result<bool, ArmError>;
}

/// Permits every action to every caller with a token: for tests of other subjects.
#[derive(Debug, Clone, Copy)]
pub struct AllowAll;

#[async_trait]
impl Authorizer for AllowAll {
    async fn may(&self, _: &Principal, _: &str, _: &ResourcePath) -> Result<bool, ArmError> {
        Ok(true)
    }

    async fn reaches(&self, _: &Principal, _: &ResourcePath) -> Result<bool, ArmError> {
        Ok(true)
    }
}

/// The effect of a request on its scope, for locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// PUT, PATCH and POST.
    Write,
    /// DELETE: affects all resources below as well.
    Delete,
}

impl Change {
    /// The effect of an action; none for reads.
    pub fn of(action: &str) -> Option<Self> {
        let verb = action.rsplit('/').next().unwrap_or_default();
        if verb.eq_ignore_ascii_case("read") {
            None
        } else if verb.eq_ignore_ascii_case("delete") {
            Some(Self::Delete)
        } else {
            Some(Self::Write)
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Delete => "delete",
        }
    }
}

/// Locks, which hold for every caller.
#[async_trait]
pub trait Locks: Send + Sync + 'static {
    /// The locked scopes that forbid `change` at `scope`.
    async fn against(&self, change: Change, scope: &ResourcePath) -> Result<Vec<String>, ArmError>;
}

/// No locks.
#[derive(Debug, Clone, Copy)]
pub struct NoLocks;

#[async_trait]
impl Locks for NoLocks {
    async fn against(&self, _: Change, _: &ResourcePath) -> Result<Vec<String>, ArmError> {
        Ok(Vec::new())
    }
}

/// Actions on locks themselves are exempt: locks can be removed.
const OF_LOCKS: &str = "Microsoft.Authorization/locks/";

/// Permissions, locks, and the activity log.
#[derive(Clone)]
pub struct AccessControl {
    /// Checked first.
    pub authorizer: Arc<dyn Authorizer>,
    /// Checked second.
    pub locks: Arc<dyn Locks>,
    /// Informed afterwards.
    pub activity: Arc<dyn ActivityLog>,
}

impl AccessControl {
    /// Every action is permitted, there are no locks, and the log is the service's.
    pub fn allow_all() -> Self {
        Self {
            authorizer: Arc::new(AllowAll),
            locks: Arc::new(NoLocks),
            activity: Arc::new(ServiceLog),
        }
    }

    /// Lets the principal through to a row, or fails with `AuthorizationFailed`, which does not reveal whether a resource exists. `action` and
    /// `scope` are those of the request.
    ///
    /// # Errors
    /// When the principal has no permission, or the check fails.
    pub async fn admit(
        &self,
        gate: Gate,
        principal: &Principal,
        action: &str,
        scope: &ResourcePath,
    ) -> Result<(), ArmError> {
        let admitted = match gate {
            Gate::Anybody | Gate::ItemsReached => true,
            Gate::Action => self.authorizer.may(principal, action, scope).await?,
            // A principal with any right at a scope learns only that the scope exists.
            Gate::Reaches | Gate::Items | Gate::ItemsByType => {
                self.authorizer.may(principal, action, scope).await?
                    || self.authorizer.reaches(principal, scope).await?
            }
        };
        if admitted {
            return Ok(());
        }
        Err(refusal(principal, action, scope))
    }

    /// Lets the principal through, or fails with `AuthorizationFailed`.
    ///
    /// # Errors
    /// When the principal has no permission, or the check fails.
    pub async fn check(
        &self,
        principal: &Principal,
        action: &str,
        scope: &ResourcePath,
    ) -> Result<(), ArmError> {
        self.admit(Gate::Action, principal, action, scope).await
    }

    /// Fails with `ScopeLocked` where a lock forbids the change.
    ///
    /// # Errors
    /// When there is such a lock, or the check fails.
    pub async fn check_locks(&self, action: &str, scope: &ResourcePath) -> Result<(), ArmError> {
        let of_locks = action
            .get(..OF_LOCKS.len())
            .is_some_and(|begins| begins.eq_ignore_ascii_case(OF_LOCKS));
        let Some(change) = Change::of(action).filter(|_| !of_locks) else {
            return Ok(());
        };
        let locked = self.locks.against(change, scope).await?;
        if locked.is_empty() {
            return Ok(());
        }
        let message = format!(
            "The scope '{scope}' cannot perform {} operation because following scope(s) are locked: '{}'. Please remove the lock and try \
             again.",
            change.as_str(),
            locked.join(",")
        );
        Err(ArmError::new(ErrorCode::SCOPE_LOCKED, message))
    }
}

/// The response without permission: the same whether the resource exists or not.
pub(crate) fn refusal(principal: &Principal, action: &str, scope: &ResourcePath) -> ArmError {
    let message = format!(
        "The client '{}' with object id '{}' does not have authorization to perform action '{action}' over scope '{scope}' or the \
         scope is invalid. If access was recently granted, please refresh your credentials.",
        principal.name, principal.object_id
    );
    ArmError::new(ErrorCode::AUTHORIZATION_FAILED, message)
}

impl std::fmt::Debug for AccessControl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AccessControl")
    }
}

/// A request on its way to a handler.
#[derive(Debug, Clone)]
pub struct Call {
    /// The request.
    pub request: Request,
    access: AccessControl,
}

impl Call {
    /// A request that `access` let through.
    pub fn new(request: Request, access: AccessControl) -> Self {
        Self { request, access }
    }

    /// Lets the caller through for a resource that the path does not name, e.g. a target in the body.
    ///
    /// # Errors
    /// `AuthorizationFailed` when the caller has no permission, `ScopeLocked` when a lock forbids the change.
    pub async fn check(&self, action: &str, scope: &ResourcePath) -> Result<(), ArmError> {
        self.access.check(&self.request.principal, action, scope).await?;
        self.access.check_locks(action, scope).await
    }

    /// Whether the caller has a permission.
    ///
    /// # Errors
    /// When the check fails.
    pub async fn may(&self, action: &str, scope: &ResourcePath) -> Result<bool, ArmError> {
        self.access
            .authorizer
            .may(&self.request.principal, action, scope)
            .await
    }

    /// Whether another principal has a permission, e.g. an identity that the caller assigns to a resource.
    ///
    /// # Errors
    /// When the check fails.
    pub async fn may_other(
        &self,
        principal: &Principal,
        action: &str,
        scope: &ResourcePath,
    ) -> Result<bool, ArmError> {
        self.access.authorizer.may(principal, action, scope).await
    }

    /// Lets the caller through for other resources that a body names. Without permission, all of them are named in one
    /// `LinkedAuthorizationFailed`, whether they exist or not. `own` is the action of the request itself.
    ///
    /// # Errors
    /// When the caller has no permission, or the check fails.
    pub async fn check_linked(
        &self,
        own: &str,
        action: &str,
        linked: &[ResourcePath],
    ) -> Result<(), ArmError> {
        let mut refused = Vec::new();
        for scope in linked {
            if !self.may(action, scope).await? {
                refused.push(scope.to_string());
            }
        }
        if refused.is_empty() {
            return Ok(());
        }
        let Principal { name, object_id, .. } = &self.request.principal;
        let message = format!(
            "The client '{name}' with object id '{object_id}' has permission to perform action '{own}' on scope '{}'; however, it does \
             not have permission to perform action '{action}' on the linked scope(s) '{}' or the linked scope(s) are invalid.",
            crate::scope_of(&self.request.path),
            refused.join(",")
        );
        Err(ArmError::new(ErrorCode::LINKED_AUTHORIZATION_FAILED, message))
    }

    /// Whether the caller may do any action at a scope, above or below.
    ///
    /// # Errors
    /// When the check fails.
    pub async fn reaches(&self, scope: &ResourcePath) -> Result<bool, ArmError> {
        self.access
            .authorizer
            .reaches(&self.request.principal, scope)
            .await
    }

    /// The answer to a caller without permission.
    pub fn refusal(&self, action: &str, scope: &ResourcePath) -> ArmError {
        refusal(&self.request.principal, action, scope)
    }

    /// The same caller's call of another row, e.g. of the resource that an operation returns.
    #[must_use]
    pub fn with(&self, request: Request) -> Self {
        Self::new(request, self.access.clone())
    }
}
