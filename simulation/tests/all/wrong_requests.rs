//! Invalid requests as data, to the whole service: the token service, the directory, roles, identities,
//! networks. Each row has its status, code, target and words, and causes no write. The number of rows, with
//! those of ARM itself and of clusters, is checked here.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use axum::body::{Body, to_bytes};
use control_store::Store as _;
use http::Request;
use serde_json::Value;
use simulation::{SUBSCRIPTION, TENANT, run, script::Player};

/// method, path, token, content, body, status, code, target, words; `-` for an absent value
const TABLE: &str = include_str!("../wrong_requests.tsv");
/// Rows about ARM itself, tested at the edge; the columns are the same.
const ARM: &str = include_str!("../../../arm/edge/tests/contract/bad_input.tsv");
/// Of clusters and pools, tried at their provider.
const CLUSTERS: &str = include_str!("../../../providers/containerservice/tests/bad_input.json");
/// So many wrong requests there are at least.
const LEAST: usize = 200;

/// A request of the table, and its expected response.
struct Row<'a> {
    method: &'a str,
    path: &'a str,
    token: &'a str,
    kind: &'a str,
    body: &'a str,
    status: u16,
    code: &'a str,
    target: &'a str,
    words: &'a str,
}

impl<'a> Row<'a> {
    fn of(line: &'a str) -> Result<Self> {
        let cells: Vec<&str> = line
            .split('\t')
            .map(|cell| if cell == "-" { "" } else { cell })
            .collect();
        let [method, path, token, kind, body, status, code, target, words] = cells[..] else {
            anyhow::bail!("not a row: {line}")
        };
        Ok(Self {
            method,
            path,
            token,
            kind,
            body,
            status: status.parse()?,
            code,
            target,
            words,
        })
    }
}

/// Code, target and message of a response, in any of the forms of an error.
fn said(text: &str) -> (String, String, String) {
    let body: Value = serde_json::from_str(text).unwrap_or_default();
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let error = &body["error"];
    if error.is_string() {
        return (word(error), String::new(), word(&body["error_description"]));
    }
    let inner: Vec<&str> = error["details"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|detail| detail["target"].as_str())
        .collect();
    // Graph's errors name the invalid field in their details only.
    let target = match error["target"].as_str() {
        Some(target) => target.to_owned(),
        None if error["innerError"].is_object() => inner.join(","),
        None => String::new(),
    };
    let message = if error.is_object() {
        word(&error["message"])
    } else {
        text.to_owned()
    };
    (word(&error["code"]), target, message)
}

/// A request, and the status, code and words of its response.
type Refused = (String, u16, String, String);

fn of_table(table: &str) -> Result<BTreeSet<Refused>> {
    let lines = table
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let row = Row::of(line)?;
            let asked = [row.method, row.path, row.token, row.kind, row.body].join(" ");
            Ok((asked, row.status, row.code.to_owned(), row.words.to_owned()))
        })
        .collect()
}

fn of_cases(cases: &str) -> Result<BTreeSet<Refused>> {
    let cases: Vec<Value> = serde_json::from_str(cases)?;
    cases
        .iter()
        .map(|case| {
            let asked = ["method", "path", "api_version", "body"].map(|part| case[part].to_string());
            let status = case["status"].as_u64().context("a case without a status")?;
            let code = case["code"].as_str().unwrap_or_default().to_owned();
            let words = case["words"].as_str().unwrap_or_default().to_owned();
            Ok((asked.join(" "), u16::try_from(status)?, code, words))
        })
        .collect()
}

#[test]
fn there_are_two_hundred_of_them_at_least() -> Result<()> {
    let areas = [
        ("ARM itself", of_table(ARM)?),
        ("clusters and pools", of_cases(CLUSTERS)?),
        ("all around a cluster", of_table(TABLE)?),
    ];
    let all: BTreeSet<&Refused> = areas.iter().flat_map(|(_, requests)| requests).collect();
    for (area, requests) in &areas {
        println!("{area:22} {:4}", requests.len());
    }
    let with_words = all.iter().filter(|(.., words)| !words.is_empty()).count();
    println!(
        "{:22} {:4}, {with_words} with words",
        "in all, each once",
        all.len()
    );
    ensure!(
        with_words >= LEAST,
        "{with_words} wrong requests with the words of their answer"
    );
    for (asked, status, code, words) in all {
        // An operation that is not implemented is answered as well, with its name.
        ensure!((400..500).contains(status) || *status == 501, "{asked}: {status}");
        // A page has no code: its words identify it.
        ensure!(!code.is_empty() || !words.is_empty(), "{asked}: no code");
    }
    Ok(())
}

