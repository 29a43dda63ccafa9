//! Rules of bridge ports: what machines may send ([`Sending`]).
//!
//! A table of the family `bridge` has a chain for each machine's port and is replaced as a whole. Frames that
//! come in by other ports, such as those of VNET uplinks, pass: what is behind them is not a machine.
//!
//! Rules go by names of ports, so they may be set before a port exists and stay when it goes.

use std::net::Ipv4Addr;

use fabric_api::{Attach, MachineSpec, NetworkSpec, NicSpec, Sending, StampNetwork};
use ipnet::Ipv4Net;

use crate::{Names, card_mac, set::set};

/// A network, as its ports' rules see it.
struct Place {
    /// The table of its rules.
    table: String,
    /// The addresses that belong to the network: nobody sends from one that is not his own.
    space: Vec<Ipv4Net>,
    /// What is on its bridges: the router's address in a range, and the range.
    links: Vec<(Ipv4Addr, Ipv4Net)>,
}

/// The rules for machines in the stamp's own network, for `nft -f -` on the host.
pub fn stamp_ports_ruleset(names: &Names, network: &StampNetwork, machines: &[MachineSpec]) -> String {
    let place = Place {
        table: names.table(),
        space: vec![network.range],
        links: vec![(network.gateway(), network.range)],
    };
    let ports = ports(names, machines, |attach| *attach == Attach::Stamp);
    ruleset(&place, &ports)
}

/// The rules for machines in a VNET, for `nft -f -` in its namespace.
pub fn vnet_ports_ruleset(names: &Names, spec: &NetworkSpec, machines: &[MachineSpec]) -> String {
    let subnets = spec.subnets.iter();
    let links: Vec<(Ipv4Addr, Ipv4Net)> = subnets
        .map(|subnet| (subnet.gateway, subnet.range.trunc()))
        .collect();
    let space: Vec<Ipv4Net> = spec
        .address_space
        .iter()
        .copied()
        .chain(links.iter().map(|(_, range)| *range))
        .collect();
    let place = Place {
        table: "landfall".to_owned(),
        space: Ipv4Net::aggregate(&space),
        links,
    };
    let ports = ports(
        names,
        machines,
        |attach| matches!(attach, Attach::Subnet { network, .. } if *network == spec.id),
    );
    ruleset(&place, &ports)
}

/// The ports of machines in one network, with their interfaces, in order of their names.
fn ports<'m>(
    names: &Names,
    machines: &'m [MachineSpec],
    is_in: impl Fn(&Attach) -> bool,
) -> Vec<(String, &'m NicSpec)> {
    let mut ports = Vec::new();
    for machine in machines {
        for card in machine.nics.iter().filter(|card| is_in(&card.attach)) {
            ports.push((names.port(&machine.id, &card.name), card));
        }
    }
    ports.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    ports
}

fn ruleset(place: &Place, ports: &[(String, &NicSpec)]) -> String {
    let table = &place.table;
    let mut lines = vec![
        // Declared first, because deleting a missing table is an error.
        format!("table bridge {table}"),
        format!("delete table bridge {table}"),
        format!("table bridge {table} {{"),
        "chain ports {".to_owned(),
        "type filter hook prerouting priority -300; policy accept;".to_owned(),
    ];
    if !ports.is_empty() {
        let chains: Vec<String> = ports
            .iter()
            .map(|(port, _)| format!("\"{port}\" : goto {port}"))
            .collect();
        lines.push(format!("iifname vmap {}", set(&chains)));
    }
    lines.push("}".to_owned());
    for (port, card) in ports {
        lines.push(format!("chain {port} {{"));
        chain(place, card, &mut lines);
        lines.push("}".to_owned());
    }
    lines.push("}".to_owned());
    lines.join("\n") + "\n"
}

/// The rules of one port.
fn chain(place: &Place, card: &NicSpec, lines: &mut Vec<String>) {
    let mac = card_mac(card);
    lines.push(format!("ether saddr != {mac} drop"));
    lines.push(format!("arp saddr ether != {mac} drop"));
    let Some(Sending { from, serves }) = &card.sending else {
        // No IPv6 anywhere: otherwise a machine could advertise itself as a router to the others.
        lines.extend(["ether type ip6 drop", "accept"].map(str::to_owned));
        return;
    };
    let any = Ipv4Net::default();
    let senders: Vec<Ipv4Net> = std::iter::once(card.address.addr())
        .chain(card.extra.iter().copied())
        .map(Ipv4Net::from)
        .chain(from.iter().copied().filter(|range| *range != any))
        .collect();
    // Ranges in a set must not overlap.
    let senders = Ipv4Net::aggregate(&senders);
    // Before a machine uses an address, it asks as 0.0.0.0 whether another one has it.
    let mut asking = vec![Ipv4Net::from(Ipv4Addr::UNSPECIFIED)];
    asking.extend(&senders);
    lines.push(format!("arp saddr ip {} accept", set(&asking)));
    if from.contains(&any) {
        let (senders, space) = (set(&senders), set(&place.space));
        lines.push(format!("arp saddr ip {space} drop"));
        lines.push("ether type arp accept".to_owned());
        lines.push(format!("ip saddr != {senders} ip saddr {space} drop"));
    } else {
        lines.push(format!("ip saddr != {} drop", set(&senders)));
    }
    let mut links = place.links.iter();
    let link = links.find(|(_, range)| range.contains(&card.address.addr()));
    if let (Some(ports), Some((gateway, range))) = (serves, link) {
        lines.push(format!("ip daddr {gateway} accept"));
        if !ports.is_empty() {
            lines.push(format!("ip daddr {range} tcp sport {} accept", set(ports)));
        }
        lines.push(format!("ip daddr {range} ip protocol icmp accept"));
        lines.push(format!("ip daddr {range} drop"));
    }
    lines.extend(["ether type ip accept", "drop"].map(str::to_owned));
}

