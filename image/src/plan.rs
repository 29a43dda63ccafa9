//! The artifacts to build for an image: their names, and the expected times.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{
    base,
    cgo::CToolchain,
    components::{Catalog, Component, Program, architecture},
    digest,
    error::ImageError,
    key::{self, KeyBuilder},
    layer::FORMAT,
    program::{self, Recipe},
    release::Download,
    source::{Pins, Source},
    store::{ImageStore, Paths, Tools},
};

/// The work of building an image on this machine now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Estimate {
    /// Kubernetes, like `1.36.3`; of an add-on's image: its name.
    pub version: String,
    /// The steps in order, with the expected time of each on a machine like this one with empty caches.
    pub steps: Vec<(String, Duration)>,
    /// Steps whose result an earlier build left.
    pub cached: Vec<String>,
    /// The sum of all steps. Rough: compilers find a part of their work done already.
    pub total: Duration,
    /// Additional megabytes needed by the store and Go's own caches.
    pub disk_mb: u64,
}

/// A program to be built.
#[derive(Debug)]
pub(crate) struct ProgramPlan<'a> {
    pub(crate) component: &'a Component,
    pub(crate) program: &'a Program,
    pub(crate) recipe: Recipe,
    pub(crate) key: String,
}

/// A layer to be built: its name in the store.
#[derive(Debug, Clone)]
pub(crate) struct LayerPlan {
    pub(crate) name: &'static str,
    pub(crate) id: String,
}

/// The full description of an image. Names only: which artifacts exist already is checked when needed.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) version: String,
    /// Of the version's Go module.
    pub(crate) folder: String,
    pub(crate) key: String,
    pub(crate) recipe: String,
    pub(crate) base: LayerPlan,
    pub(crate) common: LayerPlan,
    pub(crate) kubernetes: LayerPlan,
    pub(crate) shared_programs: Vec<ProgramPlan<'a>>,
    pub(crate) kubernetes_programs: Vec<ProgramPlan<'a>>,
}

/// The step that builds the base layer.
pub(crate) const BASE_STEP: &str = "Debian base system";
/// The step that packs the container images and lists the common layer.
pub(crate) const COMMON_STEP: &str = "container images";
/// The step that lists the layer of a version.
pub(crate) const LAYER_STEP: &str = "node image";

const PACKING_SECONDS: u64 = 4;

impl ImageStore {
    /// The steps that [`Self::build`] would run now.
    ///
    /// # Errors
    /// As [`Self::ensure`].
    pub fn estimate(&self, version: &str, source: &Source) -> Result<Estimate, ImageError> {
        Plan::new(&self.catalog, version, source, &self.tools, &self.paths)?
            .estimate(&self.catalog, &self.paths)
    }
}

/// The programs of one component. Asks the Go toolchain for its version, or reads the given programs.
pub(crate) fn plans_of<'a>(
    catalog: &'a Catalog,
    component: &'a Component,
    source: &'a Source,
    tools: &Tools,
    paths: &'a Paths,
) -> Result<Vec<ProgramPlan<'a>>, ImageError> {
    Planner::new(catalog, source, tools, paths)?.programs(std::iter::once(component))
}

impl<'a> Plan<'a> {
    /// Computes all keys. Asks the Go toolchain for its version, or reads the given programs.
    pub(crate) fn new(
        catalog: &'a Catalog,
        version: &str,
        source: &Source,
        tools: &Tools,
        paths: &Paths,
    ) -> Result<Self, ImageError> {
        Self::of_day(catalog, version, source, tools, paths, None)
    }

    /// The same with the packages of a day: without, whichever Debian had when the base system was installed.
    pub(crate) fn of_day(
        catalog: &'a Catalog,
        version: &str,
        source: &Source,
        tools: &Tools,
        paths: &Paths,
        day: Option<&str>,
    ) -> Result<Self, ImageError> {
        let component = catalog.kubernetes(version)?;
        let mut planner = Planner::new(catalog, source, tools, paths)?;
        let kubernetes_programs = planner.programs(std::iter::once(component))?;
        let shared_programs = planner.programs(catalog.shared())?;

        let base = base_key(catalog, tools, day);
        let of = |kind: &str, programs: &[ProgramPlan<'_>]| {
            KeyBuilder::new(kind)
                .field("format", FORMAT)
                .fields("program", programs.iter().map(|p| p.key.as_str()))
        };
        // The static programs of two container images come from the base.
        let common = of("common layer", &shared_programs).field("base", &base).finish();
        let kubernetes = of("kubernetes layer", &kubernetes_programs)
            .field("version", &component.version)
            .finish();
        let image = KeyBuilder::new("image")
            .fields("layer", [kubernetes.as_str(), &common, &base])
            .finish();
        Ok(Self {
            version: component.number().to_owned(),
            folder: component.folder.clone(),
            key: image,
            recipe: catalog.recipe(component),
            base: LayerPlan {
                name: "base",
                id: format!("base-{}", key::short(&base)),
            },
            common: LayerPlan {
                name: "common",
                id: format!("common-{}", key::short(&common)),
            },
            kubernetes: LayerPlan {
                name: "kubernetes",
                id: format!("kubernetes-{}-{}", component.number(), key::short(&kubernetes)),
            },
            shared_programs,
            kubernetes_programs,
        })
    }

