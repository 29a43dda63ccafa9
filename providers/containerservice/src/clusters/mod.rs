//! `managedClusters`: the rows, and how a cluster is read, decided about and written.
//!
//! A cluster's pools are part of its record: [`crate::pools`] shares the state, the change and the transaction.

pub(crate) mod access;
pub(crate) mod admission;
pub(crate) mod archive;
pub(crate) mod authentication;
pub(crate) mod body;
pub(crate) mod change;
pub(crate) mod credentials;
pub(crate) mod draft;
mod group;
pub(crate) mod hooks;
pub(crate) mod identity;
pub(crate) mod ingress;
pub(crate) mod instances;
pub(crate) mod local_accounts;
pub(crate) mod named;
pub(crate) mod network;
pub(crate) mod power;
pub(crate) mod put;
pub(crate) mod recreate;
pub(crate) mod render;
pub(crate) mod requests;
pub(crate) mod resets;
pub(crate) mod rotation;
pub(crate) mod soak;
pub(crate) mod state;
pub(crate) mod subnets;
pub(crate) mod transaction;
pub(crate) mod upgrade_guard;
pub(crate) mod view;

use std::collections::BTreeMap;

use arm_ids::ResourcePath;
use arm_kernel::{
    Call, Context, Decision, FIELDS, Gate, Members, Mode, Mutation, Operation, Presence, Purpose,
    RequestInfo, Resource, ResourceType, Scope, Shown, Tagged, Tags, Verb, act, store_error,
};
use arm_wire::{ArmError, Response};
use async_trait::async_trait;
use cluster_spec::{CredentialKind, RestoreSpec};
use control_records::{ClusterRecord, OperationRecord, Part, directory, times::StepTimes, usage::Usage};
use control_store::{Revision, Stored, Txn};
use serde_json::Value;

use crate::{
    ContainerService, ProviderConfig,
    api_versions::API_VERSIONS,
    channels, commands, empty, estimates,
    images::Images,
    pools::Node,
    properties::CLUSTER_SCHEMA,
    records::{ClusterPath, StoredCluster, cluster_etag},
    rehearsal::seen::Use,
    snapshots::named as snapshots,
};
use draft::ClusterChange;
use named::Named;
use requests::Current;
use view::ClusterView;

const PATH: &str = "managedClusters";

type Row = Operation<ContainerService>;

pub(crate) const TYPE: ResourceType<ContainerService> = ResourceType {
    path: PATH,
    versions: API_VERSIONS,
    schema: Some(CLUSTER_SCHEMA),
    members: Some(Members {
        list: |provider, subscription, group| Box::pin(provider.summaries(subscription, group)),
        delete: |provider, subscription, group| Box::pin(provider.delete_group(subscription, group)),
    }),
    operations: &[
        Row::get_kept::<Clusters>("ManagedClusters_Get"),
        Row::write(
            Verb::Put,
            "ManagedClusters_CreateOrUpdate",
            |provider, call| Box::pin(named::put_cluster(provider, call, Mode::Commit)),
            |provider, call| Box::pin(named::put_cluster(provider, call, Mode::Preview)),
        ),
        Row::patch_tags::<Clusters>("ManagedClusters_UpdateTags"),
        Row::delete::<Clusters>("ManagedClusters_Delete"),
        Row::list_kept::<Clusters>("ManagedClusters_ListByResourceGroup")
            .filter(FIELDS)
            .gate(Gate::Items),
        Row::list_kept::<Clusters>("ManagedClusters_List")
            .filter(FIELDS)
            .gate(Gate::Items)
            .at(Scope::Subscription),
        Abort::ROW.since("2023-01-01"),
        Row::write(
            Verb::Action("listClusterAdminCredential"),
            "ManagedClusters_ListClusterAdminCredentials",
            |provider, call| Box::pin(provider.credential(call, CredentialKind::Admin, Mode::Commit)),
            |provider, call| Box::pin(provider.credential(call, CredentialKind::Admin, Mode::Preview)),
        ),
        Row::write(
            Verb::Action("listClusterUserCredential"),
            "ManagedClusters_ListClusterUserCredentials",
            |provider, call| Box::pin(provider.credential(call, CredentialKind::User, Mode::Commit)),
            |provider, call| Box::pin(provider.credential(call, CredentialKind::User, Mode::Preview)),
        ),
        Row::write(
            Verb::Action("listClusterMonitoringUserCredential"),
            "ManagedClusters_ListClusterMonitoringUserCredentials",
            |provider, call| Box::pin(provider.credential(call, CredentialKind::Monitoring, Mode::Commit)),
            |provider, call| Box::pin(provider.credential(call, CredentialKind::Monitoring, Mode::Preview)),
        ),
        Row::write(
            Verb::Action("resetServicePrincipalProfile"),
            resets::SERVICE_PRINCIPAL,
            |provider, call| Box::pin(reset(provider, call, resets::service_principal, Mode::Commit)),
            |provider, call| Box::pin(reset(provider, call, resets::service_principal, Mode::Preview)),
        )
        .ends_with_200(),
        Row::write(
            Verb::Action("resetAADProfile"),
            resets::AAD,
            |provider, call| Box::pin(reset(provider, call, resets::aad, Mode::Commit)),
            |provider, call| Box::pin(reset(provider, call, resets::aad, Mode::Preview)),
        )
        .ends_with_200(),
        rotation::Certificates::ROW,
        rotation::ServiceAccountKeys::ROW.since("2022-09-01"),
        power::Stop::ROW,
        power::Start::ROW,
        commands::RUN,
        empty::RESOLVE,
    ],
};

