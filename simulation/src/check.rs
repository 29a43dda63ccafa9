//! Checks of a settled stamp: each requested resource exists once, and no other does.

mod clusters;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::Result;
use control_records::{
    ClusterRecord, GroupRecord, LeaseRecord, MachineRecord, ObservedRecord, OperationRecord, OperationStatus,
    Owner, OwnerRecord, Phase, PkiRecord, Role, SealedRecord, Turn, directory,
    disk::{DISKS, DiskRecord},
    key,
    network::{self, NetworkRecord},
    unknown,
    usage::{self, UsageRecord},
};
use fabric_api::{Fabric as _, MachineId, MachineSpec, Power};

use crate::stamp::Stamp;

/// Operations end within the loops' bound and this.
const SLACK: Duration = Duration::from_secs(3 * 60);

/// All records on disk.
struct Records {
    clusters: BTreeMap<String, ClusterRecord>,
    observed: BTreeMap<String, ObservedRecord>,
    machines: BTreeMap<String, MachineRecord>,
    operations: BTreeMap<String, OperationRecord>,
}

impl Stamp {
    /// The first pending work; `None` when it is settled.
    pub async fn unsettled(&self) -> Result<Option<String>> {
        for (key, disk) in self.records::<DiskRecord>(DISKS).await? {
            if !disk.is_settled() && disk.failure.is_none() {
                return Ok(Some(format!("{key}: not made")));
            }
        }
        let publics = format!("{}{}/", network::NETWORK, network::PUBLIC_ADDRESSES);
        for (key, public) in self.records::<NetworkRecord>(&publics).await? {
            if public.public_address().is_none() {
                return Ok(Some(format!("{key}: no address")));
            }
        }
        let observed = self.of_clusters::<ObservedRecord>("observed").await?;
        for (uid, cluster) in self.clusters().await? {
            let key = cluster.name_key();
            let Some(observed) = observed.get(&uid) else {
                return Ok(Some(format!("{key}: not begun")));
            };
            if cluster.deleting || observed.generation < cluster.generation || !observed.step.is_empty() {
                let problem = observed.problem.as_deref().unwrap_or("-");
                return Ok(Some(format!("{key}: {} (problem: {problem})", observed.step)));
            }
            // The certificate requests of a stopped cluster stay in etcd until it is started: there is no API
            // to approve them through.
            if !cluster.spec().stopped && self.world.pending_serving(&cluster.uid) > 0 {
                return Ok(Some(format!("{key}: serving certificates are pending")));
            }
        }
        let groups = self.records::<GroupRecord>(key::GROUPS).await?;
        if let Some((key, _)) = groups.iter().find(|(_, group)| group.deleting) {
            return Ok(Some(format!("{key}: is being deleted")));
        }
        let operations = self.operations().await?;
        let open = operations
            .iter()
            .find(|(_, operation)| operation.status == OperationStatus::InProgress);
        Ok(open.map(|(key, operation)| format!("{key}: {} is in progress", operation.name)))
    }

    /// Waits until no work is left; gives the time that took, or the pending work.
    pub async fn settle(&mut self, bound: Duration) -> Result<Result<Duration, String>> {
        let begun = self.env.clock.monotonic();
        loop {
            let took = self.env.clock.monotonic() - begun;
            match self.unsettled().await? {
                None => return Ok(Ok(took)),
                Some(left) if took >= bound => return Ok(Err(left)),
                // The longer it takes, the longer the interval.
                Some(_) => self.wait(Duration::from_millis(100).max(took / 50)).await?,
            }
        }
    }

    /// Waits until all checks pass; otherwise gives the failed ones.
    pub async fn converge(&mut self, bound: Duration) -> Result<Vec<String>> {
        let begun = self.env.clock.monotonic();
        loop {
            let took = self.env.clock.monotonic() - begun;
            let problems = match self.unsettled().await? {
                None => self.check().await?,
                Some(left) => vec![format!("it is not settled: {left}")],
            };
            if problems.is_empty() || took >= bound {
                return Ok(problems);
            }
            self.wait(Duration::from_millis(100).max(took / 50)).await?;
        }
    }

