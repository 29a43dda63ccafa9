//! The count of a pool with an autoscaler. Pure.
//!
//! Always true: the count of a pool with an autoscaler is within its range; a request neither scales it nor
//! reverts the autoscaler's changes since the client read the pool.

use arm_kernel::{quote, schema::Problems};
use arm_wire::ErrorCode;
use cluster_spec::{PoolMode, PoolRange};
use control_records::DesiredPool;
use serde_json::{Map, Value, json};

const ON: &str = "enableAutoScaling";
const LEAST: &str = "minCount";
const MOST: &str = "maxCount";

/// The range in a body; `None` if the autoscaler is off, or the range is refused. `path`: the path of the
/// pool's properties in the body.
pub(super) fn range(
    name: &str,
    draft: &Map<String, Value>,
    mode: PoolMode,
    path: &str,
    problems: &mut Problems,
) -> Option<PoolRange> {
    let number = |field: &str| -> Option<u32> { draft.get(field)?.as_u64()?.try_into().ok() };
    let (min, max): (Option<u32>, Option<u32>) = (number(LEAST), number(MOST));
    if draft.get(ON) != Some(&json!(true)) {
        for (field, _) in [(LEAST, min), (MOST, max)]
            .iter()
            .filter(|(_, own)| own.is_some())
        {
            problems.add(
                ErrorCode::INVALID_PARAMETER,
                format!("{path}.{field}"),
                format!("'{field}' only holds with {ON}: leave it out, or set {ON} to true."),
            );
        }
        return None;
    }
    let mut missing = |field: &str| {
        problems.add(
            ErrorCode::INVALID_PARAMETER,
            format!("{path}.{field}"),
            format!("The pool {} has an autoscaler and needs '{field}'.", quote(name)),
        );
    };
    let (min, max) = match (min, max) {
        (Some(min), Some(max)) => (min, max),
        (None, Some(_)) => {
            missing(LEAST);
            return None;
        }
        (Some(_), None) => {
            missing(MOST);
            return None;
        }
        (None, None) => {
            missing(LEAST);
            missing(MOST);
            return None;
        }
    };
    if min > max {
        problems.add(
            ErrorCode::INVALID_PARAMETER,
            format!("{path}.{LEAST}"),
            format!(
                "The {LEAST} {min} of the pool {} is more than its {MOST} {max}.",
                quote(name)
            ),
        );
        return None;
    }
    if mode == PoolMode::System && min == 0 {
        problems.add(
            ErrorCode::INVALID_PARAMETER,
            format!("{path}.{LEAST}"),
            format!(
                "The system pool {} needs a {LEAST} of at least 1; only user pools may have no nodes.",
                quote(name)
            ),
        );
    }
    Some(PoolRange { min, max })
}

/// The count of a pool with this range. `asked`: the count in the body.
pub(super) fn count(
    asked: Option<u32>,
    range: PoolRange,
    present: Option<&DesiredPool>,
    path: &str,
    problems: &mut Problems,
) -> u32 {
    let PoolRange { min, max } = range;
    let Some(present) = present.map(DesiredPool::spec) else {
        if let Some(asked) = asked.filter(|asked| !(min..=max).contains(asked)) {
            problems.add(
                ErrorCode::INVALID_PARAMETER,
                format!("{path}.count"),
                format!("The count {asked} must be from {LEAST} {min} to {MOST} {max}, or left out."),
            );
        }
        return asked.unwrap_or(1).clamp(min, max);
    };
    let wish = match present.autoscale {
        // The client's count may be outdated.
        Some(_) => present.count,
        None => asked.unwrap_or(present.count),
    };
    // As AKS: a count outside the range is moved to the nearer end.
    wish.clamp(min, max)
}

/// Refuses a request for one pool that would only scale it, while its autoscaler is on.
pub(super) fn refuse_scaling(
    asked: Option<u32>,
    present: Option<&DesiredPool>,
    decided: &DesiredPool,
    path: &str,
    problems: &mut Problems,
) {
    let Some((present, asked)) = present.zip(asked) else {
        return;
    };
    let (before, now) = (present.spec(), decided.spec());
    let Some(range) = before.autoscale.filter(|_| now.autoscale.is_some()) else {
        return;
    };
    let plain = |pool: &DesiredPool| {
        let mut body = pool.body().clone();
        if let Value::Object(members) = &mut body {
            members.remove("eTag");
        }
        body
    };
    if asked != before.count && plain(present) == plain(decided) {
        problems.add(
            ErrorCode::OPERATION_NOT_ALLOWED,
            format!("{path}.count"),
            format!(
                "The pool {} has an autoscaler, which chooses its count from {} to {}; it is {}. Change {LEAST} and {MOST}, or turn it off \
                 first ('az aks nodepool update --disable-cluster-autoscaler').",
                quote(&before.name),
                range.min,
                range.max,
                before.count
            ),
        );
    }
}
