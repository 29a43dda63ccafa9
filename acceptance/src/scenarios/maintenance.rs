//! Maintenance configurations, and upgrades by channels within them; tags.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;

use super::{GROUP, aks, guide, text, upgrade, workload::Cluster};
use crate::{
    clients::{Az, run},
    journal::{Journal, wait_for},
    stamp::Stamp,
};

/// The cluster that follows a channel.
const FOLLOWER: &str = "follower";
/// The commands are run as they stand there.
const GUIDE: &str = include_str!("../../../docs/guides/maintenance.md");
/// An upgrade of a control plane and of a node.
const BOUND: Duration = Duration::from_secs(600);

/// `az aks maintenanceconfiguration …` for a cluster.
fn arguments<'a>(verb: &'a str, cluster: &'a Cluster, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec![
        "aks",
        "maintenanceconfiguration",
        verb,
        "--resource-group",
        GROUP,
        "--cluster-name",
        cluster.name,
    ];
    arguments.extend(more);
    arguments
}

pub(super) fn walk(journal: &Journal, stamp: &Stamp, az: &Az, cluster: &Cluster) -> Result<()> {
    let ask = |verb: &str, more: &[&str]| az.json(&arguments(verb, cluster, more));
    journal.step(
        "maintenance",
        "az aks maintenanceconfiguration add of all three",
        || {
            let default = ask(
                "add",
                &["--name", "default", "--weekday", "Monday", "--start-hour", "1"],
            )?;
            ensure!(default["timeInWeek"][0]["hourSlots"][0] == 1, "{default}");
            let weekly = ask(
                "add",
                &[
                    "--name",
                    "aksManagedAutoUpgradeSchedule",
                    "--schedule-type",
                    "Weekly",
                    "--day-of-week",
                    "Friday",
                    "--interval-weeks",
                    "3",
                    "--duration",
                    "8",
                    "--utc-offset",
                    "+05:30",
                    "--start-date",
                    "2026-12-01",
                    "--start-time",
                    "00:00",
                ],
            )?;
            let window = &weekly["maintenanceWindow"];
            ensure!(window["schedule"]["weekly"]["dayOfWeek"] == "Friday", "{weekly}");
            ensure!(
                window["durationHours"] == 8 && window["utcOffset"] == "+05:30",
                "{weekly}"
            );
            let monthly = ask(
                "add",
                &[
                    "--name",
                    "aksManagedNodeOSUpgradeSchedule",
                    "--schedule-type",
                    "AbsoluteMonthly",
                    "--day-of-month",
                    "15",
                    "--interval-months",
                    "1",
                    "--duration",
                    "4",
                    "--start-time",
                    "09:30",
                ],
            )?;
            let schedule = &monthly["maintenanceWindow"]["schedule"]["absoluteMonthly"];
            ensure!(schedule["dayOfMonth"] == 15, "{monthly}");
            Ok(())
        },
    )?;
    journal.step("maintenance", "list, show, update", || {
        let all = ask("list", &[])?;
        let all: Vec<&str> = all
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|one| one["name"].as_str())
            .collect();
        ensure!(all.len() == 3 && all.contains(&"default"), "{all:?}");
        let updated = ask(
            "update",
            &[
                "--name",
                "aksManagedNodeOSUpgradeSchedule",
                "--schedule-type",
                "Daily",
                "--interval-days",
                "2",
                "--duration",
                "6",
                "--start-time",
                "22:00",
            ],
        )?;
        let shown = ask("show", &["--name", "aksManagedNodeOSUpgradeSchedule"])?;
        ensure!(shown == updated, "{shown} is not {updated}");
        let schedule = &shown["maintenanceWindow"]["schedule"];
        ensure!(schedule["daily"]["intervalDays"] == 2, "{shown}");
        ensure!(schedule["absoluteMonthly"].is_null(), "a PUT replaces: {shown}");
        Ok(())
    })?;
    journal.step("maintenance", "invalid bodies are refused by name", || {
        let wrong = |more: &[&str], says: &str| {
            let mut asked = vec!["--name", "aksManagedAutoUpgradeSchedule"];
            asked.extend(more);
            let said = az.fails(&arguments("update", cluster, &asked))?;
            ensure!(said.contains(says), "{more:?}: az says: {said}");
            Ok(())
        };
        let daily = ["--schedule-type", "Daily", "--interval-days", "1"];
        let with = |more: &[&'static str]| [&daily[..], more].concat();
        wrong(
            &with(&["--duration", "2", "--start-time", "01:00"]),
            "durationHours",
        )?;
        wrong(&with(&["--duration", "4", "--start-time", "25:00"]), "startTime")?;
        wrong(
            &with(&[
                "--duration",
                "4",
                "--start-time",
                "01:00",
                "--start-date",
                "2026-13-01",
            ]),
            "startDate",
        )?;
        let shown = ask("show", &["--name", "aksManagedAutoUpgradeSchedule"])?;
        ensure!(
            shown["maintenanceWindow"]["durationHours"] == 8,
            "it was changed all the same: {shown}"
        );
        Ok(())
    })?;
    journal.step("maintenance", "delete", || {
        ask("delete", &["--name", "aksManagedAutoUpgradeSchedule"])?;
        let said = az.fails(&arguments(
            "show",
            cluster,
            &["--name", "aksManagedAutoUpgradeSchedule"],
        ))?;
        ensure!(said.contains("not found"), "az says: {said}");
        let left = ask("list", &[])?;
        ensure!(left.as_array().is_some_and(|left| left.len() == 2), "{left}");
        Ok(())
    })?;
    tags(journal, az, cluster)?;
    channels(journal, stamp, az)
}

