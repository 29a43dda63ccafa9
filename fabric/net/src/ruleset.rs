//! nftables rulesets: the permitted traffic of stamps and VNETs.
//!
//! Each ruleset replaces its own table in one transaction and touches no other, so that a host keeps its own rules.

use std::{collections::BTreeSet, net::Ipv4Addr};

use fabric_api::{NetworkSpec, StampNetwork, Uplink};
use ipnet::Ipv4Net;

use crate::{
    Names, UPLINK, balancer, filter::chains, names::BRIDGE_PREFIX, set::set, subnet_bridge, vnet::peers,
};

/// Properties of the host that a stamp's rules depend on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The service's TCP port at the stamp's gateway address: the only port of the host that machines reach.
    pub service_port: u16,
    /// Name servers in machines' resolver configuration. Those in the host's own networks are reachable at
    /// port 53 only.
    pub name_servers: Vec<Ipv4Addr>,
    /// The host's own networks ([`private_ranges`]): unreachable.
    pub private: Vec<Ipv4Net>,
    /// Exceptions permitted by the operator, which may include the host's own addresses.
    pub allow: Vec<Ipv4Net>,
}

/// Link-local addresses with cloud metadata, Azure's host address, and the pool of all stamps' networks.
const NEVER: &[&str] = &["100.64.0.0/10", "168.63.129.16/32", "169.254.0.0/16"];

/// The private (RFC 1918) destinations of a host's routes: its own networks. Default routes do not count.
pub fn private_ranges(destinations: &[Ipv4Net]) -> Vec<Ipv4Net> {
    let private = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]
        .map(|range| range.parse::<Ipv4Net>().expect("a constant that parses"));
    let mut found = Vec::new();
    for destination in destinations.iter().filter(|range| range.prefix_len() > 0) {
        for range in private {
            if range.contains(destination) {
                found.push(*destination);
            } else if destination.contains(&range) {
                found.push(range);
            }
        }
    }
    Ipv4Net::aggregate(&found)
}

/// The host's rules for a stamp, for `nft -f -`.
///
/// Always: stamps do not reach each other; the service's address is reachable from the stamp and the host
/// only; machines reach one port of the host; machines and uplinks are not reachable from outside; no IPv6.
/// Without an uplink nothing is forwarded to or from the stamp. With one, outbound traffic is translated to
/// the host's address, cloud metadata and the host's own networks are unreachable, and VIPs are reachable
/// from networks that route the range to this host.
pub fn stamp_ruleset(names: &Names, network: &StampNetwork, around: &Surroundings) -> String {
    let (table, bridge, gateway) = (names.table(), names.bridge(), network.gateway());
    let uplink = network.uplink == Uplink::Host;
    let dns = (uplink && !around.name_servers.is_empty()).then(|| {
        let servers = set(&around.name_servers);
        format!("ip daddr {servers} meta l4proto {{ tcp, udp }} th dport 53 accept")
    });
    let allow =
        (uplink && !around.allow.is_empty()).then(|| format!("ip daddr {} accept", set(&around.allow)));
    let mut lines = vec![
        // Declared first, because deleting a missing table is an error.
        format!("table inet {table}"),
        format!("delete table inet {table}"),
        format!("table inet {table} {{"),
        "chain input {".into(),
        "type filter hook input priority filter - 5; policy accept;".into(),
        format!("iifname != {{ \"{bridge}\", \"lo\" }} ip daddr {gateway} drop"),
        format!("iifname != \"{bridge}\" accept"),
        "meta nfproto ipv6 drop".into(),
        "ct state established,related accept".into(),
        "ct state invalid drop".into(),
        format!("ip daddr {gateway} ip protocol icmp accept"),
        format!("ip daddr {gateway} tcp dport {} accept", around.service_port),
    ];
    lines.extend(dns.iter().chain(&allow).cloned());
    lines.extend([
        "drop".into(),
        "}".into(),
        "chain forward {".into(),
        "type filter hook forward priority filter - 5; policy accept;".into(),
        format!("iifname != \"{bridge}\" oifname != \"{bridge}\" accept"),
        format!("iifname \"{bridge}\" oifname \"{bridge}\" accept"),
    ]);
    if uplink {
        lines.extend([
            "meta nfproto ipv6 drop".into(),
            "ct state established,related accept".into(),
            "ct state invalid drop".into(),
            // Both directions between stamps, so that either stamp's table drops it.
            format!("iifname \"{BRIDGE_PREFIX}*\" oifname \"{BRIDGE_PREFIX}*\" drop"),
        ]);
        for exception in dns.iter().chain(&allow) {
            lines.push(format!("iifname \"{bridge}\" {exception}"));
        }
        let never = NEVER
            .iter()
            .map(|range| range.parse().expect("a constant that parses"));
        let never: Vec<Ipv4Net> = never.chain(around.private.iter().copied()).collect();
        lines.extend([
            format!(
                "iifname \"{bridge}\" ip daddr {} drop",
                set(&Ipv4Net::aggregate(&never))
            ),
            format!("iifname \"{bridge}\" accept"),
            format!("ip daddr {} accept", network.vips()),
        ]);
    }
    lines.extend(["drop".into(), "}".into()]);
    if uplink {
        lines.extend([
            "chain postrouting {".into(),
            "type nat hook postrouting priority srcnat; policy accept;".into(),
            format!(
                "ip saddr {} oifname != {{ \"{bridge}\", \"lo\" }} masquerade",
                network.range
            ),
            "}".into(),
        ]);
    }
    lines.push("}".into());
    lines.join("\n") + "\n"
}

