//! A world without machines: fabric, agents and clusters simulated in one process, in virtual time.
//!
//! Owns the state that the real world would own: machines and their power, the disks of their agents, volumes
//! and their attachments, nodes and objects of clusters. The service under test comes and goes; the world
//! stays ([`SimWorld::agents`], [`SimWorld::lose_service`]).
//!
//! Always true: only calls and the given clock cause changes; every delay and every random choice is drawn
//! from the seed by the name of its purpose, so that the same seed gives the same history, and one more
//! machine changes nothing for the others. A cluster's data is on its control plane machines: with the last
//! of them its nodes and objects are gone. The cluster and node of a machine are read from its labels
//! `cluster`, `role` (`control-plane` or `node`) and `node` (else its host name).
//!
//! Called by: tests, scenarios and benches, in place of `fabric/container`, `agent/hub` and `cluster/client`.
//! The sessions that agents connect to are the real ones.

mod adverts;
mod agents;
mod ailments;
mod backup;
mod clusters;
mod condition;
mod contact;
mod disks;
mod dump;
mod enrolment;
mod etcd;
mod fabric;
mod faults;
mod interceptor;
mod membership;
mod namespaces;
mod node;
mod options;
mod pods;
mod services;
mod state;
mod violations;
mod vip;
mod volumes;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use base_env::Env;
use cluster_api::{Connect, NodeSeen};
use fabric_api::{Fabric, KeptDisk, MachineId, MachineSeen, MachineSpec, NetworkSpec, Power};
use serde_json::Value;

pub use ailments::{Ailment, Cure};
pub use faults::{Call, Tally, Verdict};
pub use interceptor::Interceptor;
pub use options::{SimOptions, Span};
pub use services::Planted;
use state::State;
pub use volumes::PlantedClaim;

/// The world. Cheap to clone: all clones are the same world. Its calls and their consequences need a tokio
/// runtime, with paused time if the clock is virtual.
#[derive(Clone)]
pub struct SimWorld {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) env: Env,
    pub(crate) options: SimOptions,
    state: Mutex<State>,
    /// The hook before every call, if set.
    interceptor: Mutex<Option<Arc<dyn Interceptor>>>,
}

impl SimWorld {
    /// An empty world.
    pub fn new(env: Env, options: SimOptions) -> Self {
        let state = State {
            backups: options.backup.then(|| Arc::clone(&env.clock)),
            ..State::default()
        };
        Self {
            inner: Arc::new(Inner {
                env,
                options,
                state: Mutex::new(state),
                interceptor: Mutex::default(),
            }),
        }
    }

    /// The world as a fabric.
    pub fn fabric(&self) -> Arc<dyn Fabric> {
        Arc::new(self.clone())
    }

    /// The connections to the world's clusters.
    pub fn clusters(&self) -> Arc<dyn Connect> {
        Arc::new(self.clone())
    }

    /// The next `times` calls of this kind fail without effect.
    pub fn fail_next(&self, call: Call, times: u32) {
        self.inner.state().faults.before(call, times);
    }

    /// The next `times` calls of this kind have their effect, and then the answer is lost.
    pub fn lose_answer(&self, call: Call, times: u32) {
        self.inner.state().faults.after(call, times);
    }

    /// The next `times` machine starts fail: their agents stay silent.
    pub fn fail_boots(&self, times: u32) {
        self.inner.state().faults.boots += times;
    }

    /// Sets a hook before every call of the service.
    pub fn set_interceptor(&self, interceptor: Arc<dyn Interceptor>) {
        *self
            .inner
            .interceptor
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(interceptor);
    }

    /// Gives a machine an ailment with its cure. `false` when the machine does not exist.
    pub fn ail(&self, machine: &MachineId, ailment: Ailment, cure: Cure) -> bool {
        self.inner.ail(machine, ailment, cure)
    }

