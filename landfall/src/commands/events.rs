//! `landfall events`: the history of clusters, also of deleted ones, from the ARM API.

use std::time::Duration;

use anyhow::Result;
use owo_colors::OwoColorize as _;
use serde_json::{Value, json};

use super::{Context, operation::filter};
use crate::{
    args,
    arm::{ArmClient, OWN},
    stamp::Settings,
};

/// Interval of polls when following.
const PAUSE: Duration = Duration::from_secs(1);

pub(crate) async fn run(context: &Context, args: &args::Events) -> Result<()> {
    let settings = Settings::required(&context.places)?;
    let arm = ArmClient::login(&context.places, &settings, &context.env).await?;
    let mut after = String::new();
    let all = read(&arm, args, &after).await?;
    let from = all.len().saturating_sub(args.lines as usize);
    let flag = context.name_flag();
    if !args.follow {
        let shown = &all[from..];
        context
            .printer
            .result(&json!({ "event": "result", "events": shown }), || {
                page(shown, &flag)
            });
        return Ok(());
    }
    tell(context, &all[from..], &mut after);
    loop {
        context.env.clock.sleep(PAUSE).await;
        let new = read(&arm, args, &after).await?;
        tell(context, &new, &mut after);
    }
}

async fn read(arm: &ArmClient, args: &args::Events, after: &str) -> Result<Vec<Value>> {
    let path = format!(
        "{}/providers/Landfall.ContainerService/events",
        arm.subscription()
    );
    let mut query = filter(args.cluster.as_deref());
    if !after.is_empty() {
        query.push(("after", after.to_owned()));
    }
    arm.list(&path, OWN, &query).await
}

/// Prints each event as it comes: a line for people, an object for programs.
fn tell(context: &Context, events: &[Value], after: &mut String) {
    for event in events {
        let value = json!({ "event": "event", "happened": event });
        context.printer.result(&value, || line(event));
        if let Some(id) = event["id"].as_str() {
            id.clone_into(after);
        }
    }
}

fn page(events: &[Value], flag: &str) -> String {
    if events.is_empty() {
        return format!("Nothing has happened yet. Make a cluster: landfall up{flag}, or az aks create");
    }
    events.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn line(event: &Value) -> String {
    let text = |key: &str| event[key].as_str().unwrap_or_default();
    // Seconds are enough for people.
    let time = text("time").get(..19).unwrap_or(text("time")).replace('T', " ");
    let kind = format!("{:<18}", text("kind"));
    let kind = match text("level") {
        "Warning" => kind.yellow().to_string(),
        _ => kind.green().to_string(),
    };
    let subject = match text("subject") {
        "" => String::new(),
        subject => format!("{subject}: "),
    };
    let deleted = if event["clusterDeleted"] == json!(true) {
        " (deleted)"
    } else {
        ""
    };
    format!(
        "{}  {}{deleted}  {kind}  {subject}{}",
        time.dimmed(),
        text("cluster"),
        text("message")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_when_whose_what_and_why() {
        let event = json!({
            "id": "1", "time": "2026-01-01T00:00:05.123456Z", "level": "Warning", "kind": "NodeLost", "cluster": "c",
            "clusterDeleted": true, "subject": "aks-np1-1-vmss000000", "message": "the node is not ready any more",
        });
        let line = anstream::adapter::strip_str(&line(&event)).to_string();
        assert_eq!(
            line,
            "2026-01-01 00:00:05  c (deleted)  NodeLost            aks-np1-1-vmss000000: the node is not ready any more"
        );
        assert!(page(&[], " --name s").contains("landfall up --name s"));
    }
}
