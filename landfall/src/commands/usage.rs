//! `landfall usage`: what subscriptions have used, by the hour. Through the ARM API.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::{Value, json};

use super::Context;
use crate::{
    args,
    arm::{ArmClient, OWN, RESOURCES},
    printer,
    problem::Problem,
    stamp::Settings,
};

/// The meters, in the order of their columns.
const METERS: [&str; 4] = ["cores", "memory", "disks", "addresses"];

/// What a subscription has used in an hour, by meter.
type Hours = BTreeMap<(String, String), [f64; METERS.len()]>;

pub(crate) async fn run(context: &Context, args: &args::Usage) -> Result<()> {
    let settings = Settings::required(&context.places)?;
    let arm = ArmClient::login(&context.places, &settings, &context.env).await?;
    let mut query = Vec::new();
    for (name, value) in [("from", &args.from), ("to", &args.to)] {
        query.extend(value.clone().map(|value| (name, value)));
    }
    let all = subscriptions(&arm).await?;
    let chosen: Vec<&(String, String)> = match &args.subscription {
        None => all.iter().collect(),
        Some(wanted) => all
            .iter()
            .filter(|(id, name)| id.eq_ignore_ascii_case(wanted) || name == wanted)
            .collect(),
    };
    if let (Some(wanted), true) = (&args.subscription, chosen.is_empty()) {
        let next = format!(
            "see what there is: landfall subscription list{}",
            context.name_flag()
        );
        return Err(Problem::new(format!("there is no subscription '{wanted}'"), next).into());
    }
    let mut records: Vec<Value> = Vec::new();
    for (id, name) in chosen {
        let path = format!("/subscriptions/{id}/providers/Landfall.ContainerService/usageRecords");
        let mut own = arm.list(&path, OWN, &query).await?;
        for record in &mut own {
            record["subscription"] = json!(name);
        }
        records.extend(own);
    }
    if context.printer.is_csv() {
        context.printer.text("usage", &csv(&records));
        return Ok(());
    }
    context
        .printer
        .result(&json!({ "event": "result", "usage": records }), || page(&records));
    Ok(())
}

/// Ids and names of all subscriptions.
pub(super) async fn subscriptions(arm: &ArmClient) -> Result<Vec<(String, String)>> {
    let all = arm.list("/subscriptions", RESOURCES, &[]).await?;
    let named = all.iter().map(|one| {
        (
            text(one, "subscriptionId").to_owned(),
            text(one, "displayName").to_owned(),
        )
    });
    Ok(named.collect())
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// A row for each hour and subscription.
fn hours(records: &[Value]) -> Hours {
    let mut hours = Hours::new();
    for record in records {
        let place = METERS.iter().position(|meter| *meter == text(record, "meter"));
        let key = (
            text(record, "usageStartTime").to_owned(),
            text(record, "subscription").to_owned(),
        );
        let row = hours.entry(key).or_default();
        if let Some(cell) = place.and_then(|place| row.get_mut(place)) {
            *cell += record["quantity"].as_f64().unwrap_or(0.0);
        }
    }
    hours
}

fn page(records: &[Value]) -> String {
    let hours = hours(records);
    if hours.is_empty() {
        return "Nothing was used in that time.\n".to_owned();
    }
    let mut sums = [0.0; METERS.len()];
    let mut rows: Vec<Vec<String>> = Vec::new();
    let cells = |row: &[f64]| row.iter().map(|cell| format!("{cell:.2}")).collect::<Vec<_>>();
    for ((begins, subscription), row) in &hours {
        for (sum, cell) in sums.iter_mut().zip(row) {
            *sum += cell;
        }
        let begins = begins.get(..16).unwrap_or(begins).replace('T', " ");
        rows.push([vec![begins, subscription.clone()], cells(row)].concat());
    }
    rows.push([vec!["all".to_owned(), String::new()], cells(&sums)].concat());
    let headings = [
        "HOUR (UTC)",
        "SUBSCRIPTION",
        "CORE HOURS",
        "MEMORY GIB HOURS",
        "DISK GIB HOURS",
        "ADDRESS HOURS",
    ];
    format!("{}\n", printer::table(&headings, rows))
}

/// One line for each hour, subscription and meter, as RFC 4180 has it.
fn csv(records: &[Value]) -> String {
    let mut lines = vec!["start,end,subscriptionId,subscription,meter,quantity,unit".to_owned()];
    for record in records {
        let quantity = record["quantity"].to_string();
        let cells = [
            text(record, "usageStartTime"),
            text(record, "usageEndTime"),
            text(record, "subscriptionId"),
            text(record, "subscription"),
            text(record, "meter"),
            &quantity,
            text(record, "unit"),
        ];
        lines.push(cells.map(quoted).join(","));
    }
    lines.join("\n")
}

/// A cell. A name that a spreadsheet would take for a formula gets a mark before it.
fn quoted(cell: &str) -> String {
    let safe = if cell.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        format!("'{cell}")
    } else {
        cell.to_owned()
    };
    if safe.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", safe.replace('"', "\"\""))
    } else {
        safe
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(begins: &str, subscription: &str, meter: &str, quantity: f64) -> Value {
        json!({
            "usageStartTime": begins, "usageEndTime": "2026-01-01T01:00:00Z", "subscriptionId": "s1",
            "subscription": subscription, "meter": meter, "quantity": quantity, "unit": "core hours",
        })
    }

    #[test]
    fn hours_have_a_row_and_all_a_sum() {
        let records = [
            record("2026-01-01T00:00:00Z", "Shop", "cores", 4.0),
            record("2026-01-01T00:00:00Z", "Shop", "memory", 14.0),
            record("2026-01-01T01:00:00Z", "Shop", "cores", 2.5),
            record("2026-01-01T01:00:00Z", "Shop", "of-a-later-release", 9.0),
        ];
        let page = anstream::adapter::strip_str(&page(&records)).to_string();
        let lines: Vec<&str> = page.lines().collect();
        assert_eq!(lines.len(), 4, "{page}");
        assert!(
            lines[1].starts_with("2026-01-01 00:00  Shop") && lines[1].contains("14.00"),
            "{page}"
        );
        assert!(lines[3].starts_with("all") && lines[3].contains("6.50"), "{page}");
        assert!(super::page(&[]).contains("Nothing"));
    }

    #[test]
    fn csv_is_quoted_and_holds_no_formula() {
        let records = [record("2026-01-01T00:00:00Z", "=cmd(), \"x\"", "cores", 0.5)];
        let text = csv(&records);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "start,end,subscriptionId,subscription,meter,quantity,unit"
        );
        assert_eq!(
            lines[1],
            "2026-01-01T00:00:00Z,2026-01-01T01:00:00Z,s1,\"'=cmd(), \"\"x\"\"\",cores,0.5,core hours"
        );
    }
}
