//! A managed namespace: what is to be in a cluster under its name, what becomes of a Namespace that is there already, and what becomes of it
//! when it is not managed any more.
//!
//! As JSON it has the names of ARM's `NamespaceProperties`, so that a body is read into it and an answer made from it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NamespaceSpec {
    /// Labels of the Namespace.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the Namespace.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// How much its pods may ask for together; `None`: as much as there is.
    #[serde(rename = "defaultResourceQuota", skip_serializing_if = "Option::is_none")]
    pub quota: Option<NamespaceQuota>,
    /// Who its pods may speak with; `None`: everybody.
    #[serde(rename = "defaultNetworkPolicy", skip_serializing_if = "Option::is_none")]
    pub network: Option<NamespaceNetwork>,
    /// What becomes of a Namespace of this name that is there already.
    #[serde(rename = "adoptionPolicy")]
    pub adoption: AdoptionPolicy,
    /// What becomes of the Namespace when it is not managed any more.
    #[serde(rename = "deletePolicy")]
    pub deletion: DeletePolicy,
}

/// The sums of a namespace's pods, Kubernetes quantities (`500m`, `2Gi`).
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NamespaceQuota {
    /// Of requested processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_request: Option<String>,
    /// Of processor limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_limit: Option<String>,
    /// Of requested memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_request: Option<String>,
    /// Of memory limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit: Option<String>,
}

/// Who the pods of a namespace may speak with. As the Azure CLI has it where nothing is said: ingress from the same namespace, all egress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NamespaceNetwork {
    /// Who may reach them.
    pub ingress: NetworkRule,
    /// Whom they may reach.
    pub egress: NetworkRule,
}

impl Default for NamespaceNetwork {
    fn default() -> Self {
        Self {
            ingress: NetworkRule::AllowSameNamespace,
            egress: NetworkRule::AllowAll,
        }
    }
}

/// One direction of a [`NamespaceNetwork`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum NetworkRule {
    /// Nobody.
    DenyAll,
    /// Everybody.
    AllowAll,
    /// Pods of the same namespace.
    AllowSameNamespace,
}

/// What becomes of a Namespace that is there already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum AdoptionPolicy {
    /// It stays as it is, and the request fails.
    #[default]
    Never,
    /// It is taken over where it differs in nothing, else the request fails.
    IfIdentical,
    /// It is taken over, and what differs is overwritten.
    Always,
}

/// What becomes of a Namespace that is not managed any more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DeletePolicy {
    /// It stays, with what is in it.
    #[default]
    Keep,
    /// It goes, and what is in it.
    Delete,
}
