//! Access to the API server from outside the cluster's own network: rules of a control plane machine, for its
//! interface in the stamp's network.
//!
//! Always true: on a machine that starts, the rules are set before the API server starts; while it runs, new
//! rules replace the old ones at once, and apply to existing connections as well. Loopback and the interface
//! in the VNET are not affected.

use std::net::Ipv4Addr;

use agent_protocol::{Command, File, Task};
use cluster_spec::ApiAccess;
use ipnet::Ipv4Net;
use sha2::{Digest as _, Sha256};

use crate::{API_PORT, ControlPlanePlace, members::STAMP_CARD, plain, words};

/// The rules, and the command that loads them.
pub(crate) struct Rules {
    file: File,
    restricted: bool,
}

impl Rules {
    /// The rules of a member.
    pub(crate) fn of(access: &ApiAccess, place: &ControlPlanePlace) -> Self {
        let text = ruleset(access, &place.always);
        // The path contains the hash, so that the task that loads it runs again for other rules.
        let hash = hex::encode(&Sha256::digest(text.as_bytes())[..4]);
        Self {
            file: plain(&format!("/etc/landfall/access-{hash}.nft"), text),
            restricted: !access.is_open(),
        }
    }

    fn load(&self) -> Vec<String> {
        words(["nft", "-f", &self.file.path])
    }

    /// Before any process. A machine that starts has no earlier rules to remove.
    pub(crate) fn setup(&self) -> Option<Command> {
        self.restricted.then(|| Command { argv: self.load() })
    }

    /// On a running machine.
    pub(crate) fn task(&self) -> Task {
        Task {
            name: "access".to_owned(),
            argv: self.load(),
        }
    }

    pub(crate) fn into_file(self) -> File {
        self.file
    }
}

/// Other clients are rejected at once. Declared, deleted, declared again, so that loading is idempotent.
fn ruleset(access: &ApiAccess, always: &[Ipv4Addr]) -> String {
    let ranges = match access {
        ApiAccess::Open => None,
        ApiAccess::Ranges(ranges) => Some(ranges.as_slice()),
        ApiAccess::Private => Some(&[][..]),
    };
    let rule = ranges.map_or_else(String::new, |ranges| {
        let all: Vec<Ipv4Net> = ranges
            .iter()
            .copied()
            .chain(always.iter().copied().map(Ipv4Net::from))
            .collect();
        // Ranges in a set must not overlap.
        let all: Vec<String> = Ipv4Net::aggregate(&all).iter().map(ToString::to_string).collect();
        let others = if all.is_empty() {
            String::new()
        } else {
            format!("ip saddr != {{ {} }} ", all.join(", "))
        };
        format!("    iifname \"{STAMP_CARD}\" {others}tcp dport {API_PORT} reject with tcp reset\n")
    });
    format!(
        "table ip landfall_access\ndelete table ip landfall_access\ntable ip landfall_access {{\n  chain input {{\n    \
         type filter hook input priority filter; policy accept;\n{rule}  }}\n}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ControlPlaneAddresses;

    fn place() -> ControlPlanePlace {
        let at = |last| Ipv4Addr::new(100, 64, 16, last);
        ControlPlanePlace {
            always: vec![at(1), at(8)],
            ..ControlPlanePlace::alone(
                "m1",
                ControlPlaneAddresses {
                    vip: at(200),
                    stamp: at(20),
                    vnet: Ipv4Addr::new(10, 239, 255, 244),
                },
            )
        }
    }

    fn ranges(texts: &[&str]) -> ApiAccess {
        ApiAccess::Ranges(texts.iter().map(|text| text.parse().unwrap()).collect())
    }

    #[test]
    fn rules_are_as_they_were_reviewed() {
        let open = ruleset(&ApiAccess::Open, &place().always);
        assert!(!open.contains("reject"), "{open}");
        for (access, rule) in [
            (
                ApiAccess::Private,
                r#"iifname "eth0" ip saddr != { 100.64.16.1/32, 100.64.16.8/32 } tcp dport 443 reject with tcp reset"#,
            ),
            (
                // One range inside another, two adjacent ones, and one that is always permitted.
                ranges(&[
                    "203.0.113.0/24",
                    "203.0.113.7/32",
                    "198.51.100.0/25",
                    "198.51.100.128/25",
                    "100.64.16.8/32",
                ]),
                r#"iifname "eth0" ip saddr != { 100.64.16.1/32, 100.64.16.8/32, 198.51.100.0/24, 203.0.113.0/24 } tcp dport 443 reject with tcp reset"#,
            ),
        ] {
            let text = ruleset(&access, &place().always);
            let lines: Vec<&str> = text.lines().map(str::trim).collect();
            assert_eq!(
                lines[2..],
                [
                    "table ip landfall_access {",
                    "chain input {",
                    "type filter hook input priority filter; policy accept;",
                    rule,
                    "}",
                    "}",
                ]
            );
        }
    }

    #[test]
    fn rules_come_before_the_server_and_change_while_it_runs() {
        let open = Rules::of(&ApiAccess::Open, &place());
        let private = Rules::of(&ApiAccess::Private, &place());
        assert_eq!(open.setup(), None);
        assert_eq!(private.setup().unwrap().argv, private.task().argv);
        // A task that differs under the same name runs again.
        assert_ne!(open.task(), private.task());
        assert_eq!(private.task(), Rules::of(&ApiAccess::Private, &place()).task());
        assert!(private.task().argv.contains(&private.into_file().path));
    }
}
