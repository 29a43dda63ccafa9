//! Requests to restart, reimage, replace, stop or start single nodes. They are written into the records of
//! their machines and carried out by the planner, as a change of their pool: so a request has an operation,
//! which ends when the pool has reached its desired state again.

use arm_ids::ResourcePath;
use arm_kernel::{
    Call, Context, Decision, Mode, Mutation, Presence, Purpose, RequestInfo, Resource, act, quote,
    store_error,
};
use arm_wire::{ArmError, ErrorCode, Response};
use async_trait::async_trait;
use control_records::{Asked, Healing, MachineRecord, NodeOrder, RepairStep, Role, key};
use control_store::{Compare, Stored, Txn, list_records, put_record};
use serde_json::Value;

use super::{
    State,
    draft::{ClusterChange, advance},
    hooks::refuse_change,
};
use crate::{ContainerService, ProviderConfig, api_versions::API_VERSIONS, records::ClusterPath};

/// A request for nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRepair {
    /// Of which pool: its ARM path.
    pub pool: ResourcePath,
    /// Which of it, by their numbers; `None`: all.
    pub nodes: Option<Vec<u32>>,
    /// The order.
    pub order: NodeOrder,
    /// Its operation name.
    pub name: &'static str,
}

impl ContainerService {
    /// Writes this request, for a caller whose permission was checked before.
    ///
    /// # Errors
    /// When the pool or a node does not exist, or the cluster may not be changed now.
    pub async fn repair_nodes(
        &self,
        call: &Call,
        repair: &NodeRepair,
        mode: Mode,
    ) -> Result<Response, ArmError> {
        let mut request = call.request.clone();
        request.path = repair.pool.clone();
        // The operation's URL is of this namespace.
        API_VERSIONS[0].clone_into(&mut request.api_version);
        act::<Instances>(self, &call.with(request), repair, mode).await
    }
}

/// The nodes of a pool as the kernel sees them.
enum Instances {}

struct Nodes {
    base: State,
    machines: Vec<(String, Stored<MachineRecord>)>,
}

struct Change {
    base: ClusterChange,
    machines: Vec<(String, Stored<MachineRecord>)>,
}

impl Nodes {
    /// The machines of a pool, by their numbers.
    fn of_pool<'a>(
        &'a self,
        pool: &str,
        incarnation: &str,
    ) -> impl Iterator<Item = (u32, &'a (String, Stored<MachineRecord>))> {
        let (pool, incarnation) = (pool.to_owned(), incarnation.to_owned());
        self.machines.iter().filter_map(move |machine| {
            let record = &machine.1.value;
            match &record.assignment.as_ref()?.role {
                Role::Node {
                    pool: own,
                    incarnation: of,
                    index,
                    ..
                } if *own == pool && *of == incarnation && !record.deleting => Some((*index, machine)),
                _ => None,
            }
        })
    }
}

#[async_trait]
impl Resource for Instances {
    type Provider = ContainerService;
    type State = Nodes;
    type Change = Change;
    type Action = NodeRepair;

    async fn read(
        provider: &ContainerService,
        path: &ResourcePath,
        purpose: Purpose,
    ) -> Result<Nodes, ArmError> {
        let base = State::read(provider, ClusterPath::of(path)?, purpose).await?;
        let machines = match base.record() {
            Some(record) => {
                let prefix = key::machines(&record.uid);
                let found = list_records::<MachineRecord>(&*provider.store, &prefix).await;
                found.map_err(store_error)?.0
            }
            None => Vec::new(),
        };
        Ok(Nodes { base, machines })
    }

    fn presence(_: &Nodes, _: &ResourcePath) -> Presence {
        Presence::Absent
    }

    fn missing(_: &Nodes, path: &ResourcePath) -> ArmError {
        match ClusterPath::of(path) {
            Ok(at) => at.pool_not_found(),
            Err(error) => error,
        }
    }

    async fn list(_: &ContainerService, _: &ResourcePath, _: &str) -> Result<Vec<Value>, ArmError> {
        Ok(Vec::new())
    }

