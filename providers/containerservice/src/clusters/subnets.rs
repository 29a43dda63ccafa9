//! Subnets of tenants' VNETs that clusters are put into: which a pool is in, and whether its nodes have room there.
//!
//! Always true: all pools of a cluster are in the same VNET, and a cluster that was made in a VNET of its own stays there. Whoever writes a
//! cluster that is in a tenant's VNET writes that VNET's record with it: its deletion, or another cluster that takes the last addresses,
//! is decided again then.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use arm_ids::ResourcePath;
use arm_kernel::{Call, Mode, Resource, put, schema::Problems, store_error};
use arm_wire::{ArmError, ErrorCode, Response};
use cluster_spec::{PoolSpec, TenantVnet};
use control_records::{
    ClusterRecord, DesiredPool, LeaseRecord, Ranges, key, network, network::NetworkRecord,
};
use control_store::{Store, Stored, Txn, get_record, list_records, put_record};
use ipnet::Ipv4Net;
use serde_json::{Map, Value, json};

use super::network::{control_plane_range, forbidden, overlap};
use crate::{ContainerService, NAMESPACE, snapshots::named::check_reads, support::warning::warned};

/// What whoever puts nodes into a subnet has to be allowed there.
const JOIN: &str = "Microsoft.Network/virtualNetworks/subnets/join/action";
/// The property that names a subnet.
const FIELD: &str = "vnetSubnetID";
/// Addresses of a subnet that Azure keeps to itself: the first four and the last.
const KEPT: u64 = 5;

/// A tenant's VNET and who is in it.
pub(crate) struct Vnet {
    record: Stored<NetworkRecord>,
    /// By cluster: addresses that its nodes have.
    leased: BTreeMap<String, BTreeSet<Ipv4Addr>>,
    /// By cluster: how many nodes it is to have in which subnet.
    asked: BTreeMap<String, BTreeMap<Ipv4Net, u64>>,
}

/// All of a subscription.
pub(crate) async fn read(store: &dyn Store, subscription: &str) -> Result<Vec<Vnet>, ArmError> {
    let prefix = network::key(network::VNETS, subscription, "", "");
    let (found, _) = list_records::<NetworkRecord>(store, &prefix)
        .await
        .map_err(store_error)?;
    let mut vnets = Vec::with_capacity(found.len());
    for (_, record) in found {
        let mut vnet = Vnet {
            record,
            leased: BTreeMap::new(),
            asked: BTreeMap::new(),
        };
        for uid in &vnet.record.value.clusters {
            let cluster = get_record::<ClusterRecord>(store, &key::desired(uid)).await;
            let Some(cluster) = cluster.map_err(store_error)? else {
                continue;
            };
            let asked = by_subnet(&cluster.value.spec().pools);
            vnet.asked.insert(uid.clone(), asked);
        }
        if !vnet.record.value.clusters.is_empty() {
            let leases = format!("{}{}/", key::LEASES, vnet.record.value.uid);
            let (leases, _) = list_records::<LeaseRecord>(store, &leases)
                .await
                .map_err(store_error)?;
            for (key, lease) in leases {
                let holder = lease
                    .value
                    .owner
                    .strip_prefix("cluster/")
                    .and_then(|rest| rest.split('/').next());
                let address = key.rsplit('/').next().and_then(|text| text.parse().ok());
                if let (Some(uid), Some(address)) = (holder, address) {
                    vnet.leased.entry(uid.to_owned()).or_default().insert(address);
                }
            }
        }
        vnets.push(vnet);
    }
    Ok(vnets)
}

/// A subnet that a body names.
struct Subnet<'a> {
    vnet: &'a Vnet,
    name: &'a str,
    range: Ipv4Net,
}

impl Vnet {
    fn space(&self) -> Vec<Ipv4Net> {
        let texts = self
            .record
            .value
            .properties
            .pointer("/addressSpace/addressPrefixes");
        let texts = texts.and_then(Value::as_array).into_iter().flatten();
        texts.filter_map(|text| text.as_str()?.parse().ok()).collect()
    }

    fn subnets(&self) -> impl Iterator<Item = Subnet<'_>> {
        let all = self.record.value.properties["subnets"]
            .as_array()
            .into_iter()
            .flatten();
        all.filter_map(|subnet| {
            let properties = &subnet["properties"];
            let one = properties["addressPrefix"].as_str();
            Some(Subnet {
                vnet: self,
                name: subnet["name"].as_str()?,
                range: one.or(properties["addressPrefixes"][0].as_str())?.parse().ok()?,
            })
        })
    }

    /// Addresses of a subnet that are, or are to be, of clusters other than this one.
    fn of_others(&self, range: Ipv4Net, own: Option<&str>) -> u64 {
        let uids: BTreeSet<&String> = self.leased.keys().chain(self.asked.keys()).collect();
        let others = uids.into_iter().filter(|uid| Some(uid.as_str()) != own);
        others
            .map(|uid| {
                let leased = self.leased.get(uid).into_iter().flatten();
                let leased = leased.filter(|address| range.contains(*address)).count();
                let asked = self.asked.get(uid).and_then(|asked| asked.get(&range));
                asked
                    .copied()
                    .unwrap_or(0)
                    .max(u64::try_from(leased).unwrap_or(u64::MAX))
            })
            .sum()
    }
}

