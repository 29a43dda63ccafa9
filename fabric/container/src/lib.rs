//! Machines as containers on this host: the driver for laptops, tests and single hosts.
//!
//! Owns: OCI bundles run by Debian's `runc`, their disks and volumes below the state directory, the volumes'
//! loop devices, network namespaces for VNETs and machines, the stamp's bridge, its nftables table, its
//! control groups.
//!
//! Always true:
//! * a machine's directory with its specification is written before anything else of it exists and removed
//!   after everything else is gone. So [`Fabric::list`](fabric_api::Fabric::list) needs no other records;
//! * no mount of a machine is ever visible on the host: its root is mounted in a mount namespace that ends
//!   with it, so nothing must be unmounted after a crash;
//! * a machine's port is in a bridge only after the rules for what the machine may send are set;
//! * everything on the host is named by [`fabric_net::Names`], and nothing else of the host is changed: no
//!   flush, no policy, no sysctl except `ip_forward` with [`Uplink::Host`](fabric_api::Uplink::Host),
//!   restored with the last stamp, and limits that are too low;
//! * machines are not child processes of the service: they keep running when it ends;
//! * an operation runs to its end even if its caller goes away, one at a time for each machine, each VNET and
//!   each volume.
//!
//! # How far a machine can be trusted
//! A machine has a profile by its role (`profile`): withheld capabilities, a filter of system calls, a list of
//! devices; limits are on control groups that it cannot see, and its bridge ports take only what it may send.
//! A control plane runs no containers and can hardly do more than its programs need. A node must be able to
//! run containers: it mounts filesystems, in the host's user namespace, and shares the host's kernel. Its
//! profile takes the short ways out, and those that need no rights in it; it is no boundary. **Root inside a
//! node counts as root on the host.** Pods are isolated from machines by containerd as on any Kubernetes node;
//! a privileged pod has the rights of its node. For tenants that do not trust each other use a driver with
//! virtual machines.
//!
//! Called by: the control loops, through [`fabric_api::Fabric`]; created by the binary.

mod agent;
mod bundle;
mod cgroup;
mod devices;
mod disk;
mod disk_image;
mod disk_pool;
mod exec;
mod files;
mod forwarding;
mod host_limits;
mod inventory;
mod limits;
mod locks;
mod loop_device;
mod machine;
mod namespace;
mod network;
mod ports;
mod profile;
mod runc;
mod stamp;
mod validate;
mod volume;
mod volume_copy;

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use base_env::Env;
use fabric_api::{
    Fabric, FabricError, Inventory, KeptDisk, MachineId, MachineSpec, NetworkId, NetworkSpec, StampNetwork,
    VolumeId, VolumeSpec,
};
use fabric_net::Names;
use ipnet::Ipv4Net;
use tokio::sync::RwLock;

pub use crate::disk::host_name_servers;
pub use crate::disk_image::possible as disk_limits_possible;
use crate::locks::Locks;

/// The source of node images.
pub trait Images: Send + Sync + 'static {
    /// The layers of the root filesystem of this Kubernetes version, top first; `None` when the image does
    /// not exist (yet). They are never written to and must stay while a machine uses them.
    fn layers(&self, version: &str) -> Option<Vec<PathBuf>>;

    /// The state of a missing image's build, for people.
    fn state(&self, version: &str) -> Option<String> {
        let _ = version;
        None
    }

    /// Whether there is the container image of this add-on. Nodes get it from the service.
    fn has_addon(&self, name: &str) -> bool {
        let _ = name;
        false
    }

    /// The state of its build, where it is missing.
    fn addon_state(&self, name: &str) -> Option<String> {
        let _ = name;
        None
    }
}

/// The driver's configuration.
#[derive(Clone)]
pub struct ContainerConfig {
    /// The stamp's name, `[a-z0-9][a-z0-9-]{0,31}`. Two drivers with the same name on one host are the same stamp.
    pub stamp: String,
    /// The directory of disks, e.g. `/var/lib/landfall/{stamp}`: the driver uses `machines/`, `kept/`,
    /// `networks/` and `volumes/` below it. On a filesystem that can carry an overlay (not itself one).
    pub state_dir: PathBuf,
    /// The directory of runtime state, e.g. `/run/landfall/{stamp}`: the driver uses `runc/` below it. May be
    /// lost with a reboot.
    pub run_dir: PathBuf,
    /// The stamp's own network.
    pub network: StampNetwork,
    /// The service's port at the stamp's gateway address: the only port of the host that machines reach.
    pub service_port: u16,
    /// With [`Uplink::Host`](fabric_api::Uplink::Host): destinations in the host's own networks that machines
    /// may reach.
    pub uplink_allow: Vec<Ipv4Net>,
    /// The agent, a static program: process 1 of every machine. Each machine gets its own copy, replaced
    /// while it runs by [`Fabric::ensure_stamp`].
    pub agent: Cow<'static, [u8]>,
    /// The agent's directory in releases with one copy for all machines. Machines that they started use that
    /// directory: as long as there are any, the agent is written there as well, then the directory is
    /// removed.
    pub shared_agent: Option<PathBuf>,
    /// The source of node images.
    pub images: Arc<dyn Images>,
}

