//! `landfall upgrade`: the obstacles of an upgrade of a cluster and its times, and upgrades of a control plane with a way back, through the ARM API.

use std::time::Duration;

use anyhow::Result;
use control_records::times::words;
use owo_colors::OwoColorize as _;
use serde_json::{Value, json};

use super::{Context, kubeconfig::choose};
use crate::{
    admin::AdminClient,
    args,
    arm::{ArmClient, OWN, encode},
    printer::{self, duration},
    problem::Problem,
    stamp::Settings,
};

/// How long an upgrade of a control plane is waited for: longer than its own time limit, so that its own error is shown.
const BOUND: Duration = Duration::from_secs(25 * 60);

pub(crate) async fn run(context: &Context, command: &args::Upgrade) -> Result<()> {
    match command {
        args::Upgrade::Plan(args) => plan(context, args).await,
        args::Upgrade::Status(args) => status(context, args).await,
        args::Upgrade::Soak(args) => {
            let body = json!({ "kubernetesVersion": args.kubernetes_version, "hours": args.hours });
            change(context, args.cluster.as_deref(), &SOAK, &body).await
        }
        args::Upgrade::Finalize(args) => {
            change(context, args.cluster.as_deref(), &FINALIZE, &json!({})).await
        }
        args::Upgrade::Rollback(args) => {
            change(context, args.cluster.as_deref(), &ROLLBACK, &json!({})).await
        }
    }
}

/// A change of a control plane: its action, and what people are told.
struct Change {
    action: &'static str,
    doing: &'static str,
    done: &'static str,
}

const SOAK: Change = Change {
    action: "soak",
    doing: "Upgrading the control plane of",
    done: "It runs the new programs, which emulate the minor release of before. Next: landfall upgrade finalize, or landfall upgrade rollback.",
};
const FINALIZE: Change = Change {
    action: "finalize",
    doing: "Finalising the upgrade of",
    done: "It emulates nothing any more; there is no way back. Its node pools can be upgraded: az aks nodepool upgrade.",
};
const ROLLBACK: Change = Change {
    action: "rollback",
    doing: "Taking back the control plane of",
    done: "It runs the minor release of before, with all that was stored meanwhile.",
};

/// A cluster at the stamp's own API.
struct Asked {
    arm: ArmClient,
    /// Below which its resources are.
    path: String,
    label: String,
}

impl Asked {
    async fn of(context: &Context, cluster: Option<&str>) -> Result<Self> {
        let settings = Settings::required(&context.places)?;
        let status = AdminClient::new(&context.places)?.status().await?;
        let flag = context.name_flag();
        let cluster = choose(&status.clusters, cluster, &flag)?;
        let arm = ArmClient::login(&context.places, &settings, &context.env).await?;
        let path = format!(
            "{}/resourceGroups/{}/providers/Landfall.ContainerService/managedClusters/{}",
            arm.subscription(),
            cluster.resource_group,
            cluster.name
        );
        Ok(Self {
            arm,
            path,
            label: format!("{}/{}", cluster.resource_group, cluster.name),
        })
    }

    async fn get(&self, context: &Context, child: &str) -> Result<Value> {
        let found = self.arm.get(&format!("{}/{child}", self.path), OWN).await?;
        found.ok_or_else(|| {
            Problem::new(
                format!("the cluster {} is not there any more", self.label),
                format!("see what there is: landfall status{}", context.name_flag()),
            )
            .into()
        })
    }
}

async fn plan(context: &Context, args: &args::UpgradePlan) -> Result<()> {
    let asked = Asked::of(context, args.cluster.as_deref()).await?;
    let version = encode(&args.kubernetes_version);
    let plan = asked.get(context, &format!("upgradePlans/{version}")).await?;
    context
        .printer
        .result(&json!({ "event": "result", "plan": plan }), || page(&plan));
    Ok(())
}

async fn status(context: &Context, args: &args::UpgradeOf) -> Result<()> {
    let asked = Asked::of(context, args.cluster.as_deref()).await?;
    let state = asked.get(context, "upgrades/default").await?;
    context
        .printer
        .result(&json!({ "event": "result", "upgrade": state }), || {
            state_page(&state)
        });
    Ok(())
}

