//! `landfall support policy|archive`: whether deadlines of the support policies act, and an archive that is asked for.

use std::time::Duration;

use anyhow::{Result, bail};
use providers_containerservice::HISTORY_NAMESPACE;
use serde_json::{Value, json};

use super::{Context, choose, client, text};
use crate::{admin::AdminClient, args, arm::OWN, printer::duration, problem::Problem};

/// How long a cluster is waited for until it is stopped.
const BOUND: Duration = Duration::from_secs(25 * 60);
/// How long its archive is waited for after that: its backup is verified within seconds, or not now.
const VERIFIED: Duration = Duration::from_secs(3 * 60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);

pub(super) async fn policy(context: &Context, deadlines: Option<args::AtDeadlineArg>) -> Result<()> {
    let arm = client(context).await?;
    let path = format!("/providers/{HISTORY_NAMESPACE}/supportPolicies/stamp");
    let policy = match deadlines {
        None => arm.get(&path, OWN).await?,
        Some(args::AtDeadlineArg::Act) => Some(arm.post(&format!("{path}/act"), OWN).await?),
        Some(args::AtDeadlineArg::Tell) => Some(arm.post(&format!("{path}/tell"), OWN).await?),
    };
    let Some(policy) = policy else {
        bail!("the service does not know of deadlines; a newer one does: landfall up");
    };
    context
        .printer
        .result(&json!({ "event": "result", "policy": policy }), || page(&policy));
    Ok(())
}

fn page(policy: &Value) -> String {
    let since = match policy["since"].as_str() {
        Some(since) => format!(" (since {since}, by {})", text(policy, "by")),
        None => String::new(),
    };
    let what = if policy["deadlines"] == "act" {
        "Deadlines act: clusters are stopped, archived and deleted as the rules say, each after all its notices"
    } else {
        "Deadlines are told, and nothing is done"
    };
    format!(
        "{what}{since}. The rules are those of the profile {}: see docs/reference/support-policies.md.",
        text(policy, "profile")
    )
}

pub(super) async fn archive(context: &Context, wanted: Option<&str>) -> Result<()> {
    let arm = client(context).await?;
    let status = AdminClient::new(&context.places)?.status().await?;
    let flag = context.name_flag();
    let cluster = choose(&status.clusters, wanted, &flag)?;
    let path = format!(
        "{}/resourceGroups/{}/providers/{HISTORY_NAMESPACE}/managedClusters/{}/archives/default",
        arm.subscription(),
        cluster.resource_group,
        cluster.name,
    );
    let title = format!("Archiving {}/{}", cluster.resource_group, cluster.name);
    let step = context.printer.step("archive", title);
    let begun = context.env.clock.monotonic();
    let (_, operation) = arm.post_body(&format!("{path}/take"), OWN, &json!({})).await?;
    if let Some(operation) = operation {
        arm.wait(&operation, BOUND, async || {}).await?;
    }
    // Stopped, it is archived once its backup was verified.
    let until = context.env.clock.monotonic() + VERIFIED;
    let archive = loop {
        let Some(archive) = arm.get(&path, OWN).await? else {
            return Err(Problem::new(
                format!("the cluster {} is not there any more", cluster.name),
                format!("see what there is: landfall status{flag}"),
            )
            .into());
        };
        if archive["state"] != "Pending" {
            break archive;
        }
        if context.env.clock.monotonic() > until {
            return Err(Problem::new(
                format!(
                    "the backup of {} was not verified yet; its disks stay until it is",
                    cluster.name
                ),
                format!("see why: landfall events {}{flag}", cluster.name),
            )
            .into());
        }
        context.env.clock.sleep(LOOK).await;
    };
    let took = (context.env.clock.monotonic() - begun).as_secs_f64();
    step.done(format!("in {}", duration(took)));
    let group = cluster.resource_group.clone();
    let name = cluster.name.clone();
    context
        .printer
        .result(&json!({ "event": "result", "archive": archive }), || {
            format!(
                "Its control plane is in its backup. It comes back with: az aks start --resource-group {group} --name {name}"
            )
        });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_is_told() {
        let tell = page(&json!({ "deadlines": "tell", "profile": "aks" }));
        assert!(
            tell.contains("nothing is done.") && tell.contains("profile aks"),
            "{tell}"
        );
        let act =
            json!({ "deadlines": "act", "profile": "aks", "since": "2027-01-01T00:00:00Z", "by": "Op" });
        let act = page(&act);
        assert!(act.contains("Deadlines act") && act.contains("by Op"), "{act}");
    }
}
