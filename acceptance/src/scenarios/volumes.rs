//! Volumes for claims: data that outlives pods, nodes' machines and the service, on one node at a time.

mod own;
mod shares;

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{
    aks,
    guide::{self, follow},
    healing::{id, init, machines, signal},
    text,
    workload::{BUSYBOX, Cluster},
};
use crate::{
    clients::{Az, run},
    journal::{Journal, PATIENCE, wait_for},
    stamp::Stamp,
};

/// The name of this scenario.
pub(super) const NAME: &str = "volumes";

/// Its blocks are run verbatim.
const GUIDE: &str = include_str!("../../../docs/guides/volumes.md");

/// The pod that writes all the time.
const WRITER: &str = "deployment/kept";
/// A line for each start of that pod: the node.
const STARTS: &str = "/data/starts";
/// A line for each second that it wrote in.
const BEATS: &str = "/data/beats";

pub(super) fn walk(journal: &Journal, stamp: &Stamp, az: &Az, cluster: &Cluster) -> Result<()> {
    let kubectl = &cluster.kubectl;
    let [notes, before, pages, pages_again, ledger, ledger_again] = guide::exactly(GUIDE)?;
    journal.step(NAME, "the guide: what a pod writes is there for the next", || {
        let said = follow(stamp, az, cluster, &notes)?;
        let mut last = said.lines().rev();
        let (second, first) = (last.next().unwrap_or_default(), last.next().unwrap_or_default());
        ensure!(
            first.starts_with("notes-") && second.starts_with("notes-") && first != second,
            "{said}"
        );
        kubectl
            .text(&["delete", "deployment,pvc", "notes", "--timeout=180s"])
            .map(drop)
    })?;
    let volume = journal.step(
        NAME,
        "a claim without a class gets a volume once a pod uses it, and az shows it",
        || claimed(stamp, az, cluster),
    )?;
    journal.step(
        NAME,
        "it grows, while it is mounted where the host permits that",
        || grows(journal, cluster),
    )?;
    journal.step(
        NAME,
        "kill -9 of the service while a pod writes: it goes on writing",
        || goes_on(stamp, cluster),
    )?;
    journal.step(
        NAME,
        "the node's machine dies and comes back: so does the pod, with its data",
        || comes_back(stamp, cluster),
    )?;
    journal.step(
        NAME,
        "a pod comes up on the other node with its data, and no two nodes have it",
        || moves(cluster, &volume),
    )?;
    journal.step(NAME, "a copy of a claim has its content", || copied(cluster))?;
    journal.step(
        NAME,
        "the guide: a snapshot of a disk that a pod writes to, and a claim that begins with it",
        || taken(stamp, az, cluster, &before),
    )?;
    journal.step(
        NAME,
        "a block device is written to and read by the next pod",
        || block(cluster),
    )?;
    journal.step(NAME, "fsGroup: a user other than root may write", || {
        group(cluster)
    })?;
    shares::walk(journal, stamp, az, cluster, [&pages, &pages_again])?;
    own::walk(journal, stamp, az, cluster, [&ledger, &ledger_again])?;
    journal.step(NAME, "an impossible request has an event", || refused(cluster))?;
    journal.step(NAME, "claims that are deleted leave nothing", || {
        ensure!(!on_host(stamp)?.is_empty(), "the host shows no volume at all");
        kubectl.text(&["delete", "deployment", "kept", "--timeout=180s"])?;
        kubectl.text(&["delete", "pvc", "--all", "--timeout=180s"])?;
        wait_for("the volumes to be gone", PATIENCE, || {
            let volumes = kubectl.json(&["get", "pv"])?;
            ensure!(
                volumes["items"].as_array().is_some_and(Vec::is_empty),
                "{volumes}"
            );
            let left = on_host(stamp)?;
            ensure!(left.is_empty(), "left on the host: {left:?}");
            Ok(())
        })
    })
}

