//! A tenant's additions to the cluster's DNS: ConfigMap `coredns-custom`, as in AKS.
//!
//! Keys `*.override` are imported into the server block of the cluster, keys `*.server` beside it; other keys
//! are files that those may reference (`/etc/coredns/custom/KEY`).
//!
//! Always true: a broken `coredns-custom` takes no name server away. The tenant's text is part of the pod
//! template (annotations, mounted as files), so each ReplicaSet keeps its own content: with a broken one, the
//! pods of the new ReplicaSet do not become ready, those of the old one stay, and return with their content
//! after a restart, on another node and after an upgrade. CoreDNS itself decides whether it is valid; a
//! failure is reported as an Event of the ConfigMap.

use std::collections::BTreeMap;

use cluster_api::{ObjectRef, Watch};
use serde_json::{Value, json};

use crate::{
    Ailment, KUBE_SYSTEM, Place,
    health::{condition, deployment},
};

const NAME: &str = "coredns-custom";
/// The tenant's ConfigMap.
pub(super) const CONFIG: ObjectRef = ObjectRef {
    version: "v1",
    kind: "ConfigMap",
    namespace: KUBE_SYSTEM,
    name: NAME,
};
pub(super) const WATCH: Watch = Watch {
    version: CONFIG.version,
    kind: CONFIG.kind,
    namespace: CONFIG.namespace,
    labels: None,
    name: Some(NAME),
};

/// Annotations of a pod are limited to 256 KiB in all; others need some of that.
const MOST: usize = 200 * 1024;
/// A rollout without progress for this number of seconds has failed.
pub(super) const DEADLINE_SECONDS: u32 = 120;

/// The tenant's additions.
#[derive(Default)]
pub(super) struct Custom {
    /// File contents by key.
    files: BTreeMap<String, String>,
    /// The reason why they are not used.
    refused: Option<String>,
    /// The time when CoreDNS failed to start with them.
    failed_at: Option<Value>,
}

impl Custom {
    pub(super) fn read(place: &Place<'_>) -> Self {
        let Some(data) = place.find(&CONFIG).and_then(|config| config["data"].as_object()) else {
            return Self::default();
        };
        let files: BTreeMap<String, String> = data
            .iter()
            .filter_map(|(key, text)| Some((key.clone(), text.as_str()?.to_owned())))
            .collect();
        let size: usize = files.iter().map(|(key, text)| key.len() + text.len()).sum();
        if size > MOST {
            return Self {
                refused: Some(format!(
                    "it has {size} bytes, and at most {MOST} are used: make it smaller"
                )),
                ..Self::default()
            };
        }
        // The state of the rollout.
        let rollout = place
            .find(&deployment("coredns"))
            .and_then(|found| condition(found, "Progressing"));
        Self {
            failed_at: rollout
                .filter(|condition| condition["reason"] == "ProgressDeadlineExceeded")
                .filter(|_| !files.is_empty())
                .map(|condition| condition["lastUpdateTime"].clone()),
            files,
            refused: None,
        }
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Import lines of the Corefile: within the server block of the cluster, and after it.
    pub(super) fn imports(&self) -> (&'static str, &'static str) {
        if self.is_empty() {
            ("", "")
        } else {
            ("    import custom/*.override\n", "import custom/*.server\n")
        }
    }

    /// Annotations of the pod template.
    pub(super) fn annotations(&self) -> impl Iterator<Item = (String, &str)> {
        self.files
            .values()
            .enumerate()
            .map(|(number, text)| (annotation(number), text.as_str()))
    }

    /// The projected volume beside the Corefile.
    pub(super) fn projection(&self) -> Value {
        let items: Vec<Value> = self
            .files
            .keys()
            .enumerate()
            .map(|(number, key)| {
                let path = format!("metadata.annotations['{}']", annotation(number));
                json!({ "path": format!("custom/{key}"), "fieldRef": { "fieldPath": path } })
            })
            .collect();
        json!({ "downwardAPI": { "items": items } })
    }

    /// The ailment for the operator.
    pub(super) fn ailment(&self) -> Option<Ailment> {
        if self.refused.is_none() && self.failed_at.is_none() {
            return None;
        }
        Some(Ailment {
            // No time: the rollout's deadline has already passed.
            since: None,
            why: format!(
                "ConfigMap {NAME} of the tenant is not used; kubectl --namespace kube-system events --for configmap/{NAME} \
                 says why"
            ),
        })
    }

    /// The event for the tenant, if there is a problem.
    pub(super) fn event(&self) -> Option<Value> {
        let (reason, message, at) = match (&self.refused, &self.failed_at) {
            (Some(why), _) => ("TooLarge", format!("Not used: {why}."), &Value::Null),
            (None, Some(at)) => (
                "CoreDNSDoesNotStart",
                "CoreDNS does not become ready with this configuration. The pods with the one before go on serving. The \
                 new pods say why: kubectl --namespace kube-system logs --selector k8s-app=kube-dns --prefix"
                    .to_owned(),
                at,
            ),
            (None, None) => return None,
        };
        Some(json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": { "name": NAME, "namespace": "kube-system" },
            "involvedObject": { "apiVersion": "v1", "kind": "ConfigMap", "namespace": "kube-system", "name": NAME },
            "type": "Warning", "reason": reason, "message": message,
            "firstTimestamp": at, "lastTimestamp": at,
            "source": { "component": "landfall" }
        }))
    }
}

