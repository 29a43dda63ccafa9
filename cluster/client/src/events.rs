//! Kubernetes events, which tenants see with `kubectl describe` and `kubectl get events`.

use serde_json::{Value, json};

use crate::Cluster;

/// The namespace of events about cluster-scoped objects.
const NAMESPACE: &str = "default";
/// Kubernetes' length limit of a message.
const LONGEST: usize = 1024;

impl Cluster {
    /// Writes an event about an object. Once for each state of the object: its name is derived from both. A
    /// failure is not an error.
    pub(crate) async fn tell(&self, about: &Value, kind: &str, warning: bool, reason: &str, message: &str) {
        let metadata = &about["metadata"];
        let text = |name: &str| metadata[name].as_str().unwrap_or_default();
        let namespace = metadata["namespace"].as_str().unwrap_or(NAMESPACE);
        let now = self.env.clock.now().to_string();
        let event = json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {
                "namespace": namespace,
                "name": format!("{}.{}.{}", text("name"), reason.to_lowercase(), text("resourceVersion"))
            },
            "involvedObject": {
                "apiVersion": about["apiVersion"], "kind": kind, "name": text("name"), "uid": text("uid"),
                "namespace": metadata["namespace"], "resourceVersion": text("resourceVersion")
            },
            "type": if warning { "Warning" } else { "Normal" }, "reason": reason,
            "message": message.chars().take(LONGEST).collect::<String>(),
            "source": { "component": "landfall" },
            "firstTimestamp": now, "lastTimestamp": now, "count": 1
        });
        let path = format!("/api/v1/namespaces/{namespace}/events");
        match self
            .call(
                "write an event",
                http::Method::POST,
                &path,
                "application/json",
                Some(&event),
            )
            .await
        {
            Err(failure) if !failure.is_conflict() => {
                tracing::warn!(reason, why = failure.why, "an event of a cluster was not written");
            }
            _ => {}
        }
    }
}
