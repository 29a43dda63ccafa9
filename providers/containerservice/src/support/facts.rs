//! Records as facts. Pure.
//!
//! What no record holds is left out, so that its rules say nothing (`docs/reference/support-policies.md` lists them).

use arm_wire::ArmError;
use cluster_spec::{PodNetworking, PoolSpec};
use control_records::{
    ClusterRecord, EventKind, EventRecord, MachineRecord, ObservedRecord, OperationRecord, OperationStatus,
    Role, SubscriptionRecord, SubscriptionState, events,
};
use jiff::Timestamp;
use policy_support::{Fact, Facts, Minor, Plugin, Pool, Subscription, releases};

use super::Support;
use crate::{NodeImages, clusters::archive};

/// The records about a cluster.
pub(crate) struct Records<'a> {
    pub(crate) record: &'a ClusterRecord,
    pub(crate) observed: &'a ObservedRecord,
    /// The operation of its last change.
    pub(crate) operation: Option<&'a OperationRecord>,
    pub(crate) machines: &'a [MachineRecord],
    /// What happened to it, oldest first.
    pub(crate) events: &'a [EventRecord],
    pub(crate) subscription: Option<&'a SubscriptionRecord>,
}

impl Records<'_> {
    /// The facts that they hold.
    pub(crate) fn facts(&self, support: &Support, now: Timestamp) -> Result<Facts, ArmError> {
        let (record, observed) = (self.record, self.observed);
        let spec = record.spec();
        let runs = observed
            .kubernetes_version
            .as_ref()
            .unwrap_or(&spec.kubernetes_version);
        let version: Minor = runs.parse().map_err(ArmError::internal)?;
        let releases = releases::known(&support.offered);
        let mut facts = Facts::of(record.created_at, version, releases);
        facts.control_plane.since = Some(self.upgraded(now));
        facts.long_term = record.body()["properties"]["supportPlan"] == "AKSLongTermSupport";
        for pool in &spec.pools {
            facts.pools.push(self.pool(pool, support)?);
        }
        facts.plugin = Fact::since(plugin(spec.network.plugin), record.created_at);
        facts.members = spec.tier.members();
        facts.nodes = spec
            .pools
            .iter()
            .map(PoolSpec::wanted)
            .fold(0, u32::saturating_add);
        facts.problem = observed.problem.as_ref().map(|problem| Fact {
            value: problem.clone(),
            since: self.problem_since(),
        });
        facts.failed = self.failed();
        facts.repairs = self.machines.iter().filter_map(repair).collect();
        facts.backup_behind = observed.backup_behind;
        facts.stopped = archive::stopped(record);
        facts.archived = archive::archived(record);
        facts.deallocated = self.deallocated();
        facts.running = Some(self.running());
        facts.unready = observed.unready_since;
        facts.subscription = self.subscription();
        Ok(facts)
    }

    /// Since when the control plane has had its version, as far as events tell: they are kept for a time, and so many of them.
    fn upgraded(&self, now: Timestamp) -> Timestamp {
        let mut latest = self.events.iter().rev();
        let upgrade = latest.find(|event| event.event.kind == EventKind::Upgrade);
        let oldest = match self.events.first() {
            Some(oldest) if self.events.len() >= events::KEPT => oldest.at,
            _ => now.checked_sub(events::KEPT_FOR).unwrap_or(Timestamp::MIN),
        };
        upgrade.map_or(oldest.max(self.record.created_at), |upgrade| upgrade.at)
    }

    /// A pool, and its nodes.
    fn pool(&self, pool: &PoolSpec, support: &Support) -> Result<Pool, ArmError> {
        let version: Minor = pool.kubernetes_version.parse().map_err(ArmError::internal)?;
        let made = |machine: &&MachineRecord| match machine.assignment.as_ref().map(|given| &given.role) {
            Some(Role::Node { incarnation, .. }) => *incarnation == pool.incarnation && !machine.deleting,
            _ => false,
        };
        let nodes = || self.machines.iter().filter(made);
        let of_version = nodes().filter(|machine| machine.image == pool.kubernetes_version);
        let newest = Newest::of(&*support.images, &pool.kubernetes_version);
        Ok(Pool {
            name: pool.name.clone(),
            version: Fact {
                value: version,
                since: of_version.map(|machine| machine.created_at).min(),
            },
            oldest_node: nodes().map(|machine| newest.of_node(machine)).min(),
            newest_image: newest.built_at,
        })
    }

    /// When the problem that there is was first told.
    fn problem_since(&self) -> Option<Timestamp> {
        let latest = self.events.iter().rev();
        let mut of_problems = latest.filter(|event| {
            matches!(
                event.event.kind,
                EventKind::ProblemBegan | EventKind::ProblemEnded
            )
        });
        let last = of_problems.next()?;
        (last.event.kind == EventKind::ProblemBegan).then_some(last.at)
    }

    /// The last request, if it has failed and was not reached since.
    fn failed(&self) -> Option<Fact<String>> {
        let reached = self.observed.generation >= self.record.generation;
        let operation = self.operation.filter(|_| !reached)?;
        if operation.status != OperationStatus::Failed {
            return None;
        }
        let why = operation.error.as_ref().map_or("", |error| &error.message);
        Some(Fact {
            value: format!("{}: {why}", operation.name),
            since: operation.ended_at,
        })
    }

    /// Since when all nodes are turned off by hand.
    fn deallocated(&self) -> Option<Timestamp> {
        let nodes = || {
            self.machines.iter().filter(|machine| {
                let role = machine.assignment.as_ref().map(|given| &given.role);
                matches!(role, Some(Role::Node { .. })) && !machine.deleting
            })
        };
        let all = nodes().next().is_some() && nodes().all(|machine| machine.healing.off);
        // A release of before did not write down when; to turn a node off is a change of the cluster.
        let since = |machine: &MachineRecord| machine.healing.off_since.unwrap_or(self.record.modified_at);
        all.then(|| nodes().map(since).max()).flatten()
    }

    /// How many of its nodes' machines run, as far as was told last.
    fn running(&self) -> u32 {
        let nodes = self.machines.iter().filter(|machine| {
            let role = machine.assignment.as_ref().map(|given| &given.role);
            let told = self.observed.reported.get(&machine.id);
            matches!(role, Some(Role::Node { .. })) && told.is_some_and(|told| told.runs)
        });
        u32::try_from(nodes.count()).unwrap_or(u32::MAX)
    }

    /// What may be done in its subscription. One that is disabled is what others call suspended.
    fn subscription(&self) -> Fact<Subscription> {
        let Some(record) = self.subscription else {
            return Fact::now(Subscription::Active);
        };
        match record.state {
            SubscriptionState::Enabled => Fact::since(
                Subscription::Active,
                record.state_since.unwrap_or(record.created_at),
            ),
            SubscriptionState::Disabled => Fact {
                value: Subscription::Suspended,
                since: record.state_since,
            },
        }
    }
}

