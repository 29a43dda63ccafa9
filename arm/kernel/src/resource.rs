//! Reading and writing of resources: the part common to all of them.
//!
//! A write is read → preconditions → decide → transaction, again from the start after a conflict with another
//! writer. The steps before the transaction alone are the preview.

use arm_ids::ResourcePath;
use arm_wire::{ArmError, ErrorCode, Principal, Request, Response, Trace};
use async_trait::async_trait;
use base_env::{Env, Ids};
use control_store::{Store, StoreError, Txn};
use futures::lock::Mutex;
use http::StatusCode;
use jiff::Timestamp;
use serde_json::Value;

use crate::{
    Call, Mode, activity,
    kept::{self, Keeper, Shown},
    list::Items,
    preconditions::{check_change, check_put},
    provider::Namespace,
    request::RequestInfo,
    types::{Operation, Tell, Verb},
};

/// How often a decision is made again because the records changed meanwhile. At most a few writers compete
/// for a resource.
const MAX_ATTEMPTS: usize = 16;

/// A provider whose resources are kept in the store.
pub trait Host: Namespace {
    /// Configuration that decisions depend on, beside requests and records.
    type Config: Send + Sync;
    /// See [`Self::Config`].
    fn config(&self) -> &Self::Config;
    /// Clock and identities.
    fn env(&self) -> &Env;
    /// The store of its records.
    fn store(&self) -> &dyn Store;
    /// The region, which is part of the URLs of long-running operations.
    fn location(&self) -> &str;
    /// A mutex for writes that conflicted on the same record: for providers with many changes that write one
    /// common record. Without it, one of many writers would lose each time.
    fn turn(&self) -> Option<&Mutex<()>> {
        None
    }
}

/// A requested change of a resource.
#[derive(Debug)]
pub enum Mutation<'a, A> {
    /// PUT with this body.
    Put(&'a Value),
    /// DELETE.
    Delete,
    /// An action of the type.
    Act(&'a A),
}

impl<A> Clone for Mutation<'_, A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A> Copy for Mutation<'_, A> {}

/// The inputs of a decision beside the resource's state. Decisions are pure.
pub struct Context<'a, C> {
    /// The provider's configuration.
    pub config: &'a C,
    /// The request.
    pub info: RequestInfo<'a>,
    /// Source of ids for new resources.
    pub ids: &'a dyn Ids,
    /// When.
    pub now: Timestamp,
}

/// The purpose of reading a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// For a response.
    Answer,
    /// For a decision: includes the operations that the decision may end or supersede.
    Decision,
}

/// Whether a resource exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    /// It exists, with this eTag.
    Present(String),
    /// Its deletion is in progress; it is shown until it is gone.
    Deleting,
    /// It does not exist.
    Absent,
}

/// The outcome of a decision.
#[derive(Debug)]
pub enum Decision<C> {
    /// The change is to be written.
    Write(C),
    /// An earlier request already has this effect: its operation.
    InProgress(String),
    /// The state is as requested already.
    Unchanged,
}

/// A type whose resources the kernel reads and writes.
#[async_trait]
pub trait Resource: Send + Sync + 'static {
    /// Its provider.
    type Provider: Host;
    /// A resource with all the data that decisions and responses need.
    type State: Send + Sync;
    /// The change to be written.
    type Change: Send + Sync;
    /// Mutations beyond PUT, DELETE and PATCH of tags ([`crate::Tagged`]).
    type Action: Send + Sync;

    /// Reads. Fails where its group or parent does not exist.
    async fn read(
        provider: &Self::Provider,
        path: &ResourcePath,
        purpose: Purpose,
    ) -> Result<Self::State, ArmError>;

    /// Whether it exists.
    fn presence(state: &Self::State, path: &ResourcePath) -> Presence;

    /// Whether it could be made: its parent exists. Checked first for a PUT.
    fn creatable(_: &Self::State, _: &ResourcePath) -> Result<(), ArmError> {
        Ok(())
    }

    /// The error of a request that needs the resource to exist.
    fn missing(state: &Self::State, path: &ResourcePath) -> ArmError;

    /// All resources of a collection, rendered. Fails where their parent does not exist.
    async fn list(
        provider: &Self::Provider,
        path: &ResourcePath,
        api_version: &str,
    ) -> Result<Vec<Value>, ArmError>;

    /// Adds to the state the other resources that a mutation's body names. Called before each decision.
    async fn read_named(
        _: &Self::Provider,
        _: &mut Self::State,
        _: Mutation<'_, Self::Action>,
    ) -> Result<(), ArmError> {
        Ok(())
    }

    /// Decides. Pure.
    fn decide(
        context: &Context<'_, <Self::Provider as Host>::Config>,
        state: &Self::State,
        mutation: Mutation<'_, Self::Action>,
    ) -> Result<Decision<Self::Change>, ArmError>;

    /// The change as a transaction that fails where `state` is outdated. Reads the records that the decision
    /// affects, and may refuse because of them; writes nothing.
    async fn transaction(
        provider: &Self::Provider,
        info: &RequestInfo<'_>,
        state: &Self::State,
        change: &Self::Change,
    ) -> Result<Txn, ArmError>;

    /// The resource as ARM shows it, after the change where there is one.
    fn render(
        state: &Self::State,
        change: Option<&Self::Change>,
        path: &ResourcePath,
        api_version: &str,
    ) -> Value;

    /// The long-running operation that carries the change out; `None` where it is done once it is written.
    fn operation(change: &Self::Change) -> Option<&str>;
}

