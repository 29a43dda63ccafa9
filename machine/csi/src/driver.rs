//! The driver: CSI's `Identity` and `Node` services, each call from request to answer.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use agent_protocol::programs::CsiDriver;

use crate::{
    grpc::{Code, Service, Status, answered},
    host::{Host, Room, Usage},
    mount,
    node::{self, Access, Seen, Step},
    wire::{
        BYTES, BoolValue, EXPAND_VOLUME, Empty, ExpandRequest, Expanded, GET_VOLUME_STATS, INODES, Kind,
        NodeCapabilities, NodeCapability, NodeInfo, ONLINE, PluginCapabilities, PluginCapability, PluginInfo,
        Probed, PublishRequest, SINGLE_NODE_MULTI_WRITER, STAGE_UNSTAGE_VOLUME, StageRequest, Stats,
        StatsRequest, UnpublishRequest, UnstageRequest, VolumeCondition, VolumeUsage,
    },
};

/// The directory of volumes' device nodes, which only the driver uses.
pub(crate) const NODES: &str = "/dev/landfall/volumes";

/// The driver of one node.
pub(crate) struct Driver<H> {
    pub(crate) config: CsiDriver,
    /// The node's name.
    pub(crate) node_name: String,
    pub(crate) host: H,
    /// The directory of volumes' device nodes.
    pub(crate) nodes: PathBuf,
    /// Volumes with a call in progress.
    pub(crate) busy: Mutex<BTreeSet<String>>,
    pub(crate) log: fn(&str),
}

/// The lock of a volume: while it is held, other calls for the volume fail.
pub(crate) struct Turn<'d> {
    busy: &'d Mutex<BTreeSet<String>>,
    handle: String,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.remove(&self.handle);
    }
}

impl<H: Host> Service for Driver<H> {
    fn call(&self, method: &str, message: &[u8]) -> Result<Vec<u8>, Status> {
        let outcome = match method {
            "/csi.v1.Identity/GetPluginInfo" => answered(message, |_: Empty| Ok(self.info())),
            "/csi.v1.Identity/GetPluginCapabilities" => {
                answered(message, |_: Empty| Ok(plugin_capabilities()))
            }
            "/csi.v1.Identity/Probe" => answered(message, |_: Empty| Ok(probed())),
            "/csi.v1.Node/NodeGetInfo" => answered(message, |_: Empty| Ok(self.node_info())),
            "/csi.v1.Node/NodeGetCapabilities" => answered(message, |_: Empty| Ok(node_capabilities())),
            "/csi.v1.Node/NodeStageVolume" => answered(message, |request| self.stage(&request)),
            "/csi.v1.Node/NodeUnstageVolume" => answered(message, |request| self.unstage(&request)),
            "/csi.v1.Node/NodePublishVolume" => answered(message, |request| self.publish(&request)),
            "/csi.v1.Node/NodeUnpublishVolume" => answered(message, |request| self.unpublish(&request)),
            "/csi.v1.Node/NodeExpandVolume" => answered(message, |request| self.expand(&request)),
            "/csi.v1.Node/NodeGetVolumeStats" => answered(message, |request| self.stats(&request)),
            _ => Err(Status::new(
                Code::Unimplemented,
                format!("there is no method {method}"),
            )),
        };
        if let Err(status) = &outcome {
            (self.log)(&format!("{method}: {status}"));
        }
        outcome
    }
}

impl<H: Host> Driver<H> {
    pub(crate) fn new(config: &CsiDriver, node_name: String, host: H, nodes: &Path, log: fn(&str)) -> Self {
        Self {
            config: config.clone(),
            node_name,
            host,
            nodes: nodes.to_owned(),
            busy: Mutex::default(),
            log,
        }
    }

    fn info(&self) -> PluginInfo {
        PluginInfo {
            name: self.config.driver.clone(),
            vendor_version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    fn node_info(&self) -> NodeInfo {
        NodeInfo {
            node_id: self.node_name.clone(),
            max_volumes_per_node: self.config.most_volumes.into(),
        }
    }

    /// Takes the lock of a volume.
    pub(crate) fn turn(&self, handle: &str) -> Result<Turn<'_>, Status> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        if !busy.insert(handle.to_owned()) {
            let message = format!("another call for the volume {handle} is in progress");
            return Err(Status::new(Code::Aborted, message));
        }
        Ok(Turn {
            busy: &self.busy,
            handle: handle.to_owned(),
        })
    }

    fn node(&self, handle: &str) -> PathBuf {
        self.nodes.join(node::node_name(handle))
    }

    fn perform(&self, steps: &[Step]) -> Result<(), Status> {
        for step in steps {
            self.host.perform(step).map_err(Status::internal)?;
            if let Step::Format(_) | Step::Grow(_) = step {
                (self.log)(&format!("done: {step:?}"));
            }
        }
        Ok(())
    }

