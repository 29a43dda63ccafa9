//! What the programs beside etcd and beside a kubelet are told: subcommands of the agent's binary, each run as an ordinary process of a
//! control plane machine (`landfall-agent etcd FILE`, `… etcd-keeper FILE`, `… vip FILE`, `… etcd-backup FILE`) or of a node
//! (`… csi-disk FILE`), each reading its own JSON file. Written by `cluster/bootstrap`, read by the programs.

use std::net::Ipv4Addr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Probe;

/// What makes etcd's data be there and then becomes etcd, as a process and as a subcommand.
pub const ETCD: &str = "etcd";
/// What controls etcd's membership, likewise. Its name, and that of its files, is from before it was called so: machines have both.
pub const MEMBERSHIP: &str = "etcd-keeper";
/// What ships etcd's backup, likewise.
pub const BACKUP: &str = "etcd-backup";
/// The node's part of the driver of disks, likewise.
pub const CSI: &str = "csi-disk";

/// A member of an etcd cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EtcdMember {
    /// Its name: the id of its machine, so that a replaced member is another one.
    pub name: String,
    /// Its machine's address in the VNET; peers speak on port 2380, clients on 2379.
    pub address: Ipv4Addr,
}

/// PEM files to speak to etcd with.
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

/// `landfall-agent etcd FILE`: makes the data directory be there, then becomes etcd.
///
/// | data | what happens |
/// |---|---|
/// | there, and restored as `restore` says | etcd starts with it |
/// | none, `formed` false, no member knows a cluster | a new cluster of all `members` |
/// | none, another member knows a cluster | its own old membership is removed, it joins as a learner |
/// | none, `formed`, no other members | the newest backup is restored |
/// | another restore than `restore`, which is not `done` | the `by` member restores; the others wait for it, throw theirs away and join |
/// | another restore than `restore`, which is `done` | what there is goes, and it joins; alone, it keeps it |
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EtcdConfig {
    /// Itself, by name.
    pub member: String,
    /// All members that are to be, itself among them.
    pub members: Vec<EtcdMember>,
    /// Whether the cluster was formed before: then nobody begins an empty one.
    pub formed: bool,
    /// The data directory.
    pub data: String,
    /// Directory of the continuous backup's own copy on this machine, see [`BackupConfig::spool`].
    pub spool: String,
    /// Flags of etcd besides `--name`, `--data-dir`, `--initial-*`.
    pub flags: Vec<String>,
    /// To speak to the members.
    pub identity: EtcdIdentity,
    /// The restore that the data must come from, if any was ever asked for.
    pub restore: Option<EtcdRestore>,
}

impl EtcdConfig {
    /// The member of this name among these and nothing else: no place, no identity, nothing formed or restored. What a machine goes by
    /// that was told nothing, and what tests begin with.
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

    /// Where the program writes its status, [`EtcdStatus`]: beside the data directory.
    pub fn status(&self) -> String {
        format!("{}.status.json", self.data)
    }
}

/// What `landfall-agent etcd` says before it becomes etcd.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EtcdStatus {
    /// How far it is.
    pub phase: EtcdPhase,
    /// What it waits for, or why a restore does not work.
    pub why: Option<String>,
    /// The restore that the data comes from, if any.
    pub restored: Option<String>,
    /// Whether it waits with nothing in its hands, where there was something before.
    #[serde(default)]
    pub empty: bool,
}

/// How far a member is on its way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EtcdPhase {
    /// It has no data and cannot get any now.
    #[default]
    Waiting,
    /// It joins the others.
    Joining,
    /// It restores; with a `why`, the last try failed.
    Restoring,
    /// etcd runs.
    Started,
}

/// A restore that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EtcdRestore {
    /// Its identity; once done it is never done again.
    pub id: String,
    /// The second to go back to: the state after everything that was seen up to its end. `None`: the newest.
    pub at: Option<Timestamp>,
    /// Whose backup: a cluster's uid; another one's when a new cluster is made from it.
    pub source: String,
    /// The member that restores.
    pub by: String,
    /// Whether that was the cluster's own, so that its machines and pods are meant as well.
    #[serde(default)]
    pub own: bool,
    /// Whether the restored state was seen to serve. Whoever has lost its data since then takes what is newest, not this.
    #[serde(default)]
    pub done: bool,
}

