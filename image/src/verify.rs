//! Checks all digests of an image again.

use std::{collections::BTreeMap, fs, path::Path};

use crate::{
    digest,
    error::{ImageError, IoContext as _},
    layer::{LISTING, Layer, ROOTFS},
    manifest::Manifest,
    store::{ImageStore, SBOM},
    tree::{Content, Tree},
};

/// The result of a verification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    /// Kubernetes, like `1.36.3`.
    pub version: String,
    /// The key of the image.
    pub key: String,
    /// Number of compared paths.
    pub paths: u64,
    /// Number of digested bytes.
    pub bytes: u64,
    /// Empty when the image is unchanged since its build.
    pub differences: Vec<Difference>,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Path of the file on this host, or inside the layer when it starts with a layer's name and a colon.
    pub path: String,
    /// The problem, to be read after the path.
    pub what: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.path, self.what)
    }
}

impl ImageStore {
    /// Recomputes every digest of the image of a version.
    ///
    /// # Errors
    /// [`ImageError::NotBuilt`]; differences are not errors, they are in the answer.
    pub fn verify(&self, version: &str) -> Result<Verification, ImageError> {
        let image = self.find(version)?.ok_or_else(|| ImageError::NotBuilt {
            version: version.to_owned(),
        })?;
        let mut result = Verification {
            version: image.version.clone(),
            key: image.key.clone(),
            paths: 0,
            bytes: 0,
            differences: Vec::new(),
        };
        compare(
            &image.manifest,
            image.directory(),
            |id| self.paths.layer(id),
            &mut result,
        )?;
        Ok(result)
    }
}

/// Compares the layers at the paths given by `layer` with the manifest.
pub(crate) fn compare(
    manifest: &Manifest,
    directory: &Path,
    layer: impl Fn(&str) -> std::path::PathBuf,
    result: &mut Verification,
) -> Result<(), ImageError> {
    let sbom = directory.join(SBOM);
    let found = digest::of_bytes(&fs::read(&sbom).at("read", &sbom)?);
    if found != manifest.sbom {
        result.differ(
            sbom.display().to_string(),
            format!("has SHA-256 {found} and should have {}", manifest.sbom),
        );
    }
    let mut files = BTreeMap::new();
    for record in &manifest.layers {
        let place = layer(&record.id);
        let (listing, digest) = match Layer::read(&place) {
            Ok(read) => read,
            Err(ImageError::Damaged { path, detail, .. }) => {
                result.differ(path, format!("is damaged: {detail}"));
                continue;
            }
            Err(error) => return Err(error),
        };
        if digest != record.listing {
            let path = place.join(LISTING).display().to_string();
            result.differ(
                path,
                format!("has SHA-256 {digest} and should have {}", record.listing),
            );
        }
        let tree = Tree::scan(&place.join(ROOTFS))?;
        result.paths += tree.0.len() as u64;
        result.bytes += tree.size();
        for (path, what) in listing.tree.differences(&tree) {
            result.differ(format!("{}:/{path}", record.name), what);
        }
        files.extend(
            tree.0
                .into_iter()
                .filter_map(|(path, entry)| match entry.content {
                    Content::File { sha256, .. } => Some((format!("/{path}"), sha256)),
                    Content::Directory | Content::Link { .. } => None,
                }),
        );
    }
    // The manifest's statements about single files must be true as well, not only the listings.
    let programs = manifest.programs.iter().filter(|program| program.image.is_none());
    let promised = programs
        .map(|program| (&program.path, &program.sha256))
        .chain(manifest.images.iter().map(|image| (&image.path, &image.sha256)));
    for (path, wanted) in promised {
        let differs = match files.get(path) {
            None => Some("is missing".to_owned()),
            Some(got) if got != wanted => Some(format!("has SHA-256 {got} and the manifest says {wanted}")),
            Some(_) => None,
        };
        if let Some(what) = differs
            && !result
                .differences
                .iter()
                .any(|known| known.path.ends_with(&format!(":{path}")))
        {
            result.differ(path.clone(), what);
        }
    }
    Ok(())
}

impl Verification {
    fn differ(&mut self, path: String, what: String) {
        self.differences.push(Difference { path, what });
    }
}
