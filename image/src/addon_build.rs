//! The build of an add-on's image: its program, then Debian's packages around it, in one archive.

use std::{fs, path::Path, process::Command, time::Duration};

use crate::{
    addon::{ARCHIVE, AddonManifest, FORMAT, MANIFEST, SCHEMA, load},
    base,
    builder::{go_cache, install_image},
    components::{Catalog, Component, architecture},
    containers, digest,
    error::{ImageError, IoContext as _},
    key::{self, KeyBuilder},
    layer,
    manifest::{ContainerImage, DebianPackage, Manifest, ProgramRecord},
    oci,
    packages::{self, TREE},
    plan::{Estimate, ProgramPlan, plans_of},
    process::Runner,
    program::{self, Recipe, Workshop},
    progress::{Event, Progress},
    sbom,
    source::Source,
    space,
    store::{ImageStore, SBOM},
};

/// The step that packs the image.
const PACKING_STEP: &str = "container image";
/// Its expected time with packages of Debian, mostly their download, and without.
const PACKING: [Duration; 2] = [Duration::from_secs(15), Duration::from_secs(2)];
/// Megabytes in Go's caches for one program.
const GO_CACHE_MB: u64 = 2000;
/// Megabytes for a program, its packages and its image.
const STORE_MB: u64 = 300;

/// The full description of an image.
pub(crate) struct AddonPlan<'a> {
    component: &'a Component,
    program: ProgramPlan<'a>,
    pub(crate) key: String,
    recipe: String,
}

impl<'a> AddonPlan<'a> {
    pub(crate) fn new(
        store: &'a ImageStore,
        component: &'a Component,
        source: &'a Source,
    ) -> Result<Self, ImageError> {
        let catalog: &Catalog = &store.catalog;
        let mut programs = plans_of(catalog, component, source, &store.tools, &store.paths)?;
        let program = programs.pop().ok_or_else(|| ImageError::AddonNotBuilt {
            name: component.name.clone(),
        })?;
        let mut key = KeyBuilder::new("add-on image")
            .field("format", FORMAT)
            .field("program", &program.key)
            .field("suite", &catalog.base.suite)
            .field("mirror", store.tools.debian_mirror.as_deref().unwrap_or_default())
            .fields("debian", component.packages.iter().map(String::as_str))
            .fields("setting", packages::settings());
        for (path, target) in &component.links {
            key = key.field("link", path).field("target", target);
        }
        Ok(Self {
            key: key.finish(),
            recipe: catalog.addon_recipe(component),
            component,
            program,
        })
    }

    fn packing(&self) -> Duration {
        if self.component.packages.is_empty() {
            PACKING[1]
        } else {
            PACKING[0]
        }
    }

    fn is_built(&self, store: &ImageStore) -> Result<bool, ImageError> {
        let name = &self.program.program.name;
        Ok(program::find(&store.paths.programs, &self.program.key, name)?.is_some())
    }

    pub(crate) fn estimate(&self, store: &ImageStore) -> Result<Estimate, ImageError> {
        let mut estimate = Estimate {
            version: self.component.name.clone(),
            steps: Vec::new(),
            cached: Vec::new(),
            total: Duration::ZERO,
            disk_mb: 0,
        };
        if load(&store.paths.addon(&self.component.name, &self.key))?.is_some() {
            estimate.cached.push(PACKING_STEP.to_owned());
            return Ok(estimate);
        }
        estimate.disk_mb = STORE_MB;
        let name = self.program.program.name.clone();
        if self.is_built(store)? {
            estimate.cached.push(name);
        } else {
            estimate.steps.push((name, self.program.expected()));
        }
        estimate.steps.push((PACKING_STEP.to_owned(), self.packing()));
        estimate.total = estimate.steps.iter().map(|(_, expected)| *expected).sum();
        Ok(estimate)
    }
}

/// A build, by the holder of the store's lock.
pub(crate) struct AddonBuild<'a> {
    pub(crate) store: &'a ImageStore,
    pub(crate) plan: &'a AddonPlan<'a>,
    pub(crate) progress: &'a dyn Progress,
    pub(crate) runner: Runner,
}

