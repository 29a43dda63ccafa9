//! The page about the commands below `az aks`, from the table of the acceptance scenario.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};

/// The page's name.
pub(crate) const PAGE: &str = "az-commands.md";

pub(crate) fn page() -> Result<String> {
    let path = crate::top().join("acceptance/az_commands.tsv");
    let table = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let lines: Vec<Vec<&str>> = table
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split('\t').collect())
        .collect();
    let mut rows: Vec<(&str, &str, &str)> = lines
        .iter()
        .map(|cells| match cells.as_slice() {
            [command, _, outcome, note] => Ok((*command, *outcome, *note)),
            _ => anyhow::bail!("{}: a line is malformed: {cells:?}", path.display()),
        })
        .collect::<Result<_>>()?;
    rows.sort_unstable();
    let works = rows.iter().filter(|(_, outcome, _)| *outcome == "works").count();
    let mut page = format!(
        "# The commands of `az aks`\n\n\
         Each command below `az aks` of the Azure CLI 2.91, as it was tried against a stamp (`acceptance/az_commands.tsv`). *works*: it did what \
         it says. A code: it ended with [that error](errors/README.md) of the service. *client*: the Azure CLI refused it itself, or wanted \
         something that is not there without asking the service. *elsewhere*: the Azure CLI speaks to a host of its own choice, not to the service. None \
         ends with a traceback because of an answer of the service.\n\n\
         {works} of {} work.\n\n| command | | |\n|---|---|---|\n",
        rows.len()
    );
    for (command, outcome, note) in rows {
        let shown = match outcome {
            "works" | "client" | "elsewhere" => outcome.to_owned(),
            code => format!("`{code}`"),
        };
        writeln!(page, "| `az aks {command}` | {shown} | {note} |")?;
    }
    Ok(page)
}
