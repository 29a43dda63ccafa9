//! Wake-ups: something that the loops care about may have changed in the cluster.

use std::{sync::Arc, time::Duration};

use base_env::Env;
use futures::TryStreamExt as _;
use kube::{Client, api::WatchParams, core::Request};
use serde_json::Value;
use tokio::sync::watch;

/// What is watched: path and label selector. Together they tell of nodes, of certificate requests, and of everything
/// that an add-on consists of and somebody is likely to change.
const WATCHED: &[(&str, Option<&str>)] = &[
    ("/api/v1/nodes", None),
    ("/apis/certificates.k8s.io/v1/certificatesigningrequests", None),
    (
        "/apis/apps/v1/namespaces/kube-system/deployments",
        Some("kubernetes.azure.com/managedby=aks"),
    ),
    (
        "/api/v1/namespaces/kube-system/configmaps",
        Some("kubernetes.azure.com/managedby=aks"),
    ),
    (
        "/api/v1/namespaces/kube-system/services",
        Some("kubernetes.azure.com/managedby=aks"),
    ),
];
/// While a cluster comes up, it is asked this often…
const EAGER: Duration = Duration::from_millis(200);
/// …for so many attempts; later, while it is away, this often.
const EAGER_ATTEMPTS: u32 = 300;
const PATIENT: Duration = Duration::from_secs(5);

/// Starts the watches; they end when the last receiver is dropped.
pub(crate) fn start(env: Env, client: Client) -> watch::Receiver<u64> {
    let (sender, receiver) = watch::channel(0);
    let sender = Arc::new(sender);
    for (path, selector) in WATCHED {
        let (env, client, sender) = (env.clone(), client.clone(), Arc::clone(&sender));
        tokio::spawn(async move {
            tokio::select! {
                () = sender.closed() => {}
                () = follow(&env, &client, path, *selector, &sender) => {}
            }
        });
    }
    receiver
}

/// Follows one kind for ever.
async fn follow(env: &Env, client: &Client, path: &str, selector: Option<&str>, sender: &watch::Sender<u64>) {
    let mut failures = 0;
    loop {
        match once(client, path, selector, sender).await {
            // The server ends every watch after some minutes; that is no failure.
            Ok(()) => failures = 0,
            Err(error) => {
                failures += 1;
                tracing::trace!(path, error = %error, "a watch ended");
            }
        }
        let pause = if failures < EAGER_ATTEMPTS { EAGER } else { PATIENT };
        env.clock.sleep(pause).await;
    }
}

async fn once(
    client: &Client,
    path: &str,
    selector: Option<&str>,
    sender: &watch::Sender<u64>,
) -> Result<(), kube::Error> {
    let mut params = WatchParams::default();
    if let Some(selector) = selector {
        params = params.labels(selector);
    }
    // An empty version starts with what is there: one wake-up each, after which nothing was missed.
    let request = Request::new(path)
        .watch(&params, "")
        .map_err(kube::Error::BuildRequest)?;
    let events = client.request_events::<Value>(request).await?;
    futures::pin_mut!(events);
    while events.try_next().await?.is_some() {
        sender.send_modify(|count| *count += 1);
    }
    Ok(())
}
