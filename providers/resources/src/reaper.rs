//! Ends the deletion of resource groups: level-triggered, so a lost wake-up or a restart costs at most a resync.

use std::{sync::Arc, time::Duration};

use arm_ids::group_id;
use arm_wire::Provider;
use base_env::Env;
use control_records::{GroupRecord, OperationRecord, OperationStatus, key};
use control_store::{Change, Store, StoreError, Txn, list_records, put_record};
use tokio::sync::mpsc::Receiver;

use crate::groups::DELETE;

/// While something is to go: looks again after this, whatever the watch says.
const BUSY: Duration = Duration::from_secs(2);
/// While nothing is: a safety net only.
const IDLE: Duration = Duration::from_secs(300);
/// Changes come in bursts; one look is enough for all of a burst.
const GATHER: Duration = Duration::from_millis(50);
/// After the store failed.
const BACK_OFF: Duration = Duration::from_secs(1);

/// Empties and removes the groups that are marked as deleting.
pub struct GroupReaper {
    env: Env,
    store: Arc<dyn Store>,
    providers: Vec<Arc<dyn Provider>>,
}

impl GroupReaper {
    /// A reaper; `providers` are all that may have resources in groups.
    pub fn new(env: Env, store: Arc<dyn Store>, providers: Vec<Arc<dyn Provider>>) -> Self {
        Self {
            env,
            store,
            providers,
        }
    }

    /// Runs until `shutdown`.
    pub async fn run(&self, shutdown: impl Future<Output = ()> + Send) {
        let work = async {
            loop {
                if let Err(error) = self.round().await {
                    tracing::error!(%error, "cannot look after resource groups");
                    self.env.clock.sleep(BACK_OFF).await;
                }
            }
        };
        tokio::select! {
            biased;
            () = shutdown => {}
            () = work => {}
        }
    }

    /// One look at everything, then waits for a reason to look again.
    async fn round(&self) -> Result<(), StoreError> {
        let (groups, revision) = list_records::<GroupRecord>(&*self.store, "/groups/").await?;
        // Watched from before the work, so that what happens meanwhile is seen.
        let deleting: Vec<_> = groups
            .into_iter()
            .filter(|(_, stored)| stored.value.deleting)
            .collect();
        let (prefix, patience) = if deleting.is_empty() {
            ("/groups/", IDLE)
        } else {
            ("/", BUSY)
        };
        let mut watch = self.store.watch(prefix, revision).await?;
        let mut left = 0;
        for (_, group) in &deleting {
            if !self.reap(group.value.clone(), group.revision).await? {
                left += 1;
            }
        }
        if !deleting.is_empty() && left == 0 {
            return Ok(());
        }
        let jitter = patience.mul_f64(0.1 * self.env.seed.child("group-reaper").fraction(revision.0));
        // Elapsed is as good a reason to look again as a change.
        let _ = self
            .env
            .clock
            .timeout(patience + jitter, self.change(&mut watch, !deleting.is_empty()))
            .await;
        Ok(())
    }

    /// Waits for a change worth a look.
    async fn change(&self, watch: &mut Receiver<Result<Change, StoreError>>, busy: bool) {
        while let Some(Ok(change)) = watch.recv().await {
            // A cluster's own writes are many; a group can only be empty after a removal.
            if !busy || change.value.is_none() || change.key.starts_with("/groups/") {
                self.env.clock.sleep(GATHER).await;
                return;
            }
        }
        // Lagged or closed: look again, but not in a tight loop.
        self.env.clock.sleep(GATHER).await;
    }

    /// Has every provider empty the group, and removes it once it is empty. Whether it is gone.
    async fn reap(&self, group: GroupRecord, revision: control_store::Revision) -> Result<bool, StoreError> {
        let mut left = 0_usize;
        for provider in &self.providers {
            match provider
                .delete_resource_group(&group.subscription, &group.name)
                .await
            {
                Ok(count) => left = left.saturating_add(count),
                Err(error) => {
                    // One provider's trouble must not keep the others from starting.
                    tracing::warn!(provider = provider.namespace(), group = group.name, %error, cause = error.internal,
                        "a provider cannot empty a resource group yet");
                    left = left.saturating_add(1);
                }
            }
        }
        if left > 0 {
            return Ok(false);
        }
        let own_id = group_id(&group.subscription, &group.name);
        let (operations, _) = list_records::<OperationRecord>(&*self.store, "/operations/").await?;
        let group_key = key::group(&group.subscription, &group.name);
        let mut txn = Txn::default().at(&group_key, revision).delete(&group_key);
        for (key, stored) in operations {
            let mut operation = stored.value;
            let open = operation.status == OperationStatus::InProgress && operation.name == DELETE;
            if open && operation.resource_id.eq_ignore_ascii_case(&own_id) {
                operation.status = OperationStatus::Succeeded;
                operation.ended_at = Some(self.env.clock.now());
                txn = txn.at(&key, stored.revision).with(put_record(&key, &operation));
            }
        }
        match self.store.txn(txn).await {
            Ok(_) => {
                tracing::info!(
                    group = group.name,
                    subscription = group.subscription,
                    "a resource group is gone"
                );
                Ok(true)
            }
            // Another deletion was asked for meanwhile: its operation has to be ended as well.
            Err(StoreError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl std::fmt::Debug for GroupReaper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GroupReaper")
    }
}
