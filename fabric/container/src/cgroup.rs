//! Control groups of machines, in every hierarchy of version 1 and 2: sets limits, and removes groups.
//!
//! Always true: the limits of a machine, and what it may not open ([`crate::devices`]), are set on a group that
//! it cannot see. It lives in the group below ([`INNER`]), which is the root of its own cgroup namespace and
//! writable to it.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use base_env::Env;
use fabric_api::FabricError;
use rustix::process::{Pid, Signal, kill_process};

use crate::{devices, files};

/// Number of attempts and pause: a killed process stays in its group until the kernel has removed it.
const TRIES: u32 = 200;
const PAUSE: Duration = Duration::from_millis(25);

/// The group of a machine's processes, below the one with its limits.
pub(crate) const INNER: &str = "machine";

/// The limits of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit {
    /// Thousandths of a core.
    pub(crate) cpu_millis: u32,
    /// Its share of the cores while they are contended, in the units of version 2: 100 is the default of a
    /// group.
    pub(crate) cpu_weight: u64,
    /// MiB.
    pub(crate) memory_mib: u64,
    /// Whether the host's swap space may hold more of it than that. Otherwise none: a machine that fills its
    /// memory would fill the host's swap space next.
    pub(crate) swaps: bool,
    /// Processes and threads.
    pub(crate) tasks: u64,
    /// Its share of a contended disk, in the units of version 2: 100 is the default of a group. Only where the
    /// host has a scheduler for it.
    pub(crate) io_weight: u64,
}

/// The kernel's default, microseconds.
pub(crate) const CPU_PERIOD: u64 = 100_000;

/// The kernel's default, in the units of version 2.
pub(crate) const CPU_WEIGHT: u64 = 100;
pub(crate) const IO_WEIGHT: u64 = 100;

/// The same default in the units of version 1.
const CPU_SHARES: u64 = 1024;

/// Controllers that a machine cannot be limited without.
const NEEDED: [&str; 3] = ["cpu", "memory", "pids"];

impl Limit {
    /// Controllers, and the values for each: files of version 1 and of version 2.
    fn files(self) -> [(&'static str, Vec<(&'static str, String)>); 4] {
        let (quota, memory) = (
            u64::from(self.cpu_millis) * CPU_PERIOD / 1000,
            self.memory_mib << 20,
        );
        let mut memory_files = vec![
            ("memory.limit_in_bytes", memory.to_string()),
            ("memory.max", memory.to_string()),
        ];
        if !self.swaps {
            memory_files.extend([
                // Memory and swap space together. After the limit of memory, which it may not be below.
                ("memory.memsw.limit_in_bytes", memory.to_string()),
                ("memory.swap.max", "0".to_owned()),
            ]);
        }
        [
            (
                "cpu",
                vec![
                    ("cpu.cfs_period_us", CPU_PERIOD.to_string()),
                    ("cpu.cfs_quota_us", quota.to_string()),
                    ("cpu.max", format!("{quota} {CPU_PERIOD}")),
                    (
                        "cpu.shares",
                        (self.cpu_weight * CPU_SHARES / CPU_WEIGHT).to_string(),
                    ),
                    ("cpu.weight", self.cpu_weight.to_string()),
                ],
            ),
            ("memory", memory_files),
            ("pids", vec![("pids.max", self.tasks.to_string())]),
            (
                "io",
                vec![
                    ("blkio.bfq.weight", self.io_weight.to_string()),
                    ("io.bfq.weight", self.io_weight.to_string()),
                    ("io.weight", self.io_weight.to_string()),
                ],
            ),
        ]
    }
}

/// Whether control groups are of version 2 alone, as `runc` decides it: by what is mounted at the usual place.
pub(crate) fn is_unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// Creates a machine's group, sets its limits, and denies it the host's devices where that is version 1's.
pub(crate) fn confine(group: &str, limit: Limit) -> Result<(), FabricError> {
    let failed = |error: io::Error| FabricError::failed(format!("limit the control group {group}"), error);
    let read = |path: &str| fs::read_to_string(path).map_err(failed);
    let denied = devices::denied(&read("/proc/devices")?, &read("/proc/misc")?);
    confine_below(&hierarchies().map_err(failed)?, group, limit, &denied).map_err(failed)
}