fn find<'a>(vnets: &'a [Vnet], id: &str) -> Option<Subnet<'a>> {
    let path = ResourcePath::parse(id).ok()?;
    if !path.namespace_is("Microsoft.Network") || !path.type_is("virtualNetworks/subnets") {
        return None;
    }
    let same = |a: &str, b: Option<&str>| b.is_some_and(|b| a.eq_ignore_ascii_case(b));
    let vnet = vnets.iter().find(|vnet| {
        let record = &vnet.record.value;
        same(&record.subscription, path.subscription.as_deref())
            && same(&record.resource_group, path.resource_group.as_deref())
            && same(&record.name, path.name(0))
    })?;
    let name = path.name(1)?;
    vnet.subnets()
        .find(|subnet| subnet.name.eq_ignore_ascii_case(name))
}

/// Where the pools of a cluster are put.
pub(crate) struct Place<'a> {
    vnets: &'a [Vnet],
    /// Whether the cluster is there, in a VNET of its own.
    own: bool,
    /// The tenant's VNET that it is in.
    vnet: Option<&'a Vnet>,
    /// The subnet of pools that name none.
    first: Option<String>,
    present: Option<&'a ClusterRecord>,
    before: Option<&'a TenantVnet>,
}

impl<'a> Place<'a> {
    /// Of a cluster that is there, or of one with these pools.
    pub(crate) fn of(vnets: &'a [Vnet], present: Option<&'a ClusterRecord>, asked: Option<&Value>) -> Self {
        let body = present.map(ClusterRecord::body);
        let pools = body
            .and_then(|body| body.pointer("/properties/agentPoolProfiles"))
            .or(asked);
        let mut pools = pools.and_then(Value::as_array).into_iter().flatten();
        let first = pools.find_map(|pool| pool[FIELD].as_str()).map(str::to_owned);
        let before = present.and_then(|present| present.spec().network.vnet.as_ref());
        let vnet = match (present, before) {
            (Some(_), Some(before)) => vnets.iter().find(|vnet| vnet.record.value.uid == before.uid),
            (Some(_), None) => None,
            (None, _) => first
                .as_deref()
                .and_then(|id| find(vnets, id))
                .map(|subnet| subnet.vnet),
        };
        Self {
            vnets,
            own: present.is_some() && before.is_none(),
            vnet,
            first: first.filter(|_| present.is_none() || before.is_some()),
            present,
            before,
        }
    }

    /// Whether it is a tenant's VNET.
    pub(crate) fn is_tenants(&self) -> bool {
        self.first.is_some()
    }

    /// The ranges of a new cluster that is put there.
    pub(crate) fn ranges(&self) -> Option<Ranges> {
        let subnet = find(self.vnets, self.first.as_deref()?)?;
        let space = subnet.vnet.space();
        let vnet = space.into_iter().find(|prefix| prefix.contains(&subnet.range));
        Some(Ranges {
            vnet: vnet.unwrap_or(subnet.range),
            nodes: subnet.range,
            control_plane: control_plane_range(),
        })
    }

    /// The address space, which pods and services have to keep clear of.
    pub(crate) fn space(&self) -> Vec<Ipv4Net> {
        let now = self.vnet.map(Vnet::space);
        now.or(self.before.map(|before| before.space.clone()))
            .unwrap_or_default()
    }

    /// The range of the subnet that a new pool is put into; its id is filled in where the body has none.
    pub(crate) fn subnet(
        &self,
        draft: &mut Map<String, Value>,
        path: &str,
        problems: &mut Problems,
    ) -> Option<Ipv4Net> {
        let target = format!("{path}.{FIELD}");
        let asked = draft.get(FIELD).and_then(Value::as_str).map(str::to_owned);
        if self.own && asked.is_some() {
            let message = "The cluster's nodes are in a virtual network of its own, and all its node pools are there. Make a new cluster to \
                           have nodes in a subnet of yours.";
            problems.add(ErrorCode::INVALID_PARAMETER, target, message);
            return None;
        }
        let id = asked.or_else(|| self.first.clone())?;
        draft.insert(FIELD.to_owned(), json!(id));
        let Some(subnet) = find(self.vnets, &id) else {
            let message = format!(
                "The subnet {} was not found. It has to be one that you made, in the same subscription; 'az network vnet subnet show' prints \
                 its id.",
                quote_id(&id)
            );
            problems.add(ErrorCode::INVALID_RESOURCE_REFERENCE, target, message);
            return None;
        };
        if self
            .vnet
            .is_some_and(|vnet| vnet.record.value.uid != subnet.vnet.record.value.uid)
        {
            let message = "All node pools of a cluster have to be in subnets of the same virtual network.";
            problems.add(ErrorCode::INVALID_PARAMETER, target, message);
            return None;
        }
        if let Some((other, why)) = forbidden()
            .into_iter()
            .find(|(other, _)| overlap(other, &subnet.range))
        {
            let message = format!("The subnet's range {} overlaps {other} ({why}).", subnet.range);
            problems.add(ErrorCode::INVALID_PARAMETER, target, message);
            return None;
        }
        Some(subnet.range)
    }

