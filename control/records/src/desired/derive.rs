//! From a canonical body and what was decided beside it to the spec: the only place where specs come from.

use std::{collections::BTreeMap, net::Ipv4Addr};

use cluster_spec::{
    ApiAccess, AutoscalerProfile, ClusterSpec, DRAIN_MINUTES, DirectoryAccess, IngressReach, IngressSpec,
    NetworkPolicy, NetworkProfile, PodNetworking, PoolMode, PoolRange, PoolSpec, Tier, Undrainable,
    count_or_percent, ip_range, taint,
};
use ipnet::Ipv4Net;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Archive, Decided, DecidedPool, Malformed, POOLS, Ranges};

/// Nodes that a pool may have beyond its count while it is upgraded, where the body does not say.
const SURGE: u32 = 1;

pub(super) fn cluster(body: &Value, decided: &Decided) -> Result<ClusterSpec, Malformed> {
    let power: Option<String> = optional(body, "/properties/powerState/code")?;
    let stopped = power.as_deref() == Some("Stopped");
    let verified = |archive: &Archive| archive.verified.is_some();
    let bodies = body.pointer(POOLS).and_then(Value::as_array);
    let bodies = bodies.ok_or_else(|| malformed(POOLS, "is no list"))?;
    let mut pools: Vec<PoolSpec> = Vec::with_capacity(bodies.len());
    for body in bodies {
        let name: String = required(body, "/name")?;
        let own = decided.pools.get(&name);
        let own = own.ok_or_else(|| malformed(&format!("{POOLS} {name}"), "was not decided about"))?;
        if pools.iter().any(|pool| pool.name == name) {
            return Err(malformed(&format!("{POOLS} {name}"), "is there twice"));
        }
        pools.push(pool(body, own)?);
    }
    if pools.len() != decided.pools.len() {
        return Err(malformed(POOLS, "lacks a pool that was decided about"));
    }
    let profile = body.pointer("/properties/networkProfile").unwrap_or(&Value::Null);
    Ok(ClusterSpec {
        name: decided.name.clone(),
        resource_group: decided.resource_group.clone(),
        location: required(body, "/location")?,
        node_resource_group: required(body, "/properties/nodeResourceGroup")?,
        fqdn: decided.fqdn.clone(),
        kubernetes_version: decided.kubernetes_version.clone(),
        network: NetworkProfile {
            vnet: decided.vnet.clone(),
            ..network(profile, &decided.ranges)?
        },
        pools,
        disable_local_accounts: optional(body, "/properties/disableLocalAccounts")?.unwrap_or_default(),
        tier: tier(optional::<String>(body, "/sku/tier")?.as_deref()),
        restore: decided.restore.clone(),
        rotations: decided.rotations,
        forced_until: forced_until(body)?,
        emulated: decided.soak.as_ref().map(|soak| soak.emulated().to_owned()),
        access: access(body)?,
        issuer: match optional(body, "/properties/oidcIssuerProfile/enabled")? {
            Some(true) => decided.issuer.clone(),
            _ => None,
        },
        workload_identity: optional(body, "/properties/securityProfile/workloadIdentity/enabled")?
            .unwrap_or_default(),
        directory: directory(body)?,
        disks_off: optional(body, "/properties/storageProfile/diskCSIDriver/enabled")? == Some(false),
        files_off: optional(body, "/properties/storageProfile/fileCSIDriver/enabled")? == Some(false),
        snapshots_off: optional(body, "/properties/storageProfile/snapshotController/enabled")?
            == Some(false),
        ingress: ingress(body)?,
        stopped,
        archived: stopped && decided.archive.as_ref().is_some_and(verified),
        autoscaler: autoscaler(body)?,
    })
}

/// The end of the override of upgrade checks. As in AKS, an override without an end has no effect.
fn forced_until(body: &Value) -> Result<Option<i64>, Malformed> {
    const SETTINGS: &str = "/properties/upgradeSettings/overrideSettings";
    if optional(body, &format!("{SETTINGS}/forceUpgrade"))? != Some(true) {
        return Ok(None);
    }
    let path = format!("{SETTINGS}/until");
    let until: Option<String> = optional(body, &path)?;
    let until = until.map(|text| text.parse::<Timestamp>());
    let until = until
        .transpose()
        .map_err(|_error| malformed(&path, "is no time"))?;
    Ok(until.map(Timestamp::as_millisecond))
}

