//! `managedClusters/agentPools`: the rows, and how a pool is decided about. It is read and written with its cluster's record.

mod autoscale;
mod change;
pub(crate) mod decide;
mod nodes;
mod snapshot;

use arm_ids::ResourcePath;
use arm_kernel::{
    Call, Context, Decision, Mode, Mutation, Operation, Presence, Purpose, RequestInfo, Resource,
    ResourceType, Verb, act,
};
use arm_wire::{ArmError, Response};
use async_trait::async_trait;
use control_records::{MachineRecord, Role};
use control_store::Txn;
use serde_json::Value;

use crate::{
    ContainerService, ProviderConfig,
    api_versions::API_VERSIONS,
    clusters::{Clusters, State, admission, draft::ClusterChange, requests, subnets},
    properties::POOL_SCHEMA,
    records::{ClusterPath, pool_etag},
};

pub(crate) use nodes::Node;

type Row = Operation<ContainerService>;

pub(crate) const TYPE: ResourceType<ContainerService> = ResourceType {
    path: "managedClusters/agentPools",
    versions: API_VERSIONS,
    schema: Some(POOL_SCHEMA),
    members: None,
    operations: &[
        Row::get::<Pools>("AgentPools_Get"),
        Row::write(
            Verb::Put,
            "AgentPools_CreateOrUpdate",
            |provider, call| Box::pin(subnets::put_joined::<Pools>(provider, call, Mode::Commit)),
            |provider, call| Box::pin(subnets::put_joined::<Pools>(provider, call, Mode::Preview)),
        ),
        Row::delete::<Pools>(requests::POOL_DELETE),
        Row::list::<Pools>("AgentPools_List"),
        Row::write(
            Verb::Action("abort"),
            requests::ABORT_POOL,
            |provider, call| Box::pin(act::<Pools>(provider, call, &Action::Abort, Mode::Commit)),
            |provider, call| Box::pin(act::<Pools>(provider, call, &Action::Abort, Mode::Preview)),
        )
        .since("2023-01-01"),
        Row::write(
            Verb::Action(DELETE_ACTION),
            nodes::DELETE_MACHINES,
            |provider, call| Box::pin(delete_machines(provider, call, Mode::Commit)),
            |provider, call| Box::pin(delete_machines(provider, call, Mode::Preview)),
        )
        .since("2024-07-01")
        .ends_with_200(),
        Row::write(
            Verb::Action("upgradeNodeImageVersion"),
            nodes::UPGRADE_IMAGE,
            |provider, call| Box::pin(act::<Pools>(provider, call, &Action::UpgradeImage, Mode::Commit)),
            |provider, call| Box::pin(act::<Pools>(provider, call, &Action::UpgradeImage, Mode::Preview)),
        )
        .ends_with_resource(),
    ],
};

const DELETE_ACTION: &str = "deleteMachines";

async fn delete_machines(provider: &ContainerService, call: &Call, mode: Mode) -> Result<Response, ArmError> {
    let action = Action::DeleteMachines(call.request.body.clone());
    act::<Pools>(provider, call, &action, mode).await
}

/// `agentPools` as the kernel sees them.
pub(crate) enum Pools {}

/// Actions on a pool beyond PUT and DELETE.
pub(crate) enum Action {
    /// To go back to what was reached last.
    Abort,
    /// To lose the nodes that the body names.
    DeleteMachines(Value),
    /// To have nodes of the newest node image.
    UpgradeImage,
}

/// The pool's name as it is, whatever the casing asked for: one that is there, or one on its way out.
fn real_name<'a>(state: &'a State, asked: &str) -> Option<&'a str> {
    let pools = &state.record()?.spec().pools;
    let here = pools.iter().find(|pool| pool.name.eq_ignore_ascii_case(asked));
    let leaving = || Some(state.view(None)?.leaving(asked)?.spec().name.as_str());
    here.map(|pool| pool.name.as_str()).or_else(leaving)
}

/// A machine as the node that it is.
fn node(machine: MachineRecord) -> Option<Node> {
    match machine.assignment?.role {
        Role::Node { node_name, .. } => Some(Node {
            name: node_name,
            machine: machine.id,
        }),
        Role::ControlPlane { .. } => None,
    }
}

#[async_trait]
impl Resource for Pools {
    type Provider = ContainerService;
    type State = State;
    type Change = ClusterChange;
    type Action = Action;

    async fn read(
        provider: &ContainerService,
        path: &ResourcePath,
        purpose: Purpose,
    ) -> Result<State, ArmError> {
        let at = ClusterPath::of(path)?;
        let mut state = State::read(provider, at, purpose).await?;
        let named = path
            .types
            .last()
            .is_some_and(|last| last.eq_ignore_ascii_case(DELETE_ACTION));
        if let Some(found) = state.found.as_ref().filter(|_| named)
            && let Some(pool) = real_name(&state, at.child)
        {
            let nodes = provider.machines(found, pool).await?.into_iter();
            state.nodes = nodes.filter_map(node).collect();
        }
        Ok(state)
    }

