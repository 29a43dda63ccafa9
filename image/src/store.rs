//! The store of one user's node images: listing and look-up. Building, moving, checking and repair add their
//! methods to it, each in its own file.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use base_env::Env;

use crate::{
    build,
    components::Catalog,
    error::{ImageError, IoContext as _},
    key,
    layer::ROOTFS,
    manifest::{Manifest, SCHEMA},
};

/// The bill of materials, beside the manifest of an image.
pub(crate) const SBOM: &str = "sbom.spdx.json";
/// The manifest of an image.
pub(crate) const MANIFEST: &str = "manifest.json";

/// The directories of a store.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    pub(crate) root: PathBuf,
    pub(crate) programs: PathBuf,
    pub(crate) downloads: PathBuf,
    pub(crate) modules: PathBuf,
    pub(crate) layers: PathBuf,
    pub(crate) images: PathBuf,
    pub(crate) addons: PathBuf,
    pub(crate) scratch: PathBuf,
    pub(crate) logs: PathBuf,
    pub(crate) lock: PathBuf,
}

impl Paths {
    fn new(cache: &Path) -> Self {
        let root = cache.join("node-images");
        let below = |name: &str| root.join(name);
        Self {
            programs: below("programs"),
            downloads: below("downloads"),
            modules: below("modules"),
            layers: below("layers"),
            images: below("images"),
            addons: below("addons"),
            scratch: below("scratch"),
            logs: below("logs"),
            lock: below("build.lock"),
            root,
        }
    }

    pub(crate) fn layer(&self, id: &str) -> PathBuf {
        self.layers.join(id)
    }

    pub(crate) fn image(&self, version: &str, key: &str) -> PathBuf {
        self.images.join(version).join(key::short(key))
    }

    pub(crate) fn addon(&self, name: &str, key: &str) -> PathBuf {
        self.addons.join(name).join(key::short(key))
    }
}

/// The programs of this host that build images.
#[derive(Debug, Clone)]
pub struct Tools {
    /// The Go toolchain, if installed.
    pub go: Option<PathBuf>,
    /// The C compiler, if installed.
    pub gcc: Option<PathBuf>,
    /// pkg-config, which knows where C libraries are, if installed.
    pub pkg_config: Option<PathBuf>,
    /// mmdebstrap, which builds the base system, if installed.
    pub mmdebstrap: Option<PathBuf>,
    /// The mirror of the base system's packages; without, the configuration of this host's apt, else
    /// deb.debian.org.
    pub debian_mirror: Option<String>,
    /// Whether this process may create files of other owners.
    pub root: bool,
}

impl Tools {
    /// Searches `PATH`, and for Go also the directory of its own installer. `LANDFALL_DEBIAN_MIRROR` names a
    /// mirror.
    pub fn of_this_host() -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let find = |name: &str, also: &str| {
            std::env::split_paths(&path)
                .chain([PathBuf::from(also)])
                .map(|directory| directory.join(name))
                .find(|program| program.is_file())
        };
        Self {
            go: find("go", "/usr/local/go/bin"),
            gcc: find("gcc", "/usr/bin"),
            pkg_config: find("pkg-config", "/usr/bin"),
            mmdebstrap: find("mmdebstrap", "/usr/bin"),
            debian_mirror: std::env::var("LANDFALL_DEBIAN_MIRROR")
                .ok()
                .filter(|mirror| !mirror.is_empty()),
            root: rustix::process::geteuid().is_root(),
        }
    }
}

/// A node image in the store, complete and never changing.
#[derive(Debug, Clone)]
pub struct NodeImage {
    /// Kubernetes, like `1.36.3`.
    pub version: String,
    /// SHA-256 over all inputs, 64 hex digits.
    pub key: String,
    /// Overlay lower directories, top first. Shared by all machines, never to be written to.
    pub layers: Vec<PathBuf>,
    /// Its manifest.
    pub manifest: Manifest,
    /// The directory of manifest and bill of materials.
    directory: PathBuf,
}

