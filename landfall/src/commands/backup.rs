//! `landfall backup`: restore points of a cluster, their verification, a preview of a restore, and restores.
//! Through the ARM API, without privileges over other clients.

use std::time::Duration;

use anyhow::{Context as _, Result};
use control_records::OPERATION_BOUND;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Context;
use crate::{
    args,
    arm::{ArmClient, BACKUP},
    printer::{self, duration, size},
    problem::Problem,
    stamp::Settings,
};

/// How long a restore is waited for: longer than its own time limit, so that its own error is shown.
const BOUND: Duration = OPERATION_BOUND.saturating_add(Duration::from_secs(60));
/// The most rows of a preview in the output.
const ROWS: usize = 20;

/// A cluster, and the client for requests about it.
struct Asked<'a> {
    context: &'a Context,
    arm: ArmClient,
    /// ` GROUP/NAME` for hints.
    label: String,
    path: String,
    /// Identifies one of several clusters of that name.
    body: Value,
}

pub(crate) async fn run(context: &Context, command: &args::Backup) -> Result<()> {
    let settings = Settings::required(&context.places)?;
    let arm = ArmClient::login(&context.places, &settings, &context.env).await?;
    let flag = context.name_flag();
    let path = format!("{}/providers/Landfall.Backup/managedClusters", arm.subscription());
    let all = arm
        .get(&path, BACKUP)
        .await?
        .context("this stamp keeps no backups")?;
    let all: Vec<Value> = all["value"].as_array().cloned().unwrap_or_default();
    let asked = |cluster: Option<&str>| -> Result<(String, String, Value)> {
        let backup = choose(&all, cluster, &flag)?.clone();
        let path = format!(
            "{}/resourceGroups/{}/providers/Landfall.Backup/managedClusters/{}",
            arm.subscription(),
            text(&backup["properties"], "resourceGroup"),
            text(&backup["properties"], "cluster")
        );
        Ok((label(&backup), path, backup))
    };
    let body = |backup: &Value| json!({ "clusterUid": backup["properties"]["clusterUid"] });
    match command {
        args::Backup::List => {
            let now = context.env.clock.now();
            context
                .printer
                .result(&json!({ "event": "result", "backups": all }), || {
                    list(&all, now, &flag)
                });
            Ok(())
        }
        args::Backup::Show { cluster } => {
            let (label, _, backup) = asked(cluster.as_deref())?;
            context.printer.result(&backup, || page(&label, &backup, &flag));
            Ok(())
        }
        args::Backup::Verify { cluster } => {
            let (label, path, backup) = asked(cluster.as_deref())?;
            let verdict = arm
                .post_body(&format!("{path}/verify"), BACKUP, &body(&backup))
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
            let (label, path, backup) = asked(args.cluster.as_deref())?;
            let body = body(&backup);
            let asked = Asked {
                context,
                arm,
                label,
                path,
                body,
            };
            match &args.new {
                Some(new) => asked.anew(args, new).await,
                None => asked.restore(args).await,
            }
        }
    }
}

fn is_deleted(backup: &Value) -> bool {
    backup["properties"]["clusterDeleted"].is_string()
}

/// `GROUP/NAME`.
fn label(backup: &Value) -> String {
    let properties = &backup["properties"];
    format!(
        "{}/{}",
        text(properties, "resourceGroup"),
        text(properties, "cluster")
    )
}

