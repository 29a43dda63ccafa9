//! Percent-encoding of paths, queries and forms.
//!
//! Stricter than the usual parsers, which accept a broken `%` and bytes that are not UTF-8 with another
//! meaning.

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Decodes `%XX`; `None` when that is malformed or not UTF-8. A `+` stays a `+`: that is a rule of forms, not of paths.
pub fn decode(raw: &str) -> Option<String> {
    if !raw.contains('%') {
        return Some(raw.to_owned());
    }
    let mut after = raw.split('%').skip(1);
    let whole = after.all(|rest| {
        let digits = rest.as_bytes();
        digits.len() >= 2 && digits[..2].iter().all(u8::is_ascii_hexdigit)
    });
    let text = percent_decode_str(raw).decode_utf8().ok()?;
    whole.then(|| text.into_owned())
}

/// Encodes all characters but letters and digits.
pub fn encode(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// The fields of a query or of an `application/x-www-form-urlencoded` body, in order; `None` when it is not one, or has more than
/// `most` fields.
pub fn parse_query(text: &str, most: usize) -> Option<Vec<(String, String)>> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    let mut fields = Vec::new();
    for pair in pairs {
        if fields.len() == most {
            return None;
        }
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let field = |text: &str| {
            if text.contains('+') {
                decode(&text.replace('+', " "))
            } else {
                decode(text)
            }
        };
        fields.push((field(name)?, field(value)?));
    }
    Some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_broken_is_refused() {
        for (raw, text) in [
            ("a%20b+c", Some("a b+c")),
            ("%C3%A4", Some("ä")),
            ("%", None),
            ("%4", None),
            ("%zz", None),
            ("a%4", None),
            ("%ff", None),
            ("%%41", None),
        ] {
            assert_eq!(decode(raw).as_deref(), text, "{raw}");
        }
        assert_eq!(decode(&encode("ä /?&=+%")).as_deref(), Some("ä /?&=+%"));
    }

    #[test]
    fn fields_are_decoded_and_bounded() {
        let fields = parse_query("a=1+2&&b=%26&flag", 3).unwrap();
        let expected = [("a", "1 2"), ("b", "&"), ("flag", "")];
        assert_eq!(
            fields,
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
        assert!(parse_query("a=%ff", 3).is_none());
        assert!(parse_query("a&b&c&d", 3).is_none());
    }
}
