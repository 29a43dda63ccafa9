//! Wake-ups: an object that the loops depend on may have changed in the cluster.
//!
//! Only the metadata of objects is requested, and only the resource version is kept, to continue from.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use base_env::Env;
use cluster_api::Watch;
use cluster_changes::ChangeCount;
use futures::TryStreamExt as _;
use kube::{
    Client,
    api::{WatchEvent, WatchParams},
    core::Request,
};
use serde::Deserialize;
use tokio::sync::watch;

use crate::{apply, enforcer::CONFIGURATIONS, namespaces, services, volumes, work};

/// While a cluster comes up, it is asked this often…
const EAGER: Duration = Duration::from_millis(200);
/// …for this number of attempts; later, while it is away, this interval.
const EAGER_ATTEMPTS: u32 = 300;
const PATIENT: Duration = Duration::from_secs(5);
/// A server sends a bookmark about every minute. A longer silence means that it is gone: this connection
/// never sends anything that could fail.
const SILENCE: Duration = Duration::from_secs(150);

/// The part of an object that is parsed.
#[derive(Clone, Deserialize)]
struct Seen {
    metadata: Version,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    resource_version: String,
}

/// Conditions of further watches.
pub(crate) struct There {
    /// Names of Services whose endpoints are needed.
    pub(crate) local_services: watch::Receiver<BTreeSet<String>>,
    /// Whether there are PersistentVolumes or VolumeAttachments of our drivers.
    pub(crate) volumes: watch::Receiver<bool>,
    /// Whether there may be snapshots of volumes.
    pub(crate) snapshots: watch::Receiver<bool>,
    /// Whether pods without a node are watched.
    pub(crate) scales: watch::Receiver<bool>,
    /// Names of the managed namespaces that were set.
    pub(crate) managed: watch::Receiver<BTreeSet<String>>,
}

/// Starts the watches of nodes, of serving requests, of admission webhooks, of Services of type LoadBalancer, of claims for volumes, and
/// those that are requested; those of endpoints, of PersistentVolumes, of VolumeAttachments, of snapshots, of
/// pods and of managed namespaces only while their conditions hold. They end when the returned value is
/// dropped.
pub(crate) fn start(env: &Env, client: &Client, watches: &[Watch], there: There) -> ChangeCount {
    let (sender, receiver) = watch::channel(0);
    let sender = Arc::new(sender);
    let serving = WatchParams::default().fields("spec.signerName=kubernetes.io/kubelet-serving");
    let balanced = WatchParams::default().fields(services::FIELDS);
    let all = [
        ("/api/v1/nodes".to_owned(), WatchParams::default()),
        (crate::serving::LIST.to_owned(), serving),
        (services::PATH.to_owned(), balanced),
        (volumes::CLAIMS.to_owned(), WatchParams::default()),
    ]
    .into_iter()
    .chain(CONFIGURATIONS.map(|(path, _)| (path.to_owned(), WatchParams::default())))
    .chain(watches.iter().map(|watch| {
        let path = apply::listed(watch.version, watch.kind, watch.namespace);
        (path, params(watch))
    }));
    for (path, params) in all {
        let mut follower = Follower::new(client.clone(), path, params);
        let (env, sender) = (env.clone(), Arc::clone(&sender));
        tokio::spawn(async move {
            tokio::select! {
                () = sender.closed() => {}
                () = follower.follow(&env, &sender) => {}
            }
        });
    }
    for (path, in_use) in [
        (volumes::VOLUMES, &there.volumes),
        (volumes::ATTACHMENTS, &there.volumes),
        (volumes::CONTENTS, &there.snapshots),
        (volumes::SNAPSHOTS, &there.snapshots),
    ] {
        let (env, client, sender) = (env.clone(), client.clone(), Arc::clone(&sender));
        let in_use = in_use.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = sender.closed() => {}
                () = volumes::follow(&env, &client, &sender, path, in_use) => {}
            }
        });
    }
    {
        let (env, client, sender) = (env.clone(), client.clone(), Arc::clone(&sender));
        tokio::spawn(async move {
            tokio::select! {
                () = sender.closed() => {}
                () = work::follow(&env, &client, &sender, there.scales) => {}
            }
        });
    }
    for number in 0..namespaces::KINDS {
        let (env, client, sender) = (env.clone(), client.clone(), Arc::clone(&sender));
        let managed = there.managed.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = sender.closed() => {}
                () = namespaces::follow(&env, &client, &sender, number, managed) => {}
            }
        });
    }
    let (env, client) = (env.clone(), client.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = sender.closed() => {}
            () = services::follow_endpoints(&env, &client, &sender, there.local_services) => {}
        }
    });
    ChangeCount::new(receiver)
}

fn params(watch: &Watch) -> WatchParams {
    WatchParams {
        label_selector: watch.labels.map(str::to_owned),
        field_selector: watch.name.map(|name| format!("metadata.name={name}")),
        ..WatchParams::default()
    }
}

/// Watches one kind of object.
pub(crate) struct Follower {
    client: Client,
    path: String,
    params: WatchParams,
    /// The resource version to continue from. Empty: starts with all existing objects, one wake-up each, so
    /// that no change is missed.
    version: String,
    /// Failures since the last event.
    failures: u32,
}

impl Follower {
    pub(crate) fn new(client: Client, path: String, params: WatchParams) -> Self {
        Self {
            client,
            path,
            params,
            version: String::new(),
            failures: 0,
        }
    }

    /// Runs for ever.
    pub(crate) async fn follow(&mut self, env: &Env, sender: &watch::Sender<u64>) {
        loop {
            // The server ends every watch after some minutes; that is no failure.
            if let Err(why) = self.once(env, sender).await {
                tracing::trace!(path = self.path, why, "a watch ended");
                self.failures += 1;
                self.version.clear();
            }
            let pause = if self.failures < EAGER_ATTEMPTS {
                EAGER
            } else {
                PATIENT
            };
            env.clock.sleep(pause).await;
        }
    }

    async fn once(&mut self, env: &Env, sender: &watch::Sender<u64>) -> Result<(), String> {
        let request = Request::new(self.path.as_str())
            .watch_metadata(&self.params, &self.version)
            .map_err(|error| error.to_string())?;
        let events = env
            .clock
            .timeout(SILENCE, self.client.request_events::<Seen>(request))
            .await
            .map_err(|elapsed| elapsed.to_string())?
            .map_err(|error| base_errors::chain(&error))?;
        futures::pin_mut!(events);
        while let Some(event) = env
            .clock
            .timeout(SILENCE, events.try_next())
            .await
            .map_err(|elapsed| elapsed.to_string())?
            .map_err(|error| base_errors::chain(&error))?
        {
            self.failures = 0;
            match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object) => {
                    self.version = object.metadata.resource_version;
                    sender.send_modify(|count| *count += 1);
                }
                WatchEvent::Bookmark(bookmark) => self.version = bookmark.metadata.resource_version,
                // Usually "too old": all existing objects are listed again.
                WatchEvent::Error(status) => return Err(status.message.clone()),
            }
        }
        Ok(())
    }
}
