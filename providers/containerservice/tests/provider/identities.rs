//! User-assigned identities of clusters and of their kubelets.

use std::sync::Arc;

use arm_ids::ResourcePath;
use arm_kernel::{AccessControl, Authorizer};
use arm_wire::{ArmError, Principal};
use async_trait::async_trait;
use control_records::key;
use control_store::Txn;
use serde_json::{Value, json};

use crate::stamp::{Answer, IDENTITY, SUBSCRIPTION, Stamp, least, sent_back};

const C: &str = "managedClusters/c";
const KUBELET: &str = "/properties/identityProfile/kubeletidentity";

fn id(name: &str) -> String {
    IDENTITY.replace("/own", &format!("/{name}"))
}

/// The least body, with an identity.
fn with(identity: &Value) -> Value {
    let mut body = least();
    body["identity"] = identity.clone();
    body
}

fn user(name: &str) -> Value {
    let id = id(name);
    with(&json!({ "type": "UserAssigned", "userAssignedIdentities": { id: {} } }))
}

fn with_kubelet(mut body: Value, name: &str) -> Value {
    body["properties"]["identityProfile"] = json!({ "kubeletidentity": { "resourceId": id(name) } });
    body
}

async fn put(stamp: &Stamp, body: Value) -> Answer {
    stamp.ask("PUT", C, body).await
}

