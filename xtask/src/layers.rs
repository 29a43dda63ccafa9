//! `cargo xtask layers`: an arrow only points down.
//!
//! Each crate names its layer in `package.metadata.landfall.layer`. It may depend on crates of lower layers;
//! in `base`, `words`, `knowledge` and `state` (records over the store) also on crates of the same layer
//! (cargo forbids circles). No dependency of a crate in a pure layer, direct or indirect, is an async
//! runtime: contracts, knowledge and decisions do not use threads, timers or sockets. Development
//! dependencies are not restricted.
//!
//! A dependency that no source file names is a fault as well ([`unused`]).

mod unused;

use std::{
    collections::{BTreeMap, HashMap},
    process::Command,
};

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

/// Layers whose crates must not depend on an async runtime, not even indirectly.
const PURE: &[&str] = &["words", "knowledge", "decisions"];
/// Packages that are async runtimes.
const RUNTIMES: &[&str] = &["tokio", "async-std", "smol", "futures-executor"];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_members: Vec<String>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

/// A package and its dependencies, with the requested features.
#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Edge>,
}

#[derive(Deserialize)]
struct Edge {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    /// `dev` or `build`.
    kind: Option<String>,
}

#[derive(Deserialize)]
struct Package {
    id: String,
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
    /// The package's own name for it, if that differs.
    rename: Option<String>,
}

impl Package {
    /// The layer that it names.
    fn layer(&self) -> Option<&str> {
        let metadata = self.metadata.as_ref()?;
        metadata.pointer("/landfall/layer")?.as_str()
    }
}

/// Checks the workspace.
pub(crate) fn check() -> Result<()> {
    let host = crate::output(Command::new("rustc").args(["--print", "host-tuple"]))?;
    let text = crate::output(
        crate::cargo()
            .args(["metadata", "--format-version", "1", "--offline"])
            .args(["--filter-platform", host.trim()]),
    )?;
    let mut metadata: Metadata = serde_json::from_str(&text).context("cargo metadata cannot be read")?;
    let runtimes = runtimes(&metadata);
    metadata
        .packages
        .retain(|package| metadata.workspace_members.contains(&package.id));
    let mut violations = violations(&metadata.packages, &crate::top().to_string_lossy());
    violations.extend(runtimes);
    violations.extend(unused::check(&metadata.packages)?);
    for violation in &violations {
        println!("{violation}");
    }
    if violations.is_empty() {
        println!(
            "layers: {} crates, every arrow points down, no runtime below the pure, every dependency is used",
            metadata.packages.len()
        );
        return Ok(());
    }
    bail!("{} faults of the layers", violations.len())
}

/// Pure crates that depend on an async runtime, each with the path to it.
fn runtimes(metadata: &Metadata) -> Vec<String> {
    let names: HashMap<&str, &str> = metadata
        .packages
        .iter()
        .map(|package| (package.id.as_str(), package.name.as_str()))
        .collect();
    let below: HashMap<&str, Vec<&str>> = metadata
        .resolve
        .nodes
        .iter()
        .map(|node| {
            let normal = |edge: &&Edge| edge.dep_kinds.iter().any(|kind| kind.kind.is_none());
            let edges = node.deps.iter().filter(normal);
            (node.id.as_str(), edges.map(|edge| edge.pkg.as_str()).collect())
        })
        .collect();
    let mut found = Vec::new();
    for package in &metadata.packages {
        let Some(layer) = package.layer().filter(|layer| PURE.contains(layer)) else {
            continue;
        };
        // From each package to the one it was reached from.
        let mut from: HashMap<&str, Option<&str>> = HashMap::from([(package.id.as_str(), None)]);
        let mut left = vec![package.id.as_str()];
        while let Some(id) = left.pop() {
            if names.get(id).is_some_and(|name| RUNTIMES.contains(name)) {
                let mut way = Vec::new();
                let mut step = Some(id);
                while let Some(id) = step {
                    way.push(names[id]);
                    step = from[id];
                }
                way.reverse();
                found.push(format!(
                    "{} ({layer}) has an async runtime below it: {}",
                    package.name,
                    way.join(" → ")
                ));
                continue;
            }
            for next in below.get(id).into_iter().flatten() {
                if !from.contains_key(next) {
                    from.insert(next, Some(id));
                    left.push(next);
                }
            }
        }
    }
    found
}

fn violations(packages: &[Package], top: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut layers: BTreeMap<&str, usize> = BTreeMap::new();
    for package in packages {
        let layer = package.layer();
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
        json!({ "id": name, "name": name, "manifest_path": format!("/top/{}/Cargo.toml", name.replace('-', "/")),
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
    fn a_runtime_below_a_pure_crate_is_named_with_the_way_there() {
        let edge = |on: &str, kind: Option<&str>| json!({ "pkg": on, "dep_kinds": [{ "kind": kind }] });
        let node = |id: &str, deps: &[serde_json::Value]| json!({ "id": id, "deps": deps });
        let foreign = |name: &str| json!({ "id": name, "name": name, "manifest_path": "/elsewhere", "dependencies": [] });
        let metadata: Metadata = serde_json::from_value(json!({
            "workspace_members": [],
            "packages": [
                package("control-store", "state", &[]),
                package("control-planner", "decisions", &[]),
                package("arm-ids", "words", &[]),
                package("fabric-net", "knowledge", &[]),
                foreign("tokio"),
                foreign("tower"),
            ],
            "resolve": { "nodes": [
                // Of the state layer: it may.
                node("control-store", &[edge("tower", None)]),
                node("control-planner", &[edge("arm-ids", None), edge("control-store", None)]),
                // Only for tests and build scripts.
                node("arm-ids", &[edge("tokio", Some("dev")), edge("tokio", Some("build"))]),
                node("fabric-net", &[edge("arm-ids", None)]),
                node("tower", &[edge("tokio", None)]),
                node("tokio", &[]),
            ] },
        }))
        .unwrap();
        assert_eq!(
            runtimes(&metadata),
            ["control-planner (decisions) has an async runtime below it: \
              control-planner → control-store → tower → tokio"]
        );
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
