//! Keys of records. What belongs to an owner is below the owner's key, so that it is listed and removed with the owner and
//! nothing has to look through the whole stamp for it.
//!
//! Always true: this module alone knows how keys are written; identifiers in keys hold no slash.

use std::{fmt, net::Ipv4Addr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The format of the records in this store, see [`crate::migrate`].
pub const FORMAT: &str = "/format";
/// Which store this is.
pub const STORE: &str = "/store";
/// The stamp.
pub const STAMP: &str = "/stamp";
/// How much is asked for, see [`crate::usage`].
pub const USAGE: &str = "/usage";
/// The prefix of all subscriptions.
pub const SUBSCRIPTIONS: &str = "/subscriptions/";
/// The prefix of all groups.
pub const GROUPS: &str = "/groups/";
/// The prefix of everything that belongs to clusters.
pub const CLUSTERS: &str = "/c/";
/// The prefix of everything that belongs to groups, without the groups themselves.
pub const OF_GROUPS: &str = "/g/";
/// The prefix of all leases.
pub const LEASES: &str = "/leases/";
/// The prefix of what is left of deleted clusters.
pub const DELETED: &str = "/deleted/";
/// The prefix of the index from machines to their owners.
pub const MACHINE_OWNERS: &str = "/owners/machine/";
/// The prefix of the index from operations to their owners.
pub const OPERATION_OWNERS: &str = "/owners/operation/";
/// The prefix of all principals.
pub const PRINCIPALS: &str = "/principals/";
/// The prefix of all applications.
pub const APPLICATIONS: &str = "/directory/application/";
/// The prefix of all groups of principals.
pub const PRINCIPAL_GROUPS: &str = "/directory/group/";
/// The prefix of all registries of images.
pub const REGISTRIES: &str = "/registries/";
/// The prefix of the registries that were deleted and whose images are still there.
pub const REMOVED_REGISTRIES: &str = "/removed-registries/";
/// The type of clusters in names.
pub const MANAGED_CLUSTERS: &str = "managedclusters";

/// What operations and other records belong to. In records it is the prefix of its keys, e.g. `/c/k3v1q09a2b`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Owner {
    /// A cluster, by its uid.
    Cluster(String),
    /// A resource group.
    Group {
        /// GUID of the subscription, lower case.
        subscription: String,
        /// Its name, lower case.
        name: String,
    },
}

impl Owner {
    /// A cluster.
    pub fn cluster(uid: impl Into<String>) -> Self {
        Self::Cluster(uid.into())
    }

    /// A group; case is ignored.
    pub fn group(subscription: &str, name: &str) -> Self {
        Self::Group {
            subscription: subscription.to_ascii_lowercase(),
            name: name.to_ascii_lowercase(),
        }
    }

    /// The cluster's uid, if it is one.
    pub fn uid(&self) -> Option<&str> {
        match self {
            Self::Cluster(uid) => Some(uid),
            Self::Group { .. } => None,
        }
    }

    /// The prefix of its operations.
    pub fn operations(&self) -> String {
        format!("{self}/op/")
    }

    /// The key of one of its operations.
    pub fn operation(&self, id: &str) -> String {
        format!("{self}/op/{id}")
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster(uid) => write!(f, "/c/{uid}"),
            Self::Group { subscription, name } => write!(f, "/g/{subscription}/{name}"),
        }
    }
}

impl From<Owner> for String {
    fn from(owner: Owner) -> Self {
        owner.to_string()
    }
}

impl TryFrom<String> for Owner {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let parts: Vec<&str> = text.split('/').collect();
        match parts.as_slice() {
            ["", "c", uid] if !uid.is_empty() => Ok(Self::cluster(*uid)),
            ["", "g", subscription, name] if !subscription.is_empty() && !name.is_empty() => {
                Ok(Self::group(subscription, name))
            }
            _ => Err(format!("{text:?} is not the prefix of an owner's keys")),
        }
    }
}

