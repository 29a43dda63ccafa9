//! Builds in two parallel lanes: one for the programs of the version, one for everything that versions share.
//!
//! Programs of one Go module share most of their compilation, so they are built one after the other; the two
//! lanes share little, and while one waits for the network, a disk or a linker, the other uses the
//! processors. Shared programs that use Kubernetes' own libraries wait until the first program of the version
//! has compiled them: two concurrent compilers do not share their work.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::{Condvar, Mutex, PoisonError},
    time::Duration,
};

use crate::{
    base,
    components::Place,
    containers,
    error::{ImageError, IoContext as _},
    key,
    layer::{self, Layer},
    lock::BuildLock,
    manifest::{ContainerImage, Manifest, ProgramRecord, SCHEMA},
    oci,
    plan::{self, Plan, ProgramPlan},
    process::Runner,
    program::{self, Workshop},
    progress::{Event, Progress},
    sbom,
    source::Source,
    space,
    store::{ImageStore, MANIFEST, NodeImage, Paths, SBOM},
};

/// Megabytes in Go's caches for one Kubernetes version, and for the shared components.
const GO_CACHE_MB: [u64; 2] = [4500, 3500];

impl ImageStore {
    /// The image of this version: an existing one made from the pins of this release, whatever its source;
    /// else it is built from `source`. Waits while another process builds. Takes minutes; it may be killed at
    /// any time and called again.
    ///
    /// # Errors
    /// Each names the missing part and the next step; see [`ImageError`].
    pub fn ensure(
        &self,
        version: &str,
        source: &Source,
        progress: &dyn Progress,
    ) -> Result<NodeImage, ImageError> {
        match self.current(version)? {
            Some(image) => Ok(image),
            None => self.build(version, source, progress),
        }
    }

    /// As [`Self::ensure`], but only an image from exactly this source and toolchain counts as existing.
    ///
    /// # Errors
    /// As [`Self::ensure`].
    pub fn build(
        &self,
        version: &str,
        source: &Source,
        progress: &dyn Progress,
    ) -> Result<NodeImage, ImageError> {
        let plan = Plan::new(&self.catalog, version, source, &self.tools, &self.paths)?;
        let directory = self.paths.image(&plan.version, &plan.key);
        if let Some(image) = self.load(&directory)? {
            return Ok(image);
        }
        let _lock = BuildLock::take(&self.paths.lock, progress)?;
        // The previous holder of the lock may have built this image.
        if let Some(image) = self.load(&directory)? {
            return Ok(image);
        }
        sweep(&self.paths.scratch)?;
        let build = Build::new(self, &plan, progress)?;
        let estimate = plan.estimate(&self.catalog, &self.paths)?;
        progress.event(Event::Planned(&estimate));
        build.preflight(estimate.disk_mb)?;
        build.layers()?;
        build.image(source, &directory)?;
        sweep(&self.paths.scratch)?;
        self.load(&directory)?.ok_or_else(|| ImageError::NotBuilt {
            version: plan.version.clone(),
        })
    }
}

/// Removes the scratch files of a killed build. Only called by the holder of the lock.
pub(crate) fn sweep(scratch: &Path) -> Result<(), ImageError> {
    if !scratch.exists() {
        return Ok(());
    }
    // mmdebstrap works in a private mount namespace, so nothing should be mounted here. Removing a tree with
    // the host's /sys or /dev in it would be a disaster, so check.
    let mut table = String::new();
    let path = Path::new("/proc/self/mounts");
    fs::File::open(path)
        .and_then(|mut file| file.read_to_string(&mut table))
        .at("read", path)?;
    let inside = |line: &&str| {
        line.split(' ')
            .nth(1)
            .is_some_and(|point| Path::new(point).starts_with(scratch))
    };
    if let Some(point) = table.lines().find(inside).and_then(|line| line.split(' ').nth(1)) {
        return Err(io::Error::other(format!(
            "{point} is mounted: unmount it and repeat"
        )))
        .at("clean up after an earlier build in", scratch);
    }
    match fs::remove_dir_all(scratch) {
        // A compiler of a killed build may still be writing; it fails when its directory is gone. A second
        // removal gets the rest.
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => fs::remove_dir_all(scratch),
        other => other,
    }
    .at("remove", scratch)
}

struct Build<'a> {
    store: &'a ImageStore,
    paths: &'a Paths,
    plan: &'a Plan<'a>,
    progress: &'a dyn Progress,
    runner: Runner,
    libraries: Latch,
}

