//! Configurations of control planes.

use std::net::Ipv4Addr;

use agent_protocol::MachineConfig;
use cluster_bootstrap::{ControlPlanePlace, TokenAuthority, control_plane_config};
use cluster_pki::ClusterPki;
use cluster_spec::{ClusterSpec, DirectoryAccess, PodNetworking, Tier};
use serde_json::Value;

use crate::{file, named, now, object, pki, place_of, spec};

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
