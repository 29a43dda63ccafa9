//! `Landfall.ContainerService/alerts`: what an operator has to see to, open or closed lately. Alerts open and close by themselves (`policy/alerts`),
//! so they are read only.
//!
//! | | |
//! |---|---|
//! | GET `{SUB}/providers/Landfall.ContainerService/alerts` | all of it; `?open=true` |
//! | GET `…/alerts/{name}` | one, `host-disk`, `backup-lag.k3v1q09a2b` |
//!
//! Always true: an alert about a cluster is shown in the cluster's subscription alone. One about the stamp is no tenant's: it is shown to callers who may
//! read alerts at `/`, in every subscription.

use arm_ids::ResourcePath;
use arm_kernel::{Call, Items, Operation, ResourceType, Scope, Verb, quote, store_error};
use arm_wire::{ArmError, ErrorCode, Response};
use control_records::alert::{self, AlertRecord};
use control_store::get_record;
use serde_json::{Value, json};

use super::api::{HISTORY_API_VERSIONS, HISTORY_NAMESPACE, HistoryApi};

type Row = Operation<HistoryApi>;

/// What a caller has to be allowed at `/` to see alerts about the stamp.
const READ: &str = "Landfall.ContainerService/alerts/read";

/// The type.
pub(super) const ALERTS: ResourceType<HistoryApi> = ResourceType {
    path: "alerts",
    versions: HISTORY_API_VERSIONS,
    schema: None,
    members: None,
    operations: &[
        Row::items("Alerts_List", |api, call| Box::pin(api.alerts(call))).at(Scope::Subscription),
        Row::read(Verb::Get, "Alerts_Get", |api, call| Box::pin(api.alert(call))).at(Scope::Subscription),
    ],
};

fn answer(record: &AlertRecord, subscription: &str) -> Value {
    let mut answer = json!({
        "id": format!("/subscriptions/{subscription}/providers/{HISTORY_NAMESPACE}/alerts/{}", record.name),
        "name": record.name,
        "type": format!("{HISTORY_NAMESPACE}/alerts"),
        "rule": record.rule,
        "severity": record.severity,
        "state": if record.is_open() { "Open" } else { "Closed" },
        "message": record.message,
        "remedy": record.remedy,
        "closesWhen": record.closes,
        "openedAt": record.opened_at.to_string(),
        "times": record.times,
    });
    if let Some(cluster) = &record.cluster {
        answer["resourceGroup"] = json!(cluster.resource_group);
        answer["cluster"] = json!(cluster.name);
        answer["clusterUid"] = json!(cluster.uid);
    }
    if let Some(closed) = record.closed_at {
        answer["closedAt"] = json!(closed.to_string());
    }
    answer
}

/// Whether an alert is shown in a subscription, to a caller who sees those about the stamp or not.
fn is_shown(record: &AlertRecord, subscription: &str, sees_stamp: bool) -> bool {
    match &record.cluster {
        Some(cluster) => cluster.subscription.eq_ignore_ascii_case(subscription),
        None => sees_stamp,
    }
}

impl HistoryApi {
    async fn alerts(&self, call: &Call) -> Result<Items, ArmError> {
        let subscription = call.request.path.subscription.as_deref().unwrap_or_default();
        let open = call
            .request
            .query("open")
            .is_some_and(|open| open.eq_ignore_ascii_case("true"));
        let sees_stamp = call.may(READ, &ResourcePath::default()).await?;
        let all = alert::list(&*self.store).await.map_err(store_error)?;
        let shown = all
            .iter()
            .map(|stored| &stored.value)
            .filter(|record| !open || record.is_open())
            .filter(|record| is_shown(record, subscription, sees_stamp));
        // Open ones first, the worst of them first, and of these the newest.
        let items = shown.map(|record| {
            let key = format!(
                "{} {} {:020} {}",
                u8::from(!record.is_open()),
                record.severity as u8,
                i64::MAX - record.opened_at.as_second().max(0),
                record.name
            );
            (key, answer(record, subscription))
        });
        Ok(Items::Keyed(items.collect()))
    }

    async fn alert(&self, call: &Call) -> Result<Response, ArmError> {
        let path = &call.request.path;
        let subscription = path.subscription.as_deref().unwrap_or_default();
        let name = path.name(0).unwrap_or_default();
        let found = get_record::<AlertRecord>(&*self.store, &alert::key(name)).await;
        let found = found.map_err(store_error)?.map(|found| found.value);
        let sees_stamp = call.may(READ, &ResourcePath::default()).await?;
        found
            .filter(|record| is_shown(record, subscription, sees_stamp))
            .map(|record| Response::ok(answer(&record, subscription)))
            .ok_or_else(|| {
                let message = format!(
                    "There is no alert {}, or it closed more than 30 days ago; the list says which there are.",
                    quote(name)
                );
                ArmError::new(ErrorCode::RESOURCE_NOT_FOUND, message)
            })
    }
}
