//! Commands in pods.

use cluster_api::{COMMAND_NAMESPACE, ClusterError, CommandEnd, CommandSeen, command_name};
use jiff::Timestamp;
use serde_json::Value;

use crate::{ANSWER, Cluster, apply::listed};

/// The size limit of a command's output, bytes; the rest is cut off.
const LOGS: u32 = 256 * 1024;

fn path(kind: &str, id: &str) -> String {
    listed("v1", kind, Some(COMMAND_NAMESPACE)) + "/" + &command_name(id)
}

impl Cluster {
    pub(crate) async fn follow_command(
        &self,
        id: &str,
        objects: &[Value],
    ) -> Result<CommandSeen, ClusterError> {
        let pod = match self.get("look at a command", &path("Pod", id)).await {
            Ok(pod) => pod,
            Err(failure) if failure.is_absent() => {
                self.apply_all(objects).await?;
                return Ok(CommandSeen::Waiting(None));
            }
            Err(failure) => return Err(failure.into()),
        };
        match state(&pod) {
            CommandSeen::Ended(end) => {
                let logs = match self
                    .told(
                        "read what a command printed",
                        &format!("{}/log?limitBytes={LOGS}", path("Pod", id)),
                        ANSWER,
                    )
                    .await
                {
                    Ok(logs) => logs,
                    // Its container is gone, or never existed: there is no output.
                    Err(failure) if matches!(failure.code, Some(400 | 404)) => String::new(),
                    Err(failure) => return Err(failure.into()),
                };
                Ok(CommandSeen::Ended(CommandEnd { logs, ..end }))
            }
            other => Ok(other),
        }
    }

    pub(crate) async fn remove_command(&self, id: &str) -> Result<(), ClusterError> {
        for kind in ["Pod", "Secret"] {
            match self.delete("remove a command", &path(kind, id)).await {
                Err(failure) if !failure.is_absent() => return Err(failure.into()),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The state of a command's pod.
fn state(pod: &Value) -> CommandSeen {
    let status = &pod["status"];
    let container = &status["containerStatuses"][0]["state"];
    let time = |value: &Value| value.as_str().and_then(|text| text.parse::<Timestamp>().ok());
    let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let terminated = &container["terminated"];
    if terminated.is_object() {
        // The cause of its end, unless it exited by itself: too much memory, too much time.
        let ended = text(&terminated["reason"]).filter(|reason| reason != "Completed" && reason != "Error");
        return CommandSeen::Ended(CommandEnd {
            exit_code: terminated["exitCode"].as_i64(),
            started_at: time(&terminated["startedAt"]),
            finished_at: time(&terminated["finishedAt"]),
            logs: String::new(),
            reason: text(&status["reason"]).or(ended),
        });
    }
    if ["Failed", "Succeeded"]
        .iter()
        .any(|phase| status["phase"] == *phase)
    {
        return CommandSeen::Ended(CommandEnd {
            reason: text(&status["message"]).or_else(|| text(&status["reason"])),
            ..CommandEnd::default()
        });
    }
    if container["running"].is_object() {
        return CommandSeen::Running;
    }
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let refused = conditions
        .filter(|condition| condition["status"] == "False")
        .find_map(|condition| text(&condition["message"]));
    let waits = text(&container["waiting"]["message"]).or_else(|| text(&container["waiting"]["reason"]));
    CommandSeen::Waiting(waits.or(refused))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use http::Method;
    use serde_json::json;

    use super::*;
    use crate::fake;

    #[test]
    fn how_far_a_pod_is() {
        let waiting = |why: &str| CommandSeen::Waiting(Some(why.to_owned()));
        for (status, seen) in [
            (json!({}), CommandSeen::Waiting(None)),
            (
                json!({ "phase": "Pending", "conditions": [{ "type": "PodScheduled", "status": "False", "message": "0/1 nodes" }] }),
                waiting("0/1 nodes"),
            ),
            (
                json!({ "containerStatuses": [{ "state": { "waiting": { "reason": "ContainerCreating" } } }] }),
                waiting("ContainerCreating"),
            ),
            (
                json!({ "phase": "Running", "containerStatuses": [{ "state": { "running": {} } }] }),
                CommandSeen::Running,
            ),
            (
                json!({ "phase": "Failed", "containerStatuses": [{ "state": { "terminated": {
                    "exitCode": 3, "reason": "Error", "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:02Z"
                } } }] }),
                CommandSeen::Ended(CommandEnd {
                    exit_code: Some(3),
                    started_at: "2026-01-01T00:00:00Z".parse().ok(),
                    finished_at: "2026-01-01T00:00:02Z".parse().ok(),
                    ..CommandEnd::default()
                }),
            ),
            (
                json!({ "phase": "Failed", "reason": "DeadlineExceeded",
                    "containerStatuses": [{ "state": { "terminated": { "exitCode": 137, "reason": "Error" } } }] }),
                CommandSeen::Ended(CommandEnd {
                    exit_code: Some(137),
                    reason: Some("DeadlineExceeded".to_owned()),
                    ..CommandEnd::default()
                }),
            ),
            (
                json!({ "phase": "Failed", "reason": "Evicted", "message": "The node was low on memory." }),
                CommandSeen::Ended(CommandEnd {
                    reason: Some("The node was low on memory.".to_owned()),
                    ..CommandEnd::default()
                }),
            ),
        ] {
            assert_eq!(state(&json!({ "status": status })), seen, "{status}");
        }
    }

    #[tokio::test]
    async fn a_pod_is_made_once_and_what_it_printed_is_read_when_it_has_ended() {
        let there = AtomicBool::new(false);
        let (cluster, log) = fake::cluster(move |asked| match asked.method {
            Method::PATCH => {
                there.store(true, Ordering::SeqCst);
                (200, json!({ "metadata": { "uid": "u" } }))
            }
            Method::GET if asked.path.contains("/log?") => (200, json!("printed")),
            Method::GET if asked.path.contains("/pods/") && !there.load(Ordering::SeqCst) => {
                fake::refusal(404, "not found")
            }
            Method::GET if asked.path.contains("/pods/") => (
                200,
                json!({ "status": { "containerStatuses": [{ "state": { "terminated": { "exitCode": 0, "reason": "Completed" } } }] } }),
            ),
            _ => (200, json!({ "items": [] })),
        });
        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "command-a", "namespace": COMMAND_NAMESPACE } });
        let objects = [pod];
        assert_eq!(
            cluster.follow_command("a", &objects).await.unwrap(),
            CommandSeen::Waiting(None)
        );
        let CommandSeen::Ended(end) = cluster.follow_command("a", &objects).await.unwrap() else {
            panic!("it has ended");
        };
        assert_eq!((end.exit_code, end.logs.as_str()), (Some(0), "\"printed\""));
        let applied = fake::paths(&log, &Method::PATCH);
        let pods = applied.iter().filter(|path| path.contains("/pods/"));
        assert_eq!(pods.count(), 1, "{applied:?}");
        cluster.remove_command("a").await.unwrap();
        let removed = fake::paths(&log, &Method::DELETE);
        assert_eq!(
            removed,
            [
                "/api/v1/namespaces/aks-command/pods/command-a",
                "/api/v1/namespaces/aks-command/secrets/command-a",
            ]
        );
    }
}
