//! Newer images of a Kubernetes version that there is one of already: with the packages that Debian has by now. And images that nothing needs
//! any more.

use std::{collections::BTreeSet, fs, path::Path};

use crate::{
    build::{self, Change},
    builder::{self, Build},
    error::{ImageError, IoContext as _},
    layer::Layer,
    lock::BuildLock,
    plan::Plan,
    progress::{Event, Progress, Silent},
    repair,
    source::Source,
    store::{ImageStore, NodeImage},
};

/// What came of looking for newer packages.
#[derive(Debug, Clone)]
pub struct Renewed {
    /// The newest image of the version.
    pub image: NodeImage,
    /// Whether it was made now.
    pub is_new: bool,
    /// What is other in it than in the newest one before.
    pub changes: Vec<Change>,
}

/// An image that was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// Kubernetes.
    pub version: String,
    /// Its build.
    pub build: String,
}

impl ImageStore {
    /// Makes an image of a version with the packages that Debian has today, where they are other than those of the newest image; one that is not
    /// there at all is made as with [`Self::ensure`]. The base system is installed for that, which takes about a minute; programs are
    /// taken from the store.
    ///
    /// # Errors
    /// As [`Self::ensure`].
    pub fn renew(
        &self,
        version: &str,
        source: &Source,
        progress: &dyn Progress,
    ) -> Result<Renewed, ImageError> {
        let same = |image: NodeImage| Renewed {
            image,
            is_new: false,
            changes: Vec::new(),
        };
        let Some(before) = self.current(version)? else {
            // One of an earlier release's pins, or none.
            let older = self.find(version)?;
            let image = self.build(version, source, progress)?;
            return Ok(Renewed {
                changes: older
                    .map_or_else(Vec::new, |older| build::changes(&older.manifest, &image.manifest)),
                image,
                is_new: true,
            });
        };
        let today = build::day(self.env.clock.now());
        let plan = Plan::of_day(
            &self.catalog,
            version,
            source,
            &self.tools,
            &self.paths,
            Some(&today),
        )?;
        let _lock = BuildLock::take(&self.paths.lock, progress)?;
        builder::sweep(&self.paths.scratch)?;
        let directory = self.paths.image(&plan.version, &plan.key);
        if let Some(image) = self.load(&directory)? {
            return Ok(same(image));
        }
        let estimate = plan.estimate(&self.catalog, &self.paths)?;
        progress.event(Event::Planned(&estimate));
        let work = Build::new(self, &plan, progress)?;
        work.preflight(estimate.disk_mb)?;
        work.base()?;
        let (base, _) = Layer::read(&self.paths.layer(&plan.base.id))?;
        if base.packages == before.manifest.packages {
            // What was installed is what there is: it goes again, unless another version's image of today has it.
            self.remove_layers()?;
            builder::sweep(&self.paths.scratch)?;
            return Ok(same(before));
        }
        work.layers()?;
        work.image(source, &directory)?;
        builder::sweep(&self.paths.scratch)?;
        let image = self.load(&directory)?.ok_or_else(|| ImageError::NotBuilt {
            version: plan.version.clone(),
        })?;
        Ok(Renewed {
            changes: build::changes(&before.manifest, &image.manifest),
            image,
            is_new: true,
        })
    }

    /// What differs between two images of a version, by their builds.
    ///
    /// # Errors
    /// [`ImageError::NoBuild`] for one that is not there.
    pub fn changes(&self, version: &str, from: &str, to: &str) -> Result<Vec<Change>, ImageError> {
        let image = |wanted: &str| {
            self.find_build(version, wanted)?
                .ok_or_else(|| ImageError::NoBuild {
                    version: version.to_owned(),
                    build: wanted.to_owned(),
                })
        };
        Ok(build::changes(&image(from)?.manifest, &image(to)?.manifest))
    }

