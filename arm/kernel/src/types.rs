//! The definition of a resource type: one value, with all its operations.

use std::sync::Arc;

use arm_wire::{ArmError, Response};
use futures::future::BoxFuture;
use serde_json::Value;

use crate::{Call, Gate, Mode, Query, TagsWish, kept::Text, list::Items, schema::Schema};

/// Serves one call. In a row: `|provider, call| Box::pin(provider.get_cluster(call))`.
pub type Run<P> = for<'a> fn(&'a P, &'a Call) -> BoxFuture<'a, Result<Response, ArmError>>;

/// Gives all items of a list; the kernel filters them and makes pages of them.
pub type List<P> = for<'a> fn(&'a P, &'a Call) -> BoxFuture<'a, Result<Items, ArmError>>;

/// Gives the text of one response, or of all items of a list, in an api-version.
pub type Told<P, T> = for<'a> fn(&'a P, &'a Call, &'static str) -> BoxFuture<'a, Result<T, ArmError>>;

/// Reads or changes the tags of the resource at a call's path, for the tags API.
pub type RunTags<P> =
    for<'a> fn(&'a P, &'a Call, &'a TagsWish, Mode) -> BoxFuture<'a, Result<Response, ArmError>>;

/// Lists resources of a subscription, or of one resource group of it.
pub type ListMembers<P> =
    for<'a> fn(&'a P, &'a str, Option<&'a str>) -> BoxFuture<'a, Result<Vec<Value>, ArmError>>;

/// Deletes the resources of a subscription's resource group; gives how many are still there.
pub type DeleteMembers<P> = for<'a> fn(&'a P, &'a str, &'a str) -> BoxFuture<'a, Result<usize, ArmError>>;

/// A resource type of a provider `P`.
pub struct ResourceType<P: 'static> {
    /// The type below the namespace, e.g. `managedClusters/agentPools`. The path without its last segment is
    /// its parent.
    pub path: &'static str,
    /// The api-versions it has, newest first.
    pub versions: &'static [&'static str],
    /// The schema of its bodies; `None` for types without one.
    pub schema: Option<Schema>,
    /// How its resources are listed in `/resources` and deleted with their resource group. `None` for types
    /// that are not directly in a group: child resources are deleted with their parent.
    pub members: Option<Members<P>>,
    /// Its operations.
    pub operations: &'static [Operation<P>],
}

/// The resources of a type, as a resource group sees them.
pub struct Members<P: 'static> {
    /// Those of a subscription, or of one resource group of it, for `/resources`: each with `id`, `name`, `type`, `location`, `tags`.
    pub list: ListMembers<P>,
    /// Starts deleting all of a resource group; gives how many are still there. Called again until there are none.
    pub delete: DeleteMembers<P>,
}

/// One operation of a resource type.
pub struct Operation<P: 'static> {
    /// Its name in the API specification, e.g. `ManagedClusters_CreateOrUpdate`. Long-running operations are stored under it.
    pub name: &'static str,
    /// The verb.
    pub verb: Verb,
    /// Where.
    pub scope: Scope,
    /// The first api-version with it, if that is not the type's first.
    pub since: Option<&'static str>,
    /// The action that the caller needs permission for, where it is not the default of type and verb
    /// (`{namespace}/{type}/write`). `{namespace}` stands for the namespace of the path.
    pub permission: Option<&'static str>,
    /// The result of a long-running operation of this name after it has succeeded.
    pub result: OperationResult,
    /// Which `$` parameters its query may have beside `$top` and `$skiptoken`, which every list takes.
    pub query: Query,
    /// How the tags API calls this operation; `None` for all but PATCH of tags.
    pub tags: Option<RunTags<P>>,
    /// Which callers may use it.
    pub gate: Gate,
    /// Its handler.
    pub handler: Handler<P>,
    /// The handler that gives the same responses as cached text; `None` where they are not cached.
    pub tell: Option<Tell<P>>,
}

/// A handler that gives cached text.
pub enum Tell<P: 'static> {
    /// Of one resource.
    One(Told<P, Arc<Text>>),
    /// Of all items of a list; the kernel filters them and makes pages of them.
    All(Told<P, Vec<Arc<Text>>>),
}

/// The handler of an operation.
pub enum Handler<P: 'static> {
    /// A function that changes nothing.
    Read(Run<P>),
    /// A function that gives all items.
    List(List<P>),
    /// A function that decides before it writes: the decision is available without the write.
    Write {
        /// Decides and writes.
        commit: Run<P>,
        /// Decides.
        preview: Run<P>,
    },
    /// Not implemented: 501, with the operation's name.
    NotYet,
}

/// The verb of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// GET of one.
    Get,
    /// HEAD of one.
    Exists,
    /// GET of all.
    List,
    /// PUT.
    Put,
    /// PATCH.
    Patch,
    /// DELETE.
    Delete,
    /// POST of an action, e.g. `listClusterAdminCredential`.
    Action(&'static str),
    /// POST to a type without a name that changes nothing, e.g. `checkNameAvailability`.
    Ask,
}

