//! The images of a running service: for the fabric, for agents, and for decisions.
//!
//! Always true: a missing image is built once at a time, in a thread of its own; what is built, or why it could not be, is told by its key.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use agent_api::ImageArchive;
use anyhow::Result;
use base_env::Env;
use cluster_spec::split_reference;
use image::{Change, Event, ImageError, ImageStore, NodeImage, Progress, Removed, Renewed, Source, Tools};
use jiff::Timestamp;
use providers_containerservice::{NodeImages, built_on};

use super::{Tracker, cache_dir, problem, title};
use crate::stamp::Places;

/// The layers of what a machine boots (see [`split_reference`]). A build that is gone is replaced by the newest one of its version: a machine
/// with other packages is better than none.
fn find(store: &ImageStore, image: &str) -> Option<Vec<PathBuf>> {
    let (version, build) = split_reference(image);
    let found = match build {
        Some(build) => store.find_build(version, build),
        None => Ok(None),
    };
    let found = found.and_then(|found| match found {
        Some(image) => Ok(Some(image)),
        None => store.find(version),
    });
    match found {
        Ok(Some(found)) => {
            if build.is_some_and(|build| build != found.build()) {
                let boots = found.build();
                tracing::warn!(image, %boots, "a node image is gone; the newest of its version is booted");
            }
            Some(found.layers)
        }
        Ok(None) => None,
        Err(error) => {
            tracing::error!(image, %error, "the node images cannot be read");
            None
        }
    }
}

/// The images of a running service: a missing one is built in the background when a machine, or a cluster, first needs it.
pub(crate) struct ImagesOnDemand {
    env: Env,
    store: ImageStore,
    /// By version, or by the name of the add-on: the current step, or the error of the last build.
    builds: Arc<Mutex<BTreeMap<String, Build>>>,
    /// By version: when its newest image was last seen to have all packages that Debian has.
    looked: Mutex<BTreeMap<String, Timestamp>>,
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
            env: env.clone(),
            store,
            builds: Arc::default(),
            looked: Mutex::default(),
        })
    }

    /// How many node images are being built.
    pub(crate) fn building(&self) -> usize {
        let builds = self.builds.lock().unwrap_or_else(PoisonError::into_inner);
        builds.values().filter(|build| build.running).count()
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
    fn layers(&self, image: &str) -> Option<Vec<PathBuf>> {
        let layers = find(&self.store, image);
        if layers.is_none() {
            self.start(split_reference(image).0, |store, teller| {
                let image = store.ensure(&teller.key, &Source::Modules, teller);
                image.map(drop)
            });
        }
        layers
    }

    fn state(&self, image: &str) -> Option<String> {
        self.under_way().remove(split_reference(image).0)
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

impl ImagesOnDemand {
    /// All images of a version, the newest first.
    pub(crate) fn of_version(&self, version: &str) -> Vec<NodeImage> {
        self.store.of_version(version).unwrap_or_else(|error| {
            tracing::error!(version, %error, "the node images cannot be read");
            Vec::new()
        })
    }

    /// Makes a newer image of a version where Debian has other packages by now. Blocks for about a minute.
    pub(crate) fn renew(&self, version: &str) -> Result<Renewed, ImageError> {
        let teller = Teller {
            key: version.to_owned(),
            builds: Arc::clone(&self.builds),
            tracker: Mutex::default(),
        };
        let renewed = self.store.renew(version, &Source::Modules, &teller);
        let mut builds = self.builds.lock().unwrap_or_else(PoisonError::into_inner);
        builds.remove(version);
        drop(builds);
        if renewed.is_ok() {
            let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
            looked.insert(version.to_owned(), self.env.clock.now());
        }
        renewed
    }

    /// Removes images of which `needed` (by version and build) does not say that they are, but for the `least` newest of each version.
    pub(crate) fn prune(
        &self,
        least: usize,
        needed: impl Fn(&str, &str) -> bool,
    ) -> Result<Vec<Removed>, ImageError> {
        self.store.prune(least, needed)
    }

    fn changed(&self, version: &str, from: &str, to: &str) -> Vec<Change> {
        self.store.changes(version, from, to).unwrap_or_else(|error| {
            tracing::warn!(version, from, to, %error, "node images cannot be compared");
            Vec::new()
        })
    }
}

impl NodeImages for ImagesOnDemand {
    fn builds(&self, version: &str) -> Vec<String> {
        self.of_version(version).iter().map(NodeImage::build).collect()
    }

    fn changes(&self, version: &str, from: &str, to: &str) -> Vec<String> {
        let changes = self.changed(version, from, to);
        changes.iter().map(ToString::to_string).collect()
    }

    fn is_patched(&self, version: &str, from: &str, to: &str) -> bool {
        // Of one that is gone nothing can be said: then the newest is better.
        let gone = !self.builds(version).iter().any(|build| build == from);
        let changes = self.changed(version, from, to);
        gone || changes.iter().any(|change| change.kind == "package")
    }

    fn built_at(&self, version: &str, build: &str) -> Option<Timestamp> {
        let found = self.store.find_build(version, build).unwrap_or_else(|error| {
            tracing::error!(version, build, %error, "the node images cannot be read");
            None
        });
        // Of one that is gone its day is known.
        found.map_or_else(|| built_on(build), |image| Some(image.manifest.created))
    }

    fn fresh_at(&self, version: &str) -> Option<Timestamp> {
        let newest = self.of_version(version).into_iter().next()?;
        let looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        looked.get(version).copied().max(Some(newest.manifest.created))
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
