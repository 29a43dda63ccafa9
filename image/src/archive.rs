//! One file per image, for hosts without a network: a compressed archive with the whole image.
//!
//! In this order: `manifest.json`, `sbom.spdx.json`, then per layer `layers/<id>/layer.json` and
//! `layers/<id>/rootfs/…`; of an add-on's image `addon.json`, `sbom.spdx.json`, `image.tar`. An import is unpacked to a scratch directory, every
//! digest is checked, and only then the image is moved into place.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Component, Path},
};

use crate::{
    addon::{self, AddonImage, AddonManifest, Imported},
    builder,
    error::{ImageError, IoContext as _},
    key,
    layer::{LISTING, Layer, ROOTFS},
    lock::BuildLock,
    manifest::{Manifest, SCHEMA},
    progress::Silent,
    repair, space,
    store::{ImageStore, MANIFEST, NodeImage, SBOM},
    tree::{Content, Entry},
    verify::{self, Verification},
};

/// An image has about 1.2 GB; an import of more than this is refused.
const LARGEST: u64 = 16 << 30;
/// The limit of files; a base system has about ten thousand.
const MOST: usize = 1_000_000;
/// zstd's default: halves the size at the speed of a disk.
const LEVEL: i32 = 3;

impl ImageStore {
    /// Writes the image of a version to `file`, as one compressed archive.
    ///
    /// # Errors
    /// [`ImageError::NotBuilt`] when it is not in the store, [`ImageError::Space`], [`ImageError::Io`].
    pub fn export(&self, version: &str, file: &Path) -> Result<NodeImage, ImageError> {
        let image = self.find(version)?.ok_or_else(|| ImageError::NotBuilt {
            version: version.to_owned(),
        })?;
        export(self, &image, file)?;
        Ok(image)
    }

    /// Writes the image of an add-on to `file`, as one compressed archive.
    ///
    /// # Errors
    /// [`ImageError::AddonNotBuilt`] when it is not in the store, [`ImageError::Space`], [`ImageError::Io`].
    pub fn export_addon(&self, name: &str, file: &Path) -> Result<AddonImage, ImageError> {
        let image = self.addon(name)?.ok_or_else(|| ImageError::AddonNotBuilt {
            name: name.to_owned(),
        })?;
        whole(file, image.manifest.image.size, &|partial| {
            write_addon(&image, partial)
        })?;
        Ok(image)
    }

    /// A node image, as tests import it.
    #[cfg(test)]
    pub(crate) fn import(&self, file: &Path) -> Result<NodeImage, ImageError> {
        match self.import_any(file)? {
            Imported::Node(image) => Ok(*image),
            Imported::Addon(image) => panic!("{} is the image of an add-on", image.name()),
        }
    }

    /// Imports an image that [`Self::export`] or [`Self::export_addon`] wrote, after checking every digest in it.
    ///
    /// # Errors
    /// [`ImageError::BadArchive`] names the problem of the file; nothing of it is kept.
    pub fn import_any(&self, file: &Path) -> Result<Imported, ImageError> {
        let size = file.metadata().at("read", file)?.len();
        let _lock = BuildLock::take(&self.paths.lock, &Silent)?;
        let paths = &self.paths;
        builder::sweep(&paths.scratch)?;
        // The archive is less than half the size of its content.
        space::check(&paths.root, size / 1_000_000 * 3, "LANDFALL_CACHE_DIR")?;
        for directory in [&paths.scratch, &paths.layers, &paths.images, &paths.addons] {
            fs::create_dir_all(directory).at("create", directory)?;
        }
        let scratch = paths.scratch.join("import");
        fs::create_dir_all(&scratch).at("create", &scratch)?;
        let installed = take(self, file, &scratch);
        // Whatever the result, no scratch files stay; the first error is returned.
        let swept = builder::sweep(&paths.scratch);
        let image = installed?;
        swept?;
        Ok(image)
    }
}

fn export(store: &ImageStore, image: &NodeImage, file: &Path) -> Result<(), ImageError> {
    whole(file, image.size(), &|partial| write(store, image, partial))
}