impl NodeImage {
    /// The path of a program of the image on this host, like `kubectl`. `None` for a program that is not in
    /// machines.
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        let program = self
            .manifest
            .programs
            .iter()
            .find(|program| program.name == name && program.image.is_none())?;
        let relative = program.path.trim_start_matches('/');
        self.layers
            .iter()
            .map(|layer| layer.join(relative))
            .find(|path| path.is_file())
    }

    /// Its name among the images of its version: its day, e.g. `2026.11.28`.
    pub fn build(&self) -> String {
        build::of(&self.manifest)
    }

    /// The bill of materials, SPDX 2.3 JSON.
    pub fn sbom(&self) -> PathBuf {
        self.directory.join(SBOM)
    }

    /// The directory with manifest and bill of materials.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Bytes of all layers; shared layers are counted for each image.
    pub fn size(&self) -> u64 {
        self.manifest.layers.iter().map(|layer| layer.bytes).sum()
    }
}

/// A user's node images. Cheap to open; several processes may use the same store.
#[derive(Debug, Clone)]
pub struct ImageStore {
    pub(crate) env: Env,
    pub(crate) catalog: Catalog,
    pub(crate) tools: Tools,
    pub(crate) paths: Paths,
}

impl ImageStore {
    /// The store below `cache`, usually [`crate::cache_dir`], with this host's tools and clock.
    ///
    /// # Errors
    /// [`ImageError::Io`] when the directory cannot be made.
    pub fn open(cache: impl AsRef<Path>) -> Result<Self, ImageError> {
        Self::with(cache, Env::system(), Tools::of_this_host())
    }

    /// As [`Self::open`], with clock and tools passed in.
    ///
    /// # Errors
    /// [`ImageError::Io`] when the directory cannot be made.
    pub fn with(cache: impl AsRef<Path>, env: Env, tools: Tools) -> Result<Self, ImageError> {
        Self::with_catalog(cache.as_ref(), env, tools, Catalog::embedded())
    }

    pub(crate) fn with_catalog(
        cache: &Path,
        env: Env,
        tools: Tools,
        catalog: Catalog,
    ) -> Result<Self, ImageError> {
        // Overlay lower directories and the working directory of tools have to be absolute.
        let cache = std::path::absolute(cache).at("find", cache)?;
        let paths = Paths::new(&cache);
        fs::create_dir_all(&paths.root).at("create", &paths.root)?;
        Ok(Self {
            env,
            catalog,
            tools,
            paths,
        })
    }

    /// The image of a version that was made from the pins of this release, from whatever source.
    ///
    /// # Errors
    /// [`ImageError::UnknownVersion`], and [`ImageError::Io`] or [`ImageError::Damaged`] for a store that cannot be read.
    pub fn current(&self, version: &str) -> Result<Option<NodeImage>, ImageError> {
        let recipe = self.catalog.recipe(self.catalog.kubernetes(version)?);
        let images = self.of_version(version)?;
        Ok(images.into_iter().find(|image| image.manifest.recipe == recipe))
    }

    /// The image of a version (`1.36.3`, `v1.36.3` or `1.36`); of several builds one from this release's pins, else
    /// the newest. Cheap.
    ///
    /// # Errors
    /// [`ImageError::Io`] and [`ImageError::Damaged`] for a store that cannot be read.
    pub fn find(&self, version: &str) -> Result<Option<NodeImage>, ImageError> {
        let recipe = self
            .catalog
            .kubernetes(version)
            .ok()
            .map(|component| self.catalog.recipe(component));
        let images = self.of_version(version)?;
        let current = images
            .iter()
            .position(|image| Some(&image.manifest.recipe) == recipe.as_ref());
        Ok(images.into_iter().nth(current.unwrap_or(0)))
    }

    /// This build of a version's image.
    ///
    /// # Errors
    /// [`ImageError::Io`] and [`ImageError::Damaged`] for a store that cannot be read.
    pub fn find_build(&self, version: &str, build: &str) -> Result<Option<NodeImage>, ImageError> {
        let images = self.of_version(version)?;
        Ok(images.into_iter().find(|image| image.build() == build))
    }

