//! Machines: what each is for, what is being done with it, and what healing remembers of it.
//!
//! Always true: a record is there before its machine is made and until it is gone; at most one [`Work`] is under way.

use std::{collections::BTreeMap, net::Ipv4Addr};

use ipnet::Ipv4Net;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{HostId, text};

/// A machine that exists, is to exist, or is to go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineRecord {
    /// Format.
    pub v: u32,
    /// Its own identity.
    pub id: String,
    /// Kubernetes version of its image. Of a node for ever; of a control plane machine it changes with an upgrade.
    pub image: String,
    /// Hash (SHA-256, hex) of its one-time token.
    pub token_hash: String,
    /// The one-time token, sealed, so that a repeated creation seeds the same one.
    #[serde(with = "text")]
    pub token_sealed: Vec<u8>,
    /// SHA-256 (hex) of the public key that enrolled with the token. Only that key may repeat the enrolment.
    pub enrolled_key: Option<String>,
    /// Whether the new certificate was used; from then on the token is worthless.
    pub token_used: bool,
    /// The host of the stamp that it is on. Records from before there were several do not say it: on the first.
    #[serde(default = "HostId::first")]
    pub host: HostId,
    /// The cluster it was given to; `None` while it stands by.
    pub assignment: Option<Assignment>,
    /// Whether it is to go.
    pub deleting: bool,
    /// What is being done with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<Work>,
    /// The draining of a node that is replaced; the node is not removed before it is drained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emptying: Option<Emptying>,
    /// Values that its node takes over from the node that it replaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inherited: Option<Inherited>,
    /// What healing remembers of it.
    #[serde(default)]
    pub healing: Healing,
    /// When it was written down.
    pub created_at: Timestamp,
}

impl MachineRecord {
    /// The step of a repair that is to be carried out, and when it was decided.
    pub fn repairing(&self) -> Option<(RepairStep, Timestamp)> {
        self.work.as_ref()?.repair()
    }

    /// Since when it is to be started again with [`Self::image`], and to be seen to serve.
    pub fn upgrading(&self) -> Option<Timestamp> {
        self.work.as_ref()?.upgrade()
    }
}

/// What is being done with a machine: one thing at a time. When it was decided tells it from another of its kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "kind")]
pub enum Work {
    /// A step of a repair is to be carried out.
    Repair {
        /// Which.
        step: RepairStep,
        /// When it was decided.
        since: Timestamp,
        /// The upgrade that it interrupts, by when that was decided: what the machine serves with afterwards is still to be seen.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        upgrade: Option<Timestamp>,
    },
    /// It is to be started again with [`MachineRecord::image`], which was another one before, and to be seen to serve.
    Upgrade {
        /// When it was decided.
        since: Timestamp,
    },
}

impl Work {
    /// What is to be done where these are: a repair comes before an upgrade.
    pub fn of(repair: Option<(RepairStep, Timestamp)>, upgrade: Option<Timestamp>) -> Option<Self> {
        match (repair, upgrade) {
            (Some((step, since)), upgrade) => Some(Self::Repair { step, since, upgrade }),
            (None, Some(since)) => Some(Self::Upgrade { since }),
            (None, None) => None,
        }
    }

    /// The step of a repair that it is, and when it was decided.
    pub fn repair(&self) -> Option<(RepairStep, Timestamp)> {
        match self {
            Self::Repair { step, since, .. } => Some((*step, *since)),
            Self::Upgrade { .. } => None,
        }
    }

    /// When the upgrade was decided that it is or interrupts.
    pub fn upgrade(&self) -> Option<Timestamp> {
        match self {
            Self::Repair { upgrade, .. } => *upgrade,
            Self::Upgrade { since } => Some(*since),
        }
    }
}

/// The draining of a node that is replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Emptying {
    /// The time since which its pods are evicted.
    pub since: Timestamp,
    /// The time when no pod was left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty: Option<Timestamp>,
    /// Set if the node was not drained in time. A later request starts again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_up: Option<GivenUp>,
}

impl Emptying {
    /// A draining that begins now.
    pub fn begun(now: Timestamp) -> Self {
        Self {
            since: now,
            empty: None,
            given_up: None,
        }
    }
}

