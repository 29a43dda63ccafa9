//! Limits of clusters: the room of this host, and the operator's settings.
//!
//! Always true: without settings of the operator the limits are the host's, as they are when the service
//! starts.

use std::path::Path;

use control_records::usage::{Limits, MACHINE_DISK_GIB, Room};
use ipnet::Ipv4Net;

use crate::{
    host,
    stamp::{Places, Settings},
};

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
    // If the amount of memory is not known, it is no limit.
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

/// The free space of the machines' disk, and the least that the present machines use, GiB. `None` if the
/// system does not report it.
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
    fn a_range_and_a_disk_have_room() {
        assert_eq!(addresses("100.64.0.0/21".parse().unwrap()), 2045);
        assert_eq!(addresses("100.64.0.0/32".parse().unwrap()), 0);
        assert!(disk_gib(Path::new("/does/not/exist")).is_some());
    }
}
