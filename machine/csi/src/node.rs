//! The steps of each call, from the state of the machine. Pure.
//!
//! Always true: existing state is not created again; a device is only formatted if its content is known to be
//! empty or an unfinished format of ours.

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
};

use aws_lc_rs::digest::{SHA256, digest};

use crate::{
    content::Content,
    device::{Device, Number},
    grpc::{Code, Status},
    mount::Mount,
    wire::{
        ExpandRequest, PublishRequest, StageRequest, StatsRequest, UnpublishRequest, UnstageRequest,
        VolumeCapability, access,
    },
};

/// The attribute of a PersistentVolume, and the metadata of a VolumeAttachment, with the volume's id in the fabric: part of a
/// call's `volume_context` and `publish_context`.
pub(crate) const VOLUME_ATTRIBUTE: &str = "landfall.dev/volume";
/// The only filesystem.
const EXT4: &str = "ext4";
/// A filesystem smaller than its device by this much is grown. A smaller difference may be a partial block.
const GROWTH: u64 = 1 << 20;
/// Default mount options: deleted blocks are returned to the host, and tables stay sparse until they are
/// used.
const OPTIONS: [&str; 2] = ["discard", "noinit_itable"];

/// The mount options of a StorageClass that are applied to a share. Options of the protocols of Azure's shares
/// (SMB, NFS), which common classes contain, have no meaning for an ext4 filesystem and are ignored.
const SHARE_FLAGS: [&str; 7] = [
    "nosuid",
    "nodev",
    "noexec",
    "noatime",
    "nodiratime",
    "relatime",
    "nosymfollow",
];

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Create a filesystem on the device of this node.
    Format(PathBuf),
    /// Mount the filesystem on the device of `node`.
    Mount {
        node: PathBuf,
        to: PathBuf,
        options: Vec<String>,
    },
    /// Check the filesystem on the device of this node, and repair it where no data is lost.
    Check(PathBuf),
    /// Grow the filesystem on the device of this node to the device's size.
    Grow(PathBuf),
    /// Check and grow the filesystem on the device of this node, unless it is mounted on any machine: then it
    /// keeps its size.
    GrowAlone(PathBuf),
    /// Create a directory, if needed.
    Directory(PathBuf),
    /// Create a file, if needed.
    File(PathBuf),
    /// Bind-mount `from` at `to`.
    Bind { from: PathBuf, to: PathBuf },
    /// Make the mount at this path read-only.
    ReadOnly(PathBuf),
    /// Remove the last mount at this path.
    Unmount(PathBuf),
    /// Remove a file or an empty directory, if it exists.
    Remove(PathBuf),
}

/// The access type of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Access {
    /// As a block device.
    Block,
    /// As a mounted filesystem.
    Mount,
}

/// The request `NodeStageVolume`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stage {
    /// The volume's id in the cluster.
    pub(crate) handle: String,
    /// The volume's id in the fabric.
    pub(crate) id: String,
    pub(crate) staging: PathBuf,
    pub(crate) access: Access,
    /// Whether it is a share.
    shared: bool,
    /// The mount options of its filesystem.
    flags: Vec<String>,
}

/// The request `NodeUnstageVolume`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unstage {
    pub(crate) handle: String,
    staging: PathBuf,
}

/// The request `NodePublishVolume`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Publish {
    pub(crate) handle: String,
    pub(crate) id: String,
    pub(crate) staging: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) access: Access,
    read_only: bool,
}

/// The request `NodeUnpublishVolume`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unpublish {
    pub(crate) handle: String,
    target: PathBuf,
}

/// The request `NodeExpandVolume`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expand {
    pub(crate) handle: String,
    /// The least size afterwards, in bytes.
    least: u64,
    /// The largest size, in bytes.
    most: Option<u64>,
}

/// The state of a volume that is to be published.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen<'m> {
    /// The mount at the staging path.
    pub(crate) staged: Option<&'m Mount>,
    /// The mount at the target.
    pub(crate) target: Option<&'m Mount>,
    /// The device number of the volume's node.
    pub(crate) node: Option<Number>,
    /// The device number of the target itself, if it is a device node.
    pub(crate) device: Option<Number>,
}

impl Stage {
    pub(crate) fn read(request: &StageRequest, shared: bool) -> Result<Self, Status> {
        let (access, mut flags, _) = capability(request.volume_capability.as_ref(), shared)?;
        if shared {
            flags.retain(|flag| SHARE_FLAGS.contains(&flag.as_str()));
        }
        Ok(Self {
            shared,
            handle: handle(&request.volume_id)?,
            id: id(&request.publish_context, &request.volume_context)?,
            staging: path("staging_target_path", &request.staging_target_path)?,
            access,
            flags,
        })
    }

