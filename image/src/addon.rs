//! Container images of add-ons that are part of no node image: built on this host when a cluster first asks for one, kept
//! under a key of their inputs, and handed out to nodes as archives.
//!
//! ```text
//! addons/NAME/KEY/addon.json      what it is made of, with digests
//!                 image.tar       for `ctr images import`
//!                 sbom.spdx.json
//! ```
//!
//! Always true, as for node images: a directory is complete and never changes; a build holds the store's lock and keeps each
//! finished program. An image holds its program, and Debian's packages that the program calls: unpacked, not installed, so the
//! links that an installation makes are pinned beside them.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    addon_build::{AddonBuild, AddonPlan},
    builder::sweep,
    digest,
    error::{ImageError, IoContext as _},
    lock::BuildLock,
    manifest::{ContainerImage, DebianPackage, ProgramRecord},
    plan::Estimate,
    process::Runner,
    progress::{Event, Progress, Silent},
    source::Source,
    store::{ImageStore, NodeImage, SBOM, names},
    verify::{Difference, Verification},
};

/// Part of every key: increase it when the code here changes what it makes.
pub(crate) const FORMAT: &str = "1";
/// The schema of manifests that this code writes and reads.
pub(crate) const SCHEMA: u32 = 1;
/// The manifest.
pub(crate) const MANIFEST: &str = "addon.json";
/// The archive.
pub(crate) const ARCHIVE: &str = "image.tar";
/// The content of an add-on's image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddonManifest {
    /// 1.
    pub schema: u32,
    /// Its name, as in `components.toml`.
    pub name: String,
    /// SHA-256 over everything it is made of, 64 hex digits.
    pub key: String,
    /// The pins it was made from, 64 hex digits: the same for every source and toolchain.
    pub recipe: String,
    /// `amd64` or `arm64`.
    pub architecture: String,
    /// The time of the build, UTC.
    pub created: jiff::Timestamp,
    /// `modules`, `directory` or `release`.
    pub source: String,
    /// Its program.
    pub program: ProgramRecord,
    /// Packages of Debian in it.
    pub packages: Vec<DebianPackage>,
    /// The container image.
    pub image: ContainerImage,
    /// SHA-256 of `sbom.spdx.json`.
    pub sbom: String,
}

/// An add-on's image in the store, complete and never changing.
#[derive(Debug, Clone)]
pub struct AddonImage {
    /// Its manifest.
    pub manifest: AddonManifest,
    directory: PathBuf,
}

impl AddonImage {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.manifest.name
    }

    /// The archive that nodes import.
    pub fn archive(&self) -> PathBuf {
        self.directory.join(ARCHIVE)
    }

    /// The bill of materials, SPDX 2.3 JSON.
    pub fn sbom(&self) -> PathBuf {
        self.directory.join(SBOM)
    }

    /// The directory with all of it.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

/// An image that was brought along in a file.
#[derive(Debug, Clone)]
pub enum Imported {
    /// A node image.
    Node(Box<NodeImage>),
    /// The image of an add-on.
    Addon(Box<AddonImage>),
}

impl ImageStore {
    /// Names of the images of add-ons that this release can build.
    pub fn addon_names(&self) -> Vec<String> {
        let addons = self.catalog.addons();
        addons.map(|component| component.name.clone()).collect()
    }

    /// The image of an add-on that was made from the pins of this release, from whatever source; of several builds the newest. Cheap.
    ///
    /// # Errors
    /// [`ImageError::UnknownAddon`], and [`ImageError::Io`] for a store that cannot be read.
    pub fn addon(&self, name: &str) -> Result<Option<AddonImage>, ImageError> {
        let recipe = self.catalog.addon_recipe(self.catalog.addon(name)?);
        let found = self.addons_of(name)?;
        Ok(found.into_iter().find(|image| image.manifest.recipe == recipe))
    }

    /// All complete images of add-ons, by name, the newest build of each first.
    ///
    /// # Errors
    /// [`ImageError::Io`] for a store that cannot be read.
    pub fn addons(&self) -> Result<Vec<AddonImage>, ImageError> {
        let mut images = Vec::new();
        for name in names(&self.paths.addons)? {
            images.extend(self.addons_of(&name)?);
        }
        Ok(images)
    }

    /// The steps that [`Self::ensure_addon`] would run now.
    ///
    /// # Errors
    /// As there.
    pub fn estimate_addon(&self, name: &str, source: &Source) -> Result<Estimate, ImageError> {
        AddonPlan::new(self, self.catalog.addon(name)?, source)?.estimate(self)
    }

    /// The image of an add-on: an existing one made from the pins of this release, else it is built from `source`. Waits while
    /// another process builds. It may be killed at any time and called again.
    ///
    /// # Errors
    /// Each names the missing part and the next step; see [`ImageError`].
    pub fn ensure_addon(
        &self,
        name: &str,
        source: &Source,
        progress: &dyn Progress,
    ) -> Result<AddonImage, ImageError> {
        match self.addon(name)? {
            Some(image) => Ok(image),
            None => self.build_addon(name, source, progress),
        }
    }

