//! Commands for a cluster: valid requests, results, and the callers that see them.

use std::sync::Arc;

use arm_ids::ResourcePath;
use arm_kernel::{AccessControl, Authorizer, Call};
use arm_wire::{ArmError, Principal};
use async_trait::async_trait;
use control_records::{
    SealedRecord,
    command::{CommandInput, CommandOutput, CommandRecord, Part},
};
use control_store::{get_record, list_records, put_record};
use serde_json::{Value, json};

use crate::stamp::{Answer, Stamp, least};

const RUN: &str = "managedClusters/c/runCommand";

async fn stamp() -> Stamp {
    let stamp = Stamp::new().await;
    stamp.create("c", least()).await;
    stamp.reach("c").await;
    stamp.observe("c", |observed| observed.formed = true).await;
    stamp
}

async fn commands(stamp: &Stamp) -> Vec<CommandRecord> {
    let uid = stamp.record("c").await.unwrap().uid;
    let (found, _) = list_records(&*stamp.store, &CommandRecord::all(&uid))
        .await
        .unwrap();
    found.into_iter().map(|(_, stored)| stored.value).collect()
}

/// The path of the result, as the Azure CLI takes it out of the response.
fn result_of(answer: &Answer) -> String {
    let location = answer.header("location").unwrap();
    let (_, rest) = location.split_once("/commandResults/").unwrap();
    let (id, _) = rest.split_once('?').unwrap();
    assert!(
        !id.is_empty() && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'),
        "{id}"
    );
    format!("managedClusters/c/commandResults/{id}")
}

