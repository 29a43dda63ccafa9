//! Load balancers of Kubernetes Services: from a Service to an address that leads to its nodes, and back.
//!
//! | step | coming | going |
//! |---|---|---|
//! | 1 | the Service gets the finalizer | the network lets go of the address |
//! | 2 | an address is written down, with its lease | the record goes, and with it the lease |
//! | 3 | the network has the address | the Service's status is empty, and it loses the finalizer |
//! | 4 | the Service's status tells of it | |
//!
//! A Service that is no more of the type is not found by looking: it loses status and finalizer before the record goes, which is all that
//! tells of it. What the network has is said by `view::rotation`.
//!
//! Several Services of a cluster have the same public IP address of a tenant, if each port of it is one's: then the address is theirs as long
//! as one of them is there.
//!
//! Always true: a record goes only once no network has its address for it, nor may get it by what is under way; what a Service asks for and cannot
//! get is told to its owner, once, and keeps nobody else waiting. Services are their tenants': whether a cluster is what it is to be does
//! not depend on them, so nothing here is a check.

mod places;

use std::time::Duration;

use cluster_api::{Ingress, Note, ServiceWish};
use cluster_balancers::{PublicName, Wish};
use control_records::balancer::BalancerRecord;

use fabric_api::Balancer;

use crate::{
    ApiEffect, Draft, NetworkSeen, Observation, Reach, Subject, Write,
    feature::Feature,
    view::rotation::{clash_of, wish_of},
};

use places::assign;

/// A Service that gets no address is looked at again after this.
const RETRY: Duration = Duration::from_secs(60);

pub(crate) const FEATURE: Feature = Feature {
    record,
    act,
    ..Feature::named("balancers")
};

fn record(draft: &mut Draft<'_>) {
    let seen = draft.seen;
    let Some(wishes) = known(seen) else {
        return;
    };
    let mut left = seen.balancers.len();
    for record in &seen.balancers {
        let listed = wishes.iter().any(|wish| wish.uid == record.uid);
        let let_go = listed || seen.api.released.contains(&record.uid);
        if wish_of(record, wishes).is_none() && is_free(seen, wishes, record) && let_go && draft.has_room(3) {
            draft.write(Write::ForgetBalancer(record.uid.clone()));
            left -= 1;
        }
    }
    for (wish, place) in assign(draft, wishes) {
        let Ok(place) = place else { continue };
        if !draft.has_room(3) {
            break;
        }
        draft.write(Write::RecordBalancer {
            uid: wish.uid.clone(),
            namespace: wish.namespace.clone(),
            name: wish.name.clone(),
            address: place.address,
            internal: wish.internal,
            public: place.public,
            asked: wish.public.as_ref().map(PublicName::text),
        });
        left += 1;
    }
    draft.observed.balanced = left > 0;
}

/// What the cluster's Services ask for, while the cluster answers.
fn known(seen: &Observation) -> Option<&[Wish]> {
    let wishes = seen.api.services.as_deref();
    wishes.filter(|_| seen.api.reach == Reach::Ready)
}

/// Whether no network has a load balancer's address for it, or is about to get it.
fn is_free(seen: &Observation, wishes: &[Wish], record: &BalancerRecord) -> bool {
    // Others that stay have it.
    let shared = seen.balancers.iter().any(|other| {
        other.uid != record.uid && other.address == record.address && wish_of(other, wishes).is_some()
    });
    match &seen.network {
        NetworkSeen::Made(layout) => {
            (shared || !layout.balances(record.address)) && !seen.busy.contains(&Subject::Network)
        }
        NetworkSeen::Gone => true,
        NetworkSeen::Unknown => false,
    }
}

