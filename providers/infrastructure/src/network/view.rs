//! Networks, addresses, rules and routes of a cluster as ARM shows them. Pure.

use std::collections::BTreeMap;

use cluster_spec::{ApiAccess, PodNetworking};
use control_records::{Role, balancer::BalancerRecord};
use serde_json::{Value, json};

use super::{NAMESPACE, SUBNET, VNET, services};
use crate::{Stamp, place::Place};

/// The name of the rules of its nodes.
const GROUP: &str = "aks-agentpool-nsg";
/// The name of the routes to its pods.
const TABLE: &str = "aks-agentpool-routetable";
/// The name of what stands before its API server, and of the address of that.
const API_SERVER: &str = "kube-apiserver";
/// The name of the address that what leaves the VNET has.
const OUTBOUND: &str = "aks-outbound";

/// Its VNET, with the subnet of its nodes. The control plane's own part of it is not the cluster's to see.
pub(super) fn vnets(place: &Place, _: &Stamp) -> Vec<Value> {
    let network = &place.cluster.spec().network;
    if network.vnet.is_some() {
        // It is the tenant's, and shown where it was made.
        return Vec::new();
    }
    let mut subnet = json!({
        "addressPrefix": network.node_range,
        "provisioningState": state(place),
        "networkSecurityGroup": { "id": place.id(NAMESPACE, &[("networkSecurityGroups", GROUP)]) },
        "delegations": [],
        "serviceEndpoints": [],
        "privateEndpointNetworkPolicies": "Disabled",
        "privateLinkServiceNetworkPolicies": "Enabled",
    });
    if has_routes(place) {
        subnet["routeTable"] = json!({ "id": place.id(NAMESPACE, &[("routeTables", TABLE)]) });
    }
    let subnet = json!({
        "id": place.id(NAMESPACE, &[("virtualNetworks", VNET), ("subnets", SUBNET)]),
        "name": SUBNET,
        "type": "Microsoft.Network/virtualNetworks/subnets",
        "properties": subnet,
    });
    vec![place.resource(
        NAMESPACE,
        "virtualNetworks",
        VNET,
        json!({
            "provisioningState": state(place),
            "addressSpace": { "addressPrefixes": [network.vnet_range] },
            "subnets": [subnet],
            "virtualNetworkPeerings": [],
            "enableDdosProtection": false,
        }),
    )]
}

/// The subnet of the VNET that was made for it, by its id; nothing in a tenant's.
fn own_subnet(place: &Place) -> Vec<Value> {
    if place.cluster.spec().network.vnet.is_some() {
        return Vec::new();
    }
    vec![json!({ "id": place.id(NAMESPACE, &[("virtualNetworks", VNET), ("subnets", SUBNET)]) })]
}

/// The subnets that its nodes are in, by their ids: its own, or the tenant's that its pools are in.
pub(super) fn subnets(place: &Place) -> Vec<Value> {
    let own = own_subnet(place);
    if !own.is_empty() {
        return own;
    }
    let pools = place
        .cluster
        .body()
        .pointer("/properties/agentPoolProfiles")
        .and_then(Value::as_array);
    let ids = pools
        .into_iter()
        .flatten()
        .filter_map(|pool| pool["vnetSubnetID"].as_str());
    // Requests may spell one differently; it is listed once.
    let ids: BTreeMap<String, &str> = ids.map(|id| (arm_ids::folded(id), id)).collect();
    ids.into_values().map(|id| json!({ "id": id })).collect()
}

pub(super) fn state(place: &Place) -> &'static str {
    if place.cluster.deleting {
        "Deleting"
    } else {
        "Succeeded"
    }
}

