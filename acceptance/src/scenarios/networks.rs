//! Two clusters in one virtual network, with the commands of the guide: their nodes' addresses, traffic
//! between them, the rules of a security group, and refusals.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{GROUP, aks, guide, workload::BUSYBOX};
use crate::{
    clients::{Az, Kubectl, attempt, run},
    journal::{Journal, wait_for},
    stamp::Stamp,
};

const FIRST: &str = "left";
const SECOND: &str = "right";
/// The commands are run verbatim.
const GUIDE: &str = include_str!("../../../docs/guides/networks.md");
/// The port of the server on each node of the first cluster.
const PORT: u16 = 8099;
const BOUND: Duration = Duration::from_secs(180);

pub(super) fn walk(journal: &Journal, stamp: &Stamp, az: &Az) -> Result<()> {
    let [make, create, pool, close, open, leave, refused, remove] = guide::exactly(GUIDE)?;
    let follow = |script: &str| run(&mut shell(stamp, az, script)?);
    journal.step("networks", "the guide's virtual network and subnets", || {
        let told = follow(&make)?;
        ensure!(
            told.contains("10.40.1.0/24") && told.contains("10.40.2.0/29"),
            "{told}"
        );
        let of = ["--resource-group", GROUP, "--vnet-name", "hub"];
        let wrong = [
            "network",
            "vnet",
            "subnet",
            "create",
            "--name",
            "x",
            "--address-prefixes",
        ];
        for (prefix, code) in [
            ("10.40.1.128/25", "NetcfgSubnetRangesOverlap"),
            ("10.41.0.0/24", "NetcfgSubnetRangeOutsideVnet"),
            ("10.40.3.0/30", "NetcfgInvalidSubnet"),
            ("10.40.3.1/24", "InvalidCIDRNotation"),
        ] {
            let said = az.fails(&[&wrong[..], &[prefix], &of[..]].concat())?;
            ensure!(said.contains(code), "{prefix}: az says: {said}");
        }
        Ok(())
    })?;
    journal.step("networks", "the guide's two clusters in one subnet", || {
        follow(&create).map(drop)
    })?;
    journal.step("networks", "the guide's pool in another subnet", || {
        follow(&pool)?;
        let said = az.fails(&[
            "aks",
            "nodepool",
            "scale",
            "--resource-group",
            GROUP,
            "--cluster-name",
            FIRST,
            "--name",
            "extra",
            "--node-count",
            "4",
        ])?;
        ensure!(said.contains("InsufficientSubnetSize"), "az says: {said}");
        Ok(())
    })?;
    let (first, second) = (
        stamp.kubectl(az, GROUP, FIRST)?,
        stamp.kubectl(az, GROUP, SECOND)?,
    );
    let nodes = addresses(&first)?;
    journal.step(
        "networks",
        "nodes have addresses of their subnets, each its own",
        || {
            let (nodes, others) = (&nodes, addresses(&second)?);
            let within = |third: u8| {
                nodes
                    .iter()
                    .filter(|node| node.octets()[..3] == [10, 40, third])
                    .count()
            };
            ensure!(within(1) == 1 && within(2) == 1, "{nodes:?}");
            ensure!(
                others.len() == 1 && others[0].octets()[..3] == [10, 40, 1],
                "{others:?}"
            );
            ensure!(!nodes.contains(&others[0]), "{nodes:?} {others:?}");
            ensure!(
                nodes.iter().chain(&others).all(|node| node.octets()[3] >= 4),
                "{nodes:?} {others:?}"
            );
            Ok(())
        },
    )?;
    journal.step(
        "networks",
        "from a pod of each cluster to each node of the first",
        || {
            first.apply(stamp.directory.path(), &servers())?;
            first.rolled_out("daemonset/server")?;
            for kubectl in [&first, &second] {
                kubectl.apply(stamp.directory.path(), &client())?;
                kubectl.text(&["wait", "--for=condition=Ready", "pod/client", "--timeout=300s"])?;
                for node in &nodes {
                    let url = format!("http://{node}:{PORT}/");
                    wait_for("an answer across the virtual network", BOUND, || {
                        let answer = kubectl.text(&[
                            "exec", "client", "--", "timeout", "5", "wget", "-q", "-O", "-", &url,
                        ])?;
                        ensure!(answer.trim() == "here", "{answer}");
                        Ok(())
                    })?;
                }
            }
            Ok(())
        },
    )?;
    let (guarded, free): (Vec<Ipv4Addr>, Vec<Ipv4Addr>) = nodes
        .iter()
        .copied()
        .partition(|node: &Ipv4Addr| node.octets()[..3] == [10, 40, 1]);
    // A machine that is restarted begins with other containers.
    let containers = || -> Result<Vec<String>> {
        let mut started = Vec::new();
        for kubectl in [&first, &second] {
            let pods = kubectl.json(&["get", "pods"])?;
            let pods = pods["items"].as_array().context("no items")?.iter();
            started.extend(pods.map(|pod| {
                let container = &pod["status"]["containerStatuses"][0];
                format!("{} {}", pod["metadata"]["uid"], container["containerID"])
            }));
        }
        Ok(started)
    };
    let before = containers()?;
    journal.step(
        "networks",
        "the guide's security group closes a port of the subnet's nodes, and no other",
        || {
            follow(&close)?;
            for node in &guarded {
                wait_for("the port to be closed", BOUND, || reached(&second, *node, false))?;
            }
            for node in &free {
                reached(&second, *node, true)?;
            }
            // All other traffic passes: the clusters' own, and traffic without a rule.
            for kubectl in [&first, &second] {
                kubectl.text(&["exec", "client", "--", "true"])?;
            }
            let said = az.fails(&[
                "network",
                "nsg",
                "delete",
                "--resource-group",
                GROUP,
                "--name",
                "guard",
            ])?;
            ensure!(
                said.contains("InUseNetworkSecurityGroupCannotBeDeleted"),
                "az says: {said}"
            );
            let tag = az.fails(&[
                "network",
                "nsg",
                "rule",
                "create",
                "--resource-group",
                GROUP,
                "--nsg-name",
                "guard",
                "--name",
                "other",
                "--priority",
                "200",
                "--source-address-prefixes",
                "Storage",
            ])?;
            ensure!(tag.contains("sourceAddressPrefix"), "az says: {tag}");
            Ok(())
        },
    )?;
    journal.step("networks", "without the rule the port is open again", || {
        follow(&open)?;
        for node in guarded.iter().chain(&free) {
            wait_for("the port to be open", BOUND, || reached(&second, *node, true))?;
        }
        Ok(())
    })?;
    journal.step(
        "networks",
        "the subnet leaves its group; no machine was restarted",
        || {
            follow(&leave)?;
            for node in &nodes {
                wait_for("the port to be open", BOUND, || reached(&second, *node, true))?;
            }
            let after = containers()?;
            ensure!(before == after, "{before:?} became {after:?}");
            Ok(())
        },
    )?;
    journal.step(
        "networks",
        "a subnet that nodes are in stays; az aks show names it",
        || {
            let output = attempt(&mut shell(stamp, az, &refused)?)?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(
                !output.status.success() && said.contains("InUseSubnetCannotBeDeleted"),
                "az says: {said}"
            );
            let shown = aks(az, &["show"], SECOND, &[])?;
            let id = shown["agentPoolProfiles"][0]["vnetSubnetId"]
                .as_str()
                .or(shown["agentPoolProfiles"][0]["vnetSubnetID"].as_str());
            ensure!(
                id.is_some_and(|id| id.ends_with("/virtualNetworks/hub/subnets/nodes")),
                "{shown}"
            );
            Ok(())
        },
    )?;
    journal.step(
        "networks",
        "the guide's end: clusters and virtual network are gone",
        || {
            follow(&remove)?;
            let left = az.json(&["network", "vnet", "list", "--resource-group", GROUP])?;
            ensure!(left.as_array().is_some_and(Vec::is_empty), "{left}");
            Ok(())
        },
    )
}