/// The rules inside a VNET's namespace, for `nft -f -` run there.
///
/// Outbound traffic is translated to the VNET's uplink address, and traffic that cannot be translated is
/// dropped; only answers enter by the uplink. Exceptions are other networks of the same VNET, whose addresses
/// pass untranslated where routes to them exist, and balancers, whose traffic is redirected to their
/// machines. Subnets with a filter have additional chains, which see the machine as the destination. Subnets
/// that serve at a few ports only are closed to all others. In a network that nothing leaves
/// ([`NetworkSpec::egress`]) new connections out of it are refused.
///
/// Between machines, packets of connections that are not known pass: a machine's packets to a pod of another
/// machine come by here, and the answers do not. Only what leaves by the uplink or enters a subnet that is
/// closed takes the same way back.
///
/// `name_servers`: those in machines' resolver configuration.
pub fn vnet_ruleset(network: &NetworkSpec, name_servers: &[Ipv4Addr]) -> String {
    let (uplink, filters) = (network.uplink, chains(network, name_servers));
    let peers: Vec<Ipv4Addr> = peers(network).map(|route| route.to.addr()).collect();
    let kept_in = kept_in(network, name_servers, &peers);
    let (mut come, mut go) = (String::new(), String::new());
    if !peers.is_empty() {
        let (peers, own) = (set(&peers), set(&network.address_space));
        come = format!("ip saddr {peers} ip daddr {own} accept\n");
        go = format!("oifname \"{UPLINK}\" ip daddr {peers} ip saddr {own} accept\n");
    }
    let Closed {
        jumps: closed,
        chains: served,
    } = closed(network);
    let balancer::Rules {
        input,
        forward,
        postrouting,
        translated,
        chains: balancers,
    } = balancer::rules(network, &peers);
    format!(
        r#"table inet landfall
delete table inet landfall
table inet landfall {{
chain input {{
type filter hook input priority filter; policy accept;
{input}iifname != "{UPLINK}" accept
ct state established,related accept
drop
}}
chain forward {{
type filter hook forward priority filter; policy accept;
{closed}oifname "{UPLINK}" ct state invalid drop
{kept_in}iifname != "{UPLINK}" accept
ct state established,related accept
{come}{forward}drop
}}
chain postrouting {{
type nat hook postrouting priority srcnat; policy accept;
{go}{postrouting}oifname "{UPLINK}" meta nfproto ipv4 ip saddr != {uplink} snat ip to {uplink}
}}
chain translated {{
type filter hook postrouting priority srcnat + 10; policy accept;
{go}{translated}oifname "{UPLINK}" meta nfproto ipv4 ip saddr != {uplink} drop
}}
{balancers}{filters}{served}}}
"#
    )
}

