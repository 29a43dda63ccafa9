//! A cluster is stopped and started with the commands of the guide; its objects are there again.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{GROUP, aks, guide, healing::machines, rotation};
use crate::{
    clients::{Az, Kubectl, run},
    journal::{Journal, wait_for},
    stamp::Stamp,
};

/// The cluster.
const NAME: &str = "sleeper";
/// Machines of its control plane.
const MEMBERS: usize = 3;
/// The commands are run verbatim.
const GUIDE: &str = include_str!("../../../docs/guides/power.md");
/// The last block of this one is run as well.
const ARCHIVES: &str = include_str!("../../../docs/guides/support.md");
const BOUND: Duration = Duration::from_secs(180);

/// The state that must be the same after a start.
#[derive(Debug, PartialEq)]
struct Kept {
    endpoint: Vec<String>,
    nodes: Vec<String>,
    pod: String,
    data: Value,
    /// The ConfigMap's.
    version: Value,
}

pub(super) fn walk(journal: &Journal, stamp: &Stamp, az: &Az) -> Result<()> {
    let [stop, start] = guide::exactly(GUIDE)?;
    journal.step("power", "az aks create: three members", || {
        let more = ["--node-count", "1", "--no-ssh-key", "--tier", "standard"];
        aks(az, &["create"], NAME, &more).map(drop)
    })?;
    let kubectl = stamp.kubectl(az, GROUP, NAME)?;
    kubectl.apply(stamp.directory.path(), &workload())?;
    kubectl.rolled_out("deployment/sleeper")?;
    let before = kept(&kubectl)?;

    journal.step("power", "the guide's az aks stop: no machine runs", || {
        let said = journal.timed("power", "stopped after", || follow(stamp, az, &kubectl, &stop))?;
        ensure!(said.trim().ends_with("Stopped"), "{said}");
        let shown = aks(az, &["show"], NAME, &[])?;
        ensure!(shown["provisioningState"] == "Succeeded", "{shown}");
        ensure!(shown["powerState"]["code"] == "Stopped", "{shown}");
        ensure!(
            shown["agentPoolProfiles"][0]["powerState"]["code"] == "Stopped",
            "{shown}"
        );
        off(stamp)
    })?;
    journal.step(
        "power",
        "a stopped cluster: credentials are answered, changes refused, another stop is done at once",
        || {
            let again = stamp.kubectl(az, GROUP, NAME)?;
            ensure!(endpoint(&again)? == before.endpoint);
            let said = az.fails(&[
                "aks",
                "scale",
                "--resource-group",
                GROUP,
                "--name",
                NAME,
                "--node-count",
                "2",
            ])?;
            ensure!(
                said.contains("OperationNotAllowed") && said.contains("is stopped"),
                "az says: {said}"
            );
            aks(az, &["stop"], NAME, &[]).map(drop)
        },
    )?;
    journal.step(
        "power",
        "it stays stopped when the service is killed, and when the host loses its power",
        || {
            stamp.kill_service()?;
            run(&mut stamp.landfall(&["up", "--output", "json"]))?;
            stamp.wait_for_service(Duration::from_secs(180))?;
            off(stamp)?;
            stamp.power_failure()?;
            run(&mut stamp.landfall(&["up", "--output", "json"]))?;
            stamp.wait_for_service(Duration::from_secs(180))?;
            off(stamp)
        },
    )?;
    journal.step("power", "the guide's az aks start: back with its data", || {
        let said = journal.timed("power", "started after", || follow(stamp, az, &kubectl, &start))?;
        ensure!(said.contains("Running"), "{said}");
        back(&kubectl, &before)
    })?;
    let before = journal.step(
        "power",
        "the support guide's landfall support archive, and az aks start: back with its data, from the backup",
        || {
            let [.., archive] = guide::exactly::<5>(ARCHIVES)?;
            let variables = [("GROUP", GROUP), ("CLUSTER", NAME)];
            let said = journal.timed("power", "archived and back after", || {
                run(&mut guide::with_landfall(stamp, az, &variables, &archive)?)
            })?;
            ensure!(said.contains("Its control plane is in its backup"), "{said}");
            // What is restored has other versions than before.
            let version = kept(&kubectl)?.version;
            let before = Kept { version, ..before };
            back(&kubectl, &before)?;
            Ok(before)
        },
    )?;
    journal.step(
        "power",
        "the service is killed in the middle of a stop, and of a start",
        || {
            for (verb, code) in [("stop", "Stopped"), ("start", "Running")] {
                aks(az, &[verb], NAME, &["--no-wait"])?;
                stamp.kill_service()?;
                run(&mut stamp.landfall(&["up", "--output", "json"]))?;
                wait_for(code, BOUND, || {
                    let shown = aks(az, &["show"], NAME, &[])?;
                    let states = (&shown["provisioningState"], &shown["powerState"]["code"]);
                    ensure!(states == (&json!("Succeeded"), &json!(code)), "{states:?}");
                    Ok(())
                })?;
                if verb == "stop" {
                    off(stamp)?;
                }
            }
            back(&kubectl, &before)
        },
    )?;
    rotation::walk(journal, stamp, az, NAME)?;
    journal.step("power", "a stopped cluster is deleted", || {
        aks(az, &["stop"], NAME, &[])?;
        aks(az, &["delete"], NAME, &["--yes"]).map(drop)
    })
}

