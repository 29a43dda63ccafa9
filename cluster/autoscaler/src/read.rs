//! Reads Kubernetes' objects as the input of the decision.

use std::collections::{BTreeMap, BTreeSet};

use cluster_api::WorkObjects;
use jiff::Timestamp;
use serde_json::Value;

use crate::{
    model::{Budget, Node, Pod, Stays, Work},
    quantity::Resources,
    rules::{Operator, Requirement, Rules, Spread, Taint, Term, Toleration},
};

/// The annotation that permits or forbids the eviction of a pod, before all other rules.
const SAFE: &str = "cluster-autoscaler.kubernetes.io/safe-to-evict";
/// The annotation with names of local volumes whose data may be lost.
const SAFE_VOLUMES: &str = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes";
/// The annotation that keeps a node.
const KEPT: &str = "cluster-autoscaler.kubernetes.io/scale-down-disabled";
/// The annotation of a static pod's object.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// Kinds of controllers that replace a pod.
const CONTROLLERS: [&str; 6] = [
    "ReplicaSet",
    "ReplicationController",
    "StatefulSet",
    "Job",
    "DaemonSet",
    "Deployment",
];

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn texts(value: &Value) -> BTreeMap<String, String> {
    let members = value.as_object().into_iter().flatten();
    members
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        .collect()
}

fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

impl Work {
    /// Reads the relevant part of these objects.
    pub fn read(objects: &WorkObjects) -> Self {
        let storage = Storage::of(objects);
        let mut limits = BTreeMap::<&str, Vec<(String, u64)>>::new();
        for drivers in &objects.drivers {
            let Some(name) = drivers["metadata"]["name"].as_str() else {
                continue;
            };
            let of_driver = |driver: &Value| {
                let count = driver["allocatable"]["count"].as_u64()?;
                Some((attachable(driver["name"].as_str()?), count))
            };
            limits.insert(
                name,
                items(&drivers["spec"]["drivers"]).filter_map(of_driver).collect(),
            );
        }
        let mut nodes: Vec<Node> = objects.nodes.iter().map(|object| node(object, &limits)).collect();
        nodes.sort_by(|one, other| one.name.cmp(&other.name));
        let ended = |pod: &&Value| {
            let phase = pod["status"]["phase"].as_str();
            phase != Some("Succeeded") && phase != Some("Failed")
        };
        let mut pods: Vec<Pod> = objects
            .pods
            .iter()
            .filter(ended)
            .map(|object| pod(object, &storage))
            .collect();
        pods.sort_by(|one, other| (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name)));
        let budgets = objects.budgets.iter().filter_map(|budget| {
            let allowed = budget["status"]["disruptionsAllowed"].as_u64().unwrap_or(0);
            Some(Budget {
                namespace: text(&budget["metadata"]["namespace"]),
                selector: selector(&budget["spec"]["selector"])?,
                allowed: u32::try_from(allowed).unwrap_or(u32::MAX),
            })
        });
        Self {
            pods,
            nodes,
            budgets: budgets.collect(),
            priorities: objects.priorities.as_ref().map(priorities).unwrap_or_default(),
        }
    }
}

/// The resource name of a driver's volumes on a node.
fn attachable(driver: &str) -> String {
    format!("attachable-volumes-csi-{driver}")
}

fn node(object: &Value, limits: &BTreeMap<&str, Vec<(String, u64)>>) -> Node {
    let metadata = &object["metadata"];
    let name = text(&metadata["name"]);
    let mut room = Resources::default();
    for (resource, amount) in texts(&object["status"]["allocatable"]) {
        room.add_text(&resource, &amount);
    }
    room.others
        .extend(limits.get(name.as_str()).into_iter().flatten().cloned());
    let ready = items(&object["status"]["conditions"]).find(|condition| condition["type"] == "Ready");
    Node {
        uid: text(&metadata["uid"]),
        version: text(&metadata["resourceVersion"]),
        labels: texts(&metadata["labels"]),
        taints: items(&object["spec"]["taints"]).map(taint).collect(),
        room,
        ready: ready.is_some_and(|ready| ready["status"] == "True"),
        since: ready.and_then(|ready| time(&ready["lastTransitionTime"])),
        cordoned: object["spec"]["unschedulable"] == true,
        kept: metadata["annotations"][KEPT] == "true",
        name,
    }
}