    /// A machine's disk loses the enrolled key, and nothing else. `false` when the machine does not exist.
    pub fn lose_key(&self, machine: &MachineId) -> bool {
        self.inner.lose_key(machine.as_str())
    }

    /// Machines with ailments.
    pub fn ailing(&self) -> Vec<(MachineId, Vec<Ailment>)> {
        let state = self.inner.state();
        let there = state
            .ailments
            .iter()
            .filter(|(id, _)| state.machines.contains_key(*id));
        there
            .map(|(id, ailments)| (MachineId(id.clone()), ailments.keys().cloned().collect()))
            .collect()
    }

    /// Removes all ailments, stalled APIs answer again, and no more calls fail.
    pub fn heal(&self) {
        let stalled: Vec<String> = {
            let mut state = self.inner.state();
            state.faults.forget();
            let stalled = state.clusters.iter().filter(|(_, cluster)| cluster.stalled);
            stalled.map(|(uid, _)| uid.clone()).collect()
        };
        for uid in stalled {
            self.inner.stall(&uid, false);
        }
        self.inner.heal();
    }

    /// All machines, with their host names and labels, in order of their ids.
    pub fn machines(&self) -> Vec<MachineSeen> {
        self.inner.state().machines.values().map(fabric::seen).collect()
    }

    /// By machine: the version of the image of its last start.
    pub fn images(&self) -> BTreeMap<String, String> {
        let state = self.inner.state();
        let machines = state.machines.iter();
        machines
            .map(|(id, machine)| (id.clone(), machine.spec.image.clone()))
            .collect()
    }

    /// The nodes of a cluster, as it has them.
    pub fn nodes(&self, cluster: &str) -> Vec<NodeSeen> {
        let state = self.inner.state();
        let cluster = state.clusters.get(cluster);
        cluster.map_or_else(Vec::new, |cluster| {
            cluster.nodes.values().map(|node| node.seen.clone()).collect()
        })
    }

    /// All networks.
    pub fn networks(&self) -> Vec<NetworkSpec> {
        self.inner.state().networks.values().cloned().collect()
    }

    /// The host name of a machine.
    pub fn hostname(&self, machine: &MachineId) -> Option<String> {
        let state = self.inner.state();
        let machine = state.machines.get(machine.as_str())?;
        Some(machine.spec.hostname.clone())
    }

    /// Nodes of a cluster whose kubelets wait for a serving certificate.
    pub fn pending_serving(&self, cluster: &str) -> usize {
        let state = self.inner.state();
        let cluster = state.clusters.get(cluster);
        cluster.map_or(0, |cluster| {
            cluster.nodes.values().filter(|node| node.serving_pending).count()
        })
    }

    /// Keeps this number of pods on a node through drains. `false` when the node does not exist.
    pub fn stubborn(&self, cluster: &str, node: &str, pods: u32) -> bool {
        let mut state = self.inner.state();
        let Some(node) = state.cluster(cluster).nodes.get_mut(node) else {
            return false;
        };
        node.pods = pods;
        // As if its drain never ended.
        node.draining = true;
        true
    }

    /// Adds a partial machine that has no record.
    pub fn plant_machine(&self, spec: MachineSpec) {
        let mut state = self.inner.state();
        let hash = fabric_net::spec_hash(&spec);
        let id = spec.id.to_string();
        state.machines.insert(id, state::Machine::new(spec, hash));
    }

    /// Adds a network that has no record.
    pub fn plant_network(&self, spec: NetworkSpec) {
        self.inner.state().networks.insert(spec.id.clone(), spec);
    }

    /// Ends the machine's first process. The disk stays. `false` when it does not run.
    pub fn crash(&self, machine: &MachineId) -> bool {
        self.inner.power_off(machine)
    }

    /// Removes the machine with its disk, without a call. `false` when the machine does not exist.
    pub fn vanish(&self, machine: &MachineId) -> bool {
        self.inner.remove_machine(machine)
    }