/// Runs commands of the guide.
fn follow(stamp: &Stamp, az: &Az, kubectl: &Kubectl, script: &str) -> Result<String> {
    let mut shell = guide::shell(stamp, az, &[&kubectl.program], script)?;
    shell
        .env("KUBECONFIG", &kubectl.kubeconfig)
        .env("GROUP", GROUP)
        .env("CLUSTER", NAME);
    run(&mut shell)
}

/// No machine of the cluster runs; the control plane's disks exist, the nodes' do not.
fn off(stamp: &Stamp) -> Result<()> {
    let members = machines(stamp, NAME, "control plane")?;
    ensure!(
        members.len() == MEMBERS && members.iter().all(|member| member["power"] == "stopped"),
        "the control plane is {members:?}"
    );
    let nodes = machines(stamp, NAME, "node")?;
    ensure!(
        nodes.len() == 1 && nodes.iter().all(|node| node["power"] == "absent"),
        "nodes are {nodes:?}"
    );
    for machine in members.iter().chain(&nodes) {
        let id = machine["id"].as_str().context("a machine without an id")?;
        let there = stamp.machine_disk(id).exists();
        ensure!(
            there == (machine["role"] == "control plane"),
            "the disk of {machine}"
        );
    }
    Ok(())
}

/// The API's address and the CA in a kubeconfig.
fn endpoint(kubectl: &Kubectl) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(&kubectl.kubeconfig)?;
    let own = |line: &&str| line.starts_with("server:") || line.starts_with("certificate-authority-data:");
    let lines: Vec<String> = text
        .lines()
        .map(str::trim)
        .filter(own)
        .map(str::to_owned)
        .collect();
    ensure!(lines.len() == 2, "{lines:?}");
    Ok(lines)
}

fn kept(kubectl: &Kubectl) -> Result<Kept> {
    let pods = kubectl.json(&["get", "pods", "-l", "app=sleeper"])?;
    let map = kubectl.json(&["get", "configmap", "sleeper"])?;
    let pod = pods["items"][0]["metadata"]["uid"].as_str();
    Ok(Kept {
        endpoint: endpoint(kubectl)?,
        nodes: kubectl.ready_nodes()?,
        pod: pod.context("no pod")?.to_owned(),
        data: json!({ "data": map["data"], "uid": map["metadata"]["uid"] }),
        version: map["metadata"]["resourceVersion"].clone(),
    })
}

/// The state is as before, and the pod serves again.
fn back(kubectl: &Kubectl, before: &Kept) -> Result<()> {
    wait_for("what was there before", BOUND, || {
        let now = kept(kubectl)?;
        ensure!(now == *before, "{now:#?}, before: {before:#?}");
        let deployment = kubectl.json(&["get", "deployment", "sleeper"])?;
        ensure!(
            deployment["status"]["availableReplicas"] == 1,
            "{}",
            deployment["status"]
        );
        let said = kubectl.text(&["exec", "deployment/sleeper", "--", "cat", "/kept/answer"])?;
        ensure!(said == "42", "{said}");
        Ok(())
    })
}

/// A Deployment that reads a ConfigMap.
fn workload() -> Value {
    json!({ "apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "sleeper" }, "data": { "answer": "42" },
        },
        {
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "sleeper" },
            "spec": {
                "replicas": 1,
                "selector": { "matchLabels": { "app": "sleeper" } },
                "template": {
                    "metadata": { "labels": { "app": "sleeper" } },
                    "spec": {
                        "terminationGracePeriodSeconds": 0,
                        "containers": [{
                            "name": "sleeper", "image": "landfall.dev/busybox:1", "imagePullPolicy": "Never",
                            "command": ["sleep", "86400"],
                            "volumeMounts": [{ "name": "kept", "mountPath": "/kept" }],
                        }],
                        "volumes": [{ "name": "kept", "configMap": { "name": "sleeper" } }],
                    },
                },
            },
        },
    ] })
}
