//! The version of rendered configurations, a digest of rendered samples: it follows from the content, so a
//! release that renders something else updates existing machines, and one that does not leaves them alone.
//!
//! Always true: a release gives the same version in each process, because keys and certificates are left out;
//! each sample is pinned by a golden file (`tests/golden`), so that a review shows changes.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::Ipv4Addr,
    sync::{Mutex, PoisonError},
};

use agent_protocol::MachineConfig;
use cluster_pki::ClusterPki;
use cluster_spec::{ClusterSpec, DirectoryAccess, NetworkProfile, PodNetworking, PoolMode, PoolSpec, Tier};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use crate::{
    BootstrapError, ControlPlaneAddresses, ControlPlanePlace, Member, NodePlace, RegistryAccess,
    TokenAuthority, control_plane_config, node_config,
};

/// A rendered sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sample {
    /// A control plane member of a cluster of this tier.
    Member(Tier),
    /// A control plane member of a cluster with a public issuer that accepts tokens of the stamp's token
    /// service.
    Authenticated,
    /// A node with its own disk.
    Node,
    /// A node on the host's disk.
    NodeOnSharedDisk,
}

impl Sample {
    /// All samples of the version of members.
    pub const MEMBERS: &'static [Self] = &[
        Self::Member(Tier::Free),
        Self::Member(Tier::Standard),
        Self::Member(Tier::Premium),
    ];
    /// The same for clusters with a public issuer or tokens of the stamp's token service: their additional
    /// content affects no others.
    pub const AUTHENTICATED: &'static [Self] = &[
        Self::Member(Tier::Free),
        Self::Member(Tier::Standard),
        Self::Member(Tier::Premium),
        Self::Authenticated,
    ];
    /// All samples of the version of nodes.
    pub const NODES: &'static [Self] = &[Self::Node, Self::NodeOnSharedDisk];
}

const VIP: Ipv4Addr = Ipv4Addr::new(100, 64, 24, 1);
/// 2026-01-01T00:00:00Z
const NOW: Timestamp = Timestamp::constant(1_767_225_600, 0);

/// The version of these samples in a cluster with this plugin: 16 digits. Computed once per process.
///
/// # Errors
/// When the keys of a sample cannot be made.
pub fn renderer_version(samples: &[Sample], plugin: PodNetworking) -> Result<String, BootstrapError> {
    static KNOWN: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());
    // A single insertion: consistent even after a panic.
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let key = format!("{samples:?} {plugin:?}");
    if let Some(version) = known.get(&key) {
        return Ok(version.clone());
    }
    let mut digest = Sha256::new();
    for sample in samples {
        digest.update(rendered(*sample, plugin)?);
    }
    // 64 bits distinguish releases.
    let version = hex::encode(&digest.finalize()[..8]);
    known.insert(key, version.clone());
    Ok(version)
}

/// A rendered sample as text, without keys and certificates.
///
/// # Errors
/// When its keys cannot be made.
pub fn rendered(sample: Sample, plugin: PodNetworking) -> Result<String, BootstrapError> {
    let pki = ClusterPki::generate(NOW)?;
    let config = match sample {
        Sample::Member(tier) => {
            let spec = spec(plugin, tier);
            control_plane_config(&spec, &pki, &member(tier), NOW, 1)?
        }
        Sample::Authenticated => {
            let spec = ClusterSpec {
                issuer: Some("https://stamp.example.org/oidc/sample/".to_owned()),
                directory: Some(DirectoryAccess {
                    tenant: "00000000-0000-0000-0000-00000000000f".to_owned(),
                    admins: Vec::new(),
                    roles: true,
                }),
                ..spec(plugin, Tier::Free)
            };
            let place = ControlPlanePlace {
                authority: TokenAuthority {
                    url: "https://100.64.16.1:7443".to_owned(),
                    ca: "CA".to_owned(),
                    tenant: "00000000-0000-0000-0000-00000000000f".to_owned(),
                    issuers: vec![(
                        "https://stamp.example.org/t/v2.0".to_owned(),
                        "/t/v2.0".to_owned(),
                    )],
                },
                ..member(Tier::Free)
            };
            control_plane_config(&spec, &pki, &place, NOW, 1)?
        }
        Sample::Node | Sample::NodeOnSharedDisk => {
            let spec = spec(plugin, Tier::Free);
            let place = node(plugin, sample == Sample::Node);
            node_config(&spec, &spec.pools[0], &place, &pki, VIP, NOW, 1)?
        }
    };
    Ok(without_keys(&text(&config), &pki))
}

