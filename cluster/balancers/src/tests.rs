//! Requests of Services, and refusals.

use serde_json::json;

use super::*;

/// A Service with one port, with a change.
fn service(change: impl FnOnce(&mut Value)) -> Value {
    let mut service = json!({
        "metadata": { "namespace": "shop", "name": "web", "uid": "u1", "annotations": {} },
        "spec": { "type": "LoadBalancer", "ports": [{ "port": 80, "nodePort": 30080, "protocol": "TCP" }] },
        "status": { "loadBalancer": {} }
    });
    change(&mut service);
    service
}

fn read(change: impl FnOnce(&mut Value)) -> Wish {
    Wish::read(&service(change), BTreeSet::new()).unwrap()
}

fn annotated(name: &str, value: &str) -> Wish {
    read(|service| service["metadata"]["annotations"][format!("{PREFIX}{name}")] = json!(value))
}

#[test]
fn a_plain_one_asks_for_an_address_and_its_ports() {
    let wish = read(|_| {});
    assert_eq!(wish.key(), "shop/web");
    assert_eq!(
        wish.ports,
        [Port {
            protocol: Protocol::Tcp,
            port: 80,
            node_port: 30080
        }]
    );
    assert!(!wish.deleting && !wish.finalizer && !wish.internal && !wish.local && !wish.sticky);
    assert_eq!((wish.shown, wish.address, wish.refusal), (None, None, None));
    assert!(wish.sources.is_empty() && wish.notes.is_empty());
}

#[test]
fn others_are_none_of_ours() {
    for (field, value) in [("type", "ClusterIP"), ("loadBalancerClass", "example.com/other")] {
        let other = service(|service| service["spec"][field] = json!(value));
        assert_eq!(Wish::read(&other, BTreeSet::new()), None, "{field}");
    }
}

#[test]
fn what_its_object_says_of_it_is_read() {
    let wish = read(|service| {
        service["metadata"]["finalizers"] = json!(["other", FINALIZER]);
        service["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        service["spec"]["sessionAffinity"] = json!("ClientIP");
        service["spec"]["externalTrafficPolicy"] = json!("Local");
        service["status"]["loadBalancer"]["ingress"] = json!([{ "ip": "100.64.8.1", "ipMode": "VIP" }]);
    });
    assert!(wish.finalizer && wish.deleting && wish.sticky && wish.local);
    assert_eq!(wish.shown, Some(Ipv4Addr::new(100, 64, 8, 1)));
    let without_mode = read(|service| {
        service["status"]["loadBalancer"]["ingress"] = json!([{ "ip": "100.64.8.1" }]);
    });
    assert_eq!(without_mode.shown, None, "it is to be told anew");
}

#[test]
fn addresses_come_from_the_spec_or_the_annotation() {
    let wanted = Some(Ipv4Addr::new(100, 64, 8, 9));
    assert_eq!(annotated(ADDRESS, "100.64.8.9").address, wanted);
    let spec = read(|service| service["spec"]["loadBalancerIP"] = json!("100.64.8.9"));
    assert_eq!(spec.address, wanted);
    let internal = annotated(INTERNAL, "True");
    assert!(internal.internal && internal.refusal.is_none());
}

#[test]
fn a_public_address_is_named_by_its_resource() {
    let own = annotated(PIP_NAME, "Mine").public.unwrap();
    assert_eq!((own.group.as_ref(), own.text().as_str()), (None, "/mine"));
    let elsewhere = read(|service| {
        let annotations = &mut service["metadata"]["annotations"];
        annotations[format!("{PREFIX}{PIP_NAME}")] = json!("mine");
        annotations[format!("{PREFIX}{RESOURCE_GROUP}")] = json!("Shop");
    });
    assert!(elsewhere.refusal.is_none() && elsewhere.notes.is_empty());
    assert_eq!(elsewhere.public.unwrap().text(), "shop/mine");
}

#[test]
fn ports_at_one_address_are_compared_with_their_protocols() {
    let web = read(|_| {});
    assert_eq!(web.common_port(&web).map(|port| port.port), Some(80));
    let other = read(|service| {
        service["spec"]["ports"] = json!([
            { "port": 80, "nodePort": 30081, "protocol": "UDP" }, { "port": 443, "nodePort": 30082 }
        ]);
    });
    assert_eq!(web.common_port(&other), None);
}

#[test]
fn sources_are_ranges_and_known_tags() {
    let wish = read(|service| {
        service["spec"]["loadBalancerSourceRanges"] = json!(["10.0.0.0/8", " 192.168.1.1/32"]);
        let annotations = &mut service["metadata"]["annotations"];
        annotations[format!("{PREFIX}{SOURCES}")] = json!("1.2.3.0/24");
        annotations[format!("{PREFIX}{IP_RANGES}")] = json!("172.16.0.0/12");
        annotations[format!("{PREFIX}{SERVICE_TAGS}")] = json!("VirtualNetwork, Internet");
    });
    let texts: Vec<String> = wish.sources.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "VirtualNetwork",
            "Internet",
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.1.1/32"
        ],
        "the spec's go before the annotation's: {:?}",
        wish.refusal
    );
}

