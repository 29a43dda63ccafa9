//! The Debian layer: everything a machine needs besides the programs, without a service manager.

use std::{fs, io, path::Path, process::Command};

use crate::{
    components::Base,
    dpkg,
    error::{ImageError, IoContext as _},
    layer::{self, Layer},
    process::Runner,
};

/// The date of files that contain their time of creation: 2026-01-01.
pub(crate) const EPOCH: &str = "1767225600";

/// Not needed inside a machine. Copyright files stay: a distributor of an image must include them.
const LEFT_OUT: &[&str] = &[
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/bash-completion/*",
];

/// Directories that are filled or mounted in a running machine.
const EMPTIED: &[&str] = &[
    "boot",
    "dev",
    "run",
    "tmp",
    "var/cache/apt",
    "var/cache/ldconfig",
    "var/lib/apt/lists",
    "var/log",
    "var/tmp",
];

/// Files left by mmdebstrap that describe this host instead of the machine.
const REMOVED: &[&str] = &[
    "etc/apt/apt.conf.d/99mmdebstrap",
    "etc/dpkg/dpkg.cfg.d/99mmdebstrap",
    "etc/.pwd.lock",
];

/// Mount points, and directories that programs expect.
const DIRECTORIES: &[&str] = &[
    "dev",
    "etc/cni/net.d",
    "etc/containerd",
    "etc/kubernetes/manifests",
    "etc/kubernetes/pki",
    "etc/landfall",
    "opt/cni/bin",
    "opt/landfall/images",
    "proc",
    "run",
    "sys/fs/cgroup",
    "tmp",
    "var/cache/apt/archives/partial",
    "var/lib/apt/lists/partial",
    "var/lib/cni",
    "var/lib/containerd",
    "var/lib/etcd",
    "var/lib/kubelet",
    "var/lib/landfall",
    "var/log/containers",
    "var/log/pods",
    "var/tmp",
];

/// Files that the fabric bind-mounts or fills: they must exist, with neutral content.
const FILES: &[(&str, &str)] = &[
    ("etc/hostname", "localhost\n"),
    (
        "etc/hosts",
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n",
    ),
    ("etc/machine-id", ""),
    ("etc/resolv.conf", ""),
];

/// All settings besides the pinned packages that affect the result, for keys.
pub(crate) fn settings() -> impl Iterator<Item = &'static str> {
    [LEFT_OUT, EMPTIED, REMOVED, DIRECTORIES]
        .into_iter()
        .flatten()
        .copied()
        .chain(FILES.iter().flat_map(|(path, content)| [*path, *content]))
}

/// Bootstraps Debian into `scratch/rootfs` and describes it in `layer`.
pub(crate) fn build(
    base: &Base,
    mmdebstrap: &Path,
    mirror: Option<&str>,
    runner: &Runner,
    scratch: &Path,
    log: &Path,
    layer: &mut Layer,
) -> Result<(), ImageError> {
    let rootfs = scratch.join(layer::ROOTFS);
    let mut command = Command::new(mmdebstrap);
    command
        .current_dir("/")
        .env("SOURCE_DATE_EPOCH", EPOCH)
        .env("LC_ALL", "C.UTF-8")
        .arg("--mode=root")
        .arg(format!("--variant={}", base.variant))
        .arg(format!("--include={}", base.packages.join(",")))
        .arg("--aptopt=Acquire::Languages \"none\"")
        .arg("--aptopt=Acquire::Retries \"2\"");
    command.args(LEFT_OUT.iter().map(|option| format!("--dpkgopt={option}")));
    command.arg(&base.suite).arg(&rootfs).args(mirror);
    runner.run("the Debian base system", &mut command, log)?;
    finish(&rootfs)?;
    let status = rootfs.join("var/lib/dpkg/status");
    layer.packages = dpkg::installed(&fs::read_to_string(&status).at("read", &status)?);
    Ok(())
}

fn finish(rootfs: &Path) -> Result<(), ImageError> {
    for directory in EMPTIED {
        empty(&rootfs.join(directory))?;
    }
    for file in REMOVED {
        let path = rootfs.join(file);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).at("remove", &path),
            _ => {}
        }
    }
    for directory in DIRECTORIES {
        layer::directory(rootfs, directory)?;
    }
    for shared in ["tmp", "var/tmp"] {
        layer::mode(&rootfs.join(shared), 0o1777)?;
    }
    for (file, content) in FILES {
        let path = rootfs.join(file);
        // It can be a link to a path on the host.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).at("remove", &path),
            _ => {}
        }
        fs::write(&path, content).at("write", &path)?;
        layer::mode(&path, 0o644)?;
    }
    Ok(())
}

fn empty(directory: &Path) -> Result<(), ImageError> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.at("list", directory)?,
    };
    for entry in entries {
        let path = entry.at("list", directory)?.path();
        let metadata = fs::symlink_metadata(&path).at("read", &path)?;
        let removed = if metadata.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        removed.at("remove", &path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_host_stays_and_mount_points_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for directory in ["etc/apt/apt.conf.d", "dev/pts", "var/log/apt"] {
            layer::directory(root, directory).unwrap();
        }
        fs::write(root.join("etc/apt/apt.conf.d/99mmdebstrap"), "proxy").unwrap();
        fs::write(root.join("var/log/apt/x.log"), "now").unwrap();
        std::os::unix::fs::symlink("/etc/resolv.conf", root.join("etc/resolv.conf")).unwrap();
        finish(root).unwrap();
        finish(root).unwrap();
        assert!(!root.join("etc/apt/apt.conf.d/99mmdebstrap").exists());
        assert!(!root.join("var/log/apt").exists());
        assert_eq!(fs::read(root.join("etc/resolv.conf")).unwrap(), b"");
        assert_eq!(fs::read_dir(root.join("dev")).unwrap().count(), 0);
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(
            root.join("tmp").metadata().unwrap().permissions().mode() & 0o7777,
            0o1777
        );
        assert!(root.join("var/lib/kubelet").is_dir());
    }
}
