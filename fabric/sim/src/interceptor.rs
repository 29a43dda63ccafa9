//! A hook between the service and the world: passes calls, makes them fail, or blocks them for ever.

use async_trait::async_trait;

use crate::faults::{Call, Verdict};

/// Called before every call into the world. A test can block a call, or kill its caller there, by never
/// returning.
#[async_trait]
pub trait Interceptor: Send + Sync + 'static {
    /// Before a call; `what` is the machine, network, volume, node or cluster it is about.
    async fn before(&self, call: Call, what: &str) -> Verdict;
    /// After a call that succeeded, or failed with this message.
    async fn after(&self, call: Call, what: &str, failure: Option<&str>);
}
