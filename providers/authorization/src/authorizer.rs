//! Authorization decisions from the present records, so that a granted or removed assignment takes effect
//! with the next request.
//!
//! A check reads the principal's own assignments, which are few, and decides by their keys; built-in roles
//! are part of the program. The assignments of its groups are read only if these do not suffice.
//!
//! A check reads the principal's own assignments, which are few, and decides by their keys; built-in roles are part of the program. Only
//! where these do not suffice, those of the groups that it is in are read.

use std::{borrow::Cow, sync::Arc};

use arm_access::{Grant, Permission, Scope};
use arm_ids::ResourcePath;
use arm_kernel::{Authorizer, Change, Locks, store_error};
use arm_wire::{ArmError, Principal};
use async_trait::async_trait;
use control_records::access::{self, LOCKS, LockLevel, LockRecord, assigned, assignments_of, lock_scope};
use control_store::{Store, StoreError, parse_record};
use identity_directory::groups_of;

/// Decides by role assignments.
#[derive(Clone)]
pub struct RoleAuthorizer {
    store: Arc<dyn Store>,
}

impl RoleAuthorizer {
    /// Over the records of a store.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }
}

impl std::fmt::Debug for RoleAuthorizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RoleAuthorizer")
    }
}

/// The permissions of a role; empty where the role no longer exists.
pub(crate) async fn permissions_of(
    store: &dyn Store,
    role: &str,
) -> Result<Cow<'static, [Permission]>, ArmError> {
    access::permissions_of(store, role).await.map_err(store_error)
}

impl RoleAuthorizer {
    /// Whether one of a principal's roles, its own or its groups', passes, among assignments at relevant
    /// scopes. Only roles of such assignments are read.
    async fn any_grant(
        &self,
        principal: &Principal,
        matters: impl Fn(&Scope) -> bool + Send + Sync,
        passes: impl Fn(&Grant<'_>) -> bool + Send + Sync,
    ) -> Result<bool, ArmError> {
        let own = &principal.object_id;
        if self.grant_of(own, &matters, &passes).await? {
            return Ok(true);
        }
        for group in groups_of(&*self.store, own).await.map_err(store_error)? {
            if self.grant_of(&group, &matters, &passes).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a principal may do a data action at a scope. A disabled or deleted principal may do none.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub async fn may_data(&self, object_id: &str, action: &str, at: &Scope) -> Result<bool, StoreError> {
        let object_id = object_id.to_ascii_lowercase();
        let known = identity_directory::principal(&*self.store, &object_id).await?;
        if known.is_none_or(|known| known.value.disabled) {
            return Ok(false);
        }
        let mut who = vec![object_id.clone()];
        who.extend(groups_of(&*self.store, &object_id).await?);
        for one in &who {
            let (all, _) = self.store.list(&assignments_of(one)).await?;
            for (key, _) in &all {
                let Some(assigned) = assigned(key).filter(|assigned| assigned.scope.contains(at)) else {
                    continue;
                };
                let permissions = access::permissions_of(&*self.store, assigned.role).await?;
                let grant = Grant {
                    scope: assigned.scope,
                    permissions: &permissions,
                };
                if grant.gives_data(action, at) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// The same for the assignments of one principal or group.
    async fn grant_of(
        &self,
        object_id: &str,
        matters: &(impl Fn(&Scope) -> bool + Send + Sync),
        passes: &(impl Fn(&Grant<'_>) -> bool + Send + Sync),
    ) -> Result<bool, ArmError> {
        let (own, _) = self
            .store
            .list(&assignments_of(object_id))
            .await
            .map_err(store_error)?;
        for (key, _) in &own {
            let Some(assigned) = assigned(key).filter(|assigned| matters(&assigned.scope)) else {
                continue;
            };
            let permissions = permissions_of(&*self.store, assigned.role).await?;
            let grant = Grant {
                scope: assigned.scope,
                permissions: &permissions,
            };
            if passes(&grant) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[async_trait]
impl Authorizer for RoleAuthorizer {
    async fn may(&self, principal: &Principal, action: &str, scope: &ResourcePath) -> Result<bool, ArmError> {
        let at = Scope::of(scope);
        self.any_grant(
            principal,
            |scope| scope.contains(&at),
            |grant| grant.gives(action, &at),
        )
        .await
    }

    async fn reaches(&self, principal: &Principal, scope: &ResourcePath) -> Result<bool, ArmError> {
        let at = Scope::of(scope);
        self.any_grant(
            principal,
            |scope| scope.is_related(&at),
            |grant| grant.permissions.iter().any(Permission::is_some),
        )
        .await
    }
}

#[async_trait]
impl Locks for RoleAuthorizer {
    async fn against(&self, change: Change, scope: &ResourcePath) -> Result<Vec<String>, ArmError> {
        let at = Scope::of(scope);
        let (locks, _) = self.store.list(LOCKS).await.map_err(store_error)?;
        let mut against = Vec::new();
        for (key, found) in &locks {
            let Some(locked) = lock_scope(key) else { continue };
            let holds = locked.contains(&at);
            // A deletion includes all scopes below.
            let falls = change == Change::Delete && at.contains(&locked);
            if !holds && !falls {
                continue;
            }
            let lock = parse_record::<LockRecord>(key, found).map_err(store_error)?.value;
            if (change == Change::Delete || lock.level == LockLevel::ReadOnly)
                && !against.contains(&lock.scope)
            {
                against.push(lock.scope);
            }
        }
        Ok(against)
    }
}
