//! Clusters in tenants' subnets: the choice of the subnet, its room, and the effects afterwards.

use std::{collections::BTreeMap, sync::Arc};

use arm_ids::ResourcePath;
use arm_kernel::{AccessControl, Authorizer, Call};
use arm_wire::{ArmError, Principal};
use async_trait::async_trait;
use control_records::{LeaseRecord, key, network, network::NetworkRecord};
use control_store::{get_record, put_record};
use serde_json::{Value, json};

use crate::stamp::{Answer, SUBSCRIPTION, Stamp};

/// The id of a subnet of a VNET `v`.
fn subnet(name: &str) -> String {
    subnet_of("v", name)
}

fn subnet_of(vnet: &str, name: &str) -> String {
    format!(
        "/subscriptions/{SUBSCRIPTION}/resourceGroups/rg1/providers/Microsoft.Network/virtualNetworks/{vnet}/subnets/{name}"
    )
}

/// Makes a VNET, as its provider writes it.
async fn add_vnet(stamp: &Stamp, name: &str, space: &str, subnets: &[(&str, &str)]) {
    let subnets = subnets
        .iter()
        .map(|(name, range)| json!({ "name": name, "properties": { "addressPrefix": range } }));
    let now = stamp.env.clock.now();
    let record = NetworkRecord {
        v: 1,
        uid: format!("{name}000000000"),
        subscription: SUBSCRIPTION.to_owned(),
        resource_group: "rg1".to_owned(),
        name: name.to_owned(),
        location: "local".to_owned(),
        tags: BTreeMap::new(),
        generation: 1,
        properties: json!({ "addressSpace": { "addressPrefixes": [space] }, "subnets": subnets.collect::<Vec<_>>() }),
        clusters: Default::default(),
        created_at: now,
        modified_at: now,
    };
    stamp.write(put_record(record.key(network::VNETS), &record)).await;
}

async fn stamp() -> Stamp {
    let stamp = Stamp::new().await;
    let subnets = [
        ("a", "10.1.0.0/24"),
        ("b", "10.1.1.0/24"),
        ("small", "10.1.2.0/29"),
    ];
    add_vnet(&stamp, "v", "10.1.0.0/16", &subnets).await;
    add_vnet(&stamp, "w", "10.2.0.0/16", &[("a", "10.2.0.0/24")]).await;
    stamp
}

fn body(count: u32, subnet: &str) -> Value {
    let pool = json!({ "name": "np1", "mode": "System", "count": count, "vnetSubnetID": subnet });
    json!({ "location": "local", "properties": { "agentPoolProfiles": [pool] } })
}

async fn vnet(stamp: &Stamp) -> NetworkRecord {
    let own = network::key(network::VNETS, SUBSCRIPTION, "rg1", "v");
    get_record(&*stamp.store, &own).await.unwrap().unwrap().value
}

