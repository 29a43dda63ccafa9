//! What the host has that a stamp may have made: taken before and after, the difference has to be nothing.
#![expect(
    clippy::disallowed_methods,
    reason = "a test run waits on the host's own clock"
)]

use std::{collections::BTreeSet, process::Command};

use anyhow::Result;

use crate::clients::run;

/// A list of things on the host, as text, a thing a line with its kind in front.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host(BTreeSet<String>);

impl Host {
    /// Looks at processes, mounts, network namespaces, links, routes, nftables, and control groups.
    /// Of processes, only those that belong to this stamp.
    pub(crate) fn look(stamp: &str) -> Result<Self> {
        let mut seen = BTreeSet::new();
        let mut add = |kind: &str, lines: &str| {
            seen.extend(
                lines
                    .lines()
                    .filter(|line| !line.trim().is_empty())
                    .map(|line| format!("{kind}: {}", line.trim())),
            );
        };
        add(
            "namespace",
            &run(Command::new("ip").args(["-o", "netns", "list"]))?
                .replace(" (id:", "\u{0}")
                .lines()
                .map(|line| line.split('\u{0}').next().unwrap_or(line).to_owned())
                .collect::<Vec<_>>()
                .join("\n"),
        );
        let links = run(Command::new("ip").args(["-o", "link", "show"]))?;
        add(
            "link",
            &links
                .lines()
                .filter_map(|line| line.split(": ").nth(1))
                .collect::<Vec<_>>()
                .join("\n"),
        );
        add("route", &run(Command::new("ip").args(["-4", "route", "show"]))?);
        // On a machine without any table yet nft prints nothing.
        add("nft", &run(Command::new("nft").args(["list", "tables"]))?);
        let mounts = std::fs::read_to_string("/proc/mounts")?;
        let ours =
            |line: &&str| line.contains("landfall") || line.contains("/netns/lf") || line.contains("overlay");
        add(
            "mount",
            &mounts.lines().filter(ours).collect::<Vec<_>>().join("\n"),
        );
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup")?.flatten() {
            let group = hierarchy.path().join("landfall");
            if group.is_dir() {
                for stamp in std::fs::read_dir(&group)?
                    .flatten()
                    .filter(|entry| entry.path().is_dir())
                {
                    add("cgroup", &stamp.path().to_string_lossy());
                }
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
            // Somebody else's stamp beside ours is none of our business.
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
                add("process", &format!("{pid} {line}"));
            }
        }
        Ok(Self(seen))
    }

    /// What is here and was not there before.
    pub(crate) fn beyond(&self, before: &Self) -> Vec<String> {
        self.0.difference(&before.0).cloned().collect()
    }
}

/// What a power failure does, as near as a test may come to it: every process of the stamp's machines is killed, and all
/// that lives in the kernel or below `/run` is gone. Files on disk stay.
pub(crate) fn power_failure(stamp: &str, before: &Host) -> Result<()> {
    // Killing takes a few rounds: what is killed may have been starting something.
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