fn annotation(number: usize) -> String {
    format!("landfall.dev/coredns-custom.{number}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AddonOptions, tests::spec};

    fn objects(read: &[Value]) -> Vec<Value> {
        super::super::objects(&Place {
            spec: &spec(2),
            options: &AddonOptions::default(),
            read,
        })
    }

    fn find<'a>(objects: &'a [Value], kind: &str) -> Option<&'a Value> {
        objects.iter().find(|object| object["kind"] == kind)
    }

    fn config(data: Value) -> Value {
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "data": data,
            "metadata": { "name": NAME, "namespace": "kube-system" }
        })
    }

    #[test]
    fn what_a_tenant_writes_is_part_of_the_template_and_imported() {
        let override_ = "hosts custom.hosts db.corp {\n 10.9.9.9 db.corp\n fallthrough\n}";
        let rendered = objects(&[config(json!({
            "corp.server": "corp.test:53 {\n forward . 10.9.9.10\n}",
            "test.override": override_,
        }))]);
        let corefile = find(&rendered, "ConfigMap").unwrap()["data"]["Corefile"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(
            corefile.contains("    import custom/*.override\n}\nimport custom/*.server\n"),
            "{corefile}"
        );
        let template = &find(&rendered, "Deployment").unwrap()["spec"]["template"];
        assert_eq!(
            template["metadata"]["annotations"]["landfall.dev/coredns-custom.1"],
            override_
        );
        let sources = &template["spec"]["volumes"][0]["projected"]["sources"];
        assert_eq!(
            sources[1]["downwardAPI"]["items"][1],
            json!({
                "path": "custom/test.override",
                "fieldRef": { "fieldPath": "metadata.annotations['landfall.dev/coredns-custom.1']" }
            })
        );
        assert!(find(&rendered, "Event").is_none());
    }

    #[test]
    fn without_one_nothing_is_imported() {
        for read in [&[][..], &[config(Value::Null)][..], &[config(json!({}))][..]] {
            assert_eq!(objects(read), objects(&[]));
        }
        let corefile = find(&objects(&[]), "ConfigMap").unwrap()["data"]["Corefile"].to_string();
        assert!(!corefile.contains("import"), "{corefile}");
    }

    #[test]
    fn pods_that_serve_stay_until_others_do() {
        let rendered = objects(&[config(json!({ "broken.override": "no such plugin" }))]);
        let spec = &find(&rendered, "Deployment").unwrap()["spec"];
        assert_eq!(
            spec["strategy"]["rollingUpdate"],
            json!({ "maxUnavailable": 0, "maxSurge": 1 })
        );
        assert_eq!(spec["progressDeadlineSeconds"], DEADLINE_SECONDS);
    }

    #[test]
    fn a_broken_or_too_large_one_ails() {
        let ailment = |read: &[Value]| {
            super::super::health(
                &Place {
                    spec: &spec(2),
                    options: &AddonOptions::default(),
                    read,
                },
                &super::super::DNS,
            )
        };
        let rollout = |reason: &str| {
            json!({
                "apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": { "name": "coredns", "namespace": "kube-system" },
                "status": { "conditions": [
                    { "type": "Available", "status": "True" },
                    { "type": "Progressing", "reason": reason, "lastUpdateTime": "2026-01-01T00:00:00Z" }
                ] }
            })
        };
        let broken = config(json!({ "broken.override": "no such plugin" }));
        assert_eq!(ailment(&[broken.clone(), rollout("ReplicaSetUpdated")]), None);
        let told = ailment(&[broken, rollout("ProgressDeadlineExceeded")]).unwrap();
        assert!(told.why.contains("coredns-custom"), "{}", told.why);
        assert!(ailment(&[config(json!({ "large.server": "x".repeat(MOST) }))]).is_some());
    }

    #[test]
    fn a_broken_or_too_large_one_is_told() {
        let deployment = |reason: &str| {
            json!({
                "apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": { "name": "coredns", "namespace": "kube-system" },
                "status": { "conditions": [
                    { "type": "Progressing", "reason": reason, "lastUpdateTime": "2026-01-01T00:00:00Z" }
                ] }
            })
        };
        let broken = config(json!({ "broken.override": "no such plugin" }));
        let fine = objects(&[broken.clone(), deployment("NewReplicaSetAvailable")]);
        assert!(find(&fine, "Event").is_none());
        let told = objects(&[broken, deployment("ProgressDeadlineExceeded")]);
        let event = find(&told, "Event").unwrap();
        assert_eq!(event["reason"], "CoreDNSDoesNotStart");
        assert_eq!(event["lastTimestamp"], "2026-01-01T00:00:00Z");
        // A rollout that fails for another reason is not the tenant's fault.
        let other = objects(&[deployment("ProgressDeadlineExceeded")]);
        assert!(find(&other, "Event").is_none());

        let large = objects(&[config(json!({ "large.server": "x".repeat(MOST) }))]);
        assert_eq!(find(&large, "Event").unwrap()["reason"], "TooLarge");
        assert_eq!(find(&large, "Deployment"), find(&objects(&[]), "Deployment"));
    }
}
