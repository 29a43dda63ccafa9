//! The VNET with its subnets and routes, those to other clusters' nodes in a tenant's VNET among them, the rules of security groups that
//! a tenant's subnets go by, and the addresses of load balancers.

use std::sync::Arc;

use cluster_spec::{ClusterSpec, PodNetworking};
use control_records::Role;
use fabric_api::RouteSpec;

use crate::{
    Draft, FabricEffect, Machine, NetworkLayout, NetworkSeen, Subject,
    checks::{Checks, Stage},
    feature::Feature,
    view::rotation,
};

pub(crate) const FEATURE: Feature = Feature {
    act,
    checks,
    ..Feature::named("network")
};

fn act(draft: &mut Draft<'_>) {
    if draft.leased().is_none() || draft.waits_for_look() {
        return;
    }
    let spec = draft.desired.spec();
    let mut routes = routes(spec, draft.seen.machines.values());
    routes.extend(draft.seen.kept.routes.iter().cloned());
    routes.extend(draft.seen.neighbours.routes.iter().cloned());
    routes.sort();
    routes.dedup();
    let subnets = spec.network.vnet.iter().flat_map(|vnet| &vnet.subnets);
    let subnets: Vec<_> = subnets.copied().collect();
    // What goes for a subnet that none of its nodes is in does not concern it.
    let guards = draft.seen.guards.iter();
    let guards = guards.filter(|(range, _)| subnets.contains(range));
    let (balancers, kept_balancers) = rotation::balancers(draft);
    let wanted = NetworkLayout {
        balancers,
        kept_balancers,
        guards: guards.map(|(range, rules)| (*range, Arc::clone(rules))).collect(),
        subnets,
        routes,
    };
    match &draft.seen.network {
        NetworkSeen::Made(made) if *made == wanted => {}
        // Who gets new connections changes all the time.
        NetworkSeen::Made(made) if differs_in_balancers_only(made, &wanted) => {
            draft.act_quietly(FabricEffect::EnsureNetwork(wanted));
        }
        seen => {
            let unknown = *seen == NetworkSeen::Unknown;
            draft.act_or_adopt(unknown, FabricEffect::EnsureNetwork(wanted), "making the network");
        }
    }
}

fn differs_in_balancers_only(made: &NetworkLayout, wanted: &NetworkLayout) -> bool {
    (&made.subnets, &made.routes, &made.guards) == (&wanted.subnets, &wanted.routes, &wanted.guards)
}

fn checks(draft: &Draft<'_>, checks: &mut Checks) {
    let made = match &draft.seen.network {
        NetworkSeen::Made(_) => draft.is_quiet(&Subject::Network),
        NetworkSeen::Unknown => draft.reached_before(),
        NetworkSeen::Gone => false,
    };
    checks.cluster(Stage::Foundation, "making the network", made);
}

/// The route table: each node's pods by way of the node, where pods have ranges of their own.
pub fn routes<'m>(spec: &ClusterSpec, machines: impl IntoIterator<Item = &'m Machine>) -> Vec<RouteSpec> {
    if !matches!(
        spec.network.plugin,
        PodNetworking::Kubenet | PodNetworking::AzureOverlay
    ) {
        return Vec::new();
    }
    let mut routes: Vec<_> = machines
        .into_iter()
        .filter_map(|machine| match machine.role()? {
            Role::Node {
                address,
                pod_range: Some(range),
                ..
            } => Some(RouteSpec {
                to: *range,
                via: *address,
            }),
            _ => None,
        })
        .collect();
    routes.sort();
    routes
}
