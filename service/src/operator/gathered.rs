//! The clusters as metrics and alerts see them: read from the records, and kept for as long as those do not change.

use std::{collections::HashMap, sync::Arc};

use control_records::{
    ClusterRecord, MachineRecord, ObservedRecord, OperationRecord, OperationStatus, Owner, Role,
    alert::AlertCluster, directory, key,
};
use control_store::{Revision, Store, StoreError, Versioned, parse_record};
use jiff::Timestamp;
use providers_containerservice::cluster_state;
use serde::Deserialize;

/// A cluster.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ClusterSeen {
    pub(super) cluster: AlertCluster,
    /// `provisioningState`.
    pub(super) state: &'static str,
    /// `Running` or `Stopped`.
    pub(super) power: &'static str,
    pub(super) version: String,
    pub(super) nodes_wanted: u32,
    pub(super) nodes_ready: u32,
    /// Whether it tells of a problem.
    pub(super) problem: bool,
    /// Whether it is stopped, or on its way out.
    pub(super) rests: bool,
    pub(super) backup_behind: Option<Timestamp>,
    pub(super) release_waits: Option<String>,
    /// When each operation began that has not ended.
    pub(super) running: Vec<Timestamp>,
    /// Operations that ended: reached, failed, canceled.
    pub(super) ended: [u64; 3],
    pub(super) machines: Vec<MachineFact>,
}

/// A machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MachineFact {
    pub(super) id: String,
    /// A node's name, or `control-plane-0`.
    pub(super) name: String,
    /// `control-plane`, `node` or `spare`.
    pub(super) role: &'static str,
    pub(super) state: &'static str,
    /// Kubernetes version of its image.
    pub(super) image: String,
    /// Why its repair is held up.
    pub(super) held: Option<String>,
    /// Whether its agent is to call.
    pub(super) expected: bool,
}

/// The revisions of what a cluster was read from: number and newest of those that are many. One that goes and one that comes are both seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    desired: Revision,
    observed: Option<Revision>,
    operations: (usize, Revision),
    machines: (usize, Revision),
}

/// What was read, and of which revisions.
#[derive(Debug, Default)]
pub(super) struct Gatherer {
    kept: HashMap<String, (Mark, Arc<ClusterSeen>)>,
    /// How many clusters were parsed the last time.
    parsed: usize,
}

fn newest(all: &[(String, Versioned)]) -> (usize, Revision) {
    let newest = all.iter().map(|(_, found)| found.revision).max();
    (all.len(), newest.unwrap_or_default())
}

impl Gatherer {
    /// All clusters, in the order of their names. A cluster that goes while it is read is left out.
    pub(super) async fn read(&mut self, store: &dyn Store) -> Result<Vec<Arc<ClusterSeen>>, StoreError> {
        let (names, _) = directory::cluster_names(store, None, None).await?;
        let mut kept = HashMap::with_capacity(names.len());
        let mut all = Vec::with_capacity(names.len());
        self.parsed = 0;
        for name in names {
            let uid = name.uid;
            let desired_key = key::desired(&uid);
            let Some(desired) = store.get(&desired_key).await? else {
                continue;
            };
            let observed_key = key::observed(&uid);
            let observed = store.get(&observed_key).await?;
            let (operations, _) = store.list(&Owner::cluster(uid.as_str()).operations()).await?;
            let (machines, _) = store.list(&key::machines(&uid)).await?;
            let mark = Mark {
                desired: desired.revision,
                observed: observed.as_ref().map(|found| found.revision),
                operations: newest(&operations),
                machines: newest(&machines),
            };
            let seen = match self.kept.get(&uid) {
                Some((before, seen)) if *before == mark => Arc::clone(seen),
                _ => {
                    self.parsed += 1;
                    let record = parse_record::<ClusterRecord>(&desired_key, &desired)?.value;
                    let observed = match &observed {
                        Some(found) => parse_record::<ObservedRecord>(&observed_key, found)?.value,
                        None => ObservedRecord::default(),
                    };
                    Arc::new(cluster(&record, &observed, &operations, &machines)?)
                }
            };
            kept.insert(uid, (mark, Arc::clone(&seen)));
            all.push(seen);
        }
        tracing::trace!(
            clusters = all.len(),
            parsed = self.parsed,
            "the clusters were gathered"
        );
        self.kept = kept;
        Ok(all)
    }

