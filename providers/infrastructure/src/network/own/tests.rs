//! VNETs and security groups of tenants, as clients request them.

use arm_wire::{ArmError, Response};
use cluster_spec::PodNetworking;
use control_records::{ClusterRecord, DesiredState, key, network, network::NetworkRecord};
use control_store::{Txn, get_record, put_record};
use http::Method;
use serde_json::{Value, json};

use crate::tests::Asked;

const AT: &str = "resourceGroups/g/providers/Microsoft.Network";

async fn stamp() -> Asked {
    Asked::new(false, PodNetworking::AzureOverlay).await
}

fn status(answer: &Result<Response, ArmError>) -> (u16, String) {
    match answer {
        Ok(response) => (response.status.as_u16(), String::new()),
        Err(error) => (error.code.status, error.code.code.to_owned()),
    }
}

async fn put(stamp: &Asked, path: &str, body: Value) -> Result<Response, ArmError> {
    stamp.send(Method::PUT, &format!("{AT}/{path}"), body).await
}

async fn delete(stamp: &Asked, path: &str) -> Result<Response, ArmError> {
    stamp
        .send(Method::DELETE, &format!("{AT}/{path}"), Value::Null)
        .await
}

async fn get(stamp: &Asked, path: &str) -> Value {
    let answer = stamp
        .send(Method::GET, &format!("{AT}/{path}"), Value::Null)
        .await;
    answer.unwrap().body.unwrap()
}

fn vnet(prefix: &str, subnets: &[(&str, &str)]) -> Value {
    let subnets = subnets
        .iter()
        .map(|(name, prefix)| json!({ "name": name, "properties": { "addressPrefix": prefix } }));
    json!({
        "location": "local",
        "properties": { "addressSpace": { "addressPrefixes": [prefix] }, "subnets": subnets.collect::<Vec<_>>() },
    })
}

