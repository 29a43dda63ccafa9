//! `landfall support ticket|access|access-record`: tickets of clusters, what is handed out under them, and what was done with that. Tickets and
//! records go through the ARM API, as every tenant's do; what is handed out comes from the service's own socket, which only root opens.

use anyhow::{Context as _, Result};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Context, client, items, text};
use crate::{
    admin::{AdminClient, ClusterStatus},
    args,
    arm::{ArmClient, OWN},
    commands::kubeconfig::choose,
    printer,
    problem::Problem,
};

/// A ticket that was found, with its cluster.
struct Found<'a> {
    cluster: &'a ClusterStatus,
    ticket: Value,
}

/// The path of a cluster's tickets.
fn path(arm: &ArmClient, cluster: &ClusterStatus) -> String {
    format!(
        "{}/resourceGroups/{}/providers/Landfall.ContainerService/managedClusters/{}/supportTickets",
        arm.subscription(),
        cluster.resource_group,
        cluster.name
    )
}

/// The tickets of these clusters.
async fn read<'a>(arm: &ArmClient, clusters: &[&'a ClusterStatus]) -> Result<Vec<Found<'a>>> {
    let mut all = Vec::new();
    for cluster in clusters.iter().copied() {
        let found = arm.list(&path(arm, cluster), OWN, &[]).await?;
        all.extend(found.into_iter().map(|ticket| Found { cluster, ticket }));
    }
    all.sort_by(|a, b| opened(&a.ticket).cmp(opened(&b.ticket)));
    Ok(all)
}

fn opened(ticket: &Value) -> &str {
    text(&ticket["properties"], "openedAt")
}

/// A cluster, or all of them.
fn wanted<'a>(
    clusters: &'a [ClusterStatus],
    cluster: Option<&str>,
    flag: &str,
) -> Result<Vec<&'a ClusterStatus>> {
    match cluster {
        Some(_) => Ok(vec![choose(clusters, cluster, flag)?]),
        None => Ok(clusters.iter().collect()),
    }
}

/// The one ticket of this name.
fn only<'a>(all: Vec<Found<'a>>, name: &str, flag: &str) -> Result<Found<'a>> {
    let mut fits = all
        .into_iter()
        .filter(|found| text(&found.ticket, "name").eq_ignore_ascii_case(name));
    match (fits.next(), fits.next()) {
        (Some(found), None) => Ok(found),
        (None, _) => Err(Problem::new(
            format!("there is no support ticket {name}"),
            format!("see what there is: landfall support ticket list{flag}"),
        )
        .into()),
        (Some(_), Some(_)) => Err(Problem::usage(
            format!("several clusters have a support ticket {name}"),
            "say which cluster: --cluster GROUP/NAME",
        )
        .into()),
    }
}

/// The ticket that an argument names.
async fn find<'a>(
    arm: &ArmClient,
    clusters: &'a [ClusterStatus],
    of: &args::TicketName,
    flag: &str,
) -> Result<Found<'a>> {
    let clusters = wanted(clusters, of.cluster.as_deref(), flag)?;
    only(read(arm, &clusters).await?, &of.ticket, flag)
}

pub(super) async fn run(context: &Context, command: &args::Ticket) -> Result<()> {
    let status = AdminClient::new(&context.places)?.status().await?;
    let (flag, arm) = (context.name_flag(), client(context).await?);
    let clusters = &status.clusters;
    match command {
        args::Ticket::Open {
            cluster,
            title,
            severity,
            ticket,
        } => {
            let cluster = choose(clusters, cluster.as_deref(), &flag)?;
            let name = ticket.clone().unwrap_or_else(|| context.env.ids.short());
            let at = format!("{}/{}", path(&arm, cluster), crate::arm::encode(&name));
            let body = json!({ "properties": { "title": title, "severity": severity.as_str() } });
            let answer = arm.send(Method::PUT, &arm.url(&at, OWN), Some(&body)).await?;
            let answer = arm.checked(answer, "open a support ticket").await?;
            let answer: Value = answer.json().await.context("the answer is not JSON")?;
            tell(context, &answer);
        }
        args::Ticket::Consent { ticket, hours } => {
            let found = find(&arm, clusters, ticket, &flag).await?;
            act(context, &arm, &found, "consent", &json!({ "hours": hours })).await?;
        }
        args::Ticket::Revoke(ticket) => {
            let found = find(&arm, clusters, ticket, &flag).await?;
            act(context, &arm, &found, "revoke", &json!({})).await?;
        }
        args::Ticket::Close(ticket) => {
            let found = find(&arm, clusters, ticket, &flag).await?;
            act(context, &arm, &found, "close", &json!({})).await?;
        }
        args::Ticket::List { cluster } => {
            let clusters = wanted(clusters, cluster.as_deref(), &flag)?;
            let all = read(&arm, &clusters).await?;
            let all: Vec<Value> = all.into_iter().map(|found| found.ticket).collect();
            context
                .printer
                .result(&json!({ "event": "result", "tickets": all }), || {
                    page(&all, &flag)
                });
        }
        args::Ticket::Show(ticket) => {
            let found = find(&arm, clusters, ticket, &flag).await?;
            let at = format!("{}/{}", path(&arm, found.cluster), text(&found.ticket, "name"));
            let ticket = arm.get(&at, OWN).await?.unwrap_or(found.ticket);
            tell(context, &ticket);
        }
    }
    Ok(())
}