/// Refused, with this code and target.
fn refused(answer: &Answer, code: &str, target: &str) {
    let (error, what) = (&answer.body["error"], (&answer.body, answer.status));
    assert_eq!(
        (error["code"].as_str(), error["target"].as_str()),
        (Some(code), Some(target)),
        "{what:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_cluster_has_the_identity_that_it_is_given() {
    let stamp = Stamp::new().await;
    let principal = stamp.add_identity("own").await;
    let made = stamp.create("c", user("own")).await;
    assert_eq!(made["identity"]["type"], "UserAssigned");
    assert_eq!(
        made["identity"].get("principalId"),
        None,
        "it has none of its own"
    );
    let assigned = &made["identity"]["userAssignedIdentities"][IDENTITY];
    assert_eq!(assigned["principalId"], json!(principal));
    assert!(assigned["clientId"].is_string());
    // The kubelets' identity is made for them, also here.
    let kubelet = made.pointer(KUBELET).unwrap();
    assert!(kubelet["resourceId"].as_str().unwrap().ends_with("/c-agentpool"));
    assert!(stamp.knows(kubelet["objectId"].as_str().unwrap()).await);
    // A body that was read is sent back, and the original request is repeated, also in other letter case.
    stamp.reach("c").await;
    let mut shouted =
        with(&json!({ "type": "userassigned", "userAssignedIdentities": { IDENTITY.to_uppercase(): {} } }));
    shouted["properties"]["identityProfile"] = made["properties"]["identityProfile"].clone();
    for body in [sent_back(&made), user("own"), shouted] {
        let again = put(&stamp, body).await;
        assert_eq!(again.status, 200, "{:#}", again.body);
        assert_eq!(again.body["eTag"], made["eTag"]);
    }
    // A body that does not name it leaves it unchanged.
    let mut silent = least();
    silent["tags"] = json!({ "a": "b" });
    let kept = put(&stamp, silent).await;
    assert_eq!((kept.status, &kept.body["identity"]), (200, &made["identity"]));
}

#[tokio::test(start_paused = true)]
async fn kubelets_have_what_they_are_given() {
    let stamp = Stamp::new().await;
    stamp.add_identity("own").await;
    let kubelets = stamp.add_identity("kubelets").await;
    let made = stamp.create("c", with_kubelet(user("own"), "kubelets")).await;
    let kubelet = made.pointer(KUBELET).unwrap();
    assert_eq!(kubelet["resourceId"], json!(id("kubelets")));
    assert_eq!(kubelet["objectId"], json!(kubelets));
    let again = put(&stamp, sent_back(&made)).await;
    assert_eq!(again.status, 200, "{:#}", again.body);
    // Ids that clients send along have to be the identity's own.
    let mut other = with_kubelet(user("own"), "kubelets");
    other["properties"]["identityProfile"]["kubeletidentity"]["objectId"] = json!("other");
    refused(
        &put(&stamp, other).await,
        "InvalidParameter",
        "properties.identityProfile.kubeletidentity.objectId",
    );
    // They need a user-assigned identity of the cluster.
    let target = "properties.identityProfile.kubeletidentity.resourceId";
    let system = json!({ "type": "SystemAssigned" });
    refused(
        &put(&stamp, with_kubelet(with(&system), "kubelets")).await,
        "InvalidParameter",
        target,
    );
    let anew = put(&stamp, with(&system)).await;
    assert_eq!(anew.status, 200, "{:#}", anew.body);
    let kubelet = anew.body.pointer(KUBELET).unwrap();
    assert!(kubelet["resourceId"].as_str().unwrap().ends_with("/c-agentpool"));
    assert!(stamp.knows(&kubelets).await, "it is not the cluster's to remove");
    // And from a generated identity to a user-assigned one.
    let made = kubelet["objectId"].as_str().unwrap().to_owned();
    let own = put(&stamp, with_kubelet(user("own"), "kubelets")).await;
    assert_eq!(
        own.body.pointer(KUBELET).unwrap()["objectId"],
        json!(kubelets),
        "{:#}",
        own.body
    );
    assert!(!stamp.knows(&made).await);
}

#[tokio::test(start_paused = true)]
async fn identities_are_changed_both_ways_and_nobody_is_left_behind() {
    let stamp = Stamp::new().await;
    let own = stamp.add_identity("own").await;
    stamp.add_identity("other").await;
    let made = stamp.create("c", least()).await;
    let system = made["identity"]["principalId"].as_str().unwrap().to_owned();
    assert!(stamp.knows(&system).await);

    let mine = put(&stamp, user("own")).await;
    assert_eq!(
        mine.body["identity"]["userAssignedIdentities"][IDENTITY]["principalId"],
        json!(own)
    );
    assert!(
        !stamp.knows(&system).await,
        "nobody stands for the cluster by it any more"
    );
    assert_eq!(
        mine.body["properties"]["identityProfile"],
        made["properties"]["identityProfile"]
    );

    let other = put(&stamp, user("other")).await;
    let assigned = other.body["identity"]["userAssignedIdentities"]
        .as_object()
        .unwrap();
    assert_eq!(assigned.keys().collect::<Vec<_>>(), [&id("other")]);

    let back = put(&stamp, with(&json!({ "type": "SystemAssigned" }))).await;
    let anew = back.body["identity"]["principalId"].as_str().unwrap();
    assert_ne!(anew, system);
    assert!(stamp.knows(anew).await && stamp.knows(&own).await);

    let mut principal = least();
    principal["properties"]["servicePrincipalProfile"] = json!({ "clientId": "app", "secret": "s3cret" });
    let path = "managedClusters/d";
    assert_eq!(stamp.ask("PUT", path, principal).await.status, 201);
    let mut managed = user("own");
    managed["properties"]["servicePrincipalProfile"] = json!({ "clientId": "app" });
    let managed = stamp.ask("PUT", path, managed).await;
    assert_eq!(
        managed.body["properties"]["servicePrincipalProfile"]["clientId"], "msi",
        "{:#}",
        managed.body
    );
    assert_eq!(managed.body["identity"]["type"], "UserAssigned");
    let none = with(&json!({ "type": "None" }));
    refused(
        &stamp.ask("PUT", path, none).await,
        "PropertyChangeNotAllowed",
        "identity.type",
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_named_has_to_be_one_identity_that_there_is() {
    let stamp = Stamp::new().await;
    stamp.add_identity("own").await;
    stamp.add_identity("other").await;
    let target = "identity.userAssignedIdentities";
    let identities = |ids: Value| with(&json!({ "type": "UserAssigned", "userAssignedIdentities": ids }));
    for (body, code) in [
        (user("none"), "FailedIdentityOperation"),
        (identities(json!({})), "MissingRequiredParameter"),
        (
            identities(json!({ id("own"): {}, id("other"): {} })),
            "InvalidParameter",
        ),
        (identities(json!({ "own": {} })), "InvalidParameter"),
        (
            identities(json!({ "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/x/y": {} })),
            "InvalidParameter",
        ),
        (
            with(&json!({ "type": "SystemAssigned", "userAssignedIdentities": { IDENTITY: {} } })),
            "InvalidParameter",
        ),
    ] {
        refused(&put(&stamp, body).await, code, target);
    }
    let target = "properties.identityProfile.kubeletidentity.resourceId";
    refused(
        &put(&stamp, with_kubelet(user("own"), "none")).await,
        "FailedIdentityOperation",
        target,
    );
    refused(
        &put(&stamp, with_kubelet(least(), "own")).await,
        "InvalidParameter",
        target,
    );
    // Another identity replaces the first, in the form that a merging client sends.
    assert_eq!(put(&stamp, user("own")).await.status, 201);
    let merged = put(&stamp, identities(json!({ id("own"): null, id("other"): {} }))).await;
    assert_eq!(merged.status, 200, "{:#}", merged.body);
}

#[tokio::test(start_paused = true)]
async fn an_identity_that_is_deleted_stays_in_the_cluster_until_another_takes_its_place() {
    let stamp = Stamp::new().await;
    stamp.add_identity("own").await;
    stamp.add_identity("other").await;
    let made = stamp.create("c", user("own")).await;
    let gone = Txn::default().delete(key::managed_identity(SUBSCRIPTION, "rg1", "own"));
    stamp.store.txn(gone).await.unwrap();
    assert_eq!(stamp.get(C).await.body["identity"], made["identity"]);
    let tags = stamp.ask("PATCH", C, json!({ "tags": { "a": "b" } })).await;
    assert_eq!(tags.status, 200, "{:#}", tags.body);
    assert_eq!(put(&stamp, least()).await.status, 200);
    refused(
        &put(&stamp, sent_back(&made)).await,
        "FailedIdentityOperation",
        "identity.userAssignedIdentities",
    );
    assert_eq!(put(&stamp, user("other")).await.status, 200);
}

/// Permits all actions but assigning one identity; and none to the cluster's own identity.
struct Careful {
    spared: ResourcePath,
}

#[async_trait]
impl Authorizer for Careful {
    async fn may(&self, who: &Principal, action: &str, scope: &ResourcePath) -> Result<bool, ArmError> {
        Ok(who.name == "tester" && !(action.ends_with("/assign/action") && scope.same(&self.spared)))
    }

    async fn reaches(&self, _: &Principal, _: &ResourcePath) -> Result<bool, ArmError> {
        Ok(true)
    }
}

#[tokio::test(start_paused = true)]
async fn only_who_may_assign_an_identity_gives_it_to_a_cluster() {
    let stamp = Stamp::new().await;
    stamp.add_identity("own").await;
    stamp.add_identity("other").await;
    let access = || AccessControl {
        authorizer: Arc::new(Careful {
            spared: ResourcePath::parse(&id("other")).unwrap(),
        }),
        ..AccessControl::allow_all()
    };
    let ask = |body: Value| stamp.send_as(stamp.request("PUT", C, body), access());
    // The response is the same whether it exists or not.
    let spared = ask(user("other")).await;
    assert_eq!(
        (spared.status, spared.code()),
        (403, "LinkedAuthorizationFailed"),
        "{:#}",
        spared.body
    );
    assert!(spared.message().contains(&id("other")), "{}", spared.message());
    assert_eq!(
        ask(with_kubelet(user("own"), "other")).await.code(),
        "LinkedAuthorizationFailed"
    );
    assert!(stamp.record("c").await.is_none());
    // The cluster's identity may assign the kubelets' identity.
    stamp.add_identity("kubelets").await;
    let target = "properties.identityProfile.kubeletidentity.resourceId";
    let kubelets = ask(with_kubelet(user("own"), "kubelets")).await;
    refused(&kubelets, "CustomKubeletIdentityMissingPermissionError", target);
    assert_eq!(ask(user("own")).await.status, 201);
}