/// The chosen backup: by name, group and name, or the cluster's uid. Of several with one name the existing
/// cluster's, or that of the last one deleted; they come in that order.
fn choose<'a>(all: &'a [Value], wanted: Option<&str>, flag: &str) -> Result<&'a Value> {
    let Some(wanted) = wanted else {
        let mut here = all.iter().filter(|backup| !is_deleted(backup));
        return match (here.next(), here.next()) {
            (Some(only), None) => Ok(only),
            _ => Err(Problem::usage(
                "say which cluster",
                format!("list them: landfall backup list{flag}"),
            )
            .into()),
        };
    };
    let mut meant: Vec<&Value> = all
        .iter()
        .filter(|backup| {
            let properties = &backup["properties"];
            label(backup).eq_ignore_ascii_case(wanted)
                || text(properties, "cluster").eq_ignore_ascii_case(wanted)
                || text(properties, "clusterUid") == wanted
        })
        .collect();
    if meant.iter().any(|backup| !is_deleted(backup)) {
        meant.retain(|backup| !is_deleted(backup));
    }
    match meant.first() {
        None => Err(Problem::usage(
            format!("there is no backup of a cluster {wanted}"),
            format!("list them: landfall backup list{flag}"),
        )
        .into()),
        Some(first) if meant.iter().any(|other| label(other) != label(first)) => Err(Problem::usage(
            format!("there are several clusters {wanted}"),
            format!("give the group too: landfall backup … {}{flag}", label(first)),
        )
        .into()),
        Some(first) => Ok(first),
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

fn list(backups: &[Value], now: Timestamp, flag: &str) -> String {
    if backups.is_empty() {
        return "This stamp has no cluster, and no backup of one that was deleted.".to_owned();
    }
    let rows = backups
        .iter()
        .map(|backup| {
            let spans = spans(backup);
            let ago = |at: Option<Timestamp>| {
                at.map_or_else(
                    || "-".to_owned(),
                    |at| format!("{} ago", duration(now.duration_since(at).as_secs_f64().max(0.0))),
                )
            };
            vec![
                label(backup),
                spans.first().map_or_else(|| "-".to_owned(), |span| whole(span.0)),
                ago(spans.last().map(|span| span.1)),
                behind(backup),
                spans.len().saturating_sub(1).to_string(),
                size(backup["properties"]["bytes"].as_u64().unwrap_or(0)),
            ]
        })
        .collect();
    format!(
        "{}\n\nGo back to a second: landfall backup restore CLUSTER --at TIME{flag}",
        printer::table(&["CLUSTER", "FROM", "UNTIL", "BEHIND", "GAPS", "SIZE"], rows)
    )
}

/// How far the backup is behind the cluster.
fn behind(backup: &Value) -> String {
    let shipping = &backup["properties"]["shipping"];
    match shipping["behindSeconds"].as_u64() {
        _ if is_deleted(backup) => "deleted".to_owned(),
        None => "unknown".to_owned(),
        Some(0) => "no".to_owned(),
        Some(seconds) => duration(f64::from(u32::try_from(seconds).unwrap_or(u32::MAX))),
    }
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
    let properties = &backup["properties"];
    match properties["clusterDeleted"].as_str() {
        Some(deleted) => lines.push(format!("  the cluster was deleted at {deleted}")),
        None => lines.push(format!("  behind {}", behind(backup))),
    }
    if let Some(problem) = properties["shipping"]["problem"].as_str() {
        lines.push(format!("  problem {problem}"));
    }
    if spans.is_empty() {
        lines.push("  nothing can be restored yet".to_owned());
    } else {
        lines.push("  every second of these can be restored:".to_owned());
        lines.extend(spans.iter().map(|(from, until)| format!("    {from} to {until}")));
        lines.push(String::new());
        let last = spans.last().map_or_else(String::new, |span| whole(span.1));
        lines.push(if is_deleted(backup) {
            format!("Make a new cluster of it: landfall backup restore {label} --at {last} --as NAME{flag}")
        } else {
            format!("See what would change: landfall backup restore {label} --at {last} --preview{flag}")
        });
    }
    lines.join("\n")
}

impl Asked<'_> {
    fn moment(&self, at: &str) -> Result<Timestamp> {
        at.parse().map_err(|_| {
            Problem::usage(
                format!("{at} is not a time"),
                format!("write it like {}", whole(self.context.env.clock.now())),
            )
            .into()
        })
    }

    /// Restores as a new cluster.
    async fn anew(&self, args: &args::BackupRestore, new: &str) -> Result<()> {
        let (printer, flag) = (&self.context.printer, self.context.name_flag());
        let at = self.moment(&args.at)?;
        let mut body = self.body.clone();
        body["at"] = json!(at.to_string());
        match new.split_once('/') {
            Some((group, name)) => {
                body["resourceGroup"] = json!(group);
                body["as"] = json!(name);
            }
            None => body["as"] = json!(new),
        }
        let (answer, took) = self
            .carry_out(format!("Making {new} of {}", self.label), &body)
            .await?;
        printer.result(
            &json!({
                "event": "result", "restore": answer["restore"], "cluster": answer["cluster"],
                "at": at.to_string(), "seconds": took,
            }),
            || {
                format!(
                    "{new} is what {} was at {at}. Use it: landfall kubeconfig {new}{flag}",
                    self.label
                )
            },
        );
        Ok(())
    }

    /// Requests a restore and waits until it is done. Returns the service's response, and its duration in
    /// seconds.
    async fn carry_out(&self, title: String, body: &Value) -> Result<(Value, f64)> {
        let step = self.context.printer.step("restore", title);
        let begun = self.context.env.clock.monotonic();
        let (answer, operation) = self
            .arm
            .post_body(&format!("{}/restore", self.path), BACKUP, body)
            .await?;
        if let Some(operation) = operation {
            self.arm.wait(&operation, BOUND, async || {}).await?;
        }
        let took = (self.context.env.clock.monotonic() - begun).as_secs_f64();
        step.done(format!("as of {}, in {}", text(body, "at"), duration(took)));
        Ok((answer, took))
    }

    async fn restore(&self, args: &args::BackupRestore) -> Result<()> {
        let (printer, flag) = (&self.context.printer, self.context.name_flag());
        let at = self.moment(&args.at)?;
        let mut body = self.body.clone();
        body["at"] = json!(at.to_string());
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
            let what = format!(
                "{} is restored to {at}: later changes are lost, and its API is unavailable for some seconds.",
                self.label
            );
            if !printer.confirm(&what).await? {
                return Err(Problem::usage("nothing was done", "type yes, or give --yes").into());
            }
        }
        let (answer, took) = self.carry_out(format!("Restoring {}", self.label), &body).await?;
        printer.result(
            &json!({ "event": "result", "restore": answer["restore"], "at": at.to_string(), "seconds": took }),
            || format!("{} is as it was at {at}. Its nodes have registered again.", self.label),
        );
        Ok(())
    }
}

