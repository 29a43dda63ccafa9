//! The pins: `components/`, embedded in this crate so that an installed binary can build without a checkout.

use std::{collections::BTreeMap, sync::LazyLock};

use serde::Deserialize;

use crate::{cgo::Cgo, error::ImageError, key::KeyBuilder};

/// Name, go.mod, go.sum.
const MODULES: &[(&str, &str, &str)] = &[
    module(
        "cni-plugins",
        include_str!("../../components/cni-plugins/go.mod"),
        include_str!("../../components/cni-plugins/go.sum"),
    ),
    module(
        "containerd",
        include_str!("../../components/containerd/go.mod"),
        include_str!("../../components/containerd/go.sum"),
    ),
    module(
        "coredns",
        include_str!("../../components/coredns/go.mod"),
        include_str!("../../components/coredns/go.sum"),
    ),
    module(
        "etcd",
        include_str!("../../components/etcd/go.mod"),
        include_str!("../../components/etcd/go.sum"),
    ),
    module(
        "kube-router",
        include_str!("../../components/kube-router/go.mod"),
        include_str!("../../components/kube-router/go.sum"),
    ),
    module(
        "kubernetes-1.36",
        include_str!("../../components/kubernetes-1.36/go.mod"),
        include_str!("../../components/kubernetes-1.36/go.sum"),
    ),
    module(
        "kubernetes-1.37",
        include_str!("../../components/kubernetes-1.37/go.mod"),
        include_str!("../../components/kubernetes-1.37/go.sum"),
    ),
    module(
        "metrics-server",
        include_str!("../../components/metrics-server/go.mod"),
        include_str!("../../components/metrics-server/go.sum"),
    ),
    module(
        "runc",
        include_str!("../../components/runc/go.mod"),
        include_str!("../../components/runc/go.sum"),
    ),
    module(
        "traefik",
        include_str!("../../components/traefik/go.mod"),
        include_str!("../../components/traefik/go.sum"),
    ),
];

/// The known checksums of official downloads.
pub(crate) const RELEASE_PINS: &str = include_str!("../../components/release-pins.toml");

static EMBEDDED: LazyLock<Catalog> = LazyLock::new(|| {
    let mut catalog = Catalog::parse(include_str!("../../components/components.toml"))
        .expect("a test parses the file that is compiled in");
    for (folder, go_mod, go_sum) in MODULES {
        catalog.modules.insert(
            (*folder).to_owned(),
            Module {
                go_mod: (*go_mod).to_owned(),
                go_sum: (*go_sum).to_owned(),
            },
        );
    }
    catalog
});

const fn module(
    folder: &'static str,
    go_mod: &'static str,
    go_sum: &'static str,
) -> (&'static str, &'static str, &'static str) {
    (folder, go_mod, go_sum)
}

/// The Kubernetes versions that can be built, oldest first, like `1.36.3`. The first is the default of a stamp.
pub fn supported() -> Vec<String> {
    EMBEDDED.versions()
}

/// All pins.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Catalog {
    pub(crate) base: Base,
    #[serde(rename = "component")]
    pub(crate) components: Vec<Component>,
    #[serde(skip)]
    pub(crate) modules: BTreeMap<String, Module>,
}

/// A folder of `components/`.
#[derive(Debug, Clone)]
pub(crate) struct Module {
    pub(crate) go_mod: String,
    pub(crate) go_sum: String,
}

/// The Debian layer.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Base {
    pub(crate) suite: String,
    pub(crate) variant: String,
    pub(crate) seconds: u64,
    pub(crate) packages: Vec<String>,
}

/// The destination of a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Place {
    /// The layer of one Kubernetes version.
    Kubernetes,
    /// The layer that all versions share.
    Common,
    /// A separate container image, in the layer that all versions share.
    Images,
    /// A separate container image that is part of no node image: built when a cluster first asks for it.
    Addon,
}

/// One upstream release: a Go module and the programs built from it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Component {
    pub(crate) name: String,
    pub(crate) folder: String,
    pub(crate) layer: Place,
    /// The folder of the component with the same library versions: they are compiled once for both.
    pub(crate) libraries: Option<String>,
    #[serde(default = "local_bin")]
    pub(crate) directory: String,
    pub(crate) module: String,
    pub(crate) version: String,
    pub(crate) build_date: String,
    pub(crate) git_commit: Option<String>,
    ldflags: Vec<String>,
    /// Go's build tags.
    #[serde(default)]
    pub(crate) tags: Vec<String>,
    /// Of a component that is partly in C.
    pub(crate) cgo: Option<Cgo>,
    release: String,
    pub(crate) programs: Vec<Program>,
    /// Debian packages in the container image of an add-on, with all that they depend on.
    #[serde(default)]
    pub(crate) packages: Vec<String>,
    /// Symbolic links in that image: path and target, both without a leading slash or relative.
    #[serde(default)]
    pub(crate) links: BTreeMap<String, String>,
}