#[tokio::test]
async fn a_vnet_is_made_changed_shown_and_deleted() {
    let stamp = stamp().await;
    let made = put(
        &stamp,
        "virtualNetworks/Hub",
        vnet("10.1.0.0/16", &[("a", "10.1.0.0/24")]),
    )
    .await;
    assert_eq!(status(&made).0, 201, "{made:?}");
    let made = made.unwrap().body.unwrap();
    assert_eq!(
        made["properties"]["subnets"][0]["properties"]["addressPrefix"],
        "10.1.0.0/24"
    );
    assert_eq!(
        made["properties"]["subnets"][0]["properties"]["privateEndpointNetworkPolicies"],
        "Disabled"
    );
    assert!(made["etag"].as_str().unwrap().starts_with("W/\""));
    // A body that was read may be sent back, and changes nothing.
    let again = put(&stamp, "virtualNetworks/hub", made.clone()).await.unwrap();
    assert_eq!((again.status.as_u16(), again.body.unwrap()), (200, made.clone()));
    // A PUT without subnets keeps them.
    let mut bare = vnet("10.1.0.0/16", &[]);
    bare["properties"].as_object_mut().unwrap().remove("subnets");
    bare["tags"] = json!({ "a": "b" });
    let bare = put(&stamp, "virtualNetworks/hub", bare)
        .await
        .unwrap()
        .body
        .unwrap();
    assert_eq!(
        (
            &bare["tags"]["a"],
            bare["properties"]["subnets"].as_array().unwrap().len()
        ),
        (&json!("b"), 1)
    );
    assert_ne!(bare["etag"], made["etag"]);

    let subnet = json!({ "properties": { "addressPrefixes": ["10.1.1.0/24"] } });
    let one = put(&stamp, "virtualNetworks/hub/subnets/b", subnet.clone()).await;
    assert_eq!(status(&one).0, 201, "{one:?}");
    assert_eq!(
        status(&put(&stamp, "virtualNetworks/hub/subnets/B", subnet.clone()).await).0,
        200
    );
    assert_eq!(
        get(&stamp, "virtualNetworks/hub/subnets/b").await["properties"]["addressPrefixes"][0],
        "10.1.1.0/24"
    );
    let listed = get(&stamp, "virtualNetworks/hub/subnets").await;
    assert_eq!(listed["value"].as_array().unwrap().len(), 2);
    assert_eq!(
        get(&stamp, "virtualNetworks").await["value"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    // With the one of the cluster.
    let all = stamp
        .send(
            Method::GET,
            "providers/Microsoft.Network/virtualNetworks",
            Value::Null,
        )
        .await
        .unwrap();
    assert_eq!(all.body.unwrap()["value"].as_array().unwrap().len(), 2);
    let tags = stamp
        .send(
            Method::PATCH,
            &format!("{AT}/virtualNetworks/hub"),
            json!({ "tags": { "c": "d" } }),
        )
        .await
        .unwrap();
    assert_eq!(tags.body.unwrap()["tags"], json!({ "c": "d" }));

    assert_eq!(
        status(&delete(&stamp, "virtualNetworks/hub/subnets/b").await).0,
        200
    );
    assert_eq!(
        status(&delete(&stamp, "virtualNetworks/hub/subnets/b").await).0,
        204
    );
    assert_eq!(status(&delete(&stamp, "virtualNetworks/hub").await).0, 200);
    assert_eq!(status(&delete(&stamp, "virtualNetworks/hub").await).0, 204);
    let orphan = put(&stamp, "virtualNetworks/hub/subnets/b", subnet).await;
    assert_eq!(status(&orphan), (404, "ParentResourceNotFound".to_owned()));
}

#[tokio::test]
async fn what_is_wrong_with_ranges_has_azures_codes() {
    let stamp = stamp().await;
    for (prefix, subnets, code) in [
        ("10.1.0.1/16", vec![], "InvalidCIDRNotation"),
        ("10.1.0.0", vec![], "InvalidCIDRNotation"),
        ("ten", vec![], "InvalidCIDRNotation"),
        ("fd00::/64", vec![], "PropertyNotSupported"),
        ("10.1.0.0/30", vec![], "NetcfgInvalidSubnet"),
        ("169.254.0.0/20", vec![], "InvalidParameter"),
        ("100.64.0.0/16", vec![], "InvalidParameter"),
        ("10.1.0.0/16", vec![("a", "10.1.0.0/30")], "NetcfgInvalidSubnet"),
        (
            "10.1.0.0/16",
            vec![("a", "10.2.0.0/24")],
            "NetcfgSubnetRangeOutsideVnet",
        ),
        (
            "10.1.0.0/16",
            vec![("a", "10.0.0.0/8")],
            "NetcfgSubnetRangeOutsideVnet",
        ),
        (
            "10.1.0.0/16",
            vec![("a", "10.1.0.0/23"), ("b", "10.1.1.0/24")],
            "NetcfgSubnetRangesOverlap",
        ),
        (
            "10.1.0.0/16",
            vec![("a", "10.1.0.0/24"), ("A", "10.1.1.0/24")],
            "InvalidParameter",
        ),
        ("10.1.0.0/16", vec![("-a", "10.1.0.0/24")], "InvalidResourceName"),
    ] {
        let answer = put(&stamp, "virtualNetworks/v", vnet(prefix, &subnets)).await;
        assert_eq!(
            status(&answer),
            (400, code.to_owned()),
            "{prefix} {subnets:?}: {answer:?}"
        );
    }
    let mut body = vnet("10.1.0.0/16", &[]);
    body["properties"]["addressSpace"]["addressPrefixes"] = json!(["10.1.0.0/16", "10.1.128.0/17"]);
    assert_eq!(
        status(&put(&stamp, "virtualNetworks/v", body).await).1,
        "InvalidParameter"
    );
    for (field, value, code) in [
        ("colour", json!("red"), "UnknownProperty"),
        (
            "virtualNetworkPeerings",
            json!([{ "name": "p" }]),
            "PropertyNotSupported",
        ),
        (
            "dhcpOptions",
            json!({ "dnsServers": ["10.0.0.1"] }),
            "PropertyNotSupported",
        ),
        ("dhcpOptions", json!({ "dnsServers": [] }), ""),
        ("enableDdosProtection", json!(false), ""),
    ] {
        let mut body = vnet("10.1.0.0/16", &[]);
        body["properties"][field] = value;
        assert_eq!(
            status(&put(&stamp, "virtualNetworks/v", body).await).1,
            code,
            "{field}"
        );
    }
}

#[tokio::test]
async fn subnets_that_clusters_are_in_stay() {
    let stamp = stamp().await;
    let body = vnet("10.1.0.0/16", &[("used", "10.1.0.0/24"), ("free", "10.1.1.0/24")]);
    assert_eq!(
        status(&put(&stamp, "virtualNetworks/v", body.clone()).await).0,
        201
    );
    // As the creation of a cluster writes it.
    let own = network::key(network::VNETS, "s", "g", "v");
    let mut record = get_record::<NetworkRecord>(&*stamp.store, &own)
        .await
        .unwrap()
        .unwrap()
        .value;
    record.clusters = ["u1".to_owned(), "gone".to_owned()].into();
    let mut cluster = get_record::<ClusterRecord>(&*stamp.store, &key::desired("u1"))
        .await
        .unwrap()
        .unwrap()
        .value;
    let subnet =
        "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/v/subnets/used";
    let mut all = cluster.body().clone();
    all["properties"]["agentPoolProfiles"][0]["vnetSubnetID"] = json!(subnet);
    cluster.state = DesiredState::new(all, cluster.state.decided().clone()).unwrap();
    let txn = Txn::default()
        .with(put_record(&own, &record))
        .with(put_record(key::desired("u1"), &cluster));
    stamp.store.txn(txn).await.unwrap();

    for path in ["virtualNetworks/v/subnets/used", "virtualNetworks/v"] {
        let refused = delete(&stamp, path).await;
        assert_eq!(
            status(&refused),
            (400, "InUseSubnetCannotBeDeleted".to_owned()),
            "{path}"
        );
    }
    for wrong in [
        vnet("10.1.0.0/16", &[("free", "10.1.1.0/24")]),
        vnet("10.1.0.0/16", &[("used", "10.1.0.0/25")]),
        vnet("10.0.0.0/8", &[("used", "10.1.0.0/24")]),
    ] {
        let refused = put(&stamp, "virtualNetworks/v", wrong).await;
        assert_eq!(status(&refused).1, "InUseSubnetCannotBeDeleted", "{refused:?}");
    }
    // Its security group may be set and removed: only the rules change.
    let group = put(&stamp, "networkSecurityGroups/n", json!({ "location": "local" })).await;
    let group = group.unwrap().body.unwrap()["id"].clone();
    let mut guarded = body.clone();
    guarded["properties"]["subnets"][0]["properties"]["networkSecurityGroup"] = json!({ "id": group });
    for body in [&guarded, &body, &guarded] {
        assert_eq!(
            status(&put(&stamp, "virtualNetworks/v", body.clone()).await),
            (200, String::new())
        );
    }
    let refused = delete(&stamp, "networkSecurityGroups/n").await;
    assert_eq!(
        status(&refused),
        (400, "InUseNetworkSecurityGroupCannotBeDeleted".to_owned())
    );
    assert_eq!(
        status(&put(&stamp, "virtualNetworks/v", body).await),
        (200, String::new())
    );
    assert_eq!(status(&delete(&stamp, "networkSecurityGroups/n").await).0, 200);
    assert_eq!(stamp.empty_group("g").await, 1, "what is in use is waited for");
    assert_eq!(
        status(&delete(&stamp, "virtualNetworks/v/subnets/free").await).0,
        200
    );
    let record = get_record::<NetworkRecord>(&*stamp.store, &own)
        .await
        .unwrap()
        .unwrap()
        .value;
    assert_eq!(
        record.clusters,
        ["u1".to_owned()].into(),
        "those that are gone are forgotten"
    );
    let txn = Txn::default().delete(key::desired("u1"));
    stamp.store.txn(txn).await.unwrap();
    assert_eq!(stamp.empty_group("g").await, 0);
}

fn rule(priority: u32, more: Value) -> Value {
    let mut properties = json!({
        "priority": priority, "direction": "Inbound", "access": "allow", "protocol": "TCP",
        "sourceAddressPrefix": "*", "sourcePortRange": "*", "destinationAddressPrefix": "*", "destinationPortRange": "80",
    });
    for (name, value) in more.as_object().unwrap() {
        properties[name] = value.clone();
    }
    json!({ "properties": properties })
}

#[tokio::test]
async fn security_groups_have_rules_and_stay_while_subnets_go_by_them() {
    let stamp = stamp().await;
    let group = json!({ "location": "local" });
    let made = put(&stamp, "networkSecurityGroups/n", group).await.unwrap();
    assert_eq!(made.status.as_u16(), 201);
    let made = made.body.unwrap();
    assert_eq!(
        made["properties"]["defaultSecurityRules"]
            .as_array()
            .unwrap()
            .len(),
        6
    );
    assert_eq!(
        made["properties"]["defaultSecurityRules"][1]["properties"]["sourceAddressPrefix"],
        "AzureLoadBalancer"
    );
    let web = put(
        &stamp,
        "networkSecurityGroups/n/securityRules/web",
        rule(100, json!({})),
    )
    .await
    .unwrap();
    let web = web.body.unwrap();
    assert_eq!(web["properties"]["access"], "Allow");
    assert_eq!(web["properties"]["protocol"], "Tcp");
    let same = put(
        &stamp,
        "networkSecurityGroups/n/securityRules/other",
        rule(100, json!({})),
    )
    .await;
    assert_eq!(status(&same), (400, "SecurityRuleConflict".to_owned()));
    let out = rule(100, json!({ "direction": "Outbound" }));
    assert_eq!(
        status(&put(&stamp, "networkSecurityGroups/n/securityRules/other", out).await).0,
        201
    );
    let tag = rule(
        300,
        json!({ "sourceAddressPrefix": "AzureLoadBalancer", "protocol": "icmp" }),
    );
    assert_eq!(
        status(&put(&stamp, "networkSecurityGroups/n/securityRules/probes", tag).await).0,
        201
    );
    let other = rule(301, json!({ "destinationAddressPrefix": "Storage" }));
    let refused = put(&stamp, "networkSecurityGroups/n/securityRules/x", other).await;
    let told = format!("{:?}", refused.unwrap_err());
    assert!(
        told.contains("properties.destinationAddressPrefix") && told.contains("service tags"),
        "{told}"
    );
    for (field, value, code) in [
        ("priority", json!(99), "InvalidParameter"),
        ("priority", json!(4097), "InvalidParameter"),
        ("access", json!("Maybe"), "InvalidParameter"),
        ("destinationPortRange", json!("90-80"), "InvalidParameter"),
        ("sourceAddressPrefix", json!("Storage"), "InvalidParameter"),
        ("sourceAddressPrefixes", json!(["10.0.0.0/8"]), "InvalidParameter"),
        (
            "sourceApplicationSecurityGroups",
            json!([{ "id": "x" }]),
            "PropertyNotSupported",
        ),
        ("protocol", Value::Null, "MissingRequiredParameter"),
    ] {
        let mut more = json!({});
        more[field] = value;
        let refused = put(&stamp, "networkSecurityGroups/n/securityRules/x", rule(200, more)).await;
        assert_eq!(status(&refused), (400, code.to_owned()), "{field}: {refused:?}");
    }

    let mut body = vnet("10.1.0.0/16", &[("a", "10.1.0.0/24")]);
    body["properties"]["subnets"][0]["properties"]["networkSecurityGroup"] = json!({ "id": "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/networkSecurityGroups/none" });
    let refused = put(&stamp, "virtualNetworks/v", body.clone()).await;
    assert_eq!(status(&refused), (400, "InvalidResourceReference".to_owned()));
    body["properties"]["subnets"][0]["properties"]["networkSecurityGroup"] = json!({ "id": made["id"] });
    assert_eq!(status(&put(&stamp, "virtualNetworks/v", body).await).0, 201);
    let shown = get(&stamp, "networkSecurityGroups/n").await;
    assert!(
        shown["properties"]["subnets"][0]["id"]
            .as_str()
            .unwrap()
            .ends_with("virtualNetworks/v/subnets/a")
    );
    let refused = delete(&stamp, "networkSecurityGroups/n").await;
    assert_eq!(
        status(&refused),
        (400, "InUseNetworkSecurityGroupCannotBeDeleted".to_owned())
    );
    assert_eq!(stamp.empty_group("g").await, 0, "with its VNET it goes");
}

#[tokio::test]
async fn what_a_cluster_has_made_is_not_written() {
    let stamp = stamp().await;
    let of = "resourceGroups/mc/providers/Microsoft.Network";
    for (method, path) in [
        (Method::PUT, "virtualNetworks/aks-vnet"),
        (Method::DELETE, "virtualNetworks/aks-vnet"),
        (Method::PUT, "virtualNetworks/aks-vnet/subnets/other"),
        (Method::DELETE, "networkSecurityGroups/aks-agentpool-nsg"),
    ] {
        let refused = stamp
            .send(method, &format!("{of}/{path}"), vnet("10.1.0.0/16", &[]))
            .await;
        assert_eq!(
            status(&refused),
            (400, "OperationNotAllowed".to_owned()),
            "{path}"
        );
    }
}
