//! The small programs that tests call inside their images (`dig`, `curl`, `nc`, a shell …), from Debian's
//! packages.
//!
//! Always true: packages are unpacked and never installed, so the files that an installation would write
//! (users, links to programs, name lookups) are written here; every image has one merged `/usr`, whether the
//! packages use it or not.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};
use image::container::{self, Member};

use crate::place::{self, Place};

const SUITE: &str = "bookworm";
const PACKAGES: [&str; 29] = [
    "base-files",
    "bash",
    "bind9-dnsutils",
    "busybox-static",
    "catatonit",
    "coreutils",
    "curl",
    "dash",
    "diffutils",
    "findutils",
    "grep",
    "hostname",
    "iperf",
    "iproute2",
    "iputils-ping",
    "libc-bin",
    "login",
    "mount",
    "netbase",
    "netcat-openbsd",
    "nginx",
    "openssl",
    "procps",
    "sed",
    "socat",
    "stress",
    "tar",
    "util-linux",
    "wget",
];

/// Of the host, or of no use in a container.
const LEFT_OUT: [&str; 13] = [
    "boot",
    "dev",
    "proc",
    "run",
    "sys",
    "tmp",
    "usr/share/doc",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/man",
    "var/cache",
    "var/lib/apt",
    "var/lib/dpkg",
];

/// Directories that are one with those below `/usr`.
const MERGED: [&str; 4] = ["bin", "lib", "lib64", "sbin"];

/// Users and groups that the tests expect: agnhost has one of each.
const USERS: &str = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/var/www:/bin/false\nnobody:x:65534:65534::/nonexistent:/bin/false\n\
    user-defined-in-image:x:1000:1000::/home:/bin/sh\n";
const GROUPS: &str = "root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\nuser-defined-in-image:x:1000:\ngroup-defined-in-image:x:50000:user-defined-in-image\n";
/// Without it the C library queries a name server before `/etc/hosts`.
const LOOKUPS: &str = "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n";

/// The inputs, for the key of a place.
pub(crate) fn recipe() -> String {
    format!("{SUITE} {PACKAGES:?} {LEFT_OUT:?} {USERS} {GROUPS} {LOOKUPS}")
}

/// The packages, unpacked if necessary.
pub(crate) fn have(place: &Place) -> Result<()> {
    let dir = place.debian();
    if dir.is_dir() {
        return Ok(());
    }
    println!(
        "unpacking {} packages of Debian and what they need",
        PACKAGES.len()
    );
    let unfinished = place.unfinished("debian");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).with_context(|| format!("cannot remove {}", unfinished.display()))?;
    }
    let tools = image::Tools::of_this_host();
    if !tools.root {
        bail!("Debian's packages are unpacked with their owners, which only root may; repeat as root");
    }
    let program = tools
        .mmdebstrap
        .context("Debian's packages are unpacked with mmdebstrap; apt-get install mmdebstrap")?;
    let mut command = Command::new(program);
    command
        .current_dir("/")
        .env("LC_ALL", "C.UTF-8")
        .args(["--mode=root", "--variant=extract"])
        .arg(format!("--include={}", PACKAGES.join(",")))
        .arg("--aptopt=Acquire::Languages \"none\"")
        .arg("--aptopt=Acquire::Retries \"2\"")
        .arg(SUITE)
        .arg(&unfinished)
        .args(tools.debian_mirror);
    place::ran(&mut command)?;
    fs::rename(&unfinished, &dir).with_context(|| format!("cannot write {}", dir.display()))
}

/// The contents of an image, by path.
#[derive(Debug, Clone, Default)]
pub(crate) struct Files(BTreeMap<String, Member>);

impl Files {
    /// All files of the packages, and those that an installation would have made.
    pub(crate) fn of_packages(root: &Path) -> Result<Self> {
        let mut files = Self::default();
        files.walk(root, "")?;
        for name in MERGED {
            files.directory(&format!("usr/{name}"), 0o755);
            files.link(name, &format!("usr/{name}"));
        }
        for name in [
            "home",
            "proc",
            "root",
            "run",
            "sys",
            "uploads",
            "var/lib/nginx",
            "var/log/nginx",
        ] {
            files.directory(name, 0o755);
        }
        files.directory("tmp", 0o1777);
        files.directory("var/tmp", 0o1777);
        files.text("etc/passwd", USERS);
        files.text("etc/group", GROUPS);
        files.text("etc/nsswitch.conf", LOOKUPS);
        files.fill("sh", "dash");
        files.fill("nc", "nc.openbsd");
        // Further programs of a small distribution, where Debian's packages have none of that name.
        for member in container::busybox(root, "busybox")?.files {
            if let Member::Link { path, .. } = member
                && let Some(name) = path.strip_prefix("bin/")
            {
                files.fill(name, "busybox");
            }
        }
        Ok(files)
    }