#[cfg(test)]
mod tests {
    use fabric_api::{MachineId, NetworkId, Uplink};

    use super::*;
    use crate::ruleset::as_reviewed;

    fn stamp() -> StampNetwork {
        StampNetwork {
            range: "100.64.16.0/20".parse().unwrap(),
            uplink: Uplink::None,
        }
    }

    fn vnet() -> NetworkSpec {
        serde_json::from_value(serde_json::json!({
            "id": "na", "address_space": ["10.224.0.0/12"], "reserved": [], "routes": [], "uplink": "100.64.16.10",
            "subnets": [
                { "name": "nodes", "range": "10.224.0.0/16", "gateway": "10.224.0.1" },
                { "name": "control-plane", "range": "172.30.0.0/28", "gateway": "172.30.0.1" },
            ],
        }))
        .unwrap()
    }

    fn machine(id: &str, nics: Vec<NicSpec>) -> MachineSpec {
        MachineSpec {
            id: MachineId::from(id),
            hostname: id.to_owned(),
            image: "1.36.3".to_owned(),
            cpu_millis: 1000,
            memory_mib: 512,
            disk_gib: None,
            nics,
            seed_files: Default::default(),
            labels: Default::default(),
        }
    }

    fn card(address: &str, subnet: Option<(&str, &str)>, sending: Option<Sending>) -> NicSpec {
        NicSpec {
            name: "eth0".to_owned(),
            attach: subnet.map_or(Attach::Stamp, |(network, subnet)| Attach::Subnet {
                network: NetworkId::from(network),
                subnet: subnet.to_owned(),
            }),
            address: address.parse().unwrap(),
            extra: Vec::new(),
            gateway: None,
            routes: Vec::new(),
            sending,
        }
    }

    fn ranges(texts: &[&str]) -> Vec<Ipv4Net> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// A member with a VIP of its own, and one that a VIP may move to; the first one's second card.
    fn members() -> [MachineSpec; 2] {
        let serving = Sending {
            from: ranges(&["100.64.24.3/32"]),
            serves: Some(vec![443]),
        };
        let mut first = card(
            "100.64.16.7/20",
            None,
            Some(Sending {
                from: Vec::new(),
                ..serving.clone()
            }),
        );
        first.extra = vec!["100.64.24.3".parse().unwrap()];
        let mut inside = card(
            "172.30.0.4/28",
            Some(("na", "control-plane")),
            Some(Sending::default()),
        );
        inside.name = "eth1".to_owned();
        [
            machine("cp1", vec![first, inside]),
            machine("cp2", vec![card("100.64.16.8/20", None, Some(serving))]),
        ]
    }

    #[test]
    fn rules_are_as_they_were_reviewed() {
        let names = Names::new("a");
        let node = |id: &str, address: &str, sending| {
            machine(id, vec![card(address, Some(("na", "nodes")), sending)])
        };
        let mut machines = vec![
            node(
                "n1",
                "10.224.0.4/16",
                Some(Sending::of(ranges(&["10.244.7.0/24"]))),
            ),
            // Pods with addresses of the subnet, the node's own among them.
            node(
                "n2",
                "10.224.0.5/16",
                Some(Sending::of(ranges(&["10.224.1.64/27"]))),
            ),
            // The plugin is the tenant's.
            node("n3", "10.224.0.6/16", Some(Sending::of(ranges(&["0.0.0.0/0"])))),
            // Made by an earlier release.
            node("n4", "10.224.0.7/16", None),
            machine("o1", vec![card("10.224.0.4/16", Some(("nb", "nodes")), None)]),
        ];
        machines.extend(members());
        as_reviewed("stamp-ports", &stamp_ports_ruleset(&names, &stamp(), &machines));
        as_reviewed("vnet-ports", &vnet_ports_ruleset(&names, &vnet(), &machines));
        as_reviewed("vnet-no-ports", &vnet_ports_ruleset(&names, &vnet(), &[]));
    }

    #[test]
    fn each_port_has_one_chain_and_none_passes_what_is_not_its_own() {
        let names = Names::new("a");
        let text = stamp_ports_ruleset(&names, &stamp(), &members());
        for machine in members() {
            let port = names.port(&machine.id, "eth0");
            assert_eq!(
                text.matches(&format!("\"{port}\" : goto {port}")).count(),
                1,
                "{text}"
            );
            let chain = text.split(&format!("chain {port} {{\n")).nth(1).unwrap();
            let chain = &chain[..chain.find("\n}").unwrap()];
            assert!(chain.starts_with("ether saddr != "), "{chain}");
            assert!(chain.ends_with("drop"), "{chain}");
            assert!(!chain.lines().any(|rule| rule == "accept"), "{chain}");
        }
        assert!(!text.contains("flush"));
    }

    #[test]
    fn specifications_of_earlier_releases_are_read_and_written_as_they_were() {
        let text = r#"{"name":"eth0","attach":"stamp","address":"100.64.16.7/20","extra":[],"gateway":null,"routes":[]}"#;
        let old: NicSpec = serde_json::from_str(text).unwrap();
        assert_eq!(old.sending, None);
        assert_eq!(serde_json::to_string(&old).unwrap(), text);
        let new = NicSpec {
            sending: Some(Sending::of(ranges(&["10.244.7.0/24"]))),
            ..old
        };
        let text = serde_json::to_string(&new).unwrap();
        assert!(
            text.ends_with(r#""sending":{"from":["10.244.7.0/24"]}}"#),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<NicSpec>(&text).unwrap(), new);
    }
}
