//! The decision core of `managedClusters` PUT: from what is and what is asked to what is to be, or an error. Pure: time
//! and identifiers are handed in, nothing is read or written.
//!
//! What a PUT means where it is silent: what can only be set at creation, versions and node counts stay as they are; pools
//! that are not listed stay (nothing is deleted because a template does not know it), and so do the engine of network policies and the ingress
//! controller; everything else gets its default.

use std::collections::BTreeMap;

use arm_ids::same_location;
use arm_kernel::{quote, schema::Problems};
use arm_wire::{ArmError, ErrorCode};
use base_env::Seed;
use cluster_spec::{AutoscalerProfile, PoolMode, autoscaler};
use cluster_versions::{Version, check_skew};
use control_records::{ClusterRecord, Decided, DesiredPool, DesiredState};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{
    access, archive, authentication,
    body::{POOLS, check_count, not_an_object},
    draft::{Context, Draft, Name, advance},
    identity, ingress, local_accounts, network, soak, subnets, upgrade_guard,
};
use crate::{
    ProviderConfig,
    conversion::from_client,
    formats::is_cluster_name,
    pools::decide::{self as pool, Surroundings, carry, version_problem},
    properties::CLUSTER,
    snapshots::named as snapshots,
};

/// The longest name that is made for a node resource group, in characters, as in AKS.
const MAX_NODE_GROUP: usize = 80;

