//! The condition of machines: ailments, cures, and their effects on the world.

use std::sync::Arc;

use fabric_api::MachineId;

use crate::{
    Inner,
    ailments::{Ailment, Cure},
    state::State,
};

impl Inner {
    /// Gives a machine an ailment. `false` when the machine does not exist.
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

    /// Removes all ailments that this action cures.
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

    /// Removes all ailments of all machines.
    pub(crate) fn heal(self: &Arc<Self>) {
        let mut state = self.state();
        let ids: Vec<String> = state.ailments.keys().cloned().collect();
        state.ailments.clear();
        for id in ids {
            self.condition_changed(&mut state, &id);
        }
    }

    /// Applies a machine's condition to the world: at once, except for nodes, whose loss is detected late.
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

    /// Whether the whole machine hangs.
    pub(crate) fn hangs(&self, id: &str) -> bool {
        self.suffers(id, &[Ailment::Hangs])
    }

    /// Whether the machine's agent can reach the service.
    pub(crate) fn reaches(&self, id: &str) -> bool {
        !self.suffers(id, &[Ailment::Silent, Ailment::Hangs])
    }

    /// Whether a running machine works: no essential process fails.
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