    fn decide(
        context: &Context<'_, ProviderConfig>,
        state: &Nodes,
        mutation: Mutation<'_, NodeRepair>,
    ) -> Result<Decision<Change>, ArmError> {
        let at = ClusterPath::of(context.info.path)?;
        let Mutation::Act(repair) = mutation else {
            return Err(ArmError::internal("nodes are neither put nor deleted"));
        };
        let before = state.base.before().ok_or_else(|| at.not_found())?;
        let pools = &before.record.spec().pools;
        let pool = pools.iter().find(|pool| pool.name.eq_ignore_ascii_case(at.child));
        let pool = pool.ok_or_else(|| at.pool_not_found())?;
        refuse_change(before.record)?;
        let mut machines = Vec::new();
        for (index, (key, machine)) in state.of_pool(&pool.name, &pool.incarnation) {
            if repair.nodes.as_ref().is_some_and(|nodes| !nodes.contains(&index)) {
                continue;
            }
            let before = &machine.value.healing;
            let asked = |step| {
                let asked = Asked {
                    step,
                    at: context.now,
                };
                (false, Some(asked))
            };
            let (off, asked) = match repair.order {
                NodeOrder::Repair(RepairStep::Replace) => asked(RepairStep::Replace),
                NodeOrder::Repair(_) if before.off => {
                    let message =
                        format!("The instance {index} is deallocated; start it first ('az vmss start').");
                    return Err(
                        ArmError::new(ErrorCode::OPERATION_NOT_ALLOWED, message).target("instanceIds")
                    );
                }
                NodeOrder::Repair(step) => asked(step),
                NodeOrder::Off => (true, before.asked),
                NodeOrder::On => (false, before.asked),
            };
            let record = MachineRecord {
                healing: Healing {
                    off,
                    off_since: off.then(|| before.off_since.unwrap_or(context.now)),
                    asked,
                    ..before.clone()
                },
                ..machine.value.clone()
            };
            let revision = machine.revision;
            machines.push((
                key.clone(),
                Stored {
                    revision,
                    value: record,
                },
            ));
        }
        if let Some(nodes) = &repair.nodes {
            let there = |wanted: &u32| {
                state
                    .of_pool(&pool.name, &pool.incarnation)
                    .any(|(index, _)| index == *wanted)
            };
            if let Some(none) = nodes.iter().find(|wanted| !there(wanted)) {
                let message = format!(
                    "The provided instanceId {none} is not an active Virtual Machine Scale Set VM instanceId of the pool {}.",
                    quote(&pool.name)
                );
                return Err(ArmError::new(ErrorCode::INVALID_PARAMETER, message).target("instanceIds"));
            }
        }
        if machines.is_empty() {
            return Ok(Decision::Unchanged);
        }
        // One transaction takes so many, beside the cluster's own.
        if machines.len() > MOST {
            let message = format!("At most {MOST} nodes can be asked at once; name some of them.");
            return Err(ArmError::new(ErrorCode::INVALID_PARAMETER, message).target("instanceIds"));
        }
        let own = state.base.context(context);
        let record = before.record;
        let draft = advance(
            &own,
            &at.name(),
            Some(record),
            record.state.clone(),
            repair.name,
            Some(&pool.name),
        )?;
        Ok(Decision::Write(Change {
            base: draft.follow(Some(before))?,
            machines,
        }))
    }

    async fn transaction(
        provider: &ContainerService,
        info: &RequestInfo<'_>,
        state: &Nodes,
        change: &Change,
    ) -> Result<Txn, ArmError> {
        let at = ClusterPath::of(info.path)?;
        let mut txn = provider.transaction(at, &state.base, &change.base).await?;
        for (key, machine) in &change.machines {
            txn.compare.push(Compare::At(key.clone(), machine.revision));
            txn.ops.push(put_record(key, &machine.value));
        }
        Ok(txn)
    }

    fn render(_: &Nodes, _: Option<&Change>, _: &ResourcePath, _: &str) -> Value {
        Value::Null
    }

    fn operation(change: &Change) -> Option<&str> {
        Some(&change.base.operation.id)
    }
}

/// The most nodes of one request.
const MOST: usize = 32;
