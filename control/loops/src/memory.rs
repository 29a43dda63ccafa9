//! What a loop knows besides the records: what effects reported. Lost with the process and found again by looking.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use base_env::Seed;
use cluster_api::{ClusterApi, NodeSeen};
use control_planner::{
    AddonsSeen, ApiSeen, ConfigSeen, Drain, Effect, Health, Held, NetworkSeen, Presence, Reach, Subject,
};
use fabric_api::RouteSpec;
use jiff::Timestamp;
use tokio::sync::{OnceCell, watch};

use crate::{census::Mark, pacing, recipes::Secret};

/// What an effect found or did.
pub(crate) enum Outcome {
    /// The fabric's machines, as far as they are this cluster's.
    Fabric(BTreeMap<String, Presence>),
    /// A stored configuration was published again, or there is none.
    ConfigLoaded { machine: String, config: ConfigSeen },
    /// The VNET is there.
    NetworkMade(Vec<RouteSpec>),
    /// The VNET is gone.
    NetworkGone,
    /// The machine runs.
    MachineRuns(String),
    /// The machine was stopped and started, for the repair written down then.
    MachineRestarted {
        machine: String,
        at: Timestamp,
        /// The boot before, as far as it was heard of.
        ended_boot: Option<String>,
    },
    /// The machine and its disk are gone, to be made anew, for the repair written down then.
    MachineWiped { machine: String, at: Timestamp },
    /// The machine is gone.
    MachineGone(String),
    /// The API server answers.
    Api {
        change: u64,
        /// When the look began.
        at: Timestamp,
        nodes: Vec<NodeSeen>,
    },
    /// A node object is as wished.
    NodeSet { machine: String, inputs: String },
    /// Serving certificates were approved.
    Approved { change: u64 },
    /// Add-ons are as they should be.
    AddonsApplied { inputs: String, change: u64 },
    /// Pods were evicted once.
    Drained { machine: String, left: u32 },
    /// A node object is gone.
    NodeDeleted(String),
}

/// An effect that did not work.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What was being done and why it did not work, for people.
    pub(crate) why: String,
}

/// See the module.
pub(crate) struct Memory {
    pub(crate) uid: String,
    pub(crate) presence: BTreeMap<String, Presence>,
    pub(crate) inventory_stale: bool,
    /// A look at the fabric needs nothing newer than this: nothing was done to the machines since. `None`: than its own
    /// beginning.
    pub(crate) since: Option<Mark>,
    /// Machines that something was done to since the present look at the fabric began: what it finds of them may be older.
    touched: BTreeSet<String>,
    pub(crate) network: NetworkSeen,
    pub(crate) configs: BTreeMap<String, ConfigSeen>,
    pub(crate) drains: BTreeMap<String, Drain>,
    pub(crate) health: Health,
    pub(crate) api: ApiSeen,
    pub(crate) held: BTreeMap<Subject, Held>,
    /// The cluster's CAs and keys, once read; only while the loop runs.
    pub(crate) pki: Arc<OnceCell<Secret>>,
    pub(crate) handle: Option<Handle>,
    /// What the control plane's agent said last about its API server.
    pub(crate) api_server_ready: Option<bool>,
}

/// The connection to the cluster's API.
pub(crate) struct Handle {
    pub(crate) api: Arc<dyn ClusterApi>,
    pub(crate) changes: watch::Receiver<u64>,
    pub(crate) made_at: Timestamp,
    /// It will tell of no more changes. A resync makes another.
    pub(crate) deaf: bool,
}

impl Handle {
    pub(crate) fn expired(&self, now: Timestamp, after: Duration) -> bool {
        now.duration_since(self.made_at).unsigned_abs() >= after
    }
}

impl Memory {
    pub(crate) fn new(uid: &str) -> Self {
        Self {
            uid: uid.to_owned(),
            presence: BTreeMap::new(),
            inventory_stale: false,
            since: None,
            touched: BTreeSet::new(),
            network: NetworkSeen::Unknown,
            configs: BTreeMap::new(),
            drains: BTreeMap::new(),
            health: Health::default(),
            api: ApiSeen::default(),
            held: BTreeMap::new(),
            pki: Arc::new(OnceCell::new()),
            handle: None,
            api_server_ready: None,
        }
    }

    /// Everything is due to be looked at again; nothing is forgotten meanwhile. `since`: see [`Memory::since`].
    pub(crate) fn grow_stale(&mut self, since: Option<Mark>) {
        self.inventory_stale = true;
        self.since = since;
        self.network = match self.network {
            NetworkSeen::Gone => NetworkSeen::Gone,
            NetworkSeen::Unknown | NetworkSeen::Made(_) => NetworkSeen::Unknown,
        };
        self.api.change += 1;
        self.api.set.clear();
        self.held.clear();
        self.handle = self.handle.take().filter(|handle| !handle.deaf);
    }

