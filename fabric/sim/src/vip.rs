//! What there is of the address of a cluster's API, on its machines and between them; `adverts` is what becomes of it.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use agent_protocol::programs::VipConfig;
use machine_vip::state::{Member, Say};

/// A machine's program for the address.
pub(crate) struct Vip {
    pub(crate) config: VipConfig,
    pub(crate) member: Member,
}

/// The address of a cluster's API, between its machines.
#[derive(Default)]
pub(crate) struct Address {
    /// The machine that told neighbours last that it has it.
    pub(crate) leads_to: Option<String>,
    /// What each member said last.
    pub(crate) said: BTreeMap<Ipv4Addr, Say>,
    /// Adverts are sent until then.
    pub(crate) until: Option<Duration>,
    /// How many there were.
    pub(crate) adverts: u64,
}
