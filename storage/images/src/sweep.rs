//! Removes what nothing refers to any more, while images are pushed and pulled.
//!
//! Marks first, then removes what was not marked and is old enough, one file at a time: who pushes holds the turn while a
//! manifest is written, and marks all that it refers to as new.

use std::{collections::BTreeSet, fs, io, path::Path, time::SystemTime};

use jiff::Timestamp;

use crate::{Digest, GUARD, ImagesError, Registry, blobs::remove, error::IoContext as _, names_in};

/// What a sweep has removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Blobs.
    pub blobs: u64,
    /// Uploads that were not continued.
    pub uploads: u64,
    /// The bytes of both.
    pub bytes: u64,
}

/// The size of a file that nobody has sent or asked for since `before`; `None` if somebody has, or it is gone.
fn old(path: &Path, before: SystemTime) -> Result<Option<u64>, ImagesError> {
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.at("look at", path)?,
    };
    let modified = metadata.modified().at("look at", path)?;
    Ok((modified < before).then_some(metadata.len()))
}

impl Registry {
    /// Removes blobs that no manifest refers to, and uploads that were not continued, both after [`GUARD`].
    ///
    /// # Errors
    /// When files cannot be listed or removed. Then nothing that is needed was removed, and the next sweep goes on.
    pub fn sweep(&self, now: Timestamp) -> Result<Swept, ImagesError> {
        let mut swept = Swept::default();
        let Some(before) = SystemTime::from(now).checked_sub(GUARD) else {
            return Ok(swept);
        };
        let mut needed = BTreeSet::new();
        for repository in self.all_repositories()? {
            let (manifests, others) = self.needed(&repository)?;
            let others: BTreeSet<String> = others.into_iter().collect();
            let layers = self.repository_dir(&repository).join("layers");
            for hex in names_in(&layers)? {
                let path = layers.join(&hex);
                if others.contains(&hex) || old(&path, before)?.is_none() {
                    continue;
                }
                let _turn = self.turn();
                // A manifest may have come since: then its blobs are new.
                let blob = Digest::of_hex(&hex).map(|digest| self.blob_path(&digest));
                let is_new = match blob.filter(|blob| blob.is_file()) {
                    Some(blob) => old(&blob, before)?.is_none(),
                    None => false,
                };
                if !is_new && old(&path, before)?.is_some() {
                    remove(&path)?;
                }
            }
            needed.extend(manifests);
            needed.extend(others);
        }
        for (path, _) in self.blob_files()? {
            let name = path.file_name().and_then(|name| name.to_str());
            if name.is_none_or(|name| needed.contains(name)) {
                continue;
            }
            let _turn = self.turn();
            if let Some(size) = old(&path, before)?
                && remove(&path)?
            {
                self.give(size);
                swept.blobs += 1;
                swept.bytes += size;
            }
        }
        for (path, _) in self.upload_files()? {
            let _turn = self.turn();
            if let Some(size) = old(&path, before)?
                && remove(&path)?
            {
                self.give(size);
                swept.uploads += 1;
                swept.bytes += size;
            }
        }
        Ok(swept)
    }
}
