//! A machine's disk: a directory with everything the machine writes.
//!
//! | in the machine's directory | content |
//! |---|---|
//! | `spec.json` | [`Saved`], written first, removed last; damaged or lost, it is written again from the record |
//! | `ready` | the disk is complete: written before the first start |
//! | `condemned` | the disk is to be deleted: written first when the machine is deleted |
//! | `disk.img` | of a machine with a limit: a filesystem of that size, sparse; mounted at `disk` in the machine's mount namespace, and holds the following entries up to `root` ([`crate::disk_image`]) |
//! | `base` | of such a machine: files put on its disk before its first start, as a layer over the image's |
//! | `upper`, `work` | the overlay's, over the image's layers |
//! | `containerd`, `kubelet`, `etcd`, `log` | real directories bound into the machine: an overlay cannot lie on an overlay, and databases are faster without |
//! | `root` | mount point of the root, in the machine's mount namespace; always empty on the host |
//! | `bundle/config.json` | for `runc` |
//! | `console.log` | the agent's output; created by the first start |
//!
//! Always true: a disk that a machine has run on is deleted only on request ([`condemn`]), never because a
//! file about it is missing or damaged ([`is_whole`]).

use std::{
    ffi::OsStr,
    fs,
    io::Write,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use fabric_api::{FabricError, MachineId, MachineSpec, Uplink};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use serde::{Deserialize, Serialize};

use crate::{disk_image, files};

/// Mount point of the root.
pub(crate) const ROOT: &str = "root";

/// The disk is complete.
const READY: &str = "ready";
/// The disk is to be deleted.
const CONDEMNED: &str = "condemned";
/// The agent's output.
pub(crate) const CONSOLE: &str = "console.log";

/// Real directories bind-mounted into the machine: name in its directory, path inside.
pub(crate) const VOLUMES: &[(&str, &str)] = &[
    ("containerd", "/var/lib/containerd"),
    ("kubelet", "/var/lib/kubelet"),
    ("etcd", "/var/lib/etcd"),
    ("log", "/var/log"),
];

/// Paths that are empty after each start.
const VOLATILE: &[&str] = &["/run", "/var/run", "/tmp", "/dev", "/proc", "/sys"];

/// Whether a path inside the machine does not outlast a restart.
pub(crate) fn is_volatile(path: &Path) -> bool {
    VOLATILE.iter().any(|place| path.starts_with(place))
}

/// The metadata of a machine, written before anything of it exists. Without seed files: they hold secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Saved {
    /// Version of the format.
    pub(crate) v: u32,
    /// [`fabric_net::spec_hash`] of the specification.
    pub(crate) hash: String,
    /// The specification.
    pub(crate) spec: MachineSpec,
}

impl Saved {
    pub(crate) fn new(spec: &MachineSpec) -> Self {
        Self {
            v: 1,
            hash: fabric_net::spec_hash(spec),
            spec: MachineSpec {
                seed_files: Default::default(),
                ..spec.clone()
            },
        }
    }

    pub(crate) fn write(&self, dir: &Path) -> Result<(), FabricError> {
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| FabricError::failed("write a machine's specification", error))?;
        files::make_dir(dir)?;
        files::write(&dir.join("spec.json"), &text)
    }

    /// `None` when it is missing or damaged: then a deletion relies on names alone.
    pub(crate) fn read(dir: &Path) -> Result<Option<Self>, FabricError> {
        Ok(files::read(&dir.join("spec.json"))?.and_then(|text| serde_json::from_str(&text).ok()))
    }
}

/// The overlay's upper directory, and its work directory.
const UPPER: &str = "upper";
const WORK: &str = "work";
/// The layer of files that existed before the first start.
const BASE: &str = "base";

/// Directories of a disk with a limit, created at each start: name and mode.
pub(crate) fn directories() -> Vec<(&'static str, u32)> {
    let volumes = VOLUMES.iter().map(|(name, _)| (*name, volume_mode(name)));
    [(UPPER, 0o755), (WORK, 0o700)]
        .into_iter()
        .chain(volumes)
        .collect()
}

fn volume_mode(name: &str) -> u32 {
    if name == DATABASE_VOLUME { 0o700 } else { 0o755 }
}

/// The volume of databases.
const DATABASE_VOLUME: &str = "etcd";

