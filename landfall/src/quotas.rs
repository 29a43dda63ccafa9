//! Limits of clusters and of requests that the operator of the stamp has set.

use anyhow::Result;
use arm_edge::{Budget, Budgets};
use control_records::usage::{Limits, Room};
use serde::{Deserialize, Serialize};

use crate::problem::Problem;

/// The operator's limits of each subscription.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Quotas {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    clusters: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nodes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cores: Option<u64>,
    /// Of requests of one principal, each kind by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reads: Option<Requests>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    writes: Option<Requests>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deletes: Option<Requests>,
}

/// So many requests at once and so many more each second, or without a limit: `250+25`, `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Requests(Option<Budget>);

impl Requests {
    fn parse(text: &str) -> Option<Self> {
        if text == "off" {
            return Some(Self(None));
        }
        let (size, refill) = text.split_once('+')?;
        Budget::new(size.parse().ok()?, refill.parse().ok()?).map(|budget| Self(Some(budget)))
    }
}

impl TryFrom<String> for Requests {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("{text} is no limit of requests, such as 250+25 or off"))
    }
}

impl From<Requests> for String {
    fn from(requests: Requests) -> Self {
        match requests.0 {
            Some(budget) => format!("{}+{}", budget.size(), budget.refill()),
            None => "off".to_owned(),
        }
    }
}

impl Quotas {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The limits after `--limit` arguments.
    pub(crate) fn changed(&self, words: &[String]) -> Result<Self> {
        let mut quotas = self.clone();
        for word in words {
            if word == "none" {
                quotas = Self::default();
                continue;
            }
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            // The largest number that a store can sum up.
            let number = value.parse::<u64>().ok().filter(|number| *number <= 1_000_000);
            match (name, number, Requests::parse(value)) {
                ("clusters", Some(number), _) => quotas.clusters = Some(number),
                ("nodes", Some(number), _) => quotas.nodes = Some(number),
                ("cores", Some(number), _) => quotas.cores = Some(number),
                ("reads", _, Some(requests)) => quotas.reads = Some(requests),
                ("writes", _, Some(requests)) => quotas.writes = Some(requests),
                ("deletes", _, Some(requests)) => quotas.deletes = Some(requests),
                ("requests", ..) if value == "default" => quotas.set_requests(None),
                ("requests", ..) if value == "azure" => quotas.set_requests(Some(Budgets::AZURE)),
                ("requests", ..) if value == "off" => quotas.set_requests(Some(Budgets::OFF)),
                _ => {
                    return Err(Problem::usage(
                        format!("--limit {word} is no limit"),
                        format!(
                            "give clusters, nodes or cores with a number up to 1000000, e.g. --limit cores=64; reads, writes or deletes with two \
                             numbers up to {} or off, e.g. --limit reads=250+25; requests=azure, off or default; or none",
                            Budget::MOST
                        ),
                    )
                    .into());
                }
            }
        }
        Ok(quotas)
    }

    /// The operator's limits of all kinds of requests from now on.
    fn set_requests(&mut self, budgets: Option<Budgets>) {
        self.reads = budgets.map(|budgets| Requests(budgets.reads));
        self.writes = budgets.map(|budgets| Requests(budgets.writes));
        self.deletes = budgets.map(|budgets| Requests(budgets.deletes));
    }

    /// The limits of requests.
    pub(crate) fn budgets(&self) -> Budgets {
        let own = Budgets::default();
        let of = |said: Option<Requests>, own| said.map_or(own, |requests| requests.0);
        Budgets {
            reads: of(self.reads, own.reads),
            writes: of(self.writes, own.writes),
            deletes: of(self.deletes, own.deletes),
        }
    }

    /// The limits with this much room.
    pub(crate) fn with(&self, room: Room) -> Limits {
        let limits = Limits::of_room(room);
        let cores = self.cores.or(limits.cores);
        Limits {
            clusters: self.clusters.or(limits.clusters),
            nodes: self.nodes.or(limits.nodes),
            cores,
            room: Room {
                // The operator decides how often a core may be allocated.
                cores: limits.room.cores.max(cores),
                ..limits.room
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_the_hosts_unless_the_operator_says_others() {
        let words = |words: &[&str]| -> Vec<String> { words.iter().map(|word| (*word).to_owned()).collect() };
        let none = Quotas::default();
        let room = Room::of_host(2, 16 * 1024, Some(50), 2045, 2045);
        let own = none.with(room.clone());
        assert_eq!(
            (own.clusters, own.nodes, own.cores),
            (Some(19), Some(76), Some(64))
        );
        let said = none
            .changed(&words(&["clusters=3", "cores=100", "nodes=0"]))
            .unwrap();
        let limits = said.with(room);
        assert_eq!(
            (limits.clusters, limits.nodes, limits.cores, limits.room.cores),
            (Some(3), Some(0), Some(100), Some(100))
        );
        assert_eq!(said.changed(&words(&["nodes=9"])).unwrap().clusters, Some(3));
        assert_eq!(said.changed(&words(&["none", "nodes=9"])).unwrap().clusters, None);
        assert!(said.changed(&words(&["none"])).unwrap().is_empty());
        for wrong in [
            "",
            "cores",
            "cores=",
            "cores=-1",
            "cores=1e3",
            "disks=1",
            "nodes=1000001",
            "reads",
            "reads=",
            "reads=5",
            "reads=0+1",
            "reads=1+0",
            "reads=1+1+1",
            "reads=-1+1",
            "writes=100001+1",
            "deletes=1+100001",
            "requests",
            "requests=none",
            "requests=250+25",
        ] {
            assert!(none.changed(&words(&[wrong])).is_err(), "{wrong}");
        }
    }

    #[test]
    fn requests_are_limited_as_the_operator_says_and_it_is_kept() {
        let words = |words: &[&str]| -> Vec<String> { words.iter().map(|word| (*word).to_owned()).collect() };
        let none = Quotas::default();
        assert_eq!(none.budgets(), Budgets::default());
        let azure = none.changed(&words(&["requests=azure", "clusters=3"])).unwrap();
        assert_eq!(azure.budgets(), Budgets::AZURE);
        let said = azure.changed(&words(&["reads=7+2", "deletes=off"])).unwrap();
        let expected = Budgets {
            reads: Budget::new(7, 2),
            deletes: None,
            ..Budgets::AZURE
        };
        assert_eq!(said.budgets(), expected);
        // As it is kept.
        let text = toml::to_string(&said).unwrap();
        assert!(
            text.contains("reads = \"7+2\"") && text.contains("deletes = \"off\""),
            "{text}"
        );
        assert_eq!(toml::from_str::<Quotas>(&text).unwrap(), said);
        let error = toml::from_str::<Quotas>("reads = \"7\"").unwrap_err().to_string();
        assert!(error.contains("7 is no limit of requests"), "{error}");
        let off = said.changed(&words(&["requests=off"])).unwrap();
        assert_eq!(off.budgets(), Budgets::OFF);
        let back = off.changed(&words(&["requests=default"])).unwrap();
        assert_eq!(back, none.changed(&words(&["clusters=3"])).unwrap());
        assert!(off.changed(&words(&["none"])).unwrap().is_empty());
    }
}
