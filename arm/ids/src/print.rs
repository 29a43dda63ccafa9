//! From [`ResourcePath`] to text, in ARM's own casing of the fixed words.

use std::fmt::{self, Display, Write};

use crate::ResourcePath;

/// `/subscriptions/{s}`
pub fn subscription_id(subscription: &str) -> String {
    format!("/subscriptions/{}", Segment(subscription))
}

/// `/subscriptions/{s}/resourceGroups/{g}`
pub fn group_id(subscription: &str, group: &str) -> String {
    format!(
        "{}/resourceGroups/{}",
        subscription_id(subscription),
        Segment(group)
    )
}

/// The id of a resource in a group: `…/providers/{namespace}/{type}/{name}/…`.
pub fn resource_id(subscription: &str, group: &str, namespace: &str, pairs: &[(&str, &str)]) -> String {
    let mut id = format!(
        "{}/providers/{}",
        group_id(subscription, group),
        Segment(namespace)
    );
    for (kind, name) in pairs {
        // Writing to a String does not fail.
        let _ = write!(id, "/{}/{}", Segment(kind), Segment(name));
    }
    id
}

/// The canonical path: parsing it gives the same [`ResourcePath`] again. `/` for the empty path.
impl Display for ResourcePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.parent {
            Some(parent) => parent.fmt(f)?,
            None => {
                if let Some(subscription) = &self.subscription {
                    write!(f, "/subscriptions/{}", Segment(subscription))?;
                }
                if let Some(group) = &self.resource_group {
                    write!(f, "/resourceGroups/{}", Segment(group))?;
                }
            }
        }
        if let Some(namespace) = &self.namespace {
            write!(f, "/providers/{}", Segment(namespace))?;
        }
        for (level, kind) in self.types.iter().enumerate() {
            write!(f, "/{}", Segment(kind))?;
            if let Some(name) = self.names.get(level) {
                write!(f, "/{}", Segment(name))?;
            }
        }
        if self.subscription.is_none() && self.namespace.is_none() && self.types.is_empty() {
            f.write_char('/')?;
        }
        Ok(())
    }
}

/// A segment; only characters that would change the path's meaning are encoded, so that ids stay readable.
struct Segment<'a>(&'a str);

impl Display for Segment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        // A fast path: paths are printed several times per request, and names hardly ever have such a
        // character.
        while let Some(at) = rest.find(changes_meaning) {
            let (before, after) = rest.split_at(at);
            f.write_str(before)?;
            let mut chars = after.chars();
            if let Some(char) = chars.next() {
                let mut bytes = [0; 4];
                for byte in char.encode_utf8(&mut bytes).bytes() {
                    write!(f, "%{byte:02X}")?;
                }
            }
            rest = chars.as_str();
        }
        f.write_str(rest)
    }
}

fn changes_meaning(char: char) -> bool {
    matches!(char, '%' | '/' | '?' | '#' | ' ' | '\\') || char.is_control()
}