    /// Removes the images that are older than the `least` newest of their version and of which `needed` does not say that they are, given
    /// version and build. One that a machine runs on stays.
    ///
    /// # Errors
    /// [`ImageError::Io`]; what was removed by then is.
    pub fn prune(
        &self,
        least: usize,
        needed: impl Fn(&str, &str) -> bool,
    ) -> Result<Vec<Removed>, ImageError> {
        let _lock = BuildLock::take(&self.paths.lock, &Silent)?;
        let mut removed = Vec::new();
        let images = self.list()?;
        let versions: BTreeSet<&String> = images.iter().map(|image| &image.version).collect();
        for version in versions {
            // The newest first.
            let own = images.iter().filter(|image| image.version == *version);
            for image in own.skip(least) {
                let build = image.build();
                if needed(version, &build) || self.runs(image) {
                    continue;
                }
                let away = self.paths.scratch.join(format!("removed-{version}-{build}"));
                fs::create_dir_all(&self.paths.scratch).at("create", &self.paths.scratch)?;
                fs::rename(image.directory(), &away).at("take away", image.directory())?;
                removed.push(Removed {
                    version: version.clone(),
                    build,
                });
            }
        }
        if !removed.is_empty() {
            self.remove_layers()?;
        }
        builder::sweep(&self.paths.scratch)?;
        Ok(removed)
    }

    /// Whether a machine of this host runs on a layer that is this image's alone.
    fn runs(&self, image: &NodeImage) -> bool {
        let others = self.list().unwrap_or_default();
        let shared: BTreeSet<String> = others
            .into_iter()
            .filter(|other| other.key != image.key)
            .flat_map(|other| other.manifest.layers)
            .map(|layer| layer.id)
            .collect();
        let mut own = image
            .manifest
            .layers
            .iter()
            .filter(|layer| !shared.contains(&layer.id));
        own.any(|layer| repair::unused(&self.paths.layer(&layer.id), Path::new(repair::PROCESSES)).is_err())
    }

