//! Load balancers: from a Service to an address and back, and who is in rotation.

use std::net::Ipv4Addr;

use cluster_api::{Ingress, ServiceWish};
use cluster_balancers::{EXCLUDED, Wish};
use cluster_spec::Tier;
use control_records::balancer::BalancerRecord;
use fabric_api::{Balancer, Side};
use serde_json::{Value, json};

use super::{healing::standing, *};

/// A Service as a tenant makes it.
fn service(uid: &str, change: impl FnOnce(&mut Value)) -> Wish {
    let mut object = json!({
        "metadata": { "namespace": "shop", "name": uid, "uid": uid, "annotations": {} },
        "spec": { "type": "LoadBalancer", "ports": [{ "port": 80, "nodePort": 30080 }] },
        "status": { "loadBalancer": {} }
    });
    change(&mut object);
    Wish::read(&object, BTreeSet::new()).unwrap()
}

fn internal(object: &mut Value) {
    object["metadata"]["annotations"]["service.beta.kubernetes.io/azure-load-balancer-internal"] =
        json!("true");
}

fn cluster_of(nodes: u32) -> Ideal {
    let mut ideal = standing(Tier::Free, vec![pool("a", nodes)]);
    ideal.seen.api.services = Some(Vec::new());
    ideal
}

fn plant(ideal: &mut Ideal, wish: Wish) {
    ideal.seen.api.services.as_mut().unwrap().push(wish);
}

fn seen<'i>(ideal: &'i Ideal, uid: &str) -> Option<&'i Wish> {
    let services = ideal.seen.api.services.as_ref().unwrap();
    services.iter().find(|wish| wish.uid == uid)
}

fn layout(ideal: &Ideal) -> &NetworkLayout {
    match &ideal.seen.network {
        NetworkSeen::Made(layout) => layout,
        other => panic!("{other:?}"),
    }
}

fn balancers(ideal: &Ideal) -> &[Balancer] {
    &layout(ideal).balancers
}

fn addresses_of_nodes(ideal: &Ideal) -> BTreeSet<Ipv4Addr> {
    let machines = ideal.seen.machines.values();
    machines
        .filter_map(|machine| match machine.role()? {
            Role::Node { address, .. } => Some(*address),
            Role::ControlPlane { .. } => None,
        })
        .collect()
}

fn machines_behind(ideal: &Ideal) -> BTreeSet<Ipv4Addr> {
    balancers(ideal)[0].ports[0].machines.clone()
}

/// What is planned to be written to Services.
fn writes(ideal: &Ideal) -> Vec<ServiceWish> {
    let effects = ideal.plan().effects.into_iter();
    effects
        .filter_map(|effect| match effect {
            Effect::Api(ApiEffect::SetService(wish)) => Some(wish),
            _ => None,
        })
        .collect()
}

#[test]
fn a_service_gets_an_address_a_step_at_a_time() {
    let mut ideal = cluster_of(2);
    plant(&mut ideal, service("u1", |_| {}));
    let first = writes(&ideal);
    assert_eq!(
        (first[0].finalizer, first[0].ingress),
        (Some(true), Ingress::AsItIs)
    );
    assert!(ideal.plan().writes.is_empty(), "nothing keeps the Service yet");
    ideal.pass();
    assert!(
        matches!(&ideal.plan().writes[..], [Write::RecordBalancer { uid, .. }] if uid == "u1"),
        "{:?}",
        ideal.plan()
    );
    assert!(balancers(&ideal).is_empty(), "written down first");
    ideal.run();
    let made = &balancers(&ideal)[0];
    assert_eq!(made.side, Side::Stamp);
    assert!(ideal.seen.stamp.vips.contains(&made.address));
    assert_eq!(made.ports[0].machines, addresses_of_nodes(&ideal));
    assert_eq!((made.ports[0].port, made.ports[0].target), (80, 30080));
    assert_eq!(seen(&ideal, "u1").unwrap().shown, Some(made.address));
    assert!(ideal.seen.observed.balanced);
}

#[test]
fn a_service_that_is_deleted_goes_last() {
    let mut ideal = cluster_of(1);
    plant(&mut ideal, service("u1", |_| {}));
    ideal.run();
    ideal.seen.api.services.as_mut().unwrap()[0].deleting = true;
    let plan = ideal.plan();
    assert!(
        matches!(&plan.effects[..], [Effect::Fabric(FabricEffect::EnsureNetwork(layout))] if layout.balancers.is_empty()),
        "{plan:?}"
    );
    assert!(plan.writes.is_empty(), "{plan:?}");
    ideal.run();
    assert!(seen(&ideal, "u1").is_none() && ideal.seen.balancers.is_empty());
    assert!(!ideal.seen.observed.balanced);
}

