//! Another version of Kubernetes: the control plane first, with all its objects; then nodes, while workloads
//! go on.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{
    GROUP, aks, dns, guide, joined,
    pools::{nodepool, upgrade_fails},
    text, ways_back,
    workload::{BUSYBOX, Cluster},
};
use crate::{
    clients::{Az, run},
    journal::{Journal, wait_for},
    stamp::Stamp,
};

/// The guide whose commands are run unchanged.
const GUIDE: &str = include_str!("../../../docs/guides/upgrades.md");
/// The pool whose node cannot be drained.
const HELD: &str = "held";

/// The newest version that the cluster is offered.
pub(super) fn offered(az: &Az, cluster: &str) -> Result<String> {
    let profile = aks(az, &["get-upgrades"], cluster, &[])?;
    let upgrades = profile["controlPlaneProfile"]["upgrades"].as_array();
    let newest = upgrades.and_then(|upgrades| upgrades.last());
    text(
        newest.with_context(|| format!("nothing is offered: {profile}"))?,
        "/kubernetesVersion",
    )
    .map(str::to_owned)
}

pub(super) fn walk(journal: &Journal, stamp: &Stamp, az: &Az, cluster: &Cluster) -> Result<()> {
    let kubectl = &cluster.kubectl;
    let (from, to) = journal.step("upgrade", "az aks get-upgrades offers a newer version", || {
        let shown = aks(az, &["show"], cluster.name, &[])?;
        let from = text(&shown, "/currentKubernetesVersion")?.to_owned();
        Ok((from, offered(az, cluster.name)?))
    })?;
    ways_back::control_plane(journal, stamp, az, cluster, (&*from, &*to))?;
    let marker = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "before-the-upgrade" }, "data": { "answer": "42" },
    });
    cluster.apply(&marker)?;
    journal.step(
        "upgrade",
        "coredns-custom adds a name to the cluster's DNS",
        || dns::custom(cluster),
    )?;
    journal.step(
        "upgrade",
        "az aks upgrade --control-plane-only: the API serves it, what is in it and what runs stays",
        || {
            let pods = pods(cluster)?;
            let nodes = kubelets(cluster)?;
            let more = ["--kubernetes-version", &to, "--control-plane-only", "--yes"];
            let answer = journal.timed("control plane", "upgraded after", || {
                aks(az, &["upgrade"], cluster.name, &more)
            })?;
            ensure!(answer["currentKubernetesVersion"] == *to, "{answer}");
            ensure!(answer["provisioningState"] == "Succeeded", "{answer}");
            let version = kubectl.json(&["version"])?;
            ensure!(
                version["serverVersion"]["gitVersion"] == format!("v{to}"),
                "{version}"
            );
            let marker = kubectl.json(&["get", "configmap", "before-the-upgrade"])?;
            ensure!(marker["data"]["answer"] == "42", "{marker}");
            ensure!(
                kubelets(cluster)? == nodes,
                "nodes are not touched: {:?}",
                kubelets(cluster)?
            );
            ensure!(
                self::pods(cluster)? == pods,
                "pods are not touched: {:?}",
                self::pods(cluster)?
            );
            Ok(())
        },
    )?;
    journal.step(
        "upgrade",
        "a control plane does not go back, and az says why",
        || {
            let said = az.fails(&[
                "aks",
                "upgrade",
                "--resource-group",
                GROUP,
                "--name",
                cluster.name,
                "--kubernetes-version",
                &from,
                "--yes",
            ])?;
            ensure!(said.contains("cannot go back"), "az says: {said}");
            Ok(())
        },
    )?;
    journal.step(
        "upgrade",
        "the name of coredns-custom outlives the upgrade; a broken coredns-custom takes no name away",
        || {
            dns::answered(cluster)?;
            dns::break_custom(cluster)?;
            dns::answered(cluster)
        },
    )?;
    held(journal, stamp, az, cluster, (&*from, &*to))?;
    journal.step(
        "upgrade",
        "az aks nodepool upgrade: each node is replaced, the Deployment is available throughout",
        || {
            let before = kubelets(cluster)?.len();
            let least = available_while(cluster, || {
                let more = ["--kubernetes-version", &to, "--yes"];
                let pool = journal.timed("two nodes", "upgraded after", || {
                    nodepool(az, "upgrade", cluster, "nodepool1", &more)
                })?;
                ensure!(pool["currentOrchestratorVersion"] == *to, "{pool}");
                ensure!(pool["provisioningState"] == "Succeeded", "{pool}");
                Ok(())
            })?;
            ensure!(least >= 1, "{least} replicas were available at the worst");
            let after = kubelets(cluster)?;
            ensure!(after.len() == before, "{after:?}");
            let new = format!("v{to}");
            ensure!(after.iter().all(|(_, version)| *version == new), "{after:?}");
            wait_for("all replicas", Duration::from_secs(180), || {
                let web = kubectl.json(&["get", "deployment", "web"])?;
                ensure!(
                    web["status"]["availableReplicas"] == web["spec"]["replicas"],
                    "{}",
                    web["status"]
                );
                Ok(())
            })
        },
    )?;
    journal.step(
        "upgrade",
        "new nodes: names are answered still, the broken coredns-custom is told of, and mended",
        || {
            dns::answered(cluster)?;
            dns::told_and_mended(stamp, cluster)
        },
    )
}

