//! Fingerprints of what things are computed from. A configuration holds certificates that are renewed at times, so two of
//! them cannot be compared; what they were computed from can.

use std::{collections::BTreeSet, net::Ipv4Addr};

use agent_protocol::LEVEL;
use cluster_spec::{
    AddonImage, ApiAccess, ClusterSpec, DRAIN_MINUTES, DirectoryAccess, NetworkPolicy, NetworkProfile,
    PoolSpec, Rotations, TenantVnet, Tier, Undrainable,
};
use control_records::{MachineRecord, Role};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::{Addresses, ControlPlane, RendererVersions};

fn fingerprint(parts: &impl Serialize) -> String {
    let bytes = serde_json::to_vec(parts).expect("specifications are plain data with string keys");
    // 64 bits tell two versions of one configuration apart.
    hex::encode(&Sha256::digest(bytes)[..8])
}

/// A cluster without what is no part of any machine's configuration.
fn frame(spec: &ClusterSpec) -> ClusterSpec {
    ClusterSpec {
        pools: Vec::new(),
        // A machine's own version counts for it.
        kubernetes_version: String::new(),
        // What of it matters is in `ControlPlane`.
        tier: Tier::Free,
        // Members take it while they serve.
        access: ApiAccess::Open,
        restore: None,
        // What of these matters to whom is said below.
        issuer: None,
        workload_identity: false,
        directory: None,
        // Snapshots are taken by the stamp's service, without the machines.
        snapshots_off: false,
        // Add-ons alone are made from it; nodes have a task for each image that it needs.
        ingress: Default::default(),
        // Its loop and its providers alone go by it.
        disable_local_accounts: false,
        autoscaler: Default::default(),
        // What they come to is the generation of the keys.
        rotations: Rotations::default(),
        forced_until: None,
        // Members alone have flags for it.
        emulated: None,
        // A subnet more is nothing to the machines that there are.
        network: NetworkProfile {
            vnet: spec.network.vnet.as_ref().map(|vnet| TenantVnet {
                subnets: Default::default(),
                ..vnet.clone()
            }),
            // There is one engine, whatever it is called.
            policy: if spec.network.policy.is_enforced() {
                NetworkPolicy::Calico
            } else {
                NetworkPolicy::None
            },
            ..spec.network.clone()
        },
        ..spec.clone()
    }
}

/// The same with what control plane members have to be restarted for: an API server has flags for its issuers, and for whom it asks what is
/// permitted. Whose tokens it takes is in a file that it reads again.
fn member_frame(spec: &ClusterSpec) -> ClusterSpec {
    let asks = spec.directory.as_ref().filter(|directory| directory.roles);
    let frame = frame(spec);
    ClusterSpec {
        issuer: spec.issuer.clone(),
        emulated: spec.emulated.clone(),
        directory: asks.map(|_| DirectoryAccess {
            tenant: String::new(),
            admins: Vec::new(),
            roles: true,
        }),
        // The drivers of disks and shares run on nodes.
        disks_off: false,
        files_off: false,
        // And so does the engine of network policies.
        network: NetworkProfile {
            policy: NetworkPolicy::None,
            ..frame.network
        },
        ..frame
    }
}

/// What the configurations of all machines of a cluster are computed from.
pub struct Frame<'s> {
    spec: &'s ClusterSpec,
    versions: &'s RendererVersions,
    keys: u64,
    member: ClusterSpec,
    node: ClusterSpec,
    vip: Ipv4Addr,
    control_plane: ControlPlane,
}

impl<'s> Frame<'s> {
    /// Once for all machines.
    pub fn new(
        spec: &'s ClusterSpec,
        versions: &'s RendererVersions,
        keys: u64,
        addresses: &Addresses,
        control_plane: ControlPlane,
    ) -> Self {
        Self {
            spec,
            versions,
            keys,
            node: frame(spec),
            member: member_frame(spec),
            vip: addresses.vip,
            control_plane,
        }
    }

