//! Attempts to get out of pods, unprivileged and privileged ones: each has the result of the table, and those
//! that get out are exactly those of the guide.
//!
//! Nothing beyond the machine is changed by an attempt that succeeds: files are opened and not written, devices
//! are read, calls have arguments that are refused.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, bail, ensure};
use fabric_net::Names;
use serde_json::{Value, json};

use super::{
    guide,
    healing::{id, machines, namespace},
    text,
    workload::{BUSYBOX, Cluster, Clusters},
};
use crate::{
    clients::{Az, attempt, run},
    journal::{Journal, PATIENCE, wait_for},
    stamp::Stamp,
};

/// The name of this scenario.
pub(super) const NAME: &str = "breakout";

/// Its blocks are run verbatim.
const GUIDE: &str = include_str!("../../../docs/guides/isolation.md");

/// The attempts, and the shell functions that they are written with.
const ATTEMPTS: &str = include_str!("../../breakout.tsv");
const FUNCTIONS: &str = include_str!("../../breakout.sh");

/// The pods, each on one of two nodes.
const PODS: [&str; 2] = ["unprivileged", "privileged"];
const WITNESS: &str = "witness";

/// The result of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It got nothing.
    Refused,
    /// It got something of its own machine or cluster, or nothing.
    Contained,
    /// It got out, as the guide says.
    Documented,
}

impl Verdict {
    /// From the table.
    fn parse(word: &str) -> Option<Self> {
        match word {
            "refused" => Some(Self::Refused),
            "contained" => Some(Self::Contained),
            "documented" => Some(Self::Documented),
            _ => None,
        }
    }

    /// Whether an attempt that printed this word had this result.
    fn is(self, printed: &str) -> bool {
        // What a host's kernel does not have, nobody gets.
        if printed == "absent" {
            return true;
        }
        match self {
            Self::Refused => printed == "refused",
            Self::Contained => ["refused", "inside"].contains(&printed),
            Self::Documented => printed == "out",
        }
    }
}

/// A line of the table.
#[derive(Debug)]
struct Attempt {
    name: &'static str,
    /// In an unprivileged pod, and in a privileged one.
    verdicts: [Verdict; 2],
    command: &'static str,
    /// Run on another node afterwards; what it prints counts instead.
    witness: Option<&'static str>,
}

fn attempts() -> Result<Vec<Attempt>> {
    let lines = ATTEMPTS.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let fields: Vec<&'static str> = line.split('\t').collect();
            let &[name, unprivileged, privileged, command, ref witness @ ..] = fields.as_slice() else {
                bail!("no attempt: {line}");
            };
            let verdict =
                |word: &str| Verdict::parse(word).with_context(|| format!("{word} is no result: {line}"));
            Ok(Attempt {
                name,
                verdicts: [verdict(unprivileged)?, verdict(privileged)?],
                command,
                witness: witness.first().copied(),
            })
        })
        .collect()
}

pub(super) fn walk(journal: &Journal, stamp: &Stamp, az: &Az, clusters: &Clusters) -> Result<()> {
    let cluster = &clusters.kubenet;
    let [admission, pods] = guide::exactly::<2>(GUIDE)?;
    journal.step(NAME, "the guide: a namespace takes no privileged pod", || {
        let said = follow(stamp, az, cluster, &admission)?;
        ensure!(said.contains("violates PodSecurity"), "{said}");
        Ok(())
    })?;
    journal.step(
        NAME,
        "the guide: pods to try from, and one on another node",
        || {
            follow(stamp, az, cluster, &pods)?;
            cluster.apply(&witness(cluster)?)?;
            for pod in PODS.iter().chain([&WITNESS]) {
                cluster.kubectl.pod_ready(pod)?;
            }
            Ok(())
        },
    )?;
    let variables = variables(stamp, clusters)?;
    let limits = || limits(stamp, cluster);
    let before = limits()?;
    for (number, pod) in PODS.iter().enumerate() {
        journal.step(
            NAME,
            &format!("each attempt from the {pod} pod has its result"),
            || tried(cluster, pod, number, &variables),
        )?;
    }
    journal.step(
        NAME,
        "limits that a machine has lifted hold outside of it",
        || {
            let after = limits()?;
            ensure!(before == after, "before: {before:?}, after: {after:?}");
            Ok(())
        },
    )?;
    journal.step(
        NAME,
        "the API server connects to nothing in the stamp's network for a tenant",
        || led_astray(cluster, &variables),
    )?;
    journal.step(NAME, "the cluster is as it was", || {
        cluster.kubectl.text(&[
            "delete",
            "pod",
            "unprivileged",
            "privileged",
            WITNESS,
            "--timeout=180s",
        ])?;
        wait_for("all nodes to be ready", PATIENCE, || {
            let ready = cluster.kubectl.ready_nodes()?;
            ensure!(ready.len() == 2, "ready: {ready:?}");
            Ok(())
        })
    })
}

