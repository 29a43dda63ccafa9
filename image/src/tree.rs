//! The listing of a directory tree: the content of a layer, with digests.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use serde::{Deserialize, Serialize};

use crate::{
    digest,
    error::{ImageError, IoContext as _},
};

/// Every path below a root, relative, in the order of their bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Tree(pub(crate) BTreeMap<String, Entry>);

/// A path. Times are left out: they have no meaning in a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Entry {
    /// Twelve bits, as `chmod` takes them.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    #[serde(flatten)]
    pub(crate) content: Content,
}

/// The kind and content of a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub(crate) enum Content {
    Directory,
    File { size: u64, sha256: String },
    Link { target: String },
}

impl Tree {
    /// Reads and digests everything below `root`.
    pub(crate) fn scan(root: &Path) -> Result<Self, ImageError> {
        let mut tree = Self::default();
        tree.scan_into(root, "")?;
        Ok(tree)
    }

    fn scan_into(&mut self, directory: &Path, prefix: &str) -> Result<(), ImageError> {
        for entry in fs::read_dir(directory).at("list", directory)? {
            let entry = entry.at("list", directory)?;
            let path = entry.path();
            let strange = |detail: &str| ImageError::BadArchive {
                archive: path.display().to_string(),
                detail: detail.to_owned(),
            };
            let name = entry.file_name();
            let name = name.to_str().ok_or_else(|| strange("its name is not UTF-8"))?;
            let relative = if prefix.is_empty() {
                name.to_owned()
            } else {
                format!("{prefix}/{name}")
            };
            let metadata = fs::symlink_metadata(&path).at("read", &path)?;
            let content = if metadata.is_dir() {
                Content::Directory
            } else if metadata.is_symlink() {
                let target = fs::read_link(&path).at("read", &path)?;
                let target = target
                    .to_str()
                    .ok_or_else(|| strange("its target is not UTF-8"))?;
                Content::Link {
                    target: target.to_owned(),
                }
            } else if metadata.is_file() {
                Content::File {
                    size: metadata.len(),
                    sha256: digest::of_file(&path)?,
                }
            } else {
                return Err(strange("it is neither file, directory nor symbolic link"));
            };
            let is_directory = content == Content::Directory;
            let mode = if metadata.is_symlink() {
                0o777
            } else {
                metadata.permissions().mode() & 0o7777
            };
            self.0.insert(
                relative.clone(),
                Entry {
                    mode,
                    uid: metadata.uid(),
                    gid: metadata.gid(),
                    content,
                },
            );
            if is_directory {
                self.scan_into(&path, &relative)?;
            }
        }
        Ok(())
    }

    /// Every path that is missing below `root` or of another kind or size, with the problem.
    pub(crate) fn glance(&self, root: &Path) -> Vec<(String, String)> {
        self.0
            .iter()
            .filter_map(|(path, entry)| Some((path.clone(), entry.glance(&root.join(path))?)))
            .collect()
    }

    /// Bytes of all files.
    pub(crate) fn size(&self) -> u64 {
        self.0
            .values()
            .map(|entry| match entry.content {
                Content::File { size, .. } => size,
                Content::Directory | Content::Link { .. } => 0,
            })
            .sum()
    }

    /// Every path that differs in `found`, with the problem.
    pub(crate) fn differences(&self, found: &Self) -> Vec<(String, String)> {
        let mut differences = Vec::new();
        for (path, wanted) in &self.0 {
            match found.0.get(path) {
                None => differences.push((path.clone(), "is missing".to_owned())),
                Some(entry) if entry == wanted => {}
                Some(entry) => differences.push((path.clone(), wanted.difference(entry))),
            }
        }
        let extra = found.0.keys().filter(|path| !self.0.contains_key(*path));
        differences.extend(extra.map(|path| (path.clone(), "does not belong here".to_owned())));
        differences.sort();
        differences
    }
}

impl Entry {
    fn glance(&self, path: &Path) -> Option<String> {
        let Ok(found) = fs::symlink_metadata(path) else {
            return Some("is missing".to_owned());
        };
        let kind = found.file_type();
        match &self.content {
            Content::Directory if kind.is_dir() => None,
            Content::Link { .. } if kind.is_symlink() => None,
            Content::File { size, .. } if kind.is_file() && found.len() == *size => None,
            Content::File { size, .. } if kind.is_file() => {
                Some(format!("has {} bytes and should have {size}", found.len()))
            }
            wanted => Some(format!("is no {}", wanted.noun())),
        }
    }

    fn difference(&self, found: &Self) -> String {
        match (&self.content, &found.content) {
            (Content::File { sha256: wanted, .. }, Content::File { sha256: got, .. }) if wanted != got => {
                format!("has SHA-256 {got} and should have {wanted}")
            }
            (Content::Link { target: wanted }, Content::Link { target: got }) if wanted != got => {
                format!("points to {got} and should point to {wanted}")
            }
            (wanted, got) if std::mem::discriminant(wanted) != std::mem::discriminant(got) => {
                format!("is a {} and should be a {}", got.noun(), wanted.noun())
            }
            _ if self.mode != found.mode => {
                format!("has mode {:04o} and should have {:04o}", found.mode, self.mode)
            }
            _ => format!(
                "belongs to {}:{} and should belong to {}:{}",
                found.uid, found.gid, self.uid, self.gid
            ),
        }
    }
}

impl Content {
    const fn noun(&self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::File { .. } => "file",
            Self::Link { .. } => "symbolic link",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn every_kind_of_difference_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir(root.join("d")).unwrap();
        fs::write(root.join("d/changed"), "before").unwrap();
        fs::write(root.join("gone"), "").unwrap();
        fs::write(root.join("mode"), "").unwrap();
        symlink("mode", root.join("link")).unwrap();
        let before = Tree::scan(root).unwrap();
        assert_eq!(before.size(), 6);
        assert_eq!(before.differences(&before), []);

        fs::write(root.join("d/changed"), "behind").unwrap();
        fs::remove_file(root.join("gone")).unwrap();
        fs::create_dir(root.join("gone")).unwrap();
        fs::write(root.join("new"), "").unwrap();
        fs::set_permissions(root.join("mode"), fs::Permissions::from_mode(0o4755)).unwrap();
        fs::remove_file(root.join("link")).unwrap();
        symlink("/etc/shadow", root.join("link")).unwrap();
        let found = before.differences(&Tree::scan(root).unwrap());
        let paths: Vec<_> = found.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(paths, ["d/changed", "gone", "link", "mode", "new"]);
        assert_eq!(found[1].1, "is a directory and should be a file");
        assert_eq!(found[2].1, "points to /etc/shadow and should point to mode");
        assert!(found[3].1.starts_with("has mode 4755"), "{}", found[3].1);
        assert_eq!(found[4].1, "does not belong here");
    }

    #[test]
    fn a_listing_survives_json() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "x").unwrap();
        symlink("a", dir.path().join("b")).unwrap();
        fs::create_dir(dir.path().join("c")).unwrap();
        let tree = Tree::scan(dir.path()).unwrap();
        let text = serde_json::to_string(&tree).unwrap();
        assert_eq!(serde_json::from_str::<Tree>(&text).unwrap(), tree);
    }
}
