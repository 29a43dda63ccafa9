//! The planner: from what a cluster is to be and what is seen of it, to what to do now. Pure: no clock, no I/O, no tokio.
//!
//! A [`Plan`] has two parts. Its [`writes`](Plan::writes) are intents and conclusions; they are committed as *one* store
//! transaction. Its [`effects`](Plan::effects) touch the world; each rests on an intent that is *already* in the store, so
//! nothing is ever started that was not first written down. All effects of a plan are independent and run side by side:
//! a node's machine boots while the API server is still starting. There is no position in a sequence to remember; what
//! is next follows from what is seen, so a restart at any point needs no recovery of its own.
//!
//! | | needs |
//! |---|---|
//! | leases, PKI, machine records | nothing |
//! | network | the uplink's lease |
//! | a machine | its record, the network |
//! | a machine's configuration | its record, leases, PKI; *not* the machine |
//! | node objects, add-ons | the API server |
//!
//! Always true: planning twice from the same things gives the same plan; a plan without anything in it means that the
//! generation is reached ([`Plan::settled`]); an effect whose [`Subject`] is busy or held back is never planned.

mod features;
mod history;
mod observation;
mod operations;
mod parts;
mod reach;
#[cfg(test)]
mod tests;
mod words;

use features::{backup, deletion, halt, heal, members, nodes, nodes::places, restore, upgrade};

pub use features::{
    configurations::inputs::{Frame, addons_inputs, wish_inputs},
    heal::{
        HealPolicy, Silence,
        ailment::{Ailment, Symptom},
        health::Health,
    },
    members::{ControlPlane, member},
    nodes::places::{NODE_OFFSET, node_name, routes},
};
pub use observation::{
    AddonsSeen, Addresses, ApiSeen, ConfigSeen, Drain, Held, Machine, NetworkSeen, Presence, Reach, Seen,
    StampRanges,
};
pub use operations::{OPERATION_PREEMPTED, OPERATION_TIMED_OUT};

use std::{cell::OnceCell, collections::BTreeSet, net::Ipv4Addr, rc::Rc, time::Duration};

use control_records::{
    ClusterRecord, Event, EventKind, OPERATION_BOUND, ObservedRecord, OperationError, OperationStatus,
    Progress, Repair, Role,
};
use fabric_api::RouteSpec;
use jiff::Timestamp;

/// What the planner goes by besides what it sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// How long a request may take before its operation is called failed (the loop goes on).
    pub operation_bound: Duration,
    /// How long pods may hold up the removal of their node.
    pub drain_bound: Duration,
    /// Between two evictions of the same node's pods.
    pub drain_pause: Duration,
    /// Add-ons are compared with the cluster at most this often, however much changes in it.
    pub addons_pause: Duration,
    /// Age at which a configuration is made anew for the sake of the certificates in it.
    pub renew_after: Duration,
    /// How patient healing is.
    pub heal: HealPolicy,
}

impl Default for Policy {
    fn default() -> Self {
        const DAY: u64 = 24 * 60 * 60;
        Self {
            operation_bound: OPERATION_BOUND,
            drain_bound: Duration::from_secs(2 * 60),
            drain_pause: Duration::from_secs(1),
            addons_pause: Duration::from_secs(30),
            renew_after: Duration::from_secs(180 * DAY),
            heal: HealPolicy::default(),
        }
    }
}

/// What to do now.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Intents and conclusions, one transaction together with `observed`.
    pub writes: Vec<Write>,
    /// The observed record as it should now be.
    pub observed: ObservedRecord,
    /// Whether `observed` differs from the one in the store.
    pub observed_changed: bool,
    /// What is told of this plan's writes and of what changes in `observed`, in the same transaction.
    pub events: Vec<Event>,
    /// What to do to the world, all at once.
    pub effects: Vec<Effect>,
    /// What is going on, most telling first. For people.
    pub waits: Vec<String>,
    /// Whether something is to be done or waited for, told to people or not.
    pub unfinished: bool,
    /// When to plan again even if nothing is heard.
    pub look_again: Option<Timestamp>,
}

impl Plan {
    /// Nothing is left to do, and nothing is waited for: the cluster is what it is to be.
    pub fn settled(&self) -> bool {
        self.writes.is_empty() && !self.unfinished && !self.observed_changed
    }
}

