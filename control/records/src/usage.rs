//! How much is asked for, and how much may be: quotas of subscriptions and the room of the stamp.
//!
//! What all clusters ask for is kept as sums in one record, [`key::USAGE`], which is changed in the transaction that makes a cluster ask for
//! more or less, or that removes it. Whoever decides that something more fits rests on the revision that he has read, so two writers never
//! pass a limit together.
//!
//! Always true: the sums are those of all [`ClusterRecord`]s there are, of clusters that are stopped or on their way out as well; a record that
//! is not there is counted anew ([`count`]) by the next who needs it. Decisions are pure ([`Limits::excesses`]), and nothing is refused that asks for
//! no more than before: a limit that was lowered takes nothing away.

use std::collections::BTreeMap;

use cluster_spec::{ClusterSpec, vm_size};
use control_store::{Revision, Store, StoreError, Stored, Txn, get_record, put_record};
use serde::{Deserialize, Serialize};

use crate::{ClusterRecord, directory, key};

/// Memory that a node takes when nobody runs anything on it, MiB.
pub const NODE_MEMORY_MIB: u64 = 192;
/// Memory that a member of a control plane takes at least, MiB.
pub const MEMBER_MEMORY_MIB: u64 = 384;
/// Room on the host's disk that a machine takes at least, GiB.
pub const MACHINE_DISK_GIB: u64 = 1;
/// How many cores are given out for each that the host has: most nodes do nothing most of the time.
pub const CORES_FOR_ONE: u64 = 32;
/// Of the host's memory, this many hundredths may be promised to machines.
const MEMORY_SHARE: u64 = 90;

/// What clusters ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Amounts {
    /// Clusters.
    pub clusters: u64,
    /// Members of control planes.
    pub members: u64,
    /// Nodes: the sum of the pools' counts; for a pool with an autoscaler, its maximum.
    pub nodes: u64,
    /// Pools.
    pub pools: u64,
    /// Nodes that are there beside them while all pools are upgraded.
    pub surge: u64,
    /// Cores of the nodes, by family of sizes.
    pub cores: BTreeMap<String, u64>,
    /// Cores of the nodes that upgrades add.
    pub surge_cores: u64,
}

impl Amounts {
    /// What a cluster asks for.
    pub fn of(spec: &ClusterSpec) -> Self {
        let mut sum = Self {
            clusters: 1,
            members: u64::from(spec.tier.members()),
            ..Self::default()
        };
        for pool in &spec.pools {
            let (count, surge) = (u64::from(pool.most()), surge_of(pool));
            sum.pools += 1;
            sum.nodes = sum.nodes.saturating_add(count);
            sum.surge = sum.surge.saturating_add(surge);
            if let Some(size) = vm_size(&pool.vm_size) {
                let each = u64::from(size.cores);
                let cores = sum.cores.entry(size.family().to_owned()).or_default();
                *cores = cores.saturating_add(count.saturating_mul(each));
                sum.surge_cores = sum.surge_cores.saturating_add(surge.saturating_mul(each));
            }
        }
        sum.cores.retain(|_, cores| *cores > 0);
        sum
    }

    /// Cores of all nodes.
    pub fn all_cores(&self) -> u64 {
        self.cores.values().fold(0, |sum, own| sum.saturating_add(*own))
    }

    /// Machines, with those that upgrades add.
    pub fn machines(&self) -> u64 {
        self.members.saturating_add(self.nodes).saturating_add(self.surge)
    }

    /// Memory that they take at least, MiB.
    pub fn memory_mib(&self) -> u64 {
        let nodes = self
            .nodes
            .saturating_add(self.surge)
            .saturating_mul(NODE_MEMORY_MIB);
        nodes.saturating_add(self.members.saturating_mul(MEMBER_MEMORY_MIB))
    }

    /// Addresses in the stamp's network beside VIPs: one for each VNET, and one for each member.
    fn addresses(&self) -> u64 {
        self.clusters.saturating_add(self.members)
    }

