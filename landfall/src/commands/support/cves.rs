//! `landfall support cves`: vulnerabilities of what a cluster's machines run.

use std::collections::BTreeSet;

use anyhow::Result;
use owo_colors::OwoColorize as _;
use serde_json::{Value, json};

use super::{Context, items, joined, report, text};
use crate::printer;

pub(super) async fn run(context: &Context, cluster: Option<&str>) -> Result<()> {
    let found = report(context, cluster, "cves").await?;
    context
        .printer
        .result(&json!({ "event": "result", "cves": found }), || page(&found));
    Ok(())
}

fn coloured(duty: &str) -> String {
    match duty {
        "Service" => "the service's".red().to_string(),
        "Upgrade" => "yours: upgrade".yellow().to_string(),
        "Young" => "nobody's yet".to_owned(),
        other => other.to_owned(),
    }
}

fn page(found: &Value) -> String {
    let catalogue = &found["catalogue"];
    let mut page = format!(
        "{}/{}, by catalogue {} of {}\n\n",
        text(found, "resourceGroup"),
        text(found, "cluster"),
        catalogue["serial"],
        text(catalogue, "issued")
    );
    let rows: Vec<Vec<String>> = items(found, "findings")
        .map(|finding| {
            vec![
                text(finding, "id").to_owned(),
                text(finding, "component").to_owned(),
                text(finding, "version").to_owned(),
                text(finding, "fixedIn").to_owned(),
                text(finding, "fixedOn").to_owned(),
                joined(finding, "on"),
                coloured(text(finding, "duty")),
            ]
        })
        .collect();
    if rows.is_empty() {
        page.push_str("Nothing is known against what its machines run.\n");
    } else {
        page.push_str(&printer::table(
            &[
                "CVE",
                "COMPONENT",
                "VERSION",
                "FIXED IN",
                "SINCE",
                "ON",
                "WHOSE TURN",
            ],
            rows,
        ));
        page.push('\n');
        let remedies: BTreeSet<&str> = items(found, "findings")
            .map(|finding| text(finding, "remedy"))
            .collect();
        for remedy in remedies {
            page.push_str(&format!("\n{remedy}\n"));
        }
    }
    page.push_str(&format!("\nCompared: {}.\n", joined(found, "watched")));
    for image in items(found, "images") {
        page.push_str(&format!(
            "Not compared, in the node image {} of Kubernetes {}: {} other packages, {} libraries of programs{}.\n",
            text(image, "nodeImageVersion"),
            text(image, "kubernetesVersion"),
            image["otherPackages"],
            image["libraries"],
            match joined(image, "unreadable").as_str() {
                "-" => String::new(),
                components => format!(", and {components}, whose versions cannot be read"),
            }
        ));
    }
    for unread in items(found, "unread").filter_map(Value::as_str) {
        page.push_str(&format!("{} {unread}\n", "Not read:".yellow()));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(found: &Value) -> String {
        anstream::adapter::strip_str(&page(found)).to_string()
    }

    #[test]
    fn the_page_tells_whose_turn_it_is_and_what_was_not_looked_at() {
        let page = plain(&json!({
            "cluster": "c", "resourceGroup": "g", "catalogue": { "serial": 5, "issued": "2026-11-30" },
            "findings": [{
                "id": "CVE-2026-41579", "component": "runc", "version": "1.4.2", "fixedIn": "1.4.3", "fixedOn": "2026-06-13",
                "on": ["node"], "duty": "Service", "remedy": "This stamp has no image with it."
            }],
            "watched": ["etcd", "runc"],
            "images": [{
                "kubernetesVersion": "1.36.3", "nodeImageVersion": "AKSDebian-2026.11.28", "otherPackages": 99, "libraries": 300,
                "unreadable": []
            }],
            "unread": ["the node image of Kubernetes 1.37.1: it is damaged"],
        }));
        for wanted in [
            "g/c, by catalogue 5 of 2026-11-30",
            "the service's",
            "This stamp has no image with it.",
            "Compared: etcd, runc.",
            "AKSDebian-2026.11.28 of Kubernetes 1.36.3: 99 other packages, 300 libraries of programs.",
            "Not read: the node image of Kubernetes 1.37.1",
        ] {
            assert!(page.contains(wanted), "{wanted}: {page}");
        }
        let nothing = plain(&json!({ "findings": [], "watched": [], "catalogue": {} }));
        assert!(nothing.contains("Nothing is known against"), "{nothing}");
    }
}
