//! The clusters' etcd: which control plane machines belong to it, and whether they are enough.
//!
//! A machine joins when its processes have started, if there is a majority to let it in; without one, those who were told that
//! there is no etcd yet found one, as `machine/etcd` does. A keeper removes whoever is not in its list. When the data of an only
//! member is gone, it restores the backup where there is one; several wait until one of them is told to.

use std::{collections::BTreeSet, sync::Arc};

use agent_protocol::{
    MachineConfig,
    programs::{EtcdConfig, EtcdPhase, EtcdStatus, KeeperStatus},
};
use serde_json::Value;

use crate::{Inner, state::State};

/// Who belongs to a cluster's etcd.
#[derive(Debug, Default)]
pub(crate) struct Etcd {
    /// Whether there ever was data.
    pub(crate) formed: bool,
    voters: BTreeSet<String>,
    /// The restore that its data comes from.
    restored: Option<String>,
    /// Whether there was a majority when last looked.
    quorum: bool,
}

impl State {
    /// Whether a member has its data and works.
    fn serves_etcd(&self, id: &str) -> bool {
        self.machines.get(id).is_some_and(|machine| {
            machine.serves_as("control-plane") && machine.formed && machine.ready && self.works(id)
        })
    }

    /// Whether a majority of the members works.
    pub(crate) fn quorum(&self, uid: &str) -> bool {
        let Some(cluster) = self.clusters.get(uid) else {
            return false;
        };
        let voters = &cluster.etcd.voters;
        let serving = voters.iter().filter(|id| self.serves_etcd(id)).count();
        serving > voters.len() / 2
    }

    /// A machine's etcd begins or comes back, and says how far it is. `false`: it cannot yet.
    pub(crate) fn join_etcd(&mut self, uid: &str, id: &str, backup: bool) -> bool {
        let joined = self.enter_etcd(uid, id, backup);
        let restored = self
            .clusters
            .get(uid)
            .and_then(|cluster| cluster.etcd.restored.clone());
        let Some(machine) = self.machines.get_mut(id) else {
            return false;
        };
        let (phase, why, empty) = match joined {
            Ok(()) => {
                machine.formed = true;
                machine.restored = restored;
                (EtcdPhase::Started, None, false)
            }
            Err(Waits { why, empty }) => (EtcdPhase::Waiting, Some(why), empty),
        };
        machine.etcd = Some(EtcdStatus {
            phase,
            why,
            restored: machine.restored.clone(),
            empty,
        });
        phase == EtcdPhase::Started
    }

    fn enter_etcd(&mut self, uid: &str, id: &str, backup: bool) -> Result<(), Waits> {
        let Some(machine) = self.machines.get(id) else {
            return Err(Waits::full("its machine"));
        };
        let config = etcd_config(machine.in_force.as_deref());
        let listed = config.as_ref().map(members).unwrap_or_default();
        let alone = listed.iter().all(|member| member == id);
        let wished = config
            .as_ref()
            .and_then(|config| config.restore.clone())
            .filter(|restore| machine.restored.as_ref() != Some(&restore.id));
        if let Some(restore) = wished {
            let there = listed.contains(&restore.by);
            let done = self
                .clusters
                .get(uid)
                .and_then(|cluster| cluster.etcd.restored.as_ref());
            if !restore.done && (restore.by == id || (alone && !there)) {
                self.go_back(uid, &restore);
                self.cluster(uid).etcd = Etcd {
                    formed: true,
                    voters: [id.to_owned()].into(),
                    restored: Some(restore.id),
                    quorum: false,
                };
                return Ok(());
            }
            if !restore.done && done != Some(&restore.id) {
                return Err(Waits::full(&format!("member {} to restore", restore.by)));
            }
            if machine.formed && !alone || !restore.done {
                if !self.quorum(uid) {
                    return Err(Waits::full("another member that has a leader"));
                }
                // What it has is of another history.
                self.cluster(uid).etcd.voters.remove(id);
                if let Some(machine) = self.machines.get_mut(id) {
                    machine.formed = false;
                }
            }
        }
        let keeps_data = self.has_data(id);
        let founds = config.as_ref().is_some_and(|config| !config.formed);
        let none_has_data = !listed.iter().any(|member| self.has_data(member));
        let quorum = self.quorum(uid);
        let lost = self
            .clusters
            .get(uid)
            .is_none_or(|cluster| !cluster.etcd.voters.iter().any(|voter| self.has_data(voter)));
        let cluster = self.cluster(uid);
        let etcd = &mut cluster.etcd;
        if keeps_data && etcd.voters.contains(id) {
            return Ok(());
        }
        if etcd.formed && lost && backup && !alone && !founds {
            return Err(Waits {
                why: "another member that has a leader".to_owned(),
                empty: true,
            });
        }
        if !etcd.formed || lost {
            if etcd.formed && !backup {
                cluster.nodes.clear();
                cluster.objects.clear();
            }
            cluster.etcd.formed = true;
            cluster.etcd.voters = listed.into_iter().chain([id.to_owned()]).collect();
        } else if etcd.voters.len() == 1 && etcd.voters.contains(id) {
            // Its own and only data is gone: restored.
        } else if quorum {
            etcd.voters.insert(id.to_owned());
        } else if founds {
            // Those of before have no leader, and nobody has seen them serve.
            etcd.voters = listed.into_iter().chain([id.to_owned()]).collect();
            if none_has_data {
                cluster.nodes.clear();
                cluster.objects.clear();
            }
        } else if !etcd.voters.contains(id) || etcd.quorum {
            return Err(Waits {
                why: "another member that has a leader".to_owned(),
                empty: !keeps_data,
            });
        }
        Ok(())
    }

