//! The caller's own permissions at a scope.

use arm_access::Scope;
use arm_kernel::{Items, store_error};
use arm_wire::{ArmError, Request};
use control_records::access::{assigned, assignments_of};
use identity_directory::groups_of;

use crate::{Authorization, authorizer::permissions_of, definitions, place::place};

/// The permissions of each role of the caller, its own or its groups', at the scope or above it.
pub(crate) async fn list(provider: &Authorization, request: &Request) -> Result<Items, ArmError> {
    let store = &*provider.store;
    let at = Scope::of(&place(&request.path));
    let caller = &request.principal.object_id;
    let mut holders = groups_of(store, caller).await.map_err(store_error)?;
    holders.insert(0, caller.clone());
    let mut held = Vec::new();
    for holder in &holders {
        held.extend(store.list(&assignments_of(holder)).await.map_err(store_error)?.0);
    }
    let mut all = Vec::new();
    for (key, _) in &held {
        if let Some(one) = assigned(key).filter(|one| one.scope.contains(&at)) {
            let permissions = permissions_of(store, one.role).await?;
            all.extend(definitions::permissions(&permissions));
        }
    }
    // They have no ids.
    let keyed = all.into_iter().enumerate();
    let items = keyed.map(|(number, permission)| (format!("{number:06}"), permission));
    Ok(Items::Keyed(items.collect()))
}
