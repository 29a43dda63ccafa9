//! Effects on machines, networks and volumes: listing, making, restarting, attaching, removing.

use std::{collections::BTreeMap, time::Duration};

use agent_protocol::{SEED_PATH, Seed as AgentSeed};
use cluster_spec::vm_size;
use control_planner::{FabricEffect, NetworkLayout, NetworkSeen, Presence, VolumeThere};
use control_records::{Role, key};
use fabric_api::{
    CONTROL_PLANE, FabricError, Inventory, MachineId, MachineSpec, Power, ROLE_LABEL, VolumeId, VolumeSpec,
};
use jiff::Timestamp;

use super::{EffectError, Job};
use crate::{
    Settings,
    fair_queue::Lane,
    index::{CLUSTER_LABEL, VIP_LABEL},
    recipes::network_id,
    state::LoopState,
};

/// The result of an effect on the fabric.
pub(crate) enum FabricOutcome {
    /// The machines and volumes of this cluster in the fabric.
    Found {
        machines: BTreeMap<String, Presence>,
        volumes: BTreeMap<String, VolumeThere>,
    },
    /// The VNET exists.
    NetworkMade(NetworkLayout),
    /// The VNET is gone.
    NetworkGone,
    /// The machine runs.
    MachineRuns(String),
    /// The machine is to start with its disk, which no longer exists.
    MachineVanished(String),
    /// The machine is stopped, or does not exist.
    MachineStopped { machine: String, there: bool },
    /// The machine was stopped and started, for the repair or upgrade recorded at that time.
    MachineRestarted {
        machine: String,
        at: Timestamp,
        /// The previous boot, if it was reported.
        ended_boot: Option<String>,
    },
    /// The machine and its disk were removed, to be made anew, for the repair recorded at that time.
    MachineWiped { machine: String, at: Timestamp },
    /// The machine is gone.
    MachineGone(String),
    /// The volume exists, and is at least this large; a share is open to all machines.
    VolumeMade {
        volume: String,
        bytes: u64,
        shared: bool,
    },
    /// The volume is attached to the machine.
    VolumeAttached { volume: String, machine: String },
    /// The volume is attached to no machine.
    VolumeDetached(String),
    /// The volume is gone.
    VolumeGone(String),
    /// The image of the add-on exists.
    AddonImage(String),
}

/// Its lane, and its cost in the tenant's share: making a machine consists of many small steps.
pub(super) fn cost(effect: &FabricEffect) -> (Lane, u32) {
    match effect {
        // One listing is shared by all waiting loops.
        // A build runs in the background.
        FabricEffect::Look | FabricEffect::EnsureAddonImage(_) => (Lane::Call, 1),
        FabricEffect::AttachVolume { .. } | FabricEffect::DetachVolume(_) => (Lane::Host, 1),
        FabricEffect::EnsureMachine(_) | FabricEffect::RestartMachine { .. } => (Lane::Host, 4),
        FabricEffect::StopMachine(_)
        | FabricEffect::WipeMachine { .. }
        | FabricEffect::DeleteMachine(_)
        | FabricEffect::EnsureNetwork(_)
        | FabricEffect::DeleteNetwork
        | FabricEffect::EnsureVolume { .. }
        | FabricEffect::DeleteVolume(_) => (Lane::Host, 2),
    }
}

/// Its time limit.
pub(super) fn bound(effect: &FabricEffect, settings: &Settings) -> Duration {
    match effect {
        FabricEffect::Look
        | FabricEffect::EnsureNetwork(_)
        | FabricEffect::DeleteNetwork
        | FabricEffect::EnsureMachine(_)
        | FabricEffect::StopMachine(_)
        | FabricEffect::RestartMachine { .. }
        | FabricEffect::WipeMachine { .. }
        | FabricEffect::DeleteMachine(_)
        | FabricEffect::EnsureVolume { .. }
        | FabricEffect::AttachVolume { .. }
        | FabricEffect::DetachVolume(_)
        | FabricEffect::DeleteVolume(_)
        | FabricEffect::EnsureAddonImage(_) => settings.fabric_bound,
    }
}