pub(crate) const ACCESS_PROFILES: ResourceType<ContainerService> = ResourceType {
    path: "managedClusters/accessProfiles",
    versions: API_VERSIONS,
    schema: None,
    members: None,
    operations: &[Row::write(
        Verb::Action("listCredential"),
        "ManagedClusters_GetAccessProfile",
        |provider, call| Box::pin(provider.access_profile(call, Mode::Commit)),
        |provider, call| Box::pin(provider.access_profile(call, Mode::Preview)),
    )],
};

/// What features make of a cluster beyond its body.
pub(crate) const FEATURES: &[hooks::FeatureHooks] = &[hooks::DELETION, power::HOOKS, rotation::HOOKS];

/// `managedClusters` as the kernel sees them.
pub(crate) enum Clusters {}

/// Actions on a cluster beyond PUT, PATCH and DELETE.
pub(crate) enum Action {
    /// A [`Command`].
    Command(Decide),
    /// One profile of it, by the body.
    Reset(resets::Reset, Value),
    /// The upgrade that its channel requests.
    Upgrade,
    /// Newer node images for these pools.
    Renew(Vec<String>),
    /// That its control plane emulates nothing any more.
    Finalize,
    /// To be archived, by this rule; empty: by whoever asks.
    Archive(String),
    /// Its backup was verified: what it was asked to be archived for may be done.
    Archived,
    /// To go back to an earlier state of its data.
    Restore(RestoreSpec),
    /// To be made from another cluster's backup; where it is to be there must be none.
    Recreate {
        /// What to make, as a PUT has it.
        body: Value,
        /// From which data.
        restore: RestoreSpec,
    },
}

