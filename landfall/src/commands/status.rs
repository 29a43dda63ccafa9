//! `landfall status`: the stamp, its clusters, their machines, and any problems.

use anyhow::Result;
use jiff::Timestamp;
use owo_colors::OwoColorize as _;

use super::Context;
use crate::{
    admin::{AdminClient, BackupLag, ClusterStatus, MachineStatus, StampStatus},
    images,
    printer::{self, duration},
};

pub(crate) async fn run(context: &Context) -> Result<()> {
    let status = AdminClient::new(&context.places)?.status().await?;
    let now = context.env.clock.now();
    context
        .printer
        .result(&status, || page(&status, now, &context.name_flag()));
    Ok(())
}

fn ago(now: Timestamp, then: Timestamp) -> String {
    duration(now.duration_since(then).as_secs_f64().max(0.0))
}

fn page(status: &StampStatus, now: Timestamp, flag: &str) -> String {
    let mut page = format!(
        "{} {}  {}\n",
        "Stamp".bold(),
        status.name.bold(),
        format!(
            "version {}, running for {}, {} MB, process {}",
            status.service.version,
            ago(now, status.service.started_at),
            status.service.rss_kib / 1024,
            status.service.pid
        )
        .dimmed()
    );
    page.push_str(&format!(
        "  ARM API  {}\n  network  {}, uplink {}\n",
        status.arm_url, status.range, status.uplink
    ));
    page.push_str(&format!(
        "  log-in   {}\n",
        log_in(&status.identity, &status.tenant)
    ));
    if status.service.panics > 0 {
        page.push_str(&format!(
            "  faults   {} since it started, a fault of Landfall: look for 'a panic' in landfall logs, and report it\n",
            status.service.panics
        ));
    }
    for (key, step) in &status.image_builds {
        page.push_str(&format!("  image    {}: {step}\n", images::title(key)));
    }
    if let Some(store) = &status.store {
        match (store.complaint(now), &store.copy) {
            (Some(complaint), _) => page.push_str(&format!("  store    {complaint}\n")),
            (None, Some(copy)) => page.push_str(&format!("  store    copied {} ago\n", ago(now, copy.at))),
            (None, None) => {}
        }
    }
    if let Some(paused) = &status.paused {
        page.push_str(&format!(
            "  planned  {} since {}: see landfall maintenance status{flag}\n",
            paused.obstacle(),
            paused.at
        ));
    }
    if !status.unknown.is_empty() {
        page.push_str(&format!(
            "  unknown  {} machines, networks, volumes or backups are in no record of the store: see landfall unknown list{flag}\n",
            status.unknown.len()
        ));
    }
    let spare = status
        .machines
        .iter()
        .filter(|machine| machine.cluster.is_none())
        .count();
    if spare > 0 {
        page.push_str(&format!("  machines {spare} in no cluster yet\n"));
    }
    if status.clusters.is_empty() {
        page.push_str(&format!(
            "\nNo clusters. Make one: landfall up{flag}, or az aks create\n"
        ));
        return page;
    }
    let rows = status
        .clusters
        .iter()
        .map(|cluster| {
            vec![
                cluster.name.clone(),
                cluster.resource_group.clone(),
                if cluster.stopped && cluster.state == "Succeeded" {
                    "Stopped".yellow().to_string()
                } else {
                    coloured(&cluster.state)
                },
                cluster.kubernetes_version.clone(),
                format!("{}/{}", cluster.nodes_ready, cluster.nodes_wanted),
                cluster
                    .vip
                    .map(|vip| format!("https://{vip}:443"))
                    .unwrap_or_default(),
                ago(now, cluster.created_at),
            ]
        })
        .collect();
    page.push('\n');
    page.push_str(&printer::table(
        &[
            "CLUSTER",
            "GROUP",
            "STATE",
            "VERSION",
            "NODES",
            "API SERVER",
            "AGE",
        ],
        rows,
    ));
    page.push('\n');
    for cluster in &status.clusters {
        let machines: Vec<&MachineStatus> = status.machines_of(cluster).collect();
        page.push_str(&cluster_page(cluster, &machines, now, flag));
    }
    page
}