    /// Fails if something other than this device is mounted in the volume's place.
    pub(crate) fn fits(&self, device: &Device, there: Option<&Mount>) -> Result<(), Status> {
        match there {
            Some(mount) if mount.device != device.number => Err(Status::internal(format!(
                "the volume is device {}, and device {} is mounted at {}",
                device.number,
                mount.device,
                self.staging.display()
            ))),
            _ => Ok(()),
        }
    }

    /// The steps for a filesystem volume that [fits](Self::fits), whose device has this node. `online`:
    /// whether a filesystem can grow while it is mounted.
    pub(crate) fn steps(
        &self,
        node: &Path,
        device: &Device,
        content: Content,
        there: Option<&Mount>,
        online: bool,
    ) -> Result<Vec<Step>, Status> {
        let mut steps = Vec::new();
        let grows = is_small(content, device.bytes);
        if there.is_none() {
            match content {
                Content::Filesystem { .. } if grows && !online && self.shared => {
                    steps.push(Step::GrowAlone(node.to_owned()));
                }
                // An unmounted filesystem must be checked before it can grow.
                Content::Filesystem { .. } if grows && !online => {
                    steps.extend([Step::Check(node.to_owned()), Step::Grow(node.to_owned())]);
                }
                Content::Filesystem { .. } => {}
                // A share is created with a filesystem: several nodes that format it at the same time would destroy each
                // other's data.
                Content::Empty | Content::Unfinished if self.shared => {
                    return Err(Status::new(
                        Code::FailedPrecondition,
                        format!(
                            "the share {} has no filesystem any more: it is not formatted here",
                            self.id
                        ),
                    ));
                }
                Content::Empty | Content::Unfinished => steps.push(Step::Format(node.to_owned())),
                Content::Other => {
                    return Err(Status::new(
                        Code::FailedPrecondition,
                        format!(
                            "the volume {} holds data that is no {EXT4} filesystem: it is not formatted. Use it with volumeMode Block, or \
                             remove what is on it",
                            self.id
                        ),
                    ));
                }
            }
            let options = OPTIONS.iter().map(|option| (*option).to_owned());
            steps.push(Step::Mount {
                node: node.to_owned(),
                to: self.staging.clone(),
                options: options.chain(self.flags.iter().cloned()).collect(),
            });
        }
        if grows && online {
            steps.push(Step::Grow(node.to_owned()));
        }
        Ok(steps)
    }
}

impl Unstage {
    pub(crate) fn read(request: &UnstageRequest) -> Result<Self, Status> {
        Ok(Self {
            handle: handle(&request.volume_id)?,
            staging: path("staging_target_path", &request.staging_target_path)?,
        })
    }

    pub(crate) fn steps(&self, node: &Path, mounts: &[Mount]) -> Vec<Step> {
        let mut steps = unmounted(&self.staging, mounts);
        steps.push(Step::Remove(node.to_owned()));
        steps
    }
}

impl Publish {
    pub(crate) fn read(request: &PublishRequest, shared: bool) -> Result<Self, Status> {
        let (access, _, reads) = capability(request.volume_capability.as_ref(), shared)?;
        Ok(Self {
            handle: handle(&request.volume_id)?,
            id: id(&request.publish_context, &request.volume_context)?,
            staging: path("staging_target_path", &request.staging_target_path)?,
            target: path("target_path", &request.target_path)?,
            access,
            read_only: request.readonly || reads,
        })
    }

    pub(crate) fn steps(&self, node: &Path, device: &Device, seen: Seen<'_>) -> Result<Vec<Step>, Status> {
        match self.access {
            Access::Block => self.device(node, device, seen),
            Access::Mount => self.filesystem(device, seen),
        }
    }

    /// Write access to a device is controlled where the container gets it: a read-only mount of its node
    /// would not prevent writes.
    fn device(&self, node: &Path, device: &Device, seen: Seen<'_>) -> Result<Vec<Step>, Status> {
        if seen.node != Some(device.number) {
            return Err(self.unstaged());
        }
        match seen.target {
            Some(_) if seen.device == Some(device.number) => Ok(Vec::new()),
            Some(mount) => Err(self.taken(mount)),
            None => Ok(vec![
                Step::File(self.target.clone()),
                Step::Bind {
                    from: node.to_owned(),
                    to: self.target.clone(),
                },
            ]),
        }
    }

