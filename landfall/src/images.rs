//! Node images and images of add-ons for the commands and for the fabric: listing them, building with progress, and building on a
//! cluster's first use of a version, or of an add-on.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use agent_api::ImageArchive;
use anyhow::{Context as _, Result};
use base_env::Env;
use cluster_versions::Offered;
use image::{AddonImage, Event, ImageError, ImageStore, NodeImage, Progress, Source, Tools};
use tokio::sync::mpsc;

use crate::{
    printer::{Step, duration, size},
    problem::Problem,
    stamp::{Places, Settings},
};

/// The place of a stamp's images, whether the stamp is made yet or not.
pub(crate) fn cache_dir(places: &Places) -> Result<PathBuf> {
    let remembered = Settings::load(places)?.and_then(|settings| settings.cache);
    image::cache_dir(remembered.as_deref()).map_err(problem)
}

/// The images of a stamp; others share them.
pub(crate) fn store(places: &Places) -> Result<ImageStore> {
    ImageStore::open(cache_dir(places)?).map_err(problem)
}

/// Bytes of disk that building the image of a version needs; `None` if the image exists.
pub(crate) fn build_disk(places: &Places, version: &str) -> Result<Option<u64>> {
    /// Measured, with empty caches; for a host where the plan cannot be made yet (without Go).
    const EVERYTHING: u64 = 8_000_000_000;
    let store = store(places)?;
    if store.find(version).map_err(problem)?.is_some() {
        return Ok(None);
    }
    let estimate = store.estimate(version, &Source::Modules);
    Ok(Some(
        estimate.map_or(EVERYTHING, |estimate| estimate.disk_mb * 1_000_000),
    ))
}

/// The version of a first cluster.
pub(crate) fn preferred_version() -> String {
    Offered::pinned().default_version().to_string()
}

/// The full version for a possibly shortened one.
pub(crate) fn resolve(text: &str) -> Result<String> {
    Offered::pinned()
        .resolve(text)
        .map(|version| version.to_string())
        .map_err(|error| {
            Problem::usage(
                error.to_string(),
                "landfall image list shows the versions there are",
            )
            .into()
        })
}

/// The path of a version's own kubectl on this host.
pub(crate) fn kubectl(places: &Places, version: &str) -> Result<Option<PathBuf>> {
    Ok(store(places)?
        .find(version)
        .map_err(problem)?
        .and_then(|image| image.program("kubectl")))
}

/// The damage of an image, as far as it is visible without reading all of it.
pub(crate) fn damage(places: &Places, version: &str) -> Result<Option<Problem>> {
    let store = store(places)?;
    let Some(image) = store.find(version).map_err(problem)? else {
        return Ok(None);
    };
    let differences = match store.glance(&image) {
        Ok(found) => found.iter().map(ToString::to_string).collect(),
        Err(error) => vec![problem(error).to_string()],
    };
    Ok(differences.first().map(|first| {
        let more = match differences.len() {
            1 => String::new(),
            count => format!(" (and {} more differences)", count - 1),
        };
        Problem::new(
            format!("the node image in the cache is damaged: {first}{more}"),
            format!("landfall image verify --repair {version}, then repeat"),
        )
    }))
}

/// The accepted images of a version.
pub(crate) enum Wanted {
    /// The present image; else one built from source.
    Any,
    /// Only one from this source.
    From(Source),
}

/// Makes sure that the image of a version exists; reports progress to `step`.
pub(crate) async fn ensure(places: &Places, version: &str, image: Wanted, step: &Step) -> Result<NodeImage> {
    let wanted = version.to_owned();
    building(store(places)?, step, move |store, progress| match image {
        Wanted::Any => store.ensure(&wanted, &Source::Modules, progress),
        Wanted::From(source) => store.build(&wanted, &source, progress),
    })
    .await
}

