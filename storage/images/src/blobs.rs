//! Blobs, and their uploads.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use crate::{Digest, ImagesError, Registry, Repository, UploadId, error::IoContext as _, files_in, names_in};

/// Files of images are root's only.
const MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;
/// Bytes that are hashed at a time.
const PIECE: usize = 1 << 18;

/// Marks a file as asked for.
pub(crate) fn touch(path: &Path, now: Timestamp) -> Result<(), ImagesError> {
    let touched = File::open(path).and_then(|file| file.set_modified(SystemTime::from(now)));
    touched.at("mark", path)
}

/// Writes a small file durably, in a directory that may be missing.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<(), ImagesError> {
    make(path.parent().unwrap_or(Path::new("/")))?;
    base_files::write(path, content, MODE).at("write", path)
}

/// Makes a directory durably.
pub(crate) fn make(directory: &Path) -> Result<(), ImagesError> {
    base_files::make_directories(directory, DIRECTORY_MODE).at("make", directory)
}

/// Removes a file durably; gives whether it was there.
pub(crate) fn remove(path: &Path) -> Result<bool, ImagesError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        other => {
            other.at("remove", path)?;
            let directory = path.parent().unwrap_or(Path::new("/"));
            base_files::sync(directory).at("write", directory)?;
            Ok(true)
        }
    }
}

/// The size of a file; `None` if it does not exist.
fn size_of(path: &Path) -> Result<Option<u64>, ImagesError> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => Ok(Some(other.at("look at", path)?.len())),
    }
}

impl Registry {
    /// All blobs.
    pub(crate) fn blob_files(&self) -> Result<Vec<(PathBuf, fs::Metadata)>, ImagesError> {
        files_in(&self.blobs_dir())
    }

    /// All uploads.
    pub(crate) fn upload_files(&self) -> Result<Vec<(PathBuf, fs::Metadata)>, ImagesError> {
        let directory = self.uploads_dir();
        let mut files = Vec::new();
        for repository in names_in(&directory)? {
            files.extend(files_in(&directory.join(repository))?);
        }
        Ok(files)
    }

    /// That a repository has a blob.
    fn layer_path(&self, repository: &Repository, digest: &Digest) -> PathBuf {
        self.repository_dir(repository).join("layers").join(digest.hex())
    }

    fn upload_path(&self, repository: &Repository, id: &UploadId) -> PathBuf {
        self.uploads_dir().join(repository.file_name()).join(id.as_str())
    }

    /// Whether a repository has a blob, with its content.
    pub(crate) fn has(&self, repository: &Repository, digest: &Digest) -> Result<bool, ImagesError> {
        Ok(size_of(&self.layer_path(repository, digest))?.is_some()
            && size_of(&self.blob_path(digest))?.is_some())
    }

    /// The size of a blob of a repository, bytes. Whoever asks may count on the blob for [`crate::GUARD`].
    ///
    /// # Errors
    /// [`ImagesError::NoBlob`] if there is none.
    pub fn blob_size(
        &self,
        repository: &Repository,
        digest: &Digest,
        now: Timestamp,
    ) -> Result<u64, ImagesError> {
        let _turn = self.turn();
        if !self.has(repository, digest)? {
            return Err(ImagesError::NoBlob);
        }
        let path = self.blob_path(digest);
        touch(&path, now)?;
        touch(&self.layer_path(repository, digest), now)?;
        size_of(&path)?.ok_or(ImagesError::NoBlob)
    }

