//! Server-side apply.

use cluster_api::{ClusterError, ObjectRef};
use futures::StreamExt as _;
use kube::{
    Resource as _,
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::{Value, json};

use crate::Cluster;

/// Concurrent requests: enough to hide latency, far below the server's in-flight limits.
const PARALLEL: usize = 8;
/// The field manager.
const MANAGER: &str = "landfall";

impl Cluster {
    pub(crate) async fn apply_all(&self, objects: &[Value]) -> Result<u32, ClusterError> {
        // Obstacles to add-ons are removed first; a failure of one object does not stop the others.
        let mut outcome = self.enforce_admissions().await;
        let mut changed = 0;
        let (first, others): (Vec<&Value>, Vec<&Value>) = objects.iter().partition(|object| is_first(object));
        for part in [first, others] {
            let mut waiting = part.into_iter();
            let mut running: futures::stream::FuturesUnordered<_> = waiting
                .by_ref()
                .take(PARALLEL)
                .map(|object| self.apply_one(object))
                .collect();
            while let Some(applied) = running.next().await {
                match applied {
                    Ok(differs) => changed += u32::from(differs),
                    Err(error) => outcome = outcome.and(Err(error)),
                }
                running.extend(waiting.next().map(|object| self.apply_one(object)));
            }
        }
        outcome.map(|()| changed)
    }

    /// The existing objects.
    pub(crate) async fn read_all(&self, objects: &[ObjectRef]) -> Result<Vec<Value>, ClusterError> {
        let mut found = Vec::with_capacity(objects.len());
        for object in objects {
            let path = listed(object.version, object.kind, object.namespace) + "/" + object.name;
            match self
                .call(
                    &format!("read {path}"),
                    http::Method::GET,
                    &path,
                    "application/json",
                    None,
                )
                .await
            {
                Ok(value) => found.push(value),
                Err(failure) if failure.is_absent() => {}
                Err(failure) => return Err(failure.into()),
            }
        }
        Ok(found)
    }

    /// Applies one object; whether it changed.
    pub(crate) async fn apply_one(&self, object: &Value) -> Result<bool, ClusterError> {
        let path = path(object).ok_or_else(|| ClusterError::Refused {
            act: "apply an object".to_owned(),
            why: "it has no kind, apiVersion or name".to_owned(),
        })?;
        let url = format!("{path}?fieldManager={MANAGER}&force=true");
        let answer = self
            .call(
                &format!("apply {path}"),
                http::Method::PATCH,
                &url,
                "application/apply-patch+yaml",
                Some(object),
            )
            .await?;
        let seen = mark(&answer);
        let mut applied = self
            .applied
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let changed = applied.get(&path) != Some(&seen);
        applied.insert(path, seen);
        Ok(changed)
    }
}

/// Whether others need it: what they are in, and what defines their kind. A kind that has just been defined may not be served yet; then its
/// objects are refused, and applied with the next attempt.
fn is_first(object: &Value) -> bool {
    object["kind"] == "Namespace" || object["kind"] == "CustomResourceDefinition"
}

/// Identifies the result of an apply, so that a real change can be detected: the object's uid, its generation
/// if it has one, and the time of our manager's last change. Controllers write the status of objects all the
/// time; that is no change of ours.
fn mark(object: &Value) -> Value {
    let metadata = &object["metadata"];
    let ours = metadata["managedFields"].as_array().and_then(|entries| {
        entries
            .iter()
            .find(|entry| entry["manager"] == MANAGER && entry["operation"] == "Apply")
    });
    json!([
        metadata["uid"],
        metadata["generation"],
        ours.map(|entry| &entry["time"])
    ])
}

/// The API path of an object.
fn path(object: &Value) -> Option<String> {
    let listed = listed(
        object["apiVersion"].as_str()?,
        object["kind"].as_str()?,
        object["metadata"]["namespace"].as_str(),
    );
    Some(listed + "/" + object["metadata"]["name"].as_str()?)
}

/// The API path of a list.
pub(crate) fn listed(version: &str, kind: &str, namespace: Option<&str>) -> String {
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    DynamicObject::url_path(&resource, namespace)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{is_first, listed, mark, path};

    #[test]
    fn what_others_are_in_or_of_comes_first() {
        let kinds = ["Namespace", "CustomResourceDefinition", "Deployment", "Gateway"];
        let first = kinds.map(|kind| is_first(&json!({ "kind": kind })));
        assert_eq!(first, [true, true, false, false]);
    }

    #[test]
    fn notes_of_controllers_are_no_change_and_ours_are() {
        let object = |generation: u32, revision: &str, time: &str| {
            json!({ "metadata": {
                "uid": "u", "generation": generation, "resourceVersion": revision,
                "annotations": { "deployment.kubernetes.io/revision": revision },
                "managedFields": [
                    { "manager": "kube-controller-manager", "operation": "Update", "time": revision },
                    { "manager": "landfall", "operation": "Apply", "time": time },
                ]
            } })
        };
        let first = mark(&object(1, "10", "t1"));
        assert_eq!(first, mark(&object(1, "11", "t1")));
        assert_ne!(first, mark(&object(3, "12", "t1")));
        assert_ne!(first, mark(&object(1, "12", "t2")));
    }

    #[test]
    fn objects_are_found_where_kubernetes_keeps_them() {
        let of = |version: &str, kind: &str, namespace: Option<&str>| {
            path(
                &json!({ "apiVersion": version, "kind": kind, "metadata": { "name": "n", "namespace": namespace } }),
            )
        };
        assert_eq!(
            of("v1", "Service", Some("s")).unwrap(),
            "/api/v1/namespaces/s/services/n"
        );
        assert_eq!(
            of("apps/v1", "Deployment", Some("s")).unwrap(),
            "/apis/apps/v1/namespaces/s/deployments/n"
        );
        assert_eq!(
            of("policy/v1", "PodDisruptionBudget", Some("s")).unwrap(),
            "/apis/policy/v1/namespaces/s/poddisruptionbudgets/n"
        );
        assert_eq!(
            of("apiregistration.k8s.io/v1", "APIService", None).unwrap(),
            "/apis/apiregistration.k8s.io/v1/apiservices/n"
        );
        assert_eq!(
            of("networking.k8s.io/v1", "IngressClass", None).unwrap(),
            "/apis/networking.k8s.io/v1/ingressclasses/n"
        );
        assert_eq!(
            of("gateway.networking.k8s.io/v1", "GatewayClass", None).unwrap(),
            "/apis/gateway.networking.k8s.io/v1/gatewayclasses/n"
        );
        assert_eq!(of("v1", "Namespace", None).unwrap(), "/api/v1/namespaces/n");
        assert_eq!(
            of("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", None).unwrap(),
            "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/n"
        );
        assert_eq!(path(&json!({ "kind": "Service" })), None);
        assert_eq!(
            listed("v1", "ConfigMap", Some("kube-system")),
            "/api/v1/namespaces/kube-system/configmaps"
        );
    }
}