/// The addresses of the stamp that it has leased: its API server's, the one that all has that leaves its VNET, and those of its Services
/// of type LoadBalancer, named and tagged as AKS does.
pub(super) fn addresses(place: &Place, stamp: &Stamp) -> Vec<Value> {
    let spec = place.cluster.spec();
    let shown = |name: &str, address, more: &[(&str, Value)]| {
        let mut properties = json!({
            "provisioningState": state(place),
            "ipAddress": address,
            "publicIPAddressVersion": "IPv4",
            "publicIPAllocationMethod": "Static",
            "idleTimeoutInMinutes": 4,
        });
        for (name, value) in more {
            properties[*name] = value.clone();
        }
        let mut shown = place.resource(NAMESPACE, "publicIPAddresses", name, properties);
        shown["sku"] = json!({ "name": "Standard", "tier": "Regional" });
        shown
    };
    let mut all = Vec::new();
    if let Some(vip) = place.observed.vip.filter(|_| is_public(place)) {
        let label = spec.fqdn.split('.').next().unwrap_or_default();
        let names = json!({ "domainNameLabel": label, "fqdn": spec.fqdn });
        all.push(shown(API_SERVER, vip, &[("dnsSettings", names)]));
    }
    if let Some(uplink) = place
        .observed
        .uplink
        .filter(|_| stamp.outbound && spec.network.outbound)
    {
        all.push(shown(OUTBOUND, uplink, &[]));
    }
    // A tenant's own is shown where it was made.
    let own = |balancer: &&BalancerRecord| !balancer.internal && balancer.public.is_none();
    for balancer in place.balancers.iter().filter(own) {
        let mut address = shown(&services::address_name(balancer), balancer.address, &[]);
        address["tags"]["k8s-azure-cluster-name"] = json!("kubernetes");
        address["tags"]["k8s-azure-service"] = json!(format!("{}/{}", balancer.namespace, balancer.name));
        all.push(address);
    }
    all
}

/// Whether its API server has an address that others reach.
fn is_public(place: &Place) -> bool {
    place.cluster.spec().access != ApiAccess::Private
}

/// What stands before its API server, and before its Services.
pub(super) fn balancers(place: &Place, _: &Stamp) -> Vec<Value> {
    api_server(place)
        .into_iter()
        .chain(services::balancers(place))
        .collect()
}

/// What stands before its API server: the members of the control plane hold the address among themselves.
fn api_server(place: &Place) -> Option<Value> {
    if place.observed.vip.is_none() || !is_public(place) {
        return None;
    }
    let of = |kind: &str, name: &str| place.id(NAMESPACE, &[("loadBalancers", API_SERVER), (kind, name)]);
    let address = place.id(NAMESPACE, &[("publicIPAddresses", API_SERVER)]);
    let members: Vec<Value> = place
        .machines
        .iter()
        .filter(|machine| !machine.deleting)
        .filter_map(|machine| match machine.assignment.as_ref()?.role {
            Role::ControlPlane { index, address } => {
                let address = if address.is_unspecified() {
                    place.observed.control_plane_address?
                } else {
                    address
                };
                let name = format!("member-{index}");
                Some(json!({ "name": name, "properties": { "ipAddress": address } }))
            }
            Role::Node { .. } => None,
        })
        .collect();
    let (front, pool, rule) = (
        of("frontendIPConfigurations", API_SERVER),
        of("backendAddressPools", API_SERVER),
        of("loadBalancingRules", "https"),
    );
    let mut shown = place.resource(
        NAMESPACE,
        "loadBalancers",
        API_SERVER,
        json!({
            "provisioningState": state(place),
            "frontendIPConfigurations": [{
                "id": front, "name": API_SERVER,
                "properties": { "publicIPAddress": { "id": address }, "loadBalancingRules": [{ "id": rule }] },
            }],
            "backendAddressPools": [{
                "id": pool, "name": API_SERVER,
                "properties": { "loadBalancerBackendAddresses": members, "loadBalancingRules": [{ "id": rule }] },
            }],
            "loadBalancingRules": [{
                "id": rule, "name": "https",
                "properties": {
                    "protocol": "Tcp", "frontendPort": 443, "backendPort": 443,
                    "frontendIPConfiguration": { "id": front }, "backendAddressPool": { "id": pool },
                },
            }],
            "probes": [], "inboundNatRules": [], "inboundNatPools": [], "outboundRules": [],
        }),
    );
    shown["sku"] = json!({ "name": "Standard", "tier": "Regional" });
    Some(shown)
}

