//! The autoscaler's counts of pools, as a change of the desired record.

use std::collections::BTreeMap;

use control_planner::PoolSize;
use control_records::{
    ClusterRecord, Malformed, key,
    usage::{Amounts, Usage},
};
use control_store::{StoreError, Txn, put_record};
use serde_json::json;

use super::{Basis, CommitError};
use crate::ControllerDeps;

/// Writes new counts of pools by the autoscaler. It is not a request: generations, operations and eTags do
/// not change. The transaction fails if the desired record was changed meanwhile.
pub(super) async fn pools(
    deps: &ControllerDeps,
    txn: Txn,
    basis: &Basis,
    sizes: &BTreeMap<String, PoolSize>,
) -> Result<Txn, CommitError> {
    let before = &basis.cluster.value;
    let key = key::desired(&before.uid);
    let malformed = |error: Malformed| StoreError::Corrupt {
        key: key.clone(),
        why: error.to_string(),
    };
    let pools = before
        .state
        .pools()
        .into_iter()
        .map(|pool| match sizes.get(&pool.spec().name) {
            Some(size) => pool.with(|body, decided| {
                body["count"] = json!(size.count);
                decided.removed.clone_from(&size.removed);
            }),
            None => Ok(pool),
        });
    let pools = pools.collect::<Result<Vec<_>, _>>().map_err(malformed)?;
    let after = ClusterRecord {
        state: before.state.with_pools(pools).map_err(malformed)?,
        ..ClusterRecord::clone(before)
    };
    let (was, is) = (Amounts::of(before.spec()), Amounts::of(after.spec()));
    let txn = txn
        .at(&key, basis.cluster.revision)
        .with(put_record(&key, &after));
    if was == is {
        // The usage already includes the maximum of the range.
        return Ok(txn);
    }
    let usage = Usage::read(&*deps.store).await?;
    Ok(usage.change(txn, &before.subscription, &was, &is))
}
