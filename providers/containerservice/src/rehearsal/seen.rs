//! The input of a rehearsal from a cluster. One function reads; all others are pure.

use std::collections::BTreeMap;

use futures::future::{join, join3};
use serde_json::Value;

use super::ClusterReader;

/// The path of an API server's metrics.
pub(crate) const METRICS: &str = "/metrics";

/// Lists from the API server's cache, independent of etcd.
const PODS: &str = "/api/v1/pods?resourceVersion=0";
const VOLUMES: &str = "/api/v1/persistentvolumes?resourceVersion=0";
const BUDGETS: &str = "/apis/policy/v1/poddisruptionbudgets?resourceVersion=0";
pub(crate) const ENDPOINTS: &str = "/apis/discovery.k8s.io/v1/endpointslices?resourceVersion=0";
const WEBHOOKS: [&str; 2] = [
    "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations?resourceVersion=0",
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations?resourceVersion=0",
];

/// A part that was read; or the reason why it was not, for people.
pub(crate) type Part<T> = Result<T, String>;

/// The objects of a cluster that were read.
pub(crate) struct Seen {
    pub(crate) pods: Part<Vec<Pod>>,
    pub(crate) budgets: Part<Vec<Budget>>,
    pub(crate) webhooks: Part<Vec<Webhook>>,
    /// By namespace and name of a Service: the number of its ready endpoints.
    pub(crate) endpoints: Part<BTreeMap<(String, String), usize>>,
    pub(crate) volumes: Part<Vec<Volume>>,
}

/// A pod that has to move when its node is replaced: not one of a DaemonSet, a static pod, or one that has ended.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Pod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) node: String,
    /// Whether a controller replaces it.
    pub(crate) owned: bool,
    pub(crate) labels: Value,
    /// Claims that it uses.
    pub(crate) claims: Vec<String>,
    /// The name of the node that its node selector requires.
    pub(crate) pinned: Option<String>,
}

/// A disruption budget.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Budget {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// The number of its pods that may be evicted now.
    pub(crate) allowed: i64,
    pub(crate) selector: Value,
}

/// A webhook that blocks pods when it does not respond.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Webhook {
    /// The configuration that it is in.
    pub(crate) configuration: String,
    pub(crate) name: String,
    /// Namespace and name of its Service; `None`: it is outside the cluster.
    pub(crate) service: Option<(String, String)>,
}

/// A persistent volume of one node only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Volume {
    pub(crate) name: String,
    /// Namespace and name of its claim.
    pub(crate) claim: (String, String),
}

/// A deprecated API in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Use {
    /// As AKS writes it: `group.resource.version`.
    pub(crate) api: String,
    /// The first minor release without it: major and minor.
    pub(crate) removed_in: (u32, u32),
    /// Requests for it since the API server was started.
    pub(crate) requests: u64,
}

/// Reads a cluster, all parts at the same time.
pub(crate) async fn read(reader: &dyn ClusterReader, uid: &str) -> Seen {
    let list = |path| list(reader, uid, path);
    let ((pods, budgets, endpoints), (volumes, validating, mutating)) = join(
        join3(list(PODS), list(BUDGETS), list(ENDPOINTS)),
        join3(list(VOLUMES), list(WEBHOOKS[0]), list(WEBHOOKS[1])),
    )
    .await;
    Seen {
        pods: pods.map(|items| items.iter().filter_map(pod).collect()),
        budgets: budgets.map(|items| items.iter().map(budget).collect()),
        webhooks: validating.and_then(|mut all| {
            all.extend(mutating?);
            Ok(all.iter().flat_map(webhooks).collect())
        }),
        endpoints: endpoints.map(|items| ready(&items)),
        volumes: volumes.map(|items| items.iter().filter_map(volume).collect()),
    }
}

/// The objects of a list of the API server.
pub(crate) async fn list(reader: &dyn ClusterReader, uid: &str, path: &str) -> Part<Vec<Value>> {
    let text = reader.text(uid, path).await?;
    let mut list: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    match list.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => Ok(items),
        // The form of an empty list.
        Some(Value::Null) => Ok(Vec::new()),
        _ => Err(format!("the answer to {path} is no list")),
    }
}

fn text(value: &Value, pointer: &str) -> String {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or_default().to_owned()
}

fn items<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

fn pod(pod: &Value) -> Option<Pod> {
    let owners = || items(pod, "/metadata/ownerReferences");
    let of_its_node = owners().any(|owner| owner["kind"] == "DaemonSet" || owner["kind"] == "Node")
        || pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_string();
    let ended = pod["status"]["phase"] == "Succeeded" || pod["status"]["phase"] == "Failed";
    let node = text(pod, "/spec/nodeName");
    if of_its_node || ended || node.is_empty() {
        return None;
    }
    let claims = items(pod, "/spec/volumes")
        .filter_map(|volume| volume["persistentVolumeClaim"]["claimName"].as_str())
        .map(str::to_owned);
    Some(Pod {
        namespace: text(pod, "/metadata/namespace"),
        name: text(pod, "/metadata/name"),
        node,
        owned: owners().any(|owner| owner["controller"] == true),
        labels: pod["metadata"]["labels"].clone(),
        claims: claims.collect(),
        pinned: pod["spec"]["nodeSelector"]["kubernetes.io/hostname"]
            .as_str()
            .map(str::to_owned),
    })
}

