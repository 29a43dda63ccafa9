//! The state of the world.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
    time::Duration,
};

use agent_protocol::{MachineConfig, programs::EtcdStatus};
use base_env::Clock;
use fabric_api::{KeptDisk, MachineId, MachineSpec, NetworkId, NetworkSpec, Power, VolumeId, VolumeSpec};
use machine_etcd::decide::Marker;
use serde_json::Value;
use tokio::sync::{Notify, watch};

use crate::{
    ailments::{Ailment, Cure},
    backup::Past,
    enrolment::{self, Identity, Service, Tied},
    etcd::Etcd,
    faults::Faults,
    node::Node,
    vip::{Address, Vip},
};

#[derive(Default)]
pub(crate) struct State {
    /// Whether the stamp's network exists.
    pub(crate) stamp: bool,
    pub(crate) networks: BTreeMap<NetworkId, NetworkSpec>,
    pub(crate) machines: BTreeMap<String, Machine>,
    /// Disks that are kept of machines that were made anew.
    pub(crate) kept_disks: BTreeSet<KeptDisk>,
    /// Volumes that machines may have.
    pub(crate) disks: BTreeMap<VolumeId, Disk>,
    /// Volumes that were deleted with data.
    pub(crate) deleted_disks: BTreeSet<VolumeId>,
    /// Number of starts of each machine. Kept by id: a machine that is created again continues the count.
    pub(crate) boots: BTreeMap<String, u64>,
    /// Machines by the cluster in their label: avoids a search of a world of thousands for each of them.
    pub(crate) members: BTreeMap<String, BTreeSet<String>>,
    /// Owners of addresses, by network.
    pub(crate) taken: BTreeMap<(String, Ipv4Addr), BTreeSet<String>>,
    pub(crate) clusters: BTreeMap<String, Cluster>,
    /// Images of add-ons that were asked for, and when each is built: by the clock without a date.
    pub(crate) addon_images: BTreeMap<String, Duration>,
    /// The service, if there is one.
    pub(crate) service: Option<Service>,
    /// Ailments of machines, with the least action that cures each. Kept by id: some outlive the machine.
    pub(crate) ailments: BTreeMap<String, BTreeMap<Ailment, Cure>>,
    pub(crate) faults: Faults,
    pub(crate) violations: Vec<String>,
    /// The clock of the clusters' backups, if there are any.
    pub(crate) backups: Option<Arc<dyn Clock>>,
}

/// A volume of the fabric.
pub(crate) struct Disk {
    /// The latest specification, with its actual size.
    pub(crate) spec: VolumeSpec,
    /// The machine it is attached to. That machine may no longer exist.
    pub(crate) attached: Option<MachineId>,
    /// Whether it is a share that machines can mount.
    pub(crate) open: bool,
    /// Whether it is in use in that machine, as set by a test.
    pub(crate) used: bool,
    /// Whether it may hold data: it was attached, or is a copy of such a volume.
    pub(crate) written: bool,
}

pub(crate) struct Machine {
    pub(crate) spec: MachineSpec,
    /// The hash of the specification; `None` while the metadata is damaged.
    pub(crate) hash: Option<String>,
    pub(crate) power: Power,
    /// The latest of its [`State::boots`]: delayed actions of an earlier boot are dropped.
    pub(crate) boot: u64,
    /// Whether the agent runs and has reported.
    pub(crate) up: bool,
    /// The configuration on the agent's disk.
    pub(crate) in_force: Option<Arc<MachineConfig>>,
    /// Whether all processes are ready.
    pub(crate) ready: bool,
    /// Of a control plane machine: the etcd cluster whose data is on its disk.
    pub(crate) data: Option<u64>,
    /// The record beside that data, which outlives it.
    pub(crate) marker: Marker,
    /// Whether its etcd runs with that data. Its other processes may be restarting.
    pub(crate) etcd_runs: bool,
    /// The last status of its etcd; none before it has checked its disk.
    pub(crate) etcd: Option<EtcdStatus>,
    /// Whether the kubelet of this start has made its node object: it does so once.
    pub(crate) registered: bool,
    /// The VIP program's state, if it is configured.
    pub(crate) vip: Option<Vip>,
    pub(crate) sequence: u64,
    /// The enrolment token in its seed; empty without one.
    pub(crate) token: String,
    /// The identity on its disk since its enrolment started.
    pub(crate) identity: Option<Identity>,
    /// The connection to the service, while it is reachable.
    pub(crate) line: Option<Tied>,
    /// Signals a change to report.
    pub(crate) wake: Arc<Notify>,
}