/// `landfall-agent etcd-keeper FILE`: keeps the membership as it is to be, by the leader's own machine only: removes members
/// that are not in `members` (never so many that the rest has no majority), promotes learners that have caught up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MembershipConfig {
    /// Itself, by name.
    pub member: String,
    /// All members that are to be.
    pub members: Vec<EtcdMember>,
    /// To speak to the members.
    pub identity: EtcdIdentity,
    /// Where it writes its status, [`MembershipStatus`].
    pub status: String,
}

/// What the membership controller says about etcd. All but the standing is said by the leader's machine only.
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
    /// How its own member stands. `None`: not known; its etcd does not answer, or the membership controller is from before this was told.
    #[serde(default)]
    pub standing: Option<Standing>,
}

/// How a member stands in its etcd, as that etcd itself says when it is asked now: by what it has applied, with nobody else's help.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "as")]
pub enum Standing {
    /// It votes and knows a leader.
    Led,
    /// It votes and knows no leader.
    Leaderless {
        /// Names of all that vote, itself among them.
        voters: Vec<String>,
    },
    /// It has no vote. Neither who votes nor whether there is a leader can be told by it: etcd does not list members to a learner, and a
    /// learner does not notice that a leader is gone.
    Learner,
}

/// `landfall-agent vip FILE`: holds an address on exactly one healthy member, with nobody else's help. The members tell each
/// other several times a second how they are; the healthy one with the lowest address holds it, and a holder that is healthy keeps
/// it. Two at once for a moment is harmless: each of them serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VipConfig {
    /// The address, held as a /32.
    pub address: Ipv4Addr,
    /// The card it is held on, e.g. `eth0`.
    pub interface: String,
    /// An address of this machine where the others reach it.
    pub own: Ipv4Addr,
    /// Where the others are, or may come to be.
    pub peers: Vec<Ipv4Addr>,
    /// Hex, 32 bytes: adverts are authenticated with it (HMAC-SHA-256), since tenants' machines share the stamp's network.
    pub key: String,
    /// Healthy means that this answers.
    pub health: Probe,
    /// Where it writes its status, [`VipStatus`].
    pub status: String,
}

/// What the holder of the VIP says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VipStatus {
    /// Whether this machine holds the address.
    pub holds: bool,
    /// Whether its own API server is healthy.
    pub healthy: bool,
}

/// `landfall-agent etcd-backup FILE`: writes down every change of etcd, at once on the machine's own disk, and ships it to the
/// service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupConfig {
    /// The cluster's uid.
    pub cluster: String,
    /// Itself, by name. The leader's own machine ships; the others stand by.
    pub member: String,
    /// To speak to etcd on loopback.
    pub identity: EtcdIdentity,
    /// Directory of the copy on this machine: the present base and everything since.
    pub spool: String,
    /// A new base at least this often, seconds, 60..=86400.
    pub base_every_seconds: u32,
    /// Where it writes its status, [`BackupStatus`].
    pub status: String,
}

/// What the backup says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupStatus {
    /// Whether this member ships.
    pub ships: bool,
    /// When the present base was made.
    pub base_at: Option<Timestamp>,
    /// The newest revision on this machine's disk.
    pub written: i64,
    /// The newest revision that the service has acknowledged.
    pub acknowledged: i64,
    /// Age of the oldest change that is not acknowledged, milliseconds, to the nearest second when it is above one.
    pub lag_ms: u64,
    /// Why it does not get on, if so.
    pub problem: Option<String>,
    /// How often, since the program started, something could not be shipped and a new base was begun instead: seconds before that
    /// base may not be restorable then.
    #[serde(default)]
    pub given_up: u32,
    /// What that was the last time.
    #[serde(default)]
    pub gave_up: Option<String>,
}

/// `landfall-agent csi-disk FILE`: makes volumes that the machine was given, and shares that all machines have, ready for pods, as its
/// kubelet asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CsiConfig {
    /// The node's name.
    pub node: String,
    /// The first driver.
    #[serde(flatten)]
    pub first: CsiDriver,
    /// Another one, if there are two. Programs of before this was there serve the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second: Option<CsiDriver>,
}

/// A driver that `landfall-agent csi-disk` serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CsiDriver {
    /// Its name.
    pub driver: String,
    /// Whether its volumes are shares: with a filesystem from the beginning, which other machines may have mounted as well.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shares: bool,
    /// How many volumes the node may have; 0: as many as it likes.
    pub most_volumes: u32,
    /// The socket that the kubelet calls at.
    pub socket: String,
    /// The socket by which the kubelet finds the driver. Its name has an `@` in it: a kubelet names the whole path where HTTP has a host, with
    /// percent signs, which may only stand before an `@` there.
    pub registration: String,
}
