//! Manifests, tags and repositories.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    Digest, ImagesError, Reference, Registry, Repository, Tag,
    blobs::{remove, touch, write},
    error::IoContext as _,
    manifest::{is_image_config, parse},
    names_in,
};

/// The largest configuration of an image that is read for its platform, bytes.
const LARGEST_CONFIG: u64 = 1 << 20;

/// What is kept of a manifest beside its content.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ManifestFile {
    media_type: String,
    created_at: Timestamp,
    updated_at: Timestamp,
    /// Digits of the blobs and manifests that it refers to.
    refers_to: Vec<String>,
    size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    config_media_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    architecture: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    os: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TagFile {
    digest: String,
    created_at: Timestamp,
    updated_at: Timestamp,
}

/// A manifest with its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredManifest {
    /// Its digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// As it was pushed.
    pub content: Vec<u8>,
}

/// A manifest in lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestSeen {
    /// Its digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// When it was pushed first.
    pub created_at: Timestamp,
    /// When it was pushed last.
    pub updated_at: Timestamp,
    /// The bytes of it and of all blobs that it refers to, each time that it does.
    pub image_size: u64,
    /// The bytes of itself.
    pub size: u64,
    /// The manifest that it is about.
    pub subject: Option<String>,
    /// What it is, if it is no image.
    pub artifact_type: Option<String>,
    /// The media type of its configuration.
    pub config_media_type: Option<String>,
    /// Of an image.
    pub architecture: Option<String>,
    /// Of an image.
    pub os: Option<String>,
    /// Its tags, in order.
    pub tags: Vec<String>,
}

/// A tag in lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagSeen {
    /// The tag.
    pub name: String,
    /// The digest of its manifest.
    pub digest: String,
    /// When it was pushed first.
    pub created_at: Timestamp,
    /// When it was last moved.
    pub updated_at: Timestamp,
}

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Digests of manifests.
    pub manifests: Vec<String>,
    /// Tags.
    pub tags: Vec<String>,
}

/// Reads a small file; `None` if it does not exist.
fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ImagesError> {
    let content = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.at("read", path)?,
    };
    serde_json::from_slice(&content)
        .map(Some)
        .map_err(io::Error::from)
        .at("understand", path)
}

/// Writes a small file.
fn put(path: &Path, content: &impl Serialize) -> Result<(), ImagesError> {
    let text = serde_json::to_vec(content)
        .map_err(io::Error::from)
        .at("write", path)?;
    write(path, &text)
}

impl Registry {
    fn manifests_dir(&self, repository: &Repository) -> PathBuf {
        self.repository_dir(repository).join("manifests")
    }

    fn manifest_path(&self, repository: &Repository, digest: &Digest) -> PathBuf {
        self.manifests_dir(repository).join(digest.hex())
    }

    fn tags_dir(&self, repository: &Repository) -> PathBuf {
        self.repository_dir(repository).join("tags")
    }

    fn tag_path(&self, repository: &Repository, tag: &Tag) -> PathBuf {
        self.tags_dir(repository).join(tag.as_str())
    }