fn cluster_page(cluster: &ClusterStatus, machines: &[&MachineStatus], now: Timestamp, flag: &str) -> String {
    let mut page = format!("\n{}\n", cluster.name.bold());
    let rows: Vec<Vec<String>> = machines
        .iter()
        .map(|machine| {
            let (mark, text) = match machine.complaint() {
                _ if cluster.stopped && machine.power != "running" => {
                    ("-".yellow().to_string(), "is off".to_owned())
                }
                _ if machine.deleting => ("-".yellow().to_string(), "is going away".to_owned()),
                None => (
                    "✓".green().to_string(),
                    format!("{} processes ready", machine.processes.len()),
                ),
                Some(complaint) => ("!".yellow().bold().to_string(), complaint),
            };
            vec![
                format!("  {mark}"),
                machine.name.clone(),
                machine.id.clone(),
                machine
                    .address
                    .map(|address| address.to_string())
                    .unwrap_or_default(),
                text,
            ]
        })
        .collect();
    if !rows.is_empty() {
        page.push_str(&printer::table(
            &["  ", "MACHINE", "ID", "ADDRESS", "STATE"],
            rows,
        ));
        page.push('\n');
    }
    for operation in &cluster.operations {
        let of = operation
            .pool
            .as_ref()
            .map_or_else(String::new, |pool| format!(" of {pool}"));
        page.push_str(&format!(
            "  running: {:>3}%  {}{of} for {}: {}\n",
            operation.percent,
            operation.name,
            ago(now, operation.started_at),
            operation.step
        ));
    }
    if !cluster.step.is_empty() {
        page.push_str(&format!("  now:     {}\n", cluster.step));
    }
    for waits in &cluster.waits {
        page.push_str(&format!("  planned: {}\n", waits.sentence()));
    }
    if let Some(hint) = &cluster.hint {
        page.push_str(&format!("  note:    {hint}\n"));
    }
    if cluster.stopped {
        page.push_str("  note:    it is stopped; az aks start brings it back\n");
    }
    page.push_str(&format!("  backup:  {}\n", backup(cluster.backup.as_ref())));
    if let Some(problem) = &cluster.problem {
        page.push_str(&format!("  {} {problem}\n", "problem:".yellow().bold()));
    }
    let worst = machines
        .iter()
        .flat_map(|machine| machine.processes.iter().map(move |process| (machine, process)))
        .find(|(_, process)| !process.last_lines.is_empty() && process.state != "ready");
    if let Some((machine, process)) = worst {
        page.push_str(&format!(
            "  last lines of {} on {}:\n",
            process.name, machine.name
        ));
        let lines = &process.last_lines;
        for line in &lines[lines.len().saturating_sub(3)..] {
            page.push_str(&format!("    {}\n", line.dimmed()));
        }
        page.push_str(&format!(
            "  {}    landfall logs {} {}{flag}\n",
            "next:".cyan().bold(),
            machine.name,
            process.name
        ));
    }
    page
}

/// The protocol and the tenant of logins.
fn log_in(identity: &str, tenant: &str) -> String {
    match identity {
        "aad" => format!("as at Azure (aad), tenant {tenant}"),
        // Earlier releases supported only this one, and did not report it.
        _ => "as at Azure Stack (adfs), tenant adfs".to_owned(),
    }
}

fn backup(lag: Option<&BackupLag>) -> String {
    match lag {
        None => "no machine ships it at present".to_owned(),
        Some(BackupLag {
            behind_seconds: 0, ..
        }) => "up to date".to_owned(),
        Some(lag) => {
            let behind = f64::from(u32::try_from(lag.behind_seconds).unwrap_or(u32::MAX));
            let why = lag
                .problem
                .as_ref()
                .map_or_else(String::new, |why| format!(": {why}"));
            format!("{} {}{why}", duration(behind), "behind".yellow())
        }
    }
}

fn coloured(state: &str) -> String {
    match state {
        "Succeeded" => state.green().to_string(),
        "Failed" => state.red().to_string(),
        _ => state.yellow().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_the_backup_is_is_told_in_words() {
        let lag = |behind_seconds, problem: Option<&str>| BackupLag {
            behind_seconds,
            problem: problem.map(str::to_owned),
        };
        let said = |lag: Option<&BackupLag>| anstream::adapter::strip_str(&backup(lag)).to_string();
        assert_eq!(said(None), "no machine ships it at present");
        assert_eq!(said(Some(&lag(0, None))), "up to date");
        let behind = said(Some(&lag(61, Some("cannot ship: it is away"))));
        assert!(
            behind.starts_with("1 min") && behind.ends_with("behind: cannot ship: it is away"),
            "{behind}"
        );
    }
}