    /// Failed checks of a settled stamp.
    pub async fn check(&self) -> Result<Vec<String>> {
        let mut problems = self.disk.violations();
        problems.extend(self.world.violations());
        problems.extend(self.world.vip_problems());
        let records = Records {
            clusters: self.clusters().await?,
            observed: self.of_clusters("observed").await?,
            machines: self.machines().await?,
            operations: self.operations().await?,
        };
        self.check_machines(&records, &mut problems).await?;
        self.check_records(&records, &mut problems).await?;
        let unknown = self.unknown_nodes().await?;
        for cluster in records.clusters.values() {
            let kept = unknown.get(&cluster.uid).map(Vec::as_slice).unwrap_or_default();
            self.check_cluster(&records, cluster, kept, &mut problems);
        }
        self.check_credentials(&records.clusters, &records.observed, &mut problems)
            .await?;
        self.check_namespaces(&records.clusters, &records.observed, &mut problems)
            .await?;
        self.check_policies(&records.clusters, &mut problems);
        self.check_ingress(&records.clusters, &mut problems);
        self.check_balancers(
            &records.clusters,
            &records.observed,
            &records.machines,
            &mut problems,
        )
        .await?;
        self.check_volumes(
            &records.clusters,
            &records.observed,
            &records.machines,
            &mut problems,
        )
        .await?;
        self.check_filters(&records.clusters, &mut problems).await?;
        self.check_operations(&records, &mut problems);
        problems.truncate(20);
        Ok(problems)
    }

    /// Nodes of unknown machines, by the cluster in their labels.
    async fn unknown_nodes(&self) -> Result<BTreeMap<String, Vec<MachineSpec>>> {
        let mut nodes = BTreeMap::<String, Vec<MachineSpec>>::new();
        for found in unknown::list(&*self.disk).await? {
            let machine = self.world.machine(&MachineId(found.id)).await?;
            if let Some(machine) = machine.filter(|machine| machine.labels.contains_key("pool"))
                && let Some(uid) = machine.labels.get("cluster").cloned()
            {
                nodes.entry(uid).or_default().push(machine);
            }
        }
        Ok(nodes)
    }

    async fn check_machines(&self, records: &Records, problems: &mut Vec<String>) -> Result<()> {
        let ids: BTreeSet<_> = records
            .machines
            .values()
            .map(|machine| machine.id.clone())
            .collect();
        let unknown = unknown::list(&*self.disk).await?;
        let mut there = self.world.machines();
        there.retain(|machine| !unknown.iter().any(|found| found.id == machine.id.as_str()));
        let in_fabric: BTreeSet<_> = there.iter().map(|machine| machine.id.to_string()).collect();
        // Of a stopped cluster, disks of the control plane may exist, as far as they were made, and no node.
        // A stopped node keeps its disk, unless it has not run since its disk was made anew, or at all.
        let disks = records.machines.values().filter(|machine| {
            let found = in_fabric.contains(&machine.id);
            if is_stopped(records, &machine.id) {
                found && matches!(role(machine), Some(Role::ControlPlane { .. }))
            } else {
                found || !machine.healing.off || machine.enrolled_key.is_some()
            }
        });
        same(
            problems,
            "machines there and machines written down",
            &in_fabric,
            &disks.map(|machine| machine.id.clone()).collect(),
        );
        for machine in there {
            if is_off(records, machine.id.as_str()) {
                if machine.power == Power::Running {
                    problems.push(format!("machine {} runs, and is to be off", machine.id));
                }
            } else if machine.power != Power::Running {
                problems.push(format!(
                    "machine {} does not run: {:?}",
                    machine.id, machine.power
                ));
            }
        }
        for (id, ailments) in self.world.ailing() {
            // A stopped machine is not repaired.
            if is_off(records, id.as_str()) {
                continue;
            }
            problems.push(format!("machine {id} still suffers: {ailments:?}"));
        }
        let configs = self.of_clusters::<SealedRecord>("machine-config").await?;
        let configured: BTreeSet<_> = configs.into_keys().collect();
        let mut ids = ids;
        ids.retain(|id| !is_stopped(records, id) || configured.contains(id));
        same(problems, "configurations and machines", &configured, &ids);
        let going = records.machines.values().filter(|machine| machine.deleting);
        // A member is removed from etcd first, which has to run for that.
        for machine in going.filter(|machine| !is_stopped(records, &machine.id)) {
            problems.push(format!("machine {} is still to go", machine.id));
        }
        Ok(())
    }

