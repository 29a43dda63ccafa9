//! Images of add-ons, which agents bring onto their nodes.

use std::{io, path::PathBuf};

/// The archive of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageArchive {
    /// The file, in the OCI layout.
    pub path: PathBuf,
    /// The digest under which containerd knows the image.
    pub digest: String,
}

/// The images of add-ons of this host.
pub trait AddonImages: Send + Sync + 'static {
    /// The archive of an image; `None`: it is not built, or of another version. Reads files: may block.
    ///
    /// # Errors
    /// The images cannot be read.
    fn archive(&self, name: &str, tag: &str) -> io::Result<Option<ImageArchive>>;
}
