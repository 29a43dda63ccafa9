//! How machines are: what befalls them, what cures it, and what the world notices of it.

use std::sync::Arc;

use fabric_api::MachineId;

use crate::{
    Inner,
    ailments::{Ailment, Cure},
    state::State,
};

impl Inner {
    /// Something befalls a machine. `false` when there is no such machine.
    pub(crate) fn ail(self: &Arc<Self>, id: &MachineId, ailment: Ailment, cure: Cure) -> bool {
        let mut state = self.state();
        if !state.machines.contains_key(id.as_str()) {
            return false;
        }
        state
            .ailments
            .entry(id.to_string())
            .or_default()
            .insert(ailment, cure);
        self.condition_changed(&mut state, id.as_str());
        true
    }

    /// What this much cures is over.
    pub(crate) fn cure(self: &Arc<Self>, state: &mut State, id: &str, by: Cure) {
        let Some(ailments) = state.ailments.get_mut(id) else {
            return;
        };
        let before = ailments.len();
        ailments.retain(|_, cure| *cure > by);
        let cured = ailments.len() < before;
        if ailments.is_empty() {
            state.ailments.remove(id);
        }
        if cured {
            self.condition_changed(state, id);
        }
    }

    /// Everything is over, for all machines.
    pub(crate) fn heal(self: &Arc<Self>) {
        let mut state = self.state();
        let ids: Vec<String> = state.ailments.keys().cloned().collect();
        state.ailments.clear();
        for id in ids {
            self.condition_changed(&mut state, &id);
        }
    }

    /// The world takes notice of a machine's condition: at once, but for nodes, whose loss is noticed late.
    fn condition_changed(self: &Arc<Self>, state: &mut State, id: &str) {
        if !state.reaches(id) {
            Self::hang_up(state, id);
        }
        self.report(state, id);
        let Some(machine) = state.machines.get(id) else {
            return;
        };
        let boot = machine.boot;
        let cluster = machine.cluster().map(str::to_owned);
        let wait = self.delay(&self.options.config, id, "dial", boot);
        self.dial(state, id, wait);
        if let Some(cluster) = cluster {
            self.etcd_changed(state, &cluster);
            if state.works(id) {
                self.join_nodes(state, &cluster);
                state.cluster(&cluster).changed();
            } else {
                self.after_loss(state, &cluster, id);
            }
        }
    }
}

impl State {
    fn suffers(&self, id: &str, from: &[Ailment]) -> bool {
        self.ailments
            .get(id)
            .is_some_and(|ailments| from.iter().any(|ailment| ailments.contains_key(ailment)))
    }

    /// Whether nothing in the machine gets on.
    pub(crate) fn hangs(&self, id: &str) -> bool {
        self.suffers(id, &[Ailment::Hangs])
    }

    /// Whether the machine's agent can reach the service.
    pub(crate) fn reaches(&self, id: &str) -> bool {
        !self.suffers(id, &[Ailment::Silent, Ailment::Hangs])
    }

    /// Whether a machine that is up does its work: nothing that matters fails in it.
    pub(crate) fn works(&self, id: &str) -> bool {
        const VITAL: [&str; 4] = ["etcd", "kube-apiserver", "kubelet", "containerd"];
        !self.ailments.get(id).is_some_and(|ailments| {
            ailments.keys().any(|ailment| match ailment {
                Ailment::Silent | Ailment::DiskFull => false,
                Ailment::Hangs | Ailment::NotReady => true,
                Ailment::Ends(process) | Ailment::Deaf(process) => VITAL.contains(&process.as_str()),
            })
        })
    }
}
