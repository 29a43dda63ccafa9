//! Usages: current use and limits of resources, in the form of each namespace. Pure but for the reading.

use arm_ids::subscription_id;
use arm_kernel::store_error;
use arm_wire::{ArmError, ErrorCode};
use cluster_spec::VM_FAMILIES;
use control_records::usage::{Amounts, Limits, Usage};
use serde_json::{Value, json};

use crate::{Stamp, compute::own};

/// The use of a subscription. That of other subscriptions is not shown.
pub(crate) async fn of(stamp: &Stamp, subscription: &str) -> Result<Amounts, ArmError> {
    let usage = Usage::read(&*stamp.store).await.map_err(store_error)?;
    Ok(usage.record.of(subscription))
}

/// A limit in the form for clients: a number in any case.
fn limit(limit: Option<u64>) -> u64 {
    // The largest value that every client can hold.
    limit.unwrap_or(i32::MAX as u64).min(i32::MAX as u64)
}

fn line(name: &str, title: &str, value: u64, most: Option<u64>) -> Value {
    json!({
        "unit": "Count",
        "currentValue": value,
        "limit": limit(most),
        "name": { "value": name, "localizedValue": title },
    })
}

/// `Microsoft.Compute/locations/{l}/usages`. `made`: the disks and the snapshots of disks that tenants made.
pub(crate) fn compute(amounts: &Amounts, made: [u64; 2], limits: &Limits) -> Value {
    let mut lines = vec![
        line("cores", "Total Regional vCPUs", amounts.all_cores(), limits.cores),
        line("virtualMachines", "Virtual Machines", amounts.nodes, limits.nodes),
        line(
            "virtualMachineScaleSets",
            "Virtual Machine Scale Sets",
            amounts.pools,
            None,
        ),
    ];
    let most = u64::try_from(own::MOST).ok();
    for ((name, title), count) in [("disks", "Disks"), ("snapshots", "Snapshots")]
        .into_iter()
        .zip(made)
    {
        lines.push(line(name, title, count, most));
    }
    for family in VM_FAMILIES {
        let cores = amounts.cores.get(family.name).copied().unwrap_or(0);
        lines.push(line(family.name, family.title, cores, limits.cores));
    }
    json!({ "value": lines })
}

/// `Microsoft.Network/locations/{l}/usages`. `made`: the public IP addresses that tenants made.
pub(crate) fn network(amounts: &Amounts, made: u64, stamp: &Stamp, subscription: &str) -> Value {
    // A cluster needs one address of the stamp, so their number is a limit as well.
    let addresses = stamp
        .limits
        .clusters
        .into_iter()
        .chain(stamp.limits.room.vips)
        .min();
    let lines = [
        (
            "VirtualNetworks",
            "Virtual Networks",
            amounts.clusters,
            stamp.limits.clusters,
        ),
        (
            "PublicIPAddresses",
            "Public IP Addresses",
            amounts.clusters.saturating_add(made),
            addresses,
        ),
        (
            "LoadBalancers",
            "Load Balancers",
            amounts.clusters,
            stamp.limits.clusters,
        ),
        (
            "NetworkSecurityGroups",
            "Network Security Groups",
            amounts.clusters,
            stamp.limits.clusters,
        ),
    ];
    let lines = lines.into_iter().map(|(name, title, value, most)| {
        let mut line = line(name, title, value, most);
        let at = subscription_id(subscription);
        let location = &stamp.location;
        line["id"] = json!(format!(
            "{at}/providers/Microsoft.Network/locations/{location}/usages/{name}"
        ));
        line
    });
    json!({ "value": lines.collect::<Vec<_>>() })
}

/// The error for a subscription that already has `most` resources of a type, with the figures as ARM writes
/// them.
pub(crate) fn exceeded(
    kind: &str,
    most: usize,
    there: usize,
    location: &str,
    subscription: &str,
) -> ArmError {
    let message = format!(
        "Operation could not be completed as it results in exceeding approved {kind} quota. Additional details - Deployment Model: Resource \
         Manager, Location: {location}, Current Limit: {most}, Current Usage: {there}, Additional Required: 1, (Minimum) New Limit \
         Required: {}. This is the limit of the subscription '{subscription}'. Delete one that nothing uses.",
        there.saturating_add(1)
    );
    ArmError::new(ErrorCode::QUOTA_EXCEEDED, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_that_has_all_it_may_is_told_the_figures() {
        let error = exceeded("virtualNetworks", 1000, 1000, "local", "s");
        assert_eq!(error.code, ErrorCode::QUOTA_EXCEEDED);
        for words in [
            "approved virtualNetworks quota",
            "Current Limit: 1000, Current Usage: 1000, Additional Required: 1, (Minimum) New Limit Required: 1001",
            "the limit of the subscription 's'",
        ] {
            assert!(error.message.contains(words), "{}", error.message);
        }
    }
}
