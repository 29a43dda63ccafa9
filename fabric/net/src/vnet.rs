//! `ip -batch` scripts of the stamp's network and of VNETs: from what is to what is to be.

use std::{collections::BTreeMap, net::Ipv4Addr};

use fabric_api::{NetworkSpec, StampNetwork};
use ipnet::Ipv4Net;

use crate::{LinkSeen, Names, RouteSeen, card::mac, subnet_bridge};

/// The VNET's card to the stamp's network, inside its namespace.
pub const UPLINK: &str = "uplink";

/// Metric of the `unreachable` routes that keep a range from leaving by the default route: worse than any other.
pub const BLACKHOLE_METRIC: u32 = 4096;

/// Settings of a VNET's namespace (below `/proc/sys/net/ipv4/`), with their values, to be set before any link is made.
pub const VNET_SYSCTLS: &[(&str, &str)] = &[
    ("ip_forward", "1"),
    // Traffic from pods arrives by the node's card and may leave by another one.
    ("conf/all/rp_filter", "0"),
    ("conf/default/rp_filter", "0"),
    // A router of one subnet tells everybody about the better way otherwise: noise, and a way round the route table.
    ("conf/all/send_redirects", "0"),
    ("conf/default/send_redirects", "0"),
];

/// What is in a namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamespaceSeen {
    /// All links.
    pub links: Vec<LinkSeen>,
    /// The IPv4 routes of the main table.
    pub routes: Vec<RouteSeen>,
}

impl NamespaceSeen {
    fn link(&self, name: &str) -> Option<&LinkSeen> {
        self.links.iter().find(|link| link.name == name)
    }
}

/// The script, run on the host, that brings the stamp's bridge to what it is to be. `ports` are the links that belong into it and exist.
pub fn stamp_script(
    names: &Names,
    network: &StampNetwork,
    seen: &NamespaceSeen,
    ports: &[String],
) -> Vec<String> {
    let bridge = names.bridge();
    let gateway = network.gateway();
    let address = within(gateway, network.range);
    let mut script = Vec::new();
    bridge_script(seen, &bridge, address, &mut script);
    // The range is the stamp's: what nobody answers for goes nowhere, also while the bridge is down.
    script.push(format!(
        "route replace unreachable {} metric {BLACKHOLE_METRIC}",
        network.range
    ));
    for port in ports {
        if let Some(link) = seen.link(port)
            && (link.master.as_deref() != Some(bridge.as_str()) || !link.up)
        {
            script.push(format!("link set {port} master {bridge} up"));
        }
    }
    script
}

/// The script, run on the host, that makes a VNET's namespace and plugs it into the stamp's bridge. `exists`: the namespace is there.
/// `plugged`: so is the host's end of its cable.
pub fn vnet_uplink_script(names: &Names, spec: &NetworkSpec, exists: bool, plugged: bool) -> Vec<String> {
    let namespace = names.network_namespace(&spec.id);
    let port = names.uplink_port(&spec.id);
    let bridge = names.bridge();
    let mut script = Vec::new();
    if !exists {
        script.push(format!("netns add {namespace}"));
    }
    if !plugged {
        script.push(format!(
            "link add {port} type veth peer name {UPLINK} address {} netns {namespace}",
            mac(spec.uplink)
        ));
    }
    script.push(format!("link set {port} master {bridge} up"));
    script
}