/// Decides a PUT of a cluster.
pub(crate) fn put(
    context: &Context<'_>,
    name: &Name<'_>,
    present: Option<&ClusterRecord>,
    body: &Value,
) -> Result<Draft, ArmError> {
    check_name(name.cluster)?;
    if let Some(present) = present {
        archive::refuse_put(present)?;
    }
    if !body.is_object() {
        return Err(not_an_object());
    }
    let mut problems = Problems::default();
    let before = present.map(ClusterRecord::body);
    refuse_unmanaged(body, &mut problems);
    ingress::refuse_zones(body, &mut problems);
    let cleaned = from_client(&CLUSTER, body, before, context.api_version, &mut problems);
    let mut draft = cleaned.body;
    let asked_pools = match draft.get_mut("properties").and_then(Value::as_object_mut) {
        Some(properties) => properties.remove("agentPoolProfiles"),
        None => None,
    };
    location(context, &mut draft, present, &mut problems);
    if let Some(present) = present {
        carry_cluster(&mut draft, present, &mut problems);
    }
    let mut properties = match draft.remove("properties") {
        Some(Value::Object(properties)) => properties,
        _ => Map::new(),
    };
    let first = snapshots::version(asked_pools.as_ref(), context.snapshots, &context.config.offered);
    let version = version(context, &mut properties, present, first.as_deref(), &mut problems);
    upgrade_guard::check(context, present, version, &properties, &mut problems);
    soak::check_upgrade(context, present, version, &mut problems);
    // What emulates an older minor release takes nodes of that one.
    let soaking = present.and_then(soak::soaking);
    let for_nodes = soaking.as_ref().map_or(version, |soaking| soaking.from);
    let group = node_resource_group(context, name, &mut properties, &mut problems);
    identity::decide(
        &identity::IdentityInput {
            context,
            name,
            node_group: &group,
            present,
            has_secret: !cleaned.secrets.is_empty(),
        },
        &mut draft,
        &mut properties,
        &mut problems,
    );
    access::decide(&mut properties, &mut problems);
    authentication::decide(context.config, &mut properties, before, &mut problems);
    local_accounts::decide(&properties, present, &mut problems);
    ingress::decide(&mut properties, before, &mut problems);
    let mut profile = match properties.remove("networkProfile") {
        Some(Value::Object(profile)) => profile,
        _ => Map::new(),
    };
    network::carry_policy(&mut profile, present);
    let place = subnets::Place::of(context.vnets, present, asked_pools.as_ref());
    let new_ranges = || place.ranges().unwrap_or_else(network::new_ranges);
    let ranges = present.map_or_else(new_ranges, |present| present.state.decided().ranges);
    let reserved = &context.config.reserved_ranges;
    let space = place.is_tenants().then(|| place.space());
    let (profile, network) = network::decide(profile, &ranges, space.as_deref(), reserved, &mut problems)?;
    properties.insert("networkProfile".to_owned(), profile);
    let surroundings = Surroundings {
        offered: &context.config.offered,
        control_plane: for_nodes,
        plugin: network.plugin,
        ids: context.ids,
        mode: PoolMode::User,
        place: &place,
        snapshots: context.snapshots,
        shown_stopped: context.shown_stopped,
        alone: false,
        images: context.images,
        now: context.now,
        upgrades_itself: upgrades_itself(&properties),
        emulates: soaking.is_some(),
    };
    let mut pools = pools(asked_pools, present, surroundings, &mut problems)?;
    if present.is_some_and(|present| network::loses_engine(present, &network)) {
        pools = renewed(pools, context.now)?;
    }
    for (index, pool) in pools.iter().enumerate() {
        let skew = |node| check_skew(node, for_nodes);
        if let Err(error) = pool.spec().kubernetes_version.parse().and_then(skew) {
            let target = format!("{POOLS}[{index}].orchestratorVersion");
            version_problem(&error, &target, &mut problems);
        }
    }
    network::check_room(&network, &pools, POOLS, &mut problems);
    place.check_room(&pools, POOLS, &mut problems);
    let dns_prefix = dns_prefix(name, &mut properties);
    problems.into_result()?;

    let fqdn = present.map_or_else(
        || {
            let hash = context.ids.uuid().as_u128() & 0xffff_ffff;
            let ProviderConfig { location, domain, .. } = context.config;
            format!("{dns_prefix}-{hash:08x}.hcp.{location}.{domain}").to_ascii_lowercase()
        },
        |present| present.spec().fqdn.clone(),
    );
    fill_defaults(&mut draft, &mut properties);
    let decided = Decided {
        name: name.cluster.to_owned(),
        resource_group: name.group.to_owned(),
        fqdn,
        kubernetes_version: version.to_string(),
        ranges,
        vnet: place.decided(&pools),
        restore: present.and_then(archive::restore),
        issuer: present.and_then(|present| present.state.decided().issuer.clone()),
        rotations: present.map_or_else(Default::default, |present| present.state.decided().rotations),
        soak: soak::carried(present, version),
        // A PUT brings back what is archived.
        archive: None,
        pools: BTreeMap::new(),
    };
    properties.insert("agentPoolProfiles".to_owned(), json!([]));
    draft.insert("properties".to_owned(), Value::Object(properties));
    let state = DesiredState::new(Value::Object(draft), decided)
        .and_then(|frame| frame.with_pools(pools))
        .map_err(ArmError::internal)?;
    let mut draft = advance(
        context,
        name,
        present,
        state,
        "ManagedClusters_CreateOrUpdate",
        None,
    )?;
    draft.record.state =
        authentication::with_issuer(context.config, &draft.record).map_err(ArmError::internal)?;
    draft.secrets = cleaned.secrets;
    draft.makes_groups = true;
    Ok(draft)
}

/// Refuses a channel of AKS that has no sense here, with the reason.
fn refuse_unmanaged(body: &Value, problems: &mut Problems) {
    let channel = body.pointer("/properties/autoUpgradeProfile/nodeOSUpgradeChannel");
    let asked = channel.and_then(Value::as_str).unwrap_or_default();
    if asked.eq_ignore_ascii_case("Unmanaged") {
        problems.add(
            ErrorCode::PROPERTY_NOT_SUPPORTED,
            "properties.autoUpgradeProfile.nodeOSUpgradeChannel",
            "'Unmanaged' leaves updates to the operating system of each node, and here none has a service for that: a node's base system is a layer of its image, which all nodes share and none writes to. Use SecurityPatch, NodeImage or None.",
        );
    }
}

/// Whether a channel takes the cluster to newer versions or node images.
fn upgrades_itself(properties: &Map<String, Value>) -> bool {
    let profile = properties.get("autoUpgradeProfile");
    soak::upgrades_itself(&json!({ "properties": { "autoUpgradeProfile": profile } }))
}

