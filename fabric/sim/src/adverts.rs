//! The holder of the address of a cluster's API, and the machine it leads to.
//!
//! The decisions of a control plane member about holding the address are made by the code of real machines
//! (`machine_vip::state`). Here is only the part between them: adverts, some of which get lost, each member's
//! health probe of its own API server, and the neighbours, which use the latest announcement.
//!
//! Adverts are simulated only while they can have an effect: they start when the state of a control plane
//! machine changes, with the last adverts' content, and end when nothing has changed for a while. Later ones
//! would have the same content.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use agent_protocol::{MachineConfig, programs::VipConfig};
use base_env::Seed;
use fabric_api::Power;
use machine_vip::state::{AWAY, Change, EVERY, Member, Say};

use crate::{
    Inner,
    state::{Machine, State},
    vip::Vip,
};

/// Adverts with unchanged content have no effect after this time.
const QUIET: Duration = AWAY.saturating_mul(4);
/// The fraction of adverts that get lost.
const LOST: f64 = 0.05;

/// The configuration of a machine's VIP program, if it has one.
fn told(config: &MachineConfig) -> Option<VipConfig> {
    let file = config
        .files
        .iter()
        .find(|file| file.path.ends_with("/vip.json"))?;
    serde_json::from_str(&file.content).ok()
}

impl Machine {
    /// Starts, continues or ends the VIP program, as the configuration requires.
    pub(crate) fn hold_vip(&mut self, now: Duration) {
        let told = self.in_force.as_deref().and_then(told).filter(|_| self.up);
        if self.vip.as_ref().map(|vip| &vip.config) != told.as_ref() {
            self.vip = told.map(|config| Vip {
                member: Member::new(config.own, now),
                config,
            });
        }
    }

    /// Whether the program has put the address on the machine's interface. Without the program, the fabric
    /// has put it there, or not at all.
    fn has_vip(&self) -> bool {
        match &self.vip {
            Some(vip) => vip.member.say().holds,
            None => self.power == Power::Running && self.spec.nics.iter().any(|card| !card.extra.is_empty()),
        }
    }
}

impl State {
    /// The machine that answers at the address of the cluster's API, if any.
    pub(crate) fn at_vip(&self, uid: &str) -> Option<&Machine> {
        let cluster = self.clusters.get(uid)?;
        let holder = |id: &str| self.machines.get(id).filter(|machine| machine.has_vip());
        // Neighbours send a new ARP request once the remembered machine no longer answers.
        let told = cluster.address.leads_to.as_deref().and_then(holder);
        told.or_else(|| {
            cluster
                .etcd
                .members
                .iter()
                .find_map(|member| holder(&member.name))
        })
    }

    /// The cluster's machines with a working VIP program.
    fn vip_members(&self, uid: &str) -> Vec<String> {
        let members = self.members.get(uid).into_iter().flatten();
        let gets_on = |id: &&String| {
            self.machines
                .get(*id)
                .is_some_and(|machine| machine.vip.is_some())
                && !self.hangs(id)
        };
        members.filter(gets_on).cloned().collect()
    }

    /// Applies an event to a member; a change is announced to the neighbours.
    fn with_vip(&mut self, uid: &str, id: &str, act: impl FnOnce(&mut Member) -> Change) -> Change {
        let Some(vip) = self.machines.get_mut(id).and_then(|machine| machine.vip.as_mut()) else {
            return Change::None;
        };
        let change = act(&mut vip.member);
        if matches!(change, Change::Take | Change::Insist) {
            self.cluster(uid).address.leads_to = Some(id.to_owned());
        }
        change
    }

    /// Delivers a member's advert to all others, except for losses. Returns whether anything changed.
    fn advertise(
        &mut self,
        uid: &str,
        members: &[String],
        from: Ipv4Addr,
        say: Say,
        now: Duration,
        seed: Option<Seed>,
    ) -> bool {
        let mut changed = false;
        for id in members {
            let hears = self
                .machines
                .get(id)
                .and_then(|machine| machine.vip.as_ref())
                .is_some_and(|vip| vip.config.own != from && vip.config.peers.contains(&from));
            let address = &mut self.cluster(uid).address;
            address.adverts += 1;
            let lost = seed.is_some_and(|seed| seed.fraction(address.adverts) < LOST);
            if hears && !lost {
                changed |= self.with_vip(uid, id, |member| member.hear(now, from, say)) != Change::None;
            }
        }
        changed
    }

