//! What a cluster is to be: its body, what was decided beside it, and the spec that follows from both.
//!
//! The body is what clients ask for and read. It does not say everything: a version such as `1.36` was resolved once and does not change
//! because a newer patch is offered; a pool of the same name may be another pool; a restore is no property of AKS. That is [`Decided`].
//! The spec, which the loops act on, follows from the two ([`derive`]) and from nothing else.
//!
//! Always true: a [`DesiredState`] or [`DesiredPool`] has the spec that follows from its parts. There is no way to change one of the three
//! alone: each change goes through the constructor. The spec is not stored; it is derived when a record is read.
//!
//! ```
//! # use control_records::{DesiredState, Malformed};
//! fn stop(state: &DesiredState) -> Result<DesiredState, Malformed> {
//!     state.with(|body, _| body["properties"]["powerState"] = serde_json::json!({ "code": "Stopped" }))
//! }
//! ```
//!
//! ```compile_fail,E0616
//! # use control_records::DesiredState;
//! fn stop(state: &mut DesiredState) {
//!     state.spec.stopped = true;
//! }
//! ```
//!
//! ```compile_fail,E0616
//! # use control_records::DesiredState;
//! fn tag(state: &mut DesiredState) {
//!     state.body["tags"] = serde_json::json!({});
//! }
//! ```
//!
//! ```compile_fail,E0451
//! # use control_records::{Decided, DesiredState};
//! # use cluster_spec::ClusterSpec;
//! fn put_together(body: serde_json::Value, decided: Decided, spec: ClusterSpec) -> DesiredState {
//!     DesiredState { body, decided, spec }
//! }
//! ```

mod derive;
#[cfg(any(test, feature = "testkit"))]
mod of_spec;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use cluster_spec::{ClusterSpec, PoolSpec, RestoreSpec, Rotations, TenantVnet};
use ipnet::Ipv4Net;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use derive::network;

/// Where pools stand in a body.
const POOLS: &str = "/properties/agentPoolProfiles";

/// A body from which no spec follows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the desired state is malformed: {path} {why}")]
pub struct Malformed {
    /// Where.
    pub path: String,
    /// What is wrong with it.
    pub why: &'static str,
}

/// What was decided about a cluster beside its body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Decided {
    /// Its name, in the casing in which the cluster as a whole was last asked for.
    pub name: String,
    /// Its group, in that casing.
    pub resource_group: String,
    /// Fully qualified domain name of the API server: made once, never changed.
    pub fqdn: String,
    /// The version that the body's `kubernetesVersion` stood for when it was asked for.
    pub kubernetes_version: String,
    /// The parts of its VNET that nobody can ask for: chosen at creation.
    pub ranges: Ranges,
    /// The tenant's VNET that its nodes are in, chosen at creation; only subnets are added. Then [`Self::ranges`] are of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vnet: Option<TenantVnet>,
    /// The last restore that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<RestoreSpec>,
    /// The URL of its issuer, once it was asked for one: others trust it by this name, so it stays when the stamp gets another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// The last replacements of its CAs and keys that were asked for.
    #[serde(default, skip_serializing_if = "Rotations::are_none")]
    pub rotations: Rotations,
    /// How it stands with the way back of its control plane, once it was upgraded with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soak: Option<Soak>,
    /// That its control plane is archived, or is to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<Archive>,
    /// Its pools, by name: the same as in the body.
    pub pools: BTreeMap<String, DecidedPool>,
}

/// A control plane whose data is kept in its backup alone: it is stopped, and once the backup was verified its machines go with their disks. The
/// name, addresses, keys and the records of its machines stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Archive {
    /// Why: a rule's id; empty: somebody asked for it.
    pub rule: String,
    /// When it was asked for, milliseconds since 1970.
    pub since: i64,
    /// Since when the cluster had been stopped by then; `None`: it ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Timestamp>,
    /// When the backup that takes the disks' place had been verified, milliseconds since 1970; `None`: it was not yet, and the disks stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<i64>,
}

