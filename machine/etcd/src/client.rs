//! A client of one member.

use std::time::Duration;

use agent_protocol::programs::EtcdIdentity;
use machine_program::https::{self, Bounds};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::wire::{self, Failure, Streamed, encoded};
pub use crate::{
    error::EtcdError,
    wire::{Batch, Event, KeyValue, Kind, Member, Page, Status},
};

/// The client URL of the member in the same machine.
pub const LOCAL: &str = "https://127.0.0.1:2379";

/// The largest answer that is read: a page of a range, a member list. Far above the size of a page of 500
/// objects.
const LARGEST: u64 = 256 * 1024 * 1024;
/// The longest line of a watch: the changes of one transaction, or of many when the watch catches up.
const LONGEST_LINE: usize = 512 * 1024 * 1024;

/// A client of one member. Keeps its connection; cheap to make; made again when certificates were renewed.
pub struct Client {
    endpoint: String,
    requests: ureq::Agent,
    identity: (String, (String, String)),
}

impl Client {
    /// A client of the member at this address, e.g. [`LOCAL`]; `bound` limits each request.
    ///
    /// # Errors
    /// When the files of the identity cannot be read.
    pub fn new(endpoint: &str, identity: &EtcdIdentity, bound: Duration) -> Result<Self, EtcdError> {
        let read = |path: &String| {
            std::fs::read_to_string(path).map_err(|source| EtcdError::Identity {
                path: path.clone(),
                source,
            })
        };
        let ca = read(&identity.ca)?;
        let shown = (read(&identity.certificate)?, read(&identity.key)?);
        let requests =
            https::client(Some(&ca), Some(&shown), Bounds::whole(bound)).ok_or_else(|| unusable(identity))?;
        Ok(Self {
            endpoint: endpoint.to_owned(),
            requests,
            identity: (ca, shown),
        })
    }

