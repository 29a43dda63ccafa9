//! A restore of the cluster's state, once it is wished for.
//!
//! The wish is part of what control plane members are configured with: etcd's own program restores before it starts, and the
//! programs that remember what etcd held start anew. When an API server serves the restored state, that is observed; this
//! is part of what nodes are configured with: kubelets register their nodes again and look anew at what is to run. Then the
//! add-ons are applied to what is there now, and nodes that the restored state knows and nobody else go.

use agent_protocol::beside::EtcdStatus;
use cluster_spec::RestoreSpec;

use super::{Draft, Effect, Machine, Reach, addons_inputs, heal::ETCD, members, reach::in_force};

/// When the restored state was seen to serve.
const RESTORED: &str = "restored";

pub(super) fn plan(draft: &mut Draft<'_>) {
    let Some(restore) = &draft.desired.spec.restore else {
        return;
    };
    if draft.observed.restored.as_ref() == Some(&restore.id) {
        settle(draft);
        return;
    }
    if serves(draft, restore) {
        draft.observed.restored = Some(restore.id.clone());
        draft.observed.milestones.insert(RESTORED.to_owned(), draft.now);
        // Nodes are configured next.
        draft.unfinished = true;
    } else {
        draft.wait("restoring the state from the backup");
    }
}

/// Whether an API server answers with the restored state.
fn serves(draft: &Draft<'_>, restore: &RestoreSpec) -> bool {
    let api = &draft.seen.api;
    let looked = api.reach == Reach::Ready && api.looked >= api.change;
    looked
        && members::staying(draft).iter().any(|(_, member)| {
            in_force(draft, member)
                && member.api_server_ready() == Some(true)
                && restored(member).is_some_and(|id| id == restore.id)
        })
}

/// Where a member's etcd says that its data comes from.
fn restored(member: &Machine) -> Option<String> {
    let status = member.report.as_ref()?.processes.get(ETCD)?.status.clone()?;
    serde_json::from_value::<EtcdStatus>(status).ok()?.restored
}

/// What is to be done with the restored state before it counts.
fn settle(draft: &mut Draft<'_>) {
    if draft.reached_before() || draft.seen.api.reach != Reach::Ready {
        return;
    }
    let since = draft.observed.milestones.get(RESTORED).copied();
    let applied = draft.seen.api.addons.as_ref().map(|addons| addons.at);
    if applied.zip(since).is_some_and(|(applied, since)| applied < since) {
        let inputs = addons_inputs(&draft.desired.spec);
        draft.act(Effect::ApplyAddons { inputs }, "installing add-ons");
    }
    let seen = draft.seen;
    for node in &seen.api.nodes {
        let known = seen
            .machines
            .values()
            .any(|machine| machine.node_name() == Some(node.name.as_str()));
        // Only those that Landfall once made: no machine stands behind them any more.
        if !known && node.name.starts_with("aks-") {
            let why = format!("removing node {}, which has no machine any more", node.name);
            draft.act(Effect::DeleteNode(node.name.clone()), why);
        }
    }
}
