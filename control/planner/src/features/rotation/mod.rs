//! Other CAs, and another key of service accounts, in the place of those that there are: when which step of it is taken.
//!
//! | step | when | then |
//! |---|---|---|
//! | new CAs are trusted | asked for, and all machines have what they are to have | machines are configured, control plane members one at a time and first |
//! | they issue | all machines trust them, and what pods know of them has had time to follow | the same |
//! | the old ones go | all machines show certificates of the new ones | the same |
//! | tokens of a new key are taken | asked for, and all machines have what they are to have | the same |
//! | it signs | all machines take its tokens | the same |
//! | tokens of the old one are taken no more | [`crate::Policy::former_tokens`] later | the same |
//!
//! A step is a change of the cluster's keys, which have a generation; what machines are configured with is computed from it
//! ([`super::configurations`]), and nothing else is done here. Wishes that come while a rotation is under way are one: what was asked for later than
//! what was begun is begun when that is done. An abort takes back what issues nothing yet; what has begun to issue goes on to its end.
//!
//! Always true: a step is taken only where each machine has taken the one before it, or gets all of them when it is back; no machine is made
//! anew for it.

use agent_api::SILENT_AFTER;
use control_records::{EventKind, KeyStep, Phase};
use jiff::Timestamp;

use crate::{
    ConfigSeen, Draft, Machine, Presence, Reach, Subject, Write,
    checks::{Checks, Stage},
    feature::Feature,
    features::addons,
    view::{
        control_plane::healthy,
        etcd,
        machines::{member_index, staying},
    },
};

pub(crate) const FEATURE: Feature = Feature {
    act,
    checks,
    ..Feature::named("rotation")
};

fn act(draft: &mut Draft<'_>) {
    let Some(generation) = draft.seen.pki else {
        return;
    };
    let Some(step) = next(draft) else { return };
    if !draft.has_room(3) {
        return;
    }
    let told = told(&step);
    draft.wait(told);
    draft.tell(EventKind::Rotation, "", told);
    draft.write(Write::StepKeys { generation, step });
}

/// What people read of a step.
fn told(step: &KeyStep) -> &'static str {
    match step {
        KeyStep::TrustAuthorities { .. } => {
            "new certificate authorities are made, and trusted beside the old ones"
        }
        KeyStep::IssueFromNewAuthorities => "the new certificate authorities issue from now on",
        KeyStep::DropFormerAuthorities => "the old certificate authorities are trusted no more",
        KeyStep::WithdrawNewAuthorities { .. } => "the new certificate authorities are withdrawn",
        KeyStep::TrustServiceAccountKey { .. } => {
            "tokens of a new service account key are taken beside those of the old one"
        }
        KeyStep::SignWithNewServiceAccountKey { .. } => "the new service account key signs from now on",
        KeyStep::DropFormerServiceAccountKey => "tokens of the old service account key are taken no more",
        KeyStep::WithdrawNewServiceAccountKey { .. } => "the new service account key is withdrawn",
    }
}

/// The step that is due, if one is.
fn next(draft: &mut Draft<'_>) -> Option<KeyStep> {
    let wanted = draft.desired.spec().rotations;
    let seen = draft.seen;
    let (authorities, service_accounts) = (seen.rotation.authorities, seen.rotation.service_accounts);
    match authorities.phase {
        Phase::Trusted if wanted.certificates < authorities.begun => {
            let asked = wanted.certificates;
            return Some(KeyStep::WithdrawNewAuthorities { asked });
        }
        Phase::Trusted => {
            let since = everywhere(draft, "to issue certificates of the new authorities")?;
            return follows(draft, since).then_some(KeyStep::IssueFromNewAuthorities);
        }
        Phase::Issued => {
            let since = everywhere(draft, "to let the old certificate authorities go")?;
            let due = draft.after(since, draft.policy.former_certificates);
            if draft.now < due {
                draft.wait("waiting until clients have fetched certificates of the new authorities");
                draft.look_again_at(due);
                return None;
            }
            return Some(KeyStep::DropFormerAuthorities);
        }
        Phase::Done => {}
    }
    match service_accounts.phase {
        Phase::Trusted | Phase::Issued if wanted.service_account_keys < service_accounts.begun => {
            let asked = wanted.service_account_keys;
            return Some(KeyStep::WithdrawNewServiceAccountKey { asked });
        }
        Phase::Trusted | Phase::Issued => {
            everywhere(draft, "to sign with the new service account key")?;
            let until = crate::after(draft.now, draft.policy.former_tokens);
            return Some(KeyStep::SignWithNewServiceAccountKey { until });
        }
        Phase::Done => {}
    }
    if wanted.certificates > authorities.begun {
        everywhere(draft, "to make new certificate authorities known")?;
        let asked = wanted.certificates;
        return Some(KeyStep::TrustAuthorities { asked });
    }
    if wanted.service_account_keys > service_accounts.begun {
        everywhere(draft, "to make a new service account key known")?;
        let asked = wanted.service_account_keys;
        return Some(KeyStep::TrustServiceAccountKey { asked });
    }
    // No cluster is woken for it: the next look finds it.
    let until = seen.rotation.former_until?;
    (until <= draft.now).then_some(KeyStep::DropFormerServiceAccountKey)
}

