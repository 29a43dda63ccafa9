//! Usages: how much of what there is a limit of is asked for, in the forms of each namespace. Pure but for the reading.

use arm_ids::subscription_id;
use arm_kernel::store_error;
use arm_wire::ArmError;
use cluster_spec::VM_FAMILIES;
use control_records::usage::{Amounts, Limits, Usage};
use serde_json::{Value, json};

use crate::Stamp;

/// What there is of a subscription.
pub(crate) struct Own {
    pub(crate) amounts: Amounts,
    /// Of the whole stamp.
    pub(crate) all: Amounts,
}

/// Reads it.
pub(crate) async fn of(stamp: &Stamp, subscription: &str) -> Result<Own, ArmError> {
    let usage = Usage::read(&*stamp.store).await.map_err(store_error)?;
    Ok(Own {
        amounts: usage.record.of(subscription),
        all: usage.record.all(),
    })
}

/// A limit as clients read it: a number, whether there is one or not.
fn limit(limit: Option<u64>) -> u64 {
    // The largest that every client can hold.
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

/// `Microsoft.Compute/locations/{l}/usages`.
pub(crate) fn compute(own: &Own, limits: &Limits) -> Value {
    let amounts = &own.amounts;
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
    for family in VM_FAMILIES {
        let cores = amounts.cores.get(family.name).copied().unwrap_or(0);
        lines.push(line(family.name, family.title, cores, limits.cores));
    }
    json!({ "value": lines })
}

/// `Microsoft.Network/locations/{l}/usages`.
pub(crate) fn network(own: &Own, stamp: &Stamp, subscription: &str) -> Value {
    let (amounts, room) = (&own.amounts, &stamp.limits.room);
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
            own.all.clusters,
            room.vips,
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
