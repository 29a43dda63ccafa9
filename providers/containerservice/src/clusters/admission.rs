//! Limits of a change: the subscription's quota, and the room of the stamp. Pure.
//!
//! Checked for each change of a cluster or pool, after all other decisions. The transaction makes sure that
//! the sums are still true when the change is written ([`control_records::usage`]).

use arm_wire::{ArmError, Detail, ErrorCode};
use control_records::usage::{Amounts, Excess, upgrade};

use super::{State, draft::ClusterChange};
use crate::ProviderConfig;

/// Refuses a change that exceeds a limit. `target`: the property of the body that requests it.
pub(crate) fn admit(
    config: &ProviderConfig,
    state: &State,
    change: &ClusterChange,
    target: &str,
) -> Result<(), ArmError> {
    let (before, after) = (state.record(), &change.record);
    let was = before
        .map(|before| Amounts::of(before.spec()))
        .unwrap_or_default();
    let asked = Amounts::of(after.spec());
    // Nodes of a stopped cluster are upgraded when it is started, with surge nodes as in any upgrade.
    let meanwhile = before.map_or((0, 0), |before| upgrade(before.spec(), after.spec()));
    let usage = &state.usage.record;
    let excesses = config
        .limits
        .excesses(usage, &after.subscription, &was, &asked, meanwhile);
    let details = excesses.iter().map(|excess| Detail {
        code: ErrorCode::QUOTA_EXCEEDED,
        message: words(excess, &config.location, &after.subscription),
        target: Some(target.to_owned()),
    });
    ArmError::from_details(details.collect()).map_or(Ok(()), |mut error| {
        // Clients look for this code.
        error.code = ErrorCode::QUOTA_EXCEEDED;
        Err(error)
    })
}

/// The message, with the figures as ARM writes them, which clients parse, and the owner of the limit.
fn words(excess: &Excess, location: &str, subscription: &str) -> String {
    let Excess {
        quota,
        limit,
        usage,
        required,
    } = excess;
    let next = if quota.is_of_subscription() {
        format!(
            "This is the limit of the subscription '{subscription}'. Ask for less, or have the operator of the stamp raise it \
             ('landfall up --limit')."
        )
    } else {
        "This is the limit of the stamp, for all its subscriptions together. Ask for less, delete something else, or give the stamp a \
         larger host."
            .to_owned()
    };
    format!(
        "Operation could not be completed as it results in exceeding approved {} quota. Additional details - Deployment Model: \
         Resource Manager, Location: {location}, Current Limit: {limit}, Current Usage: {usage}, Additional Required: {required}, \
         (Minimum) New Limit Required: {}. {next}",
        quota.title(),
        usage.saturating_add(*required)
    )
}