fn confine_below(hierarchies: &[PathBuf], group: &str, limit: Limit, denied: &[String]) -> io::Result<()> {
    let mut missing = NEEDED.to_vec();
    for hierarchy in hierarchies {
        let place = inside(hierarchy, group);
        if hierarchy.join("cgroup.controllers").exists() {
            delegate(hierarchy, &place)?;
        }
        fs::create_dir_all(&place)?;
        for (name, files) in limit.files() {
            for (file, value) in files {
                if place.join(file).exists() {
                    set(&place, file, &value)?;
                    missing.retain(|missing| *missing != name);
                }
            }
        }
        if place.join("devices.deny").exists() {
            // The kernel takes one at a time.
            denied
                .iter()
                .try_for_each(|line| set(&place, "devices.deny", line))?;
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "this host has no controller for {}; 'landfall doctor' says how to switch it on",
        missing.join(", ")
    )))
}

/// In version 2 a group has only those controllers that all groups above it enable.
fn delegate(hierarchy: &Path, place: &Path) -> io::Result<()> {
    let available = fs::read_to_string(hierarchy.join("cgroup.controllers"))?;
    let wanted: Vec<String> = available
        .split_whitespace()
        .filter(|name| matches!(*name, "cpu" | "io" | "memory" | "pids"))
        .map(|name| format!("+{name}"))
        .collect();
    let Some(above) = place.parent().filter(|_| !wanted.is_empty()) else {
        return Ok(());
    };
    fs::create_dir_all(above)?;
    let mut at = hierarchy.to_owned();
    for part in above
        .strip_prefix(hierarchy)
        .map_err(io::Error::other)?
        .components()
    {
        set(&at, "cgroup.subtree_control", &wanted.join(" "))?;
        at.push(part);
    }
    set(&at, "cgroup.subtree_control", &wanted.join(" "))
}

/// Mount points of the hierarchies.
pub(crate) fn hierarchies() -> io::Result<Vec<PathBuf>> {
    Ok(mounted(&fs::read_to_string("/proc/self/mountinfo")?))
}

/// Mount points of control group hierarchies that show the root, from `mountinfo`.
fn mounted(mountinfo: &str) -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> = mountinfo
        .lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let kind = after.split(' ').next()?;
            let mut fields = before.split(' ').skip(3);
            let (root, place) = (fields.next()?, fields.next()?);
            (matches!(kind, "cgroup" | "cgroup2") && root == "/").then(|| PathBuf::from(place))
        })
        .collect();
    places.sort_unstable();
    places.dedup();
    places
}

/// The groups directly below `group`, over all hierarchies.
pub(crate) fn below(group: &str) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for hierarchy in hierarchies()? {
        let place = inside(&hierarchy, group);
        for name in files::names_in(&place)? {
            if place.join(&name).is_dir() {
                names.push(name);
            }
        }
    }
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// Kills everything in a group and in those below it, and removes them.
pub(crate) async fn remove(env: &Env, group: &str) -> Result<(), FabricError> {
    let act = format!("remove the control group {group}");
    let places: Vec<PathBuf> = hierarchies()
        .map_err(|error| FabricError::failed(&act, error))?
        .iter()
        .map(|hierarchy| inside(hierarchy, group))
        .collect();
    let mut last = None;
    for _ in 0..TRIES {
        last = places
            .iter()
            .filter(|place| place.exists())
            .filter_map(|place| remove_tree(place).err())
            .fold(None, |_, error| Some(error));
        if last.is_none() {
            return Ok(());
        }
        env.clock.sleep(PAUSE).await;
    }
    Err(FabricError::failed(
        act,
        last.map_or_else(String::new, |error| error.to_string()),
    ))
}

fn inside(hierarchy: &Path, group: &str) -> PathBuf {
    hierarchy.join(group.trim_start_matches('/'))
}

/// Depth first: a group that has groups below it cannot be removed.
fn remove_tree(place: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let mut failed = None;
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            failed = remove_tree(&entry.path()).err().or(failed);
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    match fs::remove_dir(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => {
            kill_all(place);
            Err(error)
        }
        Ok(()) => Ok(()),
    }
}