/// The rules for subnets that serve at a few ports only.
struct Closed {
    /// In the forward chain, before everything else.
    jumps: String,
    chains: String,
}

fn closed(network: &NetworkSpec) -> Closed {
    let (mut jumps, mut chains) = (String::new(), String::new());
    for subnet in &network.subnets {
        let Some(ports) = &subnet.serves else { continue };
        let bridge = subnet_bridge(&subnet.name);
        // Frames between machines of the subnet come by here where br_netfilter is loaded.
        jumps += &format!("iifname != \"{bridge}\" oifname \"{bridge}\" jump {bridge}_serves\n");
        let open = if ports.is_empty() {
            String::new()
        } else {
            format!("tcp dport {} return\n", set(ports))
        };
        chains += &format!(
            "chain {bridge}_serves {{\nct state established,related return\nct state invalid drop\n{open}drop\n}}\n"
        );
    }
    Closed { jumps, chains }
}

/// Compares rules with their text under review, `src/ruleset/{name}.nft`. `BLESS=1` writes the current text.
#[cfg(test)]
pub(crate) fn as_reviewed(name: &str, text: &str) {
    // A test runs in its crate's folder; the compile-time path may be another checkout.
    let golden = std::path::PathBuf::from(format!("src/ruleset/{name}.nft"));
    if std::env::var_os("BLESS").is_some() {
        std::fs::create_dir_all("src/ruleset").expect("the crate's folder can be written to");
        std::fs::write(&golden, text).expect("the crate's folder can be written to");
    }
    let reviewed = std::fs::read_to_string(&golden).unwrap_or_default();
    assert_eq!(reviewed, text, "{name}");
}

