//! Who stands between the service and the world: lets calls pass, makes them fail, holds them for ever.

use async_trait::async_trait;

use crate::faults::{Call, Verdict};

/// Stands before every call into the world. One that never returns is how a test holds a call, or kills its caller there.
#[async_trait]
pub trait Interceptor: Send + Sync + 'static {
    /// A call begins; `what` is the machine, network, volume, node or cluster it is about.
    async fn before(&self, call: Call, what: &str) -> Verdict;
    /// It has done its work, or failed with this.
    async fn after(&self, call: Call, what: &str, failure: Option<&str>);
}
