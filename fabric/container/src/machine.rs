//! Machines: creates, stops, deletes them.

use std::{collections::BTreeMap, path::PathBuf};

use fabric_api::{Attach, FabricError, KeptDisk, MachineId, MachineSpec, NetworkId, NicSpec};
use fabric_net::{machine_script, port_script};

use crate::{
    Inner, agent, bundle::Bundle, cgroup, disk, disk_pool::blocking, exec, files, limits::Limits, namespace,
    profile::Role, validate,
};

impl Inner {
    pub(crate) async fn ensure_machine(&self, spec: &MachineSpec) -> Result<(), FabricError> {
        validate::machine(spec)?;
        let id = &spec.id;
        let dir = self.machine_dir(id);
        if dir.exists() {
            let saved = disk::Saved::read(&dir)?;
            let running = self
                .container(id)
                .await?
                .is_some_and(|container| container.is_running());
            // A machine that runs on a condemned disk is stopped: its deletion was interrupted.
            if running && disk::is_whole(&dir) {
                return self.relabel(saved, spec, &dir);
            }
            let known = saved.as_ref().map_or(spec, |saved| &saved.spec);
            self.tear_down(id, Some(known)).await?;
        }
        let layers = self.layers(&spec.image)?;
        disk::Saved::new(spec).write(&dir)?;
        // The disk is prepared while the interfaces are attached.
        let (disk, cards) = tokio::join!(self.make_disk(spec, &layers), self.plug_in(spec));
        disk?;
        cards?;
        self.start_container(id, &layers).await
    }

    /// The role of a machine may change while it runs; nothing else may.
    fn relabel(
        &self,
        saved: Option<disk::Saved>,
        spec: &MachineSpec,
        dir: &std::path::Path,
    ) -> Result<(), FabricError> {
        disk::mark(dir, &spec.id)?;
        match saved {
            Some(mut saved) if saved.spec.labels != spec.labels => {
                saved.spec.labels.clone_from(&spec.labels);
                saved.write(dir)
            }
            Some(_) => Ok(()),
            None => {
                tracing::warn!(machine = %spec.id, "the specification of a machine that runs was damaged and is written anew");
                disk::Saved::new(spec).write(dir)
            }
        }
    }

    pub(crate) fn layers(&self, version: &str) -> Result<Vec<PathBuf>, FabricError> {
        let layers = self
            .config
            .images
            .layers(version)
            .filter(|layers| !layers.is_empty())
            .ok_or_else(|| FabricError::NoImage {
                version: version.to_owned(),
                state: self.config.images.state(version),
            })?;
        for layer in &layers {
            validate::plain_path("image layer", layer)?;
        }
        Ok(layers)
    }

    async fn make_disk(&self, spec: &MachineSpec, layers: &[PathBuf]) -> Result<(), FabricError> {
        let dir = self.machine_dir(&spec.id);
        let namespace = Self::namespace_path(&self.names.machine_namespace(&spec.id));
        let (group, limit) = (self.names.machine_cgroup(&spec.id), limit(spec));
        let (spec, layers, uplink) = (spec.clone(), layers.to_vec(), self.config.network.uplink);
        let act = format!("make the disk of machine {}", spec.id);
        let (program, sum) = (self.config.agent.clone(), self.agent_sha256.clone());
        blocking(&act, move || {
            cgroup::confine(&group, limit)?;
            agent::put(&dir, &program, &sum)?;
            disk::prepare(&dir, &spec, &layers, &disk::Names::new(&spec, uplink))?;
            let bundle = Bundle {
                spec: &spec,
                dir: &dir,
                namespace: &namespace,
                cgroup: &format!("{group}/{}", cgroup::INNER),
                limit,
                limits: &Limits::of_this_process(),
                unified: cgroup::is_unified(),
                message_queues: std::path::Path::new("/proc/sys/fs/mqueue").exists(),
            };
            files::make_dir(&dir.join("bundle"))?;
            files::replace(
                &dir.join("bundle/config.json"),
                bundle.config().to_string().as_bytes(),
            )
        })
        .await
    }

