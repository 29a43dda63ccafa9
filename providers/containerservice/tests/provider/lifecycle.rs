//! Clusters and pools from creation to deletion: records, operations, states, preconditions.

use std::{collections::BTreeMap, time::Duration};

use arm_kernel::routes;
use control_records::{GroupRecord, OperationStatus, key};
use control_store::{get_record, put_record};
use providers_containerservice::{ContainerService, SERVICE_PRINCIPAL_SECRET, secret_name};
use serde_json::{Value, json};

use crate::stamp::{SUBSCRIPTION, Stamp, least, names};

const C: &str = "managedClusters/c";

#[tokio::test(start_paused = true)]
async fn a_cluster_is_created_reached_and_deleted() {
    let stamp = Stamp::new().await;
    assert_eq!(stamp.get(C).await.status, 404);
    let answer = stamp.ask("PUT", C, least()).await;
    assert_eq!(answer.status, 201);
    let url = answer.header("azure-asyncoperation").unwrap();
    assert!(
        url.starts_with("https://127.0.0.1:8443/subscriptions/") && url.ends_with("?api-version=2026-06-01")
    );
    assert_eq!(answer.header("location"), None);
    let properties = &answer.body["properties"];
    assert_eq!(properties["provisioningState"], "Creating");
    assert!(answer.body["identity"]["principalId"].is_string());
    assert!(properties["identityProfile"]["kubeletidentity"]["objectId"].is_string());
    assert_eq!(properties["networkProfile"]["networkPluginMode"], "overlay");
    let fqdn = properties["fqdn"].as_str().unwrap();
    assert!(
        fqdn.ends_with(".hcp.local.landfall.test") && fqdn.starts_with("c-rg1-000000-"),
        "{fqdn}"
    );
    let operations = stamp.operations().await;
    assert_eq!(operations.len(), 1);
    assert!(url.contains(&operations[0].id));
    assert_eq!(
        (operations[0].generation, operations[0].status),
        (1, OperationStatus::InProgress)
    );
    let group: GroupRecord = get_record(&*stamp.store, &key::group(SUBSCRIPTION, "MC_rg1_c_local"))
        .await
        .unwrap()
        .unwrap()
        .value;
    assert!(group.managed_by.unwrap().ends_with("/managedClusters/c"));

    stamp.reach("c").await;
    assert_eq!(
        stamp.get(C).await.body["properties"]["provisioningState"],
        "Succeeded"
    );
    let mut body = least();
    body["tags"] = json!({ "a": "b" });
    let answer = stamp.ask("PUT", C, body).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body["properties"]["provisioningState"], "Updating");
    assert_eq!(answer.body["properties"]["fqdn"], json!(fqdn));

    let answer = stamp.ask("DELETE", C, Value::Null).await;
    assert_eq!(answer.status, 202);
    assert!(answer.header("azure-asyncoperation").is_some() && answer.header("location").is_some());
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(
        stamp.get(C).await.body["properties"]["provisioningState"],
        "Deleting"
    );
    let canceled: Vec<_> = stamp
        .operations()
        .await
        .into_iter()
        .filter(|operation| operation.status == OperationStatus::Canceled)
        .collect();
    assert_eq!(canceled.len(), 2, "what ran before is told that it was overtaken");
    assert!(
        canceled
            .iter()
            .all(|operation| operation.error.as_ref().unwrap().code == "AKSOperationPreemptedByDelete")
    );

    let again = stamp.ask("DELETE", C, Value::Null).await;
    assert_eq!(
        again.header("location"),
        answer.header("location"),
        "one deletion, however often asked for"
    );
    for (method, path, body) in [
        ("PUT", C, least()),
        ("PATCH", C, json!({ "tags": {} })),
        ("PUT", "managedClusters/c/agentPools/np2", json!({})),
        ("DELETE", "managedClusters/c/agentPools/nodepool1", Value::Null),
    ] {
        let answer = stamp.ask(method, path, body).await;
        assert_eq!(
            (answer.status, answer.code()),
            (409, "Conflict"),
            "{method} {path}"
        );
    }
    assert_eq!(
        stamp
            .ask("DELETE", "managedClusters/other", Value::Null)
            .await
            .status,
        204
    );
}