/// The pools, all of whose nodes are to be replaced by new ones.
fn renewed(pools: Vec<DesiredPool>, now: Timestamp) -> Result<Vec<DesiredPool>, ArmError> {
    let at = now.as_millisecond();
    let renewed = pools
        .iter()
        .map(|pool| pool.with(|_, decided| decided.renewed = Some(at)));
    renewed.collect::<Result<_, _>>().map_err(ArmError::internal)
}

fn check_name(name: &str) -> Result<(), ArmError> {
    if is_cluster_name(name) {
        return Ok(());
    }
    let message = format!(
        "The cluster name {} must have 1 to 63 letters, digits, hyphens and underscores, beginning and ending with a letter or digit.",
        quote(name)
    );
    Err(ArmError::new(ErrorCode::INVALID_RESOURCE_NAME, message).target("name"))
}

fn fill_defaults(draft: &mut Map<String, Value>, properties: &mut Map<String, Value>) {
    for (field, default) in [
        ("enableRBAC", json!(true)),
        ("supportPlan", json!("KubernetesOfficial")),
        ("disableLocalAccounts", json!(false)),
        ("publicNetworkAccess", json!("Enabled")),
    ] {
        properties.entry(field).or_insert(default);
    }
    for (group, field, default) in [
        ("autoUpgradeProfile", "nodeOSUpgradeChannel", json!("NodeImage")),
        ("bootstrapProfile", "artifactSource", json!("Direct")),
        ("nodeProvisioningProfile", "mode", json!("Manual")),
        ("oidcIssuerProfile", "enabled", json!(false)),
    ] {
        if let Value::Object(group) = properties.entry(group).or_insert_with(|| json!({})) {
            group.entry(field).or_insert(default);
        }
    }
    let storage = properties.entry("storageProfile").or_insert_with(|| json!({}));
    for driver in ["diskCSIDriver", "fileCSIDriver", "snapshotController"] {
        if let Value::Object(storage) = &mut *storage
            && let Value::Object(driver) = storage.entry(driver).or_insert_with(|| json!({}))
        {
            driver.entry("enabled").or_insert(json!(true));
        }
    }
    autoscaler_defaults(properties);
    if let Value::Object(sku) = draft.entry("sku").or_insert_with(|| json!({})) {
        sku.entry("name").or_insert_with(|| json!("Base"));
        sku.entry("tier").or_insert_with(|| json!("Free"));
    }
    draft.entry("tags").or_insert_with(|| json!({}));
}

/// Adds the defaults of the autoscaler's settings that the body omits, if it has a profile.
fn autoscaler_defaults(properties: &mut Map<String, Value>) {
    let Some(Value::Object(profile)) = properties.get_mut("autoScalerProfile") else {
        return;
    };
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    };
    let given = profile.iter();
    let given: Vec<(String, String)> = given
        .filter_map(|(name, value)| Some((name.clone(), text(value)?)))
        .collect();
    let given = given.iter().map(|(name, text)| (name.as_str(), text.as_str()));
    for (name, text) in AutoscalerProfile::read(given).unwrap_or_default().texts() {
        let value = if name == autoscaler::BOOLEAN_SETTING {
            json!(text == "true")
        } else {
            json!(text)
        };
        profile.entry(name).or_insert(value);
    }
    for (name, default) in autoscaler::KEPT_SETTINGS {
        profile.entry(name).or_insert(json!(default));
    }
}

fn location(
    context: &Context<'_>,
    draft: &mut Map<String, Value>,
    present: Option<&ClusterRecord>,
    problems: &mut Problems,
) {
    let here = &context.config.location;
    let now = present.map(|present| present.spec().location.as_str());
    let asked = draft.get("location").and_then(Value::as_str);
    match (asked, now) {
        (Some(asked), Some(now)) if !same_location(asked, now) => problems.add(
            ErrorCode::INVALID_RESOURCE_LOCATION,
            "location",
            format!(
                "The cluster is in location '{now}' and cannot move to {}.",
                quote(asked)
            ),
        ),
        (Some(asked), None) if !same_location(asked, here) => problems.add(
            ErrorCode::LOCATION_NOT_AVAILABLE,
            "location",
            format!(
                "The location {} is not available here; use '{here}'.",
                quote(asked)
            ),
        ),
        (None, None) => problems.add(
            ErrorCode::MISSING_PARAMETER,
            "location",
            format!("The required property 'location' is missing; use '{here}'."),
        ),
        _ => {}
    }
    draft.insert("location".to_owned(), json!(now.unwrap_or(here)));
}

