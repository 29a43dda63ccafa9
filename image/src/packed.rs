//! Reads container images from archives that other programs wrote: an OCI image layout, or what `docker save` writes.
//!
//! Always true: nothing is unpacked; the content of a blob is a part of the archive, which is read again when it is sent; its digest was
//! computed from that part.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::Path,
};

use serde_json::{Value, json};

use crate::{
    digest::{self, Summing},
    error::{ImageError, IoContext as _},
};

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
/// The largest manifest or configuration.
const SMALL: u64 = 4 << 20;
/// The most entries of an archive.
const MOST_ENTRIES: usize = 100_000;
/// How deep indexes may be nested.
const MOST_LEVELS: usize = 4;

/// An image in an archive, ready to be sent to a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// What the archive calls it, if it does.
    pub name: Option<String>,
    /// Layers and configurations, each once.
    pub blobs: Vec<PackedBlob>,
    /// Manifests, those first that others refer to; the last one is the image's.
    pub manifests: Vec<PackedManifest>,
}

/// A part of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedBlob {
    /// `sha256:…`, of the content.
    pub digest: String,
    /// Bytes.
    pub size: u64,
    /// Where it begins in the archive.
    pub offset: u64,
}

/// A manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedManifest {
    /// `sha256:…`
    pub digest: String,
    /// As in `Content-Type`.
    pub media_type: String,
    /// Its bytes.
    pub content: Vec<u8>,
}

/// A file of the archive: where it begins, and its size.
type Part = (u64, u64);

struct Archive<'a> {
    path: &'a Path,
    file: File,
    parts: BTreeMap<String, Part>,
}

/// Reads the image in an archive. `name`: which of several, as the archive calls it.
///
/// # Errors
/// [`ImageError::BadArchive`] when there is no image in it, or several and none is named, or it is damaged.
pub fn read(path: &Path, name: Option<&str>) -> Result<Packed, ImageError> {
    let mut archive = Archive::open(path)?;
    if archive.parts.contains_key("index.json") {
        archive.of_layout(name)
    } else if archive.parts.contains_key("manifest.json") {
        archive.of_docker(name)
    } else {
        Err(archive.bad("it has neither index.json nor manifest.json: it is no image of OCI or Docker"))
    }
}

impl<'a> Archive<'a> {
    fn open(path: &'a Path) -> Result<Self, ImageError> {
        let mut file = File::open(path).at("open", path)?;
        let mut magic = [0; 4];
        let read = file.read(&mut magic).at("read", path)?;
        let mut archive = Self {
            path,
            file,
            parts: BTreeMap::new(),
        };
        if is_compressed(magic.get(..read).unwrap_or_default()) {
            return Err(archive.bad("it is compressed: unpack it first (gunzip, zstd -d)"));
        }
        archive.file.seek(SeekFrom::Start(0)).at("read", path)?;
        let (mut parts, mut links) = (BTreeMap::new(), Vec::new());
        let mut tar = tar::Archive::new(&archive.file);
        for entry in tar.entries().at("read", path)? {
            let entry = entry.at("read", path)?;
            if parts.len() >= MOST_ENTRIES {
                return Err(archive.bad("it has too many files"));
            }
            let name = entry.path().at("read", path)?;
            let Some(name) = name.to_str().map(plain) else {
                continue;
            };
            match entry.header().entry_type() {
                tar::EntryType::Regular | tar::EntryType::Continuous => {
                    parts.insert(name, (entry.raw_file_position(), entry.size()));
                }
                // Docker links layers that are the same.
                tar::EntryType::Symlink | tar::EntryType::Link => {
                    let target = entry.link_name().at("read", path)?;
                    if let Some(target) = target.as_ref().and_then(|target| target.to_str()) {
                        let hard = entry.header().entry_type() == tar::EntryType::Link;
                        let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
                        let target = if hard {
                            plain(target)
                        } else {
                            plain(&format!("{directory}/{target}"))
                        };
                        links.push((name, target));
                    }
                }
                _ => {}
            }
        }
        for (name, target) in links {
            if let Some(part) = parts.get(&target).copied() {
                parts.insert(name, part);
            }
        }
        archive.parts = parts;
        Ok(archive)
    }

    fn bad(&self, detail: impl Into<String>) -> ImageError {
        ImageError::BadArchive {
            archive: self.path.display().to_string(),
            detail: detail.into(),
        }
    }

