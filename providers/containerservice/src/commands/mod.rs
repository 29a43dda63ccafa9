//! `runCommand` and `commandResults`: a command that runs in a pod of the cluster (`az aks command invoke`).
//!
//! The request is stored and carried out by the cluster's loop; the result is read from the record. Always
//! true: both are sealed; the result is shown to the caller that requested the command and to callers that
//! may request commands, and does not exist for all others; the number of a cluster's stored commands is
//! limited, the newest ones are kept.

mod ask;

use std::time::Duration;

use arm_ids::ResourcePath;
use arm_kernel::{
    Call, Context, Decision, Mode, Mutation, Operation, Presence, Purpose, RequestInfo, Resource,
    ResourceType, Verb, quote, scope_of, store_error, write,
};
use arm_wire::{ArmError, ErrorCode, Request, Response};
use async_trait::async_trait;
use control_records::{
    SealedRecord,
    command::{CommandInput, CommandOutput, CommandRecord, Part},
    key,
};
use control_store::{Stored, Txn, get_record, list_records, put_record};
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::{
    ContainerService, NAMESPACE, ProviderConfig,
    empty::bodiless,
    records::{ClusterPath, StoredCluster},
};

type Row = Operation<ContainerService>;

/// When commands came.
const SINCE: &str = "2021-03-01";
/// The name of the action.
const ACTION: &str = "runCommand";

/// `runCommand` of a cluster.
pub(crate) const RUN: Row = Row::write(
    Verb::Action(ACTION),
    "ManagedClusters_RunCommand",
    |provider, call| Box::pin(provider.run_command(call, Mode::Commit)),
    |provider, call| Box::pin(provider.run_command(call, Mode::Preview)),
)
.since(SINCE);

pub(crate) const RESULTS: ResourceType<ContainerService> = bodiless(
    "managedClusters/commandResults",
    &[
        Row::read(Verb::Get, "ManagedClusters_GetCommandResult", |provider, call| {
            Box::pin(provider.command_result(call))
        })
        .since(SINCE),
    ],
);

/// Commands of a cluster that may wait and run.
const MOST_OPEN: usize = 10;
/// Commands of a cluster that are kept…
const MOST_KEPT: usize = 20;
/// …for so long after they were accepted.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// After this time a command without a result has failed: its cluster has not answered.
const ENDS_WITHIN: Duration = Duration::from_secs(21 * 60);

/// Commands as the kernel sees them.
enum Commands {}

struct State {
    cluster: StoredCluster,
    commands: Vec<Stored<CommandRecord>>,
}

/// A command that is written down.
struct New {
    record: CommandRecord,
    input: CommandInput,
    /// Commands to be removed.
    forgotten: Vec<String>,
}

#[async_trait]
impl Resource for Commands {
    type Provider = ContainerService;
    type State = State;
    type Change = New;
    type Action = CommandInput;

    async fn read(provider: &ContainerService, path: &ResourcePath, _: Purpose) -> Result<State, ArmError> {
        let cluster = provider.need(ClusterPath::of(path)?).await?;
        let prefix = CommandRecord::all(&cluster.record.value.uid);
        let (commands, _) = list_records(&*provider.store, &prefix)
            .await
            .map_err(store_error)?;
        Ok(State {
            cluster,
            commands: commands.into_iter().map(|(_, command)| command).collect(),
        })
    }

    fn presence(_: &State, _: &ResourcePath) -> Presence {
        Presence::Absent
    }

    fn missing(_: &State, path: &ResourcePath) -> ArmError {
        match ClusterPath::of(path) {
            Ok(at) => no_command(at),
            Err(error) => error,
        }
    }

    async fn list(_: &ContainerService, _: &ResourcePath, _: &str) -> Result<Vec<Value>, ArmError> {
        Ok(Vec::new())
    }

    fn decide(
        context: &Context<'_, ProviderConfig>,
        state: &State,
        mutation: Mutation<'_, CommandInput>,
    ) -> Result<Decision<New>, ArmError> {
        let Mutation::Act(input) = mutation else {
            return Err(ArmError::internal("commands are asked for and nothing else"));
        };
        ask::check_cluster(&state.cluster, input)?;
        let open = state.commands.iter().filter(|command| !command.value.ended);
        if open.count() >= MOST_OPEN {
            let message = format!(
                "{MOST_OPEN} commands of the cluster wait or run already; ask again when one has ended."
            );
            return Err(ArmError::new(ErrorCode::OPERATION_NOT_ALLOWED, message));
        }
        Ok(Decision::Write(New {
            record: CommandRecord {
                v: 1,
                // Clients parse it from a path by letters, digits and underscores.
                id: context.ids.uuid().simple().to_string(),
                asked_by: context.info.principal.object_id.clone(),
                accepted_at: context.now,
                ended: false,
                gone: false,
            },
            input: input.clone(),
            forgotten: forgotten(&state.commands, context.now),
        }))
    }

    async fn transaction(
        provider: &ContainerService,
        _: &RequestInfo<'_>,
        state: &State,
        change: &New,
    ) -> Result<Txn, ArmError> {
        let uid = &state.cluster.record.value.uid;
        let id = &change.record.id;
        let bytes = Zeroizing::new(serde_json::to_vec(&change.input).map_err(ArmError::internal)?);
        let sealed_as = CommandRecord::sealed_as(uid, id, Part::Input);
        let input = SealedRecord {
            v: 1,
            sealed: provider
                .sealer
                .seal(&sealed_as, &bytes)
                .map_err(ArmError::internal)?,
        };
        let own = CommandRecord::key(uid, id);
        // A cluster whose deletion begins meanwhile accepts no more commands.
        let txn = Txn::default()
            .at(key::desired(uid), state.cluster.record.revision)
            .absent(own.as_str())
            .with(put_record(own, &change.record))
            .with(put_record(CommandRecord::part_key(uid, id, Part::Input), &input));
        let forgotten = change.forgotten.iter();
        Ok(forgotten.fold(txn, |txn, id| {
            txn.delete(CommandRecord::key(uid, id))
                .delete(CommandRecord::part_key(uid, id, Part::Output))
        }))
    }

