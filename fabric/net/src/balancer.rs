//! Balancers as rules of the table of a VNET's namespace.
//!
//! Always true: the target of a connection is decided with its first packet, by a chain of type `nat`; the
//! kernel's connection tracking keeps it through every change of the rules. A VNET without balancers has none
//! of these rules. Targets see the client's address, unless their answers would not return through the router.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use fabric_api::{BalancedPort, Balancer, NetworkSpec, Protocol, Side, SubnetSpec};
use ipnet::Ipv4Net;

use crate::{UPLINK, set::set};

/// Number of slots for the clients of a sticky port, each assigned to one machine: of a few machines, none
/// gets more than about a tenth more than another.
const SLOTS: u64 = 256;

/// Lines for the chains that every VNET has, and additional chains. Each ends with a line break, or is empty.
#[derive(Default)]
pub(crate) struct Rules {
    /// Before the other rules for traffic to the router itself.
    pub(crate) input: String,
    /// Permitted traffic that enters by the uplink.
    pub(crate) forward: String,
    /// Before outbound traffic is translated.
    pub(crate) postrouting: String,
    /// Traffic that leaves by the uplink with another source address than the uplink's.
    pub(crate) translated: String,
    /// Additional chains.
    pub(crate) chains: String,
}

/// The rules. `peers`: addresses of the VNET behind other routers.
pub(crate) fn rules(network: &NetworkSpec, peers: &[Ipv4Addr]) -> Rules {
    if network.balancers.is_empty() {
        return Rules::default();
    }
    let (mut forward, mut translated) = (String::new(), String::new());
    let outside = addresses(network, Side::Stamp);
    if !outside.is_empty() {
        let outside = set(&outside);
        // Also connections to a machine that has not answered yet, whatever the current targets are. Only
        // these chains change a destination.
        forward = format!("ct status dnat ct original ip daddr {outside} accept\n");
        // Answers have the balancer's address. Machines cannot use it for new connections: those are not
        // answers.
        translated = format!("oifname \"{UPLINK}\" ct direction reply ip saddr {outside} accept\n");
    }
    Rules {
        input: refusals(network),
        forward,
        postrouting: detours(network, peers),
        translated,
        chains: chains(network),
    }
}

/// The distinct addresses that are reached from this side.
pub(crate) fn addresses(network: &NetworkSpec, side: Side) -> Vec<Ipv4Addr> {
    let here = network.balancers.iter().filter(|balancer| balancer.side == side);
    let addresses: BTreeSet<Ipv4Addr> = here.map(|balancer| balancer.address).collect();
    addresses.into_iter().collect()
}

/// The nftables name of a balancer's protocol; drivers refuse all others.
fn word(protocol: Protocol) -> Option<&'static str> {
    match protocol {
        Protocol::Tcp => Some("tcp"),
        Protocol::Udp => Some("udp"),
        Protocol::Any | Protocol::Icmp | Protocol::Esp | Protocol::Ah => None,
    }
}

/// All ports, each with its balancer and the name of its protocol.
fn ports(network: &NetworkSpec) -> impl Iterator<Item = (&Balancer, &BalancedPort, &'static str)> {
    network.balancers.iter().flat_map(|balancer| {
        let ports = balancer.ports.iter();
        ports.filter_map(move |port| Some((balancer, port, word(port.protocol)?)))
    })
}

/// Traffic for the router itself at these addresses, which no chain has redirected. A port without machines
/// is refused, so that clients fail at once instead of timing out. Other ports are dropped.
fn refusals(network: &NetworkSpec) -> String {
    let mut refused: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (balancer, port, protocol) in ports(network) {
        if port.machines.is_empty() {
            let at = format!("{} . {}", balancer.address, port.port);
            refused.entry(protocol).or_default().push(at);
        }
    }
    let mut text = String::new();
    for (protocol, at) in &refused {
        let with = if *protocol == "tcp" {
            "tcp reset"
        } else {
            "icmp port-unreachable"
        };
        text += &format!("ip daddr . {protocol} dport {} reject with {with}\n", set(at));
    }
    let all: BTreeSet<Ipv4Addr> = network
        .balancers
        .iter()
        .map(|balancer| balancer.address)
        .collect();
    let all: Vec<Ipv4Addr> = all.into_iter().collect();
    text += &format!("ip daddr {} drop\n", set(&all));
    text
}

/// The chain that finds the port, and a chain for each port that checks sources or has machines.
fn chains(network: &NetworkSpec) -> String {
    let (mut ways, mut text) = (Vec::new(), String::new());
    for (balancer, port, protocol) in ports(network) {
        let sources = Ipv4Net::aggregate(&balancer.sources);
        let limited = !sources.is_empty() && !sources.contains(&Ipv4Net::default());
        if !limited && port.machines.is_empty() {
            continue;
        }
        let chain = format!("lb-{}-{protocol}-{}", balancer.address, port.port);
        ways.push(format!(
            "{} . {protocol} . {} : goto {chain}",
            balancer.address, port.port
        ));
        text += &format!("chain {chain} {{\n");
        if limited {
            text += &format!("ip saddr != {} drop\n", set(&sources));
        }
        if let Some(target) = target(port) {
            // The protocol is known here; nft requires it before a port.
            text += &format!("meta l4proto {protocol} dnat ip to {target}:{}\n", port.target);
        }
        text += "}\n";
    }
    if ways.is_empty() {
        return text;
    }
    let ways = set(&ways);
    format!(
        "chain balancers {{\ntype nat hook prerouting priority dstnat; policy accept;\n\
         ip daddr . meta l4proto . th dport vmap {ways}\n}}\n{text}"
    )
}