/// Keeps what can only be set at creation.
fn carry_cluster(draft: &mut Map<String, Value>, present: &ClusterRecord, problems: &mut Problems) {
    let mut before = present.body().clone();
    if let Some(properties) = before.get_mut("properties").and_then(Value::as_object_mut) {
        properties.remove("agentPoolProfiles");
    }
    // Where pods live in the nodes' subnet, older SDKs send the usual pod range all the same; `network` lets it pass. With
    // `none` no range is used, whichever is named.
    let network = &before["properties"]["networkProfile"];
    let (unused, flat) = (
        network["networkPlugin"] == json!("none"),
        network["podCidr"].is_null(),
    );
    let ignored = draft
        .get_mut("properties")
        .and_then(|properties| properties.get_mut("networkProfile"))
        .and_then(Value::as_object_mut)
        .filter(|profile| {
            let range = profile.get("podCidr").and_then(Value::as_str);
            unused || (flat && range == Some(network::POD_RANGE))
        });
    if let Some(profile) = ignored {
        profile.remove("podCidr");
        profile.remove("podCidrs");
    }
    carry(&CLUSTER, draft, &before, "", problems);
}

fn join(versions: &[Version]) -> String {
    let texts: Vec<String> = versions.iter().map(Version::to_string).collect();
    texts.join(" or ")
}

/// The control plane's version. `first`: that of a new cluster whose body says none.
fn version(
    context: &Context<'_>,
    properties: &mut Map<String, Value>,
    present: Option<&ClusterRecord>,
    first: Option<&str>,
    problems: &mut Problems,
) -> Version {
    let target = "properties.kubernetesVersion";
    let offered = &context.config.offered;
    let asked = properties
        .get("kubernetesVersion")
        .and_then(Value::as_str)
        .map(str::to_owned);
    let now = present.and_then(|present| present.spec().kubernetes_version.parse::<Version>().ok());
    let (version, shown) = match (now, asked) {
        (Some(now), None) => {
            let shown = present.and_then(|present| present.body().pointer("/properties/kubernetesVersion"));
            let shown = shown.and_then(Value::as_str).map(str::to_owned);
            (now, shown.unwrap_or_else(|| now.to_string()))
        }
        (Some(now), Some(asked)) => {
            match asked.parse() {
                Ok(wanted) if now.is_meant_by(wanted) => {}
                Err(error) => version_problem(&error, target, problems),
                Ok(_) => match offered.resolve(&asked) {
                    Err(error) => version_problem(&error, target, problems),
                    Ok(to) if to < now => {
                        let way = match present.and_then(soak::soaking) {
                            Some(soaking) if soaking.from == to => {
                                " Its upgrade left a way back: landfall upgrade rollback."
                            }
                            _ => "",
                        };
                        problems.add(
                            ErrorCode::OPERATION_NOT_ALLOWED,
                            target,
                            format!("The cluster runs {now}; a control plane cannot go back to {to}.{way}"),
                        );
                    }
                    Ok(to) => {
                        // What an earlier upgrade has not reached yet is no place to start from.
                        let from = context.running.map_or(now, |running| running.min(now));
                        let steps = offered.upgrades(from);
                        if steps.contains(&to) {
                            properties.insert("kubernetesVersion".to_owned(), json!(asked));
                            return to;
                        }
                        problems.add(
                            ErrorCode::OPERATION_NOT_ALLOWED,
                            target,
                            format!(
                                "The control plane runs {from}, and minor versions cannot be skipped; from there it can go to {}.",
                                join(&steps)
                            ),
                        );
                    }
                },
            }
            (now, asked)
        }
        (None, asked) => match offered.resolve(asked.as_deref().or(first).unwrap_or_default()) {
            Ok(version) => (version, asked.unwrap_or_else(|| version.to_string())),
            Err(error) => {
                version_problem(&error, target, problems);
                let version = offered.default_version();
                (version, version.to_string())
            }
        },
    };
    properties.insert("kubernetesVersion".to_owned(), json!(shown));
    version
}

