//! Add-ons: applied, compared with the cluster where that has changed, and told of where they do not work.

use std::time::Duration;

use control_records::EventKind;

use crate::{
    ApiEffect, Draft, Reach, Subject, addons_inputs,
    checks::{Checks, Stage},
    feature::Feature,
};

pub(crate) const FEATURE: Feature = Feature {
    act,
    observe,
    checks,
    ..Feature::named("addons")
};

/// An add-on that does not work for so long is told of: pods that start, or move, take less.
const PATIENCE: Duration = Duration::from_secs(2 * 60);

/// To apply them as they are to be now.
pub(crate) fn apply(draft: &Draft<'_>) -> ApiEffect {
    ApiEffect::ApplyAddons {
        images: draft.seen.images.clone(),
        inputs: addons_inputs(draft.desired.spec(), &draft.seen.images),
    }
}

fn act(draft: &mut Draft<'_>) {
    let api = &draft.seen.api;
    if api.reach != Reach::Ready {
        return;
    }
    let inputs = addons_inputs(draft.desired.spec(), &draft.seen.images);
    match &api.addons {
        Some(applied) if applied.inputs == inputs => {
            if applied.change < api.change {
                let due = draft.after(applied.at, draft.policy.addons_pause);
                if due <= draft.now {
                    draft.act_quietly(apply(draft));
                } else {
                    // Nothing is amiss as far as known: no reason to call the cluster unfinished.
                    draft.look_again_at(due);
                }
            }
        }
        before => draft.act_or_adopt(before.is_none(), apply(draft), "installing add-ons"),
    }
}

/// Tells, once each, that an add-on does not work and that it works again. Nothing waits for it: whether a cluster is what it is
/// to be does not depend on what its tenant runs.
fn observe(draft: &mut Draft<'_>) {
    let seen = draft.seen;
    let Some(applied) = seen
        .api
        .addons
        .as_ref()
        .filter(|_| seen.api.reach == Reach::Ready)
    else {
        return;
    };
    for ailment in &applied.ailments {
        if draft.observed.addons.contains_key(&ailment.addon) {
            continue;
        }
        let due = draft.after(ailment.since, PATIENCE);
        if due > draft.now {
            draft.look_again_at(due);
        } else if draft.has_room(1) {
            draft
                .observed
                .addons
                .insert(ailment.addon.clone(), ailment.why.clone());
            draft.tell(
                EventKind::ProblemBegan,
                subject(&ailment.addon),
                ailment.why.clone(),
            );
        }
    }
    let over: Vec<String> = draft
        .observed
        .addons
        .keys()
        .filter(|name| !applied.ailments.iter().any(|ailment| ailment.addon == **name))
        .cloned()
        .collect();
    for name in over {
        if draft.has_room(1) {
            draft.observed.addons.remove(&name);
            draft.tell(EventKind::ProblemEnded, subject(&name), "it works again");
        }
    }
}

fn subject(addon: &str) -> String {
    format!("the add-on {addon}")
}

fn checks(draft: &Draft<'_>, checks: &mut Checks) {
    let applied = match &draft.seen.api.addons {
        Some(applied) => applied.inputs == addons_inputs(draft.desired.spec(), &draft.seen.images),
        None => draft.reached_before(),
    };
    checks.cluster(Stage::Service, "installing add-ons", applied);
    let compared = draft.is_quiet(&Subject::Addons);
    checks.routine("comparing add-ons", compared);
}