fn follow(stamp: &Stamp, az: &Az, cluster: &Cluster, block: &str) -> Result<String> {
    let kubectl = &cluster.kubectl;
    let mut shell = guide::shell(stamp, az, &[&kubectl.program], block)?;
    shell.env("KUBECONFIG", &kubectl.kubeconfig).env("IMAGE", BUSYBOX);
    run(&mut shell)
}

/// A pod on the other node, in its network.
fn witness(cluster: &Cluster) -> Result<Value> {
    let privileged = cluster.kubectl.json(&["get", "pod", "privileged"])?;
    let taken = text(&privileged, "/spec/nodeName")?;
    let ready = cluster.kubectl.ready_nodes()?;
    let other = ready.iter().find(|node| *node != taken);
    let other = other.context("the cluster has one node alone")?;
    Ok(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": WITNESS },
        "spec": {
            "nodeName": other, "hostNetwork": true, "terminationGracePeriodSeconds": 1,
            "containers": [{ "name": "main", "image": BUSYBOX, "command": ["sleep", "86400"] }],
        },
    }))
}

/// The variables of attempts, each with its value.
fn variables(stamp: &Stamp, clusters: &Clusters) -> Result<Vec<(&'static str, String)>> {
    let canary = stamp.directory.path().join("canary");
    std::fs::write(&canary, "a file of the host\n")?;
    let bridge = Names::new(&stamp.name).bridge();
    let gateway = address(None, &bridge, "-4")?;
    let member = |cluster: &Cluster| -> Result<String> {
        let all = machines(stamp, cluster.name, "control plane")?;
        namespace(id(all.first().context("no control plane")?)?)
    };
    let (own, other) = (member(&clusters.kubenet)?, member(&clusters.overlay)?);
    let node = text(
        &clusters.kubenet.kubectl.json(&["get", "pod", WITNESS])?,
        "/spec/nodeName",
    )?
    .to_owned();
    let nodes = machines(stamp, clusters.kubenet.name, "node")?;
    let witness = nodes.iter().find(|machine| machine["name"] == node.as_str());
    let witness = namespace(id(witness.context("the witness' node has no machine")?)?)?;
    let at = address(Some(witness.as_str()), "eth0", "-4")?;
    // The last address of its subnet but one: no node has it before all others are taken.
    let spare = at.rsplitn(3, '.').last().context("no address")?;
    let port = stamp.listen.rsplit(':').next().context("no port")?;
    Ok(vec![
        ("CANARY", canary.display().to_string()),
        ("SECRETS", stamp.state().join("secrets").display().to_string()),
        ("GATEWAY", gateway.clone()),
        ("ARM_PORT", port.to_owned()),
        // Where the host has no other address, it is asked at the stamp's.
        ("HOST", host_address()?.unwrap_or(gateway)),
        ("HOST_DISK_MIB", disk(&stamp.state())?),
        ("VIP", vip(stamp, clusters.kubenet.name)?),
        ("MEMBER", address(Some(own.as_str()), "eth1", "-4")?),
        ("OTHER_VIP", vip(stamp, clusters.overlay.name)?),
        ("OTHER_MEMBER", address(Some(other.as_str()), "eth0", "-4")?),
        ("SPARE", format!("{spare}.255.254")),
        (
            "WITNESS6",
            address(Some(witness.as_str()), "eth0", "-6").unwrap_or_default(),
        ),
        ("WITNESS", at),
    ])
}

/// The first address of an interface, on the host or in a namespace.
fn address(namespace: Option<&str>, interface: &str, family: &str) -> Result<String> {
    let mut command = Command::new("ip");
    command.args(namespace.into_iter().flat_map(|name| ["-n", name]));
    let said = run(command.args([family, "-j", "address", "show", "dev", interface]))?;
    let links: Value = serde_json::from_str(&said)?;
    text(&links, "/0/addr_info/0/local").map(str::to_owned)
}

/// An address of the host in a network that is none of a stamp.
fn host_address() -> Result<Option<String>> {
    let said = run(Command::new("ip").args(["-4", "-j", "address", "show", "scope", "global"]))?;
    let links: Value = serde_json::from_str(&said)?;
    let mut links = links.as_array().into_iter().flatten();
    let own = links.find(|link| {
        let name = link["ifname"].as_str().unwrap_or("lfs");
        !name.starts_with("lfs") && link["addr_info"][0]["local"].is_string()
    });
    Ok(own.and_then(|link| link["addr_info"][0]["local"].as_str().map(str::to_owned)))
}