/// A cluster with a channel is upgraded when its window is open and nobody holds it up, and not before.
fn channels(journal: &Journal, stamp: &Stamp, az: &Az) -> Result<()> {
    let [add, follow, waits, open, pause, resume, no_more] = guide::exactly(GUIDE)?;
    let variables = [("GROUP", GROUP), ("CLUSTER", FOLLOWER)];
    let play = |script: &str| run(&mut guide::with_landfall(stamp, az, &variables, script)?);
    let version = || -> Result<(String, String)> {
        let shown = aks(az, &["show"], FOLLOWER, &[])?;
        let now = text(&shown, "/currentKubernetesVersion")?.to_owned();
        Ok((now, text(&shown, "/provisioningState")?.to_owned()))
    };
    let status = || run(&mut stamp.landfall(&["maintenance", "status"]));
    journal.step(
        "maintenance",
        "az aks create of a cluster that is to follow a channel",
        || aks(az, &["create"], FOLLOWER, &["--node-count", "1", "--no-ssh-key"]).map(drop),
    )?;
    let before = version()?;
    let newest = upgrade::offered(az, FOLLOWER)?;
    journal.step(
        "maintenance",
        "the guide's window that is not open yet, and a channel: nothing happens, and it is said until when",
        || {
            let listed = play(&add)?;
            ensure!(
                listed.trim().ends_with("aksManagedAutoUpgradeSchedule"),
                "{listed}"
            );
            ensure!(play(&follow)?.trim().ends_with("rapid"));
            let told = wait_for("what waits", Duration::from_secs(30), || {
                let told = status()?;
                ensure!(told.contains(&newest) && told.contains("channel rapid"), "{told}");
                Ok(told)
            })?;
            ensure!(told.contains("aksManagedAutoUpgradeSchedule"), "{told}");
            let told = play(&waits)?;
            ensure!(told.contains("begins at"), "the events tell of it: {told}");
            ensure!(version()? == before, "it was upgraded: {:?}", version()?);
            Ok(())
        },
    )?;
    journal.step(
        "maintenance",
        "an operator holds it up: the guide's window is open, and nothing happens",
        || {
            let told = play(&pause)?;
            ensure!(told.contains("the year's end"), "{told}");
            let hours = play(&open)?;
            ensure!(hours.trim().ends_with("24"), "{hours}");
            wait_for("that it is held up", Duration::from_secs(30), || {
                let told = status()?;
                ensure!(told.contains("an operator holds planned work up"), "{told}");
                Ok(())
            })?;
            ensure!(version()? == before, "it was upgraded: {:?}", version()?);
            Ok(())
        },
    )?;
    journal.step(
        "maintenance",
        "the guide's landfall maintenance resume: control plane and node are upgraded",
        || {
            play(&resume)?;
            journal.timed("channel", "upgraded after", || {
                wait_for("the upgrade", BOUND, || {
                    let now = version()?;
                    ensure!(now == (newest.clone(), "Succeeded".to_owned()), "{now:?}");
                    Ok(())
                })
            })?;
            let kubectl = stamp.kubectl(az, GROUP, FOLLOWER)?;
            let nodes = kubectl.json(&["get", "nodes"])?;
            let kubelet = text(&nodes, "/items/0/status/nodeInfo/kubeletVersion")?;
            ensure!(kubelet == format!("v{newest}"), "{kubelet}");
            let shown = aks(az, &["show"], FOLLOWER, &[])?;
            ensure!(
                shown["systemData"]["lastModifiedBy"] == "Landfall",
                "{}",
                shown["systemData"]
            );
            Ok(())
        },
    )?;
    journal.step(
        "maintenance",
        "the guide's end of it; the cluster is deleted",
        || {
            play(&no_more)?;
            aks(az, &["delete"], FOLLOWER, &["--yes"]).map(drop)
        },
    )
}

