//! Add-ons: applied, and compared with the cluster where that has changed.

use crate::{
    ApiEffect, Draft, Reach, Subject, addons_inputs,
    checks::{Checks, Stage},
    feature::Feature,
};

pub(crate) const FEATURE: Feature = Feature {
    act,
    checks,
    ..Feature::named("addons")
};

fn act(draft: &mut Draft<'_>) {
    let api = &draft.seen.api;
    if api.reach != Reach::Ready {
        return;
    }
    let inputs = addons_inputs(&draft.desired.spec);
    match &api.addons {
        Some(applied) if applied.inputs == inputs => {
            if applied.change < api.change {
                let due = draft.after(applied.at, draft.policy.addons_pause);
                if due <= draft.now {
                    draft.act_quietly(ApiEffect::ApplyAddons { inputs });
                } else {
                    // Nothing is amiss as far as known: no reason to call the cluster unfinished.
                    draft.look_again_at(due);
                }
            }
        }
        before => draft.act_or_adopt(
            before.is_none(),
            ApiEffect::ApplyAddons { inputs },
            "installing add-ons",
        ),
    }
}

fn checks(draft: &Draft<'_>, checks: &mut Checks) {
    let applied = match &draft.seen.api.addons {
        Some(applied) => applied.inputs == addons_inputs(&draft.desired.spec),
        None => draft.reached_before(),
    };
    checks.cluster(Stage::Service, "installing add-ons", applied);
    let compared = draft.is_quiet(&Subject::Addons);
    checks.routine("comparing add-ons", compared);
}
