//! The order of versions: of projects that follow semantic versioning, and of Debian's packages.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

/// How a component's versions are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    /// `v2.3.0-rc.1`: numbers, then what comes before a release. Numbers that are left out are zero.
    Semantic,
    /// `1.1.5+ds1-1+deb12u1`: as dpkg compares them (deb-version(7)).
    Debian,
}

impl Scheme {
    /// The order of two versions; `None` where one of them is not of this form.
    pub fn compare(self, a: &str, b: &str) -> Option<Ordering> {
        match self {
            Self::Semantic => Some(semantic_order(&semantic(a)?, &semantic(b)?)),
            Self::Debian => {
                let (a, b) = (debian(a)?, debian(b)?);
                let order = a.epoch.cmp(&b.epoch);
                let order = order.then_with(|| debian_part(a.upstream.as_bytes(), b.upstream.as_bytes()));
                Some(order.then_with(|| debian_part(a.revision.as_bytes(), b.revision.as_bytes())))
            }
        }
    }

    /// Whether a text is a version of this form.
    pub fn reads(self, text: &str) -> bool {
        match self {
            Self::Semantic => semantic(text).is_some(),
            Self::Debian => debian(text).is_some(),
        }
    }
}

/// A number of at most 18 digits.
fn number(text: &str) -> Option<u64> {
    let plain = (1..=18).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

struct Semantic<'a> {
    numbers: Vec<u64>,
    /// Before the release.
    before: Option<&'a str>,
}

fn semantic(text: &str) -> Option<Semantic<'_>> {
    let text = text.strip_prefix('v').unwrap_or(text);
    // What follows tells builds apart, and has no order.
    let text = text.split('+').next()?;
    let (numbers, before) = match text.split_once('-') {
        Some((numbers, before)) => (numbers, Some(before)),
        None => (text, None),
    };
    let numbers = numbers.split('.').map(number).collect::<Option<Vec<u64>>>()?;
    let plain = |text: &str| {
        text.split('.').all(|part| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        })
    };
    (numbers.len() <= 4 && before.is_none_or(plain)).then_some(Semantic { numbers, before })
}

fn semantic_order(a: &Semantic<'_>, b: &Semantic<'_>) -> Ordering {
    let at = |numbers: &[u64], index: usize| numbers.get(index).copied().unwrap_or(0);
    let length = a.numbers.len().max(b.numbers.len());
    let numbers = (0..length)
        .map(|index| at(&a.numbers, index).cmp(&at(&b.numbers, index)))
        .find(|order| order.is_ne());
    numbers.unwrap_or_else(|| match (a.before, b.before) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(a), Some(b)) => before_order(a, b),
    })
}

fn before_order(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.split('.'), b.split('.'));
    loop {
        let order = match (a.next(), b.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(a), Some(b)) => match (number(a), number(b)) {
                (Some(a), Some(b)) => a.cmp(&b),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => a.cmp(b),
            },
        };
        if order.is_ne() {
            return order;
        }
    }
}

struct Debian<'a> {
    epoch: u64,
    upstream: &'a str,
    revision: &'a str,
}

fn debian(text: &str) -> Option<Debian<'_>> {
    let (epoch, rest) = match text.split_once(':') {
        Some((epoch, rest)) => (number(epoch)?, rest),
        None => (0, text),
    };
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.~".contains(&byte);
    let good = upstream.starts_with(|c: char| c.is_ascii_digit()) && rest.bytes().all(plain);
    good.then_some(Debian {
        epoch,
        upstream,
        revision,
    })
}

/// Where there is a digit or nothing, a tilde is less and all else is more; letters are less than other characters.
fn weight(byte: Option<&u8>) -> i32 {
    match byte {
        None => 0,
        Some(b'~') => -1,
        Some(digit) if digit.is_ascii_digit() => 0,
        Some(letter) if letter.is_ascii_alphabetic() => i32::from(*letter),
        Some(other) => i32::from(*other) + 256,
    }
}

