//! Decides a cluster's networking: plugin, ranges, room. Pure.

use std::net::Ipv4Addr;

use arm_kernel::{quote, schema::Problems};
use arm_wire::{ArmError, ErrorCode};
use cluster_spec::{NetworkProfile, PodNetworking};
use control_records::{ClusterRecord, DesiredPool, Ranges, network_profile};
use ipnet::Ipv4Net;
use serde_json::{Map, Value, json};

use crate::formats::cidr;

const TARGET: &str = "properties.networkProfile";
const POLICY: &str = "networkPolicy";

/// AKS' default range of pods, which older SDKs send with any plugin.
pub(crate) const POD_RANGE: &str = "10.244.0.0/16";
const SERVICE_RANGE: &str = "10.0.0.0/16";

fn net(a: u8, b: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, 0, 0), prefix)
}

/// The ranges of a new cluster's VNET; its control plane is in the last subnet.
pub(crate) fn new_ranges() -> Ranges {
    Ranges {
        vnet: net(10, 224, 12),
        nodes: net(10, 224, 16),
        control_plane: Ipv4Net::new_assert(Ipv4Addr::new(10, 239, 255, 240), 28),
    }
}

/// The subnet of the control plane in a tenant's VNET: hidden from it, in a range that no VNET of a cluster may have. Each cluster's part of a
/// VNET has its own, so it may be the same for all.
pub(crate) fn control_plane_range() -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(172, 30, 0, 0), 28)
}

/// Ranges that a cluster cannot use, and why.
pub(crate) fn forbidden() -> [(Ipv4Net, &'static str); 8] {
    [
        (net(169, 254, 16), "link-local addresses"),
        (net(172, 30, 16), "reserved by AKS"),
        (net(172, 31, 16), "reserved by AKS"),
        (
            Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 2, 0), 24),
            "reserved by AKS",
        ),
        (net(0, 0, 8), "'this network'"),
        (net(127, 0, 8), "loopback"),
        (net(224, 0, 4), "multicast"),
        (net(240, 0, 4), "reserved"),
    ]
}

pub(crate) fn overlap(a: &Ipv4Net, b: &Ipv4Net) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

/// The plugin that the (cleaned) profile means. Absent: `azure` with mode `overlay`, as newer AKS.
pub(crate) fn plugin(profile: &Map<String, Value>, problems: &mut Problems) -> PodNetworking {
    let text = |name: &str| profile.get(name).and_then(Value::as_str);
    match (text("networkPlugin"), text("networkPluginMode")) {
        (None | Some("azure"), Some("overlay")) | (None, None) => PodNetworking::AzureOverlay,
        (Some("azure"), _) => PodNetworking::AzureFlat,
        (plugin, mode) => {
            if mode.is_some() {
                problems.add(
                    ErrorCode::INVALID_PARAMETER,
                    format!("{TARGET}.networkPluginMode"),
                    "The mode 'overlay' needs networkPlugin 'azure'.",
                );
            }
            if plugin == Some("kubenet") {
                PodNetworking::Kubenet
            } else {
                PodNetworking::None
            }
        }
    }
}

/// The default of a pool's `maxPods`.
pub(crate) fn default_max_pods(plugin: PodNetworking) -> u32 {
    match plugin {
        PodNetworking::AzureOverlay | PodNetworking::None => 250,
        PodNetworking::Kubenet => 110,
        PodNetworking::AzureFlat => 30,
    }
}

