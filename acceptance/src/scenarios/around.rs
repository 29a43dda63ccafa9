//! Quotas with the commands of the guide, and a cluster's machines and networks as the Azure CLI shows them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{guide, text};
use crate::{
    clients::{Az, Kubectl, attempt, run},
    journal::{Journal, PATIENCE, wait_for},
    stamp::Stamp,
};

/// The first cluster of a stamp, and its group.
const FIRST: &str = "landfall";
/// The commands are run verbatim.
const GUIDE: &str = include_str!("../../../docs/guides/quotas.md");

pub(super) fn walk(journal: &Journal, stamp: &Stamp, az: &Az) -> Result<()> {
    let [usages, limit, scale, lift, subscriptions, providers, requests] = guide::exactly(GUIDE)?;
    let follow = |script: &str| run(&mut shell(stamp, az, script)?);
    journal.step(
        "around",
        "the guide's usages: what there is, and how much there may be",
        || {
            let told = follow(&usages)?;
            for (name, value) in [("cores", 2), ("virtualMachines", 1), ("VirtualNetworks", 1)] {
                let line = told.lines().find(|line| line.starts_with(&format!("{name}\t")));
                let line = line.with_context(|| format!("no {name} in {told}"))?;
                let figures: Vec<u64> = line
                    .split('\t')
                    .skip(1)
                    .filter_map(|text| text.parse().ok())
                    .collect();
                ensure!(
                    figures.len() == 2 && figures[0] == value && figures[1] > value,
                    "{line}"
                );
            }
            Ok(())
        },
    )?;
    journal.step(
        "around",
        "the guide's limit: what passes it is refused with the figures",
        || {
            follow(&limit)?;
            let refused = attempt(&mut shell(stamp, az, &scale)?)?;
            let said = String::from_utf8_lossy(&refused.stderr).into_owned();
            ensure!(!refused.status.success(), "it should have been refused");
            for words in [
                "QuotaExceeded",
                "Current Limit: 3, Current Usage: 1, Additional Required: 3",
            ] {
                ensure!(said.contains(words), "no {words} in {said}");
            }
            let pool = [
                "aks",
                "nodepool",
                "show",
                "--resource-group",
                FIRST,
                "--cluster-name",
                FIRST,
                "--name",
                "nodepool1",
            ];
            let pool = az.json(&pool)?;
            ensure!(
                pool["count"] == 1 && pool["provisioningState"] == "Succeeded",
                "{pool}"
            );
            follow(&lift).map(drop)
        },
    )?;
    journal.step(
        "around",
        "the guide's subscription: disabled, it is read and nothing is made in it",
        || disabled(stamp, az, &subscriptions),
    )?;
    journal.step(
        "around",
        "the guide's provider: unregistered and registered; one that is used is neither",
        || {
            let told = follow(&providers)?;
            let states: Vec<&str> = told
                .lines()
                .map(str::trim)
                .filter(|line| !line.is_empty())
                .collect();
            ensure!(states == ["Unregistered", "Registered"], "{told}");
            let used = [
                "provider",
                "unregister",
                "--namespace",
                "Microsoft.ContainerService",
            ];
            let said = az.fails(&used)?;
            ensure!(said.contains("cannot be unregistered"), "az says: {said}");
            Ok(())
        },
    )?;
    journal.step(
        "around",
        "the guide's requests: with Azure's budgets, the Azure CLI sees what is left of them",
        || {
            let told = follow(&requests)?;
            for (name, most) in [("reads", 250), ("global-reads", 15 * 250)] {
                let header = format!("x-ms-ratelimit-remaining-subscription-{name}': '");
                let left = told.lines().find_map(|line| line.strip_prefix(&header));
                let left: u64 = left.with_context(|| format!("no {header} in {told}"))?.parse()?;
                ensure!(
                    left < most && left > most / 2,
                    "{left} of {most} are left: {told}"
                );
            }
            Ok(())
        },
    )?;
    let cluster = az.json(&["aks", "show", "--resource-group", FIRST, "--name", FIRST])?;
    let nodes = text(&cluster, "/nodeResourceGroup")?.to_owned();
    let kubectl = stamp.kubectl(az, FIRST, FIRST)?;
    journal.step(
        "around",
        "the group of the nodes is the cluster's, and neither deleted nor written",
        || {
            let group = az.json(&["group", "show", "--name", &nodes])?;
            let (owner, id) = (text(&group, "/managedBy")?, text(&cluster, "/id")?);
            ensure!(owner.eq_ignore_ascii_case(id), "{owner} is not {id}");
            let said = az.fails(&["group", "delete", "--name", &nodes, "--yes"])?;
            ensure!(said.contains("delete the cluster"), "az says: {said}");
            az.json(&["group", "show", "--name", &nodes]).map(drop)
        },
    )?;
    journal.step(
        "around",
        "az monitor metrics: CPU and memory of the node, as they are read from the cluster",
        || metrics(az, text(&cluster, "/id")?),
    )?;
    journal.step(
        "around",
        "az vmss, az disk, az vm list-sizes: the machines",
        || machines(az, &kubectl, &nodes),
    )?;
    journal.step(
        "around",
        "az vmss restart starts a machine again; one that is deleted is replaced",
        || restarted_and_replaced(stamp, az, &kubectl, &nodes),
    )?;
    journal.step("around", "az rest: what clusters have of their quotas", || {
        quota_usages(az, text(&cluster, "/id")?)
    })?;
    journal.step(
        "around",
        "az network: the VNET, its addresses, routes and rules",
        || networks(stamp, az, &nodes),
    )?;
    journal.step(
        "around",
        "az resource list: across types; az feature, az provider",
        || {
            let listed = az.json(&["resource", "list", "--resource-group", &nodes])?;
            let kinds: Vec<&str> = listed
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|one| one["type"].as_str())
                .collect();
            for kind in [
                "Microsoft.Compute/virtualMachineScaleSets",
                "Microsoft.Network/virtualNetworks",
            ] {
                ensure!(kinds.contains(&kind), "no {kind} in {kinds:?}");
            }
            let clusters = az.json(&[
                "resource",
                "list",
                "--resource-type",
                "Microsoft.ContainerService/managedClusters",
            ])?;
            ensure!(clusters[0]["name"] == FIRST, "{clusters}");
            let said = az.fails(&[
                "resource",
                "move",
                "--ids",
                text(&clusters, "/0/id")?,
                "--destination-group",
                &nodes,
            ])?;
            ensure!(said.contains("ResourceMoveNotSupported"), "az says: {said}");
            let features = az.json(&["feature", "list"])?;
            ensure!(features.as_array().is_some_and(Vec::is_empty), "{features}");
            let said = az.fails(&[
                "feature",
                "register",
                "--namespace",
                "Microsoft.ContainerService",
                "--name",
                "Any",
            ])?;
            ensure!(said.contains("FeatureNotFound"), "az says: {said}");
            let provider = az.json(&["provider", "show", "--namespace", "Microsoft.Compute"])?;
            ensure!(provider["registrationState"] == "Registered", "{provider}");
            Ok(())
        },
    )
}

