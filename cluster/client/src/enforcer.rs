//! The admissions enforcer, as in AKS: foreign admission webhooks are excluded from the objects that the
//! cluster itself depends on.
//!
//! A webhook that matches everything, fails closed and has lost its server stops a cluster for good: neither
//! DNS nor the webhook's own server can be started. So, in each webhook configuration that is not annotated
//! `admissions.enforcer/disabled: "true"`:
//!
//! * namespaces labelled `control-plane=true` or `kubernetes.azure.com/managedby=aks` are excluded, as in
//!   AKS; `kube-system` and `kube-node-lease` get these labels;
//! * where it fails closed, requests of kubelets and our own are excluded, except for pods: a namespace
//!   selector does not apply to nodes, leases and objects without a namespace, while a webhook that blocks a
//!   pod's eviction is respected.
//!
//! Always true: a webhook is only ever called less often; a change is reported as an event of the
//! configuration. Webhook configurations themselves are never subject to webhooks, so this always works.

use cluster_api::ClusterError;
use serde_json::{Value, json};

use crate::Cluster;

/// Path and kind of both kinds of configuration.
pub(crate) const CONFIGURATIONS: [(&str, &str); 2] = [
    (
        "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
        "ValidatingWebhookConfiguration",
    ),
    (
        "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
        "MutatingWebhookConfiguration",
    ),
];
/// AKS' annotation that disables the enforcer for a configuration.
const DISABLED: &str = "admissions.enforcer/disabled";
/// The field manager, as in AKS.
const MANAGER: &str = "admissionsenforcer";
/// Excluded namespaces.
const NAMESPACES: [&str; 2] = ["kube-system", "kube-node-lease"];
/// Kubernetes' limit of conditions for one webhook.
const MOST_CONDITIONS: usize = 64;

/// The labels of AKS' namespaces.
fn labels() -> Value {
    json!({ "control-plane": "true", "kubernetes.azure.com/managedby": "aks" })
}

/// Required expressions of a namespace selector.
fn exclusions() -> [Value; 2] {
    [
        json!({ "key": "control-plane", "operator": "NotIn", "values": ["true"] }),
        json!({ "key": "kubernetes.azure.com/managedby", "operator": "NotIn", "values": ["aks"] }),
    ]
}

/// Required conditions of a webhook that fails closed. The first is the example in Kubernetes' documentation.
fn conditions() -> [Value; 2] {
    [
        json!({
            "name": "exclude-kubelet-requests",
            "expression": "!('system:nodes' in request.userInfo.groups)"
        }),
        json!({
            "name": "exclude-landfall-requests",
            "expression": "!(request.userInfo.username == 'landfall' && request.resource.resource != 'pods')"
        }),
    ]
}

impl Cluster {
    /// Corrects all webhook configurations; returns the first failure after trying all of them.
    pub(crate) async fn enforce_admissions(&self) -> Result<(), ClusterError> {
        let mut outcome = Ok(());
        for (path, kind) in CONFIGURATIONS {
            for configuration in self.list("list webhook configurations", path).await? {
                let Some((webhooks, changed)) = enforced(&configuration) else {
                    continue;
                };
                let name = configuration["metadata"]["name"].as_str().unwrap_or_default();
                let patch = json!({
                    // Only for the version that was read: the list is written as a whole.
                    "metadata": { "resourceVersion": configuration["metadata"]["resourceVersion"] },
                    "webhooks": webhooks
                });
                let written = self
                    .merge(
                        &format!("keep webhook configuration {name} away from the cluster's own namespaces"),
                        &format!("{path}/{name}?fieldManager={MANAGER}"),
                        &patch,
                    )
                    .await;
                match written {
                    Ok(_) => {
                        let message = format!(
                            "no longer called for {} and for requests of kubelets: {}. The annotation {DISABLED}=true \
                             leaves a configuration as it is",
                            NAMESPACES.join(", "),
                            changed.join(", ")
                        );
                        tracing::info!(configuration = name, "{message}");
                        self.tell(&configuration, kind, true, "AdmissionsEnforced", &message)
                            .await;
                    }
                    // It is read again at the next change, which this is.
                    Err(failure) if failure.is_conflict() || failure.is_absent() => {}
                    Err(failure) => outcome = outcome.and(Err(failure.into())),
                }
            }
        }
        for namespace in NAMESPACES {
            outcome = outcome.and(self.label_namespace(namespace).await);
        }
        outcome
    }