    fn part(&self, name: &str) -> Result<Part, ImageError> {
        let found = self.parts.get(&plain(name)).copied();
        found.ok_or_else(|| self.bad(format!("{name} is missing in it")))
    }

    /// The bytes of a small part.
    fn content(&mut self, (offset, size): Part) -> Result<Vec<u8>, ImageError> {
        if size > SMALL {
            return Err(self.bad("a manifest or a configuration in it is too large"));
        }
        self.file.seek(SeekFrom::Start(offset)).at("read", self.path)?;
        let mut content = Vec::new();
        (&self.file)
            .take(size)
            .read_to_end(&mut content)
            .at("read", self.path)?;
        if content.len() as u64 == size {
            Ok(content)
        } else {
            Err(self.bad("it ends too early"))
        }
    }

    fn json(&mut self, name: &str) -> Result<Value, ImageError> {
        let part = self.part(name)?;
        let content = self.content(part)?;
        serde_json::from_slice(&content).map_err(|error| self.bad(format!("{name} is not JSON: {error}")))
    }

    /// The digest of a part, without `sha256:`, and its first bytes.
    fn sum(&mut self, (offset, size): Part) -> Result<(String, Vec<u8>), ImageError> {
        self.file.seek(SeekFrom::Start(offset)).at("read", self.path)?;
        let mut sum = Summing::new(io::sink());
        let mut magic = Vec::new();
        (&self.file)
            .take(size.min(4))
            .read_to_end(&mut magic)
            .at("read", self.path)?;
        self.file.seek(SeekFrom::Start(offset)).at("read", self.path)?;
        digest::copy(&mut (&self.file).take(size), &mut sum).at("read", self.path)?;
        let (digest, read, _) = sum.finish();
        if read == size {
            Ok((digest, magic))
        } else {
            Err(self.bad("it ends too early"))
        }
    }

    /// An OCI image layout.
    fn of_layout(&mut self, name: Option<&str>) -> Result<Packed, ImageError> {
        let index = self.json("index.json")?;
        let entries = index["manifests"].as_array().cloned().unwrap_or_default();
        let called = |entry: &Value| -> Vec<String> {
            let of = |key: &str| entry["annotations"][key].as_str().map(str::to_owned);
            let names = [
                of("io.containerd.image.name"),
                of("org.opencontainers.image.ref.name"),
            ];
            names.into_iter().flatten().collect()
        };
        let entry = match (entries.as_slice(), name) {
            ([entry], None) => entry,
            (entries, Some(name)) => entries
                .iter()
                .find(|entry| called(entry).iter().any(|own| own == name))
                .ok_or_else(|| self.no_such(name, entries.iter().flat_map(called).collect()))?,
            (entries, None) => {
                return Err(self.several(entries.iter().flat_map(called).collect()));
            }
        };
        let mut packed = Packed {
            name: called(entry).into_iter().next(),
            blobs: Vec::new(),
            manifests: Vec::new(),
        };
        let mut seen = BTreeSet::new();
        self.take_manifest(entry, 0, &mut seen, &mut packed)?;
        Ok(packed)
    }

    /// A manifest of a layout, with all that it refers to.
    fn take_manifest(
        &mut self,
        descriptor: &Value,
        level: usize,
        seen: &mut BTreeSet<String>,
        packed: &mut Packed,
    ) -> Result<(), ImageError> {
        if level > MOST_LEVELS {
            return Err(self.bad("its indexes are nested too deep"));
        }
        let (digest, part) = self.described(descriptor)?;
        if !seen.insert(digest.clone()) {
            return Ok(());
        }
        let content = self.content(part)?;
        if format!("sha256:{}", digest::of_bytes(&content)) != digest {
            return Err(self.bad(format!("the content of {digest} is another one")));
        }
        let manifest: Value = serde_json::from_slice(&content)
            .map_err(|error| self.bad(format!("{digest} is not JSON: {error}")))?;
        let below = |list: &str| manifest[list].as_array().cloned().unwrap_or_default();
        for child in below("manifests") {
            // A layout may hold some platforms of an index only; a registry takes whole indexes.
            self.take_manifest(&child, level + 1, seen, packed)?;
        }
        let config = manifest.get("config").filter(|config| !config.is_null()).cloned();
        for blob in config.into_iter().chain(below("layers")) {
            let (digest, part) = self.described(&blob)?;
            if seen.insert(digest.clone()) {
                let (has, _) = self.sum(part)?;
                if format!("sha256:{has}") != digest {
                    return Err(self.bad(format!("the content of {digest} is another one")));
                }
                let (offset, size) = part;
                packed.blobs.push(PackedBlob { digest, size, offset });
            }
        }
        let media_type = manifest["mediaType"]
            .as_str()
            .or(descriptor["mediaType"].as_str())
            .unwrap_or(IMAGE)
            .to_owned();
        packed.manifests.push(PackedManifest {
            digest,
            media_type,
            content,
        });
        Ok(())
    }