    /// The member's address.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    fn send(
        &self,
        agent: &ureq::Agent,
        call: &'static str,
        body: &impl Serialize,
    ) -> Result<ureq::Body, EtcdError> {
        let url = format!("{}/v3/{call}", self.endpoint);
        let mut answer = agent
            .post(&url)
            .send_json(body)
            .map_err(|error| self.away(call, &error))?;
        if answer.status().as_u16() == 200 {
            return Ok(answer.into_body());
        }
        let status = answer.status().as_u16();
        let text = answer
            .body_mut()
            .with_config()
            .limit(LARGEST)
            .read_to_string()
            .unwrap_or_default();
        Err(match serde_json::from_str::<Failure>(&text) {
            Ok(failure) => failure.into_error(call),
            Err(_) => EtcdError::Answer {
                call,
                why: format!("status {status}"),
            },
        })
    }

    fn away(&self, call: &'static str, why: &dyn std::fmt::Display) -> EtcdError {
        EtcdError::Away {
            endpoint: self.endpoint.clone(),
            call,
            why: why.to_string(),
        }
    }

    fn ask<A: DeserializeOwned>(&self, call: &'static str, body: &impl Serialize) -> Result<A, EtcdError> {
        let mut answer = self.send(&self.requests, call, body)?;
        let reader = answer.with_config().limit(LARGEST).reader();
        serde_json::from_reader(std::io::BufReader::new(reader)).map_err(|error| match error.classify() {
            serde_json::error::Category::Io => self.away(call, &error),
            _ => EtcdError::Answer {
                call,
                why: error.to_string(),
            },
        })
    }

    /// One page of the keys `from..end` (`end` empty: only `from`; `[0]`: to the last) as of a revision (0: the newest).
    ///
    /// # Errors
    /// [`EtcdError::Compacted`] when the revision is no longer there.
    pub fn range(&self, from: &[u8], end: &[u8], revision: i64, limit: i64) -> Result<Page, EtcdError> {
        self.ask(
            "kv/range",
            &json!({
                "key": encoded(from), "range_end": encoded(end),
                "revision": revision.to_string(), "limit": limit.to_string(),
            }),
        )
    }

    /// All keys of `from..end` as of one revision (0: the newest), page by page, each given to `take`.
    /// Returns that revision.
    ///
    /// # Errors
    /// Those of [`Self::range`] and of `take`.
    pub fn pages<E: From<EtcdError>>(
        &self,
        from: &[u8],
        end: &[u8],
        revision: i64,
        limit: i64,
        mut take: impl FnMut(Page) -> Result<(), E>,
    ) -> Result<i64, E> {
        let (mut from, mut revision) = (from.to_vec(), revision);
        loop {
            let page = self.range(&from, end, revision, limit)?;
            if revision == 0 {
                revision = page.header.revision;
            }
            let last = page.kvs.last().map(|kv| kv.key.clone());
            let more = page.more;
            take(page)?;
            match last {
                Some(mut last) if more => {
                    // The smallest key after it.
                    last.push(0);
                    from = last;
                }
                _ => return Ok(revision),
            }
        }
    }

    /// The value of one key from this member's own copy: answered without a leader too, and by learners.
    ///
    /// # Errors
    /// When the member does not answer.
    pub fn local_value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EtcdError> {
        let page: Page = self.ask("kv/range", &json!({ "key": encoded(key), "serializable": true }))?;
        Ok(page.kvs.into_iter().next().map(|kv| kv.value))
    }

    /// Writes a key; lease 0 is none. Returns the revision.
    ///
    /// # Errors
    /// When etcd refuses.
    pub fn put(&self, key: &[u8], value: &[u8], lease: i64) -> Result<i64, EtcdError> {
        let answer: wire::Plain = self.ask("kv/put", &put(key, value, lease))?;
        Ok(answer.header.revision)
    }

    /// Deletes the keys `from..end` (`end` as in [`Self::range`]). Returns the revision.
    ///
    /// # Errors
    /// When etcd refuses.
    pub fn delete(&self, from: &[u8], end: &[u8]) -> Result<i64, EtcdError> {
        let answer: wire::Plain = self.ask(
            "kv/deleterange",
            &json!({ "key": encoded(from), "range_end": encoded(end) }),
        )?;
        Ok(answer.header.revision)
    }

    /// Applies all writes or none, in one revision. Returns the revision, or `None` if a comparison did not
    /// hold. At most 128 writes (`--max-txn-ops`).
    ///
    /// # Errors
    /// When etcd refuses.
    pub fn txn(&self, compare: &[Compare], writes: &[Write]) -> Result<Option<i64>, EtcdError> {
        let compare: Vec<Value> = compare.iter().map(Compare::json).collect();
        let writes: Vec<Value> = writes.iter().map(Write::json).collect();
        let answer: wire::TxnAnswer =
            self.ask("kv/txn", &json!({ "compare": compare, "success": writes }))?;
        Ok(answer.succeeded.then_some(answer.header.revision))
    }

    /// Compacts: revisions before this one can no longer be read.
    ///
    /// # Errors
    /// When the revision is compacted already, or in the future.
    pub fn compact(&self, revision: i64) -> Result<(), EtcdError> {
        let _done: wire::Plain = self.ask("kv/compaction", &json!({ "revision": revision.to_string() }))?;
        Ok(())
    }

    /// Grants a lease with this id (0: etcd chooses) for this number of seconds. Returns its id.
    ///
    /// # Errors
    /// When a lease with this id exists.
    pub fn grant(&self, id: i64, seconds: i64) -> Result<i64, EtcdError> {
        let lease: wire::Lease = self.ask(
            "lease/grant",
            &json!({ "ID": id.to_string(), "TTL": seconds.to_string() }),
        )?;
        Ok(lease.id)
    }

    /// The number of seconds a lease was granted for; `None` if the lease does not exist (any more).
    ///
    /// # Errors
    /// When etcd does not answer.
    pub fn lease(&self, id: i64) -> Result<Option<i64>, EtcdError> {
        let lease: wire::Lease = self.ask("lease/timetolive", &json!({ "ID": id.to_string() }))?;
        Ok((lease.ttl > 0).then_some(lease.granted))
    }

    /// Leader, revision, database size, whether the member is a learner: as the member itself sees it.
    ///
    /// # Errors
    /// When the member does not answer.
    pub fn status(&self) -> Result<Status, EtcdError> {
        self.ask("maintenance/status", &json!({}))
    }

    /// Gives leadership to another member. Only the leader can.
    ///
    /// # Errors
    /// When this member is not the leader, or the other cannot take over.
    pub fn give_leadership(&self, to: u64) -> Result<(), EtcdError> {
        let call = "maintenance/transfer-leadership";
        let _done: wire::Plain = self.ask(call, &json!({ "targetID": to.to_string() }))?;
        Ok(())
    }

    /// All members, as the majority knows them. Learners do not answer this.
    ///
    /// # Errors
    /// When there is no leader.
    pub fn members(&self) -> Result<Vec<Member>, EtcdError> {
        self.member_list(true)
    }

    /// All members as far as this member itself has applied the log: answered without a leader too, but not
    /// by learners.
    ///
    /// # Errors
    /// When the member does not answer, or is a learner.
    pub fn local_members(&self) -> Result<Vec<Member>, EtcdError> {
        self.member_list(false)
    }

    fn member_list(&self, linearizable: bool) -> Result<Vec<Member>, EtcdError> {
        let list: wire::MemberList =
            self.ask("cluster/member/list", &json!({ "linearizable": linearizable }))?;
        Ok(list.members)
    }

    /// Adds a learner with this peer URL. Returns it and all members.
    ///
    /// # Errors
    /// When another learner exists, or too few members are healthy.
    pub fn add_learner(&self, peer: &str) -> Result<(Member, Vec<Member>), EtcdError> {
        let body = json!({ "peerURLs": [peer], "isLearner": true });
        let answer: wire::MemberAdded = self.ask("cluster/member/add", &body)?;
        Ok((answer.member, answer.members))
    }

    /// Makes a learner a voter.
    ///
    /// # Errors
    /// When the learner has not caught up.
    pub fn promote(&self, member: u64) -> Result<(), EtcdError> {
        let _list: wire::MemberList =
            self.ask("cluster/member/promote", &json!({ "ID": member.to_string() }))?;
        Ok(())
    }

    /// Removes a member.
    ///
    /// # Errors
    /// When the remaining members would not have a healthy majority.
    pub fn remove(&self, member: u64) -> Result<(), EtcdError> {
        let _list: wire::MemberList =
            self.ask("cluster/member/remove", &json!({ "ID": member.to_string() }))?;
        Ok(())
    }

    /// Changes the peer URL under which the other members reach a member.
    ///
    /// # Errors
    /// When there is no leader.
    pub fn move_peer(&self, member: u64, peer: &str) -> Result<(), EtcdError> {
        let body = json!({ "ID": member.to_string(), "peerURLs": [peer] });
        let _list: wire::MemberList = self.ask("cluster/member/update", &body)?;
        Ok(())
    }

    /// All changes of `from..end` from this revision on (0: from now on), with progress notifications in
    /// between. `silence`: the watch ends with an error when nothing arrives for that long. It must be longer
    /// than etcd's `--watch-progress-notify-interval` (ten minutes by default).
    ///
    /// # Errors
    /// When the watch cannot be started. [`EtcdError::Compacted`] comes from [`Watch::next`].
    pub fn watch(
        &self,
        from: &[u8],
        end: &[u8],
        revision: i64,
        silence: Duration,
    ) -> Result<Watch, EtcdError> {
        let (ca, shown) = &self.identity;
        // A separate connection, which ends with the watch.
        let agent =
            https::client(Some(ca), Some(shown), Bounds::stream(silence)).ok_or(EtcdError::Answer {
                call: WATCH,
                why: "the identity cannot be used".to_owned(),
            })?;
        let body = json!({ "create_request": {
            "key": encoded(from), "range_end": encoded(end), "start_revision": revision.to_string(),
            "progress_notify": true,
        } });
        let body = self.send(&agent, WATCH, &body)?;
        let endpoint = self.endpoint.clone();
        Ok(Watch {
            endpoint,
            lines: std::io::BufReader::with_capacity(64 * 1024, Box::new(body.into_reader())),
        })
    }
}

