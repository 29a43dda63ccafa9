//! Computes the filter of a subnet from rules.

use std::net::Ipv4Addr;

use fabric_api::{Filter, FilterRule, PortRange};
use ipnet::{Ipv4Net, Ipv4Subnets};

use crate::{Addresses, Direction, Rule, Side, defaults};

/// The source of Azure's health probes, which is neither in a VNET nor on the internet.
const PROBES: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);

/// The filter of a subnet with a group with these rules: they and the default rules, in their order.
/// `network`: the ranges of `VirtualNetwork`.
pub fn filter(rules: &[Rule], network: &[Ipv4Net]) -> Filter {
    let defaults = defaults().map(|(_, rule)| rule);
    let mut all: Vec<&Rule> = rules.iter().chain(&defaults).collect();
    all.sort_by_key(|rule| rule.priority);
    let of = |direction: Direction| {
        let rules = all.iter().filter(|rule| rule.direction == direction);
        rules.map(|rule| resolved(rule, network)).collect()
    };
    Filter {
        inbound: of(Direction::Inbound),
        outbound: of(Direction::Outbound),
    }
}

fn resolved(rule: &Rule, network: &[Ipv4Net]) -> FilterRule {
    FilterRule {
        allow: rule.allow,
        protocol: rule.protocol,
        from: ranges(&rule.from, network),
        from_ports: ports(&rule.from),
        to: ranges(&rule.to, network),
        to_ports: ports(&rule.to),
    }
}

/// The ranges of a side, without overlaps.
fn ranges(side: &Side, network: &[Ipv4Net]) -> Vec<Ipv4Net> {
    let mut all = Vec::new();
    for addresses in &side.addresses {
        match addresses {
            Addresses::Any => all.push(Ipv4Net::default()),
            Addresses::VirtualNetwork => all.extend_from_slice(network),
            Addresses::Internet => all.extend(outside(network)),
            Addresses::LoadBalancer => all.push(Ipv4Net::from(PROBES)),
            Addresses::Range(range) => all.push(*range),
        }
    }
    Ipv4Net::aggregate(&all)
}

/// All addresses outside these ranges.
fn outside(network: &[Ipv4Net]) -> Vec<Ipv4Net> {
    let mut inside = network.to_vec();
    inside.push(Ipv4Net::from(PROBES));
    let mut inside = Ipv4Net::aggregate(&inside);
    inside.sort_unstable_by_key(Ipv4Net::network);
    let mut left = Vec::new();
    // The next unhandled address; one more than the last address does not fit into the type.
    let mut next = 0_u64;
    let mut gap = |from: u64, until: u64| {
        let address = |number: u64| u32::try_from(number).ok().map(Ipv4Addr::from);
        if let (true, Some(first), Some(last)) = (from < until, address(from), address(until.wrapping_sub(1)))
        {
            left.extend(Ipv4Subnets::new(first, last, 0));
        }
    };
    for range in inside {
        gap(next, u64::from(u32::from(range.network())));
        next = u64::from(u32::from(range.broadcast())) + 1;
    }
    gap(next, 1 << 32);
    left
}