/// The same for the image of an add-on.
pub(crate) async fn ensure_addon(
    places: &Places,
    name: &str,
    image: Wanted,
    step: &Step,
) -> Result<AddonImage> {
    let name = name.to_owned();
    building(store(places)?, step, move |store, progress| match image {
        Wanted::Any => store.ensure_addon(&name, &Source::Modules, progress),
        Wanted::From(source) => store.build_addon(&name, &source, progress),
    })
    .await
}

/// Builds in a thread of its own; reports progress to `step`.
async fn building<T: Send + 'static>(
    store: ImageStore,
    step: &Step,
    build: impl FnOnce(&ImageStore, &dyn Progress) -> Result<T, ImageError> + Send + 'static,
) -> Result<T> {
    let (sender, mut said) = mpsc::unbounded_channel();
    let tracker = Mutex::new(Tracker::default());
    let progress = move |event: Event<'_>| {
        let text = tracker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .hear(&event);
        // The receiver is gone after an interruption; the build is killed with it.
        drop(sender.send(text));
    };
    let build = tokio::task::spawn_blocking(move || build(&store, &progress));
    // Ends when the build, and with it the sender, is gone.
    while let Some(text) = said.recv().await {
        step.now(&text);
    }
    build
        .await
        .context("the build ended unexpectedly")?
        .map_err(problem)
}

/// A line about an image, for the end of a step.
pub(crate) fn summary(image: &NodeImage) -> String {
    format!(
        "{}, {} programs",
        size(image.size()),
        image.manifest.programs.len()
    )
}

/// The progress of a build, as one line.
#[derive(Default)]
struct Tracker {
    expected: BTreeMap<String, Duration>,
    running: BTreeSet<String>,
    done: usize,
    left: Duration,
}

impl Tracker {
    fn hear(&mut self, event: &Event<'_>) -> String {
        match event {
            Event::Planned(estimate) => {
                self.expected = estimate.steps.iter().cloned().collect();
                self.left = estimate.total;
                return format!(
                    "{} steps, about {} here the first time",
                    estimate.steps.len(),
                    duration(estimate.total.as_secs_f64())
                );
            }
            Event::Waiting { holder } => {
                let who = holder.map(|pid| format!(" (process {pid})")).unwrap_or_default();
                return format!("another build is under way{who}, waiting for it");
            }
            Event::Started { step, .. } => {
                self.running.insert((*step).to_owned());
            }
            Event::Finished { step, .. } | Event::Cached { step } => {
                self.running.remove(*step);
                // Steps of an earlier build are reported as well, but are not in the plan.
                if let Some(took) = self.expected.remove(*step) {
                    self.done += 1;
                    self.left = self.left.saturating_sub(took);
                }
            }
            _ => {}
        }
        let what = self
            .running
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(", ");
        let total = self.done + self.expected.len();
        let left = if self.left.as_secs() >= 30 {
            format!(", about {} left", duration(self.left.as_secs_f64()))
        } else {
            String::new()
        };
        if what.is_empty() {
            return format!("{} of {total} done{left}", self.done);
        }
        format!("{what} ({} of {total}{left})", (self.done + 1).min(total.max(1)))
    }
}

/// An image error as a problem with a next step.
pub(crate) fn problem(error: ImageError) -> anyhow::Error {
    if let ImageError::Failed { what, detail, log } = &error {
        return Problem::new(
            format!("{what} cannot be built: {detail}"),
            format!("read {log}; repeat the command afterwards: what is finished is kept"),
        )
        .into();
    }
    if let ImageError::BadArchive { archive, detail } = &error {
        return Problem::new(
            format!("{archive} cannot be used: {detail}"),
            "get it again from where it came, whole (landfall image export writes such files), and repeat",
        )
        .into();
    }
    if let ImageError::Io { what, source } = error {
        let next =
            crate::problem::after(source.kind()).unwrap_or("repeat the command: what is finished is kept");
        return Problem::new(format!("cannot {what}"), next)
            .because(source)
            .into();
    }
    let text = error.to_string();
    // These messages end with the next step behind a colon.
    match text.rsplit_once(": ") {
        Some((sentence, next)) => Problem::new(sentence, next).into(),
        None => Problem::new(text, "repeat the command: what is finished is kept")
            .because(error)
            .into(),
    }
}

