//! Container images of a stamp's registries, as files of a directory: blobs, manifests, tags, uploads.
//!
//! ```text
//! {uid of a registry}/
//!   blobs/sha256/{digest}              content, also of manifests
//!   uploads/{repository}/{id}          a blob that is being sent
//!   repositories/{repository}/
//!     manifests/{digest}               what the manifest is, and what it refers to
//!     layers/{digest}                  the blob may be read through the repository
//!     tags/{tag}                       which manifest
//! ```
//!
//! A slash in a repository's name is a `+` in file names.
//!
//! Always true: a blob has the content that its name says, is complete and never changes; a manifest is there
//! only after all that it refers to; what was answered is on disk; a blob that nothing refers to is removed
//! only when nobody has asked for it or sent it for [`GUARD`]; a registry never holds more than its limit,
//! unfinished uploads included. It may be killed at any point: what is left is an upload, or a blob that is
//! removed later.
//!
//! Blocking code: call it on threads for that. One process at a time. Called by: `registry`.

mod blobs;
mod error;
mod manifest;
mod manifests;
mod names;
mod sweep;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

pub use error::ImagesError;
pub use manifest::LARGEST_MANIFEST;
pub use manifests::{ManifestSeen, Removed, StoredManifest, TagSeen};
pub use names::{Digest, Reference, Repository, Tag, UploadId};
pub use sweep::Swept;

use error::IoContext as _;

/// How long a blob that nothing refers to is kept after it was sent or asked for, and an upload after its last
/// piece: a client that pushes has so much time between a layer and its manifest.
pub const GUARD: Duration = Duration::from_secs(2 * 60 * 60);

/// No image is taken when less than this is free on the disk, bytes: the stamp's store is on it as well.
const LEAST_FREE: u64 = 1 << 30;

/// The images of all registries.
pub struct Images {
    root: PathBuf,
    open: Mutex<BTreeMap<String, Arc<Registry>>>,
}

impl Images {
    /// Those in this directory, which need not exist.
    pub fn new(root: PathBuf) -> Self {
        Self {
            root,
            open: Mutex::default(),
        }
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Registry>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those of the registry with this uid.
    pub fn of(&self, uid: &str) -> Arc<Registry> {
        let mut open = self.open();
        let registry = open.entry(uid.to_owned()).or_insert_with(|| {
            Arc::new(Registry {
                root: self.root.join(uid),
                turn: Mutex::default(),
                used: Mutex::default(),
            })
        });
        Arc::clone(registry)
    }

    /// Removes all images of a registry. May be repeated.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn remove(&self, uid: &str) -> Result<(), ImagesError> {
        self.open().remove(uid);
        let root = self.root.join(uid);
        match fs::remove_dir_all(&root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.at("remove", &root),
        }
    }
}

/// The images of one registry.
pub struct Registry {
    root: PathBuf,
    /// Held while files are made visible or removed.
    turn: Mutex<()>,
    /// The bytes of all blobs and uploads, once they were counted.
    used: Mutex<Option<u64>>,
}

impl Registry {
    /// The bytes of all blobs and uploads.
    ///
    /// # Errors
    /// When they cannot be counted.
    pub fn used(&self) -> Result<u64, ImagesError> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        self.counted(&mut used)
    }

    fn counted(&self, used: &mut Option<u64>) -> Result<u64, ImagesError> {
        if let Some(used) = *used {
            return Ok(used);
        }
        let mut sum = 0_u64;
        for (_, metadata) in self.blob_files()? {
            sum += metadata.len();
        }
        for (_, metadata) in self.upload_files()? {
            sum += metadata.len();
        }
        *used = Some(sum);
        Ok(sum)
    }

    /// Takes room for further bytes.
    fn take(&self, bytes: u64, limit: u64) -> Result<(), ImagesError> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = self.counted(&mut used)?.saturating_add(bytes);
        if sum > limit {
            return Err(ImagesError::Full { limit });
        }
        *used = Some(sum);
        Ok(())
    }

    /// Gives room back.
    fn give(&self, bytes: u64) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(used) = &mut *used {
            *used = used.saturating_sub(bytes);
        }
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses further images when the disk is nearly full.
    fn check_disk(&self) -> Result<(), ImagesError> {
        let disk = rustix::fs::statvfs(self.root.as_path())
            .map_err(io::Error::from)
            .at("ask the disk of", &self.root)?;
        if disk.f_bavail.saturating_mul(disk.f_frsize) < LEAST_FREE {
            return Err(ImagesError::DiskFull);
        }
        Ok(())
    }

    fn blobs_dir(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.blobs_dir().join(digest.hex())
    }

    fn uploads_dir(&self) -> PathBuf {
        self.root.join("uploads")
    }

    fn repositories_dir(&self) -> PathBuf {
        self.root.join("repositories")
    }

    fn repository_dir(&self, repository: &Repository) -> PathBuf {
        self.repositories_dir().join(repository.file_name())
    }
}

/// The names in a directory, in order; none if it does not exist. Files that are being written are left out.
fn names_in(directory: &Path) -> Result<Vec<String>, ImagesError> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.at("list", directory)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.at("list", directory)?.file_name();
        // All files of ours have such names.
        if let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// The files in a directory that are there.
fn files_in(directory: &Path) -> Result<Vec<(PathBuf, fs::Metadata)>, ImagesError> {
    let mut files = Vec::new();
    for name in names_in(directory)? {
        let path = directory.join(name);
        match fs::metadata(&path) {
            // It was removed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => files.push((path.clone(), other.at("look at", &path)?)),
        }
    }
    Ok(files)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
