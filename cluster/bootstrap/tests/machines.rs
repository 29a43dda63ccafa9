//! Rendered configurations: properties for every plugin, and differences between plugins.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::net::Ipv4Addr;

use agent_protocol::{MachineConfig, Probe};
use base64::Engine as _;
use cluster_bootstrap::{
    API_PORT, Bearer, CONTROL_PLANE_SUBNET, ControlPlaneAddresses, ControlPlanePlace, Member, NodePlace,
    RegistryAccess, TokenAuthority, client_certificate, control_plane_config, control_plane_nics,
    directory_kubeconfig, kubeconfig, network, node_config, node_nics, node_wish,
};
use cluster_pki::ClusterPki;
use cluster_spec::{
    ClusterSpec, CredentialKind, DirectoryAccess, PodNetworking, PoolMode, PoolSpec, Tier, TokenFormat,
    testkit,
};
use fabric_api::{Attach, NetworkId, StampNetwork, Uplink};
use jiff::Timestamp;
use serde_json::Value;

const PLUGINS: [PodNetworking; 4] = [
    PodNetworking::Kubenet,
    PodNetworking::AzureFlat,
    PodNetworking::AzureOverlay,
    PodNetworking::None,
];
const VIP: Ipv4Addr = Ipv4Addr::new(100, 64, 24, 1);

fn now() -> Timestamp {
    Timestamp::from_second(1_790_000_000).unwrap()
}

fn at() -> ControlPlaneAddresses {
    ControlPlaneAddresses {
        vip: VIP,
        stamp: Ipv4Addr::new(100, 64, 16, 20),
        vnet: Ipv4Addr::new(10, 239, 255, 244),
    }
}

/// The first member, of a control plane with these members.
fn place_of(numbers: &[u8]) -> ControlPlanePlace {
    ControlPlanePlace {
        members: numbers
            .iter()
            .map(|number| Member {
                machine: format!("m{number}"),
                stamp: Ipv4Addr::new(100, 64, 16, 19 + number),
                vnet: Ipv4Addr::new(10, 239, 255, 243 + number),
            })
            .collect(),
        roaming: numbers.len() > 1,
        ..ControlPlanePlace::alone("m1", at())
    }
}

fn spec(plugin: PodNetworking) -> ClusterSpec {
    let pool = PoolSpec {
        vm_size: "Standard_DS2_v2".into(),
        mode: PoolMode::User,
        labels: [("tier".to_owned(), "back".to_owned())].into(),
        taints: vec!["dedicated=back:NoSchedule".into()],
        ..testkit::pool("blue", 1)
    };
    ClusterSpec {
        name: "shop".into(),
        resource_group: "Retail-West".into(),
        node_resource_group: "MC_Retail-West_shop_local".into(),
        fqdn: "shop-dns-1.hcp.local.example.org".into(),
        network: testkit::network(plugin),
        pools: vec![pool],
        ..testkit::cluster()
    }
}

fn place(plugin: PodNetworking) -> NodePlace {
    NodePlace {
        node_name: "aks-blue-12345678-vmss00000a".into(),
        address: Ipv4Addr::new(10, 224, 0, 14),
        pod_range: match plugin {
            PodNetworking::Kubenet | PodNetworking::AzureOverlay => "10.244.7.0/24".parse().ok(),
            PodNetworking::AzureFlat => "10.224.1.64/27".parse().ok(),
            PodNetworking::None => None,
        },
        subscription: "0000".into(),
        machine: "m1".into(),
        host_cores: 16,
        host_memory_mib: 65_536,
        own_disk: true,
        registry: None,
    }
}

fn node(spec: &ClusterSpec, pki: &ClusterPki) -> MachineConfig {
    node_config(
        spec,
        &spec.pools[0],
        &place(spec.network.plugin),
        pki,
        VIP,
        now(),
        7,
    )
    .unwrap()
}

fn pki() -> ClusterPki {
    ClusterPki::generate(now()).unwrap()
}

fn file<'a>(config: &'a MachineConfig, path: &str) -> &'a str {
    let found = config.files.iter().find(|file| file.path == path);
    &found.unwrap_or_else(|| panic!("no {path} in {config:?}")).content
}