fn budget(budget: &Value) -> Budget {
    Budget {
        namespace: text(budget, "/metadata/namespace"),
        name: text(budget, "/metadata/name"),
        allowed: budget["status"]["disruptionsAllowed"]
            .as_i64()
            .unwrap_or_default(),
        selector: budget["spec"]["selector"].clone(),
    }
}

/// The webhooks of a configuration that block the creation or eviction of pods when they do not respond.
fn webhooks(configuration: &Value) -> Vec<Webhook> {
    let stops =
        |webhook: &&Value| webhook["failurePolicy"] != "Ignore" && items(webhook, "/rules").any(stops_pods);
    let found = items(configuration, "/webhooks").filter(stops);
    found
        .map(|webhook| {
            let service = webhook.pointer("/clientConfig/service");
            Webhook {
                configuration: text(configuration, "/metadata/name"),
                name: text(webhook, "/name"),
                service: service.map(|service| (text(service, "/namespace"), text(service, "/name"))),
            }
        })
        .collect()
}

fn stops_pods(rule: &Value) -> bool {
    let names = |field: &str, wanted: &[&str]| {
        let all = rule[field].as_array().into_iter().flatten();
        all.filter_map(Value::as_str).any(|name| wanted.contains(&name))
    };
    names("apiGroups", &["", "*"])
        && names("operations", &["CREATE", "*"])
        && names("resources", &["pods", "pods/*", "pods/eviction", "*", "*/*"])
}

/// By Service: the number of ready endpoints.
fn ready(slices: &[Value]) -> BTreeMap<(String, String), usize> {
    let mut found = BTreeMap::new();
    for slice in slices {
        let service = slice["metadata"]["labels"]["kubernetes.io/service-name"].as_str();
        let Some(service) = service else { continue };
        let own = (text(slice, "/metadata/namespace"), service.to_owned());
        // A missing condition means ready, by the API's definition.
        let ready = items(slice, "/endpoints").filter(|endpoint| endpoint["conditions"]["ready"] != false);
        *found.entry(own).or_default() += ready.count();
    }
    found
}

/// A volume of one node only: local, or with a node affinity to a host name.
fn volume(volume: &Value) -> Option<Volume> {
    let spec = &volume["spec"];
    let by_name = items(spec, "/nodeAffinity/required/nodeSelectorTerms")
        .flat_map(|term| items(term, "/matchExpressions"))
        .any(|expression| expression["key"] == "kubernetes.io/hostname");
    if !(spec["local"].is_object() || spec["hostPath"].is_object() || by_name) {
        return None;
    }
    Some(Volume {
        name: text(volume, "/metadata/name"),
        claim: (text(spec, "/claimRef/namespace"), text(spec, "/claimRef/name")),
    })
}

/// The labels and the value of a line of metrics, if it has this name.
fn sample<'a>(line: &'a str, name: &str) -> Option<(BTreeMap<&'a str, &'a str>, f64)> {
    let (labels, value) = line.strip_prefix(name)?.strip_prefix('{')?.split_once("} ")?;
    let value = value.split(' ').next()?.parse().ok()?;
    let pairs = labels.split("\",").filter_map(|pair| {
        let (name, value) = pair.split_once("=\"")?;
        Some((name, value.trim_end_matches('"')))
    });
    Some((pairs.collect(), value))
}

/// `1.37` as major and minor.
fn minor(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Group, resource and version of a line.
fn named<'a>(labels: &BTreeMap<&'a str, &'a str>) -> [&'a str; 3] {
    ["group", "resource", "version"].map(|name| labels.get(name).copied().unwrap_or_default())
}

/// The deprecated APIs in use, from metrics.
pub(crate) fn uses(metrics: &str) -> Vec<Use> {
    let mut found: BTreeMap<(&str, &str, &str), Use> = BTreeMap::new();
    for line in metrics.lines() {
        let Some((labels, value)) = sample(line, "apiserver_requested_deprecated_apis") else {
            continue;
        };
        let removed_in = labels.get("removed_release").and_then(|release| minor(release));
        let [group, resource, version] = named(&labels);
        if let Some(removed_in) = removed_in
            && value > 0.0
        {
            let api = format!("{group}.{resource}.{version}");
            found.insert(
                (group, resource, version),
                Use {
                    api: api.trim_start_matches('.').to_owned(),
                    removed_in,
                    requests: 0,
                },
            );
        }
    }
    if found.is_empty() {
        return Vec::new();
    }
    for line in metrics.lines() {
        let Some((labels, value)) = sample(line, "apiserver_request_total") else {
            continue;
        };
        let [group, resource, version] = named(&labels);
        if let Some(used) = found.get_mut(&(group, resource, version)) {
            used.requests = used.requests.saturating_add(whole(value));
        }
    }
    found.into_values().collect()
}