/// metrics-server has the node's metrics from its second reading on; after the first request they are sampled
/// once a minute.
fn metrics(az: &Az, cluster: &str) -> Result<()> {
    const CPU: &str = "node_cpu_usage_percentage";
    const MEMORY: &str = "node_memory_working_set_percentage";
    let of = ["--resource", cluster];
    let defined = az.json(&[&["monitor", "metrics", "list-definitions"], &of[..]].concat())?;
    for name in [CPU, MEMORY] {
        let mut all = defined.as_array().into_iter().flatten();
        let found = all.find(|one| one["name"]["value"] == name);
        let found = found.with_context(|| format!("no {name} in {defined}"))?;
        ensure!(found["unit"] == "Percent", "{found}");
    }
    let list = [
        &["monitor", "metrics", "list", "--metrics", CPU, MEMORY],
        &["--aggregation", "Average", "--interval", "1m", "--offset", "1h"][..],
        &of[..],
    ]
    .concat();
    wait_for("values of the node", Duration::from_secs(300), || {
        let told = az.json(&list)?;
        for name in [CPU, MEMORY] {
            let last = last_value(&told, name).with_context(|| format!("no value of {name} in {told}"))?;
            // A little above its size: the value covers some seconds.
            ensure!(last > 0.0 && last < 110.0, "{name}: {last}");
        }
        Ok(())
    })
}

