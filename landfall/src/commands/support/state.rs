//! `landfall support status|scope`: whether clusters are supported and why not, and what support covers, through the ARM API.

use anyhow::{Context as _, Result};
use owo_colors::OwoColorize as _;
use policy_support::Profile;
use providers_containerservice::HISTORY_NAMESPACE;
use reqwest::Method;
use serde_json::{Value, json};

use super::super::{Context, kubeconfig::choose};
use crate::{
    admin::{AdminClient, ClusterStatus},
    args,
    arm::{ArmClient, OWN, encode},
    printer,
    stamp::Settings,
};

/// `&name=value` of what was given.
fn query(profile: Option<args::ProfileArg>, at: Option<&str>) -> String {
    let profile = profile.map(|profile| format!("&profile={}", Profile::from(profile)));
    let at = at.map(|at| format!("&at={}", encode(at)));
    [profile, at].into_iter().flatten().collect()
}

async fn read(arm: &ArmClient, path: &str, query: &str, act: &str) -> Result<Value> {
    let url = format!("{}{query}", arm.url(path, OWN));
    let answer = arm.send(Method::GET, &url, None).await?;
    let answer = arm.checked(answer, act).await?;
    answer.json().await.context("the answer is not JSON")
}

pub(super) async fn status(context: &Context, args: &args::SupportStatus) -> Result<()> {
    let settings = Settings::required(&context.places)?;
    let clusters = AdminClient::new(&context.places)?.status().await?.clusters;
    let wanted: Vec<&ClusterStatus> = match args.cluster.as_deref() {
        Some(cluster) => vec![choose(&clusters, Some(cluster), &context.name_flag())?],
        None => clusters.iter().collect(),
    };
    let arm = ArmClient::login(&context.places, &settings, &context.env).await?;
    let query = query(args.profile, args.at.as_deref());
    let mut states = Vec::new();
    for cluster in wanted {
        let path = format!(
            "{}/resourceGroups/{}/providers/{HISTORY_NAMESPACE}/managedClusters/{}/supportState",
            arm.subscription(),
            cluster.resource_group,
            cluster.name
        );
        let act = format!("read the state of support of {}", cluster.name);
        states.push(read(&arm, &path, &query, &act).await?);
    }
    context
        .printer
        .result(&json!({ "event": "result", "clusters": states }), || {
            match (args.cluster.is_some(), states.first()) {
                (true, Some(state)) => page(state),
                _ => lines(&states),
            }
        });
    Ok(())
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("-")
}

/// The day of a time.
fn day<'a>(value: &'a Value, key: &str) -> &'a str {
    let time = text(value, key);
    time.get(..10).unwrap_or(time)
}

fn items<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value[key].as_array().into_iter().flatten()
}

fn coloured(state: &str) -> String {
    match state {
        "Supported" => state.green().to_string(),
        "Warning" | "BestEffort" => state.yellow().to_string(),
        _ => state.red().to_string(),
    }
}

fn lines(states: &[Value]) -> String {
    if states.is_empty() {
        return "This stamp has no cluster.".to_owned();
    }
    let rows = states.iter().map(|state| {
        let reasons = items(state, "reasons").filter(|reason| text(reason, "state") != "Supported");
        let rules: Vec<&str> = reasons.map(|reason| text(reason, "rule")).collect();
        let areas = items(state, "areas").filter(|area| text(area, "state") != text(state, "state"));
        let areas: Vec<String> = areas
            .map(|area| format!("{} {}", text(area, "area"), text(area, "state")))
            .collect();
        vec![
            text(state, "cluster").to_owned(),
            text(state, "resourceGroup").to_owned(),
            coloured(text(state, "state")),
            day(state, "until").to_owned(),
            if rules.is_empty() {
                "-".to_owned()
            } else {
                rules.join(", ")
            },
            if areas.is_empty() {
                "-".to_owned()
            } else {
                areas.join(", ")
            },
        ]
    });
    printer::table(
        &["CLUSTER", "GROUP", "STATE", "CHANGES", "RULES", "AREAS"],
        rows.collect(),
    )
}

fn page(state: &Value) -> String {
    let mut page = format!(
        "{}/{} is {} by the policies of {}, at {}\n",
        text(state, "resourceGroup"),
        text(state, "cluster"),
        coloured(text(state, "state")),
        text(state, "profile"),
        text(state, "at")
    );
    if state["until"].is_string() {
        page.push_str(&format!("It changes by itself at {}.\n", text(state, "until")));
    }
    for area in items(state, "areas").filter(|area| text(area, "state") != text(state, "state")) {
        page.push_str(&format!(
            "{}: {}\n",
            text(area, "area"),
            coloured(text(area, "state"))
        ));
    }
    for reason in items(state, "reasons") {
        let by = match reason["by"].as_str() {
            Some(by) => format!(" (by {})", by.get(..10).unwrap_or(by)),
            None => String::new(),
        };
        let since = match reason["fact"]["since"].as_str() {
            Some(since) => format!(", since {since}"),
            None => String::new(),
        };
        page.push_str(&format!(
            "\n{} {}{by}: {}\n    Rests on: {}{since}\n",
            coloured(text(reason, "state")),
            text(reason, "rule"),
            text(reason, "message"),
            text(&reason["fact"], "message"),
        ));
        if let Some(remedy) = reason["remedy"].as_str() {
            page.push_str(&format!("    Next: {remedy}\n"));
        }
    }
    page.push_str(&deadlines(&state["deadlines"]));
    let unknown: Vec<&str> = items(&state["replay"], "unknown")
        .filter_map(Value::as_str)
        .collect();
    if !unknown.is_empty() {
        page.push_str(&format!(
            "\nNot known of that moment, and taken as it is now: {}.\n",
            unknown.join(", ")
        ));
    }
    page
}

