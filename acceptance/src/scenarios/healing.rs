//! Programs are killed and stopped, a control plane member is destroyed: everything comes back without help.

use std::{
    collections::BTreeSet,
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{
    GROUP, aks, joined, upgrade,
    workload::{Cluster, Clusters},
};
use crate::{
    clients::{Az, Kubectl, attempt, run},
    journal::{Journal, wait_for},
    stamp::Stamp,
};

/// The cluster with three members.
const MEMBERS: &str = "members";

pub(super) fn walk(journal: &Journal, stamp: &Stamp, az: &Az, clusters: &Clusters) -> Result<()> {
    let kubectl = &clusters.kubenet.kubectl;
    let before = kubectl.ready_nodes()?;
    let deleted = before.first().context("the cluster has no ready node")?;
    journal.step("healing", "kubectl delete node", || {
        kubectl.text(&["delete", "node", deleted]).map(drop)
    })?;
    programs(journal, stamp, &clusters.overlay)?;
    journal.step("healing", "the node that was deleted is back by itself", || {
        wait_for("the node", Duration::from_secs(120), || {
            let ready = kubectl.ready_nodes()?;
            ensure!(ready.contains(deleted), "ready: {ready:?}");
            Ok(())
        })
    })?;
    members(journal, stamp, az)
}

/// Machines of a cluster with this role.
pub(super) fn machines(stamp: &Stamp, cluster: &str, role: &str) -> Result<Vec<Value>> {
    let status = stamp.status()?;
    let machines = status["machines"].as_array().context("status has no machines")?;
    let of = |machine: &&Value| machine["cluster"] == cluster && machine["role"] == role;
    Ok(machines.iter().filter(of).cloned().collect())
}

pub(super) fn id(machine: &Value) -> Result<&str> {
    machine["id"].as_str().context("a machine without an id")
}

/// A machine's network namespace.
fn namespace(machine: &str) -> Result<String> {
    let suffix = format!("-m-{machine}");
    run(Command::new("ip").args(["netns", "list"]))?
        .lines()
        .filter_map(|line| line.split(' ').next())
        .find(|name| name.ends_with(&suffix))
        .map(str::to_owned)
        .with_context(|| format!("machine {machine} has no network namespace"))
}

/// The processes of a machine with this name; all of them without one.
pub(super) fn pids(machine: &str, program: Option<&str>) -> Result<BTreeSet<u32>> {
    let listed = run(Command::new("ip").args(["netns", "pids", &namespace(machine)?]))?;
    let named = |pid: &u32| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        program.is_none_or(|program| name.trim() == program)
    };
    Ok(listed
        .lines()
        .filter_map(|line| line.trim().parse().ok())
        .filter(named)
        .collect())
}

pub(super) fn signal(signal: &str, pid: u32) -> Result<()> {
    run(Command::new("kill").args([signal, &pid.to_string()])).map(drop)
}

fn programs(journal: &Journal, stamp: &Stamp, cluster: &Cluster) -> Result<()> {
    for name in ["-KILL", "-STOP"] {
        // One of a node and one of the control plane at a time: each is seen to come back by itself.
        for [first, second] in [["kubelet", "etcd"], ["containerd", "kube-apiserver"]] {
            journal.step(
                "healing",
                &format!("{first} and {second} get {name}: both are back, pods stay"),
                || {
                    let before = restarts(&cluster.kubectl.json(&["get", "pods", "-l", "app=web"])?);
                    let victims = [
                        Victim::of(&machines(stamp, cluster.name, "node")?[0], first)?,
                        Victim::of(&machines(stamp, cluster.name, "control plane")?[0], second)?,
                    ];
                    let wanted = cluster.kubectl.ready_nodes()?.len();
                    for victim in &victims {
                        signal(name, victim.pid)?;
                    }
                    std::thread::scope(|scope| {
                        let waits = victims.each_ref().map(|victim| {
                            scope.spawn(|| journal.timed(victim.program, "back after", || victim.back()))
                        });
                        waits.into_iter().try_for_each(joined)
                    })?;
                    wait_for("all nodes ready", Duration::from_secs(60), || {
                        let ready = cluster.kubectl.ready_nodes()?;
                        ensure!(ready.len() == wanted, "ready: {ready:?}");
                        Ok(())
                    })?;
                    let after = restarts(&cluster.kubectl.json(&["get", "pods", "-l", "app=web"])?);
                    ensure!(before == after, "pods were disturbed: {before:?}, {after:?}");
                    Ok(())
                },
            )?;
        }
    }
    Ok(())
}