/// The settings of the autoscaler: strings, and some booleans, as in AKS.
fn autoscaler(body: &Value) -> Result<AutoscalerProfile, Malformed> {
    const PROFILE: &str = "/properties/autoScalerProfile";
    let settings = body.pointer(PROFILE).and_then(Value::as_object);
    let texts = settings.into_iter().flatten().filter_map(|(name, value)| {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Bool(flag) => flag.to_string(),
            _ => return None,
        };
        Some((name.as_str(), text))
    });
    let texts: Vec<(&str, String)> = texts.collect();
    let profile = AutoscalerProfile::read(texts.iter().map(|(name, text)| (*name, text.as_str())));
    profile.ok_or_else(|| malformed(PROFILE, "has a setting that is not known or not of its form"))
}

/// A range that is everything is no restriction.
fn access(body: &Value) -> Result<ApiAccess, Malformed> {
    const PROFILE: &str = "/properties/apiServerAccessProfile";
    if optional(body, &format!("{PROFILE}/enablePrivateCluster"))?.unwrap_or(false) {
        return Ok(ApiAccess::Private);
    }
    let path = format!("{PROFILE}/authorizedIPRanges");
    let texts: Vec<String> = optional(body, &path)?.unwrap_or_default();
    let ranges = texts.iter().map(|text| ip_range(text));
    let ranges: Option<Vec<_>> = ranges.collect();
    let ranges = ranges.ok_or_else(|| malformed(&path, "has one that is no range of addresses"))?;
    let all = ranges.iter().any(|range| range.prefix_len() == 0);
    Ok(if ranges.is_empty() || all {
        ApiAccess::Open
    } else {
        ApiAccess::Ranges(ranges)
    })
}

/// Who `aadProfile` lets be known.
fn directory(body: &Value) -> Result<Option<DirectoryAccess>, Malformed> {
    const PROFILE: &str = "/properties/aadProfile";
    let field = |name: &str| format!("{PROFILE}/{name}");
    if optional(body, &field("managed"))? != Some(true) {
        return Ok(None);
    }
    Ok(Some(DirectoryAccess {
        tenant: required(body, &field("tenantID"))?,
        admins: optional(body, &field("adminGroupObjectIDs"))?.unwrap_or_default(),
        roles: optional(body, &field("enableAzureRBAC"))?.unwrap_or_default(),
    }))
}

/// What `ingressProfile` asks for.
fn ingress(body: &Value) -> Result<IngressSpec, Malformed> {
    const PROFILE: &str = "/properties/ingressProfile";
    let routing = format!("{PROFILE}/webAppRouting");
    let controller = if optional(body, &format!("{routing}/enabled"))? == Some(true) {
        let reach = optional::<IngressReach>(body, &format!("{routing}/nginx/defaultIngressControllerType"))?;
        Some(reach.unwrap_or_default())
    } else {
        None
    };
    let installation = optional::<String>(body, &format!("{PROFILE}/gatewayAPI/installation"))?;
    Ok(IngressSpec {
        controller,
        gateway_api: installation.as_deref() == Some("Standard"),
    })
}

/// Names are compared as ARM compares; what is not known to be more is free.
fn tier(name: Option<&str>) -> Tier {
    let named = |tier: &Tier| name.is_some_and(|name| format!("{tier:?}").eq_ignore_ascii_case(name));
    let more = [Tier::Standard, Tier::Premium];
    more.into_iter().find(named).unwrap_or_default()
}

/// The networking that a canonical `networkProfile` comes to, in a VNET of the cluster's own.
///
/// # Errors
/// When it is not canonical.
pub fn network(profile: &Value, ranges: &Ranges) -> Result<NetworkProfile, Malformed> {
    let plugin: String = required(profile, "/networkPlugin")?;
    let mode: Option<String> = optional(profile, "/networkPluginMode")?;
    Ok(NetworkProfile {
        plugin: match (plugin.as_str(), mode.as_deref()) {
            ("kubenet", _) => PodNetworking::Kubenet,
            ("azure", Some("overlay")) => PodNetworking::AzureOverlay,
            ("azure", None) => PodNetworking::AzureFlat,
            ("none", _) => PodNetworking::None,
            _ => return Err(malformed("/networkPlugin", "is not known")),
        },
        vnet_range: ranges.vnet,
        node_range: ranges.nodes,
        control_plane_range: ranges.control_plane,
        pod_range: optional::<Ipv4Net>(profile, "/podCidr")?,
        service_range: required::<Ipv4Net>(profile, "/serviceCidr")?,
        dns_service_ip: required::<Ipv4Addr>(profile, "/dnsServiceIP")?,
        outbound: optional::<String>(profile, "/outboundType")?.as_deref() != Some("none"),
        vnet: None,
        policy: match optional::<String>(profile, "/networkPolicy")?.as_deref() {
            None | Some("none") => NetworkPolicy::None,
            Some("azure") => NetworkPolicy::Azure,
            Some("calico") => NetworkPolicy::Calico,
            Some(_) => return Err(malformed("/networkPolicy", "is not known")),
        },
    })
}

