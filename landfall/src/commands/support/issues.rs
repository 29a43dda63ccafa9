//! `landfall support issues`: known issues of a cluster, or of all.

use anyhow::Result;
use owo_colors::OwoColorize as _;
use providers_containerservice::HISTORY_NAMESPACE;
use serde_json::{Value, json};

use super::{Context, client, items, joined, report, text};
use crate::{arm::OWN, printer};

pub(super) async fn run(context: &Context, cluster: Option<&str>) -> Result<()> {
    let found = match cluster {
        Some(_) => vec![report(context, cluster, "knownIssues").await?],
        None => {
            let arm = client(context).await?;
            let path = format!("{}/providers/{HISTORY_NAMESPACE}/knownIssues", arm.subscription());
            arm.list(&path, OWN, &[]).await?
        }
    };
    context
        .printer
        .result(&json!({ "event": "result", "clusters": found }), || page(&found));
    Ok(())
}

fn page(clusters: &[Value]) -> String {
    if clusters.is_empty() {
        return "There is no cluster.\n".to_owned();
    }
    let mut page = String::new();
    for found in clusters {
        page.push_str(&format!(
            "{}/{}\n\n",
            text(found, "resourceGroup"),
            text(found, "cluster")
        ));
        let rows: Vec<Vec<String>> = items(found, "issues")
            .map(|issue| {
                let verdict = match text(issue, "verdict") {
                    "Affected" => "affected".yellow().to_string(),
                    _ => "possible".to_owned(),
                };
                vec![
                    text(issue, "id").to_owned(),
                    verdict,
                    joined(issue, "versions"),
                    joined(issue, "fixedIn"),
                    text(issue, "title").to_owned(),
                ]
            })
            .collect();
        if rows.is_empty() {
            page.push_str("No known issue of what it runs.\n\n");
            continue;
        }
        page.push_str(&printer::table(
            &["ISSUE", "VERDICT", "RUNS", "FIXED IN", "WHAT"],
            rows,
        ));
        page.push_str("\n\n");
        for issue in items(found, "issues") {
            page.push_str(&format!(
                "{}: {}\n    Meanwhile ({}): {}\n    {} {}\n",
                text(issue, "id"),
                text(issue, "impact"),
                text(issue, "mitigation"),
                text(issue, "workaround"),
                text(issue, "timeline"),
                joined(issue, "upstream"),
            ));
        }
        for unseen in items(found, "notObserved").filter_map(Value::as_str) {
            page.push_str(&format!("{} {unseen}\n", "Not observed:".yellow()));
        }
        page.push('\n');
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_tells_what_one_meets_and_what_one_can_do() {
        let page = page(&[
            json!({
                "cluster": "c", "resourceGroup": "g", "notObserved": ["/apis/x: 404"],
                "issues": [{
                    "id": "kubernetes-139823", "verdict": "Affected", "versions": ["1.36.2"], "fixedIn": ["1.36.3"], "title": "It grows",
                    "impact": "Less memory.", "workaround": "Restart.", "mitigation": "tenant", "timeline": "Fixed in 1.36.3.",
                    "upstream": ["https://github.com/kubernetes/kubernetes/issues/139823"],
                }],
            }),
            json!({ "cluster": "d", "resourceGroup": "g", "issues": [] }),
        ]);
        let page = anstream::adapter::strip_str(&page).to_string();
        for wanted in [
            "g/c",
            "affected",
            "Meanwhile (tenant): Restart.",
            "Fixed in 1.36.3. https://github.com/kubernetes/kubernetes/issues/139823",
            "Not observed: /apis/x: 404",
            "g/d\n\nNo known issue",
        ] {
            assert!(page.contains(wanted), "{wanted}: {page}");
        }
        assert!(super::page(&[]).contains("no cluster"));
    }
}
