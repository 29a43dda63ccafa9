//! Access control: actions, roles, scopes and the decision about them, also for the data of clusters. No I/O.
//!
//! A role lists permitted actions and exceptions from them ([`Permission`]). An assignment gives a role to a
//! principal at a scope and all scopes below it. A principal may do an action if at least one of its
//! assignments grants it.
//!
//! Always true: actions and scopes are compared without regard to the case of ASCII letters, as the keys of records are; a scope is above
//! another where its segments are the first ones of the other's, so `/subscriptions/a` is not above `/subscriptions/ab`.
//!
//! Called by: `providers/authorization`, for each ARM request and for requests to a cluster's API.

mod action;
mod builtin;
mod kubernetes;
mod role;
mod scope;

pub use action::{matches, plain_pattern};
pub use builtin::{BuiltIn, OWNER, built_in, built_in_roles};
pub use kubernetes::Asked;
pub use role::{Grant, Permission, granted, granted_data};
pub use scope::Scope;
