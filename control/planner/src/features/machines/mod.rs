//! Machines: there and running.

use crate::{
    Draft, FabricEffect, NetworkSeen, Presence, Subject,
    checks::Checks,
    feature::Feature,
    view::{
        control_plane::waits_for_vip,
        machines::{staying, wants_look, wiping},
    },
};

pub(crate) const FEATURE: Feature = Feature {
    act,
    checks,
    ..Feature::named("machines")
};

/// Machines that are to stay: there and running. A machine needs the network and nothing else: what it is to be reaches
/// it while it boots.
fn act(draft: &mut Draft<'_>) {
    if wants_look(draft) {
        draft.act_quietly(FabricEffect::Look);
    }
    for (id, machine) in staying(draft) {
        match machine.presence {
            Presence::Running | Presence::Unknown => {}
            // What is to be wiped is not started first; what has vanished needs a new token.
            _ if wiping(machine) => {}
            Presence::Absent if machine.record.enrolled_key.is_some() => {}
            _ if waits_for_vip(draft, machine) => {
                draft.wait(
                    "waiting for the control plane machine of before to go: the API's address is still on it",
                );
            }
            Presence::Absent | Presence::Partial | Presence::Stopped | Presence::Gone => {
                let why = format!("starting {}", machine.label());
                if matches!(draft.seen.network, NetworkSeen::Made(_)) {
                    draft.act(FabricEffect::EnsureMachine(id.clone()), why);
                } else {
                    draft.wait(why);
                }
            }
        }
    }
}

fn checks(draft: &Draft<'_>, checks: &mut Checks) {
    for (id, machine) in staying(draft) {
        let unknown = machine.presence == Presence::Unknown && draft.reached_before();
        let runs = (machine.presence == Presence::Running || unknown)
            && draft.is_quiet(&Subject::Machine(id.clone()))
            && machine.record.repairing().is_none();
        checks.machine(draft, id, machine, format!("starting {}", machine.label()), runs);
    }
    let looked = draft.is_quiet(&Subject::Fabric);
    checks.routine("looking for machines", looked);
}
