//! The `landfall` binary of an earlier commit, compiled from that commit's sources in the user's cache.
//!
//! Always true: a commit's directory holds its sources whole, or not at all; its program is made by cargo from them alone.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

/// Compiles it if necessary. `commit` is what git takes for one.
pub(crate) fn landfall(cache: &Path, commit: &str) -> Result<PathBuf> {
    let asked = format!("{commit}^{{commit}}");
    let mut git = Command::new("git");
    git.args(["rev-parse", "--verify", "--quiet", "--end-of-options", &asked])
        .current_dir(crate::top());
    let id = crate::output(&mut git)
        .with_context(|| format!("--from {commit}: this repository has no such commit"))?;
    let id = id.trim();
    let dir = cache.join("earlier").join(id);
    if !dir.join("Cargo.toml").is_file() {
        sources(id, &dir)?;
    }
    let target = cache.join("earlier/target");
    println!("compiling landfall of {id} into {}", target.display());
    let status = Command::new("cargo")
        .args(["build", "--quiet", "--package", "landfall", "--bin", "landfall"])
        .current_dir(&dir)
        .env("CARGO_TARGET_DIR", &target)
        // Of the cargo that runs this task, for its own workspace.
        .env_remove("CARGO_MANIFEST_DIR")
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "landfall of {id} does not build");
    Ok(target.join("debug/landfall"))
}

/// Puts a commit's files there.
fn sources(commit: &str, dir: &Path) -> Result<()> {
    let unfinished = dir.with_extension("unfinished");
    match std::fs::remove_dir_all(&unfinished) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", unfinished.display()));
        }
        _ => {}
    }
    std::fs::create_dir_all(&unfinished)
        .with_context(|| format!("cannot create {}", unfinished.display()))?;
    let mut archive = Command::new("git")
        .args(["archive", "--format=tar", commit])
        .current_dir(crate::top())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run git")?;
    let output = archive.stdout.take().context("git has no output")?;
    let unpacked = Command::new("tar")
        .arg("-x")
        .current_dir(&unfinished)
        .stdin(output)
        .status()
        .context("cannot run tar")?;
    let archived = archive.wait().context("git archive")?;
    if !unpacked.success() || !archived.success() {
        bail!("the files of {commit} cannot be read: git {archived}, tar {unpacked}");
    }
    std::fs::rename(&unfinished, dir).with_context(|| format!("cannot create {}", dir.display()))
}