fn object(config: &MachineConfig, path: &str) -> Value {
    serde_json::from_str(file(config, path)).unwrap()
}

/// Every file named in a program's flags, as `--flag=/etc/…`.
fn named(config: &MachineConfig) -> impl Iterator<Item = &str> {
    config
        .processes
        .iter()
        .flat_map(|process| &process.argv)
        .filter_map(|word| word.split_once('='))
        .map(|(_, value)| value)
        .filter(|value| value.starts_with("/etc/"))
}

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
fn a_node_holds_nothing_that_is_not_its_own() {
    let pki = pki();
    for plugin in PLUGINS {
        let config = node(&spec(plugin), &pki);
        for file in &config.files {
            for secret in [
                &pki.cluster.key,
                &pki.etcd.key,
                &pki.front_proxy.key,
                &pki.service_account_key,
                &pki.encryption_key,
            ] {
                assert!(!file.content.contains(secret.as_str()), "{}", file.path);
            }
        }
        let certificate = file(&config, "/etc/kubernetes/pki/kubelet-client.crt");
        let (_, pem) = x509_parser::pem::parse_x509_pem(certificate.as_bytes()).unwrap();
        let subject = pem.parse_x509().unwrap().subject().to_string();
        assert_eq!(
            subject,
            "O=system:nodes, CN=system:node:aks-blue-12345678-vmss00000a"
        );
        let kubeconfig = object(&config, "/etc/kubernetes/kubelet.kubeconfig");
        assert_eq!(
            kubeconfig["clusters"][0]["cluster"]["server"],
            "https://100.64.24.1:443"
        );
    }
}

/// Without this, a release that lowers it would stop the API server of each cluster with one member for as
/// long as etcd takes to end.
#[test]
fn etcd_goes_on_with_more_room_than_its_quota_and_is_restarted_for_more() {
    let etcd = |limits: Tier| {
        let place = ControlPlanePlace {
            limits,
            ..place_of(&[1])
        };
        let config = control_plane_config(&spec(PodNetworking::Kubenet), &pki(), &place, now(), 7).unwrap();
        let mut processes = config.processes.into_iter();
        processes.find(|process| process.name == "etcd").unwrap()
    };
    let (free, standard) = (etcd(Tier::Free), etcd(Tier::Standard));
    assert_ne!(free.restart, standard.restart);
    // More room; then what earlier releases started it with, with its own room and with more.
    assert_eq!(free.goes_on_with[0], standard.restart);
    assert_eq!(free.goes_on_with[2..], standard.goes_on_with[..]);
    assert_eq!((free.goes_on_with.len(), standard.goes_on_with.len()), (3, 1));
    for etcd in [&free, &standard] {
        assert!(!etcd.goes_on_with.contains(&etcd.restart));
    }
    assert_eq!(standard.restart, etcd(Tier::Premium).restart);
}