    /// The build of an image of this version and key: its day, with a number where another image of the version has that.
    pub(crate) fn free_build(&self, version: &str, key: &str, wanted: String) -> Result<String, ImageError> {
        let others = self.of_version(version)?.into_iter();
        let taken: Vec<String> = others
            .filter(|image| image.key != key)
            .map(|image| image.build())
            .collect();
        Ok(build::free(wanted, &taken))
    }

    /// All complete images, by version, the newest build of each first.
    ///
    /// # Errors
    /// [`ImageError::Io`] and [`ImageError::Damaged`] for a store that cannot be read.
    pub fn list(&self) -> Result<Vec<NodeImage>, ImageError> {
        let mut images = Vec::new();
        for version in names(&self.paths.images)? {
            images.extend(self.of_version(&version)?);
        }
        images.sort_by_key(|image| version_order(&image.version));
        Ok(images)
    }

    /// The images of a version, newest build first. An image with an unreadable manifest is skipped.
    ///
    /// # Errors
    /// [`ImageError::Io`] for a store that cannot be read.
    pub fn of_version(&self, version: &str) -> Result<Vec<NodeImage>, ImageError> {
        let mut images = Vec::new();
        for directory in self.directories(version)? {
            match self.load(&directory) {
                Err(error @ ImageError::Damaged { .. }) => {
                    tracing::warn!(%error, "a node image is left out");
                }
                other => images.extend(other?),
            }
        }
        images.sort_by(|a, b| {
            build::order(&b.build())
                .cmp(&build::order(&a.build()))
                .then_with(|| b.manifest.created.cmp(&a.manifest.created))
                .then_with(|| a.key.cmp(&b.key))
        });
        Ok(images)
    }

    /// The directories of a version's images.
    pub(crate) fn directories(&self, version: &str) -> Result<Vec<PathBuf>, ImageError> {
        let version = match self.catalog.kubernetes(version) {
            Ok(component) => component.number(),
            // Images of versions that this release no longer builds still exist.
            Err(_) => version.strip_prefix('v').unwrap_or(version),
        };
        // A version from outside must not lead out of the store.
        if version.is_empty()
            || !version
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-.+".contains(&b))
            || version.starts_with('.')
        {
            return Ok(Vec::new());
        }
        let directory = self.paths.images.join(version);
        Ok(names(&directory)?.iter().map(|key| directory.join(key)).collect())
    }

    /// The image in `directory`; `None` when one of its layers was removed.
    pub(crate) fn load(&self, directory: &Path) -> Result<Option<NodeImage>, ImageError> {
        let path = directory.join(MANIFEST);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.at("read", &path)?,
        };
        let damaged = |detail: String| ImageError::Damaged {
            path: path.display().to_string(),
            detail,
            remove: directory.display().to_string(),
        };
        let manifest: Manifest = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        if manifest.schema != SCHEMA {
            return Err(damaged(format!(
                "its schema is {} and this release reads {SCHEMA}",
                manifest.schema
            )));
        }
        let layers: Vec<_> = manifest
            .layers
            .iter()
            .map(|layer| self.paths.layer(&layer.id).join(ROOTFS))
            .collect();
        if !layers.iter().all(|layer| layer.is_dir()) {
            return Ok(None);
        }
        Ok(Some(NodeImage {
            version: manifest.version.clone(),
            key: manifest.key.clone(),
            layers,
            manifest,
            directory: directory.to_owned(),
        }))
    }
}

fn version_order(version: &str) -> Vec<u64> {
    version
        .split(['.', '-'])
        .map(|part| part.parse().unwrap_or(0))
        .collect()
}

/// The sorted names in a directory; none if it does not exist.
pub(crate) fn names(directory: &Path) -> Result<Vec<String>, ImageError> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.at("list", directory)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.at("list", directory)?.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}