#[test]
fn one_that_is_no_more_of_the_type_is_let_go_by_its_name() {
    let mut ideal = cluster_of(1);
    plant(&mut ideal, service("u1", |_| {}));
    ideal.run();
    ideal.seen.api.services = Some(Vec::new());
    ideal.pass();
    let release = writes(&ideal);
    assert_eq!(release[0].name, "u1");
    assert_eq!(
        (release[0].finalizer, release[0].ingress),
        (Some(false), Ingress::Nothing)
    );
    assert!(
        ideal.plan().writes.is_empty(),
        "its record is all that tells of it"
    );
    ideal.run();
    assert!(ideal.seen.balancers.is_empty() && balancers(&ideal).is_empty());
}

#[test]
fn a_node_leaves_as_soon_as_anything_is_wrong_with_it() {
    let mut ideal = cluster_of(2);
    plant(&mut ideal, service("u1", |_| {}));
    ideal.run();
    let id = ideal.nodes_of("a")[0].clone();
    let name = ideal.seen.machines[&id].node_name().unwrap().to_owned();
    let all = addresses_of_nodes(&ideal);
    let out = |ideal: &Ideal| {
        let plan = ideal.plan();
        plan.effects.iter().any(|effect| {
            matches!(effect, Effect::Fabric(FabricEffect::EnsureNetwork(layout))
                if layout.balancers[0].ports[0].machines.len() == 1)
        })
    };
    assert_eq!(machines_behind(&ideal), all);
    let node = |ideal: &mut Ideal, change: &dyn Fn(&mut NodeSeen)| {
        let mut nodes = ideal.seen.api.nodes.iter_mut();
        change(nodes.find(|node| node.name == name).unwrap());
    };
    let before = ideal.seen.api.nodes.clone();
    let changes: [&dyn Fn(&mut NodeSeen); 3] = [
        &|node| node.ready = false,
        &|node| node.cordoned = true,
        &|node| drop(node.labels.insert(EXCLUDED.to_owned(), String::new())),
    ];
    for change in changes {
        assert!(!out(&ideal));
        node(&mut ideal, change);
        assert!(out(&ideal), "{:?}", ideal.plan());
        ideal.seen.api.nodes.clone_from(&before);
    }
    let hung_up = |ideal: &mut Ideal, ago| ideal.seen.machines.get_mut(&id).unwrap().hung_up = ago;
    hung_up(&mut ideal, Some(Duration::from_millis(100)));
    assert!(!out(&ideal), "it may only be dialling again");
    assert_eq!(
        ideal.plan().look_again,
        Some(after(ideal.now, Duration::from_millis(900)))
    );
    hung_up(&mut ideal, Some(Duration::from_secs(1)));
    assert!(out(&ideal));
    hung_up(&mut ideal, None);
    ideal.seen.machines.get_mut(&id).unwrap().presence = Presence::Absent;
    assert!(out(&ideal));
}

#[test]
fn a_node_leaves_before_it_is_drained() {
    let mut ideal = cluster_of(2);
    plant(&mut ideal, service("u1", |_| {}));
    ideal.run();
    ideal.desired.change_spec(|spec| spec.pools[0].count = 1);
    ideal.desired.generation += 1;
    let mut drained = false;
    for _ in 0..100 {
        let drains = ideal
            .plan()
            .effects
            .iter()
            .any(|effect| matches!(effect, Effect::Api(ApiEffect::Drain { .. })));
        if drains {
            drained = true;
            assert_eq!(machines_behind(&ideal).len(), 1);
        }
        if !ideal.pass() {
            break;
        }
    }
    assert!(drained);
    assert_eq!(machines_behind(&ideal), addresses_of_nodes(&ideal));
}

#[test]
fn local_ones_lead_to_where_their_endpoints_are() {
    let mut ideal = cluster_of(2);
    let id = ideal.nodes_of("a")[1].clone();
    let name = ideal.seen.machines[&id].node_name().unwrap().to_owned();
    let mut wish = service("u1", |object| {
        object["spec"]["externalTrafficPolicy"] = json!("Local");
    });
    wish.endpoints.insert(name);
    plant(&mut ideal, wish);
    ideal.run();
    let Some(Role::Node { address, .. }) = ideal.seen.machines[&id].role() else {
        panic!("it is a node");
    };
    assert_eq!(machines_behind(&ideal), [*address].into());
}

