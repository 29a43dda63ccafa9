//! Tags: the same for all resources.

use crate::schema::Pattern;

/// The most tags of a resource.
pub const MAX_TAGS: usize = 50;

/// The form of tags, as property tables name it.
pub const TAGS: Pattern = Pattern {
    folds_case: true,
    ..Pattern::of_entries("tags", check_tag, MAX_TAGS)
};

/// Checks a tag.
///
/// # Errors
/// What it must be.
pub fn check_tag(name: &str, value: &str) -> Result<(), &'static str> {
    let forbidden = |char: char| char.is_control() || "<>%&\\?/".contains(char);
    if name.is_empty() || name.chars().count() > 512 || name.contains(forbidden) {
        return Err("a tag name of 1 to 512 characters without < > % & \\ ? /");
    }
    if value.chars().count() > 256 {
        return Err("a tag value of at most 256 characters");
    }
    Ok(())
}