/// One range of the profile: `single`, or the only item of `list`, or the default; and whether it was given.
fn range(
    profile: &Map<String, Value>,
    single: &str,
    list: &str,
    default: &str,
    problems: &mut Problems,
) -> (Ipv4Net, bool) {
    let one = profile.get(single).and_then(Value::as_str);
    let many = profile
        .get(list)
        .and_then(Value::as_array)
        .filter(|items| !items.is_empty());
    let first = many.and_then(|items| items[0].as_str());
    if many.is_some_and(|items| items.len() > 1) {
        problems.add(
            ErrorCode::PROPERTY_NOT_SUPPORTED,
            format!("{TARGET}.{list}"),
            "More than one range (dual stack) is not supported yet; name one IPv4 range.",
        );
    } else if let (Some(one), Some(first)) = (one, first)
        && one != first
    {
        problems.add(
            ErrorCode::INVALID_PARAMETER,
            format!("{TARGET}.{list}"),
            format!(
                "'{list}' begins with {}, but '{single}' is {}; give one of them.",
                quote(first),
                quote(one)
            ),
        );
    }
    let asked = one.or(first).and_then(cidr);
    let fallback = cidr(default).expect("the defaults are ranges");
    (asked.unwrap_or(fallback), asked.is_some())
}

/// Decides networking and fills the profile's defaults in.
///
/// `ranges`: the VNET's. `space`: its address space, if it is a tenant's. `reserved`: ranges of the stamp
/// that clusters must not overlap, each with its use.
pub(crate) fn decide(
    mut profile: Map<String, Value>,
    ranges: &Ranges,
    space: Option<&[Ipv4Net]>,
    reserved: &[(Ipv4Net, String)],
    problems: &mut Problems,
) -> Result<(Value, NetworkProfile), ArmError> {
    let plugin = plugin(&profile, problems);
    let (pod_range, pods_asked) = range(&profile, "podCidr", "podCidrs", POD_RANGE, problems);
    let (service_range, _) = range(&profile, "serviceCidr", "serviceCidrs", SERVICE_RANGE, problems);
    let flat = plugin == PodNetworking::AzureFlat;
    if flat && space.is_some() {
        problems.add(
            ErrorCode::PROPERTY_NOT_SUPPORTED,
            format!("{TARGET}.networkPluginMode"),
            "With networkPlugin 'azure' pods have addresses of the nodes' subnet, which is not supported in a subnet of one's own yet; set \
             networkPluginMode to 'overlay', or networkPlugin to 'kubenet'.",
        );
    }
    if flat && pods_asked && pod_range.to_string() != POD_RANGE {
        problems.add(
            ErrorCode::INVALID_PARAMETER,
            format!("{TARGET}.podCidr"),
            "With networkPlugin 'azure', pods have addresses of the nodes' subnet: leave podCidr out, or set networkPluginMode to 'overlay'.",
        );
    }
    // With `none`, the plugin that the user installs brings its range: a range given here is not used, as in
    // AKS.
    let pods = (!flat && plugin != PodNetworking::None).then_some(pod_range);
    let space = space.unwrap_or(std::slice::from_ref(&ranges.vnet));
    check_ranges(pods, service_range, space, reserved, problems);
    let dns_service_ip = dns_service_ip(&profile, service_range, problems);
    if !check_policy(&profile, plugin, problems) {
        // What follows can be decided all the same.
        profile.remove(POLICY);
    }

    let text = |value: &str| Value::String(value.to_owned());
    let name = match plugin {
        PodNetworking::Kubenet => "kubenet",
        PodNetworking::AzureFlat | PodNetworking::AzureOverlay => "azure",
        PodNetworking::None => "none",
    };
    profile.insert("networkPlugin".to_owned(), text(name));
    if plugin == PodNetworking::AzureOverlay {
        profile.insert("networkPluginMode".to_owned(), text("overlay"));
    }
    if matches!(plugin, PodNetworking::AzureOverlay | PodNetworking::AzureFlat) {
        profile.entry("networkDataplane").or_insert_with(|| text("azure"));
    }
    for (name, default) in [
        (POLICY, "none"),
        ("outboundType", "loadBalancer"),
        ("loadBalancerSku", "standard"),
    ] {
        profile.entry(name).or_insert_with(|| text(default));
    }
    if let Some(pods) = pods {
        profile.insert("podCidr".to_owned(), json!(pods));
        profile.insert("podCidrs".to_owned(), json!([pods]));
    } else {
        profile.remove("podCidr");
        profile.remove("podCidrs");
    }
    profile.insert("serviceCidr".to_owned(), json!(service_range));
    profile.insert("serviceCidrs".to_owned(), json!([service_range]));
    profile.insert("dnsServiceIP".to_owned(), json!(dns_service_ip));
    profile.insert("ipFamilies".to_owned(), json!(["IPv4"]));
    let profile = Value::Object(profile);
    let network = network_profile(&profile, ranges).map_err(ArmError::internal)?;
    Ok((profile, network))
}