    /// The digest of a descriptor, and its content.
    fn described(&self, descriptor: &Value) -> Result<(String, Part), ImageError> {
        let digest = descriptor["digest"].as_str().unwrap_or_default();
        let hex = digest
            .strip_prefix("sha256:")
            .ok_or_else(|| self.bad("a digest in it is not of SHA-256"))?;
        Ok((digest.to_owned(), self.part(&format!("blobs/sha256/{hex}"))?))
    }

    /// What `docker save` wrote before it wrote layouts.
    fn of_docker(&mut self, name: Option<&str>) -> Result<Packed, ImageError> {
        let list = self.json("manifest.json")?;
        let entries = list.as_array().cloned().unwrap_or_default();
        let called = |entry: &Value| -> Vec<String> {
            let tags = entry["RepoTags"].as_array().into_iter().flatten();
            tags.filter_map(|tag| tag.as_str().map(str::to_owned)).collect()
        };
        let entry = match (entries.as_slice(), name) {
            ([entry], None) => entry,
            (entries, Some(name)) => entries
                .iter()
                .find(|entry| called(entry).iter().any(|own| own == name))
                .ok_or_else(|| self.no_such(name, entries.iter().flat_map(called).collect()))?,
            (entries, None) => {
                return Err(self.several(entries.iter().flat_map(called).collect()));
            }
        };
        let (mut blobs, mut seen) = (Vec::new(), BTreeSet::new());
        let mut keep = |digest: &str, (offset, size): Part| {
            if seen.insert(digest.to_owned()) {
                blobs.push(PackedBlob {
                    digest: digest.to_owned(),
                    size,
                    offset,
                });
            }
        };
        let config = entry["Config"].as_str().unwrap_or_default();
        let part = self.part(config)?;
        let (sum, _) = self.sum(part)?;
        let digest = format!("sha256:{sum}");
        keep(&digest, part);
        let config = json!({
            "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": part.1,
        });
        let mut layers = Vec::new();
        for layer in entry["Layers"].as_array().into_iter().flatten() {
            let part = self.part(layer.as_str().unwrap_or_default())?;
            let (sum, magic) = self.sum(part)?;
            let digest = format!("sha256:{sum}");
            keep(&digest, part);
            layers.push(json!({ "mediaType": layer_type(&magic), "digest": digest, "size": part.1 }));
        }
        let manifest = json!({
            "schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": layers,
        });
        let content = manifest.to_string().into_bytes();
        Ok(Packed {
            name: called(entry).into_iter().next(),
            blobs,
            manifests: vec![PackedManifest {
                digest: format!("sha256:{}", digest::of_bytes(&content)),
                media_type: IMAGE.to_owned(),
                content,
            }],
        })
    }

    fn no_such(&self, name: &str, names: Vec<String>) -> ImageError {
        self.bad(format!("it has no image {name}; it has {}", all_of(&names)))
    }

    fn several(&self, names: Vec<String>) -> ImageError {
        self.bad(format!(
            "it has several images or none, so that one has to be named; it has {}",
            all_of(&names)
        ))
    }
}

fn all_of(names: &[String]) -> String {
    if names.is_empty() {
        "none with a name".to_owned()
    } else {
        names.join(", ")
    }
}

/// A path without `.`, `..` and doubled slashes.
fn plain(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    segments.join("/")
}

fn is_compressed(magic: &[u8]) -> bool {
    magic.starts_with(&[0x1f, 0x8b]) || magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
}

