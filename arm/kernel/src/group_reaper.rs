//! Completes the deletion of resource groups: level-triggered, so a lost wake-up or a restart costs at most a
//! resync.

use std::{pin::pin, sync::Arc, time::Duration};

use arm_access::Scope;
use arm_wire::ErrorCode;
use base_env::Env;
use control_records::{
    GroupRecord, OPERATION_BOUND, OperationError, OperationRecord, OperationStatus, Owner, access, key,
};
use control_store::{Changes, Store, StoreError, Stored, Txn, list_records, put_record};
use futures::{StreamExt as _, future};

use crate::provider::Provider;

/// The operation that deletes a resource group: those of this name end when the group is gone.
pub const GROUP_DELETION: &str = "ResourceGroups_Delete";

/// Interval while a deletion is in progress, in case the watch reports no change.
const BUSY_INTERVAL: Duration = Duration::from_secs(2);
/// Interval without deletions: a safety net only.
const IDLE_INTERVAL: Duration = Duration::from_secs(300);
/// Changes come in bursts; one pass is enough for a whole burst.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// After this time an operation fails and names the remaining resources; the group is emptied all the same.
const DELETION_TIMEOUT: Duration = OPERATION_BOUND;
/// How often overdue operations are looked for.
const OVERDUE_CHECK_INTERVAL: Duration = Duration::from_secs(60);
/// The number of remaining resources that a message names.
const MAX_NAMED: usize = 3;
/// After the store failed.
const BACK_OFF: Duration = Duration::from_secs(1);

/// Empties and removes the groups that are marked as deleting.
pub struct GroupReaper {
    env: Env,
    store: Arc<dyn Store>,
    providers: Vec<Arc<dyn Provider>>,
}

