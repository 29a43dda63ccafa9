//! The state of support of a cluster, with the commands of the guide.

use anyhow::{Result, ensure};
use serde_json::Value;

use super::{GROUP, guide, workload::Cluster};
use crate::{
    clients::{Az, run},
    journal::Journal,
    stamp::Stamp,
};

/// The commands are run verbatim.
const GUIDE: &str = include_str!("../../../docs/guides/support.md");

pub(super) fn walk(journal: &Journal, stamp: &Stamp, az: &Az, cluster: &Cluster) -> Result<()> {
    let [status, moments, scope, policy, _] = guide::exactly(GUIDE)?;
    let variables = [("GROUP", GROUP), ("CLUSTER", cluster.name)];
    let play = |script: &str| run(&mut guide::with_landfall(stamp, az, &variables, script)?);
    journal.step("support", "the guide's landfall support status", || {
        let told = play(&status)?;
        let name = format!("{GROUP}/{} is ", cluster.name);
        ensure!(
            told.contains(&name) && told.contains("by the policies of aks"),
            "{told}"
        );
        ensure!(told.contains("CLUSTER") && told.contains("STATE"), "{told}");
        Ok(())
    })?;
    journal.step(
        "support",
        "three years on its version is deprecated by the policies of arc; a moment ago it was as it is now",
        || {
            let told = play(&moments)?;
            ensure!(told.contains("OutOfSupport V4"), "{told}");
            let last = told.lines().last().unwrap_or_default();
            let past: Value = serde_json::from_str(last)?;
            let past = &past["clusters"][0];
            ensure!(past["replay"]["of"] == "past", "{past}");
            ensure!(past["state"] != "OutOfSupport", "{past}");
            Ok(())
        },
    )?;
    journal.step("support", "the guide's landfall support scope", || {
        let told = play(&scope)?;
        ensure!(
            told.contains("NotCovered") && told.contains("how to use Kubernetes"),
            "{told}"
        );
        let last = told.lines().last().unwrap_or_default();
        let scope: Value = serde_json::from_str(last)?;
        ensure!(scope["scope"]["profile"] == "arc", "{scope}");
        Ok(())
    })?;
    journal.step(
        "support",
        "deadlines are told, and nothing is done, unless somebody says otherwise",
        || {
            let told = play(&policy)?;
            ensure!(told.contains("Deadlines are told, and nothing is done"), "{told}");
            Ok(())
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guide_has_the_blocks_that_are_run() {
        let [status, moments, scope, policy, archive] = guide::exactly::<5>(GUIDE).unwrap();
        assert!(policy.contains("support policy"), "{policy}");
        assert!(
            archive.contains("support archive \"$GROUP/$CLUSTER\""),
            "{archive}"
        );
        assert!(status.contains("support status \"$GROUP/$CLUSTER\""), "{status}");
        assert!(moments.contains("--profile arc --at"), "{moments}");
        assert!(scope.contains("support scope"), "{scope}");
    }
}