#[tokio::test(start_paused = true)]
async fn pools_are_added_scaled_and_deleted_inside_the_cluster() {
    let stamp = Stamp::new().await;
    stamp.create("c", least()).await;
    stamp.reach("c").await;
    let before = stamp.get(C).await.body;
    let np2 = "managedClusters/c/agentPools/np2";
    let body = json!({ "properties": { "count": 2, "mode": "User", "nodeLabels": { "a": "b" }, "nodeTaints": ["x=y:NoSchedule"] } });
    let answer = stamp.ask("PUT", np2, body).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    assert_eq!(answer.body["properties"]["provisioningState"], "Creating");
    assert_eq!(answer.body["properties"]["maxPods"], 250);
    let after = stamp.get(C).await.body;
    let pools = &after["properties"]["agentPoolProfiles"];
    assert_eq!(
        pools[0]["provisioningState"], "Succeeded",
        "the first pool is not concerned"
    );
    assert_eq!(pools[1]["name"], "np2");
    assert_eq!(
        after["eTag"], before["eTag"],
        "a pool operation does not change the cluster's eTag"
    );
    assert_eq!(
        pools[0]["eTag"],
        before["properties"]["agentPoolProfiles"][0]["eTag"]
    );
    let incarnation = stamp.record("c").await.unwrap().spec().pools[1]
        .incarnation
        .clone();

    stamp.reach("c").await;
    let answer = stamp
        .ask("PUT", np2, json!({ "properties": { "count": 0 } }))
        .await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body["properties"]["mode"], "User");
    assert_eq!(answer.body["properties"]["provisioningState"], "Updating");
    let record = stamp.record("c").await.unwrap();
    assert_eq!(
        (record.spec().pools[1].count, record.spec().pools[1].labels.len()),
        (0, 0),
        "maps are replaced as a whole"
    );
    assert_eq!(record.spec().pools[1].incarnation, incarnation);

    let listed = stamp.get("managedClusters/c/agentPools").await.body;
    assert_eq!(listed["value"].as_array().unwrap().len(), 2);
    let last = stamp
        .ask("DELETE", "managedClusters/c/agentPools/nodepool1", Value::Null)
        .await;
    assert_eq!((last.status, last.code()), (400, "OperationNotAllowed"));
    let deletion = stamp.ask("DELETE", np2, Value::Null).await;
    assert_eq!(deletion.status, 202);
    // Shown and listed until its machines are gone.
    let going = stamp.get(np2).await;
    assert_eq!(
        (going.status, &going.body["properties"]["provisioningState"]),
        (200, &json!("Deleting"))
    );
    let listed = stamp.get("managedClusters/c/agentPools").await.body;
    assert_eq!(listed["value"][1]["name"], "np2");
    let cluster = stamp.get(C).await.body;
    assert_eq!(
        cluster["properties"]["agentPoolProfiles"][1]["provisioningState"],
        "Deleting"
    );
    let again = stamp.ask("DELETE", np2, Value::Null).await;
    assert_eq!(
        (again.status, again.header("location")),
        (202, deletion.header("location"))
    );
    stamp.reach("c").await;
    assert_eq!(stamp.get(np2).await.status, 404);
    assert_eq!(stamp.ask("DELETE", np2, Value::Null).await.status, 204);
    stamp.ask("PUT", np2, json!({})).await;
    assert_ne!(
        stamp.record("c").await.unwrap().spec().pools[1].incarnation,
        incarnation,
        "new nodes, new names"
    );
}

#[tokio::test(start_paused = true)]
async fn tags_are_replaced_by_a_patch() {
    let stamp = Stamp::new().await;
    stamp
        .create(
            "c",
            json!({ "location": "Local", "tags": { "a": "b", "c": "d" } }),
        )
        .await;
    let answer = stamp.ask("PATCH", C, json!({ "tags": { "e": "f" } })).await;
    assert_eq!(answer.status, 200);
    assert!(answer.header("azure-asyncoperation").is_some());
    assert_eq!(answer.body["tags"], json!({ "e": "f" }));
    // Properties that are not named stay, and the loop has no work.
    let generation = stamp.record("c").await.unwrap().generation;
    let answer = stamp.ask("PATCH", C, json!({})).await;
    assert_eq!((answer.status, &answer.body["tags"]), (200, &json!({ "e": "f" })));
    assert!(answer.header("azure-asyncoperation").is_none());
    let previewed = stamp.preview("PATCH", C, json!({ "tags": { "g": "h" } })).await;
    assert_eq!(
        (previewed.status, &previewed.body["tags"]),
        (200, &json!({ "g": "h" }))
    );
    assert_eq!(stamp.record("c").await.unwrap().generation, generation);
    let answer = stamp.ask("PATCH", C, json!({ "properties": {} })).await;
    assert_eq!((answer.status, answer.code()), (400, "UnknownProperty"));
    let answer = stamp
        .ask("PATCH", "managedClusters/none", json!({ "tags": {} }))
        .await;
    assert_eq!(answer.status, 404);
}

