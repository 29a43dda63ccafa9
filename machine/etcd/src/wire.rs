//! The encoding of the gateway: 64-bit numbers as text, bytes in base64, fields with zero values left out.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, de};

use crate::error::EtcdError;

pub(crate) fn encoded(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

fn bytes<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    let text = std::borrow::Cow::<str>::deserialize(from)?;
    STANDARD.decode(text.as_bytes()).map_err(de::Error::custom)
}

/// Reads a number that is text, as the gateway writes it, or a JSON number.
fn number<'de, D: Deserializer<'de>, N>(from: D) -> Result<N, D::Error>
where
    N: std::str::FromStr<Err: std::fmt::Display> + Deserialize<'de>,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either<N> {
        Text(String),
        Number(N),
    }
    match Either::deserialize(from)? {
        Either::Text(text) => text.parse().map_err(de::Error::custom),
        Either::Number(number) => Ok(number),
    }
}

/// The head of every answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Header {
    /// The id of the cluster; a restored cluster has another.
    #[serde(default, deserialize_with = "number")]
    pub cluster_id: u64,
    /// The id of the member that answered.
    #[serde(default, deserialize_with = "number")]
    pub member_id: u64,
    /// The revision of the store.
    #[serde(default, deserialize_with = "number")]
    pub revision: i64,
}

/// A key and its value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct KeyValue {
    /// The key.
    #[serde(default, deserialize_with = "bytes")]
    pub key: Vec<u8>,
    /// The value.
    #[serde(default, deserialize_with = "bytes")]
    pub value: Vec<u8>,
    /// The revision that created it.
    #[serde(default, deserialize_with = "number")]
    pub create_revision: i64,
    /// The revision that last wrote it; for a deletion, the revision of the deletion.
    #[serde(default, deserialize_with = "number")]
    pub mod_revision: i64,
    /// The number of writes since its creation.
    #[serde(default, deserialize_with = "number")]
    pub version: i64,
    /// The lease that the key is attached to, or 0.
    #[serde(default, deserialize_with = "number")]
    pub lease: i64,
}

/// A page of a range.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Page {
    /// The header; its revision is the newest, whichever revision was requested.
    #[serde(default)]
    pub header: Header,
    /// Keys in order.
    #[serde(default)]
    pub kvs: Vec<KeyValue>,
    /// Whether more keys follow.
    #[serde(default)]
    pub more: bool,
    /// The number of keys in the whole range.
    #[serde(default, deserialize_with = "number")]
    pub count: i64,
}

/// The kind of a change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Kind {
    /// Written.
    #[default]
    Put,
    /// Deleted, by a client or by the end of its lease.
    Delete,
}

/// A change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Event {
    /// The kind.
    #[serde(default, rename = "type")]
    pub kind: Kind,
    /// The new state of the key; for a deletion only the key and its revision.
    #[serde(default)]
    pub kv: KeyValue,
}

#[derive(Deserialize)]
pub(crate) struct Plain {
    #[serde(default)]
    pub(crate) header: Header,
}

#[derive(Deserialize)]
pub(crate) struct TxnAnswer {
    #[serde(default)]
    pub(crate) header: Header,
    #[serde(default)]
    pub(crate) succeeded: bool,
}

#[derive(Deserialize)]
pub(crate) struct Lease {
    #[serde(default, rename = "ID", deserialize_with = "number")]
    pub(crate) id: i64,
    #[serde(default, rename = "TTL", deserialize_with = "number")]
    pub(crate) ttl: i64,
    #[serde(default, rename = "grantedTTL", deserialize_with = "number")]
    pub(crate) granted: i64,
}

/// A member as the cluster knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Member {
    /// Assigned by etcd.
    #[serde(default, rename = "ID", deserialize_with = "number")]
    pub id: u64,
    /// Empty until the member's first start.
    #[serde(default)]
    pub name: String,
    /// Its peer URLs.
    #[serde(default, rename = "peerURLs")]
    pub peer_urls: Vec<String>,
    /// Its client URLs. Empty until the member's first start.
    #[serde(default, rename = "clientURLs")]
    pub client_urls: Vec<String>,
    /// Whether it is a learner: receives all changes, has no vote.
    #[serde(default, rename = "isLearner")]
    pub is_learner: bool,
}

#[derive(Deserialize)]
pub(crate) struct MemberList {
    #[serde(default)]
    pub(crate) members: Vec<Member>,
}

#[derive(Deserialize)]
pub(crate) struct MemberAdded {
    pub(crate) member: Member,
    #[serde(default)]
    pub(crate) members: Vec<Member>,
}