/// The newest value of a metric, if there is one: minutes without a sample have none.
fn last_value(told: &Value, name: &str) -> Option<f64> {
    let mut metrics = told["value"].as_array()?.iter();
    let metric = metrics.find(|metric| metric["name"]["value"] == name)?;
    let data = metric["timeseries"][0]["data"].as_array()?;
    data.iter().rev().find_map(|one| one["average"].as_f64())
}

fn machines(az: &Az, kubectl: &Kubectl, nodes: &str) -> Result<()> {
    let sets = az.json(&["vmss", "list", "--resource-group", nodes])?;
    ensure!(sets.as_array().is_some_and(|sets| sets.len() == 1), "{sets}");
    let set = text(&sets, "/0/name")?;
    let of = ["--resource-group", nodes, "--name", set];
    let shown = az.json(&[&["vmss", "show"], &of[..]].concat())?;
    ensure!(shown["sku"]["capacity"] == 1, "{shown}");
    let instances = az.json(&[&["vmss", "list-instances"], &of[..]].concat())?;
    let name = text(&instances, "/0/osProfile/computerName")?;
    ensure!(kubectl.ready_nodes()? == [name], "{name} is no node");
    let number = text(&instances, "/0/instanceId")?;
    let view = az.json(&[&["vmss", "get-instance-view", "--instance-id", number], &of[..]].concat())?;
    let codes: Vec<&str> = view["statuses"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|one| one["code"].as_str())
        .collect();
    ensure!(codes.contains(&"PowerState/running"), "{view}");
    let provider = kubectl.text(&["get", "node", name, "-o", "jsonpath={.spec.providerID}"])?;
    let id = text(&instances, "/0/id")?;
    ensure!(
        provider.trim_start_matches("azure://").eq_ignore_ascii_case(id),
        "{provider} is not {id}"
    );
    let disks = az.json(&["disk", "list", "--resource-group", nodes])?;
    ensure!(text(&disks, "/0/managedBy")?.eq_ignore_ascii_case(id), "{disks}");
    // Its node is another one's afterwards: the API server has seen it begin again.
    let boot = |name: &str| {
        kubectl.text(&[
            "get",
            "node",
            name,
            "-o",
            "jsonpath={.status.nodeInfo.bootID} {.metadata.uid}",
        ])
    };
    let before = boot(name)?;
    az.json(&[&["vmss", "reimage", "--instance-ids", number], &of[..]].concat())?;
    ensure!(boot(name)? != before, "it is the node of before: {before}");
    ensure!(kubectl.ready_nodes()? == [name], "{name} is no node any more");
    let same = boot(name)?;
    let one = [&["--instance-ids", number], &of[..]].concat();
    az.json(&[&["vmss", "deallocate"], &one[..]].concat())?;
    let view = az.json(&[&["vmss", "get-instance-view", "--instance-id", number], &of[..]].concat())?;
    ensure!(view.to_string().contains("PowerState/deallocated"), "{view}");
    let said = az.fails(&[&["vmss", "restart"], &one[..]].concat())?;
    ensure!(said.contains("is deallocated"), "az says: {said}");
    wait_for("its node to be missed", Duration::from_secs(180), || {
        ensure!(kubectl.ready_nodes()?.is_empty(), "it is ready still");
        Ok(())
    })?;
    az.json(&[&["vmss", "start"], &one[..]].concat())?;
    wait_for("its node to be back", Duration::from_secs(180), || {
        ensure!(kubectl.ready_nodes()? == [name], "it is not ready");
        Ok(())
    })?;
    ensure!(
        boot(name)?.split_once(' ').map(|(_, uid)| uid) == same.split_once(' ').map(|(_, uid)| uid),
        "it is another node"
    );
    let sizes = az.json(&["vm", "list-sizes", "--location", "local"])?;
    let skus = az.json(&["vm", "list-skus", "--location", "local"])?;
    ensure!(
        sizes.as_array().map(Vec::len) == skus.as_array().map(Vec::len),
        "{sizes} {skus}"
    );
    Ok(())
}

