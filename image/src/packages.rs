//! Debian's packages in the container image of an add-on: unpacked and never installed.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use crate::{
    components::Component,
    containers,
    error::{ImageError, IoContext as _},
    manifest::DebianPackage,
    oci::Member,
};

/// The scratch directory of unpacked packages.
pub(crate) const TREE: &str = "packages";
/// The list of package files, in the tree: see [`HOOK`].
const LIST: &str = "packages";
/// Lists the package files before mmdebstrap removes them: packages that are only unpacked are in no other list.
pub(crate) const HOOK: &str = "ls \"$1/var/cache/apt/archives\" > \"$1/packages\"";

/// Of the host, or of no use in a container.
const LEFT_OUT: &[&str] = &[
    "boot",
    "dev",
    "packages",
    "proc",
    "run",
    "sys",
    "tmp",
    "usr/share/bash-completion",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    "var/cache",
    "var/lib/apt",
    "var/lib/dpkg",
    "var/log",
];
/// Documentation, of which only copyright files stay: a distributor of an image must include them.
const DOCUMENTATION: &str = "usr/share/doc";
const COPYRIGHT: &str = "copyright";
/// Conversions between character sets, half of the C library's size. No program here needs them.
const CONVERSIONS: &str = "gconv";
/// Directories that are one with those below `/usr`.
const MERGED: &[&str] = &["bin", "lib", "lib64", "sbin"];
/// The certificates of the package `ca-certificates`, each in a file.
const CERTIFICATES: &str = "usr/share/ca-certificates/mozilla";
/// The file that its installation makes of them.
const BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";

/// All settings that affect the result, for keys.
pub(crate) fn settings() -> impl Iterator<Item = &'static str> {
    let fixed = [HOOK, DOCUMENTATION, COPYRIGHT, CONVERSIONS, CERTIFICATES, BUNDLE];
    fixed
        .into_iter()
        .chain([LEFT_OUT, MERGED].into_iter().flatten().copied())
}

/// The packages in `tree`, by name.
pub(crate) fn unpacked(tree: &Path) -> Result<Vec<DebianPackage>, ImageError> {
    let path = tree.join(LIST);
    let list = fs::read_to_string(&path).at("read", &path)?;
    let mut packages: Vec<_> = list.lines().filter_map(package).collect();
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(packages)
}

/// A file `name_version_architecture.deb`; apt encodes the colon of an epoch.
fn package(file: &str) -> Option<DebianPackage> {
    let mut parts = file.strip_suffix(".deb")?.split('_');
    let (name, version, architecture) = (parts.next()?, parts.next()?, parts.next()?);
    Some(DebianPackage {
        name: name.to_owned(),
        version: version.replace("%3a", ":"),
        architecture: architecture.to_owned(),
    })
}

/// The files of the image: the packages in `tree`, the links of `component`, and its program as `/name` from `program`.
pub(crate) fn members(
    tree: &Path,
    component: &Component,
    name: &str,
    program: &Path,
) -> Result<Vec<Member>, ImageError> {
    let mut files = Files::default();
    files.walk(tree, "")?;
    for directory in MERGED {
        files.directory(&format!("usr/{directory}"), 0o755);
        files.put(Member::Link {
            path: (*directory).to_owned(),
            target: format!("usr/{directory}"),
        });
    }
    for member in containers::skeleton() {
        files.put(member);
    }
    for (path, target) in &component.links {
        files.put(Member::Link {
            path: path.clone(),
            target: target.clone(),
        });
    }
    if let Some(bundle) = bundle(tree)? {
        files.put(Member::Text {
            path: BUNDLE.to_owned(),
            content: bundle,
        });
    }
    files.file(name, 0o755, program.to_owned());
    // In the order of an archive: a directory before its contents.
    Ok(files.0.into_values().collect())
}

/// All certificates of the package in one text, if it is there.
fn bundle(tree: &Path) -> Result<Option<String>, ImageError> {
    let directory = tree.join(CERTIFICATES);
    if !directory.is_dir() {
        return Ok(None);
    }
    let mut bundle = String::new();
    for file in crate::store::names(&directory)? {
        let path = directory.join(file);
        bundle += fs::read_to_string(&path).at("read", &path)?.trim_end();
        bundle.push('\n');
    }
    Ok(Some(bundle))
}

/// Files by path.
#[derive(Default)]
struct Files(BTreeMap<String, Member>);

impl Files {
    fn walk(&mut self, root: &Path, below: &str) -> Result<(), ImageError> {
        let directory = root.join(below);
        for entry in fs::read_dir(&directory).at("list", &directory)? {
            let entry = entry.at("list", &directory)?;
            let from = entry.path();
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let relative = if below.is_empty() {
                name.clone()
            } else {
                format!("{below}/{name}")
            };
            if LEFT_OUT.contains(&relative.as_str()) || name == CONVERSIONS {
                continue;
            }
            let metadata = fs::symlink_metadata(&from).at("read", &from)?;
            let documents = relative.starts_with(DOCUMENTATION) && !metadata.is_dir();
            if documents && name != COPYRIGHT {
                continue;
            }
            let mode = metadata.permissions().mode() & 0o7777;
            let is_merged = MERGED.contains(&relative.as_str());
            let path = merged(&relative);
            if metadata.is_symlink() {
                // If packages are merged already, this is the link itself.
                if !is_merged {
                    let target = fs::read_link(&from).at("read", &from)?;
                    self.put(Member::Link {
                        path,
                        target: target.to_string_lossy().into_owned(),
                    });
                }
            } else if metadata.is_dir() {
                if !is_merged {
                    self.directory(&path, mode);
                }
                self.walk(root, &relative)?;
            } else if metadata.is_file() {
                self.file(&path, mode, from);
            }
        }
        Ok(())
    }

