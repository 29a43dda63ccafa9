//! Messages of CSI (`csi.v1`) and of the kubelet's plugin registration, with only the needed fields: decoders
//! skip all others.
//!
//! Enumerations are numbers here, as on the wire; of the fields of a `oneof` at most one is set.

use std::collections::BTreeMap;

/// A message without needed fields.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Empty {}

/// `GetPluginInfoResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PluginInfo {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) vendor_version: String,
}

/// `GetPluginCapabilitiesResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PluginCapabilities {
    #[prost(message, repeated, tag = "1")]
    pub(crate) capabilities: Vec<PluginCapability>,
}

/// `PluginCapability`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PluginCapability {
    #[prost(message, optional, tag = "2")]
    pub(crate) volume_expansion: Option<Kind>,
}

/// A message that holds nothing but a `type`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Kind {
    #[prost(int32, tag = "1")]
    pub(crate) kind: i32,
}

/// `PluginCapability.VolumeExpansion.Type`: while a volume is used.
pub(crate) const ONLINE: i32 = 1;

/// `ProbeResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Probed {
    #[prost(message, optional, tag = "1")]
    pub(crate) ready: Option<BoolValue>,
}

/// `google.protobuf.BoolValue`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct BoolValue {
    #[prost(bool, tag = "1")]
    pub(crate) value: bool,
}

/// `NodeGetInfoResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct NodeInfo {
    #[prost(string, tag = "1")]
    pub(crate) node_id: String,
    #[prost(int64, tag = "2")]
    pub(crate) max_volumes_per_node: i64,
}

/// `NodeGetCapabilitiesResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct NodeCapabilities {
    #[prost(message, repeated, tag = "1")]
    pub(crate) capabilities: Vec<NodeCapability>,
}

/// `NodeServiceCapability`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct NodeCapability {
    #[prost(message, optional, tag = "1")]
    pub(crate) rpc: Option<Kind>,
}

/// `NodeServiceCapability.RPC.Type`: volumes are staged on a node before pods get them.
pub(crate) const STAGE_UNSTAGE_VOLUME: i32 = 1;
/// Usage of volumes is reported.
pub(crate) const GET_VOLUME_STATS: i32 = 2;
/// The node takes part in volume expansion.
pub(crate) const EXPAND_VOLUME: i32 = 3;
/// `ReadWriteOnce` and `ReadWriteOncePod` are distinguished.
pub(crate) const SINGLE_NODE_MULTI_WRITER: i32 = 5;

/// `VolumeCapability`: one of `block` and `mount` is set.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct VolumeCapability {
    #[prost(message, optional, tag = "1")]
    pub(crate) block: Option<Empty>,
    #[prost(message, optional, tag = "2")]
    pub(crate) mount: Option<MountVolume>,
    #[prost(message, optional, tag = "3")]
    pub(crate) access_mode: Option<AccessMode>,
}

/// `VolumeCapability.MountVolume`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct MountVolume {
    #[prost(string, tag = "1")]
    pub(crate) fs_type: String,
    #[prost(string, repeated, tag = "2")]
    pub(crate) mount_flags: Vec<String>,
}

/// `VolumeCapability.AccessMode`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AccessMode {
    #[prost(int32, tag = "1")]
    pub(crate) mode: i32,
}

/// `VolumeCapability.AccessMode.Mode`.
pub(crate) mod access {
    pub(crate) const SINGLE_NODE_WRITER: i32 = 1;
    pub(crate) const SINGLE_NODE_READER_ONLY: i32 = 2;
    pub(crate) const MULTI_NODE_READER_ONLY: i32 = 3;
    pub(crate) const MULTI_NODE_SINGLE_WRITER: i32 = 4;
    pub(crate) const MULTI_NODE_MULTI_WRITER: i32 = 5;
    pub(crate) const SINGLE_NODE_SINGLE_WRITER: i32 = 6;
    pub(crate) const SINGLE_NODE_MULTI_WRITER: i32 = 7;
}

