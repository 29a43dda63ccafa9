//! A provider as the edge sees it: its types erased to routes.

use std::sync::Arc;

use arm_ids::ResourcePath;
use arm_wire::{ArmError, ErrorCode, Response};
use async_trait::async_trait;
use serde_json::Value;

use crate::{
    Call, Gate, Mode, Query, TagsWish,
    kept::Text,
    list::{Items, Listed, check_query, page, text_page},
    request::scope_of,
    types::{Handler, Operation, OperationResult, ResourceType, Run, Scope, Tell, Verb},
};

/// The trait that a provider's crate implements: its namespace and its list of types.
pub trait Namespace: Sized + Send + Sync + 'static {
    /// E.g. `Microsoft.ContainerService`.
    const NAME: &'static str;
    /// Its resource types.
    const TYPES: &'static [&'static ResourceType<Self>];
}

/// An operation, without the provider's type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The type below the namespace.
    pub path: &'static str,
    /// The verb.
    pub verb: Verb,
    /// Where.
    pub scope: Scope,
    /// Its name in the API specification.
    pub name: &'static str,
    /// Whether it is implemented, or answers 501.
    pub works: bool,
    /// The api-versions that have it, newest first.
    pub versions: &'static [&'static str],
    /// The result of a long-running operation of this name.
    pub result: OperationResult,
    /// The `$` parameters that its query may have.
    pub query: Query,
    /// Which callers may use it.
    pub gate: Gate,
    /// Whether its responses are cached as text, see [`Provider::tell`].
    pub told: bool,
    permission: String,
    /// Its place in [`Namespace::TYPES`].
    place: (usize, usize),
}

impl Route {
    /// The action that the caller must be allowed, as roles name it.
    pub fn action(&self) -> &str {
        &self.permission
    }

    /// The action that the caller must be allowed for a request to `path`.
    pub fn permission(&self, path: &ResourcePath) -> String {
        if !self.permission.contains('{') {
            return self.permission.clone();
        }
        let namespace = path.namespace.as_deref().unwrap_or_default();
        self.permission.replace("{namespace}", namespace)
    }
}

/// An ARM resource provider. Every [`Namespace`] is one.
#[async_trait]
pub trait Provider: Send + Sync + 'static {
    /// Its namespace, e.g. `Microsoft.ContainerService`.
    fn namespace(&self) -> &'static str;
    /// Its routes.
    fn routes(&self) -> Vec<Route>;
    /// Serves a call of one of its routes.
    async fn handle(&self, route: &Route, call: &Call) -> Result<Response, ArmError>;
    /// The text of the 200 response of [`Self::handle`] to a call that reads; `None` for a route without a
    /// cache.
    async fn tell(&self, _: &Route, _: &Call) -> Result<Option<Arc<Text>>, ArmError> {
        Ok(None)
    }
    /// The response that [`Self::handle`] would give, without any effect. `OperationNotAllowed` for
    /// operations that change nothing.
    async fn preview(&self, route: &Route, call: &Call) -> Result<Response, ArmError>;
    /// Reads or changes the tags of the resource at the call's path, of which `route` is any operation.
    async fn tags(
        &self,
        route: &Route,
        call: &Call,
        wish: &TagsWish,
        mode: Mode,
    ) -> Result<Response, ArmError>;
    /// The resources of a subscription, or of one group of it, for `/resources`.
    async fn resources(&self, subscription: &str, group: Option<&str>) -> Result<Vec<Value>, ArmError>;
    /// Starts deleting all its resources of a resource group. Gives the number of those that still exist.
    async fn delete_resource_group(&self, subscription: &str, group: &str) -> Result<usize, ArmError>;
}

/// The response of an operation that is not implemented.
fn not_yet(name: &'static str) -> ArmError {
    ArmError::new(
        ErrorCode::NOT_IMPLEMENTED,
        format!("The operation '{name}' is part of the API and not there yet in Landfall."),
    )
    .target(name)
}

fn row<P: Namespace>(route: &Route) -> Result<&'static Operation<P>, ArmError> {
    let (kind, operation) = route.place;
    P::TYPES
        .get(kind)
        .and_then(|kind| kind.operations.get(operation))
        .filter(|row| row.name == route.name)
        .ok_or_else(|| ArmError::internal(format_args!("{} has no row {}", P::NAME, route.name)))
}

fn route<P: Namespace>(kind: &ResourceType<P>, row: &Operation<P>, place: (usize, usize)) -> Route {
    let (namespace, path) = (P::NAME, kind.path);
    let permission = match (row.permission, row.verb) {
        (Some(permission), _) => permission.to_owned(),
        (None, Verb::Get | Verb::Exists | Verb::List | Verb::Ask) => format!("{namespace}/{path}/read"),
        (None, Verb::Put | Verb::Patch) => format!("{namespace}/{path}/write"),
        (None, Verb::Delete) => format!("{namespace}/{path}/delete"),
        (None, Verb::Action(action)) => format!("{namespace}/{path}/{action}/action"),
    };
    Route {
        path,
        verb: row.verb,
        scope: row.scope,
        name: row.name,
        works: !matches!(row.handler, Handler::NotYet),
        versions: since(kind.versions, row.since),
        result: row.result,
        query: row.query,
        gate: row.gate,
        told: row.tell.is_some(),
        permission,
        place,
    }
}

/// The api-versions, newest first, from the one on that has it.
fn since(versions: &'static [&'static str], first: Option<&str>) -> &'static [&'static str] {
    // Versions are dates, so they compare as texts.
    let count = versions
        .iter()
        .take_while(|version| first.is_none_or(|first| **version >= first));
    &versions[..count.count()]
}