    fn presence(state: &State, path: &ResourcePath) -> Presence {
        let asked = path.name(1).unwrap_or_default();
        let Some((record, name)) = state.record().zip(real_name(state, asked)) else {
            return Presence::Absent;
        };
        pool_etag(record, name).map_or(Presence::Deleting, Presence::Present)
    }

    fn creatable(state: &State, path: &ResourcePath) -> Result<(), ArmError> {
        if state.found.is_some() {
            return Ok(());
        }
        Err(ClusterPath::of(path)?.parent_not_found())
    }

    fn missing(state: &State, path: &ResourcePath) -> ArmError {
        match ClusterPath::of(path) {
            Ok(at) if state.found.is_some() => at.pool_not_found(),
            Ok(at) => at.not_found(),
            Err(error) => error,
        }
    }

    async fn list(
        provider: &ContainerService,
        path: &ResourcePath,
        api_version: &str,
    ) -> Result<Vec<Value>, ArmError> {
        let found = provider.need(ClusterPath::of(path)?).await?;
        let view = found.view();
        let pools = view.pool_names().into_iter();
        Ok(pools.map(|pool| view.pool(pool, api_version)).collect())
    }

    async fn read_named(
        provider: &ContainerService,
        state: &mut State,
        mutation: Mutation<'_, Action>,
    ) -> Result<(), ArmError> {
        match mutation {
            Mutation::Put(body) => provider.read_snapshots(state, body).await,
            Mutation::Act(_) | Mutation::Delete => Ok(()),
        }
    }

    fn decide(
        context: &Context<'_, ProviderConfig>,
        state: &State,
        mutation: Mutation<'_, Action>,
    ) -> Result<Decision<ClusterChange>, ArmError> {
        let path = context.info.path;
        let at = ClusterPath::of(path)?;
        let (name, own) = (at.name(), state.context(context));
        let pool = real_name(state, at.child);
        let Some(before) = state.before() else {
            return match mutation {
                Mutation::Delete => Ok(Decision::Unchanged),
                _ => Err(at.not_found()),
            };
        };
        let draft = match mutation {
            Mutation::Put(body) => {
                let draft = change::put_pool(&own, &name, at.child, before.record, body)?;
                if draft.is_so(Some(before)) {
                    return Ok(Decision::Unchanged);
                }
                draft
            }
            Mutation::Delete => match pool {
                None => return Ok(Decision::Unchanged),
                Some(pool) if pool_etag(before.record, pool).is_some() => {
                    change::delete_pool(&own, &name, pool, before.record)?
                }
                // On its way already: one deletion, however often asked for.
                Some(pool) => {
                    let leaving = state
                        .view(None)
                        .and_then(|view| Some(view.leaving(pool)?.operation.clone()));
                    return Ok(leaving.map_or(Decision::Unchanged, Decision::InProgress));
                }
            },
            Mutation::Act(action) => {
                let pool = pool.ok_or_else(|| at.pool_not_found())?;
                match action {
                    Action::Abort => requests::abort_pool(&own, &name, pool, before)?,
                    Action::UpgradeImage => nodes::upgrade_image(&own, &name, pool, before)?,
                    Action::DeleteMachines(body) => {
                        match nodes::delete_machines(&own, &name, pool, before, &state.nodes, body)? {
                            Decision::Write(draft) => draft,
                            Decision::InProgress(operation) => return Ok(Decision::InProgress(operation)),
                            Decision::Unchanged => return Ok(Decision::Unchanged),
                        }
                    }
                }
            }
        };
        let change = draft.follow(Some(before))?;
        admission::admit(own.config, state, &change, "properties.count")?;
        Ok(Decision::Write(change))
    }

    async fn transaction(
        provider: &ContainerService,
        info: &RequestInfo<'_>,
        state: &State,
        change: &ClusterChange,
    ) -> Result<Txn, ArmError> {
        Clusters::transaction(provider, info, state, change).await
    }

    fn render(
        state: &State,
        change: Option<&ClusterChange>,
        path: &ResourcePath,
        api_version: &str,
    ) -> Value {
        let asked = path.name(1).unwrap_or_default();
        let name = real_name(state, asked).unwrap_or(asked);
        state
            .view(change)
            .map_or(Value::Null, |view| view.pool(name, api_version))
    }

    fn operation(change: &ClusterChange) -> Option<&str> {
        Some(&change.operation.id)
    }
}
