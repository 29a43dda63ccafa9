//! Machines: making, stopping, deleting.

use std::{collections::BTreeMap, path::PathBuf};

use fabric_api::{Attach, FabricError, MachineId, MachineSpec, NetworkId};
use fabric_net::{machine_script, port_script};

use crate::{Inner, bundle::Bundle, cgroup, disk, exec, files, limits::Limits, namespace, validate};

impl Inner {
    pub(crate) async fn ensure_machine(&self, spec: &MachineSpec) -> Result<(), FabricError> {
        validate::machine(spec)?;
        let id = &spec.id;
        let dir = self.machine_dir(id);
        if dir.exists() {
            let saved = disk::Saved::read(&dir)?;
            let ready = disk::is_ready(&dir);
            let running = self
                .container(id)
                .await?
                .is_some_and(|container| container.is_running());
            // Runs without a complete disk: a deletion was cut short.
            if running && ready {
                return self.relabel(saved, spec, &dir);
            }
            self.tear_down(id, saved.as_ref().map(|saved| &saved.spec))
                .await?;
        }
        let layers = self.layers(&spec.image)?;
        disk::Saved::new(spec).write(&dir)?;
        // The disk is made while the cards are plugged in.
        let (disk, cards) = tokio::join!(self.make_disk(spec, &layers), self.plug_in(spec));
        disk?;
        cards?;
        self.start_container(id, &layers).await
    }

    /// What a machine is for may change while it runs; nothing else of it does.
    fn relabel(
        &self,
        saved: Option<disk::Saved>,
        spec: &MachineSpec,
        dir: &std::path::Path,
    ) -> Result<(), FabricError> {
        match saved {
            Some(mut saved) if saved.spec.labels != spec.labels => {
                saved.spec.labels.clone_from(&spec.labels);
                saved.write(dir)
            }
            _ => Ok(()),
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
        let bundle = Bundle {
            spec,
            dir: &dir,
            namespace: &Self::namespace_path(&self.names.machine_namespace(&spec.id)),
            cgroup: &self.names.machine_cgroup(&spec.id),
            agent: &self.config.agent,
            limits: &Limits::of_this_process(),
            message_queues: std::path::Path::new("/proc/sys/fs/mqueue").exists(),
        };
        let config = bundle.config().to_string();
        let (spec, layers, uplink) = (spec.clone(), layers.to_vec(), self.config.network.uplink);
        let act = format!("make the disk of machine {}", spec.id);
        tokio::task::spawn_blocking(move || {
            files::make_dir(&dir.join("bundle"))?;
            files::write(&dir.join("bundle/config.json"), config.as_bytes())?;
            disk::prepare(&dir, &spec, &layers, &disk::Names::new(&spec, uplink))
        })
        .await
        .map_err(|error| FabricError::failed(act, error))?
    }

    /// Makes the machine's namespace and its cards. Nothing of it is there before.
    async fn plug_in(&self, spec: &MachineSpec) -> Result<(), FabricError> {
        let act = format!("plug in machine {}", spec.id);
        let name = self.names.machine_namespace(&spec.id);
        let mut host = vec![format!("netns add {name}")];
        let mut networks: BTreeMap<&NetworkId, Vec<String>> = BTreeMap::new();
        for card in &spec.nics {
            let lines = port_script(&self.names, spec, card);
            match &card.attach {
                Attach::Stamp => host.extend(lines),
                Attach::Subnet { network, .. } => networks.entry(network).or_default().extend(lines),
            }
        }
        if host.len() > 1 {
            self.stamp_is_there().await?;
        }
        for network in networks.keys() {
            self.network_is_there(network).await?;
        }
        exec::ip_batch(&self.env, &act, None, &host).await?;
        for (network, lines) in networks {
            let inside = self.names.network_namespace(network);
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
        if !dir.exists() {
            return Ok(());
        }
        let act = format!("delete the disk of machine {id}");
        tokio::task::spawn_blocking(move || {
            // What is big first: as long as the directory is there, the machine is listed, and its deletion tried again.
            for part in ["upper", "work"]
                .into_iter()
                .chain(disk::VOLUMES.iter().map(|(name, _)| *name))
            {
                files::remove_tree(&dir.join(part))?;
            }
            files::remove_tree(&dir)
        })
        .await
        .map_err(|error| FabricError::failed(act, error))?
    }

    /// Removes all of a machine that is not its disk, whatever of it is there.
    async fn tear_down(&self, id: &MachineId, spec: Option<&MachineSpec>) -> Result<(), FabricError> {
        let act = format!("take down machine {id}");
        self.remove_container(id).await?;
        cgroup::remove(&self.env, &self.names.machine_cgroup(id)).await?;
        self.forget_container(id)?;
        let ports = spec.map(|spec| self.host_ports(spec)).unwrap_or_default();
        self.remove_links_and_namespace(&act, &ports, &self.names.machine_namespace(id))
            .await?;
        // The kernel removes a namespace in its own time; the ends of its cables in VNETs are removed now, so that
        // they are out of the way when the machine is plugged in again.
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

    /// The host's ends of the machine's cards.
    pub(crate) fn host_ports(&self, spec: &MachineSpec) -> Vec<String> {
        spec.nics
            .iter()
            .filter(|card| card.attach == Attach::Stamp)
            .map(|card| self.names.port(&spec.id, &card.name))
            .collect()
    }
}