fn vip(stamp: &Stamp, cluster: &str) -> Result<String> {
    let status = stamp.status()?;
    let clusters = status["clusters"].as_array().context("status has no clusters")?;
    let found = clusters.iter().find(|seen| seen["name"] == cluster);
    text(found.context("status does not have the cluster")?, "/vip").map(str::to_owned)
}

/// The size of the host's filesystem, as `df` in a pod would tell it.
fn disk(place: &Path) -> Result<String> {
    let said = run(Command::new("df").args(["-P", "-m"]).arg(place))?;
    let line = said.lines().nth(1).context("df tells nothing")?;
    Ok(line
        .split_whitespace()
        .nth(1)
        .context("df tells no size")?
        .to_owned())
}

/// All attempts from one pod, with what is wrong about their results.
fn tried(cluster: &Cluster, pod: &str, number: usize, variables: &[(&str, String)]) -> Result<()> {
    let all = attempts()?;
    let (seen, alone): (Vec<&Attempt>, Vec<&Attempt>) =
        all.iter().partition(|attempt| attempt.witness.is_some());
    let mut script = "attempt control control\n".to_owned();
    for Attempt { name, command, .. } in &alone {
        script += &format!("attempt {name} {}\n", quoted(command));
    }
    let said = shell(cluster, pod, variables, &script)?;
    let printed = |name: &str| {
        let mut lines = said.lines().filter_map(|line| line.split_once(' '));
        lines.find_map(|(own, word)| (own == name).then(|| word.to_owned()))
    };
    let control = printed("control");
    ensure!(
        control.as_deref() == Some("out"),
        "the attempts' tools do not work in the {pod} pod: {said}"
    );
    let mut wrong = Vec::new();
    let mut compare = |attempt: &Attempt, word: Option<String>| {
        let (expected, word) = (attempt.verdicts[number], word.unwrap_or_default());
        if !expected.is(&word) {
            wrong.push(format!("{}: {word}, not {expected:?}", attempt.name));
        }
    };
    for attempt in alone {
        compare(attempt, printed(attempt.name));
    }
    for attempt in seen {
        shell(
            cluster,
            pod,
            variables,
            &format!("attempt {} {}\n", attempt.name, quoted(attempt.command)),
        )?;
        let command = quoted(attempt.witness.unwrap_or_default());
        let said = shell(
            cluster,
            WITNESS,
            variables,
            &format!("attempt {} {command}\n", attempt.name),
        )?;
        let word = said.trim().rsplit(' ').next().map(str::to_owned);
        compare(attempt, word);
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n        "));
    Ok(())
}

/// Runs a script with the attempts' functions and variables in a pod.
fn shell(cluster: &Cluster, pod: &str, variables: &[(&str, String)], script: &str) -> Result<String> {
    let mut whole = FUNCTIONS.to_owned();
    for (name, value) in variables {
        whole += &format!("{name}={}\n", quoted(value));
    }
    whole += script;
    cluster.kubectl.text(&["exec", pod, "--", "sh", "-c", &whole])
}

/// As one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// What the host has as limits of the cluster's nodes, on the groups above them.
fn limits(stamp: &Stamp, cluster: &Cluster) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for machine in machines(stamp, cluster.name, "node")? {
        let machine = id(&machine)?.to_owned();
        let group = Names::new(&stamp.name).machine_cgroup(&machine.as_str().into());
        for hierarchy in ["memory", "pids", "."] {
            for file in [
                "memory.limit_in_bytes",
                "memory.max",
                "memory.swap.max",
                "pids.max",
            ] {
                let place = Path::new("/sys/fs/cgroup").join(hierarchy);
                let place = place.join(group.trim_start_matches('/')).join(file);
                if let Ok(limit) = std::fs::read_to_string(&place) {
                    found.push(format!("{machine} {file} {}", limit.trim()));
                }
            }
        }
    }
    ensure!(
        found.iter().any(|line| line.contains("pids.max"))
            && !found.iter().any(|line| line.ends_with(" max")),
        "nodes have no limits: {found:?}"
    );
    Ok(found)
}

