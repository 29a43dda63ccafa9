//! Requests for machines of `Microsoft.Compute`, forwarded to the clusters that own them.

use std::sync::Arc;

use arm_kernel::{Call, Mode};
use arm_wire::{ArmError, Response};
use async_trait::async_trait;
use providers_containerservice::{ContainerService, NodeRepair};
use providers_infrastructure::{Machines, Wish};

/// See the module.
pub(crate) struct Nodes(pub(crate) Arc<ContainerService>);

#[async_trait]
impl Machines for Nodes {
    async fn ask(&self, call: &Call, wish: &Wish, mode: Mode) -> Result<Response, ArmError> {
        let repair = NodeRepair {
            pool: wish.pool.clone(),
            nodes: wish.nodes.clone(),
            order: wish.order,
            name: wish.name,
        };
        self.0.repair_nodes(call, &repair, mode).await
    }
}
