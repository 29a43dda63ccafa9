//! What the world consists of.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};

use agent_protocol::{MachineConfig, programs::EtcdStatus};
use base_env::Clock;
use fabric_api::{MachineId, MachineSpec, NetworkId, NetworkSpec, Power, VolumeId, VolumeSpec};
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
    /// Whether the stamp's network is there.
    pub(crate) stamp: bool,
    pub(crate) networks: BTreeMap<NetworkId, NetworkSpec>,
    pub(crate) machines: BTreeMap<String, Machine>,
    /// Machines of which an earlier disk is kept.
    pub(crate) kept_disks: BTreeSet<String>,
    /// Volumes that machines may have.
    pub(crate) disks: BTreeMap<VolumeId, Disk>,
    /// Volumes that were deleted with something on them.
    pub(crate) deleted_disks: BTreeSet<VolumeId>,
    /// How often each machine was started. Kept by id: one that is made anew under its own name begins no boot of before.
    pub(crate) boots: BTreeMap<String, u64>,
    /// Machines by the cluster in their label: a world of thousands must not be walked through for each of them.
    pub(crate) members: BTreeMap<String, BTreeSet<String>>,
    /// Who has an address, by place.
    pub(crate) taken: BTreeMap<(String, Ipv4Addr), BTreeSet<String>>,
    pub(crate) clusters: BTreeMap<String, Cluster>,
    /// The service, while there is one.
    pub(crate) service: Option<Service>,
    /// What machines suffer from, with the least that cures it. Kept by id: some of it outlives the machine.
    pub(crate) ailments: BTreeMap<String, BTreeMap<Ailment, Cure>>,
    pub(crate) faults: Faults,
    pub(crate) violations: Vec<String>,
    /// Tells the time to the clusters' backups, where there are any.
    pub(crate) backups: Option<Arc<dyn Clock>>,
}

/// A volume as the fabric has it.
pub(crate) struct Disk {
    /// As it was asked for last; with the size that it has.
    pub(crate) spec: VolumeSpec,
    /// The machine that has it. There may be no such machine any more.
    pub(crate) attached: Option<MachineId>,
    /// Whether it is a share and machines find it.
    pub(crate) open: bool,
    /// Whether something in that machine uses it, as a test says.
    pub(crate) used: bool,
    /// Whether there may be something on it: a machine had it, or it is a copy of such a one.
    pub(crate) written: bool,
}

pub(crate) struct Machine {
    pub(crate) spec: MachineSpec,
    /// Of the specification; `None` while the metadata is damaged.
    pub(crate) hash: Option<String>,
    pub(crate) power: Power,
    /// The last of its [`State::boots`]: what was set in motion for an earlier one means nothing any more.
    pub(crate) boot: u64,
    /// Whether the agent runs and has reported.
    pub(crate) up: bool,
    /// What the agent has on disk.
    pub(crate) in_force: Option<Arc<MachineConfig>>,
    /// Whether all processes are ready.
    pub(crate) ready: bool,
    /// Of a control plane machine: which etcd cluster's data is on its disk.
    pub(crate) data: Option<u64>,
    /// What is kept beside that data, and stays when it goes.
    pub(crate) marker: Marker,
    /// Whether its etcd runs with that data. Its other processes may be starting again meanwhile.
    pub(crate) etcd_runs: bool,
    /// What its etcd said of itself last; it says nothing before it has looked at its disk.
    pub(crate) etcd: Option<EtcdStatus>,
    /// Whether the kubelet of this start has made its node object: it does so once.
    pub(crate) registered: bool,
    /// What holds the cluster's address with the others, where that is wanted.
    pub(crate) vip: Option<Vip>,
    pub(crate) sequence: u64,
    /// What it was born with to enrol; empty if with nothing.
    pub(crate) token: String,
    /// What it has on disk since it enrolled, or began to.
    pub(crate) identity: Option<Identity>,
    /// To the service, while it can be reached.
    pub(crate) line: Option<Tied>,
    /// There is something to report.
    pub(crate) wake: Arc<Notify>,
}

impl Machine {
    /// One of which only the specification is there.
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

    /// The name of the node it is, if it is one of this cluster.
    pub(crate) fn node_of(&self, cluster: &str) -> Option<&str> {
        let is_node = self.cluster() == Some(cluster) && self.label("role") == Some("node");
        is_node.then(|| self.label("node").unwrap_or(&self.spec.hostname))
    }

    /// Runs, and its configuration of this role is in force.
    pub(crate) fn serves_as(&self, role: &str) -> bool {
        self.power == Power::Running
            && self.up
            && self.in_force.as_ref().is_some_and(|config| config.role == role)
    }

    pub(crate) fn address(&self) -> Option<Ipv4Addr> {
        self.spec.nics.first().map(|card| card.address.addr())
    }
}

/// What a cluster holds.
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
    /// Wakes whoever watches, and is backed up.
    pub(crate) fn changed(&mut self) {
        if let Some(past) = &mut self.past {
            past.keep(&self.nodes, &self.objects);
        }
        self.changes.send_modify(|count| *count += 1);
    }
}

impl State {
    /// The cluster, which is empty before it is first spoken of.
    pub(crate) fn cluster(&mut self, uid: &str) -> &mut Cluster {
        let backups = &self.backups;
        self.clusters.entry(uid.to_owned()).or_insert_with(|| Cluster {
            past: backups.as_ref().map(|clock| Past::new(Arc::clone(clock))),
            ..Cluster::default()
        })
    }

    /// Notes that a machine's labels have it in this cluster, and in no other.
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