fn act(draft: &mut Draft<'_>) {
    let seen = draft.seen;
    let Some(wishes) = known(seen) else {
        return;
    };
    let refused: Vec<_> = assign(draft, wishes)
        .into_iter()
        .filter_map(|(wish, address)| Some((wish.uid.as_str(), address.err()?)))
        .collect();
    if !refused.is_empty() {
        // Whoever gives an address back knows nothing of who waits for it.
        draft.look_again_at(draft.after(draft.now, RETRY));
    }
    for wish in wishes {
        let record = seen.balancers.iter().find(|record| record.uid == wish.uid);
        let why = refused
            .iter()
            .find(|(uid, _)| *uid == wish.uid)
            .map(|(_, why)| why);
        let record = record.map(|record| &**record);
        let clash = record.and_then(|record| clash_of(record, &seen.balancers, wishes));
        if let Some(next) = next(seen, wish, record, why.or(clash.as_ref())) {
            draft.act_quietly(ApiEffect::SetService(next));
        }
    }
    for record in &seen.balancers {
        let listed = wishes.iter().any(|wish| wish.uid == record.uid);
        if !listed && !seen.api.released.contains(&record.uid) && is_free(seen, wishes, record) {
            draft.act_quietly(ApiEffect::SetService(ServiceWish {
                namespace: record.namespace.clone(),
                name: record.name.clone(),
                uid: record.uid.clone(),
                finalizer: Some(false),
                ingress: Ingress::Nothing,
                note: None,
            }));
        }
    }
}

/// What is to be written to a Service next.
fn next(
    seen: &Observation,
    wish: &Wish,
    record: Option<&BalancerRecord>,
    no_address: Option<&String>,
) -> Option<ServiceWish> {
    let write = |finalizer, ingress, note| ServiceWish {
        namespace: wish.namespace.clone(),
        name: wish.name.clone(),
        uid: wish.uid.clone(),
        finalizer,
        ingress,
        note,
    };
    if wish.deleting {
        let note = note(false, "DeletedLoadBalancer", "Deleted load balancer");
        return (wish.finalizer && record.is_none())
            .then(|| write(Some(false), Ingress::Nothing, Some(note)));
    }
    if let Some(why) = wish.refusal.as_ref().or(no_address) {
        // An address that is written down is kept for it; any other may be somebody else's by now.
        let ingress = match record {
            Some(_) => Ingress::AsItIs,
            None => Ingress::Nothing,
        };
        let told = seen.api.told.get(&wish.uid) == Some(why);
        let done = told && (record.is_some() || wish.shown.is_none());
        let note = note(true, "SyncLoadBalancerFailed", why);
        return (!done).then(|| write(None, ingress, Some(note)));
    }
    if !wish.finalizer {
        let note = note(false, "EnsuringLoadBalancer", "Ensuring load balancer");
        return Some(write(Some(true), Ingress::AsItIs, Some(note)));
    }
    let address = record?.address;
    let serves = match &seen.network {
        NetworkSeen::Made(layout) => layout
            .balancers
            .iter()
            .any(|balancer| balancer.address == address && is_for(balancer, wish)),
        NetworkSeen::Unknown | NetworkSeen::Gone => false,
    };
    if !serves || wish.shown == Some(address) {
        return None;
    }
    let mut message = "Ensured load balancer".to_owned();
    if !wish.notes.is_empty() {
        message = format!("{message}; {}", wish.notes.join("; "));
    }
    Some(write(
        Some(true),
        Ingress::At(address),
        Some(note(false, "EnsuredLoadBalancer", &message)),
    ))
}

/// Whether a load balancer at a Service's address is for its ports.
fn is_for(balancer: &Balancer, wish: &Wish) -> bool {
    let mut ports = balancer.ports.iter();
    ports.any(|port| {
        let mut own = wish.ports.iter();
        own.any(|own| own.protocol == port.protocol && own.port == port.port)
    })
}

fn note(warning: bool, reason: &'static str, message: &str) -> Note {
    Note {
        warning,
        reason,
        message: message.to_owned(),
    }
}

/// Gives the addresses of a cluster back of which nothing is left. Whether there were any.
pub(crate) fn forget_all(draft: &mut Draft<'_>) -> bool {
    let seen = draft.seen;
    let mut left = seen.balancers.len();
    for record in &seen.balancers {
        if draft.has_room(3) {
            draft.write(Write::ForgetBalancer(record.uid.clone()));
            left -= 1;
        }
    }
    draft.observed.balanced = left > 0;
    !seen.balancers.is_empty()
}
