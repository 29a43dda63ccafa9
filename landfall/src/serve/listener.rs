//! A listening socket that can be served again.

use anyhow::{Context as _, Result};
use tokio::net::TcpListener;

/// A listener that outlives the part that accepts from it: clients that connect while the part is restarted
/// wait, and are not refused.
pub(super) struct Listener(std::net::TcpListener);

impl Listener {
    pub(super) fn new(listener: TcpListener) -> Result<Self> {
        Ok(Self(listener.into_std().context("cannot keep a listener")?))
    }

    /// Another handle of the same.
    pub(super) fn again(&self) -> Result<TcpListener> {
        let handle = self.0.try_clone().and_then(TcpListener::from_std);
        handle.context("cannot listen again")
    }
}
