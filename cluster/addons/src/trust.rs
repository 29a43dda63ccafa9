//! Pods of add-ons begin anew once the cluster publishes another CA: most programs read the CAs that they trust when they begin, and never again.
//!
//! The mark on the pods is of the newest of the published CAs, which is the last one. So they begin anew once in a rotation, when the new one is
//! published beside the old one; that the old one goes changes nothing for them.
//!
//! Always true: a cluster whose CAs were never replaced has no mark; the mark is of what is published, not of what is to be: a pod that begins for
//! it finds it. As long as one CA is published and nothing is marked, nobody has to begin anew.

use cluster_api::ObjectRef;
use serde_json::{Value, json};

use crate::Place;

/// Where a cluster's controller manager publishes the CAs, for all pods of a namespace.
pub(crate) const PUBLISHED: ObjectRef = ObjectRef {
    version: "v1",
    kind: "ConfigMap",
    namespace: Some("kube-system"),
    name: "kube-root-ca.crt",
};
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const MARK: &str = "landfall.dev/newest-authority";
/// So much of a certificate tells it from all others: the end of its signature.
const TOLD: usize = 32;

/// Marks the pods of Deployments and DaemonSets, where there are two CAs, or a mark already.
pub(crate) fn stamp(place: &Place<'_>, objects: &mut [Value]) {
    let published = place
        .find(&PUBLISHED)
        .and_then(|found| found["data"]["ca.crt"].as_str());
    let Some(published) = published else { return };
    let Some(mark) = newest(published) else { return };
    let several = published.matches(BEGIN).count() > 1;
    let is_marked = |deployment: &Value| {
        let same = |other: &&Value| {
            other["kind"] == deployment["kind"] && other["metadata"]["name"] == deployment["metadata"]["name"]
        };
        let there = place.read.iter().find(same);
        there.is_some_and(|there| !there["spec"]["template"]["metadata"]["annotations"][MARK].is_null())
    };
    let begin_pods = |object: &&mut Value| object["kind"] == "Deployment" || object["kind"] == "DaemonSet";
    for deployment in objects.iter_mut().filter(begin_pods) {
        if several || is_marked(deployment) {
            deployment["spec"]["template"]["metadata"]["annotations"][MARK] = json!(mark);
        }
    }
}

/// What tells the last certificate of a bundle from others.
fn newest(bundle: &str) -> Option<String> {
    let (before, _) = bundle.rsplit_once("-----END CERTIFICATE-----")?;
    let (_, body) = before.rsplit_once(BEGIN)?;
    let body: String = body.split_whitespace().collect();
    let told = body.get(body.len().saturating_sub(TOLD)..)?;
    (!told.is_empty()).then(|| told.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AddonOptions, manifests, tests::spec};

    /// The Deployments in a cluster that publishes this, where `there` are those of before.
    fn deployments(bundle: Option<&str>, there: &[Value]) -> Vec<Value> {
        let published = bundle.map(|bundle| {
            json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": { "name": "kube-root-ca.crt", "namespace": "kube-system" },
                "data": { "ca.crt": bundle },
            })
        });
        let read: Vec<Value> = published.into_iter().chain(there.iter().cloned()).collect();
        let objects = manifests(&spec(2), &AddonOptions::default(), &read).into_iter();
        objects.filter(|object| object["kind"] == "Deployment").collect()
    }

    fn marks(deployments: &[Value]) -> Vec<Value> {
        let each = deployments.iter();
        each.map(|own| own["spec"]["template"]["metadata"]["annotations"][MARK].clone())
            .collect()
    }

    fn pem(body: &str) -> String {
        format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
    }

    #[test]
    fn pods_begin_anew_once_for_another_authority() {
        let (old, new) = (pem("AAAA\nBBBB"), pem("AAAA\nCCCC"));
        let first = deployments(Some(&old), &[]);
        assert!(!first.is_empty() && marks(&first).iter().all(Value::is_null));
        let both = deployments(Some(&format!("{old}{new}")), &first);
        assert!(marks(&both).iter().all(|mark| mark == "AAAACCCC"));
        let after = deployments(Some(&new), &both);
        assert_eq!(marks(&after), marks(&both));
    }

    #[test]
    fn what_is_not_known_marks_nothing() {
        for bundle in [None, Some("?")] {
            assert!(marks(&deployments(bundle, &[])).iter().all(Value::is_null));
        }
    }
}