    /// The missing artifacts of the plan.
    pub(crate) fn estimate(&self, catalog: &Catalog, paths: &Paths) -> Result<Estimate, ImageError> {
        let mut steps = Vec::new();
        let mut cached = Vec::new();
        let mut disk_mb = 50;
        if paths.layer(&self.base.id).is_dir() {
            cached.push(BASE_STEP.to_owned());
        } else {
            // Mostly downloading and unpacking: more processors do not help.
            steps.push((BASE_STEP.to_owned(), Duration::from_secs(catalog.base.seconds)));
            disk_mb += 500;
        }
        for (layer, programs, last, packing_mb) in [
            (&self.kubernetes, &self.kubernetes_programs, LAYER_STEP, 0),
            (&self.common, &self.shared_programs, COMMON_STEP, 200),
        ] {
            if paths.layer(&layer.id).is_dir() {
                cached.push(last.to_owned());
                continue;
            }
            for plan in programs {
                let name = plan.program.name.clone();
                if program::find(&paths.programs, &plan.key, &name)?.is_some() {
                    cached.push(name);
                } else {
                    steps.push((name, plan.expected()));
                    disk_mb += 110;
                }
            }
            steps.push((last.to_owned(), Duration::from_secs(PACKING_SECONDS)));
            disk_mb += packing_mb;
        }
        let total = steps.iter().map(|(_, expected)| *expected).sum();
        Ok(Estimate {
            version: self.version.clone(),
            steps,
            cached,
            total,
            disk_mb,
        })
    }
}

impl ProgramPlan<'_> {
    /// The expected time on this machine, with empty caches.
    pub(crate) fn expected(&self) -> Duration {
        match self.recipe {
            Recipe::Module { .. } => scaled(self.program.seconds),
            // A tenth of a gigabyte over a typical connection.
            Recipe::Download(..) => Duration::from_secs(10),
            Recipe::File(_) => Duration::from_secs(1),
        }
    }
}

/// The pinned seconds are for two processors. Compilation gets faster with more, linking does not: more than
/// eight bring no gain.
fn scaled(seconds: u64) -> Duration {
    let processors = std::thread::available_parallelism()
        .map_or(2, std::num::NonZero::get)
        .clamp(1, 8) as u64;
    Duration::from_secs((seconds * 2).div_ceil(processors))
}

fn base_key(catalog: &Catalog, tools: &Tools, day: Option<&str>) -> String {
    KeyBuilder::new("base layer")
        .field("format", FORMAT)
        .field("suite", &catalog.base.suite)
        .field("variant", &catalog.base.variant)
        .field("architecture", architecture())
        .field("mirror", tools.debian_mirror.as_deref().unwrap_or_default())
        .fields("package", catalog.base.packages.iter().map(String::as_str))
        .fields("setting", base::settings())
        .fields("day", day)
        .finish()
}

/// Computes keys of programs, with a cache.
struct Planner<'a> {
    catalog: &'a Catalog,
    source: &'a Source,
    paths: &'a Paths,
    go: Option<PathBuf>,
    pins: Pins,
    toolchains: BTreeMap<PathBuf, String>,
    tools: Tools,
}

impl<'a> Planner<'a> {
    fn new(
        catalog: &'a Catalog,
        source: &'a Source,
        tools: &Tools,
        paths: &'a Paths,
    ) -> Result<Self, ImageError> {
        let go = match source {
            Source::Modules => Some(tools.go.clone().ok_or_else(|| ImageError::NoGo {
                at_least: catalog.go_at_least(),
            })?),
            Source::Directory(_) | Source::Release(_) => None,
        };
        let pins = match source {
            Source::Release(release) => Pins::load(release)?,
            Source::Modules | Source::Directory(_) => Pins::default(),
        };
        Ok(Self {
            catalog,
            source,
            paths,
            go,
            pins,
            toolchains: BTreeMap::new(),
            tools: tools.clone(),
        })
    }

