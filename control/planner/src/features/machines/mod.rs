//! Machines: there and running, or off where somebody has turned them off.

use crate::{
    Draft, FabricEffect, Machine, Presence, Subject,
    checks::Checks,
    disturb::Disturb,
    feature::Feature,
    view::{
        control_plane::waits_for_vip,
        machines::{has_its_subnet, staying, wants_look, wiping},
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
        if machine.record.healing.off {
            turn_off(draft, id, machine);
            continue;
        }
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
                if has_its_subnet(draft, machine) {
                    draft.act(FabricEffect::EnsureMachine(id.clone()), why);
                } else {
                    draft.wait(why);
                }
            }
        }
    }
}

/// A machine that somebody has turned off stands still, its disk as it is. Nobody is asked, and nothing is drained: who asks knows why.
fn turn_off(draft: &mut Draft<'_>, id: &str, machine: &Machine) {
    let what = format!("stopping {}", machine.label());
    match machine.presence {
        Presence::Unknown => draft.wait_or_adopt(true, what),
        Presence::Running | Presence::Partial if machine.record.repairing().is_some() => draft.wait(what),
        Presence::Running | Presence::Partial => {
            draft.disturb(Disturb::TurnOff { id }, FabricEffect::StopMachine, what);
        }
        Presence::Stopped | Presence::Absent | Presence::Gone => {}
    }
}

fn checks(draft: &Draft<'_>, checks: &mut Checks) {
    for (id, machine) in staying(draft) {
        if machine.record.healing.off {
            let known = matches!(
                machine.presence,
                Presence::Stopped | Presence::Absent | Presence::Gone
            );
            let off = (known || machine.presence == Presence::Unknown && draft.reached_before())
                && draft.is_quiet(&Subject::Machine(id.clone()));
            checks.machine(draft, id, machine, format!("stopping {}", machine.label()), off);
            continue;
        }
        let unknown = machine.presence == Presence::Unknown && draft.reached_before();
        let runs = (machine.presence == Presence::Running || unknown)
            && draft.is_quiet(&Subject::Machine(id.clone()))
            && machine.record.repairing().is_none();
        checks.machine(draft, id, machine, format!("starting {}", machine.label()), runs);
    }
    let looked = draft.is_quiet(&Subject::Fabric);
    checks.routine("looking for machines", looked);
}
