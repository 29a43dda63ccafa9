//! The load balancers of a cluster's Services, as AKS has them: `kubernetes` before addresses of the stamp, `kubernetes-internal` before
//! addresses of the nodes' subnet, each with a frontend for each Service. Pure.
//!
//! A record has only the address of a Service ([`BalancerRecord`]): its ports, its source ranges and the
//! nodes in rotation are in the cluster, and are not read for a view. So rules and probes are not shown, and
//! the backend pool has all nodes, as that of AKS has.

use control_records::balancer::BalancerRecord;
use serde_json::{Value, json};

use super::{
    NAMESPACE,
    view::{state, subnets},
};
use crate::place::{Place, Set};

/// The load balancer of addresses of the stamp. Its backend pool has the same name.
pub(super) const OUTSIDE: &str = "kubernetes";
/// The load balancer of addresses of the nodes' subnet.
const INSIDE: &str = "kubernetes-internal";

/// The resource name of a Service's address.
pub(super) fn address_name(service: &BalancerRecord) -> String {
    format!("{OUTSIDE}-{}", frontend_name(service))
}

/// Kubernetes' name of a Service's load balancer, by the Service's uid: `a` and the first 31 of its digits.
pub(super) fn frontend_name(service: &BalancerRecord) -> String {
    let digits = service.uid.chars().filter(char::is_ascii_alphanumeric);
    format!("a{}", digits.take(31).collect::<String>())
}

/// The load balancers with at least one Service. AKS always has `kubernetes`, for outbound traffic, which
/// takes another way here.
pub(super) fn balancers(place: &Place) -> Vec<Value> {
    [(OUTSIDE, false), (INSIDE, true)]
        .into_iter()
        .filter_map(|(name, internal)| {
            let services: Vec<&BalancerRecord> = place
                .balancers
                .iter()
                .filter(|service| service.internal == internal)
                .collect();
            (!services.is_empty()).then(|| balancer(place, name, &services))
        })
        .collect()
}

fn balancer(place: &Place, balancer: &str, services: &[&BalancerRecord]) -> Value {
    let of = |kind: &str, name: &str| place.id(NAMESPACE, &[("loadBalancers", balancer), (kind, name)]);
    let fronts: Vec<Value> = services
        .iter()
        .map(|service| {
            let name = frontend_name(service);
            json!({
                "id": of("frontendIPConfigurations", &name),
                "name": name,
                "type": "Microsoft.Network/loadBalancers/frontendIPConfigurations",
                "properties": frontend(place, service),
            })
        })
        .collect();
    let members: Vec<Value> = place
        .sets()
        .iter()
        .flat_map(Set::instances)
        .filter(|node| !node.machine.deleting)
        .map(|node| json!({ "name": node.node_name, "properties": { "ipAddress": node.address } }))
        .collect();
    let mut shown = place.resource(
        NAMESPACE,
        "loadBalancers",
        balancer,
        json!({
            "provisioningState": state(place),
            "frontendIPConfigurations": fronts,
            "backendAddressPools": [{
                "id": of("backendAddressPools", OUTSIDE),
                "name": OUTSIDE,
                "type": "Microsoft.Network/loadBalancers/backendAddressPools",
                "properties": { "provisioningState": state(place), "loadBalancerBackendAddresses": members },
            }],
            "loadBalancingRules": [], "probes": [],
            "inboundNatRules": [], "inboundNatPools": [], "outboundRules": [],
        }),
    );
    shown["sku"] = json!({ "name": "Standard", "tier": "Regional" });
    shown
}

fn frontend(place: &Place, service: &BalancerRecord) -> Value {
    let state = state(place);
    if !service.internal {
        let own = || place.id(NAMESPACE, &[("publicIPAddresses", &address_name(service))]);
        let address = service.public.clone().unwrap_or_else(own);
        return json!({
            "provisioningState": state,
            "privateIPAllocationMethod": "Dynamic",
            "publicIPAddress": { "id": address },
        });
    }
    let mut properties = json!({
        "provisioningState": state,
        "privateIPAddress": service.address,
        "privateIPAllocationMethod": "Static",
        "privateIPAddressVersion": "IPv4",
    });
    // With several subnets, the record does not say which one has the address.
    if let [subnet] = &subnets(place)[..] {
        properties["subnet"] = subnet.clone();
    }
    properties
}
