//! How long a minor is supported: rules V1, V2 and V4.
//!
//! | profile | a minor is supported |
//! |---|---|
//! | [`Rule::ThreeNewest`] (`aks`, `hci`) | while it is one of the three newest of the stamp |
//! | [`Rule::OneYear`] (`arc`) | for a year from its release |
//!
//! In both, never longer than the community's own support: nobody mends it afterwards. Long-term support is not offered by a stamp; its end is told as data.

use std::fmt::Write as _;

use jiff::{SignedDuration, civil::Date};

use crate::{Catalogue, Minor};

/// Before an end, it is said this many days long: as Azure announces the removal of a version.
pub const NOTICE_DAYS: i64 = 30;
/// Hours of a year.
const YEAR: i64 = 365 * 24;

/// By which rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// N-2.
    ThreeNewest,
    /// A year.
    OneYear,
}

/// Where a minor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The catalogue does not have it.
    Unknown,
    /// Its first release is still to come.
    NotReleased,
    /// Supported.
    Supported,
    /// Supported, and its end is near.
    Ending,
    /// No longer supported: deprecated (V2, V4).
    Deprecated,
}

impl Standing {
    /// For answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "Unknown",
            Self::NotReleased => "NotReleased",
            Self::Supported => "Supported",
            Self::Ending => "Ending",
            Self::Deprecated => "Deprecated",
        }
    }
}

/// The window of a minor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Where it is today.
    pub standing: Standing,
    /// The last day of support, as far as a day is known. Newer minors may end it before.
    pub until: Option<Date>,
    /// For people, where there is something to say.
    pub warning: Option<String>,
}

/// The window of a minor, by its numbers, on a stamp whose newest offered minor is `newest`.
pub fn window(
    catalogue: &Catalogue,
    (major, minor): (u32, u32),
    newest: (u32, u32),
    rule: Rule,
    today: Date,
) -> Window {
    let Some(found) = catalogue.minor(major, minor) else {
        return Window {
            standing: Standing::Unknown,
            until: None,
            warning: Some(format!(
                "The version catalogue does not have Kubernetes {major}.{minor}: nothing is known of its support."
            )),
        };
    };
    let until = last_day(found, rule);
    if today < found.released {
        return Window {
            standing: Standing::NotReleased,
            until: Some(until),
            warning: Some(format!(
                "Kubernetes {major}.{minor} is released on {}.",
                found.released
            )),
        };
    }
    let outrun = rule == Rule::ThreeNewest && (major, minor.saturating_add(2)) < newest;
    let (standing, warning) = if today > until || outrun {
        let mut warning = if outrun {
            format!(
                "Kubernetes {major}.{minor} is deprecated: it is none of the three newest minors, of which {}.{} is the newest here.",
                newest.0, newest.1
            )
        } else {
            format!("Kubernetes {major}.{minor} is deprecated: its support has ended on {until}.")
        };
        warning.push_str(" Upgrade it to a supported minor.");
        if let Some(end) = found.lts_end.filter(|end| today <= *end) {
            // Writing to a string cannot fail.
            let _ = write!(
                warning,
                " Azure has long-term support for it until {end}; this stamp has none."
            );
        }
        (Standing::Deprecated, Some(warning))
    } else {
        let left = until.duration_since(today).as_hours() / 24;
        if left <= NOTICE_DAYS {
            let warning = format!(
                "The support of Kubernetes {major}.{minor} ends on {until}, in {left} days. Upgrade it to a newer minor before."
            );
            (Standing::Ending, Some(warning))
        } else {
            (Standing::Supported, None)
        }
    };
    Window {
        standing,
        until: Some(until),
        warning,
    }
}

/// The last day that the rule and the community give.
fn last_day(minor: &Minor, rule: Rule) -> Date {
    match rule {
        Rule::ThreeNewest => minor.end_of_support,
        Rule::OneYear => {
            let year = minor.released.checked_add(SignedDuration::from_hours(YEAR));
            year.map_or(minor.end_of_support, |year| year.min(minor.end_of_support))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minor: u32, newest: u32, rule: Rule, today: &str) -> Window {
        window(
            &Catalogue::built_in(),
            (1, minor),
            (1, newest),
            rule,
            today.parse().unwrap(),
        )
    }

    #[test]
    fn v1_three_newest_minors_are_supported_while_the_community_does() {
        let standing = |minor, newest, today| at(minor, newest, Rule::ThreeNewest, today).standing;
        assert_eq!(standing(36, 37, "2026-11-30"), Standing::Supported);
        assert_eq!(standing(35, 37, "2026-11-30"), Standing::Supported, "N-2");
        assert_eq!(standing(34, 37, "2026-11-30"), Standing::Deprecated, "N-3");
        assert_eq!(standing(34, 36, "2026-10-27"), Standing::Ending, "the last day");
        assert_eq!(standing(34, 36, "2026-10-28"), Standing::Deprecated);
        assert_eq!(standing(37, 37, "2026-08-25"), Standing::NotReleased);
        assert_eq!(standing(99, 37, "2026-11-30"), Standing::Unknown);
    }

    #[test]
    fn the_end_is_said_a_month_before() {
        let before = at(36, 37, Rule::ThreeNewest, "2027-05-28");
        assert_eq!((before.standing, before.warning), (Standing::Supported, None));
        let near = at(36, 37, Rule::ThreeNewest, "2027-05-29");
        assert_eq!(near.standing, Standing::Ending);
        let warning = near.warning.unwrap();
        assert!(warning.contains("ends on 2027-06-28, in 30 days"), "{warning}");
        let over = at(36, 37, Rule::ThreeNewest, "2027-06-29").warning.unwrap();
        assert!(
            over.contains("has ended on 2027-06-28") && over.contains("until 2028-06-30"),
            "{over}"
        );
    }

    #[test]
    fn v1_of_arc_is_a_year_from_the_release() {
        let window = at(35, 38, Rule::OneYear, "2026-11-30");
        assert_eq!(window.until, Some("2026-12-17".parse().unwrap()));
        assert_eq!(window.standing, Standing::Ending);
        let standing = |today| at(35, 35, Rule::OneYear, today).standing;
        assert_eq!(standing("2026-12-17"), Standing::Ending);
        assert_eq!(standing("2026-12-18"), Standing::Deprecated);
    }
}
