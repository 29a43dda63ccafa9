//! Periodic observations beside exits and probes of processes: paths that must not vanish, status files of
//! programs, disk usage, the size of the agent.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use agent_protocol::{DiskSeen, Process};
use nix::sys::statvfs::statvfs;
use serde_json::Value;

use crate::Paths;

/// Longer status files are ignored.
const LONGEST: u64 = 8 * 1024;
/// Directories on disks that matter to some machine.
const DIRECTORIES: &[&str] = &["/", "/var/lib/etcd", "/var/lib/containerd"];
const MIB: u64 = 1024 * 1024;
/// Percentages of usage that are reported however small the change.
const FULL: &[u64] = &[95, 99];

/// The first of these paths that is missing, by process that is ready.
pub(crate) fn vanished(paths: &Paths, process: &Process) -> Option<String> {
    process
        .needs
        .iter()
        .find(|path| {
            fs::symlink_metadata(paths.machine(path))
                .is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
        })
        .cloned()
}

/// The status files of programs.
#[derive(Default)]
pub(crate) struct Statuses {
    known: BTreeMap<String, Known>,
}

#[derive(Default, PartialEq)]
struct Known {
    /// Inode, size, time of change: they differ for another file and for a rewritten one.
    stamp: Option<(u64, u64, i64, i64)>,
    value: Option<Value>,
}

impl Statuses {
    /// Reads the status files of these processes. `true` if any content has changed.
    pub(crate) fn look(&mut self, paths: &Paths, processes: &[Process]) -> bool {
        self.known
            .retain(|name, _| processes.iter().any(|process| process.name == *name));
        let mut changed = false;
        for process in processes {
            let Some(path) = &process.status else { continue };
            let path = paths.machine(path);
            let known = self.known.entry(process.name.clone()).or_default();
            let stamp = fs::metadata(&path)
                .ok()
                .map(|found| (found.ino(), found.size(), found.mtime(), found.mtime_nsec()));
            if stamp == known.stamp {
                continue;
            }
            let value = read(&path);
            changed |= value != known.value;
            *known = Known { stamp, value };
        }
        changed
    }

    /// The status of this process.
    pub(crate) fn of(&self, name: &str) -> Option<Value> {
        self.known.get(name)?.value.clone()
    }
}

/// Content that is too long or no JSON counts as none.
fn read(path: &Path) -> Option<Value> {
    let mut text = Vec::new();
    File::open(path)
        .ok()?
        .take(LONGEST + 1)
        .read_to_end(&mut text)
        .ok()?;
    if text.len() as u64 > LONGEST {
        return None;
    }
    serde_json::from_slice(&text).ok()
}

/// The file systems of the machine, each once.
pub(crate) fn disks(paths: &Paths) -> Vec<DiskSeen> {
    let mut known = Vec::new();
    let mut disks = Vec::new();
    for directory in DIRECTORIES {
        let path = paths.machine(directory);
        let (Ok(found), Ok(space)) = (fs::metadata(&path), statvfs(&path)) else {
            continue;
        };
        if known.contains(&found.dev()) {
            continue;
        }
        known.push(found.dev());
        disks.push(DiskSeen {
            path: (*directory).to_owned(),
            total_mib: space.blocks().saturating_mul(space.fragment_size()) / MIB,
            free_mib: space.blocks_available().saturating_mul(space.fragment_size()) / MIB,
        });
    }
    disks
}

/// Whether this usage is to be reported after that one was: a change of a tenth, or one of the last steps before the disk is full.
pub(crate) fn is_news(told: &[DiskSeen], now: &[DiskSeen]) -> bool {
    let used = |disk: &DiskSeen| 100 - (disk.free_mib.saturating_mul(100) / disk.total_mib.max(1)).min(100);
    told.len() != now.len()
        || told.iter().zip(now).any(|(told, now)| {
            let (before, after) = (used(told), used(now));
            told.path != now.path
                || before.abs_diff(after) >= 10
                || FULL.iter().any(|step| before < *step && after >= *step)
                // A small decrease is not reported: usage at a threshold would be reported again and again.
                || FULL.iter().any(|step| before >= *step && after + 2 < *step)
        })
}

/// Resident memory of this process, KiB.
pub(crate) fn rss_kib() -> u64 {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            status.lines().find_map(|line| {
                line.strip_prefix("VmRSS:")?
                    .trim()
                    .strip_suffix(" kB")?
                    .trim()
                    .parse()
                    .ok()
            })
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(used: u64) -> [DiskSeen; 1] {
        [DiskSeen {
            path: "/".into(),
            total_mib: 1000,
            free_mib: 1000 - used * 10,
        }]
    }

    #[test]
    fn a_disk_is_told_by_tenths_and_when_it_gets_full() {
        for (told, now, news) in [
            (50, 50, false),
            (50, 59, false),
            (50, 60, true),
            (50, 40, true),
            (94, 95, true),
            (95, 94, false),
            (95, 92, true),
            (98, 99, true),
            (99, 98, false),
            (99, 100, false),
        ] {
            assert_eq!(is_news(&disk(told), &disk(now)), news, "{told} -> {now}");
        }
        assert!(is_news(&[], &disk(1)));
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("var/lib/etcd")).unwrap();
        let seen = disks(&Paths::below(root.path()));
        // A file system is reported once.
        assert_eq!(seen.len(), 1);
        assert!(seen[0].path == "/" && seen[0].total_mib > 0 && seen[0].free_mib <= seen[0].total_mib);
    }

    #[test]
    fn a_status_is_json_and_short() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        let says = |status: &str| Process {
            name: "p".into(),
            status: Some(status.into()),
            ..Process::default()
        };
        let (mut statuses, processes) = (Statuses::default(), [says("/s"), Process::default()]);
        let write = |text: &str| {
            fs::write(root.path().join("s.new"), text).unwrap();
            fs::rename(root.path().join("s.new"), root.path().join("s")).unwrap();
        };
        assert!(!statuses.look(&paths, &processes));
        write(r#"{"a":1}"#);
        assert!(statuses.look(&paths, &processes));
        assert_eq!(statuses.of("p"), Some(serde_json::json!({ "a": 1 })));
        assert!(!statuses.look(&paths, &processes));
        // Rewritten with the same content: no change. Truncated or too long: no status.
        write(r#"{ "a": 1 }"#);
        assert!(!statuses.look(&paths, &processes));
        write(r#"{"a":"#);
        assert!(statuses.look(&paths, &processes) && statuses.of("p").is_none());
        write(&format!("\"{}\"", "x".repeat(8190)));
        assert!(statuses.look(&paths, &processes) && statuses.of("p").is_some());
        write(&format!("\"{}\"", "x".repeat(8191)));
        assert!(statuses.look(&paths, &processes) && statuses.of("p").is_none());
        assert!(!statuses.look(&paths, &[]));
        assert!(statuses.known.is_empty());
    }

    #[test]
    fn a_path_that_vanished_is_named() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        let needs = Process {
            needs: vec!["/a".into(), "/b".into()],
            ..Process::default()
        };
        fs::write(root.path().join("a"), "").unwrap();
        assert_eq!(vanished(&paths, &needs).as_deref(), Some("/b"));
        fs::write(root.path().join("b"), "").unwrap();
        assert_eq!(vanished(&paths, &needs), None);
    }
}
