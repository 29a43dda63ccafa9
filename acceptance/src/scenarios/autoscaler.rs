//! The cluster autoscaler: an unschedulable pod adds a node, and the node is removed when it is not needed.
//! The commands are those of the guide.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{
    GROUP, guide,
    pools::nodepool,
    workload::{BUSYBOX, Cluster},
};
use crate::{
    clients::{Az, run},
    journal::{Journal, PATIENCE, wait_for},
    stamp::Stamp,
};

/// The name of this scenario.
pub(super) const NAME: &str = "autoscaler";

/// The source of the commands.
const GUIDE: &str = include_str!("../../../docs/guides/autoscaler.md");
/// The scenario's pool.
const POOL: &str = "scaled";
/// A Deployment with a pod that fits on a node of the pool once.
const WORKLOAD: &str = "deployment/scaled";
/// Time limit of a removal: a minute unneeded, a minute after growth, a scan, and the removal of the node.
const SHRINKS: Duration = Duration::from_secs(6 * 60);

/// Runs commands of the guide.
fn follow(stamp: &Stamp, az: &Az, cluster: &Cluster, script: &str) -> Result<String> {
    let kubectl = &cluster.kubectl;
    let mut shell = guide::shell(stamp, az, &[&kubectl.program], script)?;
    shell
        .env("KUBECONFIG", &kubectl.kubeconfig)
        .env("GROUP", GROUP)
        .env("CLUSTER", cluster.name);
    run(&mut shell)
}

/// Two pods; a node of two cores has room for one.
fn workload() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": POOL },
        "spec": {
            "replicas": 2,
            "selector": { "matchLabels": { "app": POOL } },
            "template": {
                "metadata": { "labels": { "app": POOL } },
                "spec": {
                    "nodeSelector": { "agentpool": POOL },
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{
                        "name": "sleep", "image": BUSYBOX, "command": ["sleep", "86400"],
                        "resources": { "requests": { "cpu": "1200m" } }
                    }]
                }
            }
        }
    })
}

fn count(az: &Az, cluster: &Cluster) -> Result<Value> {
    Ok(nodepool(az, "show", cluster, POOL, &[])?["count"].clone())
}

pub(super) fn walk(journal: &Journal, stamp: &Stamp, az: &Az, cluster: &Cluster) -> Result<()> {
    let [on, status, off] = guide::exactly(GUIDE)?;
    let kubectl = &cluster.kubectl;
    journal.step(NAME, "the guide: a pool of one node gets an autoscaler", || {
        nodepool(az, "add", cluster, POOL, &["--node-count", "1", "--mode", "User"])?;
        follow(stamp, az, cluster, &on)?;
        let pool = nodepool(az, "show", cluster, POOL, &[])?;
        ensure!(
            pool["enableAutoScaling"] == true && pool["minCount"] == 1 && pool["maxCount"] == 2,
            "{pool}"
        );
        ensure!(pool["provisioningState"] == "Succeeded", "{pool}");
        Ok(())
    })?;
    journal.step(NAME, "an unschedulable pod adds a node, and runs on it", || {
        cluster.apply(&workload())?;
        cluster.rolled_out(WORKLOAD)?;
        ensure!(count(az, cluster)? == 2);
        let nodes = kubectl.text(&["get", "nodes", "-l", "agentpool=scaled", "--no-headers"])?;
        ensure!(nodes.lines().count() == 2, "{nodes}");
        let pods = kubectl.json(&["get", "pods", "-l", "app=scaled"])?;
        let items = pods["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        ensure!(
            items.len() == 2 && items[0]["spec"]["nodeName"] != items[1]["spec"]["nodeName"],
            "{pods}"
        );
        let events = kubectl.text(&["get", "events", "--field-selector", "reason=TriggeredScaleUp"])?;
        ensure!(events.contains("1->2 (max: 2)"), "{events}");
        Ok(())
    })?;
    journal.step(
        NAME,
        "the guide: the status of the autoscaler, and the count of the pool",
        || {
            let said = follow(stamp, az, cluster, &status)?;
            ensure!(said.contains("autoscalerStatus: Running"), "{said}");
            ensure!(said.contains("cloudProviderTarget: 2"), "{said}");
            Ok(())
        },
    )?;
    journal.step(
        NAME,
        "a pod beyond the maximum gets an event, and no node",
        || {
            kubectl.text(&["scale", WORKLOAD, "--replicas=3"])?;
            wait_for("the event of the third pod", Duration::from_secs(60), || {
                let events =
                    kubectl.text(&["get", "events", "--field-selector", "reason=NotTriggerScaleUp"])?;
                ensure!(events.contains("max node group size reached"), "{events}");
                Ok(())
            })?;
            ensure!(count(az, cluster)? == 2);
            Ok(())
        },
    )?;
    journal.step(NAME, "az aks nodepool scale is refused meanwhile", || {
        let said = az.fails(&[
            "aks",
            "nodepool",
            "scale",
            "--resource-group",
            GROUP,
            "--cluster-name",
            cluster.name,
            "--name",
            POOL,
            "--node-count",
            "1",
        ])?;
        ensure!(said.contains("autoscaler"), "az says: {said}");
        Ok(())
    })?;
    journal.step(
        NAME,
        "kill -9 of the service; an unneeded node is removed",
        || {
            kubectl.text(&["delete", WORKLOAD, "--timeout=120s"])?;
            stamp.kill_service()?;
            run(&mut stamp.landfall(&["up", "--output", "json"]))?;
            stamp.wait_for_service(PATIENCE)?;
            wait_for("one node", SHRINKS, || {
                let nodes = kubectl.text(&["get", "nodes", "-l", "agentpool=scaled", "--no-headers"])?;
                ensure!(nodes.lines().count() == 1, "{nodes}");
                Ok(())
            })?;
            ensure!(count(az, cluster)? == 1);
            Ok(())
        },
    )?;
    journal.step(NAME, "the guide: turned off, the pool is scaled by hand", || {
        follow(stamp, az, cluster, &off)?;
        let pool = nodepool(az, "scale", cluster, POOL, &["--node-count", "2"])?;
        ensure!(pool["count"] == 2, "{pool}");
        nodepool(az, "delete", cluster, POOL, &[]).map(drop)
    })
}
