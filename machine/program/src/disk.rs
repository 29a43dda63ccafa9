//! Files, written whole or not at all.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

/// Something could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {act} {path}")]
pub struct DiskError {
    act: &'static str,
    path: String,
    #[source]
    source: std::io::Error,
}

/// For `map_err`: what was tried, and with which path.
pub fn failed(act: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> DiskError {
    let path = path.display().to_string();
    move |source| DiskError { act, path, source }
}

/// Writes a file whole or not at all, and durably.
///
/// # Errors
/// When the disk does not take it.
pub fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), DiskError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory).map_err(failed("create", directory))?;
    let beside = place(path, content, mode)?;
    fs::File::open(&beside)
        .and_then(|file| file.sync_all())
        .map_err(failed("write", &beside))?;
    fs::rename(&beside, path).map_err(failed("write", path))?;
    // The rename is durable when the directory is.
    fs::File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(failed("write", directory))
}

/// Writes a file whole or not at all, for those who read it now: a status, which means nothing after a power cut and is
/// not worth waiting for a disk.
///
/// # Errors
/// When the disk does not take it.
pub fn show(path: &Path, content: &[u8]) -> Result<(), DiskError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory).map_err(failed("create", directory))?;
    let beside = place(path, content, 0o644)?;
    fs::rename(&beside, path).map_err(failed("write", path))
}

fn place(path: &Path, content: &[u8], mode: u32) -> Result<std::path::PathBuf, DiskError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = path.with_file_name(name);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&beside)
        .map_err(failed("write", &beside))?;
    // The mode at creation is masked, and a left-over of a write that was cut short has its own.
    file.set_permissions(fs::Permissions::from_mode(mode))
        .map_err(failed("write", &beside))?;
    file.write_all(content).map_err(failed("write", &beside))?;
    Ok(beside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_cut_write_left_behind_is_no_hindrance() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b");
        write(&path, b"one", 0o600).unwrap();
        fs::write(directory.path().join("a/b.new"), "half of something longer").unwrap();
        write(&path, b"two", 0o640).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
        show(&path, b"3").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"3");
        let error = write(&path.join("under-a-file"), b"", 0o600).unwrap_err();
        assert!(error.to_string().contains("a/b"), "{error}");
    }
}