/// The driver. Cheap to clone.
#[derive(Clone)]
pub struct ContainerFabric {
    inner: Arc<Inner>,
}

/// The state shared by all operations.
pub(crate) struct Inner {
    pub(crate) env: Env,
    pub(crate) config: ContainerConfig,
    pub(crate) names: Names,
    /// SHA-256 of the agent, in hexadecimal digits.
    pub(crate) agent_sha256: String,
    pub(crate) locks: Locks,
    /// Read-locked by every operation, write-locked by operations on the whole stamp.
    pub(crate) whole: RwLock<()>,
}

impl ContainerFabric {
    /// Checks the configuration only; changes nothing on the host.
    ///
    /// # Errors
    /// [`FabricError::Invalid`] when a name or path cannot be used.
    pub fn new(env: Env, config: ContainerConfig) -> Result<Self, FabricError> {
        validate::config(&config)?;
        Ok(Self {
            inner: Arc::new(Inner {
                env,
                names: Names::new(&config.stamp),
                agent_sha256: agent::sha256(&config.agent),
                config,
                locks: Locks::default(),
                whole: RwLock::default(),
            }),
        })
    }

    /// SHA-256 of the machines' agent, in hexadecimal digits.
    pub fn agent_sha256(&self) -> &str {
        &self.inner.agent_sha256
    }

    /// Runs an operation to its end, even if the caller goes away: half an operation holds a lock, or leaves
    /// work that the next one must undo.
    async fn complete<T, F, Fut>(&self, act: &str, operation: F) -> Result<T, FabricError>
    where
        T: Send + 'static,
        F: FnOnce(Arc<Inner>) -> Fut,
        Fut: Future<Output = Result<T, FabricError>> + Send + 'static,
    {
        tokio::spawn(operation(Arc::clone(&self.inner)))
            .await
            .map_err(|error| FabricError::failed(act, error))?
    }
}

impl Inner {
    pub(crate) fn machines_dir(&self) -> PathBuf {
        self.config.state_dir.join("machines")
    }

    pub(crate) fn machine_dir(&self, id: &MachineId) -> PathBuf {
        self.machines_dir().join(id.as_str())
    }

    /// Disks of machines that were made anew, each under its name.
    pub(crate) fn kept_dir(&self) -> PathBuf {
        self.config.state_dir.join("kept")
    }

    pub(crate) fn kept_disk_dir(&self, disk: &KeptDisk) -> PathBuf {
        self.kept_dir().join(disk.to_string())
    }

    /// All disks that are kept, in order of their machines and their numbers.
    pub(crate) fn kept_disks(&self) -> Result<Vec<KeptDisk>, FabricError> {
        let names = files::names_in(&self.kept_dir())
            .map_err(|error| FabricError::failed("list the kept disks", error))?;
        let mut disks: Vec<KeptDisk> = names.iter().map(|name| name.as_str().into()).collect();
        disks.sort_unstable();
        Ok(disks)
    }

    pub(crate) fn networks_dir(&self) -> PathBuf {
        self.config.state_dir.join("networks")
    }

    pub(crate) fn network_dir(&self, id: &NetworkId) -> PathBuf {
        self.networks_dir().join(id.as_str())
    }

    pub(crate) fn runc_dir(&self) -> PathBuf {
        self.config.run_dir.join("runc")
    }

    pub(crate) fn namespace_path(name: &str) -> PathBuf {
        Path::new(namespace::DIRECTORY).join(name)
    }
}

#[async_trait]
impl Fabric for ContainerFabric {
    fn stamp_network(&self) -> &StampNetwork {
        &self.inner.config.network
    }

    async fn ensure_stamp(&self) -> Result<(), FabricError> {
        self.complete("make the stamp's network", |inner| async move {
            let _whole = inner.whole.read().await;
            inner.ensure_stamp().await?;
            inner.offer_agent().await
        })
        .await
    }

    async fn stop_stamp(&self) -> Result<(), FabricError> {
        self.complete("stop the stamp", |inner| async move {
            let _whole = inner.whole.write().await;
            inner.stop_stamp().await
        })
        .await
    }

    async fn delete_stamp(&self) -> Result<(), FabricError> {
        self.complete("delete the stamp", |inner| async move {
            let _whole = inner.whole.write().await;
            inner.delete_stamp().await
        })
        .await
    }

    async fn ensure_network(&self, spec: &NetworkSpec) -> Result<(), FabricError> {
        let spec = spec.clone();
        self.complete("make a network", |inner| async move {
            let _whole = inner.whole.read().await;
            let _lock = inner.locks.hold(&format!("network {}", spec.id)).await;
            inner.ensure_network(&spec).await
        })
        .await
    }

