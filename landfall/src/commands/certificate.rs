//! `landfall certificate`: what certificates and keys there are. Of a cluster through the ARM API, of all from the admin socket.

use anyhow::Result;
use jiff::Timestamp;
use owo_colors::OwoColorize as _;
use serde_json::{Value, json};

use super::{Context, kubeconfig::choose};
use crate::{
    admin::AdminClient,
    args,
    arm::{ArmClient, OWN},
    printer,
    stamp::Settings,
};

pub(crate) async fn run(context: &Context, command: &args::Certificates) -> Result<()> {
    let args::Certificates::List { cluster } = command;
    let admin = AdminClient::new(&context.places)?;
    let items: Vec<Value> = match cluster {
        None => {
            let all = admin.certificates().await?;
            all.iter().map(|item| json!(item)).collect()
        }
        Some(wanted) => {
            let settings = Settings::required(&context.places)?;
            let status = admin.status().await?;
            let flag = context.name_flag();
            let cluster = choose(&status.clusters, Some(wanted), &flag)?;
            let arm = ArmClient::login(&context.places, &settings, &context.env).await?;
            let path = format!(
                "{}/resourceGroups/{}/providers/Landfall.ContainerService/managedClusters/{}/certificates",
                arm.subscription(),
                cluster.resource_group,
                cluster.name
            );
            arm.list(&path, OWN, &[]).await?
        }
    };
    let now = context.env.clock.now();
    context
        .printer
        .result(&json!({ "event": "result", "certificates": items }), || {
            page(&items, now)
        });
    Ok(())
}

fn text<'a>(item: &'a Value, key: &str) -> &'a str {
    item[key].as_str().unwrap_or_default()
}

/// A day, and how many are left; red where it is over, yellow in its last third.
fn ends(item: &Value, now: Timestamp) -> String {
    let time = |key: &str| text(item, key).parse::<Timestamp>().ok();
    let Some(expires) = time("expiresAt") else {
        return "-".to_owned();
    };
    let left = expires.duration_since(now);
    let shown = format!("{} ({} days)", day(&expires.to_string()), left.as_hours() / 24);
    let third = time("issuedAt").map(|issued| expires.duration_since(issued) / 3);
    if !left.is_positive() {
        shown.red().to_string()
    } else if third.is_some_and(|third| left < third) && text(item, "renewsAt").is_empty() {
        shown.yellow().to_string()
    } else {
        shown
    }
}

fn day(time: &str) -> &str {
    match time {
        "" => "-",
        time => time.get(..10).unwrap_or(time),
    }
}

fn page(items: &[Value], now: Timestamp) -> String {
    let rows = items.iter().map(|item| {
        let of = match (text(item, "resourceGroup"), text(item, "cluster")) {
            (_, "") => "the stamp".to_owned(),
            (group, cluster) => format!("{group}/{cluster}"),
        };
        vec![
            of,
            text(item, "holder").to_owned(),
            text(item, "name").to_owned(),
            text(item, "kind").to_owned(),
            text(item, "state").to_owned(),
            day(text(item, "issuedAt")).to_owned(),
            ends(item, now),
            day(text(item, "renewsAt")).to_owned(),
            item["generation"]
                .as_u64()
                .map_or_else(|| "-".to_owned(), |number| number.to_string()),
        ]
    });
    let headings = [
        "OF",
        "HOLDER",
        "NAME",
        "KIND",
        "STATE",
        "ISSUED",
        "ENDS",
        "RENEWS",
        "GENERATION",
    ];
    format!("{}\n", printer::table(&headings, rows.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_and_what_does_not_is_told() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let items = [
            json!({
                "resourceGroup": "", "cluster": "", "name": "endpoint", "kind": "certificate", "holder": "the stamp", "state": "in use",
                "issuedAt": "2025-12-01T00:00:00Z", "expiresAt": "2026-01-11T00:00:00Z", "renewsAt": null, "generation": null,
            }),
            json!({
                "resourceGroup": "g", "cluster": "c", "name": "service-account-key", "kind": "key", "holder": "the stamp", "state": "in use",
                "issuedAt": null, "expiresAt": null, "renewsAt": null, "generation": 2,
            }),
        ];
        let page = anstream::adapter::strip_str(&page(&items, now)).to_string();
        let lines: Vec<&str> = page.lines().collect();
        assert!(
            lines[1].contains("the stamp") && lines[1].contains("2026-01-11 (10 days)"),
            "{page}"
        );
        assert!(
            lines[2].starts_with("g/c") && lines[2].trim_end().ends_with('2'),
            "{page}"
        );
    }
}
