//! What to do next so that a member has a data directory: pure. What was seen in, one step out; then it is looked again.

use agent_protocol::programs::{EtcdConfig, EtcdMember, EtcdRestore};
use serde::{Deserialize, Serialize};

use crate::client::Member;

/// So many quick ends in a row, and it is the data that etcd cannot start with.
pub const QUICK_EXITS: u32 = 3;

/// What is kept beside the data directory, so that it survives it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Marker {
    /// Whether there was data at an earlier start.
    pub had_data: bool,
    /// The restore that the data comes from.
    pub restore: Option<String>,
    /// The membership that was begun to be joined with; its number must not be used again with empty hands.
    pub joined: Option<u64>,
    /// The cluster that was joined, by etcd's number for it; 0: none was.
    pub cluster: u64,
    /// Data was set aside and etcd has not been ready since: then it was not the data.
    pub aside: bool,
}

impl Marker {
    /// A member can join the cluster that a restore made before it is told of that restore. Once it is, its data is known by the
    /// cluster's number. `restored`: the number of the cluster that [`EtcdConfig::restore`] makes. Gives whether that was news.
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

/// What is in the place of the data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// Nothing.
    None,
    /// Something that is no data of etcd, or a part of it only.
    Part,
    /// Log and database.
    Whole,
}

/// What another member says that has a leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Who says it.
    pub by: String,
    /// Whether its cluster is the one of [`EtcdConfig::restore`]; true if there is none.
    pub restored: bool,
    /// etcd's number for its cluster.
    pub cluster: u64,
    /// The members.
    pub members: Vec<Member>,
}

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// On disk.
    pub data: Data,
    /// Beside it.
    pub marker: Marker,
    /// How often etcd ended quickly, one time after the other, without ever being ready.
    pub quick_exits: u32,
    /// Whether the disk has room; without, no etcd starts with any data.
    pub room: bool,
    /// What others say; `None`: not asked yet. One that does not answer or has no leader is not in it.
    pub others: Option<Vec<Known>>,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The others have to be asked.
    Ask,
    /// Become etcd with the data that is there.
    Start,
    /// Become etcd as a founder, together with all members of the configuration.
    Found,
    /// Become etcd as the member that it was added as.
    Join {
        /// Its number.
        member: u64,
        /// etcd's number for the cluster.
        cluster: u64,
        /// All members.
        members: Vec<Member>,
    },
    /// Have this one add it, as a learner.
    Add {
        /// By name.
        via: String,
    },
    /// Have this one remove its own old membership.
    Leave {
        /// By name.
        via: String,
        /// The membership.
        member: u64,
    },
    /// Restore: what is asked for, or (`wished` false) the newest.
    Restore {
        /// Whether [`EtcdConfig::restore`] asks for it.
        wished: bool,
    },
    /// Move what is there aside.
    SetAside,
    /// Throw away what is there: everybody goes back to a restore that another member has done.
    Discard,
    /// Look again later.
    Wait(String),
}

/// Where a member's peers reach it.
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
        // It was done by others, or before everything here was lost. Whoever has data of another history meets none of its own
        // any more, unless it is alone.
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
        // Whoever was to restore and is gone: it is up to whoever is left alone.
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

/// What becomes of data that a restore takes the place of. Nobody wished for the newest state: it is restored because too few had any
/// data left, and what this member has may hold what no backup saw.
fn give_up(restore: &EtcdRestore) -> Step {
    if restore.at.is_none() {
        Step::SetAside
    } else {
        Step::Discard
    }
}

/// The way into a cluster that others know.
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
            // A founder that is late.
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
        // With what it had under this number it has voted and acknowledged: with empty hands it is somebody else.
        Some(member) => Step::Leave {
            via,
            member: member.id,
        },
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
