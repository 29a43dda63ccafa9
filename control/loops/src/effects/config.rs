//! Effects on the configurations of machines: rendered, sealed, stored, published.

use std::{sync::Arc, time::Duration};

use agent_protocol::MachineConfig;
use control_planner::{ConfigEffect, ConfigSeen};
use control_records::{SealedRecord, key, machine_config};
use control_store::{StoreError, Txn, get_record, put_record};
use jiff::Timestamp;
use zeroize::Zeroizing;

use super::{EffectError, Job};
use crate::{
    Settings,
    fair_queue::Lane,
    recipes::{Configured, Former},
    state::LoopState,
};

/// A machine's configuration as sealed in the store; its inputs are [`control_planner::Frame::config_inputs`].
type StoredConfig = machine_config::StoredConfig<MachineConfig>;

/// The state of a machine's configuration after an effect on it: published, or none.
pub(crate) struct ConfigOutcome {
    pub(crate) machine: String,
    pub(crate) config: ConfigSeen,
}

/// Its lane, and its cost in the tenant's share.
pub(super) fn cost(effect: &ConfigEffect) -> (Lane, u32) {
    match effect {
        ConfigEffect::Load(_) | ConfigEffect::Render { .. } => (Lane::Call, 1),
    }
}

/// Its time limit.
pub(super) fn bound(effect: &ConfigEffect, settings: &Settings) -> Duration {
    match effect {
        ConfigEffect::Load(_) | ConfigEffect::Render { .. } => settings.fabric_bound,
    }
}

/// A description of the effect, for people.
pub(super) fn describe(job: &Job, effect: &ConfigEffect) -> String {
    match effect {
        ConfigEffect::Load(id) => format!("reading the configuration of {}", job.label(id)),
        ConfigEffect::Render { machine, .. } => format!("configuring {}", job.label(machine.machine())),
    }
}

/// Carries it out.
pub(super) async fn act(job: &Job, effect: &ConfigEffect) -> Result<ConfigOutcome, EffectError> {
    let (machine, config) = match effect {
        ConfigEffect::Load(machine) => (machine.as_str(), load(job, machine).await?),
        ConfigEffect::Render {
            machine,
            generation,
            inputs,
        } => {
            let machine = machine.machine();
            (machine, render(job, machine, *generation, inputs).await?)
        }
    };
    Ok(ConfigOutcome {
        machine: machine.to_owned(),
        config,
    })
}

/// Updates the state with its result.
pub(super) fn learn(state: &mut LoopState, outcome: ConfigOutcome) {
    let ConfigOutcome { machine, config } = outcome;
    state.configs.insert(machine, config);
}

/// The parts of the state that are uncertain after its failure.
pub(super) fn doubt(state: &mut LoopState, effect: &ConfigEffect) {
    match effect {
        ConfigEffect::Render { machine, .. } => {
            let machine = machine.machine().to_owned();
            state.configs.insert(machine, ConfigSeen::Unknown);
        }
        ConfigEffect::Load(_) => {}
    }
}

async fn load(job: &Job, machine: &str) -> Result<ConfigSeen, EffectError> {
    Ok(match stored(job, machine).await? {
        Some(stored) => publish(job, machine, stored),
        None => ConfigSeen::Absent,
    })
}

/// What a machine is configured with, as it is in the store.
async fn stored(job: &Job, machine: &str) -> Result<Option<StoredConfig>, EffectError> {
    let name = key::machine_config(&job.uid, machine);
    let Some(found) = get_record::<SealedRecord>(&*job.deps.store, &name).await? else {
        return Ok(None);
    };
    let sealed_as = key::sealed::machine_config(machine);
    let bytes = job.deps.sealer.unseal(&sealed_as, &found.value.sealed)?;
    let stored = serde_json::from_slice(&bytes).map_err(|error| StoreError::Corrupt {
        key: name,
        why: error.to_string(),
    })?;
    Ok(Some(stored))
}

async fn render(job: &Job, machine: &str, generation: u64, inputs: &str) -> Result<ConfigSeen, EffectError> {
    let made_at = job.deps.env.clock.now();
    let new = generation == 1;
    let generation = job.deps.epoch.lift(generation);
    // What is in the store is what machines have had: an attempt that came to nothing has issued nothing for anybody.
    let before = if new { None } else { stored(job, machine).await? };
    let due = made_at
        .checked_sub(job.deps.settings.policy.renew_after)
        .unwrap_or(Timestamp::MIN);
    let Configured { config, issued_at } = job.deps.recipes.config(
        job.site()?,
        job.machine(machine)?,
        job.pki().await?,
        before.as_ref().map(|before| Former {
            config: &before.config,
            due,
        }),
        made_at,
        generation,
    )?;
    let name = key::machine_config(&job.uid, machine);
    let sealed_as = key::sealed::machine_config(machine);
    let stored = StoredConfig {
        inputs: inputs.to_owned(),
        made_at,
        issued_at: Some(issued_at),
        config,
    };
    let bytes =
        Zeroizing::new(serde_json::to_vec(&stored).expect("configurations are plain data with string keys"));
    let sealed = SealedRecord {
        v: 1,
        sealed: job.deps.sealer.seal(&sealed_as, &bytes)?,
    };
    let mut txn = job.fence.guard(Txn::default(), &job.uid);
    txn = txn.with(put_record(name.as_str(), &sealed));
    if new {
        txn = txn.absent(name);
    }
    job.deps.store.txn(txn).await?;
    // Only a stored configuration is published: after a restart, a generation must have the same content.
    Ok(publish(job, machine, stored))
}

fn publish(job: &Job, machine: &str, mut stored: StoredConfig) -> ConfigSeen {
    // After a restore of the store, its machine may have a larger generation, or another configuration with
    // this one, and would not accept this.
    let generation = job.deps.epoch.lift(stored.config.generation);
    stored.config.generation = generation;
    let issued_at = stored.oldest_certificate();
    job.deps.agents.publish(machine, Arc::new(stored.config));
    ConfigSeen::Published {
        generation,
        inputs: stored.inputs,
        made_at: stored.made_at,
        issued_at,
    }
}
