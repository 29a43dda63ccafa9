//! Carries effects out. No decisions here: effects are planned, and each may be repeated.
//!
//! Two levels, as in the planner: a module for each kind of subject, which defines for each of its effects
//! the cost, the time limit, the action, the changes of the state after it, and the uncertain parts of the
//! state after a failure.

mod api;
mod commands;
mod config;
mod fabric;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use base_env::{Elapsed, Seed};
use base_errors::chain;
use base_sealer::SealError;
use cluster_api::{ClusterApi, ClusterError};
use control_planner::{Effect, Held};
use control_records::{Fence, MachineRecord, PkiRecord, Role, key, volume::VolumeRecord};
use control_store::{StoreError, get_record};
use fabric_api::FabricError;
use jiff::Timestamp;
use tokio::sync::OnceCell;

use crate::{
    ControllerDeps, Settings,
    fair_queue::Lane,
    inventory::{InventoryCache, Mark},
    measures::Ended,
    pacing,
    recipes::{RecipeError, Secret, Site},
    state::LoopState,
};

use api::ApiOutcome;
use config::ConfigOutcome;
use fabric::FabricOutcome;

/// The result of an effect.
pub(crate) enum Outcome {
    Fabric(FabricOutcome),
    Config(ConfigOutcome),
    Api(ApiOutcome),
}

/// A failed effect.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The action and the cause of its failure, for people.
    pub(crate) why: String,
}

/// The lane of an effect, and its cost in the tenant's share.
pub(crate) fn cost(effect: &Effect) -> (Lane, u32) {
    match effect {
        Effect::Fabric(effect) => fabric::cost(effect),
        Effect::Config(effect) => config::cost(effect),
        Effect::Api(effect) => api::cost(effect),
    }
}

fn bound(effect: &Effect, settings: &Settings) -> Duration {
    match effect {
        Effect::Fabric(effect) => fabric::bound(effect, settings),
        Effect::Config(effect) => config::bound(effect, settings),
        Effect::Api(effect) => api::bound(effect, settings),
    }
}

/// Updates the state with an effect's end.
pub(crate) fn ended(
    state: &mut LoopState,
    effect: &Effect,
    result: Result<Outcome, Failure>,
    seed: Seed,
    now: Timestamp,
) {
    let subject = effect.subject();
    match result {
        Ok(outcome) => {
            state.held.remove(&subject);
            learn(state, outcome, now);
        }
        Err(Failure { why }) => {
            doubt(state, effect);
            let attempts = state.held.get(&subject).map_or(0, |held| held.attempts) + 1;
            let pause = pacing::pause(seed.child(&format!("{subject:?}")), attempts);
            let until = now.checked_add(pause).unwrap_or(Timestamp::MAX);
            // The first failures are normal, e.g. while a component starts.
            if attempts < 3 {
                tracing::debug!(cluster = state.uid, attempts, ?pause, "{why}");
            } else {
                tracing::warn!(cluster = state.uid, attempts, ?pause, "{why}");
            }
            state.held.insert(subject, Held { attempts, until, why });
        }
    }
}

/// Updates the state with an effect's result.
fn learn(state: &mut LoopState, outcome: Outcome, now: Timestamp) {
    match outcome {
        Outcome::Fabric(outcome) => fabric::learn(state, outcome),
        Outcome::Config(outcome) => config::learn(state, outcome),
        Outcome::Api(outcome) => api::learn(state, outcome, now),
    }
}

/// Marks the parts of the state that are uncertain after an effect's failure.
fn doubt(state: &mut LoopState, effect: &Effect) {
    match effect {
        Effect::Fabric(effect) => fabric::doubt(state, effect),
        Effect::Config(effect) => config::doubt(state, effect),
        Effect::Api(effect) => api::doubt(state, effect),
    }
}

/// The reason of an effect's failure.
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

/// The inputs of an effect: a snapshot of the time when it was planned.
#[derive(Clone)]
pub(crate) struct Job {
    pub(crate) deps: Arc<ControllerDeps>,
    pub(crate) inventory: Arc<InventoryCache>,
    /// The oldest listing that a look at the fabric may use.
    pub(crate) since: Mark,
    pub(crate) uid: String,
    /// The permission to write for the cluster, as it was when the effect was planned.
    pub(crate) fence: Fence,
    /// `None` before the addresses are leased; no effect that needs them is planned then.
    pub(crate) site: Option<Site>,
    pub(crate) machines: Arc<BTreeMap<String, Arc<MachineRecord>>>,
    pub(crate) volumes: Arc<BTreeMap<String, Arc<VolumeRecord>>>,
    pub(crate) pki: Arc<OnceCell<Secret>>,
    pub(crate) api: Option<Arc<dyn ClusterApi>>,
    /// Whether the API server has answered before.
    pub(crate) api_ready: bool,
    /// The count of changes of the API when the effect began.
    pub(crate) change: u64,
}