async fn change(context: &Context, cluster: Option<&str>, change: &Change, body: &Value) -> Result<()> {
    let asked = Asked::of(context, cluster).await?;
    let title = format!("{} {}", change.doing, asked.label);
    let step = context.printer.step(change.action, title);
    let begun = context.env.clock.monotonic();
    let path = format!("{}/upgrades/default/{}", asked.path, change.action);
    let (_, operation) = asked.arm.post_body(&path, OWN, body).await?;
    match operation {
        Some(operation) => {
            asked.arm.wait(&operation, BOUND, async || {}).await?;
            let took = (context.env.clock.monotonic() - begun).as_secs_f64();
            step.done(format!("in {}", duration(took)));
        }
        None => step.skip("it is so already"),
    }
    let state = asked.get(context, "upgrades/default").await?;
    context
        .printer
        .result(&json!({ "event": "result", "upgrade": state }), || {
            change.done.to_owned()
        });
    Ok(())
}

/// How it stands with the way back of a control plane.
fn state_page(state: &Value) -> String {
    let runs = format!(
        "{}/{} runs Kubernetes {}",
        text(state, "resourceGroup"),
        text(state, "cluster"),
        text(state, "currentKubernetesVersion")
    );
    match text(state, "state") {
        "Soaking" => format!(
            "{runs} and emulates {}, since {}.\nIt can go back to {} (landfall upgrade rollback) until it is finalised (landfall upgrade \
             finalize), by itself at {}.",
            text(state, "emulates"),
            text(state, "since"),
            text(state, "rollbackTo"),
            text(state, "finalizesAt")
        ),
        _ => format!("{runs} and has no way back to an older minor release."),
    }
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

/// A number of seconds for people.
fn time(seconds: &Value) -> String {
    words(seconds.as_u64().unwrap_or_default())
}

/// How long the upgrade takes: each node with what it waits for, and all together.
fn times(plan: &Value) -> String {
    let mut page = String::new();
    let nodes: Vec<Vec<String>> = items(plan, "nodes")
        .map(|node| {
            let waits: Vec<&str> = items(node, "waitsFor").filter_map(Value::as_str).collect();
            vec![
                text(node, "name").to_owned(),
                time(&node["estimatedSeconds"]),
                waits.join("; "),
            ]
        })
        .collect();
    if !nodes.is_empty() {
        page.push('\n');
        page.push_str(&printer::table(&["NODE", "ESTIMATE", "WAITS FOR"], nodes));
    }
    let control_plane = &plan["controlPlane"];
    let basis = if plan["estimatedFrom"] == "Measured" {
        "as such steps took here before"
    } else {
        "by usual times, for nothing was measured here yet"
    };
    page.push_str(&format!(
        "\nAbout {} in all, {basis}: the control plane {}, then the pools side by side. Drains that are held up take longer.\n",
        time(&plan["estimatedSeconds"]),
        time(&control_plane["estimatedSeconds"])
    ));
    page
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
            time(&pool["estimatedSeconds"]),
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
                "ESTIMATE",
                "WAITS AT MOST",
            ],
            rows,
        ));
    }
    page.push_str(&times(plan));
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
                "drainTimeoutInMinutes": 30, "nodeSoakDurationInMinutes": 0, "undrainableNodeBehavior": "Schedule", "waitsAtMostMinutes": 90, "estimatedSeconds": 315
            }],
            "nodes": [{ "name": "aks-np1-0", "estimatedSeconds": 105, "waitsFor": ["a node in its place to start: 60 s", "7 pods to leave: 45 s"] }],
            "controlPlane": { "members": 3, "estimatedSeconds": 90 }, "estimatedSeconds": 405, "estimatedFrom": "Defaults",
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
            "6 min",
            "a node in its place to start: 60 s; 7 pods to leave: 45 s",
            "About 7 min in all, by usual times",
            "the control plane 90 s",
            "HoldsUp",
            "d/web",
            "Next: give it more replicas",
        ] {
            assert!(page.contains(word), "{word}: {page}");
        }
        let nothing = json!({ "pools": [], "findings": [] });
        assert!(super::page(&nothing).contains("Nothing was found"));
    }
    #[test]
    fn a_way_back_is_told_with_its_end() {
        let state = json!({
            "state": "Soaking", "cluster": "c", "resourceGroup": "g", "currentKubernetesVersion": "1.37.1", "emulates": "1.36",
            "rollbackTo": "1.36.3", "since": "2026-01-01T00:00:00Z", "finalizesAt": "2026-01-08T00:00:00Z",
        });
        let page = state_page(&state);
        for word in [
            "g/c runs Kubernetes 1.37.1",
            "emulates 1.36",
            "back to 1.36.3",
            "2026-01-08",
        ] {
            assert!(page.contains(word), "{word}: {page}");
        }
        let none = json!({ "state": "None", "currentKubernetesVersion": "1.37.1" });
        assert!(state_page(&none).contains("no way back"));
    }
}