/// The changes of a preview, for people.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn backup(group: &str, cluster: &str, uid: &str) -> Value {
        json!({ "properties": {
            "cluster": cluster, "resourceGroup": group, "clusterUid": uid, "files": 7, "bytes": 123_456,
            "restorable": [
                { "from": "2026-11-21T12:00:00Z", "until": "2026-11-21T12:10:00Z" },
                { "from": "2026-11-21T12:30:00.5Z", "until": "2026-11-21T12:41:07Z" },
            ],
            "shipping": { "behindSeconds": 0, "writtenRevision": 9, "acknowledgedRevision": 9, "givenUp": 0, "problem": null },
        }})
    }

    fn deleted(group: &str, cluster: &str, uid: &str) -> Value {
        let mut backup = backup(group, cluster, uid);
        backup["properties"]["clusterDeleted"] = json!("2026-11-21T12:42:00Z");
        backup["properties"]["shipping"] = Value::Null;
        backup
    }

    #[test]
    fn a_list_says_from_when_until_when_and_how_far_behind() {
        let mut late = backup("g", "late", "u2");
        late["properties"]["shipping"]["behindSeconds"] = json!(61);
        let mut silent = backup("g", "silent", "u3");
        silent["properties"]["shipping"] = Value::Null;
        let all = [backup("g", "c", "u1"), late, silent, deleted("g", "old", "u0")];
        let now = "2026-11-21T12:41:17Z".parse().unwrap();
        let page = anstream::adapter::strip_str(&list(&all, now, " --name s")).to_string();
        let line = |name: &str| {
            let found = page.lines().find(|line| line.starts_with(name));
            found.unwrap_or_else(|| panic!("{name}: {page}")).to_owned()
        };
        for (name, parts) in [
            ("g/c ", ["2026-11-21T12:00:00Z", "10 s ago", " no ", " 1 "]),
            ("g/late ", ["1 min", " 1 ", "kB", "ago"]),
            ("g/silent ", ["unknown", " 1 ", "kB", "ago"]),
            ("g/old ", ["deleted", " 1 ", "kB", "ago"]),
        ] {
            for part in parts {
                assert!(line(name).contains(part), "{part}: {}", line(name));
            }
        }
        assert!(page.contains("--at TIME --name s"), "{page}");
        assert!(list(&[], now, "").contains("no cluster"));
    }

    #[test]
    fn a_page_tells_the_spans_and_what_to_do_next() {
        let mut behind = backup("g", "c", "u1");
        behind["properties"]["shipping"]["problem"] = json!("cannot ship: it is away");
        let here = page("g/c", &behind, "");
        for part in [
            "2026-11-21T12:30:00.5Z to 2026-11-21T12:41:07Z",
            "problem cannot ship: it is away",
            "restore g/c --at 2026-11-21T12:41:07Z --preview",
        ] {
            assert!(here.contains(part), "{part}: {here}");
        }
        let gone = page("g/old", &deleted("g", "old", "u0"), "");
        assert!(
            gone.contains("was deleted at") && gone.contains("--as NAME"),
            "{gone}"
        );
        let mut none = backup("g", "c", "u1");
        none["properties"]["restorable"] = json!([]);
        assert!(page("g/c", &none, "").contains("nothing can be restored yet"));
    }

    #[test]
    fn a_cluster_is_meant_by_name_group_and_name_or_uid_and_one_that_is_there_first() {
        let all = [
            backup("g", "c", "u1"),
            deleted("g", "c", "u0"),
            deleted("g", "old", "u2"),
            deleted("h", "old", "u3"),
        ];
        let uid = |wanted: Option<&str>| {
            let found = choose(&all, wanted, "").map(|found| found["properties"]["clusterUid"].clone());
            found.map_err(|error| error.to_string())
        };
        assert_eq!(uid(Some("C")), Ok(json!("u1")));
        assert_eq!(uid(Some("u0")), Ok(json!("u0")));
        assert_eq!(uid(Some("h/old")), Ok(json!("u3")));
        assert_eq!(uid(None), Ok(json!("u1")));
        assert!(uid(Some("old")).unwrap_err().contains("several"));
        assert!(uid(Some("nobody")).unwrap_err().contains("no backup"));
        assert!(choose(&all[1..], None, "").is_err());
    }

    #[test]
    fn a_preview_says_what_comes_and_what_goes() {
        let preview = json!({
            "at": "2026-11-21T12:41:07Z", "change": 312, "appear": 5, "disappear": 2, "passing": 9,
            "namespacesAppear": ["shop", "till"], "namespacesDisappear": [],
            "rows": [{ "resource": "configmaps", "namespace": "shop", "change": 3, "appear": 1, "disappear": 0 }],
        });
        let text = anstream::adapter::strip_str(&changes(&preview)).to_string();
        for part in [
            "312 objects will change, 5 appear, 2 disappear",
            "Namespaces that reappear: shop, till",
            "configmaps",
            "9 heartbeats",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("Namespaces that disappear"));
    }
}