/// Whether the engine of network policies can be had with this plugin.
fn check_policy(profile: &Map<String, Value>, plugin: PodNetworking, problems: &mut Problems) -> bool {
    let asked = profile.get(POLICY).and_then(Value::as_str).unwrap_or("none");
    let (code, why) = match (asked, plugin) {
        ("none", _) => return true,
        ("cilium", _) => (
            ErrorCode::PROPERTY_NOT_SUPPORTED,
            "The engine 'cilium' is the data plane of nodes as well, in the place of kube-proxy, which is not supported; set networkPolicy to \
             'calico' or 'azure'."
                .to_owned(),
        ),
        (_, PodNetworking::None) => (
            ErrorCode::INVALID_PARAMETER,
            format!(
                "With networkPlugin 'none' the plugin that you install enforces network policies: leave networkPolicy out in the place of {}.",
                quote(asked)
            ),
        ),
        ("azure", PodNetworking::Kubenet) => (
            ErrorCode::INVALID_PARAMETER,
            "The engine 'azure' needs networkPlugin 'azure'; with 'kubenet', set networkPolicy to 'calico'.".to_owned(),
        ),
        ("calico" | "azure", _) => return true,
        // No engine at all: that was told.
        _ => return false,
    };
    problems.add(code, format!("{TARGET}.{POLICY}"), why);
    false
}

/// What a profile that does not name an engine of network policies leaves as it is.
pub(crate) fn carry_policy(profile: &mut Map<String, Value>, present: Option<&ClusterRecord>) {
    if let Some(present) = present {
        let policy = present.spec().network.policy.name();
        profile.entry(POLICY).or_insert_with(|| json!(policy));
    }
}

/// Whether an engine of network policies goes. Its rules stay in the packet filters of the nodes that there are.
pub(crate) fn loses_engine(present: &ClusterRecord, network: &NetworkProfile) -> bool {
    present.spec().network.policy.is_enforced() && !network.policy.is_enforced()
}

fn check_ranges(
    pods: Option<Ipv4Net>,
    services: Ipv4Net,
    space: &[Ipv4Net],
    reserved: &[(Ipv4Net, String)],
    problems: &mut Problems,
) {
    let named = [("podCidr", pods), ("serviceCidr", Some(services))];
    for (name, range) in named.into_iter().filter_map(|(name, range)| Some((name, range?))) {
        let target = format!("{TARGET}.{name}");
        if let Some((other, why)) = forbidden().into_iter().find(|(other, _)| overlap(other, &range)) {
            let message = format!("'{name}' {range} overlaps {other} ({why}).");
            problems.add(ErrorCode::INVALID_PARAMETER, target, message);
        } else if let Some(vnet) = space.iter().find(|vnet| overlap(&range, vnet)) {
            let message = format!("'{name}' {range} overlaps the cluster's virtual network {vnet}.");
            problems.add(ErrorCode::SERVICE_CIDR_OVERLAP, target, message);
        } else if let Some((other, what)) = reserved.iter().find(|(other, _)| overlap(other, &range)) {
            let message = format!("'{name}' {range} overlaps {other}, {what} of this stamp.");
            problems.add(ErrorCode::SERVICE_CIDR_OVERLAP, target, message);
        }
    }
    if let Some(pods) = pods
        && overlap(&pods, &services)
    {
        problems.add(
            ErrorCode::SERVICE_CIDR_OVERLAP,
            format!("{TARGET}.serviceCidr"),
            format!("'serviceCidr' {services} overlaps 'podCidr' {pods}."),
        );
    }
    if services.prefix_len() <= 12 {
        problems.add(
            ErrorCode::INVALID_PARAMETER,
            format!("{TARGET}.serviceCidr"),
            format!("'serviceCidr' {services} must be smaller than /12."),
        );
    } else if services.prefix_len() > 28 {
        problems.add(
            ErrorCode::INSUFFICIENT_SUBNET_SIZE,
            format!("{TARGET}.serviceCidr"),
            format!("'serviceCidr' {services} is too small; give it at least a /28."),
        );
    }
}

