//! The decision on who holds the address: pure. Time, health and adverts in; hold or not out.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

/// Interval of a member's adverts.
pub const EVERY: Duration = Duration::from_millis(150);
/// A member without an advert for this long is away: three adverts may get lost.
pub const AWAY: Duration = Duration::from_millis(550);

/// The state in a member's advert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Say {
    /// Whether its API server answers.
    pub healthy: bool,
    /// Whether it holds the address.
    pub holds: bool,
}

/// One member's view.
#[derive(Debug, Clone)]
pub struct Member {
    own: Ipv4Addr,
    heard: BTreeMap<Ipv4Addr, (Duration, Say)>,
    say: Say,
    /// Until then it only listens: another member may hold the address.
    listens_until: Duration,
    leaving: bool,
}

/// A change of the holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// The member holds the address from now on.
    Take,
    /// The member no longer holds it.
    Release,
    /// Two members held it and this one keeps it: announce it to the neighbours again.
    Insist,
}

impl Member {
    /// A member that starts now.
    pub fn new(own: Ipv4Addr, now: Duration) -> Self {
        Self {
            own,
            heard: BTreeMap::new(),
            say: Say {
                healthy: false,
                holds: false,
            },
            listens_until: now + AWAY,
            leaving: false,
        }
    }

    /// The state for the next advert.
    pub fn say(&self) -> Say {
        self.say
    }

    /// Handles an advert of another member.
    pub fn hear(&mut self, now: Duration, from: Ipv4Addr, say: Say) -> Change {
        self.heard.insert(from, (now, say));
        let insists = self.say.holds && say.holds;
        match self.decide(now) {
            Change::None if insists && self.say.healthy => Change::Insist,
            change => change,
        }
    }

    /// Handles a health probe of its own API server.
    pub fn feel(&mut self, now: Duration, healthy: bool) -> Change {
        self.say.healthy = healthy && !self.leaving;
        self.decide(now)
    }

    /// Handles the request to end.
    pub fn leave(&mut self, now: Duration) -> Change {
        self.leaving = true;
        self.say.healthy = false;
        self.decide(now)
    }

    /// Handles the passage of time.
    pub fn tick(&mut self, now: Duration) -> Change {
        self.decide(now)
    }

    fn decide(&mut self, now: Duration) -> Change {
        self.heard.retain(|_, (at, _)| now.saturating_sub(*at) < AWAY);
        let mut healthy = self.heard.iter().filter(|(_, (_, say))| say.healthy);
        let holds = if self.leaving {
            false
        } else if !self.say.healthy {
            // An unhealthy holder is better than none, but no better than a healthy one.
            self.say.holds && !healthy.any(|(_, (_, say))| say.holds)
        } else if self.say.holds {
            !healthy.any(|(from, (_, say))| say.holds && *from < self.own)
        } else {
            now >= self.listens_until && healthy.all(|(from, (_, say))| !say.holds && *from > self.own)
        };
        match (std::mem::replace(&mut self.say.holds, holds), holds) {
            (false, true) => Change::Take,
            (true, false) => Change::Release,
            _ => Change::None,
        }
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
