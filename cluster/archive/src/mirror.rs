//! A copy of one object store in another, brought up to date in rounds: sealed as it is, so the copy is read with the same keys. When another
//! of the stamp's keys seals, the copy's keys of folders are sealed anew as well, in the next round.
//!
//! Always true: an object store that was lost or began anew takes nothing away from its copy. A folder goes from the copy only when it went
//! from the object store before our eyes, and one with another key is not touched.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
};

use base_sealer::Sealer;

use crate::{
    ObjectStore,
    folder_key::{self, KEY},
};

/// From one object store to another.
pub struct Mirror {
    from: Arc<dyn ObjectStore>,
    to: Arc<dyn ObjectStore>,
    stamp: Arc<Sealer>,
    /// The stamp's key that the copy's keys are sealed with, as far as they are of this stamp.
    sealed_with: Option<String>,
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
    /// Nothing is done yet. `stamp` has the keys that folders' keys are sealed with.
    pub fn new(from: Arc<dyn ObjectStore>, to: Arc<dyn ObjectStore>, stamp: Arc<Sealer>) -> Self {
        Self {
            from,
            to,
            stamp,
            sealed_with: None,
            has: BTreeMap::new(),
            seen: BTreeSet::new(),
            looked: false,
        }
    }

    /// One of the same that knows nothing yet.
    pub fn anew(&self) -> Self {
        Self::new(
            Arc::clone(&self.from),
            Arc::clone(&self.to),
            Arc::clone(&self.stamp),
        )
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
        self.seal_anew()?;
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
                if name == KEY {
                    // Where it came from, it may be sealed anew only later.
                    folder_key::sealed_with(&*self.to, &self.stamp, folder, true)?;
                }
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

    /// Seals the copy's keys with the stamp's key that seals, once for each such key. A stamp that has one key has none that is sealed otherwise.
    fn seal_anew(&mut self) -> io::Result<()> {
        let seals = self.stamp.current();
        if self.sealed_with.as_ref() == Some(&seals) {
            return Ok(());
        }
        if self.stamp.keys().len() > 1 {
            for (folder, names) in &self.has {
                if names.contains(KEY) {
                    folder_key::sealed_with(&*self.to, &self.stamp, folder, true)?;
                }
            }
        }
        self.sealed_with = Some(seals);
        Ok(())
    }

    /// What was sealed with another key is of another time: nothing of it may be lost, and nothing of both mixed. The same key may be sealed
    /// with another of the stamp's.
    fn check(&self, folder: &str) -> io::Result<()> {
        let own = folder_key::read(&*self.from, folder)?;
        let (Some(own), Some(copied)) = (own, folder_key::read(&*self.to, folder)?) else {
            return Ok(());
        };
        let unsealed = |sealed: &[u8]| self.stamp.unseal(&folder_key::path(folder), sealed).ok();
        let is_same = own == copied
            || match (unsealed(&own), unsealed(&copied)) {
                (Some(own), Some(copied)) => own == copied,
                _ => false,
            };
        if is_same {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "the copy of {folder} is sealed with another key: it is from before these backups began anew; move it away"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DirectoryStore;

    fn objects(root: &std::path::Path) -> Arc<DirectoryStore> {
        Arc::new(DirectoryStore::open(root).unwrap())
    }

    fn stamp() -> Arc<Sealer> {
        Arc::new(Sealer::from_key(&[7; 32]))
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
        let mut mirror = Mirror::new(from.clone(), to.clone(), stamp());
        let done = |copied, removed| Mirrored { copied, removed };
        assert_eq!(mirror.round().unwrap(), done(3, 0));
        assert_eq!(mirror.round().unwrap(), done(0, 0));
        from.delete_folder("b").unwrap();
        assert_eq!(mirror.round().unwrap(), done(0, 1));
        from.delete("a/1").unwrap();
        put(&from, "a/3");
        // Another process, which does not know what is there.
        let mut mirror = Mirror::new(from, to.clone(), stamp());
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
        io::Read::read_to_string(&mut to.get("a/3").unwrap(), &mut text).unwrap();
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
        let mut mirror = Mirror::new(from.clone(), to.clone(), stamp());
        assert_eq!(mirror.round().unwrap(), Mirrored::default());
        put(&from, "b/key");
        put(&from, "b/2");
        let refused = mirror.round().unwrap_err().to_string();
        assert!(refused.contains("another key"), "{refused}");
        assert_eq!(to.list(Some("a")).unwrap().len(), 1);
        assert_eq!(to.list(Some("b")).unwrap().len(), 2);
    }

    /// The keys that folders' keys are sealed with.
    fn sealed_with(objects: &DirectoryStore, stamp: &Sealer) -> Vec<Option<String>> {
        ["a", "b"]
            .map(|folder| folder_key::sealed_with(objects, stamp, folder, false).unwrap())
            .into()
    }

    #[test]
    fn keys_are_sealed_anew_in_the_copy_too_and_are_the_same_still() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (
            objects(&directory.path().join("from")),
            objects(&directory.path().join("to")),
        );
        let stamp = stamp();
        let first = stamp.current();
        for folder in ["a", "b"] {
            let sealed = stamp.seal(&folder_key::path(folder), folder.as_bytes()).unwrap();
            from.put(&folder_key::path(folder), &mut |out| out.write_all(&sealed))
                .unwrap();
        }
        let mut mirror = Mirror::new(from.clone(), to.clone(), Arc::clone(&stamp));
        mirror.round().unwrap();
        let second = stamp.rotate(jiff::Timestamp::UNIX_EPOCH).unwrap();
        let all = |id: &String| vec![Some(id.clone()), Some(id.clone())];
        assert_eq!(sealed_with(&to, &stamp), all(&first));
        assert_eq!(mirror.round().unwrap(), Mirrored::default());
        assert_eq!(
            (sealed_with(&from, &stamp), sealed_with(&to, &stamp)),
            (all(&first), all(&second))
        );
        // Another process finds the same keys in both, each sealed with another of the stamp's.
        let mut mirror = mirror.anew();
        mirror.round().unwrap();
        // A folder that comes now, with a key that was sealed before.
        from.delete_folder("b").unwrap();
        mirror.round().unwrap();
        to.delete_folder("a").unwrap();
        let mut mirror = mirror.anew();
        mirror.round().unwrap();
        assert_eq!(sealed_with(&to, &stamp), [Some(second), None]);
    }
}