/// A decision and its inputs.
pub struct Written<R: Resource> {
    /// The state before.
    pub state: R::State,
    /// The decision, committed unless it was a preview.
    pub decision: Decision<R::Change>,
}

/// The ARM error of a store error; internal details are only logged.
pub fn store_error(error: StoreError) -> ArmError {
    match error {
        StoreError::Conflict { key } => {
            let mut busy = ArmError::new(
                ErrorCode::SERVICE_UNAVAILABLE,
                "The resource is being changed by many requests at once; repeat the request.",
            );
            busy.internal = Some(format!("{key} kept changing"));
            busy
        }
        other => ArmError::internal(other),
    }
}

/// Which preconditions a change has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It may create the resource.
    Put,
    /// The resource has to exist.
    Patch,
    /// It may be gone already.
    Delete,
    /// No preconditions.
    Act,
}

fn preconditions(info: &RequestInfo<'_>, presence: &Presence, kind: Kind) -> Result<(), ArmError> {
    let present = match presence {
        Presence::Present(etag) => Some(etag.as_str()),
        Presence::Deleting | Presence::Absent => None,
    };
    match (kind, present) {
        (Kind::Put, present) => check_put(info, present),
        (Kind::Patch | Kind::Delete, Some(present)) => check_change(info, present),
        (Kind::Patch | Kind::Delete, None) | (Kind::Act, _) => Ok(()),
    }
}

/// Decides and, in [`Mode::Commit`], writes; decides again where the records changed meanwhile.
///
/// # Errors
/// Errors of reading, preconditions, decision or transaction; `ServiceUnavailable` when the records keep
/// changing.
pub async fn write<R: Resource>(
    provider: &R::Provider,
    info: &RequestInfo<'_>,
    mutation: Mutation<'_, R::Action>,
    mode: Mode,
) -> Result<Written<R>, ArmError> {
    let kind = match mutation {
        Mutation::Put(_) => Kind::Put,
        Mutation::Delete => Kind::Delete,
        Mutation::Act(_) => Kind::Act,
    };
    write_with(provider, info, kind, Some(mutation), mode, &|context, state| {
        R::decide(context, state, mutation)
    })
    .await
}

/// How a change is decided.
type Decide<'a, R> = dyn Fn(
        &Context<'_, <<R as Resource>::Provider as Host>::Config>,
        &<R as Resource>::State,
    ) -> Result<Decision<<R as Resource>::Change>, ArmError>
    + Send
    + Sync
    + 'a;