fn claimed(stamp: &Stamp, az: &Az, cluster: &Cluster) -> Result<String> {
    cluster.apply(&list(&[claim("kept", "1Gi", json!({})), writer()]))?;
    cluster.rolled_out(WRITER)?;
    let claim = cluster.kubectl.json(&["get", "pvc", "kept"])?;
    ensure!(claim["spec"]["storageClassName"] == "default", "{claim}");
    let volume = text(&claim, "/spec/volumeName")?;
    let shown = aks(az, &["show"], cluster.name, &[])?;
    let nodes = text(&shown, "/nodeResourceGroup")?;
    let disk = az.json(&["disk", "show", "--resource-group", nodes, "--name", volume])?;
    ensure!(
        disk["tags"]["kubernetes.io-created-for-pvc-name"] == "kept",
        "{disk}"
    );
    ensure!(disk["diskSizeGB"] == 1 || disk["diskSizeGb"] == 1, "{disk}");
    ensure!(!on_host(stamp)?.is_empty(), "the host shows no volume");
    Ok(volume.to_owned())
}

/// A machine has at most its host's capabilities, and the kernel lets a mounted filesystem grow only with
/// `CAP_SYS_RESOURCE`. Without it, a filesystem grows when the next pod uses it.
fn grows(journal: &Journal, cluster: &Cluster) -> Result<()> {
    let patch = r#"{"spec":{"resources":{"requests":{"storage":"2Gi"}}}}"#;
    cluster
        .kubectl
        .text(&["patch", "pvc", "kept", "--patch", patch])?;
    if !grows_mounted()? {
        wait_for("the claim to tell what it waits for", PATIENCE, || {
            let claim = cluster.kubectl.json(&["get", "pvc", "kept"])?;
            let conditions = claim["status"]["conditions"].as_array();
            let mut told = conditions.into_iter().flatten();
            ensure!(
                told.any(|told| told["type"] == "FileSystemResizePending"),
                "{claim}"
            );
            Ok(())
        })?;
        journal.note("volumes: this host has no CAP_SYS_RESOURCE to give: the pod ends and is started again");
        let scale = |replicas: &str| {
            let replicas = format!("--replicas={replicas}");
            cluster.kubectl.text(&["scale", WRITER, &replicas])
        };
        scale("0")?;
        // A pod that follows at once finds the filesystem mounted still.
        wait_for("no node to have the volume", PATIENCE, || {
            let claim = cluster.kubectl.json(&["get", "pvc", "kept"])?;
            let attachments = cluster.kubectl.json(&["get", "volumeattachments"])?;
            let mut all = attachments["items"].as_array().context("no list")?.iter();
            let has =
                |one: &Value| one["spec"]["source"]["persistentVolumeName"] == claim["spec"]["volumeName"];
            ensure!(!all.any(has), "{attachments}");
            Ok(())
        })?;
        scale("1")?;
        cluster.rolled_out(WRITER)?;
    }
    wait_for("the filesystem to be larger", PATIENCE, || {
        let said = within(cluster, WRITER, "df -P -m /data | tail -n 1")?;
        let size = said.split_whitespace().nth(1).context("df tells no size")?;
        ensure!(size.parse::<u32>()? > 1_500, "it has {size} MiB: {said}");
        Ok(())
    })?;
    wait_for("the claim to tell so", PATIENCE, || {
        let claim = cluster.kubectl.json(&["get", "pvc", "kept"])?;
        ensure!(claim["status"]["capacity"]["storage"] == "2Gi", "{claim}");
        Ok(())
    })
}

/// Whether this host can grant `CAP_SYS_RESOURCE`, by this process's own capabilities.
fn grows_mounted() -> Result<bool> {
    const SYS_RESOURCE: u32 = 24;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let held = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let held = u64::from_str_radix(held.context("no capabilities are told")?.trim(), 16)?;
    Ok(held & (1 << SYS_RESOURCE) != 0)
}

fn goes_on(stamp: &Stamp, cluster: &Cluster) -> Result<()> {
    let before = lines(cluster, BEATS)?.len();
    stamp.kill_service()?;
    let went_on = wait_for("more to be written", PATIENCE, || {
        let now = lines(cluster, BEATS)?.len();
        ensure!(now > before + 2, "{now} lines, {before} before");
        Ok(())
    });
    run(&mut stamp.landfall(&["up", "--output", "json"]))?;
    stamp.wait_for_service(PATIENCE)?;
    went_on
}

