//! The next step on the way to a data directory: pure. The state seen goes in, one step comes out; afterwards the state is read again.

use agent_protocol::programs::{EtcdConfig, EtcdMember, EtcdRestore};
use serde::{Deserialize, Serialize};

use crate::client::Member;

/// After this number of quick exits in a row the data counts as the cause.
pub const QUICK_EXITS: u32 = 3;

/// The record beside the data directory; it survives the loss of that directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Marker {
    /// Whether there was data at an earlier start.
    pub had_data: bool,
    /// The restore that the data comes from.
    pub restore: Option<String>,
    /// The membership that a join was begun with; without data its number must not be used again.
    pub joined: Option<u64>,
    /// etcd's id of the cluster that was joined; 0: none.
    pub cluster: u64,
    /// Data was set aside and etcd has not been ready since: the data was not the cause.
    pub aside: bool,
}

impl Marker {
    /// Notes the restore of a cluster that was joined before the restore was configured here. The data is recognised by the
    /// cluster's id. `restored`: the id of the cluster that [`EtcdConfig::restore`] makes. Returns whether the marker changed.
    pub fn recognise(&mut self, config: &EtcdConfig, data: Data, restored: Option<u64>) -> bool {
        let Some(restore) = &config.restore else {
            return false;
        };
        let news = data == Data::Whole
            && self.cluster != 0
            && restored == Some(self.cluster)
            && self.restore.as_ref() != Some(&restore.id);
        if news {
            self.restore = Some(restore.id.clone());
        }
        news
    }
}

/// The content of the data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// Nothing.
    None,
    /// Something other than etcd data, or only a part of it.
    Part,
    /// Log and database.
    Whole,
}

/// The answer of another member that has a leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Name of the member.
    pub by: String,
    /// Whether its cluster is the one of [`EtcdConfig::restore`]; true if there is none.
    pub restored: bool,
    /// etcd's id of its cluster.
    pub cluster: u64,
    /// The members of that cluster.
    pub members: Vec<Member>,
}

/// The state seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The data directory.
    pub data: Data,
    /// The record beside it.
    pub marker: Marker,
    /// Number of quick exits of etcd in a row, without readiness in between.
    pub quick_exits: u32,
    /// Whether the disk has free space; without it etcd cannot start with any data.
    pub room: bool,
    /// Answers of the other members; `None`: not requested yet. A member without an answer or a leader is not listed.
    pub others: Option<Vec<Known>>,
}

/// The next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Request the state of the other members.
    Ask,
    /// Start etcd with the data on disk.
    Start,
    /// Start etcd as a founder, together with all members of the configuration.
    Found,
    /// Start etcd as the member that was added for it.
    Join {
        /// Id of the member.
        member: u64,
        /// etcd's id of the cluster.
        cluster: u64,
        /// All members.
        members: Vec<Member>,
    },
    /// Request to be added as a learner.
    Add {
        /// Name of the member that receives the request.
        via: String,
    },
    /// Request the removal of its own old membership.
    Leave {
        /// Name of the member that receives the request.
        via: String,
        /// Id of the membership.
        member: u64,
    },
    /// Restore from a backup: the configured state, or (`wished` false) the newest.
    Restore {
        /// Whether [`EtcdConfig::restore`] is the reason.
        wished: bool,
    },
    /// Move the data directory aside.
    SetAside,
    /// Delete the data directory: all members return to a restore that another member has done.
    Discard,
    /// Read the state again later.
    Wait(String),
}

/// The URL for a member's peers.
pub fn peer_url(member: &EtcdMember) -> String {
    format!("https://{}:2380", member.address)
}

/// The next step.
pub fn decide(config: &EtcdConfig, seen: &Seen) -> Step {
    let alone = config.members.iter().all(|member| member.name == config.member);
    if let Some(restore) = &config.restore
        && seen.marker.restore.as_ref() != Some(&restore.id)
        && restore.done
    {
        // The restore was done by another member, or before all data here was lost. Data of the earlier history has no peers any more,
        // unless the member is the only one.
        if seen.data != Data::None && !alone {
            return match &seen.others {
                None => Step::Ask,
                Some(others) if others.is_empty() => {
                    Step::Wait("another member that has a leader".to_owned())
                }
                Some(_) => give_up(restore),
            };
        }
    } else if let Some(restore) = &config.restore
        && seen.marker.restore.as_ref() != Some(&restore.id)
    {
        let there = |name: &String| config.members.iter().any(|member| member.name == *name);
        // The member chosen for the restore is gone and this one is the only member left: it restores.
        if restore.by == config.member || (alone && !there(&restore.by)) {
            return Step::Restore { wished: true };
        }
        let Some(others) = &seen.others else {
            return Step::Ask;
        };
        let Some(known) = others.iter().find(|known| known.restored) else {
            return Step::Wait(format!("member {} to restore", restore.by));
        };
        return match seen.data {
            Data::None => enter(config, seen, known),
            Data::Part | Data::Whole => give_up(restore),
        };
    }
    match seen.data {
        Data::Whole if seen.quick_exits >= QUICK_EXITS && seen.room && !seen.marker.aside => Step::SetAside,
        Data::Whole => Step::Start,
        Data::Part => Step::SetAside,
        Data::None => {
            let formed = config.formed || seen.marker.had_data;
            match &seen.others {
                _ if alone && formed => Step::Restore { wished: false },
                _ if alone => Step::Found,
                None => Step::Ask,
                Some(others) => match others.iter().find(|known| known.restored) {
                    Some(known) => enter(config, seen, known),
                    None if formed => Step::Wait("another member that has a leader".to_owned()),
                    None => Step::Found,
                },
            }
        }
    }
}

/// The fate of data that a restore replaces. A restore of the newest state was not requested: it happens because too few members had
/// data left, and the data of this member may hold changes that no backup has.
fn give_up(restore: &EtcdRestore) -> Step {
    if restore.at.is_none() {
        Step::SetAside
    } else {
        Step::Discard
    }
}

/// The way into a cluster that other members know.
fn enter(config: &EtcdConfig, seen: &Seen, known: &Known) -> Step {
    let own = config
        .members
        .iter()
        .find(|member| member.name == config.member)
        .map(peer_url);
    let found = known.members.iter().find(|member| {
        member.name == config.member || own.as_ref().is_some_and(|own| member.peer_urls.contains(own))
    });
    let via = known.by.clone();
    match found {
        None => Step::Add { via },
        Some(member)
            if !member.is_learner
                && member.client_urls.is_empty()
                && seen.marker == Marker::default()
                && !config.formed =>
        {
            // A founder that starts late.
            Step::Found
        }
        Some(member)
            if member.is_learner && member.name.is_empty() && seen.marker.joined != Some(member.id) =>
        {
            Step::Join {
                member: member.id,
                cluster: known.cluster,
                members: known.members.clone(),
            }
        }
        // The member with this id has voted and acknowledged; without its data, this process must not act under that id.
        Some(member) => Step::Leave {
            via,
            member: member.id,
        },
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