/// One executable.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Program {
    pub(crate) name: String,
    pub(crate) package: String,
    member: Option<String>,
    pub(crate) seconds: u64,
    pub(crate) ask: Vec<String>,
}

fn local_bin() -> String {
    "/usr/local/bin".to_owned()
}

impl Catalog {
    /// The embedded catalog.
    pub(crate) fn embedded() -> Self {
        EMBEDDED.clone()
    }

    /// A catalog without modules.
    pub(crate) fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// The Kubernetes versions, as listed.
    pub(crate) fn versions(&self) -> Vec<String> {
        self.components
            .iter()
            .filter(|component| component.layer == Place::Kubernetes)
            .map(|component| component.number().to_owned())
            .collect()
    }

    /// The component of a Kubernetes version: `1.36.3`, `v1.36.3` or just the minor `1.36`.
    pub(crate) fn kubernetes(&self, version: &str) -> Result<&Component, ImageError> {
        let wanted = version.strip_prefix('v').unwrap_or(version);
        self.components
            .iter()
            .filter(|component| component.layer == Place::Kubernetes)
            .find(|component| {
                component.number() == wanted
                    || component
                        .number()
                        .rsplit_once('.')
                        .is_some_and(|(minor, _)| minor == wanted)
            })
            .ok_or_else(|| ImageError::UnknownVersion {
                version: version.to_owned(),
                known: self.versions().join(", "),
            })
    }

    /// The components that all versions share.
    pub(crate) fn shared(&self) -> impl Iterator<Item = &Component> {
        self.components
            .iter()
            .filter(|component| !matches!(component.layer, Place::Kubernetes | Place::Addon))
    }

    /// The components with an image that is built when it is first asked for.
    pub(crate) fn addons(&self) -> impl Iterator<Item = &Component> {
        self.components
            .iter()
            .filter(|component| component.layer == Place::Addon)
    }

    /// The component of an add-on's image, by its name.
    pub(crate) fn addon(&self, name: &str) -> Result<&Component, ImageError> {
        self.addons()
            .find(|component| component.name == name)
            .ok_or_else(|| ImageError::UnknownAddon {
                name: name.to_owned(),
                known: self
                    .addons()
                    .map(|component| component.name.as_str())
                    .collect::<Vec<_>>()
                    .join(", "),
            })
    }

    /// The content of an add-on's image as far as it is known without a toolchain, as [`Self::recipe`].
    pub(crate) fn addon_recipe(&self, component: &Component) -> String {
        let mut key = KeyBuilder::new("add-on recipe")
            .field("format", crate::addon::FORMAT)
            .field("suite", &self.base.suite)
            .field("component", &component.name)
            .field("version", &component.version)
            .field("ldflags", &component.ldflags())
            .fields("tag", component.tags.iter().map(String::as_str))
            .fields("debian", component.packages.iter().map(String::as_str));
        for (path, target) in &component.links {
            key = key.field("link", path).field("target", target);
        }
        if let Some(module) = self.modules.get(&component.folder) {
            key = key
                .field("go.mod", &module.go_mod)
                .field("go.sum", &module.go_sum);
        }
        for program in &component.programs {
            key = key
                .field("program", &program.name)
                .field("package", &program.package);
        }
        key.finish()
    }

    /// The content of this version's image, as far as it is known without a toolchain: identifies an image in
    /// the store that was made from these pins, whatever its source.
    pub(crate) fn recipe(&self, kubernetes: &Component) -> String {
        let mut key = KeyBuilder::new("recipe")
            .field("format", crate::layer::FORMAT)
            .field("suite", &self.base.suite)
            .field("variant", &self.base.variant)
            .fields("package", self.base.packages.iter().map(String::as_str));
        for component in std::iter::once(kubernetes).chain(self.shared()) {
            key = key
                .field("component", &component.name)
                .field("version", &component.version)
                .field("ldflags", &component.ldflags())
                .fields("tag", component.tags.iter().map(String::as_str));
            if let Some(cgo) = &component.cgo {
                key = key.fields("C library", cgo.libraries.iter().map(String::as_str));
            }
            if let Some(module) = self.modules.get(&component.folder) {
                key = key
                    .field("go.mod", &module.go_mod)
                    .field("go.sum", &module.go_sum);
            }
            for program in &component.programs {
                key = key
                    .field("program", &program.name)
                    .field("package", &program.package);
            }
        }
        key.finish()
    }