/// Whether there is a disk that a machine can start on, or has started on. Decided by file names alone: their
/// content may be torn.
pub(crate) fn is_whole(dir: &Path) -> bool {
    let there = |name: &str| dir.join(name).exists();
    // A disk without its mark is whole if the machine was started: the mark is written before the first
    // start.
    !there(CONDEMNED) && (there(READY) || there(CONSOLE) || holds_database(dir))
}

/// Writes a lost mark of a whole disk again.
pub(crate) fn mark(dir: &Path, id: &MachineId) -> Result<(), FabricError> {
    if dir.join(READY).exists() {
        return Ok(());
    }
    tracing::warn!(machine = %id, "the mark of a complete disk was lost; the disk is used as it is");
    files::write(&dir.join(READY), b"")
}

/// Whether a database was written to the disk. An unreadable directory counts as one: its content is unknown.
pub(crate) fn holds_database(dir: &Path) -> bool {
    files::names_in(&dir.join(DATABASE_VOLUME)).map_or(true, |names| !names.is_empty())
}

/// Whether the disk of a machine that is made anew is set aside and kept, rather than deleted.
pub(crate) fn is_to_be_kept(dir: &Path) -> bool {
    is_whole(dir) && holds_database(dir)
}

/// Where a volume lies, as seen from the machine's mount namespace.
pub(crate) fn volume(dir: &Path, name: &str) -> PathBuf {
    inside(dir).join(name)
}

/// The directory of all data that the machine writes, as seen from its mount namespace.
fn inside(dir: &Path) -> PathBuf {
    if disk_image::of(dir).exists() {
        dir.join(disk_image::MOUNTED)
    } else {
        dir.to_owned()
    }
}

/// The directory of files that are written before the first start, and their layer in the overlay.
fn top(dir: &Path) -> PathBuf {
    if disk_image::of(dir).exists() {
        dir.join(BASE)
    } else {
        dir.join(UPPER)
    }
}

/// Mounts to be made before the machine starts.
pub(crate) struct Mounts {
    /// The disk's own filesystem and its mount point, if it has one.
    pub(crate) image: Option<(PathBuf, PathBuf)>,
    /// Options of the overlay.
    pub(crate) overlay: String,
}

pub(crate) fn mounts(dir: &Path, layers: &[PathBuf]) -> Mounts {
    let image = disk_image::of(dir);
    let image = image.exists().then(|| (image, dir.join(disk_image::MOUNTED)));
    let base = image.is_some().then(|| dir.join(BASE));
    let lower: Vec<String> = base
        .iter()
        .chain(layers)
        .map(|layer| layer.display().to_string())
        .collect();
    let overlay = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.join(":"),
        volume(dir, UPPER).display(),
        volume(dir, WORK).display()
    );
    Mounts { image, overlay }
}

/// Marks the disk as worthless: the first step of a deletion.
pub(crate) fn condemn(dir: &Path) -> Result<(), FabricError> {
    if !dir.exists() {
        return Ok(());
    }
    files::write(&dir.join(CONDEMNED), b"")?;
    // Releases before `condemned` check this mark alone.
    files::remove(&dir.join(READY))
}

/// Deletes a disk, and the machine's directory last: as long as it exists, the machine is listed, and its
/// deletion retried.
pub(crate) fn delete(dir: &Path) -> Result<(), FabricError> {
    if !dir.exists() {
        return Ok(());
    }
    clear(dir)?;
    files::remove_tree(dir)
}

/// Deletes large data, and the files that mark a disk.
fn clear(dir: &Path) -> Result<(), FabricError> {
    files::remove(&dir.join(CONSOLE))?;
    files::remove(&disk_image::of(dir))?;
    for part in [UPPER, WORK, BASE]
        .into_iter()
        .chain(VOLUMES.iter().map(|(name, _)| *name))
    {
        files::remove_tree(&dir.join(part))?;
    }
    Ok(())
}

/// The content of the machine's network files.
pub(crate) struct Names {
    pub(crate) hosts: String,
    pub(crate) resolv: String,
}

impl Names {
    pub(crate) fn new(spec: &MachineSpec, uplink: Uplink) -> Self {
        let own = spec
            .nics
            .first()
            .map(|card| format!("{} {}\n", card.address.addr(), spec.hostname))
            .unwrap_or_default();
        Self {
            hosts: format!("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n{own}"),
            resolv: match uplink {
                Uplink::None => {
                    "# This stamp has no way to the outside, so there is no name server.\n".into()
                }
                Uplink::Host => host_resolv(),
            },
        }
    }
}

