//! Which addresses load balancers get: one of the stamp's VIPs, or of the nodes' subnet, from its end on. Pure choices among the free ones.

use std::{collections::BTreeSet, net::Ipv4Addr, sync::Arc};

use cluster_balancers::Wish;
use control_records::{Role, balancer::BalancerRecord};
use ipnet::Ipv4Net;

use crate::{
    Draft, Machine, UnknownMachines, Write,
    features::{addresses::Leases, nodes::placement::NODE_OFFSET},
    view::rotation::{clash, wish_of},
};

/// The nodes' subnet of a VNET that was made for a cluster, as AKS calls it.
const SUBNET: &str = "aks-subnet";
/// A cluster has no more of them: the stamp's addresses are everybody's.
const MOST: usize = 250;

/// An address that a Service is to get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) address: Ipv4Addr,
    /// The ARM id of the public IP address of a tenant that it is of.
    pub(super) public: Option<String>,
}

/// The Services that wait for an address, and which each of them is to get, or why it gets none.
pub(super) fn assign<'w>(
    draft: &mut Draft<'_>,
    wishes: &'w [Wish],
) -> Vec<(&'w Wish, Result<Place, String>)> {
    let seen = draft.seen;
    let has_one = |wish: &Wish| seen.balancers.iter().any(|record| record.uid == wish.uid);
    let waiting: Vec<&Wish> = wishes
        .iter()
        .filter(|wish| wish.finalizer && !wish.deleting && wish.refusal.is_none() && !has_one(wish))
        .collect();
    if waiting.is_empty() {
        return Vec::new();
    }
    if seen.unknown_machines == UnknownMachines::NotLooked {
        // Something that is kept may have the address.
        draft.unfinished = true;
        draft.look_again_at(draft.after(draft.now, UnknownMachines::PAUSE));
        return Vec::new();
    }
    let mut free = Free::of(draft);
    let mut count = seen.balancers.len();
    let mut places: Vec<(&Wish, Result<Place, String>)> = Vec::new();
    for wish in waiting {
        let address = if count < MOST {
            match seen.publics.get(&wish.uid) {
                Some(Err(why)) => Err(why.clone()),
                Some(Ok(public)) => {
                    let given = places.iter().filter_map(|(other, place)| {
                        let place = place.as_ref().ok()?;
                        (place.address == public.address).then_some(*other)
                    });
                    let there = at(public.address, &seen.balancers, wishes);
                    match there.chain(given).find_map(|other| clash(wish, other)) {
                        Some(why) => Err(why),
                        None => Ok(Place {
                            address: public.address,
                            public: Some(public.id.clone()),
                        }),
                    }
                }
                // It is about to be looked for.
                None if wish.public.is_some() => continue,
                None => free.take(wish).map(|address| Place {
                    address,
                    public: None,
                }),
            }
        } else {
            Err(format!(
                "The cluster has {MOST} load balancers, and may have no more; delete a Service of type LoadBalancer."
            ))
        };
        count += usize::from(address.is_ok());
        places.push((wish, address));
    }
    places
}

/// The Services that have an address.
fn at<'s>(
    address: Ipv4Addr,
    records: &'s [Arc<BalancerRecord>],
    wishes: &'s [Wish],
) -> impl Iterator<Item = &'s Wish> {
    let records = records.iter().filter(move |record| record.address == address);
    records.filter_map(move |record| wish_of(record, wishes))
}

/// Addresses that are free.
struct Free<'a> {
    leases: Leases<'a>,
    /// Subnets that nodes may be in.
    subnets: Vec<Ipv4Net>,
    /// Whether they are a tenant's own.
    tenants: bool,
    /// Addresses of these that somebody has.
    taken: BTreeSet<Ipv4Addr>,
    /// Ranges of them that pods have.
    pods: Vec<Ipv4Net>,
}

impl<'a> Free<'a> {
    fn of(draft: &Draft<'a>) -> Self {
        let (seen, spec) = (draft.seen, draft.desired.spec());
        let mut free = Self {
            leases: Leases::new(&draft.desired.uid, seen),
            subnets: match &spec.network.vnet {
                Some(vnet) => vnet.subnets.iter().copied().collect(),
                None => vec![spec.network.node_range],
            },
            tenants: spec.network.vnet.is_some(),
            taken: seen
                .kept
                .addresses
                .union(&seen.neighbours.addresses)
                .copied()
                .collect(),
            pods: seen.kept.routes.iter().map(|route| route.to).collect(),
        };
        free.taken
            .extend(seen.balancers.iter().map(|record| record.address));
        // Nodes that this very plan writes down have their places already.
        let new = draft.writes.iter().filter_map(|write| match write {
            Write::RecordMachine { role, .. } => Some(role),
            _ => None,
        });
        for role in seen.machines.values().filter_map(Machine::role).chain(new) {
            if let Role::Node {
                address, pod_range, ..
            } = role
            {
                free.taken.insert(*address);
                free.pods.extend(*pod_range);
            }
        }
        free
    }

    fn take(&mut self, wish: &Wish) -> Result<Ipv4Addr, String> {
        if wish.internal {
            return self.internal(wish);
        }
        match wish.address {
            Some(address) => self.leases.chosen(address).ok_or_else(|| {
                format!(
                    "The address {address} is in use, or none of those that the stamp gives to load balancers; ask for another one, \
                     or for none."
                )
            }),
            None => self.leases.balancer(&wish.uid).ok_or_else(|| {
                "All addresses of the stamp are in use; delete a Service of type LoadBalancer, or give the stamp a larger range."
                    .to_owned()
            }),
        }
    }

    fn internal(&mut self, wish: &Wish) -> Result<Ipv4Addr, String> {
        if let Some(name) = wish
            .subnet
            .as_ref()
            .filter(|name| self.tenants || *name != SUBNET)
        {
            let way_out = if self.tenants {
                "name an address of it with spec.loadBalancerIP instead"
            } else {
                "the nodes' subnet is aks-subnet"
            };
            return Err(format!(
                "The subnet {name} cannot be found by its name; {way_out}."
            ));
        }
        let address = match wish.address {
            Some(address) => {
                let mut own = self.subnets.iter();
                own.find(|range| range.contains(&address))
                    .filter(|range| self.is_free(range, address))
                    .map(|_| address)
                    .ok_or_else(|| {
                        format!(
                            "The address {address} is in use, or none of the nodes' subnet; ask for another one, or for none."
                        )
                    })?
            }
            None => {
                let mut all = self.subnets.iter().flat_map(|range| {
                    let (first, last) = (u32::from(range.network()), u32::from(range.broadcast()));
                    let numbers = (first..=last).rev().map(Ipv4Addr::from);
                    numbers.map(move |address| (range, address))
                });
                all.find(|(range, address)| self.is_free(range, *address))
                    .map(|(_, address)| address)
                    .ok_or("The nodes' subnet has no free address; scale a pool down, or delete a Service.")?
            }
        };
        self.taken.insert(address);
        Ok(address)
    }

    /// Whether nobody has an address of a subnet: neither Azure, which keeps the first ones and the last one, nor nodes, nor pods.
    fn is_free(&self, range: &Ipv4Net, address: Ipv4Addr) -> bool {
        let index = u32::from(address).saturating_sub(u32::from(range.network()));
        index >= NODE_OFFSET
            && address != range.broadcast()
            && !self.taken.contains(&address)
            && !self.pods.iter().any(|pods| pods.contains(&address))
    }
}
