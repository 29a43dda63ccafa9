//! Parses the output of `iptables-legacy-save -c`: legacy iptables has no readable trace, but counters. Pure.
//!
//! ```text
//! *filter
//! :FORWARD DROP [12:720]
//! [3:180] -A FORWARD -s 100.64.0.0/10 -j DROP
//! ```

use crate::culprit::{Culprit, Engine};

/// The first rule, else policy, that has dropped more packets in `after` than in `before`.
pub(crate) fn dropped(before: &str, after: &str) -> Option<Culprit> {
    let (before, after) = (counts(before), counts(after));
    let grown = after.iter().filter(|count| {
        before
            .iter()
            .find(|other| {
                (&other.table, &other.chain, &other.rule) == (&count.table, &count.chain, &count.rule)
            })
            .is_none_or(|other| other.packets < count.packets)
    });
    let (rules, policies): (Vec<&Count>, Vec<&Count>) = grown.partition(|count| count.rule.is_some());
    let count = rules.first().or(policies.first())?;
    let base = ["INPUT", "FORWARD", "OUTPUT", "PREROUTING", "POSTROUTING"]
        .into_iter()
        .find(|base| count.chain == *base)
        // The base chain of a user-defined chain is unknown; machines' packets are input or forwarded.
        .unwrap_or(if count.chain.to_ascii_lowercase().contains("forward") {
            "FORWARD"
        } else {
            "INPUT"
        });
    Some(Culprit {
        engine: Engine::Iptables,
        table: count.table.clone(),
        base: base.to_owned(),
        chain: count.chain.clone(),
        rule: count.rule.clone(),
        way: String::new(),
    })
}

/// A rule or policy that drops, with its packet counter.
struct Count {
    table: String,
    chain: String,
    rule: Option<String>,
    packets: u64,
}

fn counts(text: &str) -> Vec<Count> {
    let mut table = String::new();
    let mut counts = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            name.clone_into(&mut table);
        } else if let Some(policy) = line.strip_prefix(':') {
            let mut words = policy.split(' ');
            if let (Some(chain), Some("DROP"), Some(count)) = (words.next(), words.next(), words.next()) {
                counts.push(Count {
                    table: table.clone(),
                    chain: chain.to_owned(),
                    rule: None,
                    packets: packets(count),
                });
            }
        } else if let Some((count, rule)) = line.split_once("] -A ")
            && (rule.contains("-j DROP") || rule.contains("-j REJECT"))
        {
            counts.push(Count {
                table: table.clone(),
                chain: rule.split(' ').next().unwrap_or_default().to_owned(),
                rule: Some(format!("-A {rule}")),
                packets: packets(count),
            });
        }
    }
    counts
}

/// The first number of `[3:180]`.
fn packets(text: &str) -> u64 {
    text.trim_start_matches('[')
        .split(':')
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_dropped_since_is_found() {
        let before = "*filter\n:INPUT ACCEPT [5:300]\n:FORWARD DROP [12:720]\n[0:0] -A INPUT -s 100.64.0.0/10 -j DROP\nCOMMIT\n";
        assert!(dropped(before, before).is_none());
        let policy = before.replace("[12:720]", "[13:780]");
        assert_eq!(
            dropped(before, &policy).unwrap().to_string(),
            "iptables-legacy, table filter, chain FORWARD: policy drop"
        );
        let rule = policy.replace("[0:0] -A", "[1:60] -A");
        assert_eq!(
            dropped(before, &rule).unwrap().to_string(),
            "iptables-legacy, table filter, chain INPUT: -A INPUT -s 100.64.0.0/10 -j DROP"
        );
    }
}