#[test]
fn what_was_not_looked_at_yet_is_left_as_it_is() {
    let mut ideal = cluster_of(1);
    plant(&mut ideal, service("u1", |_| {}));
    ideal.run();
    let (address, wishes) = (balancers(&ideal)[0].address, ideal.seen.api.services.take());
    // As after a restart of the service.
    ideal.seen.network = NetworkSeen::Unknown;
    let plan = ideal.plan();
    let kept = plan.effects.iter().find_map(|effect| match effect {
        Effect::Fabric(FabricEffect::EnsureNetwork(layout)) => Some(layout.clone()),
        _ => None,
    });
    let kept = kept.unwrap();
    assert_eq!(kept.kept_balancers, [address].into());
    assert!(kept.balancers.is_empty() && plan.writes.is_empty());
    ideal.pass();
    ideal.seen.api.services = wishes;
    ideal.run();
    assert_eq!(balancers(&ideal)[0].address, address);
    assert!(layout(&ideal).kept_balancers.is_empty());
}

#[test]
fn internal_ones_are_at_the_end_of_the_nodes_subnet_and_nodes_stay_away() {
    let mut record = cluster(PodNetworking::Kubenet, vec![pool("a", 1)]);
    record.change_spec(|spec| spec.network.node_range = "10.224.0.0/29".parse().unwrap());
    let mut ideal = Ideal::new(record, nothing_yet());
    ideal.run();
    ideal.seen.api.services = Some(vec![service("u1", internal), service("u2", internal)]);
    ideal.run();
    let made: Vec<_> = balancers(&ideal)
        .iter()
        .map(|made| (made.address, made.side))
        .collect();
    let at = |last| Ipv4Addr::new(10, 224, 0, last);
    assert_eq!(made, [(at(5), Side::Subnet), (at(6), Side::Subnet)]);
    // The subnet is full: neither a node nor another one finds a place, and both say so.
    plant(&mut ideal, service("u3", internal));
    ideal.desired.change_spec(|spec| spec.pools[0].count = 2);
    ideal.desired.generation += 1;
    for _ in 0..20 {
        ideal.pass();
    }
    assert_eq!(addresses_of_nodes(&ideal), [at(4)].into());
    assert!(
        ideal.seen.api.told["u3"].contains("no free address"),
        "{:?}",
        ideal.seen.api.told
    );
}

#[test]
fn an_address_may_be_chosen_and_changed() {
    let mut ideal = cluster_of(1);
    let own = Ipv4Addr::new(100, 64, 24, 77);
    plant(
        &mut ideal,
        service("u1", |object| object["spec"]["loadBalancerIP"] = json!(own)),
    );
    ideal.run();
    assert_eq!(balancers(&ideal)[0].address, own);
    plant(
        &mut ideal,
        service("u2", |object| object["spec"]["loadBalancerIP"] = json!(own)),
    );
    ideal.run();
    assert_eq!(balancers(&ideal).len(), 1);
    assert!(ideal.seen.api.told["u2"].contains("in use"));
    let other = Ipv4Addr::new(100, 64, 24, 78);
    ideal.seen.api.services.as_mut().unwrap()[0].address = Some(other);
    ideal.run();
    assert_eq!(seen(&ideal, "u1").unwrap().shown, Some(other));
    assert_eq!(seen(&ideal, "u2").unwrap().shown, Some(own), "it is free now");
}

#[test]
fn what_is_refused_is_told_once_and_keeps_nobody_waiting() {
    let mut ideal = cluster_of(1);
    plant(
        &mut ideal,
        service("u1", |object| object["spec"]["ports"] = json!([{ "port": 80 }])),
    );
    let told = writes(&ideal);
    let note = told[0].note.as_ref().unwrap();
    assert!(note.warning && note.reason == "SyncLoadBalancerFailed");
    assert_eq!((told[0].finalizer, told[0].ingress), (None, Ingress::Nothing));
    ideal.run();
    assert!(writes(&ideal).is_empty() && ideal.seen.balancers.is_empty());
    assert!(ideal.plan().settled());
}

#[test]
fn a_deleted_cluster_gives_its_addresses_back() {
    let mut ideal = cluster_of(1);
    plant(&mut ideal, service("u1", |_| {}));
    ideal.run();
    ideal.desired.deleting = true;
    ideal.desired.generation += 1;
    ideal.run();
    assert!(ideal.forgotten && ideal.seen.balancers.is_empty());
}

#[test]
fn a_stopped_cluster_keeps_them() {
    let mut ideal = cluster_of(1);
    plant(&mut ideal, service("u1", |_| {}));
    ideal.run();
    let kept: Vec<Arc<BalancerRecord>> = ideal.seen.balancers.clone();
    for stopped in [true, false] {
        ideal.desired.change_spec(|spec| spec.stopped = stopped);
        ideal.desired.generation += 1;
        ideal.desired.requests.generation = ideal.desired.generation;
        ideal.desired.modified_at = ideal.now;
        ideal.run();
    }
    assert_eq!(ideal.seen.balancers, kept);
    assert_eq!(layout(&ideal).kept_balancers, [kept[0].address].into());
}