/// The expression for a connection's machine; `None` without machines.
fn target(port: &BalancedPort) -> Option<String> {
    let machines: Vec<Ipv4Addr> = port.machines.iter().copied().collect();
    let [first, others @ ..] = machines.as_slice() else {
        return None;
    };
    if others.is_empty() {
        return Some(first.to_string());
    }
    let numbered = |machines: &[Ipv4Addr]| {
        let numbered = machines.iter().enumerate();
        let entries: Vec<String> = numbered
            .map(|(at, machine)| format!("{at} : {machine}"))
            .collect();
        set(&entries)
    };
    if port.sticky {
        // Without an explicit seed, each change of the rules would use another one.
        let slots = numbered(&slots(&machines));
        return Some(format!("jhash ip saddr mod {SLOTS} seed 0x1 map {slots}"));
    }
    let count = machines.len();
    Some(format!("numgen random mod {count} map {}", numbered(&machines)))
}

/// The machine of each slot: the one with the highest weight for it (rendezvous hashing). A machine that
/// leaves gives away only its own slots, one that joins takes slots from all others, and no slot moves
/// between two other machines.
fn slots(machines: &[Ipv4Addr]) -> Vec<Ipv4Addr> {
    let owner = |slot: u64| {
        let machines = machines.iter().copied();
        machines.max_by_key(|machine| (weight(*machine, slot), *machine))
    };
    (0..SLOTS).filter_map(owner).collect()
}