/// A subscription's key.
pub fn subscription(id: &str) -> String {
    format!("{SUBSCRIPTIONS}{}", id.to_ascii_lowercase())
}

/// A group's key. With an empty name, the prefix of the subscription's groups.
pub fn group(subscription: &str, group: &str) -> String {
    format!(
        "{GROUPS}{}/{}",
        subscription.to_ascii_lowercase(),
        group.to_ascii_lowercase()
    )
}

/// The key that says which uid has this name. With an empty name, the prefix of the group's.
pub fn name(kind: &str, subscription: &str, group: &str, name: &str) -> String {
    format!(
        "{}{}/{}",
        names_of(kind, subscription),
        group.to_ascii_lowercase(),
        name.to_ascii_lowercase()
    )
}

/// The prefix of all names of a type.
pub fn names(kind: &str) -> String {
    format!("/n/{kind}/")
}

/// The prefix of the names of a type in a subscription.
pub fn names_of(kind: &str, subscription: &str) -> String {
    format!("{}{}/", names(kind), subscription.to_ascii_lowercase())
}

/// The key that says which uid a cluster of this name has.
pub fn cluster_name(subscription: &str, group: &str, cluster: &str) -> String {
    name(MANAGED_CLUSTERS, subscription, group, cluster)
}

/// What a cluster is to be.
pub fn desired(uid: &str) -> String {
    format!("/c/{uid}/desired")
}

/// What a cluster is.
pub fn observed(uid: &str) -> String {
    format!("/c/{uid}/observed")
}

/// Which host runs a cluster's loop.
pub fn fence(uid: &str) -> String {
    format!("/c/{uid}/fence")
}

/// A cluster's keys and CAs.
pub fn pki(uid: &str) -> String {
    format!("/c/{uid}/pki")
}

/// The prefix of a cluster's machines.
pub fn machines(uid: &str) -> String {
    format!("/c/{uid}/machine/")
}

/// One of a cluster's machines.
pub fn machine(uid: &str, id: &str) -> String {
    format!("/c/{uid}/machine/{id}")
}

/// The prefix of the configurations of a cluster's machines.
pub fn machine_configs(uid: &str) -> String {
    format!("/c/{uid}/machine-config/")
}

/// The configuration of one of a cluster's machines. Not below the machine: machines are listed often, and are small.
pub fn machine_config(uid: &str, id: &str) -> String {
    format!("/c/{uid}/machine-config/{id}")
}

/// The prefix of a cluster's events.
pub fn events(uid: &str) -> String {
    format!("/c/{uid}/event/")
}

/// The prefix of a cluster's events of one moment; in the order of time.
pub fn events_at(uid: &str, at: Timestamp) -> String {
    // Microseconds since the year 1 or so: never negative, so that texts sort as numbers do.
    let micros = at.as_microsecond().saturating_add(400_000_000_000_000_000);
    format!("{}{micros:019}-", events(uid))
}

/// What is left of a deleted cluster.
pub fn deleted(uid: &str) -> String {
    format!("{DELETED}{uid}")
}

/// Says whose machine this is.
pub fn machine_owner(id: &str) -> String {
    format!("{MACHINE_OWNERS}{id}")
}

/// Says whose operation this is.
pub fn operation_owner(id: &str) -> String {
    format!("{OPERATION_OWNERS}{id}")
}

/// A lease's key; `pool` is `machines`, `vips` or the uid of a tenant's VNET.
pub fn lease(pool: &str, address: Ipv4Addr) -> String {
    format!("{LEASES}{pool}/{address}")
}

/// A principal's key.
pub fn principal(object_id: &str) -> String {
    format!("{PRINCIPALS}{object_id}")
}

/// The key that says that one of the stamp's own principals was made.
pub fn first_principal(login: &str) -> String {
    format!("/directory/first/{}", folded(login))
}

/// The key that says who logs in with this; ASCII case is ignored.
pub fn login(login: &str) -> String {
    format!("/directory/login/{}", folded(login))
}