    /// The content of a blob of a repository, and its size in bytes.
    ///
    /// # Errors
    /// [`ImagesError::NoBlob`] if there is none.
    pub fn blob(&self, repository: &Repository, digest: &Digest) -> Result<(File, u64), ImagesError> {
        if !self.has(repository, digest)? {
            return Err(ImagesError::NoBlob);
        }
        let path = self.blob_path(digest);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ImagesError::NoBlob),
            other => other.at("open", &path)?,
        };
        let size = file.metadata().at("look at", &path)?.len();
        Ok((file, size))
    }

    /// Gives a repository a blob of another one, without a copy. `false`: the other one does not have it.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn mount(
        &self,
        repository: &Repository,
        from: &Repository,
        digest: &Digest,
        now: Timestamp,
    ) -> Result<bool, ImagesError> {
        let _turn = self.turn();
        if !self.has(from, digest)? {
            return Ok(false);
        }
        touch(&self.blob_path(digest), now)?;
        write(&self.layer_path(repository, digest), b"")?;
        Ok(true)
    }

    /// Begins an upload.
    ///
    /// # Errors
    /// [`ImagesError::DiskFull`] when there is hardly room on the disk; when the disk refuses.
    pub fn begin_upload(&self, repository: &Repository, id: &UploadId) -> Result<(), ImagesError> {
        make(&self.blobs_dir())?;
        self.check_disk()?;
        let path = self.upload_path(repository, id);
        make(path.parent().unwrap_or(&self.root))?;
        let made = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(MODE)
            .open(&path);
        made.map(drop).at("make", &path)
    }

    /// How much of an upload was received, bytes.
    ///
    /// # Errors
    /// [`ImagesError::NoUpload`] if there is none.
    pub fn upload_size(&self, repository: &Repository, id: &UploadId) -> Result<u64, ImagesError> {
        size_of(&self.upload_path(repository, id))?.ok_or(ImagesError::NoUpload)
    }

    /// Appends a piece to an upload that has `at` bytes so far; gives how many it has then. `limit`: the bytes
    /// that the registry may hold.
    ///
    /// # Errors
    /// [`ImagesError::NotNext`] when it has another number of bytes, [`ImagesError::Full`] and
    /// [`ImagesError::DiskFull`] when the piece does not fit; the upload is as it was then.
    pub fn append(
        &self,
        repository: &Repository,
        id: &UploadId,
        at: u64,
        piece: &[u8],
        limit: u64,
    ) -> Result<u64, ImagesError> {
        let path = self.upload_path(repository, id);
        let _turn = self.turn();
        let has = size_of(&path)?.ok_or(ImagesError::NoUpload)?;
        if has != at {
            return Err(ImagesError::NotNext { has });
        }
        self.check_disk()?;
        let more = piece.len() as u64;
        self.take(more, limit)?;
        let written = OpenOptions::new().append(true).open(&path).and_then(|mut file| {
            file.write_all(piece).inspect_err(|_| {
                // What was written of it is taken back; if that fails as well, it counts until the upload
                // ends.
                let _left = file.set_len(at);
            })
        });
        if let Err(error) = written {
            let left = size_of(&path)?.unwrap_or(at).saturating_sub(at);
            self.give(more.saturating_sub(left));
            return Err(error).at("write", &path);
        }
        Ok(has + more)
    }

    /// Ends an upload: the content becomes a blob of the repository, if it has this digest. May be repeated.
    ///
    /// # Errors
    /// [`ImagesError::OtherContent`] if it has another digest, and [`ImagesError::NoUpload`]; then nothing has
    /// changed.
    pub fn finish(
        &self,
        repository: &Repository,
        id: &UploadId,
        digest: &Digest,
        now: Timestamp,
    ) -> Result<(), ImagesError> {
        let path = self.upload_path(repository, id);
        let mut file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // The answer to the end of the upload may have been lost.
                let _turn = self.turn();
                return match self.has(repository, digest)? {
                    true => Ok(()),
                    false => Err(ImagesError::NoUpload),
                };
            }
            other => other.at("open", &path)?,
        };
        let mut sum = Sha256::new();
        let mut piece = vec![0; PIECE];
        let mut size = 0_u64;
        loop {
            let read = match file.read(&mut piece) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other.at("read", &path)?,
            };
            let Some(content) = piece.get(..read).filter(|content| !content.is_empty()) else {
                break;
            };
            sum.update(content);
            size += read as u64;
        }
        let has = Digest::of_sum(sum);
        if has != *digest {
            return Err(ImagesError::OtherContent { has });
        }
        file.sync_all().at("write", &path)?;
        let _turn = self.turn();
        // Another piece may have come since.
        let whole = size_of(&path)?.ok_or(ImagesError::NoUpload)?;
        if whole != size {
            return Err(ImagesError::NotNext { has: whole });
        }
        let blob = self.blob_path(digest);
        if size_of(&blob)?.is_some() {
            remove(&path)?;
            self.give(size);
        } else {
            fs::rename(&path, &blob).at("keep", &blob)?;
            let blobs = self.blobs_dir();
            base_files::sync(&blobs).at("write", &blobs)?;
        }
        touch(&blob, now)?;
        write(&self.layer_path(repository, digest), b"")
    }

    /// Ends an upload without a blob.
    ///
    /// # Errors
    /// [`ImagesError::NoUpload`] if there is none.
    pub fn cancel(&self, repository: &Repository, id: &UploadId) -> Result<(), ImagesError> {
        let path = self.upload_path(repository, id);
        let _turn = self.turn();
        let size = size_of(&path)?.ok_or(ImagesError::NoUpload)?;
        remove(&path)?;
        self.give(size);
        Ok(())
    }
}
