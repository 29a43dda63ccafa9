//! Security groups of the subnets of a cluster's network.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

use cluster_security::{Rule, filter};
use cluster_spec::ClusterSpec;
use fabric_api::{FilterRule, NetworkSpec};
use ipnet::Ipv4Net;

/// Sets the filters of subnets with a security group, whose rules are given by the subnets' ranges.
/// `service`: addresses outside the VNET that the cluster's own machines need, including its API's.
///
/// The cluster's own requirements come before every rule of its tenant: all traffic between nodes and the
/// control plane's hidden subnet is permitted, and nodes reach the service.
pub fn guard(
    network: &mut NetworkSpec,
    spec: &ClusterSpec,
    guards: &BTreeMap<Ipv4Net, Arc<[Rule]>>,
    service: &[Ipv4Addr],
) {
    let profile = &spec.network;
    let (any, control_plane) = (vec![Ipv4Net::default()], vec![profile.control_plane_range]);
    let mut needed = control_plane.clone();
    needed.extend(service.iter().copied().map(Ipv4Net::from));
    // Pods' addresses are visible between nodes, like those of the VNET.
    let within: Vec<Ipv4Net> = profile.space().iter().copied().chain(profile.pod_range).collect();
    for subnet in &mut network.subnets {
        subnet.filter = guards.get(&subnet.range).map(|rules| {
            let mut filter = filter(rules, &within);
            filter
                .inbound
                .insert(0, FilterRule::allow(control_plane.clone(), any.clone()));
            filter
                .outbound
                .insert(0, FilterRule::allow(any.clone(), needed.clone()));
            filter
        });
    }
}

#[cfg(test)]
mod tests {
    use cluster_security::nothing_passes;
    use cluster_spec::{PodNetworking, TenantVnet, testkit};
    use fabric_api::NetworkId;

    use super::*;
    use crate::network;

    fn ranges(texts: &[&str]) -> Vec<Ipv4Net> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_cluster_reaches_its_control_plane_whatever_the_rules_say() {
        let mut spec = ClusterSpec {
            network: testkit::network(PodNetworking::AzureOverlay),
            ..testkit::cluster()
        };
        spec.network.control_plane_range = "172.30.0.0/16".parse().unwrap();
        spec.network.vnet = Some(TenantVnet {
            uid: "v".to_owned(),
            space: ranges(&["10.1.0.0/16", "10.3.0.0/16"]),
            subnets: ranges(&["10.1.0.0/24", "10.1.1.0/24"]).into_iter().collect(),
        });
        let (uplink, vip) = (Ipv4Addr::new(100, 64, 16, 10), Ipv4Addr::new(100, 64, 24, 1));
        let mut vnet = network(&spec, NetworkId::from("n"), uplink, Vec::new());
        let guards = BTreeMap::from([(ranges(&["10.1.0.0/24"])[0], Arc::from(nothing_passes()))]);
        guard(&mut vnet, &spec, &guards, &[vip]);
        let filters: Vec<_> = vnet.subnets.iter().map(|subnet| subnet.filter.as_ref()).collect();
        let [Some(guarded), None, None] = filters[..] else {
            panic!("{filters:?}")
        };
        let first = &guarded.inbound[0];
        assert!(first.allow);
        assert_eq!(
            (&first.from, &first.to),
            (&ranges(&["172.30.0.0/16"]), &ranges(&["0.0.0.0/0"]))
        );
        let first = &guarded.outbound[0];
        assert!(first.allow);
        assert_eq!(
            (&first.from, &first.to),
            (
                &ranges(&["0.0.0.0/0"]),
                &ranges(&["172.30.0.0/16", "100.64.24.1/32"])
            )
        );
        assert!(!guarded.inbound[1].allow && !guarded.outbound[1].allow);
        let pods = spec.network.pod_range.unwrap();
        let within = guarded.inbound.iter().find(|rule| rule.from.contains(&pods));
        assert!(
            within.is_some_and(|rule| rule.allow && rule.to.contains(&pods)),
            "{guarded:?}"
        );
        // Without groups nothing changes.
        guard(&mut vnet, &spec, &BTreeMap::new(), &[vip]);
        assert!(vnet.subnets.iter().all(|subnet| subnet.filter.is_none()));
    }
}
