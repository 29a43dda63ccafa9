//! Limits of clusters that the operator of the stamp has set.

use anyhow::Result;
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
            let number = word.split_once('=').and_then(|(name, number)| {
                // The largest number that a store can sum up.
                let number: u64 = number.parse().ok().filter(|number| *number <= 1_000_000)?;
                Some((name, number))
            });
            match number {
                Some(("clusters", number)) => quotas.clusters = Some(number),
                Some(("nodes", number)) => quotas.nodes = Some(number),
                Some(("cores", number)) => quotas.cores = Some(number),
                _ => {
                    return Err(Problem::usage(
                        format!("--limit {word} is no limit"),
                        "give clusters, nodes or cores with a number up to 1000000, e.g. --limit cores=64, or none",
                    )
                    .into());
                }
            }
        }
        Ok(quotas)
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
        ] {
            assert!(none.changed(&words(&[wrong])).is_err(), "{wrong}");
        }
    }
}
