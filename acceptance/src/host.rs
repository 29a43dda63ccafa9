//! What the host has that a stamp may have made: taken before and after, the difference has to be nothing.

use std::{collections::BTreeSet, process::Command};

use anyhow::Result;

use crate::clients::run;

/// A list of things on the host, as text, a thing a line with its kind in front.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host(BTreeSet<String>);

impl Host {
    /// Looks at processes, mounts, network namespaces, links, routes, nftables, and control groups.
    pub(crate) fn look() -> Result<Self> {
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