    fn has_data(&self, id: &str) -> bool {
        self.machines.get(id).is_some_and(|machine| machine.formed)
    }

    /// What a member's keeper says.
    pub(crate) fn keeper_status(&self, uid: &str) -> Option<Value> {
        let etcd = &self.clusters.get(uid)?.etcd;
        if !self.quorum(uid) {
            return None;
        }
        let status = KeeperStatus {
            voters: etcd.voters.iter().cloned().collect(),
            leader: etcd.voters.iter().find(|id| self.serves_etcd(id)).cloned(),
            ..KeeperStatus::default()
        };
        serde_json::to_value(status).ok()
    }
}

impl Inner {
    /// Something happened to a control plane machine: who does not belong is removed, and all tell what changed.
    pub(crate) fn etcd_changed(self: &Arc<Self>, state: &mut State, uid: &str) {
        let quorum = state.quorum(uid);
        // Any member's keeper may ask for a removal, and those with an old list know of nobody too many.
        let lists: Vec<BTreeSet<String>> = match state.clusters.get(uid) {
            Some(cluster) if quorum => cluster
                .etcd
                .voters
                .iter()
                .filter(|id| state.serves_etcd(id))
                .filter_map(|id| etcd_config(state.machines.get(id)?.in_force.as_deref()))
                .map(|config| members(&config))
                .filter(|listed| !listed.is_empty())
                .collect(),
            _ => Vec::new(),
        };
        let Some(cluster) = state.clusters.get_mut(uid) else {
            return;
        };
        let before = cluster.etcd.voters.len();
        cluster
            .etcd
            .voters
            .retain(|voter| lists.iter().all(|listed| listed.contains(voter)));
        let changed = cluster.etcd.voters.len() != before || cluster.etcd.quorum != quorum;
        cluster.etcd.quorum = quorum;
        if changed {
            cluster.changed();
            self.members_report(state, uid);
            self.join_nodes(state, uid);
        }
    }

    /// All control plane machines of a cluster tell how they are.
    pub(crate) fn members_report(&self, state: &mut State, uid: &str) {
        let members = state.members.get(uid).cloned().unwrap_or_default();
        for id in members {
            if state
                .machines
                .get(&id)
                .is_some_and(|machine| machine.is_control_plane_of(uid))
            {
                self.report(state, &id);
            }
        }
    }
}

/// Why a member cannot go on.
struct Waits {
    why: String,
    /// Nothing is in its hands.
    empty: bool,
}

impl Waits {
    fn full(why: &str) -> Self {
        Self {
            why: why.to_owned(),
            empty: false,
        }
    }
}

/// What a machine's etcd was told.
fn etcd_config(config: Option<&MachineConfig>) -> Option<EtcdConfig> {
    let file = config?
        .files
        .iter()
        .find(|file| file.path.ends_with("/etcd.json"))?;
    serde_json::from_str(&file.content).ok()
}

/// The members that it was told of.
fn members(config: &EtcdConfig) -> BTreeSet<String> {
    config.members.iter().map(|member| member.name.clone()).collect()
}