    /// The fabric has to be looked at as it is now: a machine may be gone.
    pub(crate) fn doubt_machines(&mut self) {
        self.inventory_stale = true;
        self.since = None;
    }

    /// A machine was written down just now: the fabric cannot have it.
    pub(crate) fn recorded(&mut self, machine: &str) {
        self.presence.insert(machine.to_owned(), Presence::Absent);
        self.configs.insert(machine.to_owned(), ConfigSeen::Absent);
    }

    /// A machine's record was removed.
    pub(crate) fn removed(&mut self, machine: &str) {
        self.presence.remove(machine);
        self.configs.remove(machine);
        self.drains.remove(machine);
        self.health.forget(machine);
        self.api.set.remove(machine);
    }

    /// Secrets and what is cheap to find again go while the cluster is idle.
    pub(crate) fn settle(&mut self) {
        self.pki = Arc::new(OnceCell::new());
        self.held.clear();
    }

    /// Notices what is not told by an effect: the API's changes, and what the control plane's agent says of it.
    pub(crate) fn listen(&mut self, api_server_ready: Option<bool>) {
        if let Some(handle) = self.handle.as_mut().filter(|handle| !handle.deaf) {
            match handle.changes.has_changed() {
                Ok(true) => {
                    handle.changes.mark_unchanged();
                    self.api_changed(true);
                }
                Ok(false) => {}
                Err(_closed) => self.api_changed(false),
            }
        }
        if api_server_ready.is_some() && self.api_server_ready != api_server_ready {
            self.api_server_ready = api_server_ready;
            self.api.change += 1;
            // Whoever was turned away before need not wait any longer.
            self.held.remove(&Subject::Api);
        }
    }

    /// The API told of a change, or that it will tell of none any more.
    pub(crate) fn api_changed(&mut self, hears: bool) {
        self.api.change += 1;
        if let Some(handle) = &mut self.handle {
            handle.deaf |= !hears;
        }
        if hears && self.api.reach != Reach::Ready {
            self.api.heard = true;
            self.held.remove(&Subject::Api);
        }
    }

