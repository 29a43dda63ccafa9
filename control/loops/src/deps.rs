//! The dependencies of the loops.

use std::{sync::Arc, time::Duration};

use agent_api::Agents;
use base_env::Env;
use base_sealer::Sealer;
use cluster_api::Connect;
use control_planner::Policy;
use control_records::{Epoch, HostId};
use control_store::Store;
use fabric_api::Fabric;

use crate::{fair_semaphore::Limits, recipes::Recipes};

/// The dependencies of a [`crate::Controller`].
#[derive(Clone)]
pub struct ControllerDeps {
    /// Time, chance and identity.
    pub env: Env,
    /// Records.
    pub store: Arc<dyn Store>,
    /// How often the store was restored from a copy.
    pub epoch: Epoch,
    /// This host of the stamp: machines are made on it, and the loops of its clusters run here.
    pub host: HostId,
    /// Seals the secrets in them.
    pub sealer: Arc<Sealer>,
    /// Makes machines and networks. [`Fabric::ensure_stamp`] has been called.
    pub fabric: Arc<dyn Fabric>,
    /// The machines' agents.
    pub agents: Arc<dyn Agents>,
    /// Connects to the clusters' APIs.
    pub connect: Arc<dyn Connect>,
    /// The configurations of Kubernetes: the service's, except in tests.
    pub recipes: Arc<dyn Recipes>,
    /// The service's address for agents, e.g. `https://100.64.16.1:7443`.
    pub service_url: String,
    /// PEM of the CA that agents trust and enrol with.
    pub agent_ca: String,
    /// Tunable settings.
    pub settings: Settings,
}

/// Tunable settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The planner's policy.
    pub policy: Policy,
    /// Limits of concurrent work; shared fairly among subscriptions.
    pub limits: Limits,
    /// The interval of a full check without a notification, give or take a tenth.
    pub resync: Duration,
    /// How long ended operations are kept.
    pub operation_retention: Duration,
    /// CPU limit of a control plane machine, thousandths of a core.
    pub control_plane_cpu_millis: u32,
    /// Memory limit of a control plane machine, MiB.
    pub control_plane_memory_mib: u64,
    /// Time limit of an effect on the fabric.
    pub fabric_bound: Duration,
    /// Time limit of an effect on a cluster's API.
    pub api_bound: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            limits: Limits::default(),
            resync: Duration::from_secs(5 * 60),
            operation_retention: Duration::from_secs(7 * 24 * 60 * 60),
            control_plane_cpu_millis: 4000,
            control_plane_memory_mib: 4096,
            fabric_bound: Duration::from_secs(5 * 60),
            api_bound: Duration::from_secs(30),
        }
    }
}