/// Decides about a cluster that is there. Pure.
type Decide =
    fn(&draft::Context<'_>, &draft::Name<'_>, Current<'_>) -> Result<Decision<draft::Draft>, ArmError>;

/// A POST without a body about a cluster.
pub(crate) trait Command {
    /// The last segment of its path.
    const ACTION: &'static str;
    /// What it is called as an operation.
    const NAME: &'static str;
    /// What it comes to.
    fn decide(
        context: &draft::Context<'_>,
        name: &draft::Name<'_>,
        before: Current<'_>,
    ) -> Result<Decision<draft::Draft>, ArmError>;

    /// Its row.
    const ROW: Row = Row::write(
        Verb::Action(Self::ACTION),
        Self::NAME,
        |provider, call| Box::pin(command(provider, call, Self::decide, Mode::Commit)),
        |provider, call| Box::pin(command(provider, call, Self::decide, Mode::Preview)),
    );
}

/// To go back to what was reached last.
enum Abort {}

impl Command for Abort {
    const ACTION: &'static str = "abort";
    const NAME: &'static str = requests::ABORT;

    fn decide(
        context: &draft::Context<'_>,
        name: &draft::Name<'_>,
        before: Current<'_>,
    ) -> Result<Decision<draft::Draft>, ArmError> {
        requests::abort(context, name, before).map(Decision::Write)
    }
}

async fn command(
    provider: &ContainerService,
    call: &Call,
    decide: Decide,
    mode: Mode,
) -> Result<Response, ArmError> {
    act::<Clusters>(provider, call, &Action::Command(decide), mode).await
}

async fn reset(
    provider: &ContainerService,
    call: &Call,
    decide: resets::Reset,
    mode: Mode,
) -> Result<Response, ArmError> {
    let body = call.request.body.clone();
    act::<Clusters>(provider, call, &Action::Reset(decide, body), mode).await
}

/// What decisions about a cluster go by; nothing where it is not there.
pub(crate) struct State {
    pub(crate) found: Option<StoredCluster>,
    /// Its operations that have not ended, oldest first. Only read for decisions.
    pub(crate) running: Vec<Stored<OperationRecord>>,
    /// What all clusters ask for. Only read for decisions.
    pub(crate) usage: Usage,
    /// Tenants' VNETs of the subscription. Only read for decisions.
    pub(crate) vnets: Vec<subnets::Vnet>,
    records: Vec<OperationRecord>,
    /// Nodes of the pool that is asked about. Only read for requests that name nodes.
    pub(crate) nodes: Vec<Node>,
    /// Identities that a body names.
    pub(crate) named: Named,
    /// Snapshots that a body names.
    pub(crate) snapshots: snapshots::Named,
    /// Deprecated APIs in use. Only read for upgrades to another minor release.
    uses: Vec<Use>,
    /// The node images that there are. Only read for decisions.
    images: Images,
    /// How long steps of upgrades take here. Only read for decisions.
    times: StepTimes,
    /// The keys of the named identities and snapshots, and as of when they are.
    pub(crate) named_at: BTreeMap<String, Revision>,
}

impl State {
    pub(crate) async fn read(
        provider: &ContainerService,
        at: ClusterPath<'_>,
        purpose: Purpose,
    ) -> Result<Self, ArmError> {
        let found = provider.find(at).await?;
        let (running, times) = match (&found, purpose) {
            (Some(found), Purpose::Decision) => (
                provider.running(&found.record.value).await?,
                estimates::times(&*provider.store, found.observed.as_ref()).await?,
            ),
            (None, _) => {
                // ARM's order: first the group is missing, then what is in it.
                provider.group(at).await?;
                (Vec::new(), StepTimes::default())
            }
            (Some(_), Purpose::Answer) => (Vec::new(), StepTimes::default()),
        };
        let (usage, vnets, images) = match purpose {
            Purpose::Decision => (
                Usage::read(&*provider.store).await.map_err(store_error)?,
                subnets::read(&*provider.store, at.subscription).await?,
                provider.images_for(found.as_ref().map(|found| &found.record.value)),
            ),
            Purpose::Answer => (Usage::default(), Vec::new(), Images::default()),
        };
        Ok(Self {
            found,
            usage,
            vnets,
            records: running.iter().map(|stored| stored.value.clone()).collect(),
            running,
            nodes: Vec::new(),
            named: Named::default(),
            snapshots: snapshots::Named::default(),
            uses: Vec::new(),
            images,
            times,
            named_at: BTreeMap::new(),
        })
    }

    pub(crate) fn record(&self) -> Option<&ClusterRecord> {
        self.found.as_ref().map(|found| &found.record.value)
    }

    /// The cluster as it is before the request.
    pub(crate) fn before(&self) -> Option<Current<'_>> {
        self.found.as_ref().map(|found| Current {
            record: &found.record.value,
            observed: found.observed.as_ref(),
            running: &self.records,
            times: &self.times,
        })
    }

    /// As it is to be seen after the change, where there is one.
    pub(crate) fn view<'a>(&'a self, change: Option<&'a ClusterChange>) -> Option<ClusterView<'a>> {
        let found = self.found.as_ref();
        let record = change.map(|change| &change.record).or(self.record())?;
        Some(ClusterView {
            record,
            observed: found.and_then(|found| found.observed.as_ref()),
            operation: change
                .map(|change| &change.operation)
                .or(found.and_then(|found| found.operation.as_ref())),
            pool_operations: found.map(|found| &found.pool_operations),
        })
    }

    /// What decisions go by beside requests and records.
    pub(crate) fn context<'a>(&'a self, context: &Context<'a, ProviderConfig>) -> draft::Context<'a> {
        let observed = self.found.as_ref().and_then(|found| found.observed.as_ref());
        draft::Context {
            config: context.config,
            ids: context.ids,
            now: context.now,
            principal: context.info.principal,
            api_version: context.info.api_version,
            named: &self.named,
            snapshots: &self.snapshots,
            uses: &self.uses,
            images: &self.images,
            vnets: &self.vnets,
            running: observed.and_then(|observed| observed.kubernetes_version.as_ref()?.parse().ok()),
            base_reached: observed.zip(self.record()).is_some_and(|(observed, record)| {
                observed.has_reached(&Part::Base, record.requests.generation)
            }),
            shown_stopped: self
                .record()
                .is_some_and(|record| power::is_stopped(record, observed)),
        }
    }
}

