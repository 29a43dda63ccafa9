//! Resources of `Microsoft.Network` that tenants make, at `/network/{type}/{s}/{group}/{name}` in lower case.
//!
//! Always true: what is below a resource (subnets of a VNET, rules of a group) is in its record, so that no part of it changes without
//! the others knowing; a cluster's uid is in the record of the VNET that it is put into before the cluster is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use arm_ids::ResourcePath;
use cluster_security::{Rule, Unreadable, rules};
use ipnet::Ipv4Net;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The prefix of all of them.
pub const NETWORK: &str = "/network/";
/// The type of VNETs in keys.
pub const VNETS: &str = "virtualnetworks";
/// The type of public IP addresses in keys.
pub const PUBLIC_ADDRESSES: &str = "publicipaddresses";
/// The type of network security groups in keys.
pub const SECURITY_GROUPS: &str = "networksecuritygroups";

/// A resource that a tenant has made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkRecord {
    /// Format.
    pub v: u32,
    /// Its identity over its life, `[0-9a-v]{10}`; one made anew under the same name gets another.
    pub uid: String,
    /// GUID of the subscription.
    pub subscription: String,
    /// Group, as in the request that made it.
    pub resource_group: String,
    /// Name, as in the request that made it.
    pub name: String,
    /// Region.
    pub location: String,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// Grows by one with each accepted change.
    pub generation: u64,
    /// Its canonical properties: defaults filled in, without what follows from other records.
    pub properties: Value,
    /// Of a VNET or a public IP address: the clusters that were ever put into it, or had it, by their uids. Those that are gone are left out when it is written next; a uid
    /// never comes again.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub clusters: BTreeSet<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub modified_at: Timestamp,
}

/// Its key. With an empty name, the prefix of its group's; with an empty group, of the subscription's.
pub fn key(kind: &str, subscription: &str, group: &str, name: &str) -> String {
    let folded = |text: &str| text.to_ascii_lowercase().replace('%', "%25").replace('/', "%2f");
    let prefix = format!("{NETWORK}{}/{}/", folded(kind), folded(subscription));
    if group.is_empty() {
        return prefix;
    }
    format!("{prefix}{}/{}", folded(group), folded(name))
}

impl NetworkRecord {
    /// Its key, as a resource of this type.
    pub fn key(&self, kind: &str) -> String {
        key(kind, &self.subscription, &self.resource_group, &self.name)
    }

    /// Of a VNET: the ranges of its subnets that go by a security group, each with that group's key.
    pub fn security_groups(&self) -> BTreeMap<Ipv4Net, String> {
        let subnets = self.properties["subnets"].as_array().into_iter().flatten();
        let guarded = subnets.filter_map(|subnet| {
            let properties = &subnet["properties"];
            let prefix = properties["addressPrefix"].as_str();
            let prefix = prefix.or(properties["addressPrefixes"][0].as_str())?;
            let id = properties.pointer("/networkSecurityGroup/id")?.as_str()?;
            // One that cannot be read is none that is there, and so one without rules of its own.
            let key = group_key(id).unwrap_or_else(|| id.to_owned());
            Some((prefix.parse().ok()?, key))
        });
        guarded.collect()
    }

    /// Of a public IP address: the address, once it has one.
    pub fn public_address(&self) -> Option<Ipv4Addr> {
        self.properties["ipAddress"].as_str()?.parse().ok()
    }

    /// Of a public IP address: what holds the lease of its address.
    pub fn public_holder(&self) -> String {
        format!("publicip/{}", self.uid)
    }

    /// Of a security group: its rules.
    ///
    /// # Errors
    /// When one of them cannot be read.
    pub fn security_rules(&self) -> Result<Vec<Rule>, Unreadable> {
        rules(&self.properties)
    }
}

/// The key of the public IP address of this ARM id; `None`: it is another resource's.
pub fn public_key(id: &str) -> Option<String> {
    let path = ResourcePath::parse(id).ok()?;
    let known = path.namespace_is("Microsoft.Network") && path.type_is("publicIPAddresses");
    Some(key(
        PUBLIC_ADDRESSES,
        path.subscription.as_deref().filter(|_| known)?,
        path.resource_group.as_deref()?,
        path.name(0)?,
    ))
}

/// The key of the security group of this id.
fn group_key(id: &str) -> Option<String> {
    let path = ResourcePath::parse(id).ok()?;
    Some(key(
        SECURITY_GROUPS,
        path.subscription.as_deref()?,
        path.resource_group.as_deref()?,
        path.name(0)?,
    ))
}

/// Whether a key is that of a resource of this type.
pub fn is_of(key: &str, kind: &str) -> bool {
    let rest = key.strip_prefix(NETWORK);
    rest.is_some_and(|rest| rest.split('/').next() == Some(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_ignore_case_and_are_one_segment() {
        assert_eq!(key(VNETS, "S", "G", "V"), "/network/virtualnetworks/s/g/v");
        assert!(key(VNETS, "s", "g", "v").starts_with(&key(VNETS, "S", "", "")));
        assert!(!key(VNETS, "s", "g2", "v").starts_with(&key(VNETS, "S", "G", "")));
        assert_eq!(key(VNETS, "s", "g", "a/b").matches('/').count(), 5);
        assert!(is_of(&key(VNETS, "s", "g", "v"), VNETS));
        assert!(!is_of(&key(VNETS, "s", "g", "v"), SECURITY_GROUPS));
        assert!(!is_of("/c/virtualnetworks/s/g/v", VNETS));
    }

    #[test]
    fn public_addresses_are_found_by_their_ids() {
        let id = "/subscriptions/S/resourceGroups/G/providers/Microsoft.Network/publicIPAddresses/P";
        let wanted = "/network/publicipaddresses/s/g/p";
        assert_eq!(public_key(id).as_deref(), Some(wanted));
        assert!(is_of(wanted, PUBLIC_ADDRESSES));
        assert_eq!(
            public_key(&id.replace("publicIPAddresses", "loadBalancers")),
            None
        );
    }

    #[test]
    fn subnets_name_their_groups() {
        let group = |name: &str| {
            let id = format!(
                "/subscriptions/S/resourceGroups/G/providers/Microsoft.Network/networkSecurityGroups/{name}"
            );
            serde_json::json!({ "id": id })
        };
        let record = NetworkRecord {
            v: 1,
            uid: "u".to_owned(),
            subscription: "s".to_owned(),
            resource_group: "g".to_owned(),
            name: "v".to_owned(),
            location: "local".to_owned(),
            tags: BTreeMap::new(),
            generation: 1,
            properties: serde_json::json!({ "subnets": [
                { "name": "a", "properties": { "addressPrefix": "10.1.0.0/24", "networkSecurityGroup": group("One") } },
                { "name": "b", "properties": { "addressPrefix": "10.1.1.0/24" } },
                { "name": "c", "properties": { "addressPrefixes": ["10.1.2.0/24"], "networkSecurityGroup": group("two") } },
            ] }),
            clusters: BTreeSet::new(),
            created_at: Timestamp::UNIX_EPOCH,
            modified_at: Timestamp::UNIX_EPOCH,
        };
        let range = |text: &str| text.parse::<Ipv4Net>().unwrap();
        assert_eq!(
            record.security_groups(),
            BTreeMap::from([
                (range("10.1.0.0/24"), key(SECURITY_GROUPS, "s", "g", "one")),
                (range("10.1.2.0/24"), key(SECURITY_GROUPS, "s", "g", "two")),
            ])
        );
        assert_eq!(record.security_rules(), Ok(Vec::new()));
    }
}