    /// Creates the machine's namespace and its interfaces. Nothing of them exists before.
    async fn plug_in(&self, spec: &MachineSpec) -> Result<(), FabricError> {
        let act = format!("plug in machine {}", spec.id);
        let name = self.names.machine_namespace(&spec.id);
        let mut host = vec![format!("netns add {name}")];
        let mut networks: BTreeMap<&NetworkId, Vec<(&NicSpec, &str)>> = BTreeMap::new();
        for card in &spec.nics {
            match &card.attach {
                Attach::Stamp => host.extend(port_script(&self.names, spec, card, false)),
                Attach::Subnet { network, subnet } => {
                    networks.entry(network).or_default().push((card, subnet));
                }
            }
        }
        if host.len() > 1 {
            self.stamp_is_there().await?;
        }
        for network in networks.keys() {
            self.network_is_there(network).await?;
        }
        if host.len() > 1 {
            self.guard_stamp_ports(&act).await?;
        }
        exec::ip_batch(&self.env, &act, None, &host).await?;
        for (network, cards) in networks {
            let inside = self.names.network_namespace(network);
            // Held until the interfaces exist: a filter that is set meanwhile must find them.
            let _lock = self.locks.hold(&format!("network {network}")).await;
            let made = self.saved_network(network)?;
            if let Some(made) = &made {
                self.guard_ports(&act, made).await?;
            }
            let filtered = |name: &str| {
                let mut subnets = made.iter().flat_map(|made| &made.subnets);
                subnets.any(|subnet| subnet.name == name && subnet.filter.is_some())
            };
            let lines: Vec<String> = cards
                .iter()
                .flat_map(|(card, subnet)| port_script(&self.names, spec, card, filtered(subnet)))
                .collect();
            exec::ip_batch(&self.env, &act, Some(&inside), &lines).await?;
        }
        exec::ip_batch(&self.env, &act, Some(&name), &machine_script(spec)).await
    }

    pub(crate) async fn stop_machine(&self, id: &MachineId) -> Result<(), FabricError> {
        validate::identity("machine", id.as_str())?;
        let dir = self.machine_dir(id);
        if !dir.exists() {
            return Err(FabricError::NotFound(format!("machine {id}")));
        }
        if let Some(container) = self.container(id).await?
            && container.is_running()
        {
            self.shut_down(id, &container).await?;
        }
        let saved = disk::Saved::read(&dir)?;
        self.tear_down(id, saved.as_ref().map(|saved| &saved.spec)).await
    }

    pub(crate) async fn delete_machine(&self, id: &MachineId) -> Result<(), FabricError> {
        validate::identity("machine", id.as_str())?;
        let dir = self.machine_dir(id);
        disk::condemn(&dir)?;
        let saved = disk::Saved::read(&dir)?;
        self.tear_down(id, saved.as_ref().map(|saved| &saved.spec))
            .await?;
        let kept: Vec<PathBuf> = self
            .kept_disks()?
            .iter()
            .filter(|disk| disk.machine == *id)
            .map(|disk| self.kept_disk_dir(disk))
            .collect();
        let act = format!("delete the disk of machine {id}");
        blocking(&act, move || {
            kept.iter().try_for_each(|kept| disk::delete(kept))?;
            disk::delete(&dir)
        })
        .await
    }

    pub(crate) async fn reset_machine(&self, id: &MachineId) -> Result<(), FabricError> {
        validate::identity("machine", id.as_str())?;
        let (dir, all_kept) = (self.machine_dir(id), self.kept_dir());
        let place = match KeptDisk::next(id, &self.kept_disks()?) {
            // A machine whose disk could not be kept is left as it is.
            Err(full) if disk::is_to_be_kept(&dir) => return Err(full),
            place => place.map(|disk| self.kept_disk_dir(&disk)),
        };
        let saved = disk::Saved::read(&dir)?;
        self.tear_down(id, saved.as_ref().map(|saved| &saved.spec))
            .await?;
        let act = format!("take the disk away from machine {id}");
        let id = id.clone();
        blocking(&act, move || {
            // Looked at again: the machine may have written the first of it as it went down.
            if !disk::is_to_be_kept(&dir) {
                disk::condemn(&dir)?;
                return disk::delete(&dir);
            }
            let kept = place?;
            files::make_dir(&all_kept)?;
            files::rename(&dir, &kept)?;
            tracing::warn!(machine = %id, disk = %kept.display(), "a disk with a database is set aside and kept");
            Ok(())
        })
        .await
    }

