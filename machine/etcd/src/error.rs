//! What a member, or the way to it, answers instead of what was asked for.

/// Why something did not work.
#[derive(Debug, thiserror::Error)]
pub enum EtcdError {
    /// A certificate or key file cannot be used.
    #[error("cannot use {path}")]
    Identity {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Nobody answers, or not to the end.
    #[error("{endpoint} does not answer {call}: {why}")]
    Away {
        /// Who was asked.
        endpoint: String,
        /// What.
        call: &'static str,
        /// In the words of the client.
        why: String,
    },
    /// The answer is a no.
    #[error("etcd refuses {call}: {why}")]
    Refused {
        /// What was asked.
        call: &'static str,
        /// gRPC's code.
        code: i64,
        /// In etcd's words.
        why: String,
    },
    /// What was asked for is no longer there: everything before this revision was compacted away.
    #[error("the revision is compacted; the oldest that is there is {oldest}")]
    Compacted {
        /// The oldest revision that can be watched from; 0 if etcd did not say.
        oldest: i64,
    },
    /// An answer is not what it should be.
    #[error("the answer to {call} cannot be read: {why}")]
    Answer {
        /// What was asked.
        call: &'static str,
        /// Why not.
        why: String,
    },
}

impl EtcdError {
    /// Whether etcd says that the thing asked about is not there: a member, a lease.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { code: 5, .. })
    }
}