    /// Keeps a manifest, and gives it a tag if the reference is one. `limit`: the bytes that the registry may
    /// hold. May be repeated.
    ///
    /// # Errors
    /// [`ImagesError::Manifest`] if it is none, [`ImagesError::OtherContent`] if it has another digest than the
    /// reference, [`ImagesError::Missing`] if it refers to what is not in the repository,
    /// [`ImagesError::Full`] and [`ImagesError::DiskFull`] if it does not fit.
    pub fn put_manifest(
        &self,
        repository: &Repository,
        reference: &Reference,
        media_type: Option<&str>,
        content: &[u8],
        limit: u64,
        now: Timestamp,
    ) -> Result<Digest, ImagesError> {
        let parsed = parse(content)?;
        let media_type = match (media_type, &parsed.media_type) {
            (Some(said), Some(own)) if said != own => {
                return Err(ImagesError::Manifest(format!(
                    "its 'mediaType' is '{own}', and the request's Content-Type is '{said}'"
                )));
            }
            (Some(said), _) => said.to_owned(),
            (None, Some(own)) => own.clone(),
            (None, None) => {
                return Err(ImagesError::Manifest(
                    "neither 'mediaType' nor Content-Type say what it is".to_owned(),
                ));
            }
        };
        let digest = Digest::of(content);
        if let Reference::Digest(wanted) = reference
            && *wanted != digest
        {
            return Err(ImagesError::OtherContent { has: digest });
        }
        let platform = self.platform(parsed.config.as_ref());
        let _turn = self.turn();
        let mut missing = Vec::new();
        for blob in &parsed.blobs {
            if self.has(repository, blob)? {
                touch(&self.blob_path(blob), now)?;
            } else {
                missing.push(blob.clone());
            }
        }
        for manifest in &parsed.manifests {
            if !self.manifest_path(repository, manifest).is_file() {
                missing.push(manifest.clone());
            }
        }
        if !missing.is_empty() {
            return Err(ImagesError::Missing(missing));
        }
        let path = self.manifest_path(repository, &digest);
        let before: Option<ManifestFile> = read(&path)?;
        let blob = self.blob_path(&digest);
        if blob.is_file() {
            touch(&blob, now)?;
        } else {
            crate::blobs::make(&self.blobs_dir())?;
            self.check_disk()?;
            let size = content.len() as u64;
            self.take(size, limit)?;
            if let Err(error) = write(&blob, content) {
                self.give(size);
                return Err(error);
            }
            touch(&blob, now)?;
        }
        let refers_to = parsed.blobs.iter().chain(&parsed.manifests);
        let (architecture, os) = platform;
        put(
            &path,
            &ManifestFile {
                media_type,
                created_at: before.map_or(now, |before| before.created_at),
                updated_at: now,
                refers_to: refers_to.map(|digest| digest.hex().to_owned()).collect(),
                size: parsed.size,
                subject: parsed.subject.map(|subject| subject.to_string()),
                artifact_type: parsed.artifact_type,
                config_media_type: parsed.config.map(|(_, media_type)| media_type),
                architecture,
                os,
            },
        )?;
        if let Reference::Tag(tag) = reference {
            let path = self.tag_path(repository, tag);
            let before: Option<TagFile> = read(&path)?;
            put(
                &path,
                &TagFile {
                    digest: digest.to_string(),
                    created_at: before.map_or(now, |before| before.created_at),
                    updated_at: now,
                },
            )?;
        }
        Ok(digest)
    }

    /// Architecture and operating system, as far as an image's configuration says.
    fn platform(&self, config: Option<&(Digest, String)>) -> (Option<String>, Option<String>) {
        let read = || {
            let (digest, _) = config.filter(|(_, media_type)| is_image_config(media_type))?;
            let path = self.blob_path(digest);
            let small = fs::metadata(&path).ok()?.len() <= LARGEST_CONFIG;
            // It is only shown: a configuration that cannot be read is the client's.
            let content = small.then(|| fs::read(&path).ok()).flatten()?;
            serde_json::from_slice::<Value>(&content).ok()
        };
        let config = read().unwrap_or_default();
        let text = |member: &str| {
            config[member]
                .as_str()
                .filter(|text| text.len() <= 64)
                .map(str::to_owned)
        };
        (text("architecture"), text("os"))
    }

    /// The digest of a reference's manifest.
    fn resolve(&self, repository: &Repository, reference: &Reference) -> Result<Digest, ImagesError> {
        match reference {
            Reference::Digest(digest) => Ok(digest.clone()),
            Reference::Tag(tag) => {
                let tag: Option<TagFile> = read(&self.tag_path(repository, tag))?;
                tag.and_then(|tag| Digest::parse(&tag.digest))
                    .ok_or(ImagesError::NoManifest)
            }
        }
    }