/// The lines of a network that nothing leaves, before what is inside may go anywhere; empty in any other. Refused at once, so
/// that nobody waits.
fn kept_in(network: &NetworkSpec, name_servers: &[Ipv4Addr], peers: &[Ipv4Addr]) -> String {
    let Some(egress) = &network.egress else {
        return String::new();
    };
    let reached: BTreeSet<Ipv4Addr> = egress.iter().chain(peers).copied().collect();
    let reached: Vec<Ipv4Addr> = reached.into_iter().collect();
    let mut servers = name_servers.to_vec();
    servers.sort_unstable();
    servers.dedup();
    let mut text = String::new();
    if !servers.is_empty() {
        let servers = set(&servers);
        text = format!(
            "oifname \"{UPLINK}\" ip daddr {servers} meta l4proto {{ tcp, udp }} th dport 53 accept\n"
        );
    }
    let elsewhere = if reached.is_empty() {
        String::new()
    } else {
        format!("ip daddr != {} ", set(&reached))
    };
    text + &format!("oifname \"{UPLINK}\" ct state new {elsewhere}reject with icmp admin-prohibited\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(uplink: Uplink) -> StampNetwork {
        StampNetwork {
            range: "100.64.16.0/20".parse().unwrap(),
            uplink,
        }
    }

    fn around() -> Surroundings {
        Surroundings {
            service_port: 7443,
            name_servers: vec!["192.168.1.1".parse().unwrap()],
            private: vec!["192.168.1.0/24".parse().unwrap(), "10.0.0.0/8".parse().unwrap()],
            allow: vec!["10.1.2.3/32".parse().unwrap()],
        }
    }

    fn filter_rule(
        allow: bool,
        protocol: &str,
        from: &[&str],
        to: &[&str],
        ports: Option<(u16, u16)>,
    ) -> serde_json::Value {
        let range = |(first, last): (u16, u16)| serde_json::json!([{ "first": first, "last": last }]);
        serde_json::json!({
            "allow": allow, "protocol": protocol, "from": from, "from_ports": range((0, u16::MAX)),
            "to": to, "to_ports": range(ports.unwrap_or((0, u16::MAX))),
        })
    }

    /// The rules protect the host: each change shows as a change of the text.
    #[test]
    fn rules_are_as_they_were_reviewed() {
        let names = Names::new("a");
        let vnet: NetworkSpec = serde_json::from_value(serde_json::json!({
            "id": "na", "address_space": ["10.224.0.0/12"], "subnets": [], "reserved": [], "routes": [], "uplink": "100.64.16.10"
        }))
        .unwrap();
        let mut shared = vnet.clone();
        shared.address_space.push("10.1.0.0/16".parse().unwrap());
        shared.routes.push(fabric_api::RouteSpec {
            to: "10.1.0.5/32".parse().unwrap(),
            via: "100.64.16.12".parse().unwrap(),
        });
        let filtered: NetworkSpec = serde_json::from_value(serde_json::json!({
            "id": "na", "address_space": ["10.1.0.0/16"], "reserved": [], "routes": [], "uplink": "100.64.16.10",
            "subnets": [
                { "name": "nodes-10-1-0-0-24", "range": "10.1.0.0/24", "gateway": "10.1.0.1", "filter": {
                    "inbound": [
                        filter_rule(true, "any", &["172.30.0.0/16"], &["0.0.0.0/0"], None),
                        filter_rule(false, "tcp", &["10.1.0.0/16"], &["10.1.0.4/32", "10.1.0.8/29"], Some((8000, 8080))),
                        filter_rule(true, "any", &["10.1.0.0/16"], &["10.1.0.0/16"], None),
                        filter_rule(false, "any", &["0.0.0.0/0"], &["0.0.0.0/0"], None),
                    ],
                    "outbound": [
                        filter_rule(true, "any", &["0.0.0.0/0"], &["100.64.24.1/32", "172.30.0.0/16"], None),
                        filter_rule(false, "any", &["0.0.0.0/0"], &["0.0.0.0/0"], Some((25, 25))),
                        filter_rule(true, "any", &["0.0.0.0/0"], &["0.0.0.0/0"], None),
                    ],
                } },
                { "name": "control-plane", "range": "172.30.0.0/16", "gateway": "172.30.0.1" },
            ],
        }))
        .unwrap();
        let balanced: NetworkSpec = serde_json::from_value(serde_json::json!({
            "id": "na", "address_space": ["10.1.0.0/16"], "reserved": ["10.244.0.0/16"], "uplink": "100.64.16.10",
            "subnets": [
                { "name": "nodes", "range": "10.1.0.0/24", "gateway": "10.1.0.1" },
                { "name": "filtered", "range": "10.1.1.0/24", "gateway": "10.1.1.1", "filter": {
                    "inbound": [filter_rule(true, "tcp", &["0.0.0.0/0"], &["0.0.0.0/0"], Some((30443, 30443)))],
                    "outbound": [filter_rule(true, "any", &["0.0.0.0/0"], &["0.0.0.0/0"], None)],
                } },
            ],
            "routes": [{ "to": "10.244.0.0/24", "via": "10.1.0.4" }, { "to": "10.244.1.0/24", "via": "10.1.1.4" }],
            "balancers": [
                { "address": "100.64.24.5", "side": "stamp", "ports": [
                    { "protocol": "tcp", "port": 80, "target": 30080, "machines": ["10.1.0.4", "10.1.0.5"] },
                    { "protocol": "tcp", "port": 81, "target": 30081, "machines": [] },
                    { "protocol": "udp", "port": 53, "target": 30053, "machines": ["10.1.0.4"] },
                    { "protocol": "udp", "port": 54, "target": 30054, "machines": [] },
                ] },
                { "address": "100.64.24.6", "side": "stamp", "sources": ["10.0.0.0/8", "10.1.0.0/16", "100.64.16.0/20"], "ports": [
                    { "protocol": "tcp", "port": 443, "target": 30443, "machines": ["10.1.0.4", "10.1.1.4"], "sticky": true },
                ] },
                { "address": "10.1.0.250", "side": "subnet", "ports": [
                    { "protocol": "tcp", "port": 80, "target": 30080, "machines": ["10.1.0.4", "10.1.0.5"] },
                ] },
            ],
        }))
        .unwrap();
        let mut closed = vnet.clone();
        closed.subnets = serde_json::from_value(serde_json::json!([
            { "name": "nodes", "range": "10.224.0.0/16", "gateway": "10.224.0.1" },
            { "name": "control-plane", "range": "10.239.255.240/28", "gateway": "10.239.255.241", "serves": [443] },
        ]))
        .unwrap();
        let bare = Surroundings {
            service_port: 7443,
            ..Surroundings::default()
        };
        for (name, text) in [
            (
                "stamp-uplink-none",
                stamp_ruleset(&names, &stamp(Uplink::None), &around()),
            ),
            (
                "stamp-uplink-host",
                stamp_ruleset(&names, &stamp(Uplink::Host), &around()),
            ),
            (
                "stamp-uplink-host-bare",
                stamp_ruleset(&names, &stamp(Uplink::Host), &bare),
            ),
            ("vnet", vnet_ruleset(&vnet, &around().name_servers)),
            ("vnet-shared", vnet_ruleset(&shared, &around().name_servers)),
            ("vnet-filters", vnet_ruleset(&filtered, &around().name_servers)),
            ("vnet-balancers", vnet_ruleset(&balanced, &[])),
            ("vnet-closed", vnet_ruleset(&closed, &[])),
        ] {
            as_reviewed(name, &text);
        }
    }

    #[test]
    fn a_network_that_nothing_leaves_lets_out_what_it_needs_and_nothing_else() {
        let mut spec: NetworkSpec = serde_json::from_value(serde_json::json!({
            "id": "na", "address_space": ["10.1.0.0/16"], "reserved": [], "uplink": "100.64.16.10",
            "subnets": [{ "name": "nodes", "range": "10.1.0.0/24", "gateway": "10.1.0.1" }], "routes": [],
        }))
        .unwrap();
        let open = vnet_ruleset(&spec, &around().name_servers);
        assert!(!open.contains("admin-prohibited"));
        spec.egress = Some(vec![
            "100.64.24.1".parse().unwrap(),
            "100.64.16.1".parse().unwrap(),
        ]);
        let lines = "oifname \"uplink\" ct state invalid drop\n\
             oifname \"uplink\" ip daddr { 192.168.1.1 } meta l4proto { tcp, udp } th dport 53 accept\n\
             oifname \"uplink\" ct state new ip daddr != { 100.64.16.1, 100.64.24.1 } reject with icmp admin-prohibited\n\
             iifname != \"uplink\" accept\n";
        let text = vnet_ruleset(&spec, &around().name_servers);
        assert!(text.contains(lines), "{text}");
        // Nobody but itself.
        spec.egress = Some(Vec::new());
        let alone = vnet_ruleset(&spec, &[]);
        let line = "oifname \"uplink\" ct state new reject with icmp admin-prohibited\n";
        assert!(alone.contains(line), "{alone}");
        // Another network of the same VNET is no outside.
        spec.routes.push(fabric_api::RouteSpec {
            to: "10.1.0.5/32".parse().unwrap(),
            via: "100.64.16.12".parse().unwrap(),
        });
        let shared = vnet_ruleset(&spec, &[]);
        assert!(
            shared.contains("ct state new ip daddr != { 10.1.0.5 } reject"),
            "{shared}"
        );
    }

    #[test]
    fn private_networks_of_the_host_are_found() {
        let ranges =
            |texts: &[&str]| -> Vec<Ipv4Net> { texts.iter().map(|text| text.parse().unwrap()).collect() };
        let seen = ranges(&[
            "0.0.0.0/0",
            "192.168.1.0/24",
            "192.168.1.7/32",
            "10.0.0.0/7",
            "172.17.0.0/16",
            "203.0.113.0/24",
            "100.64.16.0/20",
        ]);
        assert_eq!(
            private_ranges(&seen),
            ranges(&["10.0.0.0/8", "172.17.0.0/16", "192.168.1.0/24"])
        );
        assert_eq!(private_ranges(&ranges(&["0.0.0.0/0"])), []);
    }

    #[test]
    fn a_ruleset_names_no_table_but_its_own() {
        let names = Names::new("a");
        for line in stamp_ruleset(&names, &stamp(Uplink::Host), &around()).lines() {
            assert!(!line.contains("table") || line.contains(&names.table()), "{line}");
            assert!(!line.contains("flush"), "{line}");
        }
    }
}