fn layer_type(magic: &[u8]) -> &'static str {
    if magic.starts_with(&[0x1f, 0x8b]) {
        "application/vnd.oci.image.layer.v1.tar+gzip"
    } else if is_compressed(magic) {
        "application/vnd.oci.image.layer.v1.tar+zstd"
    } else {
        "application/vnd.oci.image.layer.v1.tar"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{Image, Member, write};

    fn part(archive: &Path, blob: &PackedBlob) -> Vec<u8> {
        let mut file = File::open(archive).unwrap();
        file.seek(SeekFrom::Start(blob.offset)).unwrap();
        let mut content = Vec::new();
        file.take(blob.size).read_to_end(&mut content).unwrap();
        content
    }

    fn tar_of(directory: &Path, files: &[(&str, &[u8])], links: &[(&str, &str)]) -> std::path::PathBuf {
        let path = directory.join("archive.tar");
        let mut archive = tar::Builder::new(File::create(&path).unwrap());
        for (name, content) in files {
            let mut head = tar::Header::new_gnu();
            head.set_size(content.len() as u64);
            head.set_mode(0o644);
            archive.append_data(&mut head, name, *content).unwrap();
        }
        for (name, target) in links {
            let mut head = tar::Header::new_gnu();
            head.set_entry_type(tar::EntryType::Symlink);
            head.set_size(0);
            archive.append_link(&mut head, name, target).unwrap();
        }
        archive.finish().unwrap();
        path
    }

    #[test]
    fn what_the_builder_writes_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image.tar");
        let image = Image {
            reference: "landfall.dev/x:1".to_owned(),
            created: "2026-01-01T00:00:00Z".to_owned(),
            entrypoint: vec!["/x".to_owned()],
            files: vec![Member::Text {
                path: "x".to_owned(),
                content: "content".to_owned(),
            }],
            ..Image::default()
        };
        let written = write(&image, &path).unwrap();
        let packed = read(&path, None).unwrap();
        assert_eq!(packed.name.as_deref(), Some("landfall.dev/x:1"));
        assert_eq!(packed.manifests.len(), 1);
        assert_eq!(packed.manifests[0].digest, written.digest);
        assert_eq!(packed.blobs.len(), 2, "the configuration and a layer");
        for blob in &packed.blobs {
            let has = digest::of_bytes(&part(&path, blob));
            assert_eq!(blob.digest, format!("sha256:{has}"));
        }
        assert_eq!(read(&path, Some("landfall.dev/x:1")).unwrap(), packed);
        let other = read(&path, Some("other")).unwrap_err().to_string();
        assert!(other.contains("landfall.dev/x:1"), "{other}");
    }

    #[test]
    fn what_docker_saves_is_read_also_with_links() {
        let directory = tempfile::tempdir().unwrap();
        let list =
            json!([{ "Config": "c.json", "RepoTags": ["x:1"], "Layers": ["a/layer.tar", "b/layer.tar"] }]);
        let path = tar_of(
            directory.path(),
            &[
                ("manifest.json", list.to_string().as_bytes()),
                ("c.json", b"{}"),
                ("a/layer.tar", b"layer"),
            ],
            &[("b/layer.tar", "../a/layer.tar")],
        );
        let packed = read(&path, None).unwrap();
        assert_eq!(packed.name.as_deref(), Some("x:1"));
        let manifest: Value = serde_json::from_slice(&packed.manifests[0].content).unwrap();
        assert_eq!(manifest["layers"].as_array().unwrap().len(), 2);
        assert_eq!(packed.blobs.len(), 2, "the same layer is sent once");
        assert_eq!(part(&path, &packed.blobs[1]), b"layer");
    }

    #[test]
    fn what_is_no_image_is_refused_with_the_reason() {
        let directory = tempfile::tempdir().unwrap();
        let of = |files: &[(&str, &[u8])]| {
            let path = tar_of(directory.path(), files, &[]);
            read(&path, None).unwrap_err().to_string()
        };
        assert!(of(&[("a", b"b")]).contains("neither index.json nor manifest.json"));
        assert!(of(&[("index.json", b"{")]).contains("not JSON"));
        assert!(of(&[("index.json", b"{}")]).contains("several images or none"));
        let missing = json!({ "manifests": [{ "digest": format!("sha256:{}", "0".repeat(64)) }] });
        assert!(of(&[("index.json", missing.to_string().as_bytes())]).contains("is missing"));
        let packed = directory.path().join("packed");
        std::fs::write(&packed, [0x1f, 0x8b, 8, 0]).unwrap();
        assert!(read(&packed, None).unwrap_err().to_string().contains("gunzip"));
    }
}
