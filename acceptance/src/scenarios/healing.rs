//! Programs are killed and stopped, a node object is deleted: all of them are repaired automatically.

use std::{collections::BTreeSet, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{
    joined,
    workload::{Cluster, Clusters},
};
use crate::{
    clients::{attempt, run},
    journal::{Journal, wait_for},
    stamp::Stamp,
};

pub(super) fn walk(journal: &Journal, stamp: &Stamp, clusters: &Clusters) -> Result<()> {
    let kubectl = &clusters.kubenet.kubectl;
    let before = kubectl.ready_nodes()?;
    let deleted = before.first().context("the cluster has no ready node")?;
    journal.step("healing", "kubectl delete node", || {
        kubectl.text(&["delete", "node", deleted]).map(drop)
    })?;
    programs(journal, stamp, &clusters.overlay)?;
    journal.step("healing", "the node that was deleted is back by itself", || {
        wait_for("the node", Duration::from_secs(180), || {
            let ready = kubectl.ready_nodes()?;
            ensure!(ready.contains(deleted), "ready: {ready:?}");
            Ok(())
        })
    })
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
pub(super) fn namespace(machine: &str) -> Result<String> {
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

/// The first process of a machine: with it, all others end.
pub(super) fn init(machine: &str) -> Result<u32> {
    let is_first = |pid: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let mut lines = status.lines();
        let numbers = lines.find_map(|line| line.strip_prefix("NSpid:"));
        // The process's ids here and in the machine. Pods have further PID namespaces.
        let numbers: Vec<&str> = numbers.unwrap_or_default().split_whitespace().collect();
        numbers.len() == 2 && numbers[1] == "1"
    };
    let first = pids(machine, None)?.into_iter().find(is_first);
    first.with_context(|| format!("{machine} has no first process"))
}

pub(super) fn signal(signal: &str, pid: u32) -> Result<()> {
    run(Command::new("kill").args([signal, &pid.to_string()])).map(drop)
}

fn programs(journal: &Journal, stamp: &Stamp, cluster: &Cluster) -> Result<()> {
    for name in ["-KILL", "-STOP"] {
        // One of a node and one of the control plane at a time: each must be restarted.
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
                    wait_for("all nodes ready", Duration::from_secs(180), || {
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

/// A process that is to be killed or stopped.
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

    /// Waits until another process has replaced it.
    fn back(&self) -> Result<()> {
        wait_for(
            &format!("another {}", self.program),
            Duration::from_secs(180),
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

/// Kills a machine, and deletes its disk.
pub(super) fn destroy(stamp: &Stamp, machine: &str) -> Result<()> {
    let space = namespace(machine)?;
    run(Command::new("ip").args(["-n", &space, "link", "set", "eth0", "down"]))?;
    for pid in pids(machine, None)? {
        // Children that ended with their parent are gone already.
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
