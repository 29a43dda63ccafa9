//! Container images of add-ons that are part of no node image: a node has one only if its cluster asks for it.
//!
//! Always true: an image has the name of its component in `components/components.toml`, and the version that is pinned there
//! (a test of `image` compares them). To add one: a component there, and a line in [`ADDON_IMAGES`].

use crate::ClusterSpec;

/// All of them.
pub const ADDON_IMAGES: &[AddonImage] = &[
    AddonImage {
        name: KUBE_ROUTER,
        reference: "landfall.dev/kube-router:v2.1.0",
        wanted: |spec| spec.network.policy.is_enforced(),
    },
    AddonImage {
        name: TRAEFIK,
        reference: "landfall.dev/traefik:v3.6.13",
        wanted: |spec| spec.ingress.controller.is_some(),
    },
];

/// The engine of network policies.
pub const KUBE_ROUTER: &str = "kube-router";
/// The ingress controller.
pub const TRAEFIK: &str = "traefik";

/// A container image of an add-on that is part of no node image.
#[derive(Debug, Clone, Copy)]
pub struct AddonImage {
    /// Its name, `[a-z0-9-]+`.
    pub name: &'static str,
    /// Name and tag in pods.
    pub reference: &'static str,
    /// Whether the nodes of a cluster need it.
    pub wanted: fn(&ClusterSpec) -> bool,
}

impl AddonImage {
    /// The image of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        ADDON_IMAGES.iter().find(|image| image.name == name)
    }

    /// Its tag, like `v2.1.0`.
    pub fn tag(&self) -> &'static str {
        self.reference.rsplit_once(':').map_or("latest", |(_, tag)| tag)
    }

    /// The task of a node's agent that brings it onto the node. Another version is another task.
    pub fn task(&self) -> String {
        format!("image-{}-{}", self.name, self.tag().replace('.', "-"))
    }

    /// The label of a node that has it, whichever version: pods that need it go nowhere else.
    pub fn label(&self) -> String {
        format!("landfall.dev/image-{}", self.name)
    }
}

impl ClusterSpec {
    /// The images of add-ons that its nodes need.
    pub fn addon_images(&self) -> impl Iterator<Item = &'static AddonImage> {
        ADDON_IMAGES.iter().filter(|image| (image.wanted)(self))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn images_are_told_apart_by_name_and_by_version() {
        let names: BTreeSet<_> = ADDON_IMAGES.iter().map(|image| image.name).collect();
        assert_eq!(names.len(), ADDON_IMAGES.len());
        for image in ADDON_IMAGES {
            assert_eq!(AddonImage::named(image.name).unwrap().reference, image.reference);
            assert!(image.tag().starts_with('v'));
            // The name of its log as well.
            let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            assert!(image.task().bytes().all(plain), "{}", image.task());
            assert!(image.label().len() < 63);
        }
        assert!(AddonImage::named("coredns").is_none());
    }
}
