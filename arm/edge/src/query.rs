//! Query strings and the small parsers of headers.

/// The most parameters of a query.
const PARAMETERS: usize = 64;

/// Decoded parameters in order; `None` when the query is not percent-encoded UTF-8, or endless.
pub(crate) fn parse(query: &str) -> Option<Vec<(String, String)>> {
    arm_ids::parse_query(query, PARAMETERS)
}

/// An eTag without its quotes and weakness mark.
pub(crate) fn unquote(tag: &str) -> String {
    let tag = tag.trim();
    let tag = tag.strip_prefix("W/").unwrap_or(tag);
    tag.strip_prefix('"')
        .and_then(|tag| tag.strip_suffix('"'))
        .unwrap_or(tag)
        .to_owned()
}

/// Whether an identifier that a client sent may be written to logs and headers.
pub(crate) fn plain_id(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Whether a `Host` may become part of links: only a name or address with an optional port may.
pub(crate) fn plain_host(host: &str) -> bool {
    host.len() <= 255
        && !host.contains('@')
        && host
            .parse::<http::uri::Authority>()
            .is_ok_and(|authority| !authority.host().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_bounded() {
        let parameters = parse("api-version=2024-11-01&%24filter=name%20eq+'a'&flag").unwrap();
        assert_eq!(parameters[1], ("$filter".to_owned(), "name eq 'a'".to_owned()));
        assert_eq!(parameters[2], ("flag".to_owned(), String::new()));
        assert!(parse("a=%ff").is_none());
        assert!(parse(&"a=1&".repeat(PARAMETERS + 1)).is_none());
    }

    #[test]
    fn headers_are_cleaned() {
        for (raw, clean) in [
            ("\"a\"", "a"),
            ("W/\"a\"", "a"),
            ("*", "*"),
            ("a", "a"),
            ("\"", "\""),
        ] {
            assert_eq!(unquote(raw), clean);
        }
        for (host, ok) in [
            ("127.0.0.1:8443", true),
            ("[::1]:1", true),
            ("h", true),
            ("a@b", false),
            ("a/b", false),
            ("", false),
            ("a b", false),
        ] {
            assert_eq!(plain_host(host), ok, "{host}");
        }
        assert!(plain_id("0a-B") && !plain_id("") && !plain_id("a b") && !plain_id(&"a".repeat(65)));
    }
}
