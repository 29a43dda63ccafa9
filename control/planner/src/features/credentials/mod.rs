//! Credentials that were handed out, and principals that are trusted with a cluster: what is granted in it is what their records say, and
//! nothing else.
//!
//! Each has a binding of its own in the cluster. One that is taken back loses it as soon as anybody answers there; one that has ended by
//! itself is refused by its certificate, and its binding goes with the next look. Those of support tickets are the exception: what they share in
//! the cluster is to be there for their time only, so the cluster is looked at when the last of them ends, and the record goes after that.

use cluster_spec::CredentialKind;
use control_records::{ChildRecord, credential::CredentialRecord};

use crate::{
    ApiEffect, CredentialsWish, Draft, Reach, Subject, TrustedGrant, Write, checks::Checks, feature::Feature,
};

pub(crate) const FEATURE: Feature = Feature {
    record,
    act,
    checks,
    ..Feature::named("credentials")
};

/// What a trusted access role binding gives; `None` for one that binds nobody.
fn trusted_grant(record: &ChildRecord) -> Option<TrustedGrant> {
    let roles = record.properties["roles"].as_array().into_iter().flatten();
    Some(TrustedGrant {
        principal: record.principal.clone()?,
        roles: roles
            .filter_map(|role| role.as_str().map(str::to_owned))
            .collect(),
        changed_at: record.system_data.modified_at,
    })
}

/// Whether it is of a support ticket.
fn is_support(record: &CredentialRecord) -> bool {
    record.kind == CredentialKind::Support
}

fn wish(draft: &Draft<'_>) -> CredentialsWish {
    let off = draft.desired.spec().disable_local_accounts;
    let mut wish = CredentialsWish::default();
    for record in &draft.seen.credentials {
        let ended = record.has_expired(draft.now);
        // Those of a namespace are granted with it.
        if record.namespace.is_some() || (ended && !is_support(record)) {
            continue;
        }
        // A tenant's consent is no local account.
        let off = off && !is_support(record);
        let of = if ended || off || record.revoked.is_some() {
            &mut wish.withdrawn
        } else {
            &mut wish.granted
        };
        of.insert(record.id.clone(), record.kind);
    }
    for record in &draft.seen.trusted {
        if let Some(grant) = trusted_grant(record) {
            wish.trusted.insert(record.name.to_ascii_lowercase(), grant);
        }
    }
    wish
}

/// Where local accounts are off, whatever was handed out is taken back for good: it does not come back with them.
fn record(draft: &mut Draft<'_>) {
    if !draft.desired.spec().disable_local_accounts {
        return;
    }
    let seen = draft.seen;
    for record in &seen.credentials {
        if record.is_good(draft.now) && !is_support(record) && draft.has_room(2) {
            draft.write(Write::RevokeCredential(record.id.clone()));
        }
    }
}

fn act(draft: &mut Draft<'_>) {
    let seen = draft.seen;
    if seen.api.reach != Reach::Ready {
        return;
    }
    let wish = wish(draft);
    match &seen.api.credentials {
        Some(set) if set.wish == wish && !is_older_than_restore(draft) => {
            if set.change < seen.api.change {
                let due = draft.after(set.at, draft.policy.addons_pause);
                if due <= draft.now {
                    draft.act_quietly(ApiEffect::SetCredentials(wish));
                } else {
                    draft.look_again_at(due);
                }
            }
        }
        _ => draft.act_quietly(ApiEffect::SetCredentials(wish)),
    }
    if let Some(set) = &seen.api.credentials {
        draft.observed.credentials = set.wish.granted.keys().cloned().collect();
        let trusted = set.wish.trusted.iter();
        draft.observed.trusted = trusted
            .map(|(name, grant)| (name.clone(), grant.changed_at))
            .collect();
    }
    for record in &seen.credentials {
        if is_support(record) && record.is_good(draft.now) {
            draft.look_again_at(record.expires_at);
        }
        let over = record.has_expired(draft.now)
            && !seen.observed.credentials.contains(&record.id)
            && (!is_support(record) || is_taken_away(draft, &record.id));
        if over && draft.has_room(2) {
            draft.write(Write::ForgetCredential(record.id.clone()));
        }
    }
}

/// Whether what a credential of a ticket gave is gone from the cluster, for all that this service knows: a former one may have died in between.
fn is_taken_away(draft: &Draft<'_>, id: &str) -> bool {
    let set = draft.seen.api.credentials.as_ref();
    set.is_some_and(|set| set.wish.withdrawn.contains_key(id)) && !is_older_than_restore(draft)
}

/// Whether what the cluster holds was set back since credentials were granted in it.
fn is_older_than_restore(draft: &Draft<'_>) -> bool {
    let since = draft.observed.restored.as_ref().map(|restored| restored.at);
    let set = draft.seen.api.credentials.as_ref().map(|set| set.at);
    set.zip(since).is_some_and(|(set, since)| set < since)
}

fn checks(draft: &Draft<'_>, checks: &mut Checks) {
    let set = match &draft.seen.api.credentials {
        Some(set) => set.wish == wish(draft) && !is_older_than_restore(draft),
        None => draft.reached_before(),
    };
    let granted = set && draft.is_quiet(&Subject::Credentials);
    checks.routine("granting credentials", granted);
}
