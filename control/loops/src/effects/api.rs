//! Effects on a cluster by way of its API: node objects, serving certificates, add-ons, evictions, Services, volumes, managed namespaces.

use std::{sync::Arc, time::Duration};

use base_errors::chain;
use cluster_api::{
    AddonAilment, ClusterError, Drained, NamespaceSeen, NamespaceWish, NodeSeen, ServiceWish, VolumeWish,
    WorkNotes,
};
use cluster_autoscaler::Work;
use cluster_balancers::Wish;
use cluster_spec::AddonImage;
use cluster_volumes::Storage;
use control_planner::{
    AddonsSeen, ApiEffect, CredentialsSeen, CredentialsWish, NamespaceSet, Reach, WorkSeen,
};
use jiff::Timestamp;

use super::{EffectError, Job, commands};
use crate::{Settings, fair_queue::Lane, state::LoopState};

/// The result of an effect on a cluster's API.
pub(crate) enum ApiOutcome {
    /// The API server responds.
    Answers {
        change: u64,
        /// When the look began.
        at: Timestamp,
        nodes: Vec<NodeSeen>,
        /// The wishes of its Services of type LoadBalancer; `None`: they were not read, and the previous ones
        /// stay.
        services: Option<Vec<Wish>>,
        /// Its objects about volumes; `None`: as for Services.
        storage: Option<Storage>,
    },
    /// A node object has its desired state.
    NodeSet { machine: String, inputs: String },
    /// Serving certificates were approved.
    Approved { change: u64 },
    /// Add-ons have their desired state.
    AddonsApplied {
        inputs: String,
        change: u64,
        ailments: Vec<AddonAilment>,
    },
    /// Credentials have their desired state.
    CredentialsSet { wish: CredentialsWish, change: u64 },
    /// Pods were evicted once.
    Drained { machine: String, drained: Drained },
    /// A node object is gone.
    NodeDeleted(String),
    /// The present step of a command; `true`: no work is left for it.
    Command(String, bool),
    /// A Service has its desired state.
    ServiceSet(ServiceWish),
    /// An object of a volume has its desired state.
    VolumeSet(VolumeWish),
    /// The cluster's pods and nodes were read for the autoscaler.
    WorkFound(WorkSeen),
    /// The autoscaler's status and events are written.
    WorkTold(WorkNotes),
    /// What became of a managed namespace.
    NamespaceSet {
        wish: NamespaceWish,
        seen: NamespaceSeen,
        change: u64,
    },
}

/// Its lane, and its cost in the tenant's share.
pub(super) fn cost(effect: &ApiEffect) -> (Lane, u32) {
    match effect {
        ApiEffect::Look
        | ApiEffect::SetNode { .. }
        | ApiEffect::ApproveServing
        | ApiEffect::ApplyAddons { .. }
        | ApiEffect::SetCredentials(_)
        | ApiEffect::Drain { .. }
        | ApiEffect::DeleteNode(_)
        | ApiEffect::Command(_)
        | ApiEffect::SetService(_)
        | ApiEffect::SetVolume(_)
        | ApiEffect::LookAtWork
        | ApiEffect::TellWork(_)
        | ApiEffect::SetNamespace(_) => (Lane::Call, 1),
    }
}

/// Its time limit.
pub(super) fn bound(effect: &ApiEffect, settings: &Settings) -> Duration {
    match effect {
        ApiEffect::Look
        | ApiEffect::SetNode { .. }
        | ApiEffect::ApproveServing
        | ApiEffect::ApplyAddons { .. }
        | ApiEffect::SetCredentials(_)
        | ApiEffect::Drain { .. }
        | ApiEffect::DeleteNode(_)
        | ApiEffect::Command(_)
        | ApiEffect::SetService(_)
        | ApiEffect::SetVolume(_)
        | ApiEffect::LookAtWork
        | ApiEffect::TellWork(_)
        | ApiEffect::SetNamespace(_) => settings.api_bound,
    }
}

/// A description of the effect, for people.
pub(super) fn describe(effect: &ApiEffect) -> String {
    match effect {
        ApiEffect::Look => "looking at the API server".to_owned(),
        ApiEffect::SetNode { node, .. } => format!("labelling node {node}"),
        ApiEffect::ApproveServing => "approving serving certificates".to_owned(),
        ApiEffect::ApplyAddons { .. } => "applying the add-ons".to_owned(),
        ApiEffect::SetCredentials(_) => "granting credentials".to_owned(),
        ApiEffect::Drain { node, .. } => format!("draining node {node}"),
        ApiEffect::DeleteNode(node) => format!("removing node {node}"),
        ApiEffect::Command(id) => format!("running command {id}"),
        ApiEffect::SetService(wish) => format!("writing to the Service {}/{}", wish.namespace, wish.name),
        ApiEffect::SetVolume(wish) => format!("writing to the {}", wish.object()),
        ApiEffect::LookAtWork => "looking at the cluster's pods".to_owned(),
        ApiEffect::TellWork(_) => "telling what the autoscaler does".to_owned(),
        ApiEffect::SetNamespace(wish) => format!("bringing the namespace {} to what it is to be", wish.name),
    }
}

