//! Kubernetes quantities, to be checked and compared: `500m` and `0.5` are the same.

/// Digits after the point that count: what Kubernetes keeps.
const FRACTION: usize = 9;
/// Characters of a quantity.
const LONGEST: usize = 32;

const KILO: u128 = 1000;
const KIBI: u128 = 1024;

/// A quantity in billionths; `None` where it is none, or is too large for any cluster. What is smaller than a billionth counts as nothing.
pub fn quantity(text: &str) -> Option<u128> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, suffix) = text.split_at(end.unwrap_or(text.len()));
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
    let (times, over) = match suffix {
        "" => (1, 1),
        "n" => (1, KILO.pow(3)),
        "u" => (1, KILO.pow(2)),
        "m" => (1, KILO),
        "k" => (KILO, 1),
        "M" => (KILO.pow(2), 1),
        "G" => (KILO.pow(3), 1),
        "T" => (KILO.pow(4), 1),
        "P" => (KILO.pow(5), 1),
        "E" => (KILO.pow(6), 1),
        "Ki" => (KIBI, 1),
        "Mi" => (KIBI.pow(2), 1),
        "Gi" => (KIBI.pow(3), 1),
        "Ti" => (KIBI.pow(4), 1),
        "Pi" => (KIBI.pow(5), 1),
        "Ei" => (KIBI.pow(6), 1),
        _ => return None,
    };
    Some(billionths.checked_mul(times)? / over)
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