/// The script, run inside the VNET's namespace, that brings its subnets and routes from `seen` to the specification.
pub fn vnet_script(spec: &NetworkSpec, stamp: &StampNetwork, seen: &NamespaceSeen) -> Vec<String> {
    let mut script = Vec::new();
    if !seen.link("lo").is_some_and(|link| link.up) {
        script.push("link set lo up".into());
    }

    // Subnets: first what goes, so that an address can move from one to another.
    let wanted: BTreeMap<String, Ipv4Net> = spec
        .subnets
        .iter()
        .map(|subnet| (subnet_bridge(&subnet.name), within(subnet.gateway, subnet.range)))
        .collect();
    for link in &seen.links {
        if link.name.starts_with("sub") && link.master.is_none() && !wanted.contains_key(&link.name) {
            script.push(format!("link delete {}", link.name));
        }
    }
    for (bridge, address) in &wanted {
        bridge_script(seen, bridge, *address, &mut script);
    }

    let uplink = within(spec.uplink, stamp.range);
    addresses_script(seen.link(UPLINK), UPLINK, uplink, &mut script);
    if !seen.link(UPLINK).is_some_and(|link| link.up) {
        script.push(format!("link set {UPLINK} up"));
    }

    // Routes: what is there and not wanted goes; `replace` makes the rest right whatever was there.
    let mut routes: BTreeMap<Ipv4Net, Ipv4Addr> = spec
        .routes
        .iter()
        .map(|route| (route.to.trunc(), route.via))
        .collect();
    routes.insert(Ipv4Net::default(), stamp.gateway());
    let mut closed: Vec<Ipv4Net> = spec
        .address_space
        .iter()
        .chain(&spec.reserved)
        .map(Ipv4Net::trunc)
        .collect();
    closed.sort_unstable();
    closed.dedup();
    for route in seen.routes.iter().filter(|route| !route.kernel) {
        if route.unreachable && !closed.contains(&route.to) {
            script.push(format!(
                "route delete unreachable {} metric {BLACKHOLE_METRIC}",
                route.to
            ));
        }
        if let Some(via) = route.via
            && !routes.contains_key(&route.to)
        {
            script.push(format!("route delete {} via {via}", route.to));
        }
    }
    for range in closed {
        if !seen
            .routes
            .iter()
            .any(|route| route.unreachable && route.to == range)
        {
            script.push(format!(
                "route replace unreachable {range} metric {BLACKHOLE_METRIC}"
            ));
        }
    }
    for (to, via) in routes {
        if !seen
            .routes
            .iter()
            .any(|route| route.to == to && route.via == Some(via))
        {
            script.push(format!("route replace {to} via {via}"));
        }
    }
    script
}

/// A bridge with one address, up. Its hardware address follows from its IP address: it would change with every port otherwise, and
/// neighbours would talk to nobody for a while.
fn bridge_script(seen: &NamespaceSeen, bridge: &str, address: Ipv4Net, script: &mut Vec<String>) {
    let link = seen.link(bridge);
    if link.is_none() {
        script.push(format!(
            "link add {bridge} address {} type bridge",
            mac(address.addr())
        ));
    }
    addresses_script(link, bridge, address, script);
    if !link.is_some_and(|link| link.up) {
        script.push(format!("link set {bridge} up"));
    }
}

fn addresses_script(seen: Option<&LinkSeen>, link: &str, address: Ipv4Net, script: &mut Vec<String>) {
    let there = seen.map_or(&[][..], |seen| &seen.addresses);
    for other in there.iter().filter(|other| **other != address) {
        script.push(format!("address delete {other} dev {link}"));
    }
    if !there.contains(&address) {
        script.push(format!("address add {address} dev {link}"));
    }
}

/// An address with the prefix length of its range.
fn within(address: Ipv4Addr, range: Ipv4Net) -> Ipv4Net {
    Ipv4Net::new(address, range.prefix_len()).expect("the length comes from a range")
}

#[cfg(test)]
mod tests {
    use super::*;
    use fabric_api::{NetworkId, RouteSpec, SubnetSpec, Uplink};

    fn stamp() -> StampNetwork {
        StampNetwork {
            range: "100.64.16.0/20".parse().unwrap(),
            uplink: Uplink::None,
        }
    }

    fn vnet() -> NetworkSpec {
        NetworkSpec {
            id: NetworkId::from("n1"),
            address_space: vec!["10.224.0.0/12".parse().unwrap()],
            subnets: vec![SubnetSpec {
                name: "nodes".into(),
                range: "10.224.0.0/16".parse().unwrap(),
                gateway: "10.224.0.1".parse().unwrap(),
            }],
            reserved: vec!["10.244.0.0/16".parse().unwrap()],
            routes: vec![RouteSpec {
                to: "10.244.0.0/24".parse().unwrap(),
                via: "10.224.0.4".parse().unwrap(),
            }],
            uplink: "100.64.16.9".parse().unwrap(),
        }
    }