    /// The highest `go` line of the modules.
    pub(crate) fn go_at_least(&self) -> String {
        let number = |version: &str| -> Vec<u64> {
            version
                .split('.')
                .map(|part| part.parse().unwrap_or_default())
                .collect()
        };
        self.modules
            .values()
            .filter_map(|module| module.go_mod.lines().find_map(|line| line.strip_prefix("go ")))
            .max_by_key(|version| number(version.trim()))
            .unwrap_or("1.26")
            .trim()
            .to_owned()
    }
}

impl Component {
    /// `1.36.3`
    pub(crate) fn number(&self) -> &str {
        self.version.strip_prefix('v').unwrap_or(&self.version)
    }

    /// For `go build -ldflags`.
    pub(crate) fn ldflags(&self) -> String {
        let stamps = self.ldflags.iter().map(|flag| self.fill(flag, ""));
        std::iter::once("-s -w".to_owned())
            .chain(stamps)
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// The official download of a program; `{sha256}` may still be in it.
    pub(crate) fn url(&self, program: &Program) -> String {
        self.fill(&self.release, &program.name)
    }

    /// The path of the program inside the download, when that is an archive.
    pub(crate) fn member(&self, program: &Program) -> Option<String> {
        program
            .member
            .as_ref()
            .map(|member| self.fill(member, &program.name))
    }

    fn fill(&self, template: &str, name: &str) -> String {
        let mut parts = self.number().split('.');
        let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        template
            .replace("{version}", &self.version)
            .replace("{number}", self.number())
            .replace("{major}", major)
            .replace("{minor}", minor)
            .replace("{commit}", self.git_commit.as_deref().unwrap_or_default())
            .replace("{date}", &self.build_date)
            .replace("{arch}", architecture())
            .replace("{name}", name)
    }
}

/// This host's processor architecture, as named by Go and Debian.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::references;

    #[test]
    fn each_component_has_its_module_and_each_module_its_component() {
        let catalog = Catalog::parse(include_str!("../../components/components.toml")).unwrap();
        assert!(catalog.modules.is_empty());
        let catalog = Catalog::embedded();
        let named: std::collections::BTreeSet<_> =
            catalog.components.iter().map(|c| c.folder.clone()).collect();
        let there: std::collections::BTreeSet<_> = catalog.modules.keys().cloned().collect();
        assert_eq!(named, there);
        for component in &catalog.components {
            let module = &catalog.modules[&component.folder];
            let pin = format!("{} {}", component.module, component.version);
            assert!(
                module.go_mod.contains(&pin),
                "{} does not pin {pin}",
                component.folder
            );
            for program in &component.programs {
                assert!(
                    module.go_mod.contains(&program.package),
                    "{} lacks tool {}",
                    component.folder,
                    program.package
                );
            }
        }
    }

    /// The modules that go.mod requires, with their versions.
    fn required(go_mod: &str) -> BTreeMap<&str, &str> {
        let (required, _) = go_mod.split_once("\nexclude (").unwrap_or((go_mod, ""));
        required
            .lines()
            .filter_map(|line| line.trim_start_matches("require ").trim().split_once(' '))
            .filter(|(_, rest)| rest.starts_with('v'))
            .map(|(module, rest)| (module, rest.split(' ').next().unwrap_or(rest)))
            .collect()
    }

    #[test]
    fn libraries_are_those_of_the_folder_that_is_named() {
        let catalog = Catalog::embedded();
        let mut compared = 0;
        for component in &catalog.components {
            let Some(folder) = &component.libraries else {
                continue;
            };
            let own = &catalog.modules[&component.folder].go_mod;
            // The compiler's cache distinguishes a replaced module from one that is required at that version.
            assert!(!own.contains("=>"), "{} replaces", component.folder);
            let theirs = required(&catalog.modules[folder].go_mod);
            for (module, version) in required(own) {
                let Some(wanted) = theirs.get(module) else {
                    continue;
                };
                assert_eq!(
                    version, *wanted,
                    "{}: require {module} at {wanted}, as {folder} does, and exclude others",
                    component.folder
                );
                compared += 1;
            }
        }
        assert!(compared > 50, "{compared}");
    }