    /// Changes each number by the other's. A family of sizes without cores is left out.
    fn combine(&mut self, other: &Self, with: fn(u64, u64) -> u64) {
        for (own, other) in [
            (&mut self.clusters, other.clusters),
            (&mut self.members, other.members),
            (&mut self.nodes, other.nodes),
            (&mut self.pools, other.pools),
            (&mut self.surge, other.surge),
            (&mut self.surge_cores, other.surge_cores),
        ] {
            *own = with(*own, other);
        }
        for (family, other) in &other.cores {
            let cores = with(self.cores.get(family).copied().unwrap_or(0), *other);
            match self.cores.get_mut(family) {
                _ if cores == 0 => {
                    self.cores.remove(family);
                }
                Some(own) => *own = cores,
                None => {
                    self.cores.insert(family.clone(), cores);
                }
            }
        }
    }

    fn add(&mut self, other: &Self) {
        self.combine(other, u64::saturating_add);
    }

    /// The sum of both.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let mut sum = self.clone();
        sum.add(other);
        sum
    }

    /// What is left of it.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        let mut left = self.clone();
        left.combine(other, u64::saturating_sub);
        left
    }
}

/// Nodes beyond its count that a pool may have while it is upgraded. A pool without nodes has none to upgrade.
fn surge_of(pool: &cluster_spec::PoolSpec) -> u64 {
    match pool.most() {
        0 => 0,
        _ => u64::from(pool.surge),
    }
}

/// Of the pools that a change takes to another version, or to newer nodes: the nodes that are added meanwhile, and their cores.
pub fn upgrade(before: &ClusterSpec, after: &ClusterSpec) -> (u64, u64) {
    let mut sum = (0_u64, 0_u64);
    for pool in &after.pools {
        let old = before.pools.iter().find(|old| old.name == pool.name);
        if old.is_some_and(|old| {
            old.kubernetes_version != pool.kubernetes_version
                || old.renewed != pool.renewed
                || old.image != pool.image
        }) {
            let surge = surge_of(pool);
            let cores = vm_size(&pool.vm_size).map_or(0, |size| u64::from(size.cores));
            sum.0 = sum.0.saturating_add(surge);
            sum.1 = sum.1.saturating_add(surge.saturating_mul(cores));
        }
    }
    sum
}

/// The sums, by subscription (GUID, lower case).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageRecord {
    /// Format.
    pub v: u32,
    /// By subscription.
    pub subscriptions: BTreeMap<String, Amounts>,
}

impl UsageRecord {
    /// What the clusters of a subscription ask for.
    pub fn of(&self, subscription: &str) -> Amounts {
        let found = self.subscriptions.get(&subscription.to_ascii_lowercase());
        found.cloned().unwrap_or_default()
    }

    /// What all clusters of the stamp ask for.
    pub fn all(&self) -> Amounts {
        let mut sum = Amounts::default();
        for own in self.subscriptions.values() {
            sum.add(own);
        }
        sum
    }

    /// Counts a cluster of a subscription in.
    fn add(&mut self, subscription: &str, amounts: &Amounts) {
        let key = subscription.to_ascii_lowercase();
        self.subscriptions.entry(key).or_default().add(amounts);
    }

    /// With other amounts of one cluster of a subscription.
    #[must_use]
    pub fn with(&self, subscription: &str, before: &Amounts, after: &Amounts) -> Self {
        let mut record = self.clone();
        let own = record.of(subscription).minus(before).plus(after);
        let key = subscription.to_ascii_lowercase();
        if own == Amounts::default() {
            record.subscriptions.remove(&key);
        } else {
            record.subscriptions.insert(key, own);
        }
        record
    }
}

/// The sums as they were read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// What they are.
    pub record: UsageRecord,
    /// When they were last written; `None` where they had to be counted.
    pub revision: Option<Revision>,
}