/// Checks whether a cluster's pod reaches the server of a node. That it does not has to be the pod's own
/// result, so that an unreachable pod does not count.
fn reached(kubectl: &Kubectl, node: Ipv4Addr, wanted: bool) -> Result<()> {
    let ask = format!("timeout 5 wget -q -O - http://{node}:{PORT}/ 2>/dev/null || echo closed");
    let answer = kubectl.text(&["exec", "client", "--", "sh", "-c", &ask])?;
    let expected = if wanted { "here" } else { "closed" };
    ensure!(answer.trim() == expected, "port {PORT} of {node}: {answer}");
    Ok(())
}

/// Addresses of a cluster's nodes.
fn addresses(kubectl: &Kubectl) -> Result<Vec<Ipv4Addr>> {
    let nodes = kubectl.json(&["get", "nodes"])?;
    let nodes = nodes["items"].as_array().context("no items")?;
    let internal = |node: &Value| {
        let all = node["status"]["addresses"].as_array()?.iter();
        let mut own = all.filter(|one| one["type"] == "InternalIP");
        own.next()?["address"].as_str()?.parse().ok()
    };
    nodes
        .iter()
        .map(|node| internal(node).with_context(|| format!("no address in {node}")))
        .collect()
}

/// On each node, in the node's own network.
fn servers() -> Value {
    let serve =
        format!("mkdir /tmp/www && echo here > /tmp/www/index.html && exec httpd -f -p {PORT} -h /tmp/www");
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": { "name": "server" },
        "spec": {
            "selector": { "matchLabels": { "app": "server" } },
            "template": {
                "metadata": { "labels": { "app": "server" } },
                "spec": {
                    "hostNetwork": true, "tolerations": [{ "operator": "Exists" }], "terminationGracePeriodSeconds": 1,
                    "containers": [{
                        "name": "server", "image": BUSYBOX, "imagePullPolicy": "Never", "command": ["sh", "-c", serve],
                    }],
                },
            },
        },
    })
}

/// In the pods' network.
fn client() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "client" },
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "client", "image": BUSYBOX, "imagePullPolicy": "Never", "command": ["sleep", "3600"],
            }],
        },
    })
}

fn shell(stamp: &Stamp, az: &Az, script: &str) -> Result<std::process::Command> {
    let mut shell = guide::shell(stamp, az, &[], script)?;
    shell
        .env("GROUP", GROUP)
        .env("FIRST", FIRST)
        .env("SECOND", SECOND);
    Ok(shell)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guide_has_the_blocks_that_are_followed() {
        let [make, create, pool, close, open, leave, refused, remove] = guide::exactly::<8>(GUIDE).unwrap();
        assert!(make.starts_with("az network vnet create") && create.contains("--vnet-subnet-id"));
        assert!(
            pool.contains("nodepool add")
                && refused.contains("subnet delete")
                && remove.contains("vnet delete")
        );
        assert!(close.contains(&format!("--destination-port-ranges {PORT}")));
        assert!(open.contains("nsg rule delete") && leave.contains("nsg delete"));
    }
}
