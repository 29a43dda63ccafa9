//! A layer of the store: a directory tree with its listing and metadata.

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

/// Part of every key: increase it when the code that creates layers changes its result.
pub(crate) const FORMAT: &str = "1";
/// The tree, used directly as an overlay lower directory.
pub(crate) const ROOTFS: &str = "rootfs";
/// All metadata.
pub(crate) const LISTING: &str = "layer.json";

/// The metadata of a layer. Stored beside its tree; an image's manifest carries the digest of this file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Layer {
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) programs: Vec<ProgramRecord>,
    pub(crate) images: Vec<ContainerImage>,
    pub(crate) packages: Vec<DebianPackage>,
    /// Build information of the programs, by name.
    pub(crate) linked: BTreeMap<String, Linked>,
    pub(crate) tree: Tree,
}

/// The build information of a Go program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Linked {
    pub(crate) go: String,
    pub(crate) modules: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) libraries: Vec<(String, String)>,
}

impl From<Linked> for BuildInfo {
    fn from(linked: Linked) -> Self {
        Self {
            go: linked.go,
            modules: linked.modules,
            libraries: linked.libraries,
        }
    }
}

impl From<BuildInfo> for Linked {
    fn from(info: BuildInfo) -> Self {
        Self {
            go: info.go,
            modules: info.modules,
            libraries: info.libraries,
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

    /// Lists `scratch/rootfs`, writes the listing and moves `scratch` to the layer's place.
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

    /// The layer's record in the manifest of an image.
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

/// Creates `path` below `root`, with its parents, with mode 0755, whatever the umask.
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