/// A description of the effect, for people.
pub(super) fn describe(job: &Job, effect: &FabricEffect) -> String {
    match effect {
        FabricEffect::Look => "looking for machines".to_owned(),
        FabricEffect::EnsureNetwork(_) => "making the network".to_owned(),
        FabricEffect::DeleteNetwork => "removing the network".to_owned(),
        FabricEffect::EnsureMachine(id) => format!("starting {}", job.label(id)),
        FabricEffect::StopMachine(permit) => format!("stopping {}", job.label(permit.machine())),
        FabricEffect::RestartMachine { machine, .. } => {
            format!("restarting {}", job.label(machine.machine()))
        }
        FabricEffect::WipeMachine { machine, .. } => {
            format!("making {} anew", job.label(machine.machine()))
        }
        FabricEffect::DeleteMachine(permit) => format!("removing {}", job.label(permit.machine())),
        FabricEffect::EnsureVolume { volume, .. } => format!("making {}", job.volume_label(volume)),
        FabricEffect::AttachVolume { volume, machine } => {
            format!("giving {} to {}", job.volume_label(volume), job.label(machine))
        }
        FabricEffect::DetachVolume(id) => format!("detaching {}", job.volume_label(id)),
        FabricEffect::DeleteVolume(id) => format!("removing {}", job.volume_label(id)),
        FabricEffect::EnsureAddonImage(name) => format!("building the image {name}"),
    }
}

/// Carries it out.
pub(super) async fn act(job: &Job, effect: &FabricEffect) -> Result<FabricOutcome, EffectError> {
    let fabric = &job.deps.fabric;
    match effect {
        FabricEffect::Look => look(job).await,
        FabricEffect::EnsureNetwork(layout) => {
            let mut spec = job.deps.recipes.network(job.site()?, layout);
            if !layout.kept_balancers.is_empty() {
                // The purpose of these is known to the fabric only.
                let before = fabric.network(&spec.id).await?;
                let before = before.into_iter().flat_map(|before| before.balancers);
                spec.balancers
                    .extend(before.filter(|balancer| layout.kept_balancers.contains(&balancer.address)));
                spec.balancers.sort();
            }
            fabric.ensure_network(&spec).await?;
            Ok(FabricOutcome::NetworkMade(layout.clone()))
        }
        FabricEffect::DeleteNetwork => {
            fabric.delete_network(&network_id(&job.uid)).await?;
            Ok(FabricOutcome::NetworkGone)
        }
        FabricEffect::EnsureMachine(machine) => {
            let machine = machine.clone();
            Ok(match bring_up(job, &machine_spec(job, &machine)?).await {
                Ok(()) => FabricOutcome::MachineRuns(machine),
                Err(EffectError::Fabric(FabricError::NoDisk(_))) => FabricOutcome::MachineVanished(machine),
                Err(error) => return Err(error),
            })
        }
        FabricEffect::StopMachine(permit) => {
            let machine = permit.machine();
            let there = match fabric.stop_machine(&MachineId::from(machine)).await {
                Ok(()) => true,
                Err(FabricError::NotFound(_)) => false,
                Err(error) => return Err(error.into()),
            };
            // The last report does not describe the machine's next start.
            job.deps.agents.forget(machine);
            Ok(FabricOutcome::MachineStopped {
                machine: machine.to_owned(),
                there,
            })
        }
        FabricEffect::RestartMachine { machine: permit, at } => {
            let machine = permit.machine();
            let spec = machine_spec(job, machine)?;
            // A machine that could not start again is not stopped.
            fabric.ensure_image(&spec.image).await?;
            match fabric.stop_machine(&spec.id).await {
                Ok(()) | Err(FabricError::NotFound(_)) => {}
                Err(error) => return Err(error.into()),
            }
            let ended_boot = job.deps.agents.report(machine).map(|report| report.boot.clone());
            let (machine, at) = (machine.to_owned(), *at);
            Ok(match bring_up(job, &spec).await {
                Ok(()) => FabricOutcome::MachineRestarted {
                    machine,
                    at,
                    ended_boot,
                },
                Err(EffectError::Fabric(FabricError::NoDisk(_))) => {
                    FabricOutcome::MachineWiped { machine, at }
                }
                Err(error) => return Err(error),
            })
        }
        FabricEffect::WipeMachine { machine: permit, at } => {
            let machine = permit.machine();
            // A disk with a database is set aside and kept.
            fabric.reset_machine(&MachineId::from(machine)).await?;
            job.deps.agents.forget(machine);
            Ok(FabricOutcome::MachineWiped {
                machine: machine.to_owned(),
                at: *at,
            })
        }
        FabricEffect::DeleteMachine(permit) => {
            let machine = permit.machine();
            fabric.delete_machine(&MachineId::from(machine)).await?;
            job.deps.agents.forget(machine);
            Ok(FabricOutcome::MachineGone(machine.to_owned()))
        }
        FabricEffect::EnsureVolume {
            volume,
            bytes,
            source,
            shared,
        } => {
            let labels = BTreeMap::from([
                (CLUSTER_LABEL.to_owned(), job.uid.clone()),
                ("cluster-name".to_owned(), job.site()?.cluster.name.clone()),
                ("volume".to_owned(), job.volume(volume)?.name.clone()),
            ]);
            let spec = VolumeSpec {
                id: VolumeId::from(volume.as_str()),
                bytes: *bytes,
                source: source.as_deref().map(VolumeId::from),
                shared: *shared,
                labels,
            };
            fabric.ensure_volume(&spec).await?;
            Ok(FabricOutcome::VolumeMade {
                volume: volume.clone(),
                bytes: *bytes,
                shared: *shared,
            })
        }
        FabricEffect::AttachVolume { volume, machine } => {
            let (id, to) = (VolumeId::from(volume.as_str()), MachineId::from(machine.as_str()));
            fabric.attach_volume(&id, &to).await?;
            Ok(FabricOutcome::VolumeAttached {
                volume: volume.clone(),
                machine: machine.clone(),
            })
        }
        FabricEffect::DetachVolume(volume) => {
            fabric.detach_volume(&VolumeId::from(volume.as_str())).await?;
            Ok(FabricOutcome::VolumeDetached(volume.clone()))
        }
        FabricEffect::DeleteVolume(volume) => {
            fabric.delete_volume(&VolumeId::from(volume.as_str())).await?;
            Ok(FabricOutcome::VolumeGone(volume.clone()))
        }
        FabricEffect::EnsureAddonImage(name) => {
            fabric.ensure_addon_image(name).await?;
            Ok(FabricOutcome::AddonImage(name.clone()))
        }
    }
}