    /// Removes the layers that no image has. For the holder of the lock: a build that goes on has none either. One that a machine runs on stays.
    fn remove_layers(&self) -> Result<(), ImageError> {
        let mut kept = BTreeSet::new();
        for image in self.list()? {
            kept.extend(image.manifest.layers.into_iter().map(|layer| layer.id));
        }
        fs::create_dir_all(&self.paths.scratch).at("create", &self.paths.scratch)?;
        for entry in fs::read_dir(&self.paths.layers).at("list", &self.paths.layers)? {
            let entry = entry.at("list", &self.paths.layers)?;
            let Ok(id) = entry.file_name().into_string() else {
                continue;
            };
            let place = entry.path();
            let free = !kept.contains(&id);
            if free && repair::unused(&place, Path::new(repair::PROCESSES)).is_ok() {
                let away = self.paths.scratch.join(format!("layer-{id}"));
                fs::rename(&place, &away).at("take away", &place)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{calls, debian_has, store_at};

    #[test]
    fn newer_packages_make_a_newer_image_and_the_older_one_stays() {
        let dir = tempfile::tempdir().unwrap();
        let first = store_at(dir.path(), "2026-11-28T10:00:00Z");
        let before = first.ensure("1.36.3", &Source::Modules, &Silent).unwrap();
        assert_eq!(before.build(), "2026.11.28");
        assert!(before.manifest.build.is_some());

        // A week later nothing is new: nothing is kept of the attempt.
        let later = store_at(dir.path(), "2026-12-05T10:00:00Z");
        let layers = || {
            fs::read_dir(dir.path().join("node-images/layers"))
                .unwrap()
                .count()
        };
        let had = layers();
        let built = calls(dir.path()).len();
        let same = later.renew("1.36.3", &Source::Modules, &Silent).unwrap();
        assert!(!same.is_new && same.changes.is_empty());
        assert_eq!(same.image.key, before.key);
        assert_eq!(layers(), had);
        assert_eq!(
            calls(dir.path()).len(),
            built + 1,
            "only the base system is looked at"
        );

        debian_has(dir.path(), "1.1.6");
        let newer = later.renew("1.36", &Source::Modules, &Silent).unwrap();
        assert!(newer.is_new);
        assert_eq!(newer.image.build(), "2026.12.05");
        let told: Vec<String> = newer.changes.iter().map(ToString::to_string).collect();
        assert_eq!(told, ["runc 1.1.5 → 1.1.6"]);
        assert_eq!(
            later.changes("1.36.3", "2026.11.28", "2026.12.05").unwrap(),
            newer.changes
        );
        let error = later.changes("1.36.3", "2026.11.28", "2027.01.01").unwrap_err();
        assert!(error.to_string().contains("2027.01.01"), "{error}");

        // Both are there; the newest is what a version means, and each is found by its build.
        assert_eq!(later.list().unwrap().len(), 2);
        assert_eq!(later.find("1.36.3").unwrap().unwrap().build(), "2026.12.05");
        let found = later.find_build("1.36.3", "2026.11.28").unwrap().unwrap();
        assert_eq!(found.key, before.key);
        assert_eq!(found.layers[0], newer.image.layers[0], "programs are there once");
        assert!(later.find_build("1.36.3", "2025.01.01").unwrap().is_none());
        assert!(later.verify("1.36.3").unwrap().differences.is_empty());

        // Again on the same day: it is there.
        let again = later.renew("1.36.3", &Source::Modules, &Silent).unwrap();
        assert!(!again.is_new);
        assert_eq!(again.image.key, newer.image.key);
    }

    #[test]
    fn what_nothing_needs_goes_with_its_layers() {
        let dir = tempfile::tempdir().unwrap();
        let mut builds = Vec::new();
        for (number, day) in ["2026-11-28", "2026-12-05", "2026-12-12", "2026-12-19"]
            .iter()
            .enumerate()
        {
            debian_has(dir.path(), &format!("1.1.{number}"));
            let store = store_at(dir.path(), &format!("{day}T10:00:00Z"));
            let made = store.renew("1.36.3", &Source::Modules, &Silent).unwrap();
            assert!(made.is_new);
            builds.push(made.image.build());
        }
        let store = store_at(dir.path(), "2026-12-19T11:00:00Z");
        let removed = store.prune(2, |_, build| build == "2026.11.28").unwrap();
        let removed: Vec<_> = removed.into_iter().map(|removed| removed.build).collect();
        assert_eq!(removed, ["2026.12.05"]);
        let left: Vec<_> = store.list().unwrap().iter().map(NodeImage::build).collect();
        assert_eq!(left, ["2026.12.19", "2026.12.12", "2026.11.28"]);
        for image in store.list().unwrap() {
            assert_eq!(store.glance(&image).unwrap(), [], "{}", image.build());
        }
        // Three bases, three common layers, the programs of one version.
        let layers = fs::read_dir(dir.path().join("node-images/layers")).unwrap();
        assert_eq!(layers.count(), 7);
        assert_eq!(store.prune(2, |_, build| build == "2026.11.28").unwrap(), []);
        assert_eq!(builds.len(), 4);
    }

    #[test]
    fn a_second_image_of_a_day_gets_a_number() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        debian_has(there.path(), "2.0");
        let other = store_at(there.path(), "2026-11-28T09:00:00Z");
        other.ensure("1.36.3", &Source::Modules, &Silent).unwrap();
        let file = there.path().join("export");
        // Of the same pins, with other packages: the same key, so the day makes it another one.
        debian_has(there.path(), "2.1");
        let other = store_at(there.path(), "2026-11-29T09:00:00Z");
        let exported = other.renew("1.36.3", &Source::Modules, &Silent).unwrap().image;
        other.export("1.36.3", &file).unwrap();
        let store = store_at(here.path(), "2026-11-29T10:00:00Z");
        store.ensure("1.36.3", &Source::Modules, &Silent).unwrap();
        let imported = store.import(&file).unwrap();
        assert_eq!(imported.key, exported.key);
        assert_eq!(imported.build(), "2026.11.29.1");
        assert_eq!(store.import(&file).unwrap().build(), "2026.11.29.1", "again");
    }
}
