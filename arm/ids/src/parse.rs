//! From text to [`ResourcePath`].

use crate::{ResourcePath, decode};

/// The longest path, in bytes as sent.
pub const MAX_PATH_BYTES: usize = 8192;
/// The most segments of a path.
pub const MAX_SEGMENTS: usize = 64;
/// The longest segment, in characters after decoding (the longest name that ARM allows).
pub const MAX_SEGMENT_CHARS: usize = 260;

/// Why a path cannot be one of ARM's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Longer than [`MAX_PATH_BYTES`].
    #[error("the path has {0} bytes; at most {MAX_PATH_BYTES} are allowed")]
    TooLong(usize),
    /// More than [`MAX_SEGMENTS`].
    #[error("the path has more than {MAX_SEGMENTS} segments")]
    TooDeep,
    /// Longer than [`MAX_SEGMENT_CHARS`]; which one, from 1.
    #[error("segment {0} of the path has more than {MAX_SEGMENT_CHARS} characters")]
    SegmentTooLong(usize),
    /// Bad percent-encoding, or not UTF-8 behind it; which one, from 1.
    #[error("segment {0} of the path is not percent-encoded UTF-8")]
    Encoding(usize),
    /// A control character, or `.` or `..`; which one, from 1.
    #[error("segment {0} of the path holds characters that no name can have")]
    Characters(usize),
}

impl ResourcePath {
    /// Parses a path without scheme, host and query.
    ///
    /// # Errors
    /// When the path is too long, too deep, or not percent-encoded UTF-8 without control characters.
    pub fn parse(path: &str) -> Result<Self, PathError> {
        if path.len() > MAX_PATH_BYTES {
            return Err(PathError::TooLong(path.len()));
        }
        let mut segments = Vec::new();
        for raw in path.split('/').filter(|raw| !raw.is_empty()) {
            if segments.len() == MAX_SEGMENTS {
                return Err(PathError::TooDeep);
            }
            segments.push(segment(raw, segments.len() + 1)?);
        }
        Ok(walk(segments))
    }
}

/// Decodes and checks one segment.
fn segment(raw: &str, position: usize) -> Result<String, PathError> {
    let text = decode(raw).ok_or(PathError::Encoding(position))?;
    if text.is_empty() || text == "." || text == ".." || text.chars().any(char::is_control) {
        return Err(PathError::Characters(position));
    }
    // No text has more characters than bytes.
    if text.len() > MAX_SEGMENT_CHARS && text.chars().count() > MAX_SEGMENT_CHARS {
        return Err(PathError::SegmentTooLong(position));
    }
    Ok(text)
}

/// Sorts decoded segments into scope, namespace, types and names.
fn walk(segments: Vec<String>) -> ResourcePath {
    let mut path = ResourcePath::default();
    let mut rest = segments.into_iter().peekable();
    if let Some(id) = keyword(&mut rest, "subscriptions", &mut path.types) {
        path.subscription = Some(id);
        if let Some(name) = keyword(&mut rest, "resourceGroups", &mut path.types) {
            path.resource_group = Some(name);
        }
    }
    // A resource that happens to be named `providers` is consumed here, together with its type.
    while let Some(kind) = rest.next() {
        let Some(name) = rest.next() else {
            path.types.push(kind);
            break;
        };
        // Right behind a namespace it is a type of that: `Microsoft.Features/providers/{namespace}/features/{name}`.
        let is_type = path.namespace.is_some() && path.types.is_empty();
        if kind.eq_ignore_ascii_case("providers") && !is_type {
            if path.namespace.is_some() || !path.types.is_empty() {
                let below = ResourcePath {
                    subscription: path.subscription.clone(),
                    resource_group: path.resource_group.clone(),
                    ..ResourcePath::default()
                };
                let above = std::mem::replace(&mut path, below);
                path.parent = Some(Box::new(above));
            }
            path.namespace = Some(name);
        } else {
            path.types.push(kind);
            path.names.push(name);
        }
    }
    path
}

/// Takes `{word}/{value}`; a bare `{word}` at the end is the collection and goes to `types`.
fn keyword(
    rest: &mut std::iter::Peekable<std::vec::IntoIter<String>>,
    word: &str,
    types: &mut Vec<String>,
) -> Option<String> {
    let found = rest.next_if(|segment| segment.eq_ignore_ascii_case(word))?;
    let value = rest.next();
    if value.is_none() {
        types.push(found);
    }
    value
}
