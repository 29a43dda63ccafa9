//! The scope of an extension resource.

use arm_ids::ResourcePath;
use arm_kernel::{quote, store_error};
use arm_wire::{ArmError, ErrorCode};
use control_records::{GroupRecord, NameRecord, directory, key};
use control_store::{Revision, Store, Txn, get_record};

use crate::NAMESPACE;

/// The scope: the path before `/providers/Microsoft.Authorization`.
pub(crate) fn place(path: &ResourcePath) -> ResourcePath {
    match &path.parent {
        Some(parent) => (**parent).clone(),
        None => ResourcePath {
            subscription: path.subscription.clone(),
            resource_group: path.resource_group.clone(),
            ..ResourcePath::default()
        },
    }
}

/// The id of an extension resource at a scope.
pub(crate) fn id_at(place: &str, kind: &str, name: &str) -> String {
    format!(
        "{}/providers/{NAMESPACE}/{kind}/{name}",
        place.trim_end_matches('/')
    )
}

/// The prefix of roles' ids: in a subscription, or in the stamp.
pub(crate) fn before_roles(subscription: Option<&String>) -> String {
    subscription.map_or_else(String::new, |subscription| arm_ids::subscription_id(subscription))
}

/// The parents of a scope, which must exist and not be deleted while a resource is made at it: its group and
/// its cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Held(Vec<(String, Revision)>);

impl Held {
    /// Reads the parents of a scope. Only clusters are known here; other resources may be made later.
    pub(crate) async fn read(store: &dyn Store, place: &ResourcePath) -> Result<Self, ArmError> {
        let mut held = Vec::new();
        let Some(subscription) = &place.subscription else {
            return if *place == ResourcePath::default() {
                Ok(Self::default())
            } else {
                Err(nowhere(place))
            };
        };
        let Some(group) = &place.resource_group else {
            return Ok(Self::default());
        };
        let group_key = key::group(subscription, group);
        let found = get_record::<GroupRecord>(store, &group_key)
            .await
            .map_err(store_error)?;
        match found {
            Some(found) if !found.value.deleting => held.push((group_key, found.revision)),
            Some(_) => {
                let message = format!("The resource group {} is being deleted.", quote(group));
                return Err(ArmError::new(ErrorCode::RESOURCE_GROUP_BEING_DELETED, message));
            }
            None => {
                let message = format!("Resource group {} could not be found.", quote(group));
                return Err(ArmError::new(ErrorCode::RESOURCE_GROUP_NOT_FOUND, message));
            }
        }
        let mut at = Some(place);
        while let Some(path) = at {
            if let Some(name) = cluster(path) {
                let name_key = key::cluster_name(subscription, group, name);
                let uid = get_record::<NameRecord>(store, &name_key)
                    .await
                    .map_err(store_error)?;
                let found = match uid {
                    Some(uid) => directory::cluster(store, &uid.value.uid)
                        .await
                        .map_err(store_error)?,
                    None => None,
                };
                match found {
                    Some(found) if !found.value.deleting => {
                        held.push((key::desired(&found.value.uid), found.revision));
                    }
                    Some(_) => {
                        let message = format!("The cluster {} is being deleted.", quote(name));
                        return Err(ArmError::new(ErrorCode::CONFLICT, message));
                    }
                    None => {
                        let message = format!(
                            "The resource 'Microsoft.ContainerService/managedClusters/{name}' under resource group {} was not found.",
                            quote(group)
                        );
                        return Err(ArmError::new(ErrorCode::RESOURCE_NOT_FOUND, message));
                    }
                }
            }
            at = path.parent.as_deref();
        }
        Ok(Self(held))
    }

    /// A transaction that fails once any of it has changed.
    pub(crate) fn txn(&self) -> Txn {
        self.0
            .iter()
            .fold(Txn::default(), |txn, (key, revision)| txn.at(key, *revision))
    }
}

/// The name of the cluster that a path is, or is below.
fn cluster(path: &ResourcePath) -> Option<&str> {
    let first = path.types.first()?;
    (path.namespace_is("Microsoft.ContainerService") && first.eq_ignore_ascii_case("managedClusters"))
        .then(|| path.name(0))
        .flatten()
}

fn nowhere(place: &ResourcePath) -> ArmError {
    let message = format!(
        "The scope {} is neither the stamp ('/') nor in a subscription.",
        quote(&place.to_string())
    );
    ArmError::new(ErrorCode::BAD_REQUEST, message)
}

/// A scope that a body names.
pub(crate) fn scope_in_body(text: &str) -> Option<ResourcePath> {
    let path = text
        .starts_with('/')
        .then(|| ResourcePath::parse(text).ok())
        .flatten()?;
    let whole = path == ResourcePath::default()
        || path.subscription.is_some()
            && path.types.len() == path.names.len()
            && (path.namespace.is_none() == path.types.is_empty());
    whole.then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extension_hangs_on_what_stands_before_it() {
        let cluster =
            "/subscriptions/s/resourceGroups/g/providers/Microsoft.ContainerService/managedClusters/c";
        for scope in [
            "/",
            "/subscriptions/s",
            "/subscriptions/s/resourceGroups/g",
            cluster,
        ] {
            let id = id_at(scope, "locks", "l");
            let path = ResourcePath::parse(&id).unwrap();
            assert_eq!(place(&path).to_string(), scope, "{id}");
            assert!(scope_in_body(scope).is_some());
        }
        for wrong in [
            "",
            "subscriptions/s",
            "/subscriptions",
            "/providers/Microsoft.Management/managementGroups/m",
            "/subscriptions/s/providers",
            "/subscriptions/s/providers/N",
            "/subscriptions/s/resourceGroups/g/providers/N/t",
        ] {
            assert!(scope_in_body(wrong).is_none(), "{wrong}");
        }
    }
}
