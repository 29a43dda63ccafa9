//! `landfall alerts`: what an operator has to see to. Through the ARM API.

use anyhow::Result;
use jiff::Timestamp;
use owo_colors::OwoColorize as _;
use serde_json::{Value, json};

use super::Context;
use crate::{
    args,
    arm::{ArmClient, OWN, encode},
    printer::{self, duration},
    problem::Problem,
    stamp::Settings,
};

pub(crate) async fn run(context: &Context, args: &args::Alerts) -> Result<()> {
    let settings = Settings::required(&context.places)?;
    let arm = ArmClient::login(&context.places, &settings, &context.env).await?;
    let (now, flag) = (context.env.clock.now(), context.name_flag());
    // Alerts about the stamp are shown in every subscription, those of a cluster in its own.
    let subscriptions = super::usage::subscriptions(&arm).await?;
    if let Some(name) = &args.alert {
        for (id, _) in &subscriptions {
            if let Some(alert) = arm.get(&path(id, &format!("/{}", encode(name))), OWN).await? {
                let told = json!({ "event": "result", "alert": alert });
                context.printer.result(&told, || one(&alert, now));
                return Ok(());
            }
        }
        let next = format!("see what there is: landfall alerts --all{flag}");
        return Err(Problem::new(format!("there is no alert '{name}'"), next).into());
    }
    let open = (!args.all).then(|| ("open", "true".to_owned()));
    let query: Vec<(&str, String)> = open.into_iter().collect();
    let mut all: Vec<Value> = Vec::new();
    for (id, _) in &subscriptions {
        for alert in arm.list(&path(id, ""), OWN, &query).await? {
            if !all.iter().any(|known| known["name"] == alert["name"]) {
                all.push(alert);
            }
        }
    }
    all.sort_by_key(order);
    context
        .printer
        .result(&json!({ "event": "result", "alerts": all }), || {
            page(&all, args.all, now, &flag)
        });
    Ok(())
}

fn path(subscription: &str, rest: &str) -> String {
    format!("/subscriptions/{subscription}/providers/Landfall.ContainerService/alerts{rest}")
}

fn text<'a>(alert: &'a Value, key: &str) -> &'a str {
    alert[key].as_str().unwrap_or_default()
}

/// Open ones first, the worst of them first, then the oldest.
fn order(alert: &Value) -> (bool, u8, String) {
    let severity = match text(alert, "severity") {
        "Critical" => 0,
        "Warning" => 1,
        _ => 2,
    };
    (
        text(alert, "state") != "Open",
        severity,
        text(alert, "openedAt").to_owned(),
    )
}

fn coloured(severity: &str) -> String {
    match severity {
        "Critical" => severity.red().to_string(),
        "Warning" => severity.yellow().to_string(),
        _ => severity.to_owned(),
    }
}

fn subject(alert: &Value) -> String {
    match (text(alert, "resourceGroup"), text(alert, "cluster")) {
        (_, "") => "the stamp".to_owned(),
        (group, cluster) => format!("{group}/{cluster}"),
    }
}

fn ago(alert: &Value, key: &str, now: Timestamp) -> String {
    let at: Option<Timestamp> = text(alert, key).parse().ok();
    at.map_or_else(
        || "-".to_owned(),
        |at| duration(now.duration_since(at).as_secs_f64().max(0.0)),
    )
}

fn page(all: &[Value], closed: bool, now: Timestamp, flag: &str) -> String {
    if all.is_empty() {
        return "Nothing needs care.\n".to_owned();
    }
    let rows = all.iter().map(|alert| {
        let mut row = vec![
            text(alert, "name").to_owned(),
            coloured(text(alert, "severity")),
            subject(alert),
            ago(alert, "openedAt", now),
        ];
        if closed {
            row.push(ago(alert, "closedAt", now));
        }
        row.push(text(alert, "message").to_owned());
        row
    });
    let mut headings = vec!["ALERT", "SEVERITY", "OF", "OPENED"];
    if closed {
        headings.push("CLOSED");
    }
    headings.push("WHAT");
    let table = printer::table(&headings, rows.collect());
    format!("{table}\n\nWhat to do about one: landfall alerts NAME{flag}\n")
}

fn one(alert: &Value, now: Timestamp) -> String {
    let mut page = format!(
        "{}  {}  of {}\n\n  {}\n\n",
        text(alert, "name").bold(),
        coloured(text(alert, "severity")),
        subject(alert),
        text(alert, "message")
    );
    page.push_str(&format!("  do       {}\n", text(alert, "remedy")));
    page.push_str(&format!("  closes   when {}\n", text(alert, "closesWhen")));
    page.push_str(&format!("  opened   {} ago\n", ago(alert, "openedAt", now)));
    if text(alert, "state") == "Closed" {
        page.push_str(&format!("  closed   {} ago\n", ago(alert, "closedAt", now)));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_are_told_worst_first_with_what_to_do() {
        let alert = |name: &str, severity: &str, state: &str| {
            json!({
                "name": name, "severity": severity, "state": state, "message": "m", "remedy": "do this",
                "closesWhen": "it is done", "openedAt": "2026-01-01T00:00:00Z", "closedAt": "2026-01-01T00:01:00Z",
            })
        };
        let mut all = vec![
            alert("a", "Critical", "Closed"),
            alert("b", "Warning", "Open"),
            alert("c", "Critical", "Open"),
        ];
        all.sort_by_key(order);
        let names: Vec<&str> = all.iter().map(|alert| text(alert, "name")).collect();
        assert_eq!(names, ["c", "b", "a"]);
        let now: Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
        let table = page(&all, true, now, " --name t");
        assert!(
            table.contains("the stamp") && table.contains("landfall alerts NAME --name t"),
            "{table}"
        );
        assert!(page(&[], false, now, "").contains("Nothing"));
        let shown = one(&all[2], now);
        assert!(shown.contains("do this") && shown.contains("closed"), "{shown}");
    }
}