    /// An effect begins; these are under way.
    pub(crate) fn begins<'e>(&mut self, effect: &Effect, under_way: impl Iterator<Item = &'e Effect>) {
        match effect.subject() {
            Subject::Machine(machine) => drop(self.touched.insert(machine)),
            Subject::Fabric => {
                self.since = None;
                let machine = |effect: &Effect| match effect.subject() {
                    Subject::Machine(machine) => Some(machine),
                    _ => None,
                };
                self.touched = under_way.filter_map(machine).collect();
            }
            _ => {}
        }
    }

    /// Takes in how an effect ended.
    pub(crate) fn learn(
        &mut self,
        effect: &Effect,
        result: Result<Outcome, Failure>,
        seed: Seed,
        now: Timestamp,
    ) {
        let subject = effect.subject();
        match result {
            Ok(outcome) => {
                self.held.remove(&subject);
                self.took_place(outcome, now);
            }
            Err(Failure { why }) => {
                self.failed(effect);
                let attempts = self.held.get(&subject).map_or(0, |held| held.attempts) + 1;
                let pause = pacing::pause(seed.child(&format!("{subject:?}")), attempts);
                let until = now.checked_add(pause).unwrap_or(Timestamp::MAX);
                // The first failures are part of life: something is not up yet.
                if attempts < 3 {
                    tracing::debug!(cluster = self.uid, attempts, ?pause, "{why}");
                } else {
                    tracing::warn!(cluster = self.uid, attempts, ?pause, "{why}");
                }
                self.held.insert(subject, Held { attempts, until, why });
            }
        }
    }

    fn took_place(&mut self, outcome: Outcome, now: Timestamp) {
        match outcome {
            Outcome::Fabric(found) => {
                self.inventory_stale = false;
                for (machine, presence) in found {
                    // What was done to it tells.
                    if self.touched.contains(&machine) {
                        continue;
                    }
                    let known = self.presence.entry(machine).or_insert(presence);
                    // The listing may be older than the removal.
                    if *known != Presence::Gone {
                        *known = presence;
                    }
                }
            }
            Outcome::ConfigLoaded { machine, config } => {
                self.configs.insert(machine, config);
            }
            Outcome::NetworkMade(routes) => self.network = NetworkSeen::Made(routes),
            Outcome::NetworkGone => self.network = NetworkSeen::Gone,
            Outcome::MachineRuns(machine) => {
                self.presence.insert(machine, Presence::Running);
            }
            Outcome::MachineRestarted {
                machine,
                at,
                ended_boot,
            } => {
                self.health.started_anew(&machine, at, ended_boot);
                self.presence.insert(machine, Presence::Running);
            }
            Outcome::MachineWiped { machine, at } => {
                self.health.started_anew(&machine, at, None);
                self.drains.remove(&machine);
                // Its agent's session was forgotten too: the configuration is published again when it is read again.
                self.configs.insert(machine.clone(), ConfigSeen::Unknown);
                self.presence.insert(machine, Presence::Absent);
            }
            Outcome::MachineGone(machine) => {
                self.presence.insert(machine, Presence::Gone);
            }
            Outcome::Api { change, at, nodes } => {
                self.looked(change, nodes);
                self.api.looked_at = Some(at);
            }
            Outcome::NodeSet { machine, inputs } => {
                self.api.set.insert(machine, inputs);
            }
            Outcome::Approved { change } => self.api.approved = Some(change),
            Outcome::AddonsApplied { inputs, change } => {
                self.api.addons = Some(AddonsSeen {
                    inputs,
                    at: now,
                    change,
                });
            }
            Outcome::Drained { machine, left } => {
                if let Some(drain) = self.drains.get_mut(&machine) {
                    drain.left = Some((left, now));
                }
            }
            Outcome::NodeDeleted(node) => self.api.nodes.retain(|seen| seen.name != node),
        }
    }

    fn looked(&mut self, change: u64, nodes: Vec<NodeSeen>) {
        let ready = |nodes: &[NodeSeen]| -> BTreeSet<String> {
            nodes
                .iter()
                .filter(|node| node.ready)
                .map(|node| node.name.clone())
                .collect()
        };
        if !ready(&self.api.nodes).is_subset(&ready(&nodes)) {
            // A node that is no longer ready may have lost its machine.
            self.doubt_machines();
        }
        let lost = |before: &NodeSeen| !nodes.iter().any(|node| node.name == before.name);
        if self.api.nodes.iter().any(lost) {
            // An object that comes back comes back bare.
            self.api.set.clear();
        }
        self.api.reach = Reach::Ready;
        self.api.heard = false;
        self.api.looked = change;
        self.api.nodes = nodes;
    }

    /// What a failure makes doubtful.
    fn failed(&mut self, effect: &Effect) {
        match effect {
            Effect::EnsureMachine(machine)
            | Effect::RestartMachine { machine, .. }
            | Effect::WipeMachine { machine, .. } => {
                self.presence.insert(machine.clone(), Presence::Partial);
            }
            Effect::Configure { machine, .. } => {
                self.configs.insert(machine.clone(), ConfigSeen::Unknown);
            }
            Effect::EnsureNetwork(_) => self.network = NetworkSeen::Unknown,
            Effect::LookAtApi => {
                if self.api.reach == Reach::Ready {
                    self.doubt_machines();
                }
                self.api.reach = Reach::Away;
                self.api.heard = false;
            }
            Effect::SetNode { .. }
            | Effect::ApproveServing
            | Effect::ApplyAddons { .. }
            | Effect::Drain { .. }
            | Effect::DeleteNode(_) => {
                // Refused or not answered: a look tells which.
                self.api.change += 1;
            }
            Effect::LookAtFabric
            | Effect::LoadConfig(_)
            | Effect::DeleteMachine(_)
            | Effect::DeleteNetwork => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(memory: &mut Memory, found: Presence) {
        let found = BTreeMap::from([("m".to_owned(), found)]);
        let now = Timestamp::UNIX_EPOCH;
        memory.learn(
            &Effect::LookAtFabric,
            Ok(Outcome::Fabric(found)),
            Seed::new(1),
            now,
        );
    }

    #[test]
    fn a_look_that_is_older_than_a_machine_does_not_call_it_lost() {
        let (mut memory, now) = (Memory::new("c"), Timestamp::UNIX_EPOCH);
        memory.recorded("m");
        let make = Effect::EnsureMachine("m".to_owned());
        // Begun before the machine, or while it was being made; ended after.
        for look_first in [true, false] {
            let order = if look_first {
                [&Effect::LookAtFabric, &make]
            } else {
                [&make, &Effect::LookAtFabric]
            };
            memory.begins(order[0], std::iter::empty());
            memory.begins(order[1], std::iter::once(order[0]));
            memory.learn(&make, Ok(Outcome::MachineRuns("m".to_owned())), Seed::new(1), now);
            look(&mut memory, Presence::Absent);
            assert_eq!(memory.presence["m"], Presence::Running, "{order:?}");
        }
        // The next one knows.
        memory.begins(&Effect::LookAtFabric, std::iter::empty());
        look(&mut memory, Presence::Absent);
        assert_eq!(memory.presence["m"], Presence::Absent);
    }
}