    /// As [`Self::ensure_addon`], but only an image from exactly this source and toolchain counts as existing.
    ///
    /// # Errors
    /// As there.
    pub fn build_addon(
        &self,
        name: &str,
        source: &Source,
        progress: &dyn Progress,
    ) -> Result<AddonImage, ImageError> {
        let plan = AddonPlan::new(self, self.catalog.addon(name)?, source)?;
        let directory = self.paths.addon(name, &plan.key);
        if let Some(image) = load(&directory)? {
            return Ok(image);
        }
        let _lock = BuildLock::take(&self.paths.lock, progress)?;
        // The previous holder of the lock may have built it.
        if let Some(image) = load(&directory)? {
            return Ok(image);
        }
        sweep(&self.paths.scratch)?;
        let estimate = plan.estimate(self)?;
        progress.event(Event::Planned(&estimate));
        AddonBuild {
            store: self,
            plan: &plan,
            progress,
            runner: Runner::default(),
        }
        .run(source, &directory, &estimate)?;
        sweep(&self.paths.scratch)?;
        load(&directory)?.ok_or_else(|| ImageError::AddonNotBuilt {
            name: name.to_owned(),
        })
    }

    /// Recomputes every digest of the image of an add-on.
    ///
    /// # Errors
    /// [`ImageError::AddonNotBuilt`]; differences are not errors, they are in the answer.
    pub fn verify_addon(&self, name: &str) -> Result<Verification, ImageError> {
        let image = self.addon(name)?.ok_or_else(|| ImageError::AddonNotBuilt {
            name: name.to_owned(),
        })?;
        differences(&image)
    }

    /// Removes the damaged builds of an add-on's image, so that it is made again when it is next needed. Returns the removed paths.
    ///
    /// # Errors
    /// [`ImageError::Io`] for a store that cannot be read or written.
    pub fn discard_addon(&self, name: &str) -> Result<Vec<PathBuf>, ImageError> {
        self.catalog.addon(name)?;
        let _lock = BuildLock::take(&self.paths.lock, &Silent)?;
        let place = self.paths.addons.join(name);
        let mut gone = Vec::new();
        fs::create_dir_all(&self.paths.scratch).at("create", &self.paths.scratch)?;
        for key in names(&place)? {
            let directory = place.join(key);
            let whole = match load(&directory) {
                Ok(Some(image)) => differences(&image).is_ok_and(|found| found.differences.is_empty()),
                Ok(None) | Err(ImageError::Damaged { .. }) => false,
                Err(error) => return Err(error),
            };
            if !whole {
                // By a rename, so that no partial directory is ever visible.
                let away = self.paths.scratch.join(format!("damaged-addon-{}", gone.len()));
                fs::rename(&directory, &away).at("take away", &directory)?;
                gone.push(directory);
            }
        }
        sweep(&self.paths.scratch)?;
        Ok(gone)
    }

    /// The builds of an image, newest first. One with an unreadable manifest is skipped.
    fn addons_of(&self, name: &str) -> Result<Vec<AddonImage>, ImageError> {
        let place = self.paths.addons.join(name);
        let mut images = Vec::new();
        for key in names(&place)? {
            match load(&place.join(key)) {
                Err(error @ ImageError::Damaged { .. }) => {
                    tracing::warn!(%error, "the image of an add-on is left out");
                }
                other => images.extend(other?),
            }
        }
        images.sort_by(|a, b| {
            let created = b.manifest.created.cmp(&a.manifest.created);
            created.then_with(|| a.manifest.key.cmp(&b.manifest.key))
        });
        Ok(images)
    }
}

/// The image in `directory`; `None` when its archive or all of it is missing.
pub(crate) fn load(directory: &Path) -> Result<Option<AddonImage>, ImageError> {
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
    let manifest: AddonManifest =
        serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
    if manifest.schema != SCHEMA {
        return Err(damaged(format!(
            "its schema is {} and this release reads {SCHEMA}",
            manifest.schema
        )));
    }
    if !directory.join(ARCHIVE).is_file() {
        return Ok(None);
    }
    Ok(Some(AddonImage {
        manifest,
        directory: directory.to_owned(),
    }))
}

/// Compares the files of an image with its manifest.
pub(crate) fn differences(image: &AddonImage) -> Result<Verification, ImageError> {
    let manifest = &image.manifest;
    let mut result = Verification {
        version: manifest.name.clone(),
        key: manifest.key.clone(),
        paths: 2,
        bytes: manifest.image.size,
        differences: Vec::new(),
    };
    for (path, wanted) in [
        (image.archive(), &manifest.image.sha256),
        (image.sbom(), &manifest.sbom),
    ] {
        let what = if path.is_file() {
            let found = digest::of_file(&path)?;
            (found != *wanted).then(|| format!("has SHA-256 {found} and should have {wanted}"))
        } else {
            Some("is missing".to_owned())
        };
        result.differences.extend(what.map(|what| Difference {
            path: path.display().to_string(),
            what,
        }));
    }
    Ok(result)
}