    pub(crate) async fn delete_kept_disk(&self, disk: &KeptDisk) -> Result<(), FabricError> {
        validate::identity("machine", disk.machine.as_str())?;
        let kept = self.kept_disk_dir(disk);
        let act = format!("delete the kept disk {disk}");
        blocking(&act, move || disk::delete(&kept)).await
    }

    /// Removes everything of a machine except its disk.
    async fn tear_down(&self, id: &MachineId, spec: Option<&MachineSpec>) -> Result<(), FabricError> {
        let act = format!("take down machine {id}");
        self.remove_container(id).await?;
        cgroup::remove(&self.env, &self.names.machine_cgroup(id)).await?;
        self.forget_container(id)?;
        self.release_stacked_of(&act, id).await?;
        let ports = spec.map(|spec| self.host_ports(spec)).unwrap_or_default();
        self.remove_links_and_namespace(&act, &ports, &self.names.machine_namespace(id))
            .await?;
        // The kernel removes a namespace asynchronously; the ends of its veth pairs in VNETs are removed now,
        // so that they do not conflict when the machine is attached again.
        let mut networks: BTreeMap<&NetworkId, Vec<String>> = BTreeMap::new();
        for card in spec.map_or(&[][..], |spec| &spec.nics) {
            if let Attach::Subnet { network, .. } = &card.attach {
                let port = self.names.port(id, &card.name);
                networks
                    .entry(network)
                    .or_default()
                    .push(format!("link delete {port}"));
            }
        }
        for (network, lines) in networks {
            let inside = self.names.network_namespace(network);
            if namespace::look(&inside) == namespace::Namespace::Live {
                // They are usually gone already.
                exec::ip_batch_anyway(&self.env, &act, Some(&inside), &lines).await;
            }
        }
        Ok(())
    }

    /// The host's ends of the machine's interfaces.
    pub(crate) fn host_ports(&self, spec: &MachineSpec) -> Vec<String> {
        spec.nics
            .iter()
            .filter(|card| card.attach == Attach::Stamp)
            .map(|card| self.names.port(&spec.id, &card.name))
            .collect()
    }
}

/// Maximum processes and threads of a machine for each core, and the minimum. A virtual machine of the same
/// size has the kernel's default, 32768; the pods of a full node need a fraction of it.
const TASKS_PER_CORE: u64 = 4096;
const LEAST_TASKS: u64 = 16_384;

/// The CPU weight of a control plane, relative to a node: on a busy host, neither tenants' pods nor starting
/// nodes delay a cluster's API server.
const CONTROL_PLANE_WEIGHT: u64 = 4 * cgroup::CPU_WEIGHT;

/// The same for disks: nothing delays a write of etcd's log more than a neighbour that fills its disk.
const CONTROL_PLANE_IO_WEIGHT: u64 = 4 * cgroup::IO_WEIGHT;

fn limit(spec: &MachineSpec) -> cgroup::Limit {
    let (cpu_weight, io_weight, swaps) = match Role::of(spec) {
        // It runs no tenants' programs: what an idle one has not used for long may be swapped out.
        Role::ControlPlane => (CONTROL_PLANE_WEIGHT, CONTROL_PLANE_IO_WEIGHT, true),
        Role::Node => (cgroup::CPU_WEIGHT, cgroup::IO_WEIGHT, false),
    };
    cgroup::Limit {
        cpu_millis: spec.cpu_millis,
        cpu_weight,
        memory_mib: spec.memory_mib,
        swaps,
        tasks: (u64::from(spec.cpu_millis) * TASKS_PER_CORE / 1000).max(LEAST_TASKS),
        io_weight,
    }
}