#[test]
fn what_cannot_be_done_is_refused_by_its_name() {
    let spec = |field: &str, value: Value| read(|service| service["spec"][field] = value);
    for (wish, named) in [
        (annotated("azure-pip-prefix-id", "mine"), "azure-pip-prefix-id"),
        (
            read(|service| {
                let annotations = &mut service["metadata"]["annotations"];
                annotations[format!("{PREFIX}{PIP_NAME}")] = json!("mine");
                annotations[format!("{PREFIX}{INTERNAL}")] = json!("true");
            }),
            INTERNAL,
        ),
        (
            read(|service| {
                service["metadata"]["annotations"][format!("{PREFIX}{PIP_NAME}")] = json!("mine");
                service["spec"]["loadBalancerIP"] = json!("100.64.8.9");
            }),
            PIP_NAME,
        ),
        (annotated(ADDRESS, "fd00::1"), ADDRESS),
        (annotated(SUBNET, "aks-subnet"), SUBNET),
        (annotated(SERVICE_TAGS, "Storage"), "Storage"),
        (annotated(IP_RANGES, "10.0.0.0/40"), IP_RANGES),
        (spec("loadBalancerIP", json!("here")), "loadBalancerIP"),
        (
            spec("loadBalancerSourceRanges", json!(["Internet"])),
            "loadBalancerSourceRanges",
        ),
        (spec("ipFamilies", json!(["IPv6"])), "ipFamilies"),
        (spec("ports", json!([{ "port": 80 }])), "nodePort"),
        (spec("ports", json!([])), "spec.ports"),
        (
            spec(
                "ports",
                json!([{ "port": 80, "nodePort": 30080, "protocol": "SCTP" }]),
            ),
            "SCTP",
        ),
    ] {
        let why = wish.refusal.unwrap_or_default();
        assert!(why.contains(named), "{named}: {why:?}");
    }
}

#[test]
fn what_has_no_effect_is_told_and_nothing_else() {
    let idle = annotated("azure-load-balancer-tcp-idle-timeout", "10");
    assert!(
        idle.refusal.is_none() && idle.notes.len() == 1,
        "{:?}",
        idle.notes
    );
    assert!(idle.notes[0].contains("tcp-idle-timeout"));
    let off = annotated("azure-load-balancer-enable-high-availability-ports", "false");
    assert!(off.refusal.is_none() && off.notes.is_empty());
}

#[test]
fn a_port_may_be_left_out() {
    let wish = read(|service| {
        service["spec"]["ports"] = json!([
            { "port": 53, "nodePort": 30053, "protocol": "UDP" },
            { "port": 53, "nodePort": 30054 },
            { "port": 9000, "nodePort": 30900 },
        ]);
        service["metadata"]["annotations"][format!("{PREFIX}port_9000_no_lb_rule")] = json!("true");
    });
    let ports: Vec<(Protocol, u16)> = wish
        .ports
        .iter()
        .map(|port| (port.protocol, port.node_port))
        .collect();
    assert_eq!(ports, [(Protocol::Tcp, 30054), (Protocol::Udp, 30053)]);
}