    /// What is kept of it with the cluster.
    pub(crate) fn decided(&self, pools: &[DesiredPool]) -> Option<TenantVnet> {
        let now = || {
            Some(TenantVnet {
                uid: self.vnet?.record.value.uid.clone(),
                space: self.space(),
                subnets: BTreeSet::new(),
            })
        };
        let mut vnet = self.before.cloned().or_else(now)?;
        vnet.subnets
            .extend(pools.iter().filter_map(|pool| pool.spec().subnet));
        Some(vnet)
    }

    /// Whether the nodes of the pools have addresses in their subnets. Fewer than there were are always fine.
    pub(crate) fn check_room(&self, pools: &[DesiredPool], target: &str, problems: &mut Problems) {
        let Some(vnet) = self.vnet else { return };
        let uid = self.present.map(|present| present.uid.as_str());
        let before = self
            .present
            .map(|present| by_subnet(&present.spec().pools))
            .unwrap_or_default();
        for (range, wanted) in by_subnet(pools.iter().map(DesiredPool::spec)) {
            if before.get(&range).is_some_and(|before| wanted <= *before) {
                continue;
            }
            let name = vnet
                .subnets()
                .find(|subnet| subnet.range == range)
                .map_or("", |subnet| subnet.name);
            let all = (1_u64 << (32 - range.prefix_len())).saturating_sub(KEPT);
            let free = all.saturating_sub(vnet.of_others(range, uid));
            if wanted > all {
                let message = format!(
                    "Pre-allocated IPs {wanted} exceeds IPs available {all} in Subnet Cidr {range}, Subnet Name {name}. Ask for fewer nodes, or \
                     for a larger subnet."
                );
                problems.add(ErrorCode::INSUFFICIENT_SUBNET_SIZE, target, message);
            } else if wanted > free {
                let message = format!(
                    "Subnet {name} with address prefix {range} does not have enough capacity for {wanted} IP addresses: {free} of {all} are not \
                     used by other clusters."
                );
                problems.add(ErrorCode::SUBNET_IS_FULL, target, message);
            }
        }
    }
}

/// How many nodes pools have in which subnet.
fn by_subnet<'p>(pools: impl IntoIterator<Item = &'p PoolSpec>) -> BTreeMap<Ipv4Net, u64> {
    let mut nodes = BTreeMap::new();
    for pool in pools {
        if let Some(range) = pool.subnet {
            *nodes.entry(range).or_default() += u64::from(pool.most());
        }
    }
    nodes
}

/// An id for a message: they are longer than other texts.
pub(crate) fn quote_id(id: &str) -> String {
    let short: String = id.chars().filter(|char| !char.is_control()).take(400).collect();
    format!("'{short}'")
}

/// The VNET that a cluster is in knows it, and is as it was when that was decided.
pub(crate) fn joined(txn: Txn, vnets: &[Vnet], record: &ClusterRecord) -> Txn {
    let wanted = record.spec().network.vnet.as_ref();
    let Some(vnet) = wanted.and_then(|wanted| vnets.iter().find(|vnet| vnet.record.value.uid == wanted.uid))
    else {
        return txn;
    };
    let mut own = vnet.record.value.clone();
    own.clusters.insert(record.uid.clone());
    let key = own.key(network::VNETS);
    txn.at(&key, vnet.record.revision).with(put_record(key, &own))
}

/// Lets the caller through to the subnets that a body names.
pub(crate) async fn check_joins(call: &Call, own: &ResourcePath, body: &Value) -> Result<(), ArmError> {
    let pools = body
        .pointer("/properties/agentPoolProfiles")
        .and_then(Value::as_array);
    let pools = pools.into_iter().flatten().map(|pool| &pool[FIELD]);
    let named = pools.chain(body.pointer(&format!("/properties/{FIELD}")));
    let mut asked: Vec<ResourcePath> = Vec::new();
    for path in named.filter_map(|id| ResourcePath::parse(id.as_str()?).ok()) {
        if !asked.iter().any(|known| known.same(&path)) {
            asked.push(path);
        }
    }
    let action = format!("{NAMESPACE}/{}/write", own.type_path());
    call.check_linked(&action, JOIN, &asked).await
}

/// PUT of what may name subnets and snapshots.
pub(crate) async fn put_joined<R: Resource<Provider = ContainerService>>(
    provider: &ContainerService,
    call: &Call,
    mode: Mode,
) -> Result<Response, ArmError> {
    check_joins(call, &call.request.path, &call.request.body).await?;
    check_reads(provider, call).await?;
    let response = put::<R>(provider, call, mode).await?;
    Ok(warned(provider, response))
}