fn spec(plugin: PodNetworking, tier: Tier) -> ClusterSpec {
    let range = |text: &str| text.parse().expect("a constant that parses");
    ClusterSpec {
        name: "sample".to_owned(),
        resource_group: "samples".to_owned(),
        location: "local".to_owned(),
        node_resource_group: "MC_samples_sample_local".to_owned(),
        fqdn: "sample-dns-1.hcp.local.example.org".to_owned(),
        kubernetes_version: String::new(),
        network: NetworkProfile {
            plugin,
            vnet_range: range("10.224.0.0/12"),
            node_range: range("10.224.0.0/16"),
            control_plane_range: range("10.239.255.240/28"),
            pod_range: matches!(plugin, PodNetworking::Kubenet | PodNetworking::AzureOverlay)
                .then(|| range("10.244.0.0/16")),
            service_range: range("10.0.0.0/16"),
            dns_service_ip: Ipv4Addr::new(10, 0, 0, 10),
            outbound: true,
            vnet: None,
            policy: Default::default(),
        },
        pools: vec![PoolSpec {
            name: "blue".to_owned(),
            count: 1,
            vm_size: "Standard_DS2_v2".to_owned(),
            mode: PoolMode::System,
            kubernetes_version: "1.36.3".to_owned(),
            image: None,
            max_pods: 30,
            labels: BTreeMap::from([("tier".to_owned(), "back".to_owned())]),
            taints: vec!["dedicated=back:NoSchedule".to_owned()],
            os_disk_gib: 128,
            incarnation: "1".to_owned(),
            surge: 1,
            unavailable: 0,
            drain_minutes: cluster_spec::DRAIN_MINUTES,
            soak_minutes: 0,
            undrainable: Default::default(),
            removed: Default::default(),
            renewed: None,
            subnet: None,
            stopped: false,
            autoscale: None,
        }],
        disable_local_accounts: false,
        tier,
        restore: None,
        stopped: false,
        archived: false,
        access: Default::default(),
        issuer: None,
        workload_identity: false,
        directory: None,
        disks_off: false,
        files_off: false,
        snapshots_off: false,
        ingress: Default::default(),
        autoscaler: Default::default(),
        rotations: Default::default(),
        forced_until: None,
        emulated: None,
    }
}

fn member(tier: Tier) -> ControlPlanePlace {
    let members: Vec<_> = (1..=tier.members())
        .filter_map(|number| u8::try_from(number).ok())
        .map(|number| Member {
            machine: format!("m{number}"),
            stamp: Ipv4Addr::new(100, 64, 16, 19 + number),
            vnet: Ipv4Addr::new(10, 239, 255, 243 + number),
        })
        .collect();
    ControlPlanePlace {
        roaming: members.len() > 1,
        members,
        limits: tier,
        ..ControlPlanePlace::alone(
            "m1",
            ControlPlaneAddresses {
                vip: VIP,
                stamp: Ipv4Addr::new(100, 64, 16, 20),
                vnet: Ipv4Addr::new(10, 239, 255, 244),
            },
        )
    }
}

fn node(plugin: PodNetworking, own_disk: bool) -> NodePlace {
    NodePlace {
        node_name: "aks-blue-12345678-vmss00000a".to_owned(),
        address: Ipv4Addr::new(10, 224, 0, 14),
        pod_range: match plugin {
            PodNetworking::Kubenet | PodNetworking::AzureOverlay => "10.244.7.0/24".parse().ok(),
            PodNetworking::AzureFlat => "10.224.1.64/27".parse().ok(),
            PodNetworking::None => None,
        },
        subscription: "00000000-0000-0000-0000-000000000000".to_owned(),
        machine: "m1".to_owned(),
        host_cores: 16,
        host_memory_mib: 65_536,
        own_disk,
        registry: Some(RegistryAccess {
            host: "127.0.0.1:8443".to_owned(),
            url: "https://100.64.16.1:7443".to_owned(),
            ca: "CA".to_owned(),
        }),
    }
}

/// A configuration as text that people can compare.
fn text(config: &MachineConfig) -> String {
    let pretty = |value: Result<String, serde_json::Error>| value.expect("plain data with string keys");
    let mut text = format!("role {} level {}\n", config.role, config.level);
    let mut line = |what: std::fmt::Arguments<'_>| {
        text.write_fmt(what).expect("a string takes everything");
        text.push('\n');
    };
    for file in &config.files {
        line(format_args!(
            "\n== file {} {:o}\n{}",
            file.path,
            file.mode,
            file.content.trim_end()
        ));
    }
    line(format_args!(
        "\n== setup\n{}",
        pretty(serde_json::to_string_pretty(&config.setup))
    ));
    for process in &config.processes {
        line(format_args!(
            "\n== process {}\n{}",
            process.name,
            pretty(serde_json::to_string_pretty(process))
        ));
    }
    line(format_args!(
        "\n== tasks\n{}",
        pretty(serde_json::to_string_pretty(&config.tasks))
    ));
    text
}

/// The same without content that differs each time.
fn without_keys(text: &str, pki: &ClusterPki) -> String {
    let mut clean = String::new();
    let mut rest = text;
    // PEM as it is.
    while let Some(begin) = rest.find("-----BEGIN ") {
        clean.push_str(&rest[..begin]);
        clean.push_str("PEM");
        const END: &str = "-----END ";
        let end = rest[begin..].find(END).map(|end| begin + end + END.len());
        rest = end
            .and_then(|end| rest[end..].find("-----").map(|dashes| &rest[end + dashes + 5..]))
            .unwrap_or_default();
    }
    clean.push_str(rest);
    // PEM in base64.
    const ENCODED: &str = "LS0tLS1CRUdJTi";
    while let Some(begin) = clean.find(ENCODED) {
        let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=".contains(byte);
        let length = clean.as_bytes()[begin..]
            .iter()
            .take_while(|byte| is_base64(byte))
            .count();
        clean.replace_range(begin..begin + length, "PEM");
    }
    // Keys that are derived from others: 32 bytes in hexadecimal digits.
    let mut rest = clean.as_str();
    let mut text = String::new();
    while let Some(start) = rest.find(|character: char| character.is_ascii_hexdigit()) {
        let length = rest[start..].bytes().take_while(u8::is_ascii_hexdigit).count();
        text.push_str(&rest[..start]);
        let run = &rest[start..start + length];
        text.push_str(if length == 64 { "KEY" } else { run });
        rest = &rest[start + length..];
    }
    text.push_str(rest);
    text.replace(&pki.encryption_key, "KEY")
        .replace(&pki.encryption_key_name, "KEY-NAME")
}
