//! The state of the address of a cluster's API, on its machines and between them; `adverts` changes it.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use agent_protocol::programs::VipConfig;
use machine_vip::state::{Member, Say};

/// The state of a machine's VIP program.
pub(crate) struct Vip {
    pub(crate) config: VipConfig,
    pub(crate) member: Member,
}

/// The state of the address of a cluster's API, between its machines.
#[derive(Default)]
pub(crate) struct Address {
    /// The machine that announced the address last.
    pub(crate) leads_to: Option<String>,
    /// The content of each member's last advert.
    pub(crate) said: BTreeMap<Ipv4Addr, Say>,
    /// The time until which adverts are sent.
    pub(crate) until: Option<Duration>,
    /// The number of adverts sent.
    pub(crate) adverts: u64,
}
