//! Sets in rulesets.

/// An anonymous set.
pub(crate) fn set<T: std::fmt::Display>(elements: &[T]) -> String {
    let elements: Vec<String> = elements.iter().map(ToString::to_string).collect();
    format!("{{ {} }}", elements.join(", "))
}
