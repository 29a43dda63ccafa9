//! The resource kernel: the common part of all ARM resources.
//!
//! A resource type is one value ([`ResourceType`]): path, api-versions, the schema of its bodies
//! ([`schema`]), and a row for each operation with its verb, the permission it needs, the result of a
//! long-running one, and its handler. A provider is a list of such values ([`Namespace`]). From the rows
//! follow the dispatch ([`Registry`]), 405 and 501, the list of actions for roles, results of operations and
//! the generated pages.
//!
//! A type that is a [`Resource`] defines how its state is read, decided about and written; the kernel does
//! the rest: preconditions and eTags, competing writers, status codes and headers, lists in pages, the
//! preview of a decision without its writing.
//!
//! A resource group is deleted in two steps: the request marks it and writes the operation; the
//! [`GroupReaper`] has every provider delete its resources in the group, and then removes it.
//!
//! Always true: a row without a handler does not compile; no handler runs for a caller to whom the
//! [`Authorizer`] refuses the row's action; a write is decided on the state at its commit, or decided again;
//! a cached response equals the one that would be made now ([`Kept`]); either step of a group's deletion may
//! be repeated or killed at any point.
//!
//! Called by: the edge, the providers, and the assembly, which runs the reaper.

mod activity;
mod call;
mod document;
mod filter;
mod gate;
mod group_reaper;
mod kept;
mod list;
mod mode;
pub mod odata;
pub mod operations;
mod preconditions;
mod provider;
mod query;
mod registry;
mod request;
mod resource;
pub mod schema;
pub mod system_data;
mod tags;
mod text;
mod types;

pub use activity::{Activity, ActivityLog, ServiceLog, StoreLog};
pub use call::{AccessControl, AllowAll, Authorizer, Call, Change, Locks, NoLocks};
pub use document::operations_document;
pub use filter::{FIELDS, Filter};
pub use gate::Gate;
pub use group_reaper::{GROUP_DELETION, GroupReaper};
pub use kept::{Keeper, Kept, Shown, Text};
pub use list::{Items, PAGE, expands};
pub use mode::Mode;
pub use preconditions::etag;
pub use provider::{Namespace, Provider, Route, routes};
pub use query::Query;
pub use registry::{GENERIC, Registry, Target};
pub use request::{RequestInfo, scope_of};
pub use resource::{
    Context, Decision, Host, Mutation, Presence, Purpose, Resource, Written, act, delete, delete_each, get,
    put, store_error, write,
};
pub use tags::{MAX_TAGS, TAGS, Tagged, Tags, TagsWish, check_tag, patch_tags, read_tags, tags_at};
pub use text::quote;
pub use types::{
    DeleteMembers, Handler, List, ListMembers, Members, Operation, OperationResult, ResourceType, Run,
    RunTags, Scope, Shape, Tell, Told, Verb,
};
