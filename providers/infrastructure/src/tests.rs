//! Views of one cluster with two pools, as clients request them.

mod compute;

use std::{collections::BTreeMap, sync::Arc};

use arm_ids::ResourcePath;
use arm_kernel::{AccessControl, Call, Mode, Registry};
use arm_wire::{ArmError, Principal, PrincipalKind, Request, Response, Trace};
use base_env::Env;
use cluster_spec::{PodNetworking, testkit};
use control_records::{
    Assignment, ClusterRecord, GroupRecord, Healing, HostId, MachineRecord, ObservedRecord, RepairStep,
    Reported, Role, Work, directory, key,
    usage::{Limits, Room},
};
use control_store::{Store, Txn, put_record};
use jiff::Timestamp;
use serde_json::{Value, json};
use storage_redb::MemoryStore;

use crate::{Compute, Machines, Network, Stamp, Wish};

const AT: &str = "2026-11-29T01:02:03Z";

/// Requests for machines are tested in another crate.
struct Nobody;

#[async_trait::async_trait]
impl Machines for Nobody {
    async fn ask(&self, _: &Call, wish: &Wish, _: Mode) -> Result<Response, ArmError> {
        Ok(Response::ok(json!({
            "pool": wish.pool.to_string(), "nodes": wish.nodes, "order": format!("{:?}", wish.order), "name": wish.name,
        })))
    }
}

pub(crate) struct Asked {
    pub(crate) store: Arc<dyn Store>,
    registry: Registry,
}

pub(crate) fn at() -> Timestamp {
    AT.parse().unwrap()
}

fn machine(id: &str, role: Role) -> MachineRecord {
    MachineRecord {
        v: 2,
        id: id.to_owned(),
        image: "1.36.3".to_owned(),
        build: None,
        token_hash: String::new(),
        token_sealed: Vec::new(),
        enrolled_key: None,
        token_used: true,
        host: HostId::first(),
        assignment: Some(Assignment {
            cluster: "u1".to_owned(),
            role,
        }),
        deleting: false,
        work: None,
        emptying: None,
        inherited: None,
        healing: Healing::default(),
        created_at: at(),
    }
}

fn node(id: &str, cluster: &ClusterRecord, pool: usize, index: u32) -> MachineRecord {
    let pool = &cluster.spec().pools[pool];
    machine(
        id,
        Role::Node {
            pool: pool.name.clone(),
            incarnation: pool.incarnation.clone(),
            index,
            node_name: control_planner::node_name("u1", pool, index),
            address: format!("10.224.0.{}", 4 + index).parse().unwrap(),
            pod_range: Some(format!("10.244.{index}.0/24").parse().unwrap()),
        },
    )
}

impl Asked {
    pub(crate) async fn new(stopped: bool, plugin: PodNetworking) -> Self {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let mut spec = testkit::cluster();
        spec.network = testkit::network(plugin);
        spec.pools = vec![testkit::pool("np1", 2), testkit::pool("np2", 0)];
        spec.stopped = stopped;
        let cluster = ClusterRecord::of_spec("u1", &spec, at());
        let mut machines = vec![
            machine(
                "m0",
                Role::ControlPlane {
                    index: 0,
                    address: "100.64.0.9".parse().unwrap(),
                },
            ),
            node("m1", &cluster, 0, 0),
            node("m2", &cluster, 0, 40),
        ];
        machines[2].work = Some(Work::Repair {
            step: RepairStep::Reboot,
            since: at(),
            upgrade: None,
        });
        machines[2].healing = Healing {
            step: RepairStep::Reboot,
            at: Some(at()),
            reason: "its agent says nothing".to_owned(),
            ..Healing::default()
        };
        // Of a deleted pool with that name.
        let mut before = node("m3", &cluster, 0, 7);
        if let Some(Assignment {
            role: Role::Node { incarnation, .. },
            ..
        }) = &mut before.assignment
        {
            "before".clone_into(incarnation);
        }
        machines.push(before);
        let observed = ObservedRecord {
            vip: Some("100.64.8.1".parse().unwrap()),
            uplink: Some("100.64.0.5".parse().unwrap()),
            reported: BTreeMap::from([(
                "m1".to_owned(),
                Reported {
                    runs: true,
                    ready: true,
                    ..Reported::default()
                },
            )]),
            ..ObservedRecord::default()
        };
        let mut txn =
            directory::new_cluster(Txn::default(), &cluster).with(put_record(key::observed("u1"), &observed));
        for machine in &machines {
            txn = directory::new_machine(txn, "u1", machine);
        }
        for name in ["g", "mc"] {
            let group = GroupRecord {
                v: 1,
                subscription: "s".to_owned(),
                name: name.to_owned(),
                location: "local".to_owned(),
                tags: BTreeMap::new(),
                managed_by: None,
                deleting: false,
                created_at: at(),
            };
            txn = txn.with(put_record(key::group("s", name), &group));
        }
        store.txn(txn).await.unwrap();
        let stamp = Stamp {
            store: Arc::clone(&store),
            location: "local".to_owned(),
            limits: Limits {
                clusters: Some(5),
                nodes: Some(20),
                cores: Some(64),
                room: Room::default(),
            },
            outbound: true,
            reserved: vec![(
                "100.64.0.0/20".parse().unwrap(),
                "the stamp's own network".to_owned(),
            )],
        };
        let registry = Registry::new(vec![
            Arc::new(Compute {
                stamp: stamp.clone(),
                machines: Arc::new(Nobody),
                env: Env::simulated(2),
            }),
            Arc::new(Network {
                stamp,
                env: Env::simulated(1),
            }),
        ]);
        Self { store, registry }
    }

