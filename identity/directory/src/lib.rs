//! The directory of a stamp: users, service principals and their applications, managed identities, groups,
//! and the credentials of all of them.
//!
//! Records are `control_records::principal`'s; this crate alone writes them.
//!
//! Always true: a login has one principal, and is found by an index; a group may contain groups, also in
//! circles, and the groups of a principal are found in bounded time; no principal is removed, disabled or
//! taken out of a group if no administrator of the whole stamp would be left; a change depends on the records
//! it was decided by, and is decided again if they changed.
//!
//! Dependent records are removed first: memberships before the principal or group, the service principal
//! before its application. An interrupted removal leaves fewer of them, and continues when it is repeated.
//! Role assignments stay, as in Azure: object ids are never reused.
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
/// Groups of a stamp, and so the most groups that a principal can be in.
pub const MOST_GROUPS: usize = 1_000;
/// Members of a group.
pub const MOST_MEMBERS: usize = 5_000;
/// Groups that an object is a direct member of.
pub const MOST_MEMBERSHIPS: usize = 250;
/// The longest login.
pub const MAX_LOGIN_CHARS: usize = 256;
/// The longest name for people.
pub const MAX_NAME_CHARS: usize = 256;

#[cfg(test)]
mod tests;
