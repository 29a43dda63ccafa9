//! Managed namespaces as the guide has them: made, worked in, changed, taken over, deleted; and put right.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{GROUP, guide, text, workload::Cluster};
use crate::{
    clients::{Az, Kubectl, attempt, run},
    journal::{Journal, PATIENCE, wait_for},
    stamp::Stamp,
};

/// How this scenario is called.
pub(super) const NAME: &str = "namespaces";

const GUIDE: &str = include_str!("../../../docs/guides/namespaces.md");

/// `az aks namespace …` for a namespace of a cluster.
fn arguments<'a>(verb: &'a str, cluster: &'a Cluster, name: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["aks", "namespace", verb, "--resource-group", GROUP];
    arguments.extend(["--cluster-name", cluster.name, "--name", name]);
    arguments.extend(more);
    arguments
}

/// Fails, and says why it does.
fn refused(kubectl: &Kubectl, arguments: &[&str], why: &str) -> Result<()> {
    let output = attempt(&mut kubectl.command(arguments))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        !output.status.success() && said.contains(why),
        "{arguments:?} said {said}, not {why}"
    );
    Ok(())
}

pub(super) fn walk(journal: &Journal, stamp: &Stamp, az: &Az, cluster: &Cluster) -> Result<()> {
    let [make, work, change, take, delete] = guide::exactly::<5>(GUIDE)?;
    let kubectl = &cluster.kubectl;
    let follow = |script: &str| {
        let mut shell = guide::shell(stamp, az, &[&kubectl.program], script)?;
        shell
            .env("KUBECONFIG", &kubectl.kubeconfig)
            .env("GROUP", GROUP)
            .env("CLUSTER", cluster.name);
        run(&mut shell)
    };
    let namespace = || kubectl.json(&["get", "namespace", "dev"]);
    journal.step(NAME, "the guide: a namespace with a quota and a policy", || {
        let said = follow(&make)?;
        let lines: Vec<&str> = said.lines().collect();
        ensure!(lines == ["Succeeded", "dev"], "{said}");
        let labels = &namespace()?["metadata"]["labels"];
        ensure!(
            labels["team"] == "blue" && labels["kubernetes.azure.com/managedByArm"] == "true",
            "{labels}"
        );
        let within = ["--namespace=dev", "get"];
        let quota = kubectl.json(&[&within[..], &["resourcequota", "defaultresourcequota"]].concat())?;
        ensure!(quota["spec"]["hard"]["requests.cpu"] == "500m", "{quota}");
        let policy = kubectl.json(&[&within[..], &["networkpolicy", "defaultnetworkpolicy"]].concat())?;
        ensure!(
            policy["spec"]["ingress"][0]["from"][0]["podSelector"].is_object(),
            "{policy}"
        );
        // What the policy does not let in is asked of Kubernetes itself: a pod that says nothing of what it needs.
        refused(
            kubectl,
            &["--namespace=dev", "run", "greedy", "--image=landfall.dev/pause:1"],
            "defaultresourcequota",
        )
    })?;
    journal.step(
        NAME,
        "the guide: its kubeconfig works in it, and nowhere else",
        || {
            let said = follow(&work)?;
            ensure!(said.contains("settings"), "{said}");
            let own = Kubectl {
                program: kubectl.program.clone(),
                kubeconfig: stamp.directory.path().join("namespace.kubeconfig"),
            };
            refused(&own, &["--namespace=default", "get", "pods"], "forbidden")?;
            refused(&own, &["get", "nodes"], "forbidden")?;
            refused(&own, &["delete", "namespace", "dev"], "forbidden")
        },
    )?;
    journal.step(NAME, "what is changed in the cluster comes back", || {
        kubectl.text(&[
            "--namespace=dev",
            "delete",
            "resourcequota,networkpolicy",
            "--all",
        ])?;
        kubectl.text(&[
            "label",
            "namespace",
            "dev",
            "team=red",
            "mine=stays",
            "--overwrite",
        ])?;
        wait_for("all of it", PATIENCE, || {
            let labels = &namespace()?["metadata"]["labels"];
            ensure!(labels["team"] == "blue" && labels["mine"] == "stays", "{labels}");
            for what in [
                "resourcequota/defaultresourcequota",
                "networkpolicy/defaultnetworkpolicy",
            ] {
                kubectl.text(&["--namespace=dev", "get", what])?;
            }
            Ok(())
        })
    })?;
    journal.step(NAME, "the guide: changed", || {
        let said = follow(&change)?;
        ensure!(said.trim() == "2", "{said}");
        let policy = kubectl.json(&["--namespace=dev", "get", "networkpolicy", "defaultnetworkpolicy"])?;
        ensure!(policy["spec"]["ingress"].is_null(), "{policy}");
        let labels = &namespace()?["metadata"]["labels"];
        ensure!(labels["team"] == "green", "{labels}");
        Ok(())
    })?;
    journal.step(
        NAME,
        "one that is there already is not taken over unasked",
        || {
            kubectl.text(&["create", "namespace", "theirs"])?;
            let amounts = [
                "--cpu-request=1000m",
                "--cpu-limit=1000m",
                "--memory-request=1Gi",
                "--memory-limit=1Gi",
            ];
            let said = az.fails(&arguments("add", cluster, "theirs", &amounts))?;
            ensure!(said.contains("exists in the cluster already"), "az says: {said}");
            let shown = az.json(&arguments("show", cluster, "theirs", &[]))?;
            ensure!(
                text(&shown, "/properties/provisioningState")? == "Failed",
                "{shown}"
            );
            az.json(&arguments("delete", cluster, "theirs", &[]))?;
            let there = kubectl.json(&["get", "namespace", "theirs"])?;
            ensure!(there["status"]["phase"] == "Active", "{there}");
            kubectl.text(&["delete", "namespace", "theirs", "--wait=false"])?;
            let system = az.fails(&arguments("add", cluster, "kube-system", &amounts))?;
            ensure!(system.contains("system namespace"), "az says: {system}");
            Ok(())
        },
    )?;
    journal.step(NAME, "the guide: taken over", || {
        follow(&take)?;
        let shop = kubectl.json(&["get", "namespace", "shop"])?;
        ensure!(
            shop["metadata"]["labels"]["kubernetes.azure.com/managedByArm"] == "true",
            "{shop}"
        );
        Ok(())
    })?;
    journal.step(NAME, "the guide: deleted, or kept, as its policy says", || {
        follow(&delete)?;
        refused(kubectl, &["get", "namespace", "dev"], "not found")?;
        let shop = kubectl.json(&["get", "namespace", "shop"])?;
        let labels = shop["metadata"]["labels"].as_object().context("no labels")?;
        ensure!(
            labels.keys().all(|name| !name.contains("managedByArm")),
            "{labels:?}"
        );
        kubectl.text(&["delete", "namespace", "shop", "--wait=false"])?;
        let left = az.json(&[
            "aks",
            "namespace",
            "list",
            "--resource-group",
            GROUP,
            "--cluster-name",
            cluster.name,
        ])?;
        ensure!(left == Value::Array(Vec::new()), "{left}");
        Ok(())
    })
}
