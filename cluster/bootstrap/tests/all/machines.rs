//! Properties that control planes and nodes have in common, and their networks.

use std::net::Ipv4Addr;

use agent_protocol::{MachineConfig, Probe};
use cluster_bootstrap::{
    API_PORT, CONTROL_PLANE_SUBNET, control_plane_config, control_plane_nics, network, node_nics,
};
use cluster_pki::ClusterPki;
use cluster_spec::PodNetworking;
use fabric_api::{Attach, NetworkId, StampNetwork, Uplink};

use crate::{PLUGINS, VIP, at, file, named, node, now, pki, place, place_of, spec};

#[test]
fn whatever_is_named_is_written_and_keys_are_private() {
    let pki = pki();
    let mut configs =
        vec![control_plane_config(&spec(PodNetworking::Kubenet), &pki, &place_of(&[1]), now(), 7).unwrap()];
    configs.extend(PLUGINS.map(|plugin| node(&spec(plugin), &pki)));
    for config in &configs {
        assert_eq!(config.generation, 7);
        let restarts = config
            .processes
            .iter()
            .flat_map(|process| process.restart_on.iter().map(String::as_str));
        for path in named(config).chain(restarts) {
            file(config, path);
        }
        for process in &config.processes {
            if let Some(Probe::Http { ca, identity, .. }) = &process.probe {
                let (certificate, key) = identity.clone().unzip();
                for path in [ca.clone(), certificate, key].into_iter().flatten() {
                    file(config, &path);
                }
            }
        }
        for file in &config.files {
            if file.content.contains("PRIVATE KEY") {
                assert_eq!(file.mode, 0o600, "{}", file.path);
            }
        }
        assert!(!format!("{config:?}").contains("PRIVATE KEY"));
    }
}

#[test]
fn machines_send_only_what_is_theirs() {
    let id = NetworkId::from("net1");
    let stamp = StampNetwork {
        range: "100.64.16.0/20".parse().unwrap(),
        uplink: Uplink::None,
    };
    for plugin in PLUGINS {
        let spec = spec(plugin);
        let cards = control_plane_nics(&spec, &id, &at(), true, &stamp);
        let outside = cards[0].sending.clone().unwrap();
        // A VIP that others hold as well, and answers.
        let from: Vec<String> = outside.from.iter().map(ToString::to_string).collect();
        assert_eq!(from, [format!("{VIP}/32")]);
        assert_eq!(outside.serves, Some(vec![API_PORT]));
        let inside = cards[1].sending.clone().unwrap();
        assert!(inside.from.is_empty());
        assert_eq!(
            inside.serves, None,
            "it calls kubelets, webhooks and aggregated APIs"
        );
        let node = place(plugin);
        let sending = node_nics(&spec, &id, &node)[0].sending.clone().unwrap();
        let any = "0.0.0.0/0".parse().unwrap();
        assert_eq!(sending.from, [node.pod_range.unwrap_or(any)], "{plugin:?}");
        assert_eq!(sending.serves, None);
        let vnet = network(&spec, id.clone(), Ipv4Addr::new(100, 64, 16, 10), Vec::new());
        for subnet in &vnet.subnets {
            let only_api = (subnet.name == CONTROL_PLANE_SUBNET).then(|| vec![API_PORT]);
            assert_eq!(subnet.serves, only_api, "{}", subnet.name);
        }
    }
}

