//! Managed namespaces: what their records say is brought about in the cluster, put right where it was changed there, and given up.
//!
//! | record | in the cluster | then |
//! |---|---|---|
//! | new, changed | it is made, taken over, or not (the adoption policy) | observed says which, and the operation ends |
//! | | it differs from the record | put right, after a pause |
//! | to go | it stays or goes (the delete policy); what is somebody else's stays | the record goes |
//!
//! Credentials of a namespace are granted with it: a binding in it.
//!
//! Always true: namespaces are their tenants': whether a cluster is what it is to be does not depend on them, so nothing here is a check; one that
//! cannot be keeps nobody else waiting. A cluster that stands still keeps the records, and they count from its start.

mod operations;

use std::time::Duration;

use cluster_api::{NamespaceSeen, NamespaceWish};
use control_records::namespace::{NamespaceRecord, NamespaceState};

use crate::{ApiEffect, Draft, NamespaceSet, Reach, feature::Feature, messages};

pub(crate) use operations::plan as plan_operations;

pub(crate) const FEATURE: Feature = Feature {
    act,
    ..Feature::named("namespaces")
};

/// One that is being deleted is looked at again after this.
const RETRY: Duration = Duration::from_secs(1);
/// They are compared with the cluster at most this often…
const PAUSE: Duration = Duration::from_secs(2);
/// …and not more often than this for each of them: a comparison is a handful of requests.
const PAUSE_EACH: Duration = Duration::from_millis(300);
/// Characters of a problem that are kept.
const MOST_CHARS: usize = 600;

fn act(draft: &mut Draft<'_>) {
    let seen = draft.seen;
    let known = |name: &String, state: &mut NamespaceState| {
        let mut records = seen.namespaces.iter();
        records.any(|record| record.name == *name && record.id == state.id)
    };
    draft.observed.namespaces.retain(known);
    // While nobody answers, they wait.
    if seen.api.reach == Reach::Ready {
        for record in &seen.namespaces {
            bring(draft, record);
        }
    }
    grant(draft);
}

/// What is to be in the cluster.
fn wish(draft: &Draft<'_>, record: &NamespaceRecord) -> NamespaceWish {
    let off = draft.desired.spec().disable_local_accounts || record.deleting;
    let credentials = draft.seen.credentials.iter();
    let users = credentials.filter(|credential| {
        !off && credential.namespace.as_ref() == Some(&record.name) && credential.is_good(draft.now)
    });
    NamespaceWish {
        name: record.name.clone(),
        id: record.id.clone(),
        generation: record.wished,
        spec: record.spec.clone(),
        held: record
            .state(&draft.observed.namespaces)
            .is_some_and(|state| state.held),
        released: record.deleting,
        users: users.map(|credential| credential.id.clone()).collect(),
    }
}

/// What became of the record's wish when it was tried last, if it is still the same wish.
fn tried<'a>(draft: &Draft<'a>, wish: &NamespaceWish) -> Option<&'a NamespaceSet> {
    let since = draft.observed.restored.as_ref().map(|restored| restored.at);
    let set = draft.seen.api.namespaces.get(&wish.name)?;
    // What the cluster holds may have been set back since.
    let older = since.is_some_and(|since| set.at < since);
    (set.wish.asks_the_same(wish) && !older).then_some(set)
}

fn bring(draft: &mut Draft<'_>, record: &NamespaceRecord) {
    let wish = wish(draft, record);
    let Some(set) = tried(draft, &wish) else {
        draft.act_quietly(ApiEffect::SetNamespace(wish));
        return;
    };
    let pause = match &set.seen {
        NamespaceSeen::Set => {
            conclude(draft, record, true, None);
            None
        }
        NamespaceSeen::Refused(why) => {
            conclude(draft, record, false, Some(messages::cut(why, MOST_CHARS)));
            None
        }
        NamespaceSeen::Going(_) => Some(RETRY),
        NamespaceSeen::Released => {
            operations::forget(draft, record);
            return;
        }
    };
    let changed = set.change < draft.seen.api.change;
    let count = u32::try_from(draft.seen.namespaces.len()).unwrap_or(u32::MAX);
    let pause = match pause {
        Some(pause) => pause,
        None if changed => PAUSE.max(PAUSE_EACH.saturating_mul(count)),
        None => return,
    };
    let due = draft.after(set.at, pause);
    if due <= draft.now {
        draft.act_quietly(ApiEffect::SetNamespace(wish));
    } else {
        draft.look_again_at(due);
    }
}

/// Notes what has become of a namespace.
fn conclude(draft: &mut Draft<'_>, record: &NamespaceRecord, held: bool, problem: Option<String>) {
    let before = record.state(&draft.observed.namespaces);
    let state = NamespaceState {
        id: record.id.clone(),
        held: held || before.is_some_and(|before| before.held),
        wished: record.wished,
        problem,
    };
    draft.observed.namespaces.insert(record.name.clone(), state);
}

/// Notes which credentials of namespaces work. Where nobody has looked yet, those that did.
fn grant(draft: &mut Draft<'_>) {
    let seen = draft.seen;
    for credential in &seen.credentials {
        let Some(namespace) = &credential.namespace else {
            continue;
        };
        let id = &credential.id;
        let there = seen.namespaces.iter().any(|record| record.name == *namespace);
        let granted = match seen.api.namespaces.get(namespace) {
            _ if !there => false,
            Some(set) if set.seen == NamespaceSeen::Set => set.wish.users.contains(id),
            Some(_) | None => seen.observed.credentials.contains(id),
        };
        if granted {
            draft.observed.credentials.insert(id.clone());
        } else {
            draft.observed.credentials.remove(id);
        }
    }
}
