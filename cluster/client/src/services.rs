//! Services of type LoadBalancer: reads them, and applies the service's wishes.
//!
//! Always true: only Services of this type are read; endpoints are read and watched only while one of them
//! depends on them; a Service with another uid than the wish is left alone.

use std::collections::{BTreeMap, BTreeSet};

use base_env::Env;
use cluster_api::{ClusterError, Ingress, ServiceSeen, ServiceWish};
use cluster_balancers::{FINALIZER, IP_MODE, is_local};
use kube::api::WatchParams;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{Cluster, Failure, finalizers};

/// The path of Services.
pub(crate) const PATH: &str = "/api/v1/services";
/// The field selector.
pub(crate) const FIELDS: &str = "spec.type=LoadBalancer";
/// The path of endpoint slices.
pub(crate) const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
/// The label of endpoints that names their Service.
const OF_SERVICE: &str = "kubernetes.io/service-name";
/// With more names than this, all endpoints are read: URLs have a length limit.
const MOST_NAMES: usize = 50;
/// Others write to a Service as well; a few attempts resolve conflicts.
const ATTEMPTS: usize = 5;

impl Cluster {
    pub(crate) async fn list_services(&self) -> Result<Vec<ServiceSeen>, ClusterError> {
        let path = format!("{PATH}?fieldSelector={}", encoded(FIELDS));
        let found = self.list("list load balancers", &path).await?;
        let local = found.iter().filter(|service| is_local(service));
        let names: BTreeSet<String> = local
            .filter_map(|service| Some(service["metadata"]["name"].as_str()?.to_owned()))
            .collect();
        self.local_services.send_if_modified(|before| {
            let other = *before != names;
            if other {
                before.clone_from(&names);
            }
            other
        });
        let mut endpoints = if names.is_empty() {
            BTreeMap::new()
        } else {
            let path = format!("{SLICES}?labelSelector={}", encoded(&selector(&names)));
            ready_nodes(&self.list("list endpoints", &path).await?)
        };
        let seen = found.into_iter().map(|object| ServiceSeen {
            endpoints: if is_local(&object) {
                endpoints.remove(&key(&object, "name")).unwrap_or_default()
            } else {
                BTreeSet::new()
            },
            object,
        });
        Ok(seen.collect())
    }

    pub(crate) async fn bring_service(&self, wish: &ServiceWish) -> Result<(), ClusterError> {
        let path = format!("/api/v1/namespaces/{}/services/{}", wish.namespace, wish.name);
        let mut outcome = Ok(());
        for _ in 0..ATTEMPTS {
            let service = match self.get("read a Service", &path).await {
                Err(failure) if failure.is_absent() => return Ok(()),
                other => other?,
            };
            if service["metadata"]["uid"] != wish.uid.as_str() {
                return Ok(());
            }
            outcome = self.write_service(&path, service, wish).await;
            if !outcome.as_ref().is_err_and(Failure::is_conflict) {
                break;
            }
        }
        match outcome {
            // It was deleted meanwhile.
            Err(failure) if failure.is_absent() => Ok(()),
            other => Ok(other?),
        }
    }

    async fn write_service(&self, path: &str, mut service: Value, wish: &ServiceWish) -> Result<(), Failure> {
        // The finalizer is removed last: a deleted Service cannot be written to.
        let status = status_patch(&service, wish.ingress);
        let finalizer = |service: &Value| finalizers::patch(service, FINALIZER, wish.finalizer?);
        let mut tells = status.is_some() || finalizer(&service).is_some();
        if let Some(patch) = status {
            let path = format!("{path}/status");
            service = self.merge("write the status of a Service", &path, &patch).await?;
        }
        // Completed changes were reported already.
        tells |= wish.note.as_ref().is_some_and(|note| note.warning);
        if let Some(note) = wish.note.as_ref().filter(|_| tells) {
            self.tell(&service, "Service", note.warning, note.reason, &note.message)
                .await;
        }
        if let Some(patch) = finalizer(&service) {
            self.merge("write the finalizers of a Service", path, &patch)
                .await?;
        }
        Ok(())
    }
}

/// A selector as a part of a URL.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '=' => encoded.push_str("%3D"),
            '/' => encoded.push_str("%2F"),
            ' ' => encoded.push_str("%20"),
            ',' => encoded.push_str("%2C"),
            '(' => encoded.push_str("%28"),
            ')' => encoded.push_str("%29"),
            letter => encoded.push(letter),
        }
    }
    encoded
}

/// The label selector for endpoints of Services with these names.
fn selector(names: &BTreeSet<String>) -> String {
    if names.len() > MOST_NAMES {
        return OF_SERVICE.to_owned();
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    format!("{OF_SERVICE} in ({})", names.join(","))
}

/// `namespace/name`, with the name in this field of the metadata.
fn key(object: &Value, field: &str) -> String {
    let metadata = &object["metadata"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    format!("{}/{}", text(&metadata["namespace"]), text(&metadata[field]))
}

/// By Service (`namespace/name`): the nodes with a ready endpoint.
fn ready_nodes(slices: &[Value]) -> BTreeMap<String, BTreeSet<String>> {
    let mut nodes = BTreeMap::<String, BTreeSet<String>>::new();
    for slice in slices {
        let metadata = &slice["metadata"];
        let (Some(namespace), Some(name)) = (
            metadata["namespace"].as_str(),
            metadata["labels"][OF_SERVICE].as_str(),
        ) else {
            continue;
        };
        let endpoints = slice["endpoints"].as_array().into_iter().flatten();
        // An endpoint without the condition counts as ready.
        let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] != false);
        nodes
            .entry(format!("{namespace}/{name}"))
            .or_default()
            .extend(ready.filter_map(|endpoint| Some(endpoint["nodeName"].as_str()?.to_owned())));
    }
    nodes
}