/// Updates the state with its result.
pub(super) fn learn(state: &mut LoopState, outcome: FabricOutcome) {
    match outcome {
        FabricOutcome::Found { machines, volumes } => {
            state.found(machines);
            state.found_volumes(volumes);
        }
        FabricOutcome::NetworkMade(layout) => state.network = NetworkSeen::Made(layout),
        FabricOutcome::NetworkGone => state.network = NetworkSeen::Gone,
        FabricOutcome::MachineRuns(machine) => {
            state.presence.insert(machine, Presence::Running);
        }
        FabricOutcome::MachineVanished(machine) => {
            state.presence.insert(machine, Presence::Absent);
        }
        FabricOutcome::MachineStopped { machine, there } => state.stopped(machine, there),
        FabricOutcome::MachineRestarted {
            machine,
            at,
            ended_boot,
        } => {
            state.health.started_anew(&machine, at, ended_boot);
            state.presence.insert(machine, Presence::Running);
        }
        FabricOutcome::MachineWiped { machine, at } => state.wiped(machine, at),
        FabricOutcome::MachineGone(machine) => {
            state.presence.insert(machine, Presence::Gone);
        }
        FabricOutcome::VolumeMade {
            volume,
            bytes,
            shared,
        } => state.volume_made(volume, bytes, shared),
        FabricOutcome::VolumeAttached { volume, machine } => state.volume_given(&volume, Some(machine)),
        FabricOutcome::VolumeDetached(volume) => state.volume_given(&volume, None),
        FabricOutcome::VolumeGone(volume) => state.volume_gone(&volume),
        FabricOutcome::AddonImage(name) => drop(state.images.insert(name)),
    }
}

/// The parts of the state that are uncertain after its failure.
pub(super) fn doubt(state: &mut LoopState, effect: &FabricEffect) {
    match effect {
        FabricEffect::EnsureMachine(machine) => {
            state.presence.insert(machine.clone(), Presence::Partial);
        }
        FabricEffect::RestartMachine { machine: permit, .. }
        | FabricEffect::WipeMachine { machine: permit, .. } => {
            let machine = permit.machine().to_owned();
            state.presence.insert(machine, Presence::Partial);
        }
        // It runs, or it does not: the fabric has to be asked.
        FabricEffect::StopMachine(permit) => {
            let machine = permit.machine().to_owned();
            state.presence.insert(machine, Presence::Unknown);
            state.doubt_machines();
        }
        FabricEffect::EnsureNetwork(_) => state.network = NetworkSeen::Unknown,
        FabricEffect::EnsureVolume { volume, .. }
        | FabricEffect::AttachVolume { volume, .. }
        | FabricEffect::DetachVolume(volume)
        | FabricEffect::DeleteVolume(volume) => state.doubt_volume(volume),
        FabricEffect::Look
        | FabricEffect::DeleteMachine(_)
        | FabricEffect::DeleteNetwork
        | FabricEffect::EnsureAddonImage(_) => {}
    }
}

/// Makes a new machine. A machine that has enrolled starts only with its disk: without it, it would have a
/// used token and no key, so its agent could not authenticate.
async fn bring_up(job: &Job, spec: &MachineSpec) -> Result<(), EffectError> {
    let fabric = &job.deps.fabric;
    if job.machine(spec.id.as_str())?.enrolled_key.is_some() {
        fabric.start_machine(spec).await?;
    } else {
        fabric.ensure_machine(spec).await?;
    }
    Ok(())
}

