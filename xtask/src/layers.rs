//! `cargo xtask layers`: an arrow only points down.
//!
//! Each crate names its layer in `package.metadata.landfall.layer`. It may depend on crates of lower layers; in `base`,
//! `words`, `knowledge` and `state` (records over the store) also on crates of the same layer (cargo forbids circles). Development dependencies are free: tests
//! may look at anything.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

/// The layers, lowest first.
const ORDER: &[&str] = &[
    "base",
    "words",
    "knowledge",
    "state",
    "decisions",
    "kernel",
    "providers",
    "drivers",
    "loops",
    "edge",
    "service",
    "binary",
];
/// Layers whose crates may depend on each other.
const AMONG_THEMSELVES: &[&str] = &["base", "words", "knowledge", "state"];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: String,
    #[serde(default)]
    metadata: Option<serde_json::Value>,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
    path: Option<String>,
}

/// Checks the workspace.
pub(crate) fn check() -> Result<()> {
    let text =
        crate::output(crate::cargo().args(["metadata", "--format-version", "1", "--no-deps", "--offline"]))?;
    let metadata: Metadata = serde_json::from_str(&text).context("cargo metadata cannot be read")?;
    let violations = violations(&metadata.packages, &crate::top().to_string_lossy());
    for violation in &violations {
        println!("{violation}");
    }
    if violations.is_empty() {
        println!(
            "layers: {} crates, every arrow points down",
            metadata.packages.len()
        );
        return Ok(());
    }
    bail!("{} arrows point the wrong way", violations.len())
}

fn violations(packages: &[Package], top: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut layers: BTreeMap<&str, usize> = BTreeMap::new();
    for package in packages {
        let layer = package
            .metadata
            .as_ref()
            .and_then(|metadata| metadata.pointer("/landfall/layer"))
            .and_then(serde_json::Value::as_str);
        match layer.and_then(|layer| ORDER.iter().position(|known| *known == layer)) {
            Some(index) => {
                layers.insert(&package.name, index);
            }
            None => found.push(format!(
                "{}: package.metadata.landfall.layer is {}; it has to be one of {}",
                package.manifest_path,
                layer.map_or_else(|| "missing".to_owned(), |layer| format!("{layer:?}")),
                ORDER.join(", ")
            )),
        }
        let path = package
            .manifest_path
            .trim_end_matches("/Cargo.toml")
            .trim_start_matches(top)
            .trim_matches('/');
        if !path.is_empty() && path.replace('/', "-") != package.name {
            found.push(format!(
                "{}: the package in {path} is to be called {}",
                package.manifest_path,
                path.replace('/', "-")
            ));
        }
    }
    for package in packages {
        let Some(&own) = layers.get(package.name.as_str()) else {
            continue;
        };
        for dependency in &package.dependencies {
            if dependency.path.is_none() || dependency.kind.as_deref() == Some("dev") {
                continue;
            }
            let Some(&its) = layers.get(dependency.name.as_str()) else {
                continue;
            };
            let same = its == own && AMONG_THEMSELVES.contains(&ORDER[own]);
            if its >= own && !same {
                found.push(format!(
                    "{} ({}) depends on {} ({}), which is not lower",
                    package.name, ORDER[own], dependency.name, ORDER[its]
                ));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn packages(value: serde_json::Value) -> Vec<Package> {
        serde_json::from_value(value).unwrap()
    }

    fn package(name: &str, layer: &str, on: &[(&str, Option<&str>)]) -> serde_json::Value {
        json!({ "name": name, "manifest_path": format!("/top/{}/Cargo.toml", name.replace('-', "/")),
            "metadata": { "landfall": { "layer": layer } },
            "dependencies": on.iter().map(|(on, kind)| json!({ "name": on, "kind": kind, "path": "/x" })).collect::<Vec<_>>() })
    }

    #[test]
    fn arrows_down_and_among_words_are_fine() {
        let good = packages(json!([
            package("base-env", "base", &[]),
            package("arm-ids", "words", &[("base-env", None)]),
            package("arm-wire", "words", &[("arm-ids", None)]),
            package(
                "control-store",
                "state",
                &[("arm-wire", None), ("landfall", Some("dev"))]
            ),
            package("landfall", "binary", &[("control-store", None)]),
        ]));
        assert_eq!(violations(&good, "/top"), Vec::<String>::new());
    }

    #[test]
    fn arrows_up_sideways_and_unknown_layers_are_named() {
        let bad = packages(json!([
            package("base-env", "base", &[("control-store", None)]),
            package("control-store", "state", &[]),
            package("providers-a", "providers", &[]),
            package("providers-b", "providers", &[("providers-a", None)]),
            package("x-y", "cellar", &[]),
        ]));
        let found = violations(&bad, "/top");
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].contains("cellar"));
        assert!(found[1].contains("base-env (base) depends on control-store (state)"));
        assert!(found[2].contains("providers-b (providers) depends on providers-a (providers)"));
    }
}
