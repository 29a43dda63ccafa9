//! Trusted access and identity bindings: what may be said, what is kept of it, and when it is said to be done.

use std::sync::Arc;

use arm_ids::ResourcePath;
use arm_kernel::{AccessControl, Authorizer};
use arm_wire::{ArmError, Principal};
use async_trait::async_trait;
use control_records::{ChildRecord, child, key};
use control_store::{Txn, get_record};
use serde_json::{Value, json};

use crate::stamp::{IDENTITY, SUBSCRIPTION, Stamp, least, names};

const TRUSTED: &str = "managedClusters/c/trustedAccessRoleBindings";
const IDENTITIES: &str = "managedClusters/c/identityBindings";
const READER: &str = "Microsoft.ManagedIdentity/userAssignedIdentities/reader";
const SCALER: &str = "Microsoft.ManagedIdentity/userAssignedIdentities/scaler";

fn trusting(source: &str, roles: &[&str]) -> Value {
    json!({ "properties": { "sourceResourceId": source, "roles": roles } })
}

fn being(identity: &str) -> Value {
    json!({ "properties": { "managedIdentity": { "resourceId": identity } } })
}

/// A stamp with a cluster that knows the directory and is an issuer, one that is neither, and an identity; its object id.
async fn stand() -> (Stamp, String) {
    let stamp = Stamp::new().await;
    let principal = stamp.add_identity("own").await;
    let properties = json!({ "aadProfile": { "managed": true }, "oidcIssuerProfile": { "enabled": true } });
    stamp
        .create("c", json!({ "location": "local", "properties": properties }))
        .await;
    stamp.create("plain", least()).await;
    stamp.reach("c").await;
    (stamp, principal)
}

async fn kept(stamp: &Stamp, kind: &str, name: &str) -> Option<ChildRecord> {
    let uid = stamp.record("c").await.unwrap().uid;
    let found = get_record(&*stamp.store, &child::key(&uid, kind, name)).await;
    found.unwrap().map(|found| found.value)
}

#[tokio::test(start_paused = true)]
async fn an_identity_is_trusted_once_the_cluster_says_so() {
    let (stamp, principal) = stand().await;
    let path = format!("{TRUSTED}/backup");
    let shouted = READER.to_uppercase();
    let made = stamp.ask("PUT", &path, trusting(IDENTITY, &[&shouted])).await;
    assert_eq!(made.status, 201, "{:#}", made.body);
    assert_eq!(
        made.body["properties"],
        json!({ "sourceResourceId": IDENTITY, "roles": [READER], "provisioningState": "Creating" })
    );
    assert_eq!(
        made.body["type"],
        "Microsoft.ContainerService/managedClusters/trustedAccessRoleBindings"
    );
    let record = kept(&stamp, child::TRUSTED_BINDINGS, "backup").await.unwrap();
    assert_eq!(record.principal.as_deref(), Some(principal.as_str()));
    let state = async || stamp.get(&path).await.body["properties"]["provisioningState"].clone();
    let grant = async || {
        let at = stamp.env.clock.now();
        stamp
            .observe("c", |observed| {
                observed.trusted.insert("backup".to_owned(), at);
            })
            .await;
    };
    grant().await;
    assert_eq!(state().await, "Succeeded");

    // What was read is sent back with another role. The cluster does not grant it while the answer waits.
    stamp.observe("c", |observed| observed.formed = true).await;
    stamp.env.clock.sleep(std::time::Duration::from_secs(1)).await;
    let mut body = stamp.get(&path).await.body;
    body["properties"]["roles"] = json!([READER, SCALER]);
    let changed = stamp.ask("PUT", &path, body).await;
    assert_eq!(
        (changed.status, &changed.body["properties"]["provisioningState"]),
        (200, &json!("Updating"))
    );
    grant().await;
    assert_eq!(state().await, "Succeeded");
    assert_eq!(names(&stamp.get(TRUSTED).await.body), ["backup"]);
    stamp.observe("c", |observed| observed.trusted.clear()).await;
    assert_eq!(stamp.ask("DELETE", &path, Value::Null).await.status, 204);
    assert_eq!(stamp.ask("DELETE", &path, Value::Null).await.status, 204);
    assert_eq!(stamp.get(TRUSTED).await.body, json!({ "value": [] }));
    assert_eq!(stamp.get(&path).await.code(), "ResourceNotFound");
}

