//! Azure's SDKs in the user's cache, a directory for each version, as clients for acceptance.
//!
//! Always true: one that is not available because no registry is reachable, or because there is no Node.js,
//! is named as skipped; one that cannot be installed for any other reason is a fault.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

/// An SDK in one version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Python,
    JavaScript,
}

/// The version that the newest Azure CLI contains, and the newest; and the newest for JavaScript.
const VERSIONS: [(Kind, &str); 3] = [
    (Kind::Python, "41.6.0"),
    (Kind::Python, "41.8.0"),
    (Kind::JavaScript, "25.5.0"),
];
/// Packages used beside the SDK for Python, pinned as well.
const PYTHON: [&str; 3] = [
    "azure-identity==1.25.1",
    "azure-mgmt-authorization==4.0.0",
    "azure-mgmt-resource==24.0.0",
];
/// Packages used beside the SDK for JavaScript.
const JAVASCRIPT: [&str; 1] = ["@azure/identity@4.14.1"];
/// Errors of pip and npm without a network.
const UNREACHED: [&str; 8] = [
    "NewConnectionError",
    "NameResolutionError",
    "ConnectTimeoutError",
    "Cannot connect to proxy",
    "Network is unreachable",
    "ENOTFOUND",
    "ECONNREFUSED",
    "ETIMEDOUT",
];

impl Kind {
    pub(crate) fn package(self) -> &'static str {
        match self {
            Self::Python => "azure-mgmt-containerservice",
            Self::JavaScript => "@azure/arm-containerservice",
        }
    }

    /// All that is installed.
    fn wanted(self, version: &str) -> Vec<String> {
        let (own, beside) = match self {
            Self::Python => (format!("{}=={version}", self.package()), &PYTHON[..]),
            Self::JavaScript => (format!("{}@{version}", self.package()), &JAVASCRIPT[..]),
        };
        let beside = beside.iter().map(|package| (*package).to_owned());
        std::iter::once(own).chain(beside).collect()
    }
}

/// A version of an SDK.
pub(crate) struct Sdk {
    pub(crate) kind: Kind,
    pub(crate) version: &'static str,
    /// The Python that has it, or the directory; or why there is none.
    pub(crate) place: Result<PathBuf, String>,
}

impl Sdk {
    /// Its argument for acceptance.
    pub(crate) fn argument(&self) -> Option<[String; 2]> {
        let place = self.place.as_ref().ok()?;
        let name = match self.kind {
            Kind::Python => "--sdk",
            Kind::JavaScript => "--sdk-js",
        };
        Some([name.to_owned(), format!("{}={}", self.version, place.display())])
    }
}

/// All versions, installed below `cache` if necessary.
pub(crate) fn installed(cache: &Path) -> Result<Vec<Sdk>> {
    VERSIONS
        .into_iter()
        .map(|(kind, version)| {
            let place = install(cache, kind, version)?;
            Ok(Sdk { kind, version, place })
        })
        .collect()
}

fn install(cache: &Path, kind: Kind, version: &str) -> Result<Result<PathBuf, String>> {
    let name = kind.package().rsplit('/').next().unwrap_or_default();
    let dir = cache.join(format!("sdk/{name}-{version}"));
    let place = match kind {
        Kind::Python => dir.join("bin/python"),
        Kind::JavaScript => dir.clone(),
    };
    // Written last: an installation that was cut short is made anew.
    let (list, whole) = (dir.join("installed"), kind.wanted(version).join("\n"));
    if std::fs::read_to_string(&list).is_ok_and(|there| there == whole) && place.exists() {
        return Ok(Ok(place));
    }
    println!(
        "installing {} {version} into {} (about half a minute)",
        kind.package(),
        dir.display()
    );
    if dir.exists() {
        std::fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    let mut command = match kind {
        Kind::Python => {
            let made = Command::new("python3").args(["-m", "venv"]).arg(&dir).status();
            if !made.context("cannot run python3")?.success() {
                bail!("python3 makes no environment at {}", dir.display());
            }
            let mut pip = Command::new(dir.join("bin/pip"));
            pip.args([
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--retries",
                "1",
            ]);
            pip
        }
        Kind::JavaScript => {
            std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
            let mut npm = Command::new("npm");
            npm.args([
                "install",
                "--silent",
                "--no-audit",
                "--no-fund",
                "--fetch-retries=1",
                "--loglevel=error",
            ])
            .arg("--prefix")
            .arg(&dir);
            npm
        }
    };
    let output = match command.args(kind.wanted(version)).stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Err(format!(
                "there is no {} here",
                command.get_program().to_string_lossy()
            )));
        }
        Err(error) => return Err(error).context("cannot install it"),
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        if UNREACHED.iter().any(|words| said.contains(words)) {
            return Ok(Err("no registry can be reached".to_owned()));
        }
        bail!(
            "{} {version} cannot be installed: {}",
            kind.package(),
            said.trim()
        );
    }
    std::fs::write(&list, whole).with_context(|| format!("cannot write {}", list.display()))?;
    Ok(Ok(place))
}