pub(super) fn pool(body: &Value, decided: &DecidedPool) -> Result<PoolSpec, Malformed> {
    let count = required(body, "/count")?;
    let (surge, unavailable) = match body.get("upgradeSettings") {
        None => (SURGE, 0),
        Some(settings) => (
            nodes(settings, "/maxSurge", "10%", count)?,
            nodes(settings, "/maxUnavailable", "0", count)?,
        ),
    };
    // Some clients send 0 for the default.
    let drain_minutes = optional::<u32>(body, "/upgradeSettings/drainTimeoutInMinutes")?;
    let drain_minutes = drain_minutes.filter(|minutes| *minutes > 0);
    let soak_minutes = optional::<u32>(body, "/upgradeSettings/nodeSoakDurationInMinutes")?;
    let undrainable = optional::<Undrainable>(body, "/upgradeSettings/undrainableNodeBehavior")?;
    let taints: Option<Vec<String>> = optional(body, "/nodeTaints")?;
    let taints = taints.unwrap_or_default().into_iter().map(|text| {
        let (key, value, effect) =
            taint(&text).ok_or_else(|| malformed("/nodeTaints", "has one that is not key=value:Effect"))?;
        Ok(format!("{key}={value}:{effect}"))
    });
    Ok(PoolSpec {
        name: required(body, "/name")?,
        count,
        vm_size: required(body, "/vmSize")?,
        mode: required::<PoolMode>(body, "/mode")?,
        kubernetes_version: decided.kubernetes_version.clone(),
        image: decided.image.clone(),
        max_pods: required(body, "/maxPods")?,
        labels: optional::<BTreeMap<String, String>>(body, "/nodeLabels")?.unwrap_or_default(),
        taints: taints.collect::<Result<_, _>>()?,
        os_disk_gib: required(body, "/osDiskSizeGB")?,
        incarnation: decided.incarnation.clone(),
        surge,
        unavailable,
        drain_minutes: drain_minutes.unwrap_or(DRAIN_MINUTES),
        soak_minutes: soak_minutes.unwrap_or_default(),
        undrainable: undrainable.unwrap_or_default(),
        removed: decided.removed.clone(),
        renewed: decided.renewed,
        subnet: decided.subnet,
        stopped: optional::<String>(body, "/powerState/code")?.as_deref() == Some("Stopped"),
        autoscale: match optional(body, "/enableAutoScaling")? {
            Some(true) => Some(PoolRange {
                min: required(body, "/minCount")?,
                max: required(body, "/maxCount")?,
            }),
            _ => None,
        },
    })
}

/// A number of nodes, or a part of `count`. As AKS: parts of a node are a node.
fn nodes(settings: &Value, path: &str, default: &str, count: u32) -> Result<u32, Malformed> {
    let text: Option<String> = optional(settings, path)?;
    match count_or_percent(text.as_deref().unwrap_or(default)) {
        Some((percent, true)) => Ok(count.saturating_mul(percent).div_ceil(100).max(percent.min(1))),
        Some((nodes, false)) => Ok(nodes),
        None => Err(malformed(path, "is neither a count nor a percentage")),
    }
}

fn required<T: DeserializeOwned>(body: &Value, path: &str) -> Result<T, Malformed> {
    optional(body, path)?.ok_or_else(|| malformed(path, "is missing"))
}

fn optional<T: DeserializeOwned>(body: &Value, path: &str) -> Result<Option<T>, Malformed> {
    match body.pointer(path) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => T::deserialize(value)
            .map(Some)
            .map_err(|_error| malformed(path, "has another type")),
    }
}

fn malformed(path: &str, why: &'static str) -> Malformed {
    Malformed {
        path: path.to_owned(),
        why,
    }
}
