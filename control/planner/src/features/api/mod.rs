//! The cluster's API: looked at when an agent says that it answers, and whenever something in it may have changed.

use control_records::Milestone;

use crate::{
    ApiEffect, Draft, Presence, Reach, Subject,
    checks::{Checks, Stage},
    feature::Feature,
    view::control_plane::{observe_version, staying},
};

pub(crate) const FEATURE: Feature = Feature {
    act,
    checks,
    ..Feature::named("api")
};

/// Looks at the API server when an agent says that one answers, and whenever something in it may have changed.
fn act(draft: &mut Draft<'_>) {
    let seen = draft.seen;
    const WAITING: &str = "waiting for the API server";
    let members = staying(draft);
    let runs = members
        .iter()
        .any(|(_, member)| member.presence == Presence::Running);
    if members.is_empty() {
        return;
    }
    if !runs || draft.leased().is_none() || seen.pki.is_none() {
        let unknown = members
            .iter()
            .any(|(_, member)| member.presence == Presence::Unknown);
        draft.wait_or_adopt(unknown, WAITING);
        return;
    }
    match seen.api.reach {
        Reach::Ready => {
            draft.observed.formed = true;
            draft.milestone(Milestone::ApiReady);
            observe_version(draft);
            if seen.api.looked < seen.api.change {
                draft.act_quietly(ApiEffect::Look);
            }
            if seen
                .api
                .approved
                .is_none_or(|approved| approved < seen.api.change)
            {
                draft.act_quietly(ApiEffect::ApproveServing);
            }
        }
        Reach::Unknown | Reach::Away => {
            // An agent that has said nothing since the service started may have nothing new to say: worth a try.
            let worth_a_try = seen.api.heard
                || members
                    .iter()
                    .any(|(_, member)| member.api_server_ready().unwrap_or(true));
            let unknown = seen.api.reach == Reach::Unknown;
            if worth_a_try {
                draft.act_or_adopt(unknown, ApiEffect::Look, WAITING);
            } else {
                draft.wait(WAITING);
            }
        }
    }
}

fn checks(draft: &Draft<'_>, checks: &mut Checks) {
    let ready = draft.seen.api.reach == Reach::Ready;
    checks.cluster(Stage::Service, "waiting for the API server", ready);
    // Until it has been looked at since it changed last, what is said of it may be old.
    let looked = draft.is_quiet(&Subject::Api) && draft.is_quiet(&Subject::Serving);
    checks.routine("looking at the API server", looked);
}