/// The deadlines that run, and the archive.
fn deadlines(told: &Value) -> String {
    let mut page = String::new();
    for running in items(told, "running") {
        let done = if running["acts"] == true {
            "is done"
        } else {
            "is only told"
        };
        let noticed = match running["noticed"].as_str() {
            Some(noticed) => format!("; first notice at {noticed}"),
            None => String::new(),
        };
        page.push_str(&format!(
            "\nDeadline {}: {} at {}, which {done}{noticed}\n",
            text(running, "rule"),
            text(running, "deed"),
            text(running, "due"),
        ));
    }
    if let Some(waits) = told["waits"].as_str() {
        page.push_str(&format!("    {waits}\n"));
    }
    match told["archive"]["state"].as_str() {
        Some("Archived") => page.push_str(&format!(
            "\nArchived since {}; its state is in {}. It comes back with az aks start, or a PUT of it.\n",
            text(&told["archive"], "since"),
            text(&told["archive"], "backup"),
        )),
        Some(_) => page.push_str("\nIt is to be archived, and its backup was not verified for that yet.\n"),
        None => {}
    }
    page
}

pub(super) async fn scope(context: &Context, profile: Option<args::ProfileArg>) -> Result<()> {
    let settings = Settings::required(&context.places)?;
    let arm = ArmClient::login(&context.places, &settings, &context.env).await?;
    let path = format!("/providers/{HISTORY_NAMESPACE}/supportScope");
    let act = "read the scope of support";
    let scope = read(&arm, &path, &query(profile, None), act).await?;
    context
        .printer
        .result(&json!({ "event": "result", "scope": scope }), || subjects(&scope));
    Ok(())
}

fn subjects(scope: &Value) -> String {
    let rows: Vec<Vec<String>> = items(scope, "value")
        .map(|subject| {
            let cells = ["rule", "cover", "area", "subject"];
            cells.map(|cell| text(subject, cell).to_owned()).to_vec()
        })
        .collect();
    if rows.is_empty() {
        return format!(
            "The document of {} says nothing of scope.",
            text(scope, "document")
        );
    }
    format!(
        "{}\n\n{}",
        text(scope, "document"),
        printer::table(&["RULE", "COVER", "AREA", "SUBJECT"], rows)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn the_page_says_why_what_to_do_and_by_when() {
        let state = json!({
            "cluster": "c", "resourceGroup": "g", "state": "Warning", "profile": "arc", "at": "2027-03-01T00:00:00Z",
            "until": "2027-04-22T00:00:00Z",
            "areas": [{ "area": "etcd", "state": "Warning" }, { "area": "network", "state": "OutOfSupport" }],
            "reasons": [{
                "rule": "V1", "state": "Warning", "message": "it ends", "by": "2027-04-22T00:00:00Z", "remedy": "upgrade",
                "fact": { "message": "it runs 1.36", "since": "2026-11-01T00:00:00Z" },
            }],
            "replay": { "of": "past", "unknown": ["network.plugin"] },
            "deadlines": {
                "policy": "tell", "archive": { "state": "Pending" },
                "running": [{ "rule": "L3", "deed": "stop", "due": "2027-03-31T00:00:00Z", "acts": false }],
            },
        });
        let told = plain(&page(&state));
        for word in [
            "g/c is Warning by the policies of arc",
            "changes by itself at 2027-04-22",
            "network: OutOfSupport",
            "Warning V1 (by 2027-04-22): it ends",
            "Rests on: it runs 1.36, since 2026-11-01",
            "Next: upgrade",
            "network.plugin",
            "Deadline L3: stop at 2027-03-31T00:00:00Z, which is only told",
            "It is to be archived",
        ] {
            assert!(told.contains(word), "{word}: {told}");
        }
        assert!(!told.contains("etcd"), "{told}");
        let line = plain(&lines(std::slice::from_ref(&state)));
        assert!(
            line.contains("V1") && line.contains("network OutOfSupport"),
            "{line}"
        );
        assert!(lines(&[]).contains("no cluster"));
    }

    #[test]
    fn what_was_given_is_asked_for() {
        assert_eq!(query(None, None), "");
        assert_eq!(
            query(
                Some(args::ProfileArg::HubEngine),
                Some("2027-01-31T00:00:00+01:00")
            ),
            "&profile=hub-engine&at=2027-01-31T00%3A00%3A00%2B01%3A00"
        );
    }

    #[test]
    fn the_scope_is_a_table() {
        let scope =
            json!({ "document": "AKS", "value": [{ "rule": "C1", "cover": "Covered", "subject": "etcd" }] });
        let told = plain(&subjects(&scope));
        assert!(
            told.contains("C1") && told.contains("Covered") && told.contains("etcd"),
            "{told}"
        );
        assert!(subjects(&json!({ "document": "Hub", "value": [] })).contains("says nothing"));
    }
}
