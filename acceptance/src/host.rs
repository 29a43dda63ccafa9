//! The objects of the host that a stamp may have made: listed before and after, there must be no difference.
#![expect(
    clippy::disallowed_methods,
    reason = "a test run waits on the host's own clock"
)]

use std::{collections::BTreeSet, process::Command};

use anyhow::Result;
use fabric_net::Names;

use crate::clients::run;

/// A list of objects of the host, as text, one per line with its kind in front.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host(BTreeSet<String>);

impl Host {
    /// Lists processes, mounts, loop devices, network namespaces, links, routes, nftables, and control groups
    /// of this stamp. Other stamps on the host are left out.
    pub(crate) fn look(stamp: &str) -> Result<Self> {
        let names = Names::new(stamp);
        let tag = names.tag();
        let mut seen = BTreeSet::new();
        let mut add = |kind: &str, lines: Vec<&str>| {
            seen.extend(
                lines
                    .iter()
                    .filter(|line| !line.trim().is_empty())
                    .map(|line| format!("{kind}: {}", line.trim())),
            );
        };
        let namespaces = run(Command::new("ip").args(["-o", "netns", "list"]))?;
        add(
            "namespace",
            namespaces
                .lines()
                .filter_map(|line| line.split(' ').next())
                .filter(|name| name.contains(tag))
                .collect(),
        );
        let bridge = names.bridge();
        let links = run(Command::new("ip").args(["-o", "link", "show"]))?;
        add(
            "link",
            links
                .lines()
                .filter(|line| line.contains(tag) || line.contains(&format!(" master {bridge} ")))
                .filter_map(|line| line.split(": ").nth(1))
                .collect(),
        );
        let routes = run(Command::new("ip").args(["-4", "route", "show"]))?;
        add("route", routes_of(&bridge, &routes));
        // On a machine without any table nft prints nothing.
        let tables = run(Command::new("nft").args(["list", "tables"]))?;
        add("nft", tables.lines().filter(|line| line.contains(tag)).collect());
        let mounts = std::fs::read_to_string("/proc/mounts")?;
        add(
            "mount",
            mounts
                .lines()
                .filter(|line| line.contains(tag) || line.contains(&format!("/{stamp}/")))
                .collect(),
        );
        for device in std::fs::read_dir("/sys/block")?.flatten() {
            // A device without a file has no such entry.
            let Ok(file) = std::fs::read_to_string(device.path().join("loop/backing_file")) else {
                continue;
            };
            if file.contains(&format!("/{stamp}/")) {
                let name = device.file_name();
                add("loop", vec![&*format!("{} {file}", name.to_string_lossy())]);
            }
        }
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup")?.flatten() {
            let group = hierarchy.path().join("landfall").join(stamp);
            if group.is_dir() {
                add("cgroup", vec![&*group.to_string_lossy()]);
            }
        }
        for process in std::fs::read_dir("/proc")?.flatten() {
            let Some(pid) = process
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<u32>().ok())
            else {
                continue;
            };
            // A process that ends while we look has no command line any more.
            let Ok(line) = std::fs::read_to_string(format!("/proc/{pid}/cmdline")) else {
                continue;
            };
            let line = line.replace('\0', " ");
            let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            if !groups.contains(&format!("/landfall/{stamp}/")) && !line.contains(stamp) {
                continue;
            }
            let program = line
                .split(' ')
                .next()
                .unwrap_or_default()
                .rsplit('/')
                .next()
                .unwrap_or_default();
            if [
                "landfall",
                "landfall-agent",
                "etcd",
                "kubelet",
                "containerd",
                "containerd-shim-runc-v2",
            ]
            .contains(&program)
                || program.starts_with("kube-")
            {
                add("process", vec![&*format!("{pid} {line}")]);
            }
        }
        Ok(Self(seen))
    }

    /// The objects that were not there before.
    pub(crate) fn beyond(&self, before: &Self) -> Vec<String> {
        self.0.difference(&before.0).cloned().collect()
    }
}

/// The routes of a stamp: those by way of its bridge, and the unreachable ones of ranges that no other stamp uses.
fn routes_of<'a>(bridge: &str, routes: &'a str) -> Vec<&'a str> {
    let destination = |line: &'a str| line.trim_start_matches("unreachable ").split(' ').next();
    let by_another: BTreeSet<_> = routes
        .lines()
        .filter(|line| line.contains(" dev lfs") && !line.contains(bridge))
        .filter_map(destination)
        .collect();
    routes
        .lines()
        .filter(|line| line.contains(bridge) || line.starts_with("unreachable "))
        .filter(|line| destination(line).is_none_or(|range| !by_another.contains(range)))
        .collect()
}

