//! What a cluster can do, one module each.

use crate::feature::Feature;

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
pub(crate) mod power;
pub(crate) mod restore;
pub(crate) mod upgrade;

/// Everything that a cluster can do, in the order in which it is planned.
pub(crate) const FEATURES: &[Feature] = &[
    deletion::FEATURE,
    halt::FEATURE,
    power::FEATURE,
    addresses::FEATURE,
    pki::FEATURE,
    network::FEATURE,
    machines::FEATURE,
    configurations::FEATURE,
    api::FEATURE,
    heal::FEATURE,
    upgrade::FEATURE,
    members::FEATURE,
    nodes::FEATURE,
    addons::FEATURE,
    restore::FEATURE,
];