#[async_trait]
impl Resource for Clusters {
    type Provider = ContainerService;
    type State = State;
    type Change = ClusterChange;
    type Action = Action;

    async fn read(
        provider: &ContainerService,
        path: &ResourcePath,
        purpose: Purpose,
    ) -> Result<State, ArmError> {
        State::read(provider, ClusterPath::of(path)?, purpose).await
    }

    fn presence(state: &State, _: &ResourcePath) -> Presence {
        state
            .record()
            .map_or(Presence::Absent, |record| Presence::Present(cluster_etag(record)))
    }

    fn missing(_: &State, path: &ResourcePath) -> ArmError {
        match ClusterPath::of(path) {
            Ok(at) => at.not_found(),
            Err(error) => error,
        }
    }

    async fn list(
        provider: &ContainerService,
        path: &ResourcePath,
        api_version: &str,
    ) -> Result<Vec<Value>, ArmError> {
        let subscription = path.subscription.as_deref().unwrap_or_default();
        if path.resource_group.is_some() {
            provider.group(ClusterPath::of(path)?).await?;
        }
        let all = provider.all(subscription, path.resource_group.as_deref()).await?;
        Ok(all
            .iter()
            .map(|found| found.view().cluster(api_version))
            .collect())
    }

    async fn read_named(
        provider: &ContainerService,
        state: &mut State,
        mutation: Mutation<'_, Action>,
    ) -> Result<(), ArmError> {
        match mutation {
            Mutation::Put(body) => {
                provider.read_snapshots(state, body).await?;
                upgrade_guard::read(provider, state, upgrade_guard::requested(body)).await;
            }
            Mutation::Act(Action::Upgrade) => {
                let requested = state
                    .record()
                    .and_then(|record| channels::requested(provider, record));
                upgrade_guard::read(provider, state, requested).await;
            }
            Mutation::Act(Action::Finalize) => upgrade_guard::read_now(provider, state).await,
            Mutation::Act(_) | Mutation::Delete => {}
        }
        provider.read_identities(state, mutation).await
    }

