//! What machines are configured with.

pub(crate) mod inputs;

use control_records::EventKind;

use crate::{
    ConfigEffect, ConfigSeen, Draft, Frame, Machine, Subject, after,
    checks::Checks,
    disturb::Disturb,
    feature::Feature,
    view::machines::{in_force, staying},
};

pub(crate) const FEATURE: Feature = Feature {
    act,
    observe,
    checks,
    ..Feature::named("configurations")
};

/// What machines are to be: computed as soon as it can be, published again after a restart, made anew when what it is
/// computed from has changed or its certificates grow old.
fn act(draft: &mut Draft<'_>) {
    let Some(frame) = draft.frame() else {
        return;
    };
    let older = draft.older_frame();
    for (id, machine) in staying(draft) {
        let inputs = frame.config_inputs(&machine.record);
        let release = is_release(older.as_ref(), machine) && !is_old(draft, machine);
        let why = || format!("configuring {}", machine.label());
        let next = match &machine.config {
            ConfigSeen::Unknown => {
                draft.act_quietly(ConfigEffect::Load(id.clone()));
                continue;
            }
            ConfigSeen::Absent => Some(1),
            ConfigSeen::Published { .. } if release && draft.release_waits().is_some() => None,
            ConfigSeen::Published {
                generation,
                inputs: before,
                ..
            } => (*before != inputs || is_old(draft, machine)).then_some(generation + 1),
        };
        let Some(generation) = next else {
            if !in_force(draft, machine) {
                draft.wait(why());
            }
            continue;
        };
        let asked = inputs.as_str();
        let permit = draft.may(if release {
            Disturb::Release {
                id,
                machine,
                inputs: asked,
            }
        } else {
            Disturb::Configure {
                id,
                machine,
                inputs: asked,
            }
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

/// Whether nothing but a newer release of the service asks for another configuration of a machine.
fn is_release(older: Option<&Frame<'_>>, machine: &Machine) -> bool {
    match (&machine.config, older) {
        (ConfigSeen::Published { inputs, .. }, Some(older)) => {
            *inputs == older.config_inputs(&machine.record)
        }
        _ => false,
    }
}

/// Whether certificates in a machine's configuration are old.
fn is_old(draft: &Draft<'_>, machine: &Machine) -> bool {
    match &machine.config {
        ConfigSeen::Published { issued_at, .. } => after(*issued_at, draft.policy.renew_after) <= draft.now,
        ConfigSeen::Unknown | ConfigSeen::Absent => false,
    }
}

/// Notes of which release the machines' configurations are, and what a newer one waits for.
fn observe(draft: &mut Draft<'_>) {
    let Some(frame) = draft.frame() else {
        return;
    };
    if staying(draft).any(|(_, machine)| machine.config == ConfigSeen::Unknown) {
        // After a start: what was told before is as true as it was.
        return;
    }
    let older = draft.older_frame();
    let taken = |machine: &Machine| match &machine.config {
        ConfigSeen::Published { inputs, .. } => *inputs == frame.config_inputs(&machine.record),
        ConfigSeen::Unknown | ConfigSeen::Absent => false,
    };
    let behind = staying(draft).any(|(_, machine)| {
        // One that the new release configures as the old one did is not behind.
        !taken(machine) && is_release(older.as_ref(), machine)
    });
    if draft.reached_before() && staying(draft).all(|(_, machine)| taken(machine)) {
        draft.observed.renderers = Some(draft.seen.renderers.clone());
    }
    let waits = if behind { draft.release_waits() } else { None };
    if let Some(waiting) = &waits {
        if let Some(until) = waiting.until {
            draft.look_again_at(until);
        }
        if draft.observed.release_waits.as_ref() != Some(waiting) {
            let told = waiting.sentence();
            draft.tell(EventKind::Planned, "", told);
        }
    }
    draft.observed.release_waits = waits;
}

fn checks(draft: &Draft<'_>, checks: &mut Checks) {
    let frame = draft.frame();
    let older = draft.older_frame();
    for (id, machine) in staying(draft) {
        let what = || format!("configuring {}", machine.label());
        let configured = in_force(draft, machine) && draft.is_quiet(&Subject::Config(id.clone()));
        checks.machine(draft, id, machine, what(), configured);
        // Members are configured one after the other: that nothing is planned for one does not say that it is done.
        if machine.node_name().is_none()
            && let (ConfigSeen::Published { inputs, .. }, Some(frame)) = (&machine.config, &frame)
        {
            // A newer release is not what was asked for, and may have to wait.
            let done = *inputs == frame.config_inputs(&machine.record) || is_release(older.as_ref(), machine);
            checks.machine(draft, id, machine, what(), done);
        }
    }
}
