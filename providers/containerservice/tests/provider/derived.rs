//! The spec follows from the body and the decisions stored with it, after any sequence of requests.

use control_records::{ClusterRecord, DesiredPool, DesiredState};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::stamp::Stamp;

const C: &str = "managedClusters/c";

/// A request about the cluster, or an action of its loop.
#[derive(Debug, Clone)]
enum Step {
    Ask(&'static str, String, Value),
    /// The desired state is reached.
    Reach,
    /// Only the control plane has reached this version.
    GoneOn(&'static str),
}

fn pool() -> impl Strategy<Value = Value> {
    (
        0..4_u32,
        prop::sample::select(vec!["System", "User"]),
        prop::sample::select(vec!["1", "33%", "100%", "0"]),
        prop::sample::select(vec!["0", "1", "50%"]),
        prop::option::of(prop::sample::select(vec!["a=b:NoSchedule", "a:NoExecute"])),
        prop::option::of(prop::sample::select(vec!["1.36", "1.37.1"])),
    )
        .prop_map(|(count, mode, surge, unavailable, taint, version)| {
            json!({
                "count": count, "mode": mode, "nodeLabels": { "n": count.to_string() },
                "nodeTaints": taint.into_iter().collect::<Vec<_>>(), "orchestratorVersion": version,
                "upgradeSettings": { "maxSurge": surge, "maxUnavailable": unavailable },
            })
        })
}

fn step() -> impl Strategy<Value = Step> {
    let post = |action: &str| Just(Step::Ask("POST", format!("{C}/{action}"), Value::Null));
    let one = || prop::sample::select(vec!["a", "b"]).prop_map(|name| format!("{C}/agentPools/{name}"));
    prop_oneof![
        3 => (
            prop::sample::select(vec!["Free", "standard", "Premium"]),
            prop::option::of(prop::sample::select(vec!["1.36", "1.36.3", "1.37.1"])),
            prop::option::of(prop::sample::select(vec!["kubenet", "azure", "none"])),
        )
            .prop_map(|(tier, version, plugin)| {
                let body = json!({
                    "location": "local", "sku": { "name": "Base", "tier": tier },
                    "properties": {
                        "kubernetesVersion": version,
                        "networkProfile": { "networkPlugin": plugin },
                    },
                });
                Step::Ask("PUT", C.to_owned(), body)
            }),
        5 => (one(), pool()).prop_map(|(path, pool)| Step::Ask("PUT", path, json!({ "properties": pool }))),
        2 => one().prop_map(|path| Step::Ask("DELETE", path, Value::Null)),
        1 => Just(Step::Ask("PATCH", C.to_owned(), json!({ "tags": { "t": "x" } }))),
        2 => post("stop"),
        2 => post("start"),
        2 => post("abort"),
        2 => one().prop_map(|path| Step::Ask("POST", format!("{path}/abort"), Value::Null)),
        3 => Just(Step::Reach),
        1 => Just(Step::GoneOn("1.37.1")),
    ]
}

fn state_follows(state: &DesiredState) -> Result<(), TestCaseError> {
    let again = DesiredState::new(state.body().clone(), state.decided().clone());
    prop_assert_eq!(again.as_ref(), Ok(state));
    // Removing all pools and adding them again, also one by one, gives the same body.
    for pool in state.pools() {
        let again: DesiredPool = serde_json::from_value(json!(pool)).unwrap();
        prop_assert_eq!(again, pool);
    }
    prop_assert_eq!(&state.with_pools(state.pools()), &again);
    Ok(())
}

fn follows(record: &ClusterRecord) -> Result<(), TestCaseError> {
    state_follows(&record.state)?;
    let spec = record.spec();
    if let Some(reached) = record.requests.reached.as_deref() {
        state_follows(&reached.state)?;
    }
    for leaving in &record.requests.leaving {
        let again: DesiredPool = serde_json::from_value(json!(leaving.pool)).unwrap();
        prop_assert_eq!(&again, &leaving.pool);
    }
    // Clients see the same values that the loops act on.
    let properties = &record.body()["properties"];
    let stopped = properties["powerState"]["code"] == json!("Stopped");
    prop_assert_eq!(spec.stopped, stopped);
    let pools = properties["agentPoolProfiles"].as_array().unwrap();
    prop_assert_eq!(pools.len(), spec.pools.len());
    for (body, pool) in pools.iter().zip(&spec.pools) {
        prop_assert_eq!(&body["name"], &json!(pool.name));
        prop_assert_eq!(&body["count"], &json!(pool.count));
        prop_assert!(
            pool.kubernetes_version
                .starts_with(body["orchestratorVersion"].as_str().unwrap())
        );
    }
    prop_assert!(
        spec.kubernetes_version
            .starts_with(properties["kubernetesVersion"].as_str().unwrap())
    );
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn after_any_requests_the_spec_follows_from_what_is_stored(steps in prop::collection::vec(step(), 1..20)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let stamp = Stamp::new().await;
            stamp.create("c", json!({ "location": "local", "properties": { "kubernetesVersion": "1.36" } })).await;
            let created = stamp.record("c").await.unwrap();
            for step in steps {
                match step {
                    Step::Ask(method, path, body) => {
                        let answer = stamp.ask(method, &path, body.clone()).await;
                        prop_assert!(answer.status < 500, "{method} {path} {body}: {:#}", answer.body);
                    }
                    Step::Reach => stamp.reach("c").await,
                    Step::GoneOn(version) => {
                        stamp.observe("c", |observed| observed.upgrading_to = Some(version.to_owned())).await;
                    }
                }
                let record = stamp.record("c").await.unwrap();
                follows(&record)?;
                // Decisions that are never made again are unchanged.
                let (before, now) = (created.state.decided(), record.state.decided());
                prop_assert_eq!((&before.fqdn, before.ranges), (&now.fqdn, now.ranges));
            }
            Ok(())
        })?;
    }
}
