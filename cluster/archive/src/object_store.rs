//! The object store: names to bytes, whole or not at all.

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Write},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// Stores files by name; names are paths like `{cluster}/{file}`.
pub trait ObjectStore: Send + Sync + 'static {
    /// Stores the output of `fill`, durably, if `fill` succeeds; nothing otherwise. A file of that name is
    /// replaced.
    ///
    /// # Errors
    /// Those of `fill`, and of the storage.
    fn put(&self, name: &str, fill: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>) -> io::Result<()>;
    /// Opens a file.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when it does not exist; those of the storage.
    fn get(&self, name: &str) -> io::Result<Box<dyn Read + Send>>;
    /// Names of all files in a folder with their sizes; `None`: the names of the folders.
    ///
    /// # Errors
    /// Those of the storage.
    fn list(&self, folder: Option<&str>) -> io::Result<Vec<(String, u64)>>;
    /// Removes a file, if it exists.
    ///
    /// # Errors
    /// Those of the storage.
    fn delete(&self, name: &str) -> io::Result<()>;
    /// Removes a folder with its content.
    ///
    /// # Errors
    /// Those of the storage.
    fn delete_folder(&self, folder: &str) -> io::Result<()>;
}

/// A directory, on this host or mounted.
pub struct DirectoryStore {
    root: PathBuf,
    writes: AtomicU64,
}

/// The name prefix of files that are being written.
const UNFINISHED: &str = ".new-";

impl DirectoryStore {
    /// Creates it if needed, accessible to its owner only. Half-written files are removed when their folder
    /// is next listed.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn open(root: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(root)?;
        Ok(Self {
            root: root.to_owned(),
            writes: AtomicU64::new(0),
        })
    }
}

impl ObjectStore for DirectoryStore {
    fn put(&self, name: &str, fill: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        let path = self.root.join(name);
        let folder = path.parent().unwrap_or(&self.root);
        if !folder.is_dir() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            File::open(&self.root)?.sync_all()?;
        }
        let number = self.writes.fetch_add(1, Ordering::Relaxed);
        let beside = folder.join(format!("{UNFINISHED}{}-{number}", std::process::id()));
        let written = (|| {
            let file = fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&beside)?;
            let mut buffered = BufWriter::with_capacity(128 * 1024, file);
            fill(&mut buffered)?;
            let file = buffered.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.sync_data()?;
            fs::rename(&beside, &path)?;
            File::open(folder)?.sync_all()
        })();
        if written.is_err() {
            let _gone = fs::remove_file(&beside);
        }
        written
    }

    fn get(&self, name: &str) -> io::Result<Box<dyn Read + Send>> {
        let file = File::open(self.root.join(name))?;
        Ok(Box::new(BufReader::with_capacity(128 * 1024, file)))
    }

    fn list(&self, folder: Option<&str>) -> io::Result<Vec<(String, u64)>> {
        let path = folder.map_or_else(|| self.root.clone(), |folder| self.root.join(folder));
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let own = format!("{UNFINISHED}{}-", std::process::id());
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            // Removed meanwhile: not listed.
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() != folder.is_none() {
                continue;
            }
            if name.starts_with(UNFINISHED) {
                // Left by another process, which has ended: a stamp has one service.
                if !name.starts_with(&own) {
                    let _gone = fs::remove_file(entry.path());
                }
                continue;
            }
            found.push((name, metadata.len()));
        }
        found.sort();
        Ok(found)
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.root.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn delete_folder(&self, folder: &str) -> io::Result<()> {
        match fs::remove_dir_all(self.root.join(folder)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(objects: &DirectoryStore, name: &str, text: &str) -> io::Result<()> {
        objects.put(name, &mut |out| out.write_all(text.as_bytes()))
    }

    #[test]
    fn files_are_there_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let objects = DirectoryStore::open(&directory.path().join("a/b")).unwrap();
        put(&objects, "c/1", "one").unwrap();
        let failed = objects.put("c/1", &mut |out| {
            out.write_all(b"half")?;
            Err(io::Error::other("it broke off"))
        });
        assert!(failed.is_err());
        let mut text = String::new();
        objects.get("c/1").unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "one");
        assert_eq!(objects.list(Some("c")).unwrap(), [("1".to_owned(), 3)]);
        assert_eq!(objects.list(None).unwrap()[0].0, "c");
        assert!(objects.list(Some("none")).unwrap().is_empty());
        objects.delete("c/1").unwrap();
        objects.delete("c/1").unwrap();
        assert_eq!(objects.get("c/1").err().unwrap().kind(), io::ErrorKind::NotFound);
        objects.delete_folder("c").unwrap();
        assert!(objects.list(None).unwrap().is_empty());
    }

    #[test]
    fn what_a_crash_left_half_written_goes() {
        let directory = tempfile::tempdir().unwrap();
        let objects = DirectoryStore::open(directory.path()).unwrap();
        put(&objects, "c/1", "one").unwrap();
        let left = directory.path().join("c/.new-0-7");
        fs::write(&left, "half").unwrap();
        assert_eq!(objects.list(Some("c")).unwrap().len(), 1);
        assert!(!left.exists());
    }
}
