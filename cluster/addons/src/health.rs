//! The health of an add-on, from the conditions of its Deployments.

use cluster_api::ObjectRef;
use jiff::Timestamp;
use serde_json::Value;

use crate::{Addon, Ailment, KUBE_SYSTEM, Place};

/// The Deployment of an add-on.
pub(crate) const fn deployment(name: &'static str) -> ObjectRef {
    ObjectRef {
        version: "apps/v1",
        kind: "Deployment",
        namespace: KUBE_SYSTEM,
        name,
    }
}

/// Healthy if each of its Deployments has the pods it needs. A Deployment without a status, because it does
/// not exist or its controller has not handled it yet, is no ailment; neither is an add-on without
/// Deployments.
pub(crate) fn available(place: &Place<'_>, addon: &Addon) -> Option<Ailment> {
    let mut deployments = addon.deployments.iter().map(|name| deployment(name));
    deployments.find_map(|deployment| unavailable(place, &deployment))
}

/// The ailment of one Deployment.
pub(crate) fn unavailable(place: &Place<'_>, deployment: &ObjectRef) -> Option<Ailment> {
    let found = place.find(deployment)?;
    let condition = condition(found, "Available").filter(|condition| condition["status"] == "False")?;
    let wanted = found["spec"]["replicas"].as_u64().unwrap_or(1);
    let there = found["status"]["availableReplicas"].as_u64().unwrap_or(0);
    let (name, namespace) = (deployment.name, deployment.namespace.unwrap_or_default());
    Some(Ailment {
        since: since(condition),
        why: format!(
            "{there} of {wanted} pods of Deployment {name} are available; kubectl --namespace {namespace} describe \
             deployment {name} says more"
        ),
    })
}

/// A condition of an object.
pub(crate) fn condition<'v>(object: &'v Value, name: &str) -> Option<&'v Value> {
    let all = object["status"]["conditions"].as_array()?;
    all.iter().find(|condition| condition["type"] == name)
}

/// The time of the condition's last transition.
pub(crate) fn since(condition: &Value) -> Option<Timestamp> {
    condition["lastTransitionTime"].as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{AddonOptions, ailments, tests::spec};

    fn metrics(status: &str) -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": { "name": "metrics-server", "namespace": "kube-system" },
            "spec": { "replicas": 1 },
            "status": { "conditions": [
                { "type": "Progressing", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z" },
                { "type": "Available", "status": status, "lastTransitionTime": "2026-01-01T00:02:00Z" }
            ] }
        })
    }

    #[test]
    fn an_addon_without_its_pods_ails_since_it_lost_them() {
        let options = AddonOptions::default();
        let found = ailments(&spec(2), &options, &[metrics("False")]);
        let [ailment] = found.as_slice() else {
            panic!("{found:?}")
        };
        assert_eq!(ailment.addon, "metrics-server");
        assert_eq!(ailment.since, "2026-01-01T00:02:00Z".parse().unwrap());
        assert!(
            ailment
                .why
                .starts_with("0 of 1 pods of Deployment metrics-server"),
            "{}",
            ailment.why
        );
    }

    #[test]
    fn one_that_works_or_is_not_known_yet_does_not() {
        let options = AddonOptions::default();
        let mut unknown = metrics("True");
        unknown["status"] = json!({});
        for read in [&[][..], &[metrics("True")][..], &[unknown][..]] {
            assert_eq!(ailments(&spec(2), &options, read), []);
        }
    }
}
