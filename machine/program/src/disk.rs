//! Files of a machine, written atomically ([`base_files`]), with errors that name them.

use std::path::Path;

/// A failure to read or write a file.
#[derive(Debug, thiserror::Error)]
#[error("cannot {act} {path}")]
pub struct DiskError {
    act: &'static str,
    path: String,
    #[source]
    source: std::io::Error,
}

/// For `map_err`: names the action and the path.
pub fn failed(act: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> DiskError {
    let path = path.display().to_string();
    move |source| DiskError { act, path, source }
}

/// Writes a file durably; makes the directories above it.
///
/// # Errors
/// When the disk refuses.
pub fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), DiskError> {
    make_parent(path)?;
    base_files::write(path, content, mode).map_err(failed("write", path))
}

/// Writes a status file, which is meaningless after a power cut, so without waiting for the disk. Makes the
/// directories above it.
///
/// # Errors
/// When the disk refuses.
pub fn show(path: &Path, content: &[u8]) -> Result<(), DiskError> {
    make_parent(path)?;
    base_files::replace(path, content, 0o644).map_err(failed("write", path))
}

fn make_parent(path: &Path) -> Result<(), DiskError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    base_files::make_directories(directory, 0o755).map_err(failed("create", directory))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn directories_are_made_and_errors_name_the_path() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b");
        write(&path, b"one", 0o640).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
        show(&path, b"3").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"3");
        let error = write(&path.join("under-a-file"), b"", 0o600).unwrap_err();
        assert!(error.to_string().contains("a/b"), "{error}");
    }
}
