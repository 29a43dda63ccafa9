//! The service is killed while it works; all of the stamp is stopped and started again.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{GROUP, aks, workload::Clusters};
use crate::{
    clients::{Az, run},
    journal::{Journal, wait_for},
    stamp::Stamp,
};

pub(super) fn walk(journal: &Journal, stamp: &Stamp, az: &Az, clusters: &Clusters) -> Result<()> {
    let kubectl = &clusters.overlay.kubectl;
    journal.step(
        "adversity",
        "kill -9 of the service during a scale: it converges alone, pods keep running",
        || {
            let before = kubectl.json(&["get", "pods", "-l", "app=web"])?;
            aks(az, &["scale"], "overlay", &["--node-count", "3", "--no-wait"])?;
            stamp.kill_service()?;
            kubectl.text(&["get", "nodes"])?;
            run(&mut stamp.landfall(&["up", "--output", "json"]))?;
            stamp.wait_for_service(Duration::from_secs(180))?;
            wait_for("three nodes", Duration::from_secs(180), || {
                let ready = kubectl.ready_nodes()?;
                ensure!(ready.len() == 3, "ready: {ready:?}");
                Ok(())
            })?;
            let after = kubectl.json(&["get", "pods", "-l", "app=web"])?;
            ensure!(
                restarts(&before) == restarts(&after),
                "pods were disturbed: {after}"
            );
            wait_for("Succeeded", Duration::from_secs(180), || {
                let cluster = aks(az, &["show"], "overlay", &[])?;
                ensure!(
                    cluster["provisioningState"] == "Succeeded",
                    "{}",
                    cluster["provisioningState"]
                );
                Ok(())
            })
        },
    )?;
    journal.step(
        "adversity",
        "kill -9 of the service during a create: it converges alone",
        || {
            aks(
                az,
                &["create"],
                "killed",
                &["--node-count", "1", "--no-ssh-key", "--no-wait"],
            )?;
            stamp.kill_service()?;
            run(&mut stamp.landfall(&["up", "--output", "json"]))?;
            wait_for("Succeeded", Duration::from_secs(180), || {
                let cluster = aks(az, &["show"], "killed", &[])?;
                ensure!(
                    cluster["provisioningState"] == "Succeeded",
                    "{}",
                    cluster["provisioningState"]
                );
                Ok(())
            })
        },
    )?;
    journal.step(
        "adversity",
        "kill -9 of the service during a delete: it converges alone",
        || {
            aks(az, &["delete"], "killed", &["--yes", "--no-wait"])?;
            stamp.kill_service()?;
            run(&mut stamp.landfall(&["up", "--output", "json"]))?;
            wait_for("the cluster to be gone", Duration::from_secs(180), || {
                let left = az.json(&["aks", "list", "--resource-group", GROUP])?;
                ensure!(left.as_array().is_some_and(|left| left.len() == 2), "{left}");
                Ok(())
            })
        },
    )?;
    journal.step(
        "adversity",
        "a power failure: clusters come back with their data",
        || {
            kubectl.text(&["create", "configmap", "kept", "--from-literal=answer=42"])?;
            stamp.power_failure()?;
            run(&mut stamp.landfall(&["up", "--output", "json"]))?;
            wait_for("the API with its data", Duration::from_secs(180), || {
                let kept = kubectl.json(&["get", "configmap", "kept"])?;
                ensure!(kept["data"]["answer"] == "42", "{kept}");
                let ready = kubectl.ready_nodes()?;
                ensure!(ready.len() == 3, "ready: {ready:?}");
                Ok(())
            })?;
            kubectl.rolled_out("deployment/web")
        },
    )
}

/// Names and restart counts of pods.
fn restarts(pods: &serde_json::Value) -> Vec<(String, u64)> {
    let items = pods["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    items
        .iter()
        .map(|pod| {
            (
                pod["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
                pod["status"]["containerStatuses"][0]["restartCount"]
                    .as_u64()
                    .unwrap_or_default(),
            )
        })
        .collect()
}