/// Writes `file` with `write`, whole or not at all; `bytes` is the size of what goes into it.
fn whole(file: &Path, bytes: u64, write: &dyn Fn(&Path) -> Result<(), ImageError>) -> Result<(), ImageError> {
    let directory = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    space::check(directory, bytes / 2_000_000, "another path for the file")?;
    let name = file.file_name().ok_or_else(|| ImageError::Io {
        what: format!("write {}", file.display()),
        source: io::Error::from(io::ErrorKind::IsADirectory),
    })?;
    // In the target's directory, so that the file appears there completely or not at all.
    let partial = directory.join(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    let written = write(&partial);
    if written.is_err() {
        // The first error is returned.
        drop(fs::remove_file(&partial));
        return written;
    }
    fs::rename(&partial, file).at("write", file)
}

fn write(store: &ImageStore, image: &NodeImage, file: &Path) -> Result<(), ImageError> {
    let out = File::create(file).at("write", file)?;
    let mut archive = tar::Builder::new(zstd::Encoder::new(out, LEVEL).at("write", file)?);
    for name in [MANIFEST, SBOM] {
        append_file(&mut archive, name, &image.directory().join(name))?;
    }
    for record in &image.manifest.layers {
        let place = store.paths.layer(&record.id);
        append_file(
            &mut archive,
            &format!("layers/{}/{LISTING}", record.id),
            &place.join(LISTING),
        )?;
        let (layer, _) = Layer::read(&place)?;
        let root = place.join(ROOTFS);
        for (path, entry) in &layer.tree.0 {
            let from = root.join(path);
            append(
                &mut archive,
                &format!("layers/{}/{ROOTFS}/{path}", record.id),
                entry,
                &from,
            )
            .at("pack", &from)?;
        }
    }
    let compressor = archive.into_inner().at("write", file)?;
    compressor
        .finish()
        .and_then(|file| file.sync_all())
        .at("write", file)
}

fn write_addon(image: &AddonImage, file: &Path) -> Result<(), ImageError> {
    let out = File::create(file).at("write", file)?;
    let mut archive = tar::Builder::new(zstd::Encoder::new(out, LEVEL).at("write", file)?);
    for name in [addon::MANIFEST, SBOM, addon::ARCHIVE] {
        append_file(&mut archive, name, &image.directory().join(name))?;
    }
    let compressor = archive.into_inner().at("write", file)?;
    compressor
        .finish()
        .and_then(|file| file.sync_all())
        .at("write", file)
}

fn append_file<W: Write>(archive: &mut tar::Builder<W>, name: &str, from: &Path) -> Result<(), ImageError> {
    let mut head = tar::Header::new_gnu();
    head.set_mode(0o644);
    // No particular owner: the unpacking user owns the files.
    head.set_uid(rustix::process::geteuid().as_raw().into());
    head.set_gid(rustix::process::getegid().as_raw().into());
    head.set_mtime(0);
    let mut source = File::open(from).at("open", from)?;
    head.set_size(source.metadata().at("read", from)?.len());
    archive.append_data(&mut head, name, &mut source).at("pack", from)
}

fn append<W: Write>(archive: &mut tar::Builder<W>, name: &str, entry: &Entry, from: &Path) -> io::Result<()> {
    let mut head = tar::Header::new_gnu();
    head.set_mode(entry.mode);
    head.set_uid(entry.uid.into());
    head.set_gid(entry.gid.into());
    head.set_size(0);
    head.set_mtime(
        fs::symlink_metadata(from)?
            .modified()?
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| d.as_secs()),
    );
    match &entry.content {
        Content::Directory => {
            head.set_entry_type(tar::EntryType::Directory);
            archive.append_data(&mut head, format!("{name}/"), io::empty())
        }
        Content::Link { target } => {
            head.set_entry_type(tar::EntryType::Symlink);
            archive.append_link(&mut head, name, target)
        }
        Content::File { size, .. } => {
            head.set_size(*size);
            // A file that has become shorter would give a broken archive: take exactly that many bytes or
            // fail.
            let mut source = File::open(from)?.take(*size);
            archive.append_data(&mut head, name, &mut source)?;
            if source.limit() == 0 {
                Ok(())
            } else {
                Err(io::ErrorKind::UnexpectedEof.into())
            }
        }
    }
}