    /// A manifest.
    ///
    /// # Errors
    /// [`ImagesError::NoManifest`] if there is none.
    pub fn manifest(
        &self,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<StoredManifest, ImagesError> {
        let digest = self.resolve(repository, reference)?;
        let file: ManifestFile =
            read(&self.manifest_path(repository, &digest))?.ok_or(ImagesError::NoManifest)?;
        let path = self.blob_path(&digest);
        let content = match fs::read(&path) {
            // It was deleted meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ImagesError::NoManifest),
            other => other.at("read", &path)?,
        };
        Ok(StoredManifest {
            digest,
            media_type: file.media_type,
            content,
        })
    }

    /// Deletes a manifest and the tags that it has. An index of which it is a part stays.
    ///
    /// # Errors
    /// [`ImagesError::NoManifest`] if there is none.
    pub fn delete_manifest(&self, repository: &Repository, digest: &Digest) -> Result<Removed, ImagesError> {
        let _turn = self.turn();
        let path = self.manifest_path(repository, digest);
        if !path.is_file() {
            return Err(ImagesError::NoManifest);
        }
        let named = digest.to_string();
        let mut removed = Removed {
            manifests: vec![named.clone()],
            tags: Vec::new(),
        };
        // Tags first: none points at a manifest that is gone.
        for tag in self.tags(repository)? {
            if tag.digest == named
                && let Some(name) = Tag::parse(&tag.name)
            {
                remove(&self.tag_path(repository, &name))?;
                removed.tags.push(tag.name);
            }
        }
        remove(&path)?;
        Ok(removed)
    }

    /// Deletes a tag; its manifest stays.
    ///
    /// # Errors
    /// [`ImagesError::NoManifest`] if there is none.
    pub fn delete_tag(&self, repository: &Repository, tag: &Tag) -> Result<(), ImagesError> {
        let _turn = self.turn();
        if remove(&self.tag_path(repository, tag))? {
            Ok(())
        } else {
            Err(ImagesError::NoManifest)
        }
    }

    /// Deletes a repository with all that is in it.
    ///
    /// # Errors
    /// [`ImagesError::NoRepository`] if there is none.
    pub fn delete_repository(&self, repository: &Repository) -> Result<Removed, ImagesError> {
        let _turn = self.turn();
        let manifests = names_in(&self.manifests_dir(repository))?;
        let tags = names_in(&self.tags_dir(repository))?;
        let directory = self.repository_dir(repository);
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ImagesError::NoRepository),
            other => other.at("remove", &directory)?,
        }
        Ok(Removed {
            manifests: manifests.iter().map(|hex| format!("sha256:{hex}")).collect(),
            tags,
        })
    }

    /// The repositories with a manifest, in order.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn repositories(&self) -> Result<Vec<String>, ImagesError> {
        let mut found = Vec::new();
        for repository in self.all_repositories()? {
            if !names_in(&self.manifests_dir(&repository))?.is_empty() {
                found.push(repository.as_str().to_owned());
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    pub(crate) fn all_repositories(&self) -> Result<Vec<Repository>, ImagesError> {
        let names = names_in(&self.repositories_dir())?;
        Ok(names
            .iter()
            .filter_map(|name| Repository::of_file_name(name))
            .collect())
    }

    /// The digits of all manifests of a repository, and of all that they refer to.
    pub(crate) fn needed(&self, repository: &Repository) -> Result<(Vec<String>, Vec<String>), ImagesError> {
        let (mut manifests, mut others) = (Vec::new(), Vec::new());
        for hex in names_in(&self.manifests_dir(repository))? {
            let file: Option<ManifestFile> = read(&self.manifests_dir(repository).join(&hex))?;
            // It may have been deleted meanwhile.
            if let Some(file) = file {
                others.extend(file.refers_to);
                manifests.push(hex);
            }
        }
        Ok((manifests, others))
    }

    /// The tags of a repository, in order.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn tags(&self, repository: &Repository) -> Result<Vec<TagSeen>, ImagesError> {
        let directory = self.tags_dir(repository);
        let mut tags = Vec::new();
        for name in names_in(&directory)? {
            let file: Option<TagFile> = read(&directory.join(&name))?;
            if let Some(file) = file {
                tags.push(TagSeen {
                    name,
                    digest: file.digest,
                    created_at: file.created_at,
                    updated_at: file.updated_at,
                });
            }
        }
        Ok(tags)
    }

    /// The manifests of a repository, in the order of their digests.
    ///
    /// # Errors
    /// [`ImagesError::NoRepository`] if there is none.
    pub fn manifests(&self, repository: &Repository) -> Result<Vec<ManifestSeen>, ImagesError> {
        let directory = self.manifests_dir(repository);
        let names = names_in(&directory)?;
        if names.is_empty() {
            return Err(ImagesError::NoRepository);
        }
        let tags = self.tags(repository)?;
        let mut manifests = Vec::new();
        for hex in names {
            let file: Option<ManifestFile> = read(&directory.join(&hex))?;
            let (Some(file), Some(digest)) = (file, Digest::of_hex(&hex)) else {
                continue;
            };
            let named = digest.to_string();
            let own = tags.iter().filter(|tag| tag.digest == named);
            let size = fs::metadata(self.blob_path(&digest)).map_or(0, |blob| blob.len());
            manifests.push(ManifestSeen {
                tags: own.map(|tag| tag.name.clone()).collect(),
                digest,
                media_type: file.media_type,
                created_at: file.created_at,
                updated_at: file.updated_at,
                image_size: file.size,
                size,
                subject: file.subject,
                artifact_type: file.artifact_type,
                config_media_type: file.config_media_type,
                architecture: file.architecture,
                os: file.os,
            });
        }
        Ok(manifests)
    }
}
