//! The requests of tenants, and the state that must follow after they were acknowledged. The module
//! `requests` sends them.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

use anyhow::Result;
use cluster_versions::Offered;
use control_records::{ClusterRecord, GroupRecord, key};

use crate::stamp::{Answer, SUBSCRIPTION, Stamp};

/// The resource group of all clusters.
pub const GROUP: &str = "rg";

/// A request of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// The PUT of a cluster.
    Create {
        /// Its name.
        cluster: String,
        /// Pools and how many nodes each has.
        pools: Vec<(String, u32)>,
        /// kubenet, azure, overlay or none.
        plugin: Option<String>,
        /// Free, Standard or Premium.
        tier: Option<String>,
    },
    /// The PUT of a pool with another count.
    Pool {
        /// The cluster.
        cluster: String,
        /// The pool.
        pool: String,
        /// How many nodes.
        count: u32,
    },
    /// The PUT of a pool with one more label.
    Label {
        /// The cluster.
        cluster: String,
        /// The pool.
        pool: String,
        /// Key and value.
        label: (String, String),
    },
    /// The PUT of a pool with one more taint.
    Taint {
        /// The cluster.
        cluster: String,
        /// The pool.
        pool: String,
        /// `key=value:Effect`
        taint: String,
    },
    /// The DELETE of a pool.
    Drop {
        /// The cluster.
        cluster: String,
        /// The pool.
        pool: String,
    },
    /// The PUT of the cluster with another tier.
    Tier {
        /// The cluster.
        cluster: String,
        /// The tier.
        tier: String,
    },
    /// The PUT of a cluster, or of a pool, with another version of Kubernetes.
    Upgrade {
        /// The cluster.
        cluster: String,
        /// The version.
        version: String,
        /// The part: a pool, or [`CONTROL_PLANE`]; all parts if absent.
        only: Option<String>,
    },
    /// The POST that upgrades a control plane with a way back.
    Soak {
        /// The cluster.
        cluster: String,
        /// The version.
        version: String,
    },
    /// The POST that ends that way back.
    Finalize {
        /// The cluster.
        cluster: String,
    },
    /// The POST that takes a control plane back.
    RollBack {
        /// The cluster.
        cluster: String,
        /// The version that it had, and is to have again.
        version: String,
    },
    /// The PUT that takes a pool back to the version that it had.
    PoolBack {
        /// The cluster.
        cluster: String,
        /// The pool.
        pool: String,
        /// That version.
        version: String,
    },
    /// The POST that brings a pool to the newest node image.
    Renew {
        /// The cluster.
        cluster: String,
        /// The pool.
        pool: String,
    },
    /// The DELETE of a cluster.
    Delete {
        /// The cluster.
        cluster: String,
    },
    /// The PUT of the group.
    Group,
    /// The DELETE of the group with all its clusters.
    DeleteGroup,
    /// The POST that aborts the running operation.
    Abort {
        /// The cluster.
        cluster: String,
    },
    /// The POST that stops a cluster, or starts it.
    Power {
        /// The cluster.
        cluster: String,
        /// Whether it is to be stopped.
        stopped: bool,
    },
    /// The POST that replaces a cluster's CAs, or the key of its service accounts.
    Rotate {
        /// The cluster.
        cluster: String,
        /// The key of service accounts instead of the CAs.
        keys: bool,
    },
    /// The POST that restores a cluster's state.
    Restore {
        /// The cluster.
        cluster: String,
        /// So many seconds back.
        ago: u32,
        /// The new cluster that it is to be; in place without one.
        new: Option<String>,
    },
}

/// In the place of a pool: only the control plane.
pub const CONTROL_PLANE: &str = "control-plane";

/// The desired state of a pool.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pool {
    count: u32,
    labels: BTreeMap<String, String>,
    taints: BTreeSet<String>,
    version: String,
}

/// The desired state of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Desired {
    pools: BTreeMap<String, Pool>,
    tier: String,
    version: String,
    emulated: Emulated,
    stopped: bool,
}

/// The version that a control plane behaves as until its upgrade is finalised: what new pools get. It ends by itself, so two states that
/// differ in it alone are the same.
#[derive(Debug, Clone, Default)]
struct Emulated(Option<String>);