    /// GET of `path` below the subscription; the error's body where it is refused.
    pub(crate) async fn get(&self, path: &str) -> Value {
        self.ask(http::Method::GET, path, Value::Null).await
    }

    async fn ask(&self, method: http::Method, path: &str, body: Value) -> Value {
        match self.send(method, path, body).await {
            Ok(response) => response.body.unwrap_or_default(),
            Err(error) => error.body(),
        }
    }

    /// Sends a request with all permissions.
    pub(crate) async fn send(
        &self,
        method: http::Method,
        path: &str,
        body: Value,
    ) -> Result<Response, ArmError> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let path = ResourcePath::parse(&format!("/subscriptions/s/{path}")).unwrap();
        let target = self.registry.target(&path).unwrap();
        let route = target.route(&method).unwrap();
        let request = Request {
            method,
            path,
            api_version: target.versions()[0].to_owned(),
            query: query
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            body,
            if_match: None,
            if_none_match: None,
            principal: Principal {
                object_id: "o".to_owned(),
                name: "ada".to_owned(),
                tenant_id: "t".to_owned(),
                kind: PrincipalKind::User,
            },
            base_url: "https://arm.test".to_owned(),
            trace: Trace::default(),
        };
        let call = Call::new(request, AccessControl::allow_all());
        target.provider.handle(route, &call).await
    }

    /// Deletes all resources of all providers in a group, as the reaper would; the number of those that
    /// remain.
    pub(crate) async fn empty_group(&self, group: &str) -> usize {
        let path = ResourcePath::parse(&format!(
            "/subscriptions/s/resourceGroups/{group}/providers/Microsoft.Network/virtualNetworks"
        ));
        let target = self.registry.target(&path.unwrap()).unwrap();
        target.provider.delete_resource_group("s", group).await.unwrap()
    }

    pub(crate) async fn names(&self, path: &str) -> Vec<String> {
        let list = self.get(path).await;
        let items = list["value"].as_array().unwrap_or_else(|| panic!("{list}"));
        items
            .iter()
            .map(|item| item["name"].as_str().unwrap().to_owned())
            .collect()
    }
}
pub(crate) const NETWORK: &str = "resourceGroups/mc/providers/Microsoft.Network";