#[tokio::test(start_paused = true)]
async fn etags_guard_changes() {
    let stamp = Stamp::new().await;
    let with = |method: &str, wanted: Option<&str>, unwanted: Option<&str>| {
        let body = if method == "PUT" {
            least()
        } else {
            json!({ "tags": {} })
        };
        let mut request = stamp.request(method, C, body);
        request.if_match = wanted.map(str::to_owned);
        request.if_none_match = unwanted.map(str::to_owned);
        request
    };
    for (method, wanted, unwanted, status) in [
        ("PUT", Some("*"), None, 412),
        ("PUT", Some("x"), None, 412),
        ("PUT", None, Some("x"), 400),
        ("PUT", Some("x"), Some("*"), 400),
        ("PATCH", Some("x"), None, 404),
        ("DELETE", Some("x"), None, 204),
        ("PUT", None, Some("*"), 201),
        ("PUT", None, Some("*"), 412),
        ("PUT", None, Some(""), 200),
        ("PUT", Some("*"), None, 200),
        ("PUT", Some("x"), None, 412),
        ("PATCH", Some("x"), None, 412),
        ("DELETE", Some("x"), None, 412),
    ] {
        let answer = stamp.send(with(method, wanted, unwanted)).await;
        assert_eq!(
            answer.status, status,
            "{method} {wanted:?} {unwanted:?} {}",
            answer.body
        );
    }
    let tag = stamp.get(C).await.body["eTag"].as_str().unwrap().to_owned();
    assert_eq!(stamp.send(with("PUT", Some(&tag), None)).await.status, 200);
    assert_eq!(
        stamp.send(with("PUT", Some(&tag), None)).await.status,
        412,
        "the eTag is used up"
    );
    let tag = stamp.get(C).await.body["eTag"].as_str().unwrap().to_owned();
    assert_eq!(stamp.send(with("DELETE", Some(&tag), None)).await.status, 202);
}

#[tokio::test(start_paused = true)]
async fn the_etag_of_a_change_that_a_restore_of_the_store_has_forgotten_is_refused() {
    let stamp = Stamp::new().await;
    stamp.create("c", least()).await;
    let copy = stamp.record("c").await.unwrap();
    let change = |tag: &str| stamp.request("PATCH", C, json!({ "tags": { "a": tag } }));
    let forgotten = stamp.send(change("forgotten")).await.body["eTag"].clone();
    stamp.write(put_record(key::desired(&copy.uid), &copy)).await;
    stamp.env.clock.sleep(Duration::from_secs(60)).await;
    let kept = stamp.send(change("kept")).await.body["eTag"].clone();
    assert_ne!(forgotten, kept);
    let mut request = change("of one who knows the other only");
    request.if_match = forgotten.as_str().map(str::to_owned);
    assert_eq!(stamp.send(request).await.status, 412);
}

