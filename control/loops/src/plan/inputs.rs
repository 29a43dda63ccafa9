//! Fingerprints of what things are computed from. A configuration holds fresh certificates each time it is computed, so
//! two of them cannot be compared; what they were computed from can.

use cluster_spec::{ClusterSpec, PoolSpec};
use control_records::{MachineRecord, Role};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::Addresses;

/// Counted up when a release computes something else from the same inputs, so that existing machines get it too.
const RECIPE: u32 = 1;

fn fingerprint(parts: &impl Serialize) -> String {
    let bytes = serde_json::to_vec(parts).expect("specifications are plain data with string keys");
    // 64 bits tell two versions of one configuration apart.
    hex::encode(&Sha256::digest(bytes)[..8])
}

/// A cluster without what is no part of any machine's configuration.
fn frame(spec: &ClusterSpec) -> ClusterSpec {
    ClusterSpec {
        pools: Vec::new(),
        ..spec.clone()
    }
}

/// A pool without what changes on a running node by way of its node object (labels, taints) or not at all (count).
fn pool_frame(pool: &PoolSpec) -> PoolSpec {
    PoolSpec {
        count: 0,
        labels: Default::default(),
        taints: Vec::new(),
        ..pool.clone()
    }
}

/// What a machine's configuration is computed from.
pub fn config_inputs(spec: &ClusterSpec, machine: &MachineRecord, addresses: &Addresses) -> String {
    let role = machine.assignment.as_ref().map(|assignment| &assignment.role);
    let pool = match role {
        Some(Role::Node { pool, .. }) => spec.pools.iter().find(|spec| spec.name == *pool).map(pool_frame),
        _ => None,
    };
    let own = match role {
        Some(Role::ControlPlane { .. }) => Some(addresses.control_plane),
        _ => None,
    };
    // A new version of the control plane is no reason to configure its nodes anew.
    let mut frame = frame(spec);
    if pool.is_some() {
        frame.kubernetes_version.clear();
        frame.disable_local_accounts = false;
    }
    fingerprint(&(RECIPE, frame, &machine.image, role, pool, addresses.vip, own))
}

/// What a node object's labels, taints and pod range are computed from.
pub fn wish_inputs(spec: &ClusterSpec, machine: &MachineRecord) -> String {
    let role = machine.assignment.as_ref().map(|assignment| &assignment.role);
    let pool = match role {
        Some(Role::Node { pool, .. }) => {
            spec.pools
                .iter()
                .find(|spec| spec.name == *pool)
                .map(|pool| PoolSpec {
                    count: 0,
                    ..pool.clone()
                })
        }
        _ => None,
    };
    fingerprint(&(RECIPE, frame(spec), role, pool))
}

/// What the add-ons are computed from.
pub fn addons_inputs(spec: &ClusterSpec) -> String {
    fingerprint(&(RECIPE, frame(spec)))
}
