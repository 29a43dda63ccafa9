//! Configurations of nodes, and their labels.

use agent_protocol::MachineConfig;
use cluster_bootstrap::{NodePlace, RegistryAccess, node_config, node_wish};
use cluster_spec::PodNetworking;
use serde_json::Value;

use crate::{PLUGINS, VIP, file, node, now, object, pki, place, spec};

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