/// Opens once; threads that wait at it continue then.
#[derive(Debug, Default)]
struct Latch {
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Latch {
    fn open(&self) {
        *self.is_open.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.opened.notify_all();
    }

    fn wait(&self) {
        let is_open = self.is_open.lock().unwrap_or_else(PoisonError::into_inner);
        drop(
            self.opened
                .wait_while(is_open, |is_open| !*is_open)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }
}

/// Opens the latch on drop, whatever the reason.
struct Opening<'a>(&'a Latch);

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.open();
    }
}

impl<'a> Build<'a> {
    fn new(
        store: &'a ImageStore,
        plan: &'a Plan<'a>,
        progress: &'a dyn Progress,
    ) -> Result<Self, ImageError> {
        let paths = &store.paths;
        for directory in [&paths.scratch, &paths.logs, &paths.layers, &paths.images] {
            fs::create_dir_all(directory).at("create", directory)?;
        }
        Ok(Self {
            store,
            paths,
            plan,
            progress,
            runner: Runner::default(),
            libraries: Latch::default(),
        })
    }

    /// Checks requirements that would otherwise fail late.
    fn preflight(&self, store_mb: u64) -> Result<(), ImageError> {
        if !self.is_there(&self.plan.base.id) {
            self.mmdebstrap()?;
            if !self.store.tools.root {
                return Err(ImageError::NotRoot);
            }
        }
        let missing = |programs: &[ProgramPlan<'_>]| {
            programs.iter().try_fold(false, |missing, plan| {
                let compiled = matches!(plan.recipe, program::Recipe::Module { .. });
                let found = program::find(&self.paths.programs, &plan.key, &plan.program.name)?.is_some();
                Ok::<_, ImageError>(missing || (compiled && !found))
            })
        };
        let mut go_mb = 0;
        if !self.is_there(&self.plan.kubernetes.id) && missing(&self.plan.kubernetes_programs)? {
            go_mb += GO_CACHE_MB[0];
        }
        if !self.is_there(&self.plan.common.id) && missing(&self.plan.shared_programs)? {
            go_mb += GO_CACHE_MB[1];
        }
        let go_cache = go_cache(&self.paths.root);
        // Results of an earlier build in Go's cache are not needed again. Its size is unknown without reading
        // all of it; if it exists, most of it is there.
        if go_cache.join("trim.txt").exists() {
            go_mb = go_mb.min(1500);
        }
        space::check(&self.paths.root, store_mb, "LANDFALL_CACHE_DIR")?;
        space::check(&go_cache, go_mb + store_mb, "GOCACHE")
    }

    fn mmdebstrap(&self) -> Result<&Path, ImageError> {
        self.store
            .tools
            .mmdebstrap
            .as_deref()
            .ok_or(ImageError::NoMmdebstrap)
    }

    fn is_there(&self, id: &str) -> bool {
        self.paths.layer(id).is_dir()
    }