#[track_caller]
fn refused(answer: &Answer, code: &str, target: &str) {
    let error = &answer.body["error"];
    assert_eq!(
        (answer.code(), &error["target"]),
        (code, &json!(target)),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_cluster_is_put_into_a_subnet_with_all_its_pools() {
    let stamp = stamp().await;
    let made = stamp.create("c", body(2, &subnet("A"))).await;
    assert_eq!(
        made["properties"]["agentPoolProfiles"][0]["vnetSubnetID"],
        json!(subnet("A"))
    );
    let record = stamp.record("c").await.unwrap();
    let network = &record.spec().network;
    assert_eq!(network.node_range.to_string(), "10.1.0.0/24");
    assert_eq!(network.vnet_range.to_string(), "10.1.0.0/16");
    assert_eq!(network.control_plane_range.to_string(), "172.30.0.0/28");
    let own = network.vnet.clone().unwrap();
    assert_eq!(own.uid, "v000000000");
    assert!(
        vnet(&stamp).await.clusters.contains(&record.uid),
        "the VNET knows it"
    );
    // A body that was read may be sent back; a pool without a subnet uses that of the first pool.
    let again = stamp
        .ask("PUT", "managedClusters/c", crate::stamp::sent_back(&made))
        .await;
    assert_eq!(again.status, 200, "{again:?}");
    let pool = stamp
        .ask(
            "PUT",
            "managedClusters/c/agentPools/np2",
            json!({ "properties": {} }),
        )
        .await;
    assert_eq!(
        pool.body["properties"]["vnetSubnetID"],
        json!(subnet("A")),
        "{pool:?}"
    );
    let other = json!({ "properties": { "vnetSubnetID": subnet("b") } });
    let pool = stamp.ask("PUT", "managedClusters/c/agentPools/np3", other).await;
    assert_eq!(pool.status, 201, "{pool:?}");
    let record = stamp.record("c").await.unwrap();
    let ranges: Vec<String> = record
        .spec()
        .network
        .vnet
        .as_ref()
        .unwrap()
        .subnets
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(ranges, ["10.1.0.0/24", "10.1.1.0/24"]);
    assert_eq!(record.spec().pools[2].subnet.unwrap().to_string(), "10.1.1.0/24");
    let moved = json!({ "properties": { "vnetSubnetID": subnet("a") } });
    let moved = stamp.ask("PUT", "managedClusters/c/agentPools/np3", moved).await;
    refused(&moved, "PropertyChangeNotAllowed", "properties.vnetSubnetID");
    let elsewhere = json!({ "properties": { "vnetSubnetID": subnet_of("w", "a") } });
    let elsewhere = stamp
        .ask("PUT", "managedClusters/c/agentPools/np4", elsewhere)
        .await;
    refused(&elsewhere, "InvalidParameter", "properties.vnetSubnetID");
}

#[tokio::test]
async fn what_cannot_be_in_a_subnet_is_refused() {
    let stamp = stamp().await;
    add_vnet(&stamp, "x", "172.30.0.0/16", &[("a", "172.30.1.0/24")]).await;
    let at = "properties.agentPoolProfiles[0].vnetSubnetID";
    for (id, code) in [
        (subnet("none"), "InvalidResourceReference"),
        (subnet_of("none", "a"), "InvalidResourceReference"),
        ("/subscriptions/x".to_owned(), "InvalidResourceReference"),
        (subnet_of("x", "a"), "InvalidParameter"),
    ] {
        let answer = stamp.ask("PUT", "managedClusters/c", body(1, &id)).await;
        refused(&answer, code, at);
    }
    for (profile, code, target) in [
        (
            json!({ "podCidr": "10.1.128.0/17" }),
            "ServiceCidrOverlapExistingSubnetsCidr",
            "properties.networkProfile.podCidr",
        ),
        (
            json!({ "serviceCidr": "10.1.0.0/20" }),
            "ServiceCidrOverlapExistingSubnetsCidr",
            "properties.networkProfile.serviceCidr",
        ),
        (
            json!({ "networkPlugin": "azure" }),
            "PropertyNotSupported",
            "properties.networkProfile.networkPluginMode",
        ),
    ] {
        let mut body = body(1, &subnet("a"));
        body["properties"]["networkProfile"] = profile;
        let answer = stamp.ask("PUT", "managedClusters/c", body).await;
        refused(&answer, code, target);
    }
    // AKS' own VNET range is free for pods where the VNET is another one.
    let mut fine = body(1, &subnet("a"));
    fine["properties"]["networkProfile"] = json!({ "podCidr": "10.224.0.0/16" });
    stamp.create("c", fine).await;
    stamp.create("d", crate::stamp::least()).await;
    let late = json!({ "properties": { "vnetSubnetID": subnet("a") } });
    let late = stamp.ask("PUT", "managedClusters/d/agentPools/np2", late).await;
    refused(&late, "InvalidParameter", "properties.vnetSubnetID");
}

#[tokio::test]
async fn a_subnet_has_room_for_all_that_are_in_it_and_no_more() {
    let stamp = stamp().await;
    // Eight addresses, of which Azure keeps five.
    let answer = stamp
        .ask("PUT", "managedClusters/c", body(4, &subnet("small")))
        .await;
    refused(&answer, "InsufficientSubnetSize", "properties.agentPoolProfiles");
    assert!(
        answer
            .message()
            .contains("Pre-allocated IPs 4 exceeds IPs available 3"),
        "{answer:?}"
    );
    stamp.create("c", body(2, &subnet("small"))).await;
    let answer = stamp
        .ask("PUT", "managedClusters/d", body(2, &subnet("small")))
        .await;
    refused(&answer, "SubnetIsFull", "properties.agentPoolProfiles");
    stamp.create("d", body(1, &subnet("small"))).await;
    let more = json!({ "properties": { "count": 3, "mode": "System" } });
    let answer = stamp.ask("PUT", "managedClusters/c/agentPools/np1", more).await;
    refused(&answer, "SubnetIsFull", "properties.count");
    // Existing nodes count until they are gone.
    let uid = stamp.record("d").await.unwrap().uid;
    for last in 4..7 {
        let lease = LeaseRecord {
            v: 1,
            owner: format!("cluster/{uid}/machine/m{last}"),
        };
        let key = key::lease("v000000000", format!("10.1.2.{last}").parse().unwrap());
        stamp.write(put_record(key, &lease)).await;
    }
    let less = json!({ "properties": { "count": 1, "mode": "System" } });
    let answer = stamp.ask("PUT", "managedClusters/c/agentPools/np1", less).await;
    assert_eq!(answer.status, 200, "fewer nodes are always fine: {answer:?}");
    let back = json!({ "properties": { "count": 2, "mode": "System" } });
    let answer = stamp.ask("PUT", "managedClusters/c/agentPools/np1", back).await;
    refused(&answer, "SubnetIsFull", "properties.count");
}

/// Permits all actions but joining a subnet.
struct NoJoin;

#[async_trait]
impl Authorizer for NoJoin {
    async fn may(&self, _: &Principal, action: &str, _: &ResourcePath) -> Result<bool, ArmError> {
        Ok(!action.ends_with("/join/action"))
    }

    async fn reaches(&self, _: &Principal, _: &ResourcePath) -> Result<bool, ArmError> {
        Ok(true)
    }
}

#[tokio::test]
async fn joining_a_subnet_needs_a_right_there() {
    let stamp = stamp().await;
    let access = AccessControl {
        authorizer: Arc::new(NoJoin),
        ..AccessControl::allow_all()
    };
    let asked = async |path: &str, body: Value| {
        let request = stamp.request("PUT", path, body);
        let target = stamp.registry.target(&request.path).unwrap();
        let route = target.route(&request.method).unwrap().clone();
        target
            .provider
            .handle(&route, &Call::new(request, access.clone()))
            .await
    };
    let error = asked("managedClusters/c", body(1, &subnet("a")))
        .await
        .unwrap_err();
    assert_eq!(
        (error.code.code, error.code.status),
        ("LinkedAuthorizationFailed", 403)
    );
    assert!(
        error
            .message
            .contains("Microsoft.Network/virtualNetworks/subnets/join/action"),
        "{error}"
    );
    assert!(stamp.record("c").await.is_none());
    stamp.create("c", body(1, &subnet("a"))).await;
    let pool = json!({ "properties": { "vnetSubnetID": subnet("a") } });
    let error = asked("managedClusters/c/agentPools/np2", pool).await.unwrap_err();
    assert_eq!(error.code.code, "LinkedAuthorizationFailed");
}