/// The ways in which `az` changes tags: a PATCH of the cluster, a PUT of all of it, and of the group.
fn tags(journal: &Journal, az: &Az, cluster: &Cluster) -> Result<()> {
    let of_cluster = || -> Result<Value> {
        let shown = az.json(&["aks", "show", "--resource-group", GROUP, "--name", cluster.name])?;
        Ok(shown["tags"].clone())
    };
    journal.step("maintenance", "az aks update --tags, az resource tag", || {
        let cluster_arguments = ["--resource-group", GROUP, "--name", cluster.name];
        az.json(
            &[
                &["aks", "update"],
                &cluster_arguments[..],
                &["--tags", "team=blue"],
            ]
            .concat(),
        )?;
        ensure!(of_cluster()? == serde_json::json!({ "team": "blue" }));
        let shown = az.json(&[&["aks", "show"], &cluster_arguments[..]].concat())?;
        let id = text(&shown, "/id")?;
        az.json(&[
            "resource",
            "tag",
            "--ids",
            id,
            "--tags",
            "cost=7",
            "--is-incremental",
        ])?;
        ensure!(of_cluster()? == serde_json::json!({ "team": "blue", "cost": "7" }));
        Ok(())
    })?;
    journal.step(
        "maintenance",
        "az group update --tags, az group list --tag",
        || {
            let updated = az.json(&["group", "update", "--name", GROUP, "--tags", "team=blue"])?;
            ensure!(updated["tags"]["team"] == "blue", "{updated}");
            let found = az.json(&["group", "list", "--tag", "team=blue"])?;
            ensure!(found.as_array().is_some_and(|found| found.len() == 1), "{found}");
            let none = az.json(&["group", "list", "--tag", "team=red"])?;
            ensure!(none.as_array().is_some_and(Vec::is_empty), "{none}");
            Ok(())
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guide_has_the_blocks_that_are_run() {
        let [add, follow, waits, open, pause, resume, no_more] = guide::exactly::<7>(GUIDE).unwrap();
        for (block, says) in [
            (add, "maintenanceconfiguration add"),
            (follow, "--auto-upgrade-channel rapid"),
            (waits, "landfall events"),
            (open, "maintenanceconfiguration update"),
            (pause, "maintenance pause"),
            (resume, "maintenance resume"),
            (no_more, "--auto-upgrade-channel none"),
        ] {
            assert!(block.contains(says), "{block}");
        }
    }
}
