//! Damage in the store: quick detection, and removal of damaged parts so that the next build or import makes
//! them again.
//!
//! Always true: a layer in use by a running machine is never removed.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    builder, digest,
    error::{ImageError, IoContext as _},
    layer::{Layer, ROOTFS},
    lock::BuildLock,
    manifest::LayerRecord,
    progress::Silent,
    store::{ImageStore, NodeImage, SBOM},
    tree::Tree,
    verify::Difference,
};

/// The directory with the mounts of all processes.
pub(crate) const PROCESSES: &str = "/proc";

impl ImageStore {
    /// The paths of an image that are missing, or of another kind or size; see [`Self::verify`] for the rest.
    /// Reads no file, so it takes milliseconds where a verification takes seconds.
    ///
    /// # Errors
    /// [`ImageError::Io`] and [`ImageError::Damaged`] for a layer without a listing.
    pub fn glance(&self, image: &NodeImage) -> Result<Vec<Difference>, ImageError> {
        let mut differences = Vec::new();
        for record in &image.manifest.layers {
            let place = self.paths.layer(&record.id);
            let (layer, _) = Layer::read(&place)?;
            let found = layer.tree.glance(&place.join(ROOTFS));
            differences.extend(found.into_iter().map(|(path, what)| Difference {
                path: format!("{}:/{path}", record.name),
                what,
            }));
        }
        Ok(differences)
    }

    /// Removes the damaged parts of a version, so that [`Self::ensure`] or [`Self::import`] makes them again.
    /// Returns the removed paths.
    ///
    /// # Errors
    /// [`ImageError::InUse`] while a machine runs on it; then nothing is removed.
    pub fn discard(&self, version: &str) -> Result<Vec<PathBuf>, ImageError> {
        let paths = &self.paths;
        let _lock = BuildLock::take(&paths.lock, &Silent)?;
        let (mut images, mut layers) = (Vec::new(), Vec::new());
        for directory in self.directories(version)? {
            let Ok(Some(image)) = self.load(&directory) else {
                images.push(directory);
                continue;
            };
            let damaged = image
                .manifest
                .layers
                .iter()
                .filter(|record| is_damaged(&paths.layer(&record.id), record))
                .map(|record| paths.layer(&record.id));
            let before = layers.len();
            layers.extend(damaged);
            let sbom = fs::read(directory.join(SBOM)).map(|text| digest::of_bytes(&text));
            if layers.len() > before || sbom.ok().as_ref() != Some(&image.manifest.sbom) {
                images.push(directory);
            }
        }
        layers.sort();
        layers.dedup();
        for layer in &layers {
            unused(layer, Path::new(PROCESSES))?;
        }
        // Programs are in layers by hard link: one that is damaged there is damaged here too, and would be
        // used again.
        let programs = if layers.is_empty() {
            Vec::new()
        } else {
            damaged_programs(&paths.programs)?
        };
        let all: Vec<PathBuf> = [images, layers, programs].concat();
        fs::create_dir_all(&paths.scratch).at("create", &paths.scratch)?;
        for (number, place) in all.iter().enumerate() {
            // By a rename, so that no partial directory is ever visible.
            let away = paths.scratch.join(format!("damaged-{number}"));
            fs::rename(place, &away).at("take away", place)?;
        }
        builder::sweep(&paths.scratch)?;
        Ok(all)
    }
}

/// Whether the layer at `place` differs from its record and its listing.
pub(crate) fn is_damaged(place: &Path, record: &LayerRecord) -> bool {
    let Ok((layer, listing)) = Layer::read(place) else {
        return true;
    };
    listing != record.listing
        || !Tree::scan(&place.join(ROOTFS)).is_ok_and(|found| layer.tree.differences(&found).is_empty())
}

