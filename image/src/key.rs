//! Keys: the name of an artifact, computed from all its inputs.

use sha2::{Digest as _, Sha256};

/// Collects the inputs of an artifact. Fields are framed, so that two different lists never give the same
/// key.
#[derive(Clone)]
pub(crate) struct KeyBuilder(Sha256);

impl KeyBuilder {
    /// `kind` separates artifacts of different kinds with the same inputs.
    pub(crate) fn new(kind: &str) -> Self {
        Self(Sha256::new()).field("kind", kind)
    }

    pub(crate) fn field(mut self, name: &str, value: &str) -> Self {
        for part in [name, value] {
            self.0.update((part.len() as u64).to_be_bytes());
            self.0.update(part.as_bytes());
        }
        self
    }

    pub(crate) fn fields<'a>(self, name: &str, values: impl IntoIterator<Item = &'a str>) -> Self {
        values
            .into_iter()
            .fold(self, |builder, value| builder.field(name, value))
    }

    /// 64 lower-case hex digits.
    pub(crate) fn finish(self) -> String {
        hex::encode(self.0.finalize())
    }
}

/// The part of a key in directory names: 64 bits, far more than a store will ever need.
pub(crate) fn short(key: &str) -> &str {
    key.get(..16).unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_run_into_each_other() {
        let one = KeyBuilder::new("k").field("a", "bc").finish();
        let other = KeyBuilder::new("k").field("ab", "c").finish();
        assert_ne!(one, other);
        assert_eq!(one, KeyBuilder::new("k").field("a", "bc").finish());
        assert_ne!(one, KeyBuilder::new("l").field("a", "bc").finish());
        assert_eq!(one.len(), 64);
        assert_eq!(short(&one).len(), 16);
    }
}
