//! Rotations: what they answer, what they leave alone, when they are refused.
#![expect(clippy::unwrap_used, reason = "the helpers of these tests panic as tests do")]

use serde_json::Value;

use crate::stamp::{Answer, Stamp, least};

const C: &str = "managedClusters/c";

impl Stamp {
    async fn rotate(&self, action: &str) -> Answer {
        self.ask("POST", &format!("{C}/{action}"), Value::Null).await
    }

    async fn rotations(&self) -> cluster_spec::Rotations {
        self.record("c").await.unwrap().spec().rotations
    }

    async fn word(&self) -> String {
        let cluster = self.get(C).await.body["properties"].clone();
        cluster["provisioningState"].as_str().unwrap().to_owned()
    }
}

async fn standing() -> Stamp {
    let stamp = Stamp::new().await;
    stamp.create("c", least()).await;
    stamp.reach("c").await;
    stamp
}

#[tokio::test(start_paused = true)]
async fn both_are_operations_and_change_nothing_else() {
    let stamp = standing().await;
    let before = stamp.record("c").await.unwrap();
    let answer = stamp.rotate("rotateClusterCertificates").await;
    assert_eq!(answer.status, 202, "{:?}", answer.body);
    assert!(answer.header("location").is_some() && answer.header("retry-after").is_some());
    assert_eq!(stamp.word().await, "RotatingClusterCertificates");
    let first = stamp.rotations().await;
    assert!(first.certificates > 0 && first.service_account_keys == 0);
    stamp.reach("c").await;
    assert_eq!(stamp.word().await, "Succeeded");
    let answer = stamp.rotate("rotateServiceAccountSigningKeys").await;
    assert_eq!(answer.status, 202);
    assert_eq!(stamp.word().await, "Updating");
    stamp.reach("c").await;
    let after = stamp.record("c").await.unwrap();
    assert_eq!(after.spec().rotations.certificates, first.certificates);
    assert!(after.spec().rotations.service_account_keys > 0);
    assert_eq!(after.spec().pools, before.spec().pools);
}

#[tokio::test(start_paused = true)]
async fn one_more_is_later_and_ends_no_operation() {
    let stamp = standing().await;
    let mut running = Vec::new();
    for _ in 0..2 {
        let before = stamp.rotations().await.certificates;
        assert_eq!(stamp.rotate("rotateClusterCertificates").await.status, 202);
        assert!(stamp.rotations().await.certificates > before);
        running.push(stamp.record("c").await.unwrap().requests.running);
    }
    assert!(
        running[1].starts_with(&running[0]),
        "none has ended for the other"
    );
    let aborted = stamp.rotate("abort").await;
    assert_eq!(aborted.status, 202);
    assert_eq!(stamp.rotations().await.certificates, 0);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_cluster_keeps_what_was_asked_for() {
    let stamp = standing().await;
    stamp.rotate("rotateClusterCertificates").await;
    let asked = stamp.rotations().await;
    assert_eq!(stamp.ask("PUT", C, least()).await.status, 200);
    assert_eq!(stamp.rotations().await, asked);
}

#[tokio::test(start_paused = true)]
async fn a_stopped_cluster_is_refused() {
    let stamp = standing().await;
    assert_eq!(stamp.rotate("stop").await.status, 202);
    stamp.reach("c").await;
    for action in ["rotateClusterCertificates", "rotateServiceAccountSigningKeys"] {
        let refused = stamp.rotate(action).await;
        assert_eq!(refused.code(), "OperationNotAllowed", "{action}");
    }
}