    fn programs<'c>(
        &mut self,
        components: impl Iterator<Item = &'c Component>,
    ) -> Result<Vec<ProgramPlan<'c>>, ImageError> {
        let mut plans = Vec::new();
        for component in components {
            for program in &component.programs {
                plans.push(self.program(component, program)?);
            }
        }
        Ok(plans)
    }

    fn program<'c>(
        &mut self,
        component: &'c Component,
        program: &'c Program,
    ) -> Result<ProgramPlan<'c>, ImageError> {
        let key = KeyBuilder::new("program")
            .field("format", FORMAT)
            .field("source", self.source.name())
            .field("name", &program.name)
            .field("version", &component.version);
        let (recipe, key) = match self.source {
            Source::Modules => self.module(component, program, key)?,
            Source::Directory(directory) => {
                let file = [
                    directory.join(&program.name),
                    directory.join("bin").join(&program.name),
                ]
                .into_iter()
                .find(|path| path.is_file())
                .ok_or_else(|| ImageError::NoProgram {
                    program: program.name.clone(),
                    directory: directory.display().to_string(),
                })?;
                let key = key.field("sha256", &digest::of_file(&file)?);
                (Recipe::File(file), key)
            }
            Source::Release(release) => {
                let url = component.url(program);
                let sha256 = self.pins.get(&url)?.to_owned();
                let member = component.member(program);
                let key = key
                    .field("url", &url)
                    .field("sha256", &sha256)
                    .field("member", member.as_deref().unwrap_or_default());
                (
                    Recipe::Download(Download { url, sha256, member }, release.mirror.clone()),
                    key,
                )
            }
        };
        Ok(ProgramPlan {
            component,
            program,
            recipe,
            key: key.finish(),
        })
    }

    fn module(
        &mut self,
        component: &Component,
        program: &Program,
        key: KeyBuilder,
    ) -> Result<(Recipe, KeyBuilder), ImageError> {
        let go = self
            .go
            .clone()
            .expect("taken from the tools when the source is modules");
        let module = self
            .catalog
            .modules
            .get(&component.folder)
            .expect("a test compares folders and components");
        let directory = program::module_directory(&self.paths.modules, &component.folder, module)?;
        let toolchain = match self.toolchains.get(&directory) {
            Some(toolchain) => toolchain.clone(),
            None => {
                let toolchain = toolchain(&go, &directory, &self.paths.root, &self.catalog.go_at_least())?;
                self.toolchains.insert(directory.clone(), toolchain.clone());
                toolchain
            }
        };
        let settings: Vec<_> = program::go_settings().collect();
        let key = key
            .field("go.mod", &module.go_mod)
            .field("go.sum", &module.go_sum)
            .field("go", &toolchain)
            .fields("setting", settings.iter().map(String::as_str))
            .field("ldflags", &component.ldflags())
            .fields("tag", component.tags.iter().map(String::as_str))
            .field("package", &program.package);
        // Nothing for programs that are all Go, so that those of earlier releases are still good.
        let c = match &component.cgo {
            Some(cgo) => Some(CToolchain::of_this_host(&self.tools, &component.name, cgo)?),
            None => None,
        };
        let key = match &c {
            Some(c) => key.fields("C", c.inputs()),
            None => key,
        };
        Ok((Recipe::Module { go, directory, c }, key))
    }
}

/// The toolchain that Go selects for a module: its own, or a newer one when go.mod requires it.
fn toolchain(go: &Path, directory: &Path, caches: &Path, at_least: &str) -> Result<String, ImageError> {
    let failed = |detail: String| ImageError::Go {
        command: "env GOVERSION".to_owned(),
        detail,
        at_least: at_least.to_owned(),
    };
    let mut command = Command::new(go);
    program::go_environment(&mut command, caches);
    let output = command
        .current_dir(directory)
        .args(["env", "GOVERSION"])
        .output()
        .map_err(|error| failed(error.to_string()))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if !output.status.success() {
        return Err(failed(
            text(&output.stderr)
                .lines()
                .last()
                .unwrap_or("it said nothing")
                .to_owned(),
        ));
    }
    let version = text(&output.stdout);
    // Before 1.21 Go did not know that a module can require a newer toolchain.
    let minor = version
        .strip_prefix("go1.")
        .and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
    match minor {
        Some(minor) if minor < 21 => Err(failed(format!("{version} is too old"))),
        _ => Ok(version),
    }
}
