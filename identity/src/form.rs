//! `application/x-www-form-urlencoded`, bounded, and never printed: forms hold secrets.

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// The most fields of a form or query.
const FIELDS: usize = 64;

/// A decoded form. No `Debug` on purpose.
#[derive(Default)]
pub(crate) struct Form(Vec<(String, String)>);

impl Form {
    /// Decodes a body or query; `None` when it is not a form.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        arm_ids::parse_query(text, FIELDS).map(Self)
    }

    /// The first field of this name that is not empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, value)| key == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }
}

/// User and secret of an `Authorization: Basic` header.
pub(crate) fn basic(header: &str) -> Option<(String, String)> {
    let (scheme, encoded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, secret) = text.split_once(':')?;
    // RFC 6749 2.3.1: both parts are form-encoded before they are joined.
    let decode = |text: &str| arm_ids::decode(&text.replace('+', " "));
    Some((decode(user)?, decode(secret)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_are_decoded() {
        let form = Form::parse("a=1+2&b=%26%C3%A4&empty=&a=3&flag").unwrap();
        assert_eq!(form.get("a"), Some("1 2"));
        assert_eq!(form.get("b"), Some("&ä"));
        assert_eq!(form.get("empty"), None);
        assert_eq!(form.get("flag"), None);
        assert!(Form::parse("a=%zz").is_none());
        assert!(Form::parse(&"a=1&".repeat(FIELDS + 1)).is_none());
        assert_eq!(basic("Basic YTpiOmM="), Some(("a".to_owned(), "b:c".to_owned())));
        assert_eq!(basic("Bearer YTpi"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_a_form_or_is_refused(text in ".*") {
            let _ = Form::parse(&text);
            let _ = basic(&text);
        }
    }
}