fn dns_service_ip(profile: &Map<String, Value>, services: Ipv4Net, problems: &mut Problems) -> Ipv4Addr {
    let first = u32::from(services.network());
    let target = format!("{TARGET}.dnsServiceIP");
    let asked = profile
        .get("dnsServiceIP")
        .and_then(Value::as_str)
        .and_then(|text| text.parse::<Ipv4Addr>().ok());
    let Some(address) = asked else {
        return Ipv4Addr::from(first.saturating_add(10));
    };
    if !services.contains(&address) {
        let message = format!("'dnsServiceIP' {address} is not in 'serviceCidr' {services}.");
        problems.add(ErrorCode::DNS_SERVICE_IP_OUT_OF_SERVICE_CIDR, target, message);
    } else if u32::from(address) <= first.saturating_add(1) || address == services.broadcast() {
        let message = format!(
            "'dnsServiceIP' {address} cannot be the first or last address of 'serviceCidr' {services}, nor the one after the first: that is the API server's."
        );
        problems.add(ErrorCode::INVALID_PARAMETER, target, message);
    }
    address
}

/// Addresses that are reserved for nodes in a subnet with pods: a /20.
const NODE_ADDRESSES: u64 = 4096;

/// Whether the pools fit: a /24 of the pod range a node, or a block of the nodes' subnet for `maxPods` and a
/// gateway, rounded up to a power of two.
pub(crate) fn check_room(
    network: &NetworkProfile,
    pools: &[DesiredPool],
    target: &str,
    problems: &mut Problems,
) {
    let specs = || pools.iter().map(DesiredPool::spec);
    let nodes: u64 = specs().map(|pool| u64::from(pool.most())).sum();
    // AKS: 1000 nodes on the Free tier; 400 with kubenet, whose routes fill the VNET's table.
    let most = if network.plugin == PodNetworking::Kubenet {
        400
    } else {
        1000
    };
    if nodes > most {
        problems.add(
            ErrorCode::QUOTA_EXCEEDED,
            target,
            format!("The cluster would have {nodes} nodes; at most {most} are allowed here."),
        );
    }
    if network.plugin == PodNetworking::None {
        // The plugin that the user installs hands out its ranges.
        return;
    }
    if let Some(pods) = network.pod_range {
        let room = 1_u64 << 24_u8.saturating_sub(pods.prefix_len());
        if pods.prefix_len() > 24 || nodes > room {
            problems.add(
                ErrorCode::INSUFFICIENT_SUBNET_SIZE,
                format!("{TARGET}.podCidr"),
                format!("'podCidr' {pods} is too small: each of the {nodes} nodes needs a /24 of it."),
            );
        }
    } else if let Some(room) = (1_u64 << (32 - network.node_range.prefix_len())).checked_sub(NODE_ADDRESSES) {
        // In a tenant's subnet, which may be smaller than that, pods have no addresses: it is refused as such.
        let needed: u64 = specs()
            .map(|pool| u64::from(pool.most()) * u64::from((pool.max_pods + 1).next_power_of_two()))
            .sum();
        if needed > room {
            problems.add(
                ErrorCode::INSUFFICIENT_SUBNET_SIZE,
                target,
                format!(
                    "The nodes' subnet {} has {room} addresses for pods; {nodes} nodes need {needed}. Ask for fewer nodes or a smaller maxPods.",
                    network.node_range
                ),
            );
        }
    }
}
