//! Parses the output of `ip -j`.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::Deserialize;

/// The output of `ip -j` cannot be parsed.
#[derive(Debug, thiserror::Error)]
#[error("the output of ip is not the expected JSON")]
pub struct ReadError(#[from] serde_json::Error);

/// A network link with its IPv4 addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkSeen {
    /// Its name.
    pub name: String,
    /// Its bridge, if it is a bridge port.
    pub master: Option<String>,
    /// Whether it is an isolated bridge port, which exchanges frames with the bridge itself only. `false` if
    /// `ip` ran without `-d`.
    pub isolated: bool,
    /// Whether it is administratively up.
    pub up: bool,
    /// Its IPv4 addresses.
    pub addresses: Vec<Ipv4Net>,
}

/// An IPv4 route of the main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteSeen {
    /// The destination.
    pub to: Ipv4Net,
    /// The next hop.
    pub via: Option<Ipv4Addr>,
    /// Whether it is of type `unreachable`.
    pub unreachable: bool,
    /// Whether the kernel created it for an address.
    pub kernel: bool,
}

#[derive(Deserialize)]
struct RawLink {
    // `ip -j addr` prints empty objects for links that a filter excluded.
    #[serde(default)]
    ifname: String,
    master: Option<String>,
    #[serde(default)]
    linkinfo: RawDetails,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    addr_info: Vec<RawAddress>,
}

#[derive(Default, Deserialize)]
struct RawDetails {
    #[serde(default)]
    info_slave_data: RawPort,
}

#[derive(Default, Deserialize)]
struct RawPort {
    #[serde(default)]
    isolated: bool,
}

#[derive(Deserialize)]
struct RawAddress {
    family: Option<String>,
    local: Option<String>,
    prefixlen: Option<u8>,
}

#[derive(Deserialize)]
struct RawRoute {
    dst: String,
    gateway: Option<Ipv4Addr>,
    #[serde(rename = "type")]
    kind: Option<String>,
    protocol: Option<String>,
}

/// Parses `ip -j -4 address show` (or without `-4`: other families are skipped; or with `-d`, for details).
///
/// # Errors
/// When it is not output of `ip`.
pub fn parse_links(json: &str) -> Result<Vec<LinkSeen>, ReadError> {
    let links: Vec<RawLink> = read(json)?;
    Ok(links
        .into_iter()
        .filter(|link| !link.ifname.is_empty())
        .map(|link| LinkSeen {
            name: link.ifname,
            master: link.master,
            isolated: link.linkinfo.info_slave_data.isolated,
            up: link.flags.iter().any(|flag| flag == "UP"),
            addresses: link
                .addr_info
                .iter()
                .filter(|address| address.family.as_deref() == Some("inet"))
                .filter_map(|address| {
                    Ipv4Net::new(address.local.as_deref()?.parse().ok()?, address.prefixlen?).ok()
                })
                .collect(),
        })
        .collect())
}

/// Parses `ip -j -4 route show table main`.
///
/// # Errors
/// When it is not output of `ip`.
pub fn parse_routes(json: &str) -> Result<Vec<RouteSeen>, ReadError> {
    let routes: Vec<RawRoute> = read(json)?;
    Ok(routes
        .into_iter()
        .filter_map(|route| {
            Some(RouteSeen {
                to: parse_destination(&route.dst)?,
                via: route.gateway,
                unreachable: route.kind.as_deref() == Some("unreachable"),
                kernel: route.protocol.as_deref() == Some("kernel"),
            })
        })
        .collect())
}

/// `default`, an address or a range; `None` for IPv6.
pub(crate) fn parse_destination(text: &str) -> Option<Ipv4Net> {
    if text == "default" {
        return Some(Ipv4Net::default());
    }
    text.parse::<Ipv4Net>()
        .ok()
        .or_else(|| text.parse::<Ipv4Addr>().ok().map(Ipv4Net::from))
}

/// `ip -j` prints nothing at all for an empty list.
fn read<T: for<'a> Deserialize<'a>>(json: &str) -> Result<Vec<T>, ReadError> {
    if json.trim().is_empty() {
        return Ok(Vec::new());
    }
    Ok(serde_json::from_str(json)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_routes_are_read() {
        let links = parse_links(
            r#"[{},{"ifname":"lo","flags":["LOOPBACK","UP"],"addr_info":[{"family":"inet6","local":"::1","prefixlen":128}]},
               {"ifname":"sub1","master":"br0","flags":["BROADCAST"],"addr_info":[{"family":"inet","local":"10.1.0.1","prefixlen":24}]}]"#,
        )
        .unwrap();
        assert_eq!(links.len(), 2);
        assert!(links[0].up && links[0].addresses.is_empty());
        assert_eq!(links[1].master.as_deref(), Some("br0"));
        assert_eq!(links[1].addresses, ["10.1.0.1/24".parse().unwrap()]);
        assert!(!links[0].isolated && !links[1].isolated);
        let ports = parse_links(
            r#"[{"ifname":"lfp1","master":"sub1","linkinfo":{"info_kind":"veth","info_slave_kind":"bridge",
                "info_slave_data":{"state":"forwarding","isolated":true}}},
               {"ifname":"sub1","linkinfo":{"info_kind":"bridge","info_data":{"stp_state":0}}}]"#,
        )
        .unwrap();
        assert!(ports[0].isolated && !ports[1].isolated);
        let routes = parse_routes(
            r#"[{"dst":"default","gateway":"100.64.0.1","dev":"uplink","flags":[]},{"type":"unreachable","dst":"10.0.0.0/8","metric":4096},
               {"dst":"10.1.0.0/24","dev":"sub1","protocol":"kernel"},{"dst":"10.244.1.5","gateway":"10.1.0.4"}]"#,
        )
        .unwrap();
        assert_eq!(routes[0].to.prefix_len(), 0);
        assert!(routes[1].unreachable && !routes[1].kernel);
        assert!(routes[2].kernel);
        assert_eq!(routes[3].to, "10.244.1.5/32".parse().unwrap());
        assert!(parse_routes("").unwrap().is_empty());
    }
}
