//! How much clusters may ask for: what this host has room for, and what the operator of the stamp says.
//!
//! Always true: without a word of the operator the limits are the host's own, as they are when the service starts.

use std::path::Path;

use anyhow::Result;
use control_records::usage::{Limits, MACHINE_DISK_GIB, Room};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::{
    host,
    problem::Problem,
    stamp::{Places, Settings},
};

/// What the operator has said about each subscription.
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

    /// With what `--limit` says.
    pub(crate) fn changed(&self, words: &[String]) -> Result<Self> {
        let mut quotas = self.clone();
        for word in words {
            if word == "none" {
                quotas = Self::default();
                continue;
            }
            let number = word.split_once('=').and_then(|(name, number)| {
                // As large as a store can sum up; nobody has more.
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

    /// The limits, where there is this much room.
    fn with(&self, room: Room) -> Limits {
        let limits = Limits::of_room(room);
        let cores = self.cores.or(limits.cores);
        Limits {
            clusters: self.clusters.or(limits.clusters),
            nodes: self.nodes.or(limits.nodes),
            cores,
            room: Room {
                // How often a core is given out is the operator's to say.
                cores: limits.room.cores.max(cores),
                ..limits.room
            },
        }
    }
}

/// The limits of a stamp on this host.
pub(crate) fn limits(places: &Places, settings: &Settings) -> Limits {
    let network = settings.network();
    let room = Room {
        memory_mib: None,
        ..Room::of_host(
            host::cores(),
            0,
            disk_gib(&places.fabric()),
            addresses(network.machines()),
            addresses(network.vips()),
        )
    };
    // Where it cannot be known how much memory there is, it is no limit.
    let room = host::memory_mib().map_or(room.clone(), |memory_mib| Room {
        memory_mib: Room::of_host(0, memory_mib, None, 0, 0).memory_mib,
        ..room
    });
    settings.limits.with(room)
}

/// Addresses of a range that can be given out: neither its first two nor its last.
fn addresses(range: Ipv4Net) -> u64 {
    let size = u32::from(range.broadcast()) - u32::from(range.network());
    u64::from(size.saturating_sub(2))
}

/// What machines can still take of the disk that they are on, and what those that are there take at least, GiB. `None` where the system
/// does not say.
fn disk_gib(fabric: &Path) -> Option<u64> {
    let there = fabric.ancestors().find(|path| path.exists())?;
    let seen = nix::sys::statvfs::statvfs(there).ok()?;
    let free = seen.blocks_available().saturating_mul(seen.fragment_size()) >> 30;
    let machines = std::fs::read_dir(fabric.join("machines")).map_or(0, Iterator::count);
    let machines = u64::try_from(machines).unwrap_or(u64::MAX);
    Some(free.saturating_add(machines.saturating_mul(MACHINE_DISK_GIB)))
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

    #[test]
    fn a_range_and_a_disk_have_room() {
        assert_eq!(addresses("100.64.0.0/21".parse().unwrap()), 2045);
        assert_eq!(addresses("100.64.0.0/32".parse().unwrap()), 0);
        assert!(disk_gib(Path::new("/does/not/exist")).is_some());
    }
}