impl Usage {
    /// Reads them.
    ///
    /// # Errors
    /// What the store says.
    pub async fn read(store: &dyn Store) -> Result<Self, StoreError> {
        Ok(match get_record::<UsageRecord>(store, key::USAGE).await? {
            Some(Stored { value, revision }) => Self {
                record: value,
                revision: Some(revision),
            },
            None => Self {
                record: count(store).await?,
                revision: None,
            },
        })
    }

    /// The transaction, with a cluster's amounts changed in the sums; it fails where those are not as they were read any more.
    #[must_use]
    pub fn change(&self, txn: Txn, subscription: &str, before: &Amounts, after: &Amounts) -> Txn {
        if before == after {
            return txn;
        }
        let txn = match self.revision {
            Some(revision) => txn.at(key::USAGE, revision),
            None => txn.absent(key::USAGE),
        };
        let record = UsageRecord {
            v: 1,
            ..self.record.with(subscription, before, after)
        };
        txn.with(put_record(key::USAGE, &record))
    }
}

/// Counts what all clusters ask for: each is read once and forgotten.
///
/// # Errors
/// What the store says.
pub async fn count(store: &dyn Store) -> Result<UsageRecord, StoreError> {
    let mut record = UsageRecord {
        v: 1,
        ..UsageRecord::default()
    };
    let (names, _) = directory::cluster_names(store, None, None).await?;
    for name in names {
        if let Some(Stored { value, .. }) = directory::cluster(store, &name.uid).await? {
            let ClusterRecord { subscription, .. } = &value;
            record.add(subscription, &Amounts::of(value.spec()));
        }
    }
    Ok(record)
}

/// Counts anew and keeps that, where it is not what is kept: for the start of the service, before anything else writes.
///
/// # Errors
/// What the store says.
pub async fn keep(store: &dyn Store) -> Result<bool, StoreError> {
    let kept = get_record::<UsageRecord>(store, key::USAGE).await?;
    let counted = count(store).await?;
    if kept.as_ref().is_some_and(|kept| kept.value == counted) {
        return Ok(false);
    }
    let txn = match &kept {
        Some(kept) => Txn::default().at(key::USAGE, kept.revision),
        None => Txn::default().absent(key::USAGE),
    };
    store.txn(txn.with(put_record(key::USAGE, &counted))).await?;
    Ok(kept.is_some())
}

/// What there is a limit of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Quota {
    /// Clusters of a subscription.
    Clusters,
    /// Nodes of a subscription.
    Nodes,
    /// Cores of a subscription's nodes.
    Cores,
    /// Memory of the stamp, MiB.
    StampMemory,
    /// Disk of the stamp, GiB.
    StampDisk,
    /// Cores of the stamp.
    StampCores,
    /// Addresses of the stamp for machines and VNETs.
    StampAddresses,
    /// Addresses of the stamp for API servers.
    StampVips,
}

impl Quota {
    /// What people call it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Clusters => "Managed Clusters",
            Self::Nodes => "Nodes",
            Self::Cores => "Total Regional Cores",
            Self::StampMemory => "Memory of the stamp (MiB)",
            Self::StampDisk => "Disk of the stamp (GiB)",
            Self::StampCores => "Cores of the stamp",
            Self::StampAddresses => "Machine addresses of the stamp",
            Self::StampVips => "API server addresses of the stamp",
        }
    }

    /// Whether it is one of a subscription, which the operator of a stamp sets; the others are what the hosts have.
    pub fn is_of_subscription(self) -> bool {
        matches!(self, Self::Clusters | Self::Nodes | Self::Cores)
    }
}

/// A limit that would be passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Excess {
    /// Of what.
    pub quota: Quota,
    /// How much there may be.
    pub limit: u64,
    /// How much is asked for already.
    pub usage: u64,
    /// How much is asked for in addition.
    pub required: u64,
}

/// How much may be asked for. `None`: any number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Clusters of each subscription.
    pub clusters: Option<u64>,
    /// Nodes of each subscription.
    pub nodes: Option<u64>,
    /// Cores of each subscription's nodes.
    pub cores: Option<u64>,
    /// What the stamp has.
    pub room: Room,
}

