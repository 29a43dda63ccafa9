//! The autoscaler's output for users: the status in upstream's format, and events of pods and nodes.

use std::collections::BTreeSet;

use cluster_api::{Note, WorkEvent};

use crate::model::{Decision, Memory, Outcome, State};

/// The status of a pool that grows.
const IN_PROGRESS: &str = "InProgress";

/// The value of the key `status` of the ConfigMap `kube-system/cluster-autoscaler-status`: upstream's fields
/// without its timestamps, so that it is unchanged unless the state changes.
pub fn status(state: State<'_>, decision: &Decision) -> String {
    let ready: BTreeSet<&str> = state
        .work
        .nodes
        .iter()
        .filter(|node| node.ready)
        .map(|node| node.name.as_str())
        .collect();
    let there: BTreeSet<&str> = state.work.nodes.iter().map(|node| node.name.as_str()).collect();
    let health = if decision.unhealthy {
        "Unhealthy"
    } else {
        "Healthy"
    };
    let mut groups = String::new();
    let (mut all, mut all_ready, mut all_candidates) = (0, 0, 0);
    let mut growing = "NoActivity";
    for pool in state.pools {
        let registered = pool
            .nodes
            .keys()
            .filter(|name| there.contains(name.as_str()))
            .count();
        let own_ready = pool
            .nodes
            .keys()
            .filter(|name| ready.contains(name.as_str()))
            .count();
        let unneeded = &decision.memory.unneeded;
        let candidates = pool
            .nodes
            .keys()
            .filter(|name| unneeded.contains_key(*name))
            .count();
        let own_growth = growth(&decision.memory, &pool.name);
        if own_growth == IN_PROGRESS {
            growing = own_growth;
        }
        (all, all_ready) = (all + registered, all_ready + own_ready);
        all_candidates += candidates;
        let size = decision.sizes.get(&pool.name).copied().unwrap_or(pool.count);
        groups.push_str(&format!(
            "- name: {}\n  health:\n    status: {health}\n    nodeCounts:\n      registered:\n        total: {registered}\n        \
             ready: {own_ready}\n        notStarted: {}\n    cloudProviderTarget: {size}\n    minSize: {}\n    maxSize: {}\n  scaleUp:\n    \
             status: {own_growth}\n  scaleDown:\n    status: {}\n    candidates: {candidates}\n",
            pool.name,
            registered - own_ready,
            pool.min,
            pool.max,
            present(candidates),
        ));
    }
    format!(
        "autoscalerStatus: Running\nclusterWide:\n  health:\n    status: {health}\n    nodeCounts:\n      registered:\n        total: {all}\n        \
         ready: {all_ready}\n        notStarted: {}\n  scaleUp:\n    status: {growing}\n  scaleDown:\n    status: {}\n    candidates: \
         {all_candidates}\nnodeGroups:\n{groups}",
        all - all_ready,
        present(all_candidates),
    )
}

fn growth(memory: &Memory, pool: &str) -> &'static str {
    if memory.growing.contains_key(pool) {
        IN_PROGRESS
    } else if memory.backoff.contains_key(pool) {
        "Backoff"
    } else {
        "NoActivity"
    }
}

fn present(candidates: usize) -> &'static str {
    if candidates > 0 {
        "CandidatesPresent"
    } else {
        "NoCandidates"
    }
}

/// Events of a decision: of unschedulable pods, and of unneeded nodes that are being removed (`going`).
pub fn events(state: State<'_>, decision: &Decision, going: &BTreeSet<String>) -> Vec<WorkEvent> {
    let pods = decision.verdicts.iter().filter_map(|verdict| {
        let pod = &state.work.pods[verdict.pod];
        let (reason, message) = match &verdict.outcome {
            Outcome::Comes(pool) => {
                let growth = decision.memory.growing.get(pool)?;
                let max = state.pools.iter().find(|own| own.name == *pool)?.max;
                let (from, to) = (growth.from, growth.to);
                (
                    "TriggeredScaleUp",
                    format!("pod triggered scale-up: [{{{pool} {from}->{to} (max: {max})}}]"),
                )
            }
            Outcome::Nowhere(reasons) => {
                let all: Vec<String> = reasons
                    .iter()
                    .map(|(why, pools)| format!("{pools} {why}"))
                    .collect();
                (
                    "NotTriggerScaleUp",
                    format!("pod didn't trigger scale-up: {}", all.join(", ")),
                )
            }
            Outcome::Fits | Outcome::NotYet => return None,
        };
        Some(WorkEvent {
            kind: "Pod",
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            version: pod.version.clone(),
            note: Note {
                warning: false,
                reason,
                message,
            },
        })
    });
    let nodes = state.work.nodes.iter().filter(|node| going.contains(&node.name));
    let nodes = nodes.map(|node| WorkEvent {
        kind: "Node",
        namespace: String::new(),
        name: node.name.clone(),
        uid: node.uid.clone(),
        version: node.version.clone(),
        note: Note {
            warning: false,
            reason: "ScaleDown",
            message: "node removed by cluster autoscaler".to_owned(),
        },
    });
    pods.chain(nodes).collect()
}