    /// What a machine's configuration is computed from. Of a control plane member, the part before the dot is what members
    /// have to be restarted for; the rest they take while they serve. Its version is in neither: an upgrade is one restart.
    pub fn config_inputs(&self, machine: &MachineRecord) -> String {
        let Self {
            spec,
            versions,
            keys: _,
            member,
            node,
            vip,
            control_plane,
        } = self;
        let role = machine.assignment.as_ref().map(|assignment| &assignment.role);
        let repaired = &machine.healing.restarts;
        if let Some(Role::Node { pool, .. }) = role {
            let pool = spec.pools.iter().find(|spec| spec.name == *pool).map(pool_frame);
            let plain = fingerprint(&(
                &versions.nodes,
                LEVEL,
                if pool.is_some() { node } else { member },
                &machine.image,
                role,
                pool,
                vip,
                repaired,
                &control_plane.restored,
            ));
            return self.keyed(brings(spec, plain));
        }
        let restarts = self.keyed(fingerprint(&(
            &versions.members,
            LEVEL,
            member,
            role,
            vip,
            control_plane.limits,
            control_plane.restore.as_ref().map(|restore| &restore.id),
        )));
        let ControlPlane {
            members,
            formed,
            roaming,
            limits: _,
            restore,
            restored,
        } = control_plane;
        // A member that loses its data from then on has to know that this is over.
        let over = restore
            .as_ref()
            .is_some_and(|restore| restored.as_ref() == Some(&restore.id));
        let rest = if over {
            fingerprint(&(members, formed, roaming, repaired, over))
        } else {
            fingerprint(&(members, formed, roaming, repaired))
        };
        let rest = if spec.access.is_open() {
            rest
        } else {
            fingerprint(&(rest, &spec.access))
        };
        let rest = match &spec.directory {
            None => rest,
            Some(directory) => fingerprint(&(rest, &directory.tenant)),
        };
        format!("{restarts}.{rest}")
    }
}

impl Frame<'_> {
    /// With the generation of the cluster's keys; the first one counts for nothing, for clusters had no other for long.
    fn keyed(&self, rest: String) -> String {
        if self.keys > 1 {
            fingerprint(&(rest, self.keys))
        } else {
            rest
        }
    }
}

/// With the images that a node is told to bring, each with its version. A cluster that asks for none counts nothing.
fn brings(spec: &ClusterSpec, plain: String) -> String {
    let images: Vec<&str> = spec.addon_images().map(|image| image.reference).collect();
    if images.is_empty() {
        plain
    } else {
        fingerprint(&(plain, images))
    }
}

/// A pool without what is no single node's: a node's version and image are its machine's.
fn one_of(pool: &PoolSpec) -> PoolSpec {
    PoolSpec {
        count: 0,
        surge: 0,
        unavailable: 0,
        drain_minutes: DRAIN_MINUTES,
        soak_minutes: 0,
        undrainable: Undrainable::default(),
        removed: Default::default(),
        renewed: None,
        stopped: false,
        autoscale: None,
        kubernetes_version: String::new(),
        image: None,
        ..pool.clone()
    }
}

/// The same without what changes on a running node by way of its node object (labels, taints).
fn pool_frame(pool: &PoolSpec) -> PoolSpec {
    PoolSpec {
        labels: Default::default(),
        taints: Vec::new(),
        ..one_of(pool)
    }
}

/// What a node object's labels, taints and pod range are computed from. Kept in memory only: a new process sets them anew.
pub fn wish_inputs(spec: &ClusterSpec, machine: &MachineRecord, images: &BTreeSet<String>) -> String {
    let role = machine.assignment.as_ref().map(|assignment| &assignment.role);
    let pool = match role {
        Some(Role::Node { pool, .. }) => spec.pools.iter().find(|spec| spec.name == *pool).map(one_of),
        _ => None,
    };
    // A node that was given up is quarantined, or uncordoned.
    let given_up = machine
        .emptying
        .as_ref()
        .and_then(|emptying| emptying.given_up.as_ref());
    let quarantined = given_up.map(|given_up| given_up.quarantined);
    let plain = if quarantined.is_none() && machine.inherited.is_none() {
        fingerprint(&(frame(spec), machine.boots(), role, pool))
    } else {
        fingerprint(&(
            frame(spec),
            machine.boots(),
            role,
            pool,
            quarantined,
            &machine.inherited,
        ))
    };
    with_images(spec, plain, images)
}

/// With those of some images of add-ons that the cluster asks for. One that asks for none counts nothing.
fn with_images(spec: &ClusterSpec, plain: String, there: &BTreeSet<String>) -> String {
    let counted: Vec<&AddonImage> = spec
        .addon_images()
        .filter(|image| there.contains(image.name))
        .collect();
    if counted.is_empty() {
        return plain;
    }
    let references: Vec<&str> = counted.iter().map(|image| image.reference).collect();
    fingerprint(&(plain, references))
}

/// What the add-ons are computed from. Kept in memory only: a new process applies them anew.
pub fn addons_inputs(spec: &ClusterSpec, images: &BTreeSet<String>) -> String {
    let plain = fingerprint(&(
        frame(spec),
        &spec.issuer,
        spec.workload_identity,
        &spec.directory,
        &spec.ingress,
    ));
    with_images(spec, plain, images)
}