impl AddonBuild<'_> {
    /// Makes the image and moves it to `directory`.
    pub(crate) fn run(
        &self,
        source: &Source,
        directory: &Path,
        estimate: &Estimate,
    ) -> Result<(), ImageError> {
        let paths = &self.store.paths;
        for directory in [&paths.scratch, &paths.logs, &paths.addons] {
            fs::create_dir_all(directory).at("create", directory)?;
        }
        self.preflight(estimate.disk_mb)?;
        self.program()?;
        self.step(PACKING_STEP, self.plan.packing(), || {
            self.image(source, directory)
        })
    }

    /// Checks requirements that would otherwise fail late.
    fn preflight(&self, store_mb: u64) -> Result<(), ImageError> {
        let tools = &self.store.tools;
        if !self.plan.component.packages.is_empty() {
            if tools.mmdebstrap.is_none() {
                return Err(ImageError::NoMmdebstrap);
            }
            if !tools.root {
                return Err(ImageError::NotRoot);
            }
        }
        let root = &self.store.paths.root;
        space::check(root, store_mb, "LANDFALL_CACHE_DIR")?;
        let compiles =
            matches!(self.plan.program.recipe, Recipe::Module { .. }) && !self.plan.is_built(self.store)?;
        if compiles {
            space::check(&go_cache(root), GO_CACHE_MB + store_mb, "GOCACHE")?;
        }
        Ok(())
    }

    fn program(&self) -> Result<(), ImageError> {
        let (plan, paths) = (&self.plan.program, &self.store.paths);
        let name = &plan.program.name;
        if self.plan.is_built(self.store)? {
            self.progress.event(Event::Cached { step: name });
            return Ok(());
        }
        let workshop = Workshop {
            runner: &self.runner,
            programs: &paths.programs,
            downloads: &paths.downloads,
            scratch: &paths.scratch,
            log: paths.logs.join(format!("{name}.log")),
            go_caches: &paths.root,
        };
        self.step(name, plan.expected(), || {
            workshop.make(plan.component, plan.program, &plan.recipe, &plan.key)
        })
    }

    fn image(&self, source: &Source, directory: &Path) -> Result<(), ImageError> {
        let (component, paths) = (self.plan.component, &self.store.paths);
        let name = &self.plan.program.program.name;
        let (file, finished) =
            program::find(&paths.programs, &self.plan.program.key, name)?.ok_or_else(|| {
                ImageError::NoProgram {
                    program: name.clone(),
                    directory: paths.programs.display().to_string(),
                }
            })?;
        let scratch = paths
            .scratch
            .join(format!("addon-{}", key::short(&self.plan.key)));
        fs::create_dir_all(&scratch).at("create", &scratch)?;
        layer::mode(&scratch, 0o755)?;

        let tree = paths.scratch.join(TREE);
        let debian = self.packages(&tree)?;
        let reference = containers::reference(component, self.plan.program.program);
        let files = packages::members(&tree, component, name, &file)?;
        let image = oci::Image {
            reference: reference.clone(),
            created: component.build_date.clone(),
            entrypoint: vec![format!("/{name}")],
            files,
            ..oci::Image::default()
        };
        let archive = scratch.join(ARCHIVE);
        let written = oci::write(&image, &archive)?;
        layer::mode(&archive, 0o644)?;

        let linked = finished.linked;
        let mut manifest = AddonManifest {
            schema: SCHEMA,
            name: component.name.clone(),
            key: self.plan.key.clone(),
            recipe: self.plan.recipe.clone(),
            architecture: architecture().to_owned(),
            created: self.store.env.clock.now(),
            source: source.name().to_owned(),
            program: ProgramRecord {
                name: name.clone(),
                component: component.name.clone(),
                module: component.module.clone(),
                version: component.version.clone(),
                git_commit: component.git_commit.clone(),
                go: linked.as_ref().map(|linked| linked.go.clone()),
                path: format!("/{name}"),
                image: Some(reference.clone()),
                size: finished.size,
                sha256: finished.sha256,
            },
            packages: debian,
            image: ContainerImage {
                reference,
                digest: written.digest,
                path: ARCHIVE.to_owned(),
                size: written.size,
                sha256: written.sha256,
            },
            sbom: String::new(),
        };
        let linked = linked.map(|linked| (name.clone(), linked.into()));
        let suite = &self.store.catalog.base.suite;
        let document = sbom::document(
            "addon-image",
            &described(&manifest),
            suite,
            &linked.into_iter().collect(),
        );
        let document = serde_json::to_vec(&document).expect("a JSON value");
        manifest.sbom = digest::of_bytes(&document);
        let text = serde_json::to_vec_pretty(&manifest).expect("strings and numbers only");
        for (name, content) in [(SBOM, document), (MANIFEST, text)] {
            let path = scratch.join(name);
            fs::write(&path, content).at("write", &path)?;
        }
        install_image(&scratch, directory)
    }

    /// Unpacks the packages into `tree`, and says which they are.
    fn packages(&self, tree: &Path) -> Result<Vec<DebianPackage>, ImageError> {
        let (component, tools) = (self.plan.component, &self.store.tools);
        if component.packages.is_empty() {
            fs::create_dir_all(tree).at("create", tree)?;
            return Ok(Vec::new());
        }
        let mmdebstrap = tools.mmdebstrap.as_deref().ok_or(ImageError::NoMmdebstrap)?;
        let mut command = Command::new(mmdebstrap);
        command
            .current_dir("/")
            .env("SOURCE_DATE_EPOCH", base::EPOCH)
            .env("LC_ALL", "C.UTF-8")
            .args(["--mode=root", "--variant=extract"])
            .arg(format!("--include={}", component.packages.join(",")))
            .arg("--aptopt=Acquire::Languages \"none\"")
            .arg("--aptopt=Acquire::Retries \"2\"")
            .arg(format!("--extract-hook={}", packages::HOOK))
            .arg(&self.store.catalog.base.suite)
            .arg(tree)
            .args(tools.debian_mirror.as_deref());
        let log = self
            .store
            .paths
            .logs
            .join(format!("{}-packages.log", component.name));
        let what = format!("unpacking Debian's packages for {}", component.name);
        self.runner.run(&what, &mut command, &log)?;
        packages::unpacked(tree)
    }

    fn step(
        &self,
        step: &str,
        expected: Duration,
        run: impl FnOnce() -> Result<(), ImageError>,
    ) -> Result<(), ImageError> {
        let clock = &self.store.env.clock;
        self.progress.event(Event::Started { step, expected });
        let start = clock.monotonic();
        run()?;
        self.progress.event(Event::Finished {
            step,
            took: clock.monotonic().saturating_sub(start),
        });
        Ok(())
    }
}

/// The same content as of a node image, for the bill of materials.
fn described(addon: &AddonManifest) -> Manifest {
    Manifest {
        schema: addon.schema,
        version: addon.program.version.clone(),
        key: addon.key.clone(),
        recipe: addon.recipe.clone(),
        architecture: addon.architecture.clone(),
        created: addon.created,
        source: addon.source.clone(),
        layers: Vec::new(),
        programs: vec![addon.program.clone()],
        images: vec![addon.image.clone()],
        packages: addon.packages.clone(),
        sbom: String::new(),
    }
}