/// Files with the host's name servers; the first one with usable entries counts: the host's own; if that
/// names a local resolver on loopback, which a machine cannot reach, the upstream servers of that resolver:
/// systemd-resolved, NetworkManager with dnsmasq, dnsmasq with resolvconf.
const RESOLV: [&str; 4] = [
    "/etc/resolv.conf",
    "/run/systemd/resolve/resolv.conf",
    "/run/NetworkManager/no-stub-resolv.conf",
    "/run/dnsmasq/resolv.conf",
];

/// The host's name servers that a machine can reach.
fn host_resolv() -> String {
    RESOLV
        .into_iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .map(|text| reachable_nameservers(&text))
        .find(|text| text.lines().any(|line| line.starts_with("nameserver")))
        .unwrap_or_else(|| "# The host has no name server that a machine can reach.\n".into())
}

/// The name servers of this host for machines with an uplink: those with an IPv4 address other than loopback.
pub fn host_name_servers() -> Vec<std::net::Ipv4Addr> {
    host_resolv()
        .lines()
        .filter_map(|line| line.strip_prefix("nameserver")?.trim().parse().ok())
        .collect()
}

fn reachable_nameservers(resolv: &str) -> String {
    resolv
        .lines()
        .map(str::trim)
        .filter(|line| match line.split_once(char::is_whitespace) {
            Some(("nameserver", address)) => address
                .trim()
                .parse::<std::net::Ipv4Addr>()
                .is_ok_and(|address| !address.is_loopback()),
            Some(("search" | "options", _)) => true,
            _ => false,
        })
        .map(|line| format!("{line}\n"))
        .collect()
}

/// Completes the disk. On a disk that a machine has run on, only `resolv.conf` changes, which follows the
/// host.
pub(crate) fn prepare(
    dir: &Path,
    spec: &MachineSpec,
    layers: &[PathBuf],
    names: &Names,
) -> Result<(), FabricError> {
    files::make_dir(&dir.join(ROOT))?;
    if is_whole(dir) {
        mark(dir, &spec.id)?;
        return refresh(&top(dir), &names.resolv);
    }
    clear(dir)?;
    match (spec.disk_gib, disk_image::possible()) {
        (Some(gib), Ok(())) => disk_image::make(dir, gib)?,
        (limit, possible) => {
            if let (Some(gib), Err(why)) = (limit, possible) {
                tracing::warn!(machine = %spec.id, gib, why, "this host cannot limit the machine's disk");
            }
            files::make_dir(&dir.join(WORK))?;
            for (name, _) in VOLUMES {
                make(&dir.join(name), volume_mode(name))?;
            }
        }
    }
    make(&top(dir), 0o755)?;
    let fixed = [
        ("/etc/hosts", names.hosts.as_str()),
        ("/etc/resolv.conf", names.resolv.as_str()),
        ("/etc/hostname", spec.hostname.as_str()),
    ];
    let mut written = Vec::new();
    for (path, content) in fixed {
        written.push(put(dir, layers, Path::new(path), content, 0o644)?);
    }
    for (path, content) in &spec.seed_files {
        written.push(put(dir, layers, Path::new(path), content, 0o600)?);
    }
    // Everything is durable before the mark is.
    for path in written
        .iter()
        .flat_map(|path| [Some(path.as_path()), path.parent()])
        .flatten()
    {
        base_files::sync(path)
            .map_err(|error| FabricError::failed(format!("write {}", path.display()), error))?;
    }
    files::write(&dir.join(READY), b"")?;
    files::remove(&dir.join(CONDEMNED))
}

fn make(path: &Path, mode: u32) -> Result<(), FabricError> {
    fs::DirBuilder::new()
        .mode(mode)
        .create(path)
        // The umask may have removed bits.
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
        .map_err(|error| FabricError::failed(format!("make the directory {}", path.display()), error))
}

/// Writes a file to a new disk. The machine has not written to it yet, so no link in it can lead astray.
fn put(
    dir: &Path,
    layers: &[PathBuf],
    path: &Path,
    content: &str,
    mode: u32,
) -> Result<PathBuf, FabricError> {
    let volume = VOLUMES
        .iter()
        .find_map(|(name, place)| Some((name, path.strip_prefix(place).ok()?)));
    let (base, inside, layers) = match volume {
        Some(_) if disk_image::of(dir).exists() => {
            return Err(misplaced(path, "it lies in a volume of a disk with a limit"));
        }
        Some((name, inside)) => (dir.join(name), inside, &[][..]),
        None => (top(dir), path.strip_prefix("/").unwrap_or(path), layers),
    };
    let (Some(parent), Some(name)) = (inside.parent(), inside.file_name()) else {
        return Err(misplaced(path, "it names a directory"));
    };
    let mut at = PathBuf::new();
    for part in parent.components() {
        at.push(part);
        make_like(&base.join(&at), layers, &at).map_err(|why| misplaced(path, &why))?;
    }
    let target = base.join(parent).join(name);
    base_files::replace(&target, content.as_bytes(), mode)
        .map_err(|error| FabricError::failed(format!("write {}", target.display()), error))?;
    Ok(target)
}