#[tokio::test(start_paused = true)]
async fn a_service_principals_secret_is_sealed_kept_and_never_told() {
    let stamp = Stamp::new().await;
    let sp =
        |profile: Value| json!({ "location": "local", "properties": { "servicePrincipalProfile": profile } });
    let created = stamp
        .create("c", sp(json!({ "clientId": "app", "secret": "hunter2" })))
        .await;
    assert!(!created.to_string().contains("hunter2"));
    assert_eq!(created.get("identity"), None);
    let unsealed = |record: control_records::ClusterRecord| {
        let name = secret_name(&record.uid, SERVICE_PRINCIPAL_SECRET);
        let secret = stamp
            .sealer
            .unseal(&name, &record.sealed[SERVICE_PRINCIPAL_SECRET])
            .unwrap();
        String::from_utf8(secret.to_vec()).unwrap()
    };
    let record = stamp.record("c").await.unwrap();
    assert!(!serde_json::to_string(&record).unwrap().contains("hunter2"));
    assert_eq!(unsealed(record), "hunter2");
    // `az aks update` sends the client id alone, `az aks scale` not even that.
    for body in [sp(json!({ "clientId": "app" })), least()] {
        assert_eq!(stamp.ask("PUT", C, body).await.status, 200);
        let record = stamp.record("c").await.unwrap();
        assert_eq!(
            record.body()["properties"]["servicePrincipalProfile"],
            json!({ "clientId": "app" })
        );
        assert_eq!(unsealed(record), "hunter2");
    }
    let body = json!({ "location": "local", "identity": { "type": "SystemAssigned" },
        "properties": { "servicePrincipalProfile": { "clientId": "msi" } } });
    let answer = stamp.ask("PUT", C, body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(answer.body["identity"]["principalId"].is_string());
    assert!(stamp.record("c").await.unwrap().sealed.is_empty());
}

#[tokio::test(start_paused = true)]
async fn kubeconfigs_come_when_there_is_an_endpoint() {
    let stamp = Stamp::new().await;
    stamp.create("c", least()).await;
    let admin = "managedClusters/c/listClusterAdminCredential";
    let early = stamp.ask("POST", admin, Value::Null).await;
    assert_eq!((early.status, early.code()), (409, "Conflict"));
    assert!(
        early.body["error"]["message"]
            .as_str()
            .unwrap()
            .contains("still being created")
    );
    stamp.reach("c").await;
    for (path, name) in [
        (admin, "clusterAdmin"),
        (
            "managedClusters/c/listClusterUserCredential?format=exec&server-fqdn=public",
            "clusterUser",
        ),
        (
            "managedClusters/c/listClusterMonitoringUserCredential",
            "clusterMonitoringUser",
        ),
    ] {
        let answer = stamp.ask("POST", path, Value::Null).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.body["kubeconfigs"][0]["name"], name);
        assert!(answer.body["kubeconfigs"][0]["value"].as_str().unwrap().len() > 8);
    }
    let answer = stamp
        .ask(
            "POST",
            "managedClusters/c/accessProfiles/clusterAdmin/listCredential",
            Value::Null,
        )
        .await;
    assert!(
        answer.body["properties"]["kubeConfig"].is_string(),
        "{}",
        answer.body
    );
}

#[tokio::test(start_paused = true)]
async fn machines_are_the_nodes_of_a_pool_in_order() {
    let stamp = Stamp::new().await;
    stamp.create("c", least()).await;
    let uid = stamp.record("c").await.unwrap().uid;
    for (id, cluster, pool, index) in [
        ("m2", uid.as_str(), "nodepool1", 1),
        ("m1", uid.as_str(), "nodepool1", 0),
        ("m3", uid.as_str(), "other", 0),
        ("m4", "someoneelse", "nodepool1", 0),
    ] {
        stamp.add_node(cluster, id, pool, index).await;
    }
    let list = stamp
        .get("managedClusters/c/agentPools/nodepool1/machines")
        .await
        .body;
    let names = names(&list);
    assert_eq!(
        names,
        [
            "aks-nodepool1-12345678-vmss000000",
            "aks-nodepool1-12345678-vmss000001"
        ]
    );
    let one = stamp
        .get("managedClusters/c/agentPools/nodepool1/machines/aks-nodepool1-12345678-vmss000001")
        .await;
    assert_eq!(
        one.body["properties"]["network"]["ipAddresses"][0]["ip"],
        "10.224.0.4"
    );
    assert!(
        one.body["properties"]["resourceId"]
            .as_str()
            .unwrap()
            .ends_with("-vmss/virtualMachines/1")
    );
    assert_eq!(
        stamp
            .get("managedClusters/c/agentPools/nodepool1/machines/none")
            .await
            .status,
        404
    );
}

#[tokio::test(start_paused = true)]
async fn versions_and_operations_are_listed() {
    let stamp = Stamp::new().await;
    stamp.create("c", least()).await;
    let path = format!(
        "/subscriptions/{SUBSCRIPTION}/providers/Microsoft.ContainerService/locations/local/kubernetesVersions"
    );
    let versions = stamp.get(&path).await.body;
    assert_eq!(versions["values"][0]["version"], "1.36");
    assert_eq!(versions["values"][0]["isDefault"], true);
    assert_eq!(
        versions["values"][0]["patchVersions"]["1.36.3"]["upgrades"],
        json!(["1.37.1"])
    );
    assert_eq!(
        versions["values"][0]["capabilities"]["supportPlan"],
        json!(["KubernetesOfficial"])
    );
    let available = stamp
        .get("managedClusters/c/availableAgentPoolVersions")
        .await
        .body;
    assert_eq!(
        available["properties"]["agentPoolVersions"],
        json!([{ "kubernetesVersion": "1.36.3", "default": true, "isPreview": false }])
    );
    let operations = stamp
        .get("/providers/Microsoft.ContainerService/operations")
        .await
        .body;
    let names: Vec<&str> = operations["value"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|item| item["name"].as_str())
        .collect();
    assert!(names.contains(&"Microsoft.ContainerService/register/action"));
    assert!(names.contains(&"Microsoft.ContainerService/managedClusters/listClusterAdminCredential/action"));
}

