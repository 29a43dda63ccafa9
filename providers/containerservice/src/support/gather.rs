//! Reads the facts about a cluster.

use arm_kernel::store_error;
use arm_wire::ArmError;
use control_records::{
    ClusterRecord, ObservedRecord, OperationRecord, Owner, SubscriptionRecord, directory, events, key,
};
use control_store::{Store, get_record};
use jiff::Timestamp;
use policy_support::Facts;

use super::{Support, facts::Records};

/// The facts that the records of a cluster hold.
pub(crate) async fn facts(
    store: &dyn Store,
    support: &Support,
    record: &ClusterRecord,
    observed: &ObservedRecord,
    now: Timestamp,
) -> Result<Facts, ArmError> {
    let operation = Owner::cluster(record.uid.as_str()).operation(&record.operation);
    let operation = get_record::<OperationRecord>(store, &operation).await;
    let operation = operation.map_err(store_error)?.map(|found| found.value);
    let machines = directory::machines(store, &record.uid)
        .await
        .map_err(store_error)?;
    let events = events::history(store, &record.uid, now)
        .await
        .map_err(store_error)?;
    let events: Vec<_> = events.into_iter().map(|(_, event)| event).collect();
    let subscription = key::subscription(&record.subscription);
    let subscription = get_record::<SubscriptionRecord>(store, &subscription).await;
    let subscription = subscription.map_err(store_error)?.map(|found| found.value);
    let records = Records {
        record,
        observed,
        operation: operation.as_ref(),
        machines: &machines,
        events: &events,
        subscription: subscription.as_ref(),
    };
    records.facts(support, now)
}
