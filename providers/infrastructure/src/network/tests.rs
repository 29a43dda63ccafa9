//! What stands before a cluster's Services, and what its rules say.

use std::collections::BTreeSet;

use cluster_spec::{PodNetworking, TenantVnet, testkit};
use control_records::{ClusterRecord, ObservedRecord, balancer::BalancerRecord, key};
use control_store::{Txn, get_record, put_record};
use serde_json::{Value, json};

use crate::tests::{Asked, NETWORK, at};

/// Two Services of type LoadBalancer: one that is reached from outside, and one that is not.
async fn with_services() -> Asked {
    let asked = Asked::new(false, PodNetworking::AzureOverlay).await;
    let service = |uid: &str, internal, address: &str| BalancerRecord {
        v: 1,
        uid: uid.to_owned(),
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
        address: address.parse().unwrap(),
        internal,
        public: None,
        asked: None,
        created_at: at(),
    };
    let own = key::observed("u1");
    let observed = get_record::<ObservedRecord>(&*asked.store, &own).await.unwrap();
    let observed = ObservedRecord {
        balanced: true,
        ..observed.unwrap().value
    };
    let outside = service("0b3f9d1e-7c55-4c0a-9a55-1f6f0a6b7c8d", false, "100.64.8.7");
    let inside = service("1b3f9d1e-7c55-4c0a-9a55-1f6f0a6b7c8d", true, "10.224.255.254");
    let txn = [outside, inside]
        .iter()
        .fold(Txn::default().with(put_record(own, &observed)), |txn, record| {
            txn.with(put_record(BalancerRecord::key("u1", &record.uid), record))
        });
    asked.store.txn(txn).await.unwrap();
    asked
}

#[tokio::test]
async fn the_address_of_a_service_is_one_of_the_clusters() {
    let asked = with_services().await;
    let name = "kubernetes-a0b3f9d1e7c554c0a9a551f6f0a6b7c8";
    assert_eq!(
        asked.names(&format!("{NETWORK}/publicIPAddresses")).await,
        ["kube-apiserver", "aks-outbound", name]
    );
    let address = asked.get(&format!("{NETWORK}/publicIPAddresses/{name}")).await;
    assert_eq!(address["properties"]["ipAddress"], "100.64.8.7");
    assert_eq!(address["tags"]["k8s-azure-service"], "shop/web");
}

#[tokio::test]
async fn services_have_the_load_balancers_that_they_have_with_aks() {
    let before = Asked::new(false, PodNetworking::AzureOverlay).await;
    let balancers = format!("{NETWORK}/loadBalancers");
    assert_eq!(before.names(&balancers).await, ["kube-apiserver"]);
    let asked = with_services().await;
    assert_eq!(
        asked.names(&balancers).await,
        ["kube-apiserver", "kubernetes", "kubernetes-internal"]
    );
    let outside = asked.get(&format!("{balancers}/kubernetes")).await;
    let fronts = outside["properties"]["frontendIPConfigurations"]
        .as_array()
        .unwrap();
    assert_eq!(fronts.len(), 1, "{outside}");
    assert_eq!(fronts[0]["name"], "a0b3f9d1e7c554c0a9a551f6f0a6b7c8");
    // What it names is there.
    let address = fronts[0]["properties"]["publicIPAddress"]["id"].as_str().unwrap();
    let addresses = asked.get(&format!("{NETWORK}/publicIPAddresses")).await;
    let known = addresses["value"].as_array().unwrap();
    assert!(known.iter().any(|known| known["id"] == address), "{address}");
    let inside = asked.get(&format!("{balancers}/kubernetes-internal")).await;
    let fronts = inside["properties"]["frontendIPConfigurations"]
        .as_array()
        .unwrap();
    assert_eq!(fronts.len(), 1, "{inside}");
    assert_eq!(fronts[0]["properties"]["privateIPAddress"], "10.224.255.254");
    let subnet = asked
        .get(&format!("{NETWORK}/virtualNetworks/aks-vnet/subnets/aks-subnet"))
        .await;
    assert_eq!(fronts[0]["properties"]["subnet"]["id"], subnet["id"]);
    // Both are before the nodes of the pools that there are.
    for balancer in [&outside, &inside] {
        let pool = &balancer["properties"]["backendAddressPools"][0];
        assert_eq!(pool["name"], "kubernetes");
        let members = pool["properties"]["loadBalancerBackendAddresses"]
            .as_array()
            .unwrap();
        let addresses: Vec<&Value> = members
            .iter()
            .map(|member| &member["properties"]["ipAddress"])
            .collect();
        assert_eq!(addresses, [&json!("10.224.0.4"), &json!("10.224.0.44")]);
        assert_eq!(balancer["properties"]["loadBalancingRules"], json!([]));
    }
    let pools = asked
        .names(&format!("{balancers}/kubernetes/backendAddressPools"))
        .await;
    assert_eq!(pools, ["kubernetes"]);
}

