//! The number of concurrent connections of a listener, and the choice of the one that is closed when there
//! are too many.
//!
//! A connection belongs to its source address until the peer has proved its identity, with the certificate of
//! an enrolled machine or with a token; from then on it belongs to that machine or principal. All pods and
//! nodes of a virtual network, and all clients behind a NAT, share one address: connections of unknown peers
//! must not count against known ones.
//!
//! Always true: no owner has more than its share and all together have no more than `total`; a new connection
//! is accepted, and the oldest is closed: of the same owner when its share is used up, else of the owner with
//! the most.
//!
//! Called by: the hub and the edge, for their listeners.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

/// The connection limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of all connections.
    pub total: usize,
    /// Of one address, for unknown peers.
    pub per_peer: usize,
    /// Of one machine or principal.
    pub per_known: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    Peer(IpAddr),
    Known(String),
}

/// All open connections. Cheap to clone.
#[derive(Clone)]
pub struct Connections {
    limits: Limits,
    table: Arc<Mutex<Table>>,
}

#[derive(Default)]
struct Table {
    /// The number of the next connection: lower numbers are older.
    next: u64,
    open: BTreeMap<u64, Open>,
    owners: BTreeMap<Owner, BTreeSet<u64>>,
}

struct Open {
    owner: Owner,
    /// Dropped when the connection must close.
    _stay: oneshot::Sender<()>,
}

/// The place of one connection, released on drop.
pub struct Place {
    number: u64,
    connections: Connections,
}

impl Connections {
    /// An empty table with these limits.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            table: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    fn count(&self) -> usize {
        self.lock().open.len()
    }

    /// Accepts a connection from this address. The receiver completes when the connection must close.
    pub fn open(&self, peer: IpAddr) -> (Place, oneshot::Receiver<()>) {
        let mut table = self.lock();
        let owner = Owner::Peer(peer.to_canonical());
        table.make_room(&owner, self.limits.per_peer);
        if table.open.len() >= self.limits.total {
            table.evict_of_the_richest();
        }
        let (stay, evicted) = oneshot::channel();
        let number = table.next;
        table.next += 1;
        table.owners.entry(owner.clone()).or_default().insert(number);
        table.open.insert(number, Open { owner, _stay: stay });
        let place = Place {
            number,
            connections: self.clone(),
        };
        (place, evicted)
    }
}

impl Place {
    /// Assigns the connection to this machine or principal after it proved its identity. May be repeated.
    pub fn belongs_to(&self, name: &str) {
        let mut table = self.connections.lock();
        let owner = Owner::Known(name.to_owned());
        if table
            .owners
            .get(&owner)
            .is_some_and(|numbers| numbers.contains(&self.number))
        {
            return;
        }
        // It may have been evicted meanwhile.
        let Some(open) = table.remove(self.number) else {
            return;
        };
        table.make_room(&owner, self.connections.limits.per_known);
        table.owners.entry(owner.clone()).or_default().insert(self.number);
        table.open.insert(self.number, Open { owner, ..open });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.lock().remove(self.number);
    }
}

impl Table {
    fn remove(&mut self, number: u64) -> Option<Open> {
        let open = self.open.remove(&number)?;
        if let Some(numbers) = self.owners.get_mut(&open.owner) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.owners.remove(&open.owner);
            }
        }
        Some(open)
    }

    /// Evicts connections if needed for one more of this owner.
    fn make_room(&mut self, owner: &Owner, share: usize) {
        while let Some(numbers) = self.owners.get(owner).filter(|numbers| numbers.len() >= share) {
            let Some(oldest) = numbers.first().copied() else {
                return;
            };
            self.remove(oldest);
        }
    }

    fn evict_of_the_richest(&mut self) {
        let richest = self.owners.values().max_by_key(|numbers| numbers.len());
        if let Some(oldest) = richest.and_then(|numbers| numbers.first().copied()) {
            self.remove(oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        total: 10,
        per_peer: 4,
        per_known: 2,
    };

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([100, 64, 0, last])
    }

    type Held = (Place, oneshot::Receiver<()>);

    fn evicted((_, evicted): &mut Held) -> bool {
        evicted.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    #[test]
    fn of_one_address_the_oldest_goes() {
        let connections = Connections::new(LIMITS);
        let mut places: Vec<_> = (0..6).map(|_| connections.open(peer(1))).collect();
        let gone: Vec<_> = places.iter_mut().map(evicted).collect();
        assert_eq!(gone, [true, true, false, false, false, false]);
        assert_eq!(connections.count(), 4);
        // Evicted connections do not release their place a second time.
        drop(places);
        assert_eq!(connections.count(), 0);
        assert!(connections.lock().owners.is_empty());
    }

    #[test]
    fn strangers_do_not_count_against_the_machines_beside_them() {
        let connections = Connections::new(LIMITS);
        let mut honest = connections.open(peer(1));
        honest.0.belongs_to("m1");
        let crowd: Vec<_> = (0..100).map(|_| connections.open(peer(1))).collect();
        assert!(!evicted(&mut honest));
        assert_eq!(connections.count(), 5);
        drop(crowd);
        // A machine has a separate share.
        let mut more: Vec<_> = (0..2).map(|_| connections.open(peer(1))).collect();
        more.iter().for_each(|(place, _)| place.belongs_to("m1"));
        assert!(evicted(&mut honest));
        assert!(!more.iter_mut().any(evicted));
    }

    #[test]
    fn when_all_places_are_taken_the_owner_with_most_gives_one() {
        let connections = Connections::new(LIMITS);
        let mut few = connections.open(peer(9));
        let crowds: Vec<Vec<_>> = (1..=3)
            .map(|peer_number| (0..4).map(|_| connections.open(peer(peer_number))).collect())
            .collect();
        assert_eq!(connections.count(), 10);
        assert!(!evicted(&mut few));
        drop(crowds);
    }
}