/// An application's key.
pub fn application(object_id: &str) -> String {
    format!("{APPLICATIONS}{}", folded(object_id))
}

/// The key of a group of principals.
pub fn principal_group(object_id: &str) -> String {
    format!("{PRINCIPAL_GROUPS}{}", folded(object_id))
}

/// The key that says which group of principals has this name; ASCII case is ignored.
pub fn principal_group_name(name: &str) -> String {
    format!("/directory/group-name/{}", folded(name))
}

/// The key that says that somebody is in a group of principals. With an empty member, the prefix of the group's members.
pub fn member(group: &str, member: &str) -> String {
    format!("/directory/member/{}/{}", folded(group), folded(member))
}

/// The same from the member's side. With an empty group, the prefix of the groups that the member is in.
pub fn member_of(member: &str, group: &str) -> String {
    format!("/directory/member-of/{}/{}", folded(member), folded(group))
}

/// The key of an identity that is a resource. With an empty name, the prefix of its group's; with an empty group, of the subscription's.
pub fn managed_identity(subscription: &str, group: &str, name: &str) -> String {
    let prefix = format!("/managed-identity/{}/", folded(subscription));
    if group.is_empty() {
        return prefix;
    }
    format!("{prefix}{}/{}", folded(group), folded(name))
}

/// The prefix of all snapshots of agent pools.
pub const SNAPSHOTS: &str = "/snapshots/";

/// The key of a snapshot of an agent pool. With an empty name, the prefix of its group's; with an empty group, of the subscription's.
pub fn snapshot(subscription: &str, group: &str, name: &str) -> String {
    let prefix = format!("{SNAPSHOTS}{}/", folded(subscription));
    if group.is_empty() {
        return prefix;
    }
    format!("{prefix}{}/{}", folded(group), folded(name))
}

/// The key of a registry of images. With an empty name, the prefix of its group's; with an empty group, of the subscription's.
pub fn registry(subscription: &str, group: &str, name: &str) -> String {
    let prefix = format!("{REGISTRIES}{}/", folded(subscription));
    if group.is_empty() {
        return prefix;
    }
    format!("{prefix}{}/{}", folded(group), folded(name))
}

/// The key that says whose a registry's name is.
pub fn registry_name(name: &str) -> String {
    format!("/registry-names/{}", folded(name))
}

/// The key that says that the images of a registry are to go.
pub fn removed_registry(uid: &str) -> String {
    format!("{REMOVED_REGISTRIES}{uid}")
}

/// Without regard to ASCII case, and without a slash.
fn folded(text: &str) -> String {
    text.to_ascii_lowercase().replace('%', "%25").replace('/', "%2f")
}

/// The keys that sign tokens.
pub const SIGNING_KEYS: &str = "/tokens/keys";
/// The prefix of all sign-ins.
pub const REFRESH: &str = "/tokens/refresh/";

/// The prefix of somebody's sign-ins.
pub fn refresh_of(object_id: &str) -> String {
    format!("{REFRESH}{object_id}/")
}

/// One of somebody's sign-ins.
pub fn refresh(object_id: &str, family: &str) -> String {
    format!("{REFRESH}{object_id}/{family}")
}

/// The cluster that a key belongs to, and the rest of the key behind it: `desired`, `machine/{id}`, …
pub fn of_cluster(key: &str) -> Option<(&str, &str)> {
    key.strip_prefix(CLUSTERS)?.split_once('/')
}

/// Names under which secrets are sealed. They are bound to what is sealed and are no keys of records: they stay when keys
/// change, so that a migration needs no sealing key. What is sealed under a name, and in which record, is also told in [`crate::sealed`], which
/// finds it there when the key changes.
pub mod sealed {
    /// A secret of a cluster's body; `path` is its key in [`crate::ClusterRecord::sealed`].
    pub fn body_secret(uid: &str, path: &str) -> String {
        format!("/clusters/{uid}/{path}")
    }

