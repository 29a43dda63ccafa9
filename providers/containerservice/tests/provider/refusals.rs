//! Bad input, as data: each case has its status, code and target. And random input: never a panic, never a
//! 500.

use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::stamp::{Stamp, least};

#[derive(Deserialize)]
struct Case {
    name: String,
    method: String,
    path: String,
    #[serde(default)]
    body: Value,
    #[serde(default)]
    api_version: Option<String>,
    status: u16,
    code: String,
    #[serde(default)]
    target: Option<String>,
    /// The targets of all problems, where there are several.
    #[serde(default)]
    targets: Vec<String>,
    /// Text that its message contains.
    words: String,
}

/// The clusters of the cases: `c` (overlay, two pools: np1 System, np2 User), `flat`, `kubenet`, `sp` (a
/// service principal).
async fn populated() -> Stamp {
    let stamp = Stamp::new().await;
    let with = |properties: Value| json!({ "location": "local", "properties": properties });
    let pools = json!([{ "name": "np1", "mode": "System", "count": 1 }, { "name": "np2", "count": 1 }]);
    stamp
        .create(
            "c",
            with(json!({ "agentPoolProfiles": pools, "kubernetesVersion": "1.36.3" })),
        )
        .await;
    stamp
        .create("new", with(json!({ "kubernetesVersion": "1.37.1" })))
        .await;
    stamp
        .create(
            "flat",
            with(json!({ "networkProfile": { "networkPlugin": "azure" } })),
        )
        .await;
    stamp
        .create(
            "kubenet",
            with(json!({ "networkProfile": { "networkPlugin": "kubenet" } })),
        )
        .await;
    let principal = json!({ "servicePrincipalProfile": { "clientId": "app", "secret": "s3cret" } });
    stamp.create("sp", with(principal)).await;
    stamp
}

#[tokio::test(start_paused = true)]
async fn bad_input_is_refused_by_name() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../bad_input.json")).unwrap();
    assert!(cases.len() >= 80, "{} cases", cases.len());
    let stamp = populated().await;
    let before = stamp.store.list("/").await.unwrap().0;
    let mut wrong = Vec::new();
    for case in cases {
        let mut request = stamp.request(&case.method, &case.path, case.body);
        if let Some(version) = case.api_version {
            request.api_version = version;
        }
        let answer = stamp.send(request).await;
        let error = &answer.body["error"];
        let details: Vec<&str> = error["details"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|detail| detail["target"].as_str())
            .collect();
        let same = answer.status == case.status
            && answer.code() == case.code
            && error["target"].as_str() == case.target.as_deref()
            && (case.targets.is_empty() || details == case.targets)
            && error["message"]
                .as_str()
                .is_some_and(|message| message.len() > 20 && message.contains(&case.words));
        if !same {
            wrong.push(format!("{}: {} {:#}", case.name, answer.status, answer.body));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(
        stamp.store.list("/").await.unwrap().0,
        before,
        "what is refused leaves nothing behind"
    );
}

#[tokio::test(start_paused = true)]
async fn all_problems_come_in_one_answer_and_junk_gets_a_short_one() {
    let stamp = Stamp::new().await;
    let junk: Map<String, Value> = (0..10_000)
        .map(|index| (format!("junk{index}"), json!(1)))
        .collect();
    let answer = stamp
        .ask(
            "PUT",
            "managedClusters/x",
            json!({ "location": "local", "properties": junk }),
        )
        .await;
    assert_eq!((answer.status, answer.code()), (400, "ValidationError"));
    assert_eq!(answer.body["error"]["details"].as_array().unwrap().len(), 50);
}

/// Any JSON, with some names that exist.
fn anything() -> impl Strategy<Value = Value> {
    let names = prop::sample::select(vec![
        "properties",
        "location",
        "tags",
        "name",
        "agentPoolProfiles",
        "count",
        "networkProfile",
        "podCidr",
        "serviceCidr",
        "dnsServiceIP",
        "networkPlugin",
        "networkPluginMode",
        "kubernetesVersion",
        "orchestratorVersion",
        "identity",
        "type",
        "mode",
        "servicePrincipalProfile",
        "clientId",
        "secret",
        "linuxProfile",
        "ssh",
        "publicKeys",
        "keyData",
        "adminUsername",
        "maxPods",
        "vmSize",
        "nodeLabels",
        "nodeTaints",
        "upgradeSettings",
        "maxSurge",
        "identityProfile",
        "kubeletidentity",
        "addonProfiles",
        "enabled",
        "sku",
        "tier",
        "podCidrs",
        "osDiskSizeGB",
        "nodeResourceGroup",
        "dnsPrefix",
        "properties.count",
        "",
        "é",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (0_i64..40).prop_map(Value::from),
        prop::sample::select(vec![
            "",
            "local",
            "System",
            "User",
            "azure",
            "overlay",
            "kubenet",
            "none",
            "1.36",
            "1.36.3",
            "1.37.1",
            "9.9",
            "10.0.0.0/16",
            "10.244.0.0/16",
            "0.0.0.0/0",
            "255.255.255.255/32",
            "10.0.0.10",
            "msi",
            "app",
            "np1",
            "nodepool1",
            "SystemAssigned",
            "None",
            "a=b:NoSchedule",
            "33%",
            "0",
            "azureuser",
            "Standard_DS2_v2",
            "rg1",
            "é",
        ])
        .prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 64, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((names.clone(), inner), 0..6).prop_map(|members| Value::Object(
                members
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect()
            )),
        ]
    })
}

