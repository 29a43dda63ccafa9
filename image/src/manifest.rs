//! The manifest of a node image: its content, with digests.

use serde::{Deserialize, Serialize};

/// The schema version of manifests that this code writes and reads.
pub(crate) const SCHEMA: u32 = 1;

/// The content of a node image. Stored as `manifest.json` beside its bill of materials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// 1.
    pub schema: u32,
    /// Kubernetes, like `1.36.3`.
    pub version: String,
    /// SHA-256 over everything the image is made of, 64 hex digits.
    pub key: String,
    /// The pins it was made from, 64 hex digits: the same for every source and toolchain.
    pub recipe: String,
    /// `amd64` or `arm64`.
    pub architecture: String,
    /// The time of the build, UTC.
    pub created: jiff::Timestamp,
    /// Its name among the images of its version: the day, `2026.11.28`; a second one of a day has a number after it. Manifests of before have
    /// none: the day of [`Self::created`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub build: Option<String>,
    /// `modules`, `directory` or `release`.
    pub source: String,
    /// Top first.
    pub layers: Vec<LayerRecord>,
    /// In machines and in container images, by name.
    pub programs: Vec<ProgramRecord>,
    /// Container images in every machine, ready to be imported.
    pub images: Vec<ContainerImage>,
    /// The base system.
    pub packages: Vec<DebianPackage>,
    /// SHA-256 of `sbom.spdx.json`.
    pub sbom: String,
}

/// One directory of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerRecord {
    /// `kubernetes`, `common` or `base`.
    pub name: String,
    /// Name of its directory in the store.
    pub id: String,
    /// SHA-256 of the listing of everything in it.
    pub listing: String,
    /// Number of paths.
    pub paths: u64,
    /// Of all files.
    pub bytes: u64,
}

/// One program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProgramRecord {
    /// File name.
    pub name: String,
    /// The upstream release it is part of.
    pub component: String,
    /// Upstream's Go module.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub module: String,
    /// Version of the upstream release, like `v3.6.16`.
    pub version: String,
    /// Upstream's commit, where one is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub git_commit: Option<String>,
    /// The Go toolchain that built it, if the program states it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub go: Option<String>,
    /// Path inside a machine, or inside its container image.
    pub path: String,
    /// The container image that contains it, if any.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub image: Option<String>,
    /// Bytes.
    pub size: u64,
    /// 64 hex digits.
    pub sha256: String,
}

/// One container image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerImage {
    /// The image reference in pods.
    pub reference: String,
    /// Digest of the image manifest, `sha256:…`.
    pub digest: String,
    /// Path of the archive inside a machine.
    pub path: String,
    /// Size of the archive in bytes.
    pub size: u64,
    /// SHA-256 of the archive, 64 hex digits.
    pub sha256: String,
}

/// One package of the base system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DebianPackage {
    /// Binary package.
    pub name: String,
    /// Debian's version.
    pub version: String,
    /// `amd64`, `arm64` or `all`.
    pub architecture: String,
}
