//! Checks that the rules of tenants' security groups are in effect at the nodes.

use std::collections::BTreeMap;

use anyhow::Result;
use cluster_security::filter;
use control_records::{
    ClusterRecord,
    network::{self, NetworkRecord},
};
use ipnet::Ipv4Net;

use crate::stamp::Stamp;

impl Stamp {
    /// Each subnet of a cluster has the filter of its security group, after the rules that the cluster itself
    /// needs, and none without a group.
    pub(crate) async fn check_filters(
        &self,
        clusters: &BTreeMap<String, ClusterRecord>,
        problems: &mut Vec<String>,
    ) -> Result<()> {
        let records = self.records::<NetworkRecord>(network::NETWORK).await?;
        let networks = self.world.networks();
        for (uid, cluster) in clusters {
            let profile = &cluster.spec().network;
            let (Some(vnet), Some(made)) = (
                &profile.vnet,
                networks.iter().find(|network| network.id.as_str() == uid),
            ) else {
                continue;
            };
            let record = records.values().find(|record| record.uid == vnet.uid);
            let groups = record.map(NetworkRecord::security_groups).unwrap_or_default();
            let within: Vec<Ipv4Net> = profile.space().iter().copied().chain(profile.pod_range).collect();
            for subnet in &made.subnets {
                let group = groups.get(&subnet.range);
                let wanted = match group.and_then(|key| records.get(key)) {
                    Some(group) => Some(filter(&group.security_rules()?, &within)),
                    None => group.map(|_| filter(&[], &within)),
                };
                let right = match (&wanted, &subnet.filter) {
                    (None, None) => true,
                    (Some(wanted), Some(there)) => {
                        // Before a tenant's rules there are only the fixed rules of the cluster.
                        there.inbound[1..] == wanted.inbound
                            && there.outbound[1..] == wanted.outbound
                            && there.inbound[0].allow
                            && there.outbound[0].allow
                            && there.inbound[0].from == [profile.control_plane_range]
                            && there.outbound[0].to.contains(&profile.control_plane_range)
                    }
                    _ => false,
                };
                if !right {
                    problems.push(format!(
                        "{}: the filter of subnet {} is {:?}, wanted {wanted:?}",
                        cluster.name, subnet.name, subnet.filter
                    ));
                }
            }
        }
        Ok(())
    }
}
