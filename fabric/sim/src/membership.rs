//! The clusters' etcd, without its decisions: members, their data, and whether a majority works.
//!
//! A member's steps to its data, and the changes of the membership by the leader's machine, are decided by
//! the code of real machines (`machine_etcd::decide`, `machine_etcd::membership`). Here is only the behaviour
//! of etcd itself. Steps take no time, and a member that does not answer counts as lost at once.

use std::sync::Arc;

use agent_protocol::{
    MachineConfig,
    programs::{EtcdConfig, EtcdMember, EtcdPhase, EtcdRestore, EtcdStatus, MembershipStatus, Standing},
};
use machine_etcd::{
    client::Member,
    decide::{Data, Known, Seen, Step, decide, peer_url},
    membership::{self, Act},
};
use serde_json::Value;

use crate::{Inner, etcd::Etcd, state::State, volumes};

/// More steps than any way to a data directory takes without waiting.
const STEPS: usize = 16;

/// The result of a step.
enum Way {
    /// Another step follows.
    On,
    /// etcd runs.
    Started,
    /// It waits for this.
    Waits(String),
}

impl State {
    fn etcd(&self, uid: &str) -> Option<&Etcd> {
        self.clusters.get(uid).map(|cluster| &cluster.etcd)
    }

    /// Whether a member works and has the data of the current cluster.
    fn serves_etcd(&self, etcd: &Etcd, id: &str) -> bool {
        self.machines.get(id).is_some_and(|machine| {
            machine.serves_as("control-plane")
                && machine.data == Some(etcd.history)
                && machine.etcd_runs
                && self.works(id)
        })
    }

    /// Whether a machine's API server answers.
    pub(crate) fn serves_api(&self, uid: &str, id: &str) -> bool {
        let ready = self.machines.get(id).is_some_and(|machine| machine.ready);
        ready && self.quorum(uid) && self.etcd(uid).is_some_and(|etcd| self.serves_etcd(etcd, id))
    }

    /// Whether a majority of the members works.
    pub(crate) fn quorum(&self, uid: &str) -> bool {
        let Some(etcd) = self.etcd(uid) else {
            return false;
        };
        let serving = etcd
            .voters()
            .filter(|member| self.serves_etcd(etcd, &member.name))
            .count();
        serving > etcd.voters().count() / 2
    }

    /// Starts a machine's etcd and notes its status. Returns `false` if it must wait.
    pub(crate) fn join_etcd(&mut self, uid: &str, id: &str, backup: bool) -> bool {
        let config = self.told(id);
        let mut way = Way::On;
        for _ in 0..STEPS {
            way = self.etcd_step(uid, id, &config, backup);
            if !matches!(way, Way::On) {
                break;
            }
        }
        let Some(machine) = self.machines.get_mut(id) else {
            return false;
        };
        let (phase, why) = match way {
            Way::Started => (EtcdPhase::Started, None),
            Way::Waits(why) => (EtcdPhase::Waiting, Some(why)),
            Way::On => (EtcdPhase::Waiting, Some("an end to its steps".to_owned())),
        };
        machine.etcd = Some(EtcdStatus {
            phase,
            why,
            restored: machine.marker.restore.clone(),
            empty: phase == EtcdPhase::Waiting
                && machine.data.is_none()
                && (config.formed || machine.marker.had_data),
        });
        phase == EtcdPhase::Started
    }

