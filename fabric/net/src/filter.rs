//! Filters of subnets as chains of the table of a VNET's namespace.

use std::net::Ipv4Addr;

use fabric_api::{Filter, FilterRule, NetworkSpec, PortRange, Protocol};
use ipnet::Ipv4Net;

use crate::{set::set, subnet_bridge};

/// The chains; empty if no subnet has a filter. `name_servers`: reachable at port 53 from every machine,
/// whatever its subnet's rules are.
///
/// These chains run before the other rules for forwarded packets, and permit no more than those: `accept`
/// ends only these chains. A connection is checked twice: when it leaves one subnet and when it enters the
/// other, which may be the same.
pub(crate) fn chains(network: &NetworkSpec, name_servers: &[Ipv4Addr]) -> String {
    let filters: Vec<(String, &Filter)> = network
        .subnets
        .iter()
        .filter_map(|subnet| Some((subnet_bridge(&subnet.name), subnet.filter.as_ref()?)))
        .collect();
    if filters.is_empty() {
        return String::new();
    }
    let mut lines = vec![
        "chain filters {".to_owned(),
        "type filter hook forward priority filter - 10; policy accept;".to_owned(),
        "ct state established,related accept".to_owned(),
    ];
    for (bridge, _) in &filters {
        lines.push(format!("iifname \"{bridge}\" jump {bridge}_out"));
    }
    for (bridge, _) in &filters {
        lines.push(format!("oifname \"{bridge}\" jump {bridge}_in"));
    }
    lines.push("}".to_owned());
    let mut servers = name_servers.to_vec();
    servers.sort_unstable();
    servers.dedup();
    for (bridge, filter) in &filters {
        lines.push(format!("chain {bridge}_out {{"));
        if !servers.is_empty() {
            lines.push(format!(
                "ip daddr {} meta l4proto {{ tcp, udp }} th dport 53 return",
                set(&servers)
            ));
        }
        decide(&filter.outbound, &mut lines);
        lines.push(format!("}}\nchain {bridge}_in {{"));
        decide(&filter.inbound, &mut lines);
        lines.push("}".to_owned());
    }
    lines.join("\n") + "\n"
}

/// Permitted packets return to the calling chain; others are dropped.
fn decide(rules: &[FilterRule], lines: &mut Vec<String>) {
    for rule in rules {
        let Some(conditions) = conditions(rule) else {
            continue;
        };
        let verdict = if rule.allow { "return" } else { "drop" };
        let everything = conditions.is_empty();
        lines.push(format!("{conditions}{verdict}"));
        if everything {
            return;
        }
    }
    lines.push("drop".to_owned());
}

/// The match of a rule; `None`: it matches nothing.
fn conditions(rule: &FilterRule) -> Option<String> {
    let mut text = String::new();
    for (side, ranges) in [("saddr", &rule.from), ("daddr", &rule.to)] {
        if ranges.is_empty() {
            return None;
        }
        if !ranges.contains(&Ipv4Net::default()) {
            text += &format!("ip {side} {} ", set(ranges));
        }
    }
    let ports = [("sport", &rule.from_ports), ("dport", &rule.to_ports)];
    let limited = |ports: &[PortRange]| !ports.contains(&PortRange::ALL);
    let protocol = match rule.protocol {
        Protocol::Any if ports.iter().any(|(_, ports)| limited(ports)) => Some("{ tcp, udp }"),
        Protocol::Any => None,
        Protocol::Tcp => Some("tcp"),
        Protocol::Udp => Some("udp"),
        Protocol::Icmp => Some("icmp"),
        Protocol::Esp => Some("esp"),
        Protocol::Ah => Some("ah"),
    };
    if let Some(protocol) = protocol {
        text += &format!("meta l4proto {protocol} ");
    }
    if matches!(rule.protocol, Protocol::Any | Protocol::Tcp | Protocol::Udp) {
        for (side, ranges) in ports {
            if ranges.is_empty() {
                return None;
            }
            if limited(ranges) {
                let ranges: Vec<String> = ranges.iter().map(port_range).collect();
                text += &format!("th {side} {} ", set(&ranges));
            }
        }
    }
    Some(text)
}

fn port_range(range: &PortRange) -> String {
    if range.first == range.last {
        range.first.to_string()
    } else {
        format!("{}-{}", range.first, range.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(protocol: Protocol, to: &[&str], ports: &[(u16, u16)]) -> FilterRule {
        let to = to.iter().map(|text| text.parse().unwrap()).collect();
        FilterRule {
            protocol,
            to_ports: ports
                .iter()
                .map(|(first, last)| PortRange {
                    first: *first,
                    last: *last,
                })
                .collect(),
            ..FilterRule::allow(vec![Ipv4Net::default()], to)
        }
    }

    #[test]
    fn a_rule_applies_where_all_of_it_does() {
        let any: &[(u16, u16)] = &[(0, 65535)];
        for (rule, expected) in [
            (rule(Protocol::Any, &["0.0.0.0/0"], any), Some("")),
            (
                rule(Protocol::Any, &["10.1.0.0/16", "10.3.0.0/16"], any),
                Some("ip daddr { 10.1.0.0/16, 10.3.0.0/16 } "),
            ),
            (
                rule(Protocol::Any, &["0.0.0.0/0"], &[(80, 80), (8000, 8080)]),
                Some("meta l4proto { tcp, udp } th dport { 80, 8000-8080 } "),
            ),
            (
                rule(Protocol::Udp, &["10.1.0.4/32"], &[(53, 53)]),
                Some("ip daddr { 10.1.0.4/32 } meta l4proto udp th dport { 53 } "),
            ),
            // A protocol without ports: `az network nsg rule create` sets port 80 all the same.
            (
                rule(Protocol::Icmp, &["0.0.0.0/0"], &[(80, 80)]),
                Some("meta l4proto icmp "),
            ),
            (rule(Protocol::Tcp, &[], any), None),
            (rule(Protocol::Tcp, &["0.0.0.0/0"], &[]), None),
        ] {
            assert_eq!(conditions(&rule).as_deref(), expected, "{rule:?}");
        }
    }

    #[test]
    fn what_no_rule_is_about_does_not_pass() {
        let lines = |rules: &[FilterRule]| {
            let mut lines = Vec::new();
            decide(rules, &mut lines);
            lines
        };
        assert_eq!(lines(&[]), ["drop"]);
        let all = rule(Protocol::Any, &["0.0.0.0/0"], &[(0, 65535)]);
        let icmp = rule(Protocol::Icmp, &["0.0.0.0/0"], &[]);
        assert_eq!(
            lines(std::slice::from_ref(&icmp)),
            ["meta l4proto icmp return", "drop"]
        );
        let denied = FilterRule {
            allow: false,
            ..all.clone()
        };
        // No rule after one for all traffic is reachable.
        assert_eq!(lines(&[denied, icmp]), ["drop"]);
        assert_eq!(lines(&[all]), ["return"]);
    }
}
