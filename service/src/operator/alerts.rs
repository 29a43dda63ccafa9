//! Alerts, looked at once a minute for the whole stamp.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use cluster_versions::Offered;
use control_records::{
    Event, EventKind, Fence, HostId,
    alert::{self, AlertRecord},
    events, key,
};
use control_store::{Revision, Store, StoreError, Txn};
use jiff::Timestamp;
use policy_alerts::{AgentFacts, Change, ClusterFact, Facts, ImageFact, StoreFacts, step};

use super::{Operator, gathered::ClusterSeen};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(60);

/// What was counted of the store at the last look.
#[derive(Debug, Clone, Copy, Default)]
struct Counted {
    commits: u64,
    took: Duration,
}

impl Operator {
    /// Looks once a minute, for ever.
    pub async fn watch_alerts(&self) {
        let mut counted = self.counted();
        loop {
            self.sources.env.clock.sleep(LOOK).await;
            let before = std::mem::replace(&mut counted, self.counted());
            if let Err(error) = self.look(&counted, &before).await {
                tracing::error!(%error, "alerts cannot be looked at");
            }
        }
    }

    fn counted(&self) -> Counted {
        let (commits, took) = self
            .sources
            .metered
            .as_ref()
            .map(|meter| meter.so_far())
            .unwrap_or_default();
        Counted { commits, took }
    }

    async fn look(&self, counted: &Counted, before: &Counted) -> Result<(), StoreError> {
        let store = &*self.sources.store;
        let clusters = self.gathered.lock().await.read(store).await?;
        self.look_at_certificates(&clusters).await?;
        let host = self.host().await;
        let now = self.sources.env.clock.now();
        // Its lock does not outlive this.
        let certificates = self.book().facts();
        let facts = Facts {
            certificates,
            disk: host.disk,
            clusters: Some(clusters.iter().map(|seen| fact(seen)).collect()),
            images: Some(self.image_facts(&clusters)),
            oldest_offered: Offered::pinned().versions().first().copied(),
            agents: Some(self.agent_facts(&clusters)),
            store: self.store_facts(counted, before, now).await?,
        };
        let records = alert::list(store).await?;
        let known: Vec<AlertRecord> = records.iter().map(|stored| stored.value.clone()).collect();
        for change in step(&known, &facts, now) {
            let name = match &change {
                Change::Open(record) | Change::Tell(record) | Change::Close(record) => &record.name,
                Change::Forget(name) => name,
            };
            let revision = records.iter().find(|stored| stored.value.name == *name);
            let revision = revision.map(|stored| stored.revision);
            match self.write(&change, revision, now).await {
                Ok(()) => {}
                // Somebody has written to the cluster's history at the same moment: the next look decides again.
                Err(StoreError::Conflict { key }) => {
                    tracing::debug!(key, "an alert is written at the next look")
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes a change, and what the history of its cluster tells of it, in one transaction.
    async fn write(
        &self,
        change: &Change,
        revision: Option<Revision>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let store = &*self.sources.store;
        let (record, told) = match change {
            Change::Forget(name) => {
                let key = alert::key(name);
                let txn = match revision {
                    Some(revision) => Txn::default().at(&key, revision),
                    None => Txn::default(),
                };
                return store.txn(txn.delete(key)).await.map(drop);
            }
            Change::Open(record) => (record, Some(EventKind::ProblemBegan)),
            Change::Close(record) => (record, Some(EventKind::ProblemEnded)),
            Change::Tell(record) => (record, None),
        };
        match change {
            Change::Close(_) => tracing::info!(alert = record.name, "an alert is closed: {}", record.closes),
            _ => tracing::warn!(
                alert = record.name,
                severity = record.severity.as_str(),
                "{}; {}",
                record.message,
                record.remedy
            ),
        }
        let txn = match revision {
            Some(revision) => Txn::default().at(record.key(), revision),
            None => Txn::default().absent(record.key()),
        };
        let mut txn = txn.with(record.put());
        if let (Some(cluster), Some(kind)) = (&record.cluster, told) {
            txn = tell(store, txn, &cluster.uid, kind, record, now).await?;
        }
        store.txn(txn).await.map(drop)
    }

    fn image_facts(&self, clusters: &[Arc<ClusterSeen>]) -> Vec<ImageFact> {
        let machines = clusters.iter().flat_map(|cluster| &cluster.machines);
        let versions: BTreeSet<&str> = machines.map(|machine| machine.image.as_str()).collect();
        let built = versions.into_iter().filter_map(|version| {
            Some(ImageFact {
                version: version.to_owned(),
                built_at: self.sources.images.fresh_at(version)?,
            })
        });
        built.collect()
    }

    fn agent_facts(&self, clusters: &[Arc<ClusterSeen>]) -> AgentFacts {
        let machines = clusters.iter().flat_map(|cluster| &cluster.machines);
        let agents = &*self.sources.agents;
        let mut facts = AgentFacts {
            expected: 0,
            silent: 0,
        };
        for machine in machines.filter(|machine| machine.expected) {
            facts.expected += 1;
            // One that was never heard is still starting, or the service is.
            let silent = agents.contact(&machine.id).is_some() && !agents.heard(&machine.id);
            facts.silent += u64::from(silent);
        }
        facts
    }

    async fn store_facts(
        &self,
        counted: &Counted,
        before: &Counted,
        now: Timestamp,
    ) -> Result<Option<StoreFacts>, StoreError> {
        let commits = counted.commits.saturating_sub(before.commits);
        let took = counted.took.saturating_sub(before.took);
        let commit = u32::try_from(commits)
            .ok()
            .and_then(|commits| took.checked_div(commits));
        let copy_problem = match &self.sources.copies {
            Some(copies) => copies.status().await?.complaint(now),
            None => None,
        };
        Ok(Some(StoreFacts { commit, copy_problem }))
    }
}

fn fact(seen: &ClusterSeen) -> ClusterFact {
    let held = seen.machines.iter().filter_map(|machine| {
        let why = machine.held.as_ref()?;
        Some(format!("{}: {why}", machine.name))
    });
    ClusterFact {
        cluster: seen.cluster.clone(),
        version: seen.version.parse().ok(),
        rests: seen.rests,
        backup_behind: seen.backup_behind,
        repairs_held: held.collect(),
        release_waits: seen.release_waits.clone(),
    }
}

/// With a line in the history of a cluster, as long as it is there and this host's.
async fn tell(
    store: &dyn Store,
    txn: Txn,
    uid: &str,
    kind: EventKind,
    record: &AlertRecord,
    now: Timestamp,
) -> Result<Txn, StoreError> {
    let Some(desired) = store.get(&key::desired(uid)).await? else {
        return Ok(txn);
    };
    let Some(fence) = Fence::read(store, uid, &HostId::first()).await? else {
        return Ok(txn);
    };
    let message = match kind {
        EventKind::ProblemEnded => format!("the alert {} is closed: {}", record.rule, record.closes),
        _ => format!("alert {}: {}; {}", record.rule, record.message, record.remedy),
    };
    let txn = fence.guard(txn, uid).at(key::desired(uid), desired.revision);
    events::append(store, txn, uid, &[Event::new(kind, "", message)], now).await
}