    /// One step of `landfall-agent etcd`.
    fn etcd_step(&mut self, uid: &str, id: &str, config: &EtcdConfig, backup: bool) -> Way {
        let others = self.others(uid, config);
        let etcd = self.etcd(uid).filter(|etcd| {
            let restore = config.restore.as_ref();
            restore.is_some_and(|restore| etcd.restored.as_ref() == Some(&restore.id))
        });
        let restored_cluster = etcd.map(|etcd| etcd.history);
        let Some(machine) = self.machines.get_mut(id) else {
            return Way::Waits("its machine".to_owned());
        };
        machine.marker.had_data |= machine.data.is_some();
        let data = if machine.data.is_some() {
            Data::Whole
        } else {
            Data::None
        };
        machine.marker.recognise(config, data, restored_cluster);
        let seen = Seen {
            data,
            marker: machine.marker.clone(),
            quick_exits: 0,
            room: true,
            others: Some(others),
        };
        let restore = config.restore.as_ref().map(|restore| restore.id.clone());
        match decide(config, &seen) {
            Step::Start => {
                let history = machine.data;
                let etcd = &mut self.cluster(uid).etcd;
                if history == Some(etcd.history)
                    && let Some(number) = etcd.named(id).map(|member| member.id)
                {
                    etcd.started(number, id);
                }
                Way::Started
            }
            Step::Found => {
                let cluster = self.cluster(uid);
                let same = |etcd: &Etcd| {
                    etcd.members.len() == config.members.len()
                        && config
                            .members
                            .iter()
                            .all(|founder| etcd.named(&founder.name).is_some())
                };
                let late = cluster
                    .etcd
                    .named(id)
                    .is_some_and(|member| member.client_urls.is_empty());
                if !late || !same(&cluster.etcd) {
                    // Earlier data is of another cluster.
                    cluster.etcd.begin(&config.members, restore.clone());
                    cluster.nodes.clear();
                    cluster.objects.clear();
                }
                let number = cluster.etcd.named(id).map(|member| member.id);
                self.begins(uid, id, number, restore);
                Way::Started
            }
            Step::Join { member, cluster, .. } => {
                machine.marker.joined = Some(member);
                machine.marker.cluster = cluster;
                self.begins(uid, id, Some(member), restore);
                Way::Started
            }
            Step::Add { .. } => {
                let url = own(config).map(peer_url).unwrap_or_default();
                let etcd = &mut self.cluster(uid).etcd;
                if etcd.members.iter().any(|member| member.is_learner) {
                    return Way::Waits("a learner to become a voter".to_owned());
                }
                let member = etcd.member("", url, true);
                etcd.members.push(member);
                Way::On
            }
            Step::Leave { member, .. } => self.remove_member(uid, member),
            Step::Restore { wished } => {
                match config.restore.as_ref().filter(|_| wished) {
                    Some(restore) => self.go_back(uid, restore),
                    None if backup => {}
                    None => {
                        let cluster = self.cluster(uid);
                        cluster.nodes.clear();
                        cluster.objects.clear();
                    }
                }
                let etcd = &mut self.cluster(uid).etcd;
                etcd.begin(own(config).map_or(&[], std::slice::from_ref), restore.clone());
                let number = etcd.named(id).map(|member| member.id);
                self.begins(uid, id, number, restore);
                Way::On
            }
            Step::SetAside | Step::Discard => {
                machine.data = None;
                Way::On
            }
            Step::Wait(why) => Way::Waits(why),
            // The others were already asked.
            Step::Ask => Way::Waits("the others' answer".to_owned()),
        }
    }

    /// Gives a cluster its own earlier content, or that of the source of a restore.
    fn go_back(&mut self, uid: &str, restore: &EtcdRestore) {
        let source = if restore.source.is_empty() {
            uid
        } else {
            restore.source.as_str()
        };
        let at = restore.at.map(|at| at.as_millisecond());
        let past = self
            .clusters
            .get(source)
            .and_then(|cluster| cluster.past.as_ref());
        let mut kept = past.and_then(|past| past.at(at)).cloned().unwrap_or_default();
        if !restore.own {
            // Machines of another cluster have no meaning here.
            kept.nodes.clear();
        }
        let cluster = self.cluster(uid);
        cluster.nodes = kept.nodes;
        cluster.objects = kept.objects;
        volumes::begin_again(cluster);
        cluster.changed();
    }

    /// Gives a machine the data of the current cluster, as this member.
    fn begins(&mut self, uid: &str, id: &str, number: Option<u64>, restore: Option<String>) {
        let etcd = &mut self.cluster(uid).etcd;
        if let Some(number) = number {
            etcd.started(number, id);
        }
        let history = etcd.history;
        if let Some(machine) = self.machines.get_mut(id) {
            machine.data = Some(history);
            machine.marker.restore = restore;
        }
    }

    /// Removes a member; etcd refuses if it is needed.
    fn remove_member(&mut self, uid: &str, id: u64) -> Way {
        let stays = self.etcd(uid).is_some_and(|etcd| {
            let left = || etcd.voters().filter(|member| member.id != id);
            let serving = left()
                .filter(|member| self.serves_etcd(etcd, &member.name))
                .count();
            serving > left().count() / 2
        });
        if !stays {
            return Way::Waits("a majority without its old membership".to_owned());
        }
        self.cluster(uid).etcd.members.retain(|member| member.id != id);
        Way::On
    }

