//! Node images, which machines boot, built on this host from upstream's programs.
//!
//! A *node image* is a root filesystem with the Kubernetes programs of one version, the container images that every
//! cluster needs, a manifest with digests and a bill of materials. It is kept as three directories that are used
//! directly as overlay lower directories: the Debian base (shared by all versions), the common programs and container
//! images (shared by all versions), and the programs of one Kubernetes version. They are never copied for a machine, so
//! that the pages of a program are in memory once for all machines of a version.
//!
//! Always true here:
//! - every artifact in the store is named by a key computed from its inputs, is complete, and never changes:
//!   it is created in a scratch directory and renamed into place;
//! - a build holds the store's lock; readers need none;
//! - each finished program is stored at once, so a killed build continues where it stopped; its child
//!   processes have ended with it;
//! - no registry, container daemon or checkout is needed: the pinned components are inside this crate.
//!
//! Blocking code: call it from `spawn_blocking`. Called by: the `image`, `up` and `serve` commands, benches.

mod archive;
mod base;
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
mod place;
mod plan;
mod process;
mod program;
mod progress;
mod release;
mod repair;
mod sbom;
mod source;
mod space;
mod store;
mod tree;
mod verify;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod store_tests;

pub use cgo::build_packages;
pub use components::supported;
pub use error::ImageError;
pub use manifest::{ContainerImage, DebianPackage, LayerRecord, Manifest, ProgramRecord};
pub use place::{cache_dir, check as check_place};
pub use plan::Estimate;
pub use progress::{Event, Progress, Silent};
pub use source::{Release, Source};
pub use store::{ImageStore, NodeImage, Tools};
pub use verify::{Difference, Verification};

/// Container images as archives that a node can import. Called by: conformance, for the images of upstream's
/// tests.
pub mod container {
    pub use crate::{
        containers::{busybox, pause},
        oci::{Image, Member, Written, write},
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
