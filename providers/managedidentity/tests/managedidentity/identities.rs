//! Identities and their credentials.

use control_records::{ClusterRecord, directory as records};
use control_store::Txn;
use identity_directory as directory;
use serde_json::{Value, json};

use crate::stamp::{SUBSCRIPTION, Stamp, TENANT};

const VERSION: &str = "api-version=2025-05-31-preview";

fn of(rest: &str) -> String {
    let group = arm_ids::group_id(SUBSCRIPTION, "g");
    format!("{group}/providers/Microsoft.ManagedIdentity/userAssignedIdentities{rest}?{VERSION}")
}

fn body() -> Option<Value> {
    Some(json!({ "location": "local", "tags": { "a": "b" } }))
}

#[tokio::test(start_paused = true)]
async fn an_identity_is_a_principal_as_long_as_it_is_there() {
    let stamp = Stamp::new().await;
    let (before, _) = stamp.store.list("/").await.unwrap();
    let made = stamp.ask("PUT", &of("/Deploy"), body()).await;
    assert_eq!(made.status, 201, "{made:?}");
    let text = |name: &str| made.body["properties"][name].as_str().unwrap().to_owned();
    let (principal, client) = (text("principalId"), text("clientId"));
    assert_eq!(
        (text("tenantId").as_str(), &made.body["tags"]["a"]),
        (TENANT, &json!("b"))
    );
    let record = directory::find_login(&*stamp.store, &client)
        .await
        .unwrap()
        .unwrap()
        .value;
    assert_eq!(
        (record.object_id.as_str(), record.kind.as_str()),
        (principal.as_str(), "ManagedIdentity")
    );
    assert_eq!(record.resource.as_deref(), made.body["id"].as_str());
    // Repeated in another letter case: the same.
    let again = stamp.ask("PUT", &of("/deploy"), body()).await;
    assert_eq!((again.status, &again.body), (200, &made.body));
    let patched = stamp
        .ask("PATCH", &of("/deploy"), Some(json!({ "tags": { "c": "d" } })))
        .await;
    assert_eq!(
        (patched.status, &patched.body["tags"]),
        (200, &json!({ "c": "d" })),
        "{patched:?}"
    );
    assert_eq!(patched.body["properties"], made.body["properties"]);
    for list in [
        of(""),
        format!(
            "{}/providers/Microsoft.ManagedIdentity/userAssignedIdentities?{VERSION}",
            arm_ids::subscription_id(SUBSCRIPTION)
        ),
        format!(
            "{}/resources?api-version=2024-11-01",
            arm_ids::group_id(SUBSCRIPTION, "g")
        ),
    ] {
        let listed = stamp.ask("GET", &list, None).await;
        assert_eq!(listed.body["value"][0]["name"], "Deploy", "{list}: {listed:?}");
    }
    // Its memberships are deleted with it.
    let writer = directory::Writer::unnoted(&*stamp.store, &stamp.env);
    let group = directory::NewGroup {
        display_name: "g".to_owned(),
        description: String::new(),
        nickname: "g".to_owned(),
    };
    let group = directory::create_group(&writer, group).await.unwrap();
    directory::add_member(&writer, &group.object_id, &principal)
        .await
        .unwrap();
    assert_eq!(stamp.ask("DELETE", &of("/deploy"), None).await.status, 200);
    assert_eq!(stamp.ask("DELETE", &of("/deploy"), None).await.status, 204);
    let gone = stamp.ask("GET", &of("/deploy"), None).await;
    assert_eq!((gone.status, gone.code()), (404, "ResourceNotFound"));
    directory::delete_group(&writer, &group.object_id).await.unwrap();
    let (after, _) = stamp.store.list("/").await.unwrap();
    let keys = |all: &[(String, control_store::Versioned)]| -> Vec<String> {
        let keys = all.iter().map(|(key, _)| key.clone());
        keys.filter(|key| !key.starts_with("/activity/")).collect()
    };
    assert_eq!(keys(&after), keys(&before), "nothing is left");
    let anew = stamp.ask("PUT", &of("/deploy"), body()).await;
    assert_ne!(anew.body["properties"]["principalId"], json!(principal));
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_is_refused_by_name() {
    let stamp = Stamp::new().await;
    for (path, body, status, code) in [
        ("/ab", json!({ "location": "local" }), 400, "InvalidResourceName"),
        ("/abc", json!({}), 400, "MissingRequiredParameter"),
        (
            "/abc",
            json!({ "location": "mars" }),
            400,
            "LocationNotAvailableForResourceType",
        ),
        (
            "/abc",
            json!({ "location": "local", "x": 1 }),
            400,
            "UnknownProperty",
        ),
        (
            "/none/federatedIdentityCredentials/ci1",
            json!({ "properties": {} }),
            404,
            "ResourceNotFound",
        ),
    ] {
        let answer = stamp.ask("PUT", &of(path), Some(body)).await;
        assert_eq!(
            (answer.status, answer.code()),
            (status, code),
            "{path}: {answer:?}"
        );
    }
    let later = stamp.ask("POST", &of("/abc/listAssociatedResources"), None).await;
    assert_eq!(later.status, 501);
}

#[tokio::test(start_paused = true)]
async fn federated_credentials_are_the_principals() {
    let stamp = Stamp::new().await;
    let made = stamp.ask("PUT", &of("/deploy"), body()).await;
    let principal = made.body["properties"]["principalId"]
        .as_str()
        .unwrap()
        .to_owned();
    let wish = |subject: &str| {
        Some(
            json!({ "properties": { "issuer": "https://i.example", "subject": subject, "audiences": ["api://AzureADTokenExchange"] } }),
        )
    };
    let one = of("/deploy/federatedIdentityCredentials/builds");
    let put = stamp.ask("PUT", &one, wish("main")).await;
    assert_eq!(
        (put.status, put.body["properties"]["subject"].as_str()),
        (201, Some("main")),
        "{put:?}"
    );
    assert_eq!(stamp.ask("PUT", &one, wish("release")).await.status, 200);
    let other = of("/deploy/federatedIdentityCredentials/other");
    let taken = stamp.ask("PUT", &other, wish("release")).await;
    assert_eq!((taken.status, taken.code()), (409, "Conflict"), "{taken:?}");
    let record = directory::principal(&*stamp.store, &principal)
        .await
        .unwrap()
        .unwrap()
        .value;
    assert_eq!(record.credentials.len(), 1);
    let all = of("/deploy/federatedIdentityCredentials");
    let listed = stamp.ask("GET", &all, None).await;
    assert_eq!(listed.body["value"].as_array().unwrap().len(), 1);
    assert_eq!(stamp.ask("DELETE", &one, None).await.status, 200);
    assert_eq!(stamp.ask("DELETE", &one, None).await.status, 204);
    assert_eq!(stamp.ask("GET", &one, None).await.status, 404);
}

#[tokio::test(start_paused = true)]
async fn the_identity_of_a_cluster_is_read_at_the_cluster() {
    let stamp = Stamp::new().await;
    let (principal, client) = (
        "0a0a0a0a-0000-4000-8000-000000000002",
        // The client id: a GUID that follows from the object id, as for the principal itself.
        "0a0a0a0a-0000-4000-8000-000000000003",
    );
    let clusters = [
        (
            "c",
            json!({ "type": "SystemAssigned", "principalId": principal, "tenantId": TENANT }),
        ),
        (
            "user",
            json!({ "type": "UserAssigned", "userAssignedIdentities": { "id": { "principalId": principal } } }),
        ),
        ("none", Value::Null),
    ];
    for (name, identity) in clusters {
        let spec = cluster_spec::ClusterSpec {
            name: name.to_owned(),
            ..cluster_spec::testkit::cluster()
        };
        let mut cluster = ClusterRecord::of_spec(&format!("uid-{name}"), &spec, stamp.env.clock.now());
        cluster.subscription = SUBSCRIPTION.to_owned();
        cluster.state = cluster.state.with(|body, _| body["identity"] = identity).unwrap();
        let made = records::new_cluster(Txn::default(), &cluster);
        stamp.store.txn(made).await.unwrap();
    }
    let at = |cluster: &str, rest: &str| {
        let group = arm_ids::group_id(SUBSCRIPTION, "g");
        format!(
            "{group}/providers/Microsoft.ContainerService/managedClusters/{cluster}/providers/Microsoft.ManagedIdentity/identities/{rest}"
        )
    };
    let id = at("c", "default");
    for name in ["default", "Default"] {
        let read = stamp
            .ask("GET", &format!("{}?{VERSION}", at("c", name)), None)
            .await;
        assert_eq!(read.status, 200, "{read:?}");
        assert_eq!(read.body["id"], id);
        assert_eq!(
            (&read.body["name"], &read.body["type"], &read.body["location"]),
            (
                &json!("default"),
                &json!("Microsoft.ManagedIdentity/identities"),
                &json!("local")
            )
        );
        assert_eq!(
            read.body["properties"],
            json!({ "tenantId": TENANT, "principalId": principal, "clientId": client })
        );
    }
    for (cluster, name) in [
        ("c", "other"),
        ("user", "default"),
        ("none", "default"),
        ("missing", "default"),
        // Child resources of a cluster have none.
        ("c/agentPools/np1", "default"),
    ] {
        let read = stamp
            .ask("GET", &format!("{}?{VERSION}", at(cluster, name)), None)
            .await;
        assert_eq!(
            (read.status, read.code()),
            (404, "ResourceNotFound"),
            "{cluster} {name}: {read:?}"
        );
    }
    let put = stamp
        .ask("PUT", &format!("{id}?{VERSION}"), Some(json!({})))
        .await;
    assert_eq!(put.status, 405, "{put:?}");
}

#[tokio::test(start_paused = true)]
async fn identities_go_with_their_group() {
    let stamp = Stamp::new().await;
    for name in ["one", "two"] {
        assert_eq!(
            stamp.ask("PUT", &of(&format!("/{name}")), body()).await.status,
            201
        );
    }
    let reaper = stamp.reaper();
    let group = format!("{}?api-version=2024-11-01", arm_ids::group_id(SUBSCRIPTION, "g"));
    assert_eq!(stamp.ask("DELETE", &group, None).await.status, 202);
    for _ in 0..600 {
        if stamp.ask("GET", &group, None).await.status == 404 {
            break;
        }
        stamp.env.clock.sleep(std::time::Duration::from_secs(1)).await;
    }
    assert_eq!(stamp.ask("GET", &group, None).await.status, 404);
    reaper.abort();
    let left = directory::principals(&*stamp.store).await.unwrap();
    assert_eq!(left.len(), 1, "only the owner: {left:?}");
}