fn kill_all(place: &Path) {
    // Version 2 has one file for all processes, including those of groups below and those just being forked.
    if set(place, "cgroup.kill", "1").is_ok() {
        return;
    }
    // A frozen process receives no signal.
    let _ = set(place, "freezer.state", "THAWED").or_else(|_| set(place, "cgroup.freeze", "0"));
    let text = fs::read_to_string(place.join("cgroup.procs")).unwrap_or_default();
    for pid in text
        .lines()
        .filter_map(|line| line.parse().ok())
        .filter_map(Pid::from_raw)
    {
        // The process may have ended meanwhile.
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Writes to a control file; which files exist depends on hierarchy and version.
fn set(place: &Path, file: &str, value: &str) -> io::Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .open(place.join(file))?
        .write_all(value.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::process::ExitStatusExt as _,
        process::{Child, Command},
    };

    use super::*;

    fn sleeper() -> Child {
        Command::new("sleep").arg("1000").spawn().unwrap()
    }

    fn files_of(place: &Path) -> Vec<String> {
        files::names_in(place).unwrap().into_iter().collect()
    }

    /// A directory with control files like those of version 2.
    fn fixture(files: &[(&str, &str)]) -> tempfile::TempDir {
        let place = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::write(place.path().join(name), content).unwrap();
        }
        place
    }

    #[test]
    fn a_group_of_version_2_is_killed_with_one_word() {
        let place = fixture(&[("cgroup.procs", ""), ("cgroup.freeze", "1"), ("cgroup.kill", "")]);
        kill_all(place.path());
        assert_eq!(fs::read_to_string(place.path().join("cgroup.kill")).unwrap(), "1");
        assert_eq!(
            fs::read_to_string(place.path().join("cgroup.freeze")).unwrap(),
            "1"
        );
        assert_eq!(files_of(place.path()).len(), 3, "nothing of version 1 is written");
    }

    #[test]
    fn without_that_word_each_process_is_thawed_and_killed() {
        for freezer in ["cgroup.freeze", "freezer.state"] {
            let mut child = sleeper();
            let place = fixture(&[
                ("cgroup.procs", &format!("{}\n", child.id())),
                (freezer, "frozen"),
            ]);
            kill_all(place.path());
            assert_eq!(child.wait().unwrap().signal(), Some(9));
            let wanted = if freezer == "cgroup.freeze" {
                "0rozen"
            } else {
                "THAWED"
            };
            assert_eq!(fs::read_to_string(place.path().join(freezer)).unwrap(), wanted);
            assert_eq!(files_of(place.path()).len(), 2);
        }
    }

    #[test]
    fn limits_of_both_versions_are_set_where_they_are() {
        let limit = Limit {
            cpu_millis: 1500,
            cpu_weight: 400,
            memory_mib: 64,
            swaps: false,
            tasks: 99,
            io_weight: 400,
        };
        let denied = ["b 8:* rw".to_owned(), "c 1:11 rw".to_owned()];
        // The kernel creates the files of a group together with it; here they exist before.
        let host = tempfile::tempdir().unwrap();
        let make = |hierarchy: &str, above: &[&str], files: &[&str]| {
            let place = host.path().join(hierarchy);
            fs::create_dir_all(place.join("lf/m1")).unwrap();
            for file in above {
                fs::write(place.join(file), "cpu memory pids io").unwrap();
                fs::write(place.join("lf").join(file), "").unwrap();
            }
            for file in files {
                fs::write(place.join(file), "").unwrap();
                fs::write(place.join("lf/m1").join(file), "").unwrap();
            }
            place
        };
        let first = [
            make(
                "cpu",
                &[],
                &["cpu.cfs_period_us", "cpu.cfs_quota_us", "cpu.shares"],
            ),
            make(
                "memory",
                &[],
                &["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"],
            ),
            make("pids", &[], &["pids.max"]),
            make("devices", &[], &["devices.deny"]),
            make("freezer", &[], &[]),
        ];
        confine_below(&first, "/lf/m1", limit, &denied).unwrap();
        let read = |path: &str| fs::read_to_string(host.path().join(path)).unwrap();
        assert_eq!(read("cpu/lf/m1/cpu.cfs_quota_us"), "150000");
        assert_eq!(read("cpu/lf/m1/cpu.shares"), "4096");
        assert_eq!(read("memory/lf/m1/memory.limit_in_bytes"), "67108864");
        assert_eq!(read("memory/lf/m1/memory.memsw.limit_in_bytes"), "67108864");
        assert_eq!(read("pids/lf/m1/pids.max"), "99");
        // Each line is a write of its own; a plain file keeps them where the kernel starts anew.
        assert!(read("devices/lf/m1/devices.deny").starts_with("c 1:11 rw"));

        let second = make(
            "unified",
            &["cgroup.controllers", "cgroup.subtree_control"],
            &[
                "cpu.max",
                "cpu.weight",
                "io.weight",
                "memory.max",
                "memory.swap.max",
                "pids.max",
            ],
        );
        confine_below(std::slice::from_ref(&second), "/lf/m1", limit, &denied).unwrap();
        assert!(read("unified/cgroup.subtree_control").starts_with("+cpu +memory +pids +io"));
        assert!(read("unified/lf/cgroup.subtree_control").starts_with("+cpu +memory +pids +io"));
        assert_eq!(read("unified/lf/m1/cpu.max"), "150000 100000");
        assert_eq!(read("unified/lf/m1/cpu.weight"), "400");
        assert_eq!(read("unified/lf/m1/memory.max"), "67108864");
        assert_eq!(read("unified/lf/m1/memory.swap.max"), "0");
        assert_eq!(read("unified/lf/m1/io.weight"), "400");

        // What may be swapped keeps the host's own limit, and no host has to have weights of disks.
        let swaps = Limit { swaps: true, ..limit };
        let third = make("third", &[], &["memory.max", "memory.swap.max"]);
        let error = confine_below(&[third], "/lf/m1", swaps, &[])
            .unwrap_err()
            .to_string();
        assert!(error.contains("no controller for cpu, pids;"), "{error}");
        assert_eq!(read("third/lf/m1/memory.swap.max"), "");

        let error = confine_below(&first[..2], "/lf/m1", limit, &denied)
            .unwrap_err()
            .to_string();
        assert!(error.contains("no controller for pids"), "{error}");
    }

    #[tokio::test]
    async fn a_real_group_of_version_2_goes_with_all_that_is_in_it() {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let second = mounts.lines().find(|line| line.contains(" - cgroup2 "));
        let Some(root) = second.and_then(|line| mounted(line).pop()) else {
            base_testkit::needs::skipped("this host has no cgroup2");
            return;
        };
        let group = format!("/landfall-test-{}", std::process::id());
        let place = inside(&root, &group);
        if fs::create_dir_all(place.join("m1/pods")).is_err() {
            base_testkit::needs::skipped("this process may not make groups of version 2");
            return;
        }
        let children = [sleeper(), sleeper()];
        set(&place, "m1/cgroup.procs", &children[0].id().to_string()).unwrap();
        set(&place, "m1/pods/cgroup.procs", &children[1].id().to_string()).unwrap();
        set(&place, "m1/pods/cgroup.freeze", "1").unwrap();
        assert_eq!(below(&group).unwrap(), ["m1"]);
        // A killed process stays in its group until its parent has waited for it.
        let waiter = std::thread::spawn(move || children.map(|mut child| child.wait().unwrap().signal()));
        remove(&Env::system(), &group).await.unwrap();
        assert!(!place.exists());
        assert_eq!(waiter.join().unwrap(), [Some(9), Some(9)]);
    }

    #[test]
    fn hierarchies_of_both_versions_are_found() {
        let text = "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
                    41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n\
                    50 31 0:29 /docker/x /mnt/cpu rw - cgroup cgroup rw,cpu\n\
                    27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n";
        assert_eq!(
            mounted(text),
            [
                PathBuf::from("/sys/fs/cgroup/cpu"),
                PathBuf::from("/sys/fs/cgroup/unified")
            ]
        );
    }
}