    #[test]
    fn the_folders_hold_nothing_but_go_mod_and_go_sum() {
        // A test runs in its crate's folder; the compile-time path may be another checkout.
        let root = std::path::Path::new("../components");
        let mut folders = 0;
        for entry in std::fs::read_dir(root)
            .unwrap()
            .map(Result::unwrap)
            .filter(|e| e.path().is_dir())
        {
            let mut files: Vec<_> = std::fs::read_dir(entry.path())
                .unwrap()
                .map(|file| file.unwrap().file_name().into_string().unwrap())
                .collect();
            files.sort();
            assert_eq!(files, ["go.mod", "go.sum"], "{}", entry.path().display());
            folders += 1;
        }
        assert_eq!(folders, MODULES.len());
    }

    #[test]
    fn versions_can_be_named_in_three_ways() {
        let catalog = Catalog::embedded();
        assert_eq!(supported(), ["1.36.3", "1.37.1"]);
        for name in ["1.37", "1.37.1", "v1.37.1"] {
            assert_eq!(catalog.kubernetes(name).unwrap().version, "v1.37.1");
        }
        let error = catalog.kubernetes("1.12.0").unwrap_err().to_string();
        assert_eq!(
            error,
            "kubernetes 1.12.0 is not among the versions that can be built: 1.36.3, 1.37.1"
        );
    }

    #[test]
    fn stamps_and_addresses_are_filled_in() {
        let catalog = Catalog::embedded();
        let kubernetes = catalog.kubernetes("1.36").unwrap();
        let flags = kubernetes.ldflags();
        assert!(flags.starts_with("-s -w -X "));
        assert!(flags.contains("component-base/version.gitVersion=v1.36.3 "));
        assert!(flags.contains("client-go/pkg/version.gitMinor=36 "));
        for component in &catalog.components {
            assert!(
                !component.ldflags().contains(['{', '}']),
                "{}",
                component.ldflags()
            );
            for program in &component.programs {
                let url = component.url(program).replace("{sha256}", "");
                assert!(url.starts_with("https://") && !url.contains(['{', '}']), "{url}");
            }
        }
        assert_eq!(
            kubernetes.url(&kubernetes.programs[3]),
            format!("https://dl.k8s.io/v1.36.3/bin/linux/{}/kubelet", architecture())
        );
        assert_eq!(catalog.go_at_least(), "1.26.6");
    }

    #[test]
    fn references_name_the_pinned_versions() {
        let catalog = Catalog::embedded();
        for image in cluster_addons::images() {
            let component = catalog.components.iter().find(|c| c.name == image.name).unwrap();
            assert_eq!(
                image.reference,
                format!("landfall.dev/{}:{}", image.name, component.version)
            );
        }
        assert!(cluster_addons::images().any(|image| image.reference == references::COREDNS));
    }

    #[test]
    fn each_image_that_clusters_may_ask_for_is_pinned_and_no_other_is() {
        let catalog = Catalog::embedded();
        let pinned: Vec<(&str, String)> = catalog
            .addons()
            .map(|component| {
                assert_eq!(
                    component.programs.len(),
                    1,
                    "{}: one program an image",
                    component.name
                );
                let reference = crate::containers::reference(component, &component.programs[0]);
                (component.name.as_str(), reference)
            })
            .collect();
        let asked: Vec<(&str, String)> = cluster_spec::ADDON_IMAGES
            .iter()
            .map(|image| (image.name, image.reference.to_owned()))
            .collect();
        assert_eq!(pinned, asked);
        assert!(catalog.addon("coredns").is_err());
    }

    #[test]
    fn no_node_image_changes_because_of_an_add_on() {
        let catalog = Catalog::embedded();
        let mut other = catalog.clone();
        other
            .components
            .retain(|component| component.layer != Place::Addon);
        for version in catalog.versions() {
            let of = |catalog: &Catalog| catalog.recipe(catalog.kubernetes(&version).unwrap());
            assert_eq!(of(&catalog), of(&other));
        }
    }

    #[test]
    fn a_recipe_changes_with_its_pins() {
        let catalog = Catalog::embedded();
        let (old, new) = (
            catalog.kubernetes("1.36").unwrap(),
            catalog.kubernetes("1.37").unwrap(),
        );
        assert_ne!(catalog.recipe(old), catalog.recipe(new));
        let mut other = catalog.clone();
        other.modules.get_mut("etcd").unwrap().go_sum.push('\n');
        assert_ne!(catalog.recipe(old), other.recipe(old));
        let mut other = catalog.clone();
        let runc = other.components.iter_mut().find(|c| c.name == "runc").unwrap();
        runc.tags.retain(|tag| tag != "seccomp");
        assert_ne!(catalog.recipe(old), other.recipe(old));
    }
}