/// An intent or a conclusion in the store.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// Take the addresses of the stamp's network that [`Plan::observed`] newly names.
    Lease(Addresses),
    /// Make the cluster's CAs and keys.
    CreatePki,
    /// Write a new machine down, with an identity and a token of its own.
    RecordMachine {
        /// What it is for.
        role: Role,
        /// The version of its image.
        image: String,
    },
    /// A machine is to go.
    MarkMachine(String),
    /// A step of a repair begins, ends or is held back.
    Repair {
        /// Whose.
        machine: String,
        /// As it is from now on.
        repair: Repair,
        /// The machine is made anew: it gets a new one-time token.
        new_token: bool,
        /// It is replaced: it is to go.
        remove: bool,
    },
    /// An upgrade of a machine in its place begins or ends.
    Upgrade {
        /// Whose.
        machine: String,
        /// The version of its image from now on.
        image: String,
        /// As it is from now on.
        upgrading: Option<Timestamp>,
    },
    /// A machine is gone: remove its record and its configuration.
    RemoveMachine(String),
    /// How far an operation is.
    Progress {
        /// Which.
        id: String,
        /// As it is from now on.
        progress: Progress,
    },
    /// An operation ends.
    EndOperation {
        /// Which.
        id: String,
        /// How.
        status: OperationStatus,
        /// Why not well.
        error: Option<OperationError>,
    },
    /// Everything is gone: remove all the cluster's records, end its operations.
    Forget,
}

/// Something done to the world. Repeatable, and named by what it concerns.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// See which of the cluster's machines the fabric has.
    LookAtFabric,
    /// Read a stored configuration and publish it again.
    LoadConfig(String),
    /// Compute, seal, store and publish a machine's configuration.
    Configure {
        /// Which machine.
        machine: String,
        /// Its generation.
        generation: u64,
        /// [`Frame::config_inputs`] it is computed from.
        inputs: String,
    },
    /// Make the VNET be there with these routes.
    EnsureNetwork(Vec<RouteSpec>),
    /// Make a machine be there and run.
    EnsureMachine(String),
    /// Stop a machine and start it again, its disk as it is.
    RestartMachine {
        /// Which.
        machine: String,
        /// When the repair or the upgrade was written down that it belongs to.
        at: Timestamp,
    },
    /// Remove a machine and its disk, to be made anew under the same name.
    WipeMachine {
        /// Which.
        machine: String,
        /// When the repair was written down that it belongs to.
        at: Timestamp,
    },
    /// See whether the API server is ready, and its nodes.
    LookAtApi,
    /// Bring a node object's labels, taints and pod range to what they should be.
    SetNode {
        /// Whose node.
        machine: String,
        /// The node.
        node: String,
        /// [`wish_inputs`] it is computed from.
        inputs: String,
    },
    /// Approve the serving certificates of the nodes that are ours.
    ApproveServing,
    /// Apply the add-ons.
    ApplyAddons {
        /// [`addons_inputs`] they are computed from.
        inputs: String,
    },
    /// Cordon a node and evict its pods once.
    Drain {
        /// Whose node.
        machine: String,
        /// The node.
        node: String,
    },
    /// Remove a node object.
    DeleteNode(String),
    /// Remove a machine and its disk.
    DeleteMachine(String),
    /// Remove the VNET.
    DeleteNetwork,
}

/// What an effect concerns. Two effects with the same subject never run at the same time; a failing one holds back its
/// subject only.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// The inventory.
    Fabric,
    /// The VNET.
    Network,
    /// A machine.
    Machine(String),
    /// A machine's configuration.
    Config(String),
    /// The API server as a whole.
    Api,
    /// A node object, by its name.
    Node(String),
    /// Serving certificates.
    Serving,
    /// Add-ons.
    Addons,
}

impl Effect {
    /// What it concerns.
    pub fn subject(&self) -> Subject {
        match self {
            Self::LookAtFabric => Subject::Fabric,
            Self::LoadConfig(machine) | Self::Configure { machine, .. } => Subject::Config(machine.clone()),
            Self::EnsureNetwork(_) | Self::DeleteNetwork => Subject::Network,
            Self::EnsureMachine(machine)
            | Self::DeleteMachine(machine)
            | Self::RestartMachine { machine, .. }
            | Self::WipeMachine { machine, .. } => Subject::Machine(machine.clone()),
            Self::LookAtApi => Subject::Api,
            Self::SetNode { node, .. } | Self::Drain { node, .. } | Self::DeleteNode(node) => {
                Subject::Node(node.clone())
            }
            Self::ApproveServing => Subject::Serving,
            Self::ApplyAddons { .. } => Subject::Addons,
        }
    }
}

/// Plans.
pub fn plan(desired: &ClusterRecord, seen: &Seen, policy: &Policy, now: Timestamp) -> Plan {
    let mut draft = Draft::new(desired, seen, policy, now);
    if desired.deleting {
        deletion::plan(&mut draft);
    } else if desired.course.halted {
        halt::plan(&mut draft);
    } else {
        reach::plan(&mut draft);
    }
    parts::reached(&mut draft);
    history::plan(&mut draft);
    backup::plan(&mut draft);
    operations::plan(&mut draft);
    draft.finish()
}

/// A plan being made.
struct Draft<'a> {
    desired: &'a ClusterRecord,
    seen: &'a Seen,
    policy: &'a Policy,
    now: Timestamp,
    writes: Vec<Write>,
    observed: ObservedRecord,
    events: Vec<Event>,
    effects: Vec<Effect>,
    /// Subjects with an effect of this plan.
    planned: BTreeSet<Subject>,
    waits: Vec<String>,
    unfinished: bool,
    look_again: Option<Timestamp>,
    frame: OnceCell<Option<Rc<Frame<'a>>>>,
}