#[tokio::test(start_paused = true)]
async fn the_roles_that_there_are_can_be_listed() {
    let (stamp, _) = stand().await;
    let all = stamp
        .get(&format!(
            "/subscriptions/{SUBSCRIPTION}/providers/Microsoft.ContainerService/locations/local/trustedAccessRoles"
        ))
        .await;
    let roles = all.body["value"].as_array().unwrap();
    assert_eq!(roles.len(), 3, "{:#}", all.body);
    for role in roles {
        assert_eq!(
            role["sourceResourceType"],
            "Microsoft.ManagedIdentity/userAssignedIdentities"
        );
        assert!(role["name"].is_string() && role["rules"][0]["verbs"].is_array());
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_is_bound_to_the_identity_that_there_is() {
    let (stamp, principal) = stand().await;
    let path = format!("{IDENTITIES}/shop");
    let made = stamp.ask("PUT", &path, being(IDENTITY)).await;
    assert_eq!(made.status, 201, "{:#}", made.body);
    let properties = &made.body["properties"];
    assert_eq!(properties["provisioningState"], "Succeeded");
    assert_eq!(properties["managedIdentity"]["objectId"], json!(principal));
    assert!(properties["managedIdentity"]["clientId"].is_string());
    let issuer = properties["oidcIssuer"]["oidcIssuerUrl"].as_str().unwrap();
    assert!(issuer.starts_with("https://stamp.test:8443/oidc/"), "{issuer}");
    let record = kept(&stamp, child::IDENTITY_BINDINGS, "shop").await.unwrap();
    assert_eq!(record.principal.as_deref(), Some(principal.as_str()));
    // What was read is sent back.
    let again = stamp.ask("PUT", &path, stamp.get(&path).await.body).await;
    assert_eq!((again.status, &again.body["properties"]), (200, properties));

    // One that was made anew is another, until the binding is written again.
    let gone = Txn::default().delete(key::managed_identity(SUBSCRIPTION, "rg1", "own"));
    stamp.store.txn(gone).await.unwrap();
    let anew = stamp.add_identity("own").await;
    assert_eq!(
        stamp.get(&path).await.body["properties"]["managedIdentity"]["objectId"],
        json!(principal)
    );
    let bound = stamp.ask("PUT", &path, being(&IDENTITY.to_uppercase())).await;
    assert_eq!(
        bound.body["properties"]["managedIdentity"]["objectId"],
        json!(anew),
        "{:#}",
        bound.body
    );
    assert_eq!(stamp.ask("DELETE", &path, Value::Null).await.status, 204);
    assert_eq!(kept(&stamp, child::IDENTITY_BINDINGS, "shop").await, None);
}

#[tokio::test(start_paused = true)]
async fn what_no_binding_can_be_is_refused() {
    let (stamp, _) = stand().await;
    stamp.add_identity("other").await;
    let made = stamp
        .ask("PUT", &format!("{IDENTITIES}/shop"), being(IDENTITY))
        .await;
    assert_eq!(made.status, 201, "{:#}", made.body);
    let none = IDENTITY.replace("/own", "/none");
    let other = IDENTITY.replace("/own", "/other");
    let vault = IDENTITY.replace(
        "Microsoft.ManagedIdentity/userAssignedIdentities",
        "Microsoft.DataProtection/backupVaults",
    );
    let source = "properties.sourceResourceId";
    let resource = "properties.managedIdentity.resourceId";
    for (path, body, code, target) in [
        (
            format!("{TRUSTED}/a_b"),
            trusting(IDENTITY, &[READER]),
            "InvalidResourceName",
            "name",
        ),
        (
            format!("{TRUSTED}/{}", "a".repeat(25)),
            trusting(IDENTITY, &[READER]),
            "InvalidResourceName",
            "name",
        ),
        (
            format!("{TRUSTED}/a"),
            json!({ "properties": { "roles": [READER] } }),
            "MissingRequiredParameter",
            source,
        ),
        (
            format!("{TRUSTED}/a"),
            trusting(&none, &[READER]),
            "InvalidResourceReference",
            source,
        ),
        (
            format!("{TRUSTED}/a"),
            trusting(&vault, &[READER]),
            "InvalidParameter",
            source,
        ),
        (
            format!("{TRUSTED}/a"),
            json!({ "properties": { "sourceResourceId": IDENTITY } }),
            "MissingRequiredParameter",
            "properties.roles",
        ),
        (
            format!("{TRUSTED}/a"),
            trusting(IDENTITY, &[]),
            "InvalidParameter",
            "properties.roles",
        ),
        (
            format!("{TRUSTED}/a"),
            trusting(
                IDENTITY,
                &[READER, "Microsoft.DataProtection/backupVaults/backup-operator"],
            ),
            "InvalidParameter",
            "properties.roles[1]",
        ),
        (
            format!("{TRUSTED}/a"),
            trusting(IDENTITY, &[READER, &READER.to_lowercase()]),
            "InvalidParameter",
            "properties.roles[1]",
        ),
        (
            "managedClusters/plain/trustedAccessRoleBindings/a".to_owned(),
            trusting(IDENTITY, &[READER]),
            "OperationNotAllowed",
            "properties",
        ),
        (
            format!("{IDENTITIES}/a"),
            json!({}),
            "MissingRequiredParameter",
            resource,
        ),
        (
            format!("{IDENTITIES}/a"),
            being(&none),
            "InvalidResourceReference",
            resource,
        ),
        (
            format!("{IDENTITIES}/a"),
            being("own"),
            "InvalidParameter",
            resource,
        ),
        (
            format!("{IDENTITIES}/shop"),
            being(&other),
            "PropertyChangeNotAllowed",
            resource,
        ),
        (
            "managedClusters/plain/identityBindings/a".to_owned(),
            being(IDENTITY),
            "OperationNotAllowed",
            "properties",
        ),
    ] {
        let answer = stamp.ask("PUT", &path, body.clone()).await;
        let error = &answer.body["error"];
        assert_eq!(
            (answer.status, answer.code(), error["target"].as_str()),
            (400, code, Some(target)),
            "{path} {body} {error}"
        );
    }
    assert_eq!(stamp.get(TRUSTED).await.body, json!({ "value": [] }));
}

#[tokio::test(start_paused = true)]
async fn a_cluster_has_so_many_and_no_more() {
    let (stamp, _) = stand().await;
    for number in 0..100 {
        let made = stamp
            .ask("PUT", &format!("{IDENTITIES}/b{number}"), being(IDENTITY))
            .await;
        assert_eq!(made.status, 201, "{:#}", made.body);
    }
    let more = stamp
        .ask("PUT", &format!("{IDENTITIES}/more"), being(IDENTITY))
        .await;
    assert_eq!(more.code(), "QuotaExceeded", "{:#}", more.body);
    // One that is there can be written again.
    let again = stamp
        .ask("PUT", &format!("{IDENTITIES}/b0"), being(IDENTITY))
        .await;
    assert_eq!(again.status, 200);
}

/// May do everything but one action.
struct AllBut(&'static str);

#[async_trait]
impl Authorizer for AllBut {
    async fn may(&self, _: &Principal, action: &str, _: &ResourcePath) -> Result<bool, ArmError> {
        Ok(!action.eq_ignore_ascii_case(self.0))
    }

    async fn reaches(&self, _: &Principal, _: &ResourcePath) -> Result<bool, ArmError> {
        Ok(true)
    }
}

#[tokio::test(start_paused = true)]
async fn who_binds_an_identity_is_permitted_something_there() {
    let (stamp, _) = stand().await;
    for (path, body, action) in [
        (
            format!("{TRUSTED}/a"),
            trusting(IDENTITY, &[READER]),
            "Microsoft.ManagedIdentity/userAssignedIdentities/read",
        ),
        (
            format!("{IDENTITIES}/a"),
            being(IDENTITY),
            "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials/write",
        ),
    ] {
        let access = AccessControl {
            authorizer: Arc::new(AllBut(action)),
            ..AccessControl::allow_all()
        };
        let request = stamp.request("PUT", &path, body.clone());
        let refused = stamp.send_as(request, access).await;
        assert_eq!(
            (refused.status, refused.code()),
            (403, "LinkedAuthorizationFailed"),
            "{:#}",
            refused.body
        );
        assert_eq!(stamp.ask("PUT", &path, body).await.status, 201);
    }
}