/// Gives a directory of the overlay the owner and mode of the one in the image: a merged directory shows
/// those of the upper one.
fn make_like(target: &Path, layers: &[PathBuf], inside: &Path) -> Result<(), String> {
    if target.is_dir() {
        return Ok(());
    }
    let below = layers
        .iter()
        .find_map(|layer| fs::symlink_metadata(layer.join(inside)).ok());
    let (mode, owner) = match &below {
        Some(below) if below.is_dir() => (below.mode() & 0o7777, Some((below.uid(), below.gid()))),
        Some(_) => return Err(format!("/{} is no directory in the image", inside.display())),
        None => (0o755, None),
    };
    fs::create_dir(target)
        .and_then(|()| match owner {
            Some((user, group)) => chown(target, Some(user), Some(group)),
            None => Ok(()),
        })
        .and_then(|()| fs::set_permissions(target, fs::Permissions::from_mode(mode)))
        .map_err(|error| format!("{} cannot be made: {error}", target.display()))
}

/// Rewrites `resolv.conf` on a disk that a machine has written to. Links are not followed: the machine made
/// them, and this runs on the host.
fn refresh(upper: &Path, resolv: &str) -> Result<(), FabricError> {
    let failed = |error: std::io::Error| FabricError::failed(format!("open {}", upper.display()), error);
    let root = fs::File::open(upper).map_err(failed)?;
    let opened = rustix::fs::openat2(
        &root,
        OsStr::new("etc/resolv.conf"),
        OFlags::WRONLY | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    );
    match opened {
        Ok(file) => fs::File::from(file).write_all(resolv.as_bytes()).map_err(failed),
        // The machine has put something else in its place: leave it alone.
        Err(_) => Ok(()),
    }
}

/// Rotates a large console log, keeping one.
pub(crate) fn rotate_console(dir: &Path) -> Result<(), FabricError> {
    const CONSOLE_MAX: u64 = 1 << 20;
    let console = dir.join(CONSOLE);
    if fs::metadata(&console).is_ok_and(|file| file.len() > CONSOLE_MAX) {
        fs::rename(&console, dir.join(format!("{CONSOLE}.1")))
            .map_err(|error| FabricError::failed(format!("rename {}", console.display()), error))?;
    }
    Ok(())
}

