//! Parts of a cluster's networking.

use std::collections::BTreeSet;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// What enforces NetworkPolicies (`networkPolicy`). The same engine does, whichever name it was asked for by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NetworkPolicy {
    /// Nothing of Landfall's.
    #[default]
    None,
    /// `azure`.
    Azure,
    /// `calico`.
    Calico,
}

impl NetworkPolicy {
    /// Whether there is no engine.
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }

    /// Whether there is one.
    pub fn is_enforced(self) -> bool {
        !self.is_none()
    }

    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Azure => "azure",
            Self::Calico => "calico",
        }
    }
}

/// The parts of a tenant's VNET that a cluster with nodes in it depends on. They do not change while it has
/// nodes there, except that subnets are added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TenantVnet {
    /// Its identity.
    pub uid: String,
    /// Its address space.
    pub space: Vec<Ipv4Net>,
    /// Ranges of the subnets that pools of the cluster use or have used, in order.
    pub subnets: BTreeSet<Ipv4Net>,
}