fn taint(taint: &Value) -> Taint {
    Taint {
        key: text(&taint["key"]),
        value: text(&taint["value"]),
        effect: text(&taint["effect"]),
    }
}

/// Claims and volumes by their names.
struct Storage<'o> {
    claims: BTreeMap<(&'o str, &'o str), &'o Value>,
    volumes: BTreeMap<&'o str, &'o Value>,
}

impl<'o> Storage<'o> {
    fn of(objects: &'o WorkObjects) -> Self {
        let claims = objects.claims.iter().filter_map(|claim| {
            let metadata = &claim["metadata"];
            Some((
                (metadata["namespace"].as_str()?, metadata["name"].as_str()?),
                claim,
            ))
        });
        let volumes = objects.volumes.iter();
        Self {
            claims: claims.collect(),
            volumes: volumes
                .filter_map(|volume| Some((volume["metadata"]["name"].as_str()?, volume)))
                .collect(),
        }
    }

    /// Adds the requirements of a pod's claim on its node; returns the reason if no node satisfies them.
    fn count(&self, namespace: &str, name: &str, rules: &mut Rules) -> Option<String> {
        let Some(claim) = self.claims.get(&(namespace, name)) else {
            return Some(format!("persistentvolumeclaim \"{name}\" not found"));
        };
        // A claim that is not bound yet gets its volume on the node of its pod.
        let volume = self.volumes.get(claim["spec"]["volumeName"].as_str()?)?;
        let terms = terms(&volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]);
        if !terms.is_empty() {
            rules.nodes.push(terms);
        }
        if let Some(driver) = volume["spec"]["csi"]["driver"].as_str() {
            *rules.request.others.entry(attachable(driver)).or_default() += 1;
        }
        None
    }
}

fn pod(object: &Value, storage: &Storage<'_>) -> Pod {
    let (metadata, spec) = (&object["metadata"], &object["spec"]);
    let namespace = text(&metadata["namespace"]);
    let owner = items(&metadata["ownerReferences"]).find(|owner| owner["controller"] == true);
    let daemon = owner.is_some_and(|owner| owner["kind"] == "DaemonSet");
    let mut rules = Rules {
        namespace: namespace.clone(),
        labels: texts(&metadata["labels"]),
        request: request(spec),
        ..Rules::default()
    };
    place(spec, daemon, &mut rules);
    let annotations = &metadata["annotations"];
    let harmless: BTreeSet<&str> = annotations[SAFE_VOLUMES]
        .as_str()
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .collect();
    let (mut local_storage, mut blocked) = (false, None);
    for volume in items(&spec["volumes"]) {
        let memory = volume["emptyDir"]["medium"] == "Memory";
        let local = volume["hostPath"].is_object() || (volume["emptyDir"].is_object() && !memory);
        let name = volume["name"].as_str().unwrap_or_default();
        local_storage |= local && !harmless.contains(name);
        if let Some(claim) = volume["persistentVolumeClaim"]["claimName"].as_str() {
            blocked = blocked.or(storage.count(&namespace, claim, &mut rules));
        }
    }
    let unschedulable = items(&object["status"]["conditions"]).any(|condition| {
        condition["type"] == "PodScheduled"
            && condition["status"] == "False"
            && condition["reason"] == "Unschedulable"
    });
    let known = owner.and_then(|owner| owner["kind"].as_str());
    Pod {
        name: text(&metadata["name"]),
        uid: text(&metadata["uid"]),
        version: text(&metadata["resourceVersion"]),
        created_at: time(&metadata["creationTimestamp"]).unwrap_or(Timestamp::UNIX_EPOCH),
        node: spec["nodeName"]
            .as_str()
            .filter(|name| !name.is_empty())
            .map(str::to_owned),
        unschedulable,
        priority: spec["priority"].as_i64().unwrap_or(0),
        rules,
        blocked,
        owner: owner.map(|owner| text(&owner["uid"])),
        stays: Stays {
            mirror: annotations[MIRROR].is_string(),
            daemon,
            replicated: known.is_some_and(|kind| CONTROLLERS.contains(&kind)),
            local_storage,
            safe: annotations[SAFE].as_str().and_then(|text| text.parse().ok()),
        },
        leaving: metadata["deletionTimestamp"].is_string(),
        namespace,
    }
}

