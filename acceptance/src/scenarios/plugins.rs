//! The network plugins that the other scenarios do not have: pods with addresses of the VNET, and no plugin at all.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{GROUP, aks, workload::Cluster};
use crate::{
    clients::Az,
    journal::{Journal, wait_for},
    stamp::Stamp,
};

/// The default range of a cluster's VNET.
const VNET: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 224, 0, 0), 12);

pub(super) fn walk(journal: &Journal, stamp: &Stamp, az: &Az) -> Result<()> {
    journal.step(
        "plugins",
        "az aks create: azure without overlay, and none, at the same time",
        || {
            let create = |name: &str, plugin: &str, nodes: &str| {
                let arguments = ["--network-plugin", plugin, "--node-count", nodes, "--no-ssh-key"];
                let cluster = aks(az, &["create"], name, &arguments)?;
                ensure!(cluster["provisioningState"] == "Succeeded", "{cluster}");
                ensure!(cluster["networkProfile"]["networkPlugin"] == plugin, "{cluster}");
                ensure!(
                    cluster["networkProfile"]["networkPluginMode"].is_null(),
                    "{cluster}"
                );
                Ok(())
            };
            std::thread::scope(|scope| {
                let flat = scope.spawn(|| create("flat", "azure", "2"));
                let none = create("bare", "none", "1");
                flat.join()
                    .map_err(|_| anyhow::anyhow!("the thread panicked"))?
                    .and(none)
            })
        },
    )?;
    flat(journal, &Cluster::open(stamp, az, "flat")?)?;
    bare(journal, &Cluster::open(stamp, az, "bare")?)?;
    journal.step("plugins", "az aks delete of both", || {
        for name in ["flat", "bare"] {
            aks(az, &["delete"], name, &["--yes"])?;
        }
        let left = az.json(&["aks", "list", "--resource-group", GROUP])?;
        ensure!(left.as_array().is_some_and(Vec::is_empty), "{left}");
        Ok(())
    })
}

fn flat(journal: &Journal, cluster: &Cluster) -> Result<()> {
    journal.step("flat", "pods have addresses of the VNET, like nodes", || {
        cluster.deploy()?;
        let pods = cluster.kubectl.json(&["get", "pods", "-l", "app=web"])?;
        let pods = pods["items"].as_array().context("no items")?;
        ensure!(pods.len() == 2, "{pods:?}");
        for pod in pods {
            let address: Ipv4Addr = pod["status"]["podIP"].as_str().context("no podIP")?.parse()?;
            let mask = u32::MAX << (32 - VNET.1);
            ensure!(
                address.to_bits() & mask == VNET.0.to_bits(),
                "{address} is none of the VNET"
            );
        }
        Ok(())
    })?;
    journal.step(
        "flat",
        "a ClusterIP service by its DNS name, from each node to each; a NodePort",
        || {
            cluster.service_by_name()?;
            cluster.node_port()
        },
    )
}

fn bare(journal: &Journal, cluster: &Cluster) -> Result<()> {
    journal.step(
        "bare",
        "without a plugin the node waits for one, and says so",
        || {
            wait_for("the node to say why", Duration::from_secs(180), || {
                let nodes = cluster.kubectl.json(&["get", "nodes"])?;
                let conditions = nodes["items"][0]["status"]["conditions"]
                    .as_array()
                    .context("no node with conditions")?;
                let ready = conditions
                    .iter()
                    .find(|condition| condition["type"] == "Ready")
                    .context("no condition Ready")?;
                ensure!(ready["status"] == "False", "{ready}");
                let why = ready["message"].as_str().unwrap_or_default();
                ensure!(why.contains("cni plugin not initialized"), "{why}");
                Ok(())
            })?;
            // Pods wait with it.
            let pods = cluster.kubectl.json(&["-n", "kube-system", "get", "pods"])?;
            let waiting = |pod: &Value| pod["status"]["phase"] == "Pending";
            let pods = pods["items"].as_array().context("no items")?;
            ensure!(pods.iter().all(waiting), "{pods:?}");
            Ok(())
        },
    )
}