/// A process that is about to suffer.
struct Victim {
    machine: String,
    program: &'static str,
    pid: u32,
}

impl Victim {
    fn of(machine: &Value, program: &'static str) -> Result<Self> {
        let machine = id(machine)?.to_owned();
        let pid = *pids(&machine, Some(program))?
            .first()
            .with_context(|| format!("no {program} in {machine}"))?;
        Ok(Self {
            machine,
            program,
            pid,
        })
    }

    /// Waits until another one does its work.
    fn back(&self) -> Result<()> {
        wait_for(
            &format!("another {}", self.program),
            Duration::from_secs(120),
            || {
                let now = pids(&self.machine, Some(self.program))?;
                ensure!(
                    !now.is_empty() && !now.contains(&self.pid),
                    "{}: {now:?}",
                    self.program
                );
                Ok(())
            },
        )
    }
}

/// The tier up and down again, and a member destroyed in between, all of it under load.
fn members(journal: &Journal, stamp: &Stamp, az: &Az) -> Result<()> {
    journal.step("healing", "az aks create: one member", || {
        aks(az, &["create"], MEMBERS, &["--node-count", "1", "--no-ssh-key"])?;
        let members = machines(stamp, MEMBERS, "control plane")?;
        ensure!(members.len() == 1, "{members:?}");
        Ok(())
    })?;
    let kubectl = stamp.kubectl(az, GROUP, MEMBERS)?;
    kubectl.text(&["create", "configmap", "kept", "--from-literal=answer=42"])?;
    let kept = || -> Result<()> {
        let kept = kubectl.json(&["get", "configmap", "kept"])?;
        ensure!(kept["data"]["answer"] == "42", "{kept}");
        Ok(())
    };
    journal.step(
        "healing",
        "az aks update --tier standard under load: three members, and the data",
        || {
            let load = Load::over(journal, &kubectl, || {
                let cluster = aks(az, &["update"], MEMBERS, &["--tier", "standard"])?;
                ensure!(cluster["sku"]["tier"] == "Standard", "{cluster}");
                three(stamp, &BTreeSet::new())
            })?;
            // All three restart, one after the other, for the tier's limits.
            load.undisturbed(3)?;
            kept()
        },
    )?;
    journal.step(
        "healing",
        "az aks upgrade under load: three members one after the other, then the node, and the data",
        || {
            let to = upgrade::offered(az, MEMBERS)?;
            let load = Load::over(journal, &kubectl, || {
                let cluster = aks(az, &["upgrade"], MEMBERS, &["--kubernetes-version", &to, "--yes"])?;
                ensure!(cluster["currentKubernetesVersion"] == *to, "{cluster}");
                three(stamp, &BTreeSet::new())
            })?;
            // All three start again, one after the other.
            load.undisturbed(3)?;
            kept()
        },
    )?;
    journal.step(
        "healing",
        "the member that holds the VIP is destroyed under load: requests go on, three again",
        || {
            let holder = holder(stamp, &kubectl)?;
            let load = Load::over(journal, &kubectl, || {
                destroy(stamp, &holder)?;
                three(stamp, &[holder.clone()].into())
            })?;
            load.undisturbed(1)?;
            kept()
        },
    )?;
    journal.step(
        "healing",
        "a power failure: the same three members come back with the data",
        || {
            let ids = || -> Result<BTreeSet<String>> {
                let members = machines(stamp, MEMBERS, "control plane")?;
                members
                    .iter()
                    .map(|member| id(member).map(str::to_owned))
                    .collect()
            };
            let before = ids()?;
            stamp.power_failure()?;
            run(&mut stamp.landfall(&["up", "--output", "json"]))?;
            three(stamp, &BTreeSet::new())?;
            wait_for("the data", Duration::from_secs(60), kept)?;
            ensure!(ids()? == before, "{before:?} are {:?} now", ids()?);
            Ok(())
        },
    )?;
    journal.step(
        "healing",
        "az aks update --tier free under load: one member again, and the data",
        || {
            let load = Load::over(journal, &kubectl, || {
                aks(az, &["update"], MEMBERS, &["--tier", "free"]).map(drop)
            })?;
            // As above; then the VIP's holder may be among those who go.
            load.undisturbed(4)?;
            let left = machines(stamp, MEMBERS, "control plane")?;
            ensure!(left.len() == 1, "{left:?}");
            kept()?;
            aks(az, &["delete"], MEMBERS, &["--yes"]).map(drop)
        },
    )
}

