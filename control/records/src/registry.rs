//! Registries of container images.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::SystemData;

/// A registry of container images, at `/registries/{s}/{group}/{name}` in lower case. Its images are files of the service's, in a directory
/// that is called by `uid`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegistryRecord {
    /// Format.
    pub v: u32,
    /// Its identity over its life, `[0-9a-v]{10}`; one made anew under the same name gets another, and none of the images.
    pub uid: String,
    /// GUID of the subscription.
    pub subscription: String,
    /// Group, as in the request that made it.
    pub resource_group: String,
    /// Name, lower case: unique in the stamp.
    pub name: String,
    /// Region.
    pub location: String,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// How much it may hold.
    pub sku: RegistrySku,
    /// Who made and last changed it.
    pub system_data: SystemData,
}

/// The length of registries' names.
pub const REGISTRY_NAME_LENGTH: std::ops::RangeInclusive<usize> = 5..=50;
/// Names that are first segments of other paths of the stamp's endpoint.
pub const RESERVED_REGISTRY_NAMES: &[&str] = &[
    "common",
    "graph",
    "healthz",
    "metadata",
    "oauth2",
    "organizations",
    "providers",
    "readyz",
    "subscriptions",
];

/// Whether a registry may have this name: 5 to 50 ASCII letters and digits that begin no other path of the stamp's endpoint.
pub fn is_registry_name(name: &str) -> bool {
    REGISTRY_NAME_LENGTH.contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && !RESERVED_REGISTRY_NAMES
            .iter()
            .any(|reserved| reserved.eq_ignore_ascii_case(name))
}

/// The tiers of registries, in Azure's names. Here they differ in how much a registry holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RegistrySku {
    /// 10 GiB.
    Basic,
    /// 100 GiB.
    Standard,
    /// 500 GiB.
    Premium,
}

impl RegistrySku {
    /// All of them, the smallest first.
    pub const ALL: [Self; 3] = [Self::Basic, Self::Standard, Self::Premium];

    /// As ARM names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Basic => "Basic",
            Self::Standard => "Standard",
            Self::Premium => "Premium",
        }
    }

    /// The tier of this name; case is ignored.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|sku| sku.as_str().eq_ignore_ascii_case(name))
    }

    /// The bytes of images that a registry may hold. The figures are those of the storage that Azure includes in each tier.
    pub fn bytes(self) -> u64 {
        const GIB: u64 = 1 << 30;
        match self {
            Self::Basic => 10 * GIB,
            Self::Standard => 100 * GIB,
            Self::Premium => 500 * GIB,
        }
    }
}

/// Whose a name is, at `/registry-names/{name}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegistryNameRecord {
    /// Format.
    pub v: u32,
    /// The key of the registry.
    pub registry: String,
}

/// That a registry was deleted and its images are to go, at `/removed-registries/{uid}`: written in the transaction that deletes it, and removed
/// after them. Images of which neither this nor a registry tells are kept: the store may be older than they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RemovedRegistryRecord {
    /// Format.
    pub v: u32,
    /// Name of the registry, for people.
    pub name: String,
    /// When it was deleted.
    pub removed_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_larger_tier_holds_more() {
        for pair in RegistrySku::ALL.windows(2) {
            assert!(pair[0].bytes() < pair[1].bytes());
        }
        assert_eq!(RegistrySku::named("PREMIUM"), Some(RegistrySku::Premium));
        assert_eq!(RegistrySku::named("Classic"), None);
    }

    #[test]
    fn a_name_is_a_part_of_references_and_of_no_other_path() {
        for (name, valid) in [
            ("acme1", true),
            ("Acme1", true),
            ("acme", false),
            ("ac-me", false),
            ("ac.me", false),
            ("subscriptions", false),
            ("GRAPH", false),
            (&"a".repeat(50), true),
            (&"a".repeat(51), false),
        ] {
            assert_eq!(is_registry_name(name), valid, "{name}");
        }
    }
}