    fn filesystem(&self, device: &Device, seen: Seen<'_>) -> Result<Vec<Step>, Status> {
        if seen.staged.is_none_or(|mount| mount.device != device.number) {
            return Err(self.unstaged());
        }
        let read_only = self.read_only.then(|| Step::ReadOnly(self.target.clone()));
        match seen.target {
            // An earlier call was interrupted.
            Some(mount) if mount.device == device.number && !mount.is_read_only() => {
                Ok(read_only.into_iter().collect())
            }
            Some(mount) if mount.device == device.number && self.read_only => Ok(Vec::new()),
            Some(mount) => Err(self.taken(mount)),
            None => {
                let mut steps = vec![
                    Step::Directory(self.target.clone()),
                    Step::Bind {
                        from: self.staging.clone(),
                        to: self.target.clone(),
                    },
                ];
                steps.extend(read_only);
                Ok(steps)
            }
        }
    }

    fn unstaged(&self) -> Status {
        Status::new(
            Code::FailedPrecondition,
            format!(
                "the volume {} is not staged at {}",
                self.id,
                self.staging.display()
            ),
        )
    }

    fn taken(&self, mount: &Mount) -> Status {
        let how = if mount.is_read_only() { ", read-only" } else { "" };
        Status::new(
            Code::AlreadyExists,
            format!(
                "something else is mounted at {}: device {}{how}",
                self.target.display(),
                mount.device
            ),
        )
    }
}

impl Unpublish {
    pub(crate) fn read(request: &UnpublishRequest) -> Result<Self, Status> {
        Ok(Self {
            handle: handle(&request.volume_id)?,
            target: path("target_path", &request.target_path)?,
        })
    }

    pub(crate) fn steps(&self, mounts: &[Mount]) -> Vec<Step> {
        let mut steps = unmounted(&self.target, mounts);
        steps.push(Step::Remove(self.target.clone()));
        steps
    }
}

impl Expand {
    pub(crate) fn read(request: &ExpandRequest) -> Result<Self, Status> {
        path("volume_path", &request.volume_path)?;
        let range = request.capacity_range.clone().unwrap_or_default();
        let bytes = |field: &str, bytes: i64| {
            u64::try_from(bytes).map_err(|_negative| {
                invalid(format!("capacity_range.{field} is {bytes}: it cannot be below 0"))
            })
        };
        Ok(Self {
            handle: handle(&request.volume_id)?,
            least: bytes("required_bytes", range.required_bytes)?,
            most: Some(bytes("limit_bytes", range.limit_bytes)?).filter(|most| *most > 0),
        })
    }

    /// The steps for a volume whose device has this number of bytes. `mounted`: the content of the device,
    /// where its filesystem is mounted. `online`: whether a filesystem can grow while it is mounted.
    pub(crate) fn steps(
        &self,
        node: &Path,
        bytes: u64,
        mounted: Option<Content>,
        online: bool,
    ) -> Result<Vec<Step>, Status> {
        if bytes < self.least {
            return Err(Status::new(
                // The kubelet retries: the device grows first, and this call is early.
                Code::Unavailable,
                format!(
                    "the volume's device has {bytes} bytes, but {} are requested: it has not grown yet",
                    self.least
                ),
            ));
        }
        if let Some(most) = self.most.filter(|most| *most < bytes) {
            return Err(Status::new(
                Code::OutOfRange,
                format!("the volume's device has {bytes} bytes, and capacity_range.limit_bytes is {most}"),
            ));
        }
        match mounted {
            Some(content) if is_small(content, bytes) && online => Ok(vec![Step::Grow(node.to_owned())]),
            Some(content) if is_small(content, bytes) => Err(Status::new(
                // kubelets read this code as: not while the volume is in use.
                Code::FailedPrecondition,
                "the device has grown; its filesystem grows at the next mount: this host does not permit it before \
                 (CAP_SYS_RESOURCE). End the pods that use the volume, and start them again once the volume is detached from the node",
            )),
            _ => Ok(Vec::new()),
        }
    }
}

/// The path in a `NodeGetVolumeStats` request.
pub(crate) fn asked(request: &StatsRequest) -> Result<PathBuf, Status> {
    handle(&request.volume_id)?;
    path("volume_path", &request.volume_path)
}

/// The device of a volume on this node.
pub(crate) fn only(id: &str, found: &[Device]) -> Result<Device, Status> {
    match found {
        [device] => Ok(*device),
        [] => Err(Status::new(
            Code::NotFound,
            format!("the volume {id} is not attached to this node"),
        )),
        // Ambiguous: neither device is written to.
        [..] => Err(Status::new(
            Code::FailedPrecondition,
            format!("{} devices hold the volume {id}: there may be one", found.len()),
        )),
    }
}

