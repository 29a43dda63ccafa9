//! A stamp's connection to its registration (L6, L7).

use std::time::Duration;

use jiff::Timestamp;

use super::{Act, DISCONNECTED, Deed, after, before, leads};

/// Whether a stamp has to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It has to.
    Duty,
    /// Its kind of host has no such duty.
    Exempt,
    /// It is air-gapped: a mode of its own, in which everything works from what is there.
    AirGapped,
}

/// How a stamp is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// It was reached in time, or has no duty.
    Registered,
    /// It was not for so long that it has been warned.
    Warned,
    /// It was not in time.
    Disconnected,
    /// Its subscription was deleted: its connection is not recovered.
    Unregistered,
}

/// What goes on in a stamp. Workloads always do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowed {
    /// Day-2 operations: upgrades, scaling of pools.
    pub day2: bool,
    /// New machines.
    pub machines: bool,
}

/// A stamp's connection. The windows of the service and of the platform may differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StampClock {
    mode: Mode,
    last: Timestamp,
    service: Duration,
    platform: Duration,
    unregistered: bool,
    /// Notices so far, and whether it was told that the time is over.
    told: usize,
}

impl StampClock {
    /// A stamp that was reached now.
    pub fn new(mode: Mode, now: Timestamp) -> Self {
        Self {
            mode,
            last: now,
            service: DISCONNECTED,
            platform: DISCONNECTED,
            unregistered: false,
            told: 0,
        }
    }

    /// With other windows: of the service, which ends day-2 operations, and of the platform, which ends new machines.
    #[must_use]
    pub fn windows(self, service: Duration, platform: Duration) -> Self {
        Self {
            service,
            platform,
            ..self
        }
    }

    /// It was reached: everything is as before.
    pub fn reached(&mut self, now: Timestamp) {
        if !self.unregistered {
            self.last = now;
            self.told = 0;
        }
    }

    /// Its subscription was deleted.
    pub fn unregister(&mut self) {
        self.unregistered = true;
    }

    /// When day-2 operations end.
    pub fn due(&self) -> Option<Timestamp> {
        (self.mode == Mode::Duty && !self.unregistered).then(|| after(self.last, self.service))
    }

    /// How it is connected.
    pub fn link(&self, now: Timestamp) -> Link {
        if self.unregistered {
            return Link::Unregistered;
        }
        match self.due() {
            None => Link::Registered,
            Some(due) if now >= due => Link::Disconnected,
            Some(due) => {
                let first = leads(Deed::RefuseUpdates, self.service).first();
                let warned = first.is_some_and(|lead| now >= before(due, *lead));
                if warned { Link::Warned } else { Link::Registered }
            }
        }
    }

    /// What goes on.
    pub fn allows(&self, now: Timestamp) -> Allowed {
        let within = |window: Duration| {
            self.mode != Mode::Duty || (!self.unregistered && now < after(self.last, window))
        };
        Allowed {
            day2: within(self.service),
            machines: within(self.platform),
        }
    }

    /// When it is to be looked at next.
    pub fn next(&self) -> Option<Timestamp> {
        let due = self.due()?;
        let leads = leads(Deed::RefuseUpdates, self.service);
        match leads.get(self.told) {
            Some(lead) => Some(before(due, *lead)),
            None => (self.told == leads.len()).then_some(due),
        }
    }

    /// Notices that are due by now, and that the time is over.
    pub fn pass(&mut self, now: Timestamp) -> Vec<Act> {
        let mut acts = Vec::new();
        while let (Some(at), Some(due)) = (self.next(), self.due()) {
            if at > now {
                break;
            }
            let leads = leads(Deed::RefuseUpdates, self.service);
            let notice = self.told < leads.len();
            // Notices that are late are one.
            let come = leads.iter().filter(|lead| before(due, **lead) <= now).count();
            self.told = if notice { come } else { self.told + 1 };
            acts.push(Act {
                at: now,
                rule: "L6",
                deed: Deed::RefuseUpdates,
                notice: notice.then_some(due),
            });
        }
        acts
    }
}