    fn directory(&mut self, path: &str, mode: u32) {
        self.put(Member::Directory {
            path: path.to_owned(),
            mode,
        });
    }

    fn file(&mut self, path: &str, mode: u32, from: PathBuf) {
        self.put(Member::File {
            path: path.to_owned(),
            mode,
            from,
        });
    }

    /// Adds a member, and its missing parent directories.
    fn put(&mut self, member: Member) {
        let path = match &member {
            Member::Directory { path, .. }
            | Member::File { path, .. }
            | Member::Text { path, .. }
            | Member::Link { path, .. } => path.clone(),
        };
        for (at, _) in path.match_indices('/') {
            let above = path[..at].to_owned();
            self.0.entry(above.clone()).or_insert_with(|| Member::Directory {
                path: above,
                mode: 0o755,
            });
        }
        self.0.insert(path, member);
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
    use crate::components::Catalog;
    use std::os::unix::fs::symlink;

    #[test]
    fn packages_are_named_by_their_files() {
        let tree = tempfile::tempdir().unwrap();
        let list = "iptables_1.8.9-2_amd64.deb\nlock\npartial\nnetbase_6.4_all.deb\nlibx_1%3a2.0_amd64.deb\n";
        fs::write(tree.path().join(LIST), list).unwrap();
        let found = unpacked(tree.path()).unwrap();
        let told: Vec<_> = found
            .iter()
            .map(|package| format!("{} {} {}", package.name, package.version, package.architecture))
            .collect();
        assert_eq!(
            told,
            ["iptables 1.8.9-2 amd64", "libx 1:2.0 amd64", "netbase 6.4 all"]
        );
    }

    #[test]
    fn an_image_has_one_usr_its_links_and_its_program() {
        let tree = tempfile::tempdir().unwrap();
        let root = tree.path();
        for directory in [
            "lib/x86_64-linux-gnu",
            "usr/lib/x86_64-linux-gnu/gconv",
            "usr/sbin",
            "usr/share/doc/ipset",
            "usr/share/man",
            CERTIFICATES,
            "dev",
        ] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        for file in [
            "lib/x86_64-linux-gnu/libc.so.6",
            "usr/lib/x86_64-linux-gnu/gconv/X.so",
            "usr/sbin/ipset",
            "usr/share/doc/ipset/copyright",
            "usr/share/doc/ipset/changelog.gz",
            "usr/share/man/x",
            "dev/null",
        ] {
            fs::write(root.join(file), "").unwrap();
        }
        fs::write(root.join(CERTIFICATES).join("a.crt"), "A\n").unwrap();
        fs::write(root.join(CERTIFICATES).join("b.crt"), "B").unwrap();
        symlink("ipset", root.join("usr/sbin/ipset-translate")).unwrap();
        let program = root.join("program");
        fs::write(&program, "").unwrap();
        let catalog = Catalog::embedded();
        let component = catalog.addon("kube-router").unwrap();
        let all = members(root, component, "kube-router", &program).unwrap();
        let mut told = BTreeMap::new();
        let mut order = Vec::new();
        for member in &all {
            let (path, text) = match member {
                Member::Directory { path, .. } => (path, "/".to_owned()),
                Member::File { path, .. } => (path, "file".to_owned()),
                Member::Text { path, content } => (path, content.clone()),
                Member::Link { path, target } => (path, format!("-> {target}")),
            };
            order.push(path.as_str());
            told.insert(path.as_str(), text);
        }
        for (path, text) in [
            ("lib", "-> usr/lib"),
            ("sbin", "-> usr/sbin"),
            ("usr/lib/x86_64-linux-gnu/libc.so.6", "file"),
            ("usr/sbin/iptables", "-> xtables-nft-multi"),
            ("usr/sbin/ipset-translate", "-> ipset"),
            ("usr/share/doc/ipset/copyright", "file"),
            ("kube-router", "file"),
            ("tmp", "/"),
            (BUNDLE, "A\nB\n"),
        ] {
            assert_eq!(told.get(path).map(String::as_str), Some(text), "{path}");
        }
        for path in ["dev/null", "usr/share/man", "usr/share/doc/ipset/changelog.gz"] {
            assert!(!told.contains_key(path), "{path}");
        }
        assert!(!told.keys().any(|path| path.contains("gconv")));
        // A directory comes before what is in it.
        let place = |wanted: &str| order.iter().position(|path| *path == wanted).unwrap();
        assert!(place("usr") < place("usr/sbin/ipset"));
    }
}