/// An action on a ticket.
async fn act(
    context: &Context,
    arm: &ArmClient,
    found: &Found<'_>,
    action: &str,
    body: &Value,
) -> Result<()> {
    let name = text(&found.ticket, "name");
    let at = format!("{}/{name}/{action}", path(arm, found.cluster));
    let (ticket, _) = arm.post_body(&at, OWN, body).await?;
    tell(context, &ticket);
    Ok(())
}

fn tell(context: &Context, ticket: &Value) {
    context
        .printer
        .result(&json!({ "event": "result", "ticket": ticket }), || shown(ticket));
}

pub(super) async fn access(context: &Context, args: &args::SupportAccess) -> Result<()> {
    let admin = AdminClient::new(&context.places)?;
    let status = admin.status().await?;
    let (flag, arm) = (context.name_flag(), client(context).await?);
    let clusters = wanted(&status.clusters, args.cluster.as_deref(), &flag)?;
    let found = only(read(&arm, &clusters).await?, &args.ticket, &flag)?;
    let name = text(&found.ticket, "name");
    let access = admin
        .support_access(&found.cluster.uid, name, &args.engineer)
        .await?;
    if !access.granted {
        context
            .printer
            .warn("the cluster does not answer now; the kubeconfig works when it does");
    }
    context.printer.note(&format!(
        "The credential {} reads until {}. All that is done with it is in the tenant's record.",
        access.credential, access.expires_at
    ));
    context.printer.text("kubeconfig", &access.kubeconfig);
    Ok(())
}

pub(super) async fn record(context: &Context, ticket: &str, cluster: Option<&str>) -> Result<()> {
    let status = AdminClient::new(&context.places)?.status().await?;
    let (flag, arm) = (context.name_flag(), client(context).await?);
    let clusters = wanted(&status.clusters, cluster, &flag)?;
    let found = only(read(&arm, &clusters).await?, ticket, &flag)?;
    let name = text(&found.ticket, "name");
    let at = format!("{}/{name}/accessRecord", path(&arm, found.cluster));
    let record = arm
        .get(&at, OWN)
        .await?
        .with_context(|| format!("{at} is gone"))?;
    context
        .printer
        .result(&json!({ "event": "result", "accessRecord": record }), || {
            recorded(&record)
        });
    Ok(())
}

/// A time to the second: enough for people.
fn time(value: &Value, key: &str) -> String {
    let time = text(value, key);
    time.get(..19).unwrap_or(time).replace('T', " ")
}

fn page(all: &[Value], flag: &str) -> String {
    if all.is_empty() {
        return format!(
            "There is no support ticket.\n\nOpen one: landfall support ticket open{flag} GROUP/CLUSTER --title TITLE\n"
        );
    }
    let rows = all.iter().map(|ticket| {
        let properties = &ticket["properties"];
        vec![
            text(ticket, "name").to_owned(),
            format!("{}/{}", text(ticket, "resourceGroup"), text(ticket, "cluster")),
            text(properties, "status").to_owned(),
            text(properties, "severity").to_owned(),
            text(properties, "openedBy").to_owned(),
            time(properties, "openedAt"),
            time(&properties["consent"], "until"),
            text(properties, "title").to_owned(),
        ]
    });
    let table = printer::table(
        &[
            "TICKET",
            "CLUSTER",
            "STATUS",
            "SEVERITY",
            "OPENED BY",
            "AT",
            "CONSENT UNTIL",
            "TITLE",
        ],
        rows.collect(),
    );
    format!("{table}\n")
}