/// What its nodes may be reached from, and reach. No rules can be added; these are what the fabric does.
///
/// They are those of the VNET that was made for the cluster. Of a tenant's, each subnet goes by the group that it names, or by none: this one
/// is behind no subnet then, as with AKS, which sets it at the nodes' cards.
pub(super) fn security_groups(place: &Place, stamp: &Stamp) -> Vec<Value> {
    let outbound = stamp.outbound && place.cluster.spec().network.outbound;
    let rule = |priority: u32, name: &str, direction: &str, from: &str, to: &str, access: &str, why: &str| {
        json!({
            "id": place.id(NAMESPACE, &[("networkSecurityGroups", GROUP), ("defaultSecurityRules", name)]),
            "name": name,
            "properties": {
                "priority": priority, "direction": direction, "access": access, "protocol": "*",
                "sourcePortRange": "*", "destinationPortRange": "*",
                "sourceAddressPrefix": from, "destinationAddressPrefix": to,
                "description": why, "provisioningState": "Succeeded",
            },
        })
    };
    let (net, any) = ("VirtualNetwork", "*");
    let mut rules = vec![
        rule(
            65000,
            "AllowVnetInBound",
            "Inbound",
            net,
            net,
            "Allow",
            "within the VNET",
        ),
        rule(
            65500,
            "DenyAllInBound",
            "Inbound",
            any,
            any,
            "Deny",
            "nothing else reaches a node",
        ),
        rule(
            65000,
            "AllowVnetOutBound",
            "Outbound",
            net,
            net,
            "Allow",
            "within the VNET",
        ),
    ];
    // Within the VNET they need no rule.
    if place.balancers.iter().any(|service| !service.internal) {
        let why = "what comes to the address of a Service, at the Service's ports and from where its source ranges say";
        rules.push(rule(
            65001,
            "AllowAzureLoadBalancerInBound",
            "Inbound",
            "AzureLoadBalancer",
            any,
            "Allow",
            why,
        ));
    }
    if outbound {
        let why = "the outside, but for the host's own networks";
        rules.push(rule(
            65001,
            "AllowInternetOutBound",
            "Outbound",
            any,
            "Internet",
            "Allow",
            why,
        ));
    }
    rules.push(rule(
        65500,
        "DenyAllOutBound",
        "Outbound",
        any,
        any,
        "Deny",
        "everything else",
    ));
    vec![place.resource(
        NAMESPACE,
        "networkSecurityGroups",
        GROUP,
        json!({
            "provisioningState": state(place),
            "securityRules": [],
            "defaultSecurityRules": rules,
            "subnets": own_subnet(place),
        }),
    )]
}

/// Whether the VNET has routes to ranges of pods.
fn has_routes(place: &Place) -> bool {
    matches!(
        place.cluster.spec().network.plugin,
        PodNetworking::Kubenet | PodNetworking::AzureOverlay
    )
}

/// The routes to the pods of each node.
pub(super) fn route_tables(place: &Place, _: &Stamp) -> Vec<Value> {
    if !has_routes(place) {
        return Vec::new();
    }
    let mut routes: Vec<(&str, Value)> = place
        .machines
        .iter()
        .filter_map(|machine| match &machine.assignment.as_ref()?.role {
            Role::Node {
                node_name,
                address,
                pod_range: Some(range),
                ..
            } => Some((
                node_name.as_str(),
                json!({
                    "id": place.id(NAMESPACE, &[("routeTables", TABLE), ("routes", node_name)]),
                    "name": node_name,
                    "properties": {
                        "addressPrefix": range, "nextHopType": "VirtualAppliance", "nextHopIpAddress": address,
                        "provisioningState": "Succeeded", "hasBgpOverride": false,
                    },
                }),
            )),
            _ => None,
        })
        .collect();
    routes.sort_by_key(|(name, _)| *name);
    let routes: Vec<Value> = routes.into_iter().map(|(_, route)| route).collect();
    vec![place.resource(
        NAMESPACE,
        "routeTables",
        TABLE,
        json!({
            "provisioningState": state(place),
            "disableBgpRoutePropagation": false,
            "routes": routes,
            "subnets": subnets(place),
        }),
    )]
}
