//! What this stamp owns on this host, found by names alone.

use std::collections::{BTreeMap, BTreeSet};

use fabric_api::{FabricError, Inventory, MachineId, MachineSeen, NetworkId, Power};

use crate::{Inner, cgroup, disk, files, namespace};

impl Inner {
    /// Everything, whole or not.
    pub(crate) async fn inventory(&self) -> Result<Inventory, FabricError> {
        let containers = self.containers().await?;
        let failed = |error| FabricError::failed("list what is there", error);
        let mut machines: BTreeSet<MachineId> = BTreeSet::new();
        let mut networks: BTreeSet<NetworkId> = BTreeSet::new();
        let running: BTreeMap<MachineId, bool> = containers
            .iter()
            .filter_map(|container| {
                Some((
                    self.names.machine_of_container(&container.id)?,
                    container.is_running(),
                ))
            })
            .collect();
        machines.extend(running.keys().cloned());
        let ids = |names: Vec<String>| names.into_iter().map(MachineId);
        machines.extend(ids(files::names_in(&self.machines_dir()).map_err(failed)?));
        machines.extend(ids(cgroup::below(&self.names.cgroup()).map_err(failed)?));
        networks.extend(
            files::names_in(&self.networks_dir())
                .map_err(failed)?
                .into_iter()
                .map(NetworkId),
        );
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
        })
    }

    fn seen(&self, running: bool, id: MachineId) -> Result<MachineSeen, FabricError> {
        let dir = self.machine_dir(&id);
        let saved = disk::Saved::read(&dir)?;
        let power = match (saved.is_some() && disk::is_ready(&dir), running) {
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