impl PartialEq for Emulated {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Emulated {}

impl PartialOrd for Emulated {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Emulated {
    fn cmp(&self, _: &Self) -> Ordering {
        Ordering::Equal
    }
}

impl Desired {
    /// The version of a pool that does not say one.
    fn of_new_pools(&self) -> String {
        self.emulated.0.as_ref().unwrap_or(&self.version).clone()
    }
}

/// The possible states: several as long as a request was neither acknowledged nor refused.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    clusters: BTreeMap<String, BTreeSet<Option<Desired>>>,
    /// All states that were ever possible: an abort may return to any.
    past: BTreeMap<String, BTreeSet<Option<Desired>>>,
}

impl Asked {
    /// Updates the expected state after a response.
    pub fn heard(&mut self, wish: &Wish, answer: &Answer) {
        if answer.refused() {
            return;
        }
        let names: Vec<String> = match wish {
            Wish::Group => return,
            Wish::DeleteGroup => self.clusters.keys().cloned().collect(),
            Wish::Create { cluster, .. }
            | Wish::Pool { cluster, .. }
            | Wish::Label { cluster, .. }
            | Wish::Taint { cluster, .. }
            | Wish::Drop { cluster, .. }
            | Wish::Tier { cluster, .. }
            | Wish::Upgrade { cluster, .. }
            | Wish::Soak { cluster, .. }
            | Wish::Finalize { cluster }
            | Wish::RollBack { cluster, .. }
            | Wish::PoolBack { cluster, .. }
            | Wish::Renew { cluster, .. }
            | Wish::Delete { cluster }
            | Wish::Power { cluster, .. }
            | Wish::Rotate { cluster, .. }
            | Wish::Abort { cluster } => vec![cluster.clone()],
            Wish::Restore { cluster, new, .. } => vec![new.as_ref().unwrap_or(cluster).clone()],
        };
        let source = match wish {
            Wish::Restore {
                cluster,
                new: Some(_),
                ..
            } => self.source(cluster),
            _ => None,
        };
        for name in names {
            let past = self.past.entry(name.clone()).or_default();
            let before = self
                .clusters
                .entry(name)
                .or_insert_with(|| BTreeSet::from([None]));
            past.extend(before.iter().cloned());
            if matches!(wish, Wish::Abort { .. }) {
                // It returns to a state that was reached before; which one, is read right afterwards.
                before.extend(past.iter().filter(|state| state.is_some()).cloned());
                continue;
            }
            let after: BTreeSet<_> = match &source {
                Some(source) => source.clone(),
                None => before.iter().map(|state| next(state.clone(), wish)).collect(),
            };
            if answer.accepted() {
                *before = after;
            } else {
                before.extend(after);
            }
        }
    }

    /// The desired state of a new cluster from a cluster's backup: the other's. If that is being deleted, or
    /// gone, its last state; which of its possible states that is, is not known here.
    fn source(&self, cluster: &str) -> Option<BTreeSet<Option<Desired>>> {
        let mut source = self.clusters.get(cluster)?.clone();
        if source.remove(&None) {
            let past = self.past.get(cluster).into_iter().flatten();
            source.extend(past.filter(|state| state.is_some()).cloned());
        }
        Some(source)
    }

    /// An abort was acknowledged: the present state stays, unless its group is being deleted. Without a
    /// response, it may have happened all the same, and then the present state is the one that it returned
    /// to.
    pub async fn aborted(&mut self, stamp: &Stamp, cluster: &str, acknowledged: bool) -> Result<()> {
        let there = stamp.cluster(cluster).await?.as_ref().map(desired);
        let groups = stamp.records::<GroupRecord>(key::GROUPS).await?;
        let group = groups.get(&key::group(SUBSCRIPTION, GROUP));
        let past = self.past.get(cluster);
        let Some(asked) = self.clusters.get_mut(cluster) else {
            return Ok(());
        };
        let returned_to = there
            .as_ref()
            .is_some_and(|there| past.is_some_and(|past| may_return(past, there)));
        if asked.contains(&there) || returned_to {
            if acknowledged {
                asked.clear();
            }
            asked.insert(there);
        }
        if group.is_none_or(|group| group.deleting) {
            asked.insert(None);
        }
        Ok(())
    }

