//! The engine of network policies: set, changed, taken away, and left alone.
#![expect(clippy::unwrap_used, reason = "the helpers of these tests panic as tests do")]

use cluster_spec::NetworkPolicy;
use serde_json::{Value, json};

use crate::stamp::{Stamp, least, sent_back};

const C: &str = "managedClusters/c";

impl Stamp {
    async fn with_policy(policy: Value) -> Self {
        let stamp = Self::new().await;
        let mut body = least();
        body["properties"]["networkProfile"] = json!({ "networkPolicy": policy });
        stamp.create("c", body).await;
        stamp.reach("c").await;
        stamp
    }

    /// As `az aks update --network-policy`: all that was read, with another value.
    async fn set_policy(&self, policy: Value) -> u16 {
        let mut body = sent_back(&self.get(C).await.body);
        body["properties"]["networkProfile"]["networkPolicy"] = policy;
        let answer = self.ask("PUT", C, body).await;
        self.reach("c").await;
        self.end_operations().await;
        answer.status
    }

    /// The engine, and when the nodes of the first pool are to be made anew.
    async fn policy(&self) -> (NetworkPolicy, Option<i64>) {
        let record = self.record("c").await.unwrap();
        (record.spec().network.policy, record.spec().pools[0].renewed)
    }
}

#[tokio::test(start_paused = true)]
async fn an_engine_comes_changes_its_name_and_goes() {
    let stamp = Stamp::with_policy(Value::Null).await;
    assert_eq!(stamp.policy().await, (NetworkPolicy::None, None));
    let shown = stamp.get(C).await.body["properties"]["networkProfile"]["networkPolicy"].clone();
    assert_eq!(shown, "none");
    for (asked, policy) in [
        ("calico", NetworkPolicy::Calico),
        ("azure", NetworkPolicy::Azure),
        ("calico", NetworkPolicy::Calico),
    ] {
        assert_eq!(stamp.set_policy(json!(asked)).await, 200, "{asked}");
        // Nodes stay: there is one engine, and it comes to them.
        assert_eq!(stamp.policy().await, (policy, None));
    }
    let now = stamp.env.clock.now().as_millisecond();
    assert_eq!(stamp.set_policy(json!("none")).await, 200);
    let (policy, renewed) = stamp.policy().await;
    assert_eq!(policy, NetworkPolicy::None);
    assert!(renewed.is_some_and(|at| at >= now), "{renewed:?}");
    assert_eq!(stamp.set_policy(json!("none")).await, 200);
    assert_eq!(stamp.policy().await, (policy, renewed), "once");
}

#[tokio::test(start_paused = true)]
async fn a_template_that_does_not_know_of_it_leaves_it() {
    let stamp = Stamp::with_policy(json!("calico")).await;
    for body in [least(), {
        let mut body = least();
        body["properties"]["networkProfile"] = json!({ "serviceCidr": "10.0.0.0/16" });
        body
    }] {
        let answer = stamp.ask("PUT", C, body).await;
        assert_eq!(answer.status, 200, "{:#}", answer.body);
        assert_eq!(stamp.policy().await, (NetworkPolicy::Calico, None));
    }
}