fn comes_back(stamp: &Stamp, cluster: &Cluster) -> Result<()> {
    let (_, node) = pod(cluster)?;
    let before = lines(cluster, STARTS)?;
    let all = machines(stamp, cluster.name, "node")?;
    let machine = all.iter().find(|machine| machine["name"] == node.as_str());
    let machine = machine.with_context(|| format!("{node} has no machine"))?;
    signal("-KILL", init(id(machine)?)?)?;
    wait_for("the pod to be back", PATIENCE, || {
        let now = lines(cluster, STARTS)?;
        ensure!(
            now.len() > before.len() && now.starts_with(&before),
            "{now:?}, before: {before:?}"
        );
        Ok(())
    })?;
    wait_for("all nodes to be ready", PATIENCE, || {
        let ready = cluster.kubectl.ready_nodes()?;
        ensure!(ready.len() == 2, "ready: {ready:?}");
        Ok(())
    })
}

fn moves(cluster: &Cluster, volume: &str) -> Result<()> {
    let kubectl = &cluster.kubectl;
    let (pod, node) = pod(cluster)?;
    let before = lines(cluster, STARTS)?;
    kubectl.text(&["cordon", &node])?;
    let mut most = 0;
    let moved = kubectl
        .text(&["delete", "pod", &pod, "--wait=false"])
        .and_then(|_| {
            wait_for("the pod on the other node", PATIENCE, || {
                most = most.max(holders(cluster, volume)?);
                let now = lines(cluster, STARTS)?;
                ensure!(
                    now.len() > before.len() && now.starts_with(&before) && now.last() != Some(&node),
                    "{now:?}, before: {before:?}"
                );
                Ok(())
            })
        });
    kubectl.text(&["uncordon", &node])?;
    moved?;
    ensure!(most <= 1, "{most} nodes had it at a time");
    Ok(())
}

/// The number of nodes that have a volume, by the cluster's objects.
fn holders(cluster: &Cluster, volume: &str) -> Result<usize> {
    let attachments = cluster.kubectl.json(&["get", "volumeattachments"])?;
    let items = attachments["items"].as_array().context("no items")?.iter();
    let held = items.filter(|one| {
        one["spec"]["source"]["persistentVolumeName"] == volume && one["status"]["attached"] == true
    });
    Ok(held.count())
}

fn copied(cluster: &Cluster) -> Result<()> {
    within(cluster, WRITER, "sync")?;
    let before = lines(cluster, STARTS)?;
    let source = json!({ "dataSource": { "kind": "PersistentVolumeClaim", "name": "kept" } });
    let user = sleeper("copy", json!({}), json!({ "volumeMounts": [mount()] }));
    cluster.apply(&list(&[claim("copy", "2Gi", source), user]))?;
    cluster.kubectl.pod_ready("copy")?;
    let said = within(cluster, "pod/copy", &format!("cat {STARTS}"))?;
    ensure!(
        said.lines().eq(before.iter().map(String::as_str)),
        "{said}, and it is a copy of {before:?}"
    );
    gone(cluster, "copy")
}

