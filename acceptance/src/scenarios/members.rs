//! A control plane becomes three members, is upgraded, loses one, loses its power, and becomes one again: under load, and with its data.

use std::{collections::BTreeSet, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};

use super::{
    GROUP, aks,
    healing::{destroy, id, machines, namespace},
    load::Load,
    upgrade,
};
use crate::{
    clients::{Az, Kubectl, run},
    journal::{Journal, wait_for},
    stamp::Stamp,
};

/// The cluster.
const MEMBERS: &str = "members";

/// The tier up and down again, and a member destroyed in between, all of it under load.
pub(super) fn walk(journal: &Journal, stamp: &Stamp, az: &Az) -> Result<()> {
    journal.step("members", "az aks create: one member", || {
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
        "members",
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
        "members",
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
        "members",
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
        "members",
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
            wait_for("the data", Duration::from_secs(180), kept)?;
            ensure!(ids()? == before, "{before:?} are {:?} now", ids()?);
            Ok(())
        },
    )?;
    journal.step(
        "members",
        "az aks update --tier free under load: one member again, and the data",
        || {
            let load = Load::over(journal, &kubectl, || {
                aks(az, &["update"], MEMBERS, &["--tier", "free"]).map(drop)
            })?;
            // As above; then the VIP's holder may be among the removed members.
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
    anyhow::bail!("no member holds the VIP {vip}")
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