/// Carries it out.
pub(super) async fn act(job: &Job, effect: &ApiEffect) -> Result<ApiOutcome, EffectError> {
    let recipes = &job.deps.recipes;
    match effect {
        ApiEffect::Look => {
            let api = job.api()?;
            let at = job.deps.env.clock.now();
            if !job.api_ready {
                api.ready().await?;
            }
            let nodes = api.nodes().await?;
            let (services, storage) = tokio::try_join!(services(job), storage(job))?;
            Ok(ApiOutcome::Answers {
                change: job.change,
                at,
                nodes,
                services,
                storage,
            })
        }
        ApiEffect::SetNode {
            machine,
            images,
            inputs,
            ..
        } => {
            let wish = recipes.wish(&job.site()?.cluster, job.machine(machine)?);
            if let Some(mut wish) = wish {
                let images = images.iter().filter_map(|name| AddonImage::named(name));
                wish.labels
                    .extend(images.map(|image| (image.label(), image.tag().to_owned())));
                job.api()?.set_node(&wish).await?;
            }
            Ok(ApiOutcome::NodeSet {
                machine: machine.clone(),
                inputs: inputs.clone(),
            })
        }
        ApiEffect::ApproveServing => {
            let site = job.site()?;
            let wishes: Vec<_> = job
                .machines
                .values()
                .filter(|machine| !machine.deleting)
                .filter_map(|machine| recipes.wish(&site.cluster, machine))
                .collect();
            job.api()?.approve_serving(&wishes).await?;
            Ok(ApiOutcome::Approved { change: job.change })
        }
        ApiEffect::ApplyAddons { images, inputs } => {
            let (site, api) = (job.site()?, job.api()?);
            let read = api.read(&recipes.addons_read()).await?;
            let objects = recipes.addons(&site.cluster, images, &read)?;
            let changed = api.apply(&objects).await?;
            if changed > 0 {
                tracing::info!(cluster = job.uid, changed, "applied add-ons");
            }
            // Afterwards: what takes the place of another add-on is there by then.
            let leaving = recipes.addons_leaving(&site.cluster, images, &read);
            if !leaving.is_empty() {
                let removed = api.delete_objects(&leaving).await?;
                tracing::info!(cluster = job.uid, removed, "removed objects of add-ons");
            }
            Ok(ApiOutcome::AddonsApplied {
                inputs: inputs.clone(),
                change: job.change,
                ailments: recipes.addon_ailments(&site.cluster, &read),
            })
        }
        ApiEffect::SetCredentials(wish) => {
            let (bindings, api) = (recipes.credentials(wish), job.api()?);
            let mut changed = 0;
            if !bindings.over.is_empty() {
                changed += api.delete_objects(&bindings.over).await?;
            }
            changed += api
                .replace(&bindings.of, bindings.own, &bindings.granted, &bindings.withdrawn)
                .await?;
            if changed > 0 {
                tracing::info!(cluster = job.uid, changed, "granted or withdrew credentials");
            }
            Ok(ApiOutcome::CredentialsSet {
                wish: wish.clone(),
                change: job.change,
            })
        }
        ApiEffect::Drain { machine, node } => Ok(ApiOutcome::Drained {
            machine: machine.machine().to_owned(),
            drained: job.api()?.drain(node).await?,
        }),
        ApiEffect::DeleteNode(node) => {
            job.api()?.delete_node(node).await?;
            Ok(ApiOutcome::NodeDeleted(node.clone()))
        }
        ApiEffect::Command(id) => {
            let done = commands::step(job, id).await?;
            Ok(ApiOutcome::Command(id.clone(), done))
        }
        ApiEffect::SetService(wish) => {
            job.api()?.set_service(wish).await?;
            Ok(ApiOutcome::ServiceSet(wish.clone()))
        }
        ApiEffect::SetVolume(wish) => {
            job.api()?.set_volume(wish).await?;
            Ok(ApiOutcome::VolumeSet(wish.clone()))
        }
        ApiEffect::LookAtWork => Ok(ApiOutcome::WorkFound(work(job).await?)),
        ApiEffect::TellWork(notes) => {
            job.api()?.tell_work(notes).await?;
            Ok(ApiOutcome::WorkTold(notes.clone()))
        }
        ApiEffect::SetNamespace(wish) => Ok(ApiOutcome::NamespaceSet {
            seen: job.api()?.set_namespace(wish).await?,
            wish: wish.clone(),
            change: job.change,
        }),
    }
}