/// Random JSON at random places of a valid body.
fn mutated() -> impl Strategy<Value = Value> {
    let places = prop::sample::select(vec![
        "/properties",
        "/properties/networkProfile",
        "/properties/networkProfile/podCidr",
        "/properties/networkProfile/serviceCidr",
        "/properties/networkProfile/dnsServiceIP",
        "/properties/agentPoolProfiles",
        "/properties/agentPoolProfiles/0",
        "/properties/agentPoolProfiles/0/count",
        "/properties/agentPoolProfiles/0/nodeLabels",
        "/properties/kubernetesVersion",
        "/identity",
        "/identity/type",
        "/location",
        "/tags",
        "/properties/servicePrincipalProfile",
    ]);
    (prop::collection::vec((places, anything()), 0..3), any::<bool>()).prop_map(|(changes, nothing)| {
        let mut body = json!({
            "location": "local", "tags": {}, "identity": { "type": "SystemAssigned" },
            "properties": {
                "kubernetesVersion": "", "servicePrincipalProfile": { "clientId": "msi" },
                "networkProfile": { "podCidr": "10.244.0.0/16", "serviceCidr": "10.0.0.0/16", "dnsServiceIP": "10.0.0.10" },
                "agentPoolProfiles": [{ "name": "np1", "mode": "System", "count": 1, "nodeLabels": {} }]
            }
        });
        for (place, value) in changes {
            if let Some(slot) = body.pointer_mut(place) {
                *slot = value;
            }
        }
        if nothing { least() } else { body }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_body_breaks_the_provider(bodies in prop::collection::vec(prop_oneof![anything(), mutated()], 1..6)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let stamp = Stamp::new().await;
            for body in bodies {
                for (method, path) in [
                    ("PUT", "managedClusters/c"),
                    ("PATCH", "managedClusters/c"),
                    ("PUT", "managedClusters/c/agentPools/np1"),
                    ("PUT", "managedClusters/c/agentPools/np2"),
                    ("GET", "managedClusters/c"),
                ] {
                    let answer = stamp.ask(method, path, body.clone()).await;
                    prop_assert!(answer.status < 500, "{method} {path} {} {}", answer.status, body);
                    if answer.status >= 400 {
                        prop_assert!(!answer.code().is_empty());
                    }
                }
                if let Some(record) = stamp.record("c").await {
                    // Guarantees of a specification to its users.
                    let spec = record.spec();
                    prop_assert!(spec.pools.iter().any(|pool| pool.mode == cluster_spec::PoolMode::System));
                    prop_assert!(spec.network.service_range.contains(&spec.network.dns_service_ip));
                    prop_assert_eq!(record.body()["properties"]["agentPoolProfiles"].as_array().map(Vec::len), Some(spec.pools.len()));
                    // And the response can be sent back.
                    let read = stamp.get("managedClusters/c").await.body;
                    let answer = stamp.ask("PUT", "managedClusters/c", read).await;
                    prop_assert!(answer.status == 200, "{}", answer.body);
                    let after = stamp.record("c").await.unwrap();
                    prop_assert_eq!(after.spec(), spec);
                }
            }
            Ok(())
        })?;
    }
}

#[tokio::test(start_paused = true)]
async fn tags_that_differ_in_case_only_are_refused() {
    let stamp = Stamp::new().await;
    let twice = json!({ "Env": "a", "env": "b" });
    let refused = |answer: &crate::stamp::Answer| {
        assert_eq!(answer.code(), "InvalidParameter", "{:#}", answer.body);
        assert!(
            answer.message().contains("differ in case only"),
            "{}",
            answer.message()
        );
    };
    let mut body = least();
    body["tags"] = twice.clone();
    refused(&stamp.ask("PUT", "managedClusters/c", body).await);
    stamp.create("c", least()).await;
    refused(
        &stamp
            .ask("PATCH", "managedClusters/c", json!({ "tags": twice }))
            .await,
    );
    let pool = json!({ "properties": { "tags": twice } });
    refused(&stamp.ask("PUT", "managedClusters/c/agentPools/np", pool).await);
    // Labels are Kubernetes', whose names are case-sensitive.
    let labels = json!({ "properties": { "nodeLabels": twice } });
    let answer = stamp.ask("PUT", "managedClusters/c/agentPools/np", labels).await;
    assert_eq!(answer.status, 201, "{:#}", answer.body);
}
