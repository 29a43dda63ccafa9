//! What a machine is configured with, as it is sealed in the store (`/c/{uid}/machine-config/{id}`, a [`crate::SealedRecord`]).

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Age at which a configuration is made anew for the sake of the certificates in it, which are good for two years.
pub const RENEWED_AFTER: Duration = Duration::from_secs(180 * 24 * 60 * 60);

/// A machine's configuration `C` and what is known of it.
#[derive(Clone, Serialize, Deserialize)]
pub struct StoredConfig<C> {
    /// The fingerprint of what it was computed from.
    pub inputs: String,
    /// When it was computed: its certificates were issued then.
    pub made_at: Timestamp,
    /// The configuration.
    pub config: C,
}