    /// The answers of the configured members that have a leader.
    fn others(&self, uid: &str, config: &EtcdConfig) -> Vec<Known> {
        let Some(etcd) = self.etcd(uid).filter(|_| self.quorum(uid)) else {
            return Vec::new();
        };
        let undone = config.restore.as_ref().filter(|restore| !restore.done);
        let restored = undone.is_none_or(|restore| etcd.restored.as_ref() == Some(&restore.id));
        config
            .members
            .iter()
            .filter(|other| other.name != config.member)
            .filter(|other| {
                etcd.voters().any(|voter| voter.name == other.name) && self.serves_etcd(etcd, &other.name)
            })
            .map(|other| Known {
                by: other.name.clone(),
                restored,
                cluster: etcd.history,
                members: etcd.members.clone(),
            })
            .collect()
    }

    /// The machine whose member leads, if there is a majority.
    fn leader(&self, uid: &str) -> Option<String> {
        let etcd = self.etcd(uid).filter(|_| self.quorum(uid))?;
        let serving = || {
            etcd.voters()
                .filter(|member| self.serves_etcd(etcd, &member.name))
        };
        let stays = serving().find(|member| Some(&member.name) == etcd.leader.as_ref());
        stays
            .or_else(|| serving().min_by_key(|member| &member.name))
            .map(|member| member.name.clone())
    }

    /// The next act of the membership controller on the leader's machine.
    fn next_act(&self, uid: &str) -> Option<Act> {
        let etcd = self.etcd(uid)?;
        let leader = self.leader(uid)?;
        let wanted = etcd_config(self.machines.get(&leader)?.in_force.as_deref())?.members;
        let (well, lost): (Vec<&Member>, Vec<&Member>) = etcd
            .members
            .iter()
            .partition(|member| self.serves_etcd(etcd, &member.name));
        let numbers = |members: Vec<&Member>| members.into_iter().map(|member| member.id).collect();
        let seen = membership::Seen {
            own: etcd.named(&leader)?.id,
            members: etcd.members.clone(),
            well: numbers(well),
            lost: numbers(lost),
        };
        membership::decide(&wanted, &seen)
    }

    /// The next act of the membership controller on another machine.
    fn claimed(&self, uid: &str) -> Option<Act> {
        let etcd = self.etcd(uid)?;
        let leader = etcd.named(&self.leader(uid)?)?.id;
        let serving = etcd
            .voters()
            .filter(|member| self.serves_etcd(etcd, &member.name));
        let mut claims = serving.filter(|member| {
            let wanted = self.told(&member.name).members;
            membership::claims(&wanted, &etcd.members, member.id, leader)
        });
        claims.next().map(|member| Act::GiveLeadership(member.id))
    }

    fn carry_out(&mut self, uid: &str, act: Act) {
        let leader = self.leader(uid);
        let wanted = leader
            .map(|leader| self.told(&leader))
            .unwrap_or_else(|| told_nothing(""));
        let etcd = &mut self.cluster(uid).etcd;
        match act {
            Act::Move(id) => {
                if let Some(member) = etcd.find(id)
                    && let Some(to) = wanted.members.iter().find(|wanted| wanted.name == member.name)
                {
                    member.peer_urls = vec![peer_url(to)];
                }
            }
            Act::Promote(id) => {
                if let Some(member) = etcd.find(id) {
                    member.is_learner = false;
                }
            }
            Act::Remove(id) => etcd.members.retain(|member| member.id != id),
            Act::GiveLeadership(id) => {
                etcd.leader = etcd.find(id).map(|member| member.name.clone());
            }
        }
    }

    /// The status of a member's membership controller: the leader's reports the membership, each reports its
    /// own standing.
    pub(crate) fn membership_status(&self, uid: &str, id: &str) -> Option<Value> {
        let etcd = self.etcd(uid)?;
        let leader = self.leader(uid);
        let of = |learner: bool| {
            let mut names: Vec<String> = etcd
                .members
                .iter()
                .filter(|member| member.is_learner == learner)
                .map(label)
                .collect();
            names.sort();
            names
        };
        // A member that does not answer, or has data of another cluster, reports nothing.
        let own = etcd.named(id).filter(|_| self.serves_etcd(etcd, id));
        let standing = own.map(|own| match &leader {
            _ if own.is_learner => Standing::Learner,
            Some(_) => Standing::Led,
            None => Standing::Leaderless { voters: of(false) },
        });
        let leads = leader.as_deref() == Some(id);
        let status = MembershipStatus {
            voters: if leads { of(false) } else { Vec::new() },
            learners: if leads { of(true) } else { Vec::new() },
            leader: leader.filter(|_| leads),
            standing,
            ..MembershipStatus::default()
        };
        serde_json::to_value(status).ok()
    }