    fn stage(&self, request: &StageRequest) -> Result<Empty, Status> {
        let wanted = node::Stage::read(request, self.config.shares)?;
        let _turn = self.turn(&wanted.handle)?;
        let found = self.host.devices(&wanted.id).map_err(Status::internal)?;
        let device = node::only(&wanted.id, &found)?;
        let node = self.node(&wanted.handle);
        let mounts = self.host.mounts().map_err(Status::internal)?;
        let there = mount::top(&mounts, &wanted.staging);
        wanted.fits(&device, there)?;
        self.host
            .make_node(&node, device.number)
            .map_err(Status::internal)?;
        match wanted.access {
            Access::Block => self.host.make_loop_nodes().map_err(Status::internal)?,
            Access::Mount => {
                let content = self.host.content(&node, device.bytes).map_err(Status::internal)?;
                let online = self.host.grows_mounted().map_err(Status::internal)?;
                self.perform(&wanted.steps(&node, &device, content, there, online)?)?;
            }
        }
        Ok(Empty {})
    }

    fn unstage(&self, request: &UnstageRequest) -> Result<Empty, Status> {
        let wanted = node::Unstage::read(request)?;
        let _turn = self.turn(&wanted.handle)?;
        let mounts = self.host.mounts().map_err(Status::internal)?;
        self.perform(&wanted.steps(&self.node(&wanted.handle), &mounts))?;
        Ok(Empty {})
    }

    fn publish(&self, request: &PublishRequest) -> Result<Empty, Status> {
        let wanted = node::Publish::read(request, self.config.shares)?;
        let _turn = self.turn(&wanted.handle)?;
        let found = self.host.devices(&wanted.id).map_err(Status::internal)?;
        let device = node::only(&wanted.id, &found)?;
        let node = self.node(&wanted.handle);
        let mounts = self.host.mounts().map_err(Status::internal)?;
        let device_at = |path: &Path| self.host.device_at(path).map_err(Status::internal);
        let seen = Seen {
            staged: mount::top(&mounts, &wanted.staging),
            target: mount::top(&mounts, &wanted.target),
            node: device_at(&node)?,
            device: device_at(&wanted.target)?,
        };
        self.perform(&wanted.steps(&node, &device, seen)?)?;
        Ok(Empty {})
    }

    fn unpublish(&self, request: &UnpublishRequest) -> Result<Empty, Status> {
        let wanted = node::Unpublish::read(request)?;
        let _turn = self.turn(&wanted.handle)?;
        let mounts = self.host.mounts().map_err(Status::internal)?;
        self.perform(&wanted.steps(&mounts))?;
        Ok(Empty {})
    }

    fn expand(&self, request: &ExpandRequest) -> Result<Expanded, Status> {
        let wanted = node::Expand::read(request)?;
        let _turn = self.turn(&wanted.handle)?;
        let node = self.node(&wanted.handle);
        let number = self.host.device_at(&node).map_err(Status::internal)?;
        let number = number.ok_or_else(|| {
            let message = format!("the volume {} is not staged on this node", wanted.handle);
            Status::new(Code::NotFound, message)
        })?;
        let bytes = self.host.bytes(number).map_err(Status::internal)?;
        let mounts = self.host.mounts().map_err(Status::internal)?;
        let mounted = mounts.iter().any(|mount| mount.device == number);
        let content = mounted.then(|| self.host.content(&node, bytes)).transpose();
        let content = content.map_err(Status::internal)?;
        let online = self.host.grows_mounted().map_err(Status::internal)?;
        self.perform(&wanted.steps(&node, bytes, content, online)?)?;
        Ok(Expanded {
            capacity_bytes: signed(bytes),
        })
    }

    fn stats(&self, request: &StatsRequest) -> Result<Stats, Status> {
        let path = node::asked(request)?;
        let usage = self.host.usage(&path).map_err(Status::internal)?;
        let usage = usage.ok_or_else(|| {
            let message = format!("there is no volume at {}", path.display());
            Status::new(Code::NotFound, message)
        })?;
        Ok(Stats {
            usage: match usage {
                Usage::Device(bytes) => vec![VolumeUsage {
                    total: signed(bytes),
                    unit: BYTES,
                    ..VolumeUsage::default()
                }],
                Usage::Filesystem { bytes, files } => vec![used(bytes, BYTES), used(files, INODES)],
            },
            volume_condition: Some(VolumeCondition {
                abnormal: false,
                message: "the volume is there".to_owned(),
            }),
        })
    }
}

fn used(room: Room, unit: i32) -> VolumeUsage {
    VolumeUsage {
        available: signed(room.available),
        total: signed(room.total),
        used: signed(room.used),
        unit,
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// There is no controller service: the stamp's service does its work. Volumes grow while they are in use.
fn plugin_capabilities() -> PluginCapabilities {
    PluginCapabilities {
        capabilities: vec![PluginCapability {
            volume_expansion: Some(Kind { kind: ONLINE }),
        }],
    }
}

fn probed() -> Probed {
    Probed {
        ready: Some(BoolValue { value: true }),
    }
}

fn node_capabilities() -> NodeCapabilities {
    let kinds = [
        STAGE_UNSTAGE_VOLUME,
        GET_VOLUME_STATS,
        EXPAND_VOLUME,
        SINGLE_NODE_MULTI_WRITER,
    ];
    NodeCapabilities {
        capabilities: kinds
            .into_iter()
            .map(|kind| NodeCapability {
                rpc: Some(Kind { kind }),
            })
            .collect(),
    }
}
