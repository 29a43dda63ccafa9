//! Who may do what: actions, roles, scopes and the decision about them, also in clusters. No I/O.
//!
//! A role is a list of what may be done and what of that may not ([`Permission`]); an assignment gives a role to a principal at a scope,
//! for it and all that is below. A principal may do what any of its assignments grants; what no assignment grants, nobody may.
//!
//! Always true: actions and scopes are compared without regard to the case of ASCII letters, as the keys of records are; a scope is above
//! another where its segments are the first ones of the other's, so `/subscriptions/a` is not above `/subscriptions/ab`.
//!
//! Called by: whoever asks for each request (`providers/authorization`), and for the objects of a cluster.

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
