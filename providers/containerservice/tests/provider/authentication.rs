//! Token issuers of a cluster: valid settings are in the spec, are kept, and are refused by name where they
//! are invalid.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use cluster_spec::DirectoryAccess;
use serde_json::{Value, json};

use crate::stamp::{Stamp, least, sent_back};

const C: &str = "managedClusters/c";
const TENANT: &str = "00000000-0000-0000-0000-00000000000f";
const GROUP: &str = "11111111-0000-4000-8000-000000000001";

fn with(properties: Value) -> Value {
    let mut body = least();
    body["properties"] = properties;
    body
}

fn issuer() -> Value {
    json!({ "oidcIssuerProfile": { "enabled": true } })
}

async fn refused(stamp: &Stamp, path: &str, body: Value, target: &str) {
    let answer = stamp.ask("PUT", path, body.clone()).await;
    assert_eq!(answer.status, 400, "{body}");
    assert_eq!(
        answer.body["error"]["target"], target,
        "{body}: {:#}",
        answer.body
    );
}

#[tokio::test(start_paused = true)]
async fn an_issuer_has_a_name_from_the_first_answer_on_and_keeps_it() {
    let stamp = Stamp::new().await;
    let created = stamp.create("c", with(issuer())).await;
    let url = created["properties"]["oidcIssuerProfile"]["issuerURL"].clone();
    let record = stamp.record("c").await.unwrap();
    assert_eq!(url, format!("https://stamp.test:8443/oidc/{}/", record.uid));
    assert_eq!(json!(record.spec().issuer), url);
    // A body that does not name it, and one that was read and is sent back.
    for body in [least(), sent_back(&created)] {
        let answer = stamp.ask("PUT", C, body).await;
        assert_eq!(answer.status, 200, "{:#}", answer.body);
        assert_eq!(answer.body["properties"]["oidcIssuerProfile"]["issuerURL"], url);
        assert_eq!(json!(stamp.record("c").await.unwrap().spec().issuer), url);
    }
    let off = with(json!({ "oidcIssuerProfile": { "enabled": false } }));
    refused(&stamp, C, off, "properties.oidcIssuerProfile.enabled").await;
    // A cluster of an earlier release gets one by an update.
    let plain = stamp.create("d", least()).await;
    assert_eq!(
        plain["properties"]["oidcIssuerProfile"],
        json!({ "enabled": false })
    );
    let asked = stamp.ask("PUT", "managedClusters/d", with(issuer())).await;
    assert_eq!(asked.status, 200);
    let uid = stamp.record("d").await.unwrap().uid;
    assert_eq!(
        asked.body["properties"]["oidcIssuerProfile"]["issuerURL"],
        format!("https://stamp.test:8443/oidc/{uid}/")
    );
}

#[tokio::test(start_paused = true)]
async fn workload_identity_needs_an_issuer_and_can_be_switched_off() {
    const FIELD: &str = "properties.securityProfile.workloadIdentity.enabled";
    let stamp = Stamp::new().await;
    let asked = |enabled: bool| json!({ "workloadIdentity": { "enabled": enabled } });
    refused(&stamp, C, with(json!({ "securityProfile": asked(true) })), FIELD).await;
    let mut both = issuer();
    both["securityProfile"] = asked(true);
    stamp.create("c", with(both)).await;
    let is_on = async || stamp.record("c").await.unwrap().spec().workload_identity;
    assert!(is_on().await);
    assert_eq!(stamp.ask("PUT", C, least()).await.status, 200);
    assert!(is_on().await, "who says nothing takes nothing away");
    let off = with(json!({ "securityProfile": asked(false) }));
    assert_eq!(stamp.ask("PUT", C, off).await.status, 200);
    assert!(!is_on().await);
}

#[tokio::test(start_paused = true)]
async fn the_directory_is_known_with_its_defaults_and_stays() {
    let stamp = Stamp::new().await;
    let created = stamp
        .create("c", with(json!({ "aadProfile": { "managed": true } })))
        .await;
    assert_eq!(
        created["properties"]["aadProfile"],
        json!({ "managed": true, "adminGroupObjectIDs": [], "enableAzureRBAC": false, "tenantID": TENANT })
    );
    let directory = async || stamp.record("c").await.unwrap().spec().directory.clone().unwrap();
    let full = json!({ "aadProfile": {
        "managed": true, "adminGroupObjectIDs": [GROUP], "enableAzureRBAC": true, "tenantID": TENANT.to_uppercase()
    } });
    assert_eq!(stamp.ask("PUT", C, with(full)).await.status, 200);
    let known = DirectoryAccess {
        tenant: TENANT.to_owned(),
        admins: vec![GROUP.to_owned()],
        roles: true,
    };
    assert_eq!(directory().await, known);
    for silent in [least(), with(json!({ "aadProfile": { "managed": true } }))] {
        assert_eq!(stamp.ask("PUT", C, silent).await.status, 200);
        assert_eq!(directory().await, known, "who says nothing takes nothing away");
    }
    let fewer =
        json!({ "aadProfile": { "managed": true, "adminGroupObjectIDs": [], "enableAzureRBAC": false } });
    assert_eq!(stamp.ask("PUT", C, with(fewer)).await.status, 200);
    assert_eq!(
        (directory().await.admins.len(), directory().await.roles),
        (0, false)
    );
    for (profile, target) in [
        (json!({ "managed": false }), "properties.aadProfile.managed"),
        (
            json!({ "managed": true, "tenantID": GROUP }),
            "properties.aadProfile.tenantID",
        ),
        (
            json!({ "managed": true, "adminGroupObjectIDs": ["admins"] }),
            "properties.aadProfile.adminGroupObjectIDs[0]",
        ),
        (
            json!({ "managed": true, "serverAppID": GROUP }),
            "properties.aadProfile.serverAppID",
        ),
    ] {
        refused(&stamp, C, with(json!({ "aadProfile": profile })), target).await;
    }
    for (profile, target) in [
        (
            json!({ "enableAzureRBAC": true }),
            "properties.aadProfile.managed",
        ),
        (
            json!({ "clientAppID": GROUP }),
            "properties.aadProfile.clientAppID",
        ),
    ] {
        let body = with(json!({ "aadProfile": profile }));
        refused(&stamp, "managedClusters/new", body, target).await;
    }
    let none = stamp
        .create("plain", with(json!({ "aadProfile": { "managed": false } })))
        .await;
    assert!(none["properties"].get("aadProfile").is_none(), "{none:#}");
}

