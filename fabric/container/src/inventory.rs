//! Lists everything that this stamp owns on this host, by names alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use fabric_api::{FabricError, Inventory, MachineId, MachineSeen, NetworkId, Power};

use crate::{Inner, cgroup, disk, disk_pool::DISKS, files, namespace};

impl Inner {
    /// All items, complete or not.
    pub(crate) async fn inventory(self: &Arc<Self>) -> Result<Inventory, FabricError> {
        let running: BTreeMap<MachineId, bool> = self
            .containers()
            .await?
            .into_iter()
            .filter_map(|container| {
                let id = self.names.machine_of_container(&container.id)?;
                Some((id, container.is_running()))
            })
            .collect();
        // A few files for each machine: on the disk threads.
        let inner = Arc::clone(self);
        DISKS
            .run(move || inner.look_for_files(&running))
            .await
            .map_err(|error| FabricError::failed("list machines, networks and volumes", error))?
    }

    fn look_for_files(&self, running: &BTreeMap<MachineId, bool>) -> Result<Inventory, FabricError> {
        let failed = |error| FabricError::failed("list machines, networks and volumes", error);
        let ids = |names: Vec<String>| names.into_iter().map(MachineId);
        let mut machines: BTreeSet<MachineId> = running.keys().cloned().collect();
        machines.extend(ids(files::names_in(&self.machines_dir()).map_err(failed)?));
        machines.extend(ids(cgroup::below(&self.names.cgroup()).map_err(failed)?));
        let networks = files::names_in(&self.networks_dir()).map_err(failed)?;
        let mut networks: BTreeSet<NetworkId> = networks.into_iter().map(NetworkId).collect();
        for name in namespace::all().map_err(failed)? {
            machines.extend(self.names.machine_of_namespace(&name));
            networks.extend(self.names.network_of_namespace(&name));
        }
        let machines = machines
            .into_iter()
            .map(|id| self.seen(running.get(&id).copied().unwrap_or(false), id))
            .collect::<Result<_, _>>()?;
        Ok(Inventory {
            machines,
            networks: networks.into_iter().collect(),
            kept_disks: self.kept_disks()?,
            volumes: self.volumes()?,
        })
    }

    fn seen(&self, running: bool, id: MachineId) -> Result<MachineSeen, FabricError> {
        let dir = self.machine_dir(&id);
        let saved = disk::Saved::read(&dir)?;
        let power = match (disk::is_whole(&dir), running) {
            (false, _) => Power::Partial,
            (true, true) => Power::Running,
            (true, false) => Power::Stopped,
        };
        let (labels, spec_hash) = saved
            .map(|saved| (saved.spec.labels, Some(saved.hash)))
            .unwrap_or_default();
        Ok(MachineSeen {
            id,
            power,
            labels,
            spec_hash,
        })
    }
}
