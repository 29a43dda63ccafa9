//! A copy of one object store in another, brought up to date in rounds: sealed as it is, so the copy is read with the same keys.
//!
//! Always true: an object store that was lost or began anew takes nothing away from its copy. A folder goes from the copy only when it went
//! from the object store before our eyes, and one with another key is not touched.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read as _},
    sync::Arc,
};

use crate::{ObjectStore, archive::KEY};

/// From one object store to another.
pub struct Mirror {
    from: Arc<dyn ObjectStore>,
    to: Arc<dyn ObjectStore>,
    /// What the copy is known to have, by folder. Nobody else writes there.
    has: BTreeMap<String, BTreeSet<String>>,
    /// Folders that were seen on the object store, and that have the same key in the copy.
    seen: BTreeSet<String>,
    looked: bool,
}

/// What a round did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mirrored {
    /// Files that were copied.
    pub copied: usize,
    /// Files that are no more.
    pub removed: usize,
}

impl Mirror {
    /// Nothing is done yet.
    pub fn new(from: Arc<dyn ObjectStore>, to: Arc<dyn ObjectStore>) -> Self {
        Self {
            from,
            to,
            has: BTreeMap::new(),
            seen: BTreeSet::new(),
            looked: false,
        }
    }

    /// One of the same that knows nothing yet.
    pub fn anew(&self) -> Self {
        Self::new(Arc::clone(&self.from), Arc::clone(&self.to))
    }

    /// Copies what is new, removes what is gone. What was done stays done when something fails; the next round goes on.
    ///
    /// # Errors
    /// Those of the two object stores.
    pub fn round(&mut self) -> io::Result<Mirrored> {
        let mut done = Mirrored::default();
        if !self.looked {
            for (folder, _) in self.to.list(None)? {
                let names = self.to.list(Some(&folder))?;
                self.has
                    .insert(folder, names.into_iter().map(|(name, _)| name).collect());
            }
            self.looked = true;
        }
        let folders: Vec<String> = self.from.list(None)?.into_iter().map(|(name, _)| name).collect();
        for folder in &folders {
            let wanted: BTreeSet<String> = self
                .from
                .list(Some(folder))?
                .into_iter()
                .map(|(name, _)| name)
                .collect();
            if !self.seen.contains(folder) {
                self.check(folder)?;
                self.seen.insert(folder.clone());
            }
            let has = self.has.entry(folder.clone()).or_default();
            for name in &wanted {
                if has.contains(name) {
                    continue;
                }
                let path = format!("{folder}/{name}");
                let mut source = match self.from.get(&path) {
                    Ok(source) => source,
                    // Merged or expired meanwhile: the next round sees what took its place.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                };
                self.to
                    .put(&path, &mut |out| io::copy(&mut source, out).map(drop))?;
                has.insert(name.clone());
                done.copied += 1;
            }
            // After what takes their place is there.
            let gone: Vec<String> = has.difference(&wanted).cloned().collect();
            for name in gone {
                self.to.delete(&format!("{folder}/{name}"))?;
                has.remove(&name);
                done.removed += 1;
            }
        }
        let gone: Vec<String> = self
            .has
            .keys()
            .filter(|folder| self.seen.contains(*folder) && !folders.contains(folder))
            .cloned()
            .collect();
        for folder in gone {
            self.to.delete_folder(&folder)?;
            self.seen.remove(&folder);
            done.removed += self.has.remove(&folder).map_or(0, |names| names.len());
        }
        Ok(done)
    }

    /// What was sealed with another key is of another time: nothing of it may be lost, and nothing of both mixed.
    fn check(&self, folder: &str) -> io::Result<()> {
        let path = format!("{folder}/{KEY}");
        let read = |objects: &dyn ObjectStore| -> io::Result<Option<Vec<u8>>> {
            match objects.get(&path) {
                Ok(mut file) => {
                    let mut bytes = Vec::new();
                    file.read_to_end(&mut bytes).map(|_| Some(bytes))
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            }
        };
        match (read(&*self.from)?, read(&*self.to)?) {
            (Some(own), Some(copied)) if own != copied => Err(io::Error::other(format!(
                "the copy of {folder} is sealed with another key: it is from before these backups began anew; move it away"
            ))),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DirectoryStore;

    fn objects(root: &std::path::Path) -> Arc<DirectoryStore> {
        Arc::new(DirectoryStore::open(root).unwrap())
    }

    fn put(objects: &DirectoryStore, name: &str) {
        objects
            .put(name, &mut |out| out.write_all(name.as_bytes()))
            .unwrap();
    }

    #[test]
    fn the_copy_follows() {
        let directory = tempfile::tempdir().unwrap();
        let from = objects(&directory.path().join("from"));
        let to = objects(&directory.path().join("to"));
        put(&from, "a/1");
        put(&from, "a/2");
        put(&from, "b/1");
        let mut mirror = Mirror::new(from.clone(), to.clone());
        let done = |copied, removed| Mirrored { copied, removed };
        assert_eq!(mirror.round().unwrap(), done(3, 0));
        assert_eq!(mirror.round().unwrap(), done(0, 0));
        from.delete_folder("b").unwrap();
        assert_eq!(mirror.round().unwrap(), done(0, 1));
        from.delete("a/1").unwrap();
        put(&from, "a/3");
        // Another process, which does not know what is there.
        let mut mirror = Mirror::new(from, to.clone());
        assert_eq!(mirror.round().unwrap(), done(1, 1));
        let names: Vec<String> = to
            .list(Some("a"))
            .unwrap()
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names, ["2", "3"]);
        assert!(to.list(Some("b")).unwrap().is_empty());
        let mut text = String::new();
        to.get("a/3").unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "a/3");
    }

    #[test]
    fn a_store_that_began_anew_takes_nothing_from_its_copy() {
        let directory = tempfile::tempdir().unwrap();
        let to = objects(&directory.path().join("to"));
        put(&to, "a/1");
        put(&to, "b/1");
        to.put("b/key", &mut |out| out.write_all(b"of before")).unwrap();
        let from = objects(&directory.path().join("from"));
        let mut mirror = Mirror::new(from.clone(), to.clone());
        assert_eq!(mirror.round().unwrap(), Mirrored::default());
        put(&from, "b/key");
        put(&from, "b/2");
        let refused = mirror.round().unwrap_err().to_string();
        assert!(refused.contains("another key"), "{refused}");
        assert_eq!(to.list(Some("a")).unwrap().len(), 1);
        assert_eq!(to.list(Some("b")).unwrap().len(), 2);
    }
}
