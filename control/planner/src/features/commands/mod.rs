//! Commands that are to be run in the cluster. They are nothing that the cluster is to be: whether it is there does not depend on them.

use crate::{ApiEffect, Draft, Reach, feature::Feature};

pub(crate) const FEATURE: Feature = Feature {
    act,
    ..Feature::named("commands")
};

fn act(draft: &mut Draft<'_>) {
    let seen = draft.seen;
    // While nobody answers, they wait. What waits for too long ends when somebody answers again.
    if seen.api.reach != Reach::Ready {
        return;
    }
    for (id, again) in &seen.commands {
        match again {
            Some(at) if *at > draft.now => draft.look_again_at(*at),
            _ => draft.act_quietly(ApiEffect::Command(id.clone())),
        }
    }
}
