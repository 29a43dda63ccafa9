//! Sizes in Kubernetes' notation.

use cluster_api::quantity::{split, unit};

/// One GiB.
pub(crate) const GIB: u64 = 1 << 30;

/// The number of bytes of a quantity, rounded up; an overflow is [`u64::MAX`]. `None`: not a quantity, or
/// negative.
pub fn read(text: &str) -> Option<u64> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let (number, suffix) = split(text);
    let (factor, power) = unit(suffix)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Some(0);
    }
    let power = power.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    // Digits that cannot be parsed are too many.
    let Some(value) = digits
        .parse::<u128>()
        .ok()
        .and_then(|value| value.checked_mul(factor))
    else {
        return Some(u64::MAX);
    };
    let tens = 10_u128.checked_pow(power.unsigned_abs());
    let bytes = match tens {
        Some(tens) if power < 0 => value.div_ceil(tens),
        // Less than one.
        None if power < 0 => 1,
        Some(tens) => value.saturating_mul(tens),
        None => u128::MAX,
    };
    Some(u64::try_from(bytes).unwrap_or(u64::MAX))
}

/// A size as a quantity, in GiB if it is a whole number of them.
pub fn write(bytes: u64) -> String {
    if bytes.is_multiple_of(GIB) {
        format!("{}Gi", bytes / GIB)
    } else {
        bytes.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_kubernetes_takes_is_read() {
        for (text, bytes) in [
            ("0", 0),
            ("1073741824", GIB),
            ("1Gi", GIB),
            ("+1Gi", GIB),
            ("01Gi", GIB),
            ("1.5Gi", 3 * GIB / 2),
            ("0.5Gi", GIB / 2),
            (".5Gi", GIB / 2),
            ("5.Gi", 5 * GIB),
            ("1.50Gi", 3 * GIB / 2),
            ("10Ki", 10 << 10),
            ("10Mi", 10 << 20),
            ("2Ti", 2 << 40),
            ("1Pi", 1 << 50),
            ("1Ei", 1 << 60),
            ("5k", 5_000),
            ("5M", 5_000_000),
            ("5G", 5_000_000_000),
            ("5T", 5_000_000_000_000),
            ("5P", 5_000_000_000_000_000),
            ("5E", 5_000_000_000_000_000_000),
            ("1e9", 1_000_000_000),
            ("1E9", 1_000_000_000),
            ("1.5e3", 1_500),
            ("1500e-3", 2),
            ("1e+3", 1_000),
            ("128000m", 128),
            ("1m", 1),
            ("1u", 1),
            ("1n", 1),
            ("1e-400", 1),
            ("0e400", 0),
            ("0.1", 1),
        ] {
            assert_eq!(read(text), Some(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_too_large_is_as_large_as_can_be() {
        let digits = "9".repeat(60);
        for text in ["16Ei", "18446744073709551616", "1e20", "1e400", digits.as_str()] {
            assert_eq!(read(text), Some(u64::MAX), "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_none() {
        for text in [
            "",
            ".",
            "Gi",
            "-1Gi",
            "1.2.3",
            "1gi",
            "1GB",
            "1K",
            "1 Gi",
            " 1Gi",
            "1e",
            "1e1.5",
            "++1",
            "1e99999999999",
            "ten",
            "1µ",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for (bytes, text) in [(0, "0Gi"), (5 * GIB, "5Gi"), (5 * GIB + 1, "5368709121")] {
            assert_eq!(write(bytes), text);
            assert_eq!(read(text), Some(bytes));
        }
    }
}