#[tokio::test]
async fn a_cluster_has_the_networks_that_it_really_has() {
    let asked = Asked::new(false, PodNetworking::AzureOverlay).await;
    let vnet = asked.get(&format!("{NETWORK}/virtualNetworks/aks-vnet")).await;
    assert_eq!(
        vnet["properties"]["addressSpace"]["addressPrefixes"],
        json!(["10.224.0.0/12"])
    );
    let subnet = asked
        .get(&format!("{NETWORK}/virtualNetworks/aks-vnet/subnets/AKS-subnet"))
        .await;
    assert_eq!(subnet, vnet["properties"]["subnets"][0]);
    assert_eq!(subnet["properties"]["addressPrefix"], "10.224.0.0/16");
    assert_eq!(
        asked
            .names(&format!("{NETWORK}/virtualNetworks/aks-vnet/subnets"))
            .await,
        ["aks-subnet"]
    );
    let addresses = asked.get(&format!("{NETWORK}/publicIPAddresses")).await;
    let shown: Vec<_> = addresses["value"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            (
                one["name"].as_str().unwrap(),
                one["properties"]["ipAddress"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        shown,
        [("kube-apiserver", "100.64.8.1"), ("aks-outbound", "100.64.0.5")]
    );
    let balancer = asked
        .get(&format!("{NETWORK}/loadBalancers/kube-apiserver"))
        .await;
    let members =
        &balancer["properties"]["backendAddressPools"][0]["properties"]["loadBalancerBackendAddresses"];
    assert_eq!(
        members,
        &json!([{ "name": "member-0", "properties": { "ipAddress": "100.64.0.9" } }])
    );
    let routes = asked
        .get(&format!("{NETWORK}/routeTables/aks-agentpool-routetable/routes"))
        .await;
    assert_eq!(routes["value"].as_array().unwrap().len(), 3);
    assert_eq!(routes["value"][0]["properties"]["nextHopIpAddress"], "10.224.0.4");
    let rules = asked
        .get(&format!("{NETWORK}/networkSecurityGroups/aks-agentpool-nsg"))
        .await;
    assert_eq!(rules["properties"]["securityRules"], json!([]));
    assert_eq!(
        rules["properties"]["defaultSecurityRules"]
            .as_array()
            .unwrap()
            .len(),
        5
    );
    for empty in ["networkInterfaces", "virtualNetworks"] {
        let path = format!("resourceGroups/other/providers/Microsoft.Network/{empty}");
        assert!(asked.names(&path).await.is_empty(), "{path}");
    }
    // Pods in the nodes' subnet need no routes.
    let flat = Asked::new(false, PodNetworking::AzureFlat).await;
    assert!(flat.names(&format!("{NETWORK}/routeTables")).await.is_empty());
}

#[tokio::test]
async fn sizes_and_usages_are_those_that_are_gone_by() {
    let asked = Asked::new(false, PodNetworking::AzureOverlay).await;
    let locations = "providers/Microsoft.Compute/locations";
    let sizes = asked.get(&format!("{locations}/local/vmSizes")).await;
    assert_eq!(
        sizes["value"].as_array().unwrap().len(),
        cluster_spec::VM_SIZES.len()
    );
    assert_eq!(
        asked.get(&format!("{locations}/mars/vmSizes")).await["error"]["target"],
        "location"
    );
    let skus = asked.get("providers/Microsoft.Compute/skus").await;
    assert_eq!(
        skus["value"].as_array().unwrap().len(),
        cluster_spec::VM_SIZES.len()
    );
    let elsewhere = asked
        .get("providers/Microsoft.Compute/skus?$filter=location eq 'mars'")
        .await;
    assert_eq!(elsewhere["value"], json!([]));
    // Without stored sums, they are counted.
    assert!(asked.store.get(key::USAGE).await.unwrap().is_none());
    let usages = asked.get(&format!("{locations}/local/usages")).await;
    let of = |usages: &Value, name: &str| -> (u64, u64) {
        let lines = usages["value"].as_array().unwrap().iter();
        let mut found = lines.filter(|line| line["name"]["value"] == name);
        let line = found.next().unwrap_or_else(|| panic!("no {name} in {usages}"));
        (
            line["currentValue"].as_u64().unwrap(),
            line["limit"].as_u64().unwrap(),
        )
    };
    assert_eq!(of(&usages, "virtualMachines"), (2, 20));
    assert_eq!(of(&usages, "cores").1, 64);
    assert_eq!(of(&usages, "virtualMachineScaleSets"), (2, 2_147_483_647));
    let network = asked
        .get("providers/Microsoft.Network/locations/local/usages")
        .await;
    assert_eq!(of(&network, "VirtualNetworks"), (1, 5));
    assert_eq!(of(&network, "PublicIPAddresses"), (1, 5));
    let id = network["value"][0]["id"].as_str().unwrap();
    assert_eq!(
        id,
        "/subscriptions/s/providers/Microsoft.Network/locations/local/usages/VirtualNetworks"
    );
}
