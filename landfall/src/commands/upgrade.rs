//! `landfall upgrade`: the obstacles of an upgrade of a cluster, through the ARM API.

use anyhow::Result;
use owo_colors::OwoColorize as _;
use serde_json::{Value, json};

use super::{Context, kubeconfig::choose};
use crate::{
    admin::AdminClient,
    args,
    arm::{ArmClient, OWN, encode},
    printer,
    problem::Problem,
    stamp::Settings,
};

pub(crate) async fn run(context: &Context, command: &args::Upgrade) -> Result<()> {
    let args::Upgrade::Plan(args) = command;
    let settings = Settings::required(&context.places)?;
    let status = AdminClient::new(&context.places)?.status().await?;
    let flag = context.name_flag();
    let cluster = choose(&status.clusters, args.cluster.as_deref(), &flag)?;
    let arm = ArmClient::login(&context.places, &settings, &context.env).await?;
    let path = format!(
        "{}/resourceGroups/{}/providers/Landfall.ContainerService/managedClusters/{}/upgradePlans/{}",
        arm.subscription(),
        cluster.resource_group,
        cluster.name,
        encode(&args.kubernetes_version)
    );
    let plan = arm.get(&path, OWN).await?.ok_or_else(|| {
        Problem::new(
            format!("the cluster {} is not there any more", cluster.name),
            format!("see what there is: landfall status{flag}"),
        )
    })?;
    context
        .printer
        .result(&json!({ "event": "result", "plan": plan }), || page(&plan));
    Ok(())
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("-")
}

fn items<'a>(plan: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    plan[key].as_array().into_iter().flatten()
}

fn coloured(weight: &str) -> String {
    match weight {
        "Refused" | "HoldsUp" => weight.red().to_string(),
        "Loses" | "Unknown" => weight.yellow().to_string(),
        _ => weight.to_owned(),
    }
}

fn page(plan: &Value) -> String {
    let mut page = format!(
        "{}/{} from Kubernetes {} to {}\n\n",
        text(plan, "resourceGroup"),
        text(plan, "cluster"),
        text(plan, "from"),
        text(plan, "to")
    );
    let rows = items(plan, "pools").map(|pool| {
        let number = |key: &str| pool[key].to_string();
        vec![
            text(pool, "name").to_owned(),
            format!("{} to {}", text(pool, "from"), text(pool, "to")),
            number("nodes"),
            number("surge"),
            number("unavailable"),
            format!("{} min", number("drainTimeoutInMinutes")),
            format!("{} min", number("nodeSoakDurationInMinutes")),
            text(pool, "undrainableNodeBehavior").to_owned(),
            format!("{} min", number("waitsAtMostMinutes")),
        ]
    });
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        page.push_str("No pool has another version.\n");
    } else {
        page.push_str(&printer::table(
            &[
                "POOL",
                "KUBERNETES",
                "NODES",
                "SURGE",
                "FEWER",
                "DRAIN",
                "SOAK",
                "UNDRAINABLE",
                "WAITS AT MOST",
            ],
            rows,
        ));
        page.push_str("\nHow long nodes take to start is not known before.\n");
    }
    page.push('\n');
    let mut found = items(plan, "findings").peekable();
    if found.peek().is_none() {
        page.push_str("Nothing was found that it would meet.\n");
    }
    for finding in found {
        let subject = match text(finding, "subject") {
            "" => String::new(),
            subject => format!(" {subject}"),
        };
        page.push_str(&format!(
            "{} {}{subject}: {}\n    Next: {}\n",
            coloured(text(finding, "weight")),
            text(finding, "kind"),
            text(finding, "message"),
            text(finding, "next")
        ));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_says_what_is_met_and_what_to_do() {
        let plan = json!({
            "cluster": "c", "resourceGroup": "g", "from": "1.36.3", "to": "1.37.1",
            "pools": [{
                "name": "np1", "from": "1.36.3", "to": "1.37.1", "nodes": 3, "surge": 1, "unavailable": 0,
                "drainTimeoutInMinutes": 30, "nodeSoakDurationInMinutes": 0, "undrainableNodeBehavior": "Schedule", "waitsAtMostMinutes": 90
            }],
            "findings": [{
                "weight": "HoldsUp", "kind": "DisruptionBudget", "subject": "d/web", "message": "it allows no disruption now",
                "next": "give it more replicas"
            }]
        });
        let page = anstream::adapter::strip_str(&page(&plan)).to_string();
        for word in [
            "g/c from Kubernetes 1.36.3 to 1.37.1",
            "np1",
            "90 min",
            "HoldsUp",
            "d/web",
            "Next: give it more replicas",
        ] {
            assert!(page.contains(word), "{word}: {page}");
        }
        let nothing = json!({ "pools": [], "findings": [] });
        assert!(super::page(&nothing).contains("Nothing was found"));
    }
}
