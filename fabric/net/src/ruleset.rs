//! nftables rulesets: who may talk to whom.
//!
//! Each ruleset replaces its own table in one transaction and touches no other, so that a host keeps its own rules.

use fabric_api::{NetworkSpec, StampNetwork, Uplink};

use crate::{Names, UPLINK, names::BRIDGE_PREFIX};

/// The host's rules for a stamp, for `nft -f -`.
///
/// Always: stamps do not reach each other, nobody outside reaches machines and uplinks, no IPv6. Without an uplink nothing is
/// forwarded to or from the stamp at all and its machines reach the host at the service's address only. With one, outbound traffic
/// is translated to the host's address, and whoever routes the range to this host reaches the VIPs.
pub fn stamp_ruleset(names: &Names, network: &StampNetwork) -> String {
    let (table, bridge, gateway) = (names.table(), names.bridge(), network.gateway());
    let mut lines = vec![
        // Declared first, because deleting what is not there is an error.
        format!("table inet {table}"),
        format!("delete table inet {table}"),
        format!("table inet {table} {{"),
        "chain input {".into(),
        "type filter hook input priority filter - 5; policy accept;".into(),
        format!("iifname \"{BRIDGE_PREFIX}*\" iifname != \"{bridge}\" ip daddr {gateway} drop"),
        format!("iifname != \"{bridge}\" accept"),
        "meta nfproto ipv6 drop".into(),
        "ct state established,related accept".into(),
    ];
    if network.uplink == Uplink::None {
        lines.push(format!("ip daddr != {gateway} drop"));
    }
    lines.extend([
        "}".into(),
        "chain forward {".into(),
        "type filter hook forward priority filter - 5; policy accept;".into(),
        format!("iifname != \"{bridge}\" oifname != \"{bridge}\" accept"),
        format!("iifname \"{bridge}\" oifname \"{bridge}\" accept"),
    ]);
    match network.uplink {
        Uplink::None => lines.push("drop".into()),
        Uplink::Host => lines.extend([
            "meta nfproto ipv6 drop".into(),
            "ct state established,related accept".into(),
            // Both directions between stamps, whichever of the two tables is asked.
            format!("iifname \"{BRIDGE_PREFIX}*\" oifname \"{BRIDGE_PREFIX}*\" drop"),
            format!("iifname \"{bridge}\" accept"),
            format!("ip daddr {} accept", network.vips()),
            "drop".into(),
        ]),
    }
    lines.push("}".into());
    if network.uplink == Uplink::Host {
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
/// Outbound traffic is translated to the VNET's uplink address; nothing comes in by the uplink that was not asked for.
pub fn vnet_ruleset(network: &NetworkSpec) -> String {
    let uplink = network.uplink;
    format!(
        r#"table inet landfall
delete table inet landfall
table inet landfall {{
chain input {{
type filter hook input priority filter; policy accept;
iifname != "{UPLINK}" accept
ct state established,related accept
drop
}}
chain forward {{
type filter hook forward priority filter; policy accept;
iifname != "{UPLINK}" accept
ct state established,related accept
drop
}}
chain postrouting {{
type nat hook postrouting priority srcnat; policy accept;
oifname "{UPLINK}" meta nfproto ipv4 ip saddr != {uplink} snat ip to {uplink}
}}
}}
"#
    )
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

    #[test]
    fn without_an_uplink_nothing_is_translated_or_forwarded() {
        let text = stamp_ruleset(&Names::new("a"), &stamp(Uplink::None));
        assert!(!text.contains("masquerade"));
        assert!(text.contains("ip daddr != 100.64.16.1 drop"));
        let forward = text.split("chain forward").nth(1).unwrap();
        // Whatever touches the bridge and is not inside it meets the final drop.
        assert!(forward.trim_end().ends_with("accept\ndrop\n}\n}"), "{forward}");
    }

    #[test]
    fn with_an_uplink_only_vips_can_be_reached_from_outside() {
        let text = stamp_ruleset(&Names::new("a"), &stamp(Uplink::Host));
        assert!(text.contains("masquerade"));
        assert!(text.contains("ip daddr 100.64.24.0/21 accept\ndrop"));
    }

    #[test]
    fn a_ruleset_names_no_table_but_its_own() {
        let names = Names::new("a");
        for line in stamp_ruleset(&names, &stamp(Uplink::Host)).lines() {
            assert!(!line.contains("table") || line.contains(&names.table()), "{line}");
            assert!(!line.contains("flush"), "{line}");
        }
    }
}