/// One CA signs certificates of members and of etcd's clients.
#[test]
fn a_client_of_etcd_does_not_pass_for_a_member() {
    let config =
        control_plane_config(&spec(PodNetworking::Kubenet), &pki(), &place_of(&[1]), now(), 7).unwrap();
    let etcd = file(&config, "/etc/landfall/etcd.json");
    assert!(etcd.contains("--peer-cert-allowed-cn=etcd-peer"), "{etcd}");
    let is_peer = |name: &str| {
        let path = format!("/etc/kubernetes/pki/etcd/{name}.crt");
        let (_, pem) = x509_parser::pem::parse_x509_pem(file(&config, &path).as_bytes()).unwrap();
        pem.parse_x509().unwrap().subject().to_string() == "CN=etcd-peer"
    };
    assert!(is_peer("peer"));
    for other in ["client", "keeper", "server"] {
        assert!(!is_peer(other), "{other}");
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
fn tokens_of_each_known_key_are_taken() {
    let spec = spec(PodNetworking::Kubenet);
    let mut pki = pki();
    let keys = |pki: &ClusterPki| {
        let config = control_plane_config(&spec, pki, &place_of(&[1]), now(), 7).unwrap();
        for path in named(&config) {
            file(&config, path);
        }
        let server = config
            .processes
            .iter()
            .find(|process| process.name == "kube-apiserver");
        let flags = server.unwrap().argv.clone().into_iter();
        flags
            .filter(|flag| flag.starts_with("--service-account-key-file="))
            .count()
    };
    let mut counts = vec![keys(&pki)];
    pki.trust_new_service_account_key().unwrap();
    counts.push(keys(&pki));
    pki.sign_with_new_service_account_key();
    counts.push(keys(&pki));
    pki.trust_new_service_account_key().unwrap();
    counts.push(keys(&pki));
    pki.drop_former_service_account_key();
    pki.withdraw_new_service_account_key();
    counts.push(keys(&pki));
    assert_eq!(counts, [1, 2, 2, 3, 1]);
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
fn the_api_server_answers_to_its_names_and_addresses_and_no_others() {
    let config =
        control_plane_config(&spec(PodNetworking::Kubenet), &pki(), &place_of(&[1]), now(), 1).unwrap();
    let (_, pem) =
        x509_parser::pem::parse_x509_pem(file(&config, "/etc/kubernetes/pki/apiserver.crt").as_bytes())
            .unwrap();
    let certificate = pem.parse_x509().unwrap();
    let mut names: Vec<String> = certificate
        .subject_alternative_name()
        .unwrap()
        .unwrap()
        .value
        .general_names
        .iter()
        .map(|name| match name {
            x509_parser::extensions::GeneralName::DNSName(name) => (*name).to_owned(),
            x509_parser::extensions::GeneralName::IPAddress(bytes) => {
                Ipv4Addr::from(<[u8; 4]>::try_from(*bytes).unwrap()).to_string()
            }
            other => panic!("{other}"),
        })
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "10.0.0.1",
            "10.239.255.244",
            "100.64.16.20",
            "100.64.24.1",
            "127.0.0.1",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            "localhost",
            "shop-dns-1.hcp.local.example.org",
        ]
    );
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
fn starting_goes_from_servers_to_clients_where_clients_would_end() {
    let node = node(&spec(PodNetworking::Kubenet), &pki());
    let find = |name: &str| node.processes.iter().find(|process| process.name == name);
    assert_eq!(find("kubelet").unwrap().after, ["containerd"]);
    // A process that others wait for must exist, and wait for no other: otherwise the wait would not end.
    for name in node.processes.iter().flat_map(|process| &process.after) {
        assert!(find(name).unwrap().after.is_empty(), "{name}");
    }
}

#[test]
fn each_plugin_gives_pods_addresses_its_own_way() {
    let pki = pki();
    let cni = |plugin| {
        let config = node(&spec(plugin), &pki);
        let list = config
            .files
            .iter()
            .find(|file| file.path.starts_with("/etc/cni/"))?;
        let list: Value = serde_json::from_str(&list.content).unwrap();
        Some(list["plugins"][0].clone())
    };
    let kubenet = cni(PodNetworking::Kubenet).unwrap();
    assert_eq!(
        (&kubenet["type"], &kubenet["bridge"]),
        (&"bridge".into(), &"cbr0".into())
    );
    assert_eq!(kubenet["ipam"]["ranges"][0][0]["subnet"], "10.244.7.0/24");
    let overlay = cni(PodNetworking::AzureOverlay).unwrap();
    assert_eq!(overlay["type"], "ptp");
    assert_eq!(overlay["ipam"]["ranges"][0][0]["subnet"], "10.244.7.0/24");
    let flat = &cni(PodNetworking::AzureFlat).unwrap()["ipam"]["ranges"][0][0];
    assert_eq!(flat["subnet"], "10.224.0.0/16");
    assert_eq!(
        (&flat["rangeStart"], &flat["rangeEnd"]),
        (&"10.224.1.64".into(), &"10.224.1.95".into())
    );
    assert_eq!(cni(PodNetworking::None), None);

    let translated = |plugin| file(&node(&spec(plugin), &pki), "/etc/landfall/nat.nft").to_owned();
    assert!(translated(PodNetworking::Kubenet).contains("ip saddr 10.244.0.0/16 ip daddr != 10.244.0.0/16"));
    assert!(
        translated(PodNetworking::AzureFlat).contains("ip saddr 10.224.1.64/27 ip daddr != 10.224.0.0/12")
    );
    assert!(!translated(PodNetworking::None).contains("masquerade"));

    let mut closed = spec(PodNetworking::AzureOverlay);
    assert!(!translated(PodNetworking::AzureOverlay).contains("reject"));
    closed.network.outbound = false;
    let rules = file(&node(&closed, &pki), "/etc/landfall/nat.nft").to_owned();
    assert!(
        rules.contains("ip daddr != { 100.64.24.1, 10.224.0.0/12, 10.244.0.0/16 } oifname \"eth0\" reject"),
        "{rules}"
    );
}

#[test]
fn a_node_without_a_pod_range_is_refused_where_it_needs_one() {
    let spec = spec(PodNetworking::Kubenet);
    let place = NodePlace {
        pod_range: None,
        ..place(PodNetworking::Kubenet)
    };
    let refused = node_config(&spec, &spec.pools[0], &place, &pki(), VIP, now(), 1);
    assert_eq!(
        refused.err().unwrap().to_string(),
        "the node aks-blue-12345678-vmss00000a has no pod range"
    );
}

#[test]
fn a_kubelet_says_what_the_size_has_whatever_the_host_has() {
    let config = node(&spec(PodNetworking::Kubenet), &pki());
    let kubelet = object(&config, "/etc/kubernetes/kubelet.json");
    // 2 cores and 7 GiB of 16 and 64; AKS reserves 100m and 20 MB per pod and 50 MB for Kubernetes.
    assert_eq!(
        kubelet["systemReserved"],
        serde_json::json!({ "cpu": "14", "memory": "58368Mi" })
    );
    assert_eq!(
        kubelet["kubeReserved"],
        serde_json::json!({ "cpu": "100m", "memory": "650Mi" })
    );
    assert_eq!(
        kubelet["providerID"],
        "azure:///subscriptions/0000/resourceGroups/mc_retail-west_shop_local/providers/Microsoft.Compute/virtualMachineScaleSets/aks-blue-12345678-vmss/virtualMachines/10"
    );
    assert_eq!(kubelet["registerWithTaints"][0]["key"], "dedicated");
}

#[test]
fn a_kubelet_behaves_as_on_aks() {
    for plugin in PLUGINS {
        let config = node(&spec(plugin), &pki());
        let kubelet = object(&config, "/etc/kubernetes/kubelet.json");
        assert_eq!(kubelet["seccompDefault"], true);
        assert_eq!(kubelet["serializeImagePulls"], false);
        assert_eq!(kubelet["staticPodPath"], "/etc/kubernetes/manifests");
        // With a containerd that has its score, pods can get theirs from the kubelet, which does not fail
        // otherwise.
        assert_eq!(kubelet["oomScoreAdj"], -999);
        let containerd = file(&config, "/etc/containerd/config.toml");
        assert!(
            containerd.contains("\noom_score = -999\n")
                && containerd.contains("restrict_oom_score_adj = true")
        );
    }
}

#[test]
fn a_node_pulls_from_the_stamps_registries_with_its_machines_certificate() {
    let spec = spec(PodNetworking::Kubenet);
    let without = node(&spec, &pki());
    let of_registries = |config: &MachineConfig| {
        let paths = config.files.iter().map(|file| file.path.clone());
        let of: Vec<String> = paths.filter(|path| path.contains("/certs.d/")).collect();
        of
    };
    assert!(of_registries(&without).is_empty());
    let place = NodePlace {
        registry: Some(RegistryAccess {
            host: "127.0.0.1:8443".to_owned(),
            url: "https://100.64.16.1:7443".to_owned(),
            ca: "CA of the agents".to_owned(),
        }),
        ..place(PodNetworking::Kubenet)
    };
    let config = node_config(&spec, &spec.pools[0], &place, &pki(), VIP, now(), 1).unwrap();
    let directory = "/etc/containerd/certs.d/127.0.0.1_8443_";
    assert_eq!(
        of_registries(&config),
        [format!("{directory}/ca.crt"), format!("{directory}/hosts.toml")]
    );
    assert_eq!(file(&config, &format!("{directory}/ca.crt")), "CA of the agents");
    let hosts = file(&config, &format!("{directory}/hosts.toml"));
    assert!(
        hosts.starts_with("server = \"https://100.64.16.1:7443\"\n"),
        "{hosts}"
    );
    // No other host gets the certificate, and none is pushed to.
    assert!(
        hosts.contains("/var/lib/landfall-agent/client.crt") && !hosts.contains("[host."),
        "{hosts}"
    );
    assert!(!hosts.contains("push"), "{hosts}");
    // What changes is read at each pull.
    let containerd = config
        .processes
        .iter()
        .find(|process| process.name == "containerd");
    assert_eq!(containerd.unwrap().restart_on, ["/etc/containerd/config.toml"]);
    let same = file(&without, "/etc/containerd/config.toml");
    assert_eq!(file(&config, "/etc/containerd/config.toml"), same);
    assert!(same.contains("config_path = \"/etc/containerd/certs.d\""));
}

#[test]
fn a_kubelet_goes_by_its_disk_only_where_it_has_one_of_its_own() {
    let spec = spec(PodNetworking::Kubenet);
    let kubelet = |own_disk| {
        let place = NodePlace {
            own_disk,
            ..place(PodNetworking::Kubenet)
        };
        let config = node_config(&spec, &spec.pools[0], &place, &pki(), VIP, now(), 1).unwrap();
        object(&config, "/etc/kubernetes/kubelet.json")
    };
    let own = kubelet(true);
    assert_eq!(
        own["evictionHard"],
        serde_json::json!({ "memory.available": "100Mi", "nodefs.available": "10%", "nodefs.inodesFree": "5%" })
    );
    assert_eq!(own["imageGCHighThresholdPercent"], 85);
    assert_eq!(own["imageGCLowThresholdPercent"], 80);
    assert!(own["imageMaximumGCAge"].is_null());
    let shared = kubelet(false);
    assert_eq!(shared["evictionHard"]["nodefs.available"], "1%");
    assert_eq!(shared["imageGCHighThresholdPercent"], 100);
    assert_eq!(shared["imageMaximumGCAge"], "168h");
}

#[test]
fn images_of_the_node_image_are_pinned() {
    // They cannot be pulled again, so garbage collection must not remove them.
    let tasks = node(&spec(PodNetworking::Kubenet), &pki()).tasks;
    assert!(tasks.len() > 2);
    for task in tasks {
        let label = task.argv.iter().skip_while(|word| *word != "--label").nth(1);
        assert_eq!(
            label.map(String::as_str),
            Some("io.cri-containerd.pinned=pinned"),
            "{}",
            task.name
        );
    }
}

#[test]
fn an_api_server_admits_as_on_aks() {
    let config =
        control_plane_config(&spec(PodNetworking::Kubenet), &pki(), &place_of(&[1]), now(), 7).unwrap();
    let server = config
        .processes
        .iter()
        .find(|process| process.name == "kube-apiserver")
        .unwrap();
    let plugins = server
        .argv
        .iter()
        .find_map(|flag| flag.strip_prefix("--enable-admission-plugins="))
        .unwrap();
    assert_eq!(
        plugins.split(',').collect::<Vec<_>>(),
        [
            "NodeRestriction",
            "PodNodeSelector",
            "PodTolerationRestriction",
            "ExtendedResourceToleration"
        ]
    );
}

#[test]
fn odd_names_of_groups_become_valid_labels() {
    let long = format!("MC_{}_c_local", "g".repeat(60));
    for (group, label) in [
        ("MC_team_c1_local", "MC_team_c1_local"),
        ("MC_team(blue)_c1_local", "MC_team-blue-_c1_local"),
        ("_nodes", "znodes"),
        ("grün.", "gr-nz"),
        ("(", "z"),
        (long.as_str(), &long[..63]),
    ] {
        let mut spec = spec(PodNetworking::Kubenet);
        group.clone_into(&mut spec.node_resource_group);
        let wish = node_wish(&spec, &spec.pools[0], &place(PodNetworking::Kubenet));
        assert_eq!(wish.labels["kubernetes.azure.com/cluster"], label, "{group}");
    }
}

#[test]
fn labels_are_as_aks_gives_them_and_always_valid() {
    let mut spec = spec(PodNetworking::Kubenet);
    spec.node_resource_group = format!("MC_{}_shop_local", "g_".repeat(30));
    let wish = node_wish(&spec, &spec.pools[0], &place(PodNetworking::Kubenet));
    for (name, value) in [
        ("agentpool", "blue"),
        ("kubernetes.azure.com/agentpool", "blue"),
        ("kubernetes.azure.com/mode", "user"),
        ("kubernetes.azure.com/sku-cpu", "2"),
        ("kubernetes.azure.com/sku-memory", "7"),
        ("kubernetes.io/role", "agent"),
        ("node.kubernetes.io/instance-type", "Standard_DS2_v2"),
        ("tier", "back"),
    ] {
        assert_eq!(wish.labels.get(name).map(String::as_str), Some(value), "{name}");
    }
    for (name, value) in &wish.labels {
        let ends = |mut ends: std::str::Chars<'_>| ends.next().is_none_or(|end| end.is_ascii_alphanumeric());
        let back = value.chars().rev().collect::<String>();
        assert!(
            value.len() <= 63 && ends(value.chars()) && ends(back.chars()),
            "{name}={value}"
        );
    }
    assert_eq!(wish.taints, ["dedicated=back:NoSchedule"]);
    assert_eq!(wish.pod_range, "10.244.7.0/24".parse().ok());
    let flat = self::spec(PodNetworking::AzureFlat);
    assert_eq!(
        node_wish(&flat, &flat.pools[0], &place(PodNetworking::AzureFlat)).pod_range,
        None
    );
}

#[test]
fn kubeconfigs_are_named_as_aks_names_them() {
    let spec = spec(PodNetworking::Kubenet);
    let pki = pki();
    let until = now() + jiff::SignedDuration::from_hours(8);
    for (bearer, context, user, subject) in [
        (
            Bearer::Credential(CredentialKind::Admin, "a1"),
            "shop-admin",
            "clusterAdmin_Retail-West_shop",
            "CN=landfall:credential:admin:a1",
        ),
        (
            Bearer::Credential(CredentialKind::User, "a2"),
            "shop",
            "clusterUser_Retail-West_shop",
            "CN=landfall:credential:user:a2",
        ),
        (
            Bearer::Credential(CredentialKind::Monitoring, "a3"),
            "shop",
            "clusterMonitoringUser_Retail-West_shop",
            "CN=landfall:credential:monitoring:a3",
        ),
        (
            Bearer::Operator,
            "shop-admin",
            "clusterAdmin_Retail-West_shop",
            "O=system:masters, CN=landfall:operator",
        ),
    ] {
        let certificate = client_certificate(&pki, bearer, now(), until).unwrap();
        let text = kubeconfig(&spec, &pki, "https://100.64.24.1:443", bearer, &certificate, None);
        let line = |start: &str| {
            text.lines()
                .find_map(|line| line.trim().strip_prefix(start))
                .map(str::trim)
        };
        assert_eq!(line("current-context:"), Some(context));
        assert!(text.contains(&format!("- name: {user}\n")), "{text}");
        assert_eq!(line("server:"), Some("https://100.64.24.1:443"));
        let certificate = line("client-certificate-data:").unwrap();
        let pem = base64::engine::general_purpose::STANDARD
            .decode(certificate)
            .unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).unwrap();
        let parsed = pem.parse_x509().unwrap();
        assert_eq!(parsed.subject().to_string(), subject);
        assert_eq!(parsed.validity().not_after.timestamp(), until.as_second());
    }
}

#[test]
fn a_kubeconfig_of_a_namespace_has_names_of_its_own() {
    let (spec, pki) = (spec(PodNetworking::Kubenet), pki());
    let bearer = Bearer::Credential(CredentialKind::User, "a4");
    let until = now().checked_add(std::time::Duration::from_secs(60)).unwrap();
    let certificate = client_certificate(&pki, bearer, now(), until).unwrap();
    let text = kubeconfig(&spec, &pki, "https://v:443", bearer, &certificate, Some("dev"));
    for line in [
        "    namespace: dev\n    user: clusterUser_Retail-West_shop_dev\n  name: shop_dev\n",
        "current-context: shop_dev\n",
        "- name: clusterUser_Retail-West_shop_dev\n",
    ] {
        assert!(text.contains(line), "{line} in {text}");
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

#[test]
fn on_cgroup_v2_everything_moves_to_a_leaf_and_controllers_are_handed_on() {
    let config = node(&spec(PodNetworking::Kubenet), &pki());
    let mut scripts = config.setup.iter().filter_map(|command| command.argv.last());
    let script = scripts
        .find(|script| script.contains("cgroup.controllers"))
        .expect("a node sets its control groups up");
    let run = |files: &[(&str, &str)]| {
        let root = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(root.path().join(name), content).unwrap();
        }
        let script = script.replace("/sys/fs/cgroup", root.path().to_str().unwrap());
        let ended = std::process::Command::new("sh")
            .args(["-c", &script])
            .status()
            .unwrap();
        let read = |name: &str| std::fs::read_to_string(root.path().join(name)).unwrap_or_default();
        (
            ended.code(),
            read("init/cgroup.procs"),
            read("cgroup.subtree_control"),
        )
    };
    let v2 = |controllers: &'static str| {
        [
            ("cgroup.controllers", controllers),
            ("cgroup.procs", "1\n17\n"),
            ("cgroup.subtree_control", ""),
        ]
    };
    let (code, leaf, handed_on) = run(&v2("cpuset cpu io memory pids\n"));
    assert_eq!((code, leaf.as_str()), (Some(0), "1\n17\n"));
    assert_eq!(handed_on, "+cpuset\n+cpu\n+io\n+memory\n+pids\n");
    // A missing controller that a kubelet needs: retried, and reported.
    assert_eq!(run(&v2("cpu pids\n")).0, Some(1));
    // A longer name that contains the needed one does not count.
    assert_eq!(run(&v2("cpuset memory pids\n")).0, Some(1));
    // Version 1: nothing to do, and no directory is created.
    assert_eq!(run(&[]), (Some(0), String::new(), String::new()));
}

#[test]
fn an_issuer_that_others_know_signs_and_the_one_of_before_is_still_taken() {
    let flags = |spec: &ClusterSpec| -> Vec<String> {
        let config = control_plane_config(spec, &pki(), &place_of(&[1]), now(), 1).unwrap();
        let server = config
            .processes
            .into_iter()
            .find(|process| process.name == "kube-apiserver");
        server.unwrap().argv
    };
    let before = flags(&spec(PodNetworking::Kubenet));
    let known = flags(&ClusterSpec {
        issuer: Some("https://stamp.example.org/oidc/u/".to_owned()),
        ..spec(PodNetworking::Kubenet)
    });
    let of = |flags: &[String], name: &str| -> Vec<String> {
        let named = flags.iter().filter_map(|flag| flag.strip_prefix(name));
        named.map(str::to_owned).collect()
    };
    assert_eq!(
        of(&known, "--service-account-issuer="),
        [
            "https://stamp.example.org/oidc/u/",
            "https://shop-dns-1.hcp.local.example.org"
        ]
    );
    assert_eq!(
        of(&known, "--service-account-jwks-uri="),
        ["https://stamp.example.org/oidc/u/openid/v1/jwks"]
    );
    // Everything else is unchanged and in order.
    let rest: Vec<&String> = known
        .iter()
        .filter(|flag| !flag.contains("https://stamp.example.org"))
        .collect();
    assert_eq!(rest, before.iter().collect::<Vec<_>>());
}

#[test]
fn those_of_the_directory_are_known_by_a_file_and_role_assignments_by_a_question() {
    let directory = |roles| ClusterSpec {
        directory: Some(DirectoryAccess {
            tenant: "tenant".to_owned(),
            admins: vec!["admins".to_owned()],
            roles,
        }),
        ..spec(PodNetworking::Kubenet)
    };
    let place = ControlPlanePlace {
        authority: TokenAuthority {
            url: "https://100.64.16.1:7443".to_owned(),
            ca: "CA".to_owned(),
            tenant: "tenant".to_owned(),
            issuers: vec![
                ("https://s/tenant/v2.0".to_owned(), "/tenant/v2.0".to_owned()),
                ("https://s/adfs".to_owned(), "/adfs".to_owned()),
            ],
        },
        ..place_of(&[1])
    };
    let config = |spec: &ClusterSpec| control_plane_config(spec, &pki(), &place, now(), 1).unwrap();
    let server = |config: &MachineConfig| {
        let server = config
            .processes
            .iter()
            .find(|process| process.name == "kube-apiserver");
        server.unwrap().clone()
    };
    let (plain, known, asks) = (
        config(&spec(PodNetworking::Kubenet)),
        config(&directory(false)),
        config(&directory(true)),
    );
    assert_eq!(server(&plain), server(&known), "nothing restarts for it");
    let authentication = |config: &MachineConfig| object(config, "/etc/kubernetes/authentication.json");
    assert!(authentication(&plain).get("jwt").is_none());
    let jwt = authentication(&known)["jwt"].clone();
    assert_eq!(jwt[0]["issuer"]["url"], "https://s/tenant/v2.0");
    assert_eq!(
        jwt[1]["issuer"]["discoveryURL"],
        "https://100.64.16.1:7443/adfs/.well-known/openid-configuration"
    );
    assert_eq!(
        jwt[0]["issuer"]["audiences"],
        serde_json::json!(["6dae42f8-4368-4678-94ff-3960e28e3630"])
    );
    assert_eq!(authentication(&asks), authentication(&known));
    let argv = server(&asks).argv;
    assert!(argv.contains(&"--authorization-config=/etc/kubernetes/authorization.json".to_owned()));
    assert!(!argv.iter().any(|flag| flag.starts_with("--authorization-mode")));
    let authorizers = object(&asks, "/etc/kubernetes/authorization.json")["authorizers"].clone();
    let kinds: Vec<&Value> = (0..3).map(|number| &authorizers[number]["type"]).collect();
    assert_eq!(kinds, ["Node", "RBAC", "Webhook"]);
    assert_eq!(authorizers[2]["webhook"]["failurePolicy"], "NoOpinion");
    let webhook = object(&asks, "/etc/kubernetes/role-assignments.kubeconfig");
    assert_eq!(
        webhook["clusters"][0]["cluster"]["server"],
        "https://100.64.16.1:7443/agent/v1/access-review"
    );
}

#[test]
fn a_kubeconfig_of_the_directory_holds_no_credential() {
    let (spec, pki) = (spec(PodNetworking::Kubenet), pki());
    let config = |format| {
        directory_kubeconfig(
            &spec,
            "tenant",
            &pki,
            "https://vip:443",
            "https://stamp:8443/",
            format,
            None,
        )
    };
    let exec = config(TokenFormat::Exec);
    for words in [
        "name: clusterUser_Retail-West_shop",
        "command: kubelogin",
        "- \"get-token\"",
        "- \"6dae42f8-4368-4678-94ff-3960e28e3630\"",
        "- \"--authority-host\"\n      - \"https://stamp:8443/\"",
        "- \"--disable-instance-discovery\"",
    ] {
        assert!(exec.contains(words), "{words} in {exec}");
    }
    let azure = config(TokenFormat::Azure);
    assert!(
        azure.contains("      name: azure\n") && azure.contains("        tenant-id: tenant\n"),
        "{azure}"
    );
    for config in [exec, azure] {
        assert!(
            !config.contains("client-key") && !config.contains("PRIVATE"),
            "{config}"
        );
    }
}

#[test]
fn a_control_plane_emulates_the_minor_release_that_it_can_go_back_to() {
    let flags = |emulated: Option<&str>| -> Vec<Vec<String>> {
        let spec = ClusterSpec {
            emulated: emulated.map(str::to_owned),
            ..spec(PodNetworking::Kubenet)
        };
        let config = control_plane_config(&spec, &pki(), &place_of(&[1]), now(), 1).unwrap();
        let all = config.processes.into_iter();
        all.filter(|process| process.name.starts_with("kube-"))
            .map(|process| process.argv)
            .collect()
    };
    let (plain, emulating) = (flags(None), flags(Some("1.36")));
    assert_eq!(emulating.len(), 3);
    for (before, mut now) in plain.into_iter().zip(emulating) {
        assert_eq!(now.pop().as_deref(), Some("--emulated-version=kube=1.36"));
        assert_eq!(now, before, "nothing else");
    }
}
