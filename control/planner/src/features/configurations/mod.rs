//! What machines are configured with.

pub(crate) mod inputs;

use crate::{
    ConfigEffect, ConfigSeen, Draft, Subject, after,
    checks::Checks,
    disturb::Disturb,
    feature::Feature,
    view::machines::{in_force, staying},
};

pub(crate) const FEATURE: Feature = Feature {
    act,
    checks,
    ..Feature::named("configurations")
};

/// What machines are to be: computed as soon as it can be, published again after a restart, made anew when what it is
/// computed from has changed or its certificates grow old.
fn act(draft: &mut Draft<'_>) {
    let Some(frame) = draft.frame() else {
        return;
    };
    for (id, machine) in staying(draft) {
        let inputs = frame.config_inputs(&machine.record);
        let why = || format!("configuring {}", machine.label());
        let next = match &machine.config {
            ConfigSeen::Unknown => {
                draft.act_quietly(ConfigEffect::Load(id.clone()));
                continue;
            }
            ConfigSeen::Absent => Some(1),
            ConfigSeen::Published {
                generation,
                inputs: before,
                made_at,
            } => (*before != inputs || after(*made_at, draft.policy.renew_after) <= draft.now)
                .then_some(generation + 1),
        };
        let Some(generation) = next else {
            if !in_force(draft, machine) {
                draft.wait(why());
            }
            continue;
        };
        let permit = draft.may(Disturb::Configure {
            id,
            machine,
            inputs: &inputs,
        });
        match permit {
            Ok(machine) => draft.act(
                ConfigEffect::Render {
                    machine,
                    generation,
                    inputs,
                },
                why(),
            ),
            Err(obstacle) => {
                draft.wait(if machine.node_name().is_none() {
                    format!(
                        "waiting for the other control plane members, to configure {}",
                        machine.label()
                    )
                } else {
                    format!("waiting to configure {}: {obstacle}", machine.label())
                });
                draft.look_again_at(draft.after(draft.now, draft.policy.heal.after_restart));
            }
        }
    }
}

fn checks(draft: &Draft<'_>, checks: &mut Checks) {
    let frame = draft.frame();
    for (id, machine) in staying(draft) {
        let what = || format!("configuring {}", machine.label());
        let configured = in_force(draft, machine) && draft.is_quiet(&Subject::Config(id.clone()));
        checks.machine(draft, id, machine, what(), configured);
        // Members are configured one after the other: that nothing is planned for one does not say that it is done.
        if machine.node_name().is_none()
            && let (ConfigSeen::Published { inputs, .. }, Some(frame)) = (&machine.config, &frame)
        {
            let wanted = frame.config_inputs(&machine.record);
            checks.machine(draft, id, machine, what(), *inputs == wanted);
        }
    }
}