fn take(store: &ImageStore, file: &Path, scratch: &Path) -> Result<Imported, ImageError> {
    unpack(file, scratch)?;
    if scratch.join(addon::MANIFEST).exists() {
        let image = take_addon(store, file, scratch)?;
        return Ok(Imported::Addon(Box::new(image)));
    }
    let image = take_node(store, file, scratch)?;
    Ok(Imported::Node(Box::new(image)))
}

fn take_addon(store: &ImageStore, file: &Path, scratch: &Path) -> Result<AddonImage, ImageError> {
    let bad = |detail: String| ImageError::BadArchive {
        archive: file.display().to_string(),
        detail,
    };
    let image = addon::load(scratch)
        .map_err(|error| bad(format!("its manifest cannot be used: {error}")))?
        .ok_or_else(|| bad("it is not complete".to_owned()))?;
    check_addon(&image.manifest).map_err(bad)?;
    let found = addon::differences(&image)?;
    if let Some(difference) = found.differences.first() {
        return Err(bad(difference.to_string()));
    }
    let directory = store.paths.addon(&image.manifest.name, &image.manifest.key);
    let moved = scratch.join("image");
    fs::create_dir(&moved).at("create", &moved)?;
    for name in [addon::MANIFEST, SBOM, addon::ARCHIVE] {
        fs::rename(scratch.join(name), moved.join(name)).at("move", &moved)?;
    }
    builder::install_image(&moved, &directory)?;
    addon::load(&directory)?.ok_or_else(|| bad("it is not complete".to_owned()))
}

/// Checks all values that become part of a path.
fn check_addon(manifest: &AddonManifest) -> Result<(), String> {
    let here = crate::components::architecture();
    if manifest.architecture != here {
        return Err(format!(
            "it is for {} and this machine is {here}",
            manifest.architecture
        ));
    }
    if !plain(&manifest.name) {
        return Err("its name is not one".to_owned());
    }
    check_key(&manifest.key)
}

fn take_node(store: &ImageStore, file: &Path, scratch: &Path) -> Result<NodeImage, ImageError> {
    let bad = |detail: String| ImageError::BadArchive {
        archive: file.display().to_string(),
        detail,
    };
    let path = scratch.join(MANIFEST);
    let text = fs::read(&path)
        .map_err(|_| bad("there is no manifest in it: it is not an exported image".to_owned()))?;
    let mut manifest: Manifest = serde_json::from_slice(&text)
        .map_err(|error| bad(format!("its manifest cannot be read: {error}")))?;
    check(&manifest).map_err(bad)?;

    let layers = scratch.join("layers");
    let mut result = Verification {
        version: manifest.version.clone(),
        key: manifest.key.clone(),
        paths: 0,
        bytes: 0,
        differences: Vec::new(),
    };
    verify::compare(&manifest, scratch, |id| layers.join(id), &mut result)
        .map_err(|error| bad(format!("it is not complete ({error})")))?;
    if let Some(difference) = result.differences.first() {
        let more = match result.differences.len() {
            1 => String::new(),
            count => format!(" (and {} more differences)", count - 1),
        };
        return Err(bad(format!("{difference}{more}")));
    }
    for record in &mut manifest.layers {
        let unpacked = layers.join(&record.id);
        // The same name means the same inputs, but the versions of Debian's packages on the day of the build
        // are not part of it: layers are equal only if their listings are. A different one gets another name.
        let other = format!("{}-{}", record.id, key::short(&record.listing));
        let mut placed = false;
        for id in [record.id.clone(), other] {
            let place = store.paths.layer(&id);
            let mut there = place.is_dir();
            if there && Layer::read(&place).is_ok_and(|(_, listing)| listing != record.listing) {
                continue;
            }
            if there && repair::is_damaged(&place, record) {
                repair::unused(&place, Path::new("/proc"))?;
                let away = scratch.join(format!("damaged-{id}"));
                fs::rename(&place, &away).at("take away", &place)?;
                there = false;
            }
            if !there {
                fs::rename(&unpacked, &place).at("move a layer to", &place)?;
            }
            record.id = id;
            placed = true;
            break;
        }
        if !placed {
            let place = store.paths.layer(&record.id).display().to_string();
            return Err(bad(format!(
                "{place}, where its layer belongs, is damaged: remove it and repeat"
            )));
        }
    }
    let image = scratch.join("image");
    fs::create_dir(&image).at("create", &image)?;
    let text = serde_json::to_vec_pretty(&manifest).expect("strings and numbers only");
    fs::write(image.join(MANIFEST), text).at("write", &image)?;
    fs::rename(scratch.join(SBOM), image.join(SBOM)).at("move", &image)?;
    let directory = store.paths.image(&manifest.version, &manifest.key);
    builder::install_image(&image, &directory)?;
    store
        .load(&directory)?
        .ok_or_else(|| bad("it is not complete".to_owned()))
}

