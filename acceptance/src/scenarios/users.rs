//! Pods with a user namespace of their own (`hostUsers: false`), where this host can have them; else their events say why not.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{
    guide,
    workload::{BUSYBOX, Cluster},
};
use crate::{
    clients::{Az, run},
    journal::{Journal, PATIENCE, wait_for},
    stamp::Stamp,
};

/// The pod of the guide.
const POD: &str = "apart";

/// Its block is run verbatim.
const GUIDE: &str = include_str!("../../../docs/guides/nodes.md");

/// Of Linux, from which on all that such a pod mounts can have owners of its own.
const SINCE: (u32, u32) = (6, 3);

pub(super) fn walk(journal: &Journal, stamp: &Stamp, az: &Az, cluster: &Cluster) -> Result<()> {
    if is_possible()? {
        journal.step(
            cluster.name,
            "the guide: root in a pod with hostUsers: false is nobody on its node; procMount: Unmasked",
            || apart(stamp, az, cluster),
        )?;
    } else {
        journal.step(
            cluster.name,
            "this host has no user namespaces for pods, and a pod with hostUsers: false says so",
            || told(cluster),
        )?;
    }
    let delete = ["delete", "pod", POD, "--grace-period=1", "--timeout=180s"];
    cluster.kubectl.text(&delete).map(drop)
}

/// Whether this host can have such pods.
fn is_possible() -> Result<bool> {
    let read = |name: &str| {
        let path = format!("/proc/sys/{name}");
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
    };
    // A kernel without user namespaces has no such file.
    let limit = read("user/max_user_namespaces").unwrap_or_default();
    let release = read("kernel/osrelease")?;
    let version = version(&release).with_context(|| format!("{} is no release of Linux", release.trim()))?;
    Ok(limit.trim().parse::<u64>().is_ok_and(|limit| limit > 0) && version >= SINCE)
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn apart(stamp: &Stamp, az: &Az, cluster: &Cluster) -> Result<()> {
    let [block] = guide::exactly::<1>(GUIDE)?;
    let kubectl = &cluster.kubectl;
    let mut shell = guide::shell(stamp, az, &[&kubectl.program], &block)?;
    shell.env("KUBECONFIG", &kubectl.kubeconfig).env("IMAGE", BUSYBOX);
    let said = run(&mut shell)?;
    let found = seen(&said).with_context(|| format!("the guide's last commands said: {said}"))?;
    ensure!(found.first_inside == 0 && found.first_outside > 0, "{said}");
    ensure!(found.count == 65_536, "{said}");
    ensure!(
        found.usual > 0,
        "nothing of /proc is masked in a usual container: {said}"
    );
    ensure!(
        found.unmasked == 0,
        "something of /proc is masked with procMount: Unmasked: {said}"
    );
    Ok(())
}

/// The output of the guide's last three commands: a line of `uid_map`, and two numbers.
struct Seen {
    first_inside: u64,
    first_outside: u64,
    count: u64,
    usual: u64,
    unmasked: u64,
}

fn seen(said: &str) -> Option<Seen> {
    let mut last = said.lines().rev();
    let (unmasked, usual, map) = (last.next()?, last.next()?, last.next()?);
    let map: Vec<u64> = map
        .split_whitespace()
        .map(|number| number.parse().ok())
        .collect::<Option<_>>()?;
    let [first_inside, first_outside, count] = map[..] else {
        return None;
    };
    Some(Seen {
        first_inside,
        first_outside,
        count,
        usual: usual.trim().parse().ok()?,
        unmasked: unmasked.trim().parse().ok()?,
    })
}

/// An event of the pod names user namespaces, or the mount that cannot map owners.
fn told(cluster: &Cluster) -> Result<()> {
    cluster.apply(&json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": POD },
        "spec": {
            "hostUsers": false,
            "containers": [{ "name": "usual", "image": BUSYBOX, "command": ["sleep", "86400"] }]
        }
    }))?;
    wait_for("an event that says why", PATIENCE, || {
        let selector = format!("--field-selector=involvedObject.name={POD},type=Warning");
        let events = cluster.kubectl.json(&["get", "events", &selector])?;
        let events = events["items"].as_array().context("no items")?;
        let messages: Vec<String> = events
            .iter()
            .filter_map(|event| event["message"].as_str())
            .map(str::to_lowercase)
            .collect();
        let says = ["user namespace", "userns", "idmap", "id-map"];
        let clear = messages
            .iter()
            .any(|message| says.iter().any(|word| message.contains(word)));
        ensure!(clear, "{messages:?}");
        let pod = cluster.kubectl.json(&["get", "pod", POD])?;
        ensure!(pod["status"]["phase"] == "Pending", "{pod}");
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guide_has_one_block_and_its_output_is_read() {
        assert!(guide::exactly::<1>(GUIDE).is_ok());
        let seen = seen("pod/apart created\n         0      65536      65536\n12\n0\n").unwrap();
        assert_eq!(
            (seen.first_inside, seen.first_outside, seen.count),
            (0, 65_536, 65_536)
        );
        assert_eq!((seen.usual, seen.unmasked), (12, 0));
        assert_eq!(version("6.1.0-28-amd64\n"), Some((6, 1)));
        assert_eq!(version("x"), None);
    }
}
