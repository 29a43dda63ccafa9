//! The manifest of a node image: what it is, with digests.

use serde::{Deserialize, Serialize};

/// The shape of manifests that this code writes and reads.
pub(crate) const SCHEMA: u32 = 1;

/// What a node image is made of. Stored as `manifest.json` beside its bill of materials.
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
    /// When it was built, UTC.
    pub created: jiff::Timestamp,
    /// `modules`, `directory` or `release`.
    pub source: String,
    /// Top first.
    pub layers: Vec<LayerRecord>,
    /// In machines and in container images, by name.
    pub programs: Vec<ProgramRecord>,
    /// In every machine, ready to be imported.
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
    /// Of the upstream release, like `v3.6.16`.
    pub version: String,
    /// Upstream's commit, where one is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub git_commit: Option<String>,
    /// The toolchain that it was built with, where the program tells.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub go: Option<String>,
    /// Inside a machine, or inside its container image.
    pub path: String,
    /// The container image that it is in, if it is in one.
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
    /// What pods call it.
    pub reference: String,
    /// Of the image manifest, `sha256:…`.
    pub digest: String,
    /// Of the archive inside a machine.
    pub path: String,
    /// Of the archive.
    pub size: u64,
    /// Of the archive, 64 hex digits.
    pub sha256: String,
}

/// One package of the base system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DebianPackage {
    /// Binary package.
    pub name: String,
    /// Debian's.
    pub version: String,
    /// `amd64`, `arm64` or `all`.
    pub architecture: String,
}
