//! `cargo xtask docs`: the pages under `docs/reference` that are made from the code, so that they cannot lie.
//!
//! | page | from |
//! |---|---|
//! | `errors/{Code}.md`, `errors/README.md` | `arm_wire::ERROR_CODES` |
//! | `compatibility.md` | `providers_containerservice::compatibility()` |
//! | `addons.md` | `cluster_addons::page()` |
//! | `cli.md` | the binary's own command line |

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result, bail};
use arm_wire::{ERROR_CODES, ErrorCode};

const HEAD: &str =
    "<!-- Written by `cargo xtask docs`. Change the code it comes from, not this page. -->\n\n";

/// Writes every page, or checks that each is as it would be written.
pub(crate) fn write(check: bool) -> Result<()> {
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

/// Generated pages that are there now.
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

fn pages() -> Result<BTreeMap<String, String>> {
    let mut pages: BTreeMap<String, String> = ERROR_CODES
        .iter()
        .map(|code| (format!("errors/{}.md", code.code), error_page(code)))
        .collect();
    pages.insert("errors/README.md".into(), error_index());
    pages.insert("addons.md".into(), format!("{HEAD}{}", cluster_addons::page()));
    // This page says in its own words where it comes from.
    pages.insert(
        "compatibility.md".into(),
        format!(
            "{}
",
            providers_containerservice::compatibility().trim_end()
        ),
    );
    let cli =
        crate::output(crate::cargo().args(["run", "--quiet", "--package", "landfall", "--", "reference"]))?;
    pages.insert("cli.md".into(), format!("{HEAD}{}\n", cli.trim_end()));
    Ok(pages)
}

fn error_page(code: &ErrorCode) -> String {
    format!(
        "{HEAD}# {}\n\nHTTP status {}.\n\n**When.** {}\n\n**What to do.** {}\n",
        code.code, code.status, code.when, code.remedy
    )
}

fn error_index() -> String {
    let mut codes: Vec<&ErrorCode> = ERROR_CODES.iter().collect();
    codes.sort_by_key(|code| code.code);
    let mut page = format!(
        "{HEAD}# Error codes\n\nEvery error of the ARM API is `{{\"error\":{{\"code\",\"message\",\"target\"?,\"details\"?}}}}` with one of these codes.\n\n\
         | code | status | when |\n|---|---|---|\n"
    );
    for code in codes {
        page.push_str(&format!(
            "| [{0}]({0}.md) | {1} | {2} |\n",
            code.code, code.status, code.when
        ));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_one_page() {
        let mut names: Vec<_> = ERROR_CODES.iter().map(|code| code.code).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(
            ERROR_CODES
                .iter()
                .all(|code| error_index().contains(&format!("[{}]", code.code)))
        );
    }
}