/// The newest node image of a pool's version.
struct Newest<'a> {
    images: &'a dyn NodeImages,
    build: Option<String>,
    built_at: Option<Timestamp>,
}

impl<'a> Newest<'a> {
    fn of(images: &'a dyn NodeImages, version: &str) -> Self {
        let build = images.builds(version).into_iter().next();
        let built_at = build.as_deref().and_then(|build| images.built_at(version, build));
        Self {
            images,
            build,
            built_at,
        }
    }

    /// The moment than which a node's image is no newer: when the node was made, or its build, where that is recorded and older. A node that has
    /// the newest build may have been written down before that was made; it is no older than its image.
    fn of_node(&self, machine: &MachineRecord) -> Timestamp {
        let made = machine.created_at;
        let Some(build) = machine.build.as_deref() else {
            return made;
        };
        if self.build.as_deref() == Some(build) {
            return self.built_at.map_or(made, |built| built.max(made));
        }
        let built = self.images.built_at(&machine.image, build);
        built.map_or(made, |built| built.min(made))
    }
}

fn plugin(plugin: PodNetworking) -> Plugin {
    match plugin {
        PodNetworking::Kubenet => Plugin::Kubenet,
        PodNetworking::AzureFlat | PodNetworking::AzureOverlay => Plugin::AzureCni,
        PodNetworking::None => Plugin::Own,
    }
}

fn repair(machine: &MachineRecord) -> Option<Fact<String>> {
    let (_, since) = machine.repairing()?;
    let label = match &machine.assignment.as_ref()?.role {
        Role::Node { node_name, .. } => node_name.clone(),
        Role::ControlPlane { index, .. } => format!("control plane {index}"),
    };
    let reason = &machine.healing.reason;
    Some(Fact::since(format!("{label}: {reason}"), since))
}