/// What was decided about a pool beside its body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DecidedPool {
    /// See [`PoolSpec::incarnation`].
    pub incarnation: String,
    /// The version that the body's `orchestratorVersion` stood for when it was asked for.
    pub kubernetes_version: String,
    /// See [`PoolSpec::image`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// What its nodes were before they were what they are to be now; one step, and none after a way back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<LastNodes>,
    /// The build of a node image that it was taken back from: channels leave it alone until there is a newer one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<String>,
    /// See [`PoolSpec::removed`].
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub removed: BTreeSet<String>,
    /// See [`PoolSpec::renewed`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewed: Option<i64>,
    /// The range of the subnet that the body's `vnetSubnetID` stood for: it does not change while nodes are in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet: Option<Ipv4Net>,
}

/// The nodes that a pool had before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastNodes {
    /// Their version.
    pub kubernetes_version: String,
    /// The build of their node image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// When others were asked for, milliseconds since 1970.
    pub at: i64,
}

/// An upgrade of a control plane to another minor release with a way back: until it is finalised, its programs emulate the minor
/// release of before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Soak {
    /// The version of before, which can be gone back to.
    pub from: String,
    /// When the upgrade was asked for, milliseconds since 1970.
    pub since: i64,
    /// When it is finalised by itself, milliseconds since 1970; nobody goes back afterwards.
    pub until: i64,
}

impl Soak {
    /// The minor release that is emulated, e.g. `1.36`.
    pub fn emulated(&self) -> &str {
        self.from.rsplit_once('.').map_or(&self.from, |(minor, _)| minor)
    }
}

/// Ranges of a cluster's VNET.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ranges {
    /// The VNET.
    pub vnet: Ipv4Net,
    /// The nodes' subnet.
    pub nodes: Ipv4Net,
    /// The hidden subnet of the control plane.
    pub control_plane: Ipv4Net,
}

/// What a cluster is to be. See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", try_from = "State")]
pub struct DesiredState {
    body: Value,
    decided: Decided,
    #[serde(skip)]
    spec: ClusterSpec,
}

/// What a pool is to be. See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", try_from = "Pool")]
pub struct DesiredPool {
    body: Value,
    decided: DecidedPool,
    #[serde(skip)]
    spec: PoolSpec,
}

/// What is stored of a [`DesiredState`].
#[derive(Deserialize)]
struct State {
    body: Value,
    decided: Decided,
}

/// What is stored of a [`DesiredPool`].
#[derive(Deserialize)]
struct Pool {
    body: Value,
    decided: DecidedPool,
}

impl TryFrom<State> for DesiredState {
    type Error = Malformed;

    fn try_from(State { body, decided }: State) -> Result<Self, Malformed> {
        Self::new(body, decided)
    }
}

impl TryFrom<Pool> for DesiredPool {
    type Error = Malformed;

    fn try_from(Pool { body, decided }: Pool) -> Result<Self, Malformed> {
        Self::new(body, decided)
    }
}

impl DesiredState {
    /// The state with this canonical body (newest api-version, defaults filled in).
    ///
    /// # Errors
    /// When no spec follows: the body is not canonical, or its pools are not those that were decided about.
    pub fn new(body: Value, decided: Decided) -> Result<Self, Malformed> {
        let spec = derive::cluster(&body, &decided)?;
        Ok(Self { body, decided, spec })
    }

    /// The canonical ARM body: `location`, `tags`, `sku`, `identity`, `properties`…, newest api-version, defaults filled in, read-only
    /// and secret properties removed.
    pub fn body(&self) -> &Value {
        &self.body
    }

    /// What was decided beside the body.
    pub fn decided(&self) -> &Decided {
        &self.decided
    }

    /// What follows: what the loops act on.
    pub fn spec(&self) -> &ClusterSpec {
        &self.spec
    }

    /// Whether both ask for the same: they differ in no more than eTags.
    pub fn asks_the_same(&self, other: &Self) -> bool {
        let asked = |state: &Self| {
            let mut body = state.body.clone();
            let untagged = |value: &mut Value| {
                if let Value::Object(members) = value {
                    members.remove("eTag");
                }
            };
            if let Some(Value::Array(pools)) = body.pointer_mut(POOLS) {
                pools.iter_mut().for_each(untagged);
            }
            untagged(&mut body);
            body
        };
        self.decided == other.decided && asked(self) == asked(other)
    }