fn shown(ticket: &Value) -> String {
    let properties = &ticket["properties"];
    let mut page = format!(
        "{} of {}/{} is {}: {} ({})\nOpened by {} at {}\n",
        text(ticket, "name"),
        text(ticket, "resourceGroup"),
        text(ticket, "cluster"),
        text(properties, "status"),
        text(properties, "title"),
        text(properties, "severity"),
        text(properties, "openedBy"),
        time(properties, "openedAt"),
    );
    let consent = &properties["consent"];
    if consent.is_object() {
        page.push_str(&format!(
            "Consent by {} at {}, until {}",
            text(consent, "by"),
            time(consent, "at"),
            time(consent, "until")
        ));
        if consent["withdrawnAt"].is_string() {
            page.push_str(&format!(
                ", taken back by {} at {}",
                text(consent, "withdrawnBy"),
                time(consent, "withdrawnAt")
            ));
        }
        page.push('\n');
    } else {
        page.push_str("Nobody has consented to access.\n");
    }
    if properties["closedAt"].is_string() {
        page.push_str(&format!(
            "Closed by {} at {}\n",
            text(properties, "closedBy"),
            time(properties, "closedAt")
        ));
    }
    let rows: Vec<Vec<String>> = items(properties, "access")
        .map(|access| {
            vec![
                text(access, "credential").to_owned(),
                text(access, "state").to_owned(),
                text(access, "engineer").to_owned(),
                time(access, "issuedAt"),
                time(access, "expiresAt"),
            ]
        })
        .collect();
    if !rows.is_empty() {
        let table = printer::table(&["CREDENTIAL", "STATE", "ENGINEER", "ISSUED", "UNTIL"], rows);
        page.push_str(&format!("\n{table}\n"));
    }
    page
}

fn recorded(record: &Value) -> String {
    let rows: Vec<Vec<String>> = items(record, "value")
        .map(|one| {
            vec![
                time(one, "at"),
                text(one, "engineer").to_owned(),
                text(one, "verb").to_owned(),
                text(one, "uri").to_owned(),
                one["status"].to_string(),
                text(one, "address").to_owned(),
            ]
        })
        .collect();
    let mut page = if rows.is_empty() {
        "No request is in the audit logs that could be read.\n".to_owned()
    } else {
        let table = printer::table(&["AT", "ENGINEER", "VERB", "REQUEST", "STATUS", "FROM"], rows);
        format!("{table}\n")
    };
    for unread in items(record, "unread") {
        page.push_str(&format!(
            "Not read: the machine {}: {}\n",
            text(unread, "machine"),
            text(unread, "why")
        ));
    }
    if record["truncated"] == true {
        page.push_str("There are more requests than are shown; these are the newest.\n");
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(name: &str) -> Value {
        json!({
            "name": name, "cluster": "c", "resourceGroup": "g",
            "properties": {
                "title": "Pods do not start", "severity": "critical", "status": "Consented", "openedBy": "ada@x",
                "openedAt": "2026-01-01T08:00:00Z",
                "consent": { "by": "bob@x", "at": "2026-01-01T09:00:00.5Z", "until": "2026-01-01T13:00:00.5Z" },
                "access": [{
                    "credential": "a1", "engineer": "eve", "state": "Good", "issuedAt": "2026-01-01T09:05:00Z",
                    "expiresAt": "2026-01-01T10:05:00Z"
                }]
            }
        })
    }

    #[test]
    fn a_ticket_says_who_consented_until_when_and_who_was_let_in() {
        let page = anstream::adapter::strip_str(&shown(&ticket("t1"))).to_string();
        for word in [
            "t1 of g/c is Consented",
            "Consent by bob@x",
            "until 2026-01-01 13:00:00",
            "eve",
            "a1",
        ] {
            assert!(page.contains(word), "{word}: {page}");
        }
        let mut open = ticket("t2");
        open["properties"]["consent"] = Value::Null;
        assert!(shown(&open).contains("Nobody has consented"));
        let page = super::page(&[ticket("t1")], "");
        assert!(
            page.contains("g/c") && page.contains("2026-01-01 13:00:00"),
            "{page}"
        );
        assert!(super::page(&[], " --name s").contains("--name s"));
    }

    #[test]
    fn what_could_not_be_read_is_said() {
        let page = recorded(&json!({
            "value": [{
                "at": "2026-01-01T09:06:00Z", "engineer": "eve", "verb": "list", "uri": "/api/v1/pods", "status": 200,
                "address": "10.0.0.7"
            }],
            "unread": [{ "machine": "m2", "why": "its agent is away" }], "truncated": true
        }));
        for word in [
            "eve",
            "/api/v1/pods",
            "200",
            "m2: its agent is away",
            "the newest",
        ] {
            assert!(page.contains(word), "{word}: {page}");
        }
        assert!(recorded(&json!({})).contains("No request"));
    }
}