    /// Damages the fabric's metadata of the machine; the machine itself runs on. `false` when the machine
    /// does not exist.
    pub fn damage_metadata(&self, machine: &MachineId) -> bool {
        let mut state = self.inner.state();
        let found = state.machines.get_mut(machine.as_str());
        found.map(|machine| machine.hash = None).is_some()
    }

    /// Disks that are kept of machines that were made anew, in order of their machines and their numbers.
    pub fn kept_disks(&self) -> Vec<KeptDisk> {
        self.inner.state().kept_disks.iter().cloned().collect()
    }

    /// While stalled, the cluster's API does not answer, though its machine runs.
    pub fn stall_api(&self, cluster: &str, stalled: bool) {
        self.inner.stall(cluster, stalled);
    }

    /// Simulates an unrelated change in the cluster: wakes its watchers.
    pub fn touch_cluster(&self, cluster: &str) {
        self.inner.state().cluster(cluster).changed();
    }

    /// Removes an object from a cluster, as a user with cluster-admin rights could. Named as in
    /// [`SimWorld::dump`]: `v1/ConfigMap kube-system/coredns`. `false` when it does not exist.
    pub fn remove_object(&self, cluster: &str, object: &str) -> bool {
        let mut state = self.inner.state();
        let cluster = state.cluster(cluster);
        let there = cluster.objects.remove(object).is_some();
        if there {
            cluster.changed();
        }
        there
    }

    /// The first moment of a cluster that can be restored, milliseconds since 1970; all later ones can be,
    /// too. `None` without a backup.
    pub fn backed_up_since(&self, cluster: &str) -> Option<i64> {
        let state = self.inner.state();
        state.clusters.get(cluster)?.past.as_ref()?.since()
    }

    /// Puts an object into a cluster, as a user would.
    pub fn put_object(&self, cluster: &str, object: &str, value: Value) {
        let mut state = self.inner.state();
        let cluster = state.cluster(cluster);
        cluster.objects.insert(object.to_owned(), value);
        cluster.changed();
    }

    /// An object of a cluster.
    pub fn object(&self, cluster: &str, object: &str) -> Option<Value> {
        let state = self.inner.state();
        state.clusters.get(cluster)?.objects.get(object).cloned()
    }

    /// The number of calls of a kind, and of those that failed by an injected fault.
    pub fn tally(&self, call: Call) -> Tally {
        self.inner.state().faults.tally(call)
    }

    /// All kinds of calls that were made, with their counts, in order of their names.
    pub fn tallies(&self) -> Vec<(Call, Tally)> {
        self.inner.state().faults.tallies()
    }

    /// Actions that would break a real host: one address on two machines, a network removed under its
    /// machines, a volume created again after it was deleted with data. Should be empty.
    pub fn violations(&self) -> Vec<String> {
        self.inner.state().violations.clone()
    }

    /// The power state of a machine, if it exists.
    pub fn power(&self, machine: &MachineId) -> Option<Power> {
        self.inner
            .state()
            .machines
            .get(machine.as_str())
            .map(|machine| machine.power)
    }

    /// The clusters' control planes as text: etcd's members, each machine's part, and the holder of the
    /// address. Sorted, one item per line.
    pub fn dump_control_planes(&self) -> String {
        let state = self.inner.state();
        membership::dump(&state) + &adverts::dump(&state)
    }

    /// Clusters without pending changes whose address is not on exactly one machine. Should be empty.
    pub fn vip_problems(&self) -> Vec<String> {
        adverts::problems(&self.inner.state())
    }

    /// The whole world as text, sorted, without times: for golden transcripts.
    pub fn dump(&self) -> String {
        dump::dump(&self.inner.state())
    }
}

impl Inner {
    pub(crate) fn interceptor(&self) -> Option<Arc<dyn Interceptor>> {
        self.interceptor
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // A test that panicked inside has failed already; the others should still report.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