/// `CapacityRange`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CapacityRange {
    #[prost(int64, tag = "1")]
    pub(crate) required_bytes: i64,
    #[prost(int64, tag = "2")]
    pub(crate) limit_bytes: i64,
}

/// `NodeStageVolumeRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StageRequest {
    #[prost(string, tag = "1")]
    pub(crate) volume_id: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub(crate) publish_context: BTreeMap<String, String>,
    #[prost(string, tag = "3")]
    pub(crate) staging_target_path: String,
    #[prost(message, optional, tag = "4")]
    pub(crate) volume_capability: Option<VolumeCapability>,
    #[prost(btree_map = "string, string", tag = "6")]
    pub(crate) volume_context: BTreeMap<String, String>,
}

/// `NodeUnstageVolumeRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct UnstageRequest {
    #[prost(string, tag = "1")]
    pub(crate) volume_id: String,
    #[prost(string, tag = "2")]
    pub(crate) staging_target_path: String,
}

/// `NodePublishVolumeRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PublishRequest {
    #[prost(string, tag = "1")]
    pub(crate) volume_id: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub(crate) publish_context: BTreeMap<String, String>,
    #[prost(string, tag = "3")]
    pub(crate) staging_target_path: String,
    #[prost(string, tag = "4")]
    pub(crate) target_path: String,
    #[prost(message, optional, tag = "5")]
    pub(crate) volume_capability: Option<VolumeCapability>,
    #[prost(bool, tag = "6")]
    pub(crate) readonly: bool,
    #[prost(btree_map = "string, string", tag = "8")]
    pub(crate) volume_context: BTreeMap<String, String>,
}

/// `NodeUnpublishVolumeRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct UnpublishRequest {
    #[prost(string, tag = "1")]
    pub(crate) volume_id: String,
    #[prost(string, tag = "2")]
    pub(crate) target_path: String,
}

/// `NodeExpandVolumeRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ExpandRequest {
    #[prost(string, tag = "1")]
    pub(crate) volume_id: String,
    #[prost(string, tag = "2")]
    pub(crate) volume_path: String,
    #[prost(message, optional, tag = "3")]
    pub(crate) capacity_range: Option<CapacityRange>,
}

/// `NodeExpandVolumeResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Expanded {
    #[prost(int64, tag = "1")]
    pub(crate) capacity_bytes: i64,
}

/// `NodeGetVolumeStatsRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StatsRequest {
    #[prost(string, tag = "1")]
    pub(crate) volume_id: String,
    #[prost(string, tag = "2")]
    pub(crate) volume_path: String,
}

/// `NodeGetVolumeStatsResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Stats {
    #[prost(message, repeated, tag = "1")]
    pub(crate) usage: Vec<VolumeUsage>,
    #[prost(message, optional, tag = "2")]
    pub(crate) volume_condition: Option<VolumeCondition>,
}

/// `VolumeUsage`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct VolumeUsage {
    #[prost(int64, tag = "1")]
    pub(crate) available: i64,
    #[prost(int64, tag = "2")]
    pub(crate) total: i64,
    #[prost(int64, tag = "3")]
    pub(crate) used: i64,
    #[prost(int32, tag = "4")]
    pub(crate) unit: i32,
}

/// `VolumeUsage.Unit`.
pub(crate) const BYTES: i32 = 1;
/// `VolumeUsage.Unit`: inodes.
pub(crate) const INODES: i32 = 2;

/// `VolumeCondition`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct VolumeCondition {
    #[prost(bool, tag = "1")]
    pub(crate) abnormal: bool,
    #[prost(string, tag = "2")]
    pub(crate) message: String,
}

/// `pluginregistration.PluginInfo`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Registered {
    #[prost(string, tag = "1")]
    pub(crate) kind: String,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    #[prost(string, tag = "3")]
    pub(crate) endpoint: String,
    #[prost(string, repeated, tag = "4")]
    pub(crate) supported_versions: Vec<String>,
}

/// `pluginregistration.RegistrationStatus`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RegistrationStatus {
    #[prost(bool, tag = "1")]
    pub(crate) plugin_registered: bool,
    #[prost(string, tag = "2")]
    pub(crate) error: String,
}