/// The name of a volume's node, derived from the handle, which each call has.
pub(crate) fn node_name(handle: &str) -> String {
    hex::encode(&digest(&SHA256, handle.as_bytes()).as_ref()[..8])
}

/// Whether the content is a filesystem that should grow.
fn is_small(content: Content, device: u64) -> bool {
    matches!(content, Content::Filesystem { bytes } if device >= bytes.saturating_add(GROWTH))
}

fn unmounted(path: &Path, mounts: &[Mount]) -> Vec<Step> {
    let there = mounts.iter().filter(|mount| mount.at == path);
    there.map(|_| Step::Unmount(path.to_owned())).collect()
}

fn invalid(message: impl Into<String>) -> Status {
    Status::new(Code::InvalidArgument, message)
}

fn handle(text: &str) -> Result<String, Status> {
    if text.is_empty() {
        return Err(invalid("volume_id is missing"));
    }
    Ok(text.to_owned())
}

/// The id of a volume. What the attachment says goes first: that is the service's word, and a PersistentVolume may be made by
/// anybody. Shares are not attached.
fn id(attached: &BTreeMap<String, String>, context: &BTreeMap<String, String>) -> Result<String, Status> {
    let id = attached
        .get(VOLUME_ATTRIBUTE)
        .or_else(|| context.get(VOLUME_ATTRIBUTE));
    let id = id.ok_or_else(|| {
        invalid(format!(
            "neither publish_context nor volume_context has '{VOLUME_ATTRIBUTE}': the volume was not attached, and the PersistentVolume \
             lacks this attribute"
        ))
    })?;
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if !(1..=63).contains(&id.len()) || !id.bytes().all(plain) {
        return Err(invalid(format!(
            "'{VOLUME_ATTRIBUTE}' is '{id}': it must be 1 to 63 of a-z, 0-9 and -"
        )));
    }
    Ok(id.clone())
}

fn path(field: &str, text: &str) -> Result<PathBuf, Status> {
    if text.is_empty() {
        return Err(invalid(format!("{field} is missing")));
    }
    let path = Path::new(text);
    let above = path.components().any(|part| part == Component::ParentDir);
    if !path.is_absolute() || above || text.contains('\0') {
        return Err(invalid(format!(
            "{field} is '{}': it must be an absolute path without '..'",
            text.escape_default()
        )));
    }
    // The kernel lists mounts without a trailing slash.
    Ok(path.components().collect())
}

/// The access type of a volume, its mount flags, and whether it is read-only.
fn capability(
    capability: Option<&VolumeCapability>,
    shared: bool,
) -> Result<(Access, Vec<String>, bool), Status> {
    let capability = capability.ok_or_else(|| invalid("volume_capability is missing"))?;
    let mode = capability.access_mode.as_ref().map_or(0, |mode| mode.mode);
    let reads = match mode {
        access::SINGLE_NODE_WRITER | access::SINGLE_NODE_SINGLE_WRITER | access::SINGLE_NODE_MULTI_WRITER => {
            false
        }
        access::MULTI_NODE_SINGLE_WRITER | access::MULTI_NODE_MULTI_WRITER if shared => false,
        access::SINGLE_NODE_READER_ONLY | access::MULTI_NODE_READER_ONLY => true,
        0 => return Err(invalid("volume_capability.access_mode is missing")),
        _ => {
            return Err(invalid(format!(
                "volume_capability.access_mode is {mode}: one node at a time has a volume (ReadWriteOnce, ReadWriteOncePod)"
            )));
        }
    };
    match (&capability.block, &capability.mount) {
        (Some(_), None) if shared => Err(invalid(
            "volume_capability.block: a share is a filesystem; ask for volume_capability.mount",
        )),
        (Some(_), None) => Ok((Access::Block, Vec::new(), reads)),
        (None, Some(mount)) => {
            // Classes of shares have protocols in this field, and a share has its filesystem already.
            if !shared && !["", EXT4].contains(&mount.fs_type.as_str()) {
                return Err(invalid(format!(
                    "volume_capability.mount.fs_type is '{}': it must be {EXT4}",
                    mount.fs_type
                )));
            }
            let odd = |flag: &&String| flag.is_empty() || flag.contains([',', '\0']);
            if let Some(flag) = mount.mount_flags.iter().find(odd) {
                return Err(invalid(format!(
                    "volume_capability.mount.mount_flags has '{}': each must be one option",
                    flag.escape_default()
                )));
            }
            Ok((Access::Mount, mount.mount_flags.clone(), reads))
        }
        _ => Err(invalid("volume_capability has to say one of block and mount")),
    }
}

#[cfg(test)]
#[path = "node_tests.rs"]
mod tests;
