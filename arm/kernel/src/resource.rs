//! Reading and writing of resources: what is the same for all of them.
//!
//! A write is read → preconditions → decide → transaction, again from the start where somebody else was faster. Everything up to the
//! transaction can be had without it: that is the preview.

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

/// How often a decision is made again because the records changed meanwhile. A few writers at most compete for a resource.
const MAX_ATTEMPTS: usize = 16;

/// A provider whose resources are kept in the store.
pub trait Host: Namespace {
    /// What decisions go by beside requests and records.
    type Config: Send + Sync;
    /// See [`Self::Config`].
    fn config(&self) -> &Self::Config;
    /// Clock and identities.
    fn env(&self) -> &Env;
    /// Where records are.
    fn store(&self) -> &dyn Store;
    /// The region, which long-running operations are asked for at.
    fn location(&self) -> &str;
    /// Where writes that have met at the same record wait for each other: those of a provider of which many change one record besides their
    /// own. Without it, the last of many would lose each time.
    fn turn(&self) -> Option<&Mutex<()>> {
        None
    }
}

/// What is asked of a resource.
#[derive(Debug)]
pub enum Mutation<'a, A> {
    /// To be this.
    Put(&'a Value),
    /// To go.
    Delete,
    /// Something of the type's own.
    Act(&'a A),
}

impl<A> Clone for Mutation<'_, A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A> Copy for Mutation<'_, A> {}

/// What a decision goes by beside the resource's state. Decisions are pure.
pub struct Context<'a, C> {
    /// The provider's configuration.
    pub config: &'a C,
    /// What is asked.
    pub info: RequestInfo<'a>,
    /// Identities for what is new.
    pub ids: &'a dyn Ids,
    /// When.
    pub now: Timestamp,
}

/// What a state is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To be shown.
    Answer,
    /// To be decided about: then also what a decision about it may end or overtake.
    Decision,
}

/// Whether a resource is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    /// It is, with this eTag.
    Present(String),
    /// It was deleted and is still to be seen until it is gone.
    Deleting,
    /// It is not.
    Absent,
}

/// What a mutation comes to.
#[derive(Debug)]
pub enum Decision<C> {
    /// This is to be written.
    Write(C),
    /// It was asked for before: this operation does it.
    InProgress(String),
    /// It is so already.
    Unchanged,
}

/// A type whose resources the kernel reads and writes.
#[async_trait]
pub trait Resource: Send + Sync + 'static {
    /// Whose it is.
    type Provider: Host;
    /// A resource with all that decisions and answers about it go by.
    type State: Send + Sync;
    /// What is written.
    type Change: Send + Sync;
    /// Mutations beyond PUT, DELETE and PATCH of tags ([`crate::Tagged`]).
    type Action: Send + Sync;

    /// Reads. An error says that something is missing which it hangs on: its group, its parent.
    async fn read(
        provider: &Self::Provider,
        path: &ResourcePath,
        purpose: Purpose,
    ) -> Result<Self::State, ArmError>;

    /// Whether it is there.
    fn presence(state: &Self::State, path: &ResourcePath) -> Presence;

    /// Whether it could be made: its parent is there. Asked of a PUT before anything else.
    fn creatable(_: &Self::State, _: &ResourcePath) -> Result<(), ArmError> {
        Ok(())
    }

    /// What a request is answered that needs it to be there.
    fn missing(state: &Self::State, path: &ResourcePath) -> ArmError;

    /// All below a collection's path, rendered. An error says that what they hang on is missing.
    async fn list(
        provider: &Self::Provider,
        path: &ResourcePath,
        api_version: &str,
    ) -> Result<Vec<Value>, ArmError>;

    /// Reads into the state what a mutation names beside the path: other resources in a body. Before each decision.
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

    /// The change as a transaction that fails where `state` is no longer true. Reads what the decision turns out to touch, and may
    /// refuse because of it; writes nothing.
    async fn transaction(
        provider: &Self::Provider,
        info: &RequestInfo<'_>,
        state: &Self::State,
        change: &Self::Change,
    ) -> Result<Txn, ArmError>;

    /// As ARM shows it, after the change where there is one.
    fn render(
        state: &Self::State,
        change: Option<&Self::Change>,
        path: &ResourcePath,
        api_version: &str,
    ) -> Value;

    /// The long-running operation that carries the change out; `None` where it is done once it is written.
    fn operation(change: &Self::Change) -> Option<&str>;
}

/// A decision and what it went by.
pub struct Written<R: Resource> {
    /// The state before.
    pub state: R::State,
    /// What was decided, and written unless it was a preview.
    pub decision: Decision<R::Change>,
}

/// What of the store's faults is the caller's to know.
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
    /// It may make the resource.
    Put,
    /// The resource has to be there.
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

/// Decides and, in [`Mode::Commit`], writes; again where the records changed meanwhile.
///
/// # Errors
/// What reading, preconditions, decision or transaction refuse; `ServiceUnavailable` when the records keep changing.
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

/// [`write`], where `decide` decides about `mutation`, or about something that names nothing.
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
/// When it is not there.
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
/// When it is not there.
async fn exists<R: Resource>(provider: &R::Provider, call: &Call) -> Result<Response, ArmError> {
    get::<R>(provider, call).await?;
    Ok(Response::empty(StatusCode::NO_CONTENT))
}

/// All items below a collection's path.
///
/// # Errors
/// When what they hang on is not there.
async fn list<R: Resource>(provider: &R::Provider, call: &Call) -> Result<Items, ArmError> {
    let request = &call.request;
    let all = R::list(provider, &request.path, &request.api_version).await?;
    Ok(all.into())
}

/// PUT: 201 for a new resource, 200 for one that was there.
///
/// # Errors
/// What [`write`] refuses.
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

/// DELETE: 202 where an operation does it, 200 where it is done, 204 where there is nothing.
///
/// # Errors
/// What [`write`] refuses.
pub async fn delete<R: Resource>(
    provider: &R::Provider,
    call: &Call,
    mode: Mode,
) -> Result<Response, ArmError> {
    let request = &call.request;
    let written = write::<R>(provider, &RequestInfo::of(request), Mutation::Delete, mode).await?;
    Ok(written.accepted(provider, request, StatusCode::OK))
}

/// POST of an action of the type's own: 202 where an operation does it, 204 where it is done.
///
/// # Errors
/// What [`write`] refuses; when the resource is not there.
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

/// Deletes each of these for its last editor, as a part of the deletion of what holds them. Gives how many are still there.
///
/// # Errors
/// The first that is refused.
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

    /// The answer with the resource in it.
    pub(crate) fn changed(&self, provider: &R::Provider, request: &Request, status: StatusCode) -> Response {
        let change = match &self.decision {
            Decision::Write(change) => Some(change),
            Decision::InProgress(_) | Decision::Unchanged => None,
        };
        let body = R::render(&self.state, change, &request.path, &request.api_version);
        self.follow(provider, request, Response::with(status, body), false)
    }

    /// The answer without: `done` where nothing is left to do.
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

    /// GET of one whose answers are kept.
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

    /// GET of all, of which the answers are kept.
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

    /// HEAD of one: 204 where it is there.
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