const WATCH: &str = "watch";

fn unusable(identity: &EtcdIdentity) -> EtcdError {
    EtcdError::Identity {
        path: identity.key.clone(),
        source: std::io::Error::new(std::io::ErrorKind::InvalidData, "it is not a key"),
    }
}

fn put(key: &[u8], value: &[u8], lease: i64) -> Value {
    json!({ "key": encoded(key), "value": encoded(value), "lease": lease.to_string() })
}

/// A condition of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compare {
    /// The key was last written in this revision; 0: the key does not exist.
    Revision {
        /// The key.
        key: Vec<u8>,
        /// The revision.
        revision: i64,
    },
}

impl Compare {
    fn json(&self) -> Value {
        let Self::Revision { key, revision } = self;
        json!({ "key": encoded(key), "target": "MOD", "result": "EQUAL", "mod_revision": revision.to_string() })
    }
}

/// A write of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Writes a key.
    Put {
        /// The key.
        key: Vec<u8>,
        /// The new value.
        value: Vec<u8>,
        /// The lease that the key is attached to, or 0.
        lease: i64,
    },
    /// Deletes one key.
    Delete {
        /// The key.
        key: Vec<u8>,
    },
}

impl Write {
    fn json(&self) -> Value {
        match self {
            Self::Put { key, value, lease } => json!({ "request_put": put(key, value, *lease) }),
            Self::Delete { key } => json!({ "request_delete_range": { "key": encoded(key) } }),
        }
    }
}

/// An open watch. Dropping it ends it.
pub struct Watch {
    endpoint: String,
    lines: std::io::BufReader<Box<dyn std::io::Read + Send>>,
}

impl Watch {
    /// Waits for the next changes, or for a progress notification.
    ///
    /// # Errors
    /// [`EtcdError::Compacted`] when the start revision is compacted; [`EtcdError::Away`] when the connection
    /// ends or is silent for too long. The watch is over then.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator would hide that it ends with an error"
    )]
    pub fn next(&mut self) -> Result<Batch, EtcdError> {
        use std::io::{BufRead as _, Read as _};
        loop {
            let mut line = Vec::new();
            let read = (&mut self.lines)
                .take(LONGEST_LINE as u64)
                .read_until(b'\n', &mut line);
            let why = match read {
                Ok(0) => Some("the watch ended".to_owned()),
                Ok(_) if line.last() != Some(&b'\n') => Some("the watch ended in the middle".to_owned()),
                Ok(_) => None,
                Err(error) => Some(error.to_string()),
            };
            if let Some(why) = why {
                return Err(EtcdError::Away {
                    endpoint: self.endpoint.clone(),
                    call: WATCH,
                    why,
                });
            }
            let streamed: Streamed = serde_json::from_slice(&line).map_err(|error| EtcdError::Answer {
                call: WATCH,
                why: error.to_string(),
            })?;
            if let Some(batch) = streamed.batch()? {
                return Ok(batch);
            }
        }
    }
}