/// When the last machine got what it is to be, where all have taken it. If not, that is waited for.
fn everywhere(draft: &mut Draft<'_>, what: &str) -> Option<Timestamp> {
    match last(draft) {
        Ok(at) => Some(at),
        Err(label) => {
            draft.wait(format!("waiting for {label}, {what}"));
            None
        }
    }
}

/// The same; else the machine that has not.
fn last(draft: &Draft<'_>) -> Result<Timestamp, String> {
    if etcd::pending(draft).is_some() {
        return Err("a restore".to_owned());
    }
    let frame = draft.frame().ok_or_else(|| "addresses".to_owned())?;
    let mut last: Option<Timestamp> = None;
    for (id, machine) in staying(draft) {
        let member = member_index(machine).is_some();
        let label = || machine.label().to_owned();
        if draft.seen.busy.contains(&Subject::Config(id.clone())) {
            return Err(label());
        }
        if !member && gets_it_later(machine) {
            continue;
        }
        let ConfigSeen::Published {
            generation,
            inputs,
            made_at,
            ..
        } = &machine.config
        else {
            return Err(label());
        };
        let runs = matches!(machine.presence, Presence::Running | Presence::Unknown);
        // Its own word: what is believed of a machine that has not spoken since the service began is not enough to go on by.
        let takes = machine
            .current_report()
            .is_some_and(|report| report.generation >= *generation);
        let is_so = *inputs == frame.config_inputs(&machine.record);
        if !is_so || runs && !takes || member && !(takes && healthy(machine)) {
            return Err(label());
        }
        last = last.max(Some(*made_at));
    }
    last.ok_or_else(|| "the control plane".to_owned())
}

/// Whether a node is configured before its programs begin, or begin again: whatever is a step by then, it has it. One that is silent is told so by
/// its agent, which needs none of the cluster's keys.
fn gets_it_later(node: &Machine) -> bool {
    node.record.healing.given_up()
        || node.config == ConfigSeen::Absent
        || node.contact.is_some_and(|contact| contact >= SILENT_AFTER)
}

/// Whether what the cluster publishes of the CAs that machines trust since then has reached its pods, as far as can be done for it: add-ons
/// begin anew once it is published, and the files of all others are written within a time.
fn follows(draft: &mut Draft<'_>, since: Timestamp) -> bool {
    let published = draft.after(since, draft.policy.publish_pause);
    let known = draft.after(since, draft.policy.trust_pause);
    draft.wait("waiting until the cluster's pods know the new certificate authorities");
    if draft.now < published {
        draft.look_again_at(published);
        return false;
    }
    let api = &draft.seen.api;
    let applied = api.addons.as_ref().is_some_and(|applied| applied.at >= published);
    if api.reach != Reach::Ready {
        return false;
    }
    if !applied {
        draft.act_quietly(addons::apply(draft));
        return false;
    }
    if draft.now < known {
        draft.look_again_at(known);
        return false;
    }
    true
}

fn checks(draft: &Draft<'_>, checks: &mut Checks) {
    let wanted = draft.desired.spec().rotations;
    let rotation = &draft.seen.rotation;
    let turn = rotation.authorities;
    if turn.phase != Phase::Done || wanted.certificates > turn.begun {
        for (what, done) in [
            (
                "making new certificate authorities known",
                turn.phase == Phase::Issued,
            ),
            ("issuing certificates of the new authorities", false),
            ("letting the old certificate authorities go", false),
        ] {
            checks.cluster(Stage::Foundation, what, done);
        }
    }
    let turn = rotation.service_accounts;
    if turn.phase != Phase::Done || wanted.service_account_keys > turn.begun {
        for what in [
            "making a new service account key known",
            "signing with the new service account key",
        ] {
            checks.cluster(Stage::Foundation, what, false);
        }
    }
}