    /// One round of adverts. Returns whether anything changed.
    fn vip_round(&mut self, uid: &str, now: Duration, seed: Seed) -> bool {
        let members = self.vip_members(uid);
        self.cluster(uid).address.said.clear();
        let mut changed = false;
        for id in &members {
            let healthy = self.serves_api(uid, id);
            let before = self
                .machines
                .get(id)
                .and_then(|machine| machine.vip.as_ref())
                .map(|vip| vip.member.say());
            self.with_vip(uid, id, |member| member.feel(now, healthy));
            let Some(vip) = self.machines.get(id).and_then(|machine| machine.vip.as_ref()) else {
                continue;
            };
            let (own, say) = (vip.config.own, vip.member.say());
            changed |= before != Some(say);
            self.cluster(uid).address.said.insert(own, say);
            changed |= self.advertise(uid, &members, own, say, now, Some(seed));
        }
        changed
    }
}

impl Inner {
    /// The state of a control plane machine changed: members exchange adverts until they have no effect any
    /// more.
    pub(crate) fn vip_changed(self: &Arc<Self>, state: &mut State, uid: &str) {
        let members = state.vip_members(uid);
        if members.is_empty() {
            return;
        }
        let now = self.env.clock.monotonic();
        let address = &mut state.cluster(uid).address;
        let under_way = address.until.replace(now + QUIET).is_some();
        if under_way {
            return;
        }
        // As if adverts had continued.
        for (from, say) in address.said.clone() {
            state.advertise(uid, &members, from, say, now, None);
        }
        let (inner, uid) = (Arc::clone(self), uid.to_owned());
        tokio::spawn(async move {
            while inner.vip_round(&uid) {
                inner.env.clock.sleep(EVERY).await;
            }
        });
    }

    /// Returns `false` when adverts have no effect any more.
    fn vip_round(self: &Arc<Self>, uid: &str) -> bool {
        let now = self.env.clock.monotonic();
        let mut state = self.state();
        let before = state.api_ready(uid);
        let changed = state.vip_round(uid, now, self.env.seed.child("adverts").child(uid));
        if before != state.api_ready(uid) {
            state.cluster(uid).changed();
            self.join_nodes(&mut state, uid);
        }
        let address = &mut state.cluster(uid).address;
        if changed {
            address.until = Some(now + QUIET);
        } else if address.until.is_none_or(|until| until <= now) {
            address.until = None;
            return false;
        }
        true
    }
}

/// Clusters whose address is not on exactly one machine, though a member is healthy and nothing changes any
/// more.
pub(crate) fn problems(state: &State) -> Vec<String> {
    let settled = state
        .clusters
        .iter()
        .filter(|(_, cluster)| cluster.address.until.is_none());
    settled
        .filter_map(|(uid, _)| {
            let members = state.vip_members(uid);
            let well = members.iter().any(|id| state.serves_api(uid, id));
            let holders: Vec<&String> = members
                .iter()
                .filter(|id| state.machines.get(*id).is_some_and(Machine::has_vip))
                .collect();
            (well && holders.len() != 1).then(|| format!("the address of {uid} is on {holders:?}"))
        })
        .collect()
}

/// The holder of each cluster's address, and the machine that answers at it.
pub(crate) fn dump(state: &State) -> String {
    let mut text = String::new();
    for uid in state.clusters.keys() {
        let says: Vec<String> = state
            .members
            .get(uid)
            .into_iter()
            .flatten()
            .filter_map(|id| Some((id, state.machines.get(id)?.vip.as_ref()?.member.say())))
            .map(|(id, say)| format!("{id} healthy={} holds={}", say.healthy, say.holds))
            .collect();
        if !says.is_empty() {
            let leads_to = state.at_vip(uid).map_or("-", |machine| machine.spec.id.as_str());
            text += &format!("vip {uid} leads to {leads_to}: {}\n", says.join(", "));
        }
    }
    text
}
