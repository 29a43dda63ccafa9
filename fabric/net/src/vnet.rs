//! `ip -batch` scripts of the stamp's network and of VNETs: from the current to the specified state.

use std::{collections::BTreeMap, net::Ipv4Addr};

use fabric_api::{NetworkSpec, RouteSpec, Side, StampNetwork, SubnetSpec};
use ipnet::Ipv4Net;

use crate::{
    LinkSeen, Names, RouteSeen, UPLINK, balancer,
    card::{isolation, mac},
    subnet_bridge,
};

/// Metric of the `unreachable` routes that keep a range from leaving by the default route: worse than any other.
pub const BLACKHOLE_METRIC: u32 = 4096;

/// Sysctls of a VNET's namespace (below `/proc/sys/net/ipv4/`), with their values, to be set before any link
/// is created.
pub const VNET_SYSCTLS: &[(&str, &str)] = &[
    ("ip_forward", "1"),
    // Traffic from pods arrives at the node's interface and may leave by another one.
    ("conf/all/rp_filter", "0"),
    ("conf/default/rp_filter", "0"),
    // Otherwise the router sends ICMP redirects within a subnet: needless, and a way around the route table.
    ("conf/all/send_redirects", "0"),
    ("conf/default/send_redirects", "0"),
];

/// The sysctls of this VNET. With other networks in the same VNET, the router answers ARP requests for addresses
/// that it has routes to, because their machines are not on its links. With balancers, gratuitous ARP is sent
/// when an interface gets an address, which another one may have had before.
pub fn vnet_sysctls(spec: &NetworkSpec) -> Vec<(&'static str, &'static str)> {
    let mut settings = VNET_SYSCTLS.to_vec();
    if peers(spec).next().is_some() {
        settings.push(("conf/all/proxy_arp", "1"));
    }
    if !spec.balancers.is_empty() {
        settings.push(("conf/all/arp_notify", "1"));
    }
    settings
}

/// Sysctls of a VNET's namespace (below `/proc/sys/net/`), with their values, which exist only if the host
/// has loaded `br_netfilter`.
///
/// With it, the rules also see bridged frames. A balancer's redirect back to the bridge of the packet's
/// origin would then be bridged instead of routed: to the wrong machine if the client is the target, and
/// dropped between isolated ports.
pub fn vnet_bridge_sysctls(spec: &NetworkSpec) -> &'static [(&'static str, &'static str)] {
    if spec.balancers.is_empty() {
        &[]
    } else {
        &[("bridge/bridge-nf-call-iptables", "0")]
    }
}

/// Sysctls of the bridges of a VNET's subnets (below `/proc/sys/net/ipv4/`), with their values; they exist
/// once the bridge does.
///
/// In a subnet with a filter, machines reach each other through the router only: it answers ARP requests for
/// all of them, at once, and forwards.
pub fn bridge_sysctls<'s>(subnets: impl IntoIterator<Item = &'s SubnetSpec>) -> Vec<(String, &'static str)> {
    let mut settings = Vec::new();
    for subnet in subnets {
        let bridge = subnet_bridge(&subnet.name);
        let filtered = subnet.filter.is_some();
        settings.push((
            format!("conf/{bridge}/proxy_arp_pvlan"),
            if filtered { "1" } else { "0" },
        ));
        if filtered {
            settings.push((format!("neigh/{bridge}/proxy_delay"), "0"));
        }
    }
    settings
}

/// Ports of machines whose neighbours are reached another way from now on, each with whether that is through
/// the router.
pub fn vnet_turned(spec: &NetworkSpec, seen: &NamespaceSeen) -> Vec<(String, bool)> {
    let filtered: BTreeMap<String, bool> = spec
        .subnets
        .iter()
        .map(|subnet| (subnet_bridge(&subnet.name), subnet.filter.is_some()))
        .collect();
    let ports = seen.links.iter().filter_map(|link| {
        let wanted = *filtered.get(link.master.as_ref()?)?;
        (link.isolated != wanted).then(|| (link.name.clone(), wanted))
    });
    ports.collect()
}

/// Routes to addresses in another network of the same VNET, through its uplink.
pub(crate) fn peers(spec: &NetworkSpec) -> impl Iterator<Item = &RouteSpec> {
    let inside = |via: Ipv4Addr| spec.subnets.iter().any(|subnet| subnet.range.contains(&via));
    spec.routes.iter().filter(move |route| !inside(route.via))
}

/// The state of a namespace.
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

/// The script, run on the host, that brings the stamp's bridge to its specified state. `ports` are the
/// existing links that belong to it.
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
    bridge_script(seen, &bridge, address, &[], &mut script);
    // Packets to unused addresses of the stamp's range are rejected, also while the bridge is down.
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