impl Job {
    /// Carries it out: what came of it, and how that is counted.
    pub(crate) async fn run(self, effect: &Effect) -> (Result<Outcome, Failure>, Ended) {
        let clock = Arc::clone(&self.deps.env.clock);
        let bound = bound(effect, &self.deps.settings);
        let result = match clock.timeout(bound, Box::pin(self.act(effect))).await {
            Ok(result) => result,
            Err(elapsed) => Err(elapsed.into()),
        };
        let ended = match &result {
            Ok(_) => Ended::Ok,
            Err(EffectError::Timeout(_)) => Ended::Timeout,
            Err(_) => Ended::Failed,
        };
        let result = result.map_err(|error| Failure {
            why: format!("{}: {}", self.describe(effect), chain(&error)),
        });
        (result, ended)
    }

    async fn act(&self, effect: &Effect) -> Result<Outcome, EffectError> {
        Ok(match effect {
            Effect::Fabric(effect) => Outcome::Fabric(fabric::act(self, effect).await?),
            Effect::Config(effect) => Outcome::Config(config::act(self, effect).await?),
            Effect::Api(effect) => Outcome::Api(api::act(self, effect).await?),
        })
    }

    /// A description of the effect, for people.
    fn describe(&self, effect: &Effect) -> String {
        match effect {
            Effect::Fabric(effect) => fabric::describe(self, effect),
            Effect::Config(effect) => config::describe(self, effect),
            Effect::Api(effect) => api::describe(effect),
        }
    }

    /// A machine, for people.
    fn label(&self, id: &str) -> String {
        match self
            .machines
            .get(id)
            .and_then(|machine| machine.assignment.as_ref())
        {
            Some(assignment) => match &assignment.role {
                Role::ControlPlane { .. } => format!("the control plane (machine {id})"),
                Role::Node { node_name, .. } => format!("node {node_name} (machine {id})"),
            },
            None => format!("machine {id}"),
        }
    }

