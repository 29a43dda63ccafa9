//! The store's file is damaged while clusters run, is lost with the disk, is restored to an earlier time, and
//! is restored from a directory of another host: the commands of the guide, run verbatim, repair it.

use std::{
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use serde_json::Value;

use super::{backup::shipped, text};
use crate::{
    clients::{Az, Kubectl, attempt, run},
    journal::{Journal, wait_for},
    stamp::Stamp,
};

const GUIDE: &str = include_str!("../../../docs/guides/store.md");
/// A group that is younger than a copy.
const LATER: &str = "later";
/// In the guide, a copy that was brought along.
const BROUGHT: &str = "DIRECTORY/store-ID/NAME.copy";

pub(super) fn walk(journal: &Journal, stamp: &Stamp, az: &Az) -> Result<()> {
    let blocks = commands(GUIDE);
    let [before, after, another_disk, by_file] = blocks.as_slice() else {
        anyhow::bail!("the guide has {} blocks of commands, not four", blocks.len());
    };
    let clusters: Value = az.json(&["aks", "list"])?;
    let field = |name: &str| {
        let text = clusters[0][name].as_str().map(str::to_owned);
        text.with_context(|| format!("no {name} in {clusters}"))
    };
    let (group, cluster) = (field("resourceGroup")?, field("name")?);
    let kubectl = stamp.kubectl(az, &group, &cluster)?;
    journal.step("store", "the guide's commands: the store is copied", || {
        say(journal, stamp, before).map(drop)
    })?;
    let pods = started(&kubectl)?;
    journal.step(
        "store",
        "the service is killed and its store damaged: up says what to do",
        || {
            // The objects in a cluster are not in the store.
            kubectl.text(&[
                "create",
                "configmap",
                "after-the-copy",
                "--from-literal=answer=42",
            ])?;
            stamp.kill_service()?;
            let file = std::fs::OpenOptions::new().write(true).open(stamp.store())?;
            file.write_all_at(&[0x5a; 64 * 1024], 0)?;
            file.sync_all()?;
            let said = attempt(&mut stamp.landfall(&["up"]))?;
            let text = String::from_utf8_lossy(&said.stderr).into_owned();
            journal.note(&text);
            ensure!(!said.status.success(), "up went on with a damaged store");
            ensure!(
                text.contains("is damaged") && text.contains("landfall store restore"),
                "{text}"
            );
            Ok(())
        },
    )?;
    journal.step(
        "store",
        "the guide's commands: it is put back, and the cluster serves with its data",
        || {
            let said = say(journal, stamp, after)?;
            ensure!(
                said.contains("Nothing: every machine"),
                "something is unknown: {said}"
            );
            serves(az, &group, &cluster, &kubectl)?;
            let now = started(&kubectl)?;
            ensure!(now == pods, "pods were restarted: {pods:?}, now {now:?}");
            let show: Value =
                serde_json::from_str(&run(&mut stamp.landfall(&["store", "show", "--output", "json"]))?)?;
            ensure!(show["store"]["epoch"] == 1, "{show}");
            Ok(())
        },
    )?;
    journal.step(
        "store",
        "what follows reaches machines that were configured before",
        || {
            let node = &[
                "aks",
                "nodepool",
                "scale",
                "--resource-group",
                &group,
                "--cluster-name",
                &cluster,
            ];
            let pools = az.json(&[
                "aks",
                "nodepool",
                "list",
                "--resource-group",
                &group,
                "--cluster-name",
                &cluster,
            ])?;
            let pool = pools[0]["name"].as_str().context("a pool without a name")?;
            for count in ["2", "1"] {
                let mut arguments = node.to_vec();
                arguments.extend(["--name", pool, "--node-count", count]);
                az.json(&arguments)?;
            }
            Ok(())
        },
    )?;
    journal.step(
        "store",
        "the guide's commands after the disk: machines are made anew, the cluster comes back from its backup",
        || {
            run(&mut stamp.landfall(&["store", "backup"]))?;
            shipped(stamp, &format!("{group}/{cluster}"))?;
            stamp.power_failure()?;
            std::fs::remove_file(stamp.store())?;
            std::fs::remove_dir_all(stamp.state().join("fabric"))?;
            say(journal, stamp, another_disk)?;
            serves(az, &group, &cluster, &kubectl)
        },
    )?;
    // Groups are only in the store: they show which copy was restored.
    let newer = journal.step("store", "a copy of an earlier time is put back", || {
        let at = copied(stamp)?;
        az.json(&["group", "create", "--location", "local", "--name", LATER])?;
        let newer = copied(stamp)?;
        stamp.kill_service()?;
        run(&mut stamp.landfall(&["store", "restore", "--at", &at.to_string(), "--yes"]))?;
        run(&mut stamp.landfall(&["up"]))?;
        let there = az.json(&["group", "exists", "--name", LATER])?;
        ensure!(there == false, "the group is younger than the copy of {at}");
        serves(az, &group, &cluster, &kubectl)?;
        Ok(newer)
    })?;
    journal.step(
        "store",
        "the guide's commands with a copy in a directory that was brought along",
        || {
            let file = bring(
                &stamp.state().join("backups"),
                &stamp.directory.path().join("brought"),
                &newer,
            )?;
            stamp.kill_service()?;
            let mut commands = by_file.clone();
            for word in commands.iter_mut().flatten().filter(|word| *word == BROUGHT) {
                *word = file.to_string_lossy().into_owned();
            }
            say(journal, stamp, &commands)?;
            let there = az.json(&["group", "exists", "--name", LATER])?;
            ensure!(there == true, "the group is in the copy of {newer}");
            az.json(&["group", "delete", "--name", LATER, "--yes"])?;
            serves(az, &group, &cluster, &kubectl)
        },
    )
}

/// Waits until the cluster is reached, has its data and a node that is ready.
fn serves(az: &Az, group: &str, cluster: &str, kubectl: &Kubectl) -> Result<()> {
    wait_for("the cluster to be as it was", Duration::from_secs(180), || {
        let kept = kubectl.json(&["get", "configmap", "after-the-copy", "--request-timeout=5s"])?;
        ensure!(kept["data"]["answer"] == "42", "{kept}");
        ensure!(!kubectl.ready_nodes()?.is_empty(), "no node is ready");
        let cluster = az.json(&["aks", "show", "--resource-group", group, "--name", cluster])?;
        let state = &cluster["provisioningState"];
        ensure!(state == "Succeeded", "{state}");
        Ok(())
    })
}

/// Makes a copy of the store: its time.
pub(super) fn copied(stamp: &Stamp) -> Result<Timestamp> {
    let said = run(&mut stamp.landfall(&["store", "backup", "--output", "json"]))?;
    let last: Value = serde_json::from_str(said.lines().last().context("it says nothing")?)?;
    Ok(text(&last, "/copy/at")?.parse()?)
}

/// Copies the copy of a time into another directory, with the files that belong to it. Gives its path there.
fn bring(copies: &Path, directory: &Path, at: &Timestamp) -> Result<PathBuf> {
    let name = format!("{:015}-", at.as_millisecond());
    for store in std::fs::read_dir(copies)? {
        let store = store?;
        if !store.file_name().to_string_lossy().starts_with("store-") {
            continue;
        }
        for copy in std::fs::read_dir(store.path())? {
            let copy = copy?;
            if copy.file_name().to_string_lossy().starts_with(&name) {
                let target = directory.join(store.file_name());
                std::fs::create_dir_all(&target)?;
                std::fs::copy(store.path().join("key"), target.join("key"))?;
                let target = target.join(copy.file_name());
                std::fs::copy(copy.path(), &target)?;
                return Ok(target);
            }
        }
    }
    anyhow::bail!("no copy of {at} in {}", copies.display())
}

/// The commands in a guide's blocks, without their comments.
fn commands(guide: &str) -> Vec<Vec<Vec<String>>> {
    let command = |line: &str| {
        let line = line.split('#').next().unwrap_or_default();
        line.split_whitespace().skip(1).map(str::to_owned).collect()
    };
    super::guide::blocks(guide)
        .iter()
        .map(|block| {
            block
                .lines()
                .filter(|line| line.starts_with("landfall "))
                .map(command)
                .collect()
        })
        .collect()
}

/// Runs commands verbatim for this stamp. Gives their output.
fn say(journal: &Journal, stamp: &Stamp, commands: &[Vec<String>]) -> Result<String> {
    let mut said = String::new();
    for command in commands {
        let arguments: Vec<&str> = command.iter().map(String::as_str).collect();
        let command: &mut Command = &mut stamp.landfall(&arguments);
        let text = run(command).with_context(|| format!("landfall {}", arguments.join(" ")))?;
        journal.note(&text);
        said.push_str(&text);
    }
    Ok(said)
}

/// Each container of each pod: when it started, and how often again.
fn started(kubectl: &Kubectl) -> Result<Vec<(String, String, u64)>> {
    let pods = kubectl.json(&["get", "pods", "--all-namespaces"])?;
    let items = pods["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut all = Vec::new();
    for pod in items {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        for container in pod["status"]["containerStatuses"]
            .as_array()
            .into_iter()
            .flatten()
        {
            all.push((
                format!("{name}/{}", container["name"]),
                container["state"]["running"]["startedAt"].to_string(),
                container["restartCount"].as_u64().unwrap_or_default(),
            ));
        }
    }
    all.sort();
    ensure!(!all.is_empty(), "there are no pods");
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guide_has_the_commands_that_are_walked_through() {
        let blocks = commands(GUIDE);
        assert_eq!(blocks.len(), 4);
        assert_eq!(blocks[0][1], ["store", "backup"]);
        assert_eq!(blocks[1][0], ["store", "restore", "--yes"]);
        assert_eq!(blocks[2][0], ["store", "restore", "--yes"]);
        assert!(blocks[3][0].iter().any(|word| word == BROUGHT));
    }
}
