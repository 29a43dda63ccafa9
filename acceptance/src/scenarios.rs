//! The walks through the product. One stamp for all; clusters side by side.

mod adversity;
mod backup;
mod dns;
mod fresh;
mod healing;
mod login;
mod maintenance;
mod plugins;
mod pools;
mod power;
mod store;
mod upgrade;
mod workload;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{Args, clients::Az, journal::Journal, stamp::Stamp};

/// The resource group of everything here.
const GROUP: &str = "acceptance";

/// All of them, in an order in which each finds what it needs.
pub(crate) fn run(args: &Args, journal: &Journal) -> Result<()> {
    if args.only.as_deref().is_none_or(|only| "fresh".contains(only)) {
        fresh::walk(args, journal)?;
    }
    // It has stamps of its own.
    if args.only.as_deref() == Some("fresh") {
        return Ok(());
    }
    let mut stamp = Stamp::new(args)?;
    journal.note(&format!("stamp {} on {}", stamp.name, stamp.listen));
    let outcome = walk(args, journal, &mut stamp);
    if let Err(error) = &outcome {
        journal.note(&format!("--- what the stamp says after: {error:#}"));
        for arguments in [&["status"][..], &["logs"][..]] {
            if let Ok(output) = crate::clients::attempt(&mut stamp.landfall(arguments)) {
                journal.note(&String::from_utf8_lossy(&output.stdout));
                journal.note(&String::from_utf8_lossy(&output.stderr));
            }
        }
    }
    if args.keep {
        journal.note(&format!(
            "kept: {} in {}",
            stamp.name,
            stamp.directory.path().display()
        ));
        std::mem::forget(stamp);
        return outcome;
    }
    let down = journal.step("stamp", "down --purge leaves nothing", || stamp.down());
    outcome.and(down)
}

fn walk(args: &Args, journal: &Journal, stamp: &mut Stamp) -> Result<()> {
    let wanted = |name: &str| args.only.as_deref().is_none_or(|only| name.contains(only));
    journal.step("stamp", "up: a cluster with one node through the ARM API", || {
        stamp.up()
    })?;
    let stamp = &*stamp;
    if wanted("up") {
        journal.step("stamp", "up again changes nothing", || {
            let pid = stamp.serve_pid()?;
            crate::clients::run(&mut stamp.landfall(&["up", "--output", "json"]))?;
            anyhow::ensure!(pid == stamp.serve_pid()?, "the service was started anew");
            Ok(())
        })?;
    }
    let az = login::walk(journal, stamp)?;
    if wanted("store") {
        store::walk(journal, stamp, &az)?;
    }
    if wanted("backup") {
        backup::walk(journal, stamp, &az)?;
    }
    if wanted("disks") {
        backup::disks(journal, stamp, &az)?;
    }
    if wanted("power") {
        power::walk(journal, stamp, &az)?;
    }
    if wanted("plugins") {
        plugins::walk(journal, stamp, &az)?;
    }
    if ![
        "workload",
        "pools",
        "maintenance",
        "upgrade",
        "healing",
        "adversity",
    ]
    .into_iter()
    .any(wanted)
    {
        return Ok(());
    }
    workload::create(journal, &az)?;
    let clusters = workload::Clusters::open(journal, stamp, &az)?;
    // What the adversities must not disturb is made by the workload.
    if ["workload", "upgrade", "adversity"].into_iter().any(wanted) {
        clusters.walk(journal)?;
    }
    if wanted("pools") {
        pools::walk(journal, &az, &clusters.kubenet)?;
    }
    if wanted("maintenance") {
        maintenance::walk(journal, &az, &clusters.kubenet)?;
    }
    if wanted("upgrade") {
        upgrade::walk(journal, stamp, &az, &clusters.kubenet)?;
    }
    if wanted("healing") {
        healing::walk(journal, stamp, &az, &clusters)?;
    }
    if wanted("adversity") {
        adversity::walk(journal, stamp, &az, &clusters)?;
    }
    workload::delete(journal, stamp, &az)
}

/// A string field of an answer.
fn text<'a>(value: &'a Value, pointer: &str) -> Result<&'a str> {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .with_context(|| format!("no {pointer} in {value}"))
}

/// `az aks …` for a cluster of the group.
fn aks(az: &Az, verb: &[&str], cluster: &str, more: &[&str]) -> Result<Value> {
    let mut arguments = vec!["aks"];
    arguments.extend(verb);
    arguments.extend(["--resource-group", GROUP, "--name", cluster]);
    arguments.extend(more);
    az.json(&arguments)
}

/// What a thread came to.
fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?
}
