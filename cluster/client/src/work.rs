//! Input of the autoscaler, pods and related objects, and its output, the status and events.
//!
//! Always true: nothing is read or watched before the first call of [`Cluster::list_work`]; pods that have
//! ended are not read.

use std::collections::BTreeMap;

use base_env::Env;
use cluster_api::{ClusterError, WorkNotes, WorkObjects};
use kube::api::WatchParams;
use serde_json::json;
use tokio::sync::watch;

use crate::{Cluster, volumes, watches::Follower};

/// Path of pods.
const PODS: &str = "/api/v1/pods";
/// Field selector: pods that have not ended.
const ALIVE: &str = "status.phase%21%3DSucceeded,status.phase%21%3DFailed";
/// Field selector: pods without a node.
const WAITING: &str = "spec.nodeName=";
const BUDGETS: &str = "/apis/policy/v1/poddisruptionbudgets";
const DRIVERS: &str = "/apis/storage.k8s.io/v1/csinodes";
/// The user's configuration of the expander `priority`.
const PRIORITIES: &str = "/api/v1/namespaces/kube-system/configmaps/cluster-autoscaler-priority-expander";
/// The ConfigMap of the status.
const STATUS: &str = "cluster-autoscaler-status";
/// Upstream's annotation with the time of the status' last change.
const UPDATED: &str = "cluster-autoscaler.kubernetes.io/last-updated";
const NAMESPACE: &str = "kube-system";

impl Cluster {
    pub(crate) async fn list_work(&self) -> Result<WorkObjects, ClusterError> {
        self.scales
            .send_if_modified(|scales| !std::mem::replace(scales, true));
        let pods = format!("{PODS}?fieldSelector={ALIVE}");
        let (pods, nodes, budgets, claims, found, drivers) = tokio::try_join!(
            self.list("list pods", &pods),
            self.list("list nodes", "/api/v1/nodes"),
            self.list("list disruption budgets", BUDGETS),
            self.list("list claims", volumes::CLAIMS),
            self.list("list volumes", volumes::VOLUMES),
            self.list("list drivers of nodes", DRIVERS),
        )?;
        let priorities = match self.get("read the autoscaler's priorities", PRIORITIES).await {
            Err(failure) if failure.is_absent() => None,
            other => Some(other?),
        };
        Ok(WorkObjects {
            pods,
            nodes,
            budgets,
            claims,
            volumes: found,
            drivers,
            priorities,
        })
    }

    pub(crate) async fn bring_notes(&self, notes: &WorkNotes) -> Result<(), ClusterError> {
        if let Some(status) = &notes.status {
            let now = self.env.clock.now().to_string();
            let map = json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": { "namespace": NAMESPACE, "name": STATUS, "annotations": BTreeMap::from([(UPDATED, now)]) },
                "data": { "status": status }
            });
            let path = format!(
                "/api/v1/namespaces/{NAMESPACE}/configmaps/{STATUS}?fieldManager=landfall&force=true"
            );
            self.call(
                "write the autoscaler's status",
                http::Method::PATCH,
                &path,
                "application/apply-patch+yaml",
                Some(&map),
            )
            .await?;
        }
        for event in &notes.events {
            let about = json!({
                "apiVersion": "v1",
                "metadata": {
                    "namespace": Some(&event.namespace).filter(|namespace| !namespace.is_empty()),
                    "name": event.name, "uid": event.uid, "resourceVersion": event.version
                }
            });
            let note = &event.note;
            self.tell(&about, event.kind, note.warning, note.reason, &note.message)
                .await;
        }
        Ok(())
    }
}

/// Watches pods without a node, after the first call of [`Cluster::list_work`].
pub(crate) async fn follow(
    env: &Env,
    client: &kube::Client,
    sender: &watch::Sender<u64>,
    mut scales: watch::Receiver<bool>,
) {
    if scales.wait_for(|scales| *scales).await.is_err() {
        return;
    }
    let params = WatchParams::default().fields(WAITING);
    let mut follower = Follower::new(client.clone(), PODS.to_owned(), params);
    follower.follow(env, sender).await;
}

#[cfg(test)]
mod tests {
    use cluster_api::{Note, WorkEvent};
    use http::Method;

    use super::*;
    use crate::fake;

    #[tokio::test]
    async fn pods_that_have_ended_are_not_asked_for_and_priorities_may_be_missing() {
        let (cluster, log) = fake::cluster(|asked| {
            if asked.path.contains("configmaps") {
                fake::refusal(404, "not found")
            } else {
                (200, json!({ "items": [{ "metadata": { "name": "x" } }] }))
            }
        });
        let before = cluster.scales.subscribe();
        assert!(!*before.borrow());
        let found = cluster.list_work().await.unwrap();
        assert!(*before.borrow(), "from now on pods are listened to");
        assert_eq!(
            (found.pods.len(), found.drivers.len(), found.priorities),
            (1, 1, None)
        );
        let asked = fake::paths(&log, &Method::GET);
        assert!(
            asked
                .iter()
                .any(|path| path.contains("status.phase%21%3DSucceeded")),
            "{asked:?}"
        );
    }

    #[tokio::test]
    async fn the_status_is_applied_and_events_go_where_their_objects_are() {
        let (cluster, log) = fake::cluster(|_| (200, json!({})));
        let event = |kind, namespace: &str| WorkEvent {
            kind,
            namespace: namespace.to_owned(),
            name: "x".to_owned(),
            uid: "u".to_owned(),
            version: "7".to_owned(),
            note: Note {
                warning: false,
                reason: "ScaleDown",
                message: "m".to_owned(),
            },
        };
        let notes = WorkNotes {
            status: Some("autoscalerStatus: Running".to_owned()),
            events: vec![event("Pod", "shop"), event("Node", "")],
        };
        cluster.bring_notes(&notes).await.unwrap();
        let log = log.lock().unwrap();
        assert_eq!(log[0].body["data"]["status"], "autoscalerStatus: Running");
        assert!(
            log[1].path.ends_with("/namespaces/shop/events"),
            "{}",
            log[1].path
        );
        assert!(
            log[2].path.ends_with("/namespaces/default/events"),
            "{}",
            log[2].path
        );
        assert!(log[2].body["involvedObject"]["namespace"].is_null());
    }
}