    /// Runs both lanes to their end. The error is that of the lane that failed first.
    fn layers(&self) -> Result<(), ImageError> {
        let stopping = |result: Result<(), ImageError>| result.inspect_err(|_| self.runner.stop());
        let (version, shared) = std::thread::scope(|scope| {
            let version = scope.spawn(|| {
                let _opening = Opening(&self.libraries);
                stopping(self.kubernetes())
            });
            let shared = stopping(self.base().and_then(|()| self.common()));
            (version.join(), shared)
        });
        let version = match version {
            Ok(version) => version,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        match (version, shared) {
            // This lane was stopped because the other failed: return the other's error.
            (Err(ImageError::Stopped { .. }), Err(error)) | (Err(error), _) | (Ok(()), Err(error)) => {
                Err(error)
            }
            (Ok(()), Ok(())) => Ok(()),
        }
    }

    fn base(&self) -> Result<(), ImageError> {
        let plan = &self.plan.base;
        if self.is_there(&plan.id) {
            self.progress.event(Event::Cached {
                step: plan::BASE_STEP,
            });
            return Ok(());
        }
        let catalog = &self.store.catalog.base;
        let mmdebstrap = self.mmdebstrap()?;
        self.step(plan::BASE_STEP, Duration::from_secs(catalog.seconds), || {
            let scratch = self.scratch(plan.name)?;
            let mut layer = Layer::new(plan.name, &plan.id);
            let mirror = self.store.tools.debian_mirror.as_deref();
            base::build(
                catalog,
                mmdebstrap,
                mirror,
                &self.runner,
                &scratch,
                &self.log(plan.name),
                &mut layer,
            )?;
            layer.install(&scratch, &self.paths.layers)
        })
    }

    fn kubernetes(&self) -> Result<(), ImageError> {
        let plan = &self.plan.kubernetes;
        if self.is_there(&plan.id) {
            self.progress.event(Event::Cached {
                step: plan::LAYER_STEP,
            });
            return Ok(());
        }
        self.programs(&self.plan.kubernetes_programs)?;
        self.step(plan::LAYER_STEP, Duration::from_secs(2), || {
            let scratch = self.scratch(plan.name)?;
            let mut layer = Layer::new(plan.name, &plan.id);
            let rootfs = scratch.join(layer::ROOTFS);
            self.place(&mut layer, &rootfs, &self.plan.kubernetes_programs)?;
            layer.install(&scratch, &self.paths.layers)
        })
    }

    fn common(&self) -> Result<(), ImageError> {
        let plan = &self.plan.common;
        if self.is_there(&plan.id) {
            self.progress.event(Event::Cached {
                step: plan::COMMON_STEP,
            });
            return Ok(());
        }
        self.programs(&self.plan.shared_programs)?;
        self.step(plan::COMMON_STEP, Duration::from_secs(4), || {
            let scratch = self.scratch(plan.name)?;
            let mut layer = Layer::new(plan.name, &plan.id);
            let rootfs = scratch.join(layer::ROOTFS);
            self.place(&mut layer, &rootfs, &self.plan.shared_programs)?;
            self.images(&mut layer, &rootfs)?;
            layer.install(&scratch, &self.paths.layers)
        })
    }

    /// Builds the missing programs, one after the other.
    fn programs(&self, plans: &[ProgramPlan<'_>]) -> Result<(), ImageError> {
        for plan in plans {
            let name = &plan.program.name;
            if program::find(&self.paths.programs, &plan.key, name)?.is_some() {
                self.progress.event(Event::Cached { step: name });
                continue;
            }
            if plan.component.libraries.as_ref() == Some(&self.plan.folder) {
                self.libraries.wait();
            }
            if self.runner.is_stopped() {
                return Err(ImageError::Stopped { what: name.clone() });
            }
            let workshop = Workshop {
                runner: &self.runner,
                programs: &self.paths.programs,
                downloads: &self.paths.downloads,
                scratch: &self.paths.scratch,
                log: self.log(name),
                go_caches: &self.paths.root,
            };
            self.step(name, plan.expected(), || {
                workshop.make(plan.component, plan.program, &plan.recipe, &plan.key)
            })?;
            if plan.component.layer == Place::Kubernetes {
                self.libraries.open();
            }
        }
        Ok(())
    }

    /// Places programs into a layer. By hard link: the store holds each program once.
    fn place(&self, layer: &mut Layer, rootfs: &Path, plans: &[ProgramPlan<'_>]) -> Result<(), ImageError> {
        fs::create_dir_all(rootfs).at("create", rootfs)?;
        layer::mode(rootfs, 0o755)?;
        for plan in plans {
            let (file, finished) = self.finished(plan)?;
            let (component, name) = (plan.component, &plan.program.name);
            let in_image = component.layer == Place::Images;
            let path = if in_image {
                format!("/{name}")
            } else {
                format!("{}/{name}", component.directory)
            };
            if !in_image {
                let target = layer::directory(rootfs, &component.directory)?.join(name);
                if fs::hard_link(&file, &target).is_err() {
                    fs::copy(&file, &target).at("copy a program to", &target)?;
                    layer::mode(&target, 0o755)?;
                }
            }
            layer.programs.push(ProgramRecord {
                name: name.clone(),
                component: component.name.clone(),
                module: component.module.clone(),
                version: component.version.clone(),
                git_commit: component.git_commit.clone(),
                go: finished.linked.as_ref().map(|linked| linked.go.clone()),
                path,
                image: in_image.then(|| containers::reference(component, plan.program)),
                size: finished.size,
                sha256: finished.sha256,
            });
            if let Some(linked) = finished.linked {
                layer.linked.insert(name.clone(), linked);
            }
        }
        Ok(())
    }

    fn finished(&self, plan: &ProgramPlan<'_>) -> Result<(PathBuf, program::Finished), ImageError> {
        let name = &plan.program.name;
        program::find(&self.paths.programs, &plan.key, name)?.ok_or_else(|| ImageError::NoProgram {
            program: name.clone(),
            directory: self.paths.programs.display().to_string(),
        })
    }

    fn images(&self, layer: &mut Layer, rootfs: &Path) -> Result<(), ImageError> {
        let mut programs = BTreeMap::new();
        for plan in self
            .plan
            .shared_programs
            .iter()
            .filter(|plan| plan.component.layer == Place::Images)
        {
            programs.insert(plan.program.name.clone(), self.finished(plan)?.0);
        }
        let base = self.paths.layer(&self.plan.base.id).join(layer::ROOTFS);
        let directory = layer::directory(rootfs, crate::references::DIRECTORY)?;
        for image in containers::images(&self.store.catalog, &base, &programs)? {
            let file = format!("{}.tar", containers::name(&image.reference));
            let path = directory.join(&file);
            let written = oci::write(&image, &path)?;
            layer::mode(&path, 0o644)?;
            layer.images.push(ContainerImage {
                reference: image.reference,
                digest: written.digest,
                path: format!("{}/{file}", crate::references::DIRECTORY),
                size: written.size,
                sha256: written.sha256,
            });
        }
        Ok(())
    }

    /// Writes manifest and bill of materials; the image is complete then.
    fn image(&self, source: &Source, directory: &Path) -> Result<(), ImageError> {
        let mut layers = Vec::new();
        let (mut programs, mut images, mut packages) = (Vec::new(), Vec::new(), Vec::new());
        let mut linked = BTreeMap::new();
        for plan in [&self.plan.kubernetes, &self.plan.common, &self.plan.base] {
            let (layer, listing) = Layer::read(&self.paths.layer(&plan.id))?;
            layers.push(layer.record(listing));
            programs.extend(layer.programs);
            images.extend(layer.images);
            packages.extend(layer.packages);
            linked.extend(
                layer
                    .linked
                    .into_iter()
                    .map(|(name, linked)| (name, linked.into())),
            );
        }
        programs.sort_by(|a, b| a.name.cmp(&b.name));
        let mut manifest = Manifest {
            schema: SCHEMA,
            version: self.plan.version.clone(),
            key: self.plan.key.clone(),
            recipe: self.plan.recipe.clone(),
            architecture: crate::components::architecture().to_owned(),
            created: self.store.env.clock.now(),
            source: source.name().to_owned(),
            layers,
            programs,
            images,
            packages,
            sbom: String::new(),
        };
        let sbom = sbom::document("node-image", &manifest, &self.store.catalog.base.suite, &linked);
        let sbom = serde_json::to_vec(&sbom).expect("a JSON value");
        manifest.sbom = crate::digest::of_bytes(&sbom);
        let scratch = self.scratch("image")?;
        let text = serde_json::to_vec_pretty(&manifest).expect("strings and numbers only");
        for (name, content) in [(SBOM, sbom), (MANIFEST, text)] {
            let path = scratch.join(name);
            fs::write(&path, content).at("write", &path)?;
        }
        install_image(&scratch, directory)
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

    fn scratch(&self, name: &str) -> Result<PathBuf, ImageError> {
        let path = self
            .paths
            .scratch
            .join(format!("{name}-{}", key::short(&self.plan.key)));
        fs::create_dir_all(&path).at("create", &path)?;
        layer::mode(&path, 0o755)?;
        Ok(path)
    }

    fn log(&self, name: &str) -> PathBuf {
        self.paths.logs.join(format!("{name}.log"))
    }
}

/// Moves a finished image to its place, after all of it has reached the disk: after a power cut, no manifest
/// may list files that were never written.
pub(crate) fn install_image(scratch: &Path, directory: &Path) -> Result<(), ImageError> {
    let parent = directory.parent().expect("an image lies below its version");
    fs::create_dir_all(parent).at("create", parent)?;
    let file = fs::File::open(scratch).at("open", scratch)?;
    rustix::fs::syncfs(&file)
        .map_err(io::Error::from)
        .at("write out", scratch)?;
    // An image with a removed layer: its manifest is in the way.
    if directory.exists() {
        fs::remove_dir_all(directory).at("remove", directory)?;
    }
    fs::rename(scratch, directory).at("move a finished image to", directory)
}

/// The directory of Go's build cache.
pub(crate) fn go_cache(store: &Path) -> PathBuf {
    let variable = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    variable("GOCACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("go-build")))
        .or_else(|| variable("HOME").map(|home| home.join(".cache/go-build")))
        .unwrap_or_else(|| store.join("go-build"))
}