#[tokio::test]
async fn rules_say_what_reaches_a_node() {
    let names = async |asked: &Asked| -> Vec<String> {
        let rules = asked
            .get(&format!("{NETWORK}/networkSecurityGroups/aks-agentpool-nsg"))
            .await;
        let rules = rules["properties"]["defaultSecurityRules"].as_array().unwrap();
        let inbound = rules
            .iter()
            .filter(|rule| rule["properties"]["direction"] == "Inbound");
        inbound
            .map(|rule| rule["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let before = Asked::new(false, PodNetworking::AzureOverlay).await;
    assert_eq!(names(&before).await, ["AllowVnetInBound", "DenyAllInBound"]);
    assert_eq!(
        names(&with_services().await).await,
        [
            "AllowVnetInBound",
            "DenyAllInBound",
            "AllowAzureLoadBalancerInBound"
        ]
    );
}

#[tokio::test]
async fn a_tenants_subnet_is_not_said_to_go_by_the_clusters_rules() {
    let asked = Asked::new(false, PodNetworking::AzureOverlay).await;
    let group = format!("{NETWORK}/networkSecurityGroups/aks-agentpool-nsg");
    let own = asked.get(&group).await;
    let subnet = own["properties"]["subnets"][0]["id"].as_str().unwrap();
    assert!(subnet.ends_with("/aks-vnet/subnets/aks-subnet"), "{own}");
    let mut spec = testkit::cluster();
    spec.network = testkit::network(PodNetworking::AzureOverlay);
    spec.network.vnet = Some(TenantVnet {
        uid: "v1".to_owned(),
        space: vec!["10.1.0.0/16".parse().unwrap()],
        subnets: BTreeSet::from(["10.1.0.0/24".parse().unwrap()]),
    });
    let cluster = ClusterRecord::of_spec("u1", &spec, at());
    let moved = Txn::default().with(put_record(key::desired("u1"), &cluster));
    asked.store.txn(moved).await.unwrap();
    let theirs = asked.get(&group).await;
    assert_eq!(theirs["properties"]["subnets"], json!([]), "{theirs}");
}

#[tokio::test]
async fn the_routes_are_those_of_a_tenants_subnet_that_the_nodes_are_in() {
    const TENANTS: &str =
        "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/v/subnets/a";
    let asked = Asked::new(false, PodNetworking::Kubenet).await;
    let table = format!("{NETWORK}/routeTables/aks-agentpool-routetable");
    let own = asked.get(&table).await;
    let subnet = own["properties"]["subnets"][0]["id"].as_str().unwrap();
    assert!(subnet.ends_with("/aks-vnet/subnets/aks-subnet"), "{own}");
    let mut spec = testkit::cluster();
    spec.network = testkit::network(PodNetworking::Kubenet);
    spec.network.vnet = Some(TenantVnet {
        uid: "v1".to_owned(),
        space: vec!["10.1.0.0/16".parse().unwrap()],
        subnets: BTreeSet::from(["10.1.0.0/24".parse().unwrap()]),
    });
    spec.pools.push(testkit::pool("np2", 1));
    let mut cluster = ClusterRecord::of_spec("u1", &spec, at());
    let joined = cluster.state.with(|body, _| {
        let pools = &mut body["properties"]["agentPoolProfiles"];
        pools[0]["vnetSubnetID"] = json!(TENANTS);
        pools[1]["vnetSubnetID"] = json!(TENANTS.to_uppercase());
    });
    cluster.state = joined.unwrap();
    let moved = Txn::default().with(put_record(key::desired("u1"), &cluster));
    asked.store.txn(moved).await.unwrap();
    let theirs = asked.get(&table).await;
    let subnets = theirs["properties"]["subnets"].as_array().unwrap();
    assert_eq!(subnets.len(), 1, "{theirs}");
    let subnet = subnets[0]["id"].as_str().unwrap();
    assert!(subnet.eq_ignore_ascii_case(TENANTS), "{theirs}");
}
