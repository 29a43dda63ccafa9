//! Configurations and status files of the programs beside etcd and beside a kubelet: subcommands of the
//! agent's binary, each run as an ordinary process of a control plane machine (`landfall-agent etcd FILE`,
//! `… etcd-keeper FILE`, `… vip FILE`, `… etcd-backup FILE`) or of a node (`… csi-disk FILE`; `… image FILE` as a
//! task), each with its own JSON file. Written by `cluster/bootstrap`, read by the programs.

use std::net::Ipv4Addr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Probe;

/// Provides etcd's data directory and then becomes etcd: name of the process and of the subcommand.
pub const ETCD: &str = "etcd";
/// The membership controller, likewise. The name is older than the term; running machines use it.
pub const MEMBERSHIP: &str = "etcd-keeper";
/// Ships etcd's backup, likewise.
pub const BACKUP: &str = "etcd-backup";
/// The node's part of the disk driver, likewise.
pub const CSI: &str = "csi-disk";

/// Has the image of an add-on in the node's containerd, likewise; a task, not a process.
pub const IMAGE: &str = "image";

/// A member of an etcd cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EtcdMember {
    /// Its name: the id of its machine, so a replaced member has another name.
    pub name: String,
    /// Its machine's address in the VNET; peers speak on port 2380, clients on 2379.
    pub address: Ipv4Addr,
}

/// PEM files of a client of etcd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EtcdIdentity {
    /// The etcd CA.
    pub ca: String,
    /// The client certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

/// `landfall-agent etcd FILE`: provides the data directory, then becomes etcd.
///
/// | data | result |
/// |---|---|
/// | there, and restored as `restore` says | etcd starts with it |
/// | none, `formed` false, no member knows a cluster | a new cluster of all `members` |
/// | none, another member knows a cluster | its own old membership is removed, it joins as a learner |
/// | none, `formed`, no other members | restored from the newest backup |
/// | another restore than `restore`, which is not `done` | the `by` member restores; the others wait for it, delete their data and join |
/// | another restore than `restore`, which is `done` | its data is deleted and it joins; a single member keeps its data |
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EtcdConfig {
    /// The name of the program's own member.
    pub member: String,
    /// All configured members, including the own one.
    pub members: Vec<EtcdMember>,
    /// Whether the cluster was formed before: then no member starts an empty one.
    pub formed: bool,
    /// The data directory.
    pub data: String,
    /// Directory of the continuous backup's own copy on this machine, see [`BackupConfig::spool`].
    pub spool: String,
    /// Flags of etcd besides `--name`, `--data-dir`, `--initial-*`.
    pub flags: Vec<String>,
    /// For connections to the members.
    pub identity: EtcdIdentity,
    /// The restore that the data must come from, if one was ever requested.
    pub restore: Option<EtcdRestore>,
}

impl EtcdConfig {
    /// A configuration with only a name and members: no paths, no identity, not formed, no restore. The
    /// default of a machine without a configuration, and the base of tests.
    pub fn bare(member: &str, members: impl IntoIterator<Item = EtcdMember>) -> Self {
        Self {
            member: member.to_owned(),
            members: members.into_iter().collect(),
            formed: false,
            data: String::new(),
            spool: String::new(),
            flags: Vec::new(),
            identity: EtcdIdentity {
                ca: String::new(),
                certificate: String::new(),
                key: String::new(),
            },
            restore: None,
        }
    }

    /// The path of the program's status, [`EtcdStatus`]: beside the data directory.
    pub fn status(&self) -> String {
        format!("{}.status.json", self.data)
    }
}

/// The status of `landfall-agent etcd` before it becomes etcd.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EtcdStatus {
    /// Its phase.
    pub phase: EtcdPhase,
    /// The reason for waiting, or why a restore fails.
    pub why: Option<String>,
    /// The restore that the data comes from, if any.
    pub restored: Option<String>,
    /// Whether it waits without data after having had some.
    #[serde(default)]
    pub empty: bool,
}

/// The phase of a member's preparation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EtcdPhase {
    /// It has no data and no source of data at the moment.
    #[default]
    Waiting,
    /// It joins the others.
    Joining,
    /// It restores; with a `why`, the last attempt failed.
    Restoring,
    /// etcd runs.
    Started,
}

/// A requested restore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EtcdRestore {
    /// Its identity; a finished restore is never repeated.
    pub id: String,
    /// The second to restore: the state after all changes seen up to its end. `None`: the newest state.
    pub at: Option<Timestamp>,
    /// The uid of the cluster whose backup is used; another cluster's when a new cluster is made from a
    /// backup.
    pub source: String,
    /// The member that restores.
    pub by: String,
    /// Whether the backup is the cluster's own, so that its machines and pods are restored as well.
    #[serde(default)]
    pub own: bool,
    /// Whether the restored state was seen serving. A member that loses its data later restores the newest
    /// state, not this one.
    #[serde(default)]
    pub done: bool,
}

