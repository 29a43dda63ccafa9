//! Who holds the address: pure. Time, health and what others say in; hold or not out.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

/// So often each tells all others how it is.
pub const EVERY: Duration = Duration::from_millis(150);
/// Who was not heard of for so long is away: three adverts may get lost.
pub const AWAY: Duration = Duration::from_millis(550);

/// What a member says.
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
    /// Until then it only listens: somebody else may hold the address.
    listens_until: Duration,
    leaving: bool,
}

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// It holds the address from now on.
    Take,
    /// It no longer does.
    Release,
    /// It holds it, and another one did as well: neighbours have to be told again who it is.
    Insist,
}

impl Member {
    /// A member that begins now.
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

    /// What it tells the others.
    pub fn say(&self) -> Say {
        self.say
    }

    /// Another member said something.
    pub fn hear(&mut self, now: Duration, from: Ipv4Addr, say: Say) -> Change {
        self.heard.insert(from, (now, say));
        let insists = self.say.holds && say.holds;
        match self.decide(now) {
            Change::None if insists && self.say.healthy => Change::Insist,
            change => change,
        }
    }

    /// Its own API server answers, or does not.
    pub fn feel(&mut self, now: Duration, healthy: bool) -> Change {
        self.say.healthy = healthy && !self.leaving;
        self.decide(now)
    }

    /// It is told to end.
    pub fn leave(&mut self, now: Duration) -> Change {
        self.leaving = true;
        self.say.healthy = false;
        self.decide(now)
    }

    /// Time passed.
    pub fn tick(&mut self, now: Duration) -> Change {
        self.decide(now)
    }

    fn decide(&mut self, now: Duration) -> Change {
        self.heard.retain(|_, (at, _)| now.saturating_sub(*at) < AWAY);
        let mut healthy = self.heard.iter().filter(|(_, (_, say))| say.healthy);
        let holds = if self.leaving {
            false
        } else if !self.say.healthy {
            // Somebody who serves badly is better than nobody, and no better than anybody who is well.
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