async fn look(job: &Job) -> Result<FabricOutcome, EffectError> {
    let inventory = job.inventory.listed_after(job.since).await?;
    rewrite_metadata(job, &inventory).await?;
    let machines = job
        .machines
        .iter()
        .map(|(id, record)| {
            let power = inventory
                .machines
                .binary_search_by(|seen| seen.id.as_str().cmp(id))
                .ok()
                .map(|index| inventory.machines[index].power);
            let presence = match power {
                None => Presence::Absent,
                Some(Power::Running) => Presence::Running,
                // It was complete once, and its disk is missing: the rest cannot run as this machine.
                Some(Power::Partial) if record.enrolled_key.is_some() && !record.deleting => Presence::Absent,
                Some(Power::Stopped) => Presence::Stopped,
                Some(Power::Partial) => Presence::Partial,
            };
            (id.clone(), presence)
        })
        .collect();
    // Including volumes without a record: the store may be older than they are.
    let own = inventory.volumes.iter().filter(|seen| {
        seen.labels.get(CLUSTER_LABEL) == Some(&job.uid) || job.volumes.contains_key(seen.id.as_str())
    });
    let volumes = own.map(|seen| {
        let there = VolumeThere {
            bytes: seen.bytes,
            attached: seen.attached.as_ref().map(|machine| machine.0.clone()),
            open: seen.open,
        };
        (seen.id.0.clone(), there)
    });
    Ok(FabricOutcome::Found {
        machines,
        volumes: volumes.collect(),
    })
}

/// Writes the fabric's unreadable metadata of a running machine anew, from its record. The machine is not
/// touched; the metadata of a stopped machine is written when it starts.
async fn rewrite_metadata(job: &Job, inventory: &Inventory) -> Result<(), EffectError> {
    for seen in &inventory.machines {
        let damaged = seen.power == Power::Running && seen.spec_hash.is_none();
        let record = job.machines.get(seen.id.as_str());
        if damaged && record.is_some_and(|record| !record.deleting) {
            let spec = machine_spec(job, seen.id.as_str())?;
            job.deps.fabric.ensure_machine(&spec).await?;
        }
    }
    Ok(())
}

fn machine_spec(job: &Job, id: &str) -> Result<MachineSpec, EffectError> {
    let machine = job.machine(id)?;
    let site = job.site()?;
    let settings = &job.deps.settings;
    let token = job
        .deps
        .sealer
        .unseal(&key::sealed::machine_token(id), &machine.token_sealed)?;
    let seed = AgentSeed {
        machine: id.to_owned(),
        service: job.deps.service_url.clone(),
        ca: job.deps.agent_ca.clone(),
        token: String::from_utf8_lossy(&token).into_owned(),
    };
    let seed = serde_json::to_string(&seed).expect("a seed is plain data");
    let mut labels = BTreeMap::from([
        (CLUSTER_LABEL.to_owned(), job.uid.clone()),
        ("cluster-name".to_owned(), site.cluster.name.clone()),
    ]);
    let (hostname, cpu_millis, memory_mib, disk_gib) =
        match machine.assignment.as_ref().map(|given| &given.role) {
            Some(Role::Node { node_name, pool, .. }) => {
                labels.insert(ROLE_LABEL.to_owned(), "node".to_owned());
                labels.insert("pool".to_owned(), pool.clone());
                let spec = site.cluster.spec().pools.iter().find(|spec| spec.name == *pool);
                let size =
                    spec.and_then(|pool| vm_size(&pool.vm_size))
                        .ok_or_else(|| FabricError::Invalid {
                            what: format!("size of pool {pool}"),
                            why: "it is not in the catalogue".to_owned(),
                        })?;
                let disk = spec.map(|pool| pool.os_disk_gib).filter(|gib| *gib > 0);
                (node_name.clone(), size.cores * 1000, size.memory_mib, disk)
            }
            _ => {
                labels.insert(ROLE_LABEL.to_owned(), CONTROL_PLANE.to_owned());
                // The members pass the VIP among themselves, so no network interface has it permanently: the
                // label shows it.
                labels.insert(VIP_LABEL.to_owned(), site.addresses.vip.to_string());
                (
                    match site
                        .control_plane
                        .members
                        .iter()
                        .position(|member| member.machine == id)
                    {
                        None | Some(0) => format!("control-plane-{}", job.uid),
                        Some(number) => format!("control-plane-{}-{number}", job.uid),
                    },
                    settings.control_plane_cpu_millis,
                    settings.control_plane_memory_mib,
                    // It runs no tenants' pods, and etcd limits its own size.
                    None,
                )
            }
        };
    Ok(MachineSpec {
        id: MachineId::from(id),
        hostname,
        image: machine.image.clone(),
        cpu_millis,
        memory_mib,
        disk_gib,
        nics: job.deps.recipes.nics(site, machine)?,
        seed_files: BTreeMap::from([(SEED_PATH.to_owned(), seed)]),
        labels,
    })
}
