//! Security rules of the subnets of tenants' VNETs, and the clusters that depend on them.
//!
//! A copy of the store's records, as in [`crate::index`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use cluster_security::{Rule, nothing_passes};
use control_records::network::{self, NetworkRecord};
use ipnet::Ipv4Net;

/// The rules of subnets with a security group, by their ranges.
pub(crate) type Guards = BTreeMap<Ipv4Net, Arc<[Rule]>>;

#[derive(Debug, PartialEq, Eq)]
struct Vnet {
    /// Of its record.
    key: String,
    /// The keys of its subnets' groups.
    groups: BTreeMap<Ipv4Net, String>,
    /// Uids of clusters that are or were in it.
    clusters: BTreeSet<String>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct SecurityGroups {
    /// By their uids.
    vnets: BTreeMap<String, Vnet>,
    /// By the keys of the groups' records.
    rules: BTreeMap<String, Arc<[Rule]>>,
}

impl SecurityGroups {
    /// Sets a resource of `Microsoft.Network`, by its key. Gives the uids of clusters whose networks may have
    /// to change.
    pub(crate) fn set(&mut self, key: &str, record: &NetworkRecord) -> BTreeSet<String> {
        if network::is_of(key, network::SECURITY_GROUPS) {
            let rules = record.security_rules().unwrap_or_else(|error| {
                tracing::error!(key, "nothing passes where this security group goes: {error}");
                nothing_passes()
            });
            let known = self.rules.insert(key.to_owned(), rules.as_slice().into());
            // It is written anew for each subnet that begins to use it.
            if known.is_some_and(|known| *known == *rules) {
                return BTreeSet::new();
            }
            return self.who_goes_by(key);
        }
        if !network::is_of(key, network::VNETS) {
            return BTreeSet::new();
        }
        let vnet = Vnet {
            key: key.to_owned(),
            groups: record.security_groups(),
            clusters: record.clusters.clone(),
        };
        let told = vnet.clusters.clone();
        let groups = vnet.groups.clone();
        let known = self.vnets.insert(record.uid.clone(), vnet);
        // It is written anew with each cluster in it, too.
        match known {
            Some(known) if known.groups == groups => BTreeSet::new(),
            Some(_) => told,
            None if groups.is_empty() => BTreeSet::new(),
            None => told,
        }
    }

    /// Removes such a record. The result is as for [`Self::set`].
    pub(crate) fn remove(&mut self, key: &str) -> BTreeSet<String> {
        self.vnets.retain(|_, vnet| vnet.key != key);
        match self.rules.remove(key) {
            Some(_) => self.who_goes_by(key),
            None => BTreeSet::new(),
        }
    }

    /// The rules of a VNET's subnets. An unknown group has no rules.
    pub(crate) fn of(&self, vnet: &str) -> Guards {
        let groups = self.vnets.get(vnet).into_iter().flat_map(|vnet| &vnet.groups);
        groups
            .map(|(range, group)| (*range, self.rules.get(group).cloned().unwrap_or_default()))
            .collect()
    }

    fn who_goes_by(&self, group: &str) -> BTreeSet<String> {
        let with = self
            .vnets
            .values()
            .filter(|vnet| vnet.groups.values().any(|own| own == group));
        with.flat_map(|vnet| vnet.clusters.iter().cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::{Value, json};

    use super::*;

    fn record(uid: &str, properties: Value, clusters: &[&str]) -> NetworkRecord {
        NetworkRecord {
            v: 1,
            uid: uid.to_owned(),
            subscription: "s".to_owned(),
            resource_group: "g".to_owned(),
            name: uid.to_owned(),
            location: "local".to_owned(),
            tags: BTreeMap::new(),
            generation: 1,
            properties,
            clusters: clusters.iter().map(|uid| (*uid).to_owned()).collect(),
            created_at: Timestamp::UNIX_EPOCH,
            modified_at: Timestamp::UNIX_EPOCH,
        }
    }

    fn group(ports: &[u16]) -> NetworkRecord {
        let rules = ports.iter().map(|port| {
            json!({ "name": format!("p{port}"), "properties": {
                "priority": port, "direction": "Inbound", "access": "Deny", "protocol": "Tcp",
                "sourceAddressPrefix": "*", "sourcePortRange": "*",
                "destinationAddressPrefix": "*", "destinationPortRange": port.to_string(),
            } })
        });
        record("n", json!({ "securityRules": rules.collect::<Vec<_>>() }), &[])
    }

    fn vnet(guarded: bool, clusters: &[&str]) -> NetworkRecord {
        let mut subnet = json!({ "name": "a", "properties": { "addressPrefix": "10.1.0.0/24" } });
        if guarded {
            let id = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/networkSecurityGroups/N";
            subnet["properties"]["networkSecurityGroup"] = json!({ "id": id });
        }
        record("v", json!({ "subnets": [subnet] }), clusters)
    }

    #[test]
    fn whoever_is_in_the_vnet_hears_of_other_rules_and_of_nothing_else() {
        let group_key = network::key(network::SECURITY_GROUPS, "s", "g", "n");
        let vnet_key = network::key(network::VNETS, "s", "g", "v");
        let range: Ipv4Net = "10.1.0.0/24".parse().unwrap();
        let told = |uids: &[&str]| -> BTreeSet<String> { uids.iter().map(|uid| (*uid).to_owned()).collect() };
        let mut groups = SecurityGroups::default();
        assert_eq!(
            groups.set(&group_key, &group(&[])),
            told(&[]),
            "nobody goes by it"
        );
        assert_eq!(groups.set(&vnet_key, &vnet(false, &[])), told(&[]));
        assert_eq!(
            groups.set(&vnet_key, &vnet(false, &["a"])),
            told(&[]),
            "a cluster came"
        );
        assert_eq!(groups.of("v"), Guards::new());
        assert_eq!(
            groups.set(&vnet_key, &vnet(true, &["a", "b"])),
            told(&["a", "b"]),
            "a subnet goes by the group"
        );
        assert_eq!(groups.of("v").get(&range).map(|rules| rules.len()), Some(0));
        assert_eq!(groups.set(&group_key, &group(&[])), told(&[]), "as it was");
        assert_eq!(groups.set(&group_key, &group(&[80, 90])), told(&["a", "b"]));
        assert_eq!(groups.of("v").get(&range).map(|rules| rules.len()), Some(2));
        assert_eq!(groups.of("w"), Guards::new());
        assert_eq!(groups.remove("/network/other/s/g/n"), told(&[]));
        assert_eq!(groups.remove(&group_key), told(&["a", "b"]));
        assert_eq!(
            groups.of("v").get(&range).map(|rules| rules.len()),
            Some(0),
            "Azure's own rules go on"
        );
        assert_eq!(groups.set(&vnet_key, &vnet(false, &["a"])), told(&["a"]));
        assert_eq!(groups.of("v"), Guards::new());
    }

    #[test]
    fn rules_that_cannot_be_read_let_nothing_pass() {
        let mut strange = group(&[80]);
        strange.properties["securityRules"][0]["properties"]["protocol"] = json!("Sctp");
        let key = network::key(network::SECURITY_GROUPS, "s", "g", "n");
        let mut groups = SecurityGroups::default();
        groups.set(&key, &strange);
        groups.set(&network::key(network::VNETS, "s", "g", "v"), &vnet(true, &["a"]));
        let rules = groups.of("v");
        let rules = rules.values().next().unwrap();
        assert!(
            rules.len() == 2 && rules.iter().all(|rule| !rule.allow),
            "{rules:?}"
        );
    }
}
