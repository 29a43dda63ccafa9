//! Dependencies that no source file names. They cost compile time and suggest relations that do not exist.
//!
//! A crate is named by its identifier: macros and derives are imported by it, too. Comments do not count.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::{Dependency, Package};

/// An exception: which package depends on which, and why although it does not name it.
type Exception = (&'static str, &'static str, &'static str);

/// Dependencies that are needed for other reasons than their code.
const EXCEPTIONS: &[Exception] = &[
    (
        "agent-embedded",
        "aws-lc-rs",
        "its build script asks where the C library was built",
    ),
    (
        "agent-embedded",
        "zstd-sys",
        "its build script asks where the C library was built",
    ),
    (
        "cluster-client",
        "k8s-openapi",
        "kube compiles only with one of its versions as a feature",
    ),
];

/// The source files of a package by where they lie: `src`, `tests`, `examples`, `benches`, `build.rs`.
type Sources = BTreeMap<&'static str, Vec<String>>;

const PLACES: &[&str] = &["src", "tests", "examples", "benches", "build.rs"];

/// Dependencies of these packages that none of their files names.
pub(super) fn check(packages: &[Package]) -> Result<Vec<String>> {
    let mut sources = BTreeMap::new();
    for package in packages {
        let folder = Path::new(&package.manifest_path)
            .parent()
            .context("a manifest lies in a folder")?;
        sources.insert(package.name.as_str(), read(folder)?);
    }
    Ok(unused(packages, &sources, EXCEPTIONS))
}

/// Reads the sources of the package in this folder.
fn read(folder: &Path) -> Result<Sources> {
    let mut sources = Sources::new();
    for place in PLACES {
        let mut texts = Vec::new();
        let mut left = vec![folder.join(place)];
        while let Some(path) = left.pop() {
            if path.is_dir() {
                left.extend(entries(&path)?);
            } else if path.extension().is_some_and(|extension| extension == "rs") && path.is_file() {
                let text = fs::read_to_string(&path);
                texts.push(text.with_context(|| format!("cannot read {}", path.display()))?);
            }
        }
        sources.insert(*place, texts);
    }
    Ok(sources)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let cannot = || format!("cannot read {}", folder.display());
    let entries = fs::read_dir(folder).with_context(cannot)?;
    let paths: Result<Vec<_>, _> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
    paths.with_context(cannot)
}

/// The unused dependencies of these packages.
fn unused(packages: &[Package], sources: &BTreeMap<&str, Sources>, exceptions: &[Exception]) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = exceptions.to_vec();
    for package in packages {
        let Some(sources) = sources.get(package.name.as_str()) else {
            continue;
        };
        for dependency in &package.dependencies {
            let identifier = identifier(dependency);
            let named = |places: &[&str]| {
                let mut texts = places.iter().filter_map(|place| sources.get(*place)).flatten();
                texts.any(|text| mentions(text, &identifier))
            };
            let fault = match dependency.kind.as_deref() {
                Some("build") if named(&["build.rs"]) => continue,
                Some("dev") if named(&["src", "tests", "examples", "benches"]) => continue,
                None if named(&["src"]) => continue,
                None if named(&["tests", "examples", "benches"]) => {
                    "which only its tests name: it is one of dev-dependencies"
                }
                _ => "which no source file of it names",
            };
            let excepted = |(of, on, _): &Exception| *of == package.name && *on == dependency.name;
            if exceptions.iter().any(excepted) {
                left.retain(|exception| !excepted(exception));
                continue;
            }
            found.push(format!(
                "{} depends on {}, {fault}",
                package.name, dependency.name
            ));
        }
    }
    for (of, on, why) in left {
        found.push(format!(
            "{of} needs no exception for {on} ({why}): it names it, or does not depend on it"
        ));
    }
    found
}

/// The dependency's name in code.
fn identifier(dependency: &Dependency) -> String {
    let name = dependency.rename.as_ref().unwrap_or(&dependency.name);
    name.replace('-', "_")
}

/// Whether a line without comments contains this word.
fn mentions(text: &str, word: &str) -> bool {
    let mut code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.any(|line| {
        line.split(|c: char| !c.is_alphanumeric() && c != '_')
            .any(|found| found == word)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NO_EXCEPTION: &[Exception] = &[];

    /// The faults of a package `own` with this dependency and these files.
    fn faults(
        on: &str,
        kind: Option<&str>,
        files: &[(&'static str, &str)],
        exceptions: &[Exception],
    ) -> Vec<String> {
        let package = json!({ "id": "own", "name": "own", "manifest_path": "/top/own/Cargo.toml",
            "dependencies": [{ "name": on, "kind": kind }] });
        let mut sources = Sources::new();
        for (place, text) in files {
            sources.entry(*place).or_default().push((*text).to_owned());
        }
        let package: Package = serde_json::from_value(package).unwrap();
        unused(&[package], &BTreeMap::from([("own", sources)]), exceptions)
    }

    #[test]
    fn what_is_named_is_used() {
        let used = |on, kind, place, text| {
            assert_eq!(
                faults(on, kind, &[("src", "fn f() {}"), (place, text)], NO_EXCEPTION),
                Vec::<String>::new()
            );
        };
        used("serde", None, "src", "use serde::Serialize;");
        used("async-trait", None, "src", "    #[async_trait::async_trait]");
        used("tokio", Some("dev"), "src", "#[tokio::test]");
        used("tower", Some("dev"), "examples", "use tower as _;");
        used("cc", Some("build"), "build.rs", "cc::Build::new()");
    }

    #[test]
    fn what_is_not_named_is_reported() {
        let unnamed = |on, kind, place, text| {
            let found = faults(on, kind, &[(place, text)], NO_EXCEPTION);
            assert_eq!(
                found,
                [format!("own depends on {on}, which no source file of it names")]
            );
        };
        unnamed("serde", None, "src", "use serde_json::Value;");
        unnamed("async-trait", None, "src", "let async_traits = 1;");
        unnamed(
            "jiff",
            None,
            "src",
            "  // As jiff::Timestamp has it.\n/// [`jiff`]",
        );
        unnamed("tower", Some("dev"), "src", "");
        // A build script does not see the others, nor they it.
        unnamed("cc", Some("build"), "src", "use cc::Build;");
        unnamed("hex", None, "build.rs", "use hex::encode;");
    }

    #[test]
    fn what_only_tests_name_is_theirs() {
        let found = faults(
            "jiff",
            None,
            &[("src", ""), ("tests", "use jiff::Zoned;")],
            NO_EXCEPTION,
        );
        assert_eq!(
            found,
            ["own depends on jiff, which only its tests name: it is one of dev-dependencies"]
        );
    }

    #[test]
    fn a_renamed_dependency_goes_by_its_name_here() {
        let dependency: Dependency =
            serde_json::from_value(json!({ "name": "zstd-sys", "rename": "zstd-c" })).unwrap();
        assert_eq!(identifier(&dependency), "zstd_c");
    }

    #[test]
    fn an_exception_holds_for_one_and_is_not_kept_for_nothing() {
        let exceptions: &[Exception] = &[("own", "serde", "why")];
        let none = Vec::<String>::new();
        assert_eq!(faults("serde", None, &[("src", "")], exceptions), none);
        let found = faults("serde", None, &[("src", "use serde::Serialize;")], exceptions);
        assert_eq!(
            found,
            ["own needs no exception for serde (why): it names it, or does not depend on it"]
        );
        let found = faults("jiff", None, &[("src", "")], exceptions);
        assert_eq!(found.len(), 2, "{found:?}");
    }
}