    async fn delete_network(&self, id: &NetworkId) -> Result<(), FabricError> {
        let id = id.clone();
        self.complete("delete a network", |inner| async move {
            let _whole = inner.whole.read().await;
            let _lock = inner.locks.hold(&format!("network {id}")).await;
            inner.delete_network(&id).await
        })
        .await
    }

    async fn ensure_image(&self, version: &str) -> Result<(), FabricError> {
        self.inner.layers(version).map(drop)
    }

    async fn ensure_addon_image(&self, name: &str) -> Result<(), FabricError> {
        let images = &self.inner.config.images;
        if images.has_addon(name) {
            return Ok(());
        }
        Err(FabricError::NoAddonImage {
            name: name.to_owned(),
            state: images.addon_state(name),
        })
    }

    async fn ensure_machine(&self, spec: &MachineSpec) -> Result<(), FabricError> {
        let spec = spec.clone();
        self.complete("make a machine", |inner| async move {
            let _whole = inner.whole.read().await;
            let _lock = inner.locks.hold(&format!("machine {}", spec.id)).await;
            inner.ensure_machine(&spec).await
        })
        .await
    }

    async fn start_machine(&self, spec: &MachineSpec) -> Result<(), FabricError> {
        let spec = spec.clone();
        self.complete("start a machine", |inner| async move {
            let _whole = inner.whole.read().await;
            let _lock = inner.locks.hold(&format!("machine {}", spec.id)).await;
            if !disk::is_whole(&inner.machine_dir(&spec.id)) {
                return Err(FabricError::NoDisk(spec.id));
            }
            inner.ensure_machine(&spec).await
        })
        .await
    }

    async fn stop_machine(&self, id: &MachineId) -> Result<(), FabricError> {
        let id = id.clone();
        self.complete("stop a machine", |inner| async move {
            let _whole = inner.whole.read().await;
            let _lock = inner.locks.hold(&format!("machine {id}")).await;
            inner.stop_machine(&id).await
        })
        .await
    }

    async fn delete_machine(&self, id: &MachineId) -> Result<(), FabricError> {
        let id = id.clone();
        self.complete("delete a machine", |inner| async move {
            let _whole = inner.whole.read().await;
            let _lock = inner.locks.hold(&format!("machine {id}")).await;
            inner.delete_machine(&id).await
        })
        .await
    }

    async fn reset_machine(&self, id: &MachineId) -> Result<(), FabricError> {
        let id = id.clone();
        self.complete("take a disk away", |inner| async move {
            let _whole = inner.whole.read().await;
            let _lock = inner.locks.hold(&format!("machine {id}")).await;
            inner.reset_machine(&id).await
        })
        .await
    }

    async fn delete_kept_disk(&self, disk: &KeptDisk) -> Result<(), FabricError> {
        let disk = disk.clone();
        self.complete("delete a kept disk", |inner| async move {
            let _whole = inner.whole.read().await;
            let _lock = inner.locks.hold(&format!("machine {}", disk.machine)).await;
            inner.delete_kept_disk(&disk).await
        })
        .await
    }

    async fn ensure_volume(&self, spec: &VolumeSpec) -> Result<(), FabricError> {
        let spec = spec.clone();
        self.complete("make a volume", |inner| async move {
            let _whole = inner.whole.read().await;
            let _lock = inner.locks.hold(&format!("volume {}", spec.id)).await;
            inner.ensure_volume(&spec).await
        })
        .await
    }

    async fn delete_volume(&self, id: &VolumeId) -> Result<(), FabricError> {
        let id = id.clone();
        self.complete("delete a volume", |inner| async move {
            let _whole = inner.whole.read().await;
            let _lock = inner.locks.hold(&format!("volume {id}")).await;
            inner.delete_volume(&id).await
        })
        .await
    }

    async fn attach_volume(&self, id: &VolumeId, machine: &MachineId) -> Result<(), FabricError> {
        let (id, machine) = (id.clone(), machine.clone());
        self.complete("give a volume to a machine", |inner| async move {
            let _whole = inner.whole.read().await;
            let _lock = inner.locks.hold(&format!("volume {id}")).await;
            inner.attach_volume(&id, &machine).await
        })
        .await
    }

    async fn detach_volume(&self, id: &VolumeId) -> Result<(), FabricError> {
        let id = id.clone();
        self.complete("take a volume from a machine", |inner| async move {
            let _whole = inner.whole.read().await;
            let _lock = inner.locks.hold(&format!("volume {id}")).await;
            inner.detach_volume(&id).await
        })
        .await
    }

    async fn machine(&self, id: &MachineId) -> Result<Option<MachineSpec>, FabricError> {
        let saved = disk::Saved::read(&self.inner.machine_dir(id))?;
        Ok(saved.map(|saved| saved.spec))
    }

    async fn network(&self, id: &NetworkId) -> Result<Option<NetworkSpec>, FabricError> {
        self.inner.saved_network(id)
    }

    async fn list(&self) -> Result<Inventory, FabricError> {
        self.inner.inventory().await
    }
}
