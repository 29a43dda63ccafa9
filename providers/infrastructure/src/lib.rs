//! The infrastructure of a cluster, as Azure shows it in its node resource group: `Microsoft.Compute` (scale
//! sets, instances, disks, sizes) and `Microsoft.Network` (the VNET, its route table and rules, addresses,
//! load balancers).
//!
//! Always true: every response about a cluster is computed from the records of clusters and machines at the
//! time of the request, and shows only existing resources. Only what tenants make is stored: networks,
//! addresses and disks. Requests for machines go to [`Machines`]; other changes are in the tables and answer 501 by their
//! name: machines are made and removed by clusters and pools.
//!
//! Called by: the edge.

mod compute;
mod network;
mod place;
mod tenants;
mod usages;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arm_kernel::Members;
use arm_wire::{ArmError, ErrorCode};
use control_records::usage::Limits;
use control_store::Store;
use ipnet::Ipv4Net;

pub use compute::{Compute, Machines, Wish};
pub use network::Network;

/// The shared data of both providers.
#[derive(Clone)]
pub struct Stamp {
    /// Records.
    pub store: Arc<dyn Store>,
    /// Name of the only location, e.g. `local`.
    pub location: String,
    /// The limits of clusters.
    pub limits: Limits,
    /// Whether VNETs have outbound access at all.
    pub outbound: bool,
    /// Ranges of the stamp that VNETs must not overlap, each with its use.
    pub reserved: Vec<(Ipv4Net, String)>,
}

impl Stamp {
    /// The location of a path has to be this one.
    pub(crate) fn check_location(&self, asked: &str) -> Result<(), ArmError> {
        if arm_ids::same_location(asked, &self.location) {
            return Ok(());
        }
        let message = format!(
            "The location {} is not available here; use '{}'.",
            arm_kernel::quote(asked),
            self.location
        );
        Err(ArmError::new(ErrorCode::LOCATION_NOT_AVAILABLE, message).target("location"))
    }
}

/// The error for a missing resource in a group.
pub(crate) fn missing(kind: &str, name: &str, group: &str) -> ArmError {
    let message = format!("The resource '{kind}/{name}' under resource group '{group}' was not found.");
    ArmError::new(ErrorCode::RESOURCE_NOT_FOUND, message)
}

/// A type whose resources are deleted with their cluster, not by the deletion of a group.
pub(crate) const fn with_cluster<P>(list: arm_kernel::ListMembers<P>) -> Members<P> {
    Members {
        list,
        delete: |_, _, _| Box::pin(async { Ok(0) }),
    }
}