    /// The state after a change of body and decisions.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with(&self, change: impl FnOnce(&mut Value, &mut Decided)) -> Result<Self, Malformed> {
        let (mut body, mut decided) = (self.body.clone(), self.decided.clone());
        change(&mut body, &mut decided);
        Self::new(body, decided)
    }

    /// The pools, in their order.
    pub fn pools(&self) -> Vec<DesiredPool> {
        let bodies = self.body.pointer(POOLS).and_then(Value::as_array);
        let bodies = bodies.into_iter().flatten();
        // Always as many, in the same order: the specs were derived from the bodies.
        let pools = bodies.zip(&self.spec.pools).map(|(body, spec)| {
            let decided = self.decided.pools.get(&spec.name).cloned();
            DesiredPool {
                body: body.clone(),
                decided: decided.unwrap_or_else(|| DecidedPool::of(spec)),
                spec: spec.clone(),
            }
        });
        pools.collect()
    }

    /// The state with these pools, and all else as it is.
    ///
    /// # Errors
    /// When two have the same name.
    pub fn with_pools(&self, pools: Vec<DesiredPool>) -> Result<Self, Malformed> {
        self.with(|body, decided| {
            decided.pools = pools
                .iter()
                .map(|pool| (pool.spec.name.clone(), pool.decided.clone()))
                .collect();
            let bodies = pools.into_iter().map(|pool| pool.body).collect();
            body["properties"]["agentPoolProfiles"] = Value::Array(bodies);
        })
    }
}

impl DecidedPool {
    /// What a spec tells of it.
    fn of(spec: &PoolSpec) -> Self {
        Self {
            incarnation: spec.incarnation.clone(),
            kubernetes_version: spec.kubernetes_version.clone(),
            image: spec.image.clone(),
            last: None,
            left: None,
            removed: spec.removed.clone(),
            renewed: spec.renewed,
            subnet: spec.subnet,
        }
    }
}

impl DecidedPool {
    /// Its nodes are to have this version and this build of its image from `now` (milliseconds since 1970) on; what they had is kept,
    /// for a way back. Where they have both, nothing changes.
    pub fn go_to(&mut self, kubernetes_version: &str, image: Option<String>, now: i64) {
        if self.kubernetes_version == kubernetes_version && self.image == image {
            return;
        }
        self.last = Some(LastNodes {
            kubernetes_version: std::mem::replace(
                &mut self.kubernetes_version,
                kubernetes_version.to_owned(),
            ),
            image: std::mem::replace(&mut self.image, image),
            at: now,
        });
        self.left = None;
    }

    /// Its nodes are to be what they were before. There is one step back, and none after it.
    pub fn go_back(&mut self, to: &LastNodes) {
        self.left = self.image.take();
        self.image.clone_from(&to.image);
        self.kubernetes_version.clone_from(&to.kubernetes_version);
        self.last = None;
    }
}

impl DesiredPool {
    /// The pool with these canonical properties (with `name`; newest api-version, defaults filled in).
    ///
    /// # Errors
    /// When no spec follows.
    pub fn new(body: Value, decided: DecidedPool) -> Result<Self, Malformed> {
        let spec = derive::pool(&body, &decided)?;
        Ok(Self { body, decided, spec })
    }

    /// Its properties as they stand in the cluster's body.
    pub fn body(&self) -> &Value {
        &self.body
    }

    /// What was decided beside the body.
    pub fn decided(&self) -> &DecidedPool {
        &self.decided
    }

    /// What follows: what the loops act on.
    pub fn spec(&self) -> &PoolSpec {
        &self.spec
    }

    /// The pool after a change of body and decisions.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with(&self, change: impl FnOnce(&mut Value, &mut DecidedPool)) -> Result<Self, Malformed> {
        let (mut body, mut decided) = (self.body.clone(), self.decided.clone());
        change(&mut body, &mut decided);
        Self::new(body, decided)
    }

    /// The pool without nodes.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn emptied(&self) -> Result<Self, Malformed> {
        self.with(|body, _| body["count"] = json!(0))
    }
}
