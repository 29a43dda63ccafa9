//! Addresses of the stamp: the cluster's two, and one for each control plane member. Pure choices among the free ones.

use std::{collections::BTreeSet, net::Ipv4Addr};

use base_seed::Seed;
use control_records::{ObservedRecord, Role};
use ipnet::Ipv4Net;

use crate::{
    Addresses, Draft, Observation, StampRanges, Write,
    checks::{Checks, Stage},
    feature::Feature,
    nth,
};

pub(crate) const FEATURE: Feature = Feature {
    record,
    checks,
    ..Feature::named("addresses")
};

fn record(draft: &mut Draft<'_>) {
    if draft.addresses().is_some() || draft.waits_for_look() {
        return;
    }
    match Leases::new(&draft.desired.uid, draft.seen).cluster(&draft.seen.observed) {
        Some(addresses) => {
            draft.wait("leasing addresses");
            draft.write(Write::Lease(addresses));
            draft.observed.vip = Some(addresses.vip);
            draft.observed.uplink = Some(addresses.uplink);
        }
        None => draft.wait(
            "waiting for a free address of the stamp: all are in use; delete a cluster, or give the stamp a larger range",
        ),
    }
}

fn checks(draft: &Draft<'_>, checks: &mut Checks) {
    // Whatever is written with the first leases is one step with them for people.
    let written = |write: &Write| match write {
        Write::Lease(_) | Write::CreatePki => true,
        Write::RecordMachine { role, .. } => matches!(role, Role::ControlPlane { .. }),
        _ => false,
    };
    let leased = draft.leased().is_some() && !draft.writes.iter().any(written);
    checks.cluster(Stage::Foundation, "leasing addresses", leased);
}

/// A free one of the VIPs for a public IP address that a tenant made, by that one's uid. `None` when all are in use.
pub fn public_address(uid: &str, vips: Ipv4Net, taken: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
    let mut leases = Leases {
        uid,
        ranges: StampRanges { machines: vips, vips },
        taken,
        chosen: BTreeSet::new(),
    };
    leases.take(vips, 0, "public")
}

/// Addresses of the stamp for a cluster, chosen among the free ones, one after the other. `None` when a range is full.
///
/// The search starts at a place computed from `uid`: clusters made at the same moment rarely reach for the same address,
/// and an address that was just released is not given out again at once.
pub(crate) struct Leases<'a> {
    uid: &'a str,
    ranges: StampRanges,
    taken: &'a BTreeSet<Ipv4Addr>,
    chosen: BTreeSet<Ipv4Addr>,
}

impl<'a> Leases<'a> {
    pub(crate) fn new(uid: &'a str, seen: &'a Observation) -> Self {
        Self {
            uid,
            ranges: seen.stamp,
            taken: &seen.taken,
            chosen: BTreeSet::new(),
        }
    }

    /// The cluster's own two.
    pub(crate) fn cluster(&mut self, observed: &ObservedRecord) -> Option<Addresses> {
        let StampRanges { machines, vips } = self.ranges;
        Some(Addresses {
            vip: match observed.vip {
                Some(vip) => vip,
                None => self.take(vips, 0, "vip")?,
            },
            uplink: match observed.uplink {
                Some(uplink) => uplink,
                None => self.take(machines, 1, "uplink")?,
            },
        })
    }

    /// A Service's, of this uid.
    pub(crate) fn balancer(&mut self, service: &str) -> Option<Ipv4Addr> {
        self.take(self.ranges.vips, 0, &format!("balancer-{service}"))
    }

    /// This very one of the VIPs, where it is free.
    pub(crate) fn chosen(&mut self, address: Ipv4Addr) -> Option<Ipv4Addr> {
        let range = self.ranges.vips;
        let usable = range.contains(&address) && address != range.network() && address != range.broadcast();
        let free = usable && !self.taken.contains(&address) && self.chosen.insert(address);
        free.then_some(address)
    }

    /// A control plane member's.
    pub(crate) fn member(&mut self, index: u32) -> Option<Ipv4Addr> {
        let machines = self.ranges.machines;
        match index {
            0 => self.take(machines, 1, "control-plane"),
            index => self.take(machines, 1, &format!("control-plane-{index}")),
        }
    }

    fn take(&mut self, range: Ipv4Net, reserved: u32, what: &str) -> Option<Ipv4Addr> {
        // Neither the network address nor what is reserved behind it, nor the last one.
        let size = u32::from(range.broadcast()) - u32::from(range.network());
        let usable = size.checked_sub(1 + reserved).filter(|usable| *usable > 0)?;
        let seed = Seed::new(0).child(self.uid).child(what);
        let start = u32::try_from(seed.draw(0) % u64::from(usable)).ok()?;
        let address = (0..usable)
            .filter_map(|step| nth(range, 1 + reserved + (start + step) % usable))
            .find(|address| !self.taken.contains(address) && !self.chosen.contains(address))?;
        self.chosen.insert(address);
        Some(address)
    }
}
