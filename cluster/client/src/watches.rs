//! Wake-ups: something that the loops care about may have changed in the cluster.
//!
//! Only the metadata of objects is asked for, and nothing of it is kept but the version to go on from.

use std::{sync::Arc, time::Duration};

use base_env::Env;
use futures::TryStreamExt as _;
use kube::{
    Client,
    api::{WatchEvent, WatchParams},
    core::Request,
};
use serde::Deserialize;
use tokio::sync::watch;

/// What is watched: path, label selector, field selector. Together they tell of nodes, of certificate requests, and of
/// everything that an add-on consists of and somebody is likely to change.
const WATCHED: &[(&str, Option<&str>, Option<&str>)] = &[
    ("/api/v1/nodes", None, None),
    (
        crate::serving::LIST,
        None,
        Some("spec.signerName=kubernetes.io/kubelet-serving"),
    ),
    (
        "/apis/apps/v1/namespaces/kube-system/deployments",
        Some(MANAGED),
        None,
    ),
    ("/api/v1/namespaces/kube-system/configmaps", Some(MANAGED), None),
    ("/api/v1/namespaces/kube-system/services", Some(MANAGED), None),
    (
        "/apis/policy/v1/namespaces/kube-system/poddisruptionbudgets",
        Some(MANAGED),
        None,
    ),
    (
        "/apis/rbac.authorization.k8s.io/v1/clusterroles",
        Some(MANAGED),
        None,
    ),
    (
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        Some(MANAGED),
        None,
    ),
    ("/apis/apiregistration.k8s.io/v1/apiservices", Some(MANAGED), None),
];
/// The label of every managed object.
const MANAGED: &str = "kubernetes.azure.com/managedby=aks";
/// While a cluster comes up, it is asked this often…
const EAGER: Duration = Duration::from_millis(200);
/// …for so many attempts; later, while it is away, this often.
const EAGER_ATTEMPTS: u32 = 300;
const PATIENT: Duration = Duration::from_secs(5);
/// A server sends a bookmark about every minute. One that says nothing for longer is gone without a word: nothing is ever
/// sent on this connection that could fail.
const SILENCE: Duration = Duration::from_secs(150);

/// The part of an object that is read.
#[derive(Clone, Deserialize)]
struct Seen {
    metadata: Version,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    resource_version: String,
}

/// Starts the watches; they end when the last receiver is dropped.
pub(crate) fn start(env: Env, client: Client) -> watch::Receiver<u64> {
    let (sender, receiver) = watch::channel(0);
    let sender = Arc::new(sender);
    for (path, labels, fields) in WATCHED {
        let mut params = WatchParams::default();
        if let Some(labels) = labels {
            params = params.labels(labels);
        }
        if let Some(fields) = fields {
            params = params.fields(fields);
        }
        let mut follower = Follower {
            client: client.clone(),
            path,
            params,
            version: String::new(),
            failures: 0,
        };
        let (env, sender) = (env.clone(), Arc::clone(&sender));
        tokio::spawn(async move {
            tokio::select! {
                () = sender.closed() => {}
                () = follower.follow(&env, &sender) => {}
            }
        });
    }
    receiver
}

/// Follows one kind of object.
struct Follower {
    client: Client,
    path: &'static str,
    params: WatchParams,
    /// Where to go on. Empty: with everything that is there, one wake-up each, after which nothing was missed.
    version: String,
    /// Since the last event.
    failures: u32,
}

impl Follower {
    async fn follow(&mut self, env: &Env, sender: &watch::Sender<u64>) {
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
        let request = Request::new(self.path)
            .watch_metadata(&self.params, &self.version)
            .map_err(|error| error.to_string())?;
        let events = env
            .clock
            .timeout(SILENCE, self.client.request_events::<Seen>(request))
            .await
            .map_err(|elapsed| elapsed.to_string())?
            .map_err(|error| crate::chain(&error))?;
        futures::pin_mut!(events);
        while let Some(event) = env
            .clock
            .timeout(SILENCE, events.try_next())
            .await
            .map_err(|elapsed| elapsed.to_string())?
            .map_err(|error| crate::chain(&error))?
        {
            self.failures = 0;
            match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object) => {
                    self.version = object.metadata.resource_version;
                    sender.send_modify(|count| *count += 1);
                }
                WatchEvent::Bookmark(bookmark) => self.version = bookmark.metadata.resource_version,
                // Mostly "too old": what is there is looked at again.
                WatchEvent::Error(status) => return Err(status.message.clone()),
            }
        }
        Ok(())
    }
}