/// A pod whose owner says where it is, and a webhook at another address. Of a Service, the API server asks only
/// endpoints that are pods' own addresses, so the pod is where a tenant can choose one.
fn led_astray(cluster: &Cluster, variables: &[(&str, String)]) -> Result<()> {
    let value = |name: &str| {
        let mut all = variables.iter();
        all.find_map(|(own, value)| (*own == name).then_some(value.as_str()))
            .context("no such variable")
    };
    let kubectl = &cluster.kubectl;
    let targets = [("member", value("OTHER_MEMBER")?), ("vip", value("OTHER_VIP")?)];
    for (name, address) in targets {
        cluster.apply(&astray(name))?;
        let status =
            json!({ "status": { "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }] } });
        let (name, status) = (format!("astray-{name}"), status.to_string());
        kubectl.text(&[
            "patch",
            "pod",
            &name,
            "--subresource=status",
            "--type=merge",
            "--patch",
            &status,
        ])?;
    }
    let outcomes = std::thread::scope(|scope| {
        let tries = targets.map(|(name, address)| {
            scope.spawn(move || -> Result<()> {
                let path = format!("/api/v1/namespaces/default/pods/https:astray-{name}:443/proxy/");
                let output = attempt(&mut kubectl.command(&["get", "--raw", &path]))?;
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                // An answer of the other API server, or an error about its certificate, would be a connection.
                ensure!(
                    !output.status.success()
                        && ["timeout", "timed out", "no route"]
                            .iter()
                            .any(|word| said.contains(word)),
                    "{address}: {said}"
                );
                Ok(())
            })
        });
        tries.map(super::joined)
    });
    outcomes.into_iter().collect::<Result<()>>()?;
    let url = format!("https://{}:443/", value("OTHER_VIP")?);
    cluster.apply(&webhook(&url))?;
    let called = wait_for("the webhook to be called", PATIENCE, || {
        let output = attempt(&mut kubectl.command(&["create", "configmap", "astray", "--dry-run=server"]))?;
        // The API server hears of a new webhook after a moment.
        ensure!(!output.status.success(), "nobody called it");
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    });
    kubectl.text(&["delete", "validatingwebhookconfiguration", "astray"])?;
    kubectl.text(&[
        "delete",
        "pod",
        "--selector=app=astray",
        "--force",
        "--ignore-not-found",
    ])?;
    let said = called?;
    ensure!(
        said.contains("astray.landfall.dev")
            && ["timeout", "deadline"].iter().any(|word| said.contains(word)),
        "{said}"
    );
    Ok(())
}

/// A pod that no scheduler places: its status is what was last written to it.
fn astray(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": format!("astray-{name}"), "labels": { "app": "astray" } },
        "spec": { "schedulerName": "nobody", "containers": [{ "name": "main", "image": BUSYBOX }] },
    })
}

fn webhook(url: &str) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": { "name": "astray" },
        "webhooks": [{
            "name": "astray.landfall.dev", "clientConfig": { "url": url }, "timeoutSeconds": 3,
            "failurePolicy": "Fail", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "rules": [{ "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"] }],
            "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "default" } },
            "matchConditions": [{ "name": "astray", "expression": "object.metadata.name == 'astray'" }],
        }],
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn there_are_enough_attempts_and_each_has_a_name() {
        let all = attempts().unwrap();
        assert!(all.len() >= 40, "{}", all.len());
        let names: BTreeSet<&str> = all.iter().map(|attempt| attempt.name).collect();
        assert_eq!(names.len(), all.len());
        for attempt in &all {
            // Without a word that says that it got something, none could ever be seen to.
            let says = attempt.witness.unwrap_or(attempt.command);
            let says = says.contains("echo out") || says.contains("echo inside") || says.starts_with("call ");
            assert!(says, "{attempt:?}");
            assert_ne!(
                attempt.verdicts[0],
                Verdict::Documented,
                "an unprivileged pod gets out: {attempt:?}"
            );
            if let Some(name) = attempt.command.strip_prefix("call ") {
                assert!(FUNCTIONS.contains(&format!("  {name}:x86_64)")), "{name}");
                assert!(FUNCTIONS.contains(&format!("{name}:aarch64)")), "{name}");
            }
        }
    }

    #[test]
    fn the_guide_tells_of_those_that_get_out_and_of_no_others() {
        let told: BTreeSet<&str> = GUIDE
            .split("## What gets out")
            .nth(1)
            .and_then(|rest| rest.split("\n## ").next())
            .unwrap()
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
            .collect();
        let out: BTreeSet<&str> = attempts()
            .unwrap()
            .iter()
            .filter(|attempt| attempt.verdicts.contains(&Verdict::Documented))
            .map(|attempt| attempt.name)
            .collect();
        assert_eq!(told, out);
    }

    #[test]
    fn words_of_a_shell_stay_one() {
        assert_eq!(quoted("a 'b' $c"), r"'a '\''b'\'' $c'");
        for (verdict, words) in [
            (Verdict::Refused, &["refused"][..]),
            (Verdict::Contained, &["refused", "inside"]),
            (Verdict::Documented, &["out"]),
        ] {
            assert!(verdict.is("absent"));
            for word in ["refused", "inside", "out", "broken", ""] {
                assert_eq!(verdict.is(word), words.contains(&word), "{verdict:?} {word}");
            }
        }
    }
}
