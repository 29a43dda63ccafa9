//! The directory: who is known to a stamp, and how that is changed. Users, service principals and the applications behind them, managed
//! identities, groups, and what all of them prove themselves with.
//!
//! Records are `control_records::principal`'s; this crate alone writes them.
//!
//! Always true: a login is had by one principal, and is found without looking at others; a group may hold groups, also in circles, and what
//! somebody is in is found in bounded time; nothing is removed, disabled or taken out of a group with which nobody would be left who could
//! give rights at the whole stamp; a change rests on what it was decided by, and is decided again where that changed.
//!
//! What goes with something goes before it: memberships before the principal or group, the service principal before its application. A
//! removal that is cut short leaves something with fewer of them, and goes on when it is repeated. Role assignments stay, as in Azure: an
//! object id is given once.
//!
//! Called by: the token service, the authorizer, Graph, and providers whose resources have identities.

mod admins;
mod applications;
mod credentials;
mod find;
mod groups;
mod members;
mod principals;
pub mod secret;
mod writer;

pub use admins::{GIVES_RIGHTS, Without, admin_left};
pub use applications::{NewApplication, create_application, delete_application, update_application};
pub use credentials::{ISSUER_IS, MOST_CREDENTIALS, check_credentials, is_issuer};
pub use find::{
    application, application_of, applications, find_login, group, groups, principal, principal_key,
    principals,
};
pub use groups::{NewGroup, create_group, delete_group, update_group};
pub use members::{add_member, all_members, groups_of, is_member, members, memberships, remove_member};
pub use principals::{
    create, create_service_principal, delete_principal, forget_memberships, made, removals, unmade,
    update_principal,
};
pub use writer::{DirectoryError, Writer, check_login};

/// Principals of a stamp.
pub const MOST_PRINCIPALS: usize = 10_000;
/// Applications of a stamp.
pub const MOST_APPLICATIONS: usize = 5_000;
/// Groups of a stamp. What somebody is in is never more.
pub const MOST_GROUPS: usize = 1_000;
/// Members of a group.
pub const MOST_MEMBERS: usize = 5_000;
/// Groups that something is in itself.
pub const MOST_MEMBERSHIPS: usize = 250;
/// The longest login.
pub const MAX_LOGIN_CHARS: usize = 256;
/// The longest name for people.
pub const MAX_NAME_CHARS: usize = 256;

#[cfg(test)]
mod tests;