/// No images: for a fabric that is only removed.
pub(crate) struct NoImages;

impl fabric_container::Images for NoImages {
    fn layers(&self, _version: &str) -> Option<Vec<PathBuf>> {
        None
    }
}

fn find(store: &ImageStore, version: &str) -> Option<Vec<PathBuf>> {
    match store.find(version) {
        Ok(image) => image.map(|image| image.layers),
        Err(error) => {
            tracing::error!(version, %error, "the node images cannot be read");
            None
        }
    }
}

/// What an image is of, by the key of its build.
pub(crate) fn title(key: &str) -> String {
    if key.starts_with(|first: char| first.is_ascii_digit()) {
        format!("Kubernetes {key}")
    } else {
        format!("add-on {key}")
    }
}

/// The images of a running service: a missing one is built in the background when a machine, or a cluster, first needs it.
pub(crate) struct ImagesOnDemand {
    store: ImageStore,
    /// By version, or by the name of the add-on: the current step, or the error of the last build.
    builds: Arc<Mutex<BTreeMap<String, Build>>>,
}

struct Build {
    running: bool,
    text: String,
}

impl ImagesOnDemand {
    pub(crate) fn open(places: &Places, env: &Env) -> Result<Self> {
        let store =
            ImageStore::with(cache_dir(places)?, env.clone(), Tools::of_this_host()).map_err(problem)?;
        Ok(Self {
            store,
            builds: Arc::default(),
        })
    }

    /// Running builds with their current step, for people.
    pub(crate) fn under_way(&self) -> BTreeMap<String, String> {
        let builds = self.builds.lock().unwrap_or_else(PoisonError::into_inner);
        builds
            .iter()
            .map(|(key, build)| (key.clone(), build.text.clone()))
            .collect()
    }

    /// Starts a build unless one runs. The loops retry with growing pauses, so a failed build is tried again.
    fn start(&self, key: &str, build: fn(&ImageStore, &Teller) -> Result<(), ImageError>) {
        let mut builds = self.builds.lock().unwrap_or_else(PoisonError::into_inner);
        if builds.get(key).is_some_and(|build| build.running) {
            return;
        }
        builds.insert(
            key.to_owned(),
            Build {
                running: true,
                text: "being built".to_owned(),
            },
        );
        drop(builds);
        tracing::info!(image = %title(key), "building the image that a cluster asked for");
        let teller = Teller {
            key: key.to_owned(),
            builds: Arc::clone(&self.builds),
            tracker: Mutex::default(),
        };
        let store = self.store.clone();
        let builder = std::thread::Builder::new().name("image-build".to_owned());
        let spawned = builder.spawn(move || {
            let outcome = build(&store, &teller);
            let key = &teller.key;
            let mut builds = teller.builds.lock().unwrap_or_else(PoisonError::into_inner);
            match outcome {
                Ok(()) => {
                    tracing::info!(image = %title(key), "the image is built");
                    builds.remove(key);
                }
                Err(error) => {
                    tracing::error!(image = %title(key), %error, "the image cannot be built");
                    builds.insert(
                        key.clone(),
                        Build {
                            running: false,
                            text: format!("cannot be built: {error}"),
                        },
                    );
                }
            }
        });
        if let Err(error) = spawned {
            tracing::error!(image = %title(key), %error, "no thread for building the image");
            self.builds
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(key);
        }
    }
}

impl fabric_container::Images for ImagesOnDemand {
    fn layers(&self, version: &str) -> Option<Vec<PathBuf>> {
        let layers = find(&self.store, version);
        if layers.is_none() {
            self.start(version, |store, teller| {
                let image = store.ensure(&teller.key, &Source::Modules, teller);
                image.map(drop)
            });
        }
        layers
    }