fn node_resource_group(
    context: &Context<'_>,
    name: &Name<'_>,
    properties: &mut Map<String, Value>,
    problems: &mut Problems,
) -> String {
    let group = properties
        .get("nodeResourceGroup")
        .and_then(Value::as_str)
        .map_or_else(
            || {
                let full = format!("MC_{}_{}_{}", name.group, name.cluster, context.config.location);
                if full.chars().count() <= MAX_NODE_GROUP {
                    return full;
                }
                // What is cut off is often all that tells two clusters of a group apart.
                let hash = Seed::new(0).child(&full.to_lowercase()).draw(0) >> 32;
                let cut: String = full.chars().take(MAX_NODE_GROUP - 9).collect();
                format!("{cut}_{hash:08x}")
            },
            str::to_owned,
        );
    if group.eq_ignore_ascii_case(name.group) {
        problems.add(
            ErrorCode::INVALID_PARAMETER,
            "properties.nodeResourceGroup",
            "The node resource group cannot be the cluster's own resource group.",
        );
    }
    properties.insert("nodeResourceGroup".to_owned(), json!(group));
    group
}

fn dns_prefix(name: &Name<'_>, properties: &mut Map<String, Value>) -> String {
    if let Some(prefix) = properties.get("dnsPrefix").and_then(Value::as_str) {
        return prefix.to_owned();
    }
    // As the Azure CLI makes it: cluster, group, first six of the subscription.
    let plain = |text: &str, most: usize| -> String {
        text.chars()
            .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
            .take(most)
            .collect()
    };
    let joined = format!(
        "{}-{}-{}",
        plain(name.cluster, 10),
        plain(name.group, 16),
        plain(name.subscription, 6)
    );
    let prefix = joined.trim_matches('-').to_owned();
    properties.insert("dnsPrefix".to_owned(), json!(prefix));
    prefix
}

/// All pools of the cluster after the request: those there are in their order, then new ones in theirs.
fn pools(
    asked: Option<Value>,
    present: Option<&ClusterRecord>,
    mut surroundings: Surroundings<'_>,
    problems: &mut Problems,
) -> Result<Vec<DesiredPool>, ArmError> {
    let mut pools = present.map(|present| present.state.pools()).unwrap_or_default();
    let asked = match asked {
        Some(Value::Array(asked)) => asked,
        // A new cluster without a word about pools gets AKS's first one.
        _ if present.is_none() => vec![json!({ "name": "nodepool1", "mode": "System" })],
        _ => Vec::new(),
    };
    let is_system = |pool: &Value| pool.get("mode").and_then(Value::as_str) == Some("System");
    let mut seen: Vec<String> = Vec::new();
    let mut whole = true;
    let first_is_system = present.is_none() && !asked.iter().any(is_system);
    for (index, draft) in asked.into_iter().enumerate() {
        let path = format!("{POOLS}[{index}]");
        let name = draft.get("name").and_then(Value::as_str).map(str::to_owned);
        let (Some(name), Value::Object(draft)) = (name, draft) else {
            whole = false;
            continue;
        };
        if seen.contains(&name) {
            problems.add(
                ErrorCode::INVALID_PARAMETER,
                format!("{path}.name"),
                format!("There are two pools named {}.", quote(&name)),
            );
            continue;
        }
        surroundings.mode = if first_is_system && index == 0 {
            PoolMode::System
        } else {
            PoolMode::User
        };
        let place = pools.iter().position(|pool| pool.spec().name == name);
        let before = place.map(|place| &pools[place]);
        let decided = pool::decide(&name, draft, before, &surroundings, &path, problems)?;
        seen.push(name);
        match place {
            Some(place) => pools[place] = decided,
            None => pools.push(decided),
        }
    }
    if whole && !pools.iter().any(|pool| pool.spec().mode == PoolMode::System) {
        problems.add(
            ErrorCode::INVALID_PARAMETER,
            POOLS,
            "The cluster needs at least one pool with mode 'System'.",
        );
    }
    check_count(pools.len(), problems);
    Ok(pools)
}
