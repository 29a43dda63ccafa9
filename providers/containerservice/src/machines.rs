//! The machines of a pool: read only.

use arm_kernel::{Items, Operation, ResourceType, Verb, quote, store_error};
use arm_wire::{ArmError, ErrorCode, Request, Response};
use control_records::{MachineRecord, Role, directory};

use crate::{
    ContainerService,
    api_versions::API_VERSIONS,
    records::{ClusterPath, StoredCluster},
};

type Row = Operation<ContainerService>;

pub(crate) const TYPE: ResourceType<ContainerService> = ResourceType {
    path: "managedClusters/agentPools/machines",
    versions: API_VERSIONS,
    schema: None,
    members: None,
    operations: &[
        Row::read(Verb::Get, "Machines_Get", |provider, call| {
            Box::pin(provider.get_machine(&call.request))
        })
        .since("2024-07-01"),
        Row::items("Machines_List", |provider, call| {
            Box::pin(provider.list_machines(&call.request))
        })
        .since("2024-07-01"),
    ],
};

impl ContainerService {
    /// The machines of a pool, in order of their numbers.
    pub(crate) async fn machines(
        &self,
        found: &StoredCluster,
        pool: &str,
    ) -> Result<Vec<MachineRecord>, ArmError> {
        let uid = &found.record.value.uid;
        let machines = directory::machines(&*self.store, uid)
            .await
            .map_err(store_error)?;
        let mut of_pool: Vec<(u32, MachineRecord)> = machines
            .into_iter()
            .filter_map(|machine| {
                let assignment = machine.assignment.as_ref()?;
                match &assignment.role {
                    Role::Node { pool: own, index, .. }
                        if own == pool && &assignment.cluster == uid && !machine.deleting =>
                    {
                        Some((*index, machine))
                    }
                    _ => None,
                }
            })
            .collect();
        of_pool.sort_by_key(|(index, _)| *index);
        Ok(of_pool.into_iter().map(|(_, machine)| machine).collect())
    }

    async fn list_machines(&self, request: &Request) -> Result<Items, ArmError> {
        let (found, pool) = self.need_pool(ClusterPath::of(&request.path)?).await?;
        let machines = self.machines(&found, &pool).await?;
        let view = found.view();
        let items = machines.iter().filter_map(|machine| view.machine(machine));
        Ok(Items::ById(items.collect()))
    }

    async fn get_machine(&self, request: &Request) -> Result<Response, ArmError> {
        let (found, pool) = self.need_pool(ClusterPath::of(&request.path)?).await?;
        let name = request.path.name(2).unwrap_or_default();
        let machines = self.machines(&found, &pool).await?;
        let mut all = machines
            .iter()
            .filter_map(|machine| found.view().machine(machine));
        let one = all.find(|item| {
            item["name"]
                .as_str()
                .is_some_and(|own| own.eq_ignore_ascii_case(name))
        });
        one.map(Response::ok).ok_or_else(|| {
            let message = format!("The pool '{pool}' has no machine {}.", quote(name));
            ArmError::new(ErrorCode::RESOURCE_NOT_FOUND, message)
        })
    }
}
