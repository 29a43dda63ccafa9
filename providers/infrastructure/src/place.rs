//! Clusters with their machines, for their node resource groups.

use arm_ids::resource_id;
use arm_kernel::store_error;
use arm_wire::ArmError;
use cluster_spec::PoolSpec;
use control_planner::node_name;
use control_records::{
    ClusterRecord, MachineRecord, ObservedRecord, Role, balancer::BalancerRecord, directory, key,
    volume::VolumeRecord,
};
use control_store::{Store, get_record, list_records};
use serde_json::{Map, Value, json};

/// A cluster and its infrastructure.
pub(crate) struct Place {
    pub(crate) cluster: ClusterRecord,
    pub(crate) observed: ObservedRecord,
    pub(crate) machines: Vec<MachineRecord>,
    /// The load balancers of its Services, in the order of the Services' uids.
    pub(crate) balancers: Vec<BalancerRecord>,
    /// The volumes of its claims, in the order of their ids.
    pub(crate) volumes: Vec<VolumeRecord>,
}

/// A pool as a scale set.
pub(crate) struct Set<'a> {
    pub(crate) place: &'a Place,
    pub(crate) pool: &'a PoolSpec,
    /// `aks-{pool}-{number}-vmss`
    pub(crate) name: String,
}

/// A node as an instance of its scale set.
pub(crate) struct Instance<'a> {
    pub(crate) machine: &'a MachineRecord,
    pub(crate) index: u32,
    pub(crate) node_name: &'a str,
    pub(crate) address: std::net::Ipv4Addr,
}

/// The clusters of a subscription, or the one whose nodes are in a group of it, with their machines.
pub(crate) async fn places(
    store: &dyn Store,
    subscription: &str,
    group: Option<&str>,
) -> Result<Vec<Place>, ArmError> {
    let clusters = directory::clusters(store, Some(subscription), None).await;
    let mut places = Vec::new();
    for found in clusters.map_err(store_error)? {
        let cluster = found.value;
        let nodes = &cluster.spec().node_resource_group;
        if group.is_some_and(|group| !nodes.eq_ignore_ascii_case(group)) {
            continue;
        }
        let observed = get_record::<ObservedRecord>(store, &key::observed(&cluster.uid)).await;
        let observed = observed.map_err(store_error)?;
        let balancers = match &observed {
            Some(observed) if observed.value.balanced => {
                let found = list_records(store, &BalancerRecord::all(&cluster.uid)).await;
                let (found, _) = found.map_err(store_error)?;
                found.into_iter().map(|(_, found)| found.value).collect()
            }
            _ => Vec::new(),
        };
        let volumes = match &observed {
            Some(observed) if observed.value.volumes => {
                let found = list_records(store, &VolumeRecord::all(&cluster.uid)).await;
                let (found, _) = found.map_err(store_error)?;
                found.into_iter().map(|(_, found)| found.value).collect()
            }
            _ => Vec::new(),
        };
        let machines = directory::machines(store, &cluster.uid).await;
        places.push(Place {
            observed: observed.map(|found| found.value).unwrap_or_default(),
            machines: machines.map_err(store_error)?,
            balancers,
            volumes,
            cluster,
        });
    }
    Ok(places)
}

impl Place {
    /// The group of its nodes.
    pub(crate) fn group(&self) -> &str {
        &self.cluster.spec().node_resource_group
    }

    /// The id of a resource in that group.
    pub(crate) fn id(&self, namespace: &str, pairs: &[(&str, &str)]) -> String {
        resource_id(&self.cluster.subscription, self.group(), namespace, pairs)
    }

    /// Its scale sets, in the order of its pools.
    pub(crate) fn sets(&self) -> Vec<Set<'_>> {
        let pools = self.cluster.spec().pools.iter();
        pools
            .map(|pool| {
                let first = node_name(&self.cluster.uid, pool, 0);
                // Six characters of number at the end are the node's.
                let name = first.get(..first.len().saturating_sub(6)).unwrap_or(&first);
                Set {
                    place: self,
                    pool,
                    name: name.to_owned(),
                }
            })
            .collect()
    }

    /// The common members of the cluster's resources.
    pub(crate) fn resource(&self, namespace: &str, kind: &str, name: &str, properties: Value) -> Value {
        json!({
            "id": self.id(namespace, &[(kind, name)]),
            "name": name,
            "type": format!("{namespace}/{kind}"),
            "location": self.cluster.spec().location,
            "tags": self.tags(),
            "properties": properties,
        })
    }

    /// The tags that AKS sets, by which tools find the cluster.
    fn tags(&self) -> Map<String, Value> {
        let record = &self.cluster;
        let mut tags = Map::new();
        for (name, value) in [
            ("aks-managed-cluster-name", &record.name),
            ("aks-managed-cluster-rg", &record.resource_group),
        ] {
            tags.insert(name.to_owned(), json!(value));
        }
        tags
    }

    /// Whether its machines are stopped on purpose.
    pub(crate) fn is_off(&self) -> bool {
        self.cluster.spec().stopped
    }
}

impl<'a> Set<'a> {
    /// Its instances, in the order of their numbers. Those of an earlier pool of the same name are excluded.
    pub(crate) fn instances(&self) -> Vec<Instance<'a>> {
        let place = self.place;
        let mut found: Vec<Instance<'a>> = place
            .machines
            .iter()
            .filter_map(|machine| match &machine.assignment.as_ref()?.role {
                Role::Node {
                    pool,
                    incarnation,
                    index,
                    node_name,
                    address,
                    ..
                } if *pool == self.pool.name && *incarnation == self.pool.incarnation => Some(Instance {
                    machine,
                    index: *index,
                    node_name,
                    address: *address,
                }),
                _ => None,
            })
            .collect();
        found.sort_by_key(|instance| instance.index);
        found
    }
}

/// The power state of a machine, by its record and last observation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Creating,
    Running,
    Updating,
    Deleting,
    Stopping,
    Off,
}

impl Instance<'_> {
    pub(crate) fn state(&self, place: &Place) -> State {
        let seen = place.observed.reported.get(&self.machine.id);
        let runs = seen.is_some_and(|seen| seen.runs);
        if self.machine.deleting || place.cluster.deleting {
            State::Deleting
        } else if place.is_off() || self.machine.healing.off && !runs {
            State::Off
        } else if self.machine.healing.off {
            State::Stopping
        } else if self.machine.work.is_some() {
            State::Updating
        } else if runs {
            State::Running
        } else {
            State::Creating
        }
    }
}

impl State {
    /// `provisioningState`.
    pub(crate) fn provisioning(self) -> &'static str {
        match self {
            Self::Creating => "Creating",
            Self::Running | Self::Off => "Succeeded",
            Self::Updating | Self::Stopping => "Updating",
            Self::Deleting => "Deleting",
        }
    }

    /// For an instance view: code and display text.
    pub(crate) fn power(self) -> (&'static str, &'static str) {
        match self {
            Self::Creating | Self::Updating => ("PowerState/starting", "VM starting"),
            Self::Running => ("PowerState/running", "VM running"),
            Self::Deleting => ("PowerState/stopping", "VM stopping"),
            Self::Stopping => ("PowerState/deallocating", "VM deallocating"),
            Self::Off => ("PowerState/deallocated", "VM deallocated"),
        }
    }
}