    fn walk(&mut self, root: &Path, below: &str) -> Result<()> {
        let dir = root.join(below);
        for entry in fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))? {
            let entry = entry.with_context(|| format!("cannot list {}", dir.display()))?;
            let name = entry.file_name();
            let name = name.to_str().with_context(|| format!("{name:?} is no text"))?;
            let relative = if below.is_empty() {
                name.to_owned()
            } else {
                format!("{below}/{name}")
            };
            if LEFT_OUT.contains(&relative.as_str()) {
                continue;
            }
            let from = entry.path();
            let found =
                fs::symlink_metadata(&from).with_context(|| format!("cannot read {}", from.display()))?;
            let mode = found.permissions().mode() & 0o7777;
            let path = merged(&relative);
            if found.is_symlink() {
                // If packages are merged already, this is the link itself.
                if MERGED.contains(&relative.as_str()) {
                    continue;
                }
                let target =
                    fs::read_link(&from).with_context(|| format!("cannot read {}", from.display()))?;
                let target = target
                    .to_str()
                    .with_context(|| format!("{target:?} is no text"))?;
                self.link(&path, target);
            } else if found.is_dir() {
                if !MERGED.contains(&relative.as_str()) {
                    self.directory(&path, mode);
                }
                self.walk(root, &relative)?;
            } else if found.is_file() {
                self.file(&path, mode, &from);
            }
        }
        Ok(())
    }

    /// A link in `/usr/bin`, where no program has the name.
    fn fill(&mut self, name: &str, target: &str) {
        let places = ["usr/bin", "usr/sbin"];
        if places
            .iter()
            .all(|dir| !self.0.contains_key(&format!("{dir}/{name}")))
        {
            self.link(&format!("usr/bin/{name}"), target);
        }
    }

    pub(crate) fn directory(&mut self, path: &str, mode: u32) {
        self.put(
            path,
            Member::Directory {
                path: path.to_owned(),
                mode,
            },
        );
    }

    pub(crate) fn file(&mut self, path: &str, mode: u32, from: &Path) {
        self.put(
            path,
            Member::File {
                path: path.to_owned(),
                mode,
                from: from.to_owned(),
            },
        );
    }

    pub(crate) fn text(&mut self, path: &str, content: &str) {
        self.put(
            path,
            Member::Text {
                path: path.to_owned(),
                content: content.to_owned(),
            },
        );
    }

    pub(crate) fn link(&mut self, path: &str, target: &str) {
        self.put(
            path,
            Member::Link {
                path: path.to_owned(),
                target: target.to_owned(),
            },
        );
    }

    /// Adds a member, and its missing parent directories.
    fn put(&mut self, path: &str, member: Member) {
        for (at, _) in path.match_indices('/') {
            let above = &path[..at];
            self.0
                .entry(above.to_owned())
                .or_insert_with(|| Member::Directory {
                    path: above.to_owned(),
                    mode: 0o755,
                });
        }
        self.0.insert(path.to_owned(), member);
    }

    /// In the order of an archive: a directory before its contents.
    pub(crate) fn members(self) -> Vec<Member> {
        self.0.into_values().collect()
    }
}

/// Where a path of a package lies with one merged `/usr`.
fn merged(path: &str) -> String {
    match path.split_once('/') {
        Some((first, _)) if MERGED.contains(&first) => format!("usr/{path}"),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// Packages as they lie with or without a merged `/usr`.
    fn packages(root: &Path, together: bool) {
        for dir in ["usr/bin", "usr/sbin", "usr/lib", "etc", "dev", "usr/share/doc/x"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        for name in ["bin", "lib"] {
            if together {
                symlink(format!("usr/{name}"), root.join(name)).unwrap();
            } else {
                fs::create_dir(root.join(name)).unwrap();
            }
        }
        // It lists its names, as the real one does.
        let busybox = root.join("usr/bin/busybox");
        fs::write(&busybox, "#!/bin/sh\nprintf 'cat\\nnslookup\\nip\\n'\n").unwrap();
        fs::set_permissions(&busybox, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(root.join("bin/cat"), "").unwrap();
        fs::write(root.join("usr/sbin/ip"), "").unwrap();
        fs::write(root.join("lib/x.so.1"), "").unwrap();
        fs::write(root.join("dev/null"), "").unwrap();
        fs::write(root.join("usr/share/doc/x/y"), "").unwrap();
        symlink("x.so.1", root.join("lib/x.so")).unwrap();
    }

    #[test]
    fn images_see_one_usr_whichever_way_packages_lie() {
        let mut seen = Vec::new();
        for together in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            packages(dir.path(), together);
            let files = Files::of_packages(dir.path()).unwrap();
            let link = |path: &str| match &files.0[path] {
                Member::Link { target, .. } => target.clone(),
                other => panic!("{path} is {other:?}"),
            };
            assert_eq!(link("bin"), "usr/bin");
            assert_eq!(link("sbin"), "usr/sbin");
            assert_eq!(link("usr/lib/x.so"), "x.so.1");
            assert_eq!(link("usr/bin/sh"), "dash");
            assert_eq!(link("usr/bin/nslookup"), "busybox");
            for path in ["usr/bin/cat", "usr/sbin/ip"] {
                assert!(matches!(files.0[path], Member::File { .. }), "{path}");
            }
            assert!(!files.0.contains_key("usr/bin/ip"));
            assert!(!files.0.contains_key("dev") && !files.0.contains_key("usr/share/doc"));
            seen.push(files.0.into_keys().collect::<Vec<_>>());
        }
        assert_eq!(seen[0], seen[1]);
    }

    #[test]
    fn what_is_above_a_file_comes_before_it() {
        let mut files = Files::default();
        files.text("etc/nginx/nginx.conf", "x");
        files.directory("etc", 0o700);
        files.text("etc-x", "");
        let paths: Vec<_> = files
            .members()
            .iter()
            .map(|member| match member {
                Member::Directory { path, mode } => format!("{path}/ {mode:o}"),
                Member::Text { path, .. } => path.clone(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(
            paths,
            ["etc/ 700", "etc-x", "etc/nginx/ 755", "etc/nginx/nginx.conf"]
        );
    }
}