    /// A cluster's keys and CAs.
    pub fn pki(uid: &str) -> String {
        format!("/pki/{uid}")
    }

    /// The certificate of a credential of a cluster.
    pub fn credential(uid: &str, id: &str) -> String {
        format!("/credentials/{uid}/{id}")
    }

    /// A key that signs tokens, by its id.
    pub fn signing_key(id: &str) -> String {
        format!("/tokens/keys/{id}")
    }

    /// A machine's one-time token.
    pub fn machine_token(id: &str) -> String {
        format!("/machines/{id}")
    }

    /// A machine's configuration.
    pub fn machine_config(id: &str) -> String {
        format!("/machine-configs/{id}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_the_prefix_of_its_keys() {
        for owner in [Owner::cluster("u1"), Owner::group("AB-C", "Rg1")] {
            let text = String::from(owner.clone());
            assert_eq!(Owner::try_from(text.clone()), Ok(owner.clone()));
            assert!(owner.operation("x").starts_with(&format!("{text}/")));
        }
        for wrong in ["", "/", "/c/", "/c/u/x", "c/u", "/g/s", "/g//n", "/x/u"] {
            assert!(Owner::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
        assert_eq!(Owner::group("S", "A"), Owner::group("s", "a"));
    }

    #[test]
    fn a_key_says_whose_it_is() {
        assert_eq!(of_cluster(&desired("u1")), Some(("u1", "desired")));
        assert_eq!(of_cluster(&machine("u1", "m")), Some(("u1", "machine/m")));
        assert_eq!(of_cluster(&deleted("u1")), None);
        // One uid may be the beginning of another.
        assert!(!machine("u10", "m").starts_with(&machines("u1")));
        // Machines are listed without their configurations.
        assert!(!machine_config("u1", "m").starts_with(&machines("u1")));
    }

    #[test]
    fn what_people_choose_is_one_segment() {
        assert_eq!(login("Ada/../X@Local"), login("ada/../x@local"));
        assert_eq!(login("a/b").matches('/').count(), 3);
        assert!(member_of("A", "G").starts_with(&member_of("a", "")));
        assert!(!member("g1", "a").starts_with(&member("g", "")));
    }

    proptest::proptest! {
        /// Ids, keys and scopes of rights: two names are the same to all of them, or to none.
        #[test]
        fn one_rule_says_which_names_are_the_same(a in "[aAbBäÄßſKk]{1,3}", b in "[aAbBäÄßſKk]{1,3}") {
            let same = arm_ids::same_name(&a, &b);
            let path = |name: &str| arm_ids::ResourcePath {
                subscription: Some("s".to_owned()),
                resource_group: Some(name.to_owned()),
                ..arm_ids::ResourcePath::default()
            };
            proptest::prop_assert_eq!(arm_ids::folded(&a) == arm_ids::folded(&b), same);
            proptest::prop_assert_eq!(path(&a).same(&path(&b)), same);
            proptest::prop_assert_eq!(group("s", &a) == group("s", &b), same);
            proptest::prop_assert_eq!(cluster_name("s", "g", &a) == cluster_name("s", "g", &b), same);
            proptest::prop_assert_eq!(managed_identity("s", &a, "n") == managed_identity("s", &b, "n"), same);
            proptest::prop_assert_eq!(snapshot("s", &a, "n") == snapshot("s", &b, "n"), same);
            proptest::prop_assert_eq!(registry("s", &a, "n") == registry("s", &b, "n"), same);
            proptest::prop_assert_eq!(Owner::group("s", &a) == Owner::group("s", &b), same);
            let scope = |name: &str| arm_access::Scope::of(&path(name));
            proptest::prop_assert_eq!(scope(&a) == scope(&b), same);
        }
    }

    #[test]
    fn names_ignore_case() {
        assert_eq!(cluster_name("S", "G", "N"), "/n/managedclusters/s/g/n");
        assert!(cluster_name("s", "g", "n").starts_with(&names_of(MANAGED_CLUSTERS, "S")));
    }
}