/// The machine of a node, as the stamp's status shows it.
fn machine_of(stamp: &Stamp, node: &str) -> Result<Value> {
    let status = stamp.status()?;
    let mut all = status["machines"].as_array().into_iter().flatten();
    let found = all.find(|machine| machine["name"] == node && machine["deleting"] == false);
    found.cloned().with_context(|| format!("no machine is {node}"))
}

fn restarted_and_replaced(stamp: &Stamp, az: &Az, kubectl: &Kubectl, nodes: &str) -> Result<()> {
    let sets = az.json(&["vmss", "list", "--resource-group", nodes])?;
    let of = ["--resource-group", nodes, "--name", text(&sets, "/0/name")?];
    // The only instance, and the node that it is.
    let instance = || -> Result<(String, String)> {
        let instances = az.json(&[&["vmss", "list-instances"], &of[..]].concat())?;
        ensure!(
            instances.as_array().is_some_and(|all| all.len() == 1),
            "{instances}"
        );
        let (number, node) = ("/0/instanceId", "/0/osProfile/computerName");
        Ok((
            text(&instances, number)?.to_owned(),
            text(&instances, node)?.to_owned(),
        ))
    };
    let uid = |node: &str| kubectl.text(&["get", "node", node, "-o", "jsonpath={.metadata.uid}"]);
    let (number, node) = instance()?;
    let (before, own) = (machine_of(stamp, &node)?, uid(&node)?);
    az.json(&[&["vmss", "restart", "--instance-ids", &number], &of[..]].concat())?;
    wait_for("the machine to be back", PATIENCE, || {
        let now = machine_of(stamp, &node)?;
        ensure!(
            text(&now, "/id")? == text(&before, "/id")?,
            "it is another machine"
        );
        ensure!(
            text(&now, "/boot")? != text(&before, "/boot")?,
            "it has not started again"
        );
        ensure!(kubectl.ready_nodes()? == [node.as_str()], "{node} is not ready");
        Ok(())
    })?;
    ensure!(uid(&node)? == own, "it is another node");
    az.json(&[&["vmss", "delete-instances", "--instance-ids", &number], &of[..]].concat())?;
    wait_for("another machine in its place", PATIENCE, || {
        let (_, node) = instance()?;
        let now = machine_of(stamp, &node)?;
        ensure!(
            text(&now, "/id")? != text(&before, "/id")?,
            "it is the machine of before"
        );
        ensure!(kubectl.ready_nodes()? == [node.as_str()], "{node} is not ready");
        ensure!(uid(&node)? != own, "it is the node of before");
        Ok(())
    })
}

/// The numbers of clusters and nodes in the subscription; the Azure CLI has no command for them.
fn quota_usages(az: &Az, cluster: &str) -> Result<()> {
    let subscription = cluster
        .split('/')
        .nth(2)
        .context("the cluster's id is malformed")?;
    let path = format!(
        "/subscriptions/{subscription}/providers/Microsoft.ContainerService/locations/local/usages?api-version=2026-06-01"
    );
    let told = az.json(&["rest", "--method", "get", "--url", &path])?;
    for (name, value) in [("ManagedClusters", 1), ("Nodes", 1)] {
        let mut lines = told["value"].as_array().into_iter().flatten();
        let line = lines.find(|line| line["name"]["value"] == name);
        let line = line.with_context(|| format!("no {name} in {told}"))?;
        ensure!(line["currentValue"] == value, "{line}");
    }
    Ok(())
}

fn networks(stamp: &Stamp, az: &Az, nodes: &str) -> Result<()> {
    let of = ["--resource-group", nodes];
    let vnets = az.json(&[&["network", "vnet", "list"], &of[..]].concat())?;
    let name = text(&vnets, "/0/name")?;
    let subnets = az.json(
        &[
            &["network", "vnet", "subnet", "list", "--vnet-name", name],
            &of[..],
        ]
        .concat(),
    )?;
    ensure!(subnets == vnets[0]["subnets"], "{subnets}");
    let addresses = az.json(&[&["network", "public-ip", "list"], &of[..]].concat())?;
    let status = stamp.status()?;
    let (vip, shown) = (
        text(&status, "/clusters/0/vip")?,
        text(&addresses, "/0/ipAddress")?,
    );
    ensure!(vip == shown, "{shown} is not {vip}");
    for list in ["lb", "nsg", "route-table"] {
        let found = az.json(&[&["network", list, "list"], &of[..]].concat())?;
        ensure!(
            found.as_array().is_some_and(|found| !found.is_empty()),
            "no {list}"
        );
    }
    let said = az.fails(&[&["network", "vnet", "delete", "--name", name], &of[..]].concat())?;
    ensure!(said.contains("goes with it"), "az says: {said}");
    let none: Value = az.json(&[&["network", "nic", "list"], &of[..]].concat())?;
    ensure!(none.as_array().is_some_and(Vec::is_empty), "{none}");
    Ok(())
}

