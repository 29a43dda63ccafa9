//! Node images and images of add-ons for the commands and for the fabric: listing them, building with progress, and building on a
//! cluster's first use of a version, or of an add-on.

mod on_demand;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use cluster_spec::node_image_version;
use cluster_versions::Offered;
use image::{AddonImage, Event, ImageError, ImageStore, NodeImage, Progress, Renewed, Source};
use tokio::sync::mpsc;

use crate::{
    printer::{Step, duration, size},
    problem::Problem,
    stamp::{Places, Settings},
};

pub(crate) use on_demand::ImagesOnDemand;

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
    let store = store(places)?;
    let wanted = version.to_owned();
    told(step, move |progress| match image {
        Wanted::Any => store.ensure(&wanted, &Source::Modules, &progress),
        Wanted::From(source) => store.build(&wanted, &source, &progress),
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
    let store = store(places)?;
    let name = name.to_owned();
    told(step, move |progress| match image {
        Wanted::Any => store.ensure_addon(&name, &Source::Modules, &progress),
        Wanted::From(source) => store.build_addon(&name, &source, &progress),
    })
    .await
}

/// Does work that blocks in a thread of its own, and tells `step` of its progress.
async fn told<T: Send + 'static>(
    step: &Step,
    work: impl FnOnce(ToStep) -> Result<T, ImageError> + Send + 'static,
) -> Result<T> {
    let (sender, mut said) = mpsc::unbounded_channel();
    let progress = ToStep {
        tracker: Mutex::default(),
        sender,
    };
    let build = tokio::task::spawn_blocking(move || work(progress));
    // Ends when the build, and with it the sender, is gone.
    while let Some(text) = said.recv().await {
        step.now(&text);
    }
    build
        .await
        .context("the build ended unexpectedly")?
        .map_err(problem)
}

/// Passes progress on as lines.
struct ToStep {
    tracker: Mutex<Tracker>,
    sender: mpsc::UnboundedSender<String>,
}

impl Progress for ToStep {
    fn event(&self, event: Event<'_>) {
        let text = self
            .tracker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .hear(&event);
        // The receiver is gone after an interruption; the build is killed with it.
        drop(self.sender.send(text));
    }
}

/// Makes a newer image of a version where Debian has other packages by now; reports progress to `step`.
pub(crate) async fn renew(places: &Places, version: &str, step: &Step) -> Result<Renewed> {
    let store = store(places)?;
    let wanted = version.to_owned();
    told(step, move |progress| {
        store.renew(&wanted, &Source::Modules, &progress)
    })
    .await
}

/// A line about an image, for the end of a step.
pub(crate) fn summary(image: &NodeImage) -> String {
    format!(
        "{}, {}, {} programs",
        node_image_version(&image.version, Some(&image.build())),
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

/// What an image is of, by the key of its build.
pub(crate) fn title(key: &str) -> String {
    if key.starts_with(|first: char| first.is_ascii_digit()) {
        format!("Kubernetes {key}")
    } else {
        format!("add-on {key}")
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
