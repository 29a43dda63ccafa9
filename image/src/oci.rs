//! Writes container images: an OCI image layout with one uncompressed layer, in one archive.
//!
//! Uncompressed, because the archive is imported each time a node starts and unpacking would cost more than reading.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::{
    components::architecture,
    digest::{self, Summing},
    error::{ImageError, IoContext as _},
};

/// The content of an image.
#[derive(Debug, Clone, Default)]
pub struct Image {
    /// The image reference in pods.
    pub reference: String,
    /// RFC 3339; part of the digest, so it depends on the content, not on the time of the build.
    pub created: String,
    /// The entrypoint.
    pub entrypoint: Vec<String>,
    /// The default command, or the default arguments of the entrypoint.
    pub command: Vec<String>,
    /// The numeric user id; empty for root.
    pub user: String,
    /// Labels of the image. They distinguish two images of the same files.
    pub labels: BTreeMap<String, String>,
    /// In the order of the archive.
    pub files: Vec<Member>,
}

/// One path of the layer, without a leading slash. Owned by root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Member {
    /// A directory; listed before its content.
    Directory {
        /// The path.
        path: String,
        /// Twelve bits, as `chmod` takes them.
        mode: u32,
    },
    /// Copied from the host.
    File {
        /// The path.
        path: String,
        /// Twelve bits, as `chmod` takes them.
        mode: u32,
        /// The path of its content on this host.
        from: PathBuf,
    },
    /// A small world-readable file.
    Text {
        /// The path.
        path: String,
        /// Its content.
        content: String,
    },
    /// A symbolic link.
    Link {
        /// The path.
        path: String,
        /// The target of the link.
        target: String,
    },
}

/// The result of a write.
#[derive(Debug, PartialEq, Eq)]
pub struct Written {
    /// Digest of the image manifest, `sha256:…`.
    pub digest: String,
    /// SHA-256 of the archive.
    pub sha256: String,
    /// Size of the archive in bytes.
    pub size: u64,
}

/// Writes `image` to `file`. The same content gives the same bytes.
///
/// # Errors
/// [`ImageError::Io`] when a file of it cannot be read or the archive cannot be written.
pub fn write(image: &Image, file: &Path) -> Result<Written, ImageError> {
    // Twice: once for the digest, which the archive must name before the layer, once to write it. The sizes
    // are small and no temporary file is needed.
    let (layer, size, _) = {
        let mut sum = Summing::new(io::sink());
        layer_tar(image, &mut sum).at("pack files for", file)?;
        sum.finish()
    };
    let mut config = json!({
        "created": image.created,
        "architecture": architecture(),
        "os": "linux",
        "config": {
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Entrypoint": image.entrypoint,
            "Cmd": image.command,
            "WorkingDir": "/",
        },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer}")] },
        "history": [{ "created": image.created, "created_by": "landfall image build" }],
    });
    // Omitted if empty, so that existing images of nodes stay the same byte for byte.
    if !image.user.is_empty() {
        config["config"]["User"] = json!(image.user);
    }
    if !image.labels.is_empty() {
        config["config"]["Labels"] = json!(image.labels);
    }
    let config = encode(&config);
    let manifest = encode(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &digest::of_bytes(&config), config.len() as u64),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer, size)],
    }));
    let manifest_digest = digest::of_bytes(&manifest);
    let mut entry = descriptor(
        "application/vnd.oci.image.manifest.v1+json",
        &manifest_digest,
        manifest.len() as u64,
    );
    entry["platform"] = json!({ "architecture": architecture(), "os": "linux" });
    entry["annotations"] = json!({
        // containerd reads the name from the first annotation, the specification defines the second.
        "io.containerd.image.name": image.reference,
        "org.opencontainers.image.ref.name": image.reference,
    });
    let index = encode(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry],
    }));

    let write = || -> io::Result<Written> {
        let mut sum = Summing::new(io::BufWriter::with_capacity(1 << 18, File::create(file)?));
        let mut archive = tar::Builder::new(&mut sum);
        bytes(
            &mut archive,
            "oci-layout",
            &encode(&json!({ "imageLayoutVersion": "1.0.0" })),
        )?;
        bytes(&mut archive, "index.json", &index)?;
        bytes(&mut archive, &blob(&manifest_digest), &manifest)?;
        bytes(&mut archive, &blob(&digest::of_bytes(&config)), &config)?;
        let mut head = header(tar::EntryType::Regular, 0o644);
        head.set_size(size);
        head.set_path(blob(&layer))?;
        head.set_cksum();
        let inner = archive.get_mut();
        inner.write_all(head.as_bytes())?;
        layer_tar(image, inner)?;
        inner.write_all(&vec![0; (512 - (size % 512) as usize) % 512])?;
        archive.finish()?;
        drop(archive);
        let (sha256, size, out) = sum.finish();
        out.into_inner()
            .map_err(io::IntoInnerError::into_error)?
            .sync_all()?;
        Ok(Written {
            digest: format!("sha256:{manifest_digest}"),
            sha256,
            size,
        })
    };
    write().at("write", file)
}