    fn render(_: &State, change: Option<&New>, _: &ResourcePath, _: &str) -> Value {
        change.map_or(Value::Null, |new| running(&new.record))
    }

    fn operation(_: &New) -> Option<&str> {
        None
    }
}

/// Commands to be removed: those without objects in the cluster that are old or beyond the limit.
fn forgotten(commands: &[Stored<CommandRecord>], now: Timestamp) -> Vec<String> {
    let mut over: Vec<&CommandRecord> = commands
        .iter()
        .map(|command| &command.value)
        .filter(|command| !command.is_open())
        .collect();
    over.sort_by_key(|command| std::cmp::Reverse(command.accepted_at));
    let kept = |(place, command): &(usize, &CommandRecord)| {
        *place + 1 < MOST_KEPT && now.duration_since(command.accepted_at).unsigned_abs() < KEPT
    };
    let each = over.into_iter().enumerate().filter(|each| !kept(each));
    each.map(|(_, command)| command.id.clone()).collect()
}

fn running(record: &CommandRecord) -> Value {
    json!({ "id": record.id, "properties": { "provisioningState": "Running" } })
}

fn ended(record: &CommandRecord, output: &CommandOutput) -> Value {
    // A command with an exit code has run, even if it failed.
    let state = if output.exit_code.is_some() {
        "Succeeded"
    } else {
        "Failed"
    };
    let mut properties = json!({
        "provisioningState": state,
        "finishedAt": output.finished_at,
        "logs": output.logs,
    });
    for (name, value) in [
        ("exitCode", json!(output.exit_code)),
        ("startedAt", json!(output.started_at)),
        ("reason", json!(output.reason)),
    ] {
        if !value.is_null() {
            properties[name] = value;
        }
    }
    json!({ "id": record.id, "properties": properties })
}

/// Sets the URL of the command's result. The Azure CLI takes the id out of it, up to the question mark.
fn with_location(response: Response, request: &Request, at: ClusterPath<'_>, id: &str) -> Response {
    let path = arm_ids::resource_id(
        at.subscription,
        at.group,
        NAMESPACE,
        &[("managedClusters", at.cluster), ("commandResults", id)],
    );
    let location = format!("{}{path}?api-version={}", request.base_url, request.api_version);
    response.header("location", location).header("retry-after", "1")
}

fn no_command(at: ClusterPath<'_>) -> ArmError {
    let message = format!(
        "The resource '{NAMESPACE}/managedClusters/{}/commandResults/{}' under resource group {} was not found.",
        at.cluster,
        at.child,
        quote(at.group)
    );
    ArmError::new(ErrorCode::RESOURCE_NOT_FOUND, message)
}

impl ContainerService {
    async fn run_command(&self, call: &Call, mode: Mode) -> Result<Response, ArmError> {
        let request = &call.request;
        let at = ClusterPath::of(&request.path)?;
        let input = ask::input(&request.body)?;
        let info = RequestInfo::of(request);
        let written = write::<Commands>(self, &info, Mutation::Act(&input), mode).await?;
        let Decision::Write(new) = &written.decision else {
            return Err(ArmError::internal("a command is always a new one"));
        };
        let response = Response::with(StatusCode::ACCEPTED, running(&new.record));
        Ok(with_location(response, request, at, &new.record.id))
    }

    async fn command_result(&self, call: &Call) -> Result<Response, ArmError> {
        let request = &call.request;
        let at = ClusterPath::of(&request.path)?;
        let found = self.need(at).await?;
        let uid = &found.record.value.uid;
        let record = get_record::<CommandRecord>(&*self.store, &CommandRecord::key(uid, at.child))
            .await
            .map_err(store_error)?;
        let Some(Stored { value: record, .. }) = record else {
            return Err(no_command(at));
        };
        if record.asked_by != request.principal.object_id {
            let action = format!("{NAMESPACE}/managedClusters/{ACTION}/action");
            if !call.may(&action, &scope_of(&at.path())).await? {
                return Err(no_command(at));
            }
        }
        let now = self.env.clock.now();
        if !record.ended {
            if now.duration_since(record.accepted_at).unsigned_abs() > ENDS_WITHIN {
                let output = CommandOutput {
                    exit_code: None,
                    started_at: None,
                    finished_at: now,
                    logs: String::new(),
                    reason: Some("The cluster has not answered.".to_owned()),
                };
                return Ok(Response::ok(ended(&record, &output)));
            }
            let response = Response::with(StatusCode::ACCEPTED, running(&record));
            return Ok(with_location(response, request, at, &record.id));
        }
        let part = CommandRecord::part_key(uid, &record.id, Part::Output);
        // It may have been removed just now.
        let Some(sealed) = self.read::<SealedRecord>(&part).await? else {
            return Err(no_command(at));
        };
        let sealed_as = CommandRecord::sealed_as(uid, &record.id, Part::Output);
        let bytes = self
            .sealer
            .unseal(&sealed_as, &sealed.value.sealed)
            .map_err(ArmError::internal)?;
        let output: CommandOutput = serde_json::from_slice(&bytes).map_err(ArmError::internal)?;
        Ok(Response::ok(ended(&record, &output)))
    }
}
