//! What a machine is configured with, as it is sealed in the store (`/c/{uid}/machine-config/{id}`, a [`crate::SealedRecord`]).

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Age at which a certificate of a configuration is issued anew; it is good for two years.
pub const RENEWED_AFTER: Duration = Duration::from_secs(180 * 24 * 60 * 60);

/// A machine's configuration `C` and what is known of it.
#[derive(Clone, Serialize, Deserialize)]
pub struct StoredConfig<C> {
    /// The fingerprint of what it was computed from.
    pub inputs: String,
    /// When it was computed.
    pub made_at: Timestamp,
    /// When the oldest of its certificates was issued: those that still hold are kept when it is computed again. `None` in records of releases that
    /// issued all of them anew each time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_at: Option<Timestamp>,
    /// The configuration.
    pub config: C,
}

impl<C> StoredConfig<C> {
    /// When the oldest of its certificates was issued.
    pub fn oldest_certificate(&self) -> Timestamp {
        self.issued_at.unwrap_or(self.made_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_a_release_that_kept_no_certificate_is_as_old_as_it_says() {
        let text = r#"{"inputs":"i","made_at":"2026-01-01T00:00:00Z","config":7}"#;
        let old: StoredConfig<u8> = serde_json::from_str(text).unwrap();
        assert_eq!(old.oldest_certificate(), old.made_at);
        assert_eq!(serde_json::to_string(&old).unwrap(), text);
        let issued = "2025-12-01T00:00:00Z".parse().unwrap();
        let kept = StoredConfig {
            issued_at: Some(issued),
            ..old
        };
        let text = serde_json::to_string(&kept).unwrap();
        let back: StoredConfig<u8> = serde_json::from_str(&text).unwrap();
        assert_eq!(back.oldest_certificate(), issued);
    }
}