impl Verb {
    /// The HTTP method.
    pub fn method(self) -> &'static str {
        match self {
            Self::Get | Self::List => "GET",
            Self::Exists => "HEAD",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Action(_) | Self::Ask => "POST",
        }
    }

    /// The shape of its path.
    pub fn shape(self) -> Shape {
        match self {
            Self::Get | Self::Exists | Self::Put | Self::Patch | Self::Delete => Shape::Item,
            Self::List | Self::Ask => Shape::Collection,
            Self::Action(_) => Shape::Action,
        }
    }
}

/// The shape of a path, by its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A type and its name: `managedClusters/{name}`.
    Item,
    /// A type without a name: `managedClusters`.
    Collection,
    /// A verb: `managedClusters/{name}/listClusterAdminCredential`.
    Action,
}

/// Where an operation hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// `/providers/{ns}/…`
    Tenant,
    /// `/subscriptions/{s}/providers/{ns}/…`
    Subscription,
    /// `/subscriptions/{s}/resourceGroups/{g}/providers/{ns}/…`
    ResourceGroup,
    /// `{id of a resource}/providers/{ns}/…`: extensions of any resource.
    Resource,
    /// `{any scope}/providers/{ns}/…`: extensions of the three scopes above and of any resource.
    Any,
}

/// The result that `operationresults` gives after an operation has succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperationResult {
    /// The resource.
    Resource,
    /// 204.
    Nothing,
    /// 200 without a body: the SDK for JavaScript refuses 204 where the API's description has 200.
    Empty,
}

impl<P> Operation<P> {
    const fn new(verb: Verb, name: &'static str, handler: Handler<P>) -> Self {
        Self {
            name,
            verb,
            scope: Scope::ResourceGroup,
            since: None,
            permission: None,
            result: match verb {
                Verb::Put | Verb::Patch => OperationResult::Resource,
                Verb::Get | Verb::Exists | Verb::List | Verb::Delete | Verb::Action(_) | Verb::Ask => {
                    OperationResult::Nothing
                }
            },
            query: Query::NONE,
            tags: None,
            gate: Gate::Action,
            handler,
            tell: None,
        }
    }

    /// An operation in a resource group that changes nothing. A list of resources is [`Self::items`]; a row of [`Verb::List`] made here
    /// answers with a document of its own shape, without pages.
    ///
    /// # Panics
    /// At compile time of the row, for verbs that change a resource: they need a preview, see
    /// [`Self::write`].
    pub const fn read(verb: Verb, name: &'static str, run: Run<P>) -> Self {
        assert!(
            matches!(
                verb,
                Verb::Get | Verb::Exists | Verb::List | Verb::Action(_) | Verb::Ask
            ),
            "an operation that writes needs a preview: make the row with Operation::write"
        );
        Self::new(verb, name, Handler::Read(run))
    }

    /// A list in a resource group, filtered and in pages.
    pub const fn items(name: &'static str, list: List<P>) -> Self {
        Self::new(Verb::List, name, Handler::List(list))
    }

    /// An operation in a resource group that is decided by `preview` and done by `commit`.
    ///
    /// # Panics
    /// While the row is compiled, for verbs that only read.
    pub const fn write(verb: Verb, name: &'static str, commit: Run<P>, preview: Run<P>) -> Self {
        assert!(
            matches!(verb, Verb::Put | Verb::Patch | Verb::Delete | Verb::Action(_)),
            "this verb changes nothing: make the row with Operation::read"
        );
        Self::new(verb, name, Handler::Write { commit, preview })
    }

    /// An operation of the API that is not implemented.
    pub const fn not_yet(verb: Verb, name: &'static str) -> Self {
        Self::new(verb, name, Handler::NotYet)
    }

    /// At another scope than a resource group.
    #[must_use]
    pub const fn at(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }

    /// In api-versions from this one on.
    #[must_use]
    pub const fn since(mut self, version: &'static str) -> Self {
        self.since = Some(version);
        self
    }

    /// A long-running operation whose result is 200 without a body.
    #[must_use]
    pub const fn ends_with_200(mut self) -> Self {
        self.result = OperationResult::Empty;
        self
    }

    /// A long-running operation whose result is the resource that it acted on.
    #[must_use]
    pub const fn ends_with_resource(mut self) -> Self {
        self.result = OperationResult::Resource;
        self
    }

    /// With a `$filter` that may compare these fields.
    #[must_use]
    pub const fn filter(mut self, fields: &'static [&'static str]) -> Self {
        self.query.filter = fields;
        self
    }

    /// With a `$filter` that the handler reads itself.
    #[must_use]
    pub const fn own_filter(mut self) -> Self {
        self.query.own_filter = true;
        self
    }

    /// With a `$select` that the handler reads.
    #[must_use]
    pub const fn select(mut self) -> Self {
        self.query.select = true;
        self
    }

    /// With an `$expand` of these values.
    #[must_use]
    pub const fn expand(mut self, values: &'static [&'static str]) -> Self {
        self.query.expand = values;
        self
    }

    /// For callers other than those with permission for the row's action.
    #[must_use]
    pub const fn gate(mut self, gate: Gate) -> Self {
        self.gate = gate;
        self
    }

    /// Needs another permission than the default of type and verb.
    #[must_use]
    pub const fn permission(mut self, permission: &'static str) -> Self {
        self.permission = Some(permission);
        self
    }
}
