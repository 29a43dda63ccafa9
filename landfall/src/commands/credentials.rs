//! `landfall credentials`: the issued kubeconfigs of clusters, and their revocation. Through the ARM API.

use anyhow::Result;
use owo_colors::OwoColorize as _;
use serde_json::{Value, json};

use super::{Context, kubeconfig::choose};
use crate::{
    admin::{AdminClient, ClusterStatus},
    args,
    arm::{ArmClient, OWN},
    printer,
    problem::Problem,
    stamp::Settings,
};

pub(crate) async fn run(context: &Context, command: &args::Credentials) -> Result<()> {
    let settings = Settings::required(&context.places)?;
    let status = AdminClient::new(&context.places)?.status().await?;
    let arm = ArmClient::login(&context.places, &settings, &context.env).await?;
    match command {
        args::Credentials::List { cluster } => {
            let clusters = match cluster.as_deref() {
                Some(wanted) => vec![choose(&status.clusters, Some(wanted), &context.name_flag())?],
                None => status.clusters.iter().collect(),
            };
            let all = read(&arm, &clusters).await?;
            let flag = context.name_flag();
            context
                .printer
                .result(&json!({ "event": "result", "credentials": all }), || {
                    page(&all, &flag)
                });
            Ok(())
        }
        args::Credentials::Revoke { ids } => {
            let clusters: Vec<&ClusterStatus> = status.clusters.iter().collect();
            let all = read(&arm, &clusters).await?;
            let mut revoked = Vec::new();
            // All of them are looked up before the first is revoked.
            for path in found(&all, ids, &context.name_flag())? {
                revoked.push(arm.post(&format!("{path}/revoke"), OWN).await?);
            }
            context
                .printer
                .result(&json!({ "event": "result", "revoked": revoked }), || {
                    revoked.iter().map(told).collect()
                });
            Ok(())
        }
    }
}

/// The credentials of these clusters, in the order of their issue.
async fn read(arm: &ArmClient, clusters: &[&ClusterStatus]) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for cluster in clusters {
        let path = format!(
            "{}/resourceGroups/{}/providers/Landfall.ContainerService/managedClusters/{}/credentials",
            arm.subscription(),
            cluster.resource_group,
            cluster.name
        );
        let found = arm.list(&path, OWN, &[]).await?;
        all.extend(found.into_iter().filter(|one| text(one, "state") != "Expired"));
    }
    all.sort_by(|a, b| text(a, "issuedAt").cmp(text(b, "issuedAt")));
    Ok(all)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("-")
}

/// The paths of the credentials with these ids.
fn found<'a>(all: &'a [Value], ids: &[String], flag: &str) -> Result<Vec<&'a str>> {
    let each = ids.iter().map(|id| {
        let one = all.iter().find(|one| text(one, "name").eq_ignore_ascii_case(id));
        one.map(|one| text(one, "id")).ok_or_else(|| {
            Problem::new(
                format!("there is no credential {id}, or it has ended; none was revoked"),
                format!("see what there is: landfall credentials list{flag}"),
            )
            .into()
        })
    });
    each.collect()
}

fn coloured(state: &str) -> String {
    match state {
        "Active" => state.green().to_string(),
        "Revoked" => state.dimmed().to_string(),
        _ => state.yellow().to_string(),
    }
}

fn page(all: &[Value], flag: &str) -> String {
    if all.is_empty() {
        return "No credential that was handed out is still good.\n".to_owned();
    }
    // Seconds are enough for people.
    let time = |one: &Value, key: &str| {
        let time = text(one, key);
        time.get(..19).unwrap_or(time).replace('T', " ")
    };
    let rows = all.iter().map(|one| {
        vec![
            text(one, "name").to_owned(),
            format!("{}/{}", text(one, "resourceGroup"), text(one, "cluster")),
            text(one, "kind").to_owned(),
            coloured(text(one, "state")),
            text(one, "caller").to_owned(),
            text(one, "address").to_owned(),
            time(one, "issuedAt"),
            time(one, "expiresAt"),
        ]
    });
    format!(
        "{}\n\nTake one back: landfall credentials revoke{flag} ID\n",
        printer::table(
            &[
                "ID", "CLUSTER", "KIND", "STATE", "CALLER", "FROM", "ISSUED", "UNTIL"
            ],
            rows.collect()
        )
    )
}

/// The state of a credential.
fn told(one: &Value) -> String {
    let (name, cluster) = (text(one, "name"), text(one, "cluster"));
    match text(one, "state") {
        "Revoked" => format!("{name} does not work any more in the cluster {cluster}.\n"),
        _ => format!(
            "{name} is revoked; the cluster {cluster} does not answer now, and takes it away when it does.\n"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Value> {
        vec![json!({
            "id": "/subscriptions/s/x/a1", "name": "a1", "cluster": "c", "resourceGroup": "g", "kind": "admin", "state": "Active",
            "caller": "ada@x", "address": "127.0.0.1", "issuedAt": "2026-01-01T08:00:00.5Z", "expiresAt": "2026-01-01T16:00:00.5Z"
        })]
    }

    #[test]
    fn a_credential_that_is_not_there_keeps_the_others() {
        let all = all();
        assert_eq!(
            found(&all, &["A1".to_owned()], "").unwrap(),
            ["/subscriptions/s/x/a1"]
        );
        let error = found(&all, &["a1".to_owned(), "b2".to_owned()], " --name s").unwrap_err();
        assert!(error.to_string().contains("b2"), "{error}");
    }

    #[test]
    fn the_page_says_who_what_whence_and_until_when() {
        let page = anstream::adapter::strip_str(&page(&all(), " --name s")).to_string();
        for word in [
            "a1",
            "g/c",
            "admin",
            "Active",
            "ada@x",
            "127.0.0.1",
            "2026-01-01 16:00:00",
            "--name s",
        ] {
            assert!(page.contains(word), "{word}: {page}");
        }
        assert!(super::page(&[], "").contains("No credential"));
    }
}
