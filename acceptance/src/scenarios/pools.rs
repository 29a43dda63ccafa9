//! Node pools: add, scale up, scale down, delete.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{GROUP, workload::Cluster};
use crate::{
    clients::Az,
    journal::{Journal, wait_for},
};

/// The pool that comes and goes.
const EXTRA: &str = "extra";

/// `az aks nodepool …` for a pool of a cluster.
pub(super) fn nodepool(
    az: &Az,
    verb: &str,
    cluster: &Cluster,
    pool: &str,
    more: &[&str],
) -> Result<serde_json::Value> {
    let mut arguments = vec![
        "aks",
        "nodepool",
        verb,
        "--resource-group",
        GROUP,
        "--cluster-name",
        cluster.name,
    ];
    arguments.extend(["--name", pool]);
    arguments.extend(more);
    az.json(&arguments)
}

fn extra_nodes(cluster: &Cluster) -> Result<usize> {
    Ok(cluster
        .kubectl
        .ready_nodes()?
        .iter()
        .filter(|name| name.starts_with("aks-extra-"))
        .count())
}

pub(super) fn walk(journal: &Journal, az: &Az, cluster: &Cluster) -> Result<()> {
    journal.step("pools", "az aks nodepool add with labels and taints", || {
        let pool = nodepool(
            az,
            "add",
            cluster,
            EXTRA,
            &[
                "--node-count",
                "1",
                "--labels",
                "team=blue",
                "--node-taints",
                "team=blue:NoSchedule",
                "--mode",
                "User",
            ],
        )?;
        ensure!(pool["provisioningState"] == "Succeeded", "{pool}");
        ensure!(extra_nodes(cluster)? == 1);
        let labelled = cluster
            .kubectl
            .json(&["get", "nodes", "-l", "team=blue,agentpool=extra"])?;
        ensure!(
            labelled["items"].as_array().is_some_and(|items| items.len() == 1),
            "{labelled}"
        );
        ensure!(
            labelled["items"][0]["spec"]["taints"][0]["key"] == "team",
            "{}",
            labelled["items"][0]["spec"]
        );
        Ok(())
    })?;
    journal.step(
        "pools",
        "az aks nodepool scale up to 2, the machines are listed",
        || {
            nodepool(az, "scale", cluster, EXTRA, &["--node-count", "2"])?;
            ensure!(extra_nodes(cluster)? == 2);
            let machines = az.json(&[
                "aks",
                "machine",
                "list",
                "--resource-group",
                GROUP,
                "--cluster-name",
                cluster.name,
                "--nodepool-name",
                "extra",
            ])?;
            ensure!(
                machines.as_array().is_some_and(|machines| machines.len() == 2),
                "{machines}"
            );
            Ok(())
        },
    )?;
    journal.step("pools", "az aks nodepool scale down to 1", || {
        nodepool(az, "scale", cluster, EXTRA, &["--node-count", "1"])?;
        wait_for("one node", Duration::from_secs(180), || {
            let nodes = cluster
                .kubectl
                .text(&["get", "nodes", "-l", "agentpool=extra", "--no-headers"])?;
            ensure!(nodes.lines().count() == 1, "{nodes}");
            Ok(())
        })
    })?;
    journal.step("pools", "az aks nodepool delete", || {
        nodepool(az, "delete", cluster, EXTRA, &[])?;
        let nodes = cluster
            .kubectl
            .text(&["get", "nodes", "-l", "agentpool=extra", "--no-headers"])?;
        ensure!(nodes.trim().is_empty(), "{nodes}");
        ensure!(
            cluster.kubectl.ready_nodes()?.len() == 2,
            "the other pool has to stay"
        );
        Ok(())
    })?;
    journal.step("pools", "the last system pool stays", || {
        let said = az.fails(&[
            "aks",
            "nodepool",
            "delete",
            "--resource-group",
            GROUP,
            "--cluster-name",
            cluster.name,
            "--name",
            "nodepool1",
        ])?;
        ensure!(said.contains("system"), "az says: {said}");
        Ok(())
    })
}