/// All that is kept.
async fn records(player: &Player) -> Result<Vec<(String, Vec<u8>)>> {
    let (all, _) = player.stamp.disk.list("/").await?;
    Ok(all
        .into_iter()
        // The activity log keeps refusals as well.
        .filter(|(key, _)| !key.starts_with("/activity/"))
        .map(|(key, found)| (key, found.value.to_vec()))
        .collect())
}

#[test]
fn each_wrong_request_is_refused_by_name_and_leaves_nothing() -> Result<()> {
    run(async || {
        let mut player = Player::new(1).await?;
        for line in ["start", "create c1 np1=1", "settle"] {
            player.command(line).await?;
        }
        let cluster = player.stamp.cluster("c1").await?.context("there is no cluster")?;
        let group = format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/rg");
        let nodes = format!(
            "/subscriptions/{SUBSCRIPTION}/resourceGroups/{}",
            cluster.spec().node_resource_group
        );
        let kind = "providers/Microsoft.ContainerService/managedClusters";
        // From here on, only requests cause writes.
        player.stamp.hold().await?;
        let [arm, graph] = [
            player.stamp.token("https://management.sim.test/x").await?,
            player.stamp.token("https://arm.sim.test/graph").await?,
        ];
        let identity = format!(
            "{group}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/there?api-version=2023-01-31"
        );
        let made = Request::put(identity)
            .header("host", "arm.sim.test")
            .header("authorization", format!("Bearer {arm}"))
            .header("content-type", "application/json")
            .body(Body::from(r#"{"location":"local"}"#))?;
        let made = player.stamp.send(made).await?.context("no service runs")?;
        ensure!(made.status().is_success(), "{made:?}");
        let filled = |text: &str| {
            text.replace("{c}", &format!("{group}/{kind}/c1"))
                .replace("{g}", &group)
                .replace("{n}", &nodes)
                .replace("{s}", SUBSCRIPTION)
                .replace("{t}", TENANT)
        };
        let rows: Vec<Row<'_>> = TABLE
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(Row::of)
            .collect::<Result<_>>()?;
        ensure!(rows.len() >= 120, "{} rows", rows.len());
        let mut wrong = Vec::new();
        for row in rows {
            let mut request = Request::builder()
                .method(row.method)
                .uri(filled(row.path))
                .header("host", "arm.sim.test");
            match row.token {
                "arm" => request = request.header("authorization", format!("Bearer {arm}")),
                "graph" => request = request.header("authorization", format!("Bearer {graph}")),
                _ => {}
            }
            match row.kind {
                "json" => request = request.header("content-type", "application/json"),
                "form" => request = request.header("content-type", "application/x-www-form-urlencoded"),
                _ => {}
            }
            let body = match row.body {
                "<64 KiB>" => format!("grant_type={}", "x".repeat(64 * 1024)),
                text => filled(text),
            };
            let before = records(&player).await?;
            let sent = format!("{} {} {}", row.method, row.path, row.body);
            let answer = player.stamp.send(request.body(Body::from(body))?).await?;
            let answer = answer.context("no service runs")?;
            let status = answer.status().as_u16();
            let has_id = answer.headers().contains_key("x-ms-request-id");
            let text = to_bytes(answer.into_body(), usize::MAX).await?;
            let text = String::from_utf8_lossy(&text).into_owned();
            let (code, target, message) = said(&text);
            let same = (status, &*code, &*target) == (row.status, row.code, row.target)
                && message.contains(row.words)
                && message.len() >= 7
                && has_id;
            if !same {
                wrong.push(format!("{sent}\n  {status} {code} {target} {message}"));
            }
            let after = records(&player).await?;
            if let Some((key, _)) = after.iter().find(|one| !before.contains(one)) {
                wrong.push(format!("{sent}\n  leaves {key}"));
            }
        }
        ensure!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
        Ok(())
    })
}