/// The needed changes of the status, if any.
fn status_patch(service: &Value, ingress: Ingress) -> Option<Value> {
    let there = &service["status"]["loadBalancer"]["ingress"];
    let wanted = match ingress {
        Ingress::AsItIs => return None,
        Ingress::Nothing if there.as_array().is_none_or(Vec::is_empty) => return None,
        Ingress::Nothing => Value::Null,
        Ingress::At(address) => json!({ "ingress": [{ "ip": address, "ipMode": IP_MODE }] }),
    };
    if *there == wanted["ingress"] && !wanted.is_null() {
        return None;
    }
    Some(json!({
        "metadata": { "uid": service["metadata"]["uid"] },
        "status": { "loadBalancer": wanted }
    }))
}

/// Watches the endpoints of Services with these names, following changes of the names; nothing while there
/// are none.
pub(crate) async fn follow_endpoints(
    env: &Env,
    client: &kube::Client,
    sender: &watch::Sender<u64>,
    mut names: watch::Receiver<BTreeSet<String>>,
) {
    loop {
        let wanted = names.borrow_and_update().clone();
        if wanted.is_empty() {
            if names.changed().await.is_err() {
                return;
            }
            continue;
        }
        let params = WatchParams::default().labels(&selector(&wanted));
        let mut follower = crate::watches::Follower::new(client.clone(), SLICES.to_owned(), params);
        tokio::select! {
            changed = names.changed() => if changed.is_err() { return },
            () = follower.follow(env, sender) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::fake;

    fn wish(finalizer: Option<bool>, ingress: Ingress) -> ServiceWish {
        ServiceWish {
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            uid: "u1".to_owned(),
            finalizer,
            ingress,
            note: None,
        }
    }

    fn address() -> std::net::Ipv4Addr {
        [100, 64, 8, 1].into()
    }

    fn service(finalizers: &[&str]) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "namespace": "shop", "name": "web", "uid": "u1", "resourceVersion": "7", "finalizers": finalizers },
            "spec": { "type": "LoadBalancer", "externalTrafficPolicy": "Local" },
            "status": { "loadBalancer": {} }
        })
    }

    #[tokio::test]
    async fn endpoints_are_read_only_where_somebody_goes_by_them() {
        let (cluster, log) = fake::cluster(|_| (200, json!({ "items": [] })));
        assert!(cluster.list_services().await.unwrap().is_empty());
        let asked = fake::paths(&log, &Method::GET);
        assert_eq!(asked.len(), 1, "{asked:?}");
        assert!(
            asked[0].contains("fieldSelector=spec.type%3DLoadBalancer"),
            "{asked:?}"
        );

        let (cluster, log) = fake::cluster(|asked| {
            let slice = |node: &str, ready: Value| {
                json!({
                    "metadata": { "namespace": "shop", "labels": { OF_SERVICE: "web" } },
                    "endpoints": [{ "nodeName": node, "conditions": { "ready": ready } }]
                })
            };
            let items = if asked.path.starts_with(SLICES) {
                vec![
                    slice("a", json!(true)),
                    slice("b", json!(false)),
                    slice("c", Value::Null),
                ]
            } else {
                vec![service(&[])]
            };
            (200, json!({ "items": items }))
        });
        let found = cluster.list_services().await.unwrap();
        assert_eq!(found[0].endpoints, ["a".to_owned(), "c".to_owned()].into());
        let asked = fake::paths(&log, &Method::GET);
        assert!(asked[1].contains("in%20%28web%29"), "{asked:?}");
        assert_eq!(*cluster.local_services.borrow(), ["web".to_owned()].into());
    }

    #[tokio::test]
    async fn the_status_is_written_before_the_finalizer_goes() {
        let mut there = service(&["other", FINALIZER]);
        there["status"]["loadBalancer"]["ingress"] = json!([{ "ip": address(), "ipMode": "VIP" }]);
        let (cluster, log) = fake::cluster(move |_| (200, there.clone()));
        let release = wish(Some(false), Ingress::Nothing);
        cluster.bring_service(&release).await.unwrap();
        let log = log.lock().unwrap();
        let patches: Vec<_> = log.iter().filter(|asked| asked.method == Method::PATCH).collect();
        assert!(patches[0].path.ends_with("/web/status"), "{patches:?}");
        assert!(patches[0].body["status"]["loadBalancer"].is_null());
        assert_eq!(patches[1].body["metadata"]["finalizers"], json!(["other"]));
        assert_eq!(patches.len(), 2);
    }

    #[tokio::test]
    async fn the_second_time_nothing_is_to_do() {
        let mut there = service(&[FINALIZER]);
        there["status"]["loadBalancer"]["ingress"] = json!([{ "ip": address(), "ipMode": "VIP" }]);
        let (cluster, log) = fake::cluster(move |_| (200, there.clone()));
        let same = wish(Some(true), Ingress::At(address()));
        cluster.bring_service(&same).await.unwrap();
        assert!(fake::paths(&log, &Method::PATCH).is_empty());
    }

    #[tokio::test]
    async fn another_of_the_same_name_is_left_alone_and_one_that_is_gone_is_success() {
        let mut other = service(&[]);
        other["metadata"]["uid"] = json!("u2");
        for answer in [(200, other), fake::refusal(404, "not found")] {
            let (cluster, log) = fake::cluster(move |_| answer.clone());
            let wish = wish(Some(true), Ingress::At(address()));
            cluster.bring_service(&wish).await.unwrap();
            assert!(fake::paths(&log, &Method::PATCH).is_empty());
        }
    }
}
