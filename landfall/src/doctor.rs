//! Checks of this host: kernel features are tested in a throw-away network namespace, the rest is read.
//!
//! Always true: each check removes all that it made; a failed check names the next step.

mod check;
mod kernel;
mod network;
mod users;

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
};

use anyhow::{Context as _, Result};
use base_env::Env;
use fabric_api::StampNetwork;
use jiff::Timestamp;
use nix::sys::statvfs::statvfs;

use crate::{admin::StampStatus, host, packages, printer};

pub(crate) use check::{Check, Verdict};

/// The inputs of the checks.
pub(crate) struct Question<'a> {
    /// The place of the stamp's files (and machines' disks).
    pub(crate) state: &'a Path,
    /// The place where node images are stored and built.
    pub(crate) cache: &'a Path,
    /// Bytes that building a node image from source needs there; `None` if none has to be built.
    pub(crate) build: Option<u64>,
    /// An address that has to be free; `None` if the stamp itself listens there already.
    pub(crate) listen: Option<SocketAddr>,
    /// The stamp whose network is to be tested: its name and its present or future network.
    pub(crate) network: Option<(&'a str, StampNetwork)>,
}

/// Disk space for a stamp with a small cluster.
const STAMP_DISK: u64 = 1_500_000_000;
/// A control plane, a node and the service need about 0.9 GB.
const LEAST_MEMORY: u64 = 1_200_000_000;
const GOOD_MEMORY: u64 = 2_500_000_000;

/// Runs every check. Takes about half a second; up to ten if a firewall has to be examined.
pub(crate) fn examine(question: &Question<'_>, env: &Env) -> Vec<Check> {
    let root = nix::unistd::geteuid().is_root();
    let mut checks = vec![
        if root {
            Check::ok("root", "running as root")
        } else {
            Check::failed(
                "root",
                "not running as root",
                "repeat with sudo: machines need namespaces, mounts and links",
            )
        },
        architecture(),
    ];
    let missing = packages::missing(question.build.is_some());
    checks.push(if missing.is_empty() {
        Check::ok("packages", "everything needed is installed")
    } else {
        Check::warning(
            "packages",
            format!("missing: {}", missing.join(", ")),
            format!(
                "`landfall up` installs them, or: apt-get install {}",
                missing.join(" ")
            ),
        )
    });
    if question.build.is_some() {
        checks.push(go());
    }
    if root {
        checks.extend(kernel::checks());
        if let Some((stamp, network)) = &question.network {
            checks.extend(network::checks(stamp, network.clone(), env));
        }
    }
    checks.push(control_groups());
    checks.push(users::check());
    checks.push(disk_limits(fabric_container::disk_limits_possible()));
    checks.push(name_servers(&fabric_container::host_name_servers()));
    checks.push(memory());
    checks.extend(disks(question));
    if let Some(listen) = question.listen {
        checks.push(port(listen));
    }
    checks
}

/// Checks of a running stamp's store: its copies, and unknown items.
pub(crate) fn examine_stamp(status: &StampStatus, now: Timestamp, flag: &str) -> Vec<Check> {
    let mut checks = Vec::new();
    if let Some(store) = &status.store {
        let next = format!(
            "check the error and the place: landfall store show{flag}; try again: landfall store backup{flag}"
        );
        checks.push(match (store.complaint(now), &store.copy) {
            (Some(complaint), _) => Check::warning("store", complaint, next),
            (None, Some(copy)) => Check::ok("store", format!("copied as of {}", copy.at)),
            (None, None) => Check::ok("store", "the service has just started and is about to copy it"),
        });
    }
    checks.push(match status.unknown.len() {
        0 => Check::ok("unknown", "everything that exists is in a record of the store"),
        number => Check::warning(
            "unknown",
            format!("{number} machines, networks, volumes or backups are in no record of the store, and are kept"),
            format!("see them: landfall unknown list{flag}; an older store than they are: landfall store show{flag}"),
        ),
    });
    checks
}

/// The kernel's checks again, after one of their programs was installed.
pub(crate) fn examine_kernel() -> Vec<Check> {
    kernel::checks()
}

/// Whether the host's firewall lets a stamp's machines communicate.
pub(crate) fn examine_network(stamp: &str, network: StampNetwork, env: &Env) -> Vec<Check> {
    network::checks(stamp, network, env)
}