#[test]
fn the_tables_are_whole() {
    let routes = routes::<ContainerService>();
    // Those of the stable API; usages are beside it.
    let stable = routes.iter().filter(|route| route.path != "locations/usages");
    assert_eq!(stable.count(), 69);
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    for route in &routes {
        let key = format!("{:?} {:?} {}", route.verb, route.scope, route.path);
        assert_eq!(seen.insert(key.clone(), route.name), None, "{key} is there twice");
    }
    // Operations are stored under these names, and their results are looked up by them.
    let mut names: Vec<&str> = routes.iter().map(|route| route.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 70);
    // As many as the SDKs of these versions have, and the list of operations.
    for (version, count) in [("2020-11-01", 30), ("2024-08-01", 59), ("2026-08-01", 69)] {
        let there = routes
            .iter()
            .filter(|route| route.path != "locations/usages" && route.versions.contains(&version));
        assert_eq!(there.count(), count, "{version}");
    }
    let page = providers_containerservice::compatibility(&Default::default());
    assert!(
        page.contains(
            "| ManagedClusters_CreateOrUpdate | PUT | resource group | `managedClusters/{name}` | `Microsoft.ContainerService/managedClusters/write` | works |"
        )
    );
    assert!(
        page.contains("| `properties.enableRBAC` | refused | `true` | only at creation; RBAC is always on |")
    );
}

#[tokio::test]
async fn competing_writers_all_get_through() {
    let stamp = std::sync::Arc::new(Stamp::new().await);
    stamp.create("c", least()).await;
    let writers: Vec<_> = (0..8)
        .map(|index| {
            let stamp = stamp.clone();
            tokio::spawn(async move {
                let path = format!("managedClusters/c/agentPools/np{index}");
                stamp
                    .ask("PUT", &path, json!({ "properties": { "count": 1 } }))
                    .await
                    .status
            })
        })
        .collect();
    for writer in writers {
        assert_eq!(writer.await.unwrap(), 201);
    }
    let record = stamp.record("c").await.unwrap();
    assert_eq!((record.generation, record.spec().pools.len()), (9, 9));
}

#[tokio::test(start_paused = true)]
async fn a_preview_answers_as_the_request_would_and_changes_nothing() {
    let stamp = Stamp::new().await;
    let path = "managedClusters/c";
    let previewed = stamp.preview("PUT", path, least()).await;
    assert_eq!(previewed.status, 201, "{:#}", previewed.body);
    assert!(stamp.record("c").await.is_none() && stamp.operations().await.is_empty());
    // The preview also reports problems of the transaction: a node group with another owner.
    stamp.add_group("theirs", false).await;
    let mut body = least();
    body["properties"]["nodeResourceGroup"] = json!("theirs");
    assert_eq!(stamp.preview("PUT", path, body).await.code(), "Conflict");
    let created = stamp.create("c", least()).await;
    for field in ["networkProfile", "kubernetesVersion", "nodeResourceGroup"] {
        assert_eq!(
            previewed.body["properties"][field], created["properties"][field],
            "{field}"
        );
    }
    let before = stamp.record("c").await;
    assert_eq!(stamp.preview("DELETE", path, Value::Null).await.status, 202);
    let pool = json!({ "properties": { "count": 3 } });
    let previewed = stamp
        .preview("PUT", "managedClusters/c/agentPools/np", pool)
        .await;
    assert_eq!(
        (previewed.status, &previewed.body["properties"]["count"]),
        (201, &json!(3))
    );
    let wrong = json!({ "properties": { "count": -1 } });
    assert_eq!(
        stamp
            .preview("PUT", "managedClusters/c/agentPools/np", wrong)
            .await
            .status,
        400
    );
    assert_eq!(stamp.record("c").await, before);
    let refused = stamp.preview("GET", "managedClusters/c", Value::Null).await;
    assert_eq!(refused.code(), "OperationNotAllowed");
}
