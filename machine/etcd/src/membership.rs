//! The membership controller, `landfall-agent etcd-keeper FILE`: makes etcd's membership match the
//! configuration.
//!
//! Only the controller on the leader's machine acts, so controllers cannot contradict each other; etcd itself
//! refuses a change that would cost the majority, and [`decide`] does not request one. The exception: a
//! controller on another machine requests leadership from a leader that is to be removed. The machine of that
//! leader no longer receives configurations, so its controller would keep the leadership for ever.

use std::{collections::BTreeMap, collections::BTreeSet, fs, path::Path, time::Duration};

use agent_protocol::programs::{EtcdMember, MembershipConfig, MembershipStatus, Standing};
use machine_program::{disk, pause};

use crate::{
    client::{Client, EtcdError, LOCAL, Member, Status},
    decide::peer_url,
};

/// Interval while a change is pending, or while this machine's member is not the leader of several.
const OFTEN: Duration = Duration::from_secs(1);
/// Interval while the membership matches the configuration.
const SELDOM: Duration = Duration::from_secs(5);
/// A single member changes only with its configuration, which restarts the controller.
const ALONE: Duration = Duration::from_secs(30);
const BOUND: Duration = Duration::from_secs(10);
/// A healthy member answers in milliseconds.
const ASK: Duration = Duration::from_secs(1);
/// After this number of checks in a row without an answer, a member that is not wanted counts as lost.
const LOST: u32 = 3;

/// The state as the leader's machine sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// This machine's member, which leads.
    pub own: u64,
    /// All members.
    pub members: Vec<Member>,
    /// Ids of the members that have not answered several checks in a row.
    pub well: BTreeSet<u64>,
    /// Ids of the members that have not answered for [`LOST`] checks.
    pub lost: BTreeSet<u64>,
}

/// The next change; afterwards the state is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// The peer URL of the member has changed: correct it in etcd.
    Move(u64),
    /// Promote this learner to a voter. etcd refuses until it has caught up.
    Promote(u64),
    /// Remove a member that is not wanted.
    Remove(u64),
    /// This machine's own member is not wanted: transfer leadership to another one.
    GiveLeadership(u64),
}

/// The next act, if any.
pub fn decide(wanted: &[EtcdMember], seen: &Seen) -> Option<Act> {
    let of = |member: &Member| {
        wanted.iter().find(|wanted| {
            // A member that has not started has no name yet.
            wanted.name == member.name
                || (member.name.is_empty() && member.peer_urls.contains(&peer_url(wanted)))
        })
    };
    let moved = seen.members.iter().find(|member| {
        of(member)
            .is_some_and(|wanted| !member.name.is_empty() && !member.peer_urls.contains(&peer_url(wanted)))
    });
    if let Some(member) = moved {
        return Some(Act::Move(member.id));
    }
    // Before any addition or promotion, and without risk: a learner has no vote.
    if let Some(member) = seen
        .members
        .iter()
        .find(|member| member.is_learner && of(member).is_none())
    {
        return Some(Act::Remove(member.id));
    }
    let voters: Vec<&Member> = seen.members.iter().filter(|member| !member.is_learner).collect();
    let leaving: Vec<&&Member> = voters.iter().filter(|member| of(member).is_none()).collect();
    // A lost member first: while it is away, etcd refuses additions, so its replacement cannot join before it
    // is removed.
    if let Some(member) = leaving.iter().find(|member| seen.lost.contains(&member.id))
        && stays_well(&voters, seen, member.id)
    {
        return Some(Act::Remove(member.id));
    }
    let learner = seen
        .members
        .iter()
        .find(|member| member.is_learner && !member.name.is_empty() && seen.well.contains(&member.id));
    if let Some(member) = learner {
        return Some(Act::Promote(member.id));
    }
    // A healthy member is removed only when all wanted members vote and are healthy: until then it is needed.
    let complete = wanted.iter().all(|wanted| {
        voters
            .iter()
            .any(|voter| voter.name == wanted.name && seen.well.contains(&voter.id))
    });
    if !complete {
        return None;
    }
    match leaving.iter().find(|member| member.id != seen.own) {
        Some(member) => stays_well(&voters, seen, member.id).then_some(Act::Remove(member.id)),
        None => {
            leaving.first()?;
            let next = voters
                .iter()
                .find(|voter| of(voter).is_some() && seen.well.contains(&voter.id))?;
            Some(Act::GiveLeadership(next.id))
        }
    }
}