/// The script, run on the host, that creates a VNET's namespace and attaches it to the stamp's bridge.
/// `exists`: the namespace exists. `plugged`: the host's end of its veth pair exists.
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

/// The script, run inside the VNET's namespace, that brings its subnets and routes from `seen` to the
/// specification.
pub fn vnet_script(spec: &NetworkSpec, stamp: &StampNetwork, seen: &NamespaceSeen) -> Vec<String> {
    let mut script = Vec::new();
    if !seen.link("lo").is_some_and(|link| link.up) {
        script.push("link set lo up".into());
    }

    // Subnets: removals first, so that an address can move from one to another.
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
    let inside = balancer::addresses(spec, Side::Subnet);
    for (bridge, address) in &wanted {
        let balanced = inside
            .iter()
            .copied()
            .filter(|balanced| address.contains(balanced));
        let balanced: Vec<Ipv4Net> = balanced.map(Ipv4Net::from).collect();
        bridge_script(seen, bridge, *address, &balanced, &mut script);
    }
    script.extend(
        vnet_turned(spec, seen)
            .iter()
            .map(|(port, isolated)| isolation(port, *isolated)),
    );

    let uplink = within(spec.uplink, stamp.range);
    let outside = balancer::addresses(spec, Side::Stamp);
    let outside: Vec<Ipv4Net> = outside.into_iter().map(Ipv4Net::from).collect();
    addresses_script(seen.link(UPLINK), UPLINK, uplink, &outside, &mut script);
    if !seen.link(UPLINK).is_some_and(|link| link.up) {
        script.push(format!("link set {UPLINK} up"));
    }

    // Routes: unwanted ones are removed; `replace` corrects the rest.
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

/// A bridge with its own address and those of balancers, up. Its hardware address is derived from its own IP
/// address: otherwise it would change with every port, and neighbours would lose it for a while.
fn bridge_script(
    seen: &NamespaceSeen,
    bridge: &str,
    address: Ipv4Net,
    balanced: &[Ipv4Net],
    script: &mut Vec<String>,
) {
    let link = seen.link(bridge);
    if link.is_none() {
        script.push(format!(
            "link add {bridge} address {} type bridge",
            mac(address.addr())
        ));
    }
    addresses_script(link, bridge, address, balanced, script);
    if !link.is_some_and(|link| link.up) {
        script.push(format!("link set {bridge} up"));
    }
}

/// Gives the link its own address and those of balancers, and no other.
fn addresses_script(
    seen: Option<&LinkSeen>,
    link: &str,
    own: Ipv4Net,
    balanced: &[Ipv4Net],
    script: &mut Vec<String>,
) {
    let there = seen.map_or(&[][..], |seen| &seen.addresses);
    for other in there {
        if *other != own && !balanced.contains(other) {
            script.push(format!("address delete {other} dev {link}"));
        }
    }
    if !there.contains(&own) {
        script.push(format!("address add {own} dev {link}"));
    }
    let new = balanced.iter().filter(|address| !there.contains(address));
    let new: Vec<String> = new
        .map(|address| format!("address add {address} dev {link}"))
        .collect();
    let told = !new.is_empty() && seen.is_some_and(|seen| seen.up);
    script.extend(new);
    if told {
        // Neighbours may remember another owner of it. Setting the hardware address of an interface to its
        // current value sends gratuitous ARP for all its addresses (`arp_notify`), as at its start.
        script.push(format!("link set {link} address {}", mac(own.addr())));
    }
}

/// An address with the prefix length of its range.
fn within(address: Ipv4Addr, range: Ipv4Net) -> Ipv4Net {
    Ipv4Net::new(address, range.prefix_len()).expect("the length comes from a range")
}

#[cfg(test)]
mod tests {
    use super::*;
    use fabric_api::{Balancer, NetworkId, Uplink};

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
                filter: None,
                serves: None,
            }],
            reserved: vec!["10.244.0.0/16".parse().unwrap()],
            routes: vec![RouteSpec {
                to: "10.244.0.0/24".parse().unwrap(),
                via: "10.224.0.4".parse().unwrap(),
            }],
            uplink: "100.64.16.9".parse().unwrap(),
            balancers: Vec::new(),
            egress: None,
        }
    }

    /// The output of `ip` after the script for [`vnet`].
    fn made() -> NamespaceSeen {
        let link = |name: &str, address: &str| LinkSeen {
            name: name.into(),
            master: None,
            isolated: false,
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
                    isolated: false,
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
    fn addresses_of_others_in_the_vnet_are_answered_for() {
        assert_eq!(
            vnet_sysctls(&vnet()),
            VNET_SYSCTLS,
            "as it always was without any"
        );
        let mut spec = vnet();
        spec.routes.push(RouteSpec {
            to: "10.224.0.9/32".parse().unwrap(),
            via: "100.64.16.12".parse().unwrap(),
        });
        assert!(vnet_sysctls(&spec).contains(&("conf/all/proxy_arp", "1")));
        assert_eq!(
            vnet_script(&spec, &stamp(), &made()),
            ["route replace 10.224.0.9/32 via 100.64.16.12"]
        );
    }

    #[test]
    fn addresses_of_balancers_come_are_told_and_go() {
        let at = |address: &str, side| Balancer {
            address: address.parse().unwrap(),
            side,
            ports: Vec::new(),
            sources: Vec::new(),
        };
        let bridge = subnet_bridge("nodes");
        let mut spec = vnet();
        spec.balancers = vec![
            at("100.64.24.6", Side::Stamp),
            at("100.64.24.5", Side::Stamp),
            at("10.224.255.250", Side::Subnet),
        ];
        let coming = [
            format!("address add 10.224.255.250/32 dev {bridge}"),
            format!("link set {bridge} address 0a:6c:0a:e0:00:01"),
            "address add 100.64.24.5/32 dev uplink".to_owned(),
            "address add 100.64.24.6/32 dev uplink".to_owned(),
            "link set uplink address 0a:6c:64:40:10:09".to_owned(),
        ];
        assert_eq!(vnet_script(&spec, &stamp(), &made()), coming);
        assert!(vnet_sysctls(&spec).contains(&("conf/all/arp_notify", "1")));
        assert_eq!(
            vnet_bridge_sysctls(&spec),
            [("bridge/bridge-nf-call-iptables", "0")]
        );
        assert!(vnet_bridge_sysctls(&vnet()).is_empty());
        // In a new namespace, interfaces announce their addresses when they come up.
        let script = vnet_script(&spec, &stamp(), &NamespaceSeen::default());
        let lines_with = |what: &str| script.iter().filter(|line| line.contains(what)).count();
        assert_eq!(
            (lines_with("/32 dev"), lines_with("link set uplink address")),
            (3, 0)
        );

        let mut seen = made();
        for link in &mut seen.links {
            let has: &[&str] = match link.name.as_str() {
                UPLINK => &["100.64.24.5/32", "100.64.24.6/32"],
                name if name == bridge => &["10.224.255.250/32"],
                _ => &[],
            };
            link.addresses
                .extend(has.iter().map(|text| text.parse::<Ipv4Net>().unwrap()));
        }
        assert_eq!(vnet_script(&spec, &stamp(), &seen), [""; 0]);
        spec.balancers.remove(1);
        assert_eq!(
            vnet_script(&spec, &stamp(), &seen),
            ["address delete 100.64.24.5/32 dev uplink"]
        );
        let going = [
            format!("address delete 10.224.255.250/32 dev {bridge}"),
            "address delete 100.64.24.5/32 dev uplink".to_owned(),
            "address delete 100.64.24.6/32 dev uplink".to_owned(),
        ];
        assert_eq!(vnet_script(&vnet(), &stamp(), &seen), going);
    }

    #[test]
    fn machines_of_a_filtered_subnet_reach_each_other_by_the_router() {
        let mut spec = vnet();
        spec.subnets[0].filter = Some(fabric_api::Filter::default());
        let bridge = subnet_bridge("nodes");
        assert_eq!(
            bridge_sysctls(&spec.subnets),
            [
                (format!("conf/{bridge}/proxy_arp_pvlan"), "1"),
                (format!("neigh/{bridge}/proxy_delay"), "0")
            ]
        );
        assert_eq!(
            vnet_script(&spec, &stamp(), &made()),
            ["link set lfp0123 type bridge_slave isolated on"]
        );
        assert_eq!(vnet_turned(&spec, &made()), [("lfp0123".to_owned(), true)]);
        let mut isolated = made();
        isolated.links[3].isolated = true;
        assert_eq!(vnet_script(&spec, &stamp(), &isolated), [""; 0]);
        // The security group is removed from the subnet.
        assert_eq!(
            vnet_script(&vnet(), &stamp(), &isolated),
            ["link set lfp0123 type bridge_slave isolated off"]
        );
        assert_eq!(
            bridge_sysctls(&vnet().subnets),
            [(format!("conf/{bridge}/proxy_arp_pvlan"), "0")]
        );
    }

    #[test]
    fn a_stamp_bridge_that_was_made_again_takes_its_ports_back() {
        let names = Names::new("a");
        let orphan = LinkSeen {
            name: "lfp1".into(),
            master: None,
            isolated: false,
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
