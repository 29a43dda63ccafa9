//! What a cluster can do, one module each.

pub(crate) mod backup;
pub(crate) mod configurations;
pub(crate) mod deletion;
pub(crate) mod halt;
pub(crate) mod heal;
pub(crate) mod members;
pub(crate) mod nodes;
pub(crate) mod restore;
pub(crate) mod upgrade;