fn architecture() -> Check {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let found = format!("{} with {cores} cores", std::env::consts::ARCH);
    if !cfg!(target_os = "linux") || !["x86_64", "aarch64"].contains(&std::env::consts::ARCH) {
        return Check::failed("machine", found, "use a Linux host with x86_64 or aarch64");
    }
    if cores < 2 {
        return Check::warning(
            "machine",
            found,
            "two cores or more make clusters start in seconds",
        );
    }
    Check::ok("machine", found)
}

fn go() -> Check {
    let version = host::find("go")
        .context("there is no go")
        .and_then(|go| host::run(&go.to_string_lossy(), &["env", "GOVERSION"]));
    let next = "install Go 1.26 or newer (https://go.dev/dl), or bring an image: landfall image import FILE";
    match version.map(|text| text.trim().to_owned()) {
        Ok(version) => match minor(&version) {
            // Since 1.21, an older toolchain downloads the version that a module requires.
            Some(minor) if minor >= 21 => Check::ok("go", version),
            _ => Check::failed("go", format!("{version} is too old to build Kubernetes"), next),
        },
        Err(_) => Check::failed(
            "go",
            "no Go toolchain, which building Kubernetes from source needs",
            next,
        ),
    }
}

/// The minor version of `go1.26.3`.
fn minor(version: &str) -> Option<u32> {
    version
        .strip_prefix("go1.")?
        .split(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

fn control_groups() -> Check {
    let wanted = ["cpu", "memory", "pids"];
    let root = Path::new("/sys/fs/cgroup");
    let (version, have): (_, Vec<String>) = match fs::read_to_string(root.join("cgroup.controllers")) {
        Ok(text) => ("v2", text.split_whitespace().map(str::to_owned).collect()),
        Err(_) => (
            "v1",
            wanted
                .iter()
                .filter(|name| root.join(name).join("tasks").exists())
                .map(ToString::to_string)
                .collect(),
        ),
    };
    let lacking: Vec<&str> = wanted
        .into_iter()
        .filter(|name| !have.iter().any(|have| have == name))
        .collect();
    if lacking.is_empty() {
        return Check::ok("control groups", format!("{version} with cpu, memory and pids"));
    }
    Check::failed(
        "control groups",
        format!("{version} without {}", lacking.join(", ")),
        "enable the controllers: mount cgroup2 at /sys/fs/cgroup, or boot with systemd.unified_cgroup_hierarchy=1",
    )
}

/// Whether disk sizes of nodes can be enforced, and claims get volumes: both are loop devices. Otherwise
/// nodes work, but one that fills its disk fills the host's; a claim waits for ever.
fn disk_limits(possible: Result<(), &'static str>) -> Check {
    let name = "disk limits";
    match possible {
        Ok(()) => Check::ok(
            name,
            "a node's disk can be held to its osDiskSizeGB, and PersistentVolumeClaims can have volumes",
        ),
        Err(why) => Check::warning(
            name,
            "a node can fill the host's disk, since osDiskSizeGB cannot be kept to, and PersistentVolumeClaims get no volumes: they stay \
             Pending",
            why,
        ),
    }
}

/// Whether pods will be able to resolve external names: `found` are the name servers that machines get.
fn name_servers(found: &[Ipv4Addr]) -> Check {
    let name = "name servers";
    if found.is_empty() {
        return Check::warning(
            name,
            "this host has none that a machine can reach (they cannot reach its loopback, and have no IPv6): pods look up \
             no names outside their cluster",
            "put a name server with an IPv4 address beyond loopback into /etc/resolv.conf, or let this host's resolver \
             listen at one; the service takes it over when it starts again. With --uplink none nothing is missing",
        );
    }
    let found: Vec<String> = found.iter().map(ToString::to_string).collect();
    Check::ok(name, format!("machines ask {}", found.join(", ")))
}

fn memory() -> Check {
    let available = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text
            .lines()
            .find(|line| line.starts_with("MemAvailable:"))?
            .to_owned();
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    let Some(available) = available.map(|kib| kib * 1024) else {
        return Check::warning("memory", "cannot be read", "mount /proc");
    };
    let found = format!("{} available", printer::size(available));
    let next = "a cluster with one node needs about 1 GB; end something, or add memory";
    if available < LEAST_MEMORY {
        Check::failed("memory", found, next)
    } else if available < GOOD_MEMORY {
        Check::warning("memory", found, next)
    } else {
        Check::ok("memory", found)
    }
}

fn disks(question: &Question<'_>) -> Vec<Check> {
    let mut wanted = vec![(question.state, STAMP_DISK)];
    if let Some(need) = question.build {
        wanted.push((question.cache, need));
    }
    wanted
        .into_iter()
        .map(|(path, need)| match free(path) {
            Ok(free) if free >= need => Check::ok(
                "disk",
                format!("{} free for {}", printer::size(free), path.display()),
            ),
            Ok(free) => Check::failed(
                "disk",
                format!(
                    "{} free for {}, which needs {}",
                    printer::size(free),
                    path.display(),
                    printer::size(need)
                ),
                "free some space, or move it: LANDFALL_STATE_DIR for stamps, LANDFALL_CACHE_DIR for images",
            ),
            Err(error) => Check::failed(
                "disk",
                format!("{}: {error:#}", path.display()),
                "make the directory readable",
            ),
        })
        .collect()
}

/// Free bytes at the present or future path.
fn free(path: &Path) -> Result<u64> {
    let existing = path
        .ancestors()
        .find(|path| path.exists())
        .context("no part of the path exists")?;
    let stat = statvfs(existing).context("cannot ask the file system")?;
    Ok(stat.blocks_available() * stat.fragment_size())
}

fn port(listen: SocketAddr) -> Check {
    match std::net::TcpListener::bind(listen) {
        Ok(_) => Check::ok("address", format!("{listen} is free")),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Check::failed(
            "address",
            format!(
                "{listen} is in use by another program{}",
                holder(listen)
                    .map(|name| format!(" ({name})"))
                    .unwrap_or_default()
            ),
            format!(
                "stop that program, or choose another address: --listen {}:{}",
                listen.ip(),
                listen.port().saturating_add(1)
            ),
        ),
        Err(error) => Check::failed(
            "address",
            format!("{listen} cannot be used: {error}"),
            "choose an address of this host with --listen",
        ),
    }
}

/// The name of the program that listens there, if `ss` shows it.
fn holder(listen: SocketAddr) -> Option<String> {
    let text = host::run("ss", &["-Hltnp", &format!("sport = :{}", listen.port())]).ok()?;
    let name = text.split("((\"").nth(1)?.split('"').next()?;
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_versions_are_read() {
        assert_eq!(minor("go1.26.3"), Some(26));
        assert_eq!(minor("go1.27rc1"), Some(27));
        assert_eq!(minor("devel"), None);
    }

    #[test]
    fn a_host_that_cannot_hold_disks_to_their_size_is_told_what_is_missing() {
        let check = disk_limits(Err(
            "there is no /dev/loop-control: load the kernel module 'loop'",
        ));
        assert_eq!(check.verdict, Verdict::Warning);
        assert!(check.found.contains("osDiskSizeGB"));
        assert!(check.found.contains("PersistentVolumeClaims get no volumes"));
        assert!(check.next.unwrap().contains("loop"));
        assert_eq!(disk_limits(Ok(())).verdict, Verdict::Ok);
    }

    #[test]
    fn a_host_without_a_name_server_for_machines_is_told_so() {
        let check = name_servers(&[]);
        assert_eq!(check.verdict, Verdict::Warning);
        assert!(check.next.unwrap().contains("/etc/resolv.conf"));
        let check = name_servers(&["192.0.2.1".parse().unwrap()]);
        assert_eq!(check.verdict, Verdict::Ok);
        assert!(check.found.contains("192.0.2.1"));
    }

    #[test]
    fn every_host_is_told_whether_disks_can_be_held_to_their_size() {
        let question = Question {
            state: Path::new("/"),
            cache: Path::new("/"),
            build: None,
            listen: None,
            network: None,
        };
        let checks = examine(&question, &Env::system());
        assert!(checks.iter().any(|check| check.name == "disk limits"));
    }

    #[test]
    fn a_taken_port_is_named() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let check = port(taken.local_addr().unwrap());
        assert_eq!(check.verdict, Verdict::Failed);
        assert!(check.next.unwrap().contains("--listen"));
    }

    #[test]
    fn space_is_found_for_directories_that_are_not_there_yet() {
        assert!(free(Path::new("/nowhere/at/all")).unwrap() > 0);
    }
}