/// `landfall-agent etcd-keeper FILE`: makes the membership match the configuration, on the leader's machine
/// only: removes members that are not in `members` (never so many that the rest has no majority), promotes
/// learners that have caught up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MembershipConfig {
    /// The name of the program's own member.
    pub member: String,
    /// All configured members.
    pub members: Vec<EtcdMember>,
    /// For connections to the members.
    pub identity: EtcdIdentity,
    /// The path of its status, [`MembershipStatus`].
    pub status: String,
}

/// The membership controller's status of etcd. All but the standing is reported by the leader's machine only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MembershipStatus {
    /// Names of the voting members.
    pub voters: Vec<String>,
    /// Names of the learners; a member that has not started yet has its address in place of a name.
    pub learners: Vec<String>,
    /// The leader's name, if there is one.
    pub leader: Option<String>,
    /// Size of the database, MiB.
    pub size_mib: u64,
    /// The standing of its own member. `None`: unknown; etcd does not answer, or the program is older than
    /// this field.
    #[serde(default)]
    pub standing: Option<Standing>,
}

/// The standing of a member in its cluster, as its own etcd reports it: from its applied state, without a
/// request to others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "as")]
pub enum Standing {
    /// A voter with a leader.
    Led,
    /// A voter without a leader.
    Leaderless {
        /// Names of all voters, including itself.
        voters: Vec<String>,
    },
    /// A learner, without a vote. It can report neither the voters nor whether there is a leader: etcd does
    /// not list members to a learner, and a learner does not notice the loss of a leader.
    Learner,
}

/// `landfall-agent vip FILE`: holds an address on exactly one healthy member, without outside help. Members
/// send each other adverts of their health several times a second; the healthy member with the lowest address
/// holds the VIP, and a healthy holder keeps it. Two holders for a moment are harmless: each of them serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VipConfig {
    /// The address, held as a /32.
    pub address: Ipv4Addr,
    /// The interface that holds it, e.g. `eth0`.
    pub interface: String,
    /// This machine's address towards the other members.
    pub own: Ipv4Addr,
    /// Addresses of the other members, existing or not.
    pub peers: Vec<Ipv4Addr>,
    /// Hex, 32 bytes: adverts are authenticated with it (HMAC-SHA-256), since tenants' machines share the stamp's network.
    pub key: String,
    /// The health probe.
    pub health: Probe,
    /// The path of its status, [`VipStatus`].
    pub status: String,
}

/// The status of the VIP program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VipStatus {
    /// Whether this machine holds the address.
    pub holds: bool,
    /// Whether its own API server is healthy.
    pub healthy: bool,
}

/// `landfall-agent etcd-backup FILE`: records every change of etcd, at once on the machine's own disk, and
/// ships it to the service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupConfig {
    /// The cluster's uid.
    pub cluster: String,
    /// The name of the own member. The leader's machine ships; the others stand by.
    pub member: String,
    /// For connections to etcd on loopback.
    pub identity: EtcdIdentity,
    /// Directory of the recording on this machine: the current base and all later changes.
    pub spool: String,
    /// The longest time between two bases, seconds, 60..=86400.
    pub base_every_seconds: u32,
    /// The path of its status, [`BackupStatus`].
    pub status: String,
}

/// The status of the backup program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupStatus {
    /// Whether this member ships.
    pub ships: bool,
    /// The time of the current base.
    pub base_at: Option<Timestamp>,
    /// The newest revision on this machine's disk.
    pub written: i64,
    /// The newest revision that the service has acknowledged.
    pub acknowledged: i64,
    /// Age of the oldest change that is not acknowledged, milliseconds, to the nearest second when it is above one.
    pub lag_ms: u64,
    /// The reason for a lack of progress, if any.
    pub problem: Option<String>,
    /// The number of times since the program's start that data could not be shipped and a new base was
    /// started instead: seconds before that base may not be restorable.
    #[serde(default)]
    pub given_up: u32,
    /// The reason for the last one.
    #[serde(default)]
    pub gave_up: Option<String>,
}

/// `landfall-agent csi-disk FILE`: stages and publishes attached volumes and shares for pods, at its kubelet's
/// request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CsiConfig {
    /// The node's name.
    pub node: String,
    /// The first driver.
    #[serde(flatten)]
    pub first: CsiDriver,
    /// The second driver, if any. Programs of releases without this field serve the first one only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second: Option<CsiDriver>,
}

/// A driver served by `landfall-agent csi-disk`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CsiDriver {
    /// Its name.
    pub driver: String,
    /// Whether its volumes are shares: they are created with a filesystem, which other machines may have
    /// mounted at the same time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shares: bool,
    /// The largest number of volumes on the node; 0: no limit.
    pub most_volumes: u32,
    /// The socket of CSI calls.
    pub socket: String,
    /// The socket by which the kubelet finds the driver. Its name has an `@` in it: a kubelet sends the whole
    /// path, percent-encoded, as the HTTP host, where percent signs may only stand before an `@`.
    pub registration: String,
}

/// `landfall-agent image FILE`: has the image of an add-on in the node's containerd, from the service where it is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageConfig {
    /// Its name.
    pub name: String,
    /// Its version.
    pub tag: String,
    /// Its reference in pods.
    pub reference: String,
}
