//! The support policies: what state of support a cluster is in and why, when that changes by itself, and which deadlines run for it.
//!
//! Pure. [`support_state`] goes over [`Facts`] with the rules of a [`Profile`] and says what holds at one instant, each reason with the id of
//! its rule (`V1` to `X5`). [`next_change`] says when a date alone makes the state another one. [`clocks`] are the state machines of
//! everything that is stopped, idle, disconnected or suspended: which notices are due and what is then to be done. [`rules::all`] is the list
//! of all rules, with what is true of each today; [`page`] prints it.
//!
//! Always true: the same facts, profile and instant give the same answer; no answer depends on when it was asked before; a state is the gravest
//! of its reasons; a rule without its fact says nothing. What is evaluated here is not done here: stopping, archiving and deletion are the
//! caller's.
//!
//! Called by: `providers/containerservice` (facts of records, `supportState`, `supportScope`, the warning of writes, deadlines), the binary and `bench`.

pub mod clocks;
pub mod engine;
mod facts;
mod find;
mod page;
mod profile;
pub mod releases;
pub mod rules;
pub mod scope;
mod tell;
#[cfg(test)]
mod tests;

use jiff::Timestamp;

pub use facts::{
    Advisory, Change, ChangeKind, Fact, Facts, Issue, Means, Minor, NoMinor, Plugin, Pool, Reboot,
    Registration, Release, Stamp, Subscription,
};
pub use find::NOTICE;
pub use page::page;
pub use profile::{NoProfile, Profile};

use find::{Finding, find};

/// How well a cluster, or an area of it, is supported. Graver ones are greater.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Without reserve. A reason of this state is told, and changes nothing.
    #[default]
    Supported,
    /// Supported; something is to be done, most often by a date.
    Warning,
    /// As well as it goes, in business hours.
    BestEffort,
    /// Not until something is done that the owner can do.
    OutOfSupport,
    /// Not as it is: something was changed that nobody can answer for.
    Unsupportable,
}

impl State {
    /// As in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Supported => "Supported",
            Self::Warning => "Warning",
            Self::BestEffort => "BestEffort",
            Self::OutOfSupport => "OutOfSupport",
            Self::Unsupportable => "Unsupportable",
        }
    }
}

/// A part of a cluster that may be supported less well than the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Area {
    /// API server, controllers, scheduler.
    ControlPlane,
    /// Its data, and the backups of it.
    Etcd,
    /// Machines of pools, and what the service runs on them.
    Nodes,
    /// Pods' network, DNS, rules.
    Network,
    /// Load balancers, volumes, and whatever else joins the cluster with the platform.
    Integration,
    /// Add-ons, and all that is in `kube-system`.
    AddOns,
}

impl Area {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::ControlPlane,
        Self::Etcd,
        Self::Nodes,
        Self::Network,
        Self::Integration,
        Self::AddOns,
    ];

    /// As in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ControlPlane => "controlPlane",
            Self::Etcd => "etcd",
            Self::Nodes => "nodes",
            Self::Network => "network",
            Self::Integration => "integration",
            Self::AddOns => "addOns",
        }
    }
}

/// Why a cluster is in a state, by one rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// The rule's id, e.g. `V4`.
    pub rule: &'static str,
    /// The state that it makes of the cluster, or of its area.
    pub state: State,
    /// The area; `None`: the whole cluster.
    pub area: Option<Area>,
    /// A sentence for people.
    pub sentence: String,
    /// What to do; empty where nothing is to be done.
    pub remedy: String,
    /// By when.
    pub by: Option<Timestamp>,
    /// The fact that it rests on, for people.
    pub fact: String,
    /// Since when the fact is one, where that is known.
    pub since: Option<Timestamp>,
}

/// The state of support of a cluster at an instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SupportState {
    /// Of the cluster as a whole: the gravest of the reasons that are not of one area only.
    pub state: State,
    /// Of each area: no better than the whole.
    pub areas: Vec<(Area, State)>,
    /// Why, the gravest first.
    pub reasons: Vec<Reason>,
    /// When a date alone changes state or areas, with the facts as they are; `None`: no date does.
    pub until: Option<Timestamp>,
    /// What to do about the gravest reason; empty where nothing is to be done.
    pub remedy: String,
}

/// States of a cluster and its areas, without words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Standing {
    whole: State,
    areas: [State; Area::ALL.len()],
}

impl Standing {
    fn of(findings: &[Finding<'_>]) -> Self {
        let whole = findings.iter().filter(|finding| finding.area.is_none());
        let whole = whole.map(|finding| finding.state).max().unwrap_or_default();
        let areas = Area::ALL.map(|area| {
            let own = findings.iter().filter(|finding| finding.area == Some(area));
            own.map(|finding| finding.state)
                .max()
                .unwrap_or_default()
                .max(whole)
        });
        Self { whole, areas }
    }
}

/// The state of support of a cluster.
pub fn support_state(facts: &Facts, profile: Profile, now: Timestamp) -> SupportState {
    let found = find(facts, profile, now);
    let standing = Standing::of(&found.findings);
    let until = change(facts, profile, now, &standing, found.next());
    let mut findings = found.findings;
    findings.sort_by(|a, b| b.state.cmp(&a.state).then(a.rank().cmp(&b.rank())));
    let reasons: Vec<Reason> = findings.iter().map(|finding| finding.tell(profile)).collect();
    SupportState {
        state: standing.whole,
        areas: Area::ALL.into_iter().zip(standing.areas).collect(),
        until,
        remedy: reasons
            .iter()
            .find(|reason| !reason.remedy.is_empty())
            .map(|reason| reason.remedy.clone())
            .unwrap_or_default(),
        reasons,
    }
}

/// When a date alone changes the state of a cluster, or of an area of it, with the facts as they are. Reasons that come and go without
/// changing a state are not counted.
pub fn next_change(facts: &Facts, profile: Profile, now: Timestamp) -> Option<Timestamp> {
    let found = find(facts, profile, now);
    change(facts, profile, now, &Standing::of(&found.findings), found.next())
}

/// More dates than these are not looked through: each rule has a handful, and each fact of a list one or two.
const MOST_DATES: usize = 1024;

fn change(
    facts: &Facts,
    profile: Profile,
    now: Timestamp,
    before: &Standing,
    first: Option<Timestamp>,
) -> Option<Timestamp> {
    let mut next = first;
    let mut at = now;
    for _ in 0..MOST_DATES {
        at = next.filter(|next| *next > at)?;
        let found = find(facts, profile, at);
        if Standing::of(&found.findings) != *before {
            return Some(at);
        }
        next = found.next();
    }
    None
}
