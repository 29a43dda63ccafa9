//! Nodes: that not all of a cluster's kubelets begin anew at the same time, and none before the control plane that it speaks to has what it needs.

use crate::{
    ConfigSeen, Draft, Machine, Presence, Subject,
    view::{
        control_plane,
        machines::{in_force, staying},
    },
};

/// So many take a configuration at the same time.
const AT_A_TIME: usize = 10;

/// A node takes another configuration than it has. In clusters whose keys were never replaced nothing in a configuration depends on what others
/// have, and each takes it at once.
pub(super) fn configure(draft: &Draft<'_>, id: &str, node: &Machine) -> Result<(), String> {
    if draft.seen.pki.is_none_or(|generation| generation <= 1) {
        return Ok(());
    }
    let ConfigSeen::Published { .. } = &node.config else {
        // It has to begin with one.
        return Ok(());
    };
    let Some(frame) = draft.frame() else {
        return Ok(());
    };
    // A newer release that is held up gives members no other configuration: they have the one that they are to have until then.
    let held = draft.older_frame().filter(|_| draft.release_waits().is_some());
    let has = |machine: &Machine| match &machine.config {
        ConfigSeen::Published { inputs, .. } => [Some(&frame), held.as_ref()]
            .into_iter()
            .flatten()
            .any(|frame| *inputs == frame.config_inputs(&machine.record)),
        ConfigSeen::Unknown | ConfigSeen::Absent => false,
    };
    let members = control_plane::staying(draft);
    if let Some((_, member)) = members
        .iter()
        .find(|(_, member)| !has(member) || !in_force(draft, member))
    {
        return Err(format!("{} comes first", member.label()));
    }
    let taking = staying(draft).filter(|(other, machine)| {
        let subject = Subject::Config((*other).clone());
        let planned = draft.seen.busy.contains(&subject) || draft.planned.contains(&subject);
        let hears = machine.presence == Presence::Running && machine.heard();
        let on_its_way = matches!(machine.config, ConfigSeen::Published { .. }) && !in_force(draft, machine);
        other.as_str() != id && machine.node_name().is_some() && (planned || hears && on_its_way)
    });
    if taking.count() >= AT_A_TIME {
        return Err(format!("{AT_A_TIME} others come first"));
    }
    Ok(())
}