/// A pseudo-random number: the output function of SplitMix64.
fn weight(machine: Ipv4Addr, slot: u64) -> u64 {
    let seed = (u64::from(u32::from(machine)) << 32) | slot;
    let mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// If a machine's answer would reach the client without passing the router, which alone knows the address the
/// client used, the router translates the source address to its own. That is so
/// * between machines on one bridge, unless a filter isolates them, as answers then pass the router anyway;
/// * if the client is the machine itself, or has an address that the machine routes: a pod.
///
/// Machines behind other routers of the same VNET are on other bridges, even if their addresses are of the same
/// subnet.
fn detours(network: &NetworkSpec, peers: &[Ipv4Addr]) -> String {
    let machines: BTreeSet<Ipv4Addr> = ports(network)
        .flat_map(|(_, port, _)| port.machines.iter().copied())
        .collect();
    let elsewhere = if peers.is_empty() {
        String::new()
    } else {
        format!("ip saddr != {} ", set(peers))
    };
    let mut text = String::new();
    for SubnetSpec {
        range,
        gateway,
        filter,
        ..
    } in &network.subnets
    {
        let here: Vec<Ipv4Addr> = machines
            .iter()
            .copied()
            .filter(|machine| range.contains(machine))
            .collect();
        if here.is_empty() {
            continue;
        }
        let mut own: BTreeSet<(Ipv4Net, Ipv4Addr)> = BTreeSet::new();
        if filter.is_some() {
            own.extend(here.iter().map(|machine| (Ipv4Net::from(*machine), *machine)));
        } else {
            let range = range.trunc();
            text += &format!(
                "ct status dnat {elsewhere}ip saddr {range} ip daddr {range} snat ip to {gateway}\n"
            );
        }
        for route in &network.routes {
            if here.contains(&route.via) {
                own.insert((route.to.trunc(), route.via));
            }
        }
        if !own.is_empty() {
            let own: Vec<String> = own.iter().map(|(from, to)| format!("{from} . {to}")).collect();
            text += &format!(
                "ct status dnat ip saddr . ip daddr {} snat ip to {gateway}\n",
                set(&own)
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machines(last: &[u8]) -> Vec<Ipv4Addr> {
        last.iter().map(|last| Ipv4Addr::new(10, 1, 0, *last)).collect()
    }

    #[test]
    fn a_slot_stays_with_its_machine_for_as_long_as_that_is_there() {
        let (four, three) = (slots(&machines(&[4, 5, 6, 7])), slots(&machines(&[4, 5, 7])));
        let gone = Ipv4Addr::new(10, 1, 0, 6);
        for (before, after) in four.iter().zip(&three) {
            assert!(*after != gone && (before == after || *before == gone));
        }
        for (machines, slots) in [(4, &four), (3, &three)] {
            assert_eq!(slots.len(), 256);
            for machine in slots.iter().collect::<BTreeSet<_>>() {
                let share = slots.iter().filter(|other| *other == machine).count() * machines;
                assert!(
                    (190..=322).contains(&share),
                    "{machine}: {share} of {machines} x 256"
                );
            }
        }
    }

    #[test]
    fn one_machine_is_not_chosen_and_none_is_not_asked() {
        let mut port = BalancedPort {
            protocol: Protocol::Tcp,
            port: 80,
            target: 30080,
            machines: BTreeSet::new(),
            sticky: true,
        };
        assert_eq!(target(&port), None);
        port.machines.extend(machines(&[4]));
        assert_eq!(target(&port).as_deref(), Some("10.1.0.4"));
        port.machines.extend(machines(&[5]));
        assert!(
            target(&port)
                .unwrap()
                .starts_with("jhash ip saddr mod 256 seed 0x1 map { 0 : 10.1.0.")
        );
        port.sticky = false;
        assert_eq!(
            target(&port).as_deref(),
            Some("numgen random mod 2 map { 0 : 10.1.0.4, 1 : 10.1.0.5 }")
        );
    }

    fn network(balancers: serde_json::Value) -> NetworkSpec {
        serde_json::from_value(serde_json::json!({
            "id": "na", "address_space": ["10.1.0.0/16"], "reserved": [], "uplink": "100.64.16.10", "balancers": balancers,
            "subnets": [{ "name": "nodes", "range": "10.1.0.0/24", "gateway": "10.1.0.1" }],
            "routes": [{ "to": "10.244.0.0/24", "via": "10.1.0.4" }, { "to": "10.244.1.0/24", "via": "10.1.0.5" }],
        }))
        .unwrap()
    }

    fn balancer(address: &str, side: &str, sources: &[&str], machines: &[&str]) -> serde_json::Value {
        serde_json::json!({ "address": address, "side": side, "sources": sources,
            "ports": [{ "protocol": "tcp", "port": 80, "target": 30080, "machines": machines }] })
    }

    #[test]
    fn nothing_is_there_before_it_is_asked_for() {
        let none = rules(&network(serde_json::json!([])), &[]);
        for text in [
            none.input,
            none.forward,
            none.postrouting,
            none.translated,
            none.chains,
        ] {
            assert_eq!(text, "");
        }
    }

    #[test]
    fn an_address_of_a_subnet_opens_nothing_to_the_outside() {
        let made = rules(
            &network(serde_json::json!([balancer(
                "10.1.0.250",
                "subnet",
                &[],
                &["10.1.0.4"]
            )])),
            &[],
        );
        assert_eq!((made.forward.as_str(), made.translated.as_str()), ("", ""));
        assert!(
            made.chains.contains("dnat ip to 10.1.0.4:30080\n"),
            "{}",
            made.chains
        );
        assert_eq!(made.input, "ip daddr { 10.1.0.250 } drop\n");
    }

    #[test]
    fn who_may_not_connect_is_not_told_that_nobody_is_there() {
        let spec = |sources: &[&str]| {
            network(serde_json::json!([balancer(
                "100.64.24.5",
                "stamp",
                sources,
                &[]
            )]))
        };
        let made = rules(&spec(&["10.9.0.0/16", "10.9.1.0/24"]), &[]);
        let chain = "chain lb-100.64.24.5-tcp-80 {\nip saddr != { 10.9.0.0/16 } drop\n}\n";
        assert!(made.chains.ends_with(chain), "{}", made.chains);
        assert!(
            made.input
                .starts_with("ip daddr . tcp dport { 100.64.24.5 . 80 } reject with tcp reset\n")
        );
        // Unrestricted: no source check, and no machine.
        let all: [&[&str]; 3] = [&[], &["0.0.0.0/0"], &["10.0.0.0/8", "0.0.0.0/0"]];
        for everybody in all {
            assert_eq!(rules(&spec(everybody), &[]).chains, "", "{everybody:?}");
        }
    }

    #[test]
    fn the_router_asks_in_its_own_name_where_answers_would_pass_it_by() {
        let mut spec = network(serde_json::json!([balancer(
            "100.64.24.5",
            "stamp",
            &[],
            &["10.1.0.4"]
        )]));
        let pods = "ct status dnat ip saddr . ip daddr { 10.244.0.0/24 . 10.1.0.4 } snat ip to 10.1.0.1\n";
        let bridge = "ip saddr 10.1.0.0/24 ip daddr 10.1.0.0/24 snat ip to 10.1.0.1\n";
        assert_eq!(detours(&spec, &[]), format!("ct status dnat {bridge}{pods}"));
        // A neighbouring address, behind another router.
        let peer = Ipv4Addr::new(10, 1, 0, 9);
        assert_eq!(
            detours(&spec, &[peer]),
            format!("ct status dnat ip saddr != {{ 10.1.0.9 }} {bridge}{pods}")
        );
        if let Some(subnet) = spec.subnets.first_mut() {
            subnet.filter = Some(fabric_api::Filter::default());
        }
        let own = "ct status dnat ip saddr . ip daddr { 10.1.0.4/32 . 10.1.0.4, 10.244.0.0/24 . 10.1.0.4 } snat ip to 10.1.0.1\n";
        assert_eq!(detours(&spec, &[]), own);
    }
}