/// The requests of a pod: the sum of its containers, or the largest init container if that is more, and the
/// overhead of the runtime class.
fn request(spec: &Value) -> Resources {
    let of = |container: &Value| {
        let mut own = Resources::default();
        for (name, amount) in texts(&container["resources"]["requests"]) {
            own.add_text(&name, &amount);
        }
        own
    };
    let mut sum = Resources::default();
    for container in items(&spec["containers"]) {
        sum.add(&of(container));
    }
    let (mut beside, mut most) = (Resources::default(), Resources::default());
    for container in items(&spec["initContainers"]) {
        let own = of(container);
        if container["restartPolicy"] == "Always" {
            beside.add(&own);
            larger(&mut most, &beside);
        } else {
            let mut together = beside.clone();
            together.add(&own);
            larger(&mut most, &together);
        }
    }
    sum.add(&beside);
    larger(&mut sum, &most);
    for (name, amount) in texts(&spec["overhead"]) {
        sum.add_text(&name, &amount);
    }
    sum.pods = 1;
    sum
}

/// Keeps the larger amount of each resource.
fn larger(one: &mut Resources, other: &Resources) {
    one.cpu = one.cpu.max(other.cpu);
    one.memory = one.memory.max(other.memory);
    for (name, amount) in &other.others {
        let own = one.others.entry(name.clone()).or_default();
        *own = (*own).max(*amount);
    }
}

/// The rules for a pod's node. `daemon`: its controller has chosen the node by node affinity, which is
/// ignored.
fn place(spec: &Value, daemon: bool, rules: &mut Rules) {
    let selector = texts(&spec["nodeSelector"]);
    if !selector.is_empty() {
        let all = selector
            .iter()
            .map(|(key, value)| Requirement::equals(key, value));
        rules.nodes.push(vec![all.collect()]);
    }
    let affinity = &spec["affinity"];
    let required = &affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let terms = terms(&required["nodeSelectorTerms"]);
    if !terms.is_empty() && !daemon {
        rules.nodes.push(terms);
    }
    rules.tolerations = items(&spec["tolerations"])
        .map(|own| Toleration {
            key: text(&own["key"]),
            exists: own["operator"] == "Exists",
            value: text(&own["value"]),
            effect: text(&own["effect"]),
        })
        .collect();
    for port in items(&spec["containers"]).flat_map(|container| items(&container["ports"])) {
        let number = port["hostPort"]
            .as_u64()
            .and_then(|port| u32::try_from(port).ok());
        if let Some(number) = number.filter(|port| *port > 0) {
            let protocol = port["protocol"].as_str().unwrap_or("TCP").to_owned();
            rules.ports.insert((protocol, number, text(&port["hostIP"])));
        }
    }
    let required = |kind: &str| -> Vec<Term> {
        let all = &affinity[kind]["requiredDuringSchedulingIgnoredDuringExecution"];
        items(all).map(|own| term(own, rules)).collect()
    };
    let (with, apart) = (required("podAffinity"), required("podAntiAffinity"));
    let spread = items(&spec["topologySpreadConstraints"]);
    let spread: Vec<Spread> = spread
        .filter(|own| own["whenUnsatisfiable"] == "DoNotSchedule")
        .map(|own| Spread {
            term: term(own, rules),
            most: own["maxSkew"].as_u64().unwrap_or(1),
            places: own["minDomains"].as_u64().unwrap_or(1),
        })
        .collect();
    (rules.with, rules.apart, rules.spread) = (with, apart, spread);
}

