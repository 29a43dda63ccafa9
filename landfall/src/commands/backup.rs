//! `landfall backup`: which seconds of a cluster can be restored, whether they can, what that would change, and the way back.
//! All of it through the ARM API, with no privilege that another client lacks.

use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Context, kubeconfig::choose};
use crate::{
    admin::AdminClient,
    args,
    arm::{ArmClient, BACKUP},
    printer::{self, duration, size},
    problem::Problem,
    stamp::Settings,
};

/// How long a restore is waited for.
const BOUND: Duration = Duration::from_secs(20 * 60);
/// Rows of a preview that people read.
const ROWS: usize = 20;

/// A cluster, and the client that asks about it.
struct Asked<'a> {
    context: &'a Context,
    arm: ArmClient,
    /// ` GROUP/NAME` for hints.
    label: String,
    path: String,
}

pub(crate) async fn run(context: &Context, command: &args::Backup) -> Result<()> {
    let settings = Settings::required(&context.places)?;
    let status = AdminClient::new(&context.places)?.status().await?;
    let arm = ArmClient::login(&context.places, &settings, &context.env).await?;
    let flag = context.name_flag();
    let asked = |cluster: Option<&str>| -> Result<(String, String)> {
        let cluster = choose(&status.clusters, cluster, &flag)?;
        let path = format!(
            "{}/resourceGroups/{}/providers/Landfall.Backup/managedClusters/{}",
            arm.subscription(),
            cluster.resource_group,
            cluster.name
        );
        Ok((format!("{}/{}", cluster.resource_group, cluster.name), path))
    };
    match command {
        args::Backup::List => {
            let mut backups = Vec::new();
            for cluster in &status.clusters {
                let label = format!("{}/{}", cluster.resource_group, cluster.name);
                let (_, path) = asked(Some(&label))?;
                let backup = arm.get(&format!("{path}/backups/default"), BACKUP).await?;
                backups.extend(backup.map(|backup| (label, backup)));
            }
            list(context, &backups);
            Ok(())
        }
        args::Backup::Show { cluster } => {
            let (label, path) = asked(cluster.as_deref())?;
            let backup = arm
                .get(&format!("{path}/backups/default"), BACKUP)
                .await?
                .context("the cluster is gone")?;
            context.printer.result(&backup, || page(&label, &backup, &flag));
            Ok(())
        }
        args::Backup::Verify { cluster } => {
            let (label, path) = asked(cluster.as_deref())?;
            let verdict = arm
                .post_body(&format!("{path}/verify"), BACKUP, &json!({}))
                .await?
                .0;
            match verdict["problem"].as_str() {
                None => {
                    context.printer.result(&verdict, || {
                        format!(
                            "The backup of {label} is good: {} keys; {}.",
                            verdict["keys"],
                            text(&verdict, "checked")
                        )
                    });
                    Ok(())
                }
                Some(problem) => Err(Problem::new(
                    format!("the backup of {label} is not good: {problem}"),
                    format!("what can still be restored: landfall backup show {label}{flag}"),
                )
                .into()),
            }
        }
        args::Backup::Restore(args) => {
            let (label, path) = asked(args.cluster.as_deref())?;
            let asked = Asked {
                context,
                arm,
                label,
                path,
            };
            asked.restore(args).await
        }
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn spans(backup: &Value) -> Vec<(Timestamp, Timestamp)> {
    let spans = backup["properties"]["restorable"].as_array();
    spans
        .into_iter()
        .flatten()
        .filter_map(|span| {
            Some((
                text(span, "from").parse().ok()?,
                text(span, "until").parse().ok()?,
            ))
        })
        .collect()
}

fn list(context: &Context, backups: &[(String, Value)]) {
    let values: Vec<&Value> = backups.iter().map(|(_, backup)| backup).collect();
    let now = context.env.clock.now();
    let flag = context.name_flag();
    context
        .printer
        .result(&json!({ "event": "result", "backups": values }), || {
            if backups.is_empty() {
                return "This stamp has no cluster.".to_owned();
            }
            let rows = backups
                .iter()
                .map(|(label, backup)| {
                    let spans = spans(backup);
                    let ago = |at: Option<Timestamp>| {
                        at.map_or_else(
                            || "-".to_owned(),
                            |at| format!("{} ago", duration(now.duration_since(at).as_secs_f64().max(0.0))),
                        )
                    };
                    vec![
                        label.clone(),
                        spans.first().map_or_else(|| "-".to_owned(), |span| whole(span.0)),
                        ago(spans.last().map(|span| span.1)),
                        spans.len().saturating_sub(1).to_string(),
                        size(backup["properties"]["bytes"].as_u64().unwrap_or(0)),
                    ]
                })
                .collect();
            format!(
                "{}\n\nGo back to a second: landfall backup restore CLUSTER --at TIME{flag}",
                printer::table(&["CLUSTER", "FROM", "UNTIL", "GAPS", "SIZE"], rows)
            )
        });
}

/// To the second, as it can be given back with `--at`.
fn whole(at: Timestamp) -> String {
    at.round(jiff::Unit::Second).unwrap_or(at).to_string()
}

fn page(label: &str, backup: &Value, flag: &str) -> String {
    let spans = spans(backup);
    let mut lines = vec![
        format!("Backup of {label}"),
        format!("  files  {}", backup["properties"]["files"]),
        format!(
            "  size   {}",
            size(backup["properties"]["bytes"].as_u64().unwrap_or(0))
        ),
    ];
    if spans.is_empty() {
        lines.push("  nothing can be restored yet".to_owned());
    } else {
        lines.push("  every second of these can be restored:".to_owned());
        lines.extend(spans.iter().map(|(from, until)| format!("    {from} to {until}")));
        lines.push(String::new());
        lines.push(format!(
            "See what would change: landfall backup restore {label} --at {} --preview{flag}",
            spans.last().map_or_else(String::new, |span| whole(span.1))
        ));
    }
    lines.join("\n")
}

impl Asked<'_> {
    async fn restore(&self, args: &args::BackupRestore) -> Result<()> {
        let (printer, flag) = (&self.context.printer, self.context.name_flag());
        let at: Timestamp = args.at.parse().map_err(|_| {
            Problem::usage(
                format!("{} is not a time", args.at),
                format!("write it like {}", whole(self.context.env.clock.now())),
            )
        })?;
        let body = json!({ "at": at.to_string() });
        let preview = self
            .arm
            .post_body(&format!("{}/preview", self.path), BACKUP, &body)
            .await?
            .0;
        if args.preview {
            printer.result(&preview, || {
                format!(
                    "{}\n\nDo it: landfall backup restore {} --at {}{flag}",
                    changes(&preview),
                    self.label,
                    args.at
                )
            });
            return Ok(());
        }
        if !args.yes {
            printer.heading(&changes(&preview));
            printer.ask(&format!(
                "{} goes back to {at}: what was changed since is lost, and its API is away for some seconds. Type yes to go on: ",
                self.label
            ));
            let read = || {
                let mut line = String::new();
                std::io::stdin().read_line(&mut line).map(|_| line)
            };
            let answer = tokio::task::spawn_blocking(read)
                .await
                .context("cannot read the answer")?
                .context("cannot read the answer")?;
            if answer.trim() != "yes" {
                return Err(Problem::usage("nothing was done", "type yes, or give --yes").into());
            }
        }
        let step = printer.step("restore", format!("Restoring {}", self.label));
        let begun = self.context.env.clock.monotonic();
        let (answer, operation) = self
            .arm
            .post_body(&format!("{}/restore", self.path), BACKUP, &body)
            .await?;
        if let Some(operation) = operation {
            self.arm.wait(&operation, BOUND, async || {}).await?;
        }
        let took = self.context.env.clock.monotonic() - begun;
        step.done(format!("as of {at}, in {}", duration(took.as_secs_f64())));
        printer.result(
            &json!({ "event": "result", "restore": answer["restore"], "at": at.to_string(), "seconds": took.as_secs_f64() }),
            || format!("{} is as it was at {at}. Its nodes have registered again.", self.label),
        );
        Ok(())
    }
}

/// What would change, for people.
fn changes(preview: &Value) -> String {
    let count = |key: &str| preview[key].as_u64().unwrap_or(0);
    let names = |key: &str| -> Vec<&str> {
        preview[key]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect()
    };
    let mut lines = vec![format!(
        "Going back to {}: {} objects will change, {} appear, {} disappear.",
        text(preview, "at"),
        count("change"),
        count("appear"),
        count("disappear")
    )];
    for (key, what) in [
        ("namespacesAppear", "Namespaces that reappear"),
        ("namespacesDisappear", "Namespaces that disappear"),
    ] {
        let names = names(key);
        if !names.is_empty() {
            lines.push(format!("{what}: {}", names.join(", ")));
        }
    }
    let rows: Vec<&Value> = preview["rows"].as_array().into_iter().flatten().collect();
    if !rows.is_empty() {
        lines.push(String::new());
        lines.push(printer::table(
            &["RESOURCE", "NAMESPACE", "CHANGE", "APPEAR", "DISAPPEAR"],
            rows.iter()
                .take(ROWS)
                .map(|row| {
                    vec![
                        text(row, "resource").to_owned(),
                        text(row, "namespace").to_owned(),
                        row["change"].to_string(),
                        row["appear"].to_string(),
                        row["disappear"].to_string(),
                    ]
                })
                .collect(),
        ));
        if rows.len() > ROWS {
            lines.push(format!("… and {} more kinds", rows.len() - ROWS));
        }
    }
    if count("passing") > 0 {
        lines.push(format!(
            "Besides, {} heartbeats and events, which come and go by themselves.",
            count("passing")
        ));
    }
    lines.join("\n")
}