    /// How many clusters were parsed the last time.
    #[cfg(test)]
    pub(super) fn parsed(&self) -> usize {
        self.parsed
    }
}

/// Of an operation, the members that are needed of all: some have large outputs.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OperationHint {
    status: OperationStatus,
    started_at: Timestamp,
}

fn cluster(
    record: &ClusterRecord,
    observed: &ObservedRecord,
    operations: &[(String, Versioned)],
    machines: &[(String, Versioned)],
) -> Result<ClusterSeen, StoreError> {
    let (mut running, mut ended) = (Vec::new(), [0; 3]);
    let last = Owner::cluster(record.uid.as_str()).operation(&record.operation);
    let mut operation = None;
    for (key, found) in operations {
        let hint = parse_record::<OperationHint>(key, found)?.value;
        match hint.status {
            OperationStatus::InProgress => running.push(hint.started_at),
            OperationStatus::Succeeded => ended[0] += 1,
            OperationStatus::Failed => ended[1] += 1,
            OperationStatus::Canceled => ended[2] += 1,
        }
        if *key == last {
            operation = Some(parse_record::<OperationRecord>(key, found)?.value);
        }
    }
    let spec = record.spec();
    let rests = spec.stopped || record.deleting;
    let machines = machines.iter().map(|(key, found)| {
        let machine = parse_record::<MachineRecord>(key, found)?.value;
        Ok(machine_fact(machine, rests))
    });
    let machines = machines.collect::<Result<Vec<_>, StoreError>>()?;
    let wanted = spec.pools.iter().filter(|_| !spec.stopped);
    let version = observed.kubernetes_version.as_ref();
    Ok(ClusterSeen {
        cluster: AlertCluster {
            uid: record.uid.clone(),
            subscription: record.subscription.clone(),
            resource_group: record.resource_group.clone(),
            name: record.name.clone(),
        },
        state: cluster_state(record, Some(observed), operation.as_ref()).as_str(),
        power: if spec.stopped { "Stopped" } else { "Running" },
        version: version.unwrap_or(&spec.kubernetes_version).clone(),
        nodes_wanted: wanted.map(|pool| pool.wanted()).sum(),
        nodes_ready: observed.ready_nodes.values().sum(),
        problem: observed.problem.is_some(),
        rests,
        backup_behind: observed.backup_behind,
        release_waits: observed.release_waits.as_ref().map(|waits| waits.sentence()),
        running,
        ended,
        machines,
    })
}

fn machine_fact(machine: MachineRecord, rests: bool) -> MachineFact {
    let (name, role) = match machine.assignment.as_ref().map(|assignment| &assignment.role) {
        Some(Role::ControlPlane { index, .. }) => (format!("control-plane-{index}"), "control-plane"),
        Some(Role::Node { node_name, .. }) => (node_name.clone(), "node"),
        None => (machine.id.clone(), "spare"),
    };
    let emptying = machine.emptying.as_ref();
    let quarantined = emptying
        .and_then(|emptying| emptying.given_up.as_ref())
        .map(|given_up| given_up.quarantined);
    let state = if machine.deleting {
        "leaving"
    } else if machine.healing.off {
        "off"
    } else if machine.healing.given_up() {
        "given-up"
    } else if machine.repairing().is_some() {
        "repairing"
    } else if machine.upgrading().is_some() {
        "upgrading"
    } else if quarantined == Some(true) {
        "quarantined"
    } else if emptying.is_some() && quarantined.is_none() {
        "emptying"
    } else {
        "in-place"
    };
    let expected = !rests && !machine.deleting && !machine.healing.off;
    MachineFact {
        id: machine.id,
        held: machine.healing.held.filter(|_| expected),
        image: machine.image,
        name,
        role,
        state,
        expected,
    }
}
