//! The membership controller, `landfall-agent etcd-keeper FILE`: the membership, as it is to be.
//!
//! Only the leader's own machine acts, so nobody contradicts anybody; etcd itself refuses what would take the majority away,
//! and [`decide`] does not even ask. The one thing that others do is to ask a leader for the leadership that is on its way out: such a
//! one is not told any more who is to stay, and would lead for ever.

use std::{collections::BTreeMap, collections::BTreeSet, fs, path::Path, time::Duration};

use agent_protocol::programs::{EtcdMember, MembershipConfig, MembershipStatus, Standing};
use machine_program::{disk, pause};

use crate::{
    client::{Client, EtcdError, LOCAL, Member, Status},
    decide::peer_url,
};

/// While something is to be done, or a machine of several is not the leader's.
const OFTEN: Duration = Duration::from_secs(1);
/// While all is as it is to be.
const SELDOM: Duration = Duration::from_secs(5);
/// One member alone changes only when its configuration does, which starts the controller anew.
const ALONE: Duration = Duration::from_secs(30);
const BOUND: Duration = Duration::from_secs(10);
/// A member that is well answers in milliseconds.
const ASK: Duration = Duration::from_secs(1);
/// So many looks in a row without an answer, and a member that is not wanted counts as lost.
const LOST: u32 = 3;

/// What the leader's machine sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// This machine's member, which leads.
    pub own: u64,
    /// All members.
    pub members: Vec<Member>,
    /// Which of them answer.
    pub well: BTreeSet<u64>,
    /// Which of them have not answered for long.
    pub lost: BTreeSet<u64>,
}

/// What to do; then it is looked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// The member's peers reach it elsewhere than the others think: tell them.
    Move(u64),
    /// Make a voter of this learner. etcd refuses until it has caught up.
    Promote(u64),
    /// Remove a member that is not wanted.
    Remove(u64),
    /// This machine is not wanted itself: another one is to lead.
    GiveLeadership(u64),
}

/// The next act, if any.
pub fn decide(wanted: &[EtcdMember], seen: &Seen) -> Option<Act> {
    let of = |member: &Member| {
        wanted.iter().find(|wanted| {
            // Who has not started has no name yet.
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
    // Before anybody is added or promoted, and without loss: a learner has no vote.
    if let Some(member) = seen
        .members
        .iter()
        .find(|member| member.is_learner && of(member).is_none())
    {
        return Some(Act::Remove(member.id));
    }
    let voters: Vec<&Member> = seen.members.iter().filter(|member| !member.is_learner).collect();
    let leaving: Vec<&&Member> = voters.iter().filter(|member| of(member).is_none()).collect();
    // A lost one first: while it is away, etcd lets nobody in, so no replacement can come before it is gone.
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
    // One that is well is let go only when everybody who is wanted votes and is well: until then it is needed.
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

/// Whether the member `own`, which does not lead, is to have the leadership: it is wanted, and the leader is not.
pub fn claims(wanted: &[EtcdMember], members: &[Member], own: u64, leader: u64) -> bool {
    let voter = |id: u64| {
        members
            .iter()
            .find(|member| member.id == id && !member.is_learner)
    };
    let stays = |member: &Member| wanted.iter().any(|wanted| wanted.name == member.name);
    voter(own).is_some_and(stays) && voter(leader).is_some_and(|leader| !stays(leader))
}

/// Whether those that are left without this one have a majority that is well.
fn stays_well(voters: &[&Member], seen: &Seen, without: u64) -> bool {
    let left = voters.iter().filter(|voter| voter.id != without);
    let well = left.clone().filter(|voter| seen.well.contains(&voter.id)).count();
    well > left.count() / 2
}

/// Keeps it for ever. `log` hears what is being done.
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

/// Looks and acts, once at a time.
pub struct Controller {
    endpoint: String,
    config: MembershipConfig,
    client: Option<Client>,
    /// How often who has not answered, one time after the other.
    silent: BTreeMap<u64, u32>,
    /// The leader that was found to be one of those that stay, or that is not for this member to replace.
    stays: Option<u64>,
    /// What is in the file. `None`: what another controller wrote, if anything.
    shown: Option<MembershipStatus>,
}

impl Controller {
    /// Of the member at this address.
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

    /// Looks once, and does the next thing if there is one. Gives when to look again.
    ///
    /// # Errors
    /// When etcd does not answer or refuses.
    pub fn look(&mut self, log: &dyn Fn(&str)) -> Result<Duration, EtcdError> {
        let asked = self.ask();
        // Also when etcd does not answer: what was said before, by the controller before this one too, may not be so any more.
        let standing = asked.as_ref().ok().map(|(_, _, standing)| standing.clone());
        let shown = self.shown.clone().unwrap_or_default();
        self.shows(MembershipStatus { standing, ..shown });
        let (client, status, _) = asked?;
        if !status.leads() {
            // The leader's machine tells about the membership; this one only how it stands itself.
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

    /// Takes the leadership from a member that is to go. Which leaders stay does not change while this runs.
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
            log("took the leadership from a member that is to go");
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
                log(&format!("tells the others that {} is at {url}", name(id)));
                client.move_peer(id, &url)?;
            }
            // Refused until it has caught up: that is no news.
            Act::Promote(id) => match client.promote(id) {
                Ok(()) => log(&format!("made a voter of {}", name(id))),
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

/// How the member is, and how it stands in its etcd.
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

/// Those who learn, or those who vote, in order.
fn names(members: &[Member], learners: bool) -> Vec<String> {
    let mut names: Vec<String> = members
        .iter()
        .filter(|member| member.is_learner == learners)
        .map(label)
        .collect();
    names.sort();
    names
}

/// Its name, or its address as long as it has none.
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