/// The items of a list that its caller may see.
async fn shown<T: Listed>(route: &Route, call: &Call, items: Items<T>) -> Result<Items<T>, ArmError> {
    match route.gate {
        Gate::Action | Gate::Anybody | Gate::Reaches => Ok(items),
        Gate::Items | Gate::ItemsByType | Gate::ItemsReached => {
            let scope = scope_of(&call.request.path);
            // Permission at this scope includes all scopes below.
            if route.gate == Gate::Items && call.may(route.action(), &scope).await? {
                return Ok(items);
            }
            match items {
                Items::ById(items) => {
                    let mut shown = Vec::with_capacity(items.len());
                    for item in items {
                        if visible(route, call, item.facts()).await? {
                            shown.push(item);
                        }
                    }
                    Ok(Items::ById(shown))
                }
                Items::Keyed(items) => {
                    let mut shown = Vec::with_capacity(items.len());
                    for (key, item) in items {
                        if visible(route, call, item.facts()).await? {
                            shown.push((key, item));
                        }
                    }
                    Ok(Items::Keyed(shown))
                }
            }
        }
    }
}

async fn visible(route: &Route, call: &Call, item: &Value) -> Result<bool, ArmError> {
    let text = |member: &str| item[member].as_str().unwrap_or_default();
    // An item without a valid id is shown to no caller.
    let Ok(scope) = ResourcePath::parse(text("id")) else {
        return Ok(false);
    };
    if scope == ResourcePath::default() {
        return Ok(false);
    }
    match route.gate {
        Gate::ItemsReached => call.reaches(&scope).await,
        Gate::ItemsByType => call.may(&format!("{}/read", text("type")), &scope).await,
        Gate::Items | Gate::Action | Gate::Anybody | Gate::Reaches => call.may(route.action(), &scope).await,
    }
}

/// The routes of a namespace, without an instance of its provider: for pages that are generated.
pub fn routes<P: Namespace>() -> Vec<Route> {
    P::TYPES
        .iter()
        .enumerate()
        .flat_map(|(index, kind)| {
            let rows = kind.operations.iter().enumerate();
            rows.map(move |(row, operation)| route(kind, operation, (index, row)))
        })
        .collect()
}

#[async_trait]
impl<P: Namespace> Provider for P {
    fn namespace(&self) -> &'static str {
        P::NAME
    }

    fn routes(&self) -> Vec<Route> {
        routes::<P>()
    }

    async fn handle(&self, route: &Route, call: &Call) -> Result<Response, ArmError> {
        let row = row::<P>(route)?;
        let run: Run<P> = match row.handler {
            Handler::Read(run) | Handler::Write { commit: run, .. } => run,
            Handler::List(list) => {
                check_query(&call.request, row.name, row.query, true)?;
                let items = shown(route, call, list(self, call).await?).await?;
                return page(&call.request, row.query, items);
            }
            Handler::NotYet => return Err(not_yet(route.name)),
        };
        check_query(&call.request, row.name, row.query, false)?;
        run(self, call).await
    }

    async fn tell(&self, route: &Route, call: &Call) -> Result<Option<Arc<Text>>, ArmError> {
        let row = row::<P>(route)?;
        let Some(tell) = &row.tell else { return Ok(None) };
        let request = &call.request;
        let list = matches!(tell, Tell::All(_));
        check_query(request, row.name, row.query, list)?;
        let version = route.versions.iter().find(|own| **own == request.api_version);
        let Some(version) = version.copied() else {
            return Ok(None);
        };
        match tell {
            Tell::One(tell) => tell(self, call, version).await.map(Some),
            Tell::All(tell) => {
                let items = Items::ById(tell(self, call, version).await?);
                let items = shown(route, call, items).await?;
                text_page(request, row.query, items).map(|page| Some(Arc::new(page)))
            }
        }
    }

    async fn preview(&self, route: &Route, call: &Call) -> Result<Response, ArmError> {
        let row = row::<P>(route)?;
        let run: Run<P> = match row.handler {
            Handler::Write { preview, .. } => preview,
            Handler::NotYet => return Err(not_yet(route.name)),
            Handler::Read(_) | Handler::List(_) => {
                let message = format!("'{}' changes nothing: there is nothing to preview.", route.name);
                return Err(ArmError::new(ErrorCode::OPERATION_NOT_ALLOWED, message));
            }
        };
        check_query(&call.request, row.name, row.query, false)?;
        run(self, call).await
    }

    async fn tags(
        &self,
        route: &Route,
        call: &Call,
        wish: &TagsWish,
        mode: Mode,
    ) -> Result<Response, ArmError> {
        let kind = P::TYPES.get(route.place.0);
        let run = kind.and_then(|kind| kind.operations.iter().find_map(|row| row.tags));
        let run = run.ok_or_else(|| {
            let message = format!("Resources of the type '{}/{}' have no tags.", P::NAME, route.path);
            ArmError::new(ErrorCode::OPERATION_NOT_ALLOWED, message)
        })?;
        run(self, call, wish, mode).await
    }

    async fn resources(&self, subscription: &str, group: Option<&str>) -> Result<Vec<Value>, ArmError> {
        let mut all = Vec::new();
        for members in P::TYPES.iter().filter_map(|kind| kind.members.as_ref()) {
            all.extend((members.list)(self, subscription, group).await?);
        }
        Ok(all)
    }

    async fn delete_resource_group(&self, subscription: &str, group: &str) -> Result<usize, ArmError> {
        let mut left = 0_usize;
        for members in P::TYPES.iter().filter_map(|kind| kind.members.as_ref()) {
            left = left.saturating_add((members.delete)(self, subscription, group).await?);
        }
        Ok(left)
    }
}