impl<'a> Draft<'a> {
    fn new(desired: &'a ClusterRecord, seen: &'a Seen, policy: &'a Policy, now: Timestamp) -> Self {
        Self {
            desired,
            seen,
            policy,
            now,
            writes: Vec::new(),
            observed: seen.observed.clone(),
            events: Vec::new(),
            effects: Vec::new(),
            planned: BTreeSet::new(),
            waits: Vec::new(),
            unfinished: false,
            look_again: None,
            frame: OnceCell::new(),
        }
    }

    /// Plans an effect, unless its subject is busy or held back; either way `why` tells people what is going on.
    fn act(&mut self, effect: Effect, why: impl Into<String>) {
        self.wait(why);
        self.act_quietly(effect);
    }

    /// The same for what is routine. A line about it would be gone before anybody read it, and each line costs a commit.
    fn act_quietly(&mut self, effect: Effect) {
        self.unfinished = true;
        let subject = effect.subject();
        if self.seen.busy.contains(&subject) {
            return;
        }
        if let Some(held) = self.seen.held.get(&subject)
            && held.until > self.now
        {
            self.look_again_at(held.until);
            return;
        }
        if self.planned.insert(subject) {
            self.effects.push(effect);
        }
    }

    /// Plans an effect that is routine where it only makes sure of what was there before this process.
    fn act_or_adopt(&mut self, unknown: bool, effect: Effect, why: impl Into<String>) {
        if unknown && self.reached_before() {
            self.act_quietly(effect);
        } else {
            self.act(effect, why);
        }
    }

    /// Something must happen by itself first.
    fn wait(&mut self, why: impl Into<String>) {
        self.unfinished = true;
        let why = why.into();
        if !self.waits.contains(&why) {
            self.waits.push(why);
        }
    }

    /// The same where it may only be that this process has not looked yet.
    fn wait_or_adopt(&mut self, unknown: bool, why: impl Into<String>) {
        if unknown && self.reached_before() {
            self.unfinished = true;
        } else {
            self.wait(why);
        }
    }

    /// Whether the present generation was reached at some time, so that what is not known is most likely there.
    fn reached_before(&self) -> bool {
        self.seen.observed.generation >= self.desired.generation
    }

    fn look_again_at(&mut self, at: Timestamp) {
        self.look_again = Some(self.look_again.map_or(at, |before| before.min(at)));
    }

    fn milestone(&mut self, name: &str) {
        self.observed
            .milestones
            .entry(name.to_owned())
            .or_insert(self.now);
    }

    /// Tells what happened, once: together with a write of this plan or with a change of `observed` that keeps the next
    /// plan from telling it again. Without either there is no transaction to tell it in, and it is lost.
    fn tell(&mut self, kind: EventKind, subject: impl Into<String>, message: impl Into<String>) {
        self.events.push(Event::new(kind, subject, message));
    }

    fn addresses(&self) -> Option<Addresses> {
        Addresses::of(&self.observed)
    }

    /// The control plane as it is in the store.
    fn control_plane(&self) -> ControlPlane {
        ControlPlane::of(
            &self.desired.spec,
            &self.seen.observed,
            self.seen.machines.values().map(|machine| &machine.record),
        )
    }

    /// What configurations are computed from as it is in the store, once addresses are leased.
    fn frame(&self) -> Option<Rc<Frame<'a>>> {
        let frame = self.frame.get_or_init(|| {
            let addresses = Addresses::of(&self.seen.observed)?;
            let frame = Frame::new(&self.desired.spec, &addresses, self.control_plane());
            Some(Rc::new(frame))
        });
        frame.clone()
    }

    fn finish(mut self) -> Plan {
        self.observed.v = 1;
        self.observed.step = words::step(&self);
        self.observed.problem = words::problem(&self);
        let observed_changed = self.observed != self.seen.observed && !self.writes.contains(&Write::Forget);
        debug_assert!(
            self.events.is_empty() || observed_changed || !self.writes.is_empty(),
            "told of nothing that changes: {:?}",
            self.events
        );
        Plan {
            observed_changed,
            events: self.events,
            writes: self.writes,
            observed: self.observed,
            effects: self.effects,
            waits: self.waits,
            unfinished: self.unfinished,
            look_again: self.look_again,
        }
    }
}

/// `from` and `pause` later, or the end of time.
fn after(from: Timestamp, pause: Duration) -> Timestamp {
    from.checked_add(pause).unwrap_or(Timestamp::MAX)
}

/// The `index`-th address of a range's own numbering: 0 is the network address.
fn nth(range: ipnet::Ipv4Net, index: u32) -> Option<Ipv4Addr> {
    let address = u32::from(range.network()).checked_add(index)?;
    (address <= u32::from(range.broadcast())).then(|| Ipv4Addr::from(address))
}