/// By turns characters that are no digits, and numbers.
fn debian_part(mut a: &[u8], mut b: &[u8]) -> Ordering {
    let other = |bytes: &[u8]| bytes.first().is_some_and(|byte| !byte.is_ascii_digit());
    while !a.is_empty() || !b.is_empty() {
        while other(a) || other(b) {
            let order = weight(a.first()).cmp(&weight(b.first()));
            if order.is_ne() {
                return order;
            }
            a = a.get(1..).unwrap_or_default();
            b = b.get(1..).unwrap_or_default();
        }
        let ((x, a_rest), (y, b_rest)) = (digits(a), digits(b));
        let order = x.len().cmp(&y.len()).then_with(|| x.cmp(y));
        if order.is_ne() {
            return order;
        }
        (a, b) = (a_rest, b_rest);
    }
    Ordering::Equal
}

/// The digits at the begin, without zeros before them, and the rest.
fn digits(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|byte| !byte.is_ascii_digit());
    let (number, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
    let zeros = number.iter().take_while(|byte| **byte == b'0').count();
    (number.split_at(zeros).1, rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ascending(scheme: Scheme, versions: &[&str]) {
        for (index, low) in versions.iter().enumerate() {
            assert_eq!(scheme.compare(low, low), Some(Ordering::Equal), "{low}");
            for high in versions.iter().skip(index + 1) {
                assert_eq!(scheme.compare(low, high), Some(Ordering::Less), "{low} {high}");
                assert_eq!(scheme.compare(high, low), Some(Ordering::Greater), "{high} {low}");
            }
        }
    }

    #[test]
    fn releases_come_after_what_comes_before_them() {
        ascending(
            Scheme::Semantic,
            &[
                "0",
                "1.2.0-alpha",
                "1.2.0-beta.0",
                "1.2.0-beta.2",
                "1.2.0-beta.10",
                "1.2.0-rc.1",
                "v1.2.0",
                "1.2.9",
                "1.2.10",
                "1.10.0",
                "v2.0.0",
            ],
        );
        let equal = |a: &str, b: &str| Scheme::Semantic.compare(a, b);
        assert_eq!(equal("v1.36", "1.36.0"), Some(Ordering::Equal));
        assert_eq!(equal("1.36.3+landfall", "v1.36.3"), Some(Ordering::Equal));
        for wrong in ["", "v", "1.x", "1..2", "1.2.3-", "(devel)", "1.2.3.4.5"] {
            assert!(!Scheme::Semantic.reads(wrong), "{wrong}");
            assert_eq!(Scheme::Semantic.compare(wrong, "1"), None, "{wrong}");
        }
    }

    #[test]
    fn debians_versions_are_ordered_as_dpkg_orders_them() {
        ascending(
            Scheme::Debian,
            &[
                "0",
                "1.0.0~rc93",
                "1.0.0",
                "1.1.5+ds1-1",
                "1.1.5+ds1-1+deb12u1",
                "1.1.5+ds1-1+deb12u2",
                "1.1.5+ds1-1+deb12u10",
                "1.1.15",
                "1.2.8",
                "1:0.1",
            ],
        );
        assert_eq!(Scheme::Debian.compare("1.0", "1.0-0"), Some(Ordering::Equal));
        assert_eq!(Scheme::Debian.compare("1.00-1", "1.0-1"), Some(Ordering::Equal));
        for wrong in ["", "a", "x:1", "1 2", "-1"] {
            assert!(!Scheme::Debian.reads(wrong), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn the_order_is_one(a in "[0-9a-z~+.-]{1,12}", b in "[0-9a-z~+.-]{1,12}") {
            for scheme in [Scheme::Semantic, Scheme::Debian] {
                let forth = scheme.compare(&a, &b);
                prop_assert_eq!(forth.map(Ordering::reverse), scheme.compare(&b, &a));
                if scheme.reads(&a) {
                    prop_assert_eq!(scheme.compare(&a, &a), Some(Ordering::Equal));
                }
            }
        }
    }
}
