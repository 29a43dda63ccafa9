//! Small files and directories, with errors that name them.

use std::{
    fs,
    io::{self, ErrorKind},
    path::Path,
};

use fabric_api::FabricError;

/// Writes durably; mode 0600.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<(), FabricError> {
    base_files::write(path, content, 0o600)
        .map_err(|error| FabricError::failed(format!("write {}", path.display()), error))
}

/// Writes a file that is rewritten at each start; mode 0600.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<(), FabricError> {
    base_files::replace(path, content, 0o600)
        .map_err(|error| FabricError::failed(format!("write {}", path.display()), error))
}

/// Creates a directory and its parents, mode 0700; it may already exist.
pub(crate) fn make_dir(path: &Path) -> Result<(), FabricError> {
    base_files::make_directories(path, 0o700)
        .map_err(|error| FabricError::failed(format!("make the directory {}", path.display()), error))
}

/// Reads a file; `None` when it is not there.
pub(crate) fn read(path: &Path) -> Result<Option<String>, FabricError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FabricError::failed(format!("read {}", path.display()), error)),
    }
}

/// Renames within a filesystem, durably on both sides.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), FabricError> {
    let parents = [from.parent(), to.parent()];
    fs::rename(from, to)
        .and_then(|()| parents.into_iter().flatten().try_for_each(base_files::sync))
        .map_err(|error| FabricError::failed(format!("rename {} to {}", from.display(), to.display()), error))
}

/// Removes a file or an empty directory; it may be gone already.
pub(crate) fn remove(path: &Path) -> Result<(), FabricError> {
    gone(fs::remove_file(path), path)
}

/// Removes a directory with its content; it may be gone already.
pub(crate) fn remove_tree(path: &Path) -> Result<(), FabricError> {
    gone(fs::remove_dir_all(path), path)
}

/// Removes a directory if it is empty.
pub(crate) fn remove_if_empty(path: &Path) -> Result<(), FabricError> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => Ok(()),
        other => gone(other, path),
    }
}

fn gone(result: io::Result<()>, path: &Path) -> Result<(), FabricError> {
    match result {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(FabricError::failed(format!("remove {}", path.display()), error))
        }
        _ => Ok(()),
    }
}

/// The names in a directory, sorted; none if it does not exist.
pub(crate) fn names_in(path: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut names = entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<Vec<_>>>()?;
    names.sort_unstable();
    Ok(names)
}