/// The guide's block names the claim `notes`, which is created again for it. Data written after the snapshot is
/// not in the restored claim.
fn taken(stamp: &Stamp, az: &Az, cluster: &Cluster, block: &str) -> Result<()> {
    let kubectl = &cluster.kubectl;
    // The class is created after its kind.
    wait_for("the class of snapshots", PATIENCE, || {
        kubectl
            .text(&["get", "volumesnapshotclass", "csi-azuredisk-vsc"])
            .map(drop)
    })?;
    let user = sleeper("notes", json!({}), json!({ "volumeMounts": [mount()] }));
    cluster.apply(&list(&[claim("notes", "1Gi", json!({})), user]))?;
    kubectl.pod_ready("notes")?;
    // Without `sync`: the freeze writes cached data to the disk.
    within(cluster, "pod/notes", "echo before > /data/log")?;
    follow(stamp, az, cluster, block)?;
    within(cluster, "pod/notes", "echo after >> /data/log")?;
    let snapshot = kubectl.json(&["get", "volumesnapshot", "before"])?;
    ensure!(snapshot["status"]["restoreSize"] == "1Gi", "{snapshot}");
    let nodes = aks(az, &["show"], cluster.name, &[])?;
    let nodes = text(&nodes, "/nodeResourceGroup")?.to_owned();
    let name = format!("snapshot-{}", text(&snapshot, "/metadata/uid")?);
    let shown = az.json(&["snapshot", "show", "--resource-group", &nodes, "--name", &name])?;
    ensure!(shown["provisioningState"] == "Succeeded", "{shown}");

    let from = |pod: &str, claim: &str| {
        let more =
            json!({ "volumes": [{ "name": "data", "persistentVolumeClaim": { "claimName": claim } }] });
        sleeper(pod, more, json!({ "volumeMounts": [mount()] }))
    };
    cluster.apply(&from("again", "notes-again"))?;
    kubectl.pod_ready("again")?;
    let said = within(cluster, "pod/again", "cat /data/log")?;
    ensure!(said.trim() == "before", "{said:?}");
    kubectl.text(&["delete", "volumesnapshot", "before", "--timeout=180s"])?;
    wait_for("what was taken to be gone", PATIENCE, || {
        let contents = kubectl.json(&["get", "volumesnapshotcontents"])?;
        ensure!(
            contents["items"].as_array().is_some_and(Vec::is_empty),
            "{contents}"
        );
        Ok(())
    })?;
    // The restored claim does not depend on the snapshot.
    let said = within(cluster, "pod/again", "cat /data/log")?;
    ensure!(said.trim() == "before", "{said:?}");
    let delete = [
        "delete",
        "pod/again",
        "pod/notes",
        "pvc/notes",
        "pvc/notes-again",
        "--timeout=180s",
    ];
    kubectl.text(&delete).map(drop)
}

fn block(cluster: &Cluster) -> Result<()> {
    let devices = json!({ "volumeDevices": [{ "name": "data", "devicePath": "/dev/raw" }] });
    let user = sleeper("raw", json!({}), devices);
    let claim = claim("raw", "1Gi", json!({ "volumeMode": "Block" }));
    cluster.apply(&list(&[claim, user.clone()]))?;
    cluster.kubectl.pod_ready("raw")?;
    within(
        cluster,
        "pod/raw",
        "test -b /dev/raw && echo as it is > /dev/raw && sync",
    )?;
    cluster
        .kubectl
        .text(&["delete", "pod", "raw", "--timeout=180s"])?;
    cluster.apply(&user)?;
    cluster.kubectl.pod_ready("raw")?;
    let said = within(cluster, "pod/raw", "head -n 1 /dev/raw")?;
    ensure!(said.trim() == "as it is", "{said:?}");
    gone(cluster, "raw")
}