    fn decide(
        context: &Context<'_, ProviderConfig>,
        state: &State,
        mutation: Mutation<'_, Action>,
    ) -> Result<Decision<ClusterChange>, ArmError> {
        let at = ClusterPath::of(context.info.path)?;
        let (name, before, own) = (at.name(), state.before(), state.context(context));
        let there = || before.ok_or_else(|| at.not_found());
        let decision = match mutation {
            Mutation::Put(body) => match put::put(&own, &name, state.record(), body)? {
                draft if draft.is_so(before) => Decision::Unchanged,
                draft => Decision::Write(draft),
            },
            Mutation::Delete => {
                let Some(before) = before else {
                    return Ok(Decision::Unchanged);
                };
                let deletion = before.running.iter().find(|operation| operation.deletes);
                match deletion.filter(|_| before.record.deleting) {
                    Some(deletion) => Decision::InProgress(deletion.id.clone()),
                    None => Decision::Write(change::delete(&own, &name, before.record)?),
                }
            }
            Mutation::Act(Action::Command(decide)) => decide(&own, &name, there()?)?,
            Mutation::Act(Action::Reset(decide, body)) => decide(&own, &name, there()?, body)?,
            Mutation::Act(Action::Upgrade) => channels::upgrade(&own, &name, there()?)?,
            Mutation::Act(Action::Finalize) => soak::finalize(&own, &name, there()?)?,
            Mutation::Act(Action::Renew(pools)) => {
                Decision::Write(channels::renew(&own, &name, there()?, pools)?)
            }
            Mutation::Act(Action::Archive(rule)) => archive::ask(&own, &name, there()?, rule)?,
            Mutation::Act(Action::Archived) => archive::verified(&own, &name, there()?)?,
            Mutation::Act(Action::Restore(restore)) => {
                Decision::Write(change::restore(&own, &name, there()?.record, restore)?)
            }
            Mutation::Act(Action::Recreate { body, restore }) => {
                Decision::Write(recreate::decide(&own, &name, state.record(), body, restore)?)
            }
        };
        let draft = match decision {
            Decision::Write(draft) => draft,
            Decision::InProgress(operation) => return Ok(Decision::InProgress(operation)),
            Decision::Unchanged => return Ok(Decision::Unchanged),
        };
        let change = draft.follow(before)?;
        admission::admit(own.config, state, &change, body::POOLS)?;
        Ok(Decision::Write(change))
    }

    async fn transaction(
        provider: &ContainerService,
        info: &RequestInfo<'_>,
        state: &State,
        change: &ClusterChange,
    ) -> Result<Txn, ArmError> {
        provider
            .transaction(ClusterPath::of(info.path)?, state, change)
            .await
    }

    fn render(state: &State, change: Option<&ClusterChange>, _: &ResourcePath, api_version: &str) -> Value {
        state
            .view(change)
            .map_or(Value::Null, |view| view.cluster(api_version))
    }

    fn operation(change: &ClusterChange) -> Option<&str> {
        Some(&change.operation.id)
    }
}

#[async_trait]
impl Shown for Clusters {
    async fn paths(provider: &ContainerService, path: &ResourcePath) -> Result<Vec<ResourcePath>, ArmError> {
        let subscription = path.subscription.as_deref().unwrap_or_default();
        if path.resource_group.is_some() {
            provider.group(ClusterPath::of(path)?).await?;
        }
        let (group, store) = (path.resource_group.as_deref(), &*provider.store);
        let places = directory::cluster_places(store, subscription, group).await;
        let at = |(group, cluster): &(String, String)| {
            let child = "";
            ClusterPath {
                subscription,
                group,
                cluster,
                child,
            }
            .path()
        };
        Ok(places.map_err(store_error)?.iter().map(at).collect())
    }
}

impl Tagged for Clusters {
    fn tags(state: &State) -> Option<Tags> {
        state.record().map(change::tags_of)
    }

    fn decide_tags(
        context: &Context<'_, ProviderConfig>,
        state: &State,
        tags: Tags,
    ) -> Result<Decision<ClusterChange>, ArmError> {
        let at = ClusterPath::of(context.info.path)?;
        let before = state.before().ok_or_else(|| at.not_found())?;
        let draft = change::tags(&state.context(context), &at.name(), before.record, tags)?;
        Ok(Decision::Write(draft.follow(Some(before))?))
    }
}

impl ContainerService {
    /// The lines of clusters in lists of resources.
    async fn summaries(&self, subscription: &str, group: Option<&str>) -> Result<Vec<Value>, ArmError> {
        let all = self.all(subscription, group).await?;
        Ok(all.iter().map(|found| found.view().summary()).collect())
    }
}
