//! Node images, which machines boot, built on this host from upstream's programs.
//!
//! A *node image* is a root filesystem with the Kubernetes programs of one version, the container images that every
//! cluster needs, a manifest with digests and a bill of materials. It is kept as three directories that are used
//! directly as overlay lower directories: the Debian base (shared by all versions), the common programs and container
//! images (shared by all versions), and the programs of one Kubernetes version. They are never copied for a machine, so
//! that the pages of a program are in memory once for all machines of a version.
//!
//! There may be several images of a Kubernetes version: a newer one has newer packages of Debian, or the components of a newer
//! release. Each has a *build*, its day; machines stay on theirs until somebody moves them on.
//!
//! Always true here:
//! - every artifact in the store is named by a key computed from its inputs, is complete, and never changes:
//!   it is created in a scratch directory and renamed into place;
//! - a build holds the store's lock; readers need none;
//! - no two images of a version have the same build; what a machine runs on is not removed;
//! - each finished program is stored at once, so a killed build continues where it stopped; its child
//!   processes have ended with it;
//! - the container image of an add-on that is part of no node image is built, kept, moved and checked likewise
//!   ([`AddonImage`]);
//! - no registry, container daemon or checkout is needed: the pinned components are inside this crate.
//!
//! Blocking code: call it from `spawn_blocking`. Called by: the `image`, `up` and `serve` commands, benches.

mod addon;
mod addon_build;
mod archive;
mod base;
mod build;
mod builder;
mod buildinfo;
mod cgo;
mod components;
mod containers;
mod digest;
mod dpkg;
mod error;
mod key;
mod layer;
mod lock;
mod manifest;
mod oci;
mod packages;
mod packed;
mod place;
mod plan;
mod process;
mod program;
mod progress;
mod release;
mod renew;
mod repair;
mod sbom;
mod source;
mod space;
mod store;
mod tree;
mod verify;

#[cfg(test)]
mod addon_tests;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod store_tests;

pub use addon::{AddonImage, AddonManifest, Imported};
pub use build::Change;
pub use cgo::build_packages;
pub use components::supported;
pub use error::ImageError;
pub use manifest::{ContainerImage, DebianPackage, LayerRecord, Manifest, ProgramRecord};
pub use place::{cache_dir, check as check_place};
pub use plan::Estimate;
pub use progress::{Event, Progress, Silent};
pub use renew::{Removed, Renewed};
pub use source::{Release, Source};
pub use store::{ImageStore, NodeImage, Tools};
pub use verify::{Difference, Verification};

/// Container images as archives: those that a node can import, written for conformance's images of upstream's
/// tests, and those of others, read by `landfall image push`.
pub mod container {
    pub use crate::{
        containers::{busybox, pause},
        oci::{Image, Member, Written, write},
        packed::{Packed, PackedBlob, PackedManifest, read},
    };
}

/// References of the container images in every node image, and their directory in a machine.
pub mod references {
    /// The pause container: the sandbox of every pod.
    pub const PAUSE: &str = "landfall.dev/pause:1";
    /// A shell and small programs, for experiments in a cluster.
    pub const BUSYBOX: &str = "landfall.dev/busybox:1";
    /// The cluster's name server.
    pub const COREDNS: &str = "landfall.dev/coredns:v1.15.0";
    /// Each image is `<name>.tar` in this directory of a machine, for `ctr --namespace k8s.io images import`.
    pub const DIRECTORY: &str = "/opt/landfall/images";
}
