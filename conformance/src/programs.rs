//! The programs: the tests, their runner, and the contents of their images. All compiled from pinned Go
//! modules.
//!
//! Always true: a program has its name only once it is complete; the compiler gets the same flags as for node
//! images, so that packages compiled for those are not compiled again.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::place::{self, Place};

/// A program and where it comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Program {
    pub(crate) name: &'static str,
    package: &'static str,
    from: Origin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// The module with the tests of this version.
    Tests,
    /// The same, and the package is one of tests.
    TestBinary,
    /// A folder of `components`: a program of node images.
    Component(&'static str),
}

const E2E: Program = program("e2e.test", "k8s.io/kubernetes/test/e2e", Origin::TestBinary);

/// The programs that are needed to list tests.
pub(crate) const FOR_LISTS: [Program; 1] = [E2E];

/// All of them; the longest first, of which the others share much.
pub(crate) const ALL: [Program; 10] = [
    E2E,
    program("ginkgo", "github.com/onsi/ginkgo/v2/ginkgo", Origin::Tests),
    program("agnhost", "k8s.io/kubernetes/test/images/agnhost", Origin::Tests),
    program(
        "nonewprivs",
        "k8s.io/kubernetes/test/images/nonewprivs",
        Origin::Tests,
    ),
    program(
        "regression-issue-74839",
        "k8s.io/kubernetes/test/images/regression-issue-74839",
        Origin::Tests,
    ),
    program(
        "resource-consumer",
        "k8s.io/kubernetes/test/images/resource-consumer",
        Origin::Tests,
    ),
    program(
        "consume-cpu",
        "k8s.io/kubernetes/test/images/resource-consumer/consume-cpu",
        Origin::Tests,
    ),
    program("sample-apiserver", "k8s.io/sample-apiserver", Origin::Tests),
    program("etcd", "go.etcd.io/etcd/server/v3", Origin::Component("etcd")),
    program(
        "coredns",
        "github.com/coredns/coredns",
        Origin::Component("coredns"),
    ),
];

const fn program(name: &'static str, package: &'static str, from: Origin) -> Program {
    Program { name, package, from }
}

/// The compiler's flags, as for the programs of node images.
const COMPILER: [&str; 2] = ["-trimpath", "-gcflags=all=-dwarf=false"];

/// Environment variables that determine the result, as for the programs of node images. Proxies and caches
/// are the user's.
const ENVIRONMENT: [(&str, &str); 7] = [
    ("CGO_ENABLED", "0"),
    ("GO111MODULE", "on"),
    ("GOFLAGS", "-mod=readonly -buildvcs=false"),
    ("GOOS", "linux"),
    ("GOWORK", "off"),
    ("GOEXPERIMENT", ""),
    ("GOAMD64", "v1"),
];

/// The inputs besides the modules, for the key of a place.
pub(crate) fn recipe(version: &str) -> String {
    format!("{ALL:?} {COMPILER:?} {ENVIRONMENT:?} {}", stamps(version))
}

/// Go in a module.
pub(crate) fn go(module: &Path) -> Result<Command> {
    let go = image::Tools::of_this_host()
        .go
        .context("the tests are compiled with Go; install it")?;
    let mut command = Command::new(go);
    command.current_dir(module).envs(ENVIRONMENT);
    Ok(command)
}

/// Tests print their own version, and depend on it.
fn stamps(version: &str) -> String {
    let mut parts = version.split('.');
    let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let mut flags = "-s -w".to_owned();
    for package in ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"] {
        for (name, value) in [
            ("gitVersion", format!("v{version}").as_str()),
            ("gitMajor", major),
            ("gitMinor", minor),
            ("gitTreeState", "clean"),
        ] {
            flags.push_str(&format!(" -X {package}.{name}={value}"));
        }
    }
    flags
}

/// The programs, by their names.
#[derive(Debug)]
pub(crate) struct Programs {
    paths: BTreeMap<&'static str, PathBuf>,
    /// Where the sources of Kubernetes are: some images hold files of it.
    pub(crate) kubernetes: PathBuf,
}

impl Programs {
    /// The path of a requested program.
    pub(crate) fn path(&self, name: &str) -> Result<&Path> {
        self.paths
            .get(name)
            .map(PathBuf::as_path)
            .with_context(|| format!("{name} is none of the programs here"))
    }
}

