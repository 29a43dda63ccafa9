//! Memory of processes, read from `/proc`.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};

/// The needed data of a process.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) parent: u32,
    pub(crate) name: String,
    /// User and system time since its start, seconds.
    pub(crate) cpu_s: f64,
}

/// All processes.
pub(crate) fn processes() -> Result<BTreeMap<u32, Process>> {
    // USER_HZ: part of the kernel's ABI, 100 on every architecture that Linux has today.
    const TICKS_PER_SECOND: f64 = 100.0;
    let mut all = BTreeMap::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        // It may end while we look.
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        let Some((head, tail)) = stat.rsplit_once(") ") else {
            continue;
        };
        let name = head.split_once('(').map_or("", |(_, name)| name).to_owned();
        let fields: Vec<&str> = tail.split(' ').collect();
        let number = |index: usize| {
            fields
                .get(index)
                .and_then(|field| field.parse::<f64>().ok())
                .unwrap_or_default()
        };
        let parent = fields
            .get(1)
            .and_then(|field| field.parse().ok())
            .unwrap_or_default();
        all.insert(
            pid,
            Process {
                pid,
                parent,
                name,
                cpu_s: (number(11) + number(12)) / TICKS_PER_SECOND,
            },
        );
    }
    Ok(all)
}

/// A process and all that descend from it.
pub(crate) fn tree(all: &BTreeMap<u32, Process>, root: u32) -> Vec<&Process> {
    let mut members = vec![root];
    let mut index = 0;
    while let Some(&parent) = members.get(index) {
        members.extend(
            all.values()
                .filter(|process| process.parent == parent)
                .map(|process| process.pid),
        );
        index += 1;
    }
    members.iter().filter_map(|pid| all.get(pid)).collect()
}

/// CPU time of a process since its start, seconds.
pub(crate) fn cpu_s(pid: u32) -> Result<f64> {
    let process = processes()?.remove(&pid);
    Ok(process.with_context(|| format!("process {pid} is gone"))?.cpu_s)
}

/// Resident set, MiB.
pub(crate) fn rss_mib(pid: u32) -> Result<f64> {
    field_kib(Path::new(&format!("/proc/{pid}/status")), "VmRSS:").map(|kib| kib / 1024.0)
}

/// The private part of the resident set, MiB: the rest are pages of files, mostly of its program, which the
/// kernel may reclaim.
pub(crate) fn own_mib(pid: u32) -> Result<f64> {
    field_kib(Path::new(&format!("/proc/{pid}/status")), "RssAnon:").map(|kib| kib / 1024.0)
}

/// Proportional set, MiB: a page that n processes share counts 1/n in each.
pub(crate) fn pss_mib(pid: u32) -> Result<f64> {
    field_kib(Path::new(&format!("/proc/{pid}/smaps_rollup")), "Pss:").map(|kib| kib / 1024.0)
}

fn field_kib(file: &Path, name: &str) -> Result<f64> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    text.lines()
        .find_map(|line| {
            line.strip_prefix(name)?
                .trim()
                .strip_suffix(" kB")?
                .trim()
                .parse()
                .ok()
        })
        .with_context(|| format!("{} has no {name}", file.display()))
}