/// The machine that holds the cluster's VIP.
fn holder(stamp: &Stamp, kubectl: &Kubectl) -> Result<String> {
    let server = kubectl.text(&[
        "config",
        "view",
        "--minify",
        "-o",
        "jsonpath={.clusters[0].cluster.server}",
    ])?;
    let vip = server
        .trim_start_matches("https://")
        .split(':')
        .next()
        .unwrap_or_default()
        .to_owned();
    for machine in machines(stamp, MEMBERS, "control plane")? {
        let space = namespace(id(&machine)?)?;
        let addresses = run(Command::new("ip").args(["-n", &space, "-br", "-4", "address"]))?;
        if addresses.contains(&format!("{vip}/32")) {
            return Ok(id(&machine)?.to_owned());
        }
    }
    anyhow::bail!("nobody holds the VIP {vip}")
}

/// One client that asks without a pause, one request at a time, while something else happens.
struct Load {
    sent: u32,
    /// Seconds that the slowest took.
    longest: f64,
    failed: Vec<String>,
}

impl Load {
    fn over(journal: &Journal, kubectl: &Kubectl, act: impl FnOnce() -> Result<()>) -> Result<Self> {
        let over = AtomicBool::new(false);
        let load = std::thread::scope(|scope| {
            let load = scope.spawn(|| -> Result<Self> {
                let (mut sent, mut longest, mut failed) = (0, 0.0_f64, Vec::new());
                while !over.load(Ordering::SeqCst) {
                    sent += 1;
                    let mut get = kubectl.command(&["get", "namespaces", "--request-timeout=20s"]);
                    let (output, seconds) = crate::journal::stopwatch(|| attempt(&mut get));
                    longest = longest.max(seconds);
                    let output = output?;
                    if !output.status.success() {
                        failed.push(String::from_utf8_lossy(&output.stderr).trim().to_owned());
                    }
                }
                Ok(Self {
                    sent,
                    longest,
                    failed,
                })
            });
            let done = act();
            over.store(true, Ordering::SeqCst);
            let load = joined(load)?;
            done.map(|()| load)
        })?;
        let (failed, sent, longest) = (load.failed.len(), load.sent, load.longest);
        journal.note(&format!(
            "{failed} of {sent} requests failed, the slowest took {longest:.1} s"
        ));
        Ok(load)
    }

    /// One client, one request at a time: each time the VIP moves, at most the request that was under way broke.
    fn undisturbed(&self, moves: usize) -> Result<()> {
        let (failed, sent) = (self.failed.len(), self.sent);
        ensure!(
            failed <= moves,
            "{failed} of {sent} requests failed:\n        {}",
            self.failed.join("\n        ")
        );
        Ok(())
    }
}

/// Waits for three members with all their processes ready, none of them one of `not`.
fn three(stamp: &Stamp, not: &BTreeSet<String>) -> Result<()> {
    wait_for("three members", Duration::from_secs(300), || {
        let members = machines(stamp, MEMBERS, "control plane")?;
        ensure!(members.len() == 3, "{} members", members.len());
        for member in &members {
            ensure!(!not.contains(id(member)?), "{} is still there", id(member)?);
            let processes = member["processes"].as_array().context("no processes")?;
            ensure!(!processes.is_empty(), "{member}");
            for process in processes {
                ensure!(process["state"] == "ready", "{member}");
            }
        }
        Ok(())
    })
}

/// The plug is pulled, and the disk is gone.
pub(super) fn destroy(stamp: &Stamp, machine: &str) -> Result<()> {
    let space = namespace(machine)?;
    run(Command::new("ip").args(["-n", &space, "link", "set", "eth0", "down"]))?;
    for pid in pids(machine, None)? {
        // What goes with its parent is gone already.
        attempt(Command::new("kill").args(["-9", &pid.to_string()]))?;
    }
    let disk = stamp.machine_disk(machine);
    let mounts = std::fs::read_to_string("/proc/mounts")?;
    let below = |path: &&str| Path::new(path).starts_with(&disk);
    let mut mounts: Vec<_> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .filter(below)
        .collect();
    mounts.sort_by_key(|path| std::cmp::Reverse(path.len()));
    for path in mounts {
        attempt(Command::new("umount").args(["--lazy", path]))?;
    }
    std::fs::remove_dir_all(&disk).with_context(|| disk.display().to_string())
}

/// Names and restart counts of pods.
fn restarts(pods: &Value) -> BTreeSet<(String, u64)> {
    let items = pods["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    items
        .iter()
        .map(|pod| {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let count = pod["status"]["containerStatuses"][0]["restartCount"].as_u64();
            (name, count.unwrap_or_default())
        })
        .collect()
}