/// Fails while a running machine has the layer mounted.
pub(crate) fn unused(layer: &Path, processes: &Path) -> Result<(), ImageError> {
    let name = layer.display().to_string();
    for entry in fs::read_dir(processes).at("list", processes)?.flatten() {
        // Most entries are not processes, and a process may end meanwhile.
        let Ok(mounts) = fs::read_to_string(entry.path().join("mountinfo")) else {
            continue;
        };
        if mounts.contains(&name) {
            return Err(ImageError::InUse { layer: name });
        }
    }
    Ok(())
}

fn damaged_programs(programs: &Path) -> Result<Vec<PathBuf>, ImageError> {
    let entries = match fs::read_dir(programs) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.at("list", programs)?,
    };
    let mut damaged = Vec::new();
    for entry in entries {
        let directory = entry.at("list", programs)?.path();
        if !crate::program::is_whole(&directory) {
            damaged.push(directory);
        }
    }
    Ok(damaged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Source,
        fixture::{calls, store},
    };

    #[test]
    fn what_is_damaged_is_named_at_a_glance_taken_away_and_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let image = store.ensure("1.36.3", &Source::Modules, &Silent).unwrap();
        assert_eq!(store.glance(&image).unwrap(), []);
        assert_eq!(store.discard("1.36.3").unwrap(), [] as [PathBuf; 0]);
        let built = calls(dir.path()).len();

        let kubelet = image.layers[0].join("usr/local/bin/kubelet");
        fs::write(&kubelet, "cut").unwrap();
        let seen = store.glance(&image).unwrap();
        assert_eq!(seen.len(), 1);
        assert!(seen[0].path.ends_with(":/usr/local/bin/kubelet"), "{}", seen[0]);
        // The image, its layer, and the program in it.
        assert_eq!(store.discard("1.36.3").unwrap().len(), 3);
        assert!(store.find("1.36.3").unwrap().is_none());

        let again = store.ensure("1.36.3", &Source::Modules, &Silent).unwrap();
        assert_eq!(
            calls(dir.path()).len(),
            built + 1,
            "only the kubelet is built again"
        );
        assert!(store.verify("1.36.3").unwrap().differences.is_empty());
        assert_eq!(again.key, image.key);
    }

    #[test]
    fn an_import_mends_a_damaged_layer() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let image = store.ensure("1.36.3", &Source::Modules, &Silent).unwrap();
        let file = dir.path().join("export");
        store.export("1.36.3", &file).unwrap();
        let kubelet = image.layers[0].join("usr/local/bin/kubelet");
        fs::remove_file(&kubelet).unwrap();
        store.import(&file).unwrap();
        assert!(kubelet.is_file());
        assert!(store.verify("1.36.3").unwrap().differences.is_empty());
    }

    #[test]
    fn a_manifest_that_cannot_be_read_hides_one_image_only() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let image = store.ensure("1.36.3", &Source::Modules, &Silent).unwrap();
        fs::write(image.directory().join("manifest.json"), "{").unwrap();
        assert!(store.list().unwrap().is_empty());
        assert_eq!(store.discard("1.36.3").unwrap(), [image.directory()]);
        store.ensure("1.36.3", &Source::Modules, &Silent).unwrap();
        assert_eq!(store.list().unwrap().len(), 1);
    }

    #[test]
    fn a_layer_that_a_machine_runs_on_stays() {
        let processes = tempfile::tempdir().unwrap();
        let process = processes.path().join("7");
        fs::create_dir(&process).unwrap();
        fs::write(processes.path().join("version"), "").unwrap();
        fs::write(
            process.join("mountinfo"),
            "1 1 0:1 / / rw - overlay o rw,lowerdir=/c/a/rootfs:/c/b/rootfs\n",
        )
        .unwrap();
        assert!(unused(Path::new("/c/x"), processes.path()).is_ok());
        let error = unused(Path::new("/c/b"), processes.path())
            .unwrap_err()
            .to_string();
        assert!(error.contains("landfall down"), "{error}");
    }
}
