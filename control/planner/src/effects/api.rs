//! Effects on a cluster by way of its API.

use std::collections::BTreeSet;

use cluster_api::{NamespaceWish, ServiceWish, VolumeWish, WorkNotes};

use super::{credentials::CredentialsWish, subject::Subject};
use crate::Permit;

/// An effect on what a cluster's API holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ApiEffect {
    /// See whether the API server is ready, and its nodes.
    Look,
    /// Bring a node object's labels, taints and pod range to what they should be.
    SetNode {
        /// Whose node.
        machine: String,
        /// The node.
        node: String,
        /// The images of add-ons that it has.
        images: BTreeSet<String>,
        /// [`crate::wish_inputs`] it is computed from.
        inputs: String,
    },
    /// Approve the serving certificates of the cluster's nodes.
    ApproveServing,
    /// Apply the add-ons.
    ApplyAddons {
        /// The images of add-ons that nodes can have.
        images: BTreeSet<String>,
        /// [`crate::addons_inputs`] they are computed from.
        inputs: String,
    },
    /// Make credentials work, and others not any more.
    SetCredentials(CredentialsWish),
    /// Cordon a node and evict its pods once.
    Drain {
        /// Whose node.
        machine: Permit,
        /// The node.
        node: String,
    },
    /// Remove a node object.
    DeleteNode(String),
    /// Take a command one step further: run it, see how far it is, write down what came of it, remove what it left.
    Command(String),
    /// Write to a Service what becomes of its load balancer.
    SetService(ServiceWish),
    /// Write to an object that has to do with a volume.
    SetVolume(VolumeWish),
    /// Read the cluster's pods and nodes for the autoscaler.
    LookAtWork,
    /// Write the autoscaler's status and events.
    TellWork(WorkNotes),
    /// Bring a managed namespace to what it is to be.
    SetNamespace(NamespaceWish),
}

impl ApiEffect {
    /// What it concerns.
    pub fn subject(&self) -> Subject {
        match self {
            Self::Look => Subject::Api,
            Self::SetNode { node, .. } | Self::Drain { node, .. } | Self::DeleteNode(node) => {
                Subject::Node(node.clone())
            }
            Self::ApproveServing => Subject::Serving,
            Self::ApplyAddons { .. } => Subject::Addons,
            Self::SetCredentials(_) => Subject::Credentials,
            Self::Command(id) => Subject::Command(id.clone()),
            Self::SetService(wish) => Subject::Service(wish.uid.clone()),
            Self::SetVolume(wish) => Subject::VolumeObject(wish.object()),
            Self::LookAtWork => Subject::Work,
            Self::TellWork(_) => Subject::WorkNotes,
            Self::SetNamespace(wish) => Subject::Namespace(wish.name.clone()),
        }
    }
}