    fn state(&self, version: &str) -> Option<String> {
        self.under_way().remove(version)
    }

    fn has_addon(&self, name: &str) -> bool {
        match self.store.addon(name) {
            Ok(Some(_)) => return true,
            Ok(None) => {}
            // A build says it again, where it is seen.
            Err(error) => tracing::error!(name, %error, "the images of add-ons cannot be read"),
        }
        self.start(name, |store, teller| {
            let image = store.ensure_addon(&teller.key, &Source::Modules, teller);
            image.map(drop)
        });
        false
    }

    fn addon_state(&self, name: &str) -> Option<String> {
        self.under_way().remove(name)
    }
}

impl agent_api::AddonImages for ImagesOnDemand {
    fn archive(&self, name: &str, tag: &str) -> io::Result<Option<ImageArchive>> {
        let image = match self.store.addon(name) {
            Ok(image) => image,
            // A name that this release does not know.
            Err(ImageError::UnknownAddon { .. }) => None,
            Err(error) => return Err(io::Error::other(error)),
        };
        let image = image.filter(|image| image.manifest.program.version == tag);
        Ok(image.map(|image| ImageArchive {
            path: image.archive(),
            digest: image.manifest.image.digest,
        }))
    }
}

impl providers_containerservice::NodeImages for ImagesOnDemand {
    fn built_at(&self, version: &str) -> Option<jiff::Timestamp> {
        match self.store.find(version) {
            Ok(image) => image.map(|image| image.manifest.created),
            Err(error) => {
                tracing::error!(version, %error, "the node images cannot be read");
                None
            }
        }
    }
}

/// Keeps the progress of a background build for `status`.
struct Teller {
    key: String,
    builds: Arc<Mutex<BTreeMap<String, Build>>>,
    tracker: Mutex<Tracker>,
}

impl Progress for Teller {
    fn event(&self, event: Event<'_>) {
        let text = self
            .tracker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .hear(&event);
        let mut builds = self.builds.lock().unwrap_or_else(PoisonError::into_inner);
        builds.insert(self.key.clone(), Build { running: true, text });
    }
}

#[cfg(test)]
mod tests {
    use image::Estimate;

    use super::*;

    #[test]
    fn a_build_says_what_it_does_and_how_long_it_takes() {
        let minute = Duration::from_secs(60);
        let mut tracker = Tracker::default();
        let estimate = Estimate {
            version: "1.36.3".into(),
            steps: vec![
                ("kubelet".into(), minute),
                ("etcd".into(), minute),
                ("runc".into(), minute),
            ],
            cached: Vec::new(),
            total: 3 * minute,
            disk_mb: 1,
        };
        assert_eq!(
            tracker.hear(&Event::Planned(&estimate)),
            "3 steps, about 3 min 0 s here the first time"
        );
        tracker.hear(&Event::Cached { step: "runc" });
        tracker.hear(&Event::Started {
            step: "kubelet",
            expected: minute,
        });
        let both = tracker.hear(&Event::Started {
            step: "etcd",
            expected: minute,
        });
        assert_eq!(both, "etcd, kubelet (2 of 3, about 2 min 0 s left)");
        tracker.hear(&Event::Finished {
            step: "etcd",
            took: minute,
        });
        let last = tracker.hear(&Event::Finished {
            step: "kubelet",
            took: minute,
        });
        assert_eq!(last, "3 of 3 done");
    }

    #[test]
    fn an_image_error_becomes_a_sentence_and_a_next_step() {
        let told = crate::problem::told(&problem(ImageError::NoGo {
            at_least: "1.26".into(),
        }));
        assert_eq!(told.sentence, "the Go toolchain is not installed");
        assert!(told.next.unwrap().contains("install Go 1.26"));
    }
}
