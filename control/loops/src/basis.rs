//! The records that a pass of a cluster's loop depends on, as last read.

use std::collections::BTreeSet;

use cluster_maintenance::{Calendar, DEFAULT};
use control_planner::Maintenance;
use control_records::{
    ChildRecord, ClusterRecord, Fence, MachineRecord, ObservedRecord, OperationRecord, OperationStatus,
    Owner, PkiRecord, balancer::BalancerRecord, child, command::CommandRecord, credential::CredentialRecord,
    key, namespace::NamespaceRecord, planned, volume::VolumeRecord,
};
use control_store::{Store, StoreError};

use crate::{commit::Basis, record_cache::RecordCache};

/// See the module. Only while the loop runs.
#[derive(Default)]
pub(crate) struct RecordCaches {
    cluster: RecordCache<ClusterRecord>,
    observed: RecordCache<ObservedRecord>,
    pub(crate) pki: RecordCache<PkiRecord>,
    machines: RecordCache<MachineRecord>,
    operations: RecordCache<OperationRecord>,
    pub(crate) commands: RecordCache<CommandRecord>,
    credentials: RecordCache<CredentialRecord>,
    trusted: RecordCache<ChildRecord>,
    namespaces: RecordCache<NamespaceRecord>,
    balancers: RecordCache<BalancerRecord>,
    volumes: RecordCache<VolumeRecord>,
    maintenance: RecordCache<ChildRecord>,
}

impl RecordCaches {
    /// The records of a cluster; `None` when it is gone.
    pub(crate) async fn read(
        &mut self,
        store: &dyn Store,
        uid: &str,
        fence: Fence,
    ) -> Result<Option<(Basis, ObservedRecord)>, StoreError> {
        let Some(cluster) = self.cluster.read(store, &key::desired(uid)).await? else {
            return Ok(None);
        };
        let observed = self.observed.read(store, &key::observed(uid)).await?;
        let machines = self.machines.list(store, &key::machines(uid)).await?;
        let credentials = self.credentials.list(store, &CredentialRecord::all(uid)).await?;
        let prefix = child::key(uid, child::TRUSTED_BINDINGS, "");
        let trusted = self.trusted.list(store, &prefix).await?;
        let namespaces = self.namespaces.list(store, &NamespaceRecord::all(uid)).await?;
        let some = observed.as_ref().is_some_and(|observed| observed.value.balanced);
        let prefix = BalancerRecord::all(uid);
        let balancers = self.balancers.list_if(some, store, &prefix).await?;
        let some = observed.as_ref().is_some_and(|observed| observed.value.volumes);
        let prefix = VolumeRecord::all(uid);
        let volumes = self.volumes.list_if(some, store, &prefix).await?;
        let owner = Owner::cluster(uid);
        let requests = &cluster.value.requests;
        let open: BTreeSet<_> = requests
            .running
            .iter()
            .chain([&cluster.value.operation])
            .collect();
        let mut operations = Vec::new();
        for id in open {
            let operation = self.operations.read(store, &owner.operation(id)).await?;
            operations
                .extend(operation.filter(|operation| operation.value.status == OperationStatus::InProgress));
        }
        let mut namespace_operations = Vec::new();
        for id in namespaces
            .iter()
            .flat_map(|namespace| &namespace.value.operations)
        {
            let operation = self.operations.read(store, &owner.operation(id)).await?;
            namespace_operations
                .extend(operation.filter(|operation| operation.value.status == OperationStatus::InProgress));
        }
        let basis = Basis {
            observed: observed.as_ref().map(|observed| observed.revision),
            cluster,
            machines,
            operations,
            credentials,
            trusted,
            namespaces,
            namespace_operations,
            balancers,
            volumes,
            fence,
        };
        let observed = observed.map(|observed| ObservedRecord::clone(&observed.value));
        Ok(Some((basis, observed.unwrap_or_default())))
    }

    /// What planned work of a cluster goes by.
    pub(crate) async fn maintenance(
        &mut self,
        store: &dyn Store,
        uid: &str,
    ) -> Result<Maintenance, StoreError> {
        let key = planned::configuration_key(uid, DEFAULT);
        let configuration = self.maintenance.read(store, &key).await?;
        let releases = configuration.and_then(|found| {
            let made = found.value.system_data.created_at;
            Calendar::parse(&found.value.properties, made)
                .inspect_err(|error| tracing::error!(cluster = uid, "nothing waits for '{DEFAULT}': {error}"))
                .ok()
        });
        Ok(Maintenance {
            paused: planned::paused(store).await?,
            releases,
        })
    }
}