    /// Existing clusters that were not requested, and missing ones.
    pub async fn check(&self, stamp: &Stamp) -> Result<Vec<String>> {
        let mut problems = Vec::new();
        let clusters: BTreeMap<_, _> = stamp
            .clusters()
            .await?
            .into_values()
            .map(|cluster| (cluster.name.to_lowercase(), cluster))
            .collect();
        let names: BTreeSet<_> = clusters
            .values()
            .map(|cluster| cluster.name.clone())
            .chain(self.clusters.keys().cloned())
            .collect();
        for name in names {
            let there = clusters.get(&name.to_lowercase()).map(desired);
            let asked = self.clusters.get(&name);
            if !asked.is_some_and(|asked| asked.contains(&there)) {
                problems.push(format!("{name} is {there:?}, and asked for was one of {asked:?}"));
            }
        }
        Ok(problems)
    }
}

/// Whether an abort may return to this: each part as it was at some time; a pool that never came to be has no nodes.
fn may_return(past: &BTreeSet<Option<Desired>>, there: &Desired) -> bool {
    let past = || past.iter().flatten();
    let known = |(name, pool): (&String, &Pool)| {
        past().filter_map(|state| state.pools.get(name)).any(|before| {
            (pool.count == before.count || pool.count == 0)
                && pool.labels == before.labels
                && pool.taints == before.taints
                && pool.version == before.version
        })
    };
    past().any(|state| state.tier == there.tier)
        && past().any(|state| state.version == there.version)
        && past().any(|state| state.stopped == there.stopped)
        && there.pools.iter().all(known)
}

fn desired(record: &ClusterRecord) -> Desired {
    let pools = record.spec().pools.iter().map(|pool| {
        let asked = Pool {
            count: pool.count,
            labels: pool.labels.clone(),
            taints: pool.taints.iter().cloned().collect(),
            version: pool.kubernetes_version.clone(),
        };
        (pool.name.clone(), asked)
    });
    Desired {
        pools: pools.collect(),
        tier: tier(record),
        version: record.spec().kubernetes_version.clone(),
        emulated: Emulated::default(),
        stopped: record.spec().stopped,
    }
}

fn tier(record: &ClusterRecord) -> String {
    record.body()["sku"]["tier"].as_str().unwrap_or("Free").to_owned()
}

fn next(state: Option<Desired>, wish: &Wish) -> Option<Desired> {
    match wish {
        Wish::Create { pools, tier, .. } => {
            let mut next = state.unwrap_or_default();
            next.tier = tier.clone().unwrap_or_else(|| "Free".to_owned());
            if next.version.is_empty() {
                next.version = Offered::pinned().default_version().to_string();
            }
            for (name, count) in pools {
                let before = next.pools.get(name).map(|pool| pool.version.clone());
                let pool = Pool {
                    count: *count,
                    version: before.unwrap_or_else(|| next.of_new_pools()),
                    ..Pool::default()
                };
                next.pools.insert(name.clone(), pool);
            }
            return Some(next);
        }
        Wish::Delete { .. } | Wish::DeleteGroup => return None,
        Wish::Group | Wish::Abort { .. } | Wish::Restore { .. } => return state,
        _ => {}
    }
    let mut next = state?;
    match wish {
        Wish::Pool { pool, count, .. } => {
            let version = next.of_new_pools();
            let new = || Pool {
                version,
                ..Pool::default()
            };
            next.pools.entry(pool.clone()).or_insert_with(new).count = *count;
        }
        Wish::Label { pool, label, .. } => {
            let pool = next.pools.get_mut(pool)?;
            pool.labels.insert(label.0.clone(), label.1.clone());
        }
        Wish::Taint { pool, taint, .. } => {
            next.pools.get_mut(pool)?.taints.insert(taint.clone());
        }
        Wish::Drop { pool, .. } => {
            next.pools.remove(pool);
        }
        Wish::Tier { tier, .. } => {
            next.tier.clone_from(tier);
            // Of clusters that are stopped, a PUT is taken of archived ones only, and brings them back.
            next.stopped = false;
        }
        Wish::Power { stopped, .. } => next.stopped = *stopped,
        Wish::Soak { version, .. } => {
            let before = std::mem::replace(&mut next.version, version.clone());
            next.emulated.0.get_or_insert(before);
        }
        Wish::RollBack { version, .. } => {
            next.version.clone_from(version);
            next.emulated = Emulated::default();
        }
        Wish::PoolBack { pool, version, .. } => {
            next.pools.get_mut(pool)?.version.clone_from(version);
        }
        Wish::Upgrade { version, only, .. } => match only.as_deref() {
            Some(CONTROL_PLANE) => {
                next.version.clone_from(version);
                next.stopped = false;
            }
            Some(pool) => next.pools.get_mut(pool)?.version.clone_from(version),
            None => {
                next.stopped = false;
                next.version.clone_from(version);
                for pool in next.pools.values_mut() {
                    pool.version.clone_from(version);
                }
            }
        },
        _ => {}
    }
    Some(next)
}
