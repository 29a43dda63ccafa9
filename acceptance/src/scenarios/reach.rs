//! Authorised ranges of a cluster's API server, as in the guide, with additional addresses of this host; and
//! a command that needs no connection to it.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{GROUP, guide, text};
use crate::{
    clients::{Az, attempt, run},
    journal::{Journal, wait_for},
    stamp::Stamp,
};

const GUIDE: &str = include_str!("../../../docs/guides/api-server.md");
/// Addresses of documentation, in the range that is let in and outside of it.
const INSIDE: &str = "203.0.113.7";
const OUTSIDE: &str = "198.51.100.7";
const PRIVATE: &str = "hidden";

/// Addresses on loopback, removed when this is dropped.
struct Addresses;

impl Addresses {
    fn add() -> Result<Self> {
        for address in [INSIDE, OUTSIDE] {
            run(Command::new("ip").args(["address", "add", &format!("{address}/32"), "dev", "lo"]))?;
        }
        Ok(Self)
    }
}

impl Drop for Addresses {
    fn drop(&mut self) {
        for address in [INSIDE, OUTSIDE] {
            // Removed with the last attempt to use it.
            drop(attempt(Command::new("ip").args([
                "address",
                "delete",
                &format!("{address}/32"),
                "dev",
                "lo",
            ])));
        }
    }
}

/// Whether the API server responds to a client at this address; `None`: at the host's own.
fn reaches(server: &str, from: Option<&str>) -> Result<bool> {
    let mut command = Command::new("curl");
    command.args([
        "--silent",
        "--insecure",
        "--noproxy",
        "*",
        "--max-time",
        "3",
        "--output",
        "/dev/null",
    ]);
    if let Some(from) = from {
        command.args(["--interface", from]);
    }
    command.arg(format!("{server}/livez"));
    Ok(attempt(&mut command)?.status.success())
}

fn settle(server: &str, from: Option<&str>, reached: bool) -> Result<()> {
    wait_for("the rules", Duration::from_secs(180), || {
        ensure!(
            reaches(server, from)? == reached,
            "{from:?} reaches {server}: {}",
            !reached
        );
        Ok(())
    })
}

/// The stamp's cluster: group, name and address.
fn cluster_of(stamp: &Stamp, name: Option<&str>) -> Result<(String, String, String)> {
    let status = stamp.status()?;
    let clusters = status["clusters"].as_array().context("no clusters")?;
    let found = clusters
        .iter()
        .find(|cluster| name.is_none_or(|name| cluster["name"] == name));
    let found = found.with_context(|| format!("no cluster {name:?} in {status}"))?;
    let server = format!("https://{}:443", text(found, "/vip")?);
    Ok((
        text(found, "/resourceGroup")?.to_owned(),
        text(found, "/name")?.to_owned(),
        server,
    ))
}

pub(super) fn walk(journal: &Journal, stamp: &Stamp, az: &Az) -> Result<()> {
    let (group, cluster, server) = cluster_of(stamp, None)?;
    let ranges = |value: &str| -> Result<Value> {
        let set = format!("properties.apiServerAccessProfile={{\"authorizedIPRanges\":{value}}}");
        az.json(&[
            "resource",
            "update",
            "--resource-group",
            &group,
            "--name",
            &cluster,
            "--resource-type",
            "Microsoft.ContainerService/managedClusters",
            "--set",
            &set,
        ])
    };
    let [restrict, open, invoke, result] = guide::exactly::<4>(GUIDE)?;
    let follow = |script: &str| {
        let mut shell = guide::shell(stamp, az, &[], script)?;
        run(shell.env("GROUP", &group).env("CLUSTER", &cluster))
    };
    let addresses = Addresses::add()?;
    journal.step("reach", "without ranges everybody reaches the API server", || {
        settle(&server, Some(INSIDE), true)?;
        settle(&server, Some(OUTSIDE), true)
    })?;
    journal.step("reach", "with ranges: clients in them, and the host", || {
        ranges("[\"203.0.113.0/24\"]")?;
        settle(&server, Some(OUTSIDE), false)?;
        settle(&server, Some(INSIDE), true)?;
        settle(&server, None, true)
    })?;
    journal.step(
        "reach",
        "the guide's range lets neither in, and nodes stay ready",
        || {
            let said = follow(&restrict)?;
            ensure!(said.contains("73.140.245.0/24"), "{said}");
            settle(&server, Some(INSIDE), false)?;
            let kubectl = stamp.kubectl(az, &group, &cluster)?;
            ensure!(!kubectl.ready_nodes()?.is_empty());
            Ok(())
        },
    )?;
    journal.step("reach", "a command runs in the cluster all the same", || {
        let said = follow(&invoke)?;
        ensure!(said.contains("Ready"), "{said}");
        let code = follow(&result)?;
        ensure!(code.trim() == "0", "{code}");
        Ok(())
    })?;
    journal.step("reach", "files come along, and an exit code comes back", || {
        let directory = stamp.directory.path().join("context");
        std::fs::create_dir_all(&directory)?;
        std::fs::write(directory.join("note.txt"), "hello from a file\n")?;
        let ran = command(
            az,
            &group,
            &cluster,
            &directory,
            "cat note.txt; kubectl auth whoami; exit 7",
        )?;
        ensure!(ran["exitCode"] == 7, "{ran}");
        ensure!(text(&ran, "/logs")?.contains("hello from a file"), "{ran}");
        let kubectl = stamp.kubectl(az, &group, &cluster)?;
        wait_for("nothing to be left of it", Duration::from_secs(180), || {
            let left = kubectl.text(&[
                "get",
                "pods,secrets",
                "--namespace",
                "aks-command",
                "--output",
                "name",
            ])?;
            ensure!(left.trim().is_empty(), "{left}");
            Ok(())
        })
    })?;
    journal.step("reach", "an empty list lets everybody in again", || {
        follow(&open)?;
        settle(&server, Some(OUTSIDE), true)
    })?;
    journal.step(
        "reach",
        "a private cluster is reached from the host and its own network",
        || {
            az.json(&["group", "create", "--name", GROUP, "--location", "local"])?;
            super::aks(
                az,
                &["create"],
                PRIVATE,
                &[
                    "--node-count",
                    "1",
                    "--enable-private-cluster",
                    "--no-ssh-key",
                    "--node-vm-size",
                    "Standard_B2s",
                ],
            )?;
            let (_, _, server) = cluster_of(stamp, Some(PRIVATE))?;
            settle(&server, Some(INSIDE), false)?;
            settle(&server, None, true)?;
            let ran = super::aks(
                az,
                &["command", "invoke"],
                PRIVATE,
                &["--command", "kubectl get nodes"],
            )?;
            ensure!(ran["exitCode"] == 0, "{ran}");
            super::aks(az, &["delete"], PRIVATE, &["--yes"]).map(drop)
        },
    )?;
    drop(addresses);
    Ok(())
}

/// A command with the files of a directory.
fn command(az: &Az, group: &str, cluster: &str, directory: &Path, line: &str) -> Result<Value> {
    let mut command = az.command(&[
        "aks",
        "command",
        "invoke",
        "--resource-group",
        group,
        "--name",
        cluster,
        "--command",
        line,
        "--file",
        ".",
        "--output",
        "json",
    ]);
    let said = run(command.current_dir(directory))?;
    serde_json::from_str(&said).with_context(|| format!("no JSON: {said}"))
}