/// A counter's value as a whole number. It is neither negative nor beyond 2^53; a cast saturates.
fn whole(value: f64) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn metrics_tell_which_apis_with_an_end_are_in_use() {
        let metrics = "# HELP apiserver_requested_deprecated_apis x\n\
            apiserver_requested_deprecated_apis{group=\"\",removed_release=\"\",resource=\"endpoints\",subresource=\"\",version=\"v1\"} 1\n\
            apiserver_requested_deprecated_apis{group=\"flowcontrol.apiserver.k8s.io\",removed_release=\"1.32\",resource=\"flowschemas\",subresource=\"status\",version=\"v1beta3\"} 1\n\
            apiserver_request_total{code=\"200\",group=\"flowcontrol.apiserver.k8s.io\",resource=\"flowschemas\",verb=\"GET\",version=\"v1beta3\"} 3\n\
            apiserver_request_total{code=\"404\",group=\"flowcontrol.apiserver.k8s.io\",resource=\"flowschemas\",verb=\"LIST\",version=\"v1beta3\"} 1e+01\n\
            apiserver_request_total{code=\"200\",group=\"\",resource=\"pods\",verb=\"GET\",version=\"v1\"} 99\n";
        assert_eq!(
            uses(metrics),
            [Use {
                api: "flowcontrol.apiserver.k8s.io.flowschemas.v1beta3".to_owned(),
                removed_in: (1, 32),
                requests: 13,
            }]
        );
        assert_eq!(uses(""), []);
    }

    #[test]
    fn only_pods_that_move_with_their_node_are_seen() {
        let running = |meta: Value, spec: Value| json!({ "metadata": meta, "spec": spec, "status": { "phase": "Running" } });
        let of = |kind: &str| json!({ "namespace": "d", "name": "p", "ownerReferences": [{ "kind": kind, "controller": true }] });
        let node = json!({ "nodeName": "n" });
        assert!(pod(&running(of("ReplicaSet"), node.clone())).unwrap().owned);
        assert!(!pod(&running(json!({ "name": "p" }), node.clone())).unwrap().owned);
        assert_eq!(pod(&running(of("DaemonSet"), node.clone())), None);
        assert_eq!(pod(&running(of("ReplicaSet"), json!({}))), None);
        let mirror = json!({ "name": "p", "annotations": { "kubernetes.io/config.mirror": "x" } });
        assert_eq!(pod(&running(mirror, node)), None);
        let claims = json!({ "nodeName": "n", "volumes": [{ "persistentVolumeClaim": { "claimName": "c" } }, { "emptyDir": {} }] });
        assert_eq!(pod(&running(of("StatefulSet"), claims)).unwrap().claims, ["c"]);
    }

    #[test]
    fn a_webhook_matters_where_it_stops_pods() {
        let one = |policy: Value, resources: &[&str]| {
            webhooks(&json!({
                "metadata": { "name": "guard" },
                "webhooks": [{
                    "name": "guard.example.com", "failurePolicy": policy,
                    "clientConfig": { "service": { "namespace": "g", "name": "guard" } },
                    "rules": [{ "apiGroups": [""], "operations": ["CREATE"], "resources": resources }],
                }],
            }))
        };
        assert_eq!(
            one(Value::Null, &["pods"])[0].service,
            Some(("g".to_owned(), "guard".to_owned()))
        );
        assert_eq!(one(json!("Fail"), &["*"]).len(), 1);
        assert!(one(json!("Ignore"), &["pods"]).is_empty());
        assert!(one(json!("Fail"), &["secrets"]).is_empty());
    }

    #[test]
    fn endpoints_are_counted_over_all_slices_of_a_service() {
        let slice = |ready: &[Value]| {
            let endpoints: Vec<Value> = ready
                .iter()
                .map(|ready| json!({ "conditions": { "ready": ready } }))
                .collect();
            json!({
                "metadata": { "namespace": "g", "labels": { "kubernetes.io/service-name": "guard" } }, "endpoints": endpoints,
            })
        };
        let found = ready(&[slice(&[json!(true), json!(false)]), slice(&[Value::Null])]);
        assert_eq!(found[&("g".to_owned(), "guard".to_owned())], 2);
    }

    #[test]
    fn a_volume_of_one_node_cannot_move() {
        let of = |spec: Value| volume(&json!({ "metadata": { "name": "v" }, "spec": spec }));
        let claim = json!({ "namespace": "d", "name": "data" });
        let local = of(json!({ "local": { "path": "/x" }, "claimRef": claim })).unwrap();
        assert_eq!(local.claim, ("d".to_owned(), "data".to_owned()));
        assert!(of(json!({ "csi": { "driver": "disk.csi.azure.com" } })).is_none());
        let by_name = json!({ "csi": {}, "nodeAffinity": { "required": { "nodeSelectorTerms": [
            { "matchExpressions": [{ "key": "kubernetes.io/hostname", "operator": "In", "values": ["n"] }] }
        ] } } });
        assert!(of(by_name).is_some());
    }
}
