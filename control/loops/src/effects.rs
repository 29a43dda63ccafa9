//! Carries effects out. No choices here: what to do was planned, and everything may be repeated.

use std::{collections::BTreeMap, sync::Arc};

use agent_protocol::{MachineConfig, SEED_PATH, Seed as AgentSeed};
use base_env::Elapsed;
use cluster_api::{ClusterApi, ClusterError};
use cluster_spec::vm_size;
use control_planner::{ConfigSeen, Effect, Presence};
use control_records::{MachineRecord, Role, SealedRecord, key};
use control_store::{SealError, StoreError, Txn, get_record, put_record};
use fabric_api::{FabricError, MachineId, MachineSpec, Power, RouteSpec};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use crate::{
    ControllerDeps,
    census::{Census, Mark},
    memory::{Failure, Outcome},
    recipes::{RecipeError, Secret, Site, network_id},
};

/// A machine's configuration as sealed in the store.
#[derive(Serialize, Deserialize)]
struct StoredConfig {
    /// [`control_planner::Frame::config_inputs`] it was computed from.
    inputs: String,
    /// When.
    made_at: Timestamp,
    config: MachineConfig,
}

/// Why an effect did not work.
#[derive(Debug, thiserror::Error)]
enum EffectError {
    #[error(transparent)]
    Fabric(#[from] FabricError),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    #[error("it did not end within {:?}", .0.0)]
    Timeout(#[from] Elapsed),
    #[error("{0} is missing in the store")]
    Missing(String),
}

/// All that one effect may use: a snapshot of the moment it was planned.
#[derive(Clone)]
pub(crate) struct Job {
    pub(crate) deps: Arc<ControllerDeps>,
    pub(crate) census: Arc<Census>,
    /// A look at the fabric needs nothing that is newer.
    pub(crate) since: Mark,
    pub(crate) uid: String,
    /// `None` before the addresses are leased; nothing that needs them is planned then.
    pub(crate) site: Option<Site>,
    pub(crate) machines: Arc<BTreeMap<String, Arc<MachineRecord>>>,
    pub(crate) pki: Arc<OnceCell<Secret>>,
    pub(crate) api: Option<Arc<dyn ClusterApi>>,
    /// Whether the API server has answered before.
    pub(crate) api_ready: bool,
    /// The count of changes of the API when the effect began.
    pub(crate) change: u64,
}

impl Job {
    pub(crate) async fn run(self, effect: &Effect) -> Result<Outcome, Failure> {
        let clock = Arc::clone(&self.deps.env.clock);
        let settings = &self.deps.settings;
        let bound = match effect {
            Effect::LookAtFabric
            | Effect::EnsureNetwork(_)
            | Effect::EnsureMachine(_)
            | Effect::DeleteMachine(_)
            | Effect::RestartMachine { .. }
            | Effect::WipeMachine { .. }
            | Effect::DeleteNetwork
            | Effect::LoadConfig(_)
            | Effect::Configure { .. } => settings.fabric_bound,
            Effect::LookAtApi
            | Effect::SetNode { .. }
            | Effect::ApproveServing
            | Effect::ApplyAddons { .. }
            | Effect::Drain { .. }
            | Effect::DeleteNode(_) => settings.api_bound,
        };
        let result = match clock.timeout(bound, Box::pin(self.carry_out(effect))).await {
            Ok(result) => result,
            Err(elapsed) => Err(elapsed.into()),
        };
        result.map_err(|error| Failure {
            why: format!("{}: {}", self.describe(effect), chain(&error)),
        })
    }

    /// What is being done, for people.
    fn describe(&self, effect: &Effect) -> String {
        let machine = |id: &String| match self
            .machines
            .get(id)
            .and_then(|machine| machine.assignment.as_ref())
        {
            Some(assignment) => match &assignment.role {
                Role::ControlPlane { .. } => format!("the control plane (machine {id})"),
                Role::Node { node_name, .. } => format!("node {node_name} (machine {id})"),
            },
            None => format!("machine {id}"),
        };
        match effect {
            Effect::LookAtFabric => "looking for machines".to_owned(),
            Effect::LoadConfig(id) => format!("reading the configuration of {}", machine(id)),
            Effect::Configure { machine: id, .. } => format!("configuring {}", machine(id)),
            Effect::EnsureNetwork(_) => "making the network".to_owned(),
            Effect::EnsureMachine(id) => format!("starting {}", machine(id)),
            Effect::RestartMachine { machine: id, .. } => format!("restarting {}", machine(id)),
            Effect::WipeMachine { machine: id, .. } => format!("making {} anew", machine(id)),
            Effect::LookAtApi => "looking at the API server".to_owned(),
            Effect::SetNode { node, .. } => format!("labelling node {node}"),
            Effect::ApproveServing => "approving serving certificates".to_owned(),
            Effect::ApplyAddons { .. } => "applying the add-ons".to_owned(),
            Effect::Drain { node, .. } => format!("draining node {node}"),
            Effect::DeleteNode(node) => format!("removing node {node}"),
            Effect::DeleteMachine(id) => format!("removing {}", machine(id)),
            Effect::DeleteNetwork => "removing the network".to_owned(),
        }
    }

    async fn carry_out(&self, effect: &Effect) -> Result<Outcome, EffectError> {
        let fabric = &self.deps.fabric;
        match effect {
            Effect::LookAtFabric => self.look_at_fabric().await,
            Effect::LoadConfig(machine) => self.load_config(machine).await,
            Effect::Configure {
                machine,
                generation,
                inputs,
            } => self.configure(machine, *generation, inputs).await,
            Effect::EnsureNetwork(routes) => self.ensure_network(routes).await,
            Effect::DeleteNetwork => {
                fabric.delete_network(&network_id(&self.uid)).await?;
                Ok(Outcome::NetworkGone)
            }
            Effect::EnsureMachine(machine) => {
                fabric.ensure_machine(&self.machine_spec(machine)?).await?;
                Ok(Outcome::MachineRuns(machine.clone()))
            }
            Effect::DeleteMachine(machine) => {
                fabric.delete_machine(&MachineId::from(machine.as_str())).await?;
                self.deps.agents.forget(machine);
                Ok(Outcome::MachineGone(machine.clone()))
            }
            Effect::RestartMachine { machine, at } => {
                let spec = self.machine_spec(machine)?;
                // What could not start again is not stopped.
                fabric.ensure_image(&spec.image).await?;
                match fabric.stop_machine(&spec.id).await {
                    Ok(()) | Err(FabricError::NotFound(_)) => {}
                    Err(error) => return Err(error.into()),
                }
                // Without its disk it would come up as a machine that nobody knows: it has vanished.
                if self.machine(machine)?.enrolled_key.is_some() && !self.is_whole(&spec.id).await? {
                    return Ok(Outcome::MachineWiped {
                        machine: machine.clone(),
                        at: *at,
                    });
                }
                let ended_boot = self.deps.agents.report(machine).map(|report| report.boot.clone());
                fabric.ensure_machine(&spec).await?;
                Ok(Outcome::MachineRestarted {
                    machine: machine.clone(),
                    at: *at,
                    ended_boot,
                })
            }
            Effect::WipeMachine { machine, at } => {
                fabric.delete_machine(&MachineId::from(machine.as_str())).await?;
                self.deps.agents.forget(machine);
                Ok(Outcome::MachineWiped {
                    machine: machine.clone(),
                    at: *at,
                })
            }
            Effect::LookAtApi => {
                let api = self.api()?;
                let at = self.deps.env.clock.now();
                if !self.api_ready {
                    api.ready().await?;
                }
                Ok(Outcome::Api {
                    change: self.change,
                    at,
                    nodes: api.nodes().await?,
                })
            }
            Effect::SetNode { machine, inputs, .. } => {
                let wish = self
                    .deps
                    .recipes
                    .wish(&self.site()?.cluster, self.machine(machine)?);
                if let Some(wish) = wish {
                    self.api()?.set_node(&wish).await?;
                }
                Ok(Outcome::NodeSet {
                    machine: machine.clone(),
                    inputs: inputs.clone(),
                })
            }
            Effect::ApproveServing => {
                let site = self.site()?;
                let wishes: Vec<_> = self
                    .machines
                    .values()
                    .filter(|machine| !machine.deleting)
                    .filter_map(|machine| self.deps.recipes.wish(&site.cluster, machine))
                    .collect();
                self.api()?.approve_serving(&wishes).await?;
                Ok(Outcome::Approved { change: self.change })
            }
            Effect::ApplyAddons { inputs } => {
                let objects = self.deps.recipes.addons(&self.site()?.cluster)?;
                let changed = self.api()?.apply(&objects).await?;
                if changed > 0 {
                    tracing::info!(cluster = self.uid, changed, "applied add-ons");
                }
                Ok(Outcome::AddonsApplied {
                    inputs: inputs.clone(),
                    change: self.change,
                })
            }
            Effect::Drain { machine, node } => {
                let left = self.api()?.drain(node).await?;
                Ok(Outcome::Drained {
                    machine: machine.clone(),
                    left,
                })
            }
            Effect::DeleteNode(node) => {
                self.api()?.delete_node(node).await?;
                Ok(Outcome::NodeDeleted(node.clone()))
            }
        }
    }

    fn site(&self) -> Result<&Site, EffectError> {
        self.site
            .as_ref()
            .ok_or_else(|| EffectError::Missing("the lease of an address".to_owned()))
    }

    fn machine(&self, id: &str) -> Result<&MachineRecord, EffectError> {
        self.machines
            .get(id)
            .map(|machine| &**machine)
            .ok_or_else(|| EffectError::Missing(key::machine(id)))
    }

    fn api(&self) -> Result<&Arc<dyn ClusterApi>, EffectError> {
        self.api
            .as_ref()
            .ok_or_else(|| ClusterError::Unavailable("there is no connection yet".to_owned()).into())
    }

    /// Whether everything of a machine is there, whether it runs or not.
    async fn is_whole(&self, id: &MachineId) -> Result<bool, EffectError> {
        let inventory = self.census.take(self.census.mark()).await?;
        let found = inventory
            .machines
            .binary_search_by(|seen| seen.id.as_str().cmp(id.as_str()))
            .ok();
        Ok(found.is_some_and(|found| inventory.machines[found].power != Power::Partial))
    }

    async fn look_at_fabric(&self) -> Result<Outcome, EffectError> {
        let inventory = self.census.take(self.since).await?;
        let found = self
            .machines
            .keys()
            .map(|id| {
                let machine = inventory
                    .machines
                    .binary_search_by(|seen| seen.id.as_str().cmp(id))
                    .ok()
                    .map(|index| inventory.machines[index].power);
                let presence = match machine {
                    None => Presence::Absent,
                    Some(Power::Running) => Presence::Running,
                    // It was whole once, and its disk is not there any more: what is left of it is not the machine.
                    Some(Power::Partial)
                        if self.machines[id].enrolled_key.is_some() && !self.machines[id].deleting =>
                    {
                        Presence::Absent
                    }
                    Some(Power::Stopped | Power::Partial) => Presence::Partial,
                };
                (id.clone(), presence)
            })
            .collect();
        Ok(Outcome::Fabric(found))
    }

    async fn load_config(&self, machine: &str) -> Result<Outcome, EffectError> {
        let name = key::machine_config(machine);
        let config = match get_record::<SealedRecord>(&*self.deps.store, &name).await? {
            None => ConfigSeen::Absent,
            Some(found) => {
                let bytes = self.deps.sealer.unseal(&name, &found.value.sealed)?;
                let stored: StoredConfig =
                    serde_json::from_slice(&bytes).map_err(|error| StoreError::Corrupt {
                        key: name,
                        why: error.to_string(),
                    })?;
                let generation = stored.config.generation;
                self.deps.agents.publish(machine, Arc::new(stored.config));
                ConfigSeen::Published {
                    generation,
                    inputs: stored.inputs,
                    made_at: stored.made_at,
                }
            }
        };
        Ok(Outcome::ConfigLoaded {
            machine: machine.to_owned(),
            config,
        })
    }

    async fn configure(&self, machine: &str, generation: u64, inputs: &str) -> Result<Outcome, EffectError> {
        let made_at = self.deps.env.clock.now();
        let config = self.deps.recipes.config(
            self.site()?,
            self.machine(machine)?,
            self.pki().await?,
            made_at,
            generation,
        )?;
        let name = key::machine_config(machine);
        let stored = StoredConfig {
            inputs: inputs.to_owned(),
            made_at,
            config,
        };
        let bytes = Zeroizing::new(
            serde_json::to_vec(&stored).expect("configurations are plain data with string keys"),
        );
        let sealed = SealedRecord {
            v: 1,
            sealed: self.deps.sealer.seal(&name, &bytes)?,
        };
        let mut txn = Txn::default().with(put_record(name.as_str(), &sealed));
        if generation == 1 {
            txn = txn.absent(name);
        }
        self.deps.store.txn(txn).await?;
        // Only what is in the store goes out: after a restart, the same generation must mean the same thing.
        self.deps.agents.publish(machine, Arc::new(stored.config));
        Ok(Outcome::ConfigLoaded {
            machine: machine.to_owned(),
            config: ConfigSeen::Published {
                generation,
                inputs: stored.inputs,
                made_at,
            },
        })
    }

    async fn ensure_network(&self, routes: &[RouteSpec]) -> Result<Outcome, EffectError> {
        let spec = self.deps.recipes.network(self.site()?, routes.to_vec());
        self.deps.fabric.ensure_network(&spec).await?;
        Ok(Outcome::NetworkMade(routes.to_vec()))
    }

    fn machine_spec(&self, id: &str) -> Result<MachineSpec, EffectError> {
        let machine = self.machine(id)?;
        let site = self.site()?;
        let settings = &self.deps.settings;
        let token = self
            .deps
            .sealer
            .unseal(&key::machine(id), &machine.token_sealed)?;
        let seed = AgentSeed {
            machine: id.to_owned(),
            service: self.deps.service_url.clone(),
            ca: self.deps.agent_ca.clone(),
            token: String::from_utf8_lossy(&token).into_owned(),
        };
        let seed = serde_json::to_string(&seed).expect("a seed is plain data");
        let mut labels = BTreeMap::from([
            ("cluster".to_owned(), self.uid.clone()),
            ("cluster-name".to_owned(), site.cluster.name.clone()),
        ]);
        let (hostname, cpu_millis, memory_mib) = match machine.assignment.as_ref().map(|given| &given.role) {
            Some(Role::Node { node_name, pool, .. }) => {
                labels.insert("role".to_owned(), "node".to_owned());
                labels.insert("pool".to_owned(), pool.clone());
                let size = site
                    .cluster
                    .spec
                    .pools
                    .iter()
                    .find(|spec| spec.name == *pool)
                    .and_then(|pool| vm_size(&pool.vm_size))
                    .ok_or_else(|| FabricError::Invalid {
                        what: format!("size of pool {pool}"),
                        why: "it is not in the catalogue".to_owned(),
                    })?;
                (node_name.clone(), size.cores * 1000, size.memory_mib)
            }
            _ => {
                labels.insert("role".to_owned(), "control-plane".to_owned());
                (
                    match site
                        .control_plane
                        .members
                        .iter()
                        .position(|member| member.machine == id)
                    {
                        None | Some(0) => format!("control-plane-{}", self.uid),
                        Some(number) => format!("control-plane-{}-{number}", self.uid),
                    },
                    settings.control_plane_cpu_millis,
                    settings.control_plane_memory_mib,
                )
            }
        };
        Ok(MachineSpec {
            id: MachineId::from(id),
            hostname,
            image: machine.image.clone(),
            cpu_millis,
            memory_mib,
            nics: self.deps.recipes.nics(site, machine)?,
            seed_files: BTreeMap::from([(SEED_PATH.to_owned(), seed)]),
            labels,
        })
    }

    async fn pki(&self) -> Result<&Secret, EffectError> {
        read_pki(&self.deps, &self.uid, &self.pki).await
    }
}

/// The cluster's CAs and keys, read once while a loop runs.
async fn read_pki<'a>(
    deps: &ControllerDeps,
    uid: &str,
    cell: &'a OnceCell<Secret>,
) -> Result<&'a Secret, EffectError> {
    cell.get_or_try_init(|| async {
        let name = key::pki(uid);
        let found = get_record::<SealedRecord>(&*deps.store, &name)
            .await?
            .ok_or_else(|| EffectError::Missing(name.clone()))?;
        Ok(deps.sealer.unseal(&name, &found.value.sealed)?)
    })
    .await
}

/// Makes a handle for the cluster's API. It connects lazily.
pub(crate) async fn connect(
    deps: &ControllerDeps,
    site: &Site,
    pki: &OnceCell<Secret>,
) -> Result<Arc<dyn ClusterApi>, Failure> {
    let made = async {
        let secret = read_pki(deps, &site.cluster.uid, pki).await?;
        let endpoint = deps
            .recipes
            .endpoint(secret, site.addresses.vip, deps.env.clock.now())?;
        Ok::<_, EffectError>(deps.connect.connect(&site.cluster.uid, &endpoint)?)
    };
    made.await.map_err(|error| Failure {
        why: format!("connecting to the API server: {}", chain(&error)),
    })
}

/// An error and its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
