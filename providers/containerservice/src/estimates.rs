//! How long steps of upgrades take here: what was measured of the cluster itself, else of the stamp's others.
//!
//! Called by: decisions, which note what an upgrade is expected to take, and its rehearsal.

use arm_kernel::store_error;
use arm_wire::ArmError;
use control_records::{ObservedRecord, directory, key, times::StepTimes};
use control_store::{Store, get_record};

/// Other clusters that are looked at, where nothing was measured of one.
const MOST_OTHERS: usize = 32;

/// Times of a cluster; where there are none of it, those of the stamp's others together.
pub(crate) async fn times(
    store: &dyn Store,
    observed: Option<&ObservedRecord>,
) -> Result<StepTimes, ArmError> {
    let own = observed
        .map(|observed| observed.times.clone())
        .unwrap_or_default();
    if !own.is_empty() {
        return Ok(own);
    }
    let (names, _) = directory::cluster_names(store, None, None)
        .await
        .map_err(store_error)?;
    let mut all = StepTimes::default();
    for name in names.iter().take(MOST_OTHERS) {
        let found = get_record::<ObservedRecord>(store, &key::observed(&name.uid)).await;
        if let Some(found) = found.map_err(store_error)? {
            all = all.with(&found.value.times);
        }
    }
    Ok(all)
}