fn term(own: &Value, rules: &Rules) -> Term {
    let mut namespaces: BTreeSet<String> = items(&own["namespaces"]).map(text).collect();
    // A namespace selector is read as all namespaces.
    let all = own["namespaceSelector"].is_object();
    if namespaces.is_empty() {
        namespaces.insert(rules.namespace.clone());
    }
    let mut selector = selector(&own["labelSelector"]);
    for key in items(&own["matchLabelKeys"]).filter_map(Value::as_str) {
        if let (Some(selector), Some(value)) = (&mut selector, rules.labels.get(key)) {
            selector.push(Requirement::equals(key, value));
        }
    }
    Term {
        topology: text(&own["topologyKey"]),
        namespaces: (!all).then_some(namespaces),
        selector,
    }
}

/// A label selector; `None` if it is absent.
fn selector(own: &Value) -> Option<Vec<Requirement>> {
    own.as_object()?;
    let equal = texts(&own["matchLabels"]);
    let equal = equal.iter().map(|(key, value)| Requirement::equals(key, value));
    Some(
        equal
            .chain(items(&own["matchExpressions"]).map(requirement))
            .collect(),
    )
}

fn requirement(own: &Value) -> Requirement {
    Requirement {
        key: text(&own["key"]),
        operator: match own["operator"].as_str() {
            Some("In") => Operator::In,
            Some("NotIn") => Operator::NotIn,
            Some("Exists") => Operator::Exists,
            Some("DoesNotExist") => Operator::DoesNotExist,
            Some("Gt") => Operator::Gt,
            Some("Lt") => Operator::Lt,
            _ => Operator::Unknown,
        },
        values: items(&own["values"]).map(text).collect(),
    }
}

/// Node selector terms. A term with a node's name in its fields matches that node only, and no new one.
fn terms(all: &Value) -> Vec<Vec<Requirement>> {
    items(all)
        .map(|term| {
            let fields = items(&term["matchFields"]).map(|own| Requirement {
                key: crate::rules::HOSTNAME.to_owned(),
                ..requirement(own)
            });
            items(&term["matchExpressions"])
                .map(requirement)
                .chain(fields)
                .collect()
        })
        .collect()
}

