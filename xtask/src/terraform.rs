//! Terraform and its provider `azurerm` in the user's cache, compiled from their Go modules: there is no registry in a test.
//!
//! Always true: a directory's name follows from the inputs of its program (versions and sums, toolchain,
//! flags), and it has that name only once it is complete; a killed build continues where it stopped, as Go
//! keeps each compiled package.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

/// Terraform's name for the provider's program.
const PROVIDER: &str = "terraform-provider-azurerm";
/// The provider's module, which is its program. Module proxies do not serve its tagged versions, so `acceptance/terraform` pins a commit.
const PROVIDER_MODULE: &str = "github.com/hashicorp/terraform-provider-azurerm";
/// Terraform's program, and its module.
const PROGRAM: &str = "terraform";
const MODULE: &str = "github.com/hashicorp/terraform";
/// The last version that is one module. Later ones take parts of themselves from folders beside them, and a module proxy has no such folders.
const VERSION: &str = "v1.5.7";
/// The compiler's flags: no debug information.
const FLAGS: &[&str] = &[
    "-trimpath",
    "-buildvcs=false",
    "-mod=readonly",
    "-gcflags=all=-dwarf=false",
    "-ldflags=-s -w",
];

/// The directory with the provider, compiled if necessary.
pub(crate) fn provider(cache: &Path) -> Result<PathBuf> {
    let module = crate::top().join("acceptance/terraform");
    let mut parts = Vec::new();
    for name in ["go.mod", "go.sum"] {
        let path = module.join(name);
        parts.push(std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
    }
    let place = Place::of(&cache.join("azurerm"), &parts)?;
    place.have(PROVIDER, "once; it takes an hour or more on 2 cores", || {
        compile(&module, PROVIDER_MODULE, &place.unfinished.join(PROVIDER))
    })?;
    Ok(place.dir)
}

/// Terraform: the one on the path, or OpenTofu; compiled if there is neither.
pub(crate) fn program(cache: &Path) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
    if let Some(found) = [PROGRAM, "tofu"].into_iter().find_map(|name| found(&dirs, name)) {
        return Ok(found);
    }
    let pinned = format!("{MODULE}@{VERSION}");
    let place = Place::of(&cache.join(PROGRAM), &[pinned.clone().into_bytes()])?;
    place
        .have(PROGRAM, "once; some minutes", || {
            // Further dependencies follow from its own go.mod; Go's checksum database verifies all of them.
            let go_mod = place.unfinished.join("go.mod");
            std::fs::write(
                &go_mod,
                "module landfall.dev/acceptance/terraform/cli\n\ngo 1.24.0\n",
            )
            .with_context(|| format!("cannot write {}", go_mod.display()))?;
            run(crate::go(&place.unfinished).args(["get", "-tool", &pinned]))?;
            compile(&place.unfinished, MODULE, &place.unfinished.join(PROGRAM))
        })
        .with_context(|| {
            format!("there is no {PROGRAM} on the PATH and {VERSION} cannot be compiled; install one")
        })?;
    Ok(place.dir.join(PROGRAM))
}

/// Where a program is, or will be.
struct Place {
    dir: PathBuf,
    /// The place of an incomplete one.
    unfinished: PathBuf,
}

impl Place {
    fn of(under: &Path, parts: &[Vec<u8>]) -> Result<Self> {
        let toolchain = crate::output(Command::new("go").arg("version"))
            .context("Terraform's programs are compiled with Go; install it")?;
        let key = key(parts, &toolchain);
        Ok(Self {
            dir: under.join(&key),
            unfinished: under.join(format!("{key}.unfinished")),
        })
    }

    /// Has the program there.
    fn have(&self, name: &str, how_long: &str, make: impl FnOnce() -> Result<()>) -> Result<()> {
        let is_there = || self.dir.join(name).is_file();
        if is_there() {
            return Ok(());
        }
        println!("compiling {name} into {} ({how_long})", self.dir.display());
        std::fs::create_dir_all(&self.unfinished)
            .with_context(|| format!("cannot create {}", self.unfinished.display()))?;
        make()?;
        match std::fs::rename(&self.unfinished, &self.dir) {
            // Another process completed it at the same time.
            Err(_) if is_there() => Ok(()),
            other => other.with_context(|| format!("cannot create {}", self.dir.display())),
        }
    }
}

fn compile(module: &Path, package: &str, program: &Path) -> Result<()> {
    run(crate::go(module)
        .arg("build")
        .args(FLAGS)
        .arg("-o")
        .arg(program)
        .arg(package))
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().context("cannot run go")?;
    if !status.success() {
        bail!("go ended with {status}; its output is above. When repeated, it continues where it stopped");
    }
    Ok(())
}

/// The hash of a program's inputs.
fn key(parts: &[Vec<u8>], toolchain: &str) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(Sha256::digest(part));
    }
    hash.update(toolchain);
    hash.update(FLAGS.join("\n"));
    hex::encode(&hash.finalize()[..8])
}

/// A program of this name in one of some directories.
fn found(dirs: &[PathBuf], name: &str) -> Option<PathBuf> {
    let can_be_run = |program: &PathBuf| {
        let found = program.metadata();
        found.is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    dirs.iter().map(|dir| dir.join(name)).find(can_be_run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_pin_or_toolchain_is_another_place() {
        let part = |text: &str| vec![text.as_bytes().to_vec()];
        let here = key(&part("a"), "go1");
        assert_eq!((here.len(), &here), (16, &key(&part("a"), "go1")));
        for other in [key(&part("b"), "go1"), key(&part("a"), "go2")] {
            assert_ne!(here, other);
        }
    }

    #[test]
    fn a_program_is_there_once_it_is_whole() {
        let cache = tempfile::tempdir().unwrap();
        let place = Place {
            dir: cache.path().join("key"),
            unfinished: cache.path().join("key.unfinished"),
        };
        let make = || -> Result<()> { Ok(std::fs::write(place.unfinished.join("p"), "whole")?) };
        place.have("p", "", || bail!("killed")).unwrap_err();
        assert!(!place.dir.exists());
        place.have("p", "", make).unwrap();
        assert!(place.dir.join("p").is_file() && !place.unfinished.exists());
        place.have("p", "", || bail!("made twice")).unwrap();
    }

    #[test]
    fn only_what_can_be_run_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let (dirs, program) = (vec![dir.path().to_owned()], dir.path().join("p"));
        assert_eq!(found(&dirs, "p"), None);
        std::fs::write(&program, "").unwrap();
        let mode = |mode| std::fs::set_permissions(&program, std::fs::Permissions::from_mode(mode)).unwrap();
        mode(0o644);
        assert_eq!(found(&dirs, "p"), None);
        mode(0o755);
        assert_eq!(found(&dirs, "p"), Some(program.clone()));
    }

    #[test]
    fn the_provider_that_is_pinned_is_one_that_a_proxy_serves() {
        let pinned = |text: &str, line: &str| {
            text.lines()
                .find(|own| own.trim().starts_with(line))
                .map(str::to_owned)
        };
        let module = format!("{PROVIDER_MODULE} v");
        let asked = pinned(include_str!("../../acceptance/terraform/go.mod"), &module).unwrap();
        let version = asked.split_whitespace().nth(1).unwrap();
        // A commit: time and the begin of its hash.
        assert_eq!(version.split('-').count(), 3, "{version}");
        let sums = include_str!("../../acceptance/terraform/go.sum");
        assert!(
            sums.contains(&format!("{PROVIDER_MODULE} {version} h1:")),
            "{version}"
        );
    }
}