impl GroupReaper {
    /// A reaper; `providers` are all providers with resources in groups.
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
            let mut looked = self.env.clock.monotonic();
            loop {
                if let Err(error) = self.round(&mut looked).await {
                    tracing::error!(%error, "cannot look after resource groups");
                    self.env.clock.sleep(BACK_OFF).await;
                }
            }
        };
        future::select(pin!(shutdown), pin!(work)).await;
    }

    /// One pass over all groups, then waits for a change or the interval.
    async fn round(&self, looked: &mut Duration) -> Result<(), StoreError> {
        let (groups, revision) = list_records::<GroupRecord>(&*self.store, key::GROUPS).await?;
        // The watch begins before the work, so that changes during it are noticed.
        let deleting: Vec<_> = groups
            .into_iter()
            .filter(|(_, stored)| stored.value.deleting)
            .collect();
        let (prefix, patience) = if deleting.is_empty() {
            (key::GROUPS, IDLE_INTERVAL)
        } else {
            ("/", BUSY_INTERVAL)
        };
        let mut watch = self.store.watch(prefix, revision).await?;
        let now = self.env.clock.monotonic();
        let looks = now.saturating_sub(*looked) >= OVERDUE_CHECK_INTERVAL;
        if looks {
            *looked = now;
        }
        let mut left = 0;
        for (_, group) in &deleting {
            if !self.reap(group.value.clone(), group.revision).await? {
                left += 1;
                if looks {
                    self.give_up_waiting(&group.value).await?;
                }
            }
        }
        if !deleting.is_empty() && left == 0 {
            return Ok(());
        }
        let jitter = patience.mul_f64(0.1 * self.env.seed.child("group-reaper").fraction(revision.0));
        // A time-out leads to another pass just like a change.
        let _ = self
            .env
            .clock
            .timeout(patience + jitter, self.change(&mut watch, !deleting.is_empty()))
            .await;
        Ok(())
    }

    /// Waits for a relevant change.
    async fn change(&self, watch: &mut Changes, busy: bool) {
        while let Some(Ok(change)) = watch.next().await {
            // A cluster's own writes are many; a group can only be empty after a removal.
            if !busy || change.value.is_none() || change.key.starts_with(key::GROUPS) {
                self.env.clock.sleep(DEBOUNCE).await;
                return;
            }
        }
        // Lagged or closed: look again, but not in a tight loop.
        self.env.clock.sleep(DEBOUNCE).await;
    }

    /// Has every provider empty the group, and removes it once it is empty. Gives whether it is gone.
    async fn reap(&self, group: GroupRecord, revision: control_store::Revision) -> Result<bool, StoreError> {
        let mut left = 0_usize;
        for provider in &self.providers {
            match provider
                .delete_resource_group(&group.subscription, &group.name)
                .await
            {
                Ok(count) => left = left.saturating_add(count),
                Err(error) => {
                    // A failure of one provider must not keep the others from starting.
                    tracing::warn!(provider = provider.namespace(), group = group.name, %error, cause = error.internal,
                        "a provider cannot empty a resource group yet");
                    left = left.saturating_add(1);
                }
            }
        }
        if left > 0 {
            return Ok(false);
        }
        // Before the group, so that a later group of this name begins without them. A group that is being
        // deleted accepts no new ones.
        let id = arm_ids::group_id(&group.subscription, &group.name);
        let scope = Scope::parse(&id).map_err(|error| StoreError::Corrupt {
            key: key::group(&group.subscription, &group.name),
            why: error.to_string(),
        })?;
        access::remove_below(&*self.store, &scope).await?;
        let group_key = key::group(&group.subscription, &group.name);
        let mut txn = Txn::default().at(&group_key, revision).delete(&group_key);
        for (key, stored) in self.open(&group).await? {
            let ended = OperationRecord {
                status: OperationStatus::Succeeded,
                ended_at: Some(self.env.clock.now()),
                ..stored.value
            };
            txn = txn.at(&key, stored.revision).with(put_record(&key, &ended));
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
            // Another deletion was requested meanwhile: its operation has to be ended as well.
            Err(StoreError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The operations that wait for a group to be gone.
    async fn open(&self, group: &GroupRecord) -> Result<Vec<(String, Stored<OperationRecord>)>, StoreError> {
        let own = Owner::group(&group.subscription, &group.name);
        let (mut operations, _) = list_records::<OperationRecord>(&*self.store, &own.operations()).await?;
        operations.retain(|(_, Stored { value, .. })| {
            value.status == OperationStatus::InProgress && value.name == GROUP_DELETION
        });
        Ok(operations)
    }

    /// Ends operations that have waited too long, so that no client waits for ever.
    async fn give_up_waiting(&self, group: &GroupRecord) -> Result<(), StoreError> {
        let now = self.env.clock.now();
        let mut overdue = self.open(group).await?;
        overdue.retain(|(_, stored)| {
            now.duration_since(stored.value.started_at).unsigned_abs() >= DELETION_TIMEOUT
        });
        if overdue.is_empty() {
            return Ok(());
        }
        let message = format!(
            "The resource group '{}' was not deleted within {} minutes. {} Landfall goes on and removes the group as soon as \
             nothing is left in it; the clusters' own operations say what is in the way.",
            group.name,
            DELETION_TIMEOUT.as_secs() / 60,
            self.still_there(group).await,
        );
        let mut txn = Txn::default();
        for (key, stored) in overdue {
            let ended = OperationRecord {
                status: OperationStatus::Failed,
                ended_at: Some(now),
                error: Some(OperationError {
                    code: ErrorCode::OPERATION_TIMED_OUT.code.to_owned(),
                    message: message.clone(),
                }),
                ..stored.value
            };
            txn = txn.at(&key, stored.revision).with(put_record(&key, &ended));
        }
        match self.store.txn(txn).await {
            // The next pass decides anew.
            Ok(_) | Err(StoreError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The remaining resources of a group, for messages.
    async fn still_there(&self, group: &GroupRecord) -> String {
        let mut names = Vec::new();
        for provider in &self.providers {
            match provider.resources(&group.subscription, Some(&group.name)).await {
                Ok(found) => names.extend(found.iter().filter_map(|resource| {
                    let text = |member| resource.get(member)?.as_str().map(str::to_owned);
                    Some(format!("{} '{}'", text("type")?, text("name")?))
                })),
                Err(error) => tracing::warn!(
                    provider = provider.namespace(),
                    group = group.name,
                    %error,
                    "a provider cannot list the remaining resources of a resource group"
                ),
            }
        }
        let more = names.len().saturating_sub(MAX_NAMED);
        names.truncate(MAX_NAMED);
        match (names.is_empty(), more) {
            (true, _) => "Something in it is not gone yet.".to_owned(),
            (false, 0) => format!("It still has {}.", names.join(", ")),
            (false, more) => format!("It still has {} and {more} more.", names.join(", ")),
        }
    }
}

impl std::fmt::Debug for GroupReaper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GroupReaper")
    }
}
