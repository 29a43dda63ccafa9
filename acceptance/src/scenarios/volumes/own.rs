//! Disks of one's own: made with az, used by way of a PersistentVolume, copied, made larger, deleted.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{NAME, follow, mount, sleeper, within};
use crate::{
    clients::Az,
    journal::{Journal, PATIENCE, wait_for},
    scenarios::{GROUP, text, workload::Cluster},
    stamp::Stamp,
};

/// `blocks` of the guide: a disk that is used by a pod; a snapshot of it, a disk from that, and a larger disk.
pub(super) fn walk(
    journal: &Journal,
    stamp: &Stamp,
    az: &Az,
    cluster: &Cluster,
    blocks: [&str; 2],
) -> Result<()> {
    let kubectl = &cluster.kubectl;
    let [used, copied] = blocks;
    journal.step(
        NAME,
        "a disk that the cluster's identity may not use: the pod's events say so",
        || forbidden(az, cluster),
    )?;
    journal.step(
        NAME,
        "the guide: az disk create, and a pod that uses the disk",
        || {
            let said = follow(stamp, az, cluster, used)?;
            ensure!(said.trim_end().ends_with("ledger"), "{said}");
            let disk = disk(az, "ledger")?;
            ensure!(disk["diskState"] == "Attached", "{disk}");
            let holder = text(&disk, "/managedBy")?;
            let own = format!("/managedClusters/{}", cluster.name);
            ensure!(holder.ends_with(&own), "{disk}");
            let said = az.fails(&[&["disk", "delete", "--yes"][..], &at("ledger")].concat())?;
            ensure!(said.contains("OperationNotAllowed"), "az says: {said}");
            Ok(())
        },
    )?;
    journal.step(
        NAME,
        "the guide: az snapshot create of a disk in use, a disk from it, and a larger disk",
        || {
            // Without `sync`: the freeze writes cached data to the disk.
            within(cluster, "pod/ledger", "echo before > /data/state")?;
            follow(stamp, az, cluster, copied)?;
            within(cluster, "pod/ledger", "echo after > /data/state")?;
            let large = disk(az, "ledger")?;
            ensure!(large["diskSizeGB"] == 2 || large["diskSizeGb"] == 2, "{large}");
            wait_for("the PersistentVolume to be larger", PATIENCE, || {
                let volume = kubectl.json(&["get", "pv", "ledger"])?;
                ensure!(volume["spec"]["capacity"]["storage"] == "2Gi", "{volume}");
                Ok(())
            })
        },
    )?;
    journal.step(
        NAME,
        "the copy has what the disk had, and is there for the next pod",
        || {
            let copy = disk(az, "ledger-again")?;
            cluster.apply(&volume("ledger-again", text(&copy, "/id")?))?;
            permit(az, cluster, "ledger-again")?;
            cluster.apply(&sleeper(
                "ledger-again",
                json!({}),
                json!({ "volumeMounts": [mount()] }),
            ))?;
            kubectl.pod_ready("ledger-again")?;
            let said = within(cluster, "pod/ledger-again", "cat /data/state")?;
            ensure!(said.trim() == "before", "{said:?}");
            Ok(())
        },
    )?;
    journal.step(
        NAME,
        "disks stay when their PersistentVolumes go, and are deleted with az",
        || {
            for name in ["ledger", "ledger-again"] {
                let all = [format!("pod/{name}"), format!("pvc/{name}"), format!("pv/{name}")];
                let all = all.each_ref().map(String::as_str);
                kubectl.text(&[&["delete"][..], &all, &["--timeout=180s"]].concat())?;
                wait_for("no node to have the disk", PATIENCE, || {
                    let disk = disk(az, name)?;
                    ensure!(disk["diskState"] == "Unattached", "{disk}");
                    Ok(())
                })?;
                az.json(&[&["disk", "delete", "--yes"][..], &at(name)].concat())?;
            }
            az.json(&[&["snapshot", "delete"][..], &at("ledger-before")].concat())?;
            let left = az.json(&["disk", "list", "--resource-group", GROUP])?;
            ensure!(left.as_array().is_some_and(Vec::is_empty), "{left}");
            Ok(())
        },
    )
}

/// A pod for a disk without a role assignment waits, and says what is missing.
fn forbidden(az: &Az, cluster: &Cluster) -> Result<()> {
    let kubectl = &cluster.kubectl;
    let create = ["disk", "create", "--size-gb", "1"];
    let disk = az.json(&[&create[..], &at("locked")].concat())?;
    cluster.apply(&volume("locked", text(&disk, "/id")?))?;
    cluster.apply(&sleeper(
        "locked",
        json!({}),
        json!({ "volumeMounts": [mount()] }),
    ))?;
    wait_for("an event of the pod", PATIENCE, || {
        let of = "--field-selector=involvedObject.name=locked,reason=FailedAttachVolume";
        let events = kubectl.json(&["get", "events", of])?;
        let mut all = events["items"].as_array().context("no list")?.iter();
        let told = |event: &Value| {
            let message = event["message"].as_str();
            message.is_some_and(|message| message.contains("az role assignment create"))
        };
        ensure!(all.any(told), "{events}");
        Ok(())
    })?;
    let delete = [
        "delete",
        "pod/locked",
        "pvc/locked",
        "pv/locked",
        "--timeout=180s",
    ];
    kubectl.text(&delete)?;
    az.json(&[&["disk", "delete", "--yes"][..], &at("locked")].concat())
        .map(drop)
}

/// The cluster's identity is permitted to use a disk.
fn permit(az: &Az, cluster: &Cluster, name: &str) -> Result<()> {
    let shown = super::aks(az, &["show"], cluster.name, &[])?;
    let identity = text(&shown, "/identity/principalId")?;
    let disk = disk(az, name)?;
    az.json(&[
        "role",
        "assignment",
        "create",
        "--role",
        "Contributor",
        "--scope",
        text(&disk, "/id")?,
        "--assignee-object-id",
        identity,
        "--assignee-principal-type",
        "ServicePrincipal",
    ])
    .map(drop)
}

/// The options of a disk or snapshot of the group.
fn at(name: &str) -> [&str; 4] {
    ["--resource-group", GROUP, "--name", name]
}

fn disk(az: &Az, name: &str) -> Result<Value> {
    az.json(&[&["disk", "show"][..], &at(name)].concat())
}

/// A PersistentVolume for a disk, and a claim for it, with the same name.
fn volume(name: &str, disk: &str) -> Value {
    super::list(&[
        json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": name },
            "spec": {
                "capacity": { "storage": "1Gi" },
                "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": "managed-csi",
                "csi": { "driver": "disk.csi.azure.com", "volumeHandle": disk }
            }
        }),
        super::claim(
            name,
            "1Gi",
            json!({ "storageClassName": "managed-csi", "volumeName": name }),
        ),
    ])
}