/// Builds the missing ones.
pub(crate) fn have(place: &Place, wanted: &[Program]) -> Result<Programs> {
    let dir = place.programs();
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let mut paths = BTreeMap::new();
    for program in wanted {
        let path = dir.join(program.name);
        if !path.is_file() {
            build(place, program, &path)?;
        }
        paths.insert(program.name, path);
    }
    Ok(Programs {
        paths,
        kubernetes: sources(place)?,
    })
}

fn build(place: &Place, program: &Program, path: &Path) -> Result<()> {
    println!("compiling {} of Kubernetes {}", program.name, place.version);
    let module = match program.from {
        Origin::Tests | Origin::TestBinary => place.module.clone(),
        Origin::Component(folder) => place.components.join(folder),
    };
    // With the name that a program of tests has to have.
    let unfinished = place.unfinished(program.name);
    let mut go = go(&module)?;
    if program.from == Origin::TestBinary {
        go.args(["test", "-c"]);
    } else {
        go.arg("build");
    }
    go.args(COMPILER).arg("-ldflags").arg(match program.from {
        Origin::Component(_) => "-s -w".to_owned(),
        Origin::Tests | Origin::TestBinary => stamps(place.version),
    });
    let status = go
        .arg("-o")
        .arg(&unfinished)
        .arg(program.package)
        .status()
        .context("cannot run go")?;
    if !status.success() {
        bail!(
            "{} cannot be compiled: go ended with {status}; its output is above. When repeated, it continues where it stopped",
            program.name
        );
    }
    fs::rename(&unfinished, path).with_context(|| format!("cannot write {}", path.display()))
}

/// The module's own folder in the module cache.
fn sources(place: &Place) -> Result<PathBuf> {
    let told = place::ran(go(&place.module)?.args(["mod", "download", "-json", "k8s.io/kubernetes"]))?;
    let module: serde_json::Value =
        serde_json::from_slice(&told).context("go told no JSON of the module k8s.io/kubernetes")?;
    let dir = module["Dir"]
        .as_str()
        .context("go told no folder of k8s.io/kubernetes")?;
    Ok(PathBuf::from(dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `MODULE VERSION` of a go.mod.
    fn pinned<'a>(go_mod: &'a str, module: &str) -> Option<&'a str> {
        go_mod
            .lines()
            .map(|line| line.trim_start_matches("require ").trim())
            .find(|line| line.starts_with(&format!("{module} v")))?
            .split(' ')
            .nth(1)
    }

    #[test]
    fn the_tests_are_of_the_versions_that_a_stamp_runs() {
        for version in cluster_versions::PINNED {
            let minor = place::minor(version);
            // A test runs in its crate's folder; where it was compiled may be another checkout.
            let read = |path: String| fs::read_to_string(path).unwrap();
            let tests = read(format!("kubernetes-{minor}/go.mod"));
            let stamp = read(format!("../components/kubernetes-{minor}/go.mod"));
            let wanted = format!("v{version}");
            for go_mod in [&tests, &stamp] {
                assert_eq!(pinned(go_mod, "k8s.io/kubernetes"), Some(wanted.as_str()));
            }
            for program in ALL.iter().filter(|program| program.from == Origin::Tests) {
                assert!(
                    tests.contains(program.package),
                    "{} lacks {}",
                    minor,
                    program.package
                );
            }
        }
    }

    #[test]
    fn libraries_are_compiled_once_for_tests_and_nodes() {
        for version in cluster_versions::PINNED {
            let minor = place::minor(version);
            let read = |path: String| fs::read_to_string(path).unwrap();
            let tests = read(format!("kubernetes-{minor}/go.mod"));
            let stamp = read(format!("../components/kubernetes-{minor}/go.mod"));
            let mut compared = 0;
            for line in stamp.lines().filter(|line| line.ends_with("// indirect")) {
                let module = line.split_whitespace().next().unwrap();
                let (Some(ours), Some(theirs)) = (pinned(&tests, module), pinned(&stamp, module)) else {
                    continue;
                };
                assert_eq!(ours, theirs, "{module} of {minor}");
                compared += 1;
            }
            assert!(compared > 50, "{compared}");
        }
    }

    #[test]
    fn the_tests_tell_their_version() {
        let flags = stamps("1.37.1");
        assert!(flags.starts_with("-s -w -X "));
        assert!(flags.contains("component-base/version.gitVersion=v1.37.1 "));
        assert!(flags.contains("client-go/pkg/version.gitMinor=37 "));
    }
}