/// A subscription is disabled and enabled again, by the lines of the guide's block.
fn disabled(stamp: &Stamp, az: &Az, block: &str) -> Result<()> {
    let lines: Vec<&str> = block.lines().collect();
    let [list, disable, enable] = lines[..] else {
        anyhow::bail!("the guide says something else: {block}");
    };
    let follow = |line: &str| run(&mut shell(stamp, az, line)?);
    let listed = |state: &str| -> Result<()> {
        let told = follow(list)?;
        ensure!(told.contains(state), "{told}");
        Ok(())
    };
    listed("Enabled")?;
    follow(disable)?;
    let looked = (|| -> Result<()> {
        listed("Disabled")?;
        let late = ["group", "create", "--name", "late", "--location", "local"];
        let get = [
            "aks",
            "get-credentials",
            "--resource-group",
            FIRST,
            "--name",
            FIRST,
            "--admin",
            "--file",
            "late.kubeconfig",
        ];
        for refused in [&late[..], &get[..]] {
            let said = az.fails(refused)?;
            ensure!(said.contains("ReadOnlyDisabledSubscription"), "az says: {said}");
        }
        let cluster = az.json(&["aks", "show", "--resource-group", FIRST, "--name", FIRST])?;
        ensure!(cluster["powerState"]["code"] == "Running", "{cluster}");
        Ok(())
    })();
    // In any case writes must be possible again afterwards.
    follow(enable)?;
    looked?;
    listed("Enabled")
}

/// A shell that runs commands of the guide.
fn shell(stamp: &Stamp, az: &Az, script: &str) -> Result<std::process::Command> {
    // The stamp's name is this run's; the rest of the command is the guide's.
    let landfall = stamp.landfall(&[]);
    let program = landfall.get_program().to_string_lossy().into_owned();
    let own = format!("landfall() {{ '{program}' \"$@\" --name {}; }}\n", stamp.name);
    let mut shell = guide::shell(stamp, az, &[], &format!("{own}{script}"))?;
    shell.env("GROUP", FIRST).env("CLUSTER", FIRST);
    guide::has_environment_of(&mut shell, &landfall);
    Ok(shell)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_newest_value_counts_and_gaps_are_none() {
        let data = json!([
            { "timeStamp": "2026-11-29T02:00:00Z" },
            { "timeStamp": "2026-11-29T02:01:00Z", "average": 3.5 },
            { "timeStamp": "2026-11-29T02:02:00Z", "average": 4.5 },
            { "timeStamp": "2026-11-29T02:03:00Z", "average": null },
        ]);
        let told = json!({ "value": [
            { "name": { "value": "a" }, "timeseries": [{ "data": data }] },
            { "name": { "value": "b" }, "timeseries": [] },
        ]});
        assert_eq!(last_value(&told, "a"), Some(4.5));
        assert_eq!(last_value(&told, "b"), None);
        assert_eq!(last_value(&told, "c"), None);
    }

    #[test]
    fn the_guide_has_the_blocks_that_are_followed() {
        let [usages, limit, scale, lift, subscriptions, providers, requests] =
            guide::exactly::<7>(GUIDE).unwrap();
        assert!(usages.contains("list-usage") && limit.starts_with("landfall up --limit nodes=3"));
        assert!(scale.contains("nodepool scale") && lift.ends_with("--limit none\n"));
        let words: Vec<&str> = subscriptions
            .lines()
            .filter_map(|line| line.strip_prefix("landfall subscription "))
            .collect();
        assert_eq!(words, ["list", "disable", "enable"]);
        assert!(providers.contains("provider unregister") && providers.contains("provider register"));
        assert!(
            requests.contains("--limit requests=azure") && requests.ends_with("--limit requests=default\n")
        );
    }
}
