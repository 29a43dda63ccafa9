//! A layer of the store: a directory tree with its listing and what is known about it.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    buildinfo::BuildInfo,
    digest,
    error::{ImageError, IoContext as _},
    manifest::{ContainerImage, DebianPackage, LayerRecord, ProgramRecord},
    tree::Tree,
};

/// Part of every key: raise it when the code that lays out layers changes what it makes.
pub(crate) const FORMAT: &str = "1";
/// The tree, used directly as an overlay lower directory.
pub(crate) const ROOTFS: &str = "rootfs";
/// Everything else.
pub(crate) const LISTING: &str = "layer.json";

/// What is known about a layer. Stored beside its tree; an image's manifest carries the digest of this file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Layer {
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) programs: Vec<ProgramRecord>,
    pub(crate) images: Vec<ContainerImage>,
    pub(crate) packages: Vec<DebianPackage>,
    /// What the programs were linked from, by their name.
    pub(crate) linked: BTreeMap<String, Linked>,
    pub(crate) tree: Tree,
}

/// As read from a Go program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Linked {
    pub(crate) go: String,
    pub(crate) modules: Vec<(String, String)>,
}

impl From<Linked> for BuildInfo {
    fn from(linked: Linked) -> Self {
        Self {
            go: linked.go,
            modules: linked.modules,
        }
    }
}

impl From<BuildInfo> for Linked {
    fn from(info: BuildInfo) -> Self {
        Self {
            go: info.go,
            modules: info.modules,
        }
    }
}

impl Layer {
    pub(crate) fn new(name: &str, id: &str) -> Self {
        Self {
            name: name.to_owned(),
            id: id.to_owned(),
            programs: Vec::new(),
            images: Vec::new(),
            packages: Vec::new(),
            linked: BTreeMap::new(),
            tree: Tree::default(),
        }
    }

    /// Lists `scratch/rootfs`, writes the listing and moves `scratch` to where the layer belongs.
    pub(crate) fn install(mut self, scratch: &Path, layers: &Path) -> Result<(), ImageError> {
        self.tree = Tree::scan(&scratch.join(ROOTFS))?;
        let listing = scratch.join(LISTING);
        let text = serde_json::to_vec_pretty(&self).expect("strings and numbers only");
        fs::write(&listing, text).at("write", &listing)?;
        let place = layers.join(&self.id);
        fs::rename(scratch, &place).at("move a finished layer to", &place)
    }

    /// Reads the listing in the layer's directory, with its digest.
    pub(crate) fn read(directory: &Path) -> Result<(Self, String), ImageError> {
        let path = directory.join(LISTING);
        let bytes = fs::read(&path).at("read", &path)?;
        let layer = serde_json::from_slice(&bytes).map_err(|error| ImageError::Damaged {
            path: path.display().to_string(),
            detail: error.to_string(),
            remove: directory.display().to_string(),
        })?;
        Ok((layer, digest::of_bytes(&bytes)))
    }

    /// For the manifest of an image.
    pub(crate) fn record(&self, listing: String) -> LayerRecord {
        LayerRecord {
            name: self.name.clone(),
            id: self.id.clone(),
            listing,
            paths: self.tree.0.len() as u64,
            bytes: self.tree.size(),
        }
    }
}

/// Makes `path` below `root` and everything above it with mode 0755, whatever the umask.
pub(crate) fn directory(root: &Path, path: &str) -> Result<PathBuf, ImageError> {
    let mut directory = root.to_owned();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        directory.push(part);
        if !directory.is_dir() {
            fs::create_dir(&directory).at("create", &directory)?;
            mode(&directory, 0o755)?;
        }
    }
    Ok(directory)
}

pub(crate) fn mode(path: &Path, mode: u32) -> Result<(), ImageError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).at("set the mode of", path)
}