/// Simulates a power failure, as far as a test can: kills every process of the stamp's machines, and removes
/// all kernel objects and files below `/run`. Files on disk stay.
pub(crate) fn power_failure(stamp: &str, before: &Host) -> Result<()> {
    // Killing takes a few rounds: a process may have started another one.
    for _ in 0..50 {
        let mut alive = 0;
        for group in groups_of(stamp)? {
            let Ok(members) = std::fs::read_to_string(group.join("cgroup.procs")) else {
                continue;
            };
            for pid in members.lines() {
                alive += 1;
                // It may have ended already.
                drop(crate::clients::attempt(Command::new("kill").args(["-9", pid]))?);
            }
        }
        if alive == 0 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let left = Host::look(stamp)?.beyond(before);
    let of = |kind: &str| -> Vec<String> {
        let prefix = format!("{kind}: ");
        left.iter()
            .filter_map(|line| Some(line.strip_prefix(&prefix)?.to_owned()))
            .collect()
    };
    // Mounts within mounts: the longest path first.
    let mut mounts: Vec<String> = of("mount")
        .iter()
        .filter_map(|line| line.split(' ').nth(1).map(str::to_owned))
        .collect();
    mounts.sort_by_key(|path| std::cmp::Reverse(path.len()));
    for path in mounts {
        crate::clients::attempt(Command::new("umount").args(["--lazy", &path]))?;
    }
    for device in of("loop") {
        // Those of machines' disks may have gone with their mounts.
        let name = device.split(' ').next().unwrap_or_default();
        crate::clients::attempt(Command::new("losetup").args(["--detach", &format!("/dev/{name}")]))?;
    }
    for namespace in of("namespace") {
        crate::clients::attempt(Command::new("ip").args(["netns", "delete", &namespace]))?;
    }
    for link in of("link") {
        let name = link.split('@').next().unwrap_or(&link).to_owned();
        crate::clients::attempt(Command::new("ip").args(["link", "delete", &name]))?;
    }
    for table in of("nft") {
        let words: Vec<&str> = table.split(' ').collect();
        crate::clients::attempt(Command::new("nft").arg("delete").args(words))?;
    }
    for route in of("route") {
        let words: Vec<&str> = route.split_whitespace().collect();
        crate::clients::attempt(Command::new("ip").args(["route", "delete"]).args(words))?;
    }
    for group in groups_of(stamp)?.into_iter().rev() {
        // The kernel forgets them at a power failure; a directory of the cgroup file system cannot be refused for content.
        drop(std::fs::remove_dir(group));
    }
    let run = std::path::Path::new("/run/landfall").join(stamp);
    if run.exists() {
        std::fs::remove_dir_all(run)?;
    }
    Ok(())
}

/// All control groups of a stamp, parents before children.
fn groups_of(stamp: &str) -> Result<Vec<std::path::PathBuf>> {
    let mut groups = Vec::new();
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup")?.flatten() {
        let mut queue = vec![hierarchy.path().join("landfall").join(stamp)];
        while let Some(group) = queue.pop() {
            let Ok(entries) = std::fs::read_dir(&group) else {
                continue;
            };
            queue.extend(
                entries
                    .flatten()
                    .map(|entry| entry.path())
                    .filter(|path| path.is_dir()),
            );
            groups.push(group);
        }
    }
    Ok(groups)
}

#[cfg(test)]
mod tests {
    #[test]
    fn routes_of_another_stamp_are_left_out() {
        let routes = "default via 10.0.0.1 dev eth0\n\
                      100.65.0.0/20 dev lfsaaaa proto kernel scope link src 100.65.0.1\n\
                      100.66.0.0/20 dev lfsbbbb proto kernel scope link src 100.66.0.1\n\
                      unreachable 100.65.0.0/20 metric 4096\n\
                      unreachable 100.66.0.0/20 metric 4096\n";
        assert_eq!(
            super::routes_of("lfsaaaa", routes),
            [
                "100.65.0.0/20 dev lfsaaaa proto kernel scope link src 100.65.0.1",
                "unreachable 100.65.0.0/20 metric 4096",
            ]
        );
    }
}
