//! `landfall maintenance`: whether planned work is held up, and what waits. It is held up through the ARM API.

use anyhow::Result;
use providers_containerservice::HISTORY_NAMESPACE;
use serde_json::{Value, json};

use super::Context;
use crate::{
    admin::{AdminClient, StampStatus},
    args,
    arm::{ArmClient, OWN},
    printer,
    stamp::Settings,
};

pub(crate) async fn run(context: &Context, command: &args::Maintenance) -> Result<()> {
    let (act, body) = match command {
        args::Maintenance::Status => {
            let status = AdminClient::new(&context.places)?.status().await?;
            let told = json!({ "event": "result", "paused": status.paused, "waiting": waiting(&status) });
            context.printer.result(&told, || page(&status));
            return Ok(());
        }
        args::Maintenance::Pause { reason } => ("pause", json!({ "reason": reason })),
        args::Maintenance::Resume => ("resume", json!({})),
    };
    let settings = Settings::required(&context.places)?;
    let arm = ArmClient::login(&context.places, &settings, &context.env).await?;
    let path = format!("/providers/{HISTORY_NAMESPACE}/maintenance/stamp/{act}");
    let (done, _) = arm.post_body(&path, OWN, &body).await?;
    context
        .printer
        .result(&json!({ "event": "result", "maintenance": done }), || told(&done));
    Ok(())
}

fn waiting(status: &StampStatus) -> Vec<Value> {
    let clusters = status.clusters.iter();
    let all = clusters.flat_map(|cluster| cluster.waits.iter().map(move |waits| (cluster, waits)));
    all.map(|(cluster, waits)| {
        json!({
            "resourceGroup": cluster.resource_group, "cluster": cluster.name,
            "what": waits.what, "until": waits.until, "obstacle": waits.obstacle,
        })
    })
    .collect()
}

fn page(status: &StampStatus) -> String {
    let mut page = match &status.paused {
        Some(paused) => format!(
            "Planned work is held up since {}, by {}{}.\n",
            paused.at,
            paused.by,
            match paused.reason.as_str() {
                "" => String::new(),
                reason => format!(": {reason}"),
            }
        ),
        None => "Planned work goes on, each cluster's in its window.\n".to_owned(),
    };
    let clusters = status.clusters.iter();
    let rows: Vec<Vec<String>> = clusters
        .flat_map(|cluster| cluster.waits.iter().map(move |waits| (cluster, waits)))
        .map(|(cluster, waits)| {
            vec![
                cluster.name.clone(),
                cluster.resource_group.clone(),
                waits.what.clone(),
                waits
                    .until
                    .map_or_else(|| "-".to_owned(), |until| until.to_string()),
                waits.obstacle.clone(),
            ]
        })
        .collect();
    if rows.is_empty() {
        page.push_str("No cluster waits for anything.\n");
        return page;
    }
    page.push_str(&printer::table(
        &["CLUSTER", "GROUP", "WHAT", "BEGINS", "WAITS FOR"],
        rows,
    ));
    page.push('\n');
    page
}

fn told(done: &Value) -> String {
    if done["paused"] == true {
        "Planned work is held up in the whole stamp; what was begun goes on. It goes on with: landfall maintenance resume\n".to_owned()
    } else {
        "Planned work goes on, each cluster's in its window.\n".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_told() {
        assert!(told(&json!({ "paused": true })).contains("held up"));
        assert!(told(&json!({ "paused": false })).contains("goes on"));
    }
}