/// What the hosts of a stamp have for its machines. `None`: any amount.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Room {
    /// Memory, MiB.
    pub memory_mib: Option<u64>,
    /// Disk, GiB.
    pub disk_gib: Option<u64>,
    /// Cores, as often as they are given out.
    pub cores: Option<u64>,
    /// Addresses for machines and VNETs.
    pub addresses: Option<u64>,
    /// Addresses for API servers.
    pub vips: Option<u64>,
}

impl Room {
    /// What a host with these has for machines. `disk_gib`: what its machines may still take, with what those that are there take
    /// at least.
    pub fn of_host(cores: u64, memory_mib: u64, disk_gib: Option<u64>, addresses: u64, vips: u64) -> Self {
        Self {
            memory_mib: Some(memory_mib.saturating_mul(MEMORY_SHARE) / 100),
            disk_gib,
            cores: Some(cores.saturating_mul(CORES_FOR_ONE)),
            addresses: Some(addresses),
            vips: Some(vips),
        }
    }
}

impl Limits {
    /// As much as there is room for.
    pub fn of_room(room: Room) -> Self {
        let machines = |each: u64| Some(room.memory_mib? / each);
        Self {
            clusters: machines(MEMBER_MEMORY_MIB + 2 * NODE_MEMORY_MIB)
                .into_iter()
                .chain(room.vips)
                .min(),
            nodes: machines(NODE_MEMORY_MIB),
            cores: room.cores,
            room,
        }
    }

    /// The limits that a change passes: from what one cluster asked for to what it asks for, and `upgrade` (nodes, cores) that is
    /// needed meanwhile. Pure.
    pub fn excesses(
        &self,
        usage: &UsageRecord,
        subscription: &str,
        before: &Amounts,
        after: &Amounts,
        upgrade: (u64, u64),
    ) -> Vec<Excess> {
        let (own, all) = (usage.of(subscription), usage.all());
        let (others, all_others) = (own.minus(before), all.minus(before));
        let row = |quota, limit: Option<u64>, others: u64, before: u64, after: u64| {
            let limit = limit?;
            let usage = others.saturating_add(before);
            let excess = Excess {
                quota,
                limit,
                usage,
                required: after.saturating_sub(before),
            };
            (after > before && others.saturating_add(after) > limit).then_some(excess)
        };
        let room = &self.room;
        let cores = |amounts: &Amounts| amounts.all_cores().saturating_add(amounts.surge_cores);
        [
            row(
                Quota::Clusters,
                self.clusters,
                others.clusters,
                before.clusters,
                after.clusters,
            ),
            row(
                Quota::Nodes,
                self.nodes,
                others.nodes,
                before.nodes,
                after.nodes.saturating_add(upgrade.0),
            ),
            row(
                Quota::Cores,
                self.cores,
                others.all_cores(),
                before.all_cores(),
                after.all_cores().saturating_add(upgrade.1),
            ),
            row(
                Quota::StampMemory,
                room.memory_mib,
                all_others.memory_mib(),
                before.memory_mib(),
                after.memory_mib(),
            ),
            row(
                Quota::StampDisk,
                room.disk_gib,
                all_others.machines().saturating_mul(MACHINE_DISK_GIB),
                before.machines().saturating_mul(MACHINE_DISK_GIB),
                after.machines().saturating_mul(MACHINE_DISK_GIB),
            ),
            row(
                Quota::StampCores,
                room.cores,
                cores(&all_others),
                cores(before),
                cores(after),
            ),
            row(
                Quota::StampAddresses,
                room.addresses,
                all_others.addresses(),
                before.addresses(),
                after.addresses(),
            ),
            row(
                Quota::StampVips,
                room.vips,
                all_others.clusters,
                before.clusters,
                after.clusters,
            ),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

#[cfg(test)]
#[path = "usage_tests.rs"]
mod tests;