#[test]
fn sources_are_ranges_where_words_stood() {
    let mut ideal = cluster_of(1);
    plant(
        &mut ideal,
        service("u1", |object| {
            object["spec"]["loadBalancerSourceRanges"] = json!(["192.168.0.0/16"]);
            object["metadata"]["annotations"]["service.beta.kubernetes.io/azure-allowed-service-tags"] =
                json!("VirtualNetwork");
        }),
    );
    ideal.run();
    let sources = &balancers(&ideal)[0].sources;
    let range = |text: &str| text.parse::<ipnet::Ipv4Net>().unwrap();
    assert!(sources.contains(&range("192.168.0.0/16")), "{sources:?}");
    assert!(
        sources.contains(&ideal.desired.spec().network.vnet_range),
        "{sources:?}"
    );
}

const PUBLIC: &str = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/publicIPAddresses/p";

/// A public IP address of a tenant, which the Services with these uids name.
fn public(ideal: &mut Ideal, uids: &[&str]) -> Ipv4Addr {
    let address = Ipv4Addr::new(100, 64, 24, 77);
    ideal.seen.taken.insert(address);
    for uid in uids {
        let seen = PublicSeen {
            id: PUBLIC.to_owned(),
            address,
        };
        ideal.seen.publics.insert((*uid).to_owned(), Ok(seen));
    }
    address
}

fn named(uid: &str, port: u16) -> Wish {
    service(uid, |object| {
        object["metadata"]["annotations"]["service.beta.kubernetes.io/azure-pip-name"] = json!("p");
        object["spec"]["ports"] = json!([{ "port": port, "nodePort": 30000 + port }]);
    })
}

fn addresses(ideal: &Ideal) -> Vec<(Ipv4Addr, u16)> {
    let all = balancers(ideal).iter();
    all.map(|balancer| (balancer.address, balancer.ports[0].port))
        .collect()
}

#[test]
fn services_share_the_public_address_that_they_name() {
    let mut ideal = cluster_of(1);
    let address = public(&mut ideal, &["u1", "u2"]);
    plant(&mut ideal, named("u1", 80));
    plant(&mut ideal, named("u2", 443));
    ideal.run();
    assert_eq!(addresses(&ideal), [(address, 80), (address, 443)]);
    for record in &ideal.seen.balancers {
        assert_eq!(record.public.as_deref(), Some(PUBLIC));
    }
    assert_eq!(seen(&ideal, "u2").unwrap().shown, Some(address));
    // One goes, the other stays.
    let services = ideal.seen.api.services.as_mut().unwrap();
    services[0].deleting = true;
    ideal.run();
    assert_eq!(addresses(&ideal), [(address, 443)]);
    assert_eq!(ideal.seen.balancers.len(), 1);
    assert!(ideal.seen.taken.contains(&address), "it is its owner's");
    for wish in ideal.seen.api.services.as_mut().unwrap() {
        wish.deleting = true;
    }
    ideal.run();
    assert!(balancers(&ideal).is_empty() && ideal.seen.balancers.is_empty());
}

#[test]
fn a_port_of_an_address_is_one_services() {
    let mut ideal = cluster_of(1);
    let address = public(&mut ideal, &["u1", "u2"]);
    plant(&mut ideal, named("u1", 80));
    ideal.run();
    plant(&mut ideal, named("u2", 80));
    ideal.run();
    assert_eq!(addresses(&ideal), [(address, 80)]);
    assert!(
        ideal.seen.api.told["u2"].contains("shop/u1"),
        "{:?}",
        ideal.seen.api.told
    );
    // It asks for another one, and then for that of the first again.
    let change = |ideal: &mut Ideal, port: u16| {
        let services = ideal.seen.api.services.as_mut().unwrap();
        services[1].ports = named("u2", port).ports;
    };
    change(&mut ideal, 443);
    ideal.now = after(ideal.now, Duration::from_secs(90));
    ideal.run();
    assert_eq!(addresses(&ideal), [(address, 80), (address, 443)]);
    change(&mut ideal, 80);
    ideal.run();
    assert_eq!(addresses(&ideal), [(address, 80)], "the earlier one keeps it");
    assert_eq!(ideal.seen.balancers.len(), 2, "its place is kept for it");
}

#[test]
fn why_a_public_address_is_not_had_is_told() {
    let mut ideal = cluster_of(1);
    plant(&mut ideal, named("u1", 80));
    ideal
        .seen
        .publics
        .insert("u1".to_owned(), Err("there is none".to_owned()));
    ideal.run();
    assert!(ideal.seen.balancers.is_empty());
    assert_eq!(ideal.seen.api.told["u1"], "there is none");
}
