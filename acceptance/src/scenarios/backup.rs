//! etcd's data is destroyed, a cluster is restored to a second, and as another cluster: the objects of that
//! time are there again.
#![expect(
    clippy::disallowed_methods,
    reason = "a test run goes by the host's own clock"
)]

use std::{
    collections::BTreeSet,
    process::Command,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{
    GROUP, aks,
    healing::{destroy, id, machines, pids, signal},
    joined,
};
use crate::{
    clients::{Az, Kubectl, attempt, run},
    journal::{Journal, wait_for},
    stamp::Stamp,
};

/// The cluster whose data is destroyed.
const KEPT: &str = "kept";
/// The cluster that is made of its backup.
const COPY: &str = "copy";
/// The cluster that is made of its backup after it was deleted.
const AGAIN: &str = "again";
/// The cluster of one member that loses its disk.
const ONE: &str = "one";
/// The cluster of three members that lose their disks.
const THREE: &str = "three";
/// Kinds of objects that are compared by name and uid. Without those that Kubernetes itself writes all the
/// time.
const KINDS: &str =
    "namespaces,configmaps,secrets,serviceaccounts,services,deployments,clusterroles,clusterrolebindings";
/// A busy host takes longer than a quiet one: how long it was is printed.
const SERVES_AGAIN: Duration = Duration::from_secs(180);
const BOUND: Duration = Duration::from_secs(180);

pub(super) fn walk(journal: &Journal, stamp: &Stamp, az: &Az) -> Result<()> {
    journal.step("backup", "az aks create", || {
        aks(az, &["create"], KEPT, &["--node-count", "1", "--no-ssh-key"]).map(drop)
    })?;
    let kubectl = stamp.kubectl(az, GROUP, KEPT)?;
    kubectl.apply(stamp.directory.path(), &shop())?;
    journal.step(
        "backup",
        "etcd's data directory is deleted under a writer: the API serves again, what was acknowledged is there",
        || data_deleted(journal, stamp, &kubectl),
    )?;
    let then = journal.step(
        "backup",
        "restore to a chosen second, in place: exactly its objects",
        || in_place(stamp, &kubectl),
    )?;
    journal.step("backup", "list, show, verify", || looked_at(stamp))?;
    journal.step(
        "backup",
        "restore as a new cluster: the objects, readable secrets, nodes of its own",
        || copied(stamp, az, KEPT, COPY, &then).map(drop),
    )?;
    journal.step("backup", "a cluster that was deleted, as a new cluster", || {
        aks(az, &["delete"], KEPT, &["--yes"])?;
        copied(stamp, az, KEPT, AGAIN, &then).map(drop)
    })?;
    journal.step("backup", "az aks delete of both", || {
        for cluster in [COPY, AGAIN] {
            aks(az, &["delete"], cluster, &["--yes"])?;
        }
        Ok(())
    })
}

/// Machines lose their disks and get their data back from the service. Takes minutes, most of them until a
/// silent machine counts as lost.
pub(super) fn disks(journal: &Journal, stamp: &Stamp, az: &Az) -> Result<()> {
    journal.step(
        "disks",
        "the disk of the only control plane machine is destroyed: the state is back",
        || disks_lost(journal, stamp, az, ONE, "free", 1),
    )?;
    journal.step(
        "disks",
        "the disks of all three control plane machines are destroyed: the state is back",
        || disks_lost(journal, stamp, az, THREE, "standard", 3),
    )?;
    journal.step("disks", "az aks delete of both", || {
        for cluster in [ONE, THREE] {
            aks(az, &["delete"], cluster, &["--yes"])?;
        }
        Ok(())
    })
}

fn disks_lost(
    journal: &Journal,
    stamp: &Stamp,
    az: &Az,
    cluster: &'static str,
    tier: &str,
    wanted: usize,
) -> Result<()> {
    // With fewer machines in the stamp, three that fall silent together count as a failure of the host.
    let more = ["--node-count", "4", "--no-ssh-key", "--tier", tier];
    aks(az, &["create"], cluster, &more)?;
    let kubectl = stamp.kubectl(az, GROUP, cluster)?;
    kubectl.apply(stamp.directory.path(), &shop())?;
    next_second()?;
    // The last writes are backed up by then.
    shipped(stamp, &format!("{GROUP}/{cluster}"))?;
    let before = objects(&kubectl)?;
    let members = machines(stamp, cluster, "control plane")?;
    ensure!(members.len() == wanted, "{members:?}");
    for member in &members {
        destroy(stamp, id(member)?)?;
    }
    journal.timed("API server", "serves the state again after", || {
        wait_for("the state of before", Duration::from_secs(300), || {
            same(&before, &objects(&kubectl)?)
        })
    })?;
    wait_for("all members", Duration::from_secs(300), || {
        let members = machines(stamp, cluster, "control plane")?;
        let ready = |member: &&Value| {
            let processes = member["processes"]
                .as_array()
                .map(Vec::as_slice)
                .unwrap_or_default();
            !processes.is_empty() && processes.iter().all(|process| process["state"] == "ready")
        };
        ensure!(members.iter().filter(ready).count() == wanted, "{members:?}");
        Ok(())
    })
}

fn shop() -> Value {
    let object = |kind: &str, name: &str, more: Value| {
        let mut object =
            json!({ "apiVersion": "v1", "kind": kind, "metadata": { "name": name, "namespace": "shop" } });
        for (key, value) in more.as_object().into_iter().flatten() {
            object[key] = value.clone();
        }
        object
    };
    json!({ "apiVersion": "v1", "kind": "List", "items": [
        { "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "shop" } },
        object("ConfigMap", "stock", json!({ "data": { "apples": "7" } })),
        object("Secret", "till", json!({ "stringData": { "code": "hush" } })),
    ] })
}

/// Kind, namespace, name and uid of all objects.
fn objects(kubectl: &Kubectl) -> Result<BTreeSet<String>> {
    let found = kubectl.json(&["get", KINDS, "--all-namespaces", "--request-timeout=5s"])?;
    let items = found["items"].as_array().context("no items")?;
    let text = |item: &Value, pointer: &str| {
        item.pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    Ok(items
        .iter()
        .map(|item| {
            ["/kind", "/metadata/namespace", "/metadata/name", "/metadata/uid"]
                .map(|pointer| text(item, pointer))
                .join(" ")
        })
        // It contains the CA that aggregated API servers trust: each cluster has its own.
        .filter(|line| !line.contains("extension-apiserver-authentication "))
        // And its own credentials: a copy of a cluster does not contain those of the original.
        .filter(|line| !line.contains(" landfall:credential:"))
        .collect())
}

fn same(wanted: &BTreeSet<String>, found: &BTreeSet<String>) -> Result<()> {
    let missing: Vec<_> = wanted.difference(found).collect();
    let surplus: Vec<_> = found.difference(wanted).collect();
    ensure!(
        missing.is_empty() && surplus.is_empty(),
        "missing: {missing:?}, too many: {surplus:?}"
    );
    Ok(())
}

fn landfall(stamp: &Stamp, arguments: &[&str]) -> Result<Value> {
    let mut all = arguments.to_vec();
    all.extend(["--output", "json"]);
    let text = run(&mut stamp.landfall(&all))?;
    let last = text
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .context("it printed nothing")?;
    serde_json::from_str(last).with_context(|| format!("{arguments:?} printed {last}"))
}

fn shown(stamp: &Stamp, cluster: &str) -> Result<Value> {
    landfall(stamp, &["backup", "show", &format!("{GROUP}/{cluster}")])
}

/// Waits until all present writes of the cluster `GROUP/NAME` are backed up.
pub(super) fn shipped(stamp: &Stamp, cluster: &str) -> Result<()> {
    let now = now()?;
    wait_for("everything to be shipped", BOUND, || {
        let backup = landfall(stamp, &["backup", "show", cluster])?;
        let spans = backup["properties"]["restorable"].as_array();
        // There is a write in every second: leases, at least. Times of the same format are ordered like their
        // text.
        let until = spans.and_then(|spans| spans.last()?["until"].as_str());
        ensure!(until > Some(now.as_str()), "{backup}");
        Ok(())
    })
}

/// A write that was acknowledged, and when.
type Acknowledged = (String, SystemTime);

/// Writes without a pause until it is asked to end; gives the acknowledged writes with their times.
fn write(
    kubectl: &Kubectl,
    who: &str,
    over: &AtomicBool,
    acknowledged: &Mutex<Vec<Acknowledged>>,
) -> Result<()> {
    let mut number = 0;
    while !over.load(Ordering::SeqCst) {
        number += 1;
        let name = format!("write-{who}-{number:05}");
        let mut create = kubectl.command(&[
            "--namespace=shop",
            "create",
            "configmap",
            &name,
            "--request-timeout=5s",
        ]);
        if attempt(&mut create)?.status.success() {
            acknowledged
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push((name, SystemTime::now()));
        }
    }
    Ok(())
}

fn data_deleted(journal: &Journal, stamp: &Stamp, kubectl: &Kubectl) -> Result<()> {
    let machine = machines(stamp, KEPT, "control plane")?;
    let machine = id(machine.first().context("no control plane machine")?)?.to_owned();
    let (over, written) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let acknowledged = || written.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let struck = std::thread::scope(|scope| -> Result<SystemTime> {
        let writers: Vec<_> = ["a", "b"]
            .map(|who| scope.spawn(|| write(kubectl, who, &over, &written)))
            .into_iter()
            .collect();
        let act = || -> Result<SystemTime> {
            wait_for("twenty writes", BOUND, || {
                ensure!(acknowledged().len() >= 20, "{}", acknowledged().len());
                Ok(())
            })?;
            let etcd = *pids(&machine, Some("etcd"))?.first().context("no etcd")?;
            let data = format!("/proc/{etcd}/root/var/lib/etcd/data");
            run(Command::new("rm").args(["-rf", &data]))?;
            signal("-KILL", etcd)?;
            let struck = SystemTime::now();
            journal.timed("API server", "a write is acknowledged again after", || {
                wait_for("a write", SERVES_AGAIN, || {
                    ensure!(acknowledged().iter().any(|(_, at)| *at > struck), "none yet");
                    Ok(())
                })
            })?;
            Ok(struck)
        };
        let struck = act();
        over.store(true, Ordering::SeqCst);
        writers.into_iter().try_for_each(joined)?;
        struck
    })?;
    let there = kubectl.json(&["--namespace=shop", "get", "configmaps"])?;
    let there: BTreeSet<&str> = there["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|item| item.pointer("/metadata/name")?.as_str())
        .collect();
    let acknowledged = acknowledged();
    let lost: Vec<_> = acknowledged
        .iter()
        .filter(|(name, _)| !there.contains(name.as_str()))
        .collect();
    journal.note(&format!(
        "{} of {} acknowledged writes lost",
        lost.len(),
        acknowledged.len()
    ));
    let second = Duration::from_secs(1);
    for (name, at) in lost {
        let before = struck.duration_since(*at).unwrap_or_default();
        ensure!(
            before <= second && *at <= struck,
            "{name}, acknowledged {before:?} before, is lost"
        );
    }
    Ok(())
}

/// Waits for the next second to begin, so that the following writes belong to another one.
fn next_second() -> Result<()> {
    let second = || -> Result<u64> { Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs()) };
    let begun = second()?;
    wait_for("the next second", Duration::from_secs(180), || {
        ensure!(second()? > begun, "not yet");
        Ok(())
    })
}

/// A second and the objects at that time.
struct Then {
    at: String,
    objects: BTreeSet<String>,
}

fn now() -> Result<String> {
    Ok(run(Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]))?
        .trim()
        .to_owned())
}

fn in_place(stamp: &Stamp, kubectl: &Kubectl) -> Result<Then> {
    let shop = |arguments: &[&str]| {
        let mut all = vec!["--namespace=shop"];
        all.extend(arguments);
        kubectl.text(&all)
    };
    shop(&["create", "configmap", "of-then"])?;
    next_second()?;
    let then = Then {
        at: now()?,
        objects: objects(kubectl)?,
    };
    next_second()?;
    next_second()?;
    shop(&["create", "configmap", "of-later"])?;
    shop(&["delete", "configmap", "of-then", "stock"])?;
    kubectl.text(&["create", "namespace", "later"])?;
    shipped(stamp, &format!("{GROUP}/{KEPT}"))?;
    let place = format!("{GROUP}/{KEPT}");
    let preview = landfall(
        stamp,
        &["backup", "restore", &place, "--at", &then.at, "--preview"],
    )?;
    ensure!(
        preview["namespacesDisappear"] == json!(["later"]) && preview["appear"].as_u64() >= Some(2),
        "{preview}"
    );
    landfall(stamp, &["backup", "restore", &place, "--at", &then.at, "--yes"])?;
    same(&then.objects, &objects(kubectl)?)?;
    // It also works: new objects are accepted.
    shop(&["create", "configmap", "after"])?;
    shop(&["delete", "configmap", "after"])?;
    Ok(then)
}

fn looked_at(stamp: &Stamp) -> Result<()> {
    let list = landfall(stamp, &["backup", "list"])?;
    let backups = list["backups"].as_array().context("no backups")?;
    let kept = backups
        .iter()
        .find(|backup| backup["properties"]["cluster"] == KEPT);
    ensure!(
        kept.is_some_and(|kept| kept["properties"]["shipping"]["behindSeconds"] == 0),
        "{list}"
    );
    let show = shown(stamp, KEPT)?;
    ensure!(show["properties"]["restorable"][0]["from"].is_string(), "{show}");
    let verdict = landfall(stamp, &["backup", "verify", &format!("{GROUP}/{KEPT}")])?;
    ensure!(
        verdict["problem"].is_null() && verdict["keys"].as_u64() > Some(100),
        "{verdict}"
    );
    let table = run(&mut stamp.landfall(&["backup", "list"]))?;
    ensure!(table.contains("BEHIND") && table.contains(KEPT), "{table}");
    Ok(())
}

fn copied(stamp: &Stamp, az: &Az, of: &str, name: &str, then: &Then) -> Result<Kubectl> {
    let source = format!("{GROUP}/{of}");
    landfall(
        stamp,
        &["backup", "restore", &source, "--at", &then.at, "--as", name],
    )?;
    let shown = aks(az, &["show"], name, &[])?;
    ensure!(shown["provisioningState"] == "Succeeded", "{shown}");
    let kubectl = stamp.kubectl(az, GROUP, name)?;
    same(&then.objects, &objects(&kubectl)?)?;
    let code = kubectl.text(&[
        "--namespace=shop",
        "get",
        "secret",
        "till",
        "-o",
        "jsonpath={.data.code}",
    ])?;
    ensure!(code == "aHVzaA==", "the secret reads {code}");
    let nodes = kubectl.json(&["get", "nodes"])?;
    let ready = kubectl.ready_nodes()?;
    ensure!(
        nodes["items"].as_array().map(Vec::len) == Some(1) && ready.len() == 1,
        "{nodes}"
    );
    Ok(kubectl)
}
