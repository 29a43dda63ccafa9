//! Networks on a Linux host as data: names, nftables rulesets, `ip -batch` scripts, the choice of a stamp's
//! range.
//!
//! Owns every name and every rule that a stamp puts on a host, as text and plain values.
//!
//! Always true: pure. No I/O, no clock, no randomness: the same input gives the same text, so that a name can
//! be computed again after a crash and a script can be compared with the previous one. No name can clash with
//! one of another stamp.
//!
//! Called by: the drivers (`fabric/container` runs these scripts, `fabric/sim` hashes specifications) and the binary, which chooses a range.

mod balancer;
mod card;
mod filter;
mod hash;
mod link;
mod names;
mod ports;
mod ranges;
mod ruleset;
mod set;
mod vnet;

pub use card::{card_mac, mac, machine_script, port_script};
pub use hash::{short_hash, spec_hash};
pub use link::{LinkSeen, ReadError, RouteSeen, parse_links, parse_routes};
pub use names::{Names, UPLINK, subnet_bridge};
pub use ports::{stamp_ports_ruleset, vnet_ports_ruleset};
pub use ranges::{STAMP_POOL, STAMP_PREFIX, route_destinations, stamp_range};
pub use ruleset::{Surroundings, private_ranges, stamp_ruleset, vnet_ruleset};
pub use vnet::{
    BLACKHOLE_METRIC, NamespaceSeen, VNET_SYSCTLS, bridge_sysctls, stamp_script, vnet_bridge_sysctls,
    vnet_script, vnet_sysctls, vnet_turned, vnet_uplink_script,
};
