//! `provisioningState` as a truth table.

use control_records::{ClusterRecord, ObservedRecord, OperationRecord, OperationStatus, Requests};
use providers_containerservice::{cluster_state, pool_state};

use crate::stamp::{Stamp, least};

/// Deleting, generation, observed generation, operation; then the cluster's and the pool's state.
type Row = (
    bool,
    u64,
    Option<u64>,
    Option<OperationStatus>,
    &'static str,
    &'static str,
);

#[tokio::test(start_paused = true)]
async fn the_state_follows_from_desired_observed_and_operation() {
    let stamp = Stamp::new().await;
    stamp.create("c", least()).await;
    let created: ClusterRecord = stamp.record("c").await.unwrap();
    let operation = stamp.operations().await.remove(0);
    use OperationStatus::{Canceled, Failed, InProgress, Succeeded};
    // deleting, generation, observed, operation → cluster, pool (whose own generation is 2)
    let table: &[Row] = &[
        (false, 2, None, Some(InProgress), "Creating", "Creating"),
        (false, 2, Some(0), Some(InProgress), "Creating", "Updating"),
        (false, 2, Some(0), None, "Creating", "Updating"),
        (false, 2, Some(1), Some(InProgress), "Updating", "Updating"),
        (false, 2, Some(1), None, "Updating", "Updating"),
        (false, 2, Some(1), Some(Failed), "Failed", "Failed"),
        (false, 2, Some(0), Some(Failed), "Failed", "Failed"),
        (false, 2, Some(1), Some(Canceled), "Canceled", "Canceled"),
        (false, 2, Some(1), Some(Succeeded), "Updating", "Updating"),
        (false, 2, Some(2), Some(InProgress), "Succeeded", "Succeeded"),
        // A failure that ended without a request.
        (false, 2, Some(2), Some(Failed), "Succeeded", "Succeeded"),
        (false, 2, Some(2), None, "Succeeded", "Succeeded"),
        // The cluster changes, the pool does not.
        (false, 3, Some(2), Some(InProgress), "Updating", "Succeeded"),
        (false, 3, Some(2), Some(Failed), "Failed", "Succeeded"),
        (true, 3, Some(2), Some(InProgress), "Deleting", "Deleting"),
        (true, 3, Some(3), Some(InProgress), "Deleting", "Deleting"),
        (true, 3, Some(2), None, "Deleting", "Deleting"),
        (true, 3, Some(2), Some(Failed), "Failed", "Failed"),
        (true, 3, Some(2), Some(Canceled), "Deleting", "Deleting"),
    ];
    for row in table {
        let (deleting, generation, observed, status, cluster, pool) = *row;
        let mut record = created.clone();
        record.deleting = deleting;
        // A record without an abort, and without the last reached state.
        record.requests = Requests::default();
        record.generation = generation;
        record.pool_generations.insert("nodepool1".to_owned(), 2);
        let observed = observed.map(|generation| ObservedRecord {
            generation,
            ready_nodes: [("nodepool1".to_owned(), 0)].into(),
            ..ObservedRecord::default()
        });
        let operation = status.map(|status| OperationRecord {
            status,
            ..operation.clone()
        });
        let state = cluster_state(&record, observed.as_ref(), operation.as_ref());
        assert_eq!(state.as_str(), cluster, "{row:?}");
        let state = pool_state(&record, "nodepool1", observed.as_ref(), operation.as_ref());
        assert_eq!(state.as_str(), pool, "{row:?}");
    }
}

/// An operation ends once each of its parts is complete. A client that polled it reads the cluster next.
#[tokio::test(start_paused = true)]
async fn who_has_waited_for_an_operation_is_not_told_that_it_goes_on() {
    let stamp = Stamp::new().await;
    stamp.create("c", least()).await;
    let record: ClusterRecord = stamp.record("c").await.unwrap();
    let mut operation = stamp.operations().await.remove(0);
    let state = |operation: &OperationRecord| {
        let observed = ObservedRecord::default();
        cluster_state(&record, Some(&observed), Some(operation)).as_str()
    };
    assert_eq!(state(&operation), "Creating");
    operation.status = OperationStatus::Succeeded;
    assert_eq!(state(&operation), "Succeeded");
    // It was about an earlier generation than the present one.
    operation.generation -= 1;
    assert_eq!(state(&operation), "Creating");
    operation.generation += 1;
    operation.part = Some(control_records::Part::Base);
    assert_eq!(state(&operation), "Creating");
}