    async fn check_records(&self, records: &Records, problems: &mut Vec<String>) -> Result<()> {
        if let Some(kept) = self.record::<UsageRecord>(key::USAGE).await? {
            let counted = usage::count(&*self.disk).await?;
            if kept != counted {
                problems.push(format!("clusters ask for {counted:?}; kept is {kept:?}"));
            }
        }
        let uids: BTreeSet<_> = records
            .clusters
            .values()
            .map(|cluster| cluster.uid.clone())
            .collect();
        self.check_indexes(records, problems).await?;
        let observed = records.observed.keys().cloned().collect();
        same(problems, "observed records and clusters", &observed, &uids);
        let unknown = unknown::list(&*self.disk).await?;
        let mut networks: BTreeSet<_> = self
            .world
            .networks()
            .iter()
            .map(|network| network.id.to_string())
            .collect();
        networks.retain(|id| !unknown.iter().any(|found| found.id == *id));
        // Of a cluster whose creation was aborted, only records exist; of a stopped one, those that existed
        // then.
        let stopped = |uid: &String| {
            records
                .clusters
                .get(uid)
                .is_some_and(|cluster| cluster.spec().stopped)
        };
        networks.retain(|uid| !stopped(uid));
        let made: BTreeSet<_> = records
            .clusters
            .values()
            .filter(|cluster| !cluster.requests.halted && !cluster.spec().stopped)
            .map(|cluster| cluster.uid.clone())
            .collect();
        same(problems, "networks and clusters", &networks, &made);
        let pkis = self.of_clusters::<PkiRecord>("pki").await?;
        for (uid, pki) in pkis.iter().filter(|(uid, _)| made.contains(*uid)) {
            let rotation = &pki.rotation;
            let done = |turn: Turn| turn.phase == Phase::Done;
            if !done(rotation.authorities) || !done(rotation.service_accounts) {
                problems.push(format!(
                    "the keys of cluster {uid} stay between two: {rotation:?}"
                ));
            }
        }
        let mut keys: BTreeSet<_> = pkis.into_keys().collect();
        // An abort may have come before the keys.
        keys.retain(|uid| made.contains(uid) || !uids.contains(uid));
        same(problems, "keys and clusters", &keys, &made);
        let groups = self.records::<GroupRecord>(key::GROUPS).await?;
        let managed = groups.values().filter(|group| group.managed_by.is_some()).count();
        if managed != uids.len() {
            problems.push(format!("{managed} groups of nodes, {} clusters", uids.len()));
        }
        let leases = self.records::<LeaseRecord>(key::LEASES).await?;
        let publics = format!("{}{}/", network::NETWORK, network::PUBLIC_ADDRESSES);
        let publics = self.records::<NetworkRecord>(&publics).await?;
        let publics: BTreeSet<_> = publics.into_values().map(|public| public.uid).collect();
        let mut owners = BTreeSet::new();
        for (key, lease) in &leases {
            let uid = lease.owner.split('/').nth(1).unwrap_or_default();
            let machine = lease.owner.starts_with("machine/") && records.machines.contains_key(uid);
            let public = lease.owner.starts_with("publicip/") && publics.contains(uid);
            if !uids.contains(uid) && !machine && !public {
                problems.push(format!(
                    "{key} is leased by {}, which does not exist",
                    lease.owner
                ));
            }
            if !owners.insert(&lease.owner) {
                problems.push(format!("{} has two addresses", lease.owner));
            }
        }
        for (uid, seen) in made
            .iter()
            .filter_map(|uid| Some((uid, records.observed.get(uid)?)))
        {
            for (pool, address) in [("vips", seen.vip), ("machines", seen.uplink)] {
                let held = address.and_then(|address| leases.get(&key::lease(pool, address)));
                if !held.is_some_and(|lease| lease.owner.contains(uid.as_str())) {
                    problems.push(format!("cluster {uid} uses {address:?} without a lease"));
                }
            }
        }
        Ok(())
    }

