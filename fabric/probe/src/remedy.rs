//! The command that opens a path. Pure.

use crate::culprit::{Culprit, Engine};

/// A shell command that permits this bridge's traffic where it was dropped. If a firewall manager owns the
/// rules, the command is one of that manager's, so that the rule persists.
pub(crate) fn command(culprit: &Culprit, bridge: &str) -> String {
    let base = culprit.base.as_str();
    let forwards = base.to_ascii_lowercase().contains("forward")
        || culprit.way.contains(" oif \"")
        || culprit.is_forward();
    let sends = base.eq_ignore_ascii_case("output") || base.eq_ignore_ascii_case("out");
    if culprit.table == "firewalld" {
        return format!(
            "firewall-cmd --permanent --zone=trusted --add-interface={bridge} && firewall-cmd --reload"
        );
    }
    if culprit.mentions("ufw-") {
        return if forwards {
            format!("ufw route allow in on {bridge} && ufw route allow out on {bridge}")
        } else {
            format!("ufw allow in on {bridge}")
        };
    }
    let tool = match &culprit.engine {
        Engine::Iptables => Some("iptables-legacy"),
        // Upper-case chains in these tables were created by iptables-nft.
        Engine::Nftables { family } if family == "ip" && ["INPUT", "FORWARD", "OUTPUT"].contains(&base) => {
            Some("iptables")
        }
        Engine::Nftables { .. } => None,
    };
    if let Some(tool) = tool {
        // Docker reserves this chain for user rules.
        let chain = if forwards && culprit.mentions("DOCKER-USER") {
            "DOCKER-USER"
        } else {
            base
        };
        return match (forwards, sends) {
            (true, _) => {
                format!("{tool} -I {chain} -i {bridge} -j ACCEPT && {tool} -I {chain} -o {bridge} -j ACCEPT")
            }
            (_, true) => format!("{tool} -I {chain} -o {bridge} -j ACCEPT"),
            _ => format!("{tool} -I {chain} -i {bridge} -j ACCEPT"),
        };
    }
    let family = match &culprit.engine {
        Engine::Nftables { family } => family.as_str(),
        Engine::Iptables => "ip",
    };
    let insert = |what: &str| {
        format!(
            "nft insert rule {family} {} {base} {what} '\"{bridge}\"' accept",
            culprit.table
        )
    };
    match (forwards, sends) {
        (true, _) => format!("{} && {}", insert("iifname"), insert("oifname")),
        (_, true) => insert("oifname"),
        _ => insert("iifname"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nft(family: &str, table: &str, base: &str, way: &str) -> Culprit {
        Culprit {
            engine: Engine::Nftables {
                family: family.into(),
            },
            table: table.into(),
            base: base.into(),
            chain: base.into(),
            rule: None,
            way: way.into(),
        }
    }

    #[test]
    fn each_firewall_is_spoken_to_in_its_own_words() {
        for (culprit, wanted) in [
            (
                nft("inet", "fw", "in", r#"packet: iif "lfsx" ip saddr"#),
                r#"nft insert rule inet fw in iifname '"lfsx"' accept"#,
            ),
            (
                nft("ip", "d", "f", r#"packet: iif "lfsx" oif "eth0" ip saddr"#),
                r#"nft insert rule ip d f iifname '"lfsx"' accept && nft insert rule ip d f oifname '"lfsx"' accept"#,
            ),
            (
                nft("ip", "filter", "INPUT", "rule jump ts-input"),
                "iptables -I INPUT -i lfsx -j ACCEPT",
            ),
            (
                nft("ip", "filter", "FORWARD", "rule counter jump DOCKER-USER"),
                "iptables -I DOCKER-USER -i lfsx -j ACCEPT && iptables -I DOCKER-USER -o lfsx -j ACCEPT",
            ),
            (
                nft("ip", "filter", "INPUT", "rule counter jump ufw-before-input"),
                "ufw allow in on lfsx",
            ),
            (
                nft("ip", "filter", "FORWARD", "rule counter jump ufw-before-forward"),
                "ufw route allow in on lfsx && ufw route allow out on lfsx",
            ),
            (
                nft("inet", "firewalld", "filter_INPUT", ""),
                "firewall-cmd --permanent --zone=trusted --add-interface=lfsx && firewall-cmd --reload",
            ),
            (
                Culprit {
                    engine: Engine::Iptables,
                    ..nft("", "filter", "FORWARD", "")
                },
                "iptables-legacy -I FORWARD -i lfsx -j ACCEPT && iptables-legacy -I FORWARD -o lfsx -j ACCEPT",
            ),
        ] {
            assert_eq!(command(&culprit, "lfsx"), wanted);
        }
    }
}