/// [`write`] with a function that decides, for a mutation that names other resources, or none.
pub(crate) async fn write_with<R: Resource>(
    provider: &R::Provider,
    info: &RequestInfo<'_>,
    kind: Kind,
    mutation: Option<Mutation<'_, R::Action>>,
    mode: Mode,
    decide: &Decide<'_, R>,
) -> Result<Written<R>, ArmError> {
    let mut attempt = 1;
    let mut turn = None;
    loop {
        let mut state = R::read(provider, info.path, Purpose::Decision).await?;
        let presence = R::presence(&state, info.path);
        if kind == Kind::Put {
            R::creatable(&state, info.path)?;
        }
        preconditions(info, &presence, kind)?;
        if kind == Kind::Patch && !matches!(presence, Presence::Present(_)) {
            return Err(R::missing(&state, info.path));
        }
        if let Some(mutation) = mutation {
            R::read_named(provider, &mut state, mutation).await?;
        }
        let context = Context {
            config: provider.config(),
            info: *info,
            ids: &*provider.env().ids,
            now: provider.env().clock.now(),
        };
        let decision = decide(&context, &state)?;
        if let Decision::Write(change) = &decision {
            let mut txn = R::transaction(provider, info, &state, change).await?;
            if mode == Mode::Commit {
                txn.ops
                    .extend(activity::changed(info, R::operation(change), context.now));
                match provider.store().txn(txn).await {
                    Ok(_) => info.trace.into_iter().for_each(Trace::log),
                    Err(StoreError::Conflict { .. }) if attempt < MAX_ATTEMPTS => {
                        attempt += 1;
                        if let (None, Some(turns)) = (&turn, provider.turn()) {
                            turn = Some(turns.lock().await);
                        }
                        continue;
                    }
                    Err(error) => return Err(store_error(error)),
                }
            }
        }
        return Ok(Written { state, decision });
    }
}

/// GET of one.
///
/// # Errors
/// When it does not exist.
pub async fn get<R: Resource>(provider: &R::Provider, call: &Call) -> Result<Response, ArmError> {
    let request = &call.request;
    let state = R::read(provider, &request.path, Purpose::Answer).await?;
    match R::presence(&state, &request.path) {
        Presence::Present(_) | Presence::Deleting => {
            let body = R::render(&state, None, &request.path, &request.api_version);
            Ok(Response::ok(body))
        }
        Presence::Absent => Err(R::missing(&state, &request.path)),
    }
}

/// HEAD of one.
///
/// # Errors
/// When it does not exist.
async fn exists<R: Resource>(provider: &R::Provider, call: &Call) -> Result<Response, ArmError> {
    get::<R>(provider, call).await?;
    Ok(Response::empty(StatusCode::NO_CONTENT))
}

/// All items of a collection.
///
/// # Errors
/// When their parent does not exist.
async fn list<R: Resource>(provider: &R::Provider, call: &Call) -> Result<Items, ArmError> {
    let request = &call.request;
    let all = R::list(provider, &request.path, &request.api_version).await?;
    Ok(all.into())
}

/// PUT: 201 for a new resource, 200 for one that was there.
///
/// # Errors
/// Those of [`write`].
pub async fn put<R: Resource>(provider: &R::Provider, call: &Call, mode: Mode) -> Result<Response, ArmError> {
    let request = &call.request;
    let written = write::<R>(
        provider,
        &RequestInfo::of(request),
        Mutation::Put(&request.body),
        mode,
    )
    .await?;
    let status = match R::presence(&written.state, &request.path) {
        Presence::Present(_) => StatusCode::OK,
        Presence::Deleting | Presence::Absent => StatusCode::CREATED,
    };
    Ok(written.changed(provider, request, status))
}

/// DELETE: 202 where an operation does it, 200 where it is done, 204 where the resource does not exist.
///
/// # Errors
/// Those of [`write`].
pub async fn delete<R: Resource>(
    provider: &R::Provider,
    call: &Call,
    mode: Mode,
) -> Result<Response, ArmError> {
    let request = &call.request;
    let written = write::<R>(provider, &RequestInfo::of(request), Mutation::Delete, mode).await?;
    Ok(written.accepted(provider, request, StatusCode::OK))
}

/// POST of an action: 202 where an operation does it, 204 where it is done.
///
/// # Errors
/// Those of [`write`]; when the resource does not exist.
pub async fn act<R: Resource>(
    provider: &R::Provider,
    call: &Call,
    action: &R::Action,
    mode: Mode,
) -> Result<Response, ArmError> {
    let request = &call.request;
    let written = write::<R>(provider, &RequestInfo::of(request), Mutation::Act(action), mode).await?;
    Ok(written.accepted(provider, request, StatusCode::NO_CONTENT))
}

