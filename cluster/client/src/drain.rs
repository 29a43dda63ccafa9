//! Taking the pods off a node.

use cluster_api::ClusterError;
use serde_json::{Value, json};

use crate::Cluster;

impl Cluster {
    /// Marks the node unschedulable and asks each pod once to go; gives how many are still there.
    pub(crate) async fn drain_once(&self, node: &str) -> Result<u32, ClusterError> {
        let path = format!("/api/v1/nodes/{node}");
        match self
            .merge(
                "cordon a node",
                &path,
                &json!({ "spec": { "unschedulable": true } }),
            )
            .await
        {
            Err(failure) if failure.is_absent() => return Ok(0),
            other => drop(other?),
        }
        let pods = self
            .get(
                "list a node's pods",
                &format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{node}"),
            )
            .await?;
        let items = pods["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut left = 0;
        for pod in items.iter().filter(|pod| moves(pod)) {
            left += 1;
            if pod["metadata"]["deletionTimestamp"].is_string() {
                continue;
            }
            let (Some(namespace), Some(name)) = (
                pod["metadata"]["namespace"].as_str(),
                pod["metadata"]["name"].as_str(),
            ) else {
                continue;
            };
            let eviction = json!({
                "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": name, "namespace": namespace }
            });
            let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/eviction");
            match self
                .call(
                    "evict a pod",
                    http::Method::POST,
                    &path,
                    "application/json",
                    Some(&eviction),
                )
                .await
            {
                Ok(_) => {}
                Err(failure) if failure.is_absent() => left -= 1,
                // It is asked again in the next round.
                Err(failure) if failure.is_too_many() => {
                    tracing::debug!(node, pod = name, why = failure.why, "a pod stays for now");
                }
                Err(failure) => return Err(failure.into()),
            }
        }
        Ok(left)
    }
}

/// Whether a pod has to go somewhere else: not those that belong to the node itself, and not those that have ended.
fn moves(pod: &Value) -> bool {
    let daemon = pod["metadata"]["ownerReferences"]
        .as_array()
        .is_some_and(|owners| owners.iter().any(|owner| owner["kind"] == "DaemonSet"));
    let mirror = pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_string();
    let ended = pod["status"]["phase"] == "Succeeded" || pod["status"]["phase"] == "Failed";
    !(daemon || mirror || ended)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::moves;

    #[test]
    fn only_pods_that_live_elsewhere_as_well_are_moved() {
        assert!(moves(
            &json!({ "metadata": {}, "status": { "phase": "Running" } })
        ));
        assert!(!moves(
            &json!({ "metadata": {}, "status": { "phase": "Succeeded" } })
        ));
        assert!(!moves(
            &json!({ "metadata": { "ownerReferences": [{ "kind": "DaemonSet" }] } })
        ));
        assert!(!moves(
            &json!({ "metadata": { "annotations": { "kubernetes.io/config.mirror": "x" } } })
        ));
    }
}
