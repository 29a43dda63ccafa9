//! `coredns-custom`: names of the tenant, and a configuration that CoreDNS cannot start with.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::workload::Cluster;
use crate::{journal::wait_for, stamp::Stamp};

const NAME: &str = "db.tenant.";
const ADDRESS: &str = "10.9.9.9";
/// Add-ons are compared every half a minute, and pods are rolled one after the other.
const ROLLED: Duration = Duration::from_secs(180);
/// A rollout without progress fails after two minutes.
const TOLD: Duration = Duration::from_secs(300);

/// A name of the tenant's own is answered.
pub(super) fn custom(cluster: &Cluster) -> Result<()> {
    write(cluster, json!({ "tenant.override": hosts() }))?;
    wait_for("an answer of coredns-custom", ROLLED, || answers(cluster))
}

/// The tenant adds a configuration that CoreDNS does not start with.
pub(super) fn break_custom(cluster: &Cluster) -> Result<()> {
    write(
        cluster,
        json!({ "tenant.override": hosts(), "broken.override": "nosuchplugin" }),
    )?;
    wait_for("a pod of CoreDNS that does not start", ROLLED, || {
        let pods = cluster
            .kubectl
            .json(&["-n", "kube-system", "get", "pods", "-l", "k8s-app=kube-dns"])?;
        let waits = |pod: &Value| {
            let restarts = pod.pointer("/status/containerStatuses/0/restartCount");
            restarts.and_then(Value::as_u64) > Some(0)
        };
        let pods = pods["items"].as_array().context("no items")?;
        ensure!(pods.iter().any(waits), "all start: {} pods", pods.len());
        Ok(())
    })
}

/// Names are resolved, even in a cluster whose nodes are all new.
pub(super) fn answered(cluster: &Cluster) -> Result<()> {
    wait_for("an answer of DNS", Duration::from_secs(180), || answers(cluster))
}

/// Tenant and operator see the error of the broken one; without it, there is no problem left.
pub(super) fn told_and_mended(stamp: &Stamp, cluster: &Cluster) -> Result<()> {
    wait_for("an Event of the ConfigMap", TOLD, || {
        let events = cluster.kubectl.text(&[
            "-n",
            "kube-system",
            "get",
            "events",
            "--field-selector=involvedObject.name=coredns-custom",
        ])?;
        ensure!(events.contains("CoreDNSDoesNotStart"), "events: {events}");
        Ok(())
    })?;
    wait_for("a problem in landfall status", TOLD, || {
        let problem = problem(stamp, cluster)?;
        ensure!(
            problem.to_string().contains("coredns-custom"),
            "problem: {problem}"
        );
        Ok(())
    })?;
    write(cluster, json!({ "tenant.override": hosts() }))?;
    wait_for("the end of the problem", ROLLED, || {
        let problem = problem(stamp, cluster)?;
        ensure!(problem.is_null(), "problem: {problem}");
        answers(cluster)
    })
}

fn hosts() -> String {
    format!("hosts tenant.hosts tenant {{\n  {ADDRESS} {NAME}\n  fallthrough\n}}\n")
}

fn write(cluster: &Cluster, data: Value) -> Result<()> {
    cluster.kubectl.text(&[
        "-n",
        "kube-system",
        "delete",
        "configmap",
        "coredns-custom",
        "--ignore-not-found",
    ])?;
    cluster.apply(&json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": data,
        "metadata": { "name": "coredns-custom", "namespace": "kube-system" },
    }))
}

fn answers(cluster: &Cluster) -> Result<()> {
    let script = format!("nslookup {NAME} | grep -c {ADDRESS}");
    let said = cluster
        .kubectl
        .text(&["exec", "deployment/web", "--", "sh", "-c", &script])?;
    ensure!(said.trim() != "0", "{NAME} is not {ADDRESS}");
    Ok(())
}

/// The reported problem of the cluster.
fn problem(stamp: &Stamp, cluster: &Cluster) -> Result<Value> {
    let status = stamp.status()?;
    let clusters = status["clusters"].as_array().context("status has no clusters")?;
    let found = clusters.iter().find(|found| found["name"] == cluster.name);
    Ok(found.context("the cluster is not in the status")?["problem"].clone())
}