    /// Each index entry of a name or an owner has the right value, and none is missing.
    async fn check_indexes(&self, records: &Records, problems: &mut Vec<String>) -> Result<()> {
        let (names, _) = directory::cluster_names(&*self.disk, None, None).await?;
        let named: BTreeSet<_> = names.into_iter().map(|name| (name.key, name.uid)).collect();
        let wanted: BTreeSet<_> = records
            .clusters
            .values()
            .map(|cluster| (cluster.name_key(), cluster.uid.clone()))
            .collect();
        if named != wanted {
            problems.push(format!("names are {named:?}, and clusters {wanted:?}"));
        }
        let machines = records.machines.values().filter_map(|machine| {
            let uid = &machine.assignment.as_ref()?.cluster;
            Some((key::machine_owner(&machine.id), Owner::cluster(uid.as_str())))
        });
        let operations = records
            .operations
            .values()
            .map(|operation| (key::operation_owner(&operation.id), operation.owner.clone()));
        let wanted: BTreeMap<_, _> = machines.chain(operations).collect();
        let owners = self.records::<OwnerRecord>("/owners/").await?;
        let owners: BTreeMap<_, _> = owners
            .into_iter()
            .map(|(key, found)| (key, found.owner))
            .collect();
        if owners != wanted {
            problems.push(format!("owners are {owners:?}, and have to be {wanted:?}"));
        }
        Ok(())
    }

    fn check_operations(&self, records: &Records, problems: &mut Vec<String>) {
        let bound = self.settings.policy.operation_bound + self.outage + SLACK;
        for operation in records.operations.values() {
            let Some(ended) = operation.ended_at else {
                problems.push(format!("operation {} did not end", operation.name));
                continue;
            };
            let took = ended.duration_since(operation.started_at).unsigned_abs();
            // The deadline of an operation that replaces nodes is extended.
            let longer = operation.progress.until;
            let longer = longer.and_then(|until| until.checked_add(self.outage + SLACK).ok());
            if took > bound && longer.is_none_or(|until| ended > until) {
                problems.push(format!("operation {} took {took:?}", operation.name));
            }
            let told = operation
                .error
                .as_ref()
                .is_some_and(|error| !error.code.is_empty() && !error.message.is_empty());
            if operation.status == OperationStatus::Failed && !told {
                problems.push(format!(
                    "operation {} failed and does not say why",
                    operation.name
                ));
            }
        }
    }
}

fn role(machine: &MachineRecord) -> Option<&Role> {
    machine.assignment.as_ref().map(|given| &given.role)
}

/// Whether a machine is of a cluster that is stopped.
fn is_stopped(records: &Records, machine: &str) -> bool {
    let found = records.machines.values().find(|record| record.id == machine);
    found
        .and_then(|machine| machine.assignment.as_ref())
        .and_then(|given| records.clusters.get(&given.cluster))
        .is_some_and(|cluster| cluster.spec().stopped)
}

/// Whether a machine is not to run: its cluster is stopped, or a user has stopped it.
fn is_off(records: &Records, machine: &str) -> bool {
    let mut off = records.machines.values().filter(|record| record.healing.off);
    off.any(|record| record.id == machine) || is_stopped(records, machine)
}

fn same(problems: &mut Vec<String>, what: &str, there: &BTreeSet<String>, wanted: &BTreeSet<String>) {
    for left in there.difference(wanted) {
        problems.push(format!("{what}: {left} is left over"));
    }
    for missing in wanted.difference(there) {
        problems.push(format!("{what}: {missing} is missing"));
    }
}