/// A node that was not drained in time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GivenUp {
    /// The time of this decision.
    pub at: Timestamp,
    /// The generation of the last request for its pool at that time.
    pub generation: u64,
    /// Whether it stays cordoned and is replaced by another node. If not, it takes pods again.
    pub quarantined: bool,
    /// The reason, for people.
    pub why: String,
}

/// Labels, annotations and taints that users had set with kubectl on a replaced node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inherited {
    /// The name of the replaced node.
    pub from: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Taints, `key=value:Effect`.
    pub taints: Vec<String>,
}

/// What healing remembers of a machine: it outlasts the [`Work`] that it decides on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Healing {
    /// The last step.
    #[serde(rename = "rung")]
    pub step: RepairStep,
    /// When it was decided; once it is carried out, when that was.
    pub at: Option<Timestamp>,
    /// How often it was taken in a row.
    pub attempts: u32,
    /// Why, for people.
    pub reason: String,
    /// Why nothing is done at present, for people.
    pub held: Option<String>,
    /// How often each of its processes was restarted: part of its configuration, never forgotten.
    pub restarts: BTreeMap<String, u64>,
    /// How many machines in its place were given up before it.
    pub replaced: u32,
    /// Kept as evidence for this reason: healing leaves it alone.
    pub preserve: Option<String>,
    /// Somebody has turned it off: it stands still, and healing leaves it alone until it is turned on again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub off: bool,
    /// Since when; releases of before did not write that down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub off_since: Option<Timestamp>,
    /// The step that somebody has asked for, beside what healing decides. It is kept until the machine is well again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked: Option<Asked>,
}

/// What somebody asks of a node's machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeOrder {
    /// This step of a repair.
    Repair(RepairStep),
    /// To stand still, its disk as it is.
    Off,
    /// To run again.
    On,
}

/// A step that somebody has asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Which.
    pub step: RepairStep,
    /// When.
    pub at: Timestamp,
}

impl Healing {
    /// The step that somebody has asked for and that nothing was done about yet. A step that was decided since is as good.
    pub fn pending(&self) -> Option<RepairStep> {
        let asked = self.asked.filter(|asked| self.at.is_none_or(|at| at < asked.at));
        asked.map(|asked| asked.step)
    }

    /// Whether the machine is no longer counted on: another one takes its place.
    pub fn given_up(&self) -> bool {
        self.step == RepairStep::Replace
    }
}

/// A step of a repair, gentle ones first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RepairStep {
    /// None was needed.
    #[default]
    None,
    /// A process was started again.
    Restart,
    /// The machine was started again.
    Reboot,
    /// It was made anew under its own name.
    Reimage,
    /// Another machine takes its place.
    Replace,
}

/// What a machine is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Assignment {
    /// The cluster's uid.
    pub cluster: String,
    /// Its role.
    pub role: Role,
}

/// A machine's role in its cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Role {
    /// Runs etcd, API server, controller manager, scheduler.
    ControlPlane {
        /// Its number among all members of the cluster, from 0; a free one is used again. Its address in the
        /// control plane's subnet follows from it.
        index: u32,
        /// Its address in the stamp's network. Unspecified in records from before members had leases of their own: then it
        /// is [`crate::ObservedRecord::control_plane_address`].
        #[serde(default = "unspecified")]
        address: Ipv4Addr,
    },
    /// Runs kubelet, containerd, kube-proxy.
    Node {
        /// Pool name.
        pool: String,
        /// The pool's incarnation.
        incarnation: String,
        /// Number in the pool, from 0; never used again while the pool lives… the lowest free one is taken.
        index: u32,
        /// Kubernetes node name, `aks-{pool}-{hash}-vmss{index in base 36, 6 digits}`.
        node_name: String,
        /// Its address in the nodes' subnet.
        address: Ipv4Addr,
        /// Its pods' range (kubenet, overlay), or the block of the subnet that its pods use (flat).
        pod_range: Option<Ipv4Net>,
    },
}

fn unspecified() -> Ipv4Addr {
    Ipv4Addr::UNSPECIFIED
}
