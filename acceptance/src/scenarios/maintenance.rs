//! Maintenance configurations and tags: settings that do not change the cluster's machines.

use anyhow::{Result, ensure};
use serde_json::Value;

use super::{GROUP, text, workload::Cluster};
use crate::{clients::Az, journal::Journal};

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

pub(super) fn walk(journal: &Journal, az: &Az, cluster: &Cluster) -> Result<()> {
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
    tags(journal, az, cluster)
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