/// Deletes each of these in the name of its last editor, as a part of the deletion of their parent. Gives the
/// number of those that still exist.
///
/// # Errors
/// The first refusal.
pub async fn delete_each<R: Resource>(
    provider: &R::Provider,
    each: &[(ResourcePath, Principal)],
    api_version: &str,
) -> Result<usize, ArmError> {
    let mut left = 0;
    for (path, principal) in each {
        let info = RequestInfo {
            path,
            principal,
            api_version,
            if_match: None,
            if_none_match: None,
            trace: None,
        };
        let written = write::<R>(provider, &info, Mutation::Delete, Mode::Commit).await?;
        if !matches!(written.decision, Decision::Unchanged) {
            left += 1;
        }
    }
    Ok(left)
}

impl<R: Resource> Written<R> {
    /// The operation that carries it out.
    pub fn operation(&self) -> Option<&str> {
        match &self.decision {
            Decision::Write(change) => R::operation(change),
            Decision::InProgress(operation) => Some(operation),
            Decision::Unchanged => None,
        }
    }

    /// With the headers of the operation that carries it out.
    pub(crate) fn follow(
        &self,
        provider: &R::Provider,
        request: &Request,
        response: Response,
        location: bool,
    ) -> Response {
        let Some(operation) = self.operation() else {
            return response;
        };
        let subscription = request.path.subscription.as_deref().unwrap_or_default();
        let namespace = R::Provider::NAME;
        response.operation(
            request,
            namespace,
            subscription,
            provider.location(),
            operation,
            location,
        )
    }

    /// The response with the resource in it.
    pub(crate) fn changed(&self, provider: &R::Provider, request: &Request, status: StatusCode) -> Response {
        let change = match &self.decision {
            Decision::Write(change) => Some(change),
            Decision::InProgress(_) | Decision::Unchanged => None,
        };
        let body = R::render(&self.state, change, &request.path, &request.api_version);
        self.follow(provider, request, Response::with(status, body), false)
    }

    /// The response without the resource: `done` where no work is left.
    fn accepted(&self, provider: &R::Provider, request: &Request, done: StatusCode) -> Response {
        let status = match (&self.decision, self.operation()) {
            (Decision::Unchanged, _) => StatusCode::NO_CONTENT,
            (_, Some(_)) => StatusCode::ACCEPTED,
            (_, None) => done,
        };
        self.follow(provider, request, Response::empty(status), true)
    }
}

/// Rows of types that the kernel reads and writes.
impl<P: Host> Operation<P> {
    /// GET of one.
    pub const fn get<R: Resource<Provider = P>>(name: &'static str) -> Self {
        Self::read(Verb::Get, name, |provider, call| {
            Box::pin(get::<R>(provider, call))
        })
    }

    /// GET of a resource with cached responses.
    pub const fn get_kept<R: Shown<Provider = P>>(name: &'static str) -> Self
    where
        P: Keeper,
    {
        let mut row = Self::get::<R>(name);
        row.tell = Some(Tell::One(|provider, call, api_version| {
            Box::pin(kept::one::<R>(provider, &call.request.path, api_version))
        }));
        row
    }

    /// GET of a list with cached responses.
    pub const fn list_kept<R: Shown<Provider = P>>(name: &'static str) -> Self
    where
        P: Keeper,
    {
        let mut row = Self::list::<R>(name);
        row.tell = Some(Tell::All(|provider, call, api_version| {
            Box::pin(kept::all::<R>(provider, &call.request.path, api_version))
        }));
        row
    }

    /// HEAD of one: 204 if it exists.
    pub const fn exists<R: Resource<Provider = P>>(name: &'static str) -> Self {
        Self::read(Verb::Exists, name, |provider, call| {
            Box::pin(exists::<R>(provider, call))
        })
    }

    /// GET of all.
    pub const fn list<R: Resource<Provider = P>>(name: &'static str) -> Self {
        Self::items(name, |provider, call| Box::pin(list::<R>(provider, call)))
    }

    /// PUT.
    pub const fn put<R: Resource<Provider = P>>(name: &'static str) -> Self {
        Self::write(
            Verb::Put,
            name,
            |provider, call| Box::pin(put::<R>(provider, call, Mode::Commit)),
            |provider, call| Box::pin(put::<R>(provider, call, Mode::Preview)),
        )
    }

    /// DELETE.
    pub const fn delete<R: Resource<Provider = P>>(name: &'static str) -> Self {
        Self::write(
            Verb::Delete,
            name,
            |provider, call| Box::pin(delete::<R>(provider, call, Mode::Commit)),
            |provider, call| Box::pin(delete::<R>(provider, call, Mode::Preview)),
        )
    }
}
