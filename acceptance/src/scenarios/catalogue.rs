//! The version catalogue, vulnerabilities and known issues of a cluster that runs, and another catalogue that is signed, imported, and refused where it was changed. The
//! guide's commands, as they stand there.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{guide, text};
use crate::{
    clients::{Az, attempt, run},
    journal::Journal,
    stamp::Stamp,
};

pub(super) const NAME: &str = "catalogue";
const GUIDE: &str = include_str!("../../../docs/guides/catalogue.md");
/// Where the catalogue in force is told.
const IN_FORCE: &str = "/providers/Landfall.ContainerService/catalogue/stamp?api-version=2026-11-01";

pub(super) fn walk(journal: &Journal, stamp: &Stamp, az: &Az) -> Result<()> {
    let [show, cves, issues, make, import] = guide::exactly::<5>(GUIDE)?;
    let clusters: Value = az.json(&["aks", "list"])?;
    let (group, cluster) = (
        text(&clusters[0], "/resourceGroup")?,
        text(&clusters[0], "/name")?,
    );
    let variables = [("GROUP", group), ("CLUSTER", cluster)];
    let play = |script: &str| run(&mut guide::with_landfall(stamp, az, &variables, script)?);
    let of = format!("{group}/{cluster}");
    let own = journal.step(
        NAME,
        "the guide's landfall catalogue show: minors with their windows",
        || {
            let said = play(&show)?;
            for wanted in ["the one of this program", "1.36", "1.37", "containerd"] {
                ensure!(said.contains(wanted), "{wanted}: {said}");
            }
            let told = az.json(&["rest", "--method", "get", "--url", IN_FORCE])?;
            ensure!(told["source"] == "BuiltIn", "{told}");
            let offered: Vec<&Value> = minors(&told)?
                .iter()
                .filter(|minor| {
                    minor["onThisStamp"]
                        .as_array()
                        .is_some_and(|here| !here.is_empty())
                })
                .collect();
            ensure!(!offered.is_empty(), "no minor is offered: {told}");
            told["serial"].as_u64().context("no serial")
        },
    )?;
    journal.step(
        NAME,
        "the guide's landfall support cves: what the cluster's machines run is compared",
        || {
            let said = play(&cves)?;
            journal.note(&said);
            ensure!(said.contains("Compared: "), "{said}");
            let told = json(stamp, &["support", "cves", &of])?;
            let told = &told["cves"];
            ensure!(told["unread"] == serde_json::json!([]), "{told}");
            let watched = told["watched"].as_array().context("nothing is watched")?;
            for component in ["kubernetes", "etcd", "containerd", "runc", "coredns"] {
                ensure!(
                    watched.iter().any(|found| found == component),
                    "{component}: {told}"
                );
            }
            for finding in told["findings"].as_array().context("no findings")? {
                ensure!(finding["sources"][0].is_string(), "{finding}");
                ensure!(finding["remedy"].is_string(), "{finding}");
            }
            let images = told["images"].as_array().context("no images")?;
            let machines: u64 = images.iter().filter_map(|image| image["machines"].as_u64()).sum();
            ensure!(machines >= 2, "a control plane and a node: {told}");
            Ok(())
        },
    )?;
    journal.step(
        NAME,
        "the guide's landfall support issues: of all clusters, and of one, whose API is asked",
        || {
            let said = play(&issues)?;
            ensure!(said.contains(&of), "{said}");
            let told = json(stamp, &["support", "issues", &of])?;
            let one = &told["clusters"][0];
            ensure!(one["notObserved"] == serde_json::json!([]), "{one}");
            for issue in one["issues"].as_array().context("no issues")? {
                // Its API was read: nothing is left open.
                ensure!(issue["verdict"] == "Affected", "{issue}");
            }
            Ok(())
        },
    )?;
    let serial = |expected: &str| -> Result<u64> {
        let told = az.json(&["rest", "--method", "get", "--url", IN_FORCE])?;
        ensure!(told["source"] == expected, "{told}");
        told["serial"].as_u64().context("no serial")
    };
    let newer = journal.step(
        NAME,
        "the guide's key and signature: the catalogue is imported, and the service takes it",
        || {
            play(&make)?;
            let said = play(&import)?;
            ensure!(said.contains("imported, signed with"), "{said}");
            let newer = serial("Imported")?;
            ensure!(newer > own, "{newer} is in force, and was {own}");
            Ok(newer)
        },
    )?;
    journal.step(
        NAME,
        "what was changed, cut, signed by another key or is not newer is refused",
        || {
            let directory = stamp.directory.path();
            let good = std::fs::read_to_string(directory.join("catalogue.toml.signed"))?;
            let key = "landfall catalogue key other.key";
            let other = "landfall catalogue sign catalogue.toml --key other.key --out other.signed";
            play(&format!("{key}\n{other}\n"))?;
            std::fs::write(
                directory.join("changed.signed"),
                good.replacen("released = ", "released =  ", 1),
            )?;
            std::fs::write(
                directory.join("forged.signed"),
                good.replacen("issued = \"2026", "issued = \"2025", 1),
            )?;
            std::fs::write(directory.join("cut.signed"), &good[..good.len() - 100])?;
            std::fs::write(directory.join("large.signed"), vec![b'x'; 2 << 20])?;
            for (file, said) in [
                ("changed.signed", "the file is not whole"),
                ("forged.signed", "was changed after it was signed"),
                ("cut.signed", "the file is not whole"),
                ("large.signed", "at most"),
                ("other.signed", "is not trusted here"),
                ("catalogue.toml", "no signed catalogue"),
                ("catalogue.toml.signed", "is not newer than"),
            ] {
                let file = directory.join(file);
                let output = attempt(&mut stamp.landfall(&["catalogue", "import", &file.to_string_lossy()]))?;
                let told = String::from_utf8_lossy(&output.stderr).into_owned();
                ensure!(!output.status.success(), "{} was taken", file.display());
                ensure!(told.contains(said), "{}: {told}", file.display());
            }
            ensure!(serial("Imported")? == newer, "another one is in force");
            Ok(())
        },
    )?;
    journal.step(
        NAME,
        "the service is killed: the catalogue is still in force; no key is trusted: it is not",
        || {
            stamp.kill_service()?;
            run(&mut stamp.landfall(&["up"]))?;
            ensure!(serial("Imported")? == newer, "it was lost");
            let said = run(&mut stamp.landfall(&["catalogue", "trust", "--none"]))?;
            ensure!(said.contains("no key is trusted"), "{said}");
            ensure!(serial("BuiltIn")? == own, "an untrusted catalogue is in force");
            Ok(())
        },
    )
}

fn minors(told: &Value) -> Result<&Vec<Value>> {
    told["minors"]
        .as_array()
        .with_context(|| format!("no minors in {told}"))
}

/// The result of a command, as programs read it.
fn json(stamp: &Stamp, arguments: &[&str]) -> Result<Value> {
    let said = run(&mut stamp.landfall(&[arguments, &["--output", "json"]].concat()))?;
    Ok(serde_json::from_str(
        said.lines().last().context("it says nothing")?,
    )?)
}
