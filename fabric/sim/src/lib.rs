//! A world without machines: fabric, agents and clusters simulated in one process, in virtual time.
//!
//! Owns what the real world would own: which machines exist and run, what their agents have on disk, which volumes there are and who has them,
//! which nodes and objects a cluster holds. The service under test comes and goes; the world stays ([`SimWorld::agents`], [`SimWorld::lose_service`]).
//!
//! Always true: nothing happens but by calls and by the clock that was handed in; every delay and every chance is drawn from the seed by the
//! name of what it is for, so that the same seed gives the same history, and one more machine disturbs no other one. A cluster lives on its
//! control plane machines: with the last of them its nodes and objects are gone. Which cluster and node a machine belongs to is read from its
//! labels `cluster`, `role` (`control-plane` or `node`) and `node` (else its host name).
//!
//! Called by: tests, scenarios and benches, in place of `fabric/container`, `agent/hub` and `cluster/client`. The sessions that agents dial in to are the real ones.

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

/// The world. Cheap to clone: all clones are the same world. Its calls and their consequences need a tokio runtime around them, with
/// paused time if the clock is a virtual one.
#[derive(Clone)]
pub struct SimWorld {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) env: Env,
    pub(crate) options: SimOptions,
    state: Mutex<State>,
    /// Who stands before every call, if anybody.
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

    /// The way to the world's clusters.
    pub fn clusters(&self) -> Arc<dyn Connect> {
        Arc::new(self.clone())
    }

    /// The next `times` calls of this kind fail before they do anything.
    pub fn fail_next(&self, call: Call, times: u32) {
        self.inner.state().faults.before(call, times);
    }

    /// The next `times` calls of this kind do their work, and then the answer is lost.
    pub fn lose_answer(&self, call: Call, times: u32) {
        self.inner.state().faults.after(call, times);
    }

    /// The next `times` machines that start never come up: their agents stay silent.
    pub fn fail_boots(&self, times: u32) {
        self.inner.state().faults.boots += times;
    }

    /// Puts somebody before every call of the service.
    pub fn set_interceptor(&self, interceptor: Arc<dyn Interceptor>) {
        *self
            .inner
            .interceptor
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(interceptor);
    }

    /// Something befalls a machine, until this much is done about it. `false` when there is no such machine.
    pub fn ail(&self, machine: &MachineId, ailment: Ailment, cure: Cure) -> bool {
        self.inner.ail(machine, ailment, cure)
    }

    /// A machine's disk has lost the key that the machine is known by, and nothing else. `false` when there is no such machine.
    pub fn lose_key(&self, machine: &MachineId) -> bool {
        self.inner.lose_key(machine.as_str())
    }

    /// Machines that suffer from something, and from what.
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

    /// All machines are well again, all stalled APIs answer, and no more calls fail.
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

    /// The machines there are, with their host names and labels, in order of their ids.
    pub fn machines(&self) -> Vec<MachineSeen> {
        self.inner.state().machines.values().map(fabric::seen).collect()
    }

    /// By machine: the version of the image that it started with last.
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

    /// The networks there are.
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

    /// So many pods of a node never leave. `false` when there is no such node.
    pub fn stubborn(&self, cluster: &str, node: &str, pods: u32) -> bool {
        let mut state = self.inner.state();
        let Some(node) = state.cluster(cluster).nodes.get_mut(node) else {
            return false;
        };
        node.pods = pods;
        // As if its drain were under way for ever.
        node.draining = true;
        true
    }

    /// A machine, made in part, that belongs to nobody.
    pub fn plant_machine(&self, spec: MachineSpec) {
        let mut state = self.inner.state();
        let hash = fabric_net::spec_hash(&spec);
        let id = spec.id.to_string();
        state.machines.insert(id, state::Machine::new(spec, hash));
    }

    /// A network that belongs to nobody.
    pub fn plant_network(&self, spec: NetworkSpec) {
        self.inner.state().networks.insert(spec.id.clone(), spec);
    }

    /// The machine's first process ends by itself. It keeps its disk. `false` when it does not run.
    pub fn crash(&self, machine: &MachineId) -> bool {
        self.inner.power_off(machine)
    }

    /// The machine is gone with its disk, and nobody was asked. `false` when there is no such machine.
    pub fn vanish(&self, machine: &MachineId) -> bool {
        self.inner.remove_machine(machine)
    }

    /// What the fabric has written down about the machine is damaged; the machine itself goes on. `false` when there is no such machine.
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

    /// Something in the cluster happens that nobody here asked for: wakes whoever watches it.
    pub fn touch_cluster(&self, cluster: &str) {
        self.inner.state().cluster(cluster).changed();
    }

    /// Removes an object from a cluster, as a user with too many rights would. Named as in [`SimWorld::dump`]:
    /// `v1/ConfigMap kube-system/coredns`. `false` when it is not there.
    pub fn remove_object(&self, cluster: &str, object: &str) -> bool {
        let mut state = self.inner.state();
        let cluster = state.cluster(cluster);
        let there = cluster.objects.remove(object).is_some();
        if there {
            cluster.changed();
        }
        there
    }

    /// The first moment of a cluster that can be restored, milliseconds since 1970; each later one can be, too. `None` where there
    /// is no backup.
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

    /// How often a kind of call was made, and how often it failed on purpose.
    pub fn tally(&self, call: Call) -> Tally {
        self.inner.state().faults.tally(call)
    }

    /// All kinds of calls that were made, in order of their names.
    pub fn tallies(&self) -> Vec<(Call, Tally)> {
        self.inner.state().faults.tallies()
    }

    /// What a real host would not have survived: one address on two machines, a network removed under its machines, a volume that is made anew
    /// where there was one with something on it. Empty is good.
    pub fn violations(&self) -> Vec<String> {
        self.inner.state().violations.clone()
    }

    /// How a machine is, if there is one.
    pub fn power(&self, machine: &MachineId) -> Option<Power> {
        self.inner
            .state()
            .machines
            .get(machine.as_str())
            .map(|machine| machine.power)
    }

    /// The clusters' control planes as text: who etcd's members are, what each machine has of it, and who holds the address. Sorted, one thing
    /// a line.
    pub fn dump_control_planes(&self) -> String {
        let state = self.inner.state();
        membership::dump(&state) + &adverts::dump(&state)
    }

    /// Clusters that have come to rest with their address not on exactly one machine. Empty is good.
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
        // A test that panicked inside has failed already; the others should say what they have to say.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
