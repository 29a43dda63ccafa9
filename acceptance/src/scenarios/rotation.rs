//! A cluster's CAs and its service account key are replaced with the commands of the guide, under a client that fetches its kubeconfig again.
#![expect(
    clippy::disallowed_methods,
    reason = "a client that asks again and again pauses by the host's own clock"
)]

use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{GROUP, guide, joined};
use crate::{
    clients::{Az, Kubectl, attempt, run},
    journal::{Journal, wait_for},
    stamp::Stamp,
};

/// The commands are run as they stand there.
const GUIDE: &str = include_str!("../../../docs/guides/certificates.md");
const BOUND: Duration = Duration::from_secs(180);
/// Between two requests of the client.
const PAUSE: Duration = Duration::from_millis(500);

/// In a cluster of three members and one node, with the Deployment `sleeper`.
pub(super) fn walk(journal: &Journal, stamp: &Stamp, az: &Az, cluster: &str) -> Result<()> {
    let [certificates, keys] = guide::exactly::<2>(GUIDE)?;
    let kubectl = stamp.kubectl(az, GROUP, cluster)?;
    let before = Kubectl {
        program: kubectl.program.clone(),
        kubeconfig: stamp.directory.path().join("kubeconfig-before"),
    };
    std::fs::copy(&kubectl.kubeconfig, &before.kubeconfig)?;
    let (nodes, pods) = (uids(&kubectl, "nodes")?, uids(&kubectl, "pods")?);
    let follow = |script: &str| {
        let mut shell = guide::shell(stamp, az, &[&kubectl.program], script)?;
        run(shell.env("GROUP", GROUP).env("CLUSTER", cluster))
    };

    journal.step(
        "rotation",
        "the guide's az aks rotate-certs: nobody who fetches its kubeconfig again is refused",
        || {
            let over = AtomicBool::new(false);
            let (requests, cut) = std::thread::scope(|scope| {
                let client = scope.spawn(|| asks(stamp, az, cluster, &over));
                let rotated = journal.timed("rotation", "rotated after", || follow(&certificates));
                over.store(true, Ordering::Relaxed);
                let requests = joined(client);
                rotated.and(requests)
            })?;
            ensure!(requests > 0, "the client asked nothing");
            journal.note(&format!(
                "rotation: {requests} requests, none refused, {cut} connections cut"
            ));
            Ok(())
        },
    )?;
    let kubectl = stamp.kubectl(az, GROUP, cluster)?;
    journal.step(
        "rotation",
        "no node was made anew, nor a pod of the tenant",
        || {
            ensure!(uids(&kubectl, "nodes")? == nodes, "nodes");
            ensure!(uids(&kubectl, "pods")? == pods, "pods");
            wait_for("the node to be ready", BOUND, || {
                ensure!(kubectl.ready_nodes()?.len() == nodes.len());
                Ok(())
            })
        },
    )?;
    journal.step(
        "rotation",
        "a kubeconfig of before is refused, the cluster publishes the new CA alone",
        || {
            let output = attempt(&mut before.command(&["get", "nodes"]))?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(
                !output.status.success() && said.contains("certificate"),
                "kubectl says: {said}"
            );
            wait_for("the new CA alone", BOUND, || {
                let map = kubectl.json(&["get", "configmap", "kube-root-ca.crt"])?;
                let text = map["data"]["ca.crt"].as_str().context("no CA")?;
                ensure!(text.matches("BEGIN CERTIFICATE").count() == 1, "{text}");
                Ok(())
            })
        },
    )?;
    journal.step("rotation", "kubelets show certificates of the new CA", || {
        wait_for("an answer through a kubelet", BOUND, || {
            let said = kubectl.text(&["exec", "deployment/sleeper", "--", "cat", "/kept/answer"])?;
            ensure!(said == "42", "{said}");
            Ok(())
        })
    })?;
    journal.step(
        "rotation",
        "another service account key signs, and tokens of the one before are taken",
        || {
            let old = kubectl.text(&["create", "token", "default"])?;
            let said = follow(&keys)?;
            ensure!(published(&kubectl)?.len() == 2, "{said}");
            let new = kubectl.text(&["create", "token", "default"])?;
            for token in [&old, &new] {
                ensure!(is_taken(stamp, &kubectl, token.trim())?);
            }
            Ok(())
        },
    )
}

/// How often the API server's address can move: from each of three members, in each of three steps.
const MOST_MOVES: u32 = 9;

/// Fetches a kubeconfig and sends a request with it, until `over`: the number of requests, and of connections that were cut. The first
/// refusal ends it.
fn asks(stamp: &Stamp, az: &Az, cluster: &str, over: &AtomicBool) -> Result<(u32, u32)> {
    let kubeconfig: PathBuf = stamp.directory.path().join("kubeconfig-client");
    let client = Kubectl {
        program: stamp.kubectl_program()?,
        kubeconfig,
    };
    let (mut requests, mut cut) = (0, 0);
    while !over.load(Ordering::Relaxed) {
        let file = client.kubeconfig.to_string_lossy().into_owned();
        run(&mut az.command(&[
            "aks",
            "get-credentials",
            "--resource-group",
            GROUP,
            "--name",
            cluster,
            "--admin",
            "--overwrite-existing",
            "--file",
            &file,
        ]))?;
        let ask = || client.text(&["get", "--raw", "/api/v1/namespaces/default/configmaps/sleeper"]);
        if let Err(error) = ask() {
            // The address moves away from each member that starts its API server again; a connection that is under way is cut.
            ensure!(
                format!("{error:#}").contains("connection reset by peer"),
                "request {} was refused: {error:#}",
                requests + 1
            );
            cut += 1;
            ask().with_context(|| format!("request {} was refused", requests + 1))?;
        }
        requests += 1;
        std::thread::sleep(PAUSE);
    }
    ensure!(cut <= MOST_MOVES, "{cut} of {requests} connections were cut");
    Ok((requests, cut))
}

/// Of all objects of a kind in the namespace `default`, or in none.
fn uids(kubectl: &Kubectl, kind: &str) -> Result<Vec<String>> {
    let found = kubectl.json(&["get", kind])?;
    let items = found["items"].as_array().context("no items")?;
    let uids = items
        .iter()
        .filter_map(|item| item["metadata"]["uid"].as_str().map(str::to_owned));
    let mut uids: Vec<String> = uids.collect();
    uids.sort();
    Ok(uids)
}

/// The keys that tokens of service accounts are checked with.
fn published(kubectl: &Kubectl) -> Result<Vec<Value>> {
    let text = kubectl.text(&["get", "--raw", "/openid/v1/jwks"])?;
    let set: Value = serde_json::from_str(&text)?;
    Ok(set["keys"].as_array().context("no keys")?.clone())
}

/// Whether the cluster says so of a token.
fn is_taken(stamp: &Stamp, kubectl: &Kubectl, token: &str) -> Result<bool> {
    let review = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": { "token": token },
    });
    let file = stamp.directory.path().join("review.json");
    std::fs::write(&file, serde_json::to_vec(&review)?)?;
    let answer = kubectl.json(&["create", "-f", &file.to_string_lossy()])?;
    Ok(answer["status"]["authenticated"] == true)
}
