//! The activity log: an entry for each request that changes a resource or hands out credentials.
//!
//! A change of a [`crate::Resource`] is logged in its own transaction ([`changed`]), so that neither is
//! committed without the other. All other entries, such as refused requests and requests for credentials, the
//! edge gives to an [`ActivityLog`] after the response.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use arm_wire::Principal;
use async_trait::async_trait;
use base_env::Env;
use control_records::{
    SubscriptionRecord,
    activity::{ActivityRecord, ActivityStatus, TRIM_EVERY, trim},
    key,
};
use control_store::{Op, Store, StoreError, Txn, get_record};
use jiff::Timestamp;

use crate::request::{RequestInfo, scope_of};

/// How many refusals of a subscription are written within [`REFUSAL_WINDOW`]; of further ones only the number
/// is logged, in the service's log. Each entry costs a commit. Refusals of one subscription do not displace
/// those of another.
const MAX_REFUSALS: u32 = 100;
/// See [`MAX_REFUSALS`].
const REFUSAL_WINDOW: Duration = Duration::from_secs(10);

/// A request that changes a resource or hands out credentials, and its outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activity {
    /// When it was answered.
    pub at: Timestamp,
    /// The caller.
    pub principal: Principal,
    /// The caller's address, as far as known.
    pub address: Option<std::net::IpAddr>,
    /// The action, e.g. `Microsoft.ContainerService/managedClusters/write`.
    pub action: String,
    /// With which HTTP method.
    pub method: String,
    /// The scope of the action.
    pub scope: String,
    /// The subscription of the scope, if it has one.
    pub subscription: Option<String>,
    /// The HTTP status of the response.
    pub status: u16,
    /// The error's code; empty where there was none.
    pub code: &'static str,
    /// `x-ms-correlation-request-id`.
    pub correlation_id: String,
    /// `x-ms-request-id`.
    pub request_id: String,
    /// Whether it was logged in the transaction of its change.
    pub logged: bool,
}

/// Keeps the activity log.
#[async_trait]
pub trait ActivityLog: Send + Sync + 'static {
    /// Adds an entry, unless it is there already. The request has been answered by then, so failures are only
    /// logged.
    async fn record(&self, activity: Activity);
}

/// The activity log as lines of the service's log, under the target `activity`: for tests, and for entries
/// that the store does not take.
#[derive(Debug, Clone, Copy)]
pub struct ServiceLog;

#[async_trait]
impl ActivityLog for ServiceLog {
    async fn record(&self, activity: Activity) {
        tracing::info!(
            target: "activity",
            principal = activity.principal.object_id,
            address = activity.address.map(tracing::field::display),
            action = activity.action,
            scope = activity.scope,
            status = activity.status,
            code = activity.code,
            correlation_id = activity.correlation_id,
            request_id = activity.request_id,
            "activity"
        );
    }
}

/// The record of a change, for the transaction that makes it. `None` for a change by the service itself: the
/// request that it is part of is logged.
pub(crate) fn changed(info: &RequestInfo<'_>, operation: Option<&str>, now: Timestamp) -> Option<Op> {
    let trace = info.trace.filter(|trace| !trace.action.is_empty())?;
    let record = ActivityRecord {
        v: 1,
        at: now,
        principal: info.principal.object_id.clone(),
        principal_name: info.principal.name.clone(),
        principal_type: info.principal.kind.as_str().to_owned(),
        address: trace.address,
        action: trace.action.clone(),
        method: Some(trace.method.as_str().to_owned()),
        scope: scope_of(info.path).to_string(),
        status: match operation {
            Some(_) => ActivityStatus::Accepted,
            None => ActivityStatus::Succeeded,
        },
        http_status: None,
        code: None,
        operation: operation.map(str::to_owned),
        correlation_id: trace.correlation_id.clone(),
        request_id: trace.request_id.clone(),
    };
    Some(record.put(info.path.subscription.as_deref()))
}

/// The activity log in the store.
pub struct StoreLog {
    env: Env,
    store: Arc<dyn Store>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By subscription: records since its log was trimmed last.
    since_trim: HashMap<Option<String>, usize>,
    /// By existing subscription: when the current window of refusals began, and the number of refusals in it.
    windows: HashMap<Option<String>, (Duration, u32)>,
}

impl StoreLog {
    /// A log in a store.
    pub fn new(env: Env, store: Arc<dyn Store>) -> Self {
        Self {
            env,
            store,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("nothing panics while it holds this lock")
    }

    /// Whether another refusal in a subscription is written.
    fn takes_refusal(&self, subscription: Option<&str>) -> bool {
        let now = self.env.clock.monotonic();
        let mut state = self.state();
        let own = subscription.map(arm_ids::folded);
        let (began, count) = match state.windows.get(&own).copied() {
            Some((began, count)) if now.saturating_sub(began) < REFUSAL_WINDOW => (began, count),
            Some((_, count)) => {
                let dropped = count.saturating_sub(MAX_REFUSALS);
                if dropped > 0 {
                    tracing::warn!(
                        dropped,
                        subscription = subscription.unwrap_or_default(),
                        "refused requests came too fast for the activity log"
                    );
                }
                (now, 0)
            }
            None => (now, 0),
        };
        state.windows.insert(own, (began, count.saturating_add(1)));
        count < MAX_REFUSALS
    }

    async fn keep(&self, activity: &Activity) -> Result<(), StoreError> {
        // Only existing subscriptions have a log: otherwise callers could make any number of them.
        let mut subscription = activity.subscription.as_deref();
        if let Some(id) = subscription
            && get_record::<SubscriptionRecord>(&*self.store, &key::subscription(id))
                .await?
                .is_none()
        {
            subscription = None;
        }
        if !activity.logged {
            let failed = activity.status >= 400;
            if failed && !self.takes_refusal(subscription) {
                return Ok(());
            }
            let record = ActivityRecord {
                v: 1,
                at: activity.at,
                principal: activity.principal.object_id.clone(),
                principal_name: activity.principal.name.clone(),
                principal_type: activity.principal.kind.as_str().to_owned(),
                address: activity.address,
                action: activity.action.clone(),
                method: Some(activity.method.clone()),
                scope: activity.scope.clone(),
                status: match activity.status {
                    _ if failed => ActivityStatus::Failed,
                    202 => ActivityStatus::Accepted,
                    _ => ActivityStatus::Succeeded,
                },
                http_status: Some(activity.status),
                code: Some(activity.code.to_owned()).filter(|code| !code.is_empty()),
                operation: None,
                correlation_id: activity.correlation_id.clone(),
                request_id: activity.request_id.clone(),
            };
            self.store
                .txn(Txn::default().with(record.put(subscription)))
                .await?;
        }
        let due = {
            let mut state = self.state();
            let since = state
                .since_trim
                .entry(subscription.map(str::to_ascii_lowercase))
                .or_default();
            *since += 1;
            let due = *since >= TRIM_EVERY;
            if due {
                *since = 0;
            }
            due
        };
        if due {
            trim(&*self.store, subscription, self.env.clock.now()).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl ActivityLog for StoreLog {
    async fn record(&self, activity: Activity) {
        if let Err(error) = self.keep(&activity).await {
            tracing::error!(%error, "the activity log cannot be written to the store; its entry follows");
            ServiceLog.record(activity).await;
        }
    }
}

impl std::fmt::Debug for StoreLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StoreLog")
    }
}
