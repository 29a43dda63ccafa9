//! The part of OData that clients write into `$filter`: `name eq 'value'`, `eventTimestamp ge 2026-…`, `atScope()`, `assignedTo('…')`,
//! `startswith(name,'…')`, `names/any(x:x eq '…')`, …, joined by `and`. Pure.

use arm_wire::{ArmError, ErrorCode};

/// The most terms of a filter.
const MAX_TERMS: usize = 10;

/// The terms of a filter, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Term {
    /// `name()`.
    Call(String),
    /// `name('value')`.
    CallOf(String, String),
    /// `name eq 'value'`.
    Is(String, String),
    /// `name ge 'value'`.
    AtLeast(String, String),
    /// `name le 'value'`.
    AtMost(String, String),
    /// `startswith(name,'value')`.
    Begins(String, String),
    /// `names/any(x:x eq 'value')`.
    AnyIs(String, String),
}

/// The terms of a `$filter`, with names in lower case; names that `known` refuses are errors. `words` lists
/// them for the message.
///
/// # Errors
/// `BadRequest` when it is not of that form.
pub fn terms(
    filter: Option<&str>,
    known: impl Fn(&Term) -> bool,
    words: &str,
) -> Result<Vec<Term>, ArmError> {
    let Some(text) = filter.filter(|text| !text.trim().is_empty()) else {
        return Ok(Vec::new());
    };
    parse(text)
        .filter(|terms| terms.iter().all(known))
        .ok_or_else(|| {
            let message = format!("The $filter is not understood; use {words}, joined by 'and'.");
            ArmError::new(ErrorCode::BAD_REQUEST, message).target("$filter")
        })
}

/// All terms of a text, with names in lower case.
pub(crate) fn parse(text: &str) -> Option<Vec<Term>> {
    let mut terms = Vec::new();
    let mut rest = text.trim();
    loop {
        let (name, after) = word(rest)?;
        let name = name.to_ascii_lowercase();
        let after = after.trim_start();
        let (term, after) = if let Some(after) = after.strip_prefix('(') {
            let after = after.trim_start();
            if let Some(after) = after.strip_prefix(')') {
                (Term::Call(name), after)
            } else if name == "startswith" {
                let (field, after) = word(after)?;
                let (value, after) = value(after.trim_start().strip_prefix(',')?.trim_start())?;
                let begins = Term::Begins(field.to_ascii_lowercase(), value);
                (begins, after.trim_start().strip_prefix(')')?)
            } else {
                let (value, after) = value(after)?;
                (Term::CallOf(name, value), after.trim_start().strip_prefix(')')?)
            }
        } else if let Some(after) = after.strip_prefix('/') {
            any(name, after)?
        } else {
            let (operator, after) = word(after)?;
            let compare = match operator.to_ascii_lowercase().as_str() {
                "eq" => Term::Is,
                "ge" => Term::AtLeast,
                "le" => Term::AtMost,
                _ => return None,
            };
            let (value, after) = value(after.trim_start())?;
            (compare(name, value), after)
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

/// The term after the slash of `names/any(x:x eq 'value')`.
fn any(names: String, text: &str) -> Option<(Term, &str)> {
    let (any, after) = word(text)?;
    let (variable, after) = word(after.trim_start().strip_prefix('(')?)?;
    let (again, after) = word(after.trim_start().strip_prefix(':')?)?;
    let (eq, after) = word(after)?;
    let (value, after) = value(after.trim_start())?;
    let is_any = any.eq_ignore_ascii_case("any") && variable == again && eq.eq_ignore_ascii_case("eq");
    let after = after.trim_start().strip_prefix(')')?;
    is_any.then_some((Term::AnyIs(names, value), after))
}

fn word(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start();
    let end = text
        .find(|char: char| !char.is_ascii_alphanumeric())
        .unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// A text in quotes, or a GUID, a time or a boolean without, as some clients write them; quotes inside are doubled.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(mut rest) = text.strip_prefix('\'') else {
        let end = text
            .find(|char: char| !char.is_ascii_alphanumeric() && !"-:.+".contains(char))
            .unwrap_or(text.len());
        let (bare, after) = text.split_at(end);
        let is_guid = end == 36 && bare.chars().all(|char| char.is_ascii_hexdigit() || char == '-');
        let is_time = bare.starts_with(|char: char| char.is_ascii_digit()) && bare.contains(['T', 't']);
        let is_boolean = matches!(bare, "true" | "false");
        return (is_guid || is_time || is_boolean).then(|| (bare.to_owned(), after));
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
            (
                "eventTimestamp ge 2026-11-29T01:02:03.000004+00:00 and eventTimestamp le '2026-11-30T00:00:00Z'",
                Some(vec![
                    Term::AtLeast(
                        "eventtimestamp".to_owned(),
                        "2026-11-29T01:02:03.000004+00:00".to_owned(),
                    ),
                    Term::AtMost("eventtimestamp".to_owned(), "2026-11-30T00:00:00Z".to_owned()),
                ]),
            ),
            (
                "startswith(displayName,'it''s') and accountEnabled eq true",
                Some(vec![
                    Term::Begins("displayname".to_owned(), "it's".to_owned()),
                    is("accountenabled", "true"),
                ]),
            ),
            (
                "servicePrincipalNames/any(c:c eq 'api://shop')",
                Some(vec![Term::AnyIs(
                    "serviceprincipalnames".to_owned(),
                    "api://shop".to_owned(),
                )]),
            ),
            ("names/any(c:d eq 'x')", None),
            ("names/all(c:c eq 'x')", None),
            ("names/any(c:c eq 'x'", None),
            ("startswith('x',displayName)", None),
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