fn misplaced(path: &Path, why: &str) -> FabricError {
    FabricError::Invalid {
        what: format!("seed file {}", path.display()),
        why: why.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(seeds: &[(&str, &str)]) -> MachineSpec {
        MachineSpec {
            id: MachineId::from("m1"),
            hostname: "host1".into(),
            image: "1.36.3".into(),
            cpu_millis: 1000,
            memory_mib: 512,
            disk_gib: None,
            nics: Vec::new(),
            seed_files: seeds
                .iter()
                .map(|(path, content)| ((*path).to_owned(), (*content).to_owned()))
                .collect(),
            labels: Default::default(),
        }
    }

    fn names() -> Names {
        Names {
            hosts: "hosts\n".into(),
            resolv: "resolv\n".into(),
        }
    }

    #[test]
    fn seeds_are_private_go_where_the_machine_sees_them_and_only_once() {
        let place = tempfile::tempdir().unwrap();
        let (dir, layer) = (place.path().join("m1"), place.path().join("layer"));
        fs::create_dir_all(layer.join("etc")).unwrap();
        fs::set_permissions(layer.join("etc"), fs::Permissions::from_mode(0o751)).unwrap();
        let first = spec(&[
            ("/etc/landfall/seed.json", "one"),
            ("/var/lib/kubelet/x/y", "two"),
        ]);
        Saved::new(&first).write(&dir).unwrap();
        prepare(&dir, &first, std::slice::from_ref(&layer), &names()).unwrap();
        assert!(is_whole(&dir));
        let seed = dir.join("upper/etc/landfall/seed.json");
        assert_eq!(fs::read_to_string(&seed).unwrap(), "one");
        assert_eq!(fs::metadata(&seed).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(dir.join("upper/etc")).unwrap().mode() & 0o777, 0o751);
        assert_eq!(fs::read_to_string(dir.join("kubelet/x/y")).unwrap(), "two");
        assert!(!fs::read_to_string(dir.join("spec.json")).unwrap().contains("one"));

        // The second start does not restore a file that the agent has removed.
        fs::remove_file(&seed).unwrap();
        prepare(&dir, &first, std::slice::from_ref(&layer), &names()).unwrap();
        assert!(!seed.exists());

        // A condemned disk is created again.
        fs::write(dir.join("upper/etc/old"), "").unwrap();
        condemn(&dir).unwrap();
        prepare(&dir, &first, &[layer], &names()).unwrap();
        assert!(seed.exists() && !dir.join("upper/etc/old").exists());
    }

    #[test]
    fn a_disk_outlives_every_file_about_it() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("m1");
        let spec = spec(&[("/etc/landfall/seed.json", "one")]);
        Saved::new(&spec).write(&dir).unwrap();
        assert!(!is_whole(&dir), "its creation was cut short");
        prepare(&dir, &spec, &[], &names()).unwrap();
        fs::create_dir(dir.join("etcd/data")).unwrap();
        fs::write(dir.join("upper/root.txt"), "kept").unwrap();
        for lost in [&["spec.json"][..], &["ready"], &["spec.json", "ready"]] {
            for name in lost {
                fs::write(dir.join(name), "").unwrap();
                assert!(is_whole(&dir), "{name} is empty");
                fs::remove_file(dir.join(name)).unwrap();
                assert!(is_whole(&dir), "{name} is gone");
            }
            assert_eq!(Saved::read(&dir).unwrap().is_none(), lost.contains(&"spec.json"));
            prepare(&dir, &spec, &[], &names()).unwrap();
            assert_eq!(fs::read_to_string(dir.join("upper/root.txt")).unwrap(), "kept");
            assert!(dir.join("etcd/data").exists() && dir.join("ready").exists());
            Saved::new(&spec).write(&dir).unwrap();
        }
        // A node has no database; the console log shows that it was started.
        fs::remove_dir(dir.join("etcd/data")).unwrap();
        fs::remove_file(dir.join("ready")).unwrap();
        assert!(!is_whole(&dir));
        fs::write(dir.join("console.log"), "").unwrap();
        assert!(is_whole(&dir));
    }

    #[test]
    fn links_of_the_machine_do_not_lead_to_the_host() {
        let place = tempfile::tempdir().unwrap();
        let (dir, victim) = (place.path().join("m1"), place.path().join("victim"));
        let spec = spec(&[]);
        Saved::new(&spec).write(&dir).unwrap();
        prepare(&dir, &spec, &[], &names()).unwrap();
        fs::write(&victim, "precious").unwrap();
        let resolv = dir.join("upper/etc/resolv.conf");
        fs::remove_file(&resolv).unwrap();
        std::os::unix::fs::symlink(&victim, &resolv).unwrap();
        prepare(&dir, &spec, &[], &names()).unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        fs::remove_file(&resolv).unwrap();
        fs::write(&resolv, "old").unwrap();
        prepare(&dir, &spec, &[], &names()).unwrap();
        assert_eq!(fs::read_to_string(&resolv).unwrap(), "resolv\n");
    }

    #[test]
    fn a_seed_below_a_link_of_the_image_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let (dir, layer) = (place.path().join("m1"), place.path().join("layer"));
        fs::create_dir_all(&layer).unwrap();
        std::os::unix::fs::symlink("/etc", layer.join("config")).unwrap();
        let spec = spec(&[("/config/x", "one")]);
        Saved::new(&spec).write(&dir).unwrap();
        let error = prepare(&dir, &spec, &[layer], &names()).unwrap_err();
        assert!(matches!(error, FabricError::Invalid { .. }), "{error}");
        assert!(!is_whole(&dir));
    }

    #[test]
    fn only_name_servers_that_can_be_reached_are_passed_on() {
        let text =
            "# x\nnameserver 127.0.0.53\nnameserver 192.0.2.7\nnameserver ::1\nsearch a.b\nsortlist z\n";
        assert_eq!(reachable_nameservers(text), "nameserver 192.0.2.7\nsearch a.b\n");
        // A host with only IPv6 has no name server that a machine could reach.
        assert_eq!(reachable_nameservers("nameserver 2001:db8::53\n"), "");
    }
}
