//! A stamp that an earlier release runs, with two clusters, is taken over by this one as the guide says: clients of the clusters notice
//! nothing, and nothing is started again that goes on as it is.
//!
//! Under its own name only: `cargo xtask takeover --from COMMIT` compiles the earlier release.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{
    GROUP, aks,
    healing::{id, machines, pids},
    load::Load,
    workload::BUSYBOX,
};
use crate::{
    clients::{Az, Kubectl, run},
    journal::{Journal, wait_for},
    stamp::Stamp,
};

/// The name of this scenario.
pub(super) const NAME: &str = "takeover";
/// The cluster with three members, beside the stamp's first one, which has one.
const THREE: &str = "three";
/// The first cluster of every stamp.
const FIRST: &str = "landfall";
const BOUND: Duration = Duration::from_secs(300);
/// Programs that no release has to start again in machines that run: whoever does disturbs clients or data. containerd is none of them:
/// containers go on without it, and a release may have another configuration for it.
const LASTING: [&str; 2] = ["etcd", "kube-apiserver"];
/// The programs of machines that the run tells of.
const PROGRAMS: [&str; 10] = [
    "etcd",
    "kube-apiserver",
    "kube-controller",
    "kube-scheduler",
    "containerd",
    "kubelet",
    "kube-proxy",
    "coredns",
    "metrics-server",
    "sleep",
];

pub(super) fn walk(journal: &Journal, stamp: &Stamp, az: &Az) -> Result<()> {
    journal.step(
        NAME,
        "the earlier release makes a second cluster, of three members",
        || {
            az.json(&["group", "create", "--name", GROUP, "--location", "local"])?;
            aks(
                az,
                &["create"],
                THREE,
                &["--tier", "standard", "--node-count", "1", "--no-ssh-key"],
            )
            .map(drop)
        },
    )?;
    let group = first_group(az)?;
    let three = stamp.kubectl(az, GROUP, THREE)?;
    let first = stamp.kubectl(az, &group, FIRST)?;
    journal.step(NAME, "a workload runs in both", || {
        for kubectl in [&first, &three] {
            kubectl.apply(stamp.directory.path(), &sleeper())?;
            kubectl.rolled_out("deployment/sleeper")?;
        }
        Ok(())
    })?;
    let before = Running::look(stamp, &[&first, &three])?;

    journal.step(
        NAME,
        "landfall up of this release, under load: no request to a cluster fails",
        || {
            let load = Load::over(journal, &first, || {
                let load = Load::over(journal, &three, || {
                    stamp.is_taken_over();
                    journal.timed(NAME, "this release runs the stamp after", || {
                        run(&mut stamp.landfall(&["up", "--output", "json"])).map(drop)
                    })?;
                    settled(stamp)
                })?;
                load.undisturbed(0)
            })?;
            load.undisturbed(0)
        },
    )?;
    journal.step(
        NAME,
        "nodes and pods are the ones of before; neither etcd, API servers nor containers were started again",
        || {
            let after = Running::look(stamp, &[&first, &three])?;
            let changed = before.changed(&after);
            journal.note(&format!("{NAME}: started again: {changed:?}"));
            ensure!(
                before.uids == after.uids,
                "{:?}, now {:?}",
                before.uids,
                after.uids
            );
            ensure!(
                before.restarts == after.restarts,
                "containers: {:?}",
                after.restarts
            );
            let wrong: Vec<_> = changed
                .iter()
                .filter(|(_, program)| LASTING.contains(program))
                .collect();
            ensure!(wrong.is_empty(), "started again: {wrong:?}");
            Ok(())
        },
    )?;
    journal.step(
        NAME,
        "this release changes and deletes what the earlier one made",
        || {
            aks(az, &["scale"], THREE, &["--node-count", "2"])?;
            wait_for("two nodes", BOUND, || {
                let ready = three.ready_nodes()?;
                ensure!(ready.len() == 2, "ready: {ready:?}");
                Ok(())
            })?;
            aks(az, &["delete"], THREE, &["--yes"]).map(drop)
        },
    )
}

/// The group of the stamp's first cluster.
fn first_group(az: &Az) -> Result<String> {
    let clusters = az.json(&["aks", "list"])?;
    clusters
        .as_array()
        .into_iter()
        .flatten()
        .find(|cluster| cluster["name"] == FIRST)
        .and_then(|cluster| cluster["resourceGroup"].as_str())
        .map(str::to_owned)
        .with_context(|| format!("no cluster {FIRST} in {clusters}"))
}

fn sleeper() -> Value {
    let labels = json!({ "app": "sleeper" });
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": "sleeper", "namespace": "default" },
        "spec": {
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{
                        "name": "sleeper", "image": BUSYBOX, "imagePullPolicy": "Never",
                        "command": ["sleep", "infinity"],
                    }],
                },
            },
        },
    })
}

/// Waits until every machine has reported to this release's service, and all processes are ready; twice in a row, as agents take
/// another agent's program, and configurations, one after the other.
fn settled(stamp: &Stamp) -> Result<()> {
    let ready = || -> Result<()> {
        for machine in all(stamp)? {
            let processes = machine["processes"].as_array().context("no processes")?;
            ensure!(!processes.is_empty(), "{machine}");
            for process in processes {
                ensure!(process["state"] == "ready", "{machine}");
            }
        }
        Ok(())
    };
    for _ in 0..2 {
        wait_for("all machines", BOUND, ready)?;
        // Agents look for another program every 15 seconds.
        pause(Duration::from_secs(30));
    }
    wait_for("all machines", BOUND, ready)
}

#[expect(
    clippy::disallowed_methods,
    reason = "what must not happen within a time is waited for by the host's own clock"
)]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

fn all(stamp: &Stamp) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for cluster in [FIRST, THREE] {
        for role in ["control plane", "node"] {
            all.extend(machines(stamp, cluster, role)?);
        }
    }
    Ok(all)
}

/// What runs in the clusters.
struct Running {
    /// Process ids, by machine and program.
    programs: BTreeMap<(String, &'static str), BTreeSet<u32>>,
    /// Of nodes and pods.
    uids: BTreeSet<String>,
    /// Of all containers, by pod.
    restarts: BTreeMap<String, u64>,
}

impl Running {
    fn look(stamp: &Stamp, clusters: &[&Kubectl]) -> Result<Self> {
        let mut running = Self {
            programs: BTreeMap::new(),
            uids: BTreeSet::new(),
            restarts: BTreeMap::new(),
        };
        for machine in all(stamp)? {
            let name = id(&machine)?;
            for program in PROGRAMS {
                let found = pids(name, Some(program))?;
                if !found.is_empty() {
                    running.programs.insert((name.to_owned(), program), found);
                }
            }
        }
        for kubectl in clusters {
            for kind in ["nodes", "pods"] {
                let found = kubectl.json(&["get", kind, "--all-namespaces"])?;
                for item in found["items"].as_array().context("no items")? {
                    let uid = item["metadata"]["uid"].as_str().context("no uid")?;
                    running.uids.insert(uid.to_owned());
                    let containers = item["status"]["containerStatuses"].as_array();
                    let restarts = containers.into_iter().flatten();
                    let sum = restarts.filter_map(|one| one["restartCount"].as_u64()).sum();
                    running.restarts.insert(uid.to_owned(), sum);
                }
            }
        }
        Ok(running)
    }

    /// The programs that have other processes than before, by machine.
    fn changed(&self, after: &Self) -> Vec<(String, &'static str)> {
        let differs = |key: &&(String, &'static str)| after.programs.get(key) != self.programs.get(key);
        self.programs.keys().filter(differs).cloned().collect()
    }
}
