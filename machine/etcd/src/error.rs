//! Errors of requests to a member.

/// The reason why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum EtcdError {
    /// A certificate or key file cannot be used.
    #[error("cannot use {path}")]
    Identity {
        /// The file.
        path: String,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// No answer, or an incomplete one.
    #[error("{endpoint} does not answer {call}: {why}")]
    Away {
        /// The address of the request.
        endpoint: String,
        /// The call.
        call: &'static str,
        /// The reason, in the words of the HTTP client.
        why: String,
    },
    /// etcd refused the request.
    #[error("etcd refuses {call}: {why}")]
    Refused {
        /// The call.
        call: &'static str,
        /// The gRPC status code.
        code: i64,
        /// The reason, in etcd's words.
        why: String,
    },
    /// The requested revision is no longer there: everything before `oldest` was compacted.
    #[error("the revision is compacted; the oldest that is there is {oldest}")]
    Compacted {
        /// The oldest revision that a watch can start from; 0 if etcd did not say.
        oldest: i64,
    },
    /// The answer cannot be parsed.
    #[error("the answer to {call} cannot be read: {why}")]
    Answer {
        /// The call.
        call: &'static str,
        /// The reason.
        why: String,
    },
}

impl EtcdError {
    /// Whether etcd reports that the object of the request (a member, a lease) does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { code: 5, .. })
    }
}