/// The ports of a side, in order, without duplicates.
fn ports(side: &Side) -> Vec<PortRange> {
    let mut all = side.ports.clone();
    all.sort_unstable();
    let mut merged: Vec<PortRange> = Vec::new();
    for range in all {
        match merged.last_mut() {
            Some(last) if range.first <= last.last.saturating_add(1) => last.last = last.last.max(range.last),
            _ => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use fabric_api::Protocol;
    use proptest::prelude::*;

    use super::*;

    fn nets(texts: &[&str]) -> Vec<Ipv4Net> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn side(addresses: &[Addresses], ports: &[(u16, u16)]) -> Side {
        Side {
            addresses: addresses.to_vec(),
            ports: ports
                .iter()
                .map(|(first, last)| PortRange {
                    first: *first,
                    last: *last,
                })
                .collect(),
        }
    }

    fn rule(priority: u16, direction: Direction, allow: bool, to: Side) -> Rule {
        Rule {
            priority,
            direction,
            allow,
            protocol: Protocol::Tcp,
            from: side(&[Addresses::Any], &[(0, 65535)]),
            to,
        }
    }

    #[test]
    fn lower_numbers_come_first_and_the_defaults_last() {
        let web = || side(&[Addresses::Any], &[(80, 80)]);
        let rules = [
            rule(300, Direction::Inbound, true, web()),
            rule(100, Direction::Outbound, false, web()),
            rule(200, Direction::Inbound, false, web()),
        ];
        let filter = filter(&rules, &nets(&["10.1.0.0/16", "10.244.0.0/16"]));
        let allows = |rules: &[FilterRule]| rules.iter().map(|rule| rule.allow).collect::<Vec<_>>();
        // 200, 300, within the VNET, probes, all.
        assert_eq!(allows(&filter.inbound), [false, true, true, true, false]);
        // 100, within the VNET, the internet, all.
        assert_eq!(allows(&filter.outbound), [false, true, true, false]);
        let within = &filter.inbound[2];
        assert_eq!(
            (&within.from, &within.to, within.protocol),
            (
                &nets(&["10.1.0.0/16", "10.244.0.0/16"]),
                &nets(&["10.1.0.0/16", "10.244.0.0/16"]),
                Protocol::Any
            )
        );
        assert_eq!(filter.inbound[3].from, nets(&["168.63.129.16/32"]));
        assert_eq!(filter.outbound[3].to, nets(&["0.0.0.0/0"]));
        assert_eq!(filter.outbound[3].to_ports, [PortRange::ALL]);
    }

    #[test]
    fn without_rules_of_its_own_a_group_has_azures() {
        let filter = filter(&[], &nets(&["10.1.0.0/16"]));
        assert_eq!((filter.inbound.len(), filter.outbound.len()), (3, 3));
        let last = |rules: &[FilterRule]| rules.last().map(|rule| (rule.allow, rule.from.clone()));
        assert_eq!(last(&filter.inbound), Some((false, nets(&["0.0.0.0/0"]))));
        assert_eq!(last(&filter.outbound), Some((false, nets(&["0.0.0.0/0"]))));
    }

    #[test]
    fn lists_have_no_element_within_another() {
        let many = side(
            &[
                Addresses::Range("10.1.0.4/32".parse().unwrap()),
                Addresses::Range("10.1.0.0/24".parse().unwrap()),
                Addresses::Range("192.168.0.0/25".parse().unwrap()),
                Addresses::Range("192.168.0.128/25".parse().unwrap()),
            ],
            &[(8080, 8080), (80, 90), (85, 100), (101, 101), (65535, 65535)],
        );
        let filter = filter(&[rule(100, Direction::Inbound, true, many)], &[]);
        assert_eq!(filter.inbound[0].to, nets(&["10.1.0.0/24", "192.168.0.0/24"]));
        let ports: Vec<(u16, u16)> = filter.inbound[0]
            .to_ports
            .iter()
            .map(|range| (range.first, range.last))
            .collect();
        assert_eq!(ports, [(80, 101), (8080, 8080), (65535, 65535)]);
    }

    #[test]
    fn what_cannot_be_read_lets_nothing_pass() {
        let filter = filter(&crate::nothing_passes(), &nets(&["10.1.0.0/16"]));
        for rules in [&filter.inbound, &filter.outbound] {
            let first = &rules[0];
            assert!(!first.allow && first.protocol == Protocol::Any, "{first:?}");
            assert_eq!(
                (&first.from, &first.to),
                (&nets(&["0.0.0.0/0"]), &nets(&["0.0.0.0/0"]))
            );
        }
    }

    proptest! {
        /// Each address is in exactly one of the two, except that of Azure's probes.
        #[test]
        fn the_internet_is_all_that_the_network_is_not(
            ranges in prop::collection::vec((any::<u32>(), 2_u8..=32), 0..6),
            probes in prop::collection::vec(any::<u32>(), 8),
        ) {
            let network: Vec<Ipv4Net> = ranges
                .iter()
                .map(|(address, length)| Ipv4Net::new(Ipv4Addr::from(*address), *length).unwrap().trunc())
                .collect();
            let left = outside(&network);
            let edges = network.iter().flat_map(|range| {
                let (first, last) = (u32::from(range.network()), u32::from(range.broadcast()));
                [first, last, first.wrapping_sub(1), last.wrapping_add(1)]
            });
            for number in probes.iter().copied().chain(edges).chain([0, u32::MAX]) {
                let address = Ipv4Addr::from(number);
                let inside = network.iter().any(|range| range.contains(&address));
                let found = left.iter().filter(|range| range.contains(&address)).count();
                prop_assert_eq!(found, usize::from(!inside && address != PROBES), "{}", address);
            }
        }
    }
}
