//! kubelogin in the user's cache, built from its Go module: the program that signs in to clusters with
//! directory integration, for acceptance.
//!
//! Always true: its version and its sources are pinned beside this program (`xtask/kubelogin`); the
//! directory's name follows from them, so another version is another directory.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, bail};

const MODULE: &str = "github.com/Azure/kubelogin";
const GO_MOD: &str = include_str!("../kubelogin/go.mod");
const GO_SUM: &str = include_str!("../kubelogin/go.sum");
/// Go's errors without a network.
const UNREACHED: [&str; 4] = [
    "no such host",
    "network is unreachable",
    "connection refused",
    "i/o timeout",
];

/// The program, built if necessary; or why there is none.
pub(crate) fn built(cache: &Path) -> Result<Result<PathBuf, String>> {
    let version = version().context("xtask/kubelogin/go.mod names no version of kubelogin")?;
    let mut key = DefaultHasher::new();
    (GO_MOD, GO_SUM).hash(&mut key);
    let dir = cache.join(format!("kubelogin/{version}-{:016x}", key.finish()));
    let program = dir.join("kubelogin");
    if program.is_file() {
        return Ok(Ok(program));
    }
    println!(
        "building kubelogin {version} into {} (about a minute)",
        dir.display()
    );
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    for (name, content) in [("go.mod", GO_MOD), ("go.sum", GO_SUM)] {
        let path = dir.join(name);
        std::fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
    }
    // The file has its name only once it is complete.
    let part = dir.join("kubelogin.part");
    let mut go = crate::go(&dir);
    go.args(["build", "-trimpath", "-mod=readonly", "-ldflags=-s -w", "-o"])
        .arg(&part)
        .arg(MODULE)
        .stdin(Stdio::null());
    let output = match go.output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Err("there is no go here".to_owned()));
        }
        Err(error) => return Err(error).context("cannot run go"),
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        if UNREACHED.iter().any(|words| said.contains(words)) {
            return Ok(Err("no module proxy can be reached".to_owned()));
        }
        bail!("kubelogin {version} cannot be built: {}", said.trim());
    }
    std::fs::rename(&part, &program).with_context(|| format!("cannot write {}", program.display()))?;
    Ok(Ok(program))
}

/// The version that is pinned.
fn version() -> Option<&'static str> {
    let line = GO_MOD
        .lines()
        .find(|line| line.contains(MODULE) && line.contains(" v"))?;
    line.split_whitespace().find(|word| word.starts_with('v'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_one_that_people_are_told_of() {
        let told = include_str!("../../landfall/src/commands/kubelogin.rs");
        let version = version().unwrap();
        assert!(told.contains(&format!("\"{version}\"")), "{version}");
    }
}
