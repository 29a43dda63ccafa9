//! Metrics, alerts, usage and certificates, with the commands of the guide.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::guide;
use crate::{
    clients::{Az, attempt, run},
    journal::{Journal, wait_for},
    stamp::Stamp,
};

pub(super) const NAME: &str = "monitoring";
/// The first cluster of a stamp, and its group.
const FIRST: &str = "landfall";
/// The commands are run verbatim.
const GUIDE: &str = include_str!("../../../docs/guides/monitoring.md");

pub(super) fn walk(journal: &Journal, stamp: &Stamp, az: &Az) -> Result<()> {
    let [metrics, listen, alerts, usage, certificates] = guide::exactly(GUIDE)?;
    let address = format!("127.0.0.1:{}", base_testkit::port());
    let state = stamp.state();
    let state = state.to_str().context("a path that is no text")?;
    let variables = [
        ("GROUP", FIRST),
        ("CLUSTER", FIRST),
        ("METRICS", address.as_str()),
        ("STATE", state),
    ];
    let play = |script: &str| run(&mut guide::with_landfall(stamp, az, &variables, script)?);
    journal.step(
        NAME,
        "the guide's landfall metrics: the first cluster is in it",
        || {
            let told = play(&metrics)?;
            ensure!(
                told.contains("landfall_clusters{state=\"Succeeded\",power=\"Running\"} "),
                "{told}"
            );
            let page = run(&mut stamp.landfall(&["metrics"]))?;
            for name in [
                "landfall_arm_requests_total{",
                // Whatever a service has done since it was started, it has looked at its clusters.
                "landfall_loop_effects_total{effect=\"api_look\",result=\"ok\"}",
                "landfall_agents{state=\"connected\"} ",
                "landfall_store_commits_total{result=\"ok\"} ",
                "landfall_metrics_left_out 0",
            ] {
                ensure!(page.contains(name), "no {name} in {page}");
            }
            Ok(())
        },
    )?;
    journal.step(
        NAME,
        "the guide's --metrics-listen: curl gets the page with the token, and nothing without it",
        || {
            // Reads the counts of calls: the service is started anew.
            drop(stamp.landfall(&["up"]));
            let told = play(&listen)?;
            ensure!(told.contains("landfall_info{version="), "{told}");
            let mut without = std::process::Command::new("curl");
            let ca = format!("{state}/ca.pem");
            without.args([
                "--silent",
                "--show-error",
                "--output",
                "/dev/null",
                "--write-out",
                "%{http_code}",
            ]);
            without.args(["--cacert", &ca, &format!("https://{address}/metrics")]);
            let code = run(&mut without)?;
            ensure!(code.trim() == "401", "without a token: {code}");
            Ok(())
        },
    )?;
    journal.step(NAME, "the guide's landfall alerts: nothing is critical", || {
        let told = play(&alerts)?;
        let last = told.lines().last().context("landfall alerts printed nothing")?;
        let all: Value = serde_json::from_str(last)?;
        let alerts = all["alerts"].as_array().context("no alerts in the result")?;
        let critical: Vec<&Value> = alerts
            .iter()
            // How full the disk of the host is, is not the stamp's doing.
            .filter(|alert| alert["rule"] != "host-disk")
            .filter(|alert| alert["severity"] == "Critical" && alert["state"] == "Open")
            .collect();
        ensure!(critical.is_empty(), "{critical:?}");
        // In ARM as well, and a name that there is not is said to be none.
        let subscription = az.json(&["account", "show", "--query", "id"])?;
        let subscription = subscription.as_str().context("az account show told no id")?;
        let path = format!("/subscriptions/{subscription}/providers/Landfall.ContainerService");
        let get = |rest: &str| az.json(&["rest", "--method", "get", "--url", &format!("{path}/{rest}")]);
        let listed = get("alerts?api-version=2026-11-01")?;
        ensure!(listed["value"].is_array(), "{listed}");
        let missing = attempt(&mut stamp.landfall(&["alerts", "no-such-alert"]))?;
        ensure!(!missing.status.success(), "an alert that there is not was shown");
        Ok(())
    })?;
    journal.step(
        NAME,
        "the guide's landfall usage: cores of the first cluster's node",
        || {
            // A change is written within a minute, here the creation of the stamp's first cluster.
            wait_for("usage", Duration::from_secs(90), || {
                let told = play(&usage)?;
                let cores = told.lines().find(|line| line.contains(",cores,"));
                let cores = cores.with_context(|| format!("no cores in {told}"))?;
                let quantity: f64 = cores.split(',').nth(5).context("no quantity")?.parse()?;
                ensure!(quantity > 0.0, "{cores}");
                Ok(())
            })
        },
    )?;
    journal.step(
        NAME,
        "the guide's landfall certificate list: of the stamp and of the cluster, and no key",
        || {
            let told = play(&certificates)?;
            for name in [
                "endpoint-ca",
                "agent-ca",
                "cluster-ca",
                "apiserver",
                "kubelet-client",
                "service-account-key",
            ] {
                ensure!(told.contains(name), "no {name} in {told}");
            }
            ensure!(!told.contains("PRIVATE KEY"), "a key is shown");
            let listed = run(&mut stamp.landfall(&["certificate", "list", FIRST, "--output", "json"]))?;
            let listed: Value = serde_json::from_str(&listed)?;
            let all = listed["certificates"].as_array().context("no certificates")?;
            let server = all.iter().find(|item| item["name"] == "apiserver");
            let server = server.context("no certificate of the API server")?;
            let time = |key: &str| -> Result<jiff::Timestamp> {
                let text = server[key]
                    .as_str()
                    .with_context(|| format!("no {key} in {server}"))?;
                Ok(text.parse()?)
            };
            ensure!(time("renewsAt")? < time("expiresAt")?, "{server}");
            Ok(())
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guide_has_the_blocks_that_are_run() {
        let [metrics, listen, alerts, usage, certificates] = guide::exactly::<5>(GUIDE).unwrap();
        for (block, says) in [
            (metrics, "landfall metrics"),
            (listen, "--metrics-listen"),
            (alerts, "landfall alerts"),
            (usage, "landfall usage"),
            (certificates, "landfall certificate list"),
        ] {
            assert!(block.contains(says), "{block}");
        }
    }
}
