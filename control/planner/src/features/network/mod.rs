//! The VNET and its routes.

use cluster_spec::{ClusterSpec, PodNetworking};
use control_records::Role;
use fabric_api::RouteSpec;

use crate::{
    Draft, FabricEffect, Machine, NetworkSeen, Subject,
    checks::{Checks, Stage},
    feature::Feature,
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
    let mut wanted = routes(draft.desired.spec(), draft.seen.machines.values());
    wanted.extend(draft.seen.kept.routes.iter().cloned());
    wanted.sort();
    wanted.dedup();
    if draft.seen.network != NetworkSeen::Made(wanted.clone()) {
        let unknown = draft.seen.network == NetworkSeen::Unknown;
        draft.act_or_adopt(unknown, FabricEffect::EnsureNetwork(wanted), "making the network");
    }
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
