//! Load balancers of Kubernetes Services, among a cluster's children: `/c/{uid}/child/balancers/{uid of the Service}`.
//!
//! A record says which address a Service has, and nothing else: what the Service asks for is in the cluster, and is read there. Always
//! true: it is written before the address is used, with the lease where the address is one that others could take, and goes after the
//! network has let go of it; [`ObservedRecord::balanced`](crate::ObservedRecord::balanced) is set while there is one.

use std::net::Ipv4Addr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{child, key};

/// What load balancers are called among children.
const KIND: &str = "balancers";

/// The load balancer of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BalancerRecord {
    /// Format.
    pub v: u32,
    /// The Service's uid.
    pub uid: String,
    /// The Service's namespace.
    pub namespace: String,
    /// The Service's name.
    pub name: String,
    /// Its address: one of the stamp's VIPs, or of the nodes' subnet.
    pub address: Ipv4Addr,
    /// Whether it is one of the nodes' subnet.
    pub internal: bool,
    /// The ARM id of the public IP address of a tenant that its address is of: others of the cluster may have it as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public: Option<String>,
    /// How the Service names that, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<String>,
    /// When it was written down.
    pub created_at: Timestamp,
}

impl BalancerRecord {
    /// The prefix of a cluster's load balancers.
    pub fn all(cluster: &str) -> String {
        child::key(cluster, KIND, "")
    }

    /// Its key.
    pub fn key(cluster: &str, uid: &str) -> String {
        child::key(cluster, KIND, uid)
    }

    /// The key of the lease of its address; `vnet`: the uid of the tenant's VNET that the cluster is in. `None` where nobody else could take
    /// the address, or where a public IP address has the lease.
    pub fn own_lease(&self, vnet: Option<&str>) -> Option<String> {
        let leased = self.public.is_none();
        Self::lease(self.internal, self.address, vnet).filter(|_| leased)
    }

    /// The same for an address that no public IP address has the lease of.
    pub fn lease(internal: bool, address: Ipv4Addr, vnet: Option<&str>) -> Option<String> {
        if internal {
            vnet.map(|vnet| key::lease(vnet, address))
        } else {
            Some(key::lease("vips", address))
        }
    }

    /// What holds that lease.
    pub fn holder(cluster: &str, uid: &str) -> String {
        format!("cluster/{cluster}/balancer/{uid}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_pinned() {
        let record = BalancerRecord {
            v: 1,
            uid: "u1".to_owned(),
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            address: [100, 64, 8, 1].into(),
            internal: false,
            public: None,
            asked: None,
            created_at: Timestamp::UNIX_EPOCH,
        };
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(
            text,
            r#"{"v":1,"uid":"u1","namespace":"shop","name":"web","address":"100.64.8.1","internal":false,"createdAt":"1970-01-01T00:00:00Z"}"#
        );
        assert_eq!(serde_json::from_str::<BalancerRecord>(&text).unwrap(), record);
        assert!(BalancerRecord::key("c", "u1").starts_with(&BalancerRecord::all("c")));
        assert_eq!(record.own_lease(None), Some(key::lease("vips", record.address)));
        let public = BalancerRecord {
            public: Some("/p".to_owned()),
            asked: Some("g/p".to_owned()),
            ..record
        };
        let text = serde_json::to_string(&public).unwrap();
        assert!(
            text.contains(r#""internal":false,"public":"/p","asked":"g/p","createdAt""#),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<BalancerRecord>(&text).unwrap(), public);
        assert_eq!(public.own_lease(None), None);
    }

    #[test]
    fn an_address_is_leased_where_others_could_take_it() {
        let address = Ipv4Addr::new(10, 224, 255, 254);
        let lease = |internal, vnet| BalancerRecord::lease(internal, address, vnet);
        assert_eq!(lease(false, None), Some(key::lease("vips", address)));
        assert_eq!(lease(false, Some("v")), Some(key::lease("vips", address)));
        assert_eq!(lease(true, Some("v")), Some(key::lease("v", address)));
        assert_eq!(lease(true, None), None, "it is of the cluster's own VNET");
    }
}
