//! What a cluster can do, one module each.

use control_records::ClusterRecord;

use crate::{
    Draft,
    checks::Checks,
    feature::{Feature, Instead},
};

pub(crate) mod addons;
pub(crate) mod addresses;
pub(crate) mod api;
pub(crate) mod autoscale;
pub(crate) mod backup;
pub(crate) mod balancers;
pub(crate) mod commands;
pub(crate) mod configurations;
pub(crate) mod credentials;
pub(crate) mod deletion;
pub(crate) mod halt;
pub(crate) mod heal;
pub(crate) mod images;
pub(crate) mod machines;
pub(crate) mod members;
pub(crate) mod namespaces;
pub(crate) mod network;
pub(crate) mod nodes;
pub(crate) mod pki;
pub(crate) mod power;
pub(crate) mod restore;
pub(crate) mod rotation;
pub(crate) mod upgrade;
pub(crate) mod volumes;

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
    images::FEATURE,
    addons::FEATURE,
    rotation::FEATURE,
    credentials::FEATURE,
    // After them: it says of its own credentials whether they work.
    namespaces::FEATURE,
    balancers::FEATURE,
    volumes::FEATURE,
    commands::FEATURE,
    autoscale::FEATURE,
    restore::FEATURE,
];

/// The way for a cluster to be other than there and serving, if it is to be so: the first that applies.
pub(crate) fn instead(desired: &ClusterRecord) -> Option<&'static Instead> {
    let all = FEATURES.iter().filter_map(|feature| feature.instead.as_ref());
    all.into_iter().find(|instead| (instead.applies)(desired))
}

/// Everything that is to be there, in the order in which it comes about.
pub(crate) fn checks(draft: &Draft<'_>, instead: Option<&Instead>) -> Checks {
    let mut checks = Checks::default();
    match instead {
        Some(instead) => (instead.checks)(draft, &mut checks),
        None => {
            for feature in FEATURES {
                (feature.checks)(draft, &mut checks);
            }
        }
    }
    checks.sort(draft);
    checks
}
