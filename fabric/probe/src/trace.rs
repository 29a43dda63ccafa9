//! Parses the output of `nft monitor trace`. Pure.
//!
//! ```text
//! trace id 27e37fc1 ip ts in packet: iif "br0" … ip saddr 100.64.23.255 ip daddr 100.64.16.1 … tcp dport 7443 …
//! trace id 27e37fc1 ip ts in rule jump sub (verdict jump sub)
//! trace id 27e37fc1 ip ts sub rule ip saddr 100.64.0.0/10 drop (verdict drop)
//! trace id bb1580b4 inet fw in policy drop
//! ```

use std::net::Ipv4Addr;

use crate::culprit::{Culprit, Engine};

/// The first drop of a packet from or to `address` on `port`.
pub(crate) fn dropped(text: &str, address: Ipv4Addr, port: u16) -> Option<Culprit> {
    let lines: Vec<Line<'_>> = text.lines().filter_map(parse).collect();
    lines.iter().enumerate().find_map(|(at, line)| {
        if !line.drops() {
            return None;
        }
        // A packet is printed at the start of each base chain, before its verdicts there.
        let base = lines[..at]
            .iter()
            .rev()
            .find(|other| other.id == line.id && other.table == line.table && other.packet().is_some())?;
        let packet = format!("{} ", base.packet()?);
        let concerns = [format!("saddr {address} "), format!("daddr {address} ")]
            .iter()
            .any(|word| packet.contains(word.as_str()));
        let ports = [format!("dport {port} "), format!("sport {port} ")];
        if !concerns || !ports.iter().any(|word| packet.contains(word.as_str())) {
            return None;
        }
        let seen: Vec<&str> = lines[..at]
            .iter()
            .filter(|other| other.id == line.id)
            .map(|other| other.rest)
            .collect();
        Some(Culprit {
            engine: Engine::Nftables {
                family: line.family.to_owned(),
            },
            table: line.table.to_owned(),
            base: base.chain.to_owned(),
            chain: line.chain.to_owned(),
            rule: line.rule().map(str::to_owned),
            way: seen.join("\n"),
        })
    })
}

struct Line<'a> {
    id: &'a str,
    family: &'a str,
    table: &'a str,
    chain: &'a str,
    rest: &'a str,
}

impl<'a> Line<'a> {
    fn packet(&self) -> Option<&'a str> {
        self.rest.strip_prefix("packet: ")
    }

    fn drops(&self) -> bool {
        self.rest == "policy drop" || self.rest.ends_with("(verdict drop)")
    }

    fn rule(&self) -> Option<&'a str> {
        let rule = self.rest.strip_prefix("rule ")?;
        Some(rule.strip_suffix("(verdict drop)").unwrap_or(rule).trim())
    }
}

fn parse(line: &str) -> Option<Line<'_>> {
    let mut words = line.trim().strip_prefix("trace id ")?.splitn(5, ' ');
    Some(Line {
        id: words.next()?,
        family: words.next()?,
        table: words.next()?,
        chain: words.next()?,
        rest: words.next()?.trim(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = r#"
trace id e62bca73 inet tr pre packet: iif "br0" ether saddr e2:f0:8d:44:ee:db ip saddr 100.64.23.255 ip daddr 100.64.16.1 ip ttl 64 ip protocol tcp tcp sport 42344 tcp dport 7443 tcp flags == syn tcp window 64240 
trace id e62bca73 inet tr pre rule ip saddr 100.64.23.255 meta nftrace set 1 (verdict continue)
trace id e62bca73 inet tr pre policy accept 
trace id bb1580b4 inet fw in packet: iif "br0" ip saddr 100.64.23.255 ip daddr 100.64.16.1 ip protocol tcp tcp sport 42344 tcp dport 7443 tcp flags == syn tcp window 64240 
trace id bb1580b4 inet fw in policy drop 
trace id 27e37fc1 inet fw in packet: iif "br0" ip saddr 100.64.23.255 ip daddr 100.64.16.1 tcp sport 42358 tcp dport 7443 tcp flags == syn 
trace id 27e37fc1 inet fw in policy accept 
trace id 27e37fc1 ip ts in packet: iif "br0" ip saddr 100.64.23.255 ip daddr 100.64.16.1 tcp sport 42358 tcp dport 7443 tcp flags == syn 
trace id 27e37fc1 ip ts in rule jump sub (verdict jump sub)
trace id 27e37fc1 ip ts sub rule ip saddr 100.64.0.0/10 iifname != "tailscale0" counter packets 0 bytes 0 drop (verdict drop)
"#;

    #[test]
    fn a_policy_is_named_with_its_chain() {
        let culprit = dropped(TRACE, "100.64.23.255".parse().unwrap(), 7443).unwrap();
        assert_eq!(culprit.to_string(), "table inet fw, chain in: policy drop");
    }

    #[test]
    fn a_rule_in_a_chain_that_was_jumped_to_keeps_its_base_chain() {
        let later = &TRACE[TRACE.find("trace id 27e37fc1").unwrap()..];
        let culprit = dropped(later, "100.64.16.1".parse().unwrap(), 7443).unwrap();
        assert_eq!(
            culprit.to_string(),
            "table ip ts, chain sub (from chain in): ip saddr 100.64.0.0/10 iifname != \"tailscale0\" counter packets 0 bytes 0 drop"
        );
        assert_eq!((culprit.base.as_str(), culprit.chain.as_str()), ("in", "sub"));
    }

    #[test]
    fn other_packets_are_of_no_interest() {
        assert!(dropped(TRACE, "100.64.23.25".parse().unwrap(), 7443).is_none());
        assert!(dropped(TRACE, "100.64.23.255".parse().unwrap(), 744).is_none());
        assert!(
            dropped(
                "trace id 1 inet fw in policy drop",
                "100.64.23.255".parse().unwrap(),
                7443
            )
            .is_none()
        );
        assert!(dropped("nonsense", "100.64.23.255".parse().unwrap(), 7443).is_none());
    }
}