/// The result as the loop would write it.
async fn end(stamp: &Stamp, record: &CommandRecord, exit_code: Option<i64>, gone: bool) {
    let uid = stamp.record("c").await.unwrap().uid;
    let output = CommandOutput {
        exit_code,
        started_at: Some(stamp.env.clock.now()),
        finished_at: stamp.env.clock.now(),
        logs: "printed".to_owned(),
        reason: exit_code.is_none().then(|| "no room".to_owned()),
    };
    let sealed_as = CommandRecord::sealed_as(&uid, &record.id, Part::Output);
    let bytes = serde_json::to_vec(&output).unwrap();
    let sealed = SealedRecord {
        v: 1,
        sealed: stamp.sealer.seal(&sealed_as, &bytes).unwrap(),
    };
    let over = CommandRecord {
        ended: true,
        gone,
        ..record.clone()
    };
    let part = CommandRecord::part_key(&uid, &record.id, Part::Output);
    stamp.write(put_record(part, &sealed)).await;
    stamp
        .write(put_record(CommandRecord::key(&uid, &record.id), &over))
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_command_is_written_down_sealed_and_followed_to_its_end() {
    let stamp = stamp().await;
    let body = json!({ "command": "kubectl get nodes", "context": "UEsF\nBg==\n", "clusterToken": "t0ken" });
    let answer = stamp.ask("POST", RUN, body).await;
    assert_eq!(answer.status, 202, "{:#}", answer.body);
    assert_eq!(answer.body["properties"]["provisioningState"], "Running");
    assert_eq!(answer.header("retry-after"), Some("1"));
    let record = commands(&stamp).await.remove(0);
    assert_eq!((record.asked_by.as_str(), record.is_open()), ("o", true));
    let uid = stamp.record("c").await.unwrap().uid;
    let part = CommandRecord::part_key(&uid, &record.id, Part::Input);
    let stored = stamp.store.list("/c/").await.unwrap().0;
    for (key, stored) in &stored {
        let text = String::from_utf8_lossy(&stored.value);
        assert!(!text.contains("kubectl") && !text.contains("t0ken"), "{key}");
    }
    let sealed = get_record::<SealedRecord>(&*stamp.store, &part)
        .await
        .unwrap()
        .unwrap();
    let sealed_as = CommandRecord::sealed_as(&uid, &record.id, Part::Input);
    let bytes = stamp.sealer.unseal(&sealed_as, &sealed.value.sealed).unwrap();
    let input: CommandInput = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(input.command, "kubectl get nodes");
    assert_eq!(
        (input.context.as_deref(), input.token.as_deref()),
        (Some("UEsFBg=="), Some("t0ken"))
    );

    let result = result_of(&answer);
    let running = stamp.get(&result).await;
    assert_eq!((running.status, &running.body), (202, &answer.body));
    assert_eq!(running.header("location"), answer.header("location"));
    end(&stamp, &record, Some(3), false).await;
    let over = stamp.get(&result).await;
    assert_eq!(over.status, 200);
    let properties = &over.body["properties"];
    // It ran; its exit code shows the failure.
    assert_eq!(properties["provisioningState"], "Succeeded");
    assert_eq!(
        (&properties["exitCode"], &properties["logs"]),
        (&json!(3), &json!("printed"))
    );
    end(&stamp, &record, None, true).await;
    let failed = stamp.get(&result).await.body;
    assert_eq!(failed["properties"]["provisioningState"], "Failed");
    assert_eq!(failed["properties"]["reason"], "no room");
    assert_eq!(failed["properties"].get("exitCode"), None);
    assert_eq!(
        stamp.get("managedClusters/c/commandResults/other").await.status,
        404
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_with_a_command_is_named() {
    let stamp = stamp().await;
    for (body, targets) in [
        (json!({}), vec!["command"]),
        (json!({ "command": "" }), vec!["command"]),
        (
            json!({ "command": 7, "context": [], "clusterToken": {} }),
            vec!["command", "clusterToken", "context"],
        ),
        (json!({ "command": "x".repeat(65_537) }), vec!["command"]),
        (
            json!({ "command": "x", "context": "no base64!" }),
            vec!["context"],
        ),
        (json!({ "command": "x", "context": "bm8gemlw" }), vec!["context"]),
        (
            json!({ "command": "x", "context": "UEsF".repeat(200_000) }),
            vec!["context"],
        ),
        (json!({ "command": "x", "more": 1 }), vec!["more"]),
    ] {
        let refused = stamp.ask("POST", RUN, body).await;
        assert_eq!(refused.status, 400, "{:#}", refused.body);
        let error = &refused.body["error"];
        let details: Vec<&str> = error["details"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|detail| detail["target"].as_str())
            .collect();
        let found = if details.is_empty() {
            vec![error["target"].as_str().unwrap()]
        } else {
            details
        };
        assert_eq!(found, targets);
    }
    assert!(commands(&stamp).await.is_empty());
    let nobody = stamp
        .ask(
            "POST",
            "managedClusters/nobody/runCommand",
            json!({ "command": "x" }),
        )
        .await;
    assert_eq!(nobody.status, 404);
}

#[tokio::test(start_paused = true)]
async fn clusters_that_run_none() {
    let stamp = stamp().await;
    let ask = || stamp.ask("POST", RUN, json!({ "command": "x" }));
    let mut body = least();
    body["properties"]["apiServerAccessProfile"] = json!({ "disableRunCommand": true });
    assert_eq!(stamp.ask("PUT", "managedClusters/c", body).await.status, 200);
    let off = ask().await;
    assert_eq!((off.status, off.code()), (400, "OperationNotAllowed"));
    assert!(off.message().contains("disableRunCommand"), "{}", off.message());
    assert_eq!(stamp.ask("PUT", "managedClusters/c", least()).await.status, 200);
    stamp.observe("c", |observed| observed.formed = false).await;
    assert!(ask().await.message().contains("has not served yet"));
    stamp.observe("c", |observed| observed.formed = true).await;
    for _ in 0..10 {
        assert_eq!(ask().await.status, 202);
    }
    assert!(ask().await.message().contains("10 commands"));
    for record in commands(&stamp).await {
        end(&stamp, &record, Some(0), true).await;
    }
    assert_eq!(ask().await.status, 202);
    assert_eq!(
        stamp
            .ask("POST", "managedClusters/c/stop", Value::Null)
            .await
            .status,
        202
    );
    assert!(ask().await.message().contains("stopped"));
    assert_eq!(
        stamp.ask("DELETE", "managedClusters/c", Value::Null).await.status,
        202
    );
    assert_eq!(ask().await.status, 409);
}

#[tokio::test(start_paused = true)]
async fn so_many_are_kept_and_not_for_ever() {
    let stamp = stamp().await;
    let mut last = String::new();
    for _ in 0..30 {
        let answer = stamp.ask("POST", RUN, json!({ "command": "x" })).await;
        assert_eq!(answer.status, 202, "{:#}", answer.body);
        last = result_of(&answer);
        for record in commands(&stamp).await.iter().filter(|record| record.is_open()) {
            end(&stamp, record, Some(0), true).await;
        }
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
    }
    assert_eq!(commands(&stamp).await.len(), 20);
    assert_eq!(stamp.get(&last).await.status, 200);
}

/// Permits only the actions in `0`.
struct Only(&'static [&'static str]);

#[async_trait]
impl Authorizer for Only {
    async fn may(&self, _: &Principal, action: &str, _: &ResourcePath) -> Result<bool, ArmError> {
        Ok(self.0.contains(&action))
    }

    async fn reaches(&self, _: &Principal, _: &ResourcePath) -> Result<bool, ArmError> {
        Ok(true)
    }
}

#[tokio::test(start_paused = true)]
async fn what_came_of_it_is_for_who_asked_and_who_may_ask() {
    let stamp = stamp().await;
    let result = result_of(&stamp.ask("POST", RUN, json!({ "command": "x" })).await);
    const READ: &str = "Microsoft.ContainerService/managedClusters/commandResults/read";
    const ASK: &str = "Microsoft.ContainerService/managedClusters/runCommand/action";
    for (who, actions, status) in [
        ("o", &[READ][..], 202),
        ("other", &[READ][..], 404),
        ("other", &[READ, ASK][..], 202),
    ] {
        let mut request = stamp.request("GET", &result, Value::Null);
        request.principal.object_id = who.to_owned();
        let target = stamp.registry.target(&request.path).unwrap();
        let route = target.route(&request.method).unwrap();
        let call = Call::new(
            request,
            AccessControl {
                authorizer: Arc::new(Only(actions)),
                ..AccessControl::allow_all()
            },
        );
        let answer = target.provider.handle(route, &call).await;
        let got = match answer {
            Ok(response) => response.status.as_u16(),
            Err(error) => error.status().as_u16(),
        };
        assert_eq!(got, status, "{who} {actions:?}");
    }
}
