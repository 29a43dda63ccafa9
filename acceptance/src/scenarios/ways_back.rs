//! Ways back, with the commands of their guide: a control plane that emulates the minor release of before, and a pool that goes back to the
//! version and the node image that it had.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{
    GROUP, aks, guide,
    pools::{nodepool, upgrade_fails},
    text,
    workload::Cluster,
};
use crate::{
    clients::{Az, run},
    journal::Journal,
    stamp::Stamp,
};

/// The guide whose commands are run unchanged.
const GUIDE: &str = include_str!("../../../docs/guides/rollback.md");
/// ConfigMaps that are written while the newer programs run.
const OBJECTS: usize = 300;
/// Their label.
const MARK: &str = "of=newer-programs";

fn follow(
    stamp: &Stamp,
    az: &Az,
    cluster: &Cluster,
    pool: &str,
    version: &str,
    script: &str,
) -> Result<String> {
    let variables = [
        ("GROUP", GROUP),
        ("CLUSTER", cluster.name),
        ("POOL", pool),
        ("VERSION", version),
    ];
    run(&mut guide::with_landfall(stamp, az, &variables, script)?)
}

/// The control plane goes to the next minor release and back, with all that was written meanwhile.
pub(super) fn control_plane(
    journal: &Journal,
    stamp: &Stamp,
    az: &Az,
    cluster: &Cluster,
    (from, to): (&str, &str),
) -> Result<()> {
    let [images, _, soak, back, finalize] = guide::exactly::<5>(GUIDE)?;
    let kubectl = &cluster.kubectl;
    let follow = |script: &str| follow(stamp, az, cluster, "nodepool1", to, script);
    journal.step(
        "upgrade",
        "node images have names by date, the same in ARM and on nodes",
        || {
            let told = follow(&images)?;
            let pool = nodepool(az, "show", cluster, "nodepool1", &[])?;
            let own = text(&pool, "/nodeImageVersion")?;
            ensure!(own.starts_with("AKSDebian-20"), "{own}");
            ensure!(told.contains(own), "{own} is not in {told}");
            let nodes = kubectl.json(&["get", "nodes", "--selector", "agentpool=nodepool1"])?;
            let nodes = nodes["items"].as_array().context("no items")?;
            for node in nodes {
                let label = &node["metadata"]["labels"]["kubernetes.azure.com/node-image-version"];
                ensure!(label == own, "{label} on a node of a pool with {own}");
            }
            ensure!(!nodes.is_empty(), "no node");
            Ok(())
        },
    )?;
    journal.step(
        "upgrade",
        "landfall upgrade soak: the newer programs serve the APIs of the older release",
        || {
            let told = journal.timed("control plane", "emulates after", || follow(&soak))?;
            ensure!(told.contains("emulates"), "{told}");
            let version = server_version(cluster)?;
            ensure!(version["gitVersion"] == format!("v{to}"), "{version}");
            let minor = from.split('.').nth(1).context("no minor release")?;
            ensure!(version["emulationMinor"] == minor, "{version}");
            let shown = aks(az, &["show"], cluster.name, &[])?;
            ensure!(shown["provisioningState"] == "Succeeded", "{shown}");
            let said = upgrade_fails(az, cluster, "nodepool1", to)?;
            ensure!(said.contains("landfall upgrade finalize"), "az says: {said}");
            Ok(())
        },
    )?;
    journal.step(
        "upgrade",
        "landfall upgrade rollback: the older programs have all that was written meanwhile",
        || {
            let items: Vec<Value> = (0..OBJECTS).map(written).collect();
            cluster.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": items }))?;
            journal.timed("control plane", "is back after", || follow(&back))?;
            let version = server_version(cluster)?;
            ensure!(version["gitVersion"] == format!("v{from}"), "{version}");
            let there = kubectl.json(&["get", "configmaps", "--selector", MARK])?;
            let there = there["items"].as_array().map_or(0, Vec::len);
            ensure!(there == OBJECTS, "{there} of {OBJECTS} are there");
            kubectl.text(&["delete", "configmaps", "--selector", MARK])?;
            // There is nothing to finalise any more, and nothing further back.
            let told = follow(&finalize)?;
            ensure!(!told.contains("emulates 1."), "{told}");
            let again = follow(&back);
            ensure!(again.is_err(), "it went back once more: {again:?}");
            Ok(())
        },
    )
}

fn written(number: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": format!("newer-{number}"), "labels": { "of": "newer-programs" } },
        "data": { "number": number.to_string() },
    })
}

fn server_version(cluster: &Cluster) -> Result<Value> {
    let version = cluster.kubectl.json(&["version"])?;
    Ok(version["serverVersion"].clone())
}

/// A pool that was upgraded goes back to the version and node image that it had.
pub(super) fn pool(
    journal: &Journal,
    stamp: &Stamp,
    az: &Az,
    cluster: &Cluster,
    name: &str,
    (from, to): (&str, &str),
) -> Result<()> {
    let [_, back, ..] = guide::exactly::<5>(GUIDE)?;
    journal.step(
        "upgrade",
        "az aks nodepool rollback: the pool has the version and node image of before, once",
        || {
            let told = journal.timed("one node", "is back after", || {
                follow(stamp, az, cluster, name, to, &back)
            })?;
            ensure!(told.contains(from), "{told}");
            let pool = nodepool(az, "show", cluster, name, &[])?;
            ensure!(pool["currentOrchestratorVersion"] == *from, "{pool}");
            ensure!(pool["provisioningState"] == "Succeeded", "{pool}");
            let nodes =
                cluster
                    .kubectl
                    .json(&["get", "nodes", "--selector", &format!("agentpool={name}")])?;
            let nodes = nodes["items"].as_array().context("no items")?;
            for node in nodes {
                let version = text(node, "/status/nodeInfo/kubeletVersion")?;
                ensure!(version == format!("v{from}"), "it runs {version}");
            }
            ensure!(!nodes.is_empty(), "no node");
            let again = follow(stamp, az, cluster, name, to, &back);
            ensure!(again.is_err(), "there is one step: {again:?}");
            Ok(())
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guide_has_the_blocks_that_are_followed() {
        let [images, pool, soak, back, finalize] = guide::exactly::<5>(GUIDE).unwrap();
        assert!(images.starts_with("landfall image list"));
        assert!(pool.contains("az aks nodepool rollback ") && pool.contains("$POOL"));
        assert!(soak.starts_with("landfall upgrade soak ") && soak.contains("$VERSION"));
        assert!(back.starts_with("landfall upgrade rollback "));
        assert!(finalize.starts_with("landfall upgrade finalize "));
    }
}
