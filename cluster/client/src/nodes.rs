//! Node objects: reads them, and applies the service's wishes.

use std::collections::{BTreeMap, BTreeSet};

use cluster_api::{ClusterError, NodeMarks, NodeSeen, NodeWish, PRESERVE};
use serde_json::{Map, Value, json};

use crate::{Cluster, Failure};

/// The annotation with the labels and taints set by the service, to distinguish them from others'.
const OURS: &str = "landfall.dev/managed";
/// The annotation of nodes that the service has cordoned.
pub(crate) const CORDONED: &str = "landfall.dev/cordoned";
/// The annotation of nodes that replaced another one: the name of that node.
const INHERITED: &str = "landfall.dev/inherited";
/// Prefixes of the keys of taints that autoscalers set.
const AUTOSCALERS: [&str; 2] = ["ToBeDeletedBy", "DeletionCandidateOf"];
/// Kubelets write to their nodes as well; a few attempts resolve conflicts.
const ATTEMPTS: usize = 5;

impl Cluster {
    pub(crate) async fn list_nodes(&self) -> Result<Vec<NodeSeen>, ClusterError> {
        let nodes = self.list("list nodes", "/api/v1/nodes").await?;
        Ok(nodes.iter().map(seen).collect())
    }

    pub(crate) async fn bring_node(&self, wish: &NodeWish) -> Result<(), ClusterError> {
        let path = format!("/api/v1/nodes/{}", wish.name);
        let mut outcome = Ok(());
        for _ in 0..ATTEMPTS {
            let node = match self.get("read a node", &path).await {
                Err(failure) if failure.is_absent() => return Ok(()),
                other => other?,
            };
            let Some(patch) = patch(&node, wish) else {
                return Ok(());
            };
            outcome = self.merge("change a node", &path, &patch).await.map(drop);
            if !outcome.as_ref().is_err_and(Failure::is_conflict) {
                break;
            }
        }
        outcome.map_err(ClusterError::from)
    }
}

fn strings(value: &Value) -> BTreeMap<String, String> {
    value
        .as_object()
        .map(|map| {
            map.iter()
                .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
                .collect()
        })
        .unwrap_or_default()
}

