//! The steps of the service: each commit and each call into the world, counted, and their faults.
//!
//! Always true: a dead service has no further effect. Every commit and every call passes here and blocks for
//! ever from the moment of death on, until the player has dropped the rest of the service.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use base_env::{Clock, Seed};
use fabric_sim::{Call, Interceptor, Verdict};
use tokio::sync::Notify;

use crate::{instant, trace::Trace};

/// The fault of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// It fails, and the next try works.
    FailsOnce,
    /// It fails, and so does every try of the same until the fault is lifted.
    FailsForEver,
    /// It is done, its response is lost, so it will be repeated.
    Repeated,
    /// It takes very long: a commit ten seconds, a call for ever (the caller has a time limit).
    Hangs,
    /// The process dies right before.
    DiesBefore,
    /// The process dies right after.
    DiesAfter,
}

impl Fault {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::FailsOnce,
        Self::FailsForEver,
        Self::Repeated,
        Self::Hangs,
        Self::DiesBefore,
        Self::DiesAfter,
    ];

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::FailsOnce => "fails-once",
            Self::FailsForEver => "fails-for-ever",
            Self::Repeated => "repeated",
            Self::Hangs => "hangs",
            Self::DiesBefore => "dies-before",
            Self::DiesAfter => "dies-after",
        }
    }
}

/// How long a commit takes that takes long.
const SLOW: Duration = Duration::from_secs(10);

/// Rates of random faults.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weather {
    /// The part of all calls into the world that fail, half of them after their work, `0.0..=1.0`.
    pub calls: f64,
    /// The part of all commits that fail, half of them after their work.
    pub commits: f64,
    /// The part of all commits and calls that take very long.
    pub slow: f64,
}

#[derive(Default)]
struct Inner {
    /// Counts starts of the service.
    life: u64,
    alive: bool,
    /// Commits and calls since the count began.
    steps: Vec<String>,
    counting: bool,
    plan: Option<(usize, Fault)>,
    /// The step that fails for ever.
    broken: Option<String>,
    /// Whether the planned fault has happened.
    happened: bool,
    /// The numbers of running steps, by their description: several may have the same.
    under_way: BTreeMap<String, VecDeque<usize>>,
    /// Every store access and call: the points at which the service can be killed.
    points: u64,
    die_at: Option<u64>,
    weather: Weather,
    drawn: u64,
}

/// See the module.
pub struct Steps {
    clock: Arc<dyn Clock>,
    seed: Seed,
    trace: Arc<Trace>,
    inner: Mutex<Inner>,
    died: Notify,
}

