//! `$filter` of this namespace: `atScope()`, `principalId eq '…'`, `assignedTo('…')`, …, joined by `and`.

use arm_wire::{ArmError, ErrorCode, Request};

/// The most terms of a filter.
const MAX_TERMS: usize = 10;

/// What a filter asks, in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Term {
    /// `name()`.
    Call(String),
    /// `name('value')`.
    CallOf(String, String),
    /// `name eq 'value'`.
    Is(String, String),
}

/// A request's filter, with names in lower case; of terms that `known` takes.
pub(crate) fn terms(
    request: &Request,
    known: impl Fn(&Term) -> bool,
    words: &str,
) -> Result<Vec<Term>, ArmError> {
    let Some(text) = request.query("$filter").filter(|text| !text.trim().is_empty()) else {
        return Ok(Vec::new());
    };
    parse(text)
        .filter(|terms| terms.iter().all(known))
        .ok_or_else(|| {
            let message = format!("The $filter is not understood; use {words}, joined by 'and'.");
            ArmError::new(ErrorCode::BAD_REQUEST, message).target("$filter")
        })
}

fn parse(text: &str) -> Option<Vec<Term>> {
    let mut terms = Vec::new();
    let mut rest = text.trim();
    loop {
        let (name, after) = word(rest)?;
        let name = name.to_ascii_lowercase();
        let after = after.trim_start();
        let (term, after) = if let Some(after) = after.strip_prefix('(') {
            let after = after.trim_start();
            match after.strip_prefix(')') {
                Some(after) => (Term::Call(name), after),
                None => {
                    let (value, after) = quoted(after)?;
                    (Term::CallOf(name, value), after.trim_start().strip_prefix(')')?)
                }
            }
        } else {
            let (operator, after) = word(after)?;
            if !operator.eq_ignore_ascii_case("eq") {
                return None;
            }
            let (value, after) = quoted(after.trim_start())?;
            (Term::Is(name, value), after)
        };
        terms.push(term);
        let after = after.trim_start();
        if after.is_empty() {
            return Some(terms);
        }
        let (and, after) = word(after)?;
        if !and.eq_ignore_ascii_case("and") || terms.len() == MAX_TERMS {
            return None;
        }
        rest = after;
    }
}

fn word(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start();
    let end = text
        .find(|char: char| !char.is_ascii_alphanumeric())
        .unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// A text in quotes, or a GUID without, as some clients write it; quotes inside are doubled.
fn quoted(text: &str) -> Option<(String, &str)> {
    let Some(mut rest) = text.strip_prefix('\'') else {
        let end = text
            .find(|char: char| !char.is_ascii_hexdigit() && char != '-')
            .unwrap_or(text.len());
        return (end == 36).then(|| (text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    loop {
        let (before, after) = rest.split_once('\'')?;
        value.push_str(before);
        match after.strip_prefix('\'') {
            Some(after) => {
                value.push('\'');
                rest = after;
            }
            None => return Some((value, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn filters_are_understood_or_refused() {
        let call = |name: &str| Term::Call(name.to_owned());
        let of = |name: &str, value: &str| Term::CallOf(name.to_owned(), value.to_owned());
        let is = |name: &str, value: &str| Term::Is(name.to_owned(), value.to_owned());
        for (text, expected) in [
            ("atScope()", Some(vec![call("atscope")])),
            (
                "AtScope( ) and principalId eq 'p'",
                Some(vec![call("atscope"), is("principalid", "p")]),
            ),
            (
                "atScope() and assignedTo('p')",
                Some(vec![call("atscope"), of("assignedto", "p")]),
            ),
            ("assignedTo ( 'p' )", Some(vec![of("assignedto", "p")])),
            ("roleName eq 'it''s'", Some(vec![is("rolename", "it's")])),
            (
                "principalId eq 0a0a0a0a-0000-4000-8000-00000000000a",
                Some(vec![is("principalid", "0a0a0a0a-0000-4000-8000-00000000000a")]),
            ),
            ("atScope() or atScope()", None),
            ("atScope(", None),
            ("atScope", None),
            ("principalId ne 'p'", None),
            ("principalId eq p", None),
            ("assignedTo('p'", None),
            ("atScope() and", None),
            ("()", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_filter_or_is_refused(text in ".*", tail in "[ a-z'=eqand()-]*") {
            let _ = parse(&text);
            let _ = parse(&format!("atScope() and name eq {tail}"));
        }
    }
}
