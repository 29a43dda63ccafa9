//! Public IP addresses of tenants, as clients request them.

use arm_wire::{ArmError, Response};
use cluster_spec::PodNetworking;
use control_records::{
    LeaseRecord, ObservedRecord,
    balancer::BalancerRecord,
    key,
    network::{self, NetworkRecord},
};
use control_store::{Txn, get_record, put_record};
use http::Method;
use serde_json::{Value, json};

use crate::tests::{Asked, NETWORK, at};

const AT: &str = "resourceGroups/g/providers/Microsoft.Network/publicIPAddresses";

async fn put(stamp: &Asked, name: &str, body: Value) -> Result<Response, ArmError> {
    stamp.send(Method::PUT, &format!("{AT}/{name}"), body).await
}

async fn delete(stamp: &Asked, name: &str) -> Result<Response, ArmError> {
    stamp
        .send(Method::DELETE, &format!("{AT}/{name}"), Value::Null)
        .await
}

fn body() -> Value {
    json!({
        "location": "local", "sku": { "name": "Standard" },
        "properties": { "publicIPAllocationMethod": "Static", "publicIPAddressVersion": "IPv4", "idleTimeoutInMinutes": 10 },
    })
}

/// Gives it an address, as the loops do.
async fn leased(stamp: &Asked) -> NetworkRecord {
    let key = network::key(network::PUBLIC_ADDRESSES, "s", "g", "front");
    let found = get_record::<NetworkRecord>(&*stamp.store, &key).await.unwrap();
    let mut record = found.unwrap().value;
    record.properties["ipAddress"] = json!("100.64.8.9");
    let lease = LeaseRecord {
        v: 1,
        owner: record.public_holder(),
    };
    let address = record.public_address().unwrap();
    let txn = Txn::default()
        .with(put_record(key, &record))
        .with(put_record(key::lease("vips", address), &lease));
    stamp.store.txn(txn).await.unwrap();
    record
}

#[tokio::test]
async fn an_address_is_made_shown_and_deleted_with_its_lease() {
    let stamp = Asked::new(false, PodNetworking::AzureOverlay).await;
    let made = put(&stamp, "Front", body()).await.unwrap();
    assert_eq!(made.status.as_u16(), 201);
    assert_eq!(made.body.unwrap()["properties"]["provisioningState"], "Updating");
    leased(&stamp).await;
    let shown = stamp.get(&format!("{AT}/front")).await;
    let properties = &shown["properties"];
    assert_eq!(
        (&properties["ipAddress"], &properties["provisioningState"]),
        (&json!("100.64.8.9"), &json!("Succeeded"))
    );
    assert_eq!(properties["idleTimeoutInMinutes"], 10);
    // A body that was read may be sent back, and changes nothing.
    let again = put(&stamp, "front", shown.clone()).await.unwrap();
    assert_eq!((again.status.as_u16(), again.body.unwrap()), (200, shown));
    let tags = stamp
        .send(
            Method::PATCH,
            &format!("{AT}/front"),
            json!({ "tags": { "a": "b" } }),
        )
        .await
        .unwrap()
        .body
        .unwrap();
    assert_eq!(tags["properties"]["ipAddress"], "100.64.8.9");
    assert_eq!(stamp.names(AT).await, ["Front"]);
    assert_eq!(delete(&stamp, "front").await.unwrap().status.as_u16(), 200);
    assert_eq!(delete(&stamp, "front").await.unwrap().status.as_u16(), 204);
    let lease = key::lease("vips", [100, 64, 8, 9].into());
    assert!(stamp.store.get(&lease).await.unwrap().is_none());
}

#[tokio::test]
async fn an_address_that_a_service_has_is_not_deleted_and_is_shown_once() {
    let stamp = Asked::new(false, PodNetworking::AzureOverlay).await;
    put(&stamp, "front", body()).await.unwrap();
    let mut record = leased(&stamp).await;
    record.clusters.insert("u1".to_owned());
    let id = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/publicIPAddresses/front";
    let service = BalancerRecord {
        v: 1,
        uid: "0b3f9d1e-7c55-4c0a-9a55-1f6f0a6b7c8d".to_owned(),
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
        address: [100, 64, 8, 9].into(),
        internal: false,
        public: Some(id.to_owned()),
        asked: Some("g/front".to_owned()),
        created_at: at(),
    };
    let own = key::observed("u1");
    let observed = get_record::<ObservedRecord>(&*stamp.store, &own).await.unwrap();
    let observed = ObservedRecord {
        balanced: true,
        ..observed.unwrap().value
    };
    let txn = Txn::default()
        .with(put_record(own, &observed))
        .with(put_record(record.key(network::PUBLIC_ADDRESSES), &record))
        .with(put_record(BalancerRecord::key("u1", &service.uid), &service));
    stamp.store.txn(txn).await.unwrap();
    let refused = delete(&stamp, "front").await.unwrap_err();
    assert_eq!(refused.code.code, "PublicIPAddressCannotBeDeleted");
    assert!(refused.message.contains("shop/web"), "{}", refused.message);
    let frontends = stamp.get(&format!("{NETWORK}/loadBalancers/kubernetes")).await;
    let frontend = &frontends["properties"]["frontendIPConfigurations"][0];
    assert_eq!(frontend["properties"]["publicIPAddress"]["id"], id);
    let shown = stamp.get(&format!("{AT}/front")).await;
    assert!(
        shown["properties"]["ipConfiguration"]["id"]
            .as_str()
            .unwrap()
            .eq_ignore_ascii_case(frontend["id"].as_str().unwrap()),
        "{shown}"
    );
    // Not also as one that the cluster has made.
    assert_eq!(
        stamp.names(&format!("{NETWORK}/publicIPAddresses")).await,
        ["kube-apiserver", "aks-outbound"]
    );
}

#[tokio::test]
async fn what_is_wrong_is_told_by_its_property() {
    let stamp = Asked::new(false, PodNetworking::AzureOverlay).await;
    let with = |change: fn(&mut Value)| {
        let mut body = body();
        change(&mut body);
        body
    };
    for (body, code, target) in [
        (
            with(|body| body["sku"]["name"] = json!("Basic")),
            "PropertyNotSupported",
            "sku.name",
        ),
        (
            with(|body| body["properties"]["publicIPAllocationMethod"] = json!("Dynamic")),
            "PropertyNotSupported",
            "properties.publicIPAllocationMethod",
        ),
        (
            with(|body| body["properties"]["publicIPAddressVersion"] = json!("IPv6")),
            "PropertyNotSupported",
            "properties.publicIPAddressVersion",
        ),
        (
            with(|body| body["properties"]["dnsSettings"] = json!({ "domainNameLabel": "shop" })),
            "PropertyNotSupported",
            "properties.dnsSettings.domainNameLabel",
        ),
        (
            with(|body| body["properties"]["idleTimeoutInMinutes"] = json!(1)),
            "InvalidParameter",
            "properties.idleTimeoutInMinutes",
        ),
        (
            with(|body| body["location"] = Value::Null),
            "MissingRequiredParameter",
            "location",
        ),
    ] {
        let refused = put(&stamp, "front", body).await.unwrap_err();
        assert_eq!(
            (refused.code.code, refused.target.as_deref()),
            (code, Some(target)),
            "{}",
            refused.message
        );
    }
    let made_by_cluster = stamp
        .send(
            Method::DELETE,
            &format!("{NETWORK}/publicIPAddresses/aks-outbound"),
            Value::Null,
        )
        .await
        .unwrap_err();
    assert_eq!(made_by_cluster.code.code, "OperationNotAllowed");
}