/// `priorities` of the ConfigMap: lines `10:`, each followed by a list of patterns `- .*name.*`.
fn priorities(map: &Value) -> Vec<(u64, Vec<String>)> {
    let mut all = Vec::<(u64, Vec<String>)>::new();
    for line in map["data"]["priorities"].as_str().unwrap_or_default().lines() {
        let line = line.trim();
        if let Some(pattern) = line.strip_prefix('-') {
            let pattern = pattern.trim().trim_matches(['"', '\'']);
            if let Some((_, patterns)) = all.last_mut() {
                patterns.push(pattern.to_owned());
            }
        } else if let Some(priority) = line
            .strip_suffix(':')
            .and_then(|number| number.trim().parse().ok())
        {
            all.push((priority, Vec::new()));
        }
    }
    all.sort_by_key(|(priority, _)| std::cmp::Reverse(*priority));
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_is_read_with_all_that_decides_about_its_node() {
        let objects = WorkObjects {
            pods: vec![json!({
                "metadata": {
                    "namespace": "d", "name": "web-1", "uid": "u", "resourceVersion": "7",
                    "creationTimestamp": "2026-01-01T00:00:00Z", "labels": { "app": "web", "pod-template-hash": "x" },
                    "ownerReferences": [{ "kind": "ReplicaSet", "uid": "r", "controller": true }],
                    "annotations": { SAFE_VOLUMES: "scratch" }
                },
                "spec": {
                    "nodeSelector": { "disk": "fast" },
                    "containers": [{
                        "resources": { "requests": { "cpu": "100m", "memory": "64Mi" } },
                        "ports": [{ "hostPort": 80 }]
                    }],
                    "initContainers": [{ "resources": { "requests": { "cpu": "1" } } }],
                    "tolerations": [{ "key": "a", "operator": "Exists" }],
                    "volumes": [
                        { "name": "scratch", "emptyDir": {} },
                        { "name": "data", "persistentVolumeClaim": { "claimName": "data" } }
                    ],
                    "affinity": { "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [{
                        "topologyKey": HOST, "labelSelector": { "matchLabels": { "app": "web" } }
                    }] } },
                    "topologySpreadConstraints": [{
                        "topologyKey": "zone", "maxSkew": 2, "whenUnsatisfiable": "DoNotSchedule",
                        "labelSelector": { "matchLabels": { "app": "web" } }, "matchLabelKeys": ["pod-template-hash"]
                    }]
                },
                "status": { "phase": "Pending", "conditions": [{
                    "type": "PodScheduled", "status": "False", "reason": "Unschedulable"
                }] }
            })],
            claims: vec![json!({
                "metadata": { "namespace": "d", "name": "data" }, "spec": { "volumeName": "pv" }
            })],
            volumes: vec![json!({
                "metadata": { "name": "pv" },
                "spec": {
                    "csi": { "driver": "x" },
                    "nodeAffinity": { "required": { "nodeSelectorTerms": [{
                        "matchExpressions": [{ "key": "zone", "operator": "In", "values": ["1"] }]
                    }] } }
                }
            })],
            ..WorkObjects::default()
        };
        let work = Work::read(&objects);
        let pod = &work.pods[0];
        assert!(pod.unschedulable && pod.blocked.is_none() && pod.node.is_none());
        assert!(pod.stays.replicated && !pod.stays.local_storage && !pod.stays.daemon);
        assert_eq!((pod.rules.request.cpu, pod.rules.request.pods), (1000, 1));
        assert_eq!(pod.rules.request.others["attachable-volumes-csi-x"], 1);
        assert_eq!(pod.rules.nodes.len(), 2);
        assert_eq!(pod.rules.ports.len(), 1);
        assert_eq!(pod.rules.spread[0].most, 2);
        let spread = pod.rules.spread[0].term.selector.as_ref().unwrap();
        assert_eq!(spread.len(), 2);
        assert!(pod.rules.apart[0].selects(&pod.rules));
    }

    const HOST: &str = crate::rules::HOSTNAME;

    #[test]
    fn a_claim_that_is_not_there_blocks_and_one_that_waits_does_not() {
        let pod = |claim: &str| {
            json!({
                "metadata": { "namespace": "d", "name": claim },
                "spec": { "volumes": [{ "name": "v", "persistentVolumeClaim": { "claimName": claim } }] }
            })
        };
        let objects = WorkObjects {
            pods: vec![pod("gone"), pod("waits")],
            claims: vec![json!({ "metadata": { "namespace": "d", "name": "waits" }, "spec": {} })],
            ..WorkObjects::default()
        };
        let work = Work::read(&objects);
        assert!(work.pods[0].blocked.is_some() && work.pods[1].blocked.is_none());
    }

    #[test]
    fn nodes_take_as_many_volumes_as_their_driver_says() {
        let objects = WorkObjects {
            nodes: vec![json!({
                "metadata": { "name": "n", "annotations": { KEPT: "true" } },
                "spec": { "taints": [{ "key": "a", "effect": "NoSchedule" }] },
                "status": {
                    "allocatable": { "cpu": "1900m", "memory": "5Gi", "pods": "30" },
                    "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z" }]
                }
            })],
            drivers: vec![json!({
                "metadata": { "name": "n" },
                "spec": { "drivers": [{ "name": "x", "allocatable": { "count": 4 } }] }
            })],
            ..WorkObjects::default()
        };
        let node = &Work::read(&objects).nodes[0];
        assert!(node.ready && node.kept && !node.cordoned && node.since.is_some());
        assert_eq!((node.room.cpu, node.room.pods), (1900, 30));
        assert_eq!(node.room.others["attachable-volumes-csi-x"], 4);
        assert_eq!(node.taints[0].value, "");
    }

    #[test]
    fn priorities_are_read_highest_first() {
        let map = json!({ "data": { "priorities": "10:\n  - .*slow.*\n50:\n  - \"fast\"\n  - .*quick" } });
        let read = priorities(&map);
        assert_eq!(read[0], (50, vec!["fast".to_owned(), ".*quick".to_owned()]));
        assert_eq!(read[1].0, 10);
    }
}