    async fn label_namespace(&self, namespace: &str) -> Result<(), ClusterError> {
        let path = format!("/api/v1/namespaces/{namespace}");
        let found = match self.get("read a namespace", &path).await {
            // kube-node-lease exists once the controller manager has created it.
            Err(failure) if failure.is_absent() => return Ok(()),
            other => other?,
        };
        let (wanted, present) = (labels(), &found["metadata"]["labels"]);
        let there = wanted
            .as_object()
            .is_some_and(|wanted| wanted.iter().all(|(name, value)| present[name] == *value));
        if there {
            return Ok(());
        }
        let patch = json!({ "metadata": { "labels": wanted } });
        self.merge(
            "label a namespace",
            &format!("{path}?fieldManager={MANAGER}"),
            &patch,
        )
        .await?;
        Ok(())
    }
}

/// The corrected webhooks of a configuration, and the names of those that differ; `None` if none does.
fn enforced(configuration: &Value) -> Option<(Value, Vec<String>)> {
    if configuration["metadata"]["annotations"][DISABLED] == "true" {
        return None;
    }
    let mut webhooks = configuration["webhooks"].as_array()?.clone();
    let mut changed = Vec::new();
    for webhook in &mut webhooks {
        let mut differs = complete(
            &mut webhook["namespaceSelector"]["matchExpressions"],
            &exclusions(),
        );
        let fails_closed = webhook["failurePolicy"] != "Ignore";
        let room = webhook["matchConditions"]
            .as_array()
            .is_none_or(|conditions| conditions.len() + 2 <= MOST_CONDITIONS);
        if fails_closed && room {
            differs |= complete(&mut webhook["matchConditions"], &conditions());
        }
        if differs {
            changed.push(webhook["name"].as_str().unwrap_or_default().to_owned());
        }
    }
    (!changed.is_empty()).then_some((Value::Array(webhooks), changed))
}

