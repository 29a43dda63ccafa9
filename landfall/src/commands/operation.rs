//! `landfall operation`: operations of clusters, their progress, and aborting them. Through the ARM API,
//! without privileges over other clients.

use std::time::Duration;

use anyhow::Result;
use control_records::OPERATION_BOUND;
use jiff::Timestamp;
use owo_colors::OwoColorize as _;
use serde_json::{Value, json};

use super::Context;
use crate::{
    args,
    arm::{AKS, ArmClient, OWN},
    printer::{self, duration},
    problem::Problem,
    stamp::Settings,
};

/// How long an abort is waited for: longer than its own time limit, so that its own error is shown.
const BOUND: Duration = OPERATION_BOUND.saturating_add(Duration::from_secs(60));
/// The length of a shortened id, enough to distinguish operations.
const SHORT: usize = 8;

pub(crate) async fn run(context: &Context, command: &args::Operation) -> Result<()> {
    let settings = Settings::required(&context.places)?;
    let arm = ArmClient::login(&context.places, &settings, &context.env).await?;
    match command {
        args::Operation::List { cluster, active } => list(context, &arm, cluster.as_deref(), *active).await,
        args::Operation::Show { operation } => show(context, &arm, operation).await,
        args::Operation::Abort(args) => abort(context, &arm, args).await,
    }
}

/// A cluster as people name it: NAME or GROUP/NAME.
pub(crate) fn filter(cluster: Option<&str>) -> Vec<(&'static str, String)> {
    let Some(cluster) = cluster else {
        return Vec::new();
    };
    match cluster.split_once('/') {
        Some((group, name)) => vec![("resourceGroup", group.to_owned()), ("cluster", name.to_owned())],
        None => vec![("cluster", cluster.to_owned())],
    }
}

async fn operations(arm: &ArmClient, query: &[(&str, String)]) -> Result<Vec<Value>> {
    let path = format!(
        "{}/providers/Landfall.ContainerService/operations",
        arm.subscription()
    );
    arm.list(&path, OWN, query).await
}

async fn list(context: &Context, arm: &ArmClient, cluster: Option<&str>, active: bool) -> Result<()> {
    let mut query = filter(cluster);
    if active {
        query.push(("active", "true".to_owned()));
    }
    let operations = operations(arm, &query).await?;
    let now = context.env.clock.now();
    context
        .printer
        .result(&json!({ "event": "result", "operations": operations }), || {
            table(&operations, cluster, active, now, &context.name_flag())
        });
    Ok(())
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn time(value: &Value, key: &str) -> Option<Timestamp> {
    text(value, key).parse().ok()
}

fn coloured(status: &str) -> String {
    match status {
        "Succeeded" => status.green().to_string(),
        "Failed" => status.red().to_string(),
        _ => status.yellow().to_string(),
    }
}

fn table(operations: &[Value], cluster: Option<&str>, active: bool, now: Timestamp, flag: &str) -> String {
    if operations.is_empty() {
        let of = cluster.map_or_else(String::new, |cluster| format!(" of cluster {cluster}"));
        return match active {
            true => format!("Nothing is running{of}. What there was: landfall operation list{flag}"),
            false => format!("No operations{of} within the last seven days."),
        };
    }
    let rows = operations
        .iter()
        .map(|operation| {
            let resource = match operation["pool"].as_str() {
                Some(pool) => format!("{}/{pool}", text(operation, "cluster")),
                None => text(operation, "cluster").to_owned(),
            };
            let started = time(operation, "startTime");
            let took = started.map(|started| {
                let ended = time(operation, "endTime").unwrap_or(now);
                duration(ended.duration_since(started).as_secs_f64().max(0.0))
            });
            let said = match operation["error"]["message"].as_str() {
                Some(message) => message.to_owned(),
                None => text(operation, "step").to_owned(),
            };
            vec![
                short(text(operation, "id")).to_owned(),
                text(operation, "operation").to_owned(),
                resource,
                coloured(text(operation, "status")),
                format!("{}%", operation["percentComplete"]),
                started
                    .map(|started| duration(now.duration_since(started).as_secs_f64().max(0.0)))
                    .unwrap_or_default(),
                took.unwrap_or_default(),
                cut(&said, 60),
            ]
        })
        .collect();
    format!(
        "{}\n\nAll about one: landfall operation show ID{flag}",
        printer::table(
            &[
                "ID",
                "OPERATION",
                "RESOURCE",
                "STATUS",
                "DONE",
                "AGE",
                "TOOK",
                "NOW"
            ],
            rows
        )
    )
}

fn short(id: &str) -> &str {
    id.get(..SHORT).unwrap_or(id)
}

fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let cut: String = text.chars().take(most - 1).collect();
    format!("{}…", cut.trim_end())
}

async fn show(context: &Context, arm: &ArmClient, wanted: &str) -> Result<()> {
    let all = operations(arm, &[]).await?;
    let fits: Vec<&Value> = all
        .iter()
        .filter(|operation| text(operation, "id").starts_with(&wanted.to_ascii_lowercase()))
        .collect();
    let flag = context.name_flag();
    let operation = match fits.as_slice() {
        [one] => *one,
        [] => {
            return Err(Problem::usage(
                format!("there is no operation {wanted}, or it ended more than seven days ago"),
                format!("see what there is: landfall operation list{flag}"),
            )
            .into());
        }
        many => {
            return Err(Problem::usage(
                format!("{} operations begin with {wanted}", many.len()),
                "give more of the id",
            )
            .into());
        }
    };
    context.printer.result(operation, || page(operation, &flag));
    Ok(())
}

