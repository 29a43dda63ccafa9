//! Node pools: add, scale up, scale down, take a snapshot, stop, start, delete. Snapshots, stops and starts are the commands of the guide.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{GROUP, guide, text, workload::Cluster};
use crate::{
    clients::{Az, run},
    journal::{Journal, wait_for},
    stamp::Stamp,
};

/// The pool that comes and goes.
const EXTRA: &str = "extra";
/// The commands are run verbatim.
const GUIDE: &str = include_str!("../../../docs/guides/pools.md");

/// The arguments of `az aks nodepool …` for a pool of a cluster.
fn arguments<'a>(verb: &'a str, cluster: &Cluster, pool: &'a str, more: &[&'a str]) -> Vec<&'a str> {
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
    arguments
}

/// `az aks nodepool …` for a pool of a cluster.
pub(super) fn nodepool(
    az: &Az,
    verb: &str,
    cluster: &Cluster,
    pool: &str,
    more: &[&str],
) -> Result<serde_json::Value> {
    az.json(&arguments(verb, cluster, pool, more))
}

/// `az aks nodepool upgrade` of a pool that ends with an error: what az says.
pub(super) fn upgrade_fails(az: &Az, cluster: &Cluster, pool: &str, version: &str) -> Result<String> {
    let more = ["--kubernetes-version", version, "--yes"];
    az.fails(&arguments("upgrade", cluster, pool, &more))
}

fn extra_nodes(cluster: &Cluster) -> Result<usize> {
    Ok(cluster
        .kubectl
        .ready_nodes()?
        .iter()
        .filter(|name| name.starts_with("aks-extra-"))
        .count())
}

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

/// The guide's snapshot, and a pool that is made from it.
fn snapshots(journal: &Journal, stamp: &Stamp, az: &Az, cluster: &Cluster, scripts: [&str; 3]) -> Result<()> {
    let [taken, made, gone] = scripts;
    journal.step(
        "pools",
        "the guide's snapshot of a pool says what the pool is made of",
        || {
            let said = follow(stamp, az, cluster, taken)?;
            let pool = nodepool(az, "show", cluster, EXTRA, &[])?;
            for property in ["/currentOrchestratorVersion", "/nodeImageVersion", "/vmSize"] {
                let own = text(&pool, property)?;
                ensure!(
                    said.split_whitespace().any(|word| word == own),
                    "{own} is not in {said}"
                );
            }
            let all = az.json(&["aks", "nodepool", "snapshot", "list", "--resource-group", GROUP])?;
            ensure!(all.as_array().is_some_and(|all| all.len() == 1), "{all}");
            Ok(())
        },
    )?;
    journal.step(
        "pools",
        "the guide's pool from the snapshot; both go, the pool first",
        || {
            follow(stamp, az, cluster, made)?;
            let source = nodepool(az, "show", cluster, EXTRA, &[])?;
            let pool = nodepool(az, "show", cluster, "again", &[])?;
            for property in ["currentOrchestratorVersion", "nodeImageVersion", "vmSize"] {
                ensure!(pool[property] == source[property], "{property}: {pool}");
            }
            let id = text(&pool, "/creationData/sourceResourceId")?;
            ensure!(id.ends_with("/snapshots/extra-today"), "{pool}");
            let nodes = cluster.kubectl.ready_nodes()?;
            ensure!(
                nodes.iter().any(|name| name.starts_with("aks-again-")),
                "{nodes:?}"
            );
            follow(stamp, az, cluster, gone)?;
            let all = az.json(&["aks", "nodepool", "snapshot", "list", "--resource-group", GROUP])?;
            ensure!(all.as_array().is_some_and(Vec::is_empty), "{all}");
            Ok(())
        },
    )
}

/// The guide's stop and start of a pool.
fn power(journal: &Journal, stamp: &Stamp, az: &Az, cluster: &Cluster, scripts: [&str; 2]) -> Result<()> {
    let [stop, start] = scripts;
    let names = || -> Result<Vec<String>> {
        let nodes = cluster
            .kubectl
            .text(&["get", "nodes", "-l", "agentpool=extra", "-o", "name"])?;
        Ok(nodes.lines().map(str::to_owned).collect())
    };
    let before = names()?;
    ensure!(!before.is_empty(), "the pool has no nodes");
    journal.step(
        "pools",
        "the guide's az aks nodepool stop: its nodes go, its count stays",
        || {
            let said = follow(stamp, az, cluster, stop)?;
            ensure!(said.trim().ends_with("Stopped"), "{said}");
            let left = names()?;
            ensure!(left.is_empty(), "{left:?}");
            ensure!(
                cluster.kubectl.ready_nodes()?.len() == 2,
                "the other pool has to stay"
            );
            let pool = nodepool(az, "show", cluster, EXTRA, &[])?;
            ensure!(
                pool["count"] == before.len() && pool["provisioningState"] == "Succeeded",
                "{pool}"
            );
            // A body that is read and sent back starts no operation.
            let updated = nodepool(
                az,
                "update",
                cluster,
                EXTRA,
                &["--labels", "team=blue", "stopped=once"],
            )?;
            ensure!(updated["powerState"]["code"] == "Stopped", "{updated}");
            Ok(())
        },
    )?;
    journal.step(
        "pools",
        "the guide's az aks nodepool start: as many nodes, of the same names",
        || {
            follow(stamp, az, cluster, start)?;
            let after = names()?;
            ensure!(after == before, "{after:?}");
            let labelled = cluster.kubectl.json(&["get", "nodes", "-l", "stopped=once"])?;
            ensure!(
                labelled["items"]
                    .as_array()
                    .is_some_and(|items| items.len() == before.len()),
                "{labelled}"
            );
            Ok(())
        },
    )?;
    journal.step("pools", "a system pool is not stopped", || {
        let said = az.fails(&[
            "aks",
            "nodepool",
            "stop",
            "--resource-group",
            GROUP,
            "--cluster-name",
            cluster.name,
            "--name",
            "nodepool1",
        ])?;
        ensure!(said.contains("cannot be stopped"), "az says: {said}");
        Ok(())
    })
}

pub(super) fn walk(journal: &Journal, stamp: &Stamp, az: &Az, cluster: &Cluster) -> Result<()> {
    let [taken, made, gone, stop, start] = guide::exactly(GUIDE)?;
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
    snapshots(journal, stamp, az, cluster, [&taken, &made, &gone])?;
    power(journal, stamp, az, cluster, [&stop, &start])?;
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