/// Adds missing items to a list; returns whether there were any.
fn complete(list: &mut Value, wanted: &[Value]) -> bool {
    if !list.is_array() {
        *list = json!([]);
    }
    let Some(list) = list.as_array_mut() else {
        return false;
    };
    let mut differs = false;
    for item in wanted {
        if !list.contains(item) {
            differs = true;
            // A modified condition of ours is replaced.
            list.retain(|other| item["name"].is_null() || other["name"] != item["name"]);
            list.push(item.clone());
        }
    }
    differs
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::fake::{cluster, paths, refusal};

    fn configuration(webhooks: Value) -> Value {
        json!({ "metadata": { "name": "guard", "resourceVersion": "7" }, "webhooks": webhooks })
    }

    #[test]
    fn a_webhook_for_everything_is_kept_from_what_the_cluster_lives_by() {
        let theirs = json!({ "key": "team", "operator": "Exists" });
        let before = configuration(json!([
            { "name": "fails.closed", "namespaceSelector": { "matchExpressions": [theirs] } },
            { "name": "fails.open", "failurePolicy": "Ignore", "objectSelector": { "matchLabels": { "a": "b" } } }
        ]));
        let (webhooks, changed) = enforced(&before).unwrap();
        assert_eq!(changed, ["fails.closed", "fails.open"]);
        let [first, second] = exclusions();
        assert_eq!(
            webhooks,
            json!([
                {
                    "name": "fails.closed",
                    "namespaceSelector": { "matchExpressions": [theirs, first, second] },
                    "matchConditions": conditions()
                },
                {
                    "name": "fails.open", "failurePolicy": "Ignore", "objectSelector": { "matchLabels": { "a": "b" } },
                    "namespaceSelector": { "matchExpressions": [first, second] }
                }
            ])
        );
        assert_eq!(
            enforced(&configuration(webhooks)),
            None,
            "the second time nothing is to do"
        );
    }

    #[test]
    fn a_condition_that_was_hollowed_out_is_written_again() {
        let mut webhook = json!({ "name": "w", "namespaceSelector": { "matchExpressions": exclusions() } });
        webhook["matchConditions"] = json!(conditions());
        webhook["matchConditions"][0]["expression"] = json!("true");
        let (webhooks, _) = enforced(&configuration(json!([webhook]))).unwrap();
        let written = webhooks[0]["matchConditions"].as_array().unwrap();
        assert_eq!(written.len(), 2);
        assert!(conditions().iter().all(|condition| written.contains(condition)));
    }

    #[test]
    fn whoever_opts_out_is_left_alone() {
        let mut left = configuration(json!([{ "name": "w" }]));
        left["metadata"]["annotations"][DISABLED] = json!("true");
        assert_eq!(enforced(&left), None);
        assert_eq!(enforced(&json!({ "metadata": { "name": "empty" } })), None);
    }

    #[tokio::test]
    async fn webhooks_are_moved_out_of_the_way_before_anything_is_applied_and_it_is_told() {
        let (cluster, log) = cluster(|asked| match (&asked.method, asked.path.as_str()) {
            (&Method::GET, path) if path.contains("validatingwebhook") => (
                200,
                json!({ "items": [configuration(json!([{ "name": "guard.example.com" }]))], "metadata": {} }),
            ),
            (&Method::GET, _) => (200, json!({ "metadata": {} })),
            _ => (200, json!({})),
        });
        let object = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "namespace": "kube-system", "name": "c" } });
        cluster.apply_all(&[object]).await.unwrap();
        let patched = paths(&log, &Method::PATCH);
        assert_eq!(
            patched,
            [
                "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/guard?fieldManager=admissionsenforcer",
                "/api/v1/namespaces/kube-system?fieldManager=admissionsenforcer",
                "/api/v1/namespaces/kube-node-lease?fieldManager=admissionsenforcer",
                "/api/v1/namespaces/kube-system/configmaps/c?fieldManager=landfall&force=true",
            ]
        );
        let told = log
            .lock()
            .unwrap()
            .iter()
            .find(|asked| asked.method == Method::POST)
            .cloned()
            .unwrap();
        assert_eq!(told.body["involvedObject"]["name"], "guard");
        assert!(
            told.body["message"]
                .as_str()
                .unwrap()
                .contains("guard.example.com")
        );
    }

    #[tokio::test]
    async fn what_a_dead_webhook_refuses_names_it_and_does_not_keep_the_rest() {
        let (cluster, log) = cluster(|asked| match (&asked.method, asked.path.as_str()) {
            (&Method::GET, _) => (200, json!({ "metadata": {} })),
            (_, path) if path.contains("/configmaps/a") => refusal(
                500,
                "Internal error occurred: failed calling webhook \"guard.example.com\": connection refused",
            ),
            _ => (200, json!({})),
        });
        let object = |name: &str| json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "namespace": "kube-system", "name": name } });
        let objects: Vec<_> = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"]
            .map(object)
            .into();
        let error = cluster.apply_all(&objects).await.unwrap_err();
        assert!(matches!(&error, ClusterError::Refused { .. }), "{error}");
        assert!(error.to_string().contains("guard.example.com"), "{error}");
        let applied = paths(&log, &Method::PATCH);
        assert!(
            applied.iter().any(|path| path.contains("/configmaps/j")),
            "{applied:?}"
        );
    }
}
