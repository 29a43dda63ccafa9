//! Checks free disk space before a build starts, because a full disk in the middle wastes the work.

use std::path::Path;

use crate::error::{ImageError, IoContext as _};

/// Fails when `directory` (or the nearest existing parent) has less than `needed_mb` for this user.
pub(crate) fn check(directory: &Path, needed_mb: u64, variable: &'static str) -> Result<(), ImageError> {
    let free_mb = free_mb(directory)?;
    if free_mb >= needed_mb {
        return Ok(());
    }
    Err(ImageError::Space {
        directory: directory.display().to_string(),
        free_mb,
        needed_mb,
        variable,
    })
}

/// Megabytes available to this user.
pub(crate) fn free_mb(directory: &Path) -> Result<u64, ImageError> {
    let there = directory
        .ancestors()
        .find(|path| path.exists())
        .unwrap_or(Path::new("/"));
    let stat = rustix::fs::statvfs(there)
        .map_err(std::io::Error::from)
        .at("look at the disk of", there)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize) / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_space_is_one_clear_sentence() {
        let dir = tempfile::tempdir().unwrap();
        check(&dir.path().join("not/there/yet"), 1, "LANDFALL_CACHE_DIR").unwrap();
        let error = check(dir.path(), u64::MAX, "LANDFALL_CACHE_DIR")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("MB free and about 18446744073709551615 MB are needed"),
            "{error}"
        );
        assert!(error.contains("LANDFALL_CACHE_DIR"), "{error}");
    }
}