fn page(operation: &Value, flag: &str) -> String {
    let mut lines = vec![
        format!("{}  {}", "Operation".bold(), text(operation, "id").bold()),
        format!("  what      {}", text(operation, "operation")),
        format!("  resource  {}", text(operation, "resourceId")),
        format!(
            "  status    {}, {}% done",
            coloured(text(operation, "status")),
            operation["percentComplete"]
        ),
        format!("  started   {}", text(operation, "startTime")),
    ];
    if let Some(ended) = operation["endTime"].as_str() {
        lines.push(format!("  ended     {ended}"));
    }
    if let Some(step) = operation["step"].as_str() {
        lines.push(format!("  now       {step}"));
    }
    if let Some(error) = operation["error"].as_object() {
        let say = |key: &str| error.get(key).and_then(Value::as_str).unwrap_or_default();
        lines.push(format!(
            "  {}    {} ({})",
            "why:".yellow().bold(),
            say("message"),
            say("code")
        ));
    }
    let cluster = text(operation, "cluster");
    let next = match text(operation, "status") {
        "InProgress" => format!(
            "landfall operation abort {cluster}{flag} stops it; landfall events {cluster}{flag} tells what happens"
        ),
        _ => format!("landfall events {cluster}{flag}"),
    };
    lines.push(format!("  {}     {next}", "next:".cyan().bold()));
    lines.join("\n")
}

async fn abort(context: &Context, arm: &ArmClient, args: &args::OperationAbort) -> Result<()> {
    let flag = context.name_flag();
    let mut query = filter(Some(&args.cluster));
    query.push(("active", "true".to_owned()));
    let running = operations(arm, &query).await?;
    let groups: std::collections::BTreeSet<&str> = running
        .iter()
        .map(|operation| text(operation, "resourceGroup"))
        .collect();
    let groups: Vec<&str> = groups.into_iter().collect();
    let group = match groups.as_slice() {
        [one] => *one,
        [] => {
            return Err(Problem::usage(
                format!("nothing is running for cluster {}", args.cluster),
                format!("see what was: landfall operation list {}{flag}", args.cluster),
            )
            .into());
        }
        many => {
            return Err(Problem::usage(
                format!("{} clusters fit", many.len()),
                format!("say which, as GROUP/NAME; the groups are {}", many.join(", ")),
            )
            .into());
        }
    };
    let name = args
        .cluster
        .split_once('/')
        .map_or(args.cluster.as_str(), |(_, name)| name);
    let pool = args
        .pool
        .as_ref()
        .map_or_else(String::new, |pool| format!("/agentPools/{pool}"));
    let path = format!(
        "{}/resourceGroups/{group}/providers/Microsoft.ContainerService/managedClusters/{name}{pool}/abort",
        arm.subscription()
    );
    let accepted = arm.act(&path, AKS).await?;
    let aborted = match &args.pool {
        Some(pool) => format!("{name}/{pool}"),
        None => name.to_owned(),
    };
    if !args.no_wait
        && let Some(operation) = &accepted.operation
    {
        let step = context
            .printer
            .step("abort", format!("Going back to what {aborted} was"));
        arm.wait(operation, BOUND, async || {}).await?;
        step.done("");
    }
    context
        .printer
        .result(&json!({ "event": "result", "aborted": aborted }), || {
            format!("What was running for {aborted} is aborted. The next request is accepted as always.")
        });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running() -> Value {
        json!({
            "id": "0c7d6f52-0000-0000-0000-000000000000", "operation": "AgentPools_CreateOrUpdate", "status": "InProgress",
            "percentComplete": 40, "cluster": "c", "pool": "np1", "resourceGroup": "rg", "startTime": "2026-01-01T00:00:00Z",
            "step": "waiting for node aks-np1-12345678-vmss000002 (and 3 more things that make this line long)",
        })
    }

    #[test]
    fn a_list_says_how_far_each_is_and_what_it_waits_for() {
        let now = "2026-01-01T00:01:05Z".parse().unwrap();
        let page =
            anstream::adapter::strip_str(&table(&[running()], None, false, now, " --name s")).to_string();
        for part in [
            "0c7d6f52 ",
            "c/np1",
            "InProgress",
            "40%",
            "waiting for node aks-np1",
            "…",
            "show ID --name s",
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
        let none = table(&[], Some("c"), true, now, "");
        assert!(none.contains("Nothing is running of cluster c"), "{none}");
    }

    #[test]
    fn a_failure_is_shown_whole_and_with_a_next_step() {
        let mut failed = running();
        failed["status"] = json!("Failed");
        failed["error"] =
            json!({ "code": "OperationTimedOut", "message": "kubelet on machine m keeps ending." });
        let page = anstream::adapter::strip_str(&page(&failed, "")).to_string();
        assert!(
            page.contains("kubelet on machine m keeps ending. (OperationTimedOut)"),
            "{page}"
        );
        assert!(page.contains("next:     landfall events c"), "{page}");
    }

    #[test]
    fn a_cluster_is_named_alone_or_with_its_group() {
        assert_eq!(filter(None), []);
        assert_eq!(filter(Some("c")), [("cluster", "c".to_owned())]);
        assert_eq!(
            filter(Some("g/c")),
            [("resourceGroup", "g".to_owned()), ("cluster", "c".to_owned())]
        );
    }
}
