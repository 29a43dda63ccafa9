//! Evicts the pods of a node.
//!
//! Always true: in each round the eviction of every pod is requested, whatever the other answers are; only
//! pods that stay are waited for.

use cluster_api::{ClusterError, Drained};
use futures::StreamExt as _;
use serde_json::{Value, json};

use crate::{Cluster, Failure, nodes::CORDONED};

/// Concurrent evictions: one whose webhook does not answer blocks its call for seconds.
const PARALLEL: usize = 16;

/// The answer to an eviction.
enum Answer {
    /// The pod is leaving, or has left.
    Goes,
    Gone,
    /// It stays for now, for this reason.
    Held(String),
    /// The server did not answer.
    Unasked(Failure),
}

impl Cluster {
    /// Marks the node unschedulable and requests the eviction of each pod once.
    pub(crate) async fn drain_once(&self, node: &str) -> Result<Drained, ClusterError> {
        let path = format!("/api/v1/nodes/{node}");
        match self
            .merge(
                "cordon a node",
                &path,
                &json!({
                    "metadata": { "annotations": { CORDONED: "drained" } },
                    "spec": { "unschedulable": true }
                }),
            )
            .await
        {
            Err(failure) if failure.is_absent() => return Ok(Drained::default()),
            other => drop(other?),
        }
        let pods = self
            .list(
                "list a node's pods",
                &format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{node}"),
            )
            .await?;
        let moving: Vec<&Value> = pods.iter().filter(|pod| moves(pod)).collect();
        let mut waiting = moving.into_iter();
        let mut running: futures::stream::FuturesUnordered<_> = waiting
            .by_ref()
            .take(PARALLEL)
            .map(|pod| self.evict(pod))
            .collect();
        let (mut drained, mut asked, mut unasked) = (Drained::default(), 0, None);
        while let Some(answer) = running.next().await {
            running.extend(waiting.next().map(|pod| self.evict(pod)));
            drained.left += u32::from(!matches!(answer, Answer::Gone));
            match answer {
                Answer::Goes | Answer::Gone => asked += 1,
                Answer::Held(why) => {
                    asked += 1;
                    tracing::debug!(node, why, "a pod stays for now");
                    // The same one of several each time.
                    drained.held = Some(drained.held.map_or(why.clone(), |other| other.min(why)));
                }
                Answer::Unasked(failure) => unasked = unasked.or(Some(failure)),
            }
        }
        match unasked {
            // No request was answered: the server is away.
            Some(failure) if asked == 0 => Err(failure.into()),
            Some(failure) => {
                drained.held.get_or_insert(failure.why);
                Ok(drained)
            }
            None => Ok(drained),
        }
    }

    async fn evict(&self, pod: &Value) -> Answer {
        if pod["metadata"]["deletionTimestamp"].is_string() {
            return Answer::Goes;
        }
        let text = |name: &str| pod["metadata"][name].as_str().unwrap_or_default();
        let (namespace, name) = (text("namespace"), text("name"));
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
            Ok(_) => Answer::Goes,
            Err(failure) if failure.is_absent() => Answer::Gone,
            // A disruption budget (429), two of them for one pod (500), a webhook (403): retried in the next
            // round.
            Err(failure) if failure.code.is_some() => {
                Answer::Held(format!("pod {namespace}/{name}: {}", failure.why))
            }
            Err(failure) => Answer::Unasked(failure),
        }
    }
}

/// Whether a pod must leave: not those that belong to the node itself, and not those that have ended.
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
    use cluster_api::{ClusterApi as _, Drained};
    use http::Method;
    use serde_json::{Value, json};

    use super::moves;
    use crate::fake::{Asked, cluster, paths, refusal};

    /// A node with these pods and the answers to their evictions.
    fn node(answers: &[(&'static str, (u16, Value))]) -> impl Fn(&Asked) -> (u16, Value) + use<> {
        let answers = answers.to_vec();
        move |asked| {
            if asked.method == Method::PATCH {
                return (200, json!({}));
            }
            if asked.method == Method::GET {
                let pods = answers.iter().map(|(name, _)| {
                    json!({ "metadata": { "namespace": "d", "name": name }, "status": { "phase": "Running" } })
                });
                return (200, json!({ "items": pods.collect::<Vec<_>>(), "metadata": {} }));
            }
            let found = answers
                .iter()
                .find(|(name, _)| asked.path.contains(&format!("/pods/{name}/eviction")));
            found.unwrap().1.clone()
        }
    }

    #[tokio::test]
    async fn a_pod_that_may_not_be_evicted_does_not_keep_the_others() {
        for stuck in [
            refusal(
                500,
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ),
            refusal(
                403,
                "admission webhook \"guard.example.com\" denied the request: not now",
            ),
            refusal(
                429,
                "Cannot evict pod as it would violate the pod's disruption budget.",
            ),
        ] {
            let (cluster, log) = cluster(node(&[("aa", stuck.clone()), ("zz", (201, json!({})))]));
            let drained = cluster.drain("n").await.unwrap();
            assert_eq!(drained.left, 2);
            let held = drained.held.unwrap();
            assert!(
                held.starts_with("pod d/aa: ") && held.contains(stuck.1["message"].as_str().unwrap()),
                "{held}"
            );
            let asked = paths(&log, &Method::POST);
            assert!(
                asked.iter().any(|path| path.contains("/pods/zz/")),
                "only {asked:?}"
            );
        }
    }

    #[tokio::test]
    async fn pods_that_are_gone_do_not_count() {
        let (cluster, _) = cluster(node(&[("aa", refusal(404, "pods \"aa\" not found"))]));
        assert_eq!(cluster.drain("n").await.unwrap(), Drained::default());
    }

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
