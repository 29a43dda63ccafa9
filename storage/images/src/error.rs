//! The errors of images.

use std::{io, path::Path};

use crate::Digest;

/// Why an image cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum ImagesError {
    /// There is no such blob in the repository.
    #[error("there is no such blob in the repository")]
    NoBlob,
    /// There is no such upload in the repository.
    #[error("there is no such upload in the repository; begin it anew")]
    NoUpload,
    /// There is no such manifest or tag in the repository.
    #[error("there is no such manifest or tag in the repository")]
    NoManifest,
    /// There is no such repository.
    #[error("there is no such repository in the registry")]
    NoRepository,
    /// A piece of an upload does not begin where the one before it ended.
    #[error("the upload has {has} bytes; the next piece has to begin there")]
    NotNext {
        /// What was received, bytes.
        has: u64,
    },
    /// The content is another one than the digest says.
    #[error("the content has the digest {has}, not the one that was named")]
    OtherContent {
        /// The content's digest.
        has: Digest,
    },
    /// A manifest that is none.
    #[error("the manifest cannot be used: {0}")]
    Manifest(String),
    /// A manifest that refers to something that is not in the repository.
    #[error("the manifest refers to what is not in the repository: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Missing(Vec<Digest>),
    /// The registry holds as much as it may.
    #[error("the registry may hold {} GiB, and this does not fit any more", .limit >> 30)]
    Full {
        /// The most that it may hold, bytes.
        limit: u64,
    },
    /// The disk is nearly full.
    #[error("the disk of the stamp is nearly full")]
    DiskFull,
    /// The disk failed, or a file is damaged.
    #[error("cannot {act} {path}")]
    Io {
        /// The action, as an infinitive.
        act: &'static str,
        /// The file.
        path: String,
        /// The system's error.
        source: io::Error,
    },
}

/// Adds the action and the file to an error of the disk.
pub(crate) trait IoContext<T> {
    fn at(self, act: &'static str, path: &Path) -> Result<T, ImagesError>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn at(self, act: &'static str, path: &Path) -> Result<T, ImagesError> {
        self.map_err(|source| ImagesError::Io {
            act,
            path: path.display().to_string(),
            source,
        })
    }
}