fn seen(node: &Value) -> NodeSeen {
    let ready = node["status"]["conditions"].as_array().is_some_and(|conditions| {
        conditions
            .iter()
            .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    });
    NodeSeen {
        name: node["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
        ready,
        cordoned: node["spec"]["unschedulable"] == true,
        kubelet_version: node["status"]["nodeInfo"]["kubeletVersion"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
        pod_range: node["spec"]["podCIDR"].as_str().map(str::to_owned),
        labels: strings(&node["metadata"]["labels"]),
        taints: taints(node).iter().map(taint_text).collect(),
        problem: (!ready).then(|| problem(node)).flatten(),
        preserve: node["metadata"]["annotations"][PRESERVE]
            .as_str()
            .map(str::to_owned),
        marks: marks(node),
    }
}

/// Labels, annotations and taints that users set with kubectl, by the field managers in the API server. Taints have one field manager for the
/// whole list, so all taints count that are neither the service's nor Kubernetes' own.
fn marks(node: &Value) -> NodeMarks {
    let metadata = &node["metadata"];
    let managers = || metadata["managedFields"].as_array().into_iter().flatten();
    let by_kubectl = |kind: &str| -> BTreeMap<String, String> {
        let values = strings(&metadata[kind]);
        let written = managers()
            .filter(|entry| {
                entry["manager"]
                    .as_str()
                    .is_some_and(|name| name.starts_with("kubectl"))
            })
            .filter_map(|entry| entry["fieldsV1"]["f:metadata"][format!("f:{kind}").as_str()].as_object())
            .flat_map(|fields| fields.keys().filter_map(|field| field.strip_prefix("f:")));
        let written: BTreeSet<&str> = written.collect();
        let own = |name: &str| {
            let prefix = name.split_once('/').map_or("", |(prefix, _)| prefix);
            ["landfall.dev", "kubectl.kubernetes.io"].contains(&prefix) || name == "kubernetes.io/hostname"
        };
        let found = values.into_iter();
        found
            .filter(|(name, _)| written.contains(name.as_str()) && !own(name))
            .collect()
    };
    let managed = ours(node).taints;
    let taints = taints(node);
    let of_people = taints.iter().filter(|taint| {
        let key = taint["key"].as_str().unwrap_or_default();
        let kubernetes = key
            .split_once('/')
            .is_some_and(|(prefix, _)| prefix.ends_with("kubernetes.io"));
        !kubernetes && !AUTOSCALERS.iter().any(|prefix| key.starts_with(prefix))
    });
    NodeMarks {
        labels: by_kubectl("labels"),
        annotations: by_kubectl("annotations"),
        taints: of_people
            .map(taint_text)
            .filter(|taint| !managed.contains(taint))
            .collect(),
    }
}

/// The reason why it is not ready: the message of the condition, on one line.
fn problem(node: &Value) -> Option<String> {
    const LONGEST: usize = 200;
    let conditions = node["status"]["conditions"].as_array()?;
    let ready = conditions.iter().find(|condition| condition["type"] == "Ready")?;
    let message = ready["message"].as_str()?.lines().next()?;
    Some(message.chars().take(LONGEST).collect())
}

fn taints(node: &Value) -> Vec<Value> {
    node["spec"]["taints"].as_array().cloned().unwrap_or_default()
}

/// `key=value:Effect`, without `=` where there is no value.
fn taint_text(taint: &Value) -> String {
    let field = |name: &str| taint[name].as_str().unwrap_or_default();
    match field("value") {
        "" => format!("{}:{}", field("key"), field("effect")),
        value => format!("{}={value}:{}", field("key"), field("effect")),
    }
}

fn taint_value(text: &str) -> Option<Value> {
    let (pair, effect) = text.rsplit_once(':')?;
    Some(match pair.split_once('=') {
        Some((key, value)) => json!({ "key": key, "value": value, "effect": effect }),
        None => json!({ "key": pair, "effect": effect }),
    })
}

/// The needed changes, if any.
fn patch(node: &Value, wish: &NodeWish) -> Option<Value> {
    let before = ours(node);
    let labels = strings(&node["metadata"]["labels"]);
    let mut label_changes = Map::new();
    for (name, value) in &wish.labels {
        if labels.get(name) != Some(value) {
            label_changes.insert(name.clone(), json!(value));
        }
    }
    for name in before
        .labels
        .iter()
        .filter(|name| !wish.labels.contains_key(*name) && labels.contains_key(*name))
    {
        label_changes.insert(name.clone(), Value::Null);
    }

    let wanted: BTreeSet<String> = wish
        .taints
        .iter()
        .filter_map(|text| taint_value(text))
        .map(|taint| taint_text(&taint))
        .collect();
    let present = taints(node);
    let mut next: Vec<Value> = present
        .iter()
        .filter(|taint| {
            let text = taint_text(taint);
            wanted.contains(&text) || !before.taints.contains(&text)
        })
        .cloned()
        .collect();
    let kept: BTreeSet<String> = next.iter().map(taint_text).collect();
    next.extend(
        wanted
            .iter()
            .filter(|text| !kept.contains(*text))
            .filter_map(|text| taint_value(text)),
    );

    let mut annotations = Map::new();
    if let Some((from, marks)) = &wish.inherited
        && node["metadata"]["annotations"][INHERITED].as_str() != Some(from.as_str())
    {
        for (name, value) in marks
            .labels
            .iter()
            .filter(|(name, _)| !wish.labels.contains_key(*name))
        {
            if !labels.contains_key(name) {
                label_changes.insert(name.clone(), json!(value));
            }
        }
        for (name, value) in &marks.annotations {
            if node["metadata"]["annotations"][name].is_null() {
                annotations.insert(name.clone(), json!(value));
            }
        }
        for taint in marks.taints.iter().filter_map(|text| taint_value(text)) {
            let same = |other: &Value| other["key"] == taint["key"] && other["effect"] == taint["effect"];
            if !next.iter().any(same) {
                next.push(taint);
            }
        }
        annotations.insert(INHERITED.to_owned(), json!(from));
    }

    let now = Ours {
        labels: wish.labels.keys().cloned().collect(),
        taints: wanted,
    };
    let mut spec = Map::new();
    if next != present {
        spec.insert("taints".to_owned(), json!(next));
    }
    if let (Some(range), true) = (wish.pod_range, node["spec"]["podCIDR"].is_null()) {
        spec.insert("podCIDR".to_owned(), json!(range));
        spec.insert("podCIDRs".to_owned(), json!([range]));
    }
    let cordoned = node["metadata"]["annotations"][CORDONED].is_string();
    if wish.takes_pods && cordoned {
        spec.insert("unschedulable".to_owned(), Value::Null);
        annotations.insert(CORDONED.to_owned(), Value::Null);
    }
    if label_changes.is_empty() && spec.is_empty() && annotations.is_empty() && now == before {
        return None;
    }
    let ours = json!({ "labels": now.labels, "taints": now.taints }).to_string();
    annotations.insert(OURS.to_owned(), json!(ours));
    Some(json!({
        "metadata": {
            "resourceVersion": node["metadata"]["resourceVersion"],
            "labels": label_changes,
            "annotations": annotations
        },
        "spec": spec
    }))
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Ours {
    labels: BTreeSet<String>,
    taints: BTreeSet<String>,
}

/// The labels and taints in the annotation. An invalid one counts as empty: then none is removed.
fn ours(node: &Value) -> Ours {
    let text = node["metadata"]["annotations"][OURS].as_str().unwrap_or("{}");
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    let set = |name: &str| -> BTreeSet<String> {
        value[name]
            .as_array()
            .map(|items| {
                items
                    .iter()
                    .filter_map(|item| Some(item.as_str()?.to_owned()))
                    .collect()
            })
            .unwrap_or_default()
    };
    Ours {
        labels: set("labels"),
        taints: set("taints"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(labels: &[(&str, &str)], taints: &[&str]) -> NodeWish {
        NodeWish {
            name: "n".into(),
            pod_range: "10.244.1.0/24".parse().ok(),
            labels: labels
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into()))
                .collect(),
            taints: taints.iter().map(|taint| (*taint).into()).collect(),
            inherited: None,
            takes_pods: false,
            address: None,
        }
    }

    /// JSON merge patch, as the API server does it.
    fn merged(mut target: Value, patch: &Value) -> Value {
        match patch.as_object() {
            None => patch.clone(),
            Some(changes) => {
                if !target.is_object() {
                    target = json!({});
                }
                for (key, change) in changes {
                    if change.is_null() {
                        target.as_object_mut().unwrap().remove(key);
                    } else {
                        target[key] = merged(target[key].clone(), change);
                    }
                }
                target
            }
        }
    }

    #[test]
    fn the_second_time_nothing_is_to_do() {
        let node = json!({ "metadata": { "name": "n", "labels": { "theirs": "x" } }, "spec": {} });
        let wish = wish(&[("a", "1")], &["k=v:NoSchedule"]);
        let after = merged(node.clone(), &patch(&node, &wish).unwrap());
        assert_eq!(after["metadata"]["labels"], json!({ "a": "1", "theirs": "x" }));
        assert_eq!(after["spec"]["podCIDR"], "10.244.1.0/24");
        assert_eq!(seen(&after).taints, ["k=v:NoSchedule"]);
        assert_eq!(patch(&after, &wish), None);
    }

    #[test]
    fn what_was_ours_goes_and_what_is_theirs_stays() {
        let node = json!({
            "metadata": { "labels": { "theirs": "x" } },
            "spec": { "taints": [{ "key": "node.kubernetes.io/not-ready", "effect": "NoSchedule" }] }
        });
        let first = merged(
            node.clone(),
            &patch(&node, &wish(&[("a", "1"), ("b", "2")], &["k=v:NoSchedule"])).unwrap(),
        );
        let second = merged(first.clone(), &patch(&first, &wish(&[("b", "3")], &[])).unwrap());
        assert_eq!(second["metadata"]["labels"], json!({ "b": "3", "theirs": "x" }));
        assert_eq!(seen(&second).taints, ["node.kubernetes.io/not-ready:NoSchedule"]);
    }

    #[test]
    fn only_what_a_drain_has_cordoned_takes_pods_again() {
        let cordoned = |annotations: Value| json!({ "metadata": { "annotations": annotations }, "spec": { "unschedulable": true } });
        let takes_pods = NodeWish {
            takes_pods: true,
            ..wish(&[], &[])
        };
        let by_us = cordoned(json!({ CORDONED: "drained" }));
        let after = merged(by_us.clone(), &patch(&by_us, &takes_pods).unwrap());
        assert!(!seen(&after).cordoned);
        assert_eq!(patch(&after, &takes_pods), None);
        let aside = merged(by_us.clone(), &patch(&by_us, &wish(&[], &[])).unwrap());
        assert!(seen(&aside).cordoned);
        // A cordon by a user.
        let by_them = cordoned(json!({}));
        let after = merged(by_them.clone(), &patch(&by_them, &takes_pods).unwrap());
        assert!(seen(&after).cordoned);
    }

    #[test]
    fn what_people_put_on_a_node_is_known_and_passed_on_once() {
        let node = json!({
            "metadata": {
                "labels": { "disk": "fast", "agentpool": "a", "kubernetes.io/arch": "amd64" },
                "annotations": { "note": "x", "projectcalico.org/IPv4Address": "10.0.0.1", OURS: r#"{"taints":["dedicated=back:NoSchedule"]}"# },
                "managedFields": [
                    { "manager": "kubectl-label", "fieldsV1": { "f:metadata": { "f:labels": { "f:disk": {} } } } },
                    { "manager": "kubectl-annotate", "fieldsV1": { "f:metadata": { "f:annotations": { ".": {}, "f:note": {} } } } },
                    { "manager": "calico", "fieldsV1": { "f:metadata": { "f:annotations": { "f:projectcalico.org/IPv4Address": {} } } } },
                ],
            },
            "spec": { "taints": [
                { "key": "a", "value": "b", "effect": "PreferNoSchedule" },
                { "key": "dedicated", "value": "back", "effect": "NoSchedule" },
                { "key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule" },
            ] },
        });
        let marks = seen(&node).marks;
        assert_eq!(
            marks.labels,
            BTreeMap::from([("disk".to_owned(), "fast".to_owned())])
        );
        assert_eq!(
            marks.annotations,
            BTreeMap::from([("note".to_owned(), "x".to_owned())])
        );
        assert_eq!(marks.taints, ["a=b:PreferNoSchedule"]);

        let wish = NodeWish {
            inherited: Some(("old".to_owned(), marks)),
            ..wish(&[("agentpool", "a")], &[])
        };
        let new =
            json!({ "metadata": { "name": "n", "labels": {} }, "spec": { "podCIDR": "10.244.1.0/24" } });
        let after = merged(new.clone(), &patch(&new, &wish).unwrap());
        assert_eq!(
            after["metadata"]["labels"],
            json!({ "agentpool": "a", "disk": "fast" })
        );
        assert_eq!(after["metadata"]["annotations"]["note"], "x");
        assert_eq!(seen(&after).taints, ["a=b:PreferNoSchedule"]);
        assert_eq!(patch(&after, &wish), None, "once");
        // A user has removed it.
        let mut without = after;
        without["metadata"]["labels"]
            .as_object_mut()
            .unwrap()
            .remove("disk");
        assert_eq!(patch(&without, &wish), None);
    }

    #[test]
    fn a_broken_annotation_takes_nothing_away() {
        let node =
            json!({ "metadata": { "labels": { "a": "1" }, "annotations": { OURS: "rubbish" } }, "spec": {} });
        let after = merged(node.clone(), &patch(&node, &wish(&[], &[])).unwrap());
        assert_eq!(after["metadata"]["labels"]["a"], "1");
    }
}
