//! Repeated measurements.

use std::fmt;

use crate::kube::median;

/// The median of the measurements, and the distances to both extremes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    pub(super) fn of(seen: &[f64]) -> Self {
        Self {
            median: median(seen.to_vec()),
            least: seen.iter().copied().fold(f64::NAN, f64::min),
            most: seen.iter().copied().fold(f64::NAN, f64::max),
        }
    }

    /// Of each round one divided by the other: both saw the same host in it.
    pub(super) fn of_ratios(seen: &[f64], floor: &[f64]) -> Self {
        Self::of(&each(seen, floor, |seen, floor| seen / floor))
    }

    /// The differences of each round.
    pub(super) fn of_differences(seen: &[f64], floor: &[f64]) -> Self {
        Self::of(&each(seen, floor, |seen, floor| seen - floor))
    }
}

fn each(seen: &[f64], floor: &[f64], of: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    seen.iter()
        .zip(floor)
        .map(|(seen, floor)| of(*seen, *floor))
        .collect()
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = f.precision().unwrap_or(2);
        let text = format!(
            "{:.decimals$} ({:.decimals$} to {:.decimals$})",
            self.median, self.least, self.most
        );
        match f.width() {
            Some(width) => write!(f, "{text:>width$}"),
            None => f.write_str(&text),
        }
    }
}

/// With so many decimals: more would be noise.
pub(super) fn rounded(value: f64, decimals: i32) -> f64 {
    let parts = 10_f64.powi(decimals);
    (value * parts).round() / parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_the_middle_and_both_ends() {
        let spread = Spread::of(&[3.0, 1.0, 2.0]);
        assert_eq!((spread.least, spread.median, spread.most), (1.0, 2.0, 3.0));
        assert_eq!(format!("{spread:20.1}|"), "    2.0 (1.0 to 3.0)|");
        assert_eq!(spread.to_string(), "2.00 (1.00 to 3.00)");
    }

    #[test]
    fn rounds_are_compared_with_each_other_and_not_their_middles() {
        let (seen, floor) = ([9.0, 16.0, 30.0], [10.0, 20.0, 30.0]);
        let ratios = Spread::of_ratios(&seen, &floor);
        assert_eq!((ratios.least, ratios.median, ratios.most), (0.8, 0.9, 1.0));
        let differences = Spread::of_differences(&seen, &floor);
        assert_eq!(
            (differences.least, differences.median, differences.most),
            (-4.0, -1.0, 0.0)
        );
    }

    #[test]
    fn figures_for_programs_have_few_decimals() {
        assert_eq!(rounded(0.987_654, 3), 0.988);
        assert_eq!(rounded(-0.0004, 2), 0.0);
    }
}