    /// A volume, for people.
    fn volume_label(&self, id: &str) -> String {
        match self.volumes.get(id) {
            Some(volume) => format!("the volume {}", volume.name),
            None => format!("the volume {id}"),
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
            .ok_or_else(|| EffectError::Missing(key::machine(&self.uid, id)))
    }

    fn volume(&self, id: &str) -> Result<&VolumeRecord, EffectError> {
        self.volumes
            .get(id)
            .map(|volume| &**volume)
            .ok_or_else(|| EffectError::Missing(VolumeRecord::key(&self.uid, id)))
    }

    fn api(&self) -> Result<&Arc<dyn ClusterApi>, EffectError> {
        self.api
            .as_ref()
            .ok_or_else(|| ClusterError::Unavailable("there is no connection yet".to_owned()).into())
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
        let found = get_record::<PkiRecord>(&*deps.store, &name)
            .await?
            .ok_or_else(|| EffectError::Missing(name.clone()))?;
        Ok(deps.sealer.unseal(&key::sealed::pki(uid), &found.value.sealed)?)
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

#[cfg(test)]
mod tests {
    use control_planner::{
        ApiEffect, ConfigEffect, FabricEffect, NetworkLayout, NetworkSeen, Permit, Presence, VolumeThere,
    };

    use super::*;

    #[test]
    fn what_the_host_has_to_do_for_a_machine_takes_the_host_lane() {
        let machine = || "m".to_owned();
        let permit = || Permit::assumed("m");
        let at = Timestamp::UNIX_EPOCH;
        for effect in [
            FabricEffect::EnsureMachine(machine()),
            FabricEffect::RestartMachine {
                machine: permit(),
                at,
            },
            FabricEffect::StopMachine(permit()),
            FabricEffect::WipeMachine {
                machine: permit(),
                at,
            },
            FabricEffect::DeleteMachine(permit()),
            FabricEffect::EnsureNetwork(NetworkLayout::default()),
            FabricEffect::DeleteNetwork,
            ensure(),
            FabricEffect::AttachVolume {
                volume: "v".to_owned(),
                machine: machine(),
            },
            FabricEffect::DetachVolume("v".to_owned()),
            FabricEffect::DeleteVolume("v".to_owned()),
        ] {
            let effect = Effect::from(effect);
            assert_eq!(cost(&effect).0, Lane::Host, "{effect:?}");
        }
        for effect in [
            Effect::from(FabricEffect::Look),
            ConfigEffect::Load(machine()).into(),
            ApiEffect::Look.into(),
        ] {
            assert_eq!(cost(&effect).0, Lane::Call, "{effect:?}");
        }
    }

    fn looked(
        state: &mut LoopState,
        machines: BTreeMap<String, Presence>,
        volumes: BTreeMap<String, VolumeThere>,
    ) {
        ended(
            state,
            &FabricEffect::Look.into(),
            Ok(Outcome::Fabric(FabricOutcome::Found { machines, volumes })),
            Seed::new(1),
            Timestamp::UNIX_EPOCH,
        );
    }

    fn look(state: &mut LoopState, found: Presence) {
        let machines = BTreeMap::from([("m".to_owned(), found)]);
        looked(state, machines, BTreeMap::new());
    }

    fn ensure() -> FabricEffect {
        FabricEffect::EnsureVolume {
            volume: "v".to_owned(),
            bytes: 1,
            source: None,
            shared: false,
        }
    }

    /// The known volumes, if any are known.
    fn volumes(state: &mut LoopState) -> Option<BTreeMap<String, VolumeThere>> {
        let lent = state.lend_volumes();
        state.take_volumes_back(lent.clone());
        lent
    }

    #[test]
    fn a_look_that_is_older_than_a_volume_does_not_call_it_lost() {
        let (mut state, now) = (LoopState::new("c"), Timestamp::UNIX_EPOCH);
        assert_eq!(volumes(&mut state), None, "nobody has looked");
        looked(&mut state, BTreeMap::new(), BTreeMap::new());
        let make = Effect::from(ensure());
        let attach = Effect::from(FabricEffect::AttachVolume {
            volume: "v".to_owned(),
            machine: "m".to_owned(),
        });
        // The look begins before the volume is made and ends after.
        state.begins(&FabricEffect::Look.into(), std::iter::empty());
        for (effect, outcome) in [
            (
                &make,
                FabricOutcome::VolumeMade {
                    volume: "v".to_owned(),
                    bytes: 1,
                    shared: false,
                },
            ),
            (
                &attach,
                FabricOutcome::VolumeAttached {
                    volume: "v".to_owned(),
                    machine: "m".to_owned(),
                },
            ),
        ] {
            state.begins(effect, std::iter::empty());
            ended(
                &mut state,
                effect,
                Ok(Outcome::Fabric(outcome)),
                Seed::new(1),
                now,
            );
        }
        looked(&mut state, BTreeMap::new(), BTreeMap::new());
        let there = VolumeThere {
            bytes: 1,
            attached: Some("m".to_owned()),
            open: false,
        };
        assert_eq!(
            volumes(&mut state),
            Some(BTreeMap::from([("v".to_owned(), there)]))
        );
        // The next listing shows it.
        state.begins(&FabricEffect::Look.into(), std::iter::empty());
        looked(&mut state, BTreeMap::new(), BTreeMap::new());
        assert_eq!(volumes(&mut state), Some(BTreeMap::new()));
    }

    #[test]
    fn what_failed_on_a_volume_is_looked_at_before_anything_follows_from_it() {
        let (mut state, now) = (LoopState::new("c"), Timestamp::UNIX_EPOCH);
        looked(&mut state, BTreeMap::new(), BTreeMap::new());
        let make = Effect::from(ensure());
        let failed = || Err(Failure { why: "no".to_owned() });
        state.begins(&make, std::iter::empty());
        // The look begins while the volume may still be made, so its result does not count for this volume.
        state.begins(&FabricEffect::Look.into(), std::iter::once(&make));
        ended(&mut state, &make, failed(), Seed::new(1), now);
        assert_eq!(volumes(&mut state), None);
        looked(&mut state, BTreeMap::new(), BTreeMap::new());
        assert_eq!(volumes(&mut state), None);
        let there = BTreeMap::from([(
            "v".to_owned(),
            VolumeThere {
                bytes: 1,
                attached: None,
                open: false,
            },
        )]);
        state.begins(&FabricEffect::Look.into(), std::iter::empty());
        looked(&mut state, BTreeMap::new(), there.clone());
        assert_eq!(volumes(&mut state), Some(there));
    }

    #[test]
    fn a_network_that_is_being_removed_is_not_there_any_more() {
        let mut state = LoopState::new("c");
        state.network = NetworkSeen::Made(NetworkLayout::default());
        state.begins(
            &FabricEffect::EnsureNetwork(NetworkLayout::default()).into(),
            std::iter::empty(),
        );
        assert_eq!(state.network, NetworkSeen::Made(NetworkLayout::default()));
        state.begins(&FabricEffect::DeleteNetwork.into(), std::iter::empty());
        assert_eq!(state.network, NetworkSeen::Unknown);
    }

    #[test]
    fn a_look_that_is_older_than_a_machine_does_not_call_it_lost() {
        let (mut state, now) = (LoopState::new("c"), Timestamp::UNIX_EPOCH);
        state.recorded("m");
        let make = Effect::from(FabricEffect::EnsureMachine("m".to_owned()));
        // Begun before the machine, or while it was being made; ended after.
        for look_first in [true, false] {
            let order = if look_first {
                [&FabricEffect::Look.into(), &make]
            } else {
                [&make, &FabricEffect::Look.into()]
            };
            state.begins(order[0], std::iter::empty());
            state.begins(order[1], std::iter::once(order[0]));
            ended(
                &mut state,
                &make,
                Ok(Outcome::Fabric(FabricOutcome::MachineRuns("m".to_owned()))),
                Seed::new(1),
                now,
            );
            look(&mut state, Presence::Absent);
            assert_eq!(state.presence["m"], Presence::Running, "{order:?}");
        }
        // The next listing shows it.
        state.begins(&FabricEffect::Look.into(), std::iter::empty());
        look(&mut state, Presence::Absent);
        assert_eq!(state.presence["m"], Presence::Absent);
    }
}