    /// What `ip` would show after the script for [`vnet`].
    fn made() -> NamespaceSeen {
        let link = |name: &str, address: &str| LinkSeen {
            name: name.into(),
            master: None,
            up: true,
            addresses: vec![address.parse().unwrap()],
        };
        let route = |to: &str, via: Option<&str>, unreachable, kernel| RouteSeen {
            to: to.parse().unwrap(),
            via: via.map(|via| via.parse().unwrap()),
            unreachable,
            kernel,
        };
        NamespaceSeen {
            links: vec![
                link("lo", "127.0.0.1/8"),
                link(UPLINK, "100.64.16.9/20"),
                link(&subnet_bridge("nodes"), "10.224.0.1/16"),
                LinkSeen {
                    name: "lfp0123".into(),
                    master: Some(subnet_bridge("nodes")),
                    up: true,
                    addresses: Vec::new(),
                },
            ],
            routes: vec![
                route("0.0.0.0/0", Some("100.64.16.1"), false, false),
                route("10.224.0.0/12", None, true, false),
                route("10.224.0.0/16", None, false, true),
                route("10.244.0.0/16", None, true, false),
                route("10.244.0.0/24", Some("10.224.0.4"), false, false),
            ],
        }
    }

    #[test]
    fn a_new_vnet_gets_all_and_a_finished_one_nothing() {
        let script = vnet_script(&vnet(), &stamp(), &NamespaceSeen::default());
        let bridge = subnet_bridge("nodes");
        assert_eq!(
            script,
            [
                "link set lo up".to_owned(),
                format!("link add {bridge} address 0a:6c:0a:e0:00:01 type bridge"),
                format!("address add 10.224.0.1/16 dev {bridge}"),
                format!("link set {bridge} up"),
                "address add 100.64.16.9/20 dev uplink".into(),
                "link set uplink up".into(),
                "route replace unreachable 10.224.0.0/12 metric 4096".into(),
                "route replace unreachable 10.244.0.0/16 metric 4096".into(),
                "route replace 0.0.0.0/0 via 100.64.16.1".into(),
                "route replace 10.244.0.0/24 via 10.224.0.4".into(),
            ]
        );
        assert_eq!(vnet_script(&vnet(), &stamp(), &made()), Vec::<String>::new());
    }

    #[test]
    fn routes_and_subnets_that_went_are_removed_and_changed_ones_replaced() {
        let mut spec = vnet();
        spec.routes = vec![RouteSpec {
            to: "10.244.1.0/24".parse().unwrap(),
            via: "10.224.0.5".parse().unwrap(),
        }];
        spec.reserved.clear();
        assert_eq!(
            vnet_script(&spec, &stamp(), &made()),
            [
                "route delete unreachable 10.244.0.0/16 metric 4096",
                "route delete 10.244.0.0/24 via 10.224.0.4",
                "route replace 10.244.1.0/24 via 10.224.0.5",
            ]
        );
        let mut spec = vnet();
        spec.routes[0].via = "10.224.0.7".parse().unwrap();
        assert_eq!(
            vnet_script(&spec, &stamp(), &made()),
            ["route replace 10.244.0.0/24 via 10.224.0.7"]
        );
        let mut spec = vnet();
        spec.subnets[0].name = "other".into();
        let script = vnet_script(&spec, &stamp(), &made());
        assert_eq!(script[0], format!("link delete {}", subnet_bridge("nodes")));
        assert!(script[1].starts_with(&format!("link add {}", subnet_bridge("other"))));
    }

    #[test]
    fn a_stamp_bridge_that_was_made_again_takes_its_ports_back() {
        let names = Names::new("a");
        let orphan = LinkSeen {
            name: "lfp1".into(),
            master: None,
            up: true,
            addresses: Vec::new(),
        };
        let seen = NamespaceSeen {
            links: vec![orphan],
            routes: Vec::new(),
        };
        let script = stamp_script(&names, &stamp(), &seen, &["lfp1".into(), "lfp2".into()]);
        assert!(script.contains(&format!("link set lfp1 master {} up", names.bridge())));
        assert!(!script.iter().any(|line| line.contains("lfp2")));
    }
}
