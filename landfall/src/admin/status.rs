//! A stamp's state, as the service reports it and the commands show it.

use std::{collections::BTreeMap, net::Ipv4Addr};

use control_records::planned::{Paused, Waiting};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use service::store_copies::StoreStatus;

/// A stamp, as its service reports it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StampStatus {
    pub(crate) name: String,
    pub(crate) service: ServiceStatus,
    pub(crate) arm_url: String,
    /// The protocol of logins that is announced to clients: `aad` or `adfs`.
    #[serde(default)]
    pub(crate) identity: String,
    /// GUID of the tenant that they log in to.
    #[serde(default)]
    pub(crate) tenant: String,
    pub(crate) range: String,
    pub(crate) uplink: String,
    pub(crate) clusters: Vec<ClusterStatus>,
    /// Node images that are being built because a cluster needs them, with the current step.
    pub(crate) image_builds: BTreeMap<String, String>,
    /// The store and its newest copy.
    #[serde(default)]
    pub(crate) store: Option<StoreStatus>,
    /// Machines, networks, volumes and backups without a record in the store.
    #[serde(default)]
    pub(crate) unknown: Vec<control_records::unknown::UnknownRecord>,
    /// Since when and why planned work is held up, if it is.
    #[serde(default)]
    pub(crate) paused: Option<Paused>,
    /// All machines, those of a cluster together.
    pub(crate) machines: Vec<MachineStatus>,
}

impl StampStatus {
    /// A cluster's machines.
    pub(crate) fn machines_of<'a>(
        &'a self,
        cluster: &'a ClusterStatus,
    ) -> impl Iterator<Item = &'a MachineStatus> {
        self.machines
            .iter()
            .filter(|machine| machine.cluster_uid.as_deref() == Some(cluster.uid.as_str()))
    }
}

/// A certificate or key of the stamp or of a cluster.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct InventoryItem {
    /// Its cluster's group; empty for the stamp.
    pub(crate) resource_group: String,
    /// Its cluster; empty for the stamp.
    pub(crate) cluster: String,
    /// A [`cluster_pki::inventory::Item`].
    #[serde(flatten)]
    pub(crate) item: serde_json::Value,
}

/// A credential under a support ticket.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HandedOut {
    /// Its id.
    pub(crate) credential: String,
    pub(crate) expires_at: Timestamp,
    /// Whether the cluster takes it already.
    pub(crate) granted: bool,
    /// The kubeconfig with it, a secret.
    pub(crate) kubeconfig: String,
}

/// The process that runs the stamp.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServiceStatus {
    pub(crate) version: String,
    pub(crate) pid: u32,
    pub(crate) started_at: Timestamp,
    /// Its resident memory, KiB.
    pub(crate) rss_kib: u64,
    /// Faults of the service itself since it started: tasks that panicked.
    #[serde(default)]
    pub(crate) panics: u64,
}

/// A cluster.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClusterStatus {
    pub(crate) resource_group: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    /// As in ARM: Succeeded, Creating, Updating, Deleting.
    pub(crate) state: String,
    /// Whether it is stopped: none of its machines is to run.
    #[serde(default)]
    pub(crate) stopped: bool,
    /// Whether its local accounts are disabled.
    #[serde(default)]
    pub(crate) local_accounts_disabled: bool,
    pub(crate) kubernetes_version: String,
    pub(crate) vip: Option<Ipv4Addr>,
    pub(crate) nodes_ready: u32,
    pub(crate) nodes_wanted: u32,
    /// Steps that the user has to do before nodes are Ready.
    #[serde(default)]
    pub(crate) hint: Option<String>,
    /// The current step, for people.
    pub(crate) step: String,
    /// Requests that have not ended, oldest first.
    #[serde(default)]
    pub(crate) operations: Vec<OperationStatus>,
    /// The last problem, for people.
    pub(crate) problem: Option<String>,
    /// Planned work of it that waits.
    #[serde(default)]
    pub(crate) waits: Vec<Waiting>,
    /// How far the service's copy of its etcd is; `None` while no machine reports that it ships.
    #[serde(default)]
    pub(crate) backup: Option<BackupLag>,
    pub(crate) created_at: Timestamp,
    pub(crate) milestones: BTreeMap<String, Timestamp>,
}

/// The progress of the continuous backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BackupLag {
    /// Age of the oldest change that the service does not have.
    pub(crate) behind_seconds: u64,
    /// The reason of a lack of progress.
    pub(crate) problem: Option<String>,
}

/// A request that has not ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OperationStatus {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) pool: Option<String>,
    pub(crate) percent: u32,
    pub(crate) step: String,
    pub(crate) started_at: Timestamp,
}

/// A machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MachineStatus {
    pub(crate) id: String,
    /// Its cluster's name; `None` for a standby machine.
    pub(crate) cluster: Option<String>,
    pub(crate) cluster_uid: Option<String>,
    /// The node's name, or `control-plane-0`.
    pub(crate) name: String,
    /// `control plane` or `node`.
    pub(crate) role: String,
    pub(crate) pool: Option<String>,
    pub(crate) address: Option<Ipv4Addr>,
    /// `running`, `stopped`, `partial` or `absent`.
    pub(crate) power: String,
    pub(crate) deleting: bool,
    /// Earlier disks of it, with a database, that are kept: their names, oldest first.
    #[serde(default)]
    pub(crate) kept_disks: Vec<String>,
    /// Whether its agent reported since the service started.
    pub(crate) in_contact: bool,
    /// The machine's boot id, different after each start, as its agent last reported it.
    #[serde(default)]
    pub(crate) boot: Option<String>,
    pub(crate) agent_rss_kib: Option<u64>,
    pub(crate) config_error: Option<String>,
    pub(crate) processes: Vec<ProcessStatus>,
}

impl MachineStatus {
    /// The first problem of the stamp.
    pub(crate) fn complaint(&self) -> Option<String> {
        if self.power != "running" {
            return Some(format!("is {}", self.power));
        }
        if !self.in_contact {
            return Some("its agent has not called yet".into());
        }
        if let Some(error) = &self.config_error {
            return Some(error.clone());
        }
        let kept = || {
            let (disks, are) = match self.kept_disks.len() {
                1 => ("disk", "is"),
                _ => ("disks", "are"),
            };
            let places: Vec<String> = self
                .kept_disks
                .iter()
                .map(|disk| format!("fabric/kept/{disk}"))
                .collect();
            format!(
                "was made anew; its earlier {disks} {are} kept in {} below the stamp's files until it has served for ten minutes",
                places.join(", ")
            )
        };
        let Some(bad) = self.processes.iter().find(|process| process.state != "ready") else {
            return (!self.kept_disks.is_empty()).then(kept);
        };
        let exit = bad
            .last_exit
            .as_deref()
            .map(|exit| format!(", last ended with {exit}"))
            .unwrap_or_default();
        Some(format!("{} is {}{exit}", bad.name, bad.state))
    }
}

/// A process of a machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProcessStatus {
    pub(crate) name: String,
    /// `starting`, `ready`, `unready`, `backOff` or `stopped`.
    pub(crate) state: String,
    pub(crate) restarts: u32,
    pub(crate) last_exit: Option<String>,
    pub(crate) last_lines: Vec<String>,
}