#[test]
fn machines_trust_what_is_to_come_and_begin_anew_for_each_step() {
    let spec = spec(PodNetworking::Kubenet);
    let mut pki = pki();
    let configs = |pki: &ClusterPki| {
        [
            control_plane_config(&spec, pki, &place_of(&[1]), now(), 7).unwrap(),
            node(&spec, pki),
        ]
    };
    let mut steps = vec![configs(&pki)];
    pki.trust_new_authorities(now()).unwrap();
    steps.push(configs(&pki));
    pki.issue_from_new_authorities();
    steps.push(configs(&pki));
    pki.drop_former_authorities();
    steps.push(configs(&pki));
    let known = |config: &MachineConfig, path: &str| {
        let file = config.files.iter().find(|file| file.path == path).unwrap();
        file.content.matches("BEGIN CERTIFICATE").count()
    };
    for (step, count) in steps.iter().zip([1, 2, 2, 1]) {
        for config in step {
            assert_eq!(known(config, "/etc/kubernetes/pki/ca.crt"), count);
        }
        assert_eq!(known(&step[0], "/etc/kubernetes/pki/etcd/ca.crt"), count);
        assert_eq!(known(&step[0], "/etc/kubernetes/pki/front-proxy-ca.crt"), count);
        assert_eq!(known(&step[0], "/etc/kubernetes/pki/signing-ca.crt"), 1);
    }
    let begins_anew = |before: &MachineConfig, after: &MachineConfig, name: &str| {
        let of = |config: &MachineConfig| {
            let found = config.processes.iter().find(|process| process.name == name);
            found.unwrap().clone()
        };
        let content = |config: &MachineConfig, path: &String| {
            let found = config.files.iter().find(|file| file.path == *path);
            found.map(|file| file.content.clone())
        };
        let (old, new) = (of(before), of(after));
        let read = |path: &String| content(before, path) != content(after, path);
        old.argv != new.argv || old.restart != new.restart || new.restart_on.iter().any(read)
    };
    for (number, pair) in steps.windows(2).enumerate() {
        let [[member, node], [member_then, node_then]] = [&pair[0], &pair[1]];
        // What it shows, and whom it signs for, a server takes while it runs; whom it trusts it does not.
        let trust = number != 1;
        for name in ["etcd", "etcd-backup", "kube-apiserver", "kube-scheduler"] {
            assert_eq!(begins_anew(member, member_then, name), trust, "{name} {number}");
        }
        assert!(begins_anew(member, member_then, "kube-controller-manager"));
        for name in ["kubelet", "kube-proxy"] {
            assert!(begins_anew(node, node_then, name), "{name} {number}");
        }
        assert!(!begins_anew(node, node_then, "containerd"));
    }
}

#[test]
fn new_certificates_restart_nothing() {
    let spec = spec(PodNetworking::Kubenet);
    let pki = pki();
    let make = || {
        [
            control_plane_config(&spec, &pki, &place_of(&[1]), now(), 7).unwrap(),
            node(&spec, &pki),
        ]
    };
    for (first, second) in make().iter().zip(make()) {
        let mut differ = 0;
        for (a, b) in first.files.iter().zip(&second.files) {
            if a.content != b.content {
                differ += 1;
                for process in &first.processes {
                    assert!(
                        !process.restart_on.contains(&a.path),
                        "{} restarts {}",
                        a.path,
                        process.name
                    );
                }
            }
        }
        assert!(differ > 0, "certificates are new each time");
    }
}

#[test]
fn stopping_goes_from_clients_to_servers() {
    let pki = pki();
    let order = |config: &MachineConfig, name: &str| {
        config
            .processes
            .iter()
            .find(|process| process.name == name)
            .unwrap()
            .stop_order
    };
    let control_plane =
        control_plane_config(&spec(PodNetworking::Kubenet), &pki, &place_of(&[1]), now(), 1).unwrap();
    assert!(order(&control_plane, "kube-scheduler") > order(&control_plane, "kube-apiserver"));
    assert!(order(&control_plane, "kube-apiserver") > order(&control_plane, "etcd"));
    let node = node(&spec(PodNetworking::Kubenet), &pki);
    for served in ["containerd", "csi-disk"] {
        assert!(order(&node, "kubelet") > order(&node, served), "{served}");
    }
}

#[test]
fn cards_and_the_network_fit_together() {
    let spec = spec(PodNetworking::Kubenet);
    let id = NetworkId::from("net1");
    let stamp = StampNetwork {
        range: "100.64.16.0/20".parse().unwrap(),
        uplink: Uplink::None,
    };
    let vnet = network(&spec, id.clone(), Ipv4Addr::new(100, 64, 16, 10), Vec::new());
    assert_eq!(
        vnet.reserved,
        ["10.244.0.0/16".parse().unwrap(), "10.0.0.0/16".parse().unwrap()]
    );
    let mut cards = control_plane_nics(&spec, &id, &at(), false, &stamp);
    assert_eq!((cards[0].name.as_str(), &cards[0].extra), ("eth0", &vec![VIP]));
    assert_eq!(cards[0].address, "100.64.16.20/20".parse().unwrap());
    cards.extend(node_nics(&spec, &id, &place(PodNetworking::Kubenet)));
    for card in &cards[1..] {
        let Attach::Subnet { network, subnet } = &card.attach else {
            panic!("{card:?}")
        };
        let subnet = vnet.subnets.iter().find(|known| known.name == *subnet).unwrap();
        assert_eq!(*network, id);
        assert_eq!(card.address.trunc(), subnet.range);
        for via in card.routes.iter().map(|route| route.via).chain(card.gateway) {
            assert_eq!(via, subnet.gateway);
        }
    }
    let to: Vec<_> = cards[1].routes.iter().map(|route| route.to.to_string()).collect();
    assert_eq!(to, ["10.224.0.0/16", "10.244.0.0/16"]);
}