impl Steps {
    /// No service yet, no faults.
    pub fn new(clock: Arc<dyn Clock>, seed: Seed, trace: Arc<Trace>) -> Self {
        Self {
            clock,
            seed,
            trace,
            inner: Mutex::default(),
            died: Notify::new(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A service starts: its number.
    pub(crate) fn begin(&self) -> u64 {
        let mut inner = self.inner();
        inner.life += 1;
        inner.alive = true;
        inner.under_way.clear();
        inner.die_at = None;
        inner.life
    }

    /// The service has ended.
    pub(crate) fn end(&self) {
        self.inner().alive = false;
    }

    /// Whether the service runs: not killed, and not stopped at a step.
    pub fn alive(&self) -> bool {
        self.inner().alive
    }

    /// Waits for the service to die at a step.
    pub async fn died(&self) {
        while self.alive() {
            self.died.notified().await;
        }
    }

    /// Counts steps from now on; `plan`: the step with a fault, from 0.
    pub fn count(&self, plan: Option<(usize, Fault)>) {
        let mut inner = self.inner();
        inner.steps.clear();
        inner.counting = true;
        inner.plan = plan;
        inner.happened = false;
        inner.broken = None;
    }

    /// Ends every fault, and the count. Returns the steps.
    pub fn lift(&self) -> Vec<String> {
        let mut inner = self.inner();
        inner.counting = false;
        inner.plan = None;
        inner.broken = None;
        inner.die_at = None;
        inner.weather = Weather::default();
        std::mem::take(&mut inner.steps)
    }

    /// Whether the planned fault has happened.
    pub fn happened(&self) -> bool {
        self.inner().happened
    }

    /// Kills the service so many points from now: each access to the store and each call is one.
    pub fn die_in(&self, points: u64) {
        let mut inner = self.inner();
        inner.die_at = Some(inner.points + points);
    }

    /// How many points there were so far.
    pub fn points(&self) -> u64 {
        self.inner().points
    }

    /// Sets the rates of random faults.
    pub fn weather(&self, weather: Weather) {
        self.inner().weather = weather;
    }

    /// Passes a point of a service's life; never returns in a service that is dead, or that does too much in one instant.
    pub(crate) async fn point(&self, life: u64, what: &str) {
        if instant::count(self.clock.monotonic(), || what.to_owned()) {
            std::future::pending::<()>().await;
        }
        let dead = {
            let mut inner = self.inner();
            inner.points += 1;
            let due = inner.life == life && inner.die_at.is_some_and(|at| inner.points >= at);
            due || inner.life != life || !inner.alive
        };
        if dead {
            self.die(life).await;
        }
    }

    /// The service dies here. Never returns.
    async fn die(&self, life: u64) {
        let fresh = {
            let mut inner = self.inner();
            let fresh = inner.life == life && inner.alive;
            if fresh {
                inner.alive = false;
                inner.die_at = None;
            }
            fresh
        };
        if fresh {
            self.trace.note("life the service dies");
            self.died.notify_one();
        }
        std::future::pending::<()>().await;
    }

    /// A step begins.
    pub(crate) async fn before(&self, life: u64, step: &str, commit: bool) -> Verdict {
        self.point(life, step).await;
        let fault = {
            let mut inner = self.inner();
            let number = inner.steps.len();
            if inner.counting {
                inner.steps.push(step.to_owned());
                inner
                    .under_way
                    .entry(step.to_owned())
                    .or_default()
                    .push_back(number);
            }
            let planned = inner.plan.filter(|(at, _)| *at == number && inner.counting);
            if let Some((_, fault)) = planned {
                inner.happened = true;
                if fault == Fault::FailsForEver {
                    inner.broken = Some(class(step, commit).to_owned());
                }
            }
            let broken = inner.broken.as_deref() == Some(class(step, commit));
            match planned {
                Some((_, fault)) => Some(fault),
                None if broken => Some(Fault::FailsForEver),
                None => self.chance(&mut inner, commit),
            }
        };
        match fault {
            None | Some(Fault::DiesAfter) => Verdict::Works,
            Some(Fault::FailsOnce | Fault::FailsForEver) => Verdict::Fails,
            Some(Fault::Repeated) => Verdict::LosesAnswer,
            Some(Fault::Hangs) if commit => {
                self.clock.sleep(SLOW).await;
                Verdict::Works
            }
            Some(Fault::Hangs) => {
                self.trace.note(&format!("fault hangs {step}"));
                std::future::pending::<()>().await;
                Verdict::Fails
            }
            Some(Fault::DiesBefore) => {
                self.die(life).await;
                Verdict::Fails
            }
        }
    }

    /// A step has done its work.
    pub(crate) async fn after(&self, life: u64, step: &str) {
        let dies = {
            let mut inner = self.inner();
            // Any of those with the same description.
            let number = inner.under_way.get_mut(step).and_then(VecDeque::pop_front);
            inner
                .plan
                .is_some_and(|(at, fault)| fault == Fault::DiesAfter && Some(at) == number && inner.counting)
        };
        if dies {
            self.die(life).await;
        }
        self.point(life, step).await;
    }

    fn chance(&self, inner: &mut Inner, commit: bool) -> Option<Fault> {
        let Weather { calls, commits, slow } = inner.weather;
        let rate = if commit { commits } else { calls };
        if rate == 0.0 && slow == 0.0 {
            return None;
        }
        inner.drawn += 1;
        let chance = self.seed.fraction(inner.drawn);
        // Below one, half of the faults happen before the step; at one, it is an outage: no step is done at
        // all.
        if chance < rate / 2.0 || rate >= 1.0 {
            Some(Fault::FailsOnce)
        } else if chance < rate {
            Some(Fault::Repeated)
        } else if chance < rate + slow {
            Some(Fault::Hangs)
        } else {
            None
        }
    }
}

/// The class of steps that fail together in a permanent fault: calls about one subject; the store as a whole.
fn class(step: &str, commit: bool) -> &str {
    if commit { "commit" } else { step }
}

/// The interceptor of one life of the service.
pub(crate) struct LifeInterceptor {
    pub(crate) steps: Arc<Steps>,
    pub(crate) life: u64,
}

#[async_trait]
impl Interceptor for LifeInterceptor {
    async fn before(&self, call: Call, what: &str) -> Verdict {
        let step = format!("{call} {what}");
        let step = step.trim_end();
        let verdict = self.steps.before(self.life, step, false).await;
        match verdict {
            Verdict::Works => self.steps.trace.note(&format!("call {step}")),
            Verdict::Fails => self.steps.trace.note(&format!("call {step} fails as told")),
            Verdict::LosesAnswer => self
                .steps
                .trace
                .note(&format!("call {step} (its answer is lost)")),
        }
        verdict
    }

    async fn after(&self, call: Call, what: &str, failure: Option<&str>) {
        let step = format!("{call} {what}");
        let step = step.trim_end();
        match failure {
            Some("injected fault") => self.steps.trace.note(&format!("call {step}: fails as told")),
            Some(why) => self.steps.trace.note(&format!("done {step}: {why}")),
            None => self.steps.trace.note(&format!("done {step}")),
        }
        self.steps.after(self.life, step).await;
    }
}
