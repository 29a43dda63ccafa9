//! A cluster's etcd: its members and its history.

use agent_protocol::programs::EtcdMember;
use machine_etcd::{client::Member, decide::peer_url};

/// A cluster's etcd.
#[derive(Debug, Default)]
pub(crate) struct Etcd {
    /// The number of the etcd cluster of this name: each founding and each restore begins another one. 0:
    /// none was founded.
    pub(crate) history: u64,
    pub(crate) members: Vec<Member>,
    /// The number of members that were ever added, for their ids.
    numbers: u64,
    /// The restore that its data comes from.
    pub(crate) restored: Option<String>,
    /// The machine that leads.
    pub(crate) leader: Option<String>,
    /// Whether there was a majority at the last check.
    pub(crate) quorum: bool,
}

impl Etcd {
    /// Replaces this cluster by another; `founders` are its members, none of which has started.
    pub(crate) fn begin(&mut self, founders: &[EtcdMember], restored: Option<String>) {
        self.history += 1;
        self.members.clear();
        self.restored = restored;
        self.leader = None;
        for founder in founders {
            let member = self.member(&founder.name, peer_url(founder), false);
            self.members.push(member);
        }
    }

    pub(crate) fn member(&mut self, name: &str, url: String, is_learner: bool) -> Member {
        self.numbers += 1;
        Member {
            id: self.numbers,
            name: name.to_owned(),
            peer_urls: vec![url],
            client_urls: Vec::new(),
            is_learner,
        }
    }

    pub(crate) fn named(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }

    pub(crate) fn find(&mut self, id: u64) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.id == id)
    }

    pub(crate) fn voters(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| !member.is_learner)
    }

    /// A member runs: from then on it has a name, and client URLs.
    pub(crate) fn started(&mut self, id: u64, name: &str) {
        if let Some(member) = self.find(id) {
            name.clone_into(&mut member.name);
            member.client_urls = vec![format!("https://{name}:2379")];
        }
    }
}