/// The status of a member.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Status {
    /// Cluster, member, revision.
    #[serde(default)]
    pub header: Header,
    /// The leader's id; 0 if the member knows none.
    #[serde(default, deserialize_with = "number")]
    pub leader: u64,
    /// Bytes of the database file.
    #[serde(default, rename = "dbSize", deserialize_with = "number")]
    pub db_size: i64,
    /// Bytes in use in the database file.
    #[serde(default, rename = "dbSizeInUse", deserialize_with = "number")]
    pub db_size_in_use: i64,
    /// The index of the last known log entry.
    #[serde(default, rename = "raftIndex", deserialize_with = "number")]
    pub raft_index: u64,
    /// The index of the last applied log entry.
    #[serde(default, rename = "raftAppliedIndex", deserialize_with = "number")]
    pub raft_applied_index: u64,
    /// Problems: no leader, no space, a corruption.
    #[serde(default)]
    pub errors: Vec<String>,
    /// Whether it is a learner.
    #[serde(default, rename = "isLearner")]
    pub is_learner: bool,
    /// etcd's version.
    #[serde(default)]
    pub version: String,
}

impl Status {
    /// Whether it is the leader.
    pub fn leads(&self) -> bool {
        self.leader != 0 && self.leader == self.header.member_id
    }
}

/// An error answer of the gateway.
#[derive(Deserialize)]
pub(crate) struct Failure {
    #[serde(default)]
    code: i64,
    #[serde(default)]
    message: String,
}

impl Failure {
    pub(crate) fn into_error(self, call: &'static str) -> EtcdError {
        if self.message.contains("required revision has been compacted") {
            return EtcdError::Compacted { oldest: 0 };
        }
        EtcdError::Refused {
            call,
            code: self.code,
            why: self.message,
        }
    }
}

/// A line of a stream.
#[derive(Deserialize)]
pub(crate) struct Streamed {
    #[serde(default)]
    result: Option<Watched>,
    #[serde(default)]
    error: Option<Failure>,
}

#[derive(Default, Deserialize)]
struct Watched {
    #[serde(default)]
    header: Header,
    #[serde(default)]
    created: bool,
    #[serde(default)]
    canceled: bool,
    #[serde(default)]
    cancel_reason: String,
    #[serde(default, deserialize_with = "number")]
    compact_revision: i64,
    #[serde(default)]
    events: Vec<Event>,
}

/// The events of one message of a watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The store's revision. Without events (progress): all changes up to it were sent; with events: all up
    /// to the last event's.
    pub revision: i64,
    /// Changes, in order; those of one revision are never divided.
    pub events: Vec<Event>,
}

impl Streamed {
    /// The changes in it; `None` for the confirmation of the watch's creation.
    pub(crate) fn batch(self) -> Result<Option<Batch>, EtcdError> {
        if let Some(failure) = self.error {
            return Err(failure.into_error("watch"));
        }
        let watched = self.result.unwrap_or_default();
        if watched.compact_revision > 0 {
            return Err(EtcdError::Compacted {
                oldest: watched.compact_revision,
            });
        }
        if watched.canceled {
            return Err(EtcdError::Refused {
                call: "watch",
                code: 0,
                why: watched.cancel_reason,
            });
        }
        if watched.created && watched.events.is_empty() {
            return Ok(None);
        }
        Ok(Some(Batch {
            revision: watched.header.revision,
            events: watched.events,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Result<Option<Batch>, EtcdError> {
        serde_json::from_str::<Streamed>(text).unwrap().batch()
    }

    #[test]
    fn lines_of_a_watch() {
        let created =
            r#"{"result":{"header":{"cluster_id":"17237436991929493444","revision":"7"},"created":true}}"#;
        assert!(line(created).unwrap().is_none());
        let progress = line(r#"{"result":{"header":{"revision":"9"}}}"#)
            .unwrap()
            .unwrap();
        assert_eq!((progress.revision, progress.events.len()), (9, 0));
        let changes = r#"{"result":{"header":{"revision":"12"},"events":[
            {"kv":{"key":"YQ==","value":"","create_revision":"10","mod_revision":"11","version":"2","lease":"-7"}},
            {"type":"DELETE","kv":{"key":"AP8=","mod_revision":"12"}}]}}"#;
        let batch = line(changes).unwrap().unwrap();
        assert_eq!(batch.revision, 12);
        assert_eq!((batch.events[0].kind, batch.events[0].kv.lease), (Kind::Put, -7));
        assert_eq!(batch.events[1].kind, Kind::Delete);
        assert_eq!(batch.events[1].kv.key, [0, 255]);
        let gone = line(r#"{"result":{"header":{},"created":true,"canceled":true,"compact_revision":"40"}}"#);
        assert!(matches!(gone, Err(EtcdError::Compacted { oldest: 40 })));
        let gone = line(r#"{"result":{"created":true,"canceled":true,"compact_revision":"40"}}"#);
        assert!(matches!(gone, Err(EtcdError::Compacted { oldest: 40 })));
        let refused = line(r#"{"error":{"code":14,"message":"etcdserver: no leader"}}"#);
        assert!(matches!(refused, Err(EtcdError::Refused { code: 14, .. })));
    }

    #[test]
    fn what_is_zero_is_not_there() {
        let status: Status = serde_json::from_str(r#"{"header":{"member_id":"5"}}"#).unwrap();
        assert!(!status.leads());
        let status: Status = serde_json::from_str(
            r#"{"header":{"member_id":"18446744073709551615"},"leader":"18446744073709551615"}"#,
        )
        .unwrap();
        assert!(status.leads());
    }
}
