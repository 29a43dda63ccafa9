//! Limits of the host's kernel that a few nodes would exceed. They are raised, never lowered, and left
//! raised: other stamps or programs may rely on them by now.

use std::{fs, path::Path};

/// Below `/proc/sys`: the name and the least that is needed.
const LEAST: &[(&str, u64)] = &[
    // Each kubelet, containerd and API server watches files. The kernel counts instances per user, and all
    // run as root: Debian's 128 are used up by about eight machines, and the ninth's kubelet does not start.
    ("fs/inotify/max_user_instances", 8192),
    ("fs/inotify/max_user_watches", 1_048_576),
    // Process ids are shared with the host, and each machine may have thousands ([`crate::cgroup::Limit`]):
    // 32768, the default of small hosts, would be used up by two machines. This is the kernel's maximum.
    ("kernel/pid_max", 4_194_304),
    // The kernel has one neighbour table for all network namespaces, with all peers of pods and machines:
    // with the default of 1024, a few hundred pods evict each other's entries and connections fail at random.
    // Values as on AKS' nodes. The maximum comes first, so that it is never below the following ones.
    ("net/ipv4/neigh/default/gc_thresh3", 16_384),
    ("net/ipv4/neigh/default/gc_thresh2", 8192),
    ("net/ipv4/neigh/default/gc_thresh1", 4096),
];

/// Raises limits that are too low.
pub(crate) fn raise() {
    raise_below(Path::new("/proc/sys"));
}

fn raise_below(root: &Path) {
    for (name, least) in LEAST {
        let path = root.join(name);
        let present = fs::read_to_string(&path)
            .ok()
            .and_then(|text| text.trim().parse::<u64>().ok());
        if present.is_none_or(|present| present >= *least) {
            continue;
        }
        // A host that denies this can still run a few machines.
        if let Err(error) = fs::write(&path, least.to_string()) {
            tracing::warn!(limit = name, least, %error, "a limit of this host stays low");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_raised_and_never_lowered() {
        let root = tempfile::tempdir().unwrap();
        let inotify = root.path().join("fs/inotify");
        fs::create_dir_all(&inotify).unwrap();
        fs::write(inotify.join("max_user_instances"), "128\n").unwrap();
        fs::write(inotify.join("max_user_watches"), "9999999\n").unwrap();
        let neighbours = root.path().join("net/ipv4/neigh/default");
        fs::create_dir_all(&neighbours).unwrap();
        fs::write(neighbours.join("gc_thresh3"), "1024\n").unwrap();
        raise_below(root.path());
        assert_eq!(
            fs::read_to_string(inotify.join("max_user_instances")).unwrap(),
            "8192"
        );
        assert_eq!(
            fs::read_to_string(inotify.join("max_user_watches")).unwrap(),
            "9999999\n"
        );
        assert_eq!(
            fs::read_to_string(neighbours.join("gc_thresh3")).unwrap(),
            "16384"
        );
    }
}