#[tokio::test(start_paused = true)]
async fn a_user_of_a_cluster_that_knows_the_directory_gets_no_credential() {
    let stamp = Stamp::new().await;
    for (name, body) in [
        ("c", with(json!({ "aadProfile": { "managed": true } }))),
        ("d", least()),
    ] {
        stamp.create(name, body).await;
        stamp.reach(name).await;
    }
    let get = async |cluster: &str, what: &str| {
        let answer = stamp
            .ask("POST", &format!("managedClusters/{cluster}/{what}"), Value::Null)
            .await;
        assert_eq!(answer.status, 200, "{:#}", answer.body);
        let value = answer.body["kubeconfigs"][0]["value"]
            .as_str()
            .unwrap()
            .to_owned();
        String::from_utf8(STANDARD.decode(value).unwrap()).unwrap()
    };
    for (query, format) in [("", "Exec"), ("?format=exec", "Exec"), ("?format=Azure", "Azure")] {
        let config = get("c", &format!("listClusterUserCredential{query}")).await;
        assert_eq!(config, format!("{format} of c for {TENANT}"));
        // There, it has no meaning.
        let config = get("d", &format!("listClusterUserCredential{query}")).await;
        assert_eq!(config, "clusterUser of d");
    }
    assert_eq!(get("c", "listClusterAdminCredential").await, "clusterAdmin of c");
}

#[tokio::test(start_paused = true)]
async fn a_reset_changes_one_profile() {
    let stamp = Stamp::new().await;
    stamp
        .create("c", with(json!({ "aadProfile": { "managed": true } })))
        .await;
    let reset = async |cluster: &str, what: &str, body: Value| {
        stamp
            .ask("POST", &format!("managedClusters/{cluster}/{what}"), body)
            .await
    };
    let asked = json!({ "managed": true, "adminGroupObjectIDs": [GROUP] });
    let answer = reset("c", "resetAADProfile", asked.clone()).await;
    assert_eq!(answer.status, 202, "{:#}", answer.body);
    let record = stamp.record("c").await.unwrap();
    assert_eq!(record.spec().directory.clone().unwrap().admins, [GROUP]);
    for (body, target) in [
        (json!({ "managed": false }), "properties.aadProfile.managed"),
        (
            json!({ "managed": true, "tenantID": GROUP }),
            "properties.aadProfile.tenantID",
        ),
    ] {
        let refused = reset("c", "resetAADProfile", body).await;
        assert_eq!(
            (refused.status, &refused.body["error"]["target"]),
            (400, &json!(target))
        );
    }
    // The service principal: of a cluster that has one, with its secret.
    let principal = json!({ "servicePrincipalProfile": { "clientId": "app", "secret": "first" } });
    stamp.create("d", with(principal)).await;
    let before = stamp.record("d").await.unwrap();
    let asked = json!({ "clientId": "other", "secret": "second" });
    let answer = reset("d", "resetServicePrincipalProfile", asked.clone()).await;
    assert_eq!(answer.status, 202, "{:#}", answer.body);
    let after = stamp.record("d").await.unwrap();
    assert_eq!(
        after.body()["properties"]["servicePrincipalProfile"],
        json!({ "clientId": "other" })
    );
    assert_ne!(before.sealed, after.sealed);
    assert!(!json!(after).to_string().contains("second"));
    for (cluster, body, status, target) in [
        ("d", json!({ "clientId": "other" }), 400, "secret"),
        (
            "d",
            json!({ "secret": "x" }),
            400,
            "properties.servicePrincipalProfile.clientId",
        ),
        ("c", asked, 400, "properties.servicePrincipalProfile.clientId"),
    ] {
        let refused = reset(cluster, "resetServicePrincipalProfile", body.clone()).await;
        assert_eq!(refused.status, status, "{cluster} {body}: {:#}", refused.body);
        assert_eq!(refused.body["error"]["target"], target, "{cluster} {body}");
    }
}
