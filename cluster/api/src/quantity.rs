//! The notation of Kubernetes' quantities: digits, and a suffix that scales them. What an amount is rounded to, and which forms are refused,
//! is decided by its readers.

/// The number of a quantity, and its suffix.
pub fn split(text: &str) -> (&str, &str) {
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.');
    text.split_at(end.unwrap_or(text.len()))
}

/// The value of a suffix: a factor, and a power of ten. `None`: it is none of Kubernetes' suffixes, nor an exponent.
pub fn unit(suffix: &str) -> Option<(u128, i32)> {
    Some(match suffix {
        "" => (1, 0),
        "n" => (1, -9),
        "u" => (1, -6),
        "m" => (1, -3),
        "k" => (1, 3),
        "M" => (1, 6),
        "G" => (1, 9),
        "T" => (1, 12),
        "P" => (1, 15),
        "E" => (1, 18),
        "Ki" => (1 << 10, 0),
        "Mi" => (1 << 20, 0),
        "Gi" => (1 << 30, 0),
        "Ti" => (1 << 40, 0),
        "Pi" => (1 << 50, 0),
        "Ei" => (1 << 60, 0),
        exponent => {
            let power = exponent.strip_prefix(['e', 'E'])?;
            (1, power.parse().ok()?)
        }
    })
}