/// Whether the member `own`, which does not lead, should take the leadership: it is wanted, and the leader is
/// not.
pub fn claims(wanted: &[EtcdMember], members: &[Member], own: u64, leader: u64) -> bool {
    let voter = |id: u64| {
        members
            .iter()
            .find(|member| member.id == id && !member.is_learner)
    };
    let stays = |member: &Member| wanted.iter().any(|wanted| wanted.name == member.name);
    voter(own).is_some_and(stays) && voter(leader).is_some_and(|leader| !stays(leader))
}

/// Whether the voters without this one have a healthy majority.
fn stays_well(voters: &[&Member], seen: &Seen, without: u64) -> bool {
    let left = voters.iter().filter(|voter| voter.id != without);
    let well = left.clone().filter(|voter| seen.well.contains(&voter.id)).count();
    well > left.count() / 2
}

/// Runs for ever. `log` receives a line for each change.
///
/// # Errors
/// When the configuration cannot be read.
pub fn run(file: &Path, log: &dyn Fn(&str)) -> Result<std::convert::Infallible, String> {
    let text = fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    let config: MembershipConfig =
        serde_json::from_slice(&text).map_err(|error| format!("cannot use {}: {error}", file.display()))?;
    let mut controller = Controller {
        endpoint: LOCAL.to_owned(),
        config,
        client: None,
        silent: BTreeMap::new(),
        stays: None,
        shown: None,
    };
    let mut said = String::new();
    loop {
        let pause = controller.look(log).unwrap_or_else(|error| {
            let why = error.to_string();
            if why != said {
                log(&why);
                said = why;
            }
            controller.client = None;
            OFTEN
        });
        pause::sleep(pause);
    }
}

/// Reads the state and makes one change at a time.
pub struct Controller {
    endpoint: String,
    config: MembershipConfig,
    client: Option<Client>,
    /// For each member that does not answer: the number of checks in a row without an answer.
    silent: BTreeMap<u64, u32>,
    /// The leader that was found to be wanted, or that this member need not replace.
    stays: Option<u64>,
    /// The content of the status file. `None`: written by an earlier controller, if it exists.
    shown: Option<MembershipStatus>,
}

