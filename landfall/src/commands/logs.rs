//! `landfall logs`: the service's own log, or the end of a process's log in a machine.

use anyhow::{Context as _, Result};
use serde_json::json;

use super::Context;
use crate::{
    admin::{AdminClient, MachineStatus, StampStatus},
    args, log_file, printer,
    problem::Problem,
    stamp,
};

pub(crate) async fn run(context: &Context, args: &args::Logs) -> Result<()> {
    let Some(of) = &args.of else {
        return service(context, args.lines);
    };
    let admin = AdminClient::new(&context.places)?;
    let status = admin.status().await?;
    let machines = machines(&status, of);
    let flag = context.name_flag();
    if machines.is_empty() {
        return Err(Problem::usage(
            format!(
                "there is no cluster, node or machine {of} in stamp {}",
                status.name
            ),
            format!("see what there is: landfall status{flag}"),
        )
        .into());
    }
    let Some(process) = &args.process else {
        let value: Vec<_> = machines
            .iter()
            .map(|machine| {
                json!({ "machine": machine.id, "name": machine.name,
                "processes": machine.processes.iter().map(|process| &process.name).collect::<Vec<_>>() })
            })
            .collect();
        context
            .printer
            .result(&json!({ "event": "result", "machines": value }), || {
                overview(&machines, &flag)
            });
        return Ok(());
    };
    let has = |machine: &&&MachineStatus| {
        process == "agent" || machine.processes.iter().any(|seen| seen.name == *process)
    };
    let Some(machine) = machines
        .iter()
        .find(has)
        .or_else(|| machines.iter().find(|machine| machine.processes.is_empty()))
    else {
        return Err(Problem::usage(
            format!("no machine of {of} runs {process}"),
            format!("see what they run: landfall logs {of}{flag}"),
        )
        .into());
    };
    let text = admin.logs(&machine.id, process, args.lines).await?;
    context.printer.text("log", &text);
    Ok(())
}

fn service(context: &Context, lines: u32) -> Result<()> {
    let path = context.places.log();
    if !context.places.settings().exists() {
        return Err(stamp::no_stamp(&context.places).into());
    }
    match log_file::tail(&path, lines as usize) {
        Ok(text) => context.printer.text("log", &text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Problem::new(
                "the service has written no log: it never ran in the background",
                format!("start it: landfall up{}", context.name_flag()),
            )
            .into());
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
    Ok(())
}

/// The machines of a cluster, or the machine with this name or id.
fn machines<'a>(status: &'a StampStatus, of: &str) -> Vec<&'a MachineStatus> {
    let of_cluster: Vec<&MachineStatus> = status
        .clusters
        .iter()
        .filter(|cluster| {
            cluster.name.eq_ignore_ascii_case(of)
                || format!("{}/{}", cluster.resource_group, cluster.name).eq_ignore_ascii_case(of)
        })
        .flat_map(|cluster| status.machines_of(cluster))
        .collect();
    if !of_cluster.is_empty() {
        return of_cluster;
    }
    status
        .machines
        .iter()
        .filter(|machine| machine.id == of || machine.name == of)
        .collect()
}

fn overview(machines: &[&MachineStatus], flag: &str) -> String {
    let rows = machines
        .iter()
        .map(|machine| {
            let names: Vec<&str> = machine
                .processes
                .iter()
                .map(|process| process.name.as_str())
                .collect();
            vec![
                machine.name.clone(),
                machine.id.clone(),
                format!("agent {}", names.join(" ")),
            ]
        })
        .collect();
    format!(
        "{}\n\nRead one: landfall logs MACHINE PROCESS{flag}",
        printer::table(&["MACHINE", "ID", "PROCESSES"], rows)
    )
}