fn group(cluster: &Cluster) -> Result<()> {
    let who = json!({ "securityContext": { "runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 2000 } });
    let user = sleeper("group", who, json!({ "volumeMounts": [mount()] }));
    cluster.apply(&list(&[claim("group", "1Gi", json!({})), user]))?;
    cluster.kubectl.pod_ready("group")?;
    let said = within(
        cluster,
        "pod/group",
        "echo mine > /data/mine; stat -c %u:%g /data/mine",
    )?;
    ensure!(said.trim() == "1000:2000", "{said}");
    gone(cluster, "group")
}

fn refused(cluster: &Cluster) -> Result<()> {
    let modes = json!({ "accessModes": ["ReadWriteMany"] });
    let user = sleeper("shared", json!({}), json!({ "volumeMounts": [mount()] }));
    cluster.apply(&list(&[claim("shared", "1Gi", modes), user]))?;
    wait_for("an event of the claim", PATIENCE, || {
        let of = "--field-selector=involvedObject.name=shared,reason=ProvisioningFailed";
        let events = cluster.kubectl.json(&["get", "events", of])?;
        let message = text(&events, "/items/0/message")?;
        ensure!(message.contains("ReadWriteMany"), "{message}");
        Ok(())
    })?;
    gone(cluster, "shared")
}

/// A pod and its claim are deleted.
fn gone(cluster: &Cluster, name: &str) -> Result<()> {
    let both = [format!("pod/{name}"), format!("pvc/{name}")];
    let both = both.each_ref().map(String::as_str);
    let delete = [&["delete"][..], &both, &["--timeout=180s"]].concat();
    cluster.kubectl.text(&delete).map(drop)
}

/// The volumes on the host: their directories, and loop devices with one.
fn on_host(stamp: &Stamp) -> Result<Vec<String>> {
    let volumes = stamp.state().join("fabric/volumes");
    let mut left = Vec::new();
    // There is no directory before the first of them.
    for entry in std::fs::read_dir(&volumes).into_iter().flatten().flatten() {
        left.push(entry.path().display().to_string());
    }
    for device in std::fs::read_dir("/sys/block")?.flatten() {
        let backing = device.path().join("loop/backing_file");
        let backing = std::fs::read_to_string(backing).unwrap_or_default();
        if Path::new(backing.trim()).starts_with(&volumes) {
            left.push(format!("{}: {}", device.path().display(), backing.trim()));
        }
    }
    Ok(left)
}

/// The writer's pod that is to stay, and its node.
fn pod(cluster: &Cluster) -> Result<(String, String)> {
    let pods = cluster.kubectl.json(&["get", "pods", "--selector", "app=kept"])?;
    let mut pods = pods["items"].as_array().context("no items")?.iter();
    let staying = pods.find(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    let pod = staying.context("the writer has no pod")?;
    Ok((
        text(pod, "/metadata/name")?.to_owned(),
        text(pod, "/spec/nodeName")?.to_owned(),
    ))
}

/// Runs a line of shell in a pod.
fn within(cluster: &Cluster, pod: &str, script: &str) -> Result<String> {
    cluster.kubectl.text(&["exec", pod, "--", "sh", "-c", script])
}

/// The lines of a file of the writer's.
fn lines(cluster: &Cluster, file: &str) -> Result<Vec<String>> {
    let said = within(cluster, WRITER, &format!("cat {file}"))?;
    Ok(said.lines().map(str::to_owned).collect())
}

fn list(items: &[Value]) -> Value {
    json!({ "apiVersion": "v1", "kind": "List", "items": items })
}

fn mount() -> Value {
    json!({ "name": "data", "mountPath": "/data" })
}

/// A claim for one node at a time, with other fields of its specification.
fn claim(name: &str, size: &str, more: Value) -> Value {
    let mut spec = json!({
        "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": size } }
    });
    with(&mut spec, more);
    json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": name }, "spec": spec })
}

fn with(object: &mut Value, more: Value) {
    for (field, value) in more.as_object().into_iter().flatten() {
        object[field] = value.clone();
    }
}

/// A pod that uses the claim of its name and sleeps, with additional members of its specification and of its
/// container.
fn sleeper(name: &str, more: Value, of_container: Value) -> Value {
    let mut container = json!({
        "name": "sleeper", "image": BUSYBOX, "imagePullPolicy": "Never", "command": ["sleep", "86400"]
    });
    with(&mut container, of_container);
    let mut spec = json!({
        "terminationGracePeriodSeconds": 0,
        "containers": [container],
        "volumes": [{ "name": "data", "persistentVolumeClaim": { "claimName": name } }]
    });
    with(&mut spec, more);
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name }, "spec": spec })
}

/// One pod at a time that writes down where it starts, and then a line each second.
fn writer() -> Value {
    let script = format!("echo $NODE >> {STARTS}; while true; do date >> {BEATS}; sleep 1; done");
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "kept" },
        "spec": {
            "replicas": 1,
            "strategy": { "type": "Recreate" },
            "selector": { "matchLabels": { "app": "kept" } },
            "template": {
                "metadata": { "labels": { "app": "kept" } },
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{
                        "name": "writer", "image": BUSYBOX, "imagePullPolicy": "Never",
                        "command": ["sh", "-c", script],
                        "env": [{ "name": "NODE", "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } } }],
                        "volumeMounts": [mount()]
                    }],
                    "volumes": [{ "name": "data", "persistentVolumeClaim": { "claimName": "kept" } }]
                }
            }
        }
    })
}