impl Controller {
    /// A controller for the member at this address.
    pub fn of(endpoint: &str, config: MembershipConfig) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            config,
            client: None,
            silent: BTreeMap::new(),
            stays: None,
            shown: None,
        }
    }

    /// Reads the state once and makes the next change, if one is needed. Returns the pause until the next
    /// call.
    ///
    /// # Errors
    /// When etcd does not answer or refuses.
    pub fn look(&mut self, log: &dyn Fn(&str)) -> Result<Duration, EtcdError> {
        let asked = self.ask();
        // Also when etcd does not answer: an earlier status, perhaps of an earlier controller, may no longer
        // be true.
        let standing = asked.as_ref().ok().map(|(_, _, standing)| standing.clone());
        let shown = self.shown.clone().unwrap_or_default();
        self.shows(MembershipStatus { standing, ..shown });
        let (client, status, _) = asked?;
        if !status.leads() {
            // Only the leader's machine reports the membership; others report only their own standing.
            self.show(&status, &[]);
            self.silent.clear();
            self.claim(&client, &status, log)?;
            self.client = Some(client);
            return Ok(OFTEN);
        }
        let members = client.members()?;
        self.show(&status, &members);
        if members.len() == 1 && self.config.members.len() == 1 && members[0].name == self.config.member {
            let act = self.act(&client, &status, members, log)?;
            self.client = Some(client);
            return Ok(if act { OFTEN } else { ALONE });
        }
        let acted = self.act(&client, &status, members, log)?;
        let pause = if acted || !self.silent.is_empty() || !self.complete() {
            OFTEN
        } else {
            SELDOM
        };
        self.client = Some(client);
        Ok(pause)
    }

    fn ask(&mut self) -> Result<(Client, Status, Standing), EtcdError> {
        let client = match self.client.take() {
            Some(client) => client,
            None => Client::new(&self.endpoint, &self.config.identity, BOUND)?,
        };
        let (status, standing) = standing(&client)?;
        Ok((client, status, standing))
    }

    /// Takes the leadership from a leader that is not wanted. Which leaders are wanted does not change while
    /// this runs.
    fn claim(&mut self, client: &Client, status: &Status, log: &dyn Fn(&str)) -> Result<(), EtcdError> {
        if status.leader == 0 || status.is_learner || self.stays == Some(status.leader) {
            return Ok(());
        }
        let (members, own) = (client.members()?, status.header.member_id);
        if !claims(&self.config.members, &members, own, status.leader) {
            self.stays = Some(status.leader);
            return Ok(());
        }
        let leader = members.iter().find(|member| member.id == status.leader);
        if let Some(url) = leader.and_then(|leader| leader.client_urls.first()) {
            Client::new(url, &self.config.identity, BOUND)?.give_leadership(own)?;
            log("took the leadership from a member that will be removed");
        }
        Ok(())
    }

    fn complete(&self) -> bool {
        let Some(shown) = &self.shown else { return false };
        let voters: BTreeSet<&String> = shown.voters.iter().collect();
        shown.learners.is_empty() && voters == self.config.members.iter().map(|member| &member.name).collect()
    }

    fn act(
        &mut self,
        client: &Client,
        status: &Status,
        members: Vec<Member>,
        log: &dyn Fn(&str),
    ) -> Result<bool, EtcdError> {
        let own = status.header.member_id;
        let well = self.well(own, &members);
        self.silent
            .retain(|id, _| members.iter().any(|member| member.id == *id));
        for member in &members {
            if well.contains(&member.id) {
                self.silent.remove(&member.id);
            } else {
                *self.silent.entry(member.id).or_default() += 1;
            }
        }
        let lost = self.silent.iter().filter(|(_, times)| **times >= LOST);
        let seen = Seen {
            own,
            lost: lost.map(|(id, _)| *id).collect(),
            well,
            members,
        };
        let Some(act) = decide(&self.config.members, &seen) else {
            return Ok(false);
        };
        let name = |id: u64| {
            let found = seen.members.iter().find(|member| member.id == id);
            found.map_or_else(|| format!("{id:x}"), label)
        };
        match act {
            Act::Move(id) => {
                let to = self.config.members.iter().find(|member| member.name == name(id));
                let url = to.map(peer_url).unwrap_or_default();
                log(&format!("set the peer URL of {} to {url}", name(id)));
                client.move_peer(id, &url)?;
            }
            // Refused until the learner has caught up: not worth a log line.
            Act::Promote(id) => match client.promote(id) {
                Ok(()) => log(&format!("promoted {} to a voter", name(id))),
                Err(EtcdError::Refused { why, .. }) if why.contains("in sync") => {}
                Err(error) => return Err(error),
            },
            Act::Remove(id) => {
                client.remove(id)?;
                log(&format!("removed {}", name(id)));
            }
            Act::GiveLeadership(id) => {
                client.give_leadership(id)?;
                log(&format!("gave leadership to {}", name(id)));
            }
        }
        Ok(true)
    }

    fn well(&self, own: u64, members: &[Member]) -> BTreeSet<u64> {
        let answers = |member: &Member| {
            member.id == own
                || member.client_urls.iter().any(|url| {
                    Client::new(url, &self.config.identity, ASK)
                        .and_then(|client| client.status())
                        .is_ok_and(|status| status.header.member_id == member.id && status.leader == own)
                })
        };
        std::thread::scope(|scope| {
            let asked: Vec<_> = members
                .iter()
                .map(|member| (member.id, scope.spawn(move || answers(member))))
                .collect();
            asked
                .into_iter()
                .filter_map(|(id, answer)| answer.join().unwrap_or(false).then_some(id))
                .collect()
        })
    }

    fn show(&mut self, status: &Status, members: &[Member]) {
        let leader = members
            .iter()
            .find(|member| member.id == status.leader)
            .map(label);
        self.shows(MembershipStatus {
            voters: names(members, false),
            learners: names(members, true),
            leader,
            size_mib: u64::try_from(status.db_size).unwrap_or(0).div_ceil(1024 * 1024),
            standing: self.shown.as_ref().and_then(|shown| shown.standing.clone()),
        });
    }

    fn shows(&mut self, now: MembershipStatus) {
        if self.shown.as_ref() == Some(&now) {
            return;
        }
        let text = serde_json::to_vec(&now).unwrap_or_default();
        if disk::show(Path::new(&self.config.status), &text).is_ok() {
            self.shown = Some(now);
        }
    }
}

/// The member's status and its standing in the cluster.
fn standing(client: &Client) -> Result<(Status, Standing), EtcdError> {
    let status = client.status()?;
    let standing = if status.is_learner {
        Standing::Learner
    } else if status.leader != 0 {
        Standing::Led
    } else {
        let voters = names(&client.local_members()?, false);
        Standing::Leaderless { voters }
    };
    Ok((status, standing))
}

/// The names of the learners, or of the voters, in order.
fn names(members: &[Member], learners: bool) -> Vec<String> {
    let mut names: Vec<String> = members
        .iter()
        .filter(|member| member.is_learner == learners)
        .map(label)
        .collect();
    names.sort();
    names
}

/// The member's name, or its address as long as it has none.
fn label(member: &Member) -> String {
    if member.name.is_empty() {
        member
            .peer_urls
            .first()
            .cloned()
            .unwrap_or_else(|| format!("{:x}", member.id))
    } else {
        member.name.clone()
    }
}

#[cfg(test)]
#[path = "membership_tests.rs"]
mod tests;
