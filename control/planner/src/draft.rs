//! A plan being made: what features add to, and what they may ask of what is already in it.

use std::{cell::OnceCell, collections::BTreeSet, rc::Rc, time::Duration};

use cluster_autoscaler::Decision;
use control_records::{ClusterRecord, Event, EventKind, Milestone, ObservedRecord, Work};
use jiff::Timestamp;

use crate::{
    Addresses, ControlPlane, Effect, Frame, LARGEST, Observation, Policy, RendererVersions, Subject,
    UnknownMachines, Write, gaps,
};

/// A plan being made.
pub(crate) struct Draft<'a> {
    pub(crate) desired: &'a ClusterRecord,
    pub(crate) seen: &'a Observation,
    pub(crate) policy: &'a Policy,
    pub(crate) now: Timestamp,
    /// Whether the cluster is to be there and serving.
    pub(crate) served: bool,
    pub(crate) writes: Vec<Write>,
    pub(crate) observed: ObservedRecord,
    pub(crate) events: Vec<Event>,
    pub(crate) effects: Vec<Effect>,
    /// Subjects with an effect of this plan.
    pub(crate) planned: BTreeSet<Subject>,
    /// Subjects about which something is to be done, now or later.
    wanted: BTreeSet<Subject>,
    /// Machines that this plan marks as to go.
    marked: BTreeSet<String>,
    /// Machines that a repair of this plan takes away.
    repaired: BTreeSet<String>,
    pub(crate) waits: Vec<String>,
    pub(crate) unfinished: bool,
    pub(crate) look_again: Option<Timestamp>,
    pub(crate) frame: OnceCell<Option<Rc<Frame<'a>>>>,
    /// The autoscaler's decision, computed once for each plan; `None` if there is no basis for one.
    pub(crate) autoscaled: OnceCell<Option<Rc<Decision>>>,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(
        desired: &'a ClusterRecord,
        seen: &'a Observation,
        policy: &'a Policy,
        now: Timestamp,
        served: bool,
    ) -> Self {
        Self {
            desired,
            seen,
            policy,
            now,
            served,
            writes: Vec::new(),
            observed: seen.observed.clone(),
            events: Vec::new(),
            effects: Vec::new(),
            planned: BTreeSet::new(),
            wanted: BTreeSet::new(),
            marked: BTreeSet::new(),
            repaired: BTreeSet::new(),
            waits: Vec::new(),
            unfinished: false,
            look_again: None,
            frame: OnceCell::new(),
            autoscaled: OnceCell::new(),
        }
    }

    /// Plans an effect, unless its subject is busy or held back; either way `why` tells people what is going on.
    pub(crate) fn act(&mut self, effect: impl Into<Effect>, why: impl Into<String>) {
        self.wait(why);
        self.act_quietly(effect);
    }

    /// The same for what is routine. A line about it would be gone before anybody read it, and each line costs a commit.
    pub(crate) fn act_quietly(&mut self, effect: impl Into<Effect>) {
        let effect = effect.into();
        self.unfinished = true;
        let subject = effect.subject();
        self.wanted.insert(subject.clone());
        if self.seen.busy.contains(&subject) {
            return;
        }
        if let Some(held) = self.seen.held.get(&subject)
            && held.until > self.now
        {
            self.look_again_at(held.until);
            return;
        }
        if self.planned.insert(subject) {
            self.effects.push(effect);
        }
    }

    /// Plans an effect that is routine where it only makes sure of what was there before this process.
    pub(crate) fn act_or_adopt(&mut self, unknown: bool, effect: impl Into<Effect>, why: impl Into<String>) {
        if unknown && self.reached_before() {
            self.act_quietly(effect);
        } else {
            self.act(effect, why);
        }
    }

    /// Plans a write.
    pub(crate) fn write(&mut self, write: Write) {
        match &write {
            Write::MarkMachine(permit) => {
                self.marked.insert(permit.machine().to_owned());
            }
            Write::Repair {
                machine,
                work,
                remove,
                ..
            } if *remove || work.as_ref().and_then(Work::repair).is_some() => {
                self.repaired.insert(machine.clone());
            }
            _ => {}
        }
        self.writes.push(write);
    }

    /// Whether this much more can be written with this plan. If not, the plan is not finished, and the next one goes on.
    pub(crate) fn has_room(&mut self, more: usize) -> bool {
        let written: usize = self.writes.iter().map(Write::size).sum();
        let fits = written + self.events.len() + more <= LARGEST;
        self.unfinished |= !fits;
        fits
    }

    /// Whether this plan marks a machine as to go.
    pub(crate) fn is_marked(&self, machine: &str) -> bool {
        self.marked.contains(machine)
    }

    /// Whether a repair of this plan takes a machine away.
    pub(crate) fn is_repaired(&self, machine: &str) -> bool {
        self.repaired.contains(machine)
    }

    /// Whether nothing is being done about a subject, and nothing is to be done, be it held back or not.
    pub(crate) fn is_quiet(&self, subject: &Subject) -> bool {
        !self.seen.busy.contains(subject) && !self.wanted.contains(subject)
    }

    /// Something must happen by itself first.
    pub(crate) fn wait(&mut self, why: impl Into<String>) {
        self.unfinished = true;
        let why = why.into();
        if !self.waits.contains(&why) {
            self.waits.push(why);
        }
    }

    /// The same where it may only be that this process has not looked yet.
    pub(crate) fn wait_or_adopt(&mut self, unknown: bool, why: impl Into<String>) {
        if unknown && self.reached_before() {
            self.unfinished = true;
        } else {
            self.wait(why);
        }
    }

    /// Whether it is not known yet what is in no record. Until then no address, name or route is given out or taken away: something
    /// that is kept may have it.
    pub(crate) fn waits_for_look(&mut self) -> bool {
        if self.seen.unknown_machines != UnknownMachines::NotLooked {
            return false;
        }
        self.wait_or_adopt(true, "looking for machines that are in no record");
        self.look_again_at(self.after(self.now, UnknownMachines::PAUSE));
        true
    }

    /// Whether the present generation was reached at some time, so that what is not known is most likely there.
    pub(crate) fn reached_before(&self) -> bool {
        self.seen.observed.generation >= self.desired.generation
    }

    /// `from` and `pause` later, but for the gaps in which the service did not run.
    pub(crate) fn after(&self, from: Timestamp, pause: Duration) -> Timestamp {
        gaps::later(from, pause, &self.seen.gaps)
    }

    pub(crate) fn look_again_at(&mut self, at: Timestamp) {
        self.look_again = Some(self.look_again.map_or(at, |before| before.min(at)));
    }

    pub(crate) fn milestone(&mut self, milestone: Milestone) {
        self.observed.came_about(milestone, self.now);
    }

    /// Tells what happened, once: together with a write of this plan or with a change of `observed` that keeps the next
    /// plan from telling it again. Without either there is no transaction to tell it in, and it is lost.
    pub(crate) fn tell(&mut self, kind: EventKind, subject: impl Into<String>, message: impl Into<String>) {
        self.events.push(Event::new(kind, subject, message));
    }

    pub(crate) fn addresses(&self) -> Option<Addresses> {
        Addresses::of(&self.observed)
    }

    /// The addresses that are in the store, as opposed to those that this plan is about to lease.
    pub(crate) fn leased(&self) -> Option<Addresses> {
        Addresses::of(&self.seen.observed)
    }

    /// The control plane as it is in the store.
    pub(crate) fn control_plane(&self) -> ControlPlane {
        ControlPlane::of(
            self.desired.spec(),
            &self.seen.observed,
            self.seen.machines.values().map(|machine| &machine.record),
        )
    }

    /// What configurations are computed from as it is in the store, once addresses are leased and there are keys.
    pub(crate) fn frame(&self) -> Option<Rc<Frame<'a>>> {
        let frame = self
            .frame
            .get_or_init(|| self.frame_of(&self.seen.renderers).map(Rc::new));
        frame.clone()
    }

    /// The same as an older release computed it, while not all machines have taken the configurations of this one.
    pub(crate) fn older_frame(&self) -> Option<Frame<'a>> {
        let renderers = self.seen.observed.renderers.as_ref()?;
        if *renderers == self.seen.renderers {
            return None;
        }
        self.frame_of(renderers)
    }

    fn frame_of(&self, renderers: &'a RendererVersions) -> Option<Frame<'a>> {
        let addresses = Addresses::of(&self.seen.observed)?;
        Some(Frame::new(
            self.desired.spec(),
            renderers,
            self.seen.pki?,
            &addresses,
            self.control_plane(),
        ))
    }
}
