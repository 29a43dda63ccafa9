//! File names with the covered range, so that a list of names is enough for a selection.

use std::fmt;

/// A file of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectName {
    /// Every key at a revision.
    Base {
        /// The revision.
        revision: i64,
        /// The time when it was the newest, milliseconds since 1970.
        at: i64,
    },
    /// Every change after a revision up to another.
    Log {
        /// The revision that it continues.
        previous: i64,
        /// Its last revision.
        last: i64,
        /// The time of its first change, milliseconds since 1970.
        first_seen: i64,
        /// The time of its last change.
        last_seen: i64,
    },
}

impl ObjectName {
    /// Parses a name.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let kind = parts.next()?;
        let numbers: Vec<i64> = parts
            .map(|part| {
                let digits = part.len() == 16 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
                digits.then(|| i64::from_str_radix(part, 16).ok()).flatten()
            })
            .collect::<Option<_>>()?;
        let name = match (kind, numbers.as_slice()) {
            ("base", [revision, at]) => Self::Base {
                revision: *revision,
                at: *at,
            },
            ("log", [previous, last, first_seen, last_seen])
                if last >= previous && last_seen >= first_seen =>
            {
                Self::Log {
                    previous: *previous,
                    last: *last,
                    first_seen: *first_seen,
                    last_seen: *last_seen,
                }
            }
            _ => return None,
        };
        // Names are unique: no upper case.
        (name.to_string() == text).then_some(name)
    }

    /// The last moment that it covers, milliseconds since 1970.
    pub fn until(&self) -> i64 {
        match self {
            Self::Base { at, .. } => *at,
            Self::Log { last_seen, .. } => *last_seen,
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Base { revision, at } => write!(f, "base-{revision:016x}-{at:016x}"),
            Self::Log {
                previous,
                last,
                first_seen,
                last_seen,
            } => write!(
                f,
                "log-{previous:016x}-{last:016x}-{first_seen:016x}-{last_seen:016x}"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_they_hold_and_nothing_else_is_a_name() {
        let log = ObjectName::Log {
            previous: 7,
            last: 300,
            first_seen: 1_763_000_000_000,
            last_seen: 1_763_000_000_900,
        };
        let base = ObjectName::Base { revision: 7, at: 9 };
        for name in [log, base] {
            assert_eq!(ObjectName::parse(&name.to_string()), Some(name));
        }
        for text in [
            "",
            "base",
            "base-7-9",
            "../base-0000000000000007-0000000000000009",
            "base-000000000000000A-0000000000000009",
            "log-0000000000000007-0000000000000006-0000000000000001-0000000000000001",
            "base-+000000000000007-0000000000000009",
        ] {
            assert_eq!(ObjectName::parse(text), None, "{text}");
        }
    }
}
