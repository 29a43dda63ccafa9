//! Shares: pods on several nodes use one at the same time; snapshots of them.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{NAME, claim, follow, grows_mounted, list, mount, sleeper, within};
use crate::{
    clients::Az,
    journal::{Journal, PATIENCE, wait_for},
    scenarios::workload::Cluster,
    stamp::Stamp,
};

/// `blocks` of the guide: a share of several pods; a snapshot of it, and a claim that begins with that.
pub(super) fn walk(
    journal: &Journal,
    stamp: &Stamp,
    az: &Az,
    cluster: &Cluster,
    blocks: [&str; 2],
) -> Result<()> {
    let kubectl = &cluster.kubectl;
    let [used, taken] = blocks;
    journal.step(NAME, "the guide: pods on all nodes have one share", || {
        let said = follow(stamp, az, cluster, used)?;
        let names: BTreeSet<&str> = said.lines().filter(|line| line.starts_with("pages-")).collect();
        ensure!(names.len() == 2, "{said}");
        Ok(())
    })?;
    journal.step(
        NAME,
        "the guide: a snapshot of a share that pods write to, and a claim that begins with it",
        || {
            let deployment = "deployment/pages";
            // Without `sync`: the freeze writes cached data to the share.
            within(cluster, deployment, "echo before > /data/state")?;
            follow(stamp, az, cluster, taken)?;
            within(cluster, deployment, "echo after > /data/state")?;
            let of = json!({ "volumes": [{ "name": "data", "persistentVolumeClaim": { "claimName": "pages-again" } }] });
            cluster.apply(&sleeper("again", of, json!({ "volumeMounts": [mount()] })))?;
            kubectl.pod_ready("again")?;
            let said = within(cluster, "pod/again", "cat /data/state")?;
            ensure!(said.trim() == "before", "{said:?}");
            let delete = [
                "delete",
                "pod/again",
                "volumesnapshot/pages-before",
                "volumesnapshotclass/csi-azurefile-vsc",
                "pvc/pages-again",
                "deployment/pages",
                "pvc/pages",
                "--timeout=180s",
            ];
            kubectl.text(&delete)?;
            wait_for("what was taken to be gone", PATIENCE, || {
                let contents = kubectl.json(&["get", "volumesnapshotcontents"])?;
                ensure!(
                    contents["items"].as_array().is_some_and(Vec::is_empty),
                    "{contents}"
                );
                Ok(())
            })
        },
    )?;
    journal.step(
        NAME,
        "two nodes write to a share at the same time, and it has the requested size",
        || on_two_nodes(cluster),
    )
}

fn on_two_nodes(cluster: &Cluster) -> Result<()> {
    let nodes = cluster.kubectl.ready_nodes()?;
    ensure!(nodes.len() == 2, "ready: {nodes:?}");
    let share = json!({ "accessModes": ["ReadWriteMany"], "storageClassName": "azurefile-csi" });
    let mut objects = vec![claim("share", "1Gi", share)];
    for (name, node) in ["share-0", "share-1"].into_iter().zip(&nodes) {
        let on = json!({
            "nodeSelector": { "kubernetes.io/hostname": node },
            // Every user may write to the root of a share.
            "securityContext": { "runAsUser": 1000 },
            "volumes": [{ "name": "data", "persistentVolumeClaim": { "claimName": "share" } }]
        });
        objects.push(sleeper(name, on, json!({ "volumeMounts": [mount()] })));
    }
    cluster.apply(&list(&objects))?;
    for pod in ["share-0", "share-1"] {
        cluster.kubectl.pod_ready(pod)?;
        within(
            cluster,
            &format!("pod/{pod}"),
            &format!("echo {pod} >> /data/log"),
        )?;
    }
    for pod in ["share-0", "share-1"] {
        let said = within(cluster, &format!("pod/{pod}"), "cat /data/log")?;
        ensure!(said.lines().eq(["share-0", "share-1"]), "{pod}: {said}");
    }
    // Both nodes have the share mounted: they see the same data, and the size is that of the claim.
    within(
        cluster,
        "pod/share-0",
        "dd if=/dev/zero of=/data/large bs=1M count=32 2>/dev/null && sync",
    )?;
    let said = within(
        cluster,
        "pod/share-1",
        "wc -c < /data/large; df -P -m /data | tail -n 1",
    )?;
    let mut lines = said.lines();
    ensure!(lines.next().map(str::trim) == Some("33554432"), "{said}");
    let size = lines.next().and_then(|line| line.split_whitespace().nth(1));
    let size: u32 = size.context("df tells no size")?.parse()?;
    ensure!((900..=1024).contains(&size), "it has {size} MiB: {said}");
    let attachments = cluster.kubectl.json(&["get", "volumeattachments"])?;
    let claim = cluster.kubectl.json(&["get", "pvc", "share"])?;
    let mut all = attachments["items"].as_array().context("no list")?.iter();
    ensure!(
        !all.any(|one| one["spec"]["source"]["persistentVolumeName"] == claim["spec"]["volumeName"]),
        "{attachments}"
    );
    if grows_mounted()? {
        let patch = r#"{"spec":{"resources":{"requests":{"storage":"2Gi"}}}}"#;
        cluster
            .kubectl
            .text(&["patch", "pvc", "share", "--patch", patch])?;
        wait_for("the share to be larger on both nodes", PATIENCE, || {
            for pod in ["pod/share-0", "pod/share-1"] {
                let said = within(cluster, pod, "df -P -m /data | tail -n 1")?;
                let size = said.split_whitespace().nth(1).context("df tells no size")?;
                ensure!(size.parse::<u32>()? > 1_500, "{pod} has {size} MiB: {said}");
            }
            Ok(())
        })?;
    }
    let delete = [
        "delete",
        "pod/share-0",
        "pod/share-1",
        "pvc/share",
        "--timeout=180s",
    ];
    cluster.kubectl.text(&delete).map(drop)
}
