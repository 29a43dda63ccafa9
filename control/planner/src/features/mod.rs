//! What a cluster can do, one module each.

pub(crate) mod addons;
pub(crate) mod addresses;
pub(crate) mod api;
pub(crate) mod backup;
pub(crate) mod configurations;
pub(crate) mod deletion;
pub(crate) mod halt;
pub(crate) mod heal;
pub(crate) mod machines;
pub(crate) mod members;
pub(crate) mod network;
pub(crate) mod nodes;
pub(crate) mod pki;
pub(crate) mod restore;
pub(crate) mod upgrade;