    /// The configuration of a machine's etcd; without one, a single member.
    fn told(&self, id: &str) -> EtcdConfig {
        let machine = self.machines.get(id);
        etcd_config(machine.and_then(|machine| machine.in_force.as_deref()))
            .unwrap_or_else(|| told_nothing(id))
    }
}

impl Inner {
    /// The state of a control plane machine changed: the membership controller acts, and all machines report
    /// changes.
    pub(crate) fn etcd_changed(self: &Arc<Self>, state: &mut State, uid: &str) {
        let Some(etcd) = state.etcd(uid) else { return };
        let members = etcd.members.len();
        let mut acted = false;
        for _ in 0..STEPS {
            let Some(act) = state.next_act(uid).or_else(|| state.claimed(uid)) else {
                break;
            };
            state.carry_out(uid, act);
            acted = true;
        }
        let (quorum, leader) = (state.quorum(uid), state.leader(uid));
        let Some(cluster) = state.clusters.get_mut(uid) else {
            return;
        };
        let etcd = &mut cluster.etcd;
        let changed = acted
            || etcd.members.len() != members
            || etcd.quorum != quorum
            || (leader.is_some() && etcd.leader != leader);
        etcd.quorum = quorum;
        if leader.is_some() {
            etcd.leader = leader;
        }
        if changed {
            cluster.changed();
            self.members_report(state, uid);
            self.join_nodes(state, uid);
        }
        self.vip_changed(state, uid);
    }

    /// All control plane machines of a cluster send reports.
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

/// The members, and the data of each control plane machine.
pub(crate) fn dump(state: &State) -> String {
    let mut text = String::new();
    for (uid, cluster) in &state.clusters {
        let etcd = &cluster.etcd;
        let of = |learner: bool| {
            let members = etcd.members.iter().filter(|member| member.is_learner == learner);
            members.map(label).collect::<Vec<_>>().join(",")
        };
        text += &format!(
            "etcd {uid} history={} leader={} voters={} learners={} restored={}\n",
            etcd.history,
            state.leader(uid).as_deref().unwrap_or("-"),
            of(false),
            of(true),
            etcd.restored.as_deref().unwrap_or("-"),
        );
        for id in state.members.get(uid).into_iter().flatten() {
            let Some(machine) = state
                .machines
                .get(id)
                .filter(|machine| machine.is_control_plane_of(uid))
            else {
                continue;
            };
            let said = machine
                .etcd
                .as_ref()
                .map(|said| format!("{:?} {}", said.phase, said.why.as_deref().unwrap_or("")));
            text += &format!(
                "  {id} {:?} up={} ready={} data={:?} {:?} told formed={} restore={:?} says {}\n",
                machine.power,
                machine.up,
                machine.ready,
                machine.data,
                machine.marker,
                state.told(id).formed,
                state
                    .told(id)
                    .restore
                    .map(|restore| (restore.id, restore.by, restore.done)),
                said.unwrap_or_default(),
            );
        }
    }
    text
}

/// A member's name, or its address as long as it has none.
fn label(member: &Member) -> String {
    if member.name.is_empty() {
        member.peer_urls.first().cloned().unwrap_or_default()
    } else {
        member.name.clone()
    }
}

fn own(config: &EtcdConfig) -> Option<&EtcdMember> {
    config.members.iter().find(|member| member.name == config.member)
}

/// The configuration of a machine's etcd.
fn etcd_config(config: Option<&MachineConfig>) -> Option<EtcdConfig> {
    let file = config?
        .files
        .iter()
        .find(|file| file.path.ends_with("/etcd.json"))?;
    serde_json::from_str(&file.content).ok()
}

fn told_nothing(id: &str) -> EtcdConfig {
    let alone = EtcdMember {
        name: id.to_owned(),
        address: std::net::Ipv4Addr::UNSPECIFIED,
    };
    EtcdConfig::bare(id, [alone])
}
