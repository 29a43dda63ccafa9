//! Network security groups: their rules, and the resulting filter of a subnet.
//!
//! Owns the terms of rules (addresses, service tags, ports), the default rules of every group, and the order
//! of rules.
//!
//! Always true: pure. Rules are evaluated by ascending priority, in each direction separately; connections
//! that match no rule of a tenant are decided by one of Azure's default rules, so that every connection is
//! decided.
//!
//! Called by: the provider of security groups (validation and answers), the loops (parsing of records), and
//! the code that creates a cluster's network (the filter of a subnet).

mod resolve;

use std::{fmt, net::Ipv4Addr};

use fabric_api::{PortRange, Protocol};
use ipnet::Ipv4Net;
use serde_json::Value;

pub use resolve::filter;

/// A rule of a security group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// Lower numbers are evaluated first. Tenants' rules have 100 to 4096.
    pub priority: u16,
    /// The direction of matching connections.
    pub direction: Direction,
    /// Whether matching connections are permitted.
    pub allow: bool,
    /// The protocol.
    pub protocol: Protocol,
    /// The source.
    pub from: Side,
    /// The destination.
    pub to: Side,
}

/// One end of a connection.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Side {
    /// Any of these addresses.
    pub addresses: Vec<Addresses>,
    /// Any of these ports.
    pub ports: Vec<PortRange>,
}

/// The direction of a connection, as seen by the machines of the subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// Opened by others.
    Inbound,
    /// Opened by the machines.
    Outbound,
}

/// Addresses in a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Addresses {
    /// `*`.
    Any,
    /// `VirtualNetwork`: the address space of the VNET, and the cluster's pods.
    VirtualNetwork,
    /// `Internet`: everything outside of that.
    Internet,
    /// `AzureLoadBalancer`: the source of Azure's health probes.
    LoadBalancer,
    /// An address or a range.
    Range(Ipv4Net),
}

/// The terms for addresses.
const WORDS: [(&str, Addresses); 4] = [
    ("*", Addresses::Any),
    ("VirtualNetwork", Addresses::VirtualNetwork),
    ("Internet", Addresses::Internet),
    ("AzureLoadBalancer", Addresses::LoadBalancer),
];

impl Addresses {
    /// Parses a term (in any casing), an IPv4 address, or a range. `None`: anything else, e.g. another
    /// service tag.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some((_, word)) = WORDS.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)) {
            return Some(*word);
        }
        let one = || text.parse::<Ipv4Addr>().ok().map(Ipv4Net::from);
        let range = text.parse::<Ipv4Net>().ok().or_else(one)?;
        Some(Self::Range(range.trunc()))
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, WORDS.iter().find(|(_, word)| word == self)) {
            (_, Some((word, _))) => f.write_str(word),
            (Self::Range(range), None) => write!(f, "{range}"),
            // All others have a term.
            (_, None) => f.write_str("?"),
        }
    }
}

