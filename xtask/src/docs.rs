//! `cargo xtask docs`: the pages under `docs/reference` that are made from the code, so that they are always
//! true. The binary makes them (`landfall/src/reference`); here they are written or compared.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::az_commands;

/// Writes every page, or checks that each is as it would be written. Builds the binary first.
pub(crate) fn write(check: bool) -> Result<()> {
    crate::build(&["--package", "landfall"])?;
    compare(check)
}

/// As [`write`], with the binary that is there: built alone it would be compiled with other features than with the workspace, once more.
pub(crate) fn compare(check: bool) -> Result<()> {
    let reference = crate::top().join("docs/reference");
    let pages = pages()?;
    let mut stale = Vec::new();
    for (name, text) in &pages {
        let path = reference.join(name);
        let present = fs::read_to_string(&path).unwrap_or_default();
        if present == *text {
            continue;
        }
        stale.push(name.clone());
        if !check {
            let dir = path.parent().context("a page has a folder")?;
            fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    // A code that is gone must not keep its page.
    for name in present(&reference)? {
        if !pages.contains_key(&name) {
            if !check {
                fs::remove_file(reference.join(&name)).with_context(|| format!("cannot remove {name}"))?;
            }
            stale.push(name);
        }
    }
    if check && !stale.is_empty() {
        bail!(
            "stale under docs/reference: {}; run `cargo xtask docs`",
            stale.join(", ")
        );
    }
    println!(
        "docs: {} pages, {} {}",
        pages.len(),
        stale.len(),
        if check { "stale" } else { "changed" }
    );
    Ok(())
}

/// The present generated pages.
fn present(reference: &Path) -> Result<Vec<String>> {
    let errors = reference.join("errors");
    if !errors.is_dir() {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(&errors).context("cannot read docs/reference/errors")? {
        let name = entry.context("cannot read docs/reference/errors")?.file_name();
        names.push(format!("errors/{}", name.to_string_lossy()));
    }
    Ok(names)
}

/// Gets the pages from the binary, which contains the code that they are made from.
fn pages() -> Result<BTreeMap<String, String>> {
    let text = crate::output(Command::new(crate::binary("landfall")).arg("reference"))?;
    let mut pages: BTreeMap<String, String> =
        serde_json::from_str(&text).context("'landfall reference' answered no JSON")?;
    pages.insert(az_commands::PAGE.to_owned(), az_commands::page()?);
    Ok(pages)
}