/// The wishes of the cluster's Services of type LoadBalancer. `None` if a tenant has too many of them to be
/// read; the look succeeds all the same.
async fn services(job: &Job) -> Result<Option<Vec<Wish>>, EffectError> {
    match job.api()?.services().await {
        Ok(found) => {
            let wishes = found
                .into_iter()
                .filter_map(|service| Wish::read(&service.object, service.endpoints));
            Ok(Some(wishes.collect()))
        }
        Err(error @ ClusterError::Refused { .. }) => {
            tracing::warn!(
                cluster = job.uid,
                "load balancers stay as they are: {}",
                chain(&error)
            );
            Ok(None)
        }
        Err(error @ ClusterError::Unavailable(_)) => Err(error.into()),
    }
}

/// The cluster's objects about volumes. `None` if there are too many to be read, as for Services.
async fn storage(job: &Job) -> Result<Option<Storage>, EffectError> {
    match job.api()?.volumes().await {
        Ok(objects) => Ok(Some(Storage::read(&objects))),
        Err(error @ ClusterError::Refused { .. }) => {
            tracing::warn!(cluster = job.uid, "volumes stay as they are: {}", chain(&error));
            Ok(None)
        }
        Err(error @ ClusterError::Unavailable(_)) => Err(error.into()),
    }
}

/// Reads the cluster's pods and nodes for the autoscaler. If there are too many objects to be read, this
/// fails, and the autoscaler decides nothing.
async fn work(job: &Job) -> Result<WorkSeen, EffectError> {
    let at = job.deps.env.clock.now();
    let objects = job.api()?.work().await?;
    Ok(WorkSeen {
        at,
        change: job.change,
        work: Arc::new(Work::read(&objects)),
    })
}

/// Updates the state with its result.
pub(super) fn learn(state: &mut LoopState, outcome: ApiOutcome, now: Timestamp) {
    match outcome {
        ApiOutcome::Answers {
            change,
            at,
            nodes,
            services,
            storage,
        } => {
            state.api_answered(change, at, nodes);
            state.api_told(services, storage);
        }
        ApiOutcome::NodeSet { machine, inputs } => {
            state.api.set.insert(machine, inputs);
        }
        ApiOutcome::Approved { change } => state.api.approved = Some(change),
        ApiOutcome::AddonsApplied {
            inputs,
            change,
            ailments,
        } => {
            state.api.addons = Some(AddonsSeen {
                inputs,
                at: now,
                change,
                ailments,
            });
        }
        ApiOutcome::CredentialsSet { wish, change } => {
            state.api.credentials = Some(CredentialsSeen {
                wish,
                at: now,
                change,
            });
        }
        ApiOutcome::Drained { machine, drained } => {
            if let Some(drain) = state.drains.get_mut(&machine) {
                drain.asked.get_or_insert(now);
                drain.left = Some((drained.left, now));
                drain.held = drained.held;
            }
        }
        ApiOutcome::NodeDeleted(node) => state.api.nodes.retain(|seen| seen.name != node),
        ApiOutcome::Command(id, done) => {
            if done {
                state.commands.remove(&id);
            } else {
                let again = now.checked_add(commands::PAUSE).unwrap_or(now);
                state.commands.insert(id, again);
            }
        }
        ApiOutcome::ServiceSet(wish) => state.service_set(&wish),
        ApiOutcome::VolumeSet(wish) => state.volume_set(wish),
        ApiOutcome::WorkFound(found) => state.work_found(found),
        ApiOutcome::WorkTold(notes) => state.work_told(notes),
        ApiOutcome::NamespaceSet { wish, seen, change } => {
            let set = NamespaceSet {
                at: now,
                seen,
                change,
                wish,
            };
            state.api.namespaces.insert(set.wish.name.clone(), set);
        }
    }
}

/// The parts of the state that are uncertain after its failure.
pub(super) fn doubt(state: &mut LoopState, effect: &ApiEffect) {
    match effect {
        ApiEffect::Look => {
            if state.api.reach == Reach::Ready {
                state.doubt_machines();
            }
            state.api.reach = Reach::Away;
            state.api.heard = false;
        }
        ApiEffect::SetNode { .. }
        | ApiEffect::ApproveServing
        | ApiEffect::ApplyAddons { .. }
        | ApiEffect::SetCredentials(_)
        | ApiEffect::Drain { .. }
        | ApiEffect::DeleteNode(_)
        | ApiEffect::Command(_)
        | ApiEffect::SetService(_)
        | ApiEffect::SetVolume(_)
        | ApiEffect::LookAtWork
        | ApiEffect::TellWork(_)
        | ApiEffect::SetNamespace(_) => {
            // Refused, or without a response: a look shows which.
            state.api.change += 1;
        }
    }
}
