//! `Landfall.ContainerService/usageRecords`: what a subscription has used, by the hour and meter (`policy/metering`).
//!
//! | | |
//! |---|---|
//! | GET `{SUB}/providers/Landfall.ContainerService/usageRecords` | `?from=`, `?to=`: a day or a time; the last day without them |
//!
//! An hour is in the answer where it has begun by `to` and ends after `from`. Hours in which nothing was used are not in it.

use arm_kernel::{Call, Items, Operation, ResourceType, Scope, quote, store_error};
use arm_wire::{ArmError, ErrorCode};
use control_records::metering::{self, DAY, HOUR, Meters};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::api::{HISTORY_API_VERSIONS, HISTORY_NAMESPACE, HistoryApi};

type Row = Operation<HistoryApi>;

/// The type.
pub(super) const USAGE_RECORDS: ResourceType<HistoryApi> = ResourceType {
    path: "usageRecords",
    versions: HISTORY_API_VERSIONS,
    schema: None,
    members: None,
    operations: &[
        Row::items("UsageRecords_List", |api, call| Box::pin(api.usage_records(call)))
            .at(Scope::Subscription),
    ],
};

/// The meters: name, unit, and how much of it was used.
fn meters(meters: &Meters) -> [(&'static str, &'static str, f64); 4] {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a sum of an hour, shown with some digits"
    )]
    let hours = |seconds: u64, of: f64| seconds as f64 / of / 3_600.0;
    [
        ("cores", "core hours", hours(meters.core_seconds, 1.0)),
        ("memory", "GiB hours", hours(meters.memory_mib_seconds, 1_024.0)),
        ("disks", "GiB hours", hours(meters.disk_gib_seconds, 1.0)),
        ("addresses", "address hours", hours(meters.address_seconds, 1.0)),
    ]
}

/// A time that a query gives, as such or as a day.
fn time(call: &Call, name: &'static str) -> Result<Option<Timestamp>, ArmError> {
    let Some(text) = call.request.query(name).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let at = text
        .parse::<Timestamp>()
        .or_else(|_| format!("{text}T00:00:00Z").parse::<Timestamp>());
    at.map(Some).map_err(|_| {
        let message = format!(
            "'{name}' cannot be {}; give a day or a time in UTC, e.g. 2026-12-01 or 2026-12-01T08:00:00Z.",
            quote(text)
        );
        ArmError::new(ErrorCode::INVALID_PARAMETER, message).target(name)
    })
}

impl HistoryApi {
    async fn usage_records(&self, call: &Call) -> Result<Items, ArmError> {
        let subscription = call.request.path.subscription.as_deref().unwrap_or_default();
        let now = self.env.clock.now();
        let to = time(call, "to")?.unwrap_or(now);
        let day = SignedDuration::from_secs(DAY);
        let from = match time(call, "from")? {
            Some(from) => from,
            None => to.checked_sub(day).unwrap_or(Timestamp::MIN),
        };
        if from >= to {
            let message = "'from' has to be before 'to', which is now where it is not given.";
            return Err(ArmError::new(ErrorCode::INVALID_PARAMETER, message).target("from"));
        }
        let days = metering::days(&*self.store, subscription)
            .await
            .map_err(store_error)?;
        let mut items = Vec::new();
        for record in &days {
            for (hour, used) in &record.hours {
                let begins = record.begins(*hour);
                let ends = begins.checked_add(SignedDuration::from_secs(HOUR));
                let ends = ends.unwrap_or(Timestamp::MAX);
                if begins >= to || ends <= from {
                    continue;
                }
                for (number, (meter, unit, quantity)) in meters(used).into_iter().enumerate() {
                    let item = json!({
                        "name": format!("{begins}.{meter}"),
                        "type": format!("{HISTORY_NAMESPACE}/usageRecords"),
                        "subscriptionId": subscription,
                        "usageStartTime": begins.to_string(),
                        "usageEndTime": ends.to_string(),
                        "meter": meter,
                        "unit": unit,
                        "quantity": (quantity * 1e6).round() / 1e6,
                        "secondsCounted": used.seconds,
                    });
                    items.push((format!("{:05} {hour:02} {number}", record.day), item));
                }
            }
        }
        Ok(Items::Keyed(items))
    }
}
