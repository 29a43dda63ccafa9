//! Programs are killed and stopped, a control plane member is destroyed: everything comes back without help.

use std::{
    collections::BTreeSet,
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{
    GROUP, aks,
    workload::{Cluster, Clusters},
};
use crate::{
    clients::{Az, attempt, run},
    journal::{Journal, wait_for},
    stamp::Stamp,
};

/// The cluster with three members.
const MEMBERS: &str = "members";

pub(super) fn walk(journal: &Journal, stamp: &Stamp, az: &Az, clusters: &Clusters) -> Result<()> {
    programs(journal, stamp, &clusters.overlay)?;
    members(journal, stamp, az)
}

/// Machines of a cluster with this role.
fn machines(stamp: &Stamp, cluster: &str, role: &str) -> Result<Vec<Value>> {
    let status: Value = serde_json::from_str(&run(&mut stamp.landfall(&["status", "--output", "json"]))?)?;
    let machines = status["machines"].as_array().context("status has no machines")?;
    let of = |machine: &&Value| machine["cluster"] == cluster && machine["role"] == role;
    Ok(machines.iter().filter(of).cloned().collect())
}

fn id(machine: &Value) -> Result<&str> {
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
fn pids(machine: &str, program: Option<&str>) -> Result<BTreeSet<u32>> {
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

fn signal(signal: &str, pid: u32) -> Result<()> {
    run(Command::new("kill").args([signal, &pid.to_string()])).map(drop)
}

fn programs(journal: &Journal, stamp: &Stamp, cluster: &Cluster) -> Result<()> {
    let kubectl = &cluster.kubectl;
    for name in ["-KILL", "-STOP"] {
        journal.step(
            "healing",
            &format!("kubelet, containerd, API server and etcd get {name}: all are back, pods stay"),
            || {
                let nodes = machines(stamp, cluster.name, "node")?;
                let control_plane = machines(stamp, cluster.name, "control plane")?;
                let wanted = kubectl.ready_nodes()?.len();
                let before = restarts(&kubectl.json(&["get", "pods", "-l", "app=web"])?);
                for (machine, program) in [
                    (&nodes[0], "kubelet"),
                    (&nodes[0], "containerd"),
                    (&control_plane[0], "kube-apiserver"),
                    (&control_plane[0], "etcd"),
                ] {
                    let machine = id(machine)?;
                    let old = pids(machine, Some(program))?;
                    let pid = *old
                        .first()
                        .with_context(|| format!("no {program} in {machine}"))?;
                    signal(name, pid)?;
                    let what = format!("another {program}");
                    wait_for(&what, Duration::from_secs(240), || {
                        let now = pids(machine, Some(program))?;
                        ensure!(!now.is_empty() && !now.contains(&pid), "{program}: {now:?}");
                        kubectl.text(&["get", "--raw", "/readyz", "--request-timeout=5s"])?;
                        let ready = kubectl.ready_nodes()?;
                        ensure!(ready.len() == wanted, "ready: {ready:?}");
                        Ok(())
                    })?;
                }
                let after = restarts(&kubectl.json(&["get", "pods", "-l", "app=web"])?);
                ensure!(before == after, "pods were disturbed: {before:?}, {after:?}");
                Ok(())
            },
        )?;
    }
    Ok(())
}

fn members(journal: &Journal, stamp: &Stamp, az: &Az) -> Result<()> {
    journal.step("healing", "az aks create --tier standard: three members", || {
        let more = ["--tier", "standard", "--node-count", "1", "--no-ssh-key"];
        let cluster = aks(az, &["create"], MEMBERS, &more)?;
        ensure!(cluster["sku"]["tier"] == "Standard", "{cluster}");
        three(stamp, &BTreeSet::new()).map(drop)
    })?;
    let kubectl = stamp.kubectl(az, GROUP, MEMBERS)?;
    journal.step(
        "healing",
        "the member that holds the VIP is destroyed under load: requests go on, three again",
        || {
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
            let mut holder = None;
            for machine in machines(stamp, MEMBERS, "control plane")? {
                let space = namespace(id(&machine)?)?;
                let addresses = run(Command::new("ip").args(["-n", &space, "-br", "-4", "address"]))?;
                if addresses.contains(&format!("{vip}/32")) {
                    holder = Some(id(&machine)?.to_owned());
                }
            }
            let holder = holder.context("nobody holds the VIP")?;
            let (over, sent, failed) = (AtomicBool::new(false), AtomicU32::new(0), AtomicU32::new(0));
            std::thread::scope(|scope| {
                let load = scope.spawn(|| -> Result<()> {
                    while !over.load(Ordering::SeqCst) {
                        sent.fetch_add(1, Ordering::SeqCst);
                        let mut get = kubectl.command(&["get", "namespaces", "--request-timeout=20s"]);
                        if !attempt(&mut get)?.status.success() {
                            failed.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                    Ok(())
                });
                let back = destroy(stamp, &holder).and_then(|()| three(stamp, &[holder.clone()].into()));
                over.store(true, Ordering::SeqCst);
                let ended = load
                    .join()
                    .map_err(|_| anyhow::anyhow!("the load's thread panicked"))?;
                back.and(ended)
            })?;
            let (sent, failed) = (sent.into_inner(), failed.into_inner());
            journal.note(&format!("{failed} of {sent} requests failed"));
            // One client, one request at a time: at most the one that was under way.
            ensure!(failed <= 1, "{failed} of {sent} requests failed");
            Ok(())
        },
    )?;
    journal.step(
        "healing",
        "az aks update --tier free: one member again, and its data",
        || {
            kubectl.text(&["create", "configmap", "kept", "--from-literal=answer=42"])?;
            aks(az, &["update"], MEMBERS, &["--tier", "free"])?;
            let left = machines(stamp, MEMBERS, "control plane")?;
            ensure!(left.len() == 1, "{left:?}");
            let kept = kubectl.json(&["get", "configmap", "kept"])?;
            ensure!(kept["data"]["answer"] == "42", "{kept}");
            aks(az, &["delete"], MEMBERS, &["--yes"]).map(drop)
        },
    )
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
fn destroy(stamp: &Stamp, machine: &str) -> Result<()> {
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