/// A pool whose only node cannot be drained: the guide's plan reports it before, the upgrade ends at it with the reason, and a repeated request
/// completes it.
fn held(
    journal: &Journal,
    stamp: &Stamp,
    az: &Az,
    cluster: &Cluster,
    (from, to): (&str, &str),
) -> Result<()> {
    let [plan, settings] = guide::exactly::<2>(GUIDE)?;
    let kubectl = &cluster.kubectl;
    let follow = |script: &str| {
        let variables = [
            ("GROUP", GROUP),
            ("CLUSTER", cluster.name),
            ("POOL", HELD),
            ("VERSION", to),
            ("MINUTES", "1"),
        ];
        run(&mut guide::with_landfall(stamp, az, &variables, script)?)
    };
    let node = || kubectl.json(&["get", "nodes", "-l", &format!("agentpool={HELD}")]);
    journal.step(
        "upgrade",
        "a pool of one node, whose pod may not be evicted: the guide's landfall upgrade plan names its budget",
        || {
            let more = ["--node-count", "1", "--kubernetes-version", from, "--mode", "User"];
            nodepool(az, "add", cluster, HELD, &more)?;
            cluster.apply(&json!({
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": HELD },
                "spec": {
                    "selector": { "matchLabels": { "app": HELD } },
                    "template": {
                        "metadata": { "labels": { "app": HELD } },
                        "spec": {
                            "nodeSelector": { "agentpool": HELD },
                            "containers": [{
                                "name": "sleeper", "image": BUSYBOX, "imagePullPolicy": "Never", "command": ["sleep", "86400"]
                            }],
                        },
                    },
                },
            }))?;
            cluster.apply(&json!({
                "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": { "name": HELD },
                "spec": { "maxUnavailable": 0, "selector": { "matchLabels": { "app": HELD } } },
            }))?;
            cluster.rolled_out("deployment/held")?;
            kubectl.text(&["label", "nodes", "-l", &format!("agentpool={HELD}"), "disk=fast"])?;
            let told = follow(&plan)?;
            ensure!(told.contains("HoldsUp") && told.contains("default/held"), "{told}");
            Ok(())
        },
    )?;
    journal.step(
        "upgrade",
        "the guide's settings: after the drain timeout the node takes pods again, and az says which pod held it up",
        || {
            follow(&settings)?;
            let said = upgrade_fails(az, cluster, HELD, to)?;
            ensure!(
                said.contains("PodDrainFailure") && said.contains("default/held-"),
                "az says: {said}"
            );
            wait_for("the node to take pods again", Duration::from_secs(120), || {
                let nodes = node()?;
                let items = nodes["items"].as_array().context("no items")?;
                ensure!(items.len() == 1, "{} nodes", items.len());
                ensure!(items[0]["spec"]["unschedulable"].is_null(), "{}", items[0]["spec"]);
                let version = text(&items[0], "/status/nodeInfo/kubeletVersion")?;
                ensure!(version == format!("v{from}"), "it runs {version}");
                Ok(())
            })
        },
    )?;
    journal.step(
        "upgrade",
        "without the budget the same upgrade goes on, and a label of kubectl is on the new node",
        || {
            kubectl.text(&["delete", "poddisruptionbudget", HELD])?;
            let pool = nodepool(
                az,
                "upgrade",
                cluster,
                HELD,
                &["--kubernetes-version", to, "--yes"],
            )?;
            ensure!(pool["currentOrchestratorVersion"] == *to, "{pool}");
            let labelled = kubectl.text(&["get", "nodes", "-l", "disk=fast", "-o", "name"])?;
            ensure!(labelled.contains(HELD), "the label is on {labelled:?}");
            cluster.rolled_out("deployment/held")
        },
    )?;
    ways_back::pool(journal, stamp, az, cluster, HELD, (from, to))?;
    journal.step("upgrade", "the pool goes", || {
        kubectl.text(&["delete", "deployment", HELD])?;
        nodepool(az, "delete", cluster, HELD, &[]).map(drop)
    })
}

/// Node names and the versions of their kubelets.
fn kubelets(cluster: &Cluster) -> Result<Vec<(String, String)>> {
    let nodes = cluster.kubectl.json(&["get", "nodes"])?;
    let items = nodes["items"].as_array().context("no items")?;
    items
        .iter()
        .map(|node| {
            let name = text(node, "/metadata/name")?;
            let version = text(node, "/status/nodeInfo/kubeletVersion")?;
            Ok((name.to_owned(), version.to_owned()))
        })
        .collect()
}

/// The running pods: each container by its id.
fn pods(cluster: &Cluster) -> Result<BTreeSet<String>> {
    let pods = cluster.kubectl.json(&["get", "pods", "-l", "app=web"])?;
    let statuses = pods["items"].as_array().into_iter().flatten();
    let containers = statuses.flat_map(|pod| {
        pod["status"]["containerStatuses"]
            .as_array()
            .into_iter()
            .flatten()
    });
    Ok(containers
        .map(|container| container["containerID"].to_string())
        .collect())
}

/// The fewest available replicas of the Deployment during an action.
fn available_while(cluster: &Cluster, act: impl FnOnce() -> Result<()>) -> Result<u64> {
    let budget = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": { "name": "web" },
        "spec": { "minAvailable": 1, "selector": { "matchLabels": { "app": "web" } } },
    });
    cluster.apply(&budget)?;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| -> Result<u64> {
            let mut least = u64::MAX;
            while !over.load(Ordering::SeqCst) {
                let web = cluster.kubectl.json(&["get", "deployment", "web"])?;
                least = least.min(web["status"]["availableReplicas"].as_u64().unwrap_or(0));
            }
            Ok(least)
        });
        let done = act();
        over.store(true, Ordering::SeqCst);
        let least = joined(watch);
        done.and(least)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guide_has_the_blocks_that_are_followed() {
        let [plan, settings] = guide::exactly::<2>(GUIDE).unwrap();
        assert!(plan.starts_with("landfall upgrade plan "));
        assert!(settings.contains("--undrainable-node-behavior Schedule") && settings.contains("$MINUTES"));
    }
}
