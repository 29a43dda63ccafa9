//! When upstream has released its minors.
//!
//! Source: the release pages of kubernetes/sig-release (`releases/release-1.NN/README.md`). Days, at midnight UTC.

use cluster_versions::Offered;
use jiff::{Timestamp, civil::date, tz::Offset};

use crate::{Minor, Release};

/// Minor, year, month, day.
const RELEASED: [(u32, i16, i8, i8); 5] = [
    (33, 2025, 4, 23),
    (34, 2025, 8, 27),
    (35, 2025, 12, 17),
    (36, 2026, 4, 22),
    (37, 2026, 8, 26),
];

/// The minors that are known, oldest first, with those that a stamp offers marked.
pub fn known(offered: &Offered) -> Vec<Release> {
    let minors = offered.minors();
    let each = RELEASED.iter();
    each.map(|(minor, year, month, day)| Release {
        minor: Minor::one(*minor),
        released: midnight(*year, *month, *day),
        offered: minors.contains(&(1, *minor)),
    })
    .collect()
}

fn midnight(year: i16, month: i8, day: i8) -> Timestamp {
    let begin = date(year, month, day).at(0, 0, 0, 0);
    Offset::UTC.to_timestamp(begin).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_minor_that_is_offered_has_a_date() {
        let offered = Offered::pinned();
        let known = known(&offered);
        for (major, minor) in offered.minors() {
            let found = known
                .iter()
                .find(|release| release.minor == Minor { major, minor });
            assert!(found.is_some_and(|release| release.offered), "{major}.{minor}");
        }
        assert!(known.is_sorted_by_key(|release| (release.minor, release.released)));
    }
}