impl Machine {
    /// A machine with only a specification.
    pub(crate) fn new(mut spec: MachineSpec, hash: String) -> Self {
        let seed_files = std::mem::take(&mut spec.seed_files);
        Self {
            spec,
            hash: Some(hash),
            power: Power::Partial,
            boot: 0,
            up: false,
            in_force: None,
            ready: false,
            data: None,
            marker: Marker::default(),
            etcd_runs: false,
            etcd: None,
            registered: false,
            vip: None,
            sequence: 0,
            token: enrolment::token(&seed_files).unwrap_or_default(),
            identity: None,
            line: None,
            wake: Arc::default(),
        }
    }

    fn label(&self, name: &str) -> Option<&str> {
        self.spec.labels.get(name).map(String::as_str)
    }

    pub(crate) fn cluster(&self) -> Option<&str> {
        self.label("cluster")
    }

    pub(crate) fn is_control_plane_of(&self, cluster: &str) -> bool {
        self.cluster() == Some(cluster) && self.label("role") == Some("control-plane")
    }

    /// The name of its node, if it belongs to this cluster.
    pub(crate) fn node_of(&self, cluster: &str) -> Option<&str> {
        let is_node = self.cluster() == Some(cluster) && self.label("role") == Some("node");
        is_node.then(|| self.label("node").unwrap_or(&self.spec.hostname))
    }

    /// Whether it runs with a configuration of this role in force.
    pub(crate) fn serves_as(&self, role: &str) -> bool {
        self.power == Power::Running
            && self.up
            && self.in_force.as_ref().is_some_and(|config| config.role == role)
    }

    pub(crate) fn address(&self) -> Option<Ipv4Addr> {
        self.spec.nics.first().map(|card| card.address.addr())
    }
}

/// The content of a cluster.
pub(crate) struct Cluster {
    pub(crate) nodes: BTreeMap<String, Node>,
    /// By `{apiVersion}/{kind} {namespace}/{name}`.
    pub(crate) objects: BTreeMap<String, Value>,
    pub(crate) stalled: bool,
    pub(crate) etcd: Etcd,
    pub(crate) address: Address,
    pub(crate) changes: watch::Sender<u64>,
    pub(crate) past: Option<Past>,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            nodes: BTreeMap::new(),
            objects: BTreeMap::new(),
            stalled: false,
            etcd: Etcd::default(),
            address: Address::default(),
            changes: watch::Sender::new(0),
            past: None,
        }
    }
}

impl Cluster {
    /// Wakes watchers, and records the state in the backup.
    pub(crate) fn changed(&mut self) {
        if let Some(past) = &mut self.past {
            past.keep(&self.nodes, &self.objects);
        }
        self.changes.send_modify(|count| *count += 1);
    }
}

impl State {
    /// The cluster, created empty on first use.
    pub(crate) fn cluster(&mut self, uid: &str) -> &mut Cluster {
        let backups = &self.backups;
        self.clusters.entry(uid.to_owned()).or_insert_with(|| Cluster {
            past: backups.as_ref().map(|clock| Past::new(Arc::clone(clock))),
            ..Cluster::default()
        })
    }

    /// Updates the membership list after a change of a machine's cluster label.
    pub(crate) fn enlist(&mut self, machine: &str, before: Option<&str>, now: Option<&str>) {
        if before == now {
            return;
        }
        if let Some(before) = before
            && let Some(members) = self.members.get_mut(before)
        {
            members.remove(machine);
            if members.is_empty() {
                self.members.remove(before);
            }
        }
        if let Some(now) = now {
            self.members
                .entry(now.to_owned())
                .or_default()
                .insert(machine.to_owned());
        }
    }

    pub(crate) fn api_ready(&self, uid: &str) -> bool {
        if self.clusters.get(uid).is_some_and(|cluster| cluster.stalled) {
            return false;
        }
        self.at_vip(uid)
            .is_some_and(|machine| self.serves_api(uid, machine.spec.id.as_str()))
    }
}
