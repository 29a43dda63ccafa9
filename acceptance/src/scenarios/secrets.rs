//! Another key takes the place of the one that seals the stamp's secrets, under a cluster that runs: the service is killed in between, a copy
//! of the store from before is put back, and the key of before is dropped. The guide's commands, as they stand there.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{guide, store, text};
use crate::{
    clients::{Az, run},
    journal::{Journal, PATIENCE, wait_for},
    stamp::Stamp,
};

const GUIDE: &str = include_str!("../../../docs/guides/secrets.md");

pub(super) fn walk(journal: &Journal, stamp: &Stamp, az: &Az) -> Result<()> {
    let [rotate, drop_key] = guide::exactly::<2>(GUIDE)?;
    let clusters: Value = az.json(&["aks", "list"])?;
    let (group, cluster) = (
        text(&clusters[0], "/resourceGroup")?,
        text(&clusters[0], "/name")?,
    );
    let serves = || -> Result<()> {
        // With credentials that are made of the cluster's keys now.
        let kubectl = stamp.kubectl(az, group, cluster)?;
        wait_for("the cluster to serve as before", PATIENCE, || {
            ensure!(!kubectl.ready_nodes()?.is_empty(), "no node is ready");
            let shown = az.json(&["aks", "show", "--resource-group", group, "--name", cluster])?;
            let state = &shown["provisioningState"];
            ensure!(state == "Succeeded", "{state}");
            Ok(())
        })
    };
    let first = sealing_keys(stamp)?;
    let [first] = first.as_slice() else {
        anyhow::bail!("there are several keys before the first rotation: {first:?}");
    };
    let first = text(first, "/name")?.to_owned();
    let before = journal.step(
        "secrets",
        "another key seals; the service is killed meanwhile, and brings it to its end when it runs again",
        || {
            let before = store::copied(stamp)?;
            run(&mut stamp.landfall(&["secrets", "rotate-sealing-key", "--no-wait"]))?;
            stamp.kill_service()?;
            run(&mut stamp.landfall(&["up"]))?;
            let seals = settled(stamp, 2)?;
            ensure!(seals != first, "the key of before seals");
            serves()?;
            Ok(before)
        },
    )?;
    journal.step("secrets", "the guide's commands: the next key", || {
        let said = run(&mut guide::with_landfall(stamp, az, &[], &rotate)?)?;
        journal.note(&said);
        ensure!(said.contains("sealing.key"), "{said}");
        settled(stamp, 3)?;
        serves()
    })?;
    journal.step(
        "secrets",
        "a copy of the store from before is put back, and its secrets are sealed with the newest key",
        || {
            stamp.kill_service()?;
            run(&mut stamp.landfall(&["store", "restore", "--at", &before.to_string(), "--yes"]))?;
            run(&mut stamp.landfall(&["up"]))?;
            settled(stamp, 3)?;
            serves()
        },
    )?;
    journal.step(
        "secrets",
        "the guide's commands: the first key is dropped, and nothing needs it",
        || {
            // It may have sealed until a moment ago.
            wait_for("the key to be dropped", PATIENCE, || {
                let variables = [("KEY", first.as_str())];
                run(&mut guide::with_landfall(stamp, az, &variables, &drop_key)?)
            })?;
            stamp.kill_service()?;
            run(&mut stamp.landfall(&["up"]))?;
            settled(stamp, 2)?;
            serves()?;
            // Of now, where those of before cannot be opened any more.
            store::copied(stamp).map(drop)
        },
    )
}

fn sealing_keys(stamp: &Stamp) -> Result<Vec<Value>> {
    let said = run(&mut stamp.landfall(&["secrets", "list", "--output", "json"]))?;
    let last: Value = serde_json::from_str(said.lines().last().context("it says nothing")?)?;
    let keys = last["sealingKeys"].as_array();
    Ok(keys.with_context(|| format!("no keys in {last}"))?.clone())
}

/// Waits until everything is sealed with the newest of so many keys: its id.
fn settled(stamp: &Stamp, number: usize) -> Result<String> {
    wait_for("everything to be sealed with the newest key", PATIENCE, || {
        let keys = sealing_keys(stamp)?;
        ensure!(
            keys.len() == number,
            "{} keys, not {number}: {keys:?}",
            keys.len()
        );
        let (seals, others) = keys.split_last().context("there is no key")?;
        for key in others {
            ensure!(key["properties"]["state"] == "kept", "{key}");
        }
        ensure!(seals["properties"]["state"] == "seals", "{seals}");
        Ok(text(seals, "/name")?.to_owned())
    })
}