fn layer_tar(image: &Image, to: &mut impl Write) -> io::Result<()> {
    let mut archive = tar::Builder::new(to);
    for member in &image.files {
        match member {
            Member::Directory { path, mode } => {
                let mut head = header(tar::EntryType::Directory, *mode);
                archive.append_data(&mut head, format!("{path}/"), io::empty())?;
            }
            Member::File { path, mode, from } => {
                let mut source = File::open(from)?;
                let mut head = header(tar::EntryType::Regular, *mode);
                head.set_size(source.metadata()?.len());
                archive.append_data(&mut head, path, &mut source)?;
            }
            Member::Text { path, content } => bytes(&mut archive, path, content.as_bytes())?,
            Member::Link { path, target } => {
                let mut head = header(tar::EntryType::Symlink, 0o777);
                archive.append_link(&mut head, path, target)?;
            }
        }
    }
    archive.finish()
}

fn bytes<W: Write>(archive: &mut tar::Builder<W>, path: &str, content: &[u8]) -> io::Result<()> {
    let mut head = header(tar::EntryType::Regular, 0o644);
    head.set_size(content.len() as u64);
    archive.append_data(&mut head, path, content)
}

fn header(kind: tar::EntryType, mode: u32) -> tar::Header {
    let mut head = tar::Header::new_gnu();
    head.set_entry_type(kind);
    head.set_mode(mode);
    head.set_uid(0);
    head.set_gid(0);
    head.set_mtime(0);
    head.set_size(0);
    head
}

fn blob(digest: &str) -> String {
    format!("blobs/sha256/{digest}")
}

fn descriptor(media_type: &str, digest: &str, size: u64) -> Value {
    json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": size })
}

fn encode(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeMap, io::Read as _};

    fn image(from: PathBuf) -> Image {
        Image {
            reference: "landfall.dev/x:1".to_owned(),
            created: "2026-01-01T00:00:00Z".to_owned(),
            entrypoint: vec!["/x".to_owned()],
            files: vec![
                Member::Directory {
                    path: "tmp".to_owned(),
                    mode: 0o1777,
                },
                Member::File {
                    path: "x".to_owned(),
                    mode: 0o755,
                    from,
                },
                Member::Text {
                    path: "etc/passwd".to_owned(),
                    content: "root:x:0:0::/:/x\n".to_owned(),
                },
                Member::Link {
                    path: "y".to_owned(),
                    target: "x".to_owned(),
                },
            ],
            ..Image::default()
        }
    }

    #[test]
    fn labels_make_another_image_of_the_same_layer() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("program");
        std::fs::write(&program, "x").unwrap();
        let plain = image(program);
        let mut other = plain.clone();
        other.user = "1234".to_owned();
        other.labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        let written: Vec<_> = [&plain, &other]
            .into_iter()
            .map(|image| {
                let file = dir.path().join("x.tar");
                let digest = write(image, &file).unwrap().digest;
                (digest, std::fs::read(file).unwrap())
            })
            .collect();
        assert_ne!(written[0].0, written[1].0);
        let says = |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
        for text in [r#""User":"1234""#, r#""Labels":{"a":"b"}"#] {
            assert!(says(&written[1].1, text) && !says(&written[0].1, text), "{text}");
        }
        let layer = |archive: &[u8]| {
            let text = String::from_utf8_lossy(archive);
            let at = text.find("diff_ids").unwrap();
            text[at..at + 90].to_owned()
        };
        assert_eq!(layer(&written[0].1), layer(&written[1].1));
    }

    #[test]
    fn every_digest_in_the_layout_is_right() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("program");
        std::fs::write(&program, vec![7; 3000]).unwrap();
        let file = dir.path().join("x.tar");
        let written = write(&image(program.clone()), &file).unwrap();
        assert_eq!(written.sha256, digest::of_file(&file).unwrap());
        assert_eq!(written.size, file.metadata().unwrap().len());

        let mut members = BTreeMap::new();
        for entry in tar::Archive::new(File::open(&file).unwrap()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            members.insert(entry.path().unwrap().to_str().unwrap().to_owned(), content);
        }
        for (path, content) in &members {
            if let Some(name) = path.strip_prefix("blobs/sha256/") {
                assert_eq!(name, digest::of_bytes(content));
            }
        }
        let get = |descriptor: &Value| -> &Vec<u8> {
            let content = &members[&blob(
                descriptor["digest"]
                    .as_str()
                    .unwrap()
                    .strip_prefix("sha256:")
                    .unwrap(),
            )];
            assert_eq!(descriptor["size"], content.len());
            content
        };
        let index: Value = serde_json::from_slice(&members["index.json"]).unwrap();
        assert_eq!(
            index["manifests"][0]["annotations"]["io.containerd.image.name"],
            "landfall.dev/x:1"
        );
        assert_eq!(index["manifests"][0]["digest"], written.digest);
        let manifest: Value = serde_json::from_slice(get(&index["manifests"][0])).unwrap();
        let config: Value = serde_json::from_slice(get(&manifest["config"])).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);

        let layer = get(&manifest["layers"][0]);
        let mut paths = Vec::new();
        for entry in tar::Archive::new(layer.as_slice()).entries().unwrap() {
            let entry = entry.unwrap();
            assert_eq!(
                (entry.header().uid().unwrap(), entry.header().mtime().unwrap()),
                (0, 0)
            );
            paths.push((
                entry.path().unwrap().to_str().unwrap().to_owned(),
                entry.header().mode().unwrap(),
            ));
        }
        assert_eq!(paths[0], ("tmp/".to_owned(), 0o1777));
        assert_eq!(paths[1], ("x".to_owned(), 0o755));
        assert_eq!(paths.len(), 4);

        let again = write(&image(program), &dir.path().join("again.tar")).unwrap();
        assert_eq!(again, written);
    }
}