/// Parses `*`, a port (0 to 65535, without leading zeros), or a range of ports such as `80-90`.
pub fn parse_ports(text: &str) -> Option<PortRange> {
    if text == "*" {
        return Some(PortRange::ALL);
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let plain = |text: &str| text.parse::<u16>().ok().filter(|port| port.to_string() == text);
    let (first, last) = (plain(first)?, plain(last)?);
    (first <= last).then_some(PortRange { first, last })
}

/// A rule in a record has an invalid value, which validation would have refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the property {field} of the security rule {rule} cannot be read; write the rule anew")]
pub struct Unreadable {
    /// Its name.
    pub rule: String,
    /// The property, e.g. `sourceAddressPrefix`.
    pub field: String,
}

/// The rules of a security group, from the properties in its record.
///
/// # Errors
/// When one of them is invalid. Without it the others must not be used: see [`nothing_passes`].
pub fn rules(properties: &Value) -> Result<Vec<Rule>, Unreadable> {
    let all = properties["securityRules"].as_array().into_iter().flatten();
    all.map(|rule| {
        read(&rule["properties"]).map_err(|field| Unreadable {
            rule: rule["name"].as_str().unwrap_or_default().to_owned(),
            field,
        })
    })
    .collect()
}

/// The rules in place of invalid ones: a group exists to block something.
pub fn nothing_passes() -> Vec<Rule> {
    [Direction::Inbound, Direction::Outbound]
        .map(|direction| plain(0, direction, Addresses::Any, Addresses::Any, false))
        .to_vec()
}

/// The default rules of every group, with their names.
pub fn defaults() -> [(&'static str, Rule); 6] {
    use Addresses::{Any, Internet, LoadBalancer, VirtualNetwork};
    use Direction::{Inbound, Outbound};
    [
        (
            "AllowVnetInBound",
            plain(65000, Inbound, VirtualNetwork, VirtualNetwork, true),
        ),
        (
            "AllowAzureLoadBalancerInBound",
            plain(65001, Inbound, LoadBalancer, Any, true),
        ),
        ("DenyAllInBound", plain(65500, Inbound, Any, Any, false)),
        (
            "AllowVnetOutBound",
            plain(65000, Outbound, VirtualNetwork, VirtualNetwork, true),
        ),
        (
            "AllowInternetOutBound",
            plain(65001, Outbound, Any, Internet, true),
        ),
        ("DenyAllOutBound", plain(65500, Outbound, Any, Any, false)),
    ]
}

/// A rule for all protocols and ports.
fn plain(priority: u16, direction: Direction, from: Addresses, to: Addresses, allow: bool) -> Rule {
    let side = |addresses| Side {
        addresses: vec![addresses],
        ports: vec![PortRange::ALL],
    };
    Rule {
        priority,
        direction,
        allow,
        protocol: Protocol::Any,
        from: side(from),
        to: side(to),
    }
}

/// Parses a rule's properties; an error is the name of the invalid one.
fn read(properties: &Value) -> Result<Rule, String> {
    let text = |field: &str| properties[field].as_str().ok_or_else(|| field.to_owned());
    let one_of = |field: &str, words: &[&str]| {
        let text = text(field)?;
        let found = words.iter().position(|word| word.eq_ignore_ascii_case(text));
        found.ok_or_else(|| field.to_owned())
    };
    let priority = properties["priority"].as_u64();
    Ok(Rule {
        priority: priority
            .and_then(|number| u16::try_from(number).ok())
            .ok_or("priority")?,
        direction: match one_of("direction", &["Inbound", "Outbound"])? {
            0 => Direction::Inbound,
            _ => Direction::Outbound,
        },
        allow: one_of("access", &["Allow", "Deny"])? == 0,
        protocol: match one_of("protocol", &["*", "Tcp", "Udp", "Icmp", "Esp", "Ah"])? {
            0 => Protocol::Any,
            1 => Protocol::Tcp,
            2 => Protocol::Udp,
            3 => Protocol::Icmp,
            4 => Protocol::Esp,
            _ => Protocol::Ah,
        },
        from: side(properties, "source")?,
        to: side(properties, "destination")?,
    })
}

fn side(properties: &Value, side: &str) -> Result<Side, String> {
    Ok(Side {
        addresses: either(properties, &format!("{side}AddressPrefix"), Addresses::parse)?,
        ports: either(properties, &format!("{side}PortRange"), parse_ports)?,
    })
}

/// Values in either a single property or a list, whose name is the singular with a suffix.
fn either<T>(properties: &Value, one: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, String> {
    let many = if one.ends_with('x') {
        format!("{one}es")
    } else {
        format!("{one}s")
    };
    let list = properties[&many].as_array().into_iter().flatten();
    let alone = properties.get(one).filter(|value| !value.is_null());
    let all: Vec<&Value> = alone.into_iter().chain(list).collect();
    if all.is_empty() {
        return Err(one.to_owned());
    }
    all.into_iter()
        .map(|value| value.as_str().and_then(&parse).ok_or_else(|| one.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ports_are_ranges_of_plain_numbers() {
        for (text, expected) in [
            ("*", Some((0, 65535))),
            ("80", Some((80, 80))),
            ("80-90", Some((80, 90))),
            ("0-65535", Some((0, 65535))),
            ("90-80", None),
            ("65536", None),
            ("080", None),
            ("80-", None),
            ("", None),
            ("a", None),
        ] {
            let expected = expected.map(|(first, last)| PortRange { first, last });
            assert_eq!(parse_ports(text), expected, "{text}");
        }
    }

    #[test]
    fn addresses_are_words_or_ranges_of_ipv4() {
        for (text, shown) in [
            ("*", Some("*")),
            ("virtualnetwork", Some("VirtualNetwork")),
            ("Internet", Some("Internet")),
            ("AzureLoadBalancer", Some("AzureLoadBalancer")),
            ("10.1.0.4", Some("10.1.0.4/32")),
            ("10.1.0.4/16", Some("10.1.0.0/16")),
            ("0.0.0.0/0", Some("0.0.0.0/0")),
            ("Storage", None),
            ("Storage.WestEurope", None),
            ("fd00::/8", None),
            ("10.1.0.0/33", None),
            ("", None),
        ] {
            let read = Addresses::parse(text).map(|addresses| addresses.to_string());
            assert_eq!(read.as_deref(), shown, "{text}");
        }
    }

    fn group(more: Value) -> Value {
        let mut properties = json!({
            "priority": 100, "direction": "Inbound", "access": "Deny", "protocol": "Tcp",
            "sourceAddressPrefix": "Internet", "sourceAddressPrefixes": [], "sourcePortRange": "*", "sourcePortRanges": [],
            "destinationAddressPrefixes": ["10.1.0.4", "10.1.0.8/29"], "destinationPortRanges": ["80", "8000-8080"],
        });
        for (name, value) in more.as_object().unwrap() {
            properties[name] = value.clone();
        }
        json!({ "securityRules": [{ "name": "web", "properties": properties }] })
    }

    #[test]
    fn rules_are_read_from_records() {
        let range = |text: &str| Addresses::Range(text.parse().unwrap());
        let expected = Rule {
            priority: 100,
            direction: Direction::Inbound,
            allow: false,
            protocol: Protocol::Tcp,
            from: Side {
                addresses: vec![Addresses::Internet],
                ports: vec![PortRange::ALL],
            },
            to: Side {
                addresses: vec![range("10.1.0.4/32"), range("10.1.0.8/29")],
                ports: vec![
                    PortRange { first: 80, last: 80 },
                    PortRange {
                        first: 8000,
                        last: 8080,
                    },
                ],
            },
        };
        assert_eq!(rules(&group(json!({}))), Ok(vec![expected]));
        assert_eq!(rules(&json!({ "securityRules": [] })), Ok(Vec::new()));
        for (field, value) in [
            ("priority", json!(70000)),
            ("direction", json!("Sideways")),
            ("access", json!(true)),
            ("protocol", json!("Sctp")),
            ("sourceAddressPrefix", json!("Storage")),
            ("sourcePortRange", json!("http")),
        ] {
            let unreadable = rules(&group(json!({ field: value }))).unwrap_err();
            assert_eq!(
                (unreadable.rule.as_str(), unreadable.field.as_str()),
                ("web", field)
            );
        }
        let nowhere = group(json!({ "destinationAddressPrefixes": [] }));
        assert_eq!(
            rules(&nowhere).unwrap_err().field,
            "destinationAddressPrefix",
            "no end is everywhere by mistake"
        );
    }
}
