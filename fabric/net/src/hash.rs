//! Short stable names from long ones, and the fingerprint of a machine's specification.

use fabric_api::MachineSpec;
use serde_json::json;
use sha2::{Digest, Sha256};

/// `length` characters of `0-9a-v` (5 bits each, at most 32 characters), a hash of `parts`. The boundaries of
/// parts count: `["ab", "c"]` and `["a", "bc"]` differ. Stable across releases: names on hosts depend on it.
pub fn short_hash(parts: &[&str], length: usize) -> String {
    const ALPHABET: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    hasher
        .finalize()
        .iter()
        .take(length)
        .map(|byte| char::from(ALPHABET[usize::from(byte & 31)]))
        .collect()
}

/// The fingerprint (SHA-256, hex) of a machine's specification, as [`fabric_api::MachineSeen::spec_hash`] has it.
///
/// Seed files and labels do not count: seed files hold a one-time token without meaning after the first
/// start, labels contain the role, which may change while the machine runs.
pub fn spec_hash(spec: &MachineSpec) -> String {
    let counted = json!([
        spec.id,
        spec.hostname,
        spec.image,
        spec.cpu_millis,
        spec.memory_mib,
        spec.nics,
    ]);
    Sha256::digest(counted.to_string().as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use fabric_api::MachineId;

    #[test]
    fn parts_are_told_apart_and_hashes_are_stable() {
        assert_ne!(short_hash(&["ab", "c"], 8), short_hash(&["a", "bc"], 8));
        // Fixed: a host that was set up by an older release must be understood by a newer one.
        assert_eq!(short_hash(&["landfall"], 8), "a2fcihnv");
        assert_eq!(short_hash(&["landfall"], 12).len(), 12);
    }

    #[test]
    fn a_new_token_is_not_a_new_machine() {
        let mut spec = MachineSpec {
            id: MachineId::from("m1"),
            hostname: "m1".into(),
            image: "1.36.3".into(),
            cpu_millis: 1000,
            memory_mib: 512,
            disk_gib: None,
            nics: Vec::new(),
            seed_files: [("/etc/token".to_owned(), "a".to_owned())].into(),
            labels: Default::default(),
        };
        let before = spec_hash(&spec);
        spec.seed_files.insert("/etc/token".into(), "b".into());
        spec.labels.insert("role".into(), "node".into());
        assert_eq!(spec_hash(&spec), before);
        spec.memory_mib += 1;
        assert_ne!(spec_hash(&spec), before);
    }
}
