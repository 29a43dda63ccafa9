//! Names of the distribution specification. Each is checked when it is made, and is safe as a file's name.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// The longest name of a repository.
const LONGEST_REPOSITORY: usize = 255;
/// The longest tag.
const LONGEST_TAG: usize = 128;
/// The longest id of an upload.
const LONGEST_UPLOAD: usize = 40;

/// The name of a repository: components of lower-case letters and digits with separators in between, divided
/// by slashes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Repository(String);

impl Repository {
    /// `None`: it is no name of a repository.
    pub fn parse(text: &str) -> Option<Self> {
        let valid = text.len() <= LONGEST_REPOSITORY && text.split('/').all(is_component);
        valid.then(|| Self(text.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of its directory.
    pub(crate) fn file_name(&self) -> String {
        self.0.replace('/', "+")
    }

    /// The repository with this directory.
    pub(crate) fn of_file_name(name: &str) -> Option<Self> {
        Self::parse(&name.replace('+', "/"))
    }
}

/// Letters and digits; between them one `.`, one or two `_`, or any number of `-`.
fn is_component(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends = bytes.first().zip(bytes.last());
    if !ends.is_some_and(|(first, last)| plain(*first) && plain(*last)) {
        return false;
    }
    text.split(|char: char| char.is_ascii_lowercase() || char.is_ascii_digit())
        .all(|separator| {
            matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-')
        })
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A tag.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tag(String);

impl Tag {
    /// `None`: it is no tag.
    pub fn parse(text: &str) -> Option<Self> {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let valid = (1..=LONGEST_TAG).contains(&text.len())
            && text.bytes().next().is_some_and(word)
            && text.bytes().all(|byte| word(byte) || matches!(byte, b'.' | b'-'));
        valid.then(|| Self(text.to_owned()))
    }

    /// The tag.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The SHA-256 of some content.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest(String);

impl Digest {
    /// `sha256:` and 64 lower-case hexadecimal digits. `None`: it is none, or of another algorithm.
    pub fn parse(text: &str) -> Option<Self> {
        Self::of_hex(text.strip_prefix("sha256:")?)
    }

    pub(crate) fn of_hex(hex: &str) -> Option<Self> {
        let valid = hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        valid.then(|| Self(hex.to_owned()))
    }

    /// That of some content.
    pub fn of(content: &[u8]) -> Self {
        Self::of_sum(Sha256::new_with_prefix(content))
    }

    pub(crate) fn of_sum(sum: Sha256) -> Self {
        Self(hex::encode(sum.finalize()))
    }

    /// The digits.
    pub(crate) fn hex(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

/// What a manifest is asked for by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// Its tag.
    Tag(Tag),
    /// Its digest.
    Digest(Digest),
}

impl Reference {
    /// `None`: it is neither.
    pub fn parse(text: &str) -> Option<Self> {
        if text.contains(':') {
            Digest::parse(text).map(Self::Digest)
        } else {
            Tag::parse(text).map(Self::Tag)
        }
    }
}

/// The id of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadId(String);

impl UploadId {
    /// `None`: it is no id.
    pub fn parse(text: &str) -> Option<Self> {
        let valid = (1..=LONGEST_UPLOAD).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        valid.then(|| Self(text.to_owned()))
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_those_of_the_specification() {
        for (name, valid) in [
            ("app", true),
            ("team/app", true),
            ("a.b/c_d/e__f/g---h", true),
            ("", false),
            ("/app", false),
            ("app/", false),
            ("a//b", false),
            ("App", false),
            ("a..b", false),
            ("a___b", false),
            ("-a", false),
            ("a._b", false),
            ("..", false),
            ("a+b", false),
        ] {
            assert_eq!(Repository::parse(name).is_some(), valid, "{name}");
        }
        for (tag, valid) in [
            ("1.0", true),
            ("_a-B.c", true),
            (".a", false),
            ("", false),
            ("a/b", false),
            ("a:b", false),
        ] {
            assert_eq!(Tag::parse(tag).is_some(), valid, "{tag}");
        }
        assert!(Digest::parse("sha512:00").is_none());
        let digest = Digest::of(b"");
        assert_eq!(
            digest.to_string(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(
            Reference::parse(&digest.to_string()),
            Some(Reference::Digest(digest))
        );
    }

    proptest! {
        /// No name leaves its directory or is another one's file.
        #[test]
        fn a_name_is_a_file(text in "[a-z0-9._/+A-Z -]{0,12}") {
            if let Some(name) = Repository::parse(&text) {
                let file = name.file_name();
                prop_assert!(!file.contains('/') && !file.starts_with('.'));
                prop_assert_eq!(Repository::of_file_name(&file), Some(name));
            }
            if let Some(tag) = Tag::parse(&text) {
                prop_assert!(!tag.as_str().contains('/') && !tag.as_str().starts_with('.'));
            }
        }
    }
}
