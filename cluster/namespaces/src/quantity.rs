//! Kubernetes quantities, to be checked and compared: `500m` and `0.5` are the same.

use cluster_api::quantity::{split, unit};

/// Digits after the point that count: what Kubernetes keeps.
const FRACTION: usize = 9;
/// Characters of a quantity.
const LONGEST: usize = 32;

/// A quantity in billionths; `None` where it is none, or is too large for any cluster. What is smaller than a billionth counts as nothing.
pub fn quantity(text: &str) -> Option<u128> {
    let (number, suffix) = split(text);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if text.len() > LONGEST
        || whole.is_empty()
        || !digits(whole)
        || !digits(fraction)
        || number.ends_with('.')
    {
        return None;
    }
    let fraction: String = fraction
        .chars()
        .chain(std::iter::repeat('0'))
        .take(FRACTION)
        .collect();
    let billionths: u128 = format!("{whole}{fraction}").parse().ok()?;
    // An exponent is not taken.
    let (factor, power) = unit(suffix).filter(|_| !suffix.ends_with(|last: char| last.is_ascii_digit()))?;
    let tens = 10_u128.checked_pow(power.unsigned_abs())?;
    let value = billionths.checked_mul(factor)?;
    if power < 0 {
        Some(value / tens)
    } else {
        value.checked_mul(tens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_amounts_are_the_same() {
        for (one, other) in [
            ("1", "1000m"),
            ("0.5", "500m"),
            ("1.5Gi", "1536Mi"),
            ("1Ki", "1024"),
            ("1k", "1000"),
            ("0.1", "100m"),
            ("2000000u", "2"),
        ] {
            assert_eq!(quantity(one), quantity(other), "{one} {other}");
            assert!(quantity(one).is_some(), "{one}");
        }
        assert_ne!(quantity("1"), quantity("1m"));
        assert_ne!(quantity("1G"), quantity("1Gi"));
        assert_eq!(quantity("0"), Some(0));
    }

    #[test]
    fn what_is_no_quantity_is_none() {
        for wrong in [
            "",
            "m",
            "-1",
            "+1",
            "1.",
            ".5",
            "1.2.3",
            "1 Gi",
            "1gi",
            "1KB",
            "x",
            "1e3",
            "Gi1",
            "999999999999999999999999999999Ei",
            "000000000000000000000000000000001",
        ] {
            assert_eq!(quantity(wrong), None, "{wrong}");
        }
    }
}
