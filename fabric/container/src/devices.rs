//! Devices that machines must not open, for groups of version 1: denied on the group above a machine, which it
//! cannot see. Pure.
//!
//! Version 1 knows lists of what is permitted and lists of what is denied. A group below a list of the first
//! kind can never have all devices, which is what a privileged pod's group asks for; below one of the second
//! kind it can, and the list still holds. So a machine's group has a list of what is denied: whatever this host
//! has drivers for, and what others usually have, in case a driver is loaded later.

use std::collections::BTreeSet;

use crate::profile::NODE_DEVICES;

/// Major numbers of block devices that hosts usually have (`Documentation/admin-guide/devices.txt`): disks,
/// optical disks, arrays, network block devices, memory cards, device mapper, virtual disks, and those with
/// numbers given out as they come (NVMe, partitions).
const BLOCK: &[u32] = &[
    1, 2, 3, 8, 9, 11, 22, 33, 34, 43, 65, 66, 67, 68, 69, 70, 71, 128, 129, 130, 131, 132, 133, 134, 135,
    147, 179, 202, 230, 249, 250, 251, 252, 253, 254, 259,
];

/// The same of character devices: terminals of the host and their screens, printers, input, sound, disks by
/// their raw commands, video, USB, memory of cards, registers of processors, graphics.
const CHARACTER: &[u32] = &[
    4, 6, 7, 9, 13, 14, 21, 29, 81, 86, 89, 90, 99, 108, 116, 153, 161, 162, 166, 180, 188, 189, 195, 202,
    203, 204, 226, 235, 236, 238, 239, 240, 241, 242, 243, 244, 245, 246, 247, 248, 249, 250, 251, 252, 253,
    254,
];

/// Of the memory devices (major number 1) those that are not in every container: memory, ports, the host's log.
const MEMORY: &[u32] = &[1, 2, 4, 6, 10, 11, 12];

/// Miscellaneous devices (major number 10) that hosts usually have: clocks and watchdogs, snapshots, Btrfs,
/// automounts, virtual machines and their networks, device mapper, hardware random numbers, TPM, user input.
const MISCELLANEOUS: &[u32] = &[
    1, 130, 131, 134, 135, 144, 152, 175, 183, 184, 196, 223, 224, 227, 228, 231, 232, 234, 235, 236, 238,
    239, 240, 241, 242, 250,
];

/// Terminals of namespaces (5, and 128 to 143), which containers have.
fn is_terminal(major: u32) -> bool {
    major == 5 || (128..=143).contains(&major)
}

/// Lines for `devices.deny`. `devices` and `misc`: the content of `/proc/devices` and `/proc/misc`. Nodes of
/// devices may be made and not opened: runc permits every container to make them, which the kernel would
/// refuse it below a group that denies it for any device.
pub(crate) fn denied(devices: &str, misc: &str) -> Vec<String> {
    let (characters, blocks) = devices.split_once("Block devices:").unwrap_or((devices, ""));
    let permitted = |kind: &str, major: u32, minor: Option<u32>| {
        NODE_DEVICES
            .iter()
            .any(|known| *known == (kind, major, minor) || *known == (kind, major, None))
    };
    let blocks = numbers(blocks).chain(BLOCK.iter().copied());
    let blocks: BTreeSet<u32> = blocks.filter(|major| !permitted("b", *major, None)).collect();
    let characters = numbers(characters).chain(CHARACTER.iter().copied());
    // Memory and miscellaneous devices follow one by one.
    let characters: BTreeSet<u32> = characters
        .filter(|major| !matches!(major, 1 | 10) && !is_terminal(*major))
        .collect();
    let miscellaneous = numbers(misc).chain(MISCELLANEOUS.iter().copied());
    let miscellaneous: BTreeSet<u32> = miscellaneous
        .filter(|minor| !permitted("c", 10, Some(*minor)))
        .collect();
    let mut lines: Vec<String> = blocks.iter().map(|major| format!("b {major}:* rw")).collect();
    lines.extend(characters.iter().map(|major| format!("c {major}:* rw")));
    lines.extend(MEMORY.iter().map(|minor| format!("c 1:{minor} rw")));
    lines.extend(miscellaneous.iter().map(|minor| format!("c 10:{minor} rw")));
    lines
}

/// The number at the beginning of each line.
fn numbers(text: &str) -> impl Iterator<Item = u32> + '_ {
    text.lines()
        .filter_map(|line| line.split_whitespace().next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICES: &str = "Character devices:\n  1 mem\n  4 /dev/vc/0\n  5 /dev/tty\n  5 ttyprintk\n 10 misc\n128 ptm\n136 pts\n\
                           511 nvme-generic\n\nBlock devices:\n  7 loop\n  8 sd\n253 zram\n509 later\n";
    const MISC: &str = "229 fuse\n237 loop-control\n200 tun\n232 kvm\n 59 mystery\n";

    #[test]
    fn the_hosts_disks_memory_and_log_are_denied() {
        let lines = denied(DEVICES, MISC);
        for line in [
            "b 8:* rw",
            "b 253:* rw",
            "b 254:* rw",
            "b 259:* rw",
            "b 509:* rw",
            "c 1:1 rw",
            "c 1:11 rw",
            "c 4:* rw",
            "c 511:* rw",
            "c 10:232 rw",
            "c 10:59 rw",
        ] {
            assert!(lines.iter().any(|denied| denied == line), "{line}: {lines:?}");
        }
        let once: BTreeSet<&String> = lines.iter().collect();
        assert_eq!(once.len(), lines.len(), "{lines:?}");
    }

    #[test]
    fn what_containers_and_volumes_need_is_not() {
        let lines = denied(DEVICES, MISC);
        for number in [
            "c 1:3 ",
            "c 1:5 ",
            "c 1:7 ",
            "c 1:8 ",
            "c 1:9 ",
            "c 5:",
            "c 136:",
            "c 128:",
            "b 7:",
            "c 10:200 ",
            "c 10:229 ",
            "c 10:237 ",
            "c 1:* ",
            "c 10:* ",
        ] {
            assert!(
                !lines.iter().any(|line| line.starts_with(number)),
                "{number}: {lines:?}"
            );
        }
        // Nobody is kept from making nodes: runc makes those of containers.
        assert!(lines.iter().all(|line| line.ends_with(" rw")));
    }

    #[test]
    fn without_the_hosts_lists_the_usual_ones_are_denied() {
        let lines = denied("", "");
        assert!(lines.iter().any(|line| line == "b 8:* rw"));
        assert!(!lines.iter().any(|line| line.starts_with("b 7:")));
    }
}
