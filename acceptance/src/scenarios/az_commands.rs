//! Every command below `az aks` against a stamp: it works, or fails with an error of the stamp or of the
//! client, and never with a traceback. The result of each is a column of `az_commands.tsv`, from which a page
//! of the reference is made.
//!
//! Runs only when it is requested by name: most commands wait for an operation. `RECORD=1` writes the results
//! instead of comparing them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::Path,
};

use anyhow::{Context as _, Result, ensure};

use super::GROUP;
use crate::{
    clients::Az,
    journal::Journal,
    loaded::{Answer, Loaded},
    stamp::Stamp,
};

/// The name of this scenario.
pub(super) const NAME: &str = "az-commands";
const TABLE: &str = include_str!("../../az_commands.tsv");
const CLUSTER: &str = "commands";

/// The result of a command, in a word.
fn outcome(answer: &Answer) -> String {
    if answer.code == 0 {
        return "works".to_owned();
    }
    let said = answer.err.as_str();
    // The client connects to a fixed host of its own, which is not reachable from here.
    if ["NameResolutionError", "urlopen error"]
        .iter()
        .any(|word| said.contains(word))
    {
        return "elsewhere".to_owned();
    }
    if said.contains("Traceback (most recent call last)") {
        return format!("TRACEBACK: {}", said.lines().last().unwrap_or_default());
    }
    // `(Code) message`, as the client shows an error response.
    let code = said.split('(').skip(1).find_map(|rest| {
        let (code, rest) = rest.split_once(") ")?;
        let is_code = code.len() > 3 && code.starts_with(|c: char| c.is_ascii_uppercase());
        (is_code && code.chars().all(|c| c.is_ascii_alphanumeric()) && !rest.is_empty())
            .then(|| code.to_owned())
    });
    code.unwrap_or_else(|| "client".to_owned())
}

pub(super) fn walk(journal: &Journal, stamp: &Stamp, az: &Az) -> Result<()> {
    let loaded = Loaded::start(az)?;
    let lines: Vec<Vec<&str>> = TABLE
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split('\t').collect())
        .collect();
    journal.step(NAME, "the table has every command that there is", || {
        let real = loaded.run(&[])?.names;
        let real: BTreeSet<&str> = real.iter().map(String::as_str).collect();
        let own: BTreeSet<String> = lines.iter().map(|line| format!("aks {}", line[0])).collect();
        let own: BTreeSet<&str> = own.iter().map(String::as_str).collect();
        ensure!(own == real, "different: {:?}", own.symmetric_difference(&real));
        Ok(())
    })?;
    az.json(&["group", "create", "--name", GROUP, "--location", "local"])?;
    let subscription = az.json(&["account", "show"])?["id"]
        .as_str()
        .context("no subscription")?
        .to_owned();
    let subscription = format!("/subscriptions/{subscription}");
    let directory = stamp.directory.path().to_string_lossy().into_owned();
    let id = format!(
        "{subscription}/resourceGroups/{GROUP}/providers/Microsoft.ContainerService/managedClusters/{CLUSTER}"
    );
    let mut came: BTreeMap<&str, String> = BTreeMap::new();
    for line in &lines {
        let [command, arguments, expected, ..] = line.as_slice() else {
            anyhow::bail!("a line of the table is malformed: {line:?}");
        };
        let machine = if arguments.contains("{machine}") {
            machine_of(az)?
        } else {
            String::new()
        };
        let words: Vec<String> = format!("aks {command} {arguments}")
            .split_whitespace()
            .map(|word| {
                let word = word
                    .replace("{g}", GROUP)
                    .replace("{c}", CLUSTER)
                    .replace("{id}", &id);
                word.replace("{sub}", &subscription)
                    .replace("{d}", &directory)
                    .replace("{machine}", &machine)
            })
            .collect();
        let step = format!("az aks {command}");
        let mut found = String::new();
        let recording = std::env::var_os("RECORD").is_some();
        journal
            .step(NAME, &step, || {
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                let answer = loaded.run(&words)?;
                found = outcome(&answer);
                ensure!(
                    recording || found == *expected,
                    "{found}, and the table says {expected}: {}",
                    answer.err
                );
                ensure!(!found.starts_with("TRACEBACK"), "{}", answer.err);
                Ok(())
            })
            .or_else(|error| if recording { Ok(()) } else { Err(error) })?;
        came.insert(command, found);
    }
    if std::env::var_os("RECORD").is_some() {
        record(&came)?;
    }
    Ok(())
}

/// A node of the second pool.
fn machine_of(az: &Az) -> Result<String> {
    let machines = az.json(&[
        "aks",
        "machine",
        "list",
        "--resource-group",
        GROUP,
        "--cluster-name",
        CLUSTER,
        "--nodepool-name",
        "np2",
    ])?;
    Ok(machines[0]["name"]
        .as_str()
        .context("np2 has no machine")?
        .to_owned())
}

fn record(came: &BTreeMap<&str, String>) -> Result<()> {
    // The checkout in whose top folder this runs, regardless of where it was compiled.
    let path = Path::new("acceptance/az_commands.tsv");
    let mut text = String::new();
    for line in TABLE.lines() {
        let mut cells: Vec<&str> = line.split('\t').collect();
        if let Some(found) = came.get(cells[0]) {
            cells[2] = found;
        }
        writeln!(text, "{}", cells.join("\t"))?;
    }
    std::fs::write(path, text)?;
    Ok(())
}