/// Checks all values that become part of a path.
fn check(manifest: &Manifest) -> Result<(), String> {
    if manifest.schema != SCHEMA {
        return Err(format!(
            "its schema is {} and this release reads {SCHEMA}",
            manifest.schema
        ));
    }
    let here = crate::components::architecture();
    if manifest.architecture != here {
        return Err(format!(
            "it is for {} and this machine is {here}",
            manifest.architecture
        ));
    }
    if !plain(&manifest.version) {
        return Err("its version is not one".to_owned());
    }
    check_key(&manifest.key)?;
    if manifest.layers.is_empty() || manifest.layers.len() > 8 {
        return Err(format!("it has {} layers", manifest.layers.len()));
    }
    match manifest.layers.iter().find(|layer| !plain(&layer.id)) {
        Some(layer) => Err(format!("'{}' is not the name of a layer", layer.id)),
        None => Ok(()),
    }
}

/// Whether a text can be the name of a file.
fn plain(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('.')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
}

fn check_key(key: &str) -> Result<(), String> {
    if key.len() == 64 && key.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(())
    } else {
        Err("its key is not one".to_owned())
    }
}

fn unpack(file: &Path, scratch: &Path) -> Result<(), ImageError> {
    let bad = |detail: String| ImageError::BadArchive {
        archive: file.display().to_string(),
        detail,
    };
    let input = File::open(file).at("open", file)?;
    let decoder =
        zstd::Decoder::new(input).map_err(|error| bad(format!("it is not an exported image: {error}")))?;
    let mut archive = tar::Archive::new(decoder.take(LARGEST));
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(true);
    archive.set_overwrite(false);
    let entries = archive.entries().map_err(|error| bad(error.to_string()))?;
    for (count, entry) in entries.enumerate() {
        let mut entry = entry.map_err(|error| {
            if count == 0 {
                bad("it is cut off or damaged, or no exported image at all".to_owned())
            } else {
                bad(format!("it is cut off or damaged ({error})"))
            }
        })?;
        let path = entry.path().map_err(|error| bad(error.to_string()))?.into_owned();
        let name = path.display();
        if count >= MOST {
            return Err(bad(format!("it has more than {MOST} files")));
        }
        if !path.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(bad(format!("{name} in it leads outside")));
        }
        let named = [MANIFEST, SBOM, addon::MANIFEST, addon::ARCHIVE];
        let known = named.iter().any(|name| path == Path::new(name)) || path.starts_with("layers");
        let kind = entry.header().entry_type();
        if !known || !(kind.is_file() || kind.is_dir() || kind.is_symlink()) {
            return Err(bad(format!("{name} in it does not belong there")));
        }
        let unpacked = entry.unpack_in(scratch).map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ImageError::Io {
                what: format!("unpack {} in {}", file.display(), scratch.display()),
                source: io::ErrorKind::StorageFull.into(),
            },
            _ => bad(format!("it is cut off or damaged, from {name} on")),
        })?;
        if !unpacked {
            return Err(bad(format!("{name} in it leads outside")));
        }
    }
    Ok(())
}
