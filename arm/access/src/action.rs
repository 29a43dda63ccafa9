//! Actions, e.g. `Microsoft.ContainerService/managedClusters/read`, and the patterns that roles name them by.

/// The longest pattern that a role may have.
const MAX_PATTERN: usize = 256;

/// Whether a pattern matches an action. `*` matches any text, including the empty text and text with slashes.
pub fn matches(pattern: &str, action: &str) -> bool {
    let (pattern, action) = (pattern.as_bytes(), action.as_bytes());
    let (mut p, mut a) = (0, 0);
    // For the last star: the position in the pattern after it, and the end of the text that it has matched.
    let mut star: Option<(usize, usize)> = None;
    while a < action.len() {
        match pattern.get(p) {
            Some(b'*') => {
                p += 1;
                if p == pattern.len() {
                    // The last star matches the rest.
                    return true;
                }
                star = Some((p, a));
            }
            Some(byte) if byte.eq_ignore_ascii_case(&action[a]) => {
                p += 1;
                a += 1;
            }
            _ => {
                let Some((after, taken)) = star else { return false };
                star = Some((after, taken + 1));
                p = after;
                a = taken + 1;
            }
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// Whether a text may be a pattern of a role: `*` alone, or segments of letters, digits, `.`, `-`, `_` and `*`.
pub fn plain_pattern(text: &str) -> bool {
    let segment = |segment: &str| {
        !segment.is_empty()
            && segment
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b".-_*".contains(&byte))
    };
    text.len() <= MAX_PATTERN && (text == "*" || (text.contains('/') && text.split('/').all(segment)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn stars_stand_for_any_text_and_case_is_ignored() {
        for (pattern, action, expected) in [
            ("*", "Microsoft.X/things/read", true),
            ("*/read", "Microsoft.X/things/READ", true),
            ("*/read", "Microsoft.X/things/readers/action", false),
            ("*/read", "read", false),
            ("Microsoft.X/*/read", "microsoft.x/a/b/read", true),
            ("Microsoft.X/*/read", "Microsoft.X/read", false),
            ("Microsoft.X/*/read", "Microsoft.XY/a/read", false),
            ("Microsoft.X/things/*", "Microsoft.X/things/parts/delete", true),
            ("Microsoft.X/things/*", "Microsoft.X/things", false),
            ("Microsoft.X/things/read", "Microsoft.X/things/read", true),
            ("Microsoft.X/things/read", "Microsoft.X/things/rea", false),
            ("Microsoft.X/things/read", "Microsoft.X/things/reads", false),
            ("a*b*c", "a1b2b3c", true),
            ("a*b*c", "a1b2b3", false),
            ("", "", true),
            ("", "a", false),
            ("**", "", true),
        ] {
            assert_eq!(matches(pattern, action), expected, "{pattern} {action}");
        }
    }

    #[test]
    fn patterns_of_roles_are_plain() {
        for (text, expected) in [
            ("*", true),
            ("*/read", true),
            ("Microsoft.X/things/*/action", true),
            ("", false),
            ("read", false),
            ("Microsoft.X//read", false),
            ("/read", false),
            ("Microsoft.X/things/read ", false),
            ("Microsoft.X/thängs/read", false),
        ] {
            assert_eq!(plain_pattern(text), expected, "{text}");
        }
        assert!(!plain_pattern(&format!("a/{}", "b".repeat(MAX_PATTERN))));
    }

    /// The same by definition: each way to divide the action is tried.
    fn by_definition(pattern: &[u8], action: &[u8]) -> bool {
        match pattern.split_first() {
            None => action.is_empty(),
            Some((b'*', rest)) => (0..=action.len()).any(|taken| by_definition(rest, &action[taken..])),
            Some((byte, rest)) => action
                .split_first()
                .is_some_and(|(first, after)| byte.eq_ignore_ascii_case(first) && by_definition(rest, after)),
        }
    }

    proptest! {
        #[test]
        fn matching_is_what_it_is_by_definition(pattern in "[abA*/]{0,8}", action in "[abA/]{0,10}") {
            prop_assert_eq!(matches(&pattern, &action), by_definition(pattern.as_bytes(), action.as_bytes()));
        }

        #[test]
        fn a_pattern_without_stars_names_itself_alone(action in "[a-z./]{1,12}", other in "[a-z./]{1,12}") {
            prop_assert!(matches(&action, &action.to_ascii_uppercase()));
            prop_assert_eq!(matches(&action, &other), action == other);
        }

        #[test]
        fn any_text_is_matched_or_not(pattern in ".*", action in ".*") {
            let _ = matches(&pattern, &action);
            let _ = plain_pattern(&pattern);
        }
    }
}
