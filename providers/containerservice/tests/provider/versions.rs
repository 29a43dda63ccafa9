//! Each api-version in its own shape: a body that was read and is sent back changes nothing, and properties
//! that it cannot name are kept.

use proptest::prelude::*;
use providers_containerservice::API_VERSIONS;
use serde_json::{Value, json};

use crate::stamp::{Stamp, sent_back};

const C: &str = "managedClusters/c";
const NP2: &str = "managedClusters/c/agentPools/np2";
const NEWEST: &str = "2026-08-01";

/// Properties of a body that were added at different times, each at random.
fn bodies() -> impl Strategy<Value = Value> {
    (
        prop::sample::select(vec!["Free", "Standard", "Premium"]),
        prop::sample::select(vec!["azure", "kubenet", "none"]),
        any::<[bool; 8]>(),
        prop::option::of(prop::sample::select(vec!["a=b:NoSchedule", "c:NoExecute"])),
    )
        .prop_map(|(tier, plugin, on, taint)| {
            let mut body = json!({
                "location": "local",
                "sku": { "name": "Base", "tier": tier },
                "properties": {
                    "networkProfile": { "networkPlugin": plugin },
                    "agentPoolProfiles": [
                        { "name": "np1", "mode": "System", "count": 1 },
                        { "name": "np2", "count": 2, "nodeTaints": taint.into_iter().collect::<Vec<_>>() },
                    ],
                },
            });
            let [sku, disk, access, spot, monitor, mesh, surge, dns] = on;
            let properties = &mut body["properties"];
            if sku {
                properties["enableFIPS"] = json!(false);
                properties["supportPlan"] = json!("KubernetesOfficial");
            }
            if disk {
                properties["agentPoolProfiles"][1]["osDiskType"] = json!("Ephemeral");
                properties["agentPoolProfiles"][1]["gpuProfile"] = json!({ "driver": "None" });
            }
            if access {
                properties["httpProxyConfig"] = json!({ "enabled": false });
            }
            if spot {
                properties["agentPoolProfiles"][1]["spotMaxPrice"] = json!(-1);
                properties["agentPoolProfiles"][1]["tags"] = json!({ "t": "1" });
            }
            if monitor {
                properties["azureMonitorProfile"] = json!({ "metrics": { "enabled": false }, "containerInsights": { "syslogPort": 28330 } });
                properties["addonProfiles"] = json!({ "azurepolicy": { "enabled": false, "config": { "k": "v" } } });
            }
            if mesh {
                properties["serviceMeshProfile"] = json!({ "mode": "Disabled" });
                properties["schedulerProfile"] = json!({ "upstream": { "schedulerConfigMode": "Default" } });
            }
            if surge {
                properties["agentPoolProfiles"][1]["upgradeSettings"] =
                    json!({ "maxSurge": "50%", "drainTimeoutInMinutes": 9, "nodeSoakDurationInMinutes": 3, "undrainableNodeBehavior": "Cordon" });
            }
            if dns {
                properties["agentPoolProfiles"][1]["localDNSProfile"] = json!({ "mode": "Disabled" });
                properties["securityProfile"] = json!({ "azureKeyVaultKms": { "enabled": false, "keyVaultNetworkAccess": "Public" } });
            }
            body
        })
}

async fn round_trips(body: Value) -> Result<(), TestCaseError> {
    let mut stamp = Stamp::new().await;
    stamp.api_version = NEWEST;
    stamp.create("c", body).await;
    stamp.reach("c").await;
    let before = stamp.record("c").await.unwrap();
    let whole = stamp.get(C).await.body;
    for version in API_VERSIONS {
        stamp.api_version = version;
        for path in [C, NP2] {
            let read = stamp.get(path).await.body;
            for body in [
                read.clone(),
                if path == C { sent_back(&read) } else { read.clone() },
            ] {
                let answer = stamp.ask("PUT", path, body).await;
                prop_assert_eq!(answer.status, 200, "{} {} {:#}", version, path, answer.body);
                // No operation: the state is as requested.
                prop_assert_eq!(
                    answer.header("azure-asyncoperation"),
                    None,
                    "{} {}",
                    version,
                    path
                );
                prop_assert_eq!(&stamp.record("c").await.unwrap(), &before, "{} {}", version, path);
            }
        }
        // A change by a client that does not know all properties.
        let mut body = stamp.get(C).await.body;
        body["tags"] = json!({ "by": version });
        prop_assert_eq!(stamp.ask("PUT", C, body).await.status, 200);
        let mut pool = stamp.get(NP2).await.body;
        pool["properties"]["count"] = json!(3);
        prop_assert_eq!(stamp.ask("PUT", NP2, pool).await.status, 200);
        stamp.api_version = NEWEST;
        stamp.reach("c").await;
        let after = stamp.get(C).await.body;
        prop_assert_eq!(&after["tags"], &json!({ "by": version }));
        prop_assert_eq!(&without(after), &without(whole.clone()), "{}", version);
        // And back, so that the next version starts from the same state.
        let uid = before.uid.clone();
        stamp
            .write(control_store::put_record(
                control_records::key::desired(&uid),
                &before,
            ))
            .await;
        stamp.reach("c").await;
    }
    Ok(())
}

/// A response without the changed properties.
fn without(mut answer: Value) -> Value {
    let drop = |value: &mut Value, names: &[&str]| {
        for name in names {
            value.as_object_mut().unwrap().remove(*name);
        }
    };
    drop(&mut answer, &["tags", "eTag", "systemData"]);
    for pool in answer["properties"]["agentPoolProfiles"].as_array_mut().unwrap() {
        drop(pool, &["count", "eTag"]);
    }
    answer
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn a_round_trip_loses_nothing(body in bodies()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(round_trips(body))?;
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_that_was_not_reached_yet_is_asked_for_again() {
    let stamp = Stamp::new().await;
    let body = json!({ "location": "local" });
    stamp.create("c", body.clone()).await;
    // Not complete yet: the request has its own operation, and follows the first.
    let again = stamp.ask("PUT", C, body.clone()).await;
    assert_eq!(again.status, 200);
    assert!(again.header("azure-asyncoperation").is_some());
    stamp.reach("c").await;
    let generation = stamp.record("c").await.unwrap().generation;
    assert_eq!(
        stamp.ask("PUT", C, body).await.header("azure-asyncoperation"),
        None
    );
    assert_eq!(stamp.record("c").await.unwrap().generation, generation);
}

#[tokio::test(start_paused = true)]
async fn old_words_for_tiers() {
    let mut stamp = Stamp::new().await;
    stamp.api_version = "2022-11-01";
    let body = json!({ "location": "local", "sku": { "name": "Basic", "tier": "Paid" } });
    let created = stamp.create("c", body).await;
    assert_eq!(created["sku"], json!({ "name": "Basic", "tier": "Paid" }));
    assert_eq!(
        created["properties"]["networkProfile"]["dockerBridgeCidr"],
        "172.17.0.1/16"
    );
    stamp.api_version = NEWEST;
    let now = stamp.get(C).await.body;
    assert_eq!(now["sku"], json!({ "name": "Base", "tier": "Standard" }));
    assert_eq!(now["properties"]["networkProfile"].get("dockerBridgeCidr"), None);
    assert_eq!(now["kind"], "Base");
}
